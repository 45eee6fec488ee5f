# SPDX-License-Identifier: Apache-2.0
"""Views against NumPy: a view of a buffer must hold exactly what the op's reference gives."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tensorwright.backends.base import row_major
from tensorwright.lower.views import Strided, channels_last, dense, order_of, reshape_strides, source_of, view
from tensorwright.ops.shape import Expand, Reshape, Slice, Transpose


def read(base: np.ndarray, at: Strided, shape: tuple[int, ...]) -> np.ndarray:
    """The elements of a strided view of a flat array."""
    index = np.full(shape, at.offset)
    for axis, (dim, stride) in enumerate(zip(shape, at.strides, strict=True)):
        index = index + (np.arange(dim) * stride).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return base[index]


Placed = tuple[np.ndarray, Strided, tuple[int, ...]]
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


@st.composite
def dense_values(draw: st.DrawFn) -> Placed:
    shape = draw(shapes)
    order = draw(st.permutations(range(len(shape))))
    return np.arange(math.prod(shape)), Strided(0, dense(shape, order)), shape


@given(dense_values(), st.data())
def test_reshape_view_matches_numpy_or_is_refused(value: Placed, data: st.DataObject) -> None:
    base, at, shape = value
    count = math.prod(shape)
    cuts = [d for d in range(1, count + 1) if count % d == 0]
    first = data.draw(st.sampled_from(cuts))
    second = data.draw(st.sampled_from([d for d in cuts if (count // first) % d == 0]))
    new = (first, second, count // first // second)
    result = view(Reshape(new), shape, at, new)
    want = read(base, at, shape).reshape(new)
    if result is not None:
        np.testing.assert_array_equal(read(base, result, new), want)
        back = source_of(Reshape(new), shape, result, new)
        if back is not None:
            np.testing.assert_array_equal(read(base, back, shape), read(base, at, shape))
    else:
        assert at.strides != tuple(0 if d == 1 else s for d, s in zip(shape, row_major(shape), strict=True))


@given(dense_values(), st.data())
def test_transpose_view_matches_numpy_and_inverts(value: Placed, data: st.DataObject) -> None:
    base, at, shape = value
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    out_shape = tuple(shape[a] for a in perm)
    result = view(Transpose(perm), shape, at, out_shape)
    assert result is not None
    np.testing.assert_array_equal(read(base, result, out_shape), read(base, at, shape).transpose(perm))
    assert source_of(Transpose(perm), shape, result, out_shape) == at


@given(dense_values(), st.data())
def test_slice_view_matches_numpy(value: Placed, data: st.DataObject) -> None:
    base, at, shape = value
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    end = data.draw(st.integers(start + 1, shape[axis]))
    step = data.draw(st.integers(1, 3))
    index = tuple(slice(start, end, step) if a == axis else slice(None) for a in range(len(shape)))
    want = read(base, at, shape)[index]
    result = view(Slice((start,), (end,), (axis,), (step,)), shape, at, want.shape)
    assert result is not None
    np.testing.assert_array_equal(read(base, result, want.shape), want)


@given(dense_values())
def test_expand_view_matches_numpy(value: Placed) -> None:
    base, at, shape = value
    out_shape = (2, *(3 if d == 1 else d for d in shape))
    result = view(Expand(out_shape), shape, at, out_shape)
    assert result is not None
    np.testing.assert_array_equal(read(base, result, out_shape), np.broadcast_to(read(base, at, shape), out_shape))


def test_flatten_of_channels_last_needs_a_copy() -> None:
    shape = (1, 3, 4, 4)
    assert reshape_strides(shape, dense(shape, channels_last(4)), (1, 48)) is None


def test_spatial_merge_of_channels_last_is_a_view() -> None:
    shape = (1, 8, 4, 5)
    assert reshape_strides(shape, dense(shape, channels_last(4)), (1, 8, 20)) == (0, 1, 8)


def test_order_of_dense_strides_round_trips() -> None:
    for order in ((0, 2, 3, 1), (0, 1, 2, 3), (3, 1, 0, 2)):
        assert order_of((2, 3, 4, 5), dense((2, 3, 4, 5), order)) == order
