# SPDX-License-Identifier: Apache-2.0
"""One entry for every kind of model: `import_model` finds out what it is given and calls the importer for it."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tensorwright.errors import ModelError
from tensorwright.importers.sizes import sized
from tensorwright.ir.graph import Graph
from tensorwright.shapes import Range

if TYPE_CHECKING:
    import onnx
    from typing_extensions import TypeIs

    from tensorwright.network import Network

    Model = str | os.PathLike[str] | bytes | onnx.ModelProto | Network | Graph

Path = str | os.PathLike[str]
Shapes = Mapping[str, Sequence[int] | Range]

SUPPORTED = (
    ".onnx (also its bytes, or an onnx.ModelProto), .prototxt (Caffe), .pb or a SavedModel folder (TensorFlow), "
    ".cfg (Darknet), a tw.Network"
)


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller asks of an import. `notes` takes lines that the user should read."""

    shapes: Shapes | None
    outputs: Sequence[str] | None
    weights: Path | None
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Format:
    """A model format: what its name is in messages, and how it is read."""

    name: str
    read: Callable[[Path, Request], Graph]
    has_weights_file: bool = False


def import_model(
    model: Model,
    *,
    weights: Path | None = None,
    outputs: Sequence[str] | None = None,
    shapes: Shapes | None = None,
    notes: list[str] | None = None,
) -> Graph:
    """The Graph of a model: the path of a file or folder (its suffix says the format), the bytes of an ONNX file, a
    ModelProto, a Network; a Graph is returned as it is.

    `shapes` fixes symbolic input dims, `outputs` chooses tensors as outputs; `weights` belongs to formats that keep
    weights in a second file. Lines that the user should read are appended to `notes`. Raises ModelError M105 for a
    format that is not supported and for an argument that does not belong to the format, and what the importer of the
    format raises.
    """
    request = Request(shapes or None, outputs, weights, notes if notes is not None else [])
    if isinstance(model, Graph) or _is_network(model):
        return _written(model if isinstance(model, Graph) else model.to_graph(), type(model).__name__, request)
    if isinstance(model, str | os.PathLike):
        format = _format_of(pathlib.Path(model))
        if weights is not None and not format.has_weights_file:
            _refuse_weights(str(model))
        return format.read(model, request)
    if weights is not None:
        _refuse_weights(type(model).__name__)
    if not isinstance(model, bytes) and not _is_model_proto(model):
        raise ModelError(
            f"this version cannot import a {type(model).__module__}.{type(model).__name__}",
            code="M105",
            why=f"supported: {SUPPORTED}",
            do="export the model to ONNX",
        )
    from tensorwright.importers.onnx.reader import import_onnx

    return import_onnx(model, shapes=request.shapes, outputs=outputs)


def _written(graph: Graph, kind: str, request: Request) -> Graph:
    if request.weights is not None:
        _refuse_weights(kind)
    if request.outputs is not None:
        raise ModelError(
            f"outputs= does not apply to a {kind}",
            code="M105",
            do="mark the outputs where it is made",
        )
    return sized(graph, request.shapes) if request.shapes else graph


def _refuse_weights(where: str) -> NoReturn:
    raise ModelError(
        "weights= does not belong to this format",
        where=where,
        code="M105",
        why="Caffe and Darknet keep weights in a second file; all others hold them",
        do="leave weights= out",
    )


# -- formats ----------------------------------------------------------------------------------------
def _onnx(path: Path, request: Request) -> Graph:
    from tensorwright.importers.onnx.reader import import_onnx

    return import_onnx(path, shapes=request.shapes, outputs=request.outputs)


def _caffe(path: Path, request: Request) -> Graph:
    from tensorwright.importers.caffe.reader import import_caffe

    return import_caffe(
        path, weights=request.weights, shapes=request.shapes, outputs=request.outputs, notes=request.notes
    )


def _tensorflow(path: Path, request: Request) -> Graph:
    from tensorwright.importers.tensorflow.reader import import_tensorflow

    return import_tensorflow(path, shapes=request.shapes, outputs=request.outputs)


def _darknet(path: Path, request: Request) -> Graph:
    from tensorwright.importers.darknet.reader import import_darknet

    return import_darknet(
        path, weights=request.weights, shapes=request.shapes, outputs=request.outputs, notes=request.notes
    )


_TENSORFLOW = Format("TensorFlow", _tensorflow)
FORMATS: Mapping[str, Format] = {
    ".onnx": Format("ONNX", _onnx),
    ".prototxt": Format("Caffe", _caffe, has_weights_file=True),
    ".pb": _TENSORFLOW,
    ".cfg": Format("Darknet", _darknet, has_weights_file=True),
}
"""By the suffix of a file, in lower case."""

_WEIGHTS_ONLY = {".caffemodel": "prototxt", ".weights": "cfg"}


def _format_of(path: pathlib.Path) -> Format:
    """The format of what lies at the path. Raises ModelError M105."""
    suffix = path.suffix.lower()
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return _TENSORFLOW
        raise ModelError(
            "the folder holds no TensorFlow SavedModel",
            where=str(path),
            why=f"there is no saved_model.pb in it; supported: {SUPPORTED}",
            code="M105",
            do="give the path of a model file, or of the folder with saved_model.pb",
        )
    format = FORMATS.get(suffix)
    if format is not None:
        return format
    if not path.exists():
        return FORMATS[".onnx"]  # whose reader says that nothing is there
    other = _WEIGHTS_ONLY.get(suffix)
    raise ModelError(
        f"this version cannot import a file with the suffix {path.suffix!r}",
        where=str(path),
        why="it holds weights only" if other else f"supported: {SUPPORTED}",
        code="M105",
        do=f'give the .{other} file, and this one as weights="{path.name}"' if other else "export the model to ONNX",
    )


def _is_network(model: object) -> TypeIs[Network]:
    """Without importing networks: whoever has one has imported them already."""
    module = sys.modules.get("tensorwright.network")
    return module is not None and isinstance(model, module.Network)


def _is_model_proto(model: object) -> bool:
    """Without importing onnx: whoever has a ModelProto has imported it already."""
    return any(cls.__name__ == "ModelProto" for cls in type(model).__mro__)
