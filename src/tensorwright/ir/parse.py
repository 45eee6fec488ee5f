# SPDX-License-Identifier: Apache-2.0
"""Ops and graphs from their text form (see `ir.text`)."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorwright.ir.attributes import fields_of, hints_of, item_of, optional_of
from tensorwright.ir.dim_text import read_dim
from tensorwright.ir.dims import Dim, Symbol, SymDim, substitute
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import OPS, Array, Instr, Op
from tensorwright.ir.text import INDENT, PLAIN, array_of
from tensorwright.ir.types import ObjectType, TensorType

_MAX_DEPTH = 16  # of ops inside ops, and of bodies inside bodies
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_COUNT = re.compile(r"[0-9]+")
_INT = re.compile(r"-?[0-9]+")
_FLOAT = re.compile(r"-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?)")
_HEX = re.compile(r"0x([0-9a-f]*)")
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_OBJECT = re.compile(r"<[A-Za-z0-9_(),.]*>")


def parse_op(text: str) -> Op:
    """The op that `op_text` wrote. Raises ValueError on anything else."""
    cursor = _Cursor(text, 1)
    op = cursor.op(0)
    cursor.end()
    return op


def parse_graph(text: str, constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph that `graph_text` wrote; `constants` holds the arrays stored beside it, by value name.

    Ops must be registered (import `tensorwright.ops`). Every node's types are inferred anew and compared.
    Raises ValueError that begins with the line number on anything malformed or inconsistent.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _graph([(number, line) for number, line in lines if not line.lstrip().startswith("#")], constants or {}, 0)


_Lines = Sequence[tuple[int, str]]


def _graph(lines: _Lines, constants: Mapping[str, Array], depth: int) -> Graph:
    """The graph of these numbered lines; deeper indented ones are bodies of the line before them."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"line {lines[0][0]}: bodies are nested too deeply")
    reader, position = _GraphReader(constants), 0
    while position < len(lines):
        number, line = lines[position]
        position += 1
        inside: list[tuple[int, str]] = []
        while position < len(lines) and lines[position][1].startswith(INDENT):
            inside.append((lines[position][0], lines[position][1][len(INDENT) :]))
            position += 1
        reader.line(_Cursor(line, number, reader.symbols, _bodies(inside, constants, depth + 1)))
    if reader.name is None:
        raise ValueError("line 1: expected 'graph' and its name")
    return Graph(reader.name, reader.inputs, reader.outputs, reader.nodes, reader.constants)


def _bodies(lines: _Lines, constants: Mapping[str, Array], depth: int) -> dict[str, Graph]:
    """The graphs that these lines hold one after the other, by name."""
    starts = [i for i, (_, line) in enumerate(lines) if line.startswith("graph ")]
    if lines and starts[:1] != [0]:
        raise ValueError(f"line {lines[0][0]}: expected 'graph' and its name")
    found: dict[str, Graph] = {}
    for start, end in zip(starts, (*starts[1:], len(lines)), strict=False):
        body = _graph(lines[start:end], constants, depth)
        if body.name in found:
            raise ValueError(f"line {lines[start][0]}: body {body.name!r} is defined twice")
        found[body.name] = body
    return found


