# SPDX-License-Identifier: Apache-2.0
"""Attention whose past is a matrix of fixed size: each step decays it, corrects it and adds to it."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import float_dtype, optional, required, same_dim

QUERY, KEY, VALUE, STATE, DECAY, RATE = range(6)  # inputs, the last three optional


@op("linear_attention", compare=SUMMED)
class LinearAttention(Op):
    """S = decay * S; S += k (rate * (v - S^T k))^T, or without a rate S += k v^T; o = scale * S^T q, step by step.

    Of q[B,T,H,G,K], k[B,T,H,K] and v[B,T,H,V], and optionally state[B,H,K,V] before the first step (else zeros),
    decay[B,T,H,K or 1] and rate[B,T,H or 1,1]. The result [B,H,T*G+K,V] holds the outputs of the G queries of each
    step, then the state after the last one (Yang et al., "Gated delta networks", 2024).
    """

    scale: float

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        q, k, v = required(self, inputs, 3, 3)
        float_dtype(self, inputs)
        if q.rank != 5 or k.rank != 4 or v.rank != 4:
            raise ValueError(f"linear_attention needs q[B,T,H,G,K], k[B,T,H,K] and v[B,T,H,V], not {q}, {k} and {v}")
        batch, steps, heads, group, depth = q.shape
        width = v.shape[3]
        wanted = {KEY: (batch, steps, heads, depth), VALUE: (batch, steps, heads, width)}
        wanted |= {STATE: (batch, heads, depth, width)}
        wanted |= {DECAY: (batch, steps, heads, depth), RATE: (batch, steps, heads, 1)}
        loose = {DECAY: 3, RATE: 2}  # axes that may be 1
        for i, shape in wanted.items():
            given = optional(inputs, i)
            if given is None:
                continue
            fits = [
                same_dim(a, b) or (d == loose.get(i) and a == 1) for d, (a, b) in enumerate(zip(given.shape, shape))
            ]
            if given.rank != 4 or not all(fits):
                raise ValueError(f"linear_attention input {i} is {given}, expected [{','.join(map(str, shape))}]")
        return (v.with_shape((batch, heads, steps * group + depth, width)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        q, k, v = (x.astype(np.float64) for x in required(self, inputs, 3, 3))
        state, decay, rate = (optional(inputs, i) for i in (STATE, DECAY, RATE))
        batch, steps, heads, group, depth = q.shape
        s = np.zeros((batch, heads, depth, v.shape[3])) if state is None else state.astype(np.float64)
        rows = []
        with np.errstate(all="ignore"):
            for t in range(steps):
                s = s if decay is None else s * decay[:, t, :, :, None]
                new = v[:, t]
                if rate is not None:
                    new = rate[:, t] * (new - np.einsum("bhkv,bhk->bhv", s, k[:, t]))
                s = s + k[:, t, :, :, None] * new[:, :, None]
                rows.append(np.einsum("bhgk,bhkv->bhgv", q[:, t], s) * self.scale)
            y = np.concatenate([*rows, s], 2)
        return (y.astype(np.result_type(*(x.dtype for x in inputs if x is not None))),)
