# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers against NumPy: every kind, direction and option, both ways of sharing the work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.base import Operand, Workload, row_major
from tensorwright.backends.cpu.kernels.recurrent import RecurrentFused
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import GraphBuilder
from tensorwright.ir.op import Array
from tensorwright.ir.types import TensorType
from tensorwright.ops.activation import Elu, HardSigmoid, LeakyRelu, Relu, Sigmoid, Softsign
from tensorwright.ops.elementwise import Mul, Tanh
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.ops.linear import MatMul
from tensorwright.ops.recurrent import LENGTHS, Gru, Lstm, Recurrent, Rnn
from tensorwright.ops.reduce import Softmax
from tensorwright.tune.verify import mismatch
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, rejected, verify, view, workload

DOUBLE = Fused(None, 0, (Instr(Literal(2.0), ()), Instr(Mul(), (0, 1))))
FUNCTIONS = (HardSigmoid(), DOUBLE, Softsign(), Sigmoid(), Elu(), Tanh())
EVERYTHING = ("bias", "lengths", "h", "c", "peepholes")


def layer(
    op: Recurrent,
    steps: int,
    batch: int,
    size: int,
    hidden: int,
    given: tuple[str, ...] = ("bias",),
    *,
    constant: bool = True,
    x: Operand | None = None,
    out: Operand | None = None,
) -> Workload:
    """A workload with the optional inputs that `given` names."""
    d, rows = op.directions, op.gates * hidden
    shapes = {"bias": (d, 2 * rows), "h": (d, batch, hidden), "c": (d, batch, hidden), "peepholes": (d, 3 * hidden)}
    extras: list[Operand | None] = []
    for name in ("bias", "lengths", "h", "c", "peepholes")[: 5 if op.states == 2 else 3]:
        if name == "lengths":
            extras.append(dense(batch, dtype=DType.i32) if name in given else None)
        else:
            extras.append(dense(*shapes[name]) if name in given else None)
    weights = [Operand(DType.f32, s, row_major(s), constant) for s in ((d, rows, size), (d, rows, hidden))]
    return workload(op, x or dense(steps, batch, size), *weights, *extras, out=out)


def values(w: Workload) -> list[Array | None]:
    """Normal values, weights scaled so that states neither die out nor explode; lengths from -1 to steps + 2."""
    rng = np.random.default_rng(SEED)
    made: list[Array | None] = []
    for i, o in enumerate(w.inputs):
        if o is None:
            made.append(None)
        elif i == LENGTHS:
            made.append(rng.integers(-1, w.inputs[0].shape[0] + 3, o.shape).astype(np.int32))  # type: ignore[union-attr]
        else:
            scale = 1 / np.sqrt(max(o.shape[-1], 1)) if i in (1, 2) else 1.0
            made.append((rng.standard_normal(o.shape) * scale).astype(np.float32))
    return made


