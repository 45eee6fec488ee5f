# SPDX-License-Identifier: Apache-2.0
"""From what a caller passes to arrays that native code may read or write: checks, exact conversions, addresses."""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tensorwright.errors import InputError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.plan.interface import TensorInfo

# Bits of `ndarray.flags.num`.
C_CONTIGUOUS: Final = 0x001
ALIGNED: Final = 0x100
WRITEABLE: Final = 0x400
READABLE: Final = C_CONTIGUOUS | ALIGNED
OWNABLE: Final = READABLE | WRITEABLE

_from_buffer = ctypes.c_char.from_buffer
_addressof = ctypes.addressof


class Binding:
    """One input or output with everything that a run compares against, computed once."""

    __slots__ = ("dtype", "info", "name", "shape", "slot")

    def __init__(self, info: TensorInfo, slot: int) -> None:
        self.info, self.slot, self.name = info, slot, info.name
        self.dtype = info.dtype.numpy
        self.shape: tuple[Any, ...] = info.shape  # ints, or text for a dim that a run decides


def address(array: Array) -> int:
    """Address of the first element of a contiguous array. (`array.ctypes` takes four times as long, but also knows
    the types of ml_dtypes, which are not built in.)"""
    if array.flags.num & WRITEABLE and array.size and array.dtype.isbuiltin == 1:
        buffer: Any = array
        return _addressof(_from_buffer(buffer))
    return int(array.ctypes.data)


def admit(value: Any, binding: Binding) -> Array:
    """`value` as a contiguous array of exactly the declared dtype and shape.

    Arrays are never cast (I102). Python numbers and lists become the declared dtype when their kind fits it.
    Raises InputError I102 (dtype), I103 (shape) or I104 (not an array).
    """
    array = value if isinstance(value, np.ndarray) else _array_of(value, binding)
    if array.dtype != binding.dtype:
        raise _wrong_dtype(binding, str(array.dtype), f"convert it where it is made: x.astype({str(binding.dtype)!r})")
    if array.shape != binding.shape and not fits(array.shape, binding.shape):
        raise _wrong_shape(binding, array.shape)
    return array if array.flags.num & READABLE == READABLE else np.array(array, order="C")


def fits(given: tuple[int, ...], declared: tuple[int | str, ...]) -> bool:
    """Whether the rank and every dim that is known before a run are as declared."""
    return len(given) == len(declared) and all(
        isinstance(d, str) or d == n for n, d in zip(given, declared, strict=True)
    )


def admit_all(values: Sequence[Any], bindings: Sequence[Binding]) -> list[Any]:
    """All inputs of a run, where dims of one name must be equal. Objects are taken as they are.

    Raises InputError I102 to I104.
    """
    sizes: dict[str, tuple[int, str]] = {}
    admitted = []
    for value, binding in zip(values, bindings, strict=True):
        if binding.info.is_object:
            admitted.append(value)
            continue
        array = admit(value, binding)
        for dim, size in zip(binding.shape, array.shape, strict=True):
            first, owner = sizes.setdefault(dim, (size, binding.name)) if isinstance(dim, str) else (size, "")
            if first != size:
                raise _unequal(binding, array.shape, f"{dim} is {first} in input {owner!r} and {size} here")
        admitted.append(array)
    return admitted


def accept_output(value: Any, binding: Binding, inputs: Iterable[Array]) -> Array:
    """A caller's output array, which native code will write directly.

    Raises InputError I102 (dtype), I103 (shape), I104 (not an array), I105 (layout) or I106 (overlap).
    """
    fitting = f"pass np.empty({binding.shape}, {str(binding.dtype)!r})"
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"the array for output {binding.name!r} is a {type(value).__name__}",
            where=f"output {binding.name!r}",
            do=fitting,
            code="I104",
        )
    if value.dtype != binding.dtype:
        raise _wrong_dtype(binding, str(value.dtype), fitting, "output")
    if value.shape != binding.shape:
        raise _wrong_shape(binding, value.shape, "output")
    if value.flags.num & OWNABLE != OWNABLE:
        raise InputError(
            f"the array for output {binding.name!r} must be C-contiguous, aligned and writable",
            where=f"output {binding.name!r}",
            do="pass an array that np.empty made",
            code="I105",
        )
    if any(np.may_share_memory(value, x) for x in inputs):
        raise InputError(
            f"the array for output {binding.name!r} overlaps an input or another output",
            where=f"output {binding.name!r}",
            do="pass memory of its own for every output",
            code="I106",
        )
    return value


