# SPDX-License-Identifier: Apache-2.0
"""One entry for every kind of model: `import_model` finds out what it is given and calls the importer for it."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tensorwright.errors import ModelError
from tensorwright.importers.sizes import sized
from tensorwright.ir.graph import Graph
from tensorwright.shapes import Range

if TYPE_CHECKING:
    import onnx
    from typing_extensions import TypeIs

    from tensorwright.network import Network

    Model = str | os.PathLike[str] | bytes | onnx.ModelProto | Network | Graph

SUPPORTED = "an .onnx file, its bytes, an onnx.ModelProto, a tw.Network"


def import_model(
    model: Model,
    *,
    weights: str | os.PathLike[str] | None = None,
    outputs: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int] | Range] | None = None,
) -> Graph:
    """The Graph of a model: the path or bytes of an ONNX file, a ModelProto, a Network; a Graph is returned as it is.

    `shapes` fixes symbolic input dims, `outputs` chooses tensors as outputs; `weights` belongs to formats that keep
    weights in a second file. Raises ModelError M105 for a format that is not supported and for an argument that does
    not belong to the format, and what the importer of the format raises.
    """
    if weights is not None:
        where = str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
        raise ModelError(
            "weights= does not belong to this format",
            where=where,
            code="M105",
            why="ONNX models and networks hold their weights",
            do="leave weights= out",
        )
    if isinstance(model, Graph) or _is_network(model):
        if outputs is not None:
            raise ModelError(
                f"outputs= does not apply to a {type(model).__name__}",
                code="M105",
                do="mark the outputs where it is made",
            )
        graph = model if isinstance(model, Graph) else model.to_graph()
        return sized(graph, shapes) if shapes else graph
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        if path.exists() and (path.is_dir() or path.suffix.lower() != ".onnx"):
            kind = "folder" if path.is_dir() else f"file with the suffix {path.suffix!r}"
            raise ModelError(
                f"this version cannot import a {kind}",
                where=str(path),
                why=f"supported: {SUPPORTED}",
                code="M105",
                do="export the model to ONNX",
            )
    elif not isinstance(model, bytes) and not _is_model_proto(model):
        raise ModelError(
            f"this version cannot import a {type(model).__module__}.{type(model).__name__}",
            code="M105",
            why=f"supported: {SUPPORTED}",
            do="export the model to ONNX",
        )
    from tensorwright.importers.onnx.reader import import_onnx

    return import_onnx(model, shapes=shapes, outputs=outputs)


def _is_network(model: object) -> TypeIs[Network]:
    """Without importing networks: whoever has one has imported them already."""
    module = sys.modules.get("tensorwright.network")
    return module is not None and isinstance(model, module.Network)


def _is_model_proto(model: object) -> bool:
    """Without importing onnx: whoever has a ModelProto has imported it already."""
    return any(cls.__name__ == "ModelProto" for cls in type(model).__mro__)
