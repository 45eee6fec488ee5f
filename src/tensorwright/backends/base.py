# SPDX-License-Identifier: Apache-2.0
"""What every backend provides: a target, kernel families, and the values they exchange with the tuner."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Operand:
    """A strided view as a kernel sees it: static logical shape, strides in elements, one per dim.

    A dim of size 1 has stride 0 (canonical form), so equal workloads compare equal. Only the input of a `Copy` may
    have negative strides (a reversed slice). `constant` operands
    are weights: the family may re-format them at build (`Kernel.pack`).
    """

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    constant: bool = False

    def __post_init__(self) -> None:
        canonical = tuple(0 if d == 1 else s for d, s in zip(self.shape, self.strides, strict=True))
        object.__setattr__(self, "strides", canonical)

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    @property
    def span_elems(self) -> int:
        """Elements from the lowest to past the highest one addressed (0 when empty)."""
        if 0 in self.shape:
            return 0
        return 1 + sum((d - 1) * abs(s) for d, s in zip(self.shape, self.strides, strict=True))

    @property
    def start_elems(self) -> int:
        """Elements of the span that lie before the first logical element (negative strides only)."""
        return sum((d - 1) * -s for d, s in zip(self.shape, self.strides, strict=True) if s < 0 < d)

    @property
    def is_row_major(self) -> bool:
        """Whether it is dense in C order."""
        return self.strides == Operand(self.dtype, self.shape, row_major(self.shape)).strides

    def __str__(self) -> str:
        strides = "" if self.is_row_major else f":{','.join(map(str, self.strides))}"
        return f"{'const ' if self.constant else ''}{self.dtype}[{','.join(map(str, self.shape))}{strides}]"


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """C-order strides in elements."""
    strides, step = [], 1
    for dim in reversed(shape):
        strides.append(step)
        step *= max(dim, 1)
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class Workload:
    """The unit of tuning: an op (often `Fused`) on operands with fixed types, shapes and strides."""

    op: Op
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]

    @property
    def key(self) -> str:
        """Readable text that identifies the workload in caches, plans and reports."""
        from tensorwright.ir.text import op_text

        ins = ", ".join(str(i) if i is not None else "_" for i in self.inputs)
        return f"{op_text(self.op)}({ins}) -> {', '.join(map(str, self.outputs))}"


@dataclass(frozen=True, slots=True)
class Accept:
    """The family can run the workload."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The family cannot run the workload; `reason` is one phrase with the values that decide it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Config:
    """Base of a family's configuration: a frozen dataclass of ints, strings and bools."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.as_dict().items())


@dataclass(frozen=True)
class Stage:
    """One parallel part of a kernel: `symbol` runs units [begin, end) of `units`; a barrier follows it."""

    symbol: str
    units: int


@dataclass(frozen=True)
class CpuKernel:
    """Emitted CPU code of one workload.

    `ir` is LLVM IR text that defines each stage as
    `void symbol(ptr in0, ..., ptr inN, ptr out0, ..., ptr workspace, ptr scratch, i64 begin, i64 end)`.
    Absent optional inputs are still passed (as null). `workspace` (shared by all workers and stages) and
    `scratch` (one per worker) are 64-byte aligned and uninitialised. `packed` maps the index of a constant
    input to the re-formatted array passed instead of the original.
    """

    ir: str
    stages: tuple[Stage, ...]
    workspace_bytes: int = 0
    scratch_bytes: int = 0
    packed: dict[int, Array] = dataclasses.field(default_factory=dict)


C = TypeVar("C", bound=Config)
T = TypeVar("T")
K = TypeVar("K")


class KernelFamily(ABC, Generic[C, T, K]):
    """A method of computing some workloads. C: its config class, T: the target class, K: the kernel class.

    `version` goes up whenever `emit` would produce different code for the same arguments.
    """

    name: str
    version: int
    config: type[C]

    @abstractmethod
    def accepts(self, w: Workload, t: T) -> Accept | Reject:
        """Whether this family can run `w` on `t`."""

    @abstractmethod
    def candidates(self, w: Workload, t: T) -> Iterable[C]:
        """Configurations worth timing, best guess first; never empty for an accepted workload."""

    @abstractmethod
    def emit(self, w: Workload, c: C, t: T, symbol: str, constants: dict[int, Array]) -> K:
        """Generate the kernel. `constants` holds the arrays of constant inputs by index. Pure."""

    def bound(self, w: Workload, t: T) -> float:
        """Roofline lower bound in seconds on all cores; 0 when unknown (never stops the search early)."""
        return 0.0


class Trial(ABC):
    """A compiled candidate bound to inputs, ready to be timed and checked."""

    @abstractmethod
    def outputs(self) -> list[Array]:
        """Run once into poisoned outputs; copies of them, as row-major arrays."""

    @abstractmethod
    def sample(self) -> float:
        """Seconds of one execution, under the conditions a program gives it (all threads, warm code)."""

    @abstractmethod
    def close(self) -> None:
        """Free code and buffers."""


class Measurer(ABC, Generic[K]):
    """Compiles and runs kernels on the device in front of us."""

    conditions: str  # what else than the target's code a time depends on, e.g. "2 threads": part of cache keys

    @abstractmethod
    def load(self, w: Workload, kernel: K, inputs: Sequence[Array | None]) -> Trial:
        """A trial of `kernel` on logical input arrays. Raises TensorwrightError when it cannot be compiled."""


class Target(Protocol):
    """A device as the tuner sees it. Backends add what their kernels need to know."""

    @property
    def fingerprint(self) -> str:
        """What native code depends on."""

    @property
    def runs_here(self) -> bool:
        """Whether this process can execute code for the target; if not, nothing can be measured."""

    def measurer(self) -> Measurer[Any]:
        """The measurer of this process for the target, which must run here."""
