# SPDX-License-Identifier: Apache-2.0
"""Walks the steps of an engine beside the reference and finds the one where they part.

Each step runs its own kernel, as the engine has it (same family, configuration, strides and constants), twice: on
the inputs that the reference computed, which shows the error that the step makes itself, and on the inputs that the
engine's own steps computed, which shows the error that has gathered. A bad kernel spoils everything behind it, but only
its own step is bad on the reference's inputs. Steps of a body run once: of the branch taken, of the first iteration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.invoke import run_kernel
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.builder import cpu_target
from tensorwright.compare.difference import Difference, Tolerance, difference
from tensorwright.errors import BuildError
from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.op import Array, Op
from tensorwright.ir.parse import parse_graph
from tensorwright.lower.partition import Division, divide
from tensorwright.lower.program import Place, Program, Step, View
from tensorwright.ops.control_flow import ControlFlow, If, Loop, Scan, number
from tensorwright.ops.label import label
from tensorwright.plan.plan import Choice, Plan
from tensorwright.tune.search import unsupported
from tensorwright.tune.verify import mismatch
from tensorwright.tune.workload import array_of, constants_of

Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class StepDifference:
    """One step: `local` is its error on the reference's inputs, `gathered` on the engine's own.

    `origin` are the nodes of the model it computes; `fault` says why its kernel is wrong, "" when it is right.
    """

    step: str
    origin: tuple[str, ...]
    kernel: str
    local: Difference
    gathered: Difference
    fault: str

    def as_dict(self) -> dict[str, Any]:
        """The step for JSON."""
        return {
            "step": self.step,
            "origin": list(self.origin),
            "kernel": self.kernel,
            "fault": self.fault,
            "local": self.local.as_dict(),
            "gathered": self.gathered.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Localised:
    """All steps in execution order.

    `optimiser` compares the optimised graph with the imported one, both in the reference's arithmetic: a mismatch there
    is a fault of a pass. `program` compares the engine's outputs with what its steps give one by one: a mismatch there
    is a fault of how they are put together (memory, order).
    """

    steps: tuple[StepDifference, ...]
    optimiser: tuple[Difference, ...]
    program: tuple[Difference, ...]

    @property
    def faulty(self) -> StepDifference | None:
        """The first step whose kernel is wrong on right inputs."""
        return next((step for step in self.steps if step.fault), None)

    @property
    def beyond(self) -> StepDifference | None:
        """The first step whose gathered error is above the tolerance."""
        return next((step for step in self.steps if not step.gathered.passed), None)

    @property
    def agrees(self) -> bool:
        """Whether nothing was found: the engine computes what was imported."""
        outputs = (*self.optimiser, *self.program)
        return self.faulty is None and self.beyond is None and all(output.passed for output in outputs)

    @property
    def verdict(self) -> str:
        """What is at fault, in one sentence."""
        if self.faulty is not None:
            names = ", ".join(self.faulty.origin) or self.faulty.step
            return f"the first bad node is {names}: kernel {self.faulty.kernel}: {self.faulty.fault}"
        mixed = [output.name for output in self.program if not output.passed]
        if mixed:
            return f"every kernel is right by itself, but the engine as a whole gives another {', '.join(mixed)}"
        changed = [output.name for output in self.optimiser if not output.passed]
        if changed:
            return (
                f"every kernel is right, but the optimised graph computes another {', '.join(changed)}: bisect the "
                "edits with TENSORWRIGHT_STOP_AFTER_EDITS"
            )
        if self.beyond is not None:
            names = ", ".join(self.beyond.origin) or self.beyond.step
            return f"every kernel is right by itself; rounding gathers and is above the tolerance from {names} on"
        return "every step agrees"

    def as_dict(self) -> dict[str, Any]:
        """The walk for JSON."""
        faulty, beyond = self.faulty, self.beyond
        return {
            "verdict": self.verdict,
            "first_bad": list(faulty.origin) if faulty is not None else None,
            "first_beyond_tolerance": list(beyond.origin) if beyond is not None else None,
            "optimiser": [output.as_dict() for output in self.optimiser],
            "program": [output.as_dict() for output in self.program],
            "steps": [step.as_dict() for step in self.steps],
        }


def localise(
    plan: Plan,
    feeds: Arrays,
    found: Arrays,
    imported: Arrays,
    tolerance: Tolerance,
    *,
    target: str = "cpu",
    threads: int = 1,
) -> Localised:
    """Walk the plan's optimised graph step by step on `feeds` (input name to array).

    `found` are the engine's outputs and `imported` those of the model as it was imported (`reference_outputs`);
    `target` is the one that the plan was built for, and `threads` in how many shares each kernel's work is cut. Only
    what a later step reads is kept. Raises BuildError B113 when the plan has no choice for a step: it was built for
    another target.
    """
    walk = _Walk(plan, cpu_target(target), tolerance, threads)
    steps = tuple(walk.steps(feeds))
    names = [info.name for info in plan.outputs]
    return Localised(
        steps,
        optimiser=tuple(difference(name, walk.want[name], imported[name], tolerance) for name in names),
        program=tuple(difference(name, found[name], walk.got[name], tolerance) for name in names),
    )


class _Walk:
    """`want` and `got` hold the values between the parts of the graph, by name: the reference's and the engine's."""

    def __init__(self, plan: Plan, target: CpuTarget, tolerance: Tolerance, threads: int) -> None:
        self.plan, self.target, self.tolerance, self.threads = plan, target, tolerance, threads
        self.families = {family.name: family for family in FAMILIES}
        self.choices: dict[str, Choice] = {choice.workload: choice for choice in plan.choices}
        self.want: dict[str, Any] = {}
        self.got: dict[str, Any] = {}

    def steps(self, feeds: Arrays) -> Iterator[StepDifference]:
        """Every step, once; afterwards `want` and `got` hold the outputs by their names."""
        graph = parse_graph(self.plan.graph, self.plan.constants)
        for value in graph.inputs:
            self.want[value.name] = self.got[value.name] = feeds[value.name]
        yield from self._parts(divide(graph, self._refused))

    def _parts(self, division: Division) -> Iterator[StepDifference]:
        graph, parts = division.graph, division.parts
        readers = Counter(value.name for part in parts for value in part.graph.inputs)
        readers.update(value.name for value in graph.outputs)
        for part in parts:
            if part.control is not None:
                yield from self._body(part.control, part.bodies)
            if part.program is not None:
                yield from self._native(part.program)
            else:
                yield from self._host(part.graph)
            readers.subtract(value.name for value in part.graph.inputs)
            for name in [name for name in self.want if not readers[name] and name not in graph.output_names]:
                del self.want[name], self.got[name]
        for name, value in zip(graph.output_names, graph.outputs, strict=True):
            if name not in self.want:
                self.want[name], self.got[name] = self.want[value.name], self.got[value.name]

    def _refused(self, program: Program) -> dict[str, str]:
        lost = unsupported([step.workload for step in program.steps], self.target, FAMILIES)
        return {step.node: lost[step.workload.key] for step in program.steps if step.workload.key in lost}

    # -- bodies -----------------------------------------------------------------------------------
    def _body(self, node: Node, bodies: Mapping[str, Division]) -> Iterator[StepDifference]:
        """The steps of a body, once: of the branch that the reference takes, or of a first iteration."""
        sides = (self.want, self.got)
        runs = [_first_run(node.op, [None if v is None else side[v.name] for v in node.inputs]) for side in sides]
        if runs[0] is None or runs[1] is None or runs[0][0] != runs[1][0]:
            return  # no iteration, or the two sides part before: no step of the body is at fault
        body = bodies[runs[0][0]]
        names = [value.name for value in body.graph.inputs]
        self.want, self.got = (dict(zip(names, run[1], strict=True)) for run in runs if run is not None)
        yield from self._parts(body)
        self.want, self.got = sides

    # -- native parts -----------------------------------------------------------------------------
    def _native(self, program: Program) -> Iterator[StepDifference]:
        want, got = _Memory(program, self.want), _Memory(program, self.got)
        readers = Counter(view.buffer for step in program.steps for view in step.inputs if view is not None)
        for step in program.steps:
            yield self._step(program, step, want, got)
            readers.subtract(view.buffer for view in step.inputs if view is not None)
            for view in (*step.inputs, *step.outputs):
                if view is not None and view.buffer.place is Place.arena and not readers[view.buffer]:
                    want.drop(view)
                    got.drop(view)
        for index, output in enumerate(program.outputs):
            self.want[output.name], self.got[output.name] = want.output(index), got.output(index)

    def _step(self, program: Program, step: Step, want: _Memory, got: _Memory) -> StepDifference:
        label, run = self._kernel(program, step)
        right, own = want.read(step.inputs), got.read(step.inputs)
        with np.errstate(all="ignore"):
            expected = [np.asarray(a) for a in step.workload.op.reference(*right)]
        local = run(right)
        if not getattr(step.workload.op, "pure", True):
            expected = local  # drawn once, for both sides
        gathered = local if _equal(right, own) else run(own)
        fault = mismatch(step.workload.op, local, expected)
        want.write(step.outputs, expected)
        got.write(step.outputs, gathered)
        return StepDifference(
            step.name,
            step.origin,
            label,
            self._worst(step.name, local, expected),
            self._worst(step.name, gathered, expected),
            fault,
        )

    def _kernel(self, program: Program, step: Step) -> tuple[str, Any]:
        """The label of the step's kernel, and a function that runs it on the arrays of the step's inputs."""
        w, choice = step.workload, self.choices.get(step.workload.key)
        family = self.families.get(choice.family) if choice is not None else None
        if choice is None or family is None:
            raise BuildError(
                f"the plan does not say which kernel runs step {step.name!r}",
                where=self.plan.name,
                why=f"it was built for {self.plan.options.get('target')}",
                do="compare on the target that the plan was built for",
                code="B113",
            )
        config = family.config(**choice.config)
        kernel = family.emit(w, config, self.target, "kernel", constants_of(program, step.inputs))
        return f"{family.name} {config}", lambda arrays: run_kernel(w, kernel, self.target, arrays, self.threads)

    # -- host parts ---------------------------------------------------------------------------------
    def _host(self, graph: Graph) -> Iterator[StepDifference]:
        """Host nodes, and nodes with bodies as a whole, run the reference itself: the sides differ by their inputs."""
        constants = {value.name: array for value, array in graph.constants.items()}
        kept = {value.name for value in graph.outputs}
        for node in graph.nodes:
            right = self._host_results(node, {**self.want, **constants})
            pure = getattr(node.op, "pure", True)  # what is drawn at random is drawn once, for both sides
            own = self._host_results(node, {**self.got, **constants}) if pure else right
            self.want.update(zip((value.name for value in node.outputs), right, strict=True))
            self.got.update(zip((value.name for value in node.outputs), own, strict=True))
            yield self._host_step(node, right, own)
        for value, array in graph.constants.items():
            if value.name in kept:
                self.want[value.name] = self.got[value.name] = array

    def _host_results(self, node: Node, values: Mapping[str, Any]) -> tuple[Any, ...]:
        with np.errstate(all="ignore"):
            return node.op.reference(*(None if v is None else values[v.name] for v in node.inputs))

    def _host_step(self, node: Node, want: Sequence[Any], got: Sequence[Any]) -> StepDifference:
        same, gathered = self._worst(node.name, want, want), self._worst(node.name, got, want)
        kernel = f"all of {label(node.op)}" if isinstance(node.op, ControlFlow) else f"host {label(node.op)}"
        return StepDifference(node.name, node.origin, kernel, same, gathered, "")

    def _worst(self, name: str, got: Sequence[Any], want: Sequence[Any]) -> Difference:
        """The result that differs most."""
        found = [difference(name, a, b, self.tolerance) for a, b in zip(got, want, strict=True)]
        return max(found, key=lambda d: (not d.passed, d.max_abs))


class _Memory:
    """The buffers of a program, each as long as something reads it."""

    def __init__(self, program: Program, values: Arrays) -> None:
        self.program = program
        self._inputs = [np.ascontiguousarray(values[item.name]).reshape(-1) for item in program.inputs]
        self._outputs = [np.zeros(math.prod(o.type.static_shape), o.type.dtype.numpy) for o in program.outputs]
        self._arena: dict[int, Array] = {}

    def read(self, views: Sequence[View | None]) -> list[Array | None]:
        return [None if view is None else self._array(view).copy() for view in views]

    def write(self, views: Sequence[View], arrays: Sequence[Array]) -> None:
        for view, array in zip(views, arrays, strict=True):
            _strided(self._flat(view), view.offset, view.operand)[...] = array

    def drop(self, view: View) -> None:
        self._arena.pop(view.buffer.index, None)

    def output(self, index: int) -> Array:
        """An output of the program, in its shape."""
        return self._outputs[index].reshape(self.program.outputs[index].type.static_shape)

    def _array(self, view: View) -> Array:
        if view.buffer.place is Place.constant:
            return array_of(self.program.constants[view.buffer.index], view.offset, view.operand)
        return _strided(self._flat(view), view.offset, view.operand)

    def _flat(self, view: View) -> Array:
        """All elements of the view's buffer, as elements of its dtype."""
        buffer = view.buffer
        if buffer.place is Place.input:
            return self._inputs[buffer.index]
        if buffer.place is Place.output:
            return self._outputs[buffer.index]
        count = -(-buffer.size_bytes // view.operand.dtype.size_bytes)
        return self._arena.setdefault(buffer.index, np.zeros(count, view.operand.dtype.numpy))


def _strided(flat: Array, offset: int, operand: Operand) -> Array:
    return operand.over(flat[offset:])


def _first_run(op: Op, inputs: Sequence[Any]) -> tuple[str, list[Any]] | None:
    """The body that an op with these inputs enters first, and what it gives to it; None where it enters none."""
    if isinstance(op, If):
        return ("then_body" if number(inputs[0]) else "else_body"), list(inputs[1:])
    if isinstance(op, Loop):
        trips, condition, *values = inputs
        if (trips is not None and number(trips) < 1) or (condition is not None and not number(condition)):
            return None
        return "body", [np.zeros(op.body.inputs[0].type.static_shape, np.int64), *values]
    assert isinstance(op, Scan)
    ways = zip(inputs[op.carried : op.first_captured], op.input_axes, op.input_backwards, strict=True)
    rows = [np.moveaxis(x, axis, 0)[:: -1 if backwards else 1] for x, axis, backwards in ways]
    if not len(rows[0]):
        return None
    return "body", [*inputs[: op.carried], *(x[0, ...] for x in rows), *inputs[op.first_captured :]]


def _equal(first: Sequence[Array | None], second: Sequence[Array | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and a.tobytes() == b.tobytes())
        for a, b in zip(first, second, strict=True)
    )
