# SPDX-License-Identifier: Apache-2.0
"""Dimensions from text, as `str` of a dim writes it."""

from __future__ import annotations

import functools
import json
import re

from tensorwright.ir.dims import PLAIN, Dim, SymDim, maximum, minimum

_MAX_DEPTH = 40
_TOKEN = re.compile(r'\s*(?:([0-9]+)|([A-Za-z_][A-Za-z0-9_.]*)|("(?:[^"\\]|\\.)*")|(//|[-+*%(),]))')


def parse_dim(text: str) -> Dim:
    """The dim written as `str` does. Raises ValueError on anything else."""
    dim, end = read_dim(text, 0)
    if text[end:].strip():
        raise ValueError(f"unexpected {text[end:].strip()[:20]!r} after dimension {text[:end]!r}")
    return dim


def read_dim(text: str, start: int) -> tuple[Dim, int]:
    """The longest dim that begins at `start`, and where it ends. Raises ValueError when there is none."""
    reader = _Reader(text, start)
    try:
        return reader.sum(0), reader.position
    except ZeroDivisionError:
        raise ValueError(f"dimension {text[start : start + 40]!r} divides by zero") from None


class _Reader:
    """Recursive descent over sum > term > factor."""

    def __init__(self, text: str, position: int) -> None:
        self.text, self.position = text, position

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.position)
        return match.group().strip() if match else ""

    def take(self) -> str:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            raise ValueError(f"expected a dimension at {self.text[self.position : self.position + 20]!r}")
        self.position = match.end()
        return match.group().strip()

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise ValueError(f"expected {token!r} in a dimension at {self.text[self.position : self.position + 20]!r}")
        self.take()

    def sum(self, depth: int) -> Dim:
        if depth > _MAX_DEPTH:
            raise ValueError("a dimension is nested too deeply")
        value = self.term(depth)
        while self.peek() in ("+", "-"):
            value = value + self.term(depth) if self.take() == "+" else value - self.term(depth)
        return value

    def term(self, depth: int) -> Dim:
        value = self.factor(depth)
        while self.peek() in ("*", "//", "%"):
            token = self.take()
            other = self.factor(depth)
            value = value * other if token == "*" else value // other if token == "//" else value % other
        return value

    def factor(self, depth: int) -> Dim:
        token = self.take()
        if token == "-" and depth < _MAX_DEPTH:
            return -self.factor(depth + 1)
        if token.isdigit():
            return int(token)
        if token == "(":
            value = self.sum(depth + 1)
            self.expect(")")
            return value
        if token in ("min", "max"):
            return self.call(token, depth)
        if token[0] == '"':
            return SymDim.symbol(json.loads(token))
        if not PLAIN.fullmatch(token):
            raise ValueError(f"unexpected {token!r} in a dimension")
        return SymDim.symbol(token)

    def call(self, function: str, depth: int) -> Dim:
        self.expect("(")
        args = [self.sum(depth + 1)]
        while self.peek() == ",":
            self.take()
            args.append(self.sum(depth + 1))
        self.expect(")")
        return functools.reduce(minimum if function == "min" else maximum, args)
