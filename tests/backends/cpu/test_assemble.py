# SPDX-License-Identifier: Apache-2.0
"""Assembled programs against NumPy: any number of workers, poisoned memory with guards around it, identical bytes."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from tensorwright.backends.base import CpuKernel, Packed, Stage
from tensorwright.backends.cpu import launch
from tensorwright.backends.cpu.assemble import assemble
from tensorwright.backends.cpu.launch import LoadedProgram
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import Pool
from tensorwright.errors import InternalError
from tensorwright.ir.op import Array
from tensorwright.lower.program import Place
from tensorwright.ops.elementwise import Add
from tensorwright.plan.plan import plan_bytes
from tests.runtime.tiny import Tiny, binary_kernel, code_of, plan_of, random_tiny, sample

GUARD = 4096


@pytest.fixture(scope="module")
def pool() -> Pool:
    """More workers than this machine may have cores: correctness must not depend on the number."""
    return Pool(5)


def run_guarded(
    tiny: Tiny, feeds: dict[str, Array], pool: Pool, threads: int, profiled: bool = False, seconds: Sequence[float] = ()
) -> dict[str, Array]:
    """Run in NaN-filled memory, with guard zones around arena, scratch and every output, all checked afterwards."""
    loaded = LoadedProgram(code_of(tiny, seconds=seconds))
    sizes = [loaded.code.arena_bytes, loaded.code.scratch_bytes * threads] + [4 * tiny.n] * len(tiny.outputs)
    memory = np.full(sum(-(-s // 64) * 64 + GUARD for s in sizes) + GUARD + 64, 0xFF, np.uint8)
    starts, at = [], GUARD + (-memory.ctypes.data % 64)
    for size in sizes:
        starts.append(at)
        at += -(-size // 64) * 64 + GUARD
    barrier, times = np.zeros(128, np.uint8), np.zeros((len(tiny.steps), 2), np.int64)
    held = [np.ascontiguousarray(feeds[name]) for name in tiny.inputs]
    addresses = [memory.ctypes.data + s for s in starts]
    table = (ctypes.c_uint64 * (launch.FIRST_TENSOR + len(held) + len(tiny.outputs)))(
        barrier.ctypes.data + -barrier.ctypes.data % 64,
        addresses[0],
        loaded.weights.ctypes.data,
        addresses[1],
        times.ctypes.data,
        0,  # no symbolic sizes
        *(x.ctypes.data for x in held),
        *addresses[2:],
    )
    pool.run(loaded._profiled if profiled else loaded._main, ctypes.addressof(table), threads)
    outputs = {
        name: memory[s : s + 4 * tiny.n].copy().view(np.float32)
        for name, s in zip(tiny.outputs, starts[2:], strict=True)
    }
    for start, size in zip(starts, sizes, strict=True):
        memory[start : start + size] = 0xFF
    assert (memory == 0xFF).all(), "something outside arena, scratch and outputs was written"
    if profiled:
        assert (times[:, 1] >= times[:, 0]).all() and (times > 0).all()
    loaded.close()
    return outputs


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(6))
def test_random_program_on_any_number_of_workers_equals_numpy(seed: int, threads: int, pool: Pool) -> None:
    rng = np.random.default_rng(seed)
    tiny = random_tiny(rng, steps=int(rng.integers(1, 40)), n=int(rng.choice([1, 7, 37, 200])))
    feeds = tiny.feeds(rng)
    expected = tiny.expected(feeds)
    seconds = rng.choice([0, 1e-7, 1], len(tiny.steps))  # unknown, too short to share, long
    for profiled in (False, True):
        for name, out in run_guarded(tiny, feeds, pool, threads, profiled, seconds).items():
            np.testing.assert_array_equal(out, expected[name], err_msg=f"{name}, seed {seed}, {threads} workers")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_sample_program_of_every_kernel_kind_equals_numpy(threads: int, pool: Pool) -> None:
    tiny = sample(n=203)
    for seed in range(20):
        feeds = tiny.feeds(np.random.default_rng(seed))
        for name, out in run_guarded(tiny, feeds, pool, threads).items():
            np.testing.assert_array_equal(out, tiny.expected(feeds)[name], err_msg=f"{name}, seed {seed}")


def test_empty_tensors_run(pool: Pool) -> None:
    tiny = sample(n=0)
    feeds = {name: np.zeros(0, np.float32) for name in tiny.inputs}
    assert {k: v.shape for k, v in run_guarded(tiny, feeds, pool, 2).items()} == {"first": (0,), "second": (0,)}


def test_nan_input_reaches_the_output(pool: Pool) -> None:
    tiny = sample()
    feeds = {"x": np.zeros(37, np.float32), "y": np.full(37, np.nan, np.float32)}
    assert np.isnan(run_guarded(tiny, feeds, pool, 2)["second"]).all()


def test_steps_with_equal_kernels_share_one_object() -> None:
    t = Tiny(40)
    x = t.input("x")
    for i in range(5):
        x = t.binary(Add, x, x, f"add{i}", output=i == 4)
    code = code_of(t)
    assert [name for name, _ in code.objects] == ["add0", "main"]


def test_constants_with_equal_bytes_are_stored_once() -> None:
    t = Tiny(40)
    x = t.input("x")
    for i in range(4):
        x = t.scale(x, np.full(40, 3, np.float32), f"s{i}", output=i == 3, packed=False)
    code = code_of(t)
    assert code.program["weights"] == [[0, 160]]
    assert code.weights.nbytes == 192 and code.weights.ctypes.data % 64 == 0


def test_different_kernels_with_one_symbol_are_refused() -> None:
    t = Tiny(40)
    x = t.input("x")
    t.binary(Add, t.binary(Add, x, x, "one"), x, "two", output=True)
    t.kernels[1] = dataclasses.replace(t.kernels[1], ir=t.kernels[1].ir + "\n; different\n")
    with pytest.raises(InternalError, match="step 'two' and step 'one' have different kernels of the same symbol"):
        code_of(t)


def test_packing_an_input_that_is_no_constant_is_refused() -> None:
    t = Tiny(40)
    x = t.input("x")
    t.binary(Add, x, x, "one", output=True)
    form = Packed.of((40,), lambda: np.zeros(40, np.float32))
    t.kernels[0] = dataclasses.replace(binary_kernel("add", 40), packed={1: form})
    with pytest.raises(InternalError, match="packs input 1"):
        code_of(t)


def test_single_unit_and_very_short_steps_in_a_row_have_no_barrier_between_them() -> None:
    def barriers(n: int, seconds: float = 0) -> int:
        t = Tiny(n)
        x = t.input("x")
        for i in range(4):
            x = t.binary(Add, x, x, f"v{i}", output=i == 3)
        from tensorwright.backends.cpu.main_function import emit_main
        from tensorwright.backends.cpu.weights import pack_weights
        from tensorwright.lower.memory import plan_memory

        p = t.program()
        text = emit_main(
            p, t.kernels, plan_memory(p, [0] * 4), pack_weights(p, t.kernels), 0, CpuTarget.probe(), [seconds] * 4
        )
        main = text[text.index("@tw_main") : text.index("@tw_profile")]
        return main.count("call void @tensorwright_barrier")

    assert (barriers(8), barriers(9), barriers(9, 1e-7), barriers(9, 1e-3)) == (0, 3, 0, 3)


def test_same_program_in_fresh_processes_gives_identical_plan_bytes() -> None:
    code = (
        "import hashlib, tests.runtime.tiny as t; from tensorwright.plan.plan import plan_bytes; "
        "print(hashlib.sha256(plan_bytes(t.plan_of(t.sample()))).hexdigest())"
    )
    path = ":".join(sys.path)
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert plan_bytes(plan_of(sample())) == plan_bytes(plan_of(sample()))


@pytest.mark.parametrize("target", ["cpu:avx2", "cpu:neon"])
def test_program_assembles_for_other_targets(target: str) -> None:
    tiny = sample()
    code = assemble(tiny.program(), tiny.kernels, CpuTarget.parse(target))
    assert code.fingerprint == CpuTarget.parse(target).fingerprint
    assert all(data.startswith(b"\x7fELF") for _, data in code.objects)


def test_description_names_every_buffer_and_step() -> None:
    tiny = sample()
    described = code_of(tiny).program
    assert [s["name"] for s in described["steps"]] == [s.name for s in tiny.steps]
    assert described["steps"][2]["stages"] == [["tiny_partial_37", 5], ["tiny_subtract_37", 5]]
    places = {name: place for name, place, _, _ in described["buffers"]}
    assert places == {b.name: b.place.value for b in tiny.buffers}
    assert all(offset is not None for name, place, _, offset in described["buffers"] if place == Place.arena.value)
    assert sorted(i for phase in described["phases"] for i in phase) == list(range(len(tiny.steps)))


def test_every_worker_has_scratch_of_its_own(pool: Pool) -> None:
    t = Tiny(10)
    t.negate(t.input("x"), "out", output=True)
    ir = """
