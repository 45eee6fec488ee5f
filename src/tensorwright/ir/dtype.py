# SPDX-License-Identifier: Apache-2.0
"""Element types."""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import numpy as np

_Bool: TypeAlias = bool  # inside DType the name means the member


class DType(enum.Enum):
    """An element type; the value is its short name ("f32"), used in text, keys and plans.

    Types of less than eight bits take a byte per element, as in ml_dtypes. `object` is the dtype of `ObjectType` only.
    """

    f64 = "f64"
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    f8e4m3fn = "f8e4m3fn"
    f8e5m2 = "f8e5m2"
    f8e4m3fnuz = "f8e4m3fnuz"
    f8e5m2fnuz = "f8e5m2fnuz"
    f8e8m0fnu = "f8e8m0fnu"
    f6e2m3fn = "f6e2m3fn"
    f6e3m2fn = "f6e3m2fn"
    f4e2m1fn = "f4e2m1fn"
    i64 = "i64"
    i32 = "i32"
    i16 = "i16"
    i8 = "i8"
    u64 = "u64"
    u32 = "u32"
    u16 = "u16"
    u8 = "u8"
    i4 = "i4"
    u4 = "u4"
    i2 = "i2"
    u2 = "u2"
    bool = "bool"
    object = "object"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that holds it (bf16, f8 and smaller ones come from ml_dtypes)."""
        if self in _EXTENDED:
            import ml_dtypes

            extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _EXTENDED[self]))
            return extended
        return np.dtype(_NUMPY[self])

    @property
    def size_bytes(self) -> int:
        """Bytes of one element."""
        return _BYTES[self]

    @property
    def is_float(self) -> _Bool:
        return self.value[0] in "f" or self is DType.bf16

    @property
    def is_integer(self) -> _Bool:
        return self.value[0] in "iu"

    @property
    def is_signed(self) -> _Bool:
        return self.is_float or self.value[0] == "i"

    @staticmethod
    def of(dtype: Any) -> DType:
        """The DType of a NumPy dtype (or anything `np.dtype` takes). Raises KeyError when there is none."""
        return _FROM_NAME[np.dtype(dtype).name]

    def __str__(self) -> str:
        return str(self.value)


_NUMPY = {
    DType.f64: "float64",
    DType.f32: "float32",
    DType.f16: "float16",
    DType.i64: "int64",
    DType.i32: "int32",
    DType.i16: "int16",
    DType.i8: "int8",
    DType.u64: "uint64",
    DType.u32: "uint32",
    DType.u16: "uint16",
    DType.u8: "uint8",
    DType.bool: "bool",
    DType.object: "object",
}
_EXTENDED = {DType.bf16: "bfloat16", DType.i4: "int4", DType.u4: "uint4", DType.i2: "int2", DType.u2: "uint2"}
_EXTENDED |= {d: f"float{d.value[1]}_{d.value[2:]}" for d in DType if d.value[0] == "f" and "e" in d.value}
_BYTES = dict.fromkeys(DType, 1) | {DType.bf16: 2, DType.object: 8}
_BYTES |= {d: max(int(d.value[1:]) // 8, 1) for d in DType if d.value[1:].isdigit()}
_FROM_NAME = {name: d for d, name in {**_NUMPY, **_EXTENDED}.items()}
