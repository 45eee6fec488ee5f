# SPDX-License-Identifier: Apache-2.0
"""What every backend provides: a target, kernel families, and the values they exchange with the tuner."""

from __future__ import annotations

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tensorwright.errors import InternalError
from tensorwright.ir.dims import Dim, Symbol, SymDim, Undecided, low, nonzero, substitute
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op, dims_of, with_dims
from tensorwright.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Operand:
    """A strided view as a kernel sees it: logical shape, strides in elements, one per dim.

    Sizes are typed as ints, which they are in an engine of fixed shapes. In others some are bounded symbolic dims
    (`ir.dims`): the emitter computes them in a run, and Python code that needs the number itself raises Undecided,
    so a family that does is refused for that workload (`accepted`).

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
    def is_symbolic(self) -> bool:
        """Whether a size or stride is known only in a run."""
        return any(isinstance(d, SymDim) for d in (*self.shape, *self.strides))

    def at(self, bindings: Mapping[str, int]) -> Operand:
        """The operand with these values of symbols."""
        shape, strides = (tuple(substitute(d, bindings) for d in dims) for dims in (self.shape, self.strides))
        return Operand(self.dtype, _numbers(shape), _numbers(strides), self.constant)

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
    def may_be_empty(self) -> bool:
        """Whether a run may give it no elements."""
        return any(low(d) == 0 for d in self.shape)

    @property
    def start_elems(self) -> int:
        """Elements of the span that lie before the first logical element (negative strides only)."""
        return sum((d - 1) * -s for d, s in zip(self.shape, self.strides, strict=True) if s < 0 < d)

    def over(self, memory: Array) -> Array:
        """A view of this form on flat memory of the dtype, whose first element is the first logical one."""
        size = self.dtype.size_bytes
        bits = memory.view(f"u{size}")  # NumPy makes no strided views of some dtypes of ml_dtypes
        view = np.lib.stride_tricks.as_strided(bits, self.shape, [s * size for s in self.strides])
        return view.view(self.dtype.numpy)

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
        step *= nonzero(dim)
    return tuple(reversed(strides))


def _numbers(dims: Iterable[Dim]) -> tuple[int, ...]:
    return tuple(operator.index(d) for d in dims)


@dataclass(frozen=True, slots=True)
class Workload:
    """The unit of tuning: an op (often `Fused`) on operands with fixed types, and shapes and strides that are fixed
    or within bounds."""

    op: Op
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]

    @property
    def key(self) -> str:
        """Readable text that identifies the workload in caches, plans and reports."""
        from tensorwright.ir.text import op_text

        ins = ", ".join(str(i) if i is not None else "_" for i in self.inputs)
        text = f"{op_text(self.op)}({ins}) -> {', '.join(map(str, self.outputs))}"
        ranges = "; ".join(f"{s} in {s.low}..{s.high}, opt {s.opt}" for s in self.symbols)
        return f"{text} where {ranges}" if ranges else text

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """What a run decides, by slot."""
        operands = [o for o in (*self.inputs, *self.outputs) if o is not None]
        dims = [d for o in operands for d in (*o.shape, *o.strides)]
        found = {s for d in (*dims, *dims_of(self.op)) if isinstance(d, SymDim) for s in d.symbols}
        return tuple(sorted((s for s in found if isinstance(s, Symbol)), key=lambda s: s.slot))

    @property
    def is_symbolic(self) -> bool:
        """Whether a run decides a size."""
        return bool(self.symbols)

    def at(self, bindings: Mapping[str, int]) -> Workload:
        """The workload with these values of its symbols."""
        ins = tuple(None if o is None else o.at(bindings) for o in self.inputs)
        return Workload(with_dims(self.op, bindings), ins, tuple(o.at(bindings) for o in self.outputs))

    def at_opt(self) -> Workload:
        """The workload at the sizes that it is tuned for; itself when its sizes are fixed."""
        symbols = self.symbols
        return self.at({s: s.opt for s in symbols}) if symbols else self


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
    """One parallel part of a kernel: `symbol` runs units [begin, end) of `units`; a barrier follows it.

    `units` may be symbolic.
    """

    symbol: str
    units: int


@dataclass(frozen=True)
class Packed:
    """A constant input as its kernel reads it: an array of `shape` and `dtype`, made only where it is wanted.

    `write` fills such an array. A kernel holds none, so that a build holds one copy of the weights.
    """

    shape: tuple[int, ...]
    write: Callable[[Array], None]
    dtype: DType = DType.f32

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size_bytes

    def into(self, memory: Array) -> Array:
        """Written into u8[size_bytes]; returns it in its shape."""
        array: Array = memory.view(self.dtype.numpy).reshape(self.shape)
        self.write(array)
        return array

    @staticmethod
    def of(shape: tuple[int, ...], make: Callable[[], Array]) -> Packed:
        """Packed weights that `make` computes: f32, or what converts to it."""

        def write(out: Array) -> None:
            made = make()
            if made.shape != shape:
                raise InternalError(f"weights were packed as {list(made.shape)}, not {list(shape)}")
            out[...] = made

        return Packed(shape, write)


@dataclass(frozen=True)
class CpuKernel:
    """Emitted CPU code of one workload.

    `ir` is LLVM IR text that defines each stage as
    `void symbol(ptr in0, ..., ptr inN, ptr out0, ..., ptr workspace, ptr scratch, i64 begin, i64 end)`.
    Kernels of symbolic workloads get one more argument, the table of symbol values: `ptr dims`.
    Absent optional inputs are still passed (as null). `workspace` (shared by all workers and stages) and
    `scratch` (one per worker) are 64-byte aligned and uninitialised. `packed` maps the index of a constant
    input to its re-formatted form, which is passed instead of the original.
    """

    ir: str
    stages: tuple[Stage, ...]
    workspace_bytes: int = 0
    scratch_bytes: int = 0
    packed: dict[int, Packed] = dataclasses.field(default_factory=dict)


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


def accepted(family: KernelFamily[C, T, K], w: Workload, t: T) -> Accept | Reject:
    """Whether a family can run a workload. For a symbolic one its code must not depend on what only a run decides."""
    try:
        answer = family.accepts(w, t)
        if isinstance(answer, Accept) and w.is_symbolic and next(usable(family, w, t), None) is None:
            for config in family.candidates(w.at_opt(), t):
                _emit_blank(family, w, config, t)
            return Reject(f"{family.name} offers no configuration")
    except Undecided as error:
        return Reject(f"{family.name} makes code for fixed sizes: {error}")
    return answer


def usable(family: KernelFamily[C, T, K], w: Workload, t: T) -> Iterator[C]:
    """The candidates of a family for an accepted workload, chosen at its opt sizes, that do not depend on what only a
    run decides."""
    for config in family.candidates(w.at_opt(), t):
        try:
            if w.is_symbolic:
                _emit_blank(family, w, config, t)
        except Undecided:
            continue
        yield config


def _emit_blank(family: KernelFamily[C, T, K], w: Workload, config: C, t: T) -> None:
    """Make code for nothing but to see whether it can be made. Raises Undecided."""
    family.emit(w, config, t, "candidate", _blank_constants(w))


def _blank_constants(w: Workload) -> dict[int, Array]:
    """Constants of the right shapes that take no memory."""
    return {
        i: np.broadcast_to(np.zeros((), o.dtype.numpy), o.shape)
        for i, o in enumerate(w.inputs)
        if o is not None and o.constant
    }


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
        """A trial of `kernel` on logical input arrays; a symbolic `w` runs at its opt sizes.

        Raises TensorwrightError when it cannot be compiled.
        """


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
