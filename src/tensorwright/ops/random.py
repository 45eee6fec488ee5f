# SPDX-License-Identifier: Apache-2.0
"""Random numbers without state: a fresh key for each draw, and numbers that a counter and the key determine.

`RandomKey` is the only op whose result its inputs do not determine (`pure` is False, so that it is neither merged nor
folded). It asks the operating system for a key whenever it runs. Nothing has to be kept from one run to the next, in
contexts or in plans, and runs on several threads are independent. `RandomBits` is a pure function of its key, which
passes may treat as any other. With a seed the key is a constant: the same numbers in each run.
"""

from __future__ import annotations

import math
import os
from typing import ClassVar

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import required

KEY_WORDS = 2
ROUNDS = 10
MULTIPLIERS, KEY_STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
"""Of Philox4x32: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011."""
_MASK = np.uint64(0xFFFFFFFF)


@op("random_key", compare=EXACT)
class RandomKey(Op):
    """u32[2] that nobody can predict, other ones whenever it runs."""

    pure: ClassVar[bool] = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        required(self, inputs, 0)
        return (TensorType(DType.u32, (KEY_WORDS,)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        required(self, inputs, 0)
        return (np.frombuffer(os.urandom(4 * KEY_WORDS), np.uint32).copy(),)


@op("random_bits", compare=EXACT)
class RandomBits(Op):
    """Uniform random u32 (or with `double` u64) of `shape` from key[2] (u32).

    The 32-bit words are the results of Philox4x32 with ten rounds, four from each block, one block after the other:
    block i has the counter (i mod 2**32, i div 2**32, 0, 0). A u64 is two words, the lower one first.
    """

    shape: tuple[Dim, ...]
    double: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (key,) = required(self, inputs, 1)
        if key != TensorType(DType.u32, (KEY_WORDS,)):
            raise ValueError(f"random_bits needs a key of {KEY_WORDS} u32, not {key}")
        return (TensorType(DType.u64 if self.double else DType.u32, self.shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (key,) = required(self, inputs, 1)
        shape = TensorType(DType.u32, self.shape).static_shape
        words = math.prod(shape) * (2 if self.double else 1)
        block = np.arange(-(-words // 4), dtype=np.uint64)
        counter = (block & _MASK, block >> np.uint64(32), np.zeros_like(block), np.zeros_like(block))
        drawn = np.stack(philox(counter, (key[0], key[1])), -1).astype(np.uint32).reshape(-1)[:words]
        if self.double:
            low, high = drawn.astype(np.uint64).reshape(-1, 2).T
            drawn = low | high << np.uint64(32)
        return (np.ascontiguousarray(drawn).reshape(shape),)


def philox(counter: tuple[Array, ...], key: tuple[int, int]) -> tuple[Array, ...]:
    """Philox4x32-10 of four counter words (u64 arrays below 2**32) and two key words."""
    a, b, c, d = counter
    for turn in range(ROUNDS):
        step = (np.uint64((int(k) + turn * s) & 0xFFFFFFFF) for k, s in zip(key, KEY_STEPS, strict=True))
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, c = ((p >> np.uint64(32)) ^ w ^ k for p, w, k in zip((second, first), (b, d), step, strict=True))
        b, d = second & _MASK, first & _MASK
    return a, b, c, d
