# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, float_dtype, optional, required, same_dim, widen
from tensorwright.ops.reduce import softmax


@op("attention", compare=SUMMED)
class Attention(Op):
    """softmax(scale * q k^T + mask) v for q[..,M,D], k[..,N,D], v[..,N,E] and an optional additive mask that
    broadcasts to [..,M,N]; leading dims broadcast. A row whose scores are all -inf gives NaN."""

    scale: float

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        q, k, v = required(self, inputs, 3, 1)
        mask = optional(inputs, 3)
        dtype = float_dtype(self, (q, k, v, mask))
        if min(q.rank, k.rank, v.rank) < 2:
            raise ValueError(f"attention needs matrices, not {q}, {k} and {v}")
        if not same_dim(q.shape[-1], k.shape[-1]) or not same_dim(k.shape[-2], v.shape[-2]):
            raise ValueError(f"attention cannot combine q {q}, k {k} and v {v}")
        scores = (*broadcast_shapes(self, q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2])
        if mask is not None and broadcast_shapes(self, scores, mask.shape) != scores:
            raise ValueError(f"attention cannot broadcast the mask {mask} to scores [{','.join(map(str, scores))}]")
        return (TensorType(dtype, (*broadcast_shapes(self, scores[:-2], v.shape[:-2]), q.shape[-2], v.shape[-1])),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        q, k, v = (widen(x) for x in required(self, inputs, 3, 1))
        mask, given = optional(inputs, 3), required(self, inputs, 3, 1)[0]
        with np.errstate(all="ignore"):
            scores = np.matmul(q, k.swapaxes(-1, -2)) * np.asarray(self.scale, q.dtype)
            if mask is not None:
                scores = scores + widen(mask)
            y = np.matmul(softmax(scores, scores.ndim - 1), v)
        return (np.asarray(y).astype(given.dtype, copy=False),)
