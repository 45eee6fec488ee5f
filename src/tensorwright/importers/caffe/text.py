# SPDX-License-Identifier: Apache-2.0
"""Reads a prototxt into a NetParameter, or says on which line it is none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]

from tensorwright.errors import ModelError
from tensorwright.importers.caffe.schema import NetParameter, modern_type
from tensorwright.importers.files import check_format, mapped

_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_][\w.]*|[^\s\w]|[\w.+-]+""")

MayDiffer = Callable[[Any, Any], bool]
"""Whether a layer of a NetParameter may have fields that only a fork knows."""


def read_prototxt(path: str | os.PathLike[str], may_differ: MayDiffer = lambda net, layer: False) -> Any:
    """The NetParameter of a prototxt file. `may_differ` chooses layers whose unknown fields are read over.

    Raises ModelError M101 (missing), M102 (empty), M103 with line and column (no protobuf text, or a field that Caffe
    does not have) and M103 for the old style, whose layer types are not quoted.
    """
    data = mapped(path, "prototxt").tobytes()
    where = os.fspath(path)
    check_format(data, where, "a Caffe prototxt", "prototxt")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            "the file is not a Caffe prototxt",
            where=where,
            why=f"byte {error.start} is no UTF-8 text",
            do="give the text file that describes the network; a .caffemodel goes into weights=",
            code="M103",
        ) from error
    _refuse_old_style(text, where)
    try:
        return _parsed(text, may_differ)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        shown = text.splitlines()[line - 1].strip() if line and line <= text.count("\n") + 1 else ""
        raise ModelError(
            "the prototxt cannot be parsed",
            where=f"{where}, line {line}, column {column}" if line else where,
            why=[_message(error), *([f"the line is: {shown[:120]}"] if shown else [])],
            do="correct the line, or take out a field that only a fork of Caffe knows",
            code="M103",
        ) from error
    except (ValueError, RecursionError) as error:  # nested too deeply, or text that is no text
        raise ModelError("the prototxt cannot be parsed", where=where, why=str(error), code="M103") from error


def _parsed(text: str, may_differ: MayDiffer) -> Any:
    """The NetParameter. Raises ParseError, also for unknown fields outside of layers that may have them."""
    net, lenient = NetParameter(), NetParameter()
    pool = net.DESCRIPTOR.file.pool
    try:
        return text_format.Parse(text, net, descriptor_pool=pool)
    except text_format.ParseError as error:
        if "has no field named" not in str(error):
            raise
        text_format.Parse(text, lenient, descriptor_pool=pool, allow_unknown_field=True)
        blocks = list(_layer_blocks(text))
        if len(blocks) != len(lenient.layer):
            raise
    rest = text
    for layer, (start, end) in zip(lenient.layer, blocks, strict=True):
        if may_differ(lenient, layer):
            rest = rest[:start] + re.sub(r"\S", " ", rest[start:end]) + rest[end:]
    text_format.Parse(rest, NetParameter(), descriptor_pool=pool)
    return lenient


def _layer_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Where the outer `layer { }` begin and end."""
    depth, start = 0, None
    for match in _TOKEN.finditer(text):
        word = match.group()
        if word == "layer" and depth == 0:
            start = match.start()
        depth += (word in ("{", "<")) - (word in ("}", ">"))
        if word in ("}", ">") and depth == 0 and start is not None:
            yield start, match.end()
            start = None


def _message(error: Exception) -> str:
    """What protobuf says, without the position in front."""
    text = re.sub(r"^\d+:\d+ ?: ?('.*?': )?", "", str(error))
    text = re.sub(r'"tensorwright\.caffe\.\w+Scope\.(\w+)"', r"\1", text)
    return re.sub(r'"tensorwright\.caffe\.(\w+?)Parameter"', r"\1", text).replace("Message type", "a").strip()


def _refuse_old_style(text: str, where: str) -> None:
    """Raise ModelError M103 at the first layer whose type is not a quoted text, and at the first `layers` block."""
    words = [(m.group(), m.start()) for m in _TOKEN.finditer(text) if not m.group().startswith("#")]
    for i, (word, at) in enumerate(words):
        following = [w for w, _ in words[i + 1 : i + 3]]
        old = None
        if word == "type" and following[:1] == [":"] and re.fullmatch(r"[A-Za-z_]\w*", (following[1:] or [""])[0]):
            old = following[1]
        elif word == "layers" and (following[:1] == ["{"] or following == [":", "{"]):
            old = _type_inside(words[i + 1 :])
        if old is not None:
            raise ModelError(
                "the prototxt is in the old style",
                where=f"{where}, line {text.count(chr(10), 0, at) + 1}",
                why="its layers are `layers` blocks, or their types are not quoted",
                do=f'write layer {{ type: "{modern_type(old)}" ... }}, not layers {{ type: {old.upper()} ... }}; '
                "Caffe's tool upgrade_net_proto_text does this for a whole file",
                code="M103",
            )


def _type_inside(words: list[tuple[str, int]]) -> str:
    """The type of the block that begins here, as far as it can be told."""
    for i, (word, _) in enumerate(words[:-2]):
        if word == "type" and words[i + 1][0] == ":":
            return words[i + 2][0].strip("\"'")
    return "CONVOLUTION"
