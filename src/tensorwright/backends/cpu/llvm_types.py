# SPDX-License-Identifier: Apache-2.0
"""LLVM types as text."""

from __future__ import annotations

import struct


def vector(width: int, element: str = "float") -> str:
    """LLVM type text of a vector; width 1 is the plain scalar type."""
    return element if width == 1 else f"<{width} x {element}>"


def element_of(ty: str) -> str:
    """Element type text of a vector type, or the type itself."""
    return ty.split(" x ")[1][:-1] if ty.startswith("<") else ty


def width_of(ty: str) -> int:
    """Lane count of a vector type, 1 for a scalar."""
    return int(ty[1:].split(" x ")[0]) if ty.startswith("<") else 1


FLOATS = ("half", "bfloat", "float", "double")
_SIZES = {"i1": 1, "i8": 1, "i16": 2, "half": 2, "bfloat": 2, "i32": 4, "float": 4, "i64": 8, "double": 8, "ptr": 8}


def size_of(ty: str) -> int:
    """Bytes of one element of an LLVM type."""
    return _SIZES[element_of(ty)]


def is_float(ty: str) -> bool:
    """Whether the (element) type is floating point."""
    return element_of(ty) in FLOATS


def float_literal(value: float, element: str) -> str:
    """Exact LLVM text of a floating point constant (LLVM wants the double's bits, in hex)."""
    if element == "float":
        value = struct.unpack("f", struct.pack("f", value))[0] if abs(value) < 3.5e38 else value
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def mangle(ty: str) -> str:
    """The type as names of intrinsics have it: "f32", "v16f32"."""
    short = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}
    elem = element_of(ty)
    name = short.get(elem, elem)
    return name if ty == elem else f"v{width_of(ty)}{name}"