class _Cursor:
    """A position in one line."""

    def __init__(
        self,
        text: str,
        number: int,
        symbols: Mapping[str, SymDim] | None = None,
        bodies: dict[str, Graph] | None = None,
    ) -> None:
        """`symbols` are the bounded ones by name, `bodies` the graphs that follow the line, each to be taken once."""
        self.bodies = bodies or {}
        self.text, self.number, self.position = text, number, 0
        self.symbols = symbols or {}

    def error(self, message: str) -> ValueError:
        return ValueError(f"line {self.number}: {message}")

    def expected(self, what: str) -> ValueError:
        found = self.text[self.position : self.position + 30]
        return self.error(f"expected {what} at {found!r}" if found else f"expected {what} at the end of the line")

    def spaces(self) -> None:
        while self.text.startswith(" ", self.position):
            self.position += 1

    def accept(self, token: str) -> bool:
        """Skip spaces and, when it comes next, `token`."""
        self.spaces()
        found = self.text.startswith(token, self.position)
        self.position += len(token) if found else 0
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.expected(repr(token))

    def end(self) -> None:
        self.spaces()
        if self.position != len(self.text):
            raise self.expected("the end of the line")
        if self.bodies:
            raise self.error(f"no attribute takes the body {next(iter(self.bodies))!r}")

    def read(self, pattern: re.Pattern[str], what: str) -> str:
        self.spaces()
        match = pattern.match(self.text, self.position)
        if match is None:
            raise self.expected(what)
        self.position = match.end()
        return match.group()

    def number_of(self, pattern: re.Pattern[str], kind: type[int] | type[float], what: str) -> int | float:
        word = self.read(pattern, what)
        try:
            return kind(word)
        except ValueError:  # more digits than Python converts
            raise self.error(f"{word[:20]}... is too long for {what}") from None

    def name(self) -> str:
        self.spaces()
        if not self.text.startswith('"', self.position):
            return self.read(PLAIN, "a name")
        try:
            return str(json.loads(self.read(_QUOTED, "a quoted name")))
        except json.JSONDecodeError as error:
            raise self.error(f"a quoted name is malformed: {error.msg}") from None

    def dim(self) -> Dim:
        self.spaces()
        try:
            dim, self.position = read_dim(self.text, self.position)
        except ValueError as error:
            raise self.error(str(error)) from None
        return substitute(dim, self.symbols)

    def type(self) -> TensorType:
        word = self.read(_KIND, "an element type")
        if word == str(DType.object):
            return ObjectType(self.read(_OBJECT, "the kind of an object")[1:-1])
        if word not in DType.__members__:
            raise self.error(f"there is no element type {word!r}")
        self.expect("[")
        dims: list[Dim] = []
        while not self.accept("]"):
            if dims:
                self.expect(",")
            dims.append(self.dim())
            if isinstance(dims[-1], int) and dims[-1] < 0:
                raise self.error(f"dimension {dims[-1]} is negative")
        return TensorType(DType[word], tuple(dims))

    def op(self, depth: int) -> Op:
        kind = self.read(_KIND, "an op")
        if kind not in OPS:
            raise self.error(f"there is no op {kind!r}")
        if depth > _MAX_DEPTH:
            raise self.error("ops are nested too deeply")
        hints, fields = hints_of(kind), dict[str, Any]()
        if self.text.startswith("[", self.position):
            self.expect("[")
            while not self.accept("]"):
                name = self.read(PLAIN, "an attribute")
                if name not in hints or name in fields:
                    raise self.error(f"{kind} has no attribute {name!r}, or has it twice")
                self.expect("=")
                fields[name] = self.value(hints[name], depth)
        missing = [f.name for f in fields_of(kind) if f.name not in fields and f.default is dataclasses.MISSING]
        if missing:
            raise self.error(f"{kind} lacks {', '.join(missing)}")
        return OPS[kind](**fields)

    def value(self, hint: Any, depth: int) -> Any:
        """An attribute of the declared type `hint`."""
        inner = optional_of(hint)
        if inner is not None:
            return None if self.accept("none") else self.value(inner, depth)
        if hint == Dim:
            return self.dim()
        item = item_of(hint)
        if item is not None:
            return self.values(item, depth)
        if hint is bool:
            return self.choice(("true", "false")) == "true"
        if hint is int or hint is float:
            return self.number_of(_INT if hint is int else _FLOAT, hint, "a number")
        if hint is Instr:
            return Instr(self.op(depth + 1), self.values(int, depth))
        if hint is TensorType:
            return self.type()
        if hint is Graph:
            return self.body()
        if typing.get_origin(hint) is typing.Literal:
            return self.choice(typing.get_args(hint))
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return hint(self.choice([member.value for member in hint]))
        return self.name() if hint is str else self.op(depth + 1)

    def body(self) -> Graph:
        name = self.name()
        if name not in self.bodies:
            raise self.error(f"the body {name!r} does not follow")
        return self.bodies.pop(name)

    def values(self, item: Any, depth: int) -> tuple[Any, ...]:
        self.expect("(")
        found: list[Any] = []
        while not self.accept(")"):
            if found:
                self.expect(",")
            found.append(self.value(item, depth))
        return tuple(found)

    def choice(self, words: Sequence[str]) -> str:
        word = self.name()
        if word not in words:
            raise self.error(f"expected one of {', '.join(words)}, not {word!r}")
        return word


