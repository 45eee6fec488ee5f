# SPDX-License-Identifier: Apache-2.0
"""A built network, ready to run: immutable, shared between threads."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np

from tensorwright.backends.cpu.launch import LoadedProgram, cpu_code
from tensorwright.errors import InputError, PlanError
from tensorwright.ir.op import Array
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.plan import IMPORT_NOTES, Plan, save_plan
from tensorwright.plan.schedule import HostStep
from tensorwright.runtime.context import Context
from tensorwright.runtime.profile import StepTime, summarise
from tensorwright.runtime.segments import SegmentedContext, SegmentedProgram
from tensorwright.runtime.sizes import Sizes
from tensorwright.shapes import Range

_LOG = logging.getLogger("tensorwright")
_NAMED: Final = 5  # host steps in the line about them; the report has all
_MOST_IDLE: Final = 8  # contexts kept for later calls; more are made when more calls come at once, then dropped


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that an engine holds. `arena` and `scratch` are what each of `contexts` living contexts takes.

    `constants` are the network's own weights, kept for `save` and for other targets. Where they are mapped from the
    model's file or a plan, the system reads and drops their pages as it likes.
    """

    weights: int
    constants: int
    code: int
    arena: int
    scratch: int
    contexts: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.constants + self.code + self.contexts * (self.arena + self.scratch)

    def as_dict(self) -> dict[str, int]:
        """All items and the total, for JSON."""
        return {**dataclasses.asdict(self), "total": self.total}


def _program(plan: Plan, target: str, threads: int | None, where: str) -> LoadedProgram | SegmentedProgram:
    if target == "reference":
        return SegmentedProgram.reference(plan, where)
    if any(key not in plan.native for key in plan.native_keys):
        raise PlanError(
            "the plan holds no code for the CPU",
            where=where,
            why=f"it holds code for: {', '.join(plan.native) or 'no target'}",
            do="load it with tw.load, which makes the code",
            code="P105",
        )
    if plan.schedule is not None:
        return SegmentedProgram.of(plan, plan.schedule, threads, where)
    return LoadedProgram(cpu_code(plan.native["cpu"], where), threads)


def _host_note(steps: Sequence[HostStep]) -> str:
    """The line about steps that run in NumPy."""
    count = "1 host step" if len(steps) == 1 else f"{len(steps)} host steps"
    more = f" and {len(steps) - _NAMED} more" if len(steps) > _NAMED else ""
    return f"{count}, in NumPy and slow: {', '.join(map(str, steps[:_NAMED]))}{more}"


