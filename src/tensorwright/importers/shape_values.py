# SPDX-License-Identifier: Apache-2.0
"""The elements of integer tensors that are computed from shapes, followed through symbolic dims.

Exporters write `x.reshape(x.shape[0], -1)` as Shape, Gather, Unsqueeze, Concat, Reshape. With a symbolic batch the
first result is no constant, but its elements are dims, and dims have arithmetic: a rule per op class carries them on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dims import Dim, SymDim, maximum, minimum, product
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops.elementwise import Add, Cast, Div, Equal, Maximum, Minimum, Mul, Sub, Where
from tensorwright.ops.index import Gather
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Concat, Expand, Reshape, ShapeOf, Slice

Contents = np.ndarray[Any, Any]
"""Dims (ints or SymDims) in an object array of the tensor's shape."""

Rule = Callable[[Any, Sequence[Value | None], Sequence[Contents]], Contents | None]
_LIMIT_ELEMS = 256  # a shape computation is short; anything longer is data


def contents_of(op: Op, inputs: Sequence[Value | None], contents: Sequence[Contents | None]) -> Contents | None:
    """The elements of the op's result, given those of its inputs (None: unknown); None when they are not known."""
    rule = _RULES.get(type(op))
    if rule is None:
        return None
    known = [c for c in contents if c is not None]
    if not isinstance(op, ShapeOf) and (len(known) != len(contents) or any(c.size > _LIMIT_ELEMS for c in known)):
        return None
    return rule(op, inputs, known)


def _shape_of(op: ShapeOf, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    (x,) = inputs
    return None if x is None else _array(x.type.shape[op.start : op.end])


def _array(dims: Sequence[Dim]) -> Contents:
    result = np.empty(len(dims), object)
    result[:] = dims
    return result


def _elementwise(function: Callable[[Dim, Dim], Dim | None]) -> Rule:
    def rule(op: Op, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
        a, b = np.broadcast_arrays(*known)
        results = [function(x, y) for x, y in zip(a.flat, b.flat, strict=True)]
        return (
            None if any(r is None for r in results) else _array([r for r in results if r is not None]).reshape(a.shape)
        )

    return rule


def _divide(a: Dim, b: Dim) -> Dim | None:
    if b == 0 or (isinstance(b, int) and b < 0) or (isinstance(a, int) and a < 0):
        return None  # ONNX rounds towards zero, dims towards minus infinity: they agree on what is not negative
    return a // b


def _equal(a: Dim, b: Dim) -> Dim | None:
    """1 or 0 where it is certain: dims are not negative, so none equals -1."""
    if isinstance(a, SymDim) and isinstance(b, SymDim):
        return 1 if a == b else None
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    number, other = (a, b) if isinstance(a, int) else (b, a)
    plain = isinstance(other, SymDim) and all(c > 0 for _, c in other.terms)
    return 0 if isinstance(number, int) and number < 0 and plain else None


def _cast(op: Cast, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    return known[0] if op.dtype.is_integer else None


def _gather(op: Gather, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    data, index = known
    if any(isinstance(i, SymDim) or not -data.shape[op.axis] <= i < data.shape[op.axis] for i in index.flat):
        return None
    taken: Contents = np.empty(data.shape[: op.axis] + index.shape + data.shape[op.axis + 1 :], object)
    taken[...] = np.take(data, index.astype(np.int64), axis=op.axis)
    return taken


def _slice(op: Slice, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    (data,) = known
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(op.axes, op.starts, op.ends, op.steps, strict=True):
        if isinstance(start, SymDim) or isinstance(end, SymDim):
            return None
        index[axis] = slice(start, None if end < 0 else end, step) if start != end else slice(0, 0)
    return data[tuple(index)]


def _reshape(op: Reshape, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    return known[0].reshape([d for d in op.shape if isinstance(d, int)])


def _expand(op: Expand, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    shape = [d for d in op.shape if isinstance(d, int)]
    if len(shape) != len(op.shape) or np.prod(shape, dtype=object) > _LIMIT_ELEMS:
        return None
    return np.broadcast_to(known[0], shape)


def _concat(op: Concat, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    return np.concatenate(known, axis=op.axis)


def _reduce(op: Reduce, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    if op.how != "prod" or known[0].ndim != 1:
        return None
    return _array([product(known[0])]).reshape((1,) if op.keepdims else ())


def _where(op: Where, inputs: Sequence[Value | None], known: Sequence[Contents]) -> Contents | None:
    condition, a, b = np.broadcast_arrays(*known)
    if any(isinstance(c, SymDim) for c in condition.flat):
        return None
    return _array([x if c else y for c, x, y in zip(condition.flat, a.flat, b.flat, strict=True)]).reshape(a.shape)


_RULES: dict[type[Op], Rule] = {
    ShapeOf: _shape_of,
    Cast: _cast,
    Gather: _gather,
    Slice: _slice,
    Reshape: _reshape,
    Expand: _expand,
    Concat: _concat,
    Reduce: _reduce,
    Where: _where,
    Equal: _elementwise(_equal),
    Div: _elementwise(_divide),
    Add: _elementwise(lambda a, b: a + b),
    Sub: _elementwise(lambda a, b: a - b),
    Mul: _elementwise(lambda a, b: a * b),
    Maximum: _elementwise(maximum),
    Minimum: _elementwise(minimum),
}