class _GraphReader:
    """Collects the parts of a graph line by line."""

    def __init__(self, stored: Mapping[str, Array]) -> None:
        self.stored = stored
        self.name: str | None = None
        self.symbols: dict[str, SymDim] = {}
        self.values: dict[str, Value] = {}
        self.node_names: set[str] = set()
        self.inputs: list[Value] = []
        self.outputs: list[tuple[str, Value]] = []
        self.nodes: list[Node] = []
        self.constants: dict[Value, Array] = {}

    def line(self, at: _Cursor) -> None:
        if (self.name is None) != at.text.startswith("graph "):
            raise at.error("expected 'graph' and its name once, on the first line")
        if at.accept("graph "):
            self.name = at.name()
        elif at.accept("symbol "):
            self.symbol(at)
        elif at.accept("input "):
            self.inputs.append(self.define(at))
        elif at.accept("const "):
            self.constant(at)
        elif at.accept("output "):
            name = at.name()
            if any(name == other for other, _ in self.outputs):
                raise at.error(f"output {name!r} is defined twice")
            at.expect("=")
            self.outputs.append((name, self.use(at)))
        else:
            self.node(at)
        at.end()

    def symbol(self, at: _Cursor) -> None:
        name, numbers = at.name(), []
        for word in ("=", "in", "..", "opt"):
            at.expect(word)
            numbers.append(int(at.number_of(_COUNT, int, "a number")))
        slot, low, high, opt = numbers
        try:
            self.symbols[name] = SymDim.symbol(Symbol(name, low, opt, high, slot))
        except ValueError as error:
            raise at.error(str(error)) from None

    def define(self, at: _Cursor) -> Value:
        at.expect("%")
        name = at.name()
        at.expect(":")
        if name in self.values:
            raise at.error(f"value %{name} is defined twice")
        self.values[name] = Value(name, at.type())
        return self.values[name]

    def use(self, at: _Cursor) -> Value:
        at.expect("%")
        name = at.name()
        if name not in self.values:
            raise at.error(f"value %{name} is used before it is defined")
        return self.values[name]

    def constant(self, at: _Cursor) -> None:
        value = self.define(at)
        if not value.type.is_static:
            raise at.error(f"constant {value} has symbolic dims")
        if at.accept("="):
            self.constants[value] = self.inline(at, value.type)
            return
        array = self.stored.get(value.name)
        if array is None:
            raise at.error(f"the array of constant %{value.name} is missing")
        if array.shape != value.type.shape or array.dtype != value.type.dtype.numpy:
            raise at.error(f"constant {value} is stored as {array.dtype}{list(array.shape)}")
        self.constants[value] = array

    def inline(self, at: _Cursor, type: TensorType) -> Array:
        dtype = type.dtype.numpy
        if at.accept("0x"):
            at.position -= 2
            data = at.read(_HEX, "bytes in hex")[2:]
            if len(data) != 2 * type.size_bytes:
                raise at.error(f"{len(data)} hex digits do not fill {type}")
            return np.frombuffer(bytes.fromhex(data), dtype).reshape(type.static_shape)
        words: list[str] = []
        pattern = _INT if dtype.kind in "iu" else PLAIN if dtype == np.bool_ else _FLOAT
        at.expect("(")
        while not at.accept(")"):
            if words:
                at.expect(",")
            words.append(at.read(pattern, f"an element of type {type.dtype}"))
        if len(words) != math.prod(type.static_shape):
            raise at.error(f"{len(words)} elements do not fill {type}")
        try:
            with np.errstate(over="ignore"):
                return array_of(words, dtype).reshape(type.static_shape)
        except (OverflowError, ValueError) as error:
            raise at.error(f"an element does not fit {type.dtype}: {error}") from None

    def node(self, at: _Cursor) -> None:
        outputs: list[Value] = []
        while not at.accept("="):
            if outputs:
                at.expect(",")
            outputs.append(self.define(at))
        at.spaces()
        op, inputs = at.op(0), list[Value | None]()
        at.expect("(")
        while not at.accept(")"):
            if inputs:
                at.expect(",")
            inputs.append(None if at.accept("_") else self.use(at))
        if not at.accept("@") and not outputs:
            raise at.error("a node without outputs needs a name")
        name = at.name() if at.text[at.position - 1] == "@" else outputs[0].name
        origin = self.origin(at) if at.accept("from") else (name,)
        if name in self.node_names:
            raise at.error(f"node {name} is defined twice")
        self.node_names.add(name)
        self.check(at, op, inputs, outputs)
        self.nodes.append(Node(name, op, tuple(inputs), tuple(outputs), origin))

    def origin(self, at: _Cursor) -> tuple[str, ...]:
        names: list[str] = []
        at.spaces()
        while at.position < len(at.text):
            if names:
                at.expect(",")
            names.append(at.name())
            at.spaces()
        return tuple(names)

    def check(self, at: _Cursor, op: Op, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> None:
        try:
            inferred = op.infer(*(None if v is None else v.type for v in inputs))
        except ValueError as error:
            raise at.error(str(error)) from None
        if inferred != tuple(v.type for v in outputs):
            raise at.error(f"{op.kind} gives ({', '.join(map(str, inferred))}), not the types of {list(outputs)}")
