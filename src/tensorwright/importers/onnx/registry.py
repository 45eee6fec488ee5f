# SPDX-License-Identifier: Apache-2.0
"""All ONNX ops that can be imported: the lists of the `ops_*` files together, by name and version."""

from __future__ import annotations

from collections.abc import Mapping

from tensorwright.importers.onnx import (
    ops_bitwise,
    ops_blocks,
    ops_composed,
    ops_conv,
    ops_decided,
    ops_deform,
    ops_einsum,
    ops_elementwise,
    ops_index,
    ops_legacy,
    ops_linear,
    ops_loss,
    ops_matrix,
    ops_microsoft,
    ops_microsoft_quantised,
    ops_norm,
    ops_quantised,
    ops_random,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_sample,
    ops_shape,
    ops_signal,
    ops_state,
    ops_tensor,
)
from tensorwright.importers.onnx.node import OnnxOp

OLDEST_OPSET, NEWEST_OPSET = 7, 28
"""The opsets whose operator texts the importer functions were written against."""

ALL_OPS: tuple[OnnxOp, ...] = (
    *ops_elementwise.OPS,
    *ops_conv.OPS,
    *ops_decided.OPS,
    *ops_index.OPS,
    *ops_sample.OPS,
    *ops_composed.OPS,
    *ops_einsum.OPS,
    *ops_linear.OPS,
    *ops_microsoft.OPS,
    *ops_microsoft_quantised.OPS,
    *ops_norm.OPS,
    *ops_quantised.OPS,
    *ops_recurrent.OPS,
    *ops_reduce.OPS,
    *ops_resize.OPS,
    *ops_shape.OPS,
    *ops_tensor.OPS,
    *ops_matrix.OPS,
    *ops_signal.OPS,
    *ops_state.OPS,
    *ops_random.OPS,
    *ops_loss.OPS,
    *ops_legacy.OPS,
    *ops_deform.OPS,
    *ops_blocks.OPS,
    *ops_bitwise.OPS,
)


def _by_name() -> dict[str, tuple[OnnxOp, ...]]:
    table: dict[str, tuple[OnnxOp, ...]] = {}
    for entry in sorted(ALL_OPS, key=lambda o: (o.name, o.since)):
        versions = table.get(entry.name, ())
        if versions and versions[-1].since == entry.since:
            raise ValueError(f"{entry.name} since opset {entry.since} is registered twice")
        table[entry.name] = (*versions, entry)
    return table


VERSIONS: Mapping[str, tuple[OnnxOp, ...]] = _by_name()
"""Op name to its registered versions, oldest first."""


def find_op(name: str, opset: int) -> OnnxOp | None:
    """The function that reads op `name` in a model of `opset`; None when there is none."""
    fitting = [entry for entry in VERSIONS.get(name, ()) if entry.since <= opset]
    return fitting[-1] if fitting else None