class Engine:
    """Runs a plan. Calls may come from any number of threads at once; each uses a context of its own.

    y = engine(x)                     # arrays in, array (or a tuple of arrays) out, in declared order
    out = engine.run({"data": x})     # dict in, dict out, by tensor name
    """

    def __init__(
        self, plan: Plan, *, target: str = "cpu", threads: int | None = None, notes: Sequence[str] = (), where: str = ""
    ) -> None:
        """Load the native CPU code of `plan` into this process; with target "reference", evaluate its graph in NumPy.

        `threads` bounds the workers of a run. `notes` are lines the user should know (`engine.notes`); `where` names
        the plan in errors. Raises PlanError P105 when the plan holds no code for the CPU.
        """
        self._plan = plan
        self._program: LoadedProgram | SegmentedProgram = _program(plan, target, threads, where or plan.name)
        said = plan.report.get(IMPORT_NOTES)
        notes = (*(map(str, said) if isinstance(said, list) else ()), *notes)
        self._host_steps = plan.schedule.host_steps if plan.schedule is not None and target != "reference" else ()
        if self._host_steps:
            notes = (*notes, _host_note(self._host_steps))
            _LOG.warning("%s: %s", where or plan.name, notes[-1])
        self.notes: tuple[str, ...] = tuple(notes)
        self._guard = threading.Lock()  # of the two lists below and _closed
        self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        self._idle: list[Context] = []
        self._closed = False
        self._returns_tuple = len(plan.outputs) != 1
        self._sizes = Sizes(plan.inputs, plan.outputs, plan.symbols, where or plan.name, equalities=plan.equalities)
        self._further = tuple(Engine(p, target=target, threads=threads, where=where) for p in plan.profiles)

    # -- description ------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """The network's name."""
        return self._plan.name

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each input, in the order of `engine(...)`."""
        return self._plan.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each output, in the order they are returned."""
        return self._plan.outputs

    @property
    def plan(self) -> Plan:
        """What this engine was made from."""
        return self._plan

    @property
    def threads(self) -> int:
        """Workers of a run."""
        return self._program.threads

    def report(self) -> dict[str, Any]:
        """What the build did and what the engine is, as plain JSON: the builder's report, steps, memory and notes."""
        steps = [{"name": s.name, "origin": list(s.origin), "kernel": s.kernel} for s in self._program.steps]
        return {
            **self._plan.report,
            "name": self.name,
            "producer": self._plan.producer,
            "target": self._program.fingerprint,
            "inputs": [str(i) for i in self.inputs],
            "outputs": [str(o) for o in self.outputs],
            "options": self._plan.options,
            "steps": steps,
            "host_steps": [step.as_dict() for step in self._host_steps],
            "memory": self.memory().as_dict(),
            "notes": list(self.notes),
        }

    def memory(self) -> Memory:
        """What the engine and its contexts hold now, item by item."""
        with self._guard:
            contexts = len(self._contexts)
        programs = self._program.native
        return Memory(
            weights=sum(p.code.weights.nbytes for p in programs),
            constants=sum(array.nbytes for array in self._plan.constants.values()),
            code=sum(p.code_bytes for p in programs),
            arena=sum(p.code.arena_bytes for p in programs),
            scratch=sum(p.code.scratch_bytes * p.threads for p in programs),
            contexts=contexts,
        )

    # -- shapes -----------------------------------------------------------------------------------
    @property
    def profiles(self) -> tuple[dict[str, Range], ...]:
        """The ranges of shapes that the engine was built for, each by input name. A run uses the first that fits.

        Inputs without shape (strings, sequences) and without bounds are left out.
        """
        return tuple(e._sizes.ranges() for e in (self, *self._further))

    def output_shapes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs for these shapes of the inputs, without a run. What only the data decides (the
        count of a NonZero) is as large as it can be, and -1 where that has no bound (results of some host steps).

        Raises InputError I101 (names), I103 (shapes that contradict each other) or I130 (out of range).
        """
        names = [info.name for info in self.inputs]
        if sorted(shapes) != sorted(names):
            raise InputError(
                "the names given do not fit the engine's inputs",
                why=f"given are {', '.join(map(repr, shapes))}",
                do=f"its inputs are {', '.join(map(str, self.inputs)) or 'none'}",
                code="I101",
            )
        given = [tuple(shapes[name]) for name in names]
        _, found = self._for(given)._sizes.resolve(given)
        return dict(zip([info.name for info in self.outputs], found, strict=True))

    def _for(self, shapes: Sequence[tuple[int, ...]]) -> Engine:
        """The first profile that takes inputs of these shapes. Raises InputError I130 when none of several does."""
        if not self._further:
            return self
        found = next((e for e in (self, *self._further) if e._sizes.fits(shapes)), None)
        if found is None:
            given = zip((info.name for info in self.inputs), shapes, strict=True)
            raise InputError(
                "the inputs have shapes outside of the ranges of all profiles",
                where=self.name,
                why=(
                    f"given     {', '.join(f'{name}: {list(shape)}' for name, shape in given)}",
                    *(
                        f"profile {i} {', '.join(f'{name}: {shapes}' for name, shapes in profile.items())}"
                        for i, profile in enumerate(self.profiles)
                    ),
                ),
                do="pass inputs within a range, or build the engine with another profile",
                code="I130",
            )
        return found

    # -- running ----------------------------------------------------------------------------------
    def __call__(self, *arrays: Any) -> Array | tuple[Array, ...]:
        """Run on one array per input, in declared order; one array back, or a tuple when there are several outputs."""
        if self._further:
            chosen = self._for([np.shape(array) for array in arrays])
            if chosen is not self:
                return chosen(*arrays)
        if len(arrays) != len(self._plan.inputs):
            raise InputError(
                f"the engine takes {len(self.inputs)} input arrays; {len(arrays)} were given",
                do=f"its inputs are {', '.join(map(str, self.inputs)) or 'none'}",
                code="I101",
            )
        context = self._borrow()
        try:
            results = context.execute(arrays)
        finally:
            self._give_back(context)
        return tuple(results) if self._returns_tuple else results[0]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Run on `feeds` (input name -> array); returns output name -> array.

        Raises InputError (I101 to I109, I130, I131).
        """
        if self._further:
            chosen = self._for([np.shape(feeds.get(info.name, ())) for info in self.inputs])
            if chosen is not self:
                return chosen.run(feeds)
        context = self._borrow()
        try:
            return context.run(feeds)
        finally:
            self._give_back(context)

    def profile(self, feeds: Mapping[str, Any], repeat: int = 20) -> list[StepTime]:
        """Time of each step on `feeds`, in execution order: the median of `repeat` runs (after two to warm up).

        Steps run one after the other here, all workers meeting after each, so the sum is a little above a real run.
        """
        context = self._borrow()
        try:
            context.run(feeds)
            arrays = [feeds[info.name] for info in self.inputs]
            times = context.execute_profiled(arrays, max(repeat, 1) + 2)[2:]
        finally:
            self._give_back(context)
        return summarise(times, self._program.steps)

    def create_context(self, profile: int = 0) -> Context:
        """A context for one thread, with memory of its own (`memory()` says how much). It runs one of `profiles`.

        Raises InputError I132 when there is no such profile.
        """
        if not 0 <= profile <= len(self._further):
            raise InputError(
                f"the engine has no profile {profile}",
                why=f"it was built for {1 + len(self._further)}, counted from 0",
                do="choose one of engine.profiles",
                code="I132",
            )
        if profile:
            return self._further[profile - 1].create_context()
        with self._guard:
            self._check_open()
            if isinstance(self._program, LoadedProgram):
                context = Context(self._program, self.inputs, self.outputs, self._plan.equalities)
            else:
                plan = self._plan
                context = SegmentedContext(self._program, plan.inputs, plan.outputs, plan.symbols, plan.equalities)
            self._contexts.add(context)
        return context

    def _borrow(self) -> Context:
        try:
            return self._idle.pop()
        except IndexError:
            return self.create_context()

    def _give_back(self, context: Context) -> None:
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(context)

    # -- life -------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan file, atomically.

        Raises PlanError P108 when that fails, P109 when the model's own file, from which weights are read, was changed
        since the build; an old plan file is then as it was.
        """
        self._check_open()
        save_plan(self._plan, path)

    def close(self) -> None:
        """Free code and all contexts' memory, after waiting for runs in progress. Later runs raise InputError I108."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            contexts = list(self._contexts)
        for context in contexts:
            context.close()
        self._idle.clear()
        self._program.close()
        for engine in self._further:
            engine.close()
        # What stays describes inputs and outputs; the mapped file goes.
        self._plan = dataclasses.replace(
            self._plan, graph="", constants={}, choices=(), native={}, schedule=None, profiles=()
        )

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(
                "this engine is closed", do="run and save before closing, or load the plan again", code="I108"
            )

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.name!r}: {', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))})"
