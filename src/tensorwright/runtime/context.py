# SPDX-License-Identifier: Apache-2.0
"""One execution at a time: its own memory, bound to code and weights that all contexts share."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn

import numpy as np

from tensorwright.backends.cpu import launch
from tensorwright.backends.cpu.launch import LoadedProgram
from tensorwright.errors import InputError
from tensorwright.ir.op import Array
from tensorwright.plan.interface import Equality, TensorInfo
from tensorwright.runtime.arena import Arena
from tensorwright.runtime.bindings import READABLE, Binding, accept_output, address, admit, check_names
from tensorwright.runtime.sizes import Shape, Sizes

_LINE: Final = 128  # keeps the barrier away from what workers write
_ndarray, _empty = np.ndarray, np.empty


class Context:
    """Runs an engine in memory of its own; made by `Engine.create_context`, cheap, for one thread at a time.

    Two threads running one context at the same moment is a mistake and gives InputError I107.
    """

    def __init__(
        self,
        program: LoadedProgram,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        equalities: Sequence[Equality] = (),
    ) -> None:
        first = launch.FIRST_TENSOR
        self._program = program
        self._set_interface(inputs, outputs)
        code = program.code
        arena_bytes = -(-code.arena_bytes // _LINE) * _LINE
        scratch_bytes = code.scratch_bytes * program.threads
        self._arena = Arena(arena_bytes + scratch_bytes + program.barrier_bytes)
        self._table = (ctypes.c_uint64 * (first + len(inputs) + len(outputs)))()
        self._table_address = ctypes.addressof(self._table)
        self._table[launch.ARENA] = self._arena.address
        self._table[launch.SCRATCH] = self._arena.address + arena_bytes
        self._table[launch.BARRIER] = self._arena.address + arena_bytes + scratch_bytes
        self._table[launch.WEIGHTS] = program.weights.ctypes.data
        self._sizes: Sizes | None = None
        if code.symbols:
            self._sizes = Sizes(inputs, outputs, code.symbols, decided=code.decided, equalities=equalities)
            table: Array = np.zeros(1 + self._sizes.slots, np.int64)
            self._fault, self._dims = table[:1], table[1:]
            self._table[launch.DIMS] = self._dims.ctypes.data
            # shapes of inputs and outputs that the table of sizes holds now, where nothing else decides them
            self._repeated: tuple[Sequence[Shape], Sequence[Shape]] | None = None

    def _set_interface(self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
        first = launch.FIRST_TENSOR
        self._inputs = [Binding(info, first + i) for i, info in enumerate(inputs)]
        self._outputs = [Binding(info, first + len(inputs) + i) for i, info in enumerate(outputs)]
        self._lock = threading.Lock()
        self._closed = False

    @property
    def memory_bytes(self) -> int:
        """What this context takes for itself."""
        return self._arena.size_bytes

    def run(self, feeds: Mapping[str, Any], out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Run on `feeds` (input name -> array); returns output name -> array.

        `out` gives arrays to write some or all outputs into: exact dtype and shape, C-contiguous, memory of their own.
        Raises InputError (I101 to I108).
        """
        try:
            arrays = [feeds[b.name] for b in self._inputs]
            if len(feeds) != len(arrays):
                raise KeyError
        except KeyError:
            check_names(feeds, self._inputs, "input", all_needed=True)
            raise
        results = self.execute(arrays, out)
        return {b.name: result for b, result in zip(self._outputs, results, strict=True)}

    def execute(self, arrays: Sequence[Any], out: Mapping[str, Array] | None = None) -> list[Array]:
        """As `run`, with inputs and outputs in declared order."""
        return self.execute_sized(arrays, out, {})

    def execute_sized(
        self, arrays: Sequence[Any], out: Mapping[str, Array] | None, known: dict[str, int]
    ) -> list[Array]:
        """As `execute`; `known` tells sizes that the shapes of the inputs do not, and learns those of this run."""
        if not self._lock.acquire(blocking=False):
            self._refuse()
        try:
            self._check_open()
            keep, results = self._bind(arrays, out, known)
            self._program.run(self._table_address)
            del keep
            return results if self._sizes is None else self._settled(self._sizes, results, known)
        finally:
            self._lock.release()

    def execute_profiled(self, arrays: Sequence[Any], repeat: int) -> Array:
        """Run `repeat` times step by step; returns i64[repeat, steps, 2], the start and end of each step in ns."""
        times: Array = np.zeros((repeat, len(self._program.code.steps), 2), np.int64)
        for one in times:
            self.execute_timed(arrays, one)
        return times

    def execute_timed(self, arrays: Sequence[Any], times: Array, known: dict[str, int] | None = None) -> list[Array]:
        """As `execute`, with the start and end of each step in ns written to `times`, i64[steps, 2]; `known` as in
        `execute_sized`."""
        known = {} if known is None else known
        with self._lock:
            self._check_open()
            keep, results = self._bind(arrays, None, known)
            self.enter(times)
            del keep
            return results if self._sizes is None else self._settled(self._sizes, results, known)

    @property
    def decides_sizes(self) -> bool:
        """Whether a run finds sizes in the data."""
        return bool(self._program.code.decided)

    def set_sizes(self, shapes: Sequence[Shape], known: Mapping[str, int]) -> list[Shape]:
        """Tell the code the sizes of the runs to come, for whoever writes `table`: the shapes of all inputs, and sizes
        that these do not tell. Returns the shapes of the outputs. Raises InputError as `Sizes.resolve`."""
        if self._sizes is None:
            return [binding.shape for binding in self._outputs]
        self._repeated = None
        self._dims[:], made = self._sizes.resolve(shapes, known)
        return made

    @property
    def table(self) -> Any:
        """The addresses that native code reads, by slot, for whoever writes them instead of passing arrays to `run`."""
        return self._table

    def enter(self, times: Array | None = None) -> None:
        """Run on what the table holds now, without any check; `times` as `execute_timed`."""
        if times is None:
            self._program.run(self._table_address)
            return
        self._table[launch.PROFILE] = times.ctypes.data
        self._program.run_profiled(self._table_address)
        self._table[launch.PROFILE] = 0

    def close(self) -> None:
        """Give the memory back (waits for a run in progress); later runs raise InputError I108."""
        self._closed = True
        with self._lock:
            self._arena.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(
                "this engine or context is closed", do="run before closing, or load the plan again", code="I108"
            )

    def _refuse(self) -> NoReturn:
        self._check_open()
        raise InputError(
            "this context is already running on another thread",
            code="I107",
            do="create one context per thread, or call the engine, which any number of threads may do",
        )

    def _bind(
        self, arrays: Sequence[Any], out: Mapping[str, Array] | None, known: Mapping[str, int]
    ) -> tuple[list[Array], list[Array]]:
        """Put the addresses of all inputs and outputs into the table; returns (inputs to keep alive, outputs)."""
        if self._sizes is not None:
            return self._bind_sized(self._sizes, arrays, out, known)
        table = self._table
        keep: list[Array] = []
        for binding, array in zip(self._inputs, arrays, strict=True):
            if (
                type(array) is not _ndarray
                or array.dtype is not binding.dtype
                or array.shape != binding.shape
                or array.flags.num & READABLE != READABLE
            ):
                array = admit(array, binding)
            keep.append(array)
            table[binding.slot] = address(array)
        if out is not None:
            return keep, self._bind_given(out, keep)
        results: list[Array] = []
        for binding in self._outputs:
            result: Array = _empty(binding.shape, binding.dtype)
            table[binding.slot] = address(result)
            results.append(result)
        return keep, results

    def _bind_sized(
        self, sizes: Sizes, arrays: Sequence[Any], out: Mapping[str, Array] | None, known: Mapping[str, int]
    ) -> tuple[list[Array], list[Array]]:
        """As `_bind`, where shapes may differ from run to run."""
        if self._repeated is not None and out is None:
            bound = self._bind_repeated(arrays, *self._repeated)
            if bound is not None:
                return bound
        keep = [admit(array, binding) for array, binding in zip(arrays, self._inputs, strict=True)]
        self._repeated, self._fault[0] = None, 0
        self._dims[:], shapes = sizes.resolve([array.shape for array in keep], known)
        for binding, array in zip(self._inputs, keep, strict=True):
            self._table[binding.slot] = address(array)
        if out is not None:
            check_names(out, self._outputs, "output", all_needed=False)
        results: list[Array] = []
        for binding, shape in zip(self._outputs, shapes, strict=True):
            given = out.get(binding.name) if out is not None else None
            if given is not None and sizes.decided(len(results), self._dims) is not None:
                raise InputError(
                    f"output {binding.name!r} cannot be written into a given array",
                    where=f"output {binding.name!r}",
                    why=f"the data decides its shape, {binding.info}",
                    do="leave it out of out=, and take the array that the run returns",
                    code="I105",
                )
            if given is None:
                result: Array = _empty(shape, binding.dtype)
            else:
                exact = Binding(TensorInfo(binding.name, binding.info.dtype, shape), binding.slot)
                result = accept_output(given, exact, [*keep, *results])
            self._table[binding.slot] = address(result)
            results.append(result)
        if not self.decides_sizes and not sizes.untold:
            self._repeated = [array.shape for array in keep], shapes
        return keep, results

    def _bind_repeated(
        self, arrays: Sequence[Any], given: Sequence[Shape], made: Sequence[Shape]
    ) -> tuple[list[Array], list[Array]] | None:
        """As `_bind` for arrays of the last run's shapes, whose sizes are in place; None where they are not."""
        table = self._table
        for binding, array, shape in zip(self._inputs, arrays, given, strict=True):
            if (
                type(array) is not _ndarray
                or array.dtype is not binding.dtype
                or array.shape != shape
                or array.flags.num & READABLE != READABLE
            ):
                return None
            table[binding.slot] = address(array)
        results: list[Array] = []
        for binding, shape in zip(self._outputs, made, strict=True):
            result: Array = _empty(shape, binding.dtype)
            table[binding.slot] = address(result)
            results.append(result)
        return list(arrays), results

    def _settled(self, sizes: Sizes, results: list[Array], known: dict[str, int]) -> list[Array]:
        """The results, those whose size the data decided cut to it. Raises InputError I131 for one out of bounds."""
        if not self.decides_sizes:
            return results
        if self._fault[0]:
            sizes.refuse(int(self._fault[0]) - 1)
        known.update(sizes.values(self._dims))
        settled = []
        for index, result in enumerate(results):
            shape = sizes.decided(index, self._dims)
            if shape is not None and shape != result.shape:
                result = result.reshape(-1)[: math.prod(shape)].reshape(shape).copy()
            settled.append(result)
        return settled

    def _bind_given(self, out: Mapping[str, Array], inputs: list[Array]) -> list[Array]:
        check_names(out, self._outputs, "output", all_needed=False)
        results: list[Array] = []
        for binding in self._outputs:
            given = out.get(binding.name)
            result = (
                _empty(binding.shape, binding.dtype)
                if given is None
                else accept_output(given, binding, [*inputs, *results])
            )
            self._table[binding.slot] = address(result)
            results.append(result)
        return results
