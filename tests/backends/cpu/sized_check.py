# SPDX-License-Identifier: Apache-2.0
"""Kernels of symbolic workloads against NumPy: code made once, run at many sizes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tensorwright import ops as o
from tensorwright.backends.base import Accept, accepted
from tensorwright.backends.cpu.assemble import assemble
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.launch import LoadedProgram
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, Symbol, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder
from tensorwright.ir.op import Array, Op, with_dims
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.plan.interface import TensorInfo
from tensorwright.runtime.context import Context
from tensorwright.tune.verify import mismatch
from tensorwright.tune.workload import constants_of
from tests.suites.op_case import Spec, values

Shape = tuple[int | str, ...]
Bounds = Mapping[str, tuple[int, int, int]]  # symbol: low, opt, high


def symbols(bounds: Bounds) -> dict[str, SymDim]:
    """The dims called by these names."""
    return {
        name: SymDim.symbol(Symbol(name, low, opt, high, slot))
        for slot, (name, (low, opt, high)) in enumerate(bounds.items())
    }


def sized_graph(
    op: Op, inputs: Sequence[Shape | Array | Spec | None], dims: Mapping[str, SymDim], *, channels_last: bool = False
) -> Graph:
    """A graph of one op. A shape (f32) or Spec is an input, an array a constant; names in shapes and in the op's
    dims stand for symbols. With `channels_last` images (rank 3 or more) come with their channels last."""
    b = GraphBuilder("sized")
    operands = []
    for i, given in enumerate(inputs):
        if given is None:
            operands.append(None)
        elif isinstance(given, np.ndarray):
            operands.append(b.constant(given, f"c{i}"))
        else:
            shape, dtype = (given.shape, given.dtype) if isinstance(given, Spec) else (given, DType.f32)
            resolved: list[Dim] = [dims[d] if isinstance(d, str) else d for d in shape]
            if channels_last and len(resolved) >= 3:
                order = (0, len(resolved) - 1, *range(1, len(resolved) - 1))
                image = b.input(f"x{i}", TensorType(dtype, (resolved[0], *resolved[2:], resolved[1])))
                operands.append(b.add(o.Transpose(order), image)[0])
            else:
                operands.append(b.input(f"x{i}", TensorType(dtype, tuple(resolved))))
    b.output(b.add(op, *operands)[0], "y0")
    return b.finish()


def check_sized(
    op: Op,
    *inputs: Shape | Array | Spec | None,
    bounds: Bounds,
    at: Sequence[Mapping[str, int]] = (),
    families: Sequence[str] = (),
    candidates: int = 3,
    channels_last: bool = False,
) -> list[str]:
    """Build kernels of `op` for symbolic sizes and run each at many: the bounds, opt, and `at`.

    `inputs` are as in `sized_graph`. Every accepting family is run with its first `candidates` configurations; those
    in `families` must be among them (default: at least one must be). Returns the names of the families that were run.
    """
    dims = symbols(bounds)
    graph = sized_graph(op, inputs, dims, channels_last=channels_last)
    program, target = lower(graph), CpuTarget.probe()
    step = next(s for s in program.steps if s.node)
    steps = program.steps
    found = {f.name: f for f in FAMILIES if isinstance(accepted(f, step.workload, target), Accept)}
    missing = [name for name in families if name not in found]
    reasons = {f.name: accepted(f, step.workload, target) for f in FAMILIES if f.name in missing or not found}
    assert found and not missing, f"{step.workload.key}: not run by {missing or 'any family'}: {reasons}"
    points = [
        dict(zip(bounds, p, strict=True)) for p in itertools.product(*(dict.fromkeys(b) for b in bounds.values()))
    ]
    rng = np.random.default_rng()
    for name in families or found:
        family = found[name]
        for config in itertools.islice(family.candidates(step.workload.at_opt(), target), candidates):
            kernels = []
            for number, s in enumerate(steps):
                own = (
                    family
                    if s is step
                    else next(f for f in FAMILIES if isinstance(accepted(f, s.workload, target), Accept))
                )
                chosen = config if s is step else next(iter(own.candidates(s.workload.at_opt(), target)))
                constants = constants_of(program, s.inputs)
                kernels.append(own.emit(s.workload, chosen, target, f"k{number}", constants))
            loaded = LoadedProgram(assemble(program, kernels, target))
            context = Context(
                loaded,
                [TensorInfo.of(v.name, v.type) for v in graph.inputs],
                [TensorInfo.of(n, v.type) for n, v in zip(graph.output_names, graph.outputs, strict=True)],
            )
            for point in [*points, *at]:
                what = f"{name} {config} at {point}: {step.workload.key}"
                _run(op, inputs, context, point, rng, what, channels_last=channels_last)
            context.close()
            loaded.close()
    return list(families or found)


def _run(
    op: Op,
    inputs: Sequence[Shape | Array | Spec | None],
    context: Context,
    point: Mapping[str, int],
    rng: np.random.Generator,
    what: str,
    *,
    channels_last: bool = False,
) -> None:
    arrays: list[Array | None] = []
    feeds: dict[str, Array] = {}
    for i, given in enumerate(inputs):
        if given is None or isinstance(given, np.ndarray):
            arrays.append(given)
            continue
        spec = given if isinstance(given, Spec) else Spec(given)  # type: ignore[arg-type]
        shape = tuple(point[d] if isinstance(d, str) else d for d in spec.shape)
        made = values(Spec(shape, spec.kind, spec.dtype), rng)
        arrays.append(made)
        is_image = channels_last and made.ndim >= 3
        feeds[f"x{i}"] = np.ascontiguousarray(np.moveaxis(made, 1, -1)) if is_image else made
    with np.errstate(all="ignore"):
        want = with_dims(op, point).reference(*arrays)
    context._arena.bytes[: context._program.code.arena_bytes] = 0xFF
    got = context.run(feeds, {"y0": np.full(want[0].shape, 85, want[0].dtype)})
    reason = mismatch(op, [got["y0"]], want)
    assert not reason, f"{what}: {reason}"