define void @tiny_where(ptr %a, ptr %out, ptr %workspace, ptr %scratch, i64 %begin, i64 %end) #0 {
  %address = ptrtoint ptr %scratch to i64
  %slot = getelementptr i64, ptr %out, i64 %begin
  store i64 %address, ptr %slot
  ret void
}"""
    t.kernels[0] = CpuKernel(ir, (Stage("tiny_where", 5),), scratch_bytes=4)
    addresses = np.sort(run_guarded(t, {"x": np.zeros(10, np.float32)}, pool, 5)["out"].view(np.int64))
    assert (np.diff(addresses) == 128).all() and addresses[0] % 64 == 0


def test_kernel_of_absent_input_gets_null(pool: Pool) -> None:
    t = Tiny(8)
    x = t.input("x")
    t.binary(Add, x, x, "out", output=True)
    ir = (
        binary_kernel("add", 8)
        .ir.replace("tiny_add_8", "tiny_null")
        .replace(
            "entry:",
            "entry:\n  %isnull = icmp eq ptr %b, null\n  %one = uitofp i1 %isnull to float\n"
            "  store float %one, ptr %out\n  ret void\nrest:",
        )
    )
    t.kernels[0] = CpuKernel(ir, (dataclasses.replace(t.kernels[0].stages[0], symbol="tiny_null"),))
    step = t.steps[0]
    t.steps[0] = dataclasses.replace(step, inputs=(step.inputs[0], None))
    assert run_guarded(t, {"x": np.zeros(8, np.float32)}, pool, 1)["out"][0] == 1.0
