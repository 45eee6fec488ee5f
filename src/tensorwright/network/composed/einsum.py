# SPDX-License-Identifier: Apache-2.0
"""Einsum, from left to right: two operands at a time become one matrix product, or one broadcast product."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.ir.dims import Dim, product
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError, limit_constant
from tensorwright.ops.elementwise import Mul, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape, Transpose


@dataclass(frozen=True, slots=True)
class _Term:
    """A value and the label of each of its axes. Dims of an ellipsis have labels "0", "1", ... from the last one on."""

    value: Value
    labels: tuple[str, ...]

    def dim(self, label: str) -> Dim:
        return self.value.type.shape[self.labels.index(label)]


def einsum(b: NetworkBuilder, equation: str, values: Sequence[Value]) -> Value:
    """The sum over all labels that the result does not have, of the products of the operands' elements."""
    equation = equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    written = left.split(",")
    if len(written) != len(values):
        raise ValueError(f"equation {equation!r} has {len(written)} operands, given are {len(values)}")
    terms = [_Term(v, _labels(text, v.type.rank)) for text, v in zip(written, values, strict=True)]
    used = [label for term in terms for label in term.labels]
    dots = tuple(sorted({label for label in used if label.isdigit()}, key=int, reverse=True))
    if arrow:
        head, ellipsis, tail = right.partition("...")
        result = (*head, *(dots if ellipsis else ()), *tail)
    else:
        result = (*dots, *sorted(label for label in set(used) if used.count(label) == 1 and not label.isdigit()))
    if len(set(result)) != len(result) or not set(result) <= set(used):
        raise ValueError(f"equation {equation!r} has a result with repeated or unknown labels")
    terms = [_without_ones(b, _diagonal(b, term), terms) for term in terms]
    done, *rest = terms
    for i, term in enumerate(rest):
        done = _product(b, done, term, {*result, *(label for later in rest[i + 1 :] for label in later.labels)})
    done = _summed(b, done, result)
    missing = [label for label in result if label not in done.labels]  # of size 1 in all operands
    done = _Term(b.add(Reshape((*(1 for _ in missing), *done.value.type.shape)), done.value), (*missing, *done.labels))
    return _ordered(b, done, result).value


def _labels(text: str, rank: int) -> tuple[str, ...]:
    head, dots, tail = text.partition("...")
    free = rank - len(head) - len(tail)
    if not (head + tail).isalpha() and head + tail or free < 0 or (free and not dots):
        raise ValueError(f"{text!r} does not describe {rank} axes")
    return (*head, *(str(i) for i in reversed(range(free))), *tail)


def _diagonal(b: NetworkBuilder, term: _Term) -> _Term:
    """The term with repeated labels taken along their diagonal: elements beside it become 0 and are summed away."""
    for label in dict.fromkeys(term.labels):
        while term.labels.count(label) > 1:
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            size, other = (term.value.type.shape[i] for i in (first, second))
            if not isinstance(size, int) or size != other:
                raise RefusalError(f"label {label!r} repeats over dims {size} and {other}, not over one known size")
            limit_constant(size * size)
            shape = [size if i in (first, second) else 1 for i in range(len(term.labels))]
            mask = b.constant(np.eye(size, dtype=bool).reshape(shape))
            kept = b.add(Where(), mask, term.value, b.scalar(0, term.value.type.dtype))
            labels = term.labels[:second] + term.labels[second + 1 :]
            term = _Term(b.add(Reduce("sum", (second,), False), kept), labels)
    return term


def _without_ones(b: NetworkBuilder, term: _Term, terms: Sequence[_Term]) -> _Term:
    """The term without dims of 1 that are broadcast against another operand's dim."""

    def is_broadcast(label: str) -> bool:
        dims = [other.dim(label) for other in terms if label in other.labels]
        return term.dim(label) == 1 and any(d != 1 for d in dims)

    kept = tuple(label for label in term.labels if not is_broadcast(label))
    return _reshaped(b, term, [[label] for label in kept]) if kept != term.labels else term


def _summed(b: NetworkBuilder, term: _Term, kept: Collection[str]) -> _Term:
    """The term summed over all labels that are not kept."""
    axes = tuple(i for i, label in enumerate(term.labels) if label not in kept)
    if not axes:
        return term
    return _Term(b.add(Reduce("sum", axes, False), term.value), tuple(x for x in term.labels if x in kept))


def _product(b: NetworkBuilder, x: _Term, y: _Term, kept: Collection[str]) -> _Term:
    """Both multiplied, summed over the labels that are not kept."""
    x, y = _summed(b, x, {*kept, *y.labels}), _summed(b, y, {*kept, *x.labels})
    shared = [label for label in x.labels if label in y.labels]
    batch, inner = ([label for label in shared if (label in kept) is is_kept] for is_kept in (True, False))
    rows = [label for label in x.labels if label not in shared]
    columns = [label for label in y.labels if label not in shared]
    labels = (*batch, *rows, *columns)
    shape = (*(x.dim(label) for label in (*batch, *rows)), *(y.dim(label) for label in columns))
    x, y = _ordered(b, x, (*batch, *rows, *inner)), _ordered(b, y, (*batch, *inner, *columns))
    if inner and x.value.type.dtype.is_float:
        groups = [[label] for label in batch]
        left, right = _reshaped(b, x, [*groups, rows, inner]), _reshaped(b, y, [*groups, inner, columns])
        return _Term(b.add(Reshape(shape), b.add(MatMul(), left.value, right.value)), labels)
    left = _reshaped(b, x, [*([label] for label in (*batch, *rows)), *([] for _ in columns), *([i] for i in inner)])
    y = _ordered(b, y, (*batch, *columns, *inner))
    right = _reshaped(b, y, [*([x] for x in batch), *([] for _ in rows), *([x] for x in (*columns, *inner))])
    return _summed(b, _Term(b.add(Mul(), left.value, right.value), (*labels, *inner)), kept)


def _ordered(b: NetworkBuilder, term: _Term, labels: tuple[str, ...]) -> _Term:
    """The term with its axes in the order of `labels`."""
    if term.labels == labels:
        return term
    return _Term(b.add(Transpose(tuple(term.labels.index(x) for x in labels)), term.value), labels)


def _reshaped(b: NetworkBuilder, term: _Term, groups: Sequence[Sequence[str]]) -> _Term:
    """The term with each group of neighbouring labels as one axis (an empty group: an axis of 1)."""
    shape = tuple(product(term.dim(label) for label in group) for group in groups)
    labels = tuple("".join(group) for group in groups)
    return _Term(term.value if term.value.type.shape == shape else b.add(Reshape(shape), term.value), labels)
