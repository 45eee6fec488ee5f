# SPDX-License-Identifier: Apache-2.0
"""ONNX reductions, softmax and arg-max."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.narrow import softmax
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, normal_axes, onnx_op
from tensorwright.ir.dims import product
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops.elementwise import Abs, Add, Div, Equal, Exp, Log, Mul, Sqrt, Sub, Where
from tensorwright.ops.index import ArgMax, ArgMin
from tensorwright.ops.reduce import How, LogSoftmax, Reduce
from tensorwright.ops.shape import Reshape

AXES_INPUT_SINCE = 18
"""The opset that made `axes` an input of all reductions but ReduceSum, where opset 13 did."""

Reducer = Callable[[Builder, Value, tuple[int, ...], bool], Value]


def _plain(how: How) -> Reducer:
    return lambda b, x, axes, keepdims: b.add(Reduce(how, axes, keepdims), x)


def _l1(b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return b.add(Reduce("sum", axes, keepdims), b.add(Abs(), x))


def _sum_square(b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return b.add(Reduce("sum", axes, keepdims), b.add(Mul(), x, x))


def _l2(b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return b.add(Sqrt(), _sum_square(b, x, axes, keepdims))


def _log_sum(b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return b.add(Log(), b.add(Reduce("sum", axes, keepdims), x))


def _log_sum_exp(b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """max + log(sum(exp(x - max))), which does not overflow."""
    top = b.add(Reduce("max", axes, True), x)
    total = b.add(Log(), b.add(Reduce("sum", axes, True), b.add(Exp(), b.add(Sub(), x, top))))
    y = b.add(Add(), total, top)
    return y if keepdims else b.add(Reshape(tuple(d for i, d in enumerate(y.type.shape) if i not in axes)), y)


REDUCERS: Mapping[str, Reducer] = {
    "ReduceSum": _plain("sum"),
    "ReduceMean": _plain("mean"),
    "ReduceMax": _plain("max"),
    "ReduceMin": _plain("min"),
    "ReduceProd": _plain("prod"),
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}


def _reduce_forms(name: str, reducer: Reducer) -> tuple[OnnxOp, OnnxOp]:
    """The form with `axes` as an attribute, and the one with it as an input."""

    def by_attribute(b: Builder, n: OnnxNode) -> Result:
        return _reduced(b, n, reducer, n.ints("axes") or ())

    def by_input(b: Builder, n: OnnxNode) -> Result:
        given = n.optional(1) is not None
        axes = n.integers(1, f"{name} needs to know which axes to reduce") if given else ()
        return _reduced(b, n, reducer, axes)

    return OnnxOp(name, 7, by_attribute), OnnxOp(name, 13 if name == "ReduceSum" else AXES_INPUT_SINCE, by_input)


def _reduced(b: Builder, n: OnnxNode, reducer: Reducer, axes: tuple[int, ...]) -> Value:
    """No axes means all of them, or none at all when the node says so."""
    x, keepdims, nothing = n.input(0), n.flag("keepdims", True), n.flag("noop_with_empty_axes")
    chosen = normal_axes(axes, x.type.rank) if axes or nothing else tuple(range(x.type.rank))
    return reducer(b, x, chosen, keepdims)


def _log_softmax(b: Builder, x: Value, axis: int) -> Value:
    return b.add(LogSoftmax(axis), x)


def _softmax_flattened(name: str, make: Callable[[Builder, Value, int], Value]) -> OnnxOp:
    """Until opset 12: over all dims from `axis` on together."""

    def translate(b: Builder, n: OnnxNode) -> Result:
        x = n.input(0)
        axis = n.cut("axis", 1, x.type.rank)
        rest = x.type.shape[axis:]
        if len(rest) == 1:
            return make(b, x, axis)
        flat = b.add(Reshape((*x.type.shape[:axis], product(rest))), x)
        return b.add(Reshape(x.type.shape), make(b, flat, axis))

    return OnnxOp(name, 7, translate)


def _softmax(name: str, make: Callable[[Builder, Value, int], Value]) -> OnnxOp:
    return OnnxOp(name, 13, lambda b, n: make(b, n.input(0), n.axis("axis", -1, n.input(0).type.rank)))


def _arg(name: str, make: Callable[[int, bool, bool], Op]) -> OnnxOp:
    def translate(b: Builder, n: OnnxNode) -> Result:
        x = n.input(0)
        axis = n.axis("axis", 0, x.type.rank)
        return b.add(make(axis, n.flag("keepdims", True), n.flag("select_last_index")), x)

    return OnnxOp(name, 7, translate)


@onnx_op("LpNormalization")
def lp_normalization(b: Builder, n: OnnxNode) -> Result:
    """x divided by its 1- or 2-norm along an axis; 0 where that norm is 0."""
    x, p = n.input(0), n.attr("p", int, 2)
    if p not in (1, 2):
        raise ValueError(f"p is {p}, expected 1 or 2")
    axes = (n.axis("axis", -1, x.type.rank),)
    norm, zero = (_l1 if p == 1 else _l2)(b, x, axes, True), b.scalar(0, x.type.dtype)
    return b.add(Where(), b.add(Equal(), norm, zero), zero, b.add(Div(), x, norm))


OPS = [
    *(form for name, reducer in REDUCERS.items() for form in _reduce_forms(name, reducer)),
    _softmax_flattened("Softmax", softmax),
    _softmax_flattened("LogSoftmax", _log_softmax),
    _softmax("Softmax", softmax),
    _softmax("LogSoftmax", _log_softmax),
    _arg("ArgMax", ArgMax),
    _arg("ArgMin", ArgMin),
    lp_normalization,
]
