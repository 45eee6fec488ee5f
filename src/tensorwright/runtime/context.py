# SPDX-License-Identifier: Apache-2.0
"""One execution at a time: its own memory, bound to code and weights that all contexts share."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn

import numpy as np

from tensorwright.backends.cpu import launch
from tensorwright.backends.cpu.launch import LoadedProgram
from tensorwright.errors import InputError
from tensorwright.ir.op import Array
from tensorwright.plan.interface import TensorInfo
from tensorwright.runtime.arena import Arena
from tensorwright.runtime.bindings import READABLE, Binding, accept_output, address, admit, check_names

_LINE: Final = 128  # keeps the barrier away from what workers write
_ndarray, _empty = np.ndarray, np.empty


class Context:
    """Runs an engine in memory of its own; made by `Engine.create_context`, cheap, for one thread at a time.

    Two threads running one context at the same moment is a mistake and gives InputError I107.
    """

    def __init__(self, program: LoadedProgram, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
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
        if not self._lock.acquire(blocking=False):
            self._refuse()
        try:
            self._check_open()
            keep, results = self._bind(arrays, out)
            self._program.run(self._table_address)
            del keep
            return results
        finally:
            self._lock.release()

    def execute_profiled(self, arrays: Sequence[Any], repeat: int) -> Array:
        """Run `repeat` times step by step; returns i64[repeat, steps, 2], the start and end of each step in ns."""
        times: Array = np.zeros((repeat, len(self._program.code.steps), 2), np.int64)
        for one in times:
            self.execute_timed(arrays, one)
        return times

    def execute_timed(self, arrays: Sequence[Any], times: Array) -> list[Array]:
        """As `execute`, with the start and end of each step in ns written to `times`, i64[steps, 2]."""
        with self._lock:
            self._check_open()
            keep, results = self._bind(arrays, None)
            self._table[launch.PROFILE] = times.ctypes.data
            self._program.run_profiled(self._table_address)
            self._table[launch.PROFILE] = 0
            del keep
        return results

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

    def _bind(self, arrays: Sequence[Any], out: Mapping[str, Array] | None) -> tuple[list[Array], list[Array]]:
        """Put the addresses of all inputs and outputs into the table; returns (inputs to keep alive, outputs)."""
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
