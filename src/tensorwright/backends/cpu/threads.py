# SPDX-License-Identifier: Apache-2.0
"""The process-wide pool of native workers, and the barrier that generated programs use between phases.

Execution is SPMD: every worker calls the same native `void entry(ptr argument, i64 tid, i64 nthreads)`. Workers
are Python daemon threads that enter native code once and stay there, so a job costs no interpreter time: the
caller writes one word per worker, and a worker that waited less than the spin bound sees it at once. After
the bound it sleeps in the kernel (futex), so an idle engine uses no CPU.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, Final

from tensorwright import knobs
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.target import CpuTarget, available_cores

BARRIER_BYTES: Final = 64
"""Size (and alignment) of the zero-initialised block that `emit_barrier` works on."""

# State of a pool, in bytes. Words that different threads write live on different cache lines.
_LOCK, _PENDING, _JOB, _SLOTS, _LINE = 0, 64, 128, 192, 64
_JOB_ARGUMENT, _JOB_THREADS = _JOB + 8, _JOB + 16
_SPIN = _JOB + 24

# Values of a worker's slot.
_IDLE, _POSTED, _ASLEEP, _STOP = range(4)

_CALLER_ASLEEP = 1 << 30  # flag in the count of pending workers
_BARRIER_SPIN = 1000  # pauses, some 10-40 us: longer than any phase imbalance worth a system call
_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE = 128, 129
_EVERYONE = (1 << 31) - 1


# -- emitted code -----------------------------------------------------------------------------------
def emit_pause(f: Function, target: CpuTarget) -> None:
    """Tell the core that this is a spin loop."""
    if target.is_arm:
        f.call("llvm.aarch64.hint", "void", f.const("i32", 1))
    else:
        f.call("llvm.x86.sse2.pause", "void")


def _emit_futex(f: Function, target: CpuTarget, word: Reg, operation: int, value: Reg | int) -> None:
    """futex(word, operation, value) without a timeout; spurious returns are the caller's loop's business."""
    f.module.declare("syscall", "i64", ["i64", "..."])
    number = 98 if target.is_arm else 202  # Linux system call numbers
    amount = value.ref if isinstance(value, Reg) else value
    f.line(f"call i64 (i64, ...) @syscall(i64 {number}, ptr {word.ref}, i32 {operation}, i32 {amount}, ptr null)")


def emit_barrier(f: Function, barrier: Reg, nthreads: Reg, target: CpuTarget) -> None:
    """Wait until all `nthreads` (i64) workers of the job are here; what they wrote before is then visible.

    `barrier` points to BARRIER_BYTES zeroed bytes, aligned to 64, which every worker of the job shares and which
    stay valid for any number of uses. One worker alone passes at once. Waiting spins for a bounded time, then sleeps:
    the barrier stays cheap to others when a worker has lost its core.
    """
    name = "tensorwright_barrier"
    if all(fn.name != name for fn in f.module.functions):
        _barrier_function(f.module, name, target)
    # The address travels as an integer: other threads write there, which a `noalias` argument would deny.
    f.call(name, "void", f.cast("ptrtoint", barrier, "i64"), nthreads)


def _barrier_function(module: Module, name: str, target: CpuTarget) -> None:
    """Arrivals are counted at +0; +4 is the generation (even; 1 is added while somebody sleeps on it)."""
    f = module.function(name, [("i64", "address"), ("i64", "nthreads")], private=True)
    count = f.cast("inttoptr", f.arg("address"), "ptr")
    generation = f.gep(count, 4, "i8")
    others = f.cast("trunc", f.arg("nthreads") - 1, "i32")

    def release() -> None:
        f.atomic_store(f.const("i32", 0), count, "monotonic")
        old = f.atomic_load("i32", generation)
        old = f.atomic_update("xchg", generation, f.binary("and", old, -2) + 2)
        with f.when(f.compare("ne", f.binary("and", old, 1), 0)):
            _emit_futex(f, target, generation, _FUTEX_WAKE_PRIVATE, _EVERYONE)

    with f.when(f.compare("sgt", f.arg("nthreads"), 1)):
        mine = f.binary("and", f.atomic_load("i32", generation), -2)  # cannot move on before this worker arrives
        arrived = f.atomic_update("add", count, f.const("i32", 1))
        f.branch(f.compare("eq", arrived, others), release, lambda: _emit_wait_generation(f, target, generation, mine))
    f.ret()


def _emit_wait_generation(f: Function, target: CpuTarget, generation: Reg, mine: Reg) -> None:
    def moved() -> Reg:
        return f.compare("ne", f.binary("and", f.atomic_load("i32", generation), -2), mine)

    _emit_spin(f, target, moved, f.i64(_BARRIER_SPIN))
    asleep = f.binary("or", mine, 1)
    with f.forever() as leave_when:
        leave_when(moved())
        f.compare_exchange(generation, mine, asleep)  # fails when moved, or when another sleeper has set it
        _emit_futex(f, target, generation, _FUTEX_WAIT_PRIVATE, asleep)


def _emit_spin(f: Function, target: CpuTarget, done: Any, bound: Reg) -> None:
    """Pause until `done()` (emits an i1) holds, at most `bound` times."""
    left = f.var("i64", bound)
    with f.forever() as leave_when:
        leave_when(done())
        leave_when(f.compare("eq", left.get(), 0))
        left.set(left.get() - 1)
        emit_pause(f, target)


def _pool_module(target: CpuTarget) -> Module:
    """`pool_run`, `worker_loop`, `pool_stop`, `spin`: see the docstrings of the emitters."""
    module = Module()
    _emit_pool_run(module, target)
    _emit_worker_loop(module, target)
    _emit_pool_stop(module, target)
    f = module.function("spin", [("i64", "count")])
    _emit_spin(f, target, lambda: f.const("i1", 0), f.arg("count"))
    f.ret()
    return module


def _emit_post(f: Function, target: CpuTarget, state: Reg, workers: Reg, value: int) -> None:
    """Write `value` to the slots of the first `workers` workers and wake those that sleep."""
    with f.loop(0, workers) as worker:
        slot = f.gep(state, worker * _LINE + _SLOTS, "i8")
        old = f.atomic_update("xchg", slot, f.const("i32", value))
        with f.when(f.compare("eq", old, _ASLEEP)):
            _emit_futex(f, target, slot, _FUTEX_WAKE_PRIVATE, 1)


def _emit_pool_run(module: Module, target: CpuTarget) -> None:
    """Run `job(argument, tid, threads)` on the caller and threads - 1 workers; if busy, on the caller alone."""
    f = module.function("pool_run", [("ptr", "state"), ("ptr", "job"), ("ptr", "argument"), ("i64", "threads")])
    state, entry, argument, threads = f.args

    def call_entry(count: Reg) -> None:
        f.call_address(entry, argument, f.i64(0), count)

    def together() -> None:
        f.store(entry, f.gep(state, _JOB, "i8"))
        f.store(argument, f.gep(state, _JOB_ARGUMENT, "i8"))
        f.store(threads, f.gep(state, _JOB_THREADS, "i8"))
        pending = f.gep(state, _PENDING, "i8")
        f.atomic_store(f.cast("trunc", threads - 1, "i32"), pending)
        _emit_post(f, target, state, threads - 1, _POSTED)
        call_entry(threads)
        _emit_wait_workers(f, target, pending, f.load("i64", f.gep(state, _SPIN, "i8")))
        f.atomic_store(f.const("i32", 0), state)

    free = f.var("i1", f.const("i1", 0))
    with f.when(f.compare("sgt", threads, 1)):
        free.set(f.compare_exchange(state, f.const("i32", 0), f.const("i32", 1)))
    f.branch(free.get(), together, lambda: call_entry(f.i64(1)))
    f.ret()


def _emit_wait_workers(f: Function, target: CpuTarget, pending: Reg, spin: Reg) -> None:
    def count() -> Reg:
        return f.binary("and", f.atomic_load("i32", pending), _CALLER_ASLEEP - 1)

    _emit_spin(f, target, lambda: f.compare("eq", count(), 0), spin)
    with f.forever() as leave_when:
        seen = count()
        leave_when(f.compare("eq", seen, 0))
        asleep = f.binary("or", seen, _CALLER_ASLEEP)
        f.compare_exchange(pending, seen, asleep)
        _emit_futex(f, target, pending, _FUTEX_WAIT_PRIVATE, asleep)


def _emit_worker_loop(module: Module, target: CpuTarget) -> None:
    """The life of worker `tid` (1, 2, ...): wait for its slot to be posted, run the job, count down."""
    f = module.function("worker_loop", [("ptr", "state"), ("i64", "tid")])
    state, tid = f.args
    slot = f.gep(state, tid * _LINE + (_SLOTS - _LINE), "i8")
    pending = f.gep(state, _PENDING, "i8")
    idle = f.const("i32", _IDLE)
    with f.forever() as leave_when:
        _emit_spin(
            f,
            target,
            lambda: f.compare("ne", f.atomic_load("i32", slot), _IDLE),
            f.load("i64", f.gep(state, _SPIN, "i8")),
        )
        with f.when(f.compare_exchange(slot, idle, f.const("i32", _ASLEEP))), f.forever() as awake_when:
            awake_when(f.compare("ne", f.atomic_load("i32", slot), _ASLEEP))
            _emit_futex(f, target, slot, _FUTEX_WAIT_PRIVATE, f.const("i32", _ASLEEP))
        leave_when(f.compare("eq", f.atomic_load("i32", slot), _STOP))
        f.atomic_store(idle, slot, "monotonic")  # before the job: the caller posts again only after the countdown
        entry = f.load("ptr", f.gep(state, _JOB, "i8"))
        argument = f.load("ptr", f.gep(state, _JOB_ARGUMENT, "i8"))
        threads = f.load("i64", f.gep(state, _JOB_THREADS, "i8"))
        f.call_address(entry, argument, tid, threads)
        old = f.atomic_update("sub", pending, f.const("i32", 1))
        with f.when(f.compare("eq", old, _CALLER_ASLEEP + 1)):
            _emit_futex(f, target, pending, _FUTEX_WAKE_PRIVATE, 1)
    f.ret()


def _emit_pool_stop(module: Module, target: CpuTarget) -> None:
    """Take the lock for good (later runs stay on their callers) and end the workers; whether it got the lock."""
    f = module.function("pool_stop", [("ptr", "state"), ("i64", "workers")], "i64")
    state, workers = f.args
    free = f.compare_exchange(state, f.const("i32", 0), f.const("i32", 1))
    with f.when(free):
        _emit_post(f, target, state, workers, _STOP)
    f.ret(f.cast("zext", free, "i64"))


# -- the pool ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Native:
    """The pool's code, callable from Python without the GIL; lives as long as the process."""

    code: LoadedCode
    pool_run: Any
    worker_loop: Any
    pool_stop: Any
    spins_per_us: float


