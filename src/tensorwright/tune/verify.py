# SPDX-License-Identifier: Apache-2.0
"""Whether a kernel's outputs agree with the op's reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, ROUNDED, Array, Compare, Op
from tensorwright.ops.fused import Fused, Literal

# Ops whose result jumps: inputs that differ by a rounding may fall on both sides.
_JUMPS = frozenset(
    {
        "floor",
        "ceil",
        "round",
        "sign",
        "equal",
        "less",
        "less_equal",
        "greater",
        "greater_equal",
        "mod",
        "cast",
        "quantise",
        "thresholded_relu",
    }
)
_JUMPING_SHARE = 1e-3  # of the elements may then differ


def tolerance(op: Op) -> Compare:
    """How exactly a kernel of `op` must agree. For a region, the loosest of its parts, and relative to the largest
    element: a kernel may fuse products and sums, and a later subtraction can cancel all but that rounding."""
    parts = _parts(op)
    if len(parts) == 1:
        return parts[0].compare
    rules = [ROUNDED, *(part.compare for part in parts)]
    return Compare(max(r.rtol for r in rules), max(r.atol for r in rules), scaled=True)


def mismatch(op: Op, got: Sequence[Array], want: Sequence[Array]) -> str:
    """Why the outputs of a kernel differ from the reference; "" when they agree. NaN agrees with NaN.

    Of an op that draws at random only the types can be compared.
    """
    rule = tolerance(op)
    share = _JUMPING_SHARE if any(part.kind in _JUMPS for part in _parts(op)[1:]) else 0.0
    is_random = not getattr(op, "pure", True)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        x, y = np.asarray(a), np.asarray(b)
        reason = _other_type(x, y) if is_random else _mismatch(x, y, rule, share)
        if reason:
            return f"output {index}: {reason}" if len(want) > 1 else reason
    return ""


def _parts(op: Op) -> list[Op]:
    """The op, or what a region computes: first the anchor, else the first instruction."""
    if not isinstance(op, Fused):
        return [op]
    return [*([op.anchor] if op.anchor is not None else []), *(i.op for i in op.body if not isinstance(i.op, Literal))]


def _other_type(got: Array, want: Array) -> str:
    if got.shape == want.shape and got.dtype == want.dtype:
        return ""
    return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"


def _mismatch(got: Array, want: Array, rule: Compare, share: float) -> str:
    if (reason := _other_type(got, want)) or not want.size:
        return reason
    if DType.of(want.dtype).is_float:
        if want.dtype.itemsize < 4 and rule != EXACT:  # other roundings before it may move the last one
            step = float(np.ldexp(1.0, -10 if want.dtype == np.float16 else -7))
            rule = Compare(rule.rtol + step, rule.atol, rule.scaled)
        got, want = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(got - want)
            finite = want[np.isfinite(want)]
            scale = np.abs(want) if not rule.scaled else np.abs(finite).max(initial=0.0)
            bad = ~(error <= (rule.atol * scale if rule.scaled else rule.atol) + rule.rtol * scale)
        bad &= ~((got == want) | (np.isnan(got) & np.isnan(want)))
    else:
        bad = got != want
    count = int(np.count_nonzero(bad))
    if count <= share * want.size:
        return ""
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{count} of {want.size} elements differ, the first at {list(first)}: {got[first]} instead of {want[first]}"
