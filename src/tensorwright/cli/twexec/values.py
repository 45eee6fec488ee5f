# SPDX-License-Identifier: Apache-2.0
"""Values with a form of their own: named shapes and files, memory pools, formats, percentiles.

All functions raise ValueError with what is wrong.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from tensorwright.cli.twexec.flags import nearest

T = TypeVar("T")
Shape = tuple[int, ...]

_MOST_BYTES: Final = 1 << 62
_MOST_ELEMENTS: Final = 1 << 44

_UNITS: Final = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TYPES: Final = dict(
    pair.split("=")
    for pair in (
        *("fp32=f32", "fp16=f16", "bf16=bf16", "fp8=f8e4m3fn", "int4=i4", "int8=i8", "int32=i32", "int64=i64"),
        *("uint8=u8", "bool=bool"),
    )
)
_FORMATS: Final = (
    *("chw", "chw2", "chw4", "hwc8", "chw16", "chw32", "dhwc8", "cdhw32", "hwc", "dla_linear", "dla_hwc4"),
    *("hwc16", "dhwc"),
)


def split(text: str) -> list[str]:
    """The parts between commas; commas between single quotes part nothing."""
    parts = re.findall(r"(?:'[^']*'|[^,'])+|'", text)
    if "'" in parts or text.count("'") % 2:
        raise ValueError(f"a single quote is not closed in {text!r}")
    return [part.strip() for part in parts if part.strip()]


def named(text: str) -> dict[str, str]:
    """`name:rest,...`; a name with commas stands in single quotes. Without quotes the last colon parts."""
    found: dict[str, str] = {}
    for part in split(text):
        quoted = re.fullmatch(r"'([^']*)'\s*:(.*)", part)
        name, colon, rest = (quoted.group(1), ":", quoted.group(2)) if quoted else part.rpartition(":")
        if not (name and colon):
            raise ValueError(f"{part!r} is not name:value")
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        found[name] = rest
    if not found:
        raise ValueError("it takes name:value, not nothing")
    return found


def named_shapes(text: str) -> dict[str, Shape]:
    """`name:1x3x224x224,...`; a scalar is `name:scalar` or `name:`."""
    return {name: _shape(rest, name) for name, rest in named(text).items()}


def _shape(text: str, name: str) -> Shape:
    if text in ("", "scalar"):
        return ()
    sizes = text.split("x")
    if not all(size.isdecimal() and size.isascii() for size in sizes):
        raise ValueError(f"the shape {text!r} of {name!r} is not like 1x3x224x224")
    shape = tuple(map(int, sizes))
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"the shape {text!r} of {name!r} is larger than any memory")
    return shape


def matched(given: Mapping[str, T], names: Iterable[str], what: str = "input") -> dict[str, T]:
    """`given` with its wildcards (one `*` in a name) replaced by the names that they stand for."""
    known = list(names)
    found: dict[str, T] = {}
    for name, value in given.items():
        if name.count("*") > 1:
            raise ValueError(f"{name!r} has more than one *")
        pattern = "*".join(re.sub(r"([?\[])", r"[\1]", piece) for piece in name.split("*"))
        hits = [name] if name in known else fnmatch.filter(known, pattern) if "*" in name else []
        if not hits:
            close = nearest(name, known)
            hint = f"; did you mean {close!r}" if close else ""
            raise ValueError(f"there is no {what} {name!r}{hint}; there are {', '.join(known) or 'none'}")
        for hit in hits:
            if hit in found:
                raise ValueError(f"{what} {hit!r} is named twice")
            found[hit] = value
    return found


def pool_sizes(text: str) -> dict[str, int]:
    """`workspace:S,...`: bytes by pool."""
    pools = {"workspace", "dlaSRAM", "dlaLocalDRAM", "dlaGlobalDRAM", "tacticSharedMem"}
    sizes = {}
    for name, rest in named(text).items():
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([BKMG]?)(?:i?B)?", rest, re.IGNORECASE | re.ASCII)
        if name not in pools:
            raise ValueError(f"there is no memory pool {name!r}; there are {', '.join(sorted(pools))}")
        if match is None:
            raise ValueError(f"{rest!r} is not a size in MiB, or with suffix B, K, M or G")
        size = float(match.group(1)) * _UNITS[match.group(2).upper()]
        if size > _MOST_BYTES:
            raise ValueError(f"{rest!r} is more memory than any machine has")
        sizes[name] = int(size)
    return sizes


def percentiles(text: str) -> list[float]:
    """`90,95,99`."""
    found = []
    for part in split(text):
        try:
            value = float(part)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 100:
            raise ValueError(f"{part!r} is not a percentile from 0 to 100")
        found.append(value)
    if not found:
        raise ValueError("it takes percentiles, not nothing")
    return found


def io_formats(text: str) -> list[str | None]:
    """`type:format[+format],...` or `format,...`: the dtype asked for each, None where any will do.

    Only the format chw can be met.
    """
    wanted = []
    for part in split(text):
        first, colon, rest = part.rpartition(":")
        formats = rest.lower().split("+")
        unknown = [f for f in formats if f not in _FORMATS]
        if unknown or (colon and first.lower() not in _TYPES):
            raise ValueError(f"{part!r} is not type:format[+format], like fp32:chw")
        if "chw" not in formats:
            raise ValueError(f"the format {rest} cannot be met: inputs and outputs are plain row-major arrays, chw")
        wanted.append(_TYPES[first.lower()] if colon else None)
    if not wanted:
        raise ValueError("it takes type:format, like fp32:chw")
    return wanted


def not_fp32(text: str) -> list[str]:
    """The parts of `layer:type[+type],...` that ask for another type than fp32."""
    return [name for name, rest in named(text).items() if any(t.lower() != "fp32" for t in rest.split("+"))]
