# SPDX-License-Identifier: Apache-2.0
"""Timing real kernels: right outputs in timed conditions, all stages and threads, moving weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tensorwright.backends.base import CpuKernel, Operand, Stage, Workload, row_major
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.measure import CpuMeasurer
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import Pool
from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Mul
from tensorwright.ops.linear import MatMul
from tensorwright.tune.search import tune
from tensorwright.tune.verify import mismatch

SIZE = 1000


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(3)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def measurer(pool: Pool) -> CpuMeasurer:
    return CpuMeasurer(CpuTarget.probe(), pool)


def dense(*shape: int, constant: bool = False) -> Operand:
    return Operand(DType.f32, shape, row_major(shape), constant)


def two_stages(size: int, constant: bool = False, step: int = 1) -> tuple[Workload, CpuKernel]:
    """out[step*i] = workspace[size-1-i] after a stage that writes the products there: wrong without a barrier."""
    x = dense(size, constant=constant)
    module = Module()
    names = [("ptr", n) for n in ("x", "y", "out", "workspace", "scratch")]
    first = module.function("products", [*names, ("i64", "begin"), ("i64", "end")])
    with first.loop(first.arg("begin"), first.arg("end")) as i:
        product = first.load("float", first.arg("x"), i) * first.load("float", first.arg("y"), i)
        first.store(product, first.arg("scratch"))
        first.store(first.load("float", first.arg("scratch")), first.arg("workspace"), i)
    first.ret()
    second = module.function("reverse", [*names, ("i64", "begin"), ("i64", "end")])
    with second.loop(second.arg("begin"), second.arg("end")) as i:
        second.store(second.load("float", second.arg("workspace"), (size - 1) - i), second.arg("out"), i * step)
    second.ret()
    stages = (Stage("products", size), Stage("reverse", size))
    work = Workload(Mul(), (x, dense(size)), (Operand(DType.f32, (size,), (step,)),))
    return work, CpuKernel(module.text(), stages, workspace_bytes=4 * size, scratch_bytes=4)


@pytest.mark.parametrize("step", [1, 3])
def test_trial_of_several_stages_gives_the_outputs_before_and_after_timing(measurer: CpuMeasurer, step: int) -> None:
    w, kernel = two_stages(SIZE, step=step)
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal(SIZE).astype(np.float32) for _ in range(2))
    trial = measurer.load(w, kernel, [x, y])
    for _ in range(2):
        (out,) = trial.outputs()
        assert np.array_equal(out, (x * y)[::-1])
        assert all(1e-9 < trial.sample() < 1 for _ in range(3))
    trial.close()


def test_trial_outputs_are_poisoned_before_the_run(measurer: CpuMeasurer) -> None:
    """A kernel that writes nothing leaves NaN, not old results."""
    w = Workload(Mul(), (dense(5), dense(5)), (dense(5),))
    module = Module()
    module.function("nothing", [*(("ptr", n) for n in "abcde"), ("i64", "begin"), ("i64", "end")]).ret()
    trial = measurer.load(w, CpuKernel(module.text(), (Stage("nothing", 5),)), [np.ones(5, np.float32)] * 2)
    trial.sample()
    assert np.isnan(trial.outputs()[0]).all()
    trial.close()


def test_trial_of_a_slower_kernel_takes_longer(measurer: CpuMeasurer) -> None:
    times = []
    for size in (2_000, 2_000_000):
        trial = measurer.load(*two_stages(size), [np.ones(size, np.float32)] * 2)
        times.append(min(trial.sample() for _ in range(5)))
        trial.close()
    assert times[1] > 5 * times[0]


def test_trial_with_large_weights_moves_them_but_answers_with_the_given_ones(measurer: CpuMeasurer) -> None:
    size = 100_000
    w, kernel = two_stages(size, constant=True)
    weights, y = (np.random.default_rng(4).standard_normal(size).astype(np.float32) for _ in range(2))
    trial = measurer.load(w, kernel, [weights, y])
    places = trial._pointers[1:, 0]
    assert len(set(places)) == len(places) > 10
    arena = measurer.weights
    assert places.min() >= arena.ctypes.data
    assert places.max() + 4 * size <= arena.ctypes.data + arena.nbytes
    trial.sample()
    assert np.array_equal(trial.outputs()[0], (weights * y)[::-1])
    trial.close()


@pytest.mark.parametrize("size, constant", [(1000, True), (100_000, False)])
def test_trial_with_small_weights_or_none_keeps_its_operands(measurer: CpuMeasurer, size: int, constant: bool) -> None:
    trial = measurer.load(*two_stages(size, constant=constant), [np.ones(size, np.float32)] * 2)
    assert len(trial._pointers) == 1
    trial.close()


def test_load_of_invalid_code_is_an_error_of_the_package(measurer: CpuMeasurer) -> None:
    w = Workload(Mul(), (dense(5), dense(5)), (dense(5),))
    with pytest.raises(InternalError):
        measurer.load(w, CpuKernel("this is no code", (Stage("f", 5),)), [np.ones(5, np.float32)] * 2)


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_tune_real_families_finds_a_right_kernel(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = CpuTarget.parse(f"cpu:{isa}")
    if not target.runs_here:
        pytest.skip(f"this machine does not run {isa}")
    w = Workload(MatMul(), (dense(7, 19), dense(19, 37, constant=True)), (dense(7, 37),))
    rng = np.random.default_rng(6)
    arrays: list[Array | None] = [rng.standard_normal(o.shape).astype(np.float32) for o in w.inputs if o is not None]
    weights = arrays[1]
    assert weights is not None
    choice = tune([w], {w.key: {1: weights}}, target, FAMILIES)[w.key]
    assert (choice.source, choice.seconds > 0) == ("measured", True)
    family = next(f for f in FAMILIES if (f.name, f.version) == (choice.family, choice.version))
    kernel = family.emit(w, family.config(**choice.config), target, "chosen", {1: weights})
    trial = CpuMeasurer(target).load(w, kernel, arrays)
    assert mismatch(w.op, trial.outputs(), w.op.reference(*arrays)) == ""
    trial.close()


def test_trials_with_large_packed_weights_share_memory_and_are_each_checked_on_their_own(
    measurer: CpuMeasurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorwright.backends.cpu.measure._MAX_OWN", 1000)
    rng = np.random.default_rng()
    a, b = rng.standard_normal((5, 40), dtype=np.float32), rng.standard_normal((40, 960), dtype=np.float32)
    w = Workload(MatMul(), (dense(5, 40), dense(40, 960, constant=True)), (dense(5, 960),))
    family = next(f for f in FAMILIES if f.name == "gemm_tiled")
    configs = list(family.candidates(w, measurer.target))
    kernels = [family.emit(w, c, measurer.target, f"k{i}", {1: b}) for i, c in enumerate(configs)]
    assert len({kernel.packed[1].shape for kernel in kernels}) > 1, "the layouts differ"
    trials = [measurer.load(w, kernel, [a, b]) for kernel in kernels]
    assert len({trial._weights.bytes.ctypes.data for trial in trials}) == 1
    for trial in (*trials, *reversed(trials)):
        assert trial.sample() > 0
        assert not mismatch(w.op, trial.outputs(), (a @ b,))
    for trial in trials:
        trial.close()


def test_constants_that_no_kernel_packs_are_read_where_they_are(measurer: CpuMeasurer) -> None:
    memory = np.arange(4 * SIZE + 64, dtype=np.float32)
    aligned = memory[-memory.ctypes.data % 64 // 4 :][: 2 * SIZE]
    operand = Operand(DType.f32, (SIZE,), (2,), True)
    assert np.shares_memory(measurer.placed(operand, aligned[::2]), aligned)
    other = measurer.placed(operand, memory[1 + -memory.ctypes.data % 64 // 4 :][: 2 * SIZE : 2])
    assert not np.shares_memory(other, memory) and other.ctypes.data % 64 == 0
    assert not np.shares_memory(measurer.placed(Operand(DType.f32, (SIZE,), (2,)), aligned[::2]), aligned)