LAYERS = {
    "lstm": layer(Lstm(), 5, 2, 7, 20),
    "lstm_tiny": layer(Lstm(), 1, 1, 1, 1, ()),
    "lstm_everything": layer(Lstm("bidirectional", clip=0.8), 6, 5, 9, 35, EVERYTHING),
    "lstm_weights_known_at_run": layer(Lstm("reverse"), 3, 3, 5, 19, EVERYTHING, constant=False),
    "lstm_input_forget": layer(Lstm(input_forget=True), 4, 1, 3, 16, ("bias", "peepholes")),
    "lstm_large": layer(Lstm(), 3, 1, 40, 300, ("bias", "h", "c")),
    "lstm_functions": layer(
        Lstm("bidirectional", (HardSigmoid(), DOUBLE, Softsign(), Sigmoid(), Elu(), Tanh())), 3, 2, 4, 9
    ),
    "gru": layer(Gru(), 5, 2, 7, 20),
    "gru_everything": layer(Gru("bidirectional", clip=0.5), 6, 7, 9, 35, EVERYTHING),
    "gru_linear": layer(Gru(linear_before_reset=True), 5, 4, 18, 33),
    "gru_linear_everything": layer(Gru("bidirectional", (), 0.6, True), 4, 3, 5, 17, EVERYTHING, constant=False),
    "gru_linear_without_bias": layer(Gru("reverse", linear_before_reset=True), 4, 3, 5, 17, ("lengths",)),
    "gru_large": layer(Gru(linear_before_reset=True), 3, 2, 40, 300),
    "rnn": layer(Rnn(), 5, 2, 7, 20),
    "rnn_everything": layer(Rnn("bidirectional", (Relu(), LeakyRelu(0.2)), 2.0), 6, 9, 3, 70, EVERYTHING),
    "rnn_large": layer(Rnn("reverse"), 4, 3, 6, 500, ("h",)),
    "rnn_many_steps": layer(Rnn(), 300, 2, 3, 400, ("bias",)),
    "no_steps": layer(Lstm(), 0, 2, 3, 5, ("h", "c")),
    "no_input": layer(Rnn(), 3, 2, 0, 5),
    "no_batch": layer(Rnn(), 3, 0, 2, 5),
    "batch_first": layer(Lstm(), 6, 3, 5, 18, x=view((6, 3, 5), (5, 30, 1)), out=view((8, 1, 3, 18), (20, 0, 160, 1))),
    "strided": layer(Gru(), 4, 2, 5, 18, x=view((4, 2, 5), (40, 16, 3)), out=view((5, 1, 2, 18), (100, 0, 50, 2))),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_reference(name: str, isa: str) -> None:
    w = LAYERS[name]
    verify(RecurrentFused(), w, isa, values(w), most=4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", [Lstm(), Gru(), Gru(linear_before_reset=True), Rnn()])
def test_nan_of_one_sequence_reaches_its_later_steps_only(op: Recurrent, isa: str) -> None:
    w = layer(op, 5, 4, 6, 21)
    inputs = values(w)
    assert inputs[0] is not None
    inputs[0][2, 1, 3] = np.nan
    (want,) = op.reference(*inputs)
    assert np.isnan(want[2:, :, 1]).all() and np.isnan(want).sum() == np.isnan(want[2:, :, 1]).sum()
    verify(RecurrentFused(), w, isa, inputs, most=4)


def test_long_sequences_take_few_stages_and_short_ones_a_stage_per_step() -> None:
    target, family = CpuTarget.parse("cpu:avx2"), RecurrentFused()
    for name, shared in (("rnn_many_steps", {False}), ("lstm_large", {True, False})):
        configs = list(family.candidates(LAYERS[name], target))
        assert {c.shared for c in configs} == shared
        for c in configs:
            kernel = family.emit(LAYERS[name], c, target, "k", {})
            assert len(kernel.stages) == (2 + 3 if c.shared else 3)


def test_recurrent_family_says_why_it_rejects() -> None:
    f64 = [dense(*s, dtype=DType.f64) for s in ((2, 1, 3), (1, 4, 3), (1, 4, 4))]
    assert "f64" in rejected(RecurrentFused(), workload(Rnn(), *f64))
    f32 = [dense(*s) for s in ((2, 1, 3), (1, 4, 3), (1, 4, 4))]
    softmax = Fused(None, 0, (Instr(Softmax(0), (0,)),))
    assert "softmax is not a pointwise op" in rejected(RecurrentFused(), workload(Rnn(activations=(softmax,)), *f32))
    assert "mat_mul is not a recurrent layer" in rejected(
        RecurrentFused(), workload(MatMul(), dense(2, 3), dense(3, 4))
    )


def test_recurrent_kernels_compile_for_neon() -> None:
    for name in ("lstm_everything", "gru_everything", "gru_linear_everything", "rnn_everything"):
        compiles_for_neon(RecurrentFused(), LAYERS[name])


@pytest.mark.parametrize("op", [Lstm("bidirectional"), Gru(), Gru(linear_before_reset=True)])
def test_workers_that_share_steps_in_an_engine_give_the_reference(op: Recurrent) -> None:
    w = layer(op, 7, 3, 16, 256, EVERYTHING)
    first = next(iter(RecurrentFused().candidates(w, replace(CpuTarget.parse("cpu"), cores=2))))
    assert first.shared
    inputs = values(w)
    b = GraphBuilder()
    x = b.input("x", TensorType(DType.f32, (7, 3, 16)))
    constants = [None if a is None else b.constant(a, f"c{i}") for i, a in enumerate(inputs[1:])]
    b.output(b.add(op, x, *constants)[0], "y")
    with tw.build(b.finish(), tune="off", threads=2) as engine:
        (want,) = op.reference(*inputs)
        for _ in range(3):
            reason = mismatch(op, [engine.run({"x": inputs[0]})["y"]], [want])
            assert not reason, f"{reason}, seed {SEED}"
