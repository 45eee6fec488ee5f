# SPDX-License-Identifier: Apache-2.0
"""All TensorFlow ops that can be imported: the lists of the `ops_*` files together, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

FAMILIES: Mapping[str, Sequence[TfOp]] = {
    "Convolutions and pools": ops_conv.OPS,
    "Elementwise": ops_elementwise.OPS,
    "Shapes and moves": ops_shape.OPS,
    "Reductions and running sums": ops_reduce.OPS,
    "Choosing, placing, ordering": ops_index.OPS,
    "Matrices": ops_linear.OPS,
    "Norms and softmax": ops_norm.OPS,
    "Resizes": ops_resize.OPS,
    "Random numbers": ops_random.OPS,
}
"""All ops, by the headings under which docs/tensorflow-support.md lists them."""

BY_NAME: Mapping[str, TfOp] = {entry.name: entry for family in FAMILIES.values() for entry in family}


def find_op(name: str) -> TfOp | None:
    """The function that reads an op; None when there is none."""
    return BY_NAME.get(name)
