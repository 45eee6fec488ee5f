# SPDX-License-Identifier: Apache-2.0
"""Protobuf message classes from a short description: importers read formats with the few messages that they need, and
need no generated code of the framework that wrote the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

_SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "fixed64": 6,
    "fixed32": 7,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGE, _ENUM = 11, 14
_OPTIONAL, _REPEATED = 1, 3
_FIELD = re.compile(r"(?P<name>\w+) (?P<number>\d+) (?P<many>\*?)(?P<type>[\w<>]+)(?:=(?P<default>\S+))?")


def messages(package: str, description: str) -> Mapping[str, Any]:
    """The message classes that `description` describes, by name, in a pool of their own.

    A line `Name: field number type, field number *type=default, ...` is a message; `*` means repeated, and
    `map<Name>` a map from text to Name. A line `enum Name: MEMBER number, ...` is an enum. What is indented
    continues the line before. Types are protobuf's scalars, or names of other lines.
    """
    lines = re.sub(r"\n\s+", " ", description.strip()).splitlines()
    parsed = [line.partition(":")[::2] for line in lines if line.strip()]
    enums = {head.split()[1] for head, _ in parsed if head.startswith("enum ")}
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    file.syntax = "proto2"  # every field says whether it was there
    names = []
    for head, body in parsed:
        parts = [part.strip() for part in body.split(",") if part.strip()]
        if head.startswith("enum "):
            _add_enum(file, head.split()[1], parts)
        else:
            names.append(head)
            message = file.message_type.add(name=head)
            for part in parts:
                _add_field(message, part, package, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names}


def _add_enum(file: Any, name: str, members: list[str]) -> None:
    scope = file.message_type.add(name=f"{name}Scope")  # members of two enums may have one name only in two scopes
    enum = scope.enum_type.add(name=name)
    for member in members:
        label, number = member.split()
        enum.value.add(name=label, number=int(number))


def _add_field(message: Any, text: str, package: str, enums: set[str]) -> None:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"{message.name}: {text!r} describes no field")
    kind = match["type"]
    field = message.field.add(name=match["name"], number=int(match["number"]))
    field.label = _REPEATED if match["many"] or kind.startswith("map<") else _OPTIONAL
    if kind.startswith("map<"):
        entry = message.nested_type.add(name=_entry_name(match["name"]))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_OPTIONAL, type=_SCALARS["string"])
        value = entry.field.add(name="value", number=2, label=_OPTIONAL)
        if kind[4:-1] in _SCALARS:
            value.type = _SCALARS[kind[4:-1]]
        else:
            value.type, value.type_name = _MESSAGE, f".{package}.{kind[4:-1]}"
        field.type, field.type_name = _MESSAGE, f".{package}.{message.name}.{entry.name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind in enums:
        field.type, field.type_name = _ENUM, f".{package}.{kind}Scope.{kind}"
    else:
        field.type, field.type_name = _MESSAGE, f".{package}.{kind}"
    if match["default"] is not None:
        field.default_value = match["default"]


def _entry_name(field: str) -> str:
    """The name that protobuf requires for the entries of a map field."""
    return "".join(part.capitalize() for part in field.split("_")) + "Entry"
