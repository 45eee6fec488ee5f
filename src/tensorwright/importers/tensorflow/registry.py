# SPDX-License-Identifier: Apache-2.0
"""All TensorFlow ops that can be imported: the lists of the `ops_*` files together, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tensorwright.importers.tensorflow import (
    ops_conv,
    ops_elementwise,
    ops_index,
    ops_linear,
    ops_norm,
    ops_random,
    ops_reduce,
    ops_resize,
    ops_shape,
)
from tensorwright.importers.tensorflow.node import TfOp

ALL_OPS: tuple[TfOp, ...] = (
    *ops_conv.OPS,
    *ops_elementwise.OPS,
    *ops_index.OPS,
    *ops_linear.OPS,
    *ops_norm.OPS,
    *ops_random.OPS,
    *ops_reduce.OPS,
    *ops_resize.OPS,
    *ops_shape.OPS,
)

BY_NAME: Mapping[str, TfOp] = {entry.name: entry for entry in ALL_OPS}


def find_op(name: str) -> TfOp | None:
    """The function that reads an op; None when there is none."""
    return BY_NAME.get(name)
