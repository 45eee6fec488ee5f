# SPDX-License-Identifier: Apache-2.0
"""Matrix products, attention and recurrent layers whose sizes are known only in a run."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.backends.base import Workload
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.kernels.gemm import Gemm
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import evaluate
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Instr, Op
from tensorwright.lower.lower import lower
from tensorwright.ops.recurrent import Recurrent
from tests.backends.cpu.dense_check import compiles_for_neon
from tests.backends.cpu.sized_check import Bounds, Shape, check_sized, sized_graph, symbols
from tests.suites.op_case import Spec

GEMM = ["gemm_tiled"]


def weights(*shape: int) -> Array:
    return np.random.default_rng().standard_normal(shape).astype(np.float32)


def typed(dtype: DType, *shape: int | str) -> Spec:
    """An input of another type; names in the shape stand for symbols."""
    return Spec(cast(tuple[int, ...], shape), "normal" if dtype.is_float else "integers", dtype)


def step_of(op: Op, *inputs: Shape | Array | Spec, bounds: Bounds) -> Workload:
    """The workload of an op, with inputs as in `check_sized`."""
    return next(s.workload for s in lower(sized_graph(op, inputs, symbols(bounds))).steps if s.node)


@pytest.mark.parametrize("opt", [1, 7, 29, 200])
def test_product_of_symbolic_rows(opt: int) -> None:
    rows = [{"m": m} for m in (2, 3, 13, 14, 15, 27, 41, 97)]
    check_sized(o.MatMul(), ("m", 33), weights(33, 70), bounds={"m": (0, opt, 300)}, at=rows, families=GEMM)


def test_rows_of_a_batch_and_a_sequence_are_one_axis() -> None:
    bounds = {"b": (1, 2, 5), "s": (1, 16, 40)}
    residual = o.Fused(o.MatMul(), 2, (Instr(o.Add(), (4, 2)), Instr(o.Add(), (5, 3)), Instr(o.Relu(), (6,))))
    at = [{"b": b, "s": s} for b in (1, 3) for s in (2, 7, 19)]
    check_sized(
        residual, ("b", "s", 24), weights(24, 37), weights(37), ("b", "s", 37), bounds=bounds, at=at, families=GEMM
    )


def test_rows_that_are_a_multiple_of_the_tile_have_no_rest() -> None:
    check_sized(o.MatMul(), ("b", 8, 16), weights(16, 32), bounds={"b": (1, 4, 9)}, families=GEMM)


def test_symbolic_batches() -> None:
    bounds = {"b": (0, 3, 5)}
    check_sized(o.MatMul(), ("b", 4, 9, 10), ("b", 4, 10, 21), bounds=bounds, families=GEMM)
    check_sized(o.MatMul(), ("b", 4, 9, 10), ("b", 1, 10, 21), bounds=bounds, families=GEMM)
    check_sized(o.MatMul(), ("b", 4, 9, 10), weights(4, 10, 21), bounds=bounds, families=GEMM)
    check_sized(o.MatMul(), ("b", 1, 10), ("b", 10, 21), bounds=bounds, families=GEMM)


def test_every_size_symbolic() -> None:
    bounds = {"b": (1, 2, 3), "m": (1, 20, 50), "k": (1, 12, 30), "n": (1, 40, 90)}
    at = [
        {"b": 2, "m": m, "k": k, "n": n} for m, k, n in ((3, 7, 15), (14, 4, 32), (15, 5, 33), (28, 9, 64), (29, 8, 49))
    ]
    check_sized(o.MatMul(), ("b", "m", "k"), ("b", "k", "n"), bounds=bounds, at=at, families=GEMM, candidates=2)
    check_sized(o.MatMul(), ("k",), ("k", "n"), bounds={k: bounds[k] for k in "kn"}, families=GEMM, candidates=1)


def test_no_terms_give_zeros() -> None:
    check_sized(o.MatMul(), ("m", "k"), ("k", 9), bounds={"m": (1, 3, 9), "k": (0, 5, 8)}, families=GEMM)


def test_transposed_operands_with_symbolic_sides() -> None:
    """Scores and weighted sums of attention that no pass joined: keys transposed by a view, bias in the epilogue."""
    bounds = {"b": (1, 2, 3), "s": (1, 24, 70)}
    masked = o.Fused(o.MatMul(), 2, (Instr(o.Add(), (3, 2)),))
    at = [{"b": 2, "s": s} for s in (2, 15, 16, 17, 33)]
    check_sized(masked, ("b", 2, "s", 8), ("b", 2, 8, "s"), ("b", 1, 1, "s"), bounds=bounds, at=at, families=GEMM)
    check_sized(o.MatMul(), ("b", 2, "s", "s"), ("b", 2, "s", 8), bounds=bounds, at=at, families=GEMM)


def test_pointwise_convolution_of_symbolic_images() -> None:
    bounds = {"b": (1, 2, 3), "h": (1, 6, 9), "w": (1, 5, 20)}
    conv = o.Convolution((1, 1), (0, 0, 0, 0), (1, 1), 1)
    check_sized(conv, ("b", 12, "h", "w"), weights(20, 12, 1, 1), bounds=bounds, families=GEMM, candidates=1)


ATTENTION = ["attention_tiled"]
LENGTHS = [
    {"b": 2, "m": m, "n": n} for m, n in ((2, 15), (3, 16), (13, 17), (14, 31), (15, 32), (29, 47), (5, 48), (7, 49))
]


def test_attention_of_symbolic_batches() -> None:
    bounds = {"b": (0, 3, 6)}
    check_sized(o.Attention(0.3), ("b", 2, 29, 8), ("b", 2, 45, 8), ("b", 2, 45, 20), bounds=bounds, families=ATTENTION)


def test_attention_of_symbolic_lengths_with_a_mask() -> None:
    bounds = {"b": (1, 2, 3), "m": (1, 20, 50), "n": (1, 40, 90)}
    keys, values = ("b", 2, "n", 8), ("b", 2, "n", 20)
    for mask in (("b", 1, 1, "n"), ("m", "n"), ("b", 2, "m", 1)):
        check_sized(
            o.Attention(0.3), ("b", 2, "m", 8), keys, values, mask, bounds=bounds, at=LENGTHS, families=ATTENTION
        )


def test_attention_of_a_symbolic_sequence_to_itself() -> None:
    bounds = {"b": (1, 8, 9), "s": (1, 128, 140)}
    at = [{"b": 2, "s": s} for s in (2, 15, 31, 33, 64, 127, 129)]
    heads = ("b", 2, "s", 16)
    added = o.Fused(o.Attention(0.25), 3, (Instr(o.Add(), (4, 3)),))
    check_sized(added, heads, heads, heads, heads, bounds=bounds, at=at, families=ATTENTION, candidates=2)


def test_attention_over_blocks_of_a_symbolic_number_of_keys() -> None:
    bounds = {"n": (1, 1500, 2100)}
    at = [{"n": n} for n in (2, 511, 512, 513, 1024, 1040)]
    check_sized(
        o.Attention(0.3), (1, 5, 7), (1, "n", 7), (1, "n", 20), (1, "n"), bounds=bounds, at=at, families=ATTENTION
    )


def test_attention_may_see_more_keys_in_a_run_than_at_opt() -> None:
    bounds = {"n": (1, 40, 2100)}
    check_sized(o.Attention(0.3), (1, 5, 8), (1, "n", 8), (1, "n", 20), bounds=bounds, families=ATTENTION)


def test_attention_without_keys_is_refused() -> None:
    with pytest.raises(AssertionError, match="there are no keys"):
        check_sized(o.Attention(0.3), (1, 5, 8), (1, "n", 8), (1, "n", 20), bounds={"n": (0, 4, 9)}, families=ATTENTION)


RECURRENT = ["recurrent_fused"]
STEPS = {"t": (0, 5, 9), "b": (0, 8, 11)}
PLACES = [{"t": t, "b": b} for t in (1, 5) for b in (1, 2, 3, 7)]


@pytest.mark.parametrize("layer", [o.Lstm("bidirectional"), o.Gru(), o.Gru(linear_before_reset=True), o.Rnn("reverse")])
def test_recurrent_layers_of_symbolic_batches_and_lengths(layer: Recurrent) -> None:
    d, g = layer.directions, layer.gates
    given = (weights(d, g * 19, 6), weights(d, g * 19, 19) / 5, weights(d, 2 * g * 19))
    check_sized(layer, ("t", "b", 6), *given, bounds=STEPS, at=PLACES, families=RECURRENT, candidates=4)


def test_recurrent_layer_with_lengths_initial_states_and_weights_of_a_run() -> None:
    shapes = ((2, 80, 6), (2, 80, 20), (2, 160))
    states = (typed(DType.i32, "b"), (2, "b", 20), (2, "b", 20))
    check_sized(o.Lstm("bidirectional"), ("t", "b", 6), *shapes, *states, bounds=STEPS, at=PLACES, families=RECURRENT)


def test_recurrent_layer_of_one_symbolic_size() -> None:
    given = (weights(1, 60, 6), weights(1, 60, 20) / 5)
    check_sized(o.Gru(), (7, "b", 6), *given, bounds={"b": (1, 20, 40)}, families=RECURRENT, candidates=4)
    check_sized(o.Gru(), ("t", 3, 6), *given, bounds={"t": (1, 20, 300)}, families=RECURRENT, candidates=4)


GENERIC = ["dense_generic"]
TYPED = {"b": (0, 2, 3), "m": (1, 6, 12), "n": (1, 20, 40)}


@pytest.mark.parametrize("dtype", [DType.f64, DType.i32, DType.u8, DType.i64])
def test_products_of_other_types(dtype: DType) -> None:
    a, b = typed(dtype, "b", "m", "n"), typed(dtype, "b", "n", "m")
    at = [{"b": 2, "m": m, "n": n} for m, n in ((2, 15), (8, 16), (9, 17), (7, 33))]
    check_sized(o.MatMul(), a, b, bounds=TYPED, at=at, families=GENERIC)
    check_sized(o.MatMul(), a, typed(dtype, "n"), bounds=TYPED, families=GENERIC)


def test_convolutions_and_pools_of_f64() -> None:
    bounds = {"b": (0, 2, 3), "h": (3, 6, 9), "w": (4, 5, 20)}
    x, sizes = typed(DType.f64, "b", 6, "h", "w"), ((3, 2), (2, 1), (1, 0, 1, 1), (1, 2))
    filters = weights(8, 3, 3, 2).astype(np.float64)
    check_sized(o.Convolution((2, 1), (1, 0, 1, 1), (1, 2), 2), x, filters, bounds=bounds, families=GENERIC)
    deconvolution = o.Deconvolution((2, 3), (1, 0, 0, 1), (1, 1), 2, (1, 0))
    check_sized(deconvolution, x, weights(6, 4, 3, 2).astype(np.float64), bounds=bounds, families=GENERIC)
    check_sized(o.MaxPool(*sizes), x, bounds=bounds, families=GENERIC)
    check_sized(o.AveragePool(*sizes, count_include_pad=True), x, bounds=bounds, families=GENERIC)


HALVES = [DType.f16, DType.bf16]
WIDENED = ["widened"]


@pytest.mark.parametrize("dtype", HALVES)
def test_widened_families(dtype: DType) -> None:
    def n(*shape: int | str) -> Spec:
        return typed(dtype, *shape)

    bounds = {"b": (1, 2, 3), "s": (1, 20, 40)}
    weight = weights(12, 21).astype(dtype.numpy)
    check_sized(o.MatMul(), n("b", "s", 12), weight, bounds=bounds, families=WIDENED)
    check_sized(o.MatMul(), n("b", "s", 12), n(12, 21), bounds=bounds, families=WIDENED, candidates=1)
    check_sized(o.Attention(0.3), *[n("b", "s", 8)] * 3, bounds=bounds, families=WIDENED, candidates=1)
    check_sized(o.Softmax(2), n("b", 3, "s"), bounds=bounds, families=WIDENED)
    check_sized(o.LayerNorm(2), n("b", "s", 41), n(41), n(41), bounds=bounds, families=WIDENED)
    check_sized(o.Reduce("mean", (1,)), n("b", "s", 5), bounds=bounds, families=WIDENED)


def test_widened_mean_of_integers() -> None:
    x = typed(DType.i8, "b", "s", 5)
    check_sized(o.Reduce("mean", (1,)), x, bounds={"b": (1, 2, 3), "s": (1, 20, 300)}, families=WIDENED)


def test_units_follow_the_rows_of_a_run() -> None:
    """One row is shared by panels, many rows are not cut finer than at opt, and opt is as in a static engine."""
    target, family = dataclasses.replace(CpuTarget.parse("cpu:avx512"), cores=2), Gemm()
    w = step_of(o.MatMul(), ("b", 384), weights(384, 1536), bounds={"b": (0, 1024, 4096)})
    for config in family.candidates(w.at_opt(), target):
        units = family.emit(w, config, target, "kernel", {1: weights(384, 1536)}).stages[-1].units
        static = family.emit(w.at_opt(), config, target, "kernel", {1: weights(384, 1536)}).stages[-1].units
        counts = {b: evaluate(units, {"b": b}) for b in (0, 1, 15, 128, 1024, 4096)}
        assert counts[0] == 0 and counts[1024] == static, config
        assert min(counts[b] for b in (1, 15, 128)) >= 4 * target.cores, config
        assert 3 * static <= counts[4096] <= 4 * static, config


NEON: dict[str, tuple[Any, ...]] = {
    "gemm_tiled": (o.MatMul(), ("b", "s", 24), ("b", 24, "s")),
    "attention_tiled": (o.Attention(0.3), ("b", "s", 16), ("b", "s", 16), ("b", "s", 16), ("b", 1, "s")),
    "recurrent_fused": (o.Gru(), ("s", "b", 6), (1, 60, 6), (1, 60, 20)),
    "dense_generic": (o.MatMul(), typed(DType.f64, "b", "s", 24), typed(DType.f64, "b", 24, "s")),
    "widened": (o.Softmax(2), typed(DType.f16, "b", 3, "s")),
}


@pytest.mark.parametrize("name", NEON)
def test_symbolic_kernels_compile_for_neon(name: str) -> None:
    op, *inputs = NEON[name]
    w = step_of(op, *inputs, bounds={"b": (0, 3, 9), "s": (1, 40, 90)})
    compiles_for_neon(next(f for f in FAMILIES if f.name == name), w)
