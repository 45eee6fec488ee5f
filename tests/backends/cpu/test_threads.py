# SPDX-License-Identifier: Apache-2.0
"""The worker pool and the barrier: every job is done once per worker, in all the ways a process can treat threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import BARRIER_BYTES, Pool, emit_barrier, emit_pause

ENTRY = [("ptr", "argument"), ("i64", "tid"), ("i64", "nthreads")]
ROUNDS = 300


def entries(target: CpuTarget) -> Module:
    """`count`: argument[tid] += 1, argument[15] = nthreads. `rounds`: a barrier program that checks itself."""
    module = Module()
    f = module.function("count", ENTRY)
    argument, tid, nthreads = f.args
    f.store(f.load("i64", argument, tid) + 1, argument, tid)
    with f.when(f.compare("eq", tid, 0)):
        f.store(nthreads, argument, 15)
    f.ret()

    # Slots of the workers at [8 + tid], errors at [31], the barrier at [32]: each round every worker publishes the
    # round and, after a barrier, must read it from all others.
    f = module.function("rounds", ENTRY)
    argument, tid, nthreads = f.args
    barrier = f.gep(argument, 32, "i64")
    with f.loop(1, ROUNDS + 1) as turn:
        with f.when(f.compare("eq", tid, turn % nthreads)), f.loop(0, 200):
            emit_pause(f, target)  # another worker is late in every round
        f.store(turn, argument, tid + 8)
        emit_barrier(f, barrier, nthreads, target)
        with f.loop(0, nthreads) as other:
            wrong = f.compare("ne", f.load("i64", argument, other + 8), turn)
            f.atomic_update("add", f.gep(argument, 31, "i64"), f.cast("zext", wrong, "i64"))
        emit_barrier(f, barrier, nthreads, target)
    f.ret()
    return module


@pytest.fixture(scope="module")
def code() -> Iterator[LoadedCode]:
    target = CpuTarget.probe()
    loaded = LoadedCode(compile_object(entries(target).text(), target))
    yield loaded
    loaded.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(4)
    yield pool
    pool.close()


def block() -> np.ndarray:
    """64 zeroed i64 on a cache line."""
    raw = np.zeros(72, np.int64)
    start = -raw.ctypes.data % 64 // 8
    return raw[start : start + 64]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_pool_many_runs_every_worker_runs_each_job_once(code: LoadedCode, pool: Pool, threads: int) -> None:
    argument = block()
    for _ in range(500):
        pool.run(code.address("count"), argument.ctypes.data, threads)
    assert argument[:8].tolist() == [500] * threads + [0] * (8 - threads)
    assert argument[15] == threads


def test_pool_changing_thread_counts_no_worker_runs_a_job_of_others(code: LoadedCode, pool: Pool) -> None:
    argument, expected = block(), np.zeros(8, np.int64)
    for threads in np.random.default_rng(5).integers(1, 5, 600).tolist():
        pool.run(code.address("count"), argument.ctypes.data, threads)
        expected[:threads] += 1
    assert argument[:8].tolist() == expected.tolist()


def test_pool_more_threads_than_size_runs_on_size_threads(code: LoadedCode, pool: Pool) -> None:
    argument = block()
    pool.run(code.address("count"), argument.ctypes.data, 99)
    assert argument[15] == 4


def test_pool_after_idle_time_sleeping_workers_wake(code: LoadedCode, pool: Pool) -> None:
    argument = block()
    for _ in range(20):
        pool.run(code.address("count"), argument.ctypes.data, 3)
        time.sleep(0.002)
    assert argument[:4].tolist() == [20, 20, 20, 0]


def test_pool_idle_uses_no_processor_time(code: LoadedCode, pool: Pool) -> None:
    pool.run(code.address("count"), block().ctypes.data, 4)
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05


def test_pool_without_spinning_still_works(code: LoadedCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORWRIGHT_SPIN_US", "0")
    pool, argument = Pool(3), block()
    for _ in range(300):
        pool.run(code.address("count"), argument.ctypes.data, 3)
    pool.close()
    assert argument[:4].tolist() == [300, 300, 300, 0]


def test_pool_concurrent_callers_each_get_their_jobs_done(code: LoadedCode, pool: Pool) -> None:
    arguments = [block() for _ in range(4)]

    def call(argument: np.ndarray) -> None:
        for _ in range(300):
            pool.run(code.address("count"), argument.ctypes.data, 2)

    callers = [threading.Thread(target=call, args=(argument,)) for argument in arguments]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert [int(a[0]) for a in arguments] == [300] * 4
    assert all(0 <= a[1] <= 300 and a[2] == 0 for a in arguments)


def test_pool_closed_runs_on_the_caller_alone(code: LoadedCode) -> None:
    pool, argument = Pool(2), block()
    pool.run(code.address("count"), argument.ctypes.data, 2)
    pool.close()
    pool.close()
    pool.run(code.address("count"), argument.ctypes.data, 2)
    assert argument[:2].tolist() == [2, 1]
    assert argument[15] == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_barrier_many_rounds_orders_all_writes(code: LoadedCode, pool: Pool, threads: int) -> None:
    argument = block()
    for _ in range(10):
        pool.run(code.address("rounds"), argument.ctypes.data, threads)
        assert argument[31] == 0
        assert argument[8 : 8 + threads].tolist() == [ROUNDS] * threads
    assert argument[32 : 32 + BARRIER_BYTES // 8].view(np.int32)[0] == 0  # nobody is counted as waiting


def test_barrier_emitted_for_neon_compiles() -> None:
    neon = CpuTarget.parse("cpu:neon")
    assert compile_object(entries(neon).text(), neon)


def test_shared_pool_takes_its_size_from_the_knob() -> None:
    script = "from tensorwright.backends.cpu.threads import Pool; p = Pool.shared(); print(p.size, p is Pool.shared())"
    assert in_process(script, TENSORWRIGHT_THREADS="3") == "3 True"


SETUP = """
import ctypes, os, threading, time
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import Pool
m = Module()
f = m.function("count", [("ptr", "a"), ("i64", "t"), ("i64", "n")])
f.store(f.load("i64", f.args[0], f.args[1]) + 1, f.args[0], f.args[1])
f.ret()
code = LoadedCode(compile_object(m.text(), CpuTarget.probe()))
entry, a, pool = code.address("count"), (ctypes.c_int64 * 16)(), Pool(2)
"""


def test_pool_used_before_a_fork_works_in_parent_and_child() -> None:
    script = (
        SETUP
        + """
pool.run(entry, ctypes.addressof(a), 2)
child = os.fork()
for _ in range(100):
    pool.run(entry, ctypes.addressof(a), 2)
if child == 0:
    os._exit(7 if list(a[:3]) == [101, 101, 0] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), list(a[:3]))
"""
    )
    assert in_process(script) == "7 [101, 101, 0]"


def test_pool_at_interpreter_exit_neither_hangs_nor_crashes() -> None:
    assert in_process(SETUP + "pool.run(entry, ctypes.addressof(a), 2); print(list(a[:3]))") == "[1, 1, 0]"


def test_pool_in_use_by_a_daemon_thread_at_exit_neither_hangs_nor_crashes() -> None:
    script = (
        SETUP
        + """
def forever():
    while True:
        pool.run(entry, ctypes.addressof(a), 2)
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
print("leaving", a[0] > 0)
"""
    )
    assert in_process(script) == "leaving True"


def in_process(script: str, **variables: str) -> str:
    """Output of a Python script in a fresh process, which must end well within the time limit."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
