# SPDX-License-Identifier: Apache-2.0
"""The memory plan, checked by playing a program over tagged memory: what a step reads must still be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.backends.base import Operand, Workload, row_major
from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.lower.memory import MemoryPlan, plan_memory
from tensorwright.lower.program import Buffer, Place, Program, Step, View
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Add, Neg
from tensorwright.ops.fused import Fused, Instr

POINTWISE = Fused(None, 1, (Instr(Neg(), (0,)),))
BINARY = Fused(None, 2, (Instr(Add(), (0, 1)),))
CONV = Convolution((1, 1), (0, 0, 0, 0), (1, 1), 1)
INPUT = Buffer("in", Place.input, 0, 1 << 20)


def view(buffer: Buffer, elems: int | None = None, offset: int = 0) -> View:
    count = buffer.size_bytes // 4 if elems is None else elems
    return View(buffer, offset, Operand(DType.f32, (count,), row_major((count,))))


def step(name: str, op: Op, inputs: list[View], output: View) -> Step:
    workload = Workload(op, tuple(v.operand for v in inputs), (output.operand,))
    return Step(name, workload, tuple(inputs), (output,), (name,))


def program(phases: list[list[Step]]) -> Program:
    steps = [s for phase in phases for s in phase]
    numbers = iter(range(len(steps)))
    views = [v for s in steps for v in (*s.inputs, *s.outputs) if v is not None]
    return Program(
        "test",
        (),
        (),
        tuple(steps),
        tuple(tuple(next(numbers) for _ in phase) for phase in phases),
        tuple(dict.fromkeys(v.buffer for v in views)),
        (),
    )


def arena(name: str, elems: int) -> Buffer:
    return Buffer(name, Place.arena, 0, 4 * elems)


Range = tuple[int, int]


def ranges(plan: MemoryPlan, views: Sequence[View | None]) -> list[Range]:
    """Bytes of the arena that the views cover."""
    inside = [v for v in views if v is not None and v.buffer.place is Place.arena]
    starts = [(plan.offsets[v.buffer] + 4 * v.offset, v) for v in inside]
    return [(start, start + 4 * v.operand.span_elems) for start, v in starts]


def meet(a: Range, b: Range) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def play(p: Program, plan: MemoryPlan, workspaces: list[int]) -> None:
    """Run over memory of (buffer name) tags, one per four bytes; steps of a phase may run interleaved."""
    tags = np.full(plan.arena_bytes // 4, None, object)
    for phase in p.phases:
        touched = []
        for number in phase:
            s, start = p.steps[number], plan.workspace_offsets[number]
            reads, writes = ranges(plan, s.inputs), ranges(plan, s.outputs)
            names = [v.buffer.name for v in s.inputs if v is not None and v.buffer.place is Place.arena]
            for (low, high), name in zip(reads, names, strict=True):
                assert (tags[low // 4 : high // 4] == name).all(), f"{s.name} reads {name}, which is lost"
            check_in_place(s, reads, writes)
            workspace = [(start, start + workspaces[number])] if workspaces[number] else []
            touched.append((s, reads, writes + workspace))
        for s, _, writes in touched:
            others = [r for t, reads, more in touched if t is not s for r in (*reads, *more)]
            assert not any(meet(w, r) for w in writes for r in others), f"{s.name} disturbs a step beside it"
        for s, _, writes in touched:
            for low, high in writes[::-1]:
                assert high <= plan.arena_bytes
                tags[low // 4 : -(-high // 4)] = s.outputs[0].buffer.name if (low, high) == writes[0] else "workspace"


def check_in_place(s: Step, reads: list[Range], writes: list[Range]) -> None:
    overlapping = [r for r in reads for w in writes if meet(r, w)]
    if overlapping:
        assert isinstance(s.workload.op, Fused) and s.workload.op.anchor is None, f"{s.name} overwrites what it reads"
        assert all(r == writes[0] for r in overlapping)


def check(p: Program, workspaces: list[int] | None = None) -> MemoryPlan:
    workspaces = workspaces or [0] * len(p.steps)
    plan = plan_memory(p, workspaces)
    assert plan.lower_bound_bytes <= plan.arena_bytes <= plan.naive_bytes
    for buffer, offset in plan.offsets.items():
        assert offset % 64 == 0 and offset + buffer.size_bytes <= plan.arena_bytes
    play(p, plan, workspaces)
    return plan


@st.composite
def programs(draw: Callable[..., object]) -> tuple[Program, list[int]]:
    """Random phases of random steps: whole and half reads, half writes (as of a concat), outputs, dead values."""

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))  # type: ignore[return-value]

    known: list[View] = []
    phases: list[list[Step]] = []
    for p in range(number(1, 8)):
        phase, new = [], []
        for k in range(number(1, 3)):
            name, op = f"p{p}s{k}", [POINTWISE, CONV, BINARY][number(0, 2)]
            source = known[number(0, len(known) - 1)] if known and number(0, 9) else view(INPUT, 5)
            other = known[number(0, len(known) - 1)] if known else source
            elems = source.operand.shape[0] if number(0, 1) else 2 * number(1, 40)
            target = view(arena(name, elems) if number(0, 9) else Buffer(name, Place.output, p * 3 + k, 4 * elems))
            inputs = [source, other] if op is BINARY else [source]
            if number(0, 4) == 0:  # two steps that write one half each
                half = elems // 2
                phase.append(step(name + "a", op, inputs, view(target.buffer, half)))
                phase.append(step(name + "b", op, [other] * len(inputs), view(target.buffer, elems - half, half)))
            else:
                phase.append(step(name, op, inputs, target))
            if target.buffer.place is Place.arena:
                new += [target, view(target.buffer, max(elems // 2, 1), elems - max(elems // 2, 1))]
        phases.append(phase)
        known += new
    made = program(phases)
    return made, [64 * number(0, 3) + number(0, 3) for _ in made.steps]


@settings(max_examples=300, deadline=None)
@given(programs())
def test_plan_of_random_program_keeps_every_value_until_its_last_reader(made: tuple[Program, list[int]]) -> None:
    check(*made)


def test_plan_of_chain_reuses_memory_up_to_the_lower_bound() -> None:
    values = [arena(f"v{i}", 1000) for i in range(10)]
    phases = [[step("s0", CONV, [view(INPUT)], view(values[0]))]]
    phases += [[step(f"s{i}", CONV, [view(values[i - 1])], view(values[i]))] for i in range(1, 10)]
    plan = check(program(phases))
    assert plan.arena_bytes == plan.lower_bound_bytes == 2 * 4032
    assert plan.naive_bytes == 10 * 4032 and not plan.in_place


def test_plan_of_pointwise_chain_writes_in_place() -> None:
    a, b, c = (arena(name, 1000) for name in "abc")
    plan = check(
        program(
            [
                [step("s0", CONV, [view(INPUT)], view(a))],
                [step("s1", POINTWISE, [view(a)], view(b))],
                [step("s2", BINARY, [view(b), view(INPUT, 1000)], view(c))],
            ]
        )
    )
    assert plan.in_place == (("b", "a"), ("c", "b"))
    assert plan.arena_bytes == 4032


@pytest.mark.parametrize("case", ["conv", "read_later", "read_beside", "half_read", "other_strides", "larger_result"])
def test_plan_when_overwriting_would_lose_data_keeps_both(case: str) -> None:
    a, b, c = arena("a", 1000), arena("b", 2000 if case == "larger_result" else 1000), arena("c", 1000)
    source, result = view(a), view(b)
    if case == "half_read":
        source = view(a, 1000 // 2, 500)
        result = view(b, 500)
    if case == "other_strides":
        matrix = Operand(DType.f32, (10, 100), (1, 10))
        source = replace(source, operand=matrix)
        result = replace(result, operand=Operand(DType.f32, (10, 100), (100, 1)))
    phases = [
        [step("s0", CONV, [view(INPUT)], view(a))],
        [step("s1", CONV if case == "conv" else POINTWISE, [source], result)],
    ]
    if case == "read_beside":
        phases[1].append(step("s2", POINTWISE, [view(a)], view(c)))
    if case == "read_later":
        phases.append([step("s2", POINTWISE, [view(a)], view(c))])
    assert not [pair for pair in check(program(phases)).in_place if pair[0] == "b"]


def test_plan_of_two_sums_of_the_same_dying_inputs_overwrites_only_once() -> None:
    a, b, c = (arena(name, 100) for name in "abc")
    plan = check(
        program(
            [
                [step("s0", CONV, [view(INPUT)], view(a)), step("s1", CONV, [view(INPUT)], view(b))],
                [step("s2", BINARY, [view(a), view(b)], view(c))],
            ]
        )
    )
    assert len(plan.in_place) == 1


def test_plan_of_workspaces_in_other_phases_shares_their_memory() -> None:
    phases = [[step(f"s{i}", CONV, [view(INPUT)], view(Buffer(f"o{i}", Place.output, i, 4)))] for i in range(3)]
    plan = check(program(phases), [1000, 4000, 2000])
    assert plan.arena_bytes == 4032


def test_plan_of_empty_program_needs_nothing() -> None:
    plan = check(program([]))
    assert (plan.arena_bytes, plan.naive_bytes, plan.lower_bound_bytes) == (0, 0, 0)


def test_plan_of_read_before_write_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="'s0' reads 'a' before anything has written it"):
        plan_memory(program([[step("s0", POINTWISE, [view(arena("a", 4))], view(arena("b", 4)))]]), [0])


def test_plan_of_same_program_is_the_same() -> None:
    values = [arena(f"v{i}", 100 + i % 3) for i in range(30)]
    phases = [[step("s0", CONV, [view(INPUT)], view(values[0]))]]
    phases += [
        [step(f"s{i}", CONV, [view(values[i // 2]), view(values[i - 1])], view(values[i]))] for i in range(1, 30)
    ]
    first, second = (plan_memory(program(phases), [0] * 30) for _ in range(2))
    assert first == second
