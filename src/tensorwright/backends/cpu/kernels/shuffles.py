# SPDX-License-Identifier: Apache-2.0
"""Rearrangements of several registers by two-operand shuffles."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import width_of


def transpose(f: Function, rows: Sequence[Reg]) -> list[Reg]:
    """Square transposition of n registers of n lanes, n a power of two.

    Step s exchanges the off-diagonal s x s blocks of each 2s x 2s block: log2(n) steps of n shuffles.
    """
    out = list(rows)
    n, step = len(out), 1
    while step < n:
        upper = [k if not k & step else n + k - step for k in range(n)]
        lower = [k + step if not k & step else n + k for k in range(n)]
        for i in range(n):
            if not i & step:
                a, b = out[i], out[i + step]
                out[i], out[i + step] = f.shuffle(a, b, upper), f.shuffle(a, b, lower)
        step *= 2
    return out


def pick(f: Function, sources: Sequence[Reg], lanes: Sequence[tuple[int, int]]) -> Reg:
    """A register whose lane i is lane lanes[i][1] of sources[lanes[i][0]]; one shuffle per source after the first."""
    n = width_of(sources[0].ty)
    first, *others = sorted({source for source, _ in lanes})
    result = f.shuffle(sources[first], None, [lane if source == first else -1 for source, lane in lanes])
    for other in others:
        kept = [i if source < other else -1 for i, (source, _) in enumerate(lanes)]
        taken = [n + lane if source == other else keep for (source, lane), keep in zip(lanes, kept, strict=True)]
        result = f.shuffle(result, sources[other], taken)
    return result


def interleave(f: Function, parts: Sequence[Reg]) -> list[Reg]:
    """Registers that hold part0[0], part1[0], ..., part0[1], part1[1], ... one after the other."""
    n, s = width_of(parts[0].ty), len(parts)
    if s == 1:
        return list(parts)
    return [pick(f, parts, [(i % s, i // s) for i in range(k * n, (k + 1) * n)]) for k in range(s)]


def deinterleave(f: Function, flat: Sequence[Reg]) -> list[Reg]:
    """The inverse of `interleave`."""
    n, s = width_of(flat[0].ty), len(flat)
    if s == 1:
        return list(flat)
    return [pick(f, flat, [divmod(i * s + j, n) for i in range(n)]) for j in range(s)]
