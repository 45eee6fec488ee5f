# SPDX-License-Identifier: Apache-2.0
"""How far two arrays are apart, in the figures that a person debugging accuracy asks for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.ir.op import Array

_BAR = 32  # characters of the longest bar
_DECADES = 8  # that a histogram shows one by one


@dataclass(frozen=True, slots=True)
class Tolerance:
    """|got - want| <= atol + rtol * |want|, as numpy.allclose has it. NaN agrees with NaN, infinities with equals."""

    rtol: float = 1e-3
    atol: float = 1e-4


@dataclass(frozen=True, slots=True)
class Bin:
    """How many elements have an absolute error in [low, high)."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of one tensor. Errors are of the elements that are finite on both sides.

    `max_rel` and `mean_rel` are relative to |want| (elements where it is 0 are left out); `scaled` is max_abs over the
    largest |want|. `needed_atol` and `needed_rtol` are the smallest tolerances that would pass with the other one
    as asked, None where no value would. `first` is the index of the first mismatch, with `first_got` and `first_want`.
    """

    name: str
    type: str
    passed: bool
    reason: str
    elements: int
    mismatches: int
    max_abs: float
    mean_abs: float
    max_rel: float
    mean_rel: float
    scaled: float
    needed_rtol: float | None
    needed_atol: float | None
    first: tuple[int, ...] | None
    first_got: str
    first_want: str
    histogram: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON; what is not finite is null."""
        facts = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}


def difference(name: str, got: Any, want: Any, tolerance: Tolerance) -> Difference:
    """Compare two arrays element by element; another dtype or shape is a mismatch of all elements.

    Sequences and optionals compare as a whole.
    """
    got, want = _array(got), _array(want)
    kind = f"{want.dtype}{list(want.shape)}"
    if got.shape != want.shape or got.dtype != want.dtype:
        return _different_type(name, kind, got, want)
    if want.dtype.kind not in "fiubV":  # strings and objects
        return _exact(name, kind, got, want)
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(a - b)
        near = error <= tolerance.atol + tolerance.rtol * np.abs(b)
    finite = np.isfinite(a) & np.isfinite(b)
    agree = (a == b) | (np.isnan(a) & np.isnan(b)) | (near & finite)
    e, size = error[finite], np.abs(b[finite])
    relative = e[size > 0] / size[size > 0]
    odd = int(np.count_nonzero(~agree & ~finite))
    bad = ~agree
    first = _first(bad)
    return Difference(
        name,
        kind,
        passed=first is None,
        reason="" if first is None else f"{np.count_nonzero(bad)} of {want.size} elements differ",
        elements=want.size,
        mismatches=int(np.count_nonzero(bad)),
        max_abs=math.inf if odd else _max(e),
        mean_abs=_mean(e),
        max_rel=_max(relative),
        mean_rel=_mean(relative),
        scaled=_max(e) / max(_max(size), np.finfo(np.float64).tiny) if e.size and _max(e) else 0.0,
        needed_rtol=None if odd else _needed_rtol(e, size, tolerance.atol),
        needed_atol=None if odd else _max(np.maximum(e - tolerance.rtol * size, 0)),
        first=first,
        first_got="" if first is None else str(got[first]),
        first_want="" if first is None else str(want[first]),
        histogram=() if first is None else histogram(e),
    )


def histogram(errors: Array) -> tuple[Bin, ...]:
    """Absolute errors by powers of ten; what is far below the largest is one bin, exact agreement another."""
    zero = int(np.count_nonzero(errors == 0))
    bins = [Bin(0.0, 0.0, zero)] if zero else []
    decades = np.floor(np.log10(errors[errors > 0])).astype(int)
    if not decades.size:
        return tuple(bins)
    top = int(decades.max())
    lowest = max(int(decades.min()), top - _DECADES + 1)
    below = int(np.count_nonzero(decades < lowest))
    bins += [Bin(0.0, 10.0**lowest, below)] if below else []
    for decade in range(lowest, top + 1):
        bins.append(Bin(10.0**decade, 10.0 ** (decade + 1), int(np.count_nonzero(decades == decade))))
    return tuple(bins)


def histogram_lines(bins: Sequence[Bin]) -> list[str]:
    """One line of text for each bin, with a bar."""
    most = max((b.count for b in bins), default=1)
    lines = []
    for b in bins:
        label = f"{b.low:.0e} to {b.high:.0e}" if b.low else f"below {b.high:.0e}" if b.high else "exact"
        bar = "#" * max(round(_BAR * b.count / most), 1 if b.count else 0)
        lines.append(f"{label:>16}  {b.count:>9}  {bar}".rstrip())
    return lines


def _array(value: Any) -> Array:
    whole = value is None or isinstance(value, list | tuple)
    return np.asarray(repr(value), object) if whole else np.asarray(value)


def _different_type(name: str, kind: str, got: Array, want: Array) -> Difference:
    reason = f"{got.dtype}{list(got.shape)} instead of {kind}"
    return _no_figures(name, kind, reason, want.size, want.size, None)


def _exact(name: str, kind: str, got: Array, want: Array) -> Difference:
    bad = np.asarray(got != want, bool)
    first, count = _first(bad), int(np.count_nonzero(bad))
    done = _no_figures(name, kind, f"{count} of {want.size} elements differ" if count else "", want.size, count, first)
    if first is None:
        return done
    return dataclasses.replace(done, first_got=str(got[first]), first_want=str(want[first]))


def _no_figures(
    name: str, kind: str, reason: str, elements: int, bad: int, first: tuple[int, ...] | None
) -> Difference:
    error = math.inf if reason else 0.0
    needed = None if reason else 0.0
    return Difference(
        name,
        kind,
        not reason,
        reason,
        elements,
        bad,
        error,
        error,
        error,
        error,
        error,
        needed,
        needed,
        first,
        "",
        "",
        (),
    )


def _first(bad: Array) -> tuple[int, ...] | None:
    return tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape)) if bad.any() else None


def _needed_rtol(error: Array, size: Array, atol: float) -> float | None:
    over = error - atol
    rest = over > 0
    if (size[rest] == 0).any():
        return None
    return _max(over[rest] / size[rest])


def _max(values: Array) -> float:
    return float(values.max(initial=0.0))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0
