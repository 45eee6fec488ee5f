# SPDX-License-Identifier: Apache-2.0
"""Makes a model tidy: sorted, without what no output needs, and with everything stored that is constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from tensorwright.surgeon.fold import FoldReport, fold_constants
from tensorwright.surgeon.structure import drop_unused, sort_nodes
from tensorwright.surgeon.types import refresh_types

FOLD_LIMIT_BYTES = 64 << 20
_INPUTS_OPTIONAL = 4  # from this IR version on, a stored tensor need not be an input as well


@dataclass(frozen=True, slots=True)
class Sanitized:
    """The tidy model and what was done to it."""

    model: ModelProto
    nodes_before: int
    sorted: bool
    dropped: tuple[str, ...]
    folds: FoldReport

    def as_dict(self) -> dict[str, Any]:
        """What was done, for JSON."""
        return {
            "nodes_before": self.nodes_before,
            "nodes_after": len(self.model.graph.node),
            "sorted": self.sorted,
            "dropped": list(self.dropped),
            "folded": self.folds.folded,
            "kept": self.folds.kept,
            "reshapes": self.folds.reshapes,
        }


def sanitize(model: ModelProto, *, fold: bool = False, limit_bytes: int = FOLD_LIMIT_BYTES) -> Sanitized:
    """A sorted copy of the model without unused nodes and tensors; with `fold`, constants and static shapes are
    evaluated (results up to `limit_bytes` each). Inputs, outputs and their names stay.

    Raises ModelError M123 for a model whose tensors are made twice, by themselves or not at all.
    """
    result = ModelProto()
    result.CopyFrom(model)
    before = len(result.graph.node)
    if result.ir_version < _INPUTS_OPTIONAL:
        _separate_inputs(result)
    moved = sort_nodes(result.graph)
    dropped = drop_unused(result)
    report = fold_constants(result, limit_bytes=limit_bytes) if fold else FoldReport()
    if fold:
        drop_unused(result)  # what the folded nodes had read: no news for the user
    refresh_types(result)
    return Sanitized(result, before, moved, tuple(dropped), report)


def _separate_inputs(model: ModelProto) -> None:
    """Old models list every stored tensor as an input too; newer ones need not."""
    stored = {tensor.name for tensor in model.graph.initializer}
    model.ir_version = _INPUTS_OPTIONAL
    for index in range(len(model.graph.input) - 1, -1, -1):
        if model.graph.input[index].name in stored:
            del model.graph.input[index]
