# SPDX-License-Identifier: Apache-2.0
"""Types that ops refuse, and symbolic dims that they carry through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.dims import Dim, SymDim, maximum
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType

n, m = SymDim.symbol("n"), SymDim.symbol("m")
CONV = o.Convolution((1, 1), (0, 0, 0, 0), (1, 1))


def t(*shape: Dim, dtype: DType = DType.f32) -> TensorType:
    return TensorType(dtype, shape)


REFUSED: tuple[tuple[Op, Sequence[TensorType | None], str], ...] = (
    (o.Exp(), [t(2, dtype=DType.i64)], "exp needs a float type, not i64"),
    (o.Not(), [t(2)], "not needs a bool type, not f32"),
    (o.Neg(), [t(2, dtype=DType.bool)], "neg needs a number type"),
    (o.Exp(), [], "exp takes 1 inputs, not 0"),
    (o.Exp(), [None], "exp needs its first 1 inputs, one is absent"),
    (o.Add(), [t(2), t(2, dtype=DType.f16)], "add needs inputs of one element type, not f16 and f32"),
    (o.Add(), [t(2), t(3)], r"add cannot broadcast \[2\] and \[3\]"),
    (o.PRelu(), [t(3), t(2, 3)], "cannot broadcast its slope"),
    (o.Where(), [t(2), t(2), t(2)], "where needs a bool condition, not f32"),
    (o.MatMul(), [t(2, 3), t(4, 5)], "inner dims 3 and 4 differ"),
    (o.MatMul(), [t(2, 3), t()], "at least one dim"),
    (CONV, [t(1, 3, 8, 8), t(4, 2, 3, 3)], "convolution with 1 groups cannot apply weights"),
    (CONV, [t(1, 3, 2, 8), t(4, 3, 3, 3)], "a window of 3 in dim 0, wider than the input of 2 with pads 0 and 0"),
    (CONV, [t(1, 3, 8), t(4, 3, 3)], "convolution needs 1 positive strides"),
    (CONV, [t(1, 3, 8, 8), t(4, 3, 3, 3), t(5)], r"4 output channels cannot add a bias f32\[5\]"),
    (CONV, [t(1, 3, 8, 8), t(4, 3, n, 3)], "static weights"),
    (o.Convolution((1, 1), (0, 0, 0, 0), (1, 1), 3), [t(1, 3, 8, 8), t(4, 1, 3, 3)], "3 groups cannot apply"),
    (o.Convolution((1, 0), (0, 0, 0, 0), (1, 1)), [t(1, 3, 8, 8), t(4, 3, 3, 3)], "2 positive strides"),
    (o.Convolution((1, 1), (0, -1, 0, 0), (1, 1)), [t(1, 3, 8, 8), t(4, 3, 3, 3)], "4 non-negative pads"),
    (o.Deconvolution((1, 1), (3, 3, 3, 3), (1, 1)), [t(1, 3, 2, 2), t(3, 4, 2, 2)], "negative size"),
    (
        o.Deconvolution((2, 2), (0,) * 4, (1, 1), 1, (1,)),
        [t(1, 3, 2, 2), t(3, 4, 2, 2)],
        "2 non-negative output paddings",
    ),
    (o.MaxPool((2, 2), (1, 1), (0,) * 4, (1, 1)), [t(3, 4)], "max_pool needs numbers of rank 3"),
    (o.MaxPool((5, 2), (1, 1), (0,) * 4, (1, 1)), [t(1, 3, 4, 4)], "a window of 5 in dim 0"),
    (o.AveragePool((2, 2), (1, 1), (0,) * 4, (1, 1)), [t(1, 3, 4, 4, dtype=DType.i8)], "needs a float type, not i8"),
    (o.Reduce("sum", (2,)), [t(3, 4)], "reduce axis 2 is out of range for rank 2"),
    (o.Reduce("sum", (1, 1)), [t(3, 4)], r"reduce axes \(1, 1\) repeat"),
    (o.Reduce("sum", (0,)), [t(3, dtype=DType.bool)], "reduce sum needs numbers, not bool"),
    (o.Softmax(-1), [t(3, 4)], "softmax axis -1 is out of range"),
    (o.ArgMax(0), [t(0, 4)], "arg_max over the empty axis 0"),
    (o.BatchNorm(), [t(1, 3, 4), t(3), t(3), t(2), t(3)], r"one parameter per channel, not f32\[2\]"),
    (o.LayerNorm(1), [t(2, 3), t(4)], r"layer_norm cannot broadcast \[2,3\] and \[4\]"),
    (o.LayerNorm(1), [t(2, 1), t(4)], r"layer_norm cannot broadcast f32\[4\] to f32\[2,1\]"),
    (o.Lrn(0), [t(1, 3, 4, 4)], "lrn of size 0"),
    (o.Attention(1.0), [t(2, 3), t(4, 5), t(4, 2)], "attention cannot combine"),
    (o.Attention(1.0), [t(2, 3), t(4, 3), t(4, 2), t(3, 4)], r"attention cannot broadcast"),
    (o.Reshape((4, 2)), [t(3, 4)], r"reshape cannot turn f32\[3,4\] into \[4,2\]"),
    (o.Reshape((-1, 12)), [t(3, 4)], "reshape cannot turn"),
    (o.Transpose((0, 0)), [t(3, 4)], "not a permutation"),
    (o.Concat(1), [t(3, 4), t(2, 4)], r"concat along axis 1 cannot join f32\[3,4\] and f32\[2,4\]"),
    (o.Concat(0), [t(3, 4), t(4)], "cannot join"),
    (o.Concat(0), [], "concat takes 1 inputs, not 0"),
    (o.Slice((0,), (5,), (0,), (1,)), [t(4)], r"slice \[0:5:1\] does not fit axis 0 of f32\[4\]"),
    (o.Slice((4,), (0,), (0,), (-1,)), [t(4)], r"slice \[4:0:-1\] does not fit"),
    (o.Slice((0,), (2,), (0,), (0,)), [t(4)], r"slice \[0:2:0\] does not fit"),
    (o.Slice((0, 0), (1, 1), (0, 0), (1, 1)), [t(4)], "each axis once"),
    (o.Pad((1,)), [t(4)], "pad constant by"),
    (o.Pad((-3, -2)), [t(4)], "pad constant by -3 and -2 does not fit axis 0"),
    (o.Pad((1, 0), "edge"), [t(0)], "pad edge by 1 and 0 does not fit"),
    (o.Expand((3,)), [t(2, 3)], r"expand cannot broadcast f32\[2,3\] to \[3\]"),
    (o.Expand((1, 3)), [t(2, 3)], "expand cannot broadcast"),
    (o.Tile((2,)), [t(2, 3)], "tile needs 2 non-negative repeats"),
    (o.ShapeOf(1, 4), [t(2, 3)], r"shape_of \[1:4\] does not fit"),
    (o.Gather(1), [t(3), t(2, dtype=DType.i64)], "gather axis 1 is out of range"),
    (o.Gather(0), [t(3), t(2)], "gather needs i32 or i64 indices, not f32"),
    (o.Resize("linear", (2, 4), (1.0,)), [t(2, 2)], "resize needs 2 sizes and scales"),
    (o.Resize("linear", (2, 4), (1.0, 2.0), "sideways"), [t(2, 2)], "resize does not know"),
    (o.Resize("linear", (2, 4), (1.0, -2.0)), [t(2, 2)], "positive scales"),
    (o.Resize("nearest", (2, 4), (1.0, 2.0)), [t(2, 0)], "empty"),
    (o.Fused(None, 0, ()), [t(2)], "a region of 0 instructions"),
    (o.Fused(None, 0, (o.Instr(o.Neg(), (1,)),)), [t(2)], r"neg in a region reads \(1,\) of 1 values"),
)


@pytest.mark.parametrize(("op", "types", "message"), REFUSED, ids=lambda x: x.kind if isinstance(x, Op) else "")
def test_infer_of_unfit_types_says_what_is_wrong(op: Op, types: Sequence[TensorType | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op.infer(*types)


CARRIED: tuple[tuple[Op, Sequence[TensorType], TensorType], ...] = (
    (o.Relu(), [t(n, 3)], t(n, 3)),
    (o.Add(), [t(n, 3), t(1, 3)], t(n, 3)),
    (o.Add(), [t(n), t(m)], t(maximum(n, m))),
    (o.Add(), [t(n), t(4)], t(4)),
    (o.MatMul(), [t(n, 7, 3), t(3, 5)], t(n, 7, 5)),
    (o.MatMul(), [t(n, m), t(m, 5)], t(n, 5)),
    (o.Convolution((2, 2), (1, 1, 1, 1), (1, 1)), [t(n, 3, 2 * m, m), t(4, 3, 3, 3)], t(n, 4, m, (m - 1) // 2 + 1)),
    (o.Deconvolution((2, 2), (0,) * 4, (1, 1)), [t(n, 3, m, 5), t(3, 4, 2, 2)], t(n, 4, 2 * m, 10)),
    (o.MaxPool((2, 2), (2, 2), (0,) * 4, (1, 1)), [t(n, 3, 4 * m, 8)], t(n, 3, 2 * m, 4)),
    (o.Reduce("mean", (1,), False), [t(n, m, 3)], t(n, 3)),
    (o.Reshape((n, 12)), [t(n, 3, 4)], t(n, 12)),
    (o.Reshape((n * m, 4)), [t(n, m, 4)], t(n * m, 4)),
    (o.Concat(1), [t(n, m), t(n, 3)], t(n, m + 3)),
    (o.Slice((1,), (n,), (0,), (1,)), [t(n)], t(n - 1)),
    (o.Pad((1, 0, 2, 0)), [t(n, 3)], t(n + 3, 3)),
    (o.Expand((n, 3)), [t(1, 3)], t(n, 3)),
    (o.Tile((2, 1)), [t(n, 3)], t(2 * n, 3)),
    (o.ShapeOf(0, 2), [t(n, 3)], t(2, dtype=DType.i64)),
    (o.Resize("linear", (n, 3, 2 * m, 7), (1.0, 1.0, 2.0, None)), [t(n, 3, m, 5)], t(n, 3, 2 * m, 7)),
    (o.Gather(0), [t(9, 4), t(n, m, dtype=DType.i64)], t(n, m, 4)),
)


@pytest.mark.parametrize(("op", "types", "expected"), CARRIED, ids=lambda x: x.kind if isinstance(x, Op) else "")
def test_infer_of_symbolic_dims_carries_them(op: Op, types: Sequence[TensorType], expected: TensorType) -> None:
    assert op.infer(*types) == (expected,)


@pytest.mark.parametrize(("op", "types", "expected"), CARRIED, ids=lambda x: x.kind if isinstance(x, Op) else "")
def test_infer_of_symbolic_dims_agrees_with_infer_of_their_values(
    op: Op, types: Sequence[TensorType], expected: TensorType
) -> None:
    values = {"n": 4, "m": 4}

    def bound(type: TensorType) -> TensorType:
        return type.with_shape(d.evaluate(values) if isinstance(d, SymDim) else d for d in type.shape)

    if isinstance(op, (o.Reshape, o.Expand)):
        op = type(op)(bound(t(*op.shape)).shape)
    if isinstance(op, o.Resize):
        op = o.Resize(op.mode, bound(t(*op.sizes)).shape, op.scales)
    if isinstance(op, o.Slice):
        op = o.Slice(op.starts, bound(t(*op.ends)).shape, op.axes, op.steps)
    assert op.infer(*map(bound, types)) == (bound(expected),)


def test_reshape_reference_with_one_symbol_takes_it_from_the_elements() -> None:
    (y,) = o.Reshape((n, 4)).reference(np.zeros((3, 2, 4), np.float32))
    assert y.shape == (6, 4)
    with pytest.raises(ValueError, match=r"reshape to \[n,m\] needs the values of its symbols"):
        o.Reshape((n, m)).reference(np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="expand needs the values"):
        o.Expand((n, 4)).reference(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("index", [3, -4])
def test_gather_reference_out_of_range_raises_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        o.Gather(0).reference(np.zeros(3, np.float32), np.array([index]))
