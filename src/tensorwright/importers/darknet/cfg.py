# SPDX-License-Identifier: Apache-2.0
"""A .cfg file: sections of options, and the typed layer that a section becomes.

As Darknet reads them: blanks have no meaning, `#` and `;` start comments, and of two equal options the first counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, mapped
from tensorwright.importers.problems import Problems

T = TypeVar("T")

_LARGEST = 2**31 - 1  # Darknet's options are C ints

_POSITIVE = (
    "filters size stride stride_x stride_y dilation groups output classes num height width channels inputs crop_height "
    "crop_width side"
)
_LEAST = dict.fromkeys(_POSITIVE.split(), 1) | dict.fromkeys(("pad", "padding", "coords", "group_id"), 0)

_TRAINING = frozenset(
    "absolute assisted_excitation beta_nms bias_match class_scale classfix cls_normalizer coord_scale "
    "counters_per_class delta_normalizer dontsave dot dropblock forced ignore_thresh iou_loss iou_normalizer "
    "iou_thresh iou_thresh_kind jitter label_smooth_eps learning_rate log map mask_scale max max_delta nms_kind "
    "noloss noobject_scale obj_normalizer object_scale objectness_smooth onlyforward probability random reorg "
    "rescore resize show_details smooth sqrt stopbackward stream thresh truth truth_thresh wait_stream".split()
)
"""Options of layers that inference does not read."""


@dataclass(frozen=True)
class Section:
    """A section: its kind without the brackets, its line, and the text and line of each option."""

    kind: str
    line: int
    options: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.kind}] of line {self.line}"


def read_sections(path: str, problems: Problems) -> list[Section]:
    """The sections of a file. Raises ModelError M101, M102, M103; lines that cannot be read become mistakes."""
    data = mapped(path).tobytes()
    check_format(data, path, "a Darknet .cfg file")
    if b"\0" in data:
        raise ModelError("the file is not a Darknet .cfg file", where=path, why="it is not text", code="M103")
    sections: list[Section] = []
    for number, raw in enumerate(data.decode("latin-1").split("\n"), 1):
        line = "".join(raw.split("#")[0].split(";")[0].split())
        name, equals, value = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1], number))
        elif not sections and line:
            problems.mistake(f"line {number}: {raw.strip()!r} stands before the first section")
        elif name and value:
            sections[-1].options.setdefault(name, (value, number))
        elif line:
            problems.mistake(f"line {number}: {raw.strip()!r} is neither a [section] nor option=value")
    if not sections:
        raise ModelError("the file is not a Darknet .cfg file", where=path, why="it has no [section]", code="M103")
    return sections


def typed(kind: type[T], section: Section, problems: Problems, notes: list[str]) -> T:
    """The dataclass `kind` with the section's options as fields; an option that Python reserves has a field with `_`.

    `kind.refused` maps options that are not supported to the value that asks for nothing. Wrong values become
    mistakes, unsupported options refusals, and unknown ones notes.
    """
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # it is a dataclass
    refused: Mapping[str, str] = getattr(kind, "refused", {})
    values: dict[str, Any] = {}
    for name, (text, line) in section.options.items():
        if name in fields:
            try:
                values[fields[name].name] = _value(name, text, str(fields[name].type))
            except ValueError as error:
                problems.mistake(f"line {line}: {name}={text} of [{section.kind}] {error}")
        elif name in refused:
            if text != refused[name]:
                problems.refuse(f"[{section.kind}]", f"line {line}", f"{name}={text} is not supported")
        elif name not in _TRAINING:
            notes.append(f"line {line}: [{section.kind}] has an option {name!r} that is not known; it is ignored")
    try:
        return kind(**values)
    except ValueError as error:  # of options that contradict each other
        problems.mistake(f"{section}: {error}")
        return kind()


def _value(name: str, text: str, type: str) -> object:
    value = _CONVERTERS[type](text)
    if isinstance(value, int) and value < _LEAST.get(name, value):
        raise ValueError(f"must be at least {_LEAST[name]}")
    return value


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError("is not an integer") from None
    if abs(value) > _LARGEST:
        raise ValueError("does not fit in 32 bits")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number") from None


_CONVERTERS: Mapping[str, Callable[[str], object]] = {
    "int": _integer,
    "float": _number,
    "str": str,
    "tuple[int, ...]": lambda text: tuple(map(_integer, text.split(","))),
    "tuple[float, ...]": lambda text: tuple(map(_number, text.split(","))),
}
"""By the annotation of a field."""
