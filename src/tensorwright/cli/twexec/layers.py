# SPDX-License-Identifier: Apache-2.0
"""The layers of an engine as trtexec's readers know them: one for each step, named by the model's nodes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tensorwright.ir.dims import Dim
from tensorwright.ir.op import Array
from tensorwright.plan.format import malformed
from tensorwright.plan.plan import Native, Plan
from tensorwright.plan.schedule import HostSegment, NativeSegment, Schedule, bodies_of

_TYPES: Final = {"f32": "FP32", "f16": "FP16", "bf16": "BFLOAT16", "f64": "FLOAT64", "bool": "BOOL"} | {
    f"{kind}{bits}": f"{word}{bits}" for kind, word in (("i", "INT"), ("u", "UINT")) for bits in (8, 16, 32, 64)
}
_OPERAND: Final = re.compile(r"(const )?(\w+)\[([^\[\]:]*)(?::([^\[\]]*))?\]")
_NODES: Final = "\x1e"  # parts the nodes of a layer's metadata


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a layer reads or makes. Dims that a run decides are -1."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    order: str = "Row major linear"

    def as_dict(self) -> dict[str, object]:
        """As trtexec's layer files have it."""
        return {
            "Name": self.name,
            "Location": "Host",
            "Dimensions": list(self.dims),
            "Format/Datatype": f"{self.order} {_TYPES.get(self.dtype, 'N/A')} format",
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """One step: the nodes that it came from, what it computes, and by which kernel."""

    step: str
    origin: tuple[str, ...]
    op: str
    kernel: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """The nodes of the model, joined; the step's own name where it has none. `label` where that is given."""
        return self.label or " + ".join(self.origin) or self.step

    def as_dict(self, format: str = "") -> dict[str, object]:
        """As trtexec's layer files have it. `format`: of the model, for the names of its nodes."""
        names = dict(zip(("Weights", "Bias"), self.weights, strict=False))
        return {
            "Name": self.name,
            "LayerType": _camel(self.op),
            "Inputs": [tensor.as_dict() for tensor in self.inputs],
            "Outputs": [tensor.as_dict() for tensor in self.outputs],
            "ParameterType": _camel(self.op.partition("+")[0]),
            "Operation": self.op,
            **{name: {"Type": _TYPES.get(w.dtype, w.dtype), "Count": math.prod(w.dims)} for name, w in names.items()},
            "TacticName": self.kernel,
            "StreamId": 0,
            "Metadata": _NODES.join(f"[{format} Layer: {name}]".replace("[ ", "[") for name in self.origin),
        }


def layers_of(plan: Plan, *, is_reference: bool = False) -> list[Layer]:
    """The layers of a plan in the order in which its contexts report steps. Names are unique: where several steps came
    from the same nodes, the later ones are called by their step as well.

    Raises PlanError P106 when the plan does not describe its steps as documented.
    """
    try:
        if is_reference:
            found = _of_graph(plan.graph, plan.constants)
        elif plan.schedule is None:
            found = _of_native(plan.native["cpu"])
        else:
            found = list(_of_schedule(plan.schedule, plan))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise malformed("description of the steps", plan.name, f"{type(error).__name__}: {error}") from error
    seen: set[str] = set()
    for i, layer in enumerate(found):
        if layer.name in seen:
            found[i] = replace(layer, label=f"{layer.name} [{layer.step}]")
        seen.add(found[i].name)
    return found


def _of_schedule(schedule: Schedule, plan: Plan) -> Iterator[Layer]:
    for segment in schedule.segments:
        if isinstance(segment, NativeSegment):
            yield from _of_native(plan.native[segment.key])
        elif isinstance(segment, HostSegment):
            yield from _of_graph(segment.graph, plan.constants)
        else:
            for body in bodies_of(segment):
                yield from _of_schedule(body.schedule, plan)


def _of_native(native: Native) -> list[Layer]:
    program = native.program
    names = [str(row[0]) for row in program["buffers"]]
    return [_of_step(step, names) for step in program["steps"]]


def _of_step(step: Mapping[str, Any], names: list[str]) -> Layer:
    """A step of a program. Its workload text says the types: `op[...](f32[1,3], const f32[3]) -> f32[1]`."""
    left, _, right = step["workload"].rpartition(") -> ")
    right = right.partition(" where ")[0]
    begin = _open(left)
    read, made = _tensors(left[begin + 1 :], step["inputs"], names), _tensors(right, step["outputs"], names)
    return Layer(
        step["name"],
        tuple(step["origin"]),
        _operation(left[: max(begin, 0)]),
        step["kernel"].strip(),
        tuple(tensor for tensor, is_constant in read if not is_constant),
        tuple(tensor for tensor, _ in made),
        tuple(tensor for tensor, is_constant in read if is_constant),
    )


def _tensors(text: str, rows: Sequence[Any], names: Sequence[str]) -> list[tuple[Tensor, bool]]:
    """The operands that a text lists, by the names of their buffers, and whether each is constant."""
    found = [names[row[0]] for row in rows if row is not None]
    return [
        (_tensor(name, (dtype, dims, strides)), bool(constant))
        for name, (constant, dtype, dims, strides) in zip(found, _OPERAND.findall(text), strict=False)
    ]


def _open(text: str) -> int:
    """Where the last bracket of `op[...](operands` opens that is not closed."""
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[i], 0)
        if depth < 0:
            return i
    return -1


def _operation(left: str) -> str:
    """The kind of the op; of a fused one, its parts."""
    kind = re.match(r"\w+", left)
    if kind is None or kind.group() != "fused":
        return kind.group() if kind else ""
    anchor = re.search(r"anchor=(\w+)", left)
    body = re.search(r"body=\((.*)", left)
    parts = re.findall(r"([a-z_]\w*)[\[(]", body.group(1)) if body else []
    return "+".join(dict.fromkeys([*([anchor.group(1)] if anchor else []), *parts])) or "fused"


def _tensor(name: str, operand: tuple[str, str, str]) -> Tensor:
    dtype, dims, strides = operand
    sizes = tuple(int(d) if d.isdecimal() else -1 for d in _dims(dims))
    if not strides:
        return Tensor(name, dtype, sizes)
    return Tensor(name, dtype, sizes, "Channel last" if len(sizes) > 2 and _dims(strides)[1] == "1" else "Strided")


def _dims(text: str) -> list[str]:
    """Between commas outside of brackets: a dim may be a call such as max(h,1)."""
    return [part.strip() for part in re.findall(r"(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|[^,()])+", text)]


def _of_graph(text: str, constants: Mapping[str, Array]) -> list[Layer]:
    import tensorwright.ops  # noqa: F401  registers the ops that the text names
    from tensorwright.ir.parse import parse_graph
    from tensorwright.ops.label import label

    def tensor(value: Any) -> Tensor:
        return Tensor(value.name, str(value.type.dtype.value), tuple(map(_size, value.type.shape)))

    return [
        Layer(
            node.name,
            node.origin,
            label(node.op),
            "numpy",
            tuple(tensor(value) for value in node.inputs if value is not None),
            tuple(tensor(value) for value in node.outputs if value is not None),
        )
        for node in parse_graph(text, constants).nodes
    ]


def _size(dim: Dim) -> int:
    return dim if isinstance(dim, int) else -1


def _camel(kind: str) -> str:
    """`max_pool` as `MaxPool`, and the parts of a fused one one after the other."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[_+:. ]", kind))
