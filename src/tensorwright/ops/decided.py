# SPDX-License-Identifier: Apache-2.0
"""Ops whose results have sizes that only the data decides.

Such a size is a symbolic dim among the op's attributes (`Op.decides`), bounded by what the operands allow. The kernel
writes its value to the engine's table of sizes, where everything that runs later reads it.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import required


@op("non_zero", compare=EXACT)
class NonZero(Op):
    """The i64 positions of the elements of x that are not zero, in row-major order: [rank of x, count]."""

    count: Dim

    @property
    def decides(self) -> tuple[Dim, ...]:
        return (self.count,)

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        return (TensorType(DType.i64, (x.rank, self.count)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        found = np.flatnonzero(np.ascontiguousarray(x))
        return (np.array(np.unravel_index(found, x.shape), np.int64).reshape(x.ndim, found.size),)


@op("read_size", compare=EXACT)
class ReadSize(Op):
    """A size that a run is given as data: `size` becomes the value of the one integer x. The result is x itself.

    A run whose value is below 0 or above `most` fails (InputError I131).
    """

    size: Dim
    most: Dim

    @property
    def decides(self) -> tuple[Dim, ...]:
        return (self.size,)

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if x.dtype not in (DType.i32, DType.i64) or any(d != 1 for d in x.shape):
            raise ValueError(f"a size is read from one i32 or i64, not from {x}")
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (x,)
