# SPDX-License-Identifier: Apache-2.0
"""Every row of the op table with its leading dim as a symbol: a batch that only a run knows.

The symbolic variant of a row is derived, not written: the leading dim of the fewest inputs for which the op's inference
and its reference agree at all sizes becomes the symbol. Rows without such a variant are listed with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import ops as o
from tensorwright.ir.dims import SymDim, substitute
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op, with_dims
from tensorwright.ir.types import TensorType
from tensorwright.tune.verify import mismatch
from tests.backends.cpu.sized_check import Bounds, check_sized, sized_graph, symbols
from tests.suites.op_case import OpCase, Spec, values
from tests.suites.op_table import CASES

_SIZED_ATTRIBUTES = ("shape", "sizes")  # of ops that say the shape of their result
_SELECTS = (
    o.Gather,
    o.GatherElements,
    o.GatherNd,
    o.ScatterElements,
    o.ScatterNd,
    o.RoiAlign,
    o.MaxRoiPool,
    o.TopKValues,
    o.TopKIndices,
)
"""Ops whose row may ask for any of the elements that it has: their symbol is never below the row's size."""

_CHAOTIC = (o.Lstm, o.Gru, o.Rnn)  # a rounding difference grows with every step: no more than the row has

_FIXED = {
    "mat_mul(f32[5],f32[5,7])": "a vector, which has no leading dim to share, is multiplied with its matrix",
    "reshape[shape=()](f32[1,1])": "the result has no dim that could take the elements",
    "reshape[shape=(0,7)](f32[0,3])": "3 elements a row make no rows of 7",
    "slice[starts=(1);ends=(3);axes=(0);steps=(1)](f32[5,7])": "a slice is resolved for its leading dim",
    "slice[starts=(4,1);ends=(-1,6);axes=(0,2);steps=(-2,3)](f32[5,2,7])": "a slice is resolved for its leading dim",
    "expand[shape=(2,3,5)](f32[3,1])": "the leading dim of the result is no dim of the input",
    "expand[shape=(2,3)](i64[1,3]:integers)": "the leading dim of the result is no dim of the input",
    "determinant(f32[1,1])": "a matrix alone is square",
    "determinant(f32[33,33])": "a matrix alone is square",
}
"""Rows with a matrix or image among their inputs that have no symbolic variant, and why."""


def _is_built(case: OpCase) -> bool:
    """Whether the row goes through a build: passes rewrite it for kernels, or its empty result needs none."""
    if isinstance(case.op, o.Convolution | o.Deconvolution):
        return len(case.inputs) == 3  # the bias becomes work that follows
    if isinstance(case.op, o.Slice) and 0 in case.op.infer(*case.types)[0].shape:
        return True
    return (
        isinstance(case.op, o.Softmax | o.LogSoftmax | o.LayerNorm) and case.op.infer(*case.types)[0].dtype is DType.f64
    )


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row with symbols: the op and inputs with "n" in place of a size."""

    op: Op
    inputs: tuple[Spec | None, ...]
    bounds: Bounds


def variant_of(case: OpCase) -> Variant | None:
    """The row with the leading dim of a matrix or image as a symbol, which others may share."""
    leading = [(i, s.shape[0]) for i, s in enumerate(case.inputs) if s is not None and len(s.shape) >= 2]
    for size in dict.fromkeys(d for _, d in leading):  # by input, the first one first
        most = size if isinstance(case.op, _CHAOTIC) else 2 * size + 5
        bounds = {"n": (size if isinstance(case.op, _SELECTS) else min(size, 1), min(max(size, 3), most), most)}
        sharing = [i for i, d in leading if d == size]
        for count in range(1, len(sharing) + 1):
            for chosen in itertools.combinations(sharing, count):
                inputs = tuple(
                    dataclasses.replace(s, shape=("n", *s.shape[1:])) if s is not None and i in chosen else s
                    for i, s in enumerate(case.inputs)
                )
                for op in _ops(case.op, size, symbols(bounds)["n"]):
                    if _is_right(found := Variant(op, inputs, bounds)):
                        return found
    return None


def _ops(op: Op, size: int, n: SymDim) -> Iterator[Op]:
    """The op, and where it says its result's shape, the same with a symbol in front."""
    yield op
    for name in _SIZED_ATTRIBUTES:
        dims = getattr(op, name, None)
        if isinstance(dims, tuple) and dims and dims[0] == size:
            yield dataclasses.replace(op, **{name: (n, *dims[1:])})  # type: ignore[type-var]


def _is_right(v: Variant) -> bool:
    """Whether inference on symbols says what the reference does at every size."""
    n = symbols(v.bounds)["n"]
    try:
        (inferred,) = v.op.infer(*(None if s is None else TensorType(s.dtype, _shape(s, n)) for s in v.inputs))
        for size in v.bounds["n"]:
            (made,) = _reference(v, _arrays(v, size, np.random.default_rng(0)), size)
            if made.shape != tuple(substitute(d, {"n": size}) for d in inferred.shape):
                return False
    except (ValueError, IndexError, np.linalg.LinAlgError):
        return False
    return True


def _shape(spec: Spec, n: int | SymDim) -> tuple[int, ...]:
    return tuple(n if d == "n" else d for d in spec.shape)


def _arrays(v: Variant, n: int, rng: np.random.Generator) -> list[np.ndarray | None]:
    return [None if s is None else values(dataclasses.replace(s, shape=_shape(s, n)), rng) for s in v.inputs]


def _reference(v: Variant, arrays: Sequence[np.ndarray | None], n: int) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        return with_dims(v.op, {"n": n}).reference(*arrays)


VARIANTS = {case.id: variant_of(case) for case in CASES}
HAVE_ROWS = [c for c in CASES if any(s is not None and len(s.shape) >= 2 for s in c.inputs)]


def rows(*, built: bool) -> list[object]:
    """The rows that have a variant and are built with passes, or not."""
    chosen = (c for c in HAVE_ROWS if VARIANTS[c.id] is not None and _is_built(c) == built)
    return [pytest.param(VARIANTS[c.id], id=c.id) for c in chosen]


def test_rows_without_a_variant_are_the_listed_ones() -> None:
    assert {c.id for c in HAVE_ROWS if VARIANTS[c.id] is None} == set(_FIXED)


@pytest.mark.parametrize("variant", rows(built=False))
def test_kernels_of_a_symbolic_leading_dim_match_reference(variant: Variant) -> None:
    check_sized(variant.op, *variant.inputs, bounds=variant.bounds, candidates=1)


@pytest.mark.parametrize("variant", rows(built=True))
def test_engines_of_a_symbolic_leading_dim_match_reference(variant: Variant) -> None:
    rng = np.random.default_rng()
    graph = sized_graph(variant.op, variant.inputs, symbols(variant.bounds))
    with tw.build(graph, tune="off", host_steps=False) as engine:
        for n in variant.bounds["n"]:
            arrays = _arrays(variant, n, rng)
            got = engine.run({f"x{i}": x for i, x in enumerate(arrays) if x is not None})["y0"]
            reason = mismatch(variant.op, [got], _reference(variant, arrays, n))
            assert not reason, f"n = {n}: {reason}"
