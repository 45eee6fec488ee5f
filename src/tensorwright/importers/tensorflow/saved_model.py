# SPDX-License-Identifier: Apache-2.0
"""From the folder of a SavedModel to a TfGraph: one signature of its graph for serving, with its variables' values."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, check_wanted, mapped
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.graph_def import Ref, TfGraph, TfNode, flattened, needed, parse_ref, texts
from tensorwright.importers.tensorflow.load import parse, placeholders
from tensorwright.importers.tensorflow.schema import NodeDef, SavedModel
from tensorwright.importers.tensorflow.variables import give_values

_SERVE, _DEFAULT = "serve", "serving_default"
_NO_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")
_WHAT = "a TensorFlow SavedModel"


def load_saved_model(folder: pathlib.Path, outputs: Sequence[str] | None, problems: Problems) -> TfGraph:
    """The TfGraph of a SavedModel, under the public names of a signature.

    Raises ModelError M101, M102, M103, M107, M108, and M109 where nothing says which graph or signature is meant.
    """
    path = folder / "saved_model.pb"
    data = mapped(path).tobytes()
    check_format(data, str(path), _WHAT)
    meta = _meta_graph(parse(data, SavedModel(), str(path), _WHAT), str(path))
    _check_texts(meta, str(path))
    protos = {proto.name: proto for proto in meta.graph_def.node}
    signature, refs = _chosen(meta, protos, outputs, str(folder))
    inputs, results = (_refs(kind, protos, problems, str(path)) for kind in (signature.inputs, signature.outputs))
    graph = TfGraph(str(folder), {}, {f.signature.name: f for f in meta.graph_def.library.function})
    graph.outputs = {name: results[name] if name in results else ref for name, ref in refs.items()}
    roots = [ref.node for ref in (*graph.outputs.values(), *inputs.values())]
    graph.nodes = flattened(needed(protos.values(), roots), graph.library, problems)
    _feed(graph, inputs, signature.inputs)
    graph.inputs = inputs
    others = placeholders(graph.nodes, graph.outputs)
    graph.inputs |= {name: ref for name, ref in others.items() if ref not in inputs.values()}
    give_values(graph, meta, folder, problems)
    return graph


def _meta_graph(proto: Any, where: str) -> Any:
    """The graph for serving."""
    metas = list(proto.meta_graphs)
    tags = [sorted(str(tag) for tag in meta.meta_info_def.tags) for meta in metas]
    serving = [meta for meta, tag in zip(metas, tags, strict=True) if _SERVE in tag]
    exact = [meta for meta, tag in zip(metas, tags, strict=True) if tag == [_SERVE]]
    found = exact or serving or (metas if len(metas) == 1 else [])
    if found:
        return found[0]
    raise ModelError(
        "the file is not a TensorFlow SavedModel" if not metas else f"none of {len(metas)} graphs is for serving",
        where=where,
        why=f"the tags are {', '.join('+'.join(tag) or 'none' for tag in tags)}" if metas else "it holds no graph",
        do=f"export the model with the tag {_SERVE!r}" if metas else "copy or export the model again",
        code="M109" if metas else "M103",
    )


def _check_texts(meta: Any, where: str) -> None:
    if not all(isinstance(text, str) for text in _texts(meta)):
        raise ModelError(
            "the file is not a TensorFlow SavedModel, or is damaged",
            where=where,
            why="names in it are no text",
            do="copy or export the model again",
            code="M103",
        )


def _texts(meta: Any) -> Iterator[str | bytes]:
    """All names in it; keys before what is under them, which cannot be read where a key is no text."""
    yield from meta.signature_def
    yield meta.saver_def.restore_op_name
    for signature in meta.signature_def.values():
        for infos in (signature.inputs, signature.outputs):
            yield from infos
            yield from (info.name for info in infos.values())
    yield from texts(meta.graph_def)


# -- signatures -----------------------------------------------------------------------------------
def _chosen(
    meta: Any, protos: Mapping[str, Any], outputs: Sequence[str] | None, where: str
) -> tuple[Any, dict[str, Ref]]:
    """The signature, and the outputs by name; those that are no outputs of it are tensors of the graph."""
    signatures = {
        name: signature
        for name, signature in sorted(meta.signature_def.items(), key=lambda item: (item[0] != _DEFAULT, item[0]))
        if name not in _NO_SIGNATURES and signature.outputs
    }
    if outputs is None:
        name = _only(signatures, where)
        return signatures[name], {key: Ref("", 0) for key in sorted(signatures[name].outputs)}
    known = [key for signature in signatures.values() for key in sorted(signature.outputs)]
    refs = {name: _tensor(name, protos) for name in outputs}
    if not outputs or len(refs) != len(outputs) or any(r is None and n not in known for n, r in refs.items()):
        _refuse_outputs(outputs, [name for name, ref in refs.items() if ref is not None], known, signatures, where)
    none = SimpleNamespace(inputs={}, outputs={})
    best = max(signatures.values(), key=lambda s: sum(name in s.outputs for name in outputs), default=none)
    strange = [name for name, ref in refs.items() if ref is None and name not in best.outputs]
    if strange:
        _refuse_outputs(outputs, [], list(best.outputs), signatures, where)
    return best, {name: ref if ref is not None else Ref("", 0) for name, ref in refs.items()}


def _only(signatures: Mapping[str, Any], where: str) -> str:
    if _DEFAULT in signatures or len(signatures) == 1:
        return next(iter(signatures))
    raise ModelError(
        f"the SavedModel has {len(signatures) or 'no'} signatures, and nothing says which one is wanted"
        if signatures
        else "the SavedModel has no signature",
        where=where,
        why=_listed(signatures),
        do="name outputs of one of them with outputs=[...]"
        if signatures
        else "save it with signatures=, or name tensors of its graph with outputs=[...]",
        code="M109",
    )


def _listed(signatures: Mapping[str, Any]) -> list[str]:
    return [f"signature {name}: outputs {', '.join(sorted(s.outputs))}" for name, s in signatures.items()]


def _refuse_outputs(
    outputs: Sequence[str], nodes: Sequence[str], known: Sequence[str], signatures: Mapping[str, Any], where: str
) -> None:
    """Raises ModelError M107."""
    try:
        check_wanted(outputs, [*known, *nodes], where)
    except ModelError as error:
        raise ModelError(error.what, where=where, why=_listed(signatures), do=error.do, code=error.code) from None


def _tensor(name: str, protos: Mapping[str, Any]) -> Ref | None:
    try:
        ref = parse_ref(name)
    except ValueError:
        return None
    return ref if ref.node in protos else None


def _refs(infos: Mapping[str, Any], protos: Mapping[str, Any], problems: Problems, where: str) -> dict[str, Ref]:
    """The tensors of a signature by public name, in alphabetical order."""
    refs: dict[str, Ref] = {}
    for name, info in sorted(infos.items()):
        if not info.name:
            problems.refuse("signature", name, "it is a sparse or ragged tensor", "take and give dense tensors")
            continue
        ref = _tensor(info.name, protos)
        if ref is None:
            problems.mistake(f"the signature's {name!r} is the tensor {info.name!r}, which is not there")
            continue
        refs[name] = ref
    return refs


# -- inputs ---------------------------------------------------------------------------------------
def _feed(graph: TfGraph, inputs: dict[str, Ref], infos: Mapping[str, Any]) -> None:
    """Put placeholders where a signature feeds other tensors."""
    fed: dict[Ref, Ref] = {}
    for name, ref in inputs.items():
        node = graph.nodes.get(ref.node)
        if ref in fed or node is None or node.op == "Placeholder":
            continue
        proto = NodeDef()
        proto.attr["dtype"].type = infos[name].dtype
        proto.attr["shape"].shape.CopyFrom(infos[name].tensor_shape)
        fed[ref] = Ref(f"{ref.node}/fed_{ref.index}", 0)
        graph.nodes[fed[ref].node] = TfNode(fed[ref].node, "Placeholder", [], proto.attr)
    if not fed:
        return
    for node in graph.nodes.values():
        node.inputs = [fed.get(ref, ref) for ref in node.inputs]
    inputs |= {name: fed.get(ref, ref) for name, ref in inputs.items()}
    graph.outputs = {name: fed.get(ref, ref) for name, ref in graph.outputs.items()}
