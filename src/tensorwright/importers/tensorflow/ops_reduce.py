# SPDX-License-Identifier: Apache-2.0
"""TensorFlow reductions, running sums and arg-max."""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.ops_shape import as_type
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.elementwise import Add, Exp, Log, Mul, Sqrt, Sub
from tensorwright.ops.index import ArgMax, ArgMin
from tensorwright.ops.order import CumProd, CumSum
from tensorwright.ops.reduce import How, Reduce
from tensorwright.ops.shape import Reshape


def _reduction(name: str, how: How) -> TfOp:
    def translate(b: Builder, n: OpNode) -> Result:
        return _over_axes(n, lambda axes, keep: b.add(Reduce(how, axes, keep), n.input(0)))

    return TfOp(name, translate)


def _over_axes(n: OpNode, reduce: Callable[[tuple[int, ...], bool], Value]) -> Value:
    """No axes are the identity."""
    axes = n.axes(1, n.input(0).type.rank)
    keep = n.flag("keep_dims") or n.flag("keepdims")
    return reduce(axes, keep) if axes else n.input(0)


@tf_op("EuclideanNorm")
def euclidean_norm(b: Builder, n: OpNode) -> Result:
    """The root of the sum of squares."""
    square = b.add(Mul(), n.input(0), n.input(0))
    axes, keep = n.axes(1, n.input(0).type.rank), n.flag("keep_dims")
    return b.add(Sqrt(), b.add(Reduce("sum", axes, keep), square) if axes else square)


@tf_op("ReduceLogSumExp")
def log_sum_exp(b: Builder, n: OpNode) -> Result:
    """max + log(sum(exp(x - max)))."""
    x, axes = n.input(0), n.axes(1, n.input(0).type.rank)
    top = b.add(Reduce("max", axes, True), x)
    y = b.add(Add(), top, b.add(Log(), b.add(Reduce("sum", axes, True), b.add(Exp(), b.add(Sub(), x, top)))))
    return (
        y if n.flag("keep_dims") else b.add(Reshape(tuple(d for i, d in enumerate(y.type.shape) if i not in axes)), y)
    )


@tf_op("ArgMax", "ArgMin")
def arg_extreme(b: Builder, n: OpNode) -> Result:
    """The position of the extreme, the first of equal ones."""
    x = n.input(0)
    axis = n.axis(1, x.type.rank) if len(n.inputs) > 1 else 0
    y = b.add((ArgMax if n.op == "ArgMax" else ArgMin)(axis, False), x)
    return as_type(b, y, n.dtype("output_type", DType.i64))


@tf_op("Cumsum", "Cumprod")
def running(b: Builder, n: OpNode) -> Result:
    """Each element combined with all before it."""
    x = n.input(0)
    make = CumSum if n.op == "Cumsum" else CumProd
    return b.add(make(n.axis(1, x.type.rank), n.flag("exclusive"), n.flag("reverse")), x)


OPS: list[TfOp] = [
    _reduction("Sum", "sum"),
    _reduction("Mean", "mean"),
    _reduction("Max", "max"),
    _reduction("Min", "min"),
    _reduction("Prod", "prod"),
    _reduction("Any", "max"),
    _reduction("All", "min"),
    *euclidean_norm,
    *log_sum_exp,
    *arg_extreme,
    *running,
]