@functools.cache
def _native() -> _Native:
    target = CpuTarget.probe()
    code = LoadedCode(compile_object(_pool_module(target).text(), target))
    word, address = ctypes.c_int64, ctypes.c_void_p
    spin = ctypes.CFUNCTYPE(None, word)(code.address("spin"))
    started = time.perf_counter_ns()
    spin(2000)
    spins_per_us = 2000 / max((time.perf_counter_ns() - started) / 1000, 1.0)
    return _Native(
        code,
        ctypes.CFUNCTYPE(None, address, address, address, word)(code.address("pool_run")),
        ctypes.CFUNCTYPE(None, address, word)(code.address("worker_loop")),
        ctypes.CFUNCTYPE(word, address, word)(code.address("pool_stop")),
        spins_per_us,
    )


class Pool:
    """Native worker threads that run one job at a time; started when first needed, restarted after a fork.

    `size` bounds the threads of a job, the caller included. A pool is safe to use from several Python threads:
    while one job runs, the jobs of other callers run on those callers alone.
    """

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self._memory = ctypes.create_string_buffer(_SLOTS + _LINE * self.size + _LINE)
        self._state = -(-ctypes.addressof(self._memory) // _LINE) * _LINE
        self._native = _native()
        self._run = self._native.pool_run
        self._workers = 0
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._starting = threading.Lock()
        self._reset()
        _POOLS.add(self)

    @staticmethod
    def shared() -> Pool:
        """The pool of this process, of `default_threads()`."""
        with _SHARING:
            return _shared()

    def run(self, entry: int, argument: int, threads: int) -> None:
        """Call native `void entry(ptr argument, i64 tid, i64 nthreads)` on min(threads, size) workers and wait for all.

        The caller is tid 0. nthreads is 1 when another job is running. Addresses are plain integers.
        """
        threads = min(threads, self.size)
        if threads > self._workers + 1:
            threads = self._start(threads - 1) + 1
        self._run(self._state, entry, argument, threads)

    def close(self) -> None:
        """Stop the workers (waits up to a second for a running job); later jobs run on their callers alone."""
        with self._starting:
            deadline = time.monotonic() + 1.0
            while not self._native.pool_stop(self._state, self._workers):
                if self._closed or time.monotonic() > deadline:
                    return
                time.sleep(1e-4)
            self._closed = True
            for thread in self._threads:
                thread.join(1.0)

    def _reset(self) -> None:
        """The state of a pool without workers; also of every pool in a forked child, where no worker exists."""
        ctypes.memset(self._state, 0, _SLOTS + _LINE * self.size)
        spins = int(knobs.SPIN_US.get() * self._native.spins_per_us)
        ctypes.c_int64.from_address(self._state + _SPIN).value = spins
        self._workers, self._threads, self._closed, self._starting = 0, [], False, threading.Lock()

    def _start(self, workers: int) -> int:
        """Have `workers` workers if the system grants them; how many of these there are."""
        with self._starting:
            while self._workers < workers and not self._closed:
                tid = self._workers + 1
                thread = threading.Thread(
                    target=_work,
                    args=(self._native, self._memory, self._state, tid),
                    name=f"tensorwright-{tid}",
                    daemon=True,
                )
                try:
                    thread.start()
                except RuntimeError as error:  # thread limit reached, or the interpreter is ending
                    knobs.logger("run").warning("no worker thread %d: %s", tid, error)
                    break
                self._threads.append(thread)
                self._workers = tid
            return min(self._workers, workers)


def _work(native: _Native, memory: Any, state: int, tid: int) -> None:
    """Body of a worker thread; `native` and `memory` are held so that they outlive the native loop."""
    native.worker_loop(state, tid)


def default_threads() -> int:
    """Threads of one inference: TENSORWRIGHT_THREADS, else by CPU affinity and cgroup quota."""
    return knobs.THREADS.get() or available_cores()


@functools.cache
def _shared() -> Pool:
    return Pool(default_threads())


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()
_SHARING = threading.RLock()


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _reset_all() -> None:
    global _SHARING
    _SHARING = threading.RLock()  # the parent may have held it
    for pool in list(_POOLS):
        pool._reset()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_reset_all)
