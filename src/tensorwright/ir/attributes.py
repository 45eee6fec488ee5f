# SPDX-License-Identifier: Apache-2.0
"""The attributes of ops with their declared types, for whoever writes or reads them."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from tensorwright.ir.op import OPS, finished


@functools.cache
def hints_of(kind: str) -> dict[str, Any]:
    """The declared type of each attribute of a kind of op, in order."""
    hints = typing.get_type_hints(OPS[kind])
    return {f.name: hints[f.name] for f in fields_of(kind)}


def fields_of(kind: str) -> tuple[dataclasses.Field[Any], ...]:
    """The attributes of a kind of op, as dataclass fields."""
    return dataclasses.fields(finished(OPS[kind]))  # type: ignore[arg-type]  # `op` makes every class of OPS a dataclass


def optional_of(hint: Any) -> Any:
    """X for `X | None`, else None."""
    args = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and len(args) == 2 and types.NoneType in args:
        return args[0] if args[1] is types.NoneType else args[1]
    return None


def item_of(hint: Any) -> Any:
    """X for `tuple[X, ...]`, else None."""
    args = typing.get_args(hint)
    return args[0] if typing.get_origin(hint) is tuple and len(args) == 2 and args[1] is Ellipsis else None