def check_names(given: Mapping[str, Any], bindings: Sequence[Binding], what: str, *, all_needed: bool) -> None:
    """Raises InputError I101, listing every missing and every unknown name, unless the names fit."""
    names = [b.name for b in bindings]
    missing = [name for name in names if name not in given] if all_needed else []
    unknown = [name for name in given if name not in names]
    if not missing and not unknown:
        return
    why = [f"{what} {name!r} is missing" for name in missing]
    for name in unknown:
        close = difflib.get_close_matches(str(name), names, 1)
        why.append(f"there is no {what} {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    raise InputError(
        f"the names given do not fit the engine's {what}s",
        why=why,
        do=f"its {what}s are {', '.join(str(b.info) for b in bindings) or 'none'}",
        code="I101",
    )


# -- conversions --------------------------------------------------------------------------------------
def _array_of(value: Any, binding: Binding) -> Array:
    if isinstance(value, bool | int | float | list | tuple):
        return _from_python(value, binding)
    if not (
        hasattr(value, "__array__")
        or hasattr(value, "__array_interface__")
        or isinstance(value, bytes | bytearray | memoryview)
    ):
        raise _not_an_array(binding, f"it is a {type(value).__name__}")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: tensors on a device or with gradients
        raise _not_an_array(binding, f"a {type(value).__name__} says: {error}") from None


def _from_python(value: Any, binding: Binding) -> Array:
    """Python numbers have no width, so they take the declared one; int -> float is exact enough to be expected."""
    try:
        natural = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_an_array(binding, f"its rows do not form an array: {error}") from None
    if natural.size and not _kind_fits(natural.dtype.kind, binding.info.dtype):
        raise _wrong_dtype(binding, f"Python values of kind {natural.dtype.name}", "pass values of the declared kind")
    try:
        return np.asarray(value, binding.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        given = f"Python values out of range: {error}"
        raise _wrong_dtype(binding, given, "pass values that the dtype can hold") from None


def _kind_fits(kind: str, dtype: DType) -> bool:
    if dtype is DType.bool:
        return kind == "b"
    return kind in ("iuf" if dtype.is_float else "iu")


# -- errors -------------------------------------------------------------------------------------------
def _wrong_dtype(binding: Binding, given: str, do: str, what: str = "input") -> InputError:
    return InputError(
        f"{what} {binding.name!r} has the wrong element type",
        where=f"{what} {binding.name!r}",
        why=(f"expected {binding.dtype}", f"given    {given}"),
        do=do,
        code="I102",
    )


def _wrong_shape(binding: Binding, given: tuple[int, ...], what: str = "input") -> InputError:
    rank = f" (rank {len(given)} instead of {len(binding.shape)})" if len(given) != len(binding.shape) else ""
    return InputError(
        f"{what} {binding.name!r} has the wrong shape{rank}",
        where=f"{what} {binding.name!r}",
        why=(f"expected [{', '.join(map(str, binding.shape))}]", f"given    {list(given)}"),
        do="reshape it, or build the engine for this shape with shapes={...}",
        code="I103",
    )


def _unequal(binding: Binding, given: tuple[int, ...], why: str) -> InputError:
    return InputError(
        f"input {binding.name!r} of shape {list(given)} does not fit the other inputs",
        where=f"input {binding.name!r}",
        why=why,
        do=f"pass arrays that agree; this one is {binding.info}",
        code="I103",
    )


def _not_an_array(binding: Binding, why: str) -> InputError:
    return InputError(
        f"input {binding.name!r} is not an array",
        where=f"input {binding.name!r}",
        why=why,
        do=f"pass a NumPy array {binding.info}",
        code="I104",
    )
