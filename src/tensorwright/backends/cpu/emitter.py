# SPDX-License-Identifier: Apache-2.0
"""A small LLVM IR writer: kernels are Python functions that call it, text comes out.

`Module` collects functions and declarations, `Function` appends instructions to the current block,
and `Reg` is one SSA value with its LLVM type. `Reg` overloads + - * so index formulas read like
formulas; Python ints mix freely with i64 values and fold at emit time. Mutable state is `Var`
(a stack slot, promoted to a phi by LLVM's `sroa`), so loops need no hand-written phis.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tensorwright.backends.cpu import size_code
from tensorwright.backends.cpu.llvm_types import (
    FLOATS,
    element_of,
    float_literal,
    is_float,
    mangle,
    size_of,
    vector,
    width_of,
)
from tensorwright.ir.dims import Dim, SymDim

_MARK = "\x00"  # around a function's name: where its symbol values are passed, if the module has any
DIMS = "dims"
"""The argument that points to the values of an engine's symbols, i64 each, by slot."""


class Reg:
    """One SSA value: LLVM type text `ty`, operand text `ref`, and the function that owns it."""

    __slots__ = ("fn", "ref", "ty")

    def __init__(self, fn: Function, ty: str, ref: str) -> None:
        self.fn, self.ty, self.ref = fn, ty, ref

    def __add__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("add", self, other)

    def __radd__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("add", self, other)

    def __sub__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("sub", self, other)

    def __rsub__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("sub", self.fn.like(self, other), self)

    def __mul__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("mul", self, other)

    def __rmul__(self, other: Reg | Dim | float) -> Reg:
        return self.fn.binary("mul", self, other)

    def __truediv__(self, other: Reg | float) -> Reg:
        return self.fn.binary("div", self, other)

    def __floordiv__(self, other: Reg | Dim) -> Reg:
        """Integer quotient of non-negative values (udiv)."""
        return self.fn.binary("udiv", self, other)

    def __mod__(self, other: Reg | Dim) -> Reg:
        """Integer remainder of non-negative values (urem)."""
        return self.fn.binary("urem", self, other)

    def __repr__(self) -> str:
        return f"{self.ty} {self.ref}"


class Var:
    """A mutable local of LLVM type `ty`; `get` loads, `set` stores. LLVM turns it into registers."""

    __slots__ = ("fn", "slot", "ty")

    def __init__(self, fn: Function, ty: str, slot: str) -> None:
        self.fn, self.ty, self.slot = fn, ty, slot

    def get(self) -> Reg:
        return self.fn.op(self.ty, f"load {self.ty}, ptr {self.slot}")

    def set(self, value: Reg) -> None:
        if value.ty != self.ty:
            raise TypeError(f"variable of type {self.ty} set to a {value.ty}")
        self.fn.line(f"store {self.ty} {value.ref}, ptr {self.slot}")


_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "udiv": operator.floordiv,
    "urem": operator.mod,
}


class Function:
    """Builder of one `define`; appends to the current basic block."""

    def __init__(self, module: Module, name: str, args: Sequence[tuple[str, str]], returns: str, private: bool) -> None:
        self.module, self.name, self.returns, self.private = module, name, returns, private
        self.args = [Reg(self, ty, f"%{arg}") for ty, arg in args]
        self._arg_names = {arg: reg for (_, arg), reg in zip(args, self.args, strict=True)}
        self._count = 0
        self._slots: list[str] = []
        self._entry: list[str] = []
        self._body: list[str] = []
        self._sizes: dict[Dim, Reg] = {}
        self._parts: dict[str, Reg] = {}  # of their atoms, by text

    # -- raw ------------------------------------------------------------------------------------
    def arg(self, name: str) -> Reg:
        """The argument called `name`."""
        return self._arg_names[name]

    def fresh(self) -> str:
        self._count += 1
        return f"%t{self._count}"

    def line(self, text: str) -> None:
        self._body.append("  " + text)

    def op(self, ty: str, text: str) -> Reg:
        """Append `%n = text` and return the value of type `ty`."""
        ref = self.fresh()
        self._body.append(f"  {ref} = {text}")
        return Reg(self, ty, ref)

    def label(self, name: str) -> None:
        self._body.append(f"{name}:")

    # -- constants ------------------------------------------------------------------------------
    def const(self, ty: str, value: float | int) -> Reg:
        """A constant of scalar or vector type (vectors are splats)."""
        elem = element_of(ty)
        text = float_literal(float(value), elem) if elem in FLOATS else str(int(value))
        if ty != elem:
            text = f"splat ({elem} {text})"
        return Reg(self, ty, text)

    def i64(self, value: Reg | Dim) -> Reg:
        if isinstance(value, SymDim):
            return self._size(value)
        return value if isinstance(value, Reg) else Reg(self, "i64", str(value))

    def like(self, model: Reg, value: Reg | float | Dim) -> Reg:
        if isinstance(value, SymDim):
            return self._size(value)
        return value if isinstance(value, Reg) else self.const(model.ty, value)

    def number(self, ty: str, value: Dim) -> Reg:
        """A size as a value of scalar or vector type `ty`."""
        if not isinstance(value, SymDim):
            return self.const(ty, value)
        size, element = self._size(value), element_of(ty)
        how = "sitofp" if element in FLOATS else "trunc" if size_of(element) < 8 else ""
        return self.splat(self.cast(how, size, element) if how else size, width_of(ty))

    # -- symbolic sizes -------------------------------------------------------------------------
    def _size(self, dim: SymDim) -> Reg:
        """The value of an expression, computed once at the start of the function."""
        self.module.takes_dims = True
        if dim not in self._sizes:
            body, self._body = self._body, self._entry
            self._sizes[dim] = self.size_now(dim, Reg(self, "ptr", f"%{DIMS}"), self._parts)
            self._body = body
        return self._sizes[dim]

    def size_now(self, dim: Dim, dims: Reg, known: dict[str, Reg] | None = None) -> Reg:
        """The value that an expression has at this point of the code, from the table of symbol values `dims`.

        `known` keeps the values of its atoms for expressions that follow.
        """
        return size_code.value(self, dim, dims, {} if known is None else known)

    def undef(self, ty: str) -> Reg:
        return Reg(self, ty, "poison")

    # -- arithmetic -----------------------------------------------------------------------------
    def binary(self, name: str, a: Reg, b: Reg | float | Dim) -> Reg:
        """`add sub mul div udiv sdiv urem srem and or xor shl lshr ashr` for ints, the f-forms for floats."""
        b = self.like(a, b)
        if a.ty != b.ty:
            raise TypeError(f"{name} of {a.ty} and {b.ty} in {self.name}")
        if is_float(a.ty):
            return self.op(a.ty, f"f{name} {self.module.fast}{a.ty} {a.ref}, {b.ref}")
        if name in ("add", "sub", "or", "xor") and b.ref == "0":
            return a
        if name in ("mul", "udiv") and b.ref == "1":
            return a
        if name == "mul" and b.ref == "0":
            return self.const(a.ty, 0)
        if name in _FOLDS and a.ref.lstrip("-").isdigit() and b.ref.lstrip("-").isdigit():
            return self.const(a.ty, _FOLDS[name](int(a.ref), int(b.ref)))
        name = "sdiv" if name == "div" else name
        flag = "nsw " if name in ("add", "sub", "mul") and element_of(a.ty) == "i64" else ""
        return self.op(a.ty, f"{name} {flag}{a.ty} {a.ref}, {b.ref}")

    def fneg(self, a: Reg) -> Reg:
        return self.op(a.ty, f"fneg {a.ty} {a.ref}")

    def fma(self, a: Reg, b: Reg, c: Reg) -> Reg:
        """a*b + c with one rounding."""
        return self.intrinsic("fma", a.ty, a, b, c)

    def intrinsic(self, name: str, ty: str, *args: Reg) -> Reg:
        """Call `llvm.<name>.<type>`, overloaded on the result type."""
        mangled = f"llvm.{name}.{mangle(ty)}"
        return self.call(mangled, ty, *args)

    def call(self, name: str, returns: str, *args: Reg) -> Reg:
        """Call a function, declaring it when this module does not define it."""
        self.module.declare(name, returns, [a.ty for a in args])
        text = f"call {returns} @{name}({', '.join(f'{a.ty} {a.ref}' for a in args)}{_MARK}{name}{_MARK})"
        if returns == "void":
            self.line(text)
            return Reg(self, "void", "")
        return self.op(returns, text)

    def call_address(self, address: Reg, *args: Reg) -> None:
        """Call the void function at an address."""
        self.line(f"call void {address.ref}({', '.join(f'{a.ty} {a.ref}' for a in args)})")

    def maximum(self, a: Reg, b: Reg | float | Dim) -> Reg:
        """Larger of two; for floats NaN wins when it is `a` and the compare is ordered-less (see minimum)."""
        b = self.like(a, b)
        if is_float(a.ty):
            return self.select(self.compare("ogt", b, a), b, a)
        return self.select(self.compare("sgt", b, a), b, a)

    def minimum(self, a: Reg, b: Reg | float | Dim) -> Reg:
        """Smaller of two; a NaN in `a` stays, so clamp(x) of NaN is NaN as ONNX wants."""
        b = self.like(a, b)
        if is_float(a.ty):
            return self.select(self.compare("olt", b, a), b, a)
        return self.select(self.compare("slt", b, a), b, a)

    def compare(self, how: str, a: Reg, b: Reg | float | Dim) -> Reg:
        """icmp/fcmp by predicate name (`slt ult eq ...` or `olt oeq une uno ...`); result i1 or vector of i1."""
        b = self.like(a, b)
        kind = "fcmp" if is_float(a.ty) else "icmp"
        return self.op(vector(width_of(a.ty), "i1"), f"{kind} {how} {a.ty} {a.ref}, {b.ref}")

    def select(self, cond: Reg, a: Reg, b: Reg) -> Reg:
        return self.op(a.ty, f"select {cond.ty} {cond.ref}, {a.ty} {a.ref}, {b.ty} {b.ref}")

    def cast(self, how: str, a: Reg, ty: str) -> Reg:
        """`bitcast sitofp uitofp fptosi fptrunc fpext trunc zext sext ptrtoint inttoptr`."""
        return a if a.ty == ty else self.op(ty, f"{how} {a.ty} {a.ref} to {ty}")

    # -- vectors --------------------------------------------------------------------------------
    def splat(self, scalar: Reg, width: int) -> Reg:
        """Broadcast a scalar to all lanes (width 1 returns it unchanged)."""
        if width == 1:
            return scalar
        ty = vector(width, scalar.ty)
        one = self.op(ty, f"insertelement {ty} poison, {scalar.ty} {scalar.ref}, i64 0")
        return self.op(ty, f"shufflevector {ty} {one.ref}, {ty} poison, <{width} x i32> zeroinitializer")

    def shuffle(self, a: Reg, b: Reg | None, lanes: Sequence[int]) -> Reg:
        """Lanes of a (0..n-1) and b (n..2n-1) in the given order; -1 is poison."""
        ty = vector(len(lanes), element_of(a.ty))
        mask = ", ".join(f"i32 {lane}" if lane >= 0 else "i32 poison" for lane in lanes)
        other = b.ref if b is not None else "poison"
        return self.op(ty, f"shufflevector {a.ty} {a.ref}, {a.ty} {other}, <{len(lanes)} x i32> <{mask}>")

    def extract(self, a: Reg, lane: int | Reg) -> Reg:
        if width_of(a.ty) == 1:
            return a
        return self.op(element_of(a.ty), f"extractelement {a.ty} {a.ref}, i64 {self.i64(lane).ref}")

    def insert(self, a: Reg, scalar: Reg, lane: int | Reg) -> Reg:
        return self.op(a.ty, f"insertelement {a.ty} {a.ref}, {scalar.ty} {scalar.ref}, i64 {self.i64(lane).ref}")

    def reduce(self, how: str, a: Reg) -> Reg:
        """Horizontal `add max min` of a float vector, tree order (log2 shuffles)."""
        width = width_of(a.ty)
        while width > 1:
            width //= 2
            low = self.shuffle(a, None, range(width)) if width > 1 else self.extract(a, 0)
            high = self.shuffle(a, None, range(width, 2 * width)) if width > 1 else self.extract(a, 1)
            a = _REDUCTIONS[how](self, low, high)
        return a

    # -- memory ---------------------------------------------------------------------------------
    def gep(self, base: Reg, offset: Reg | Dim, element: str = "float") -> Reg:
        """base + offset elements."""
        offset = self.i64(offset)
        if offset.ref == "0":
            return base
        return self.op("ptr", f"getelementptr inbounds {element}, ptr {base.ref}, i64 {offset.ref}")

    def opaque(self, pointer: Reg) -> Reg:
        """The same pointer, as one that LLVM knows nothing about: loads through it are not merged with others.

        Without this, equal loads of overlapping windows are done once and kept, and the registers spill.
        """
        return self.op("ptr", f'call ptr asm sideeffect "", "=r,0"(ptr {pointer.ref})')

    def load(self, ty: str, base: Reg, offset: Reg | Dim = 0) -> Reg:
        """Load `ty` at base + offset elements; element alignment only is assumed."""
        ptr = self.gep(base, offset, element_of(ty))
        return self.op(ty, f"load {ty}, ptr {ptr.ref}, align {size_of(ty)}")

    def store(self, value: Reg, base: Reg, offset: Reg | Dim = 0) -> None:
        ptr = self.gep(base, offset, element_of(value.ty))
        self.line(f"store {value.ty} {value.ref}, ptr {ptr.ref}, align {size_of(value.ty)}")

    def load_first(self, ty: str, base: Reg, offset: Reg | Dim, count: Reg | int) -> Reg:
        """Load the first `count` lanes; the rest are zero and their memory is not touched."""
        width = width_of(ty)
        if isinstance(count, int) and count >= width:
            return self.load(ty, base, offset)
        ptr = self.gep(base, offset, element_of(ty))
        name = f"llvm.masked.load.{mangle(ty)}.p0"
        self.module.declare(name, ty, ["ptr", vector(width, "i1"), ty])
        return self.op(
            ty,
            f"call {ty} @{name}(ptr align {size_of(ty)} {ptr.ref}, {self.mask(width, count)!r}, {ty} zeroinitializer)",
        )

    def store_first(self, value: Reg, base: Reg, offset: Reg | Dim, count: Reg | int) -> None:
        """Store the first `count` lanes; other memory is not touched."""
        width = width_of(value.ty)
        if isinstance(count, int) and count >= width:
            self.store(value, base, offset)
            return
        if not is_float(value.ty) and size_of(value.ty) < 8:
            # LLVM merges a truncation into a masked store, and that instruction (vpmovdw) may touch masked memory
            if isinstance(count, int):
                self._store_pieces(value, base, self.i64(offset), count)
            else:
                self._store_one_by_one(value, base, self.i64(offset), count)
            return
        ptr = self.gep(base, offset, element_of(value.ty))
        name = f"llvm.masked.store.{mangle(value.ty)}.p0"
        self.module.declare(name, "void", [value.ty, "ptr", vector(width, "i1")])
        self.line(f"call void @{name}({value!r}, ptr align {size_of(value.ty)} {ptr.ref}, {self.mask(width, count)!r})")

    def _store_pieces(self, value: Reg, base: Reg, offset: Reg, count: int) -> None:
        """The first `count` lanes as stores of powers of two."""
        done = 0
        while done < count:
            piece = 1 << ((count - done).bit_length() - 1)
            part = self.shuffle(value, None, range(done, done + piece)) if piece > 1 else self.extract(value, done)
            self.store(part, base, offset + done)
            done += piece

    def _store_one_by_one(self, value: Reg, base: Reg, offset: Reg, count: Reg) -> None:
        """The first `count` lanes through a slot in memory: only their number is known, and only in a run."""
        slot = Reg(self, "ptr", self.var(value.ty, value).slot)
        with self.loop(0, self.minimum(count, width_of(value.ty))) as lane:
            self.store(self.load(element_of(value.ty), slot, lane), base, offset + lane)

    def mask(self, width: int, count: Reg | int) -> Reg:
        """Bits that are set in the first `count` lanes."""
        if isinstance(count, int):
            lanes = ", ".join("i1 true" if lane < count else "i1 false" for lane in range(width))
            return Reg(self, vector(width, "i1"), f"<{lanes}>")
        numbers = ", ".join(f"i64 {lane}" for lane in range(width))
        lane_numbers = Reg(self, vector(width, "i64"), f"<{numbers}>")
        return self.compare("slt", lane_numbers, self.splat(count, width))

    def prefetch(self, base: Reg, offset: Reg | Dim = 0, locality: int = 3) -> None:
        ptr = self.gep(base, offset)
        self.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        self.line(f"call void @llvm.prefetch.p0(ptr {ptr.ref}, i32 0, i32 {locality}, i32 1)")

    # -- memory shared between threads -------------------------------------------------------------
    def atomic_load(self, ty: str, pointer: Reg, order: str = "acquire") -> Reg:
        """Atomic load of an integer; volatile, so a loop around it reads again every time."""
        return self.op(ty, f"load atomic volatile {ty}, ptr {pointer.ref} {order}, align {size_of(ty)}")

    def atomic_store(self, value: Reg, pointer: Reg, order: str = "release") -> None:
        self.line(f"store atomic volatile {value.ty} {value.ref}, ptr {pointer.ref} {order}, align {size_of(value.ty)}")

    def atomic_update(self, how: str, pointer: Reg, value: Reg, order: str = "acq_rel") -> Reg:
        """`xchg add sub and or` in memory; the old value."""
        return self.op(value.ty, f"atomicrmw volatile {how} ptr {pointer.ref}, {value.ty} {value.ref} {order}")

    def compare_exchange(self, pointer: Reg, expected: Reg, new: Reg) -> Reg:
        """Store `new` if memory holds `expected`; whether it did (i1)."""
        kind = f"{{ {new.ty}, i1 }}"
        both = self.op(
            kind, f"cmpxchg volatile ptr {pointer.ref}, {new.ty} {expected.ref}, {new.ty} {new.ref} acq_rel acquire"
        )
        return self.op("i1", f"extractvalue {kind} {both.ref}, 1")

    # -- state and control ----------------------------------------------------------------------
    def var(self, ty: str, init: Reg | None = None) -> Var:
        """A mutable local, allocated in the entry block."""
        slot = f"%v{len(self._slots)}"
        self._slots.append(f"  {slot} = alloca {ty}")
        out = Var(self, ty, slot)
        if init is not None:
            out.set(init)
        return out

    @contextmanager
    def loop(self, start: Reg | Dim, stop: Reg | Dim, step: int = 1) -> Iterator[Reg]:
        """for i in range(start, stop, step): the body; i is i64. One static iteration is emitted inline."""
        if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
            yield self.i64(start)
            return
        index = self.var("i64", self.i64(start))
        head, body, done = (self.fresh()[1:] for _ in range(3))
        self.line(f"br label %{head}")
        self.label(head)
        i = index.get()
        self.line(f"br i1 {self.compare('slt', i, self.i64(stop)).ref}, label %{body}, label %{done}")
        self.label(body)
        yield i
        index.set(i + step)
        self.line(f"br label %{head}")
        self.label(done)

    @contextmanager
    def forever(self) -> Iterator[Callable[[Reg], None]]:
        """while True: the body; the yielded function leaves the loop when its i1 argument holds."""
        head, done = self.fresh()[1:], self.fresh()[1:]

        def leave_when(cond: Reg) -> None:
            go_on = self.fresh()[1:]
            self.line(f"br i1 {cond.ref}, label %{done}, label %{go_on}")
            self.label(go_on)

        self.line(f"br label %{head}")
        self.label(head)
        yield leave_when
        self.line(f"br label %{head}")
        self.label(done)

    @contextmanager
    def when(self, cond: Reg) -> Iterator[None]:
        """if cond: the body (cond is i1)."""
        then, done = self.fresh()[1:], self.fresh()[1:]
        self.line(f"br i1 {cond.ref}, label %{then}, label %{done}")
        self.label(then)
        yield
        self.line(f"br label %{done}")
        self.label(done)

    def branch(self, cond: Reg, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """if cond: then() else: otherwise()."""
        yes, no, done = (self.fresh()[1:] for _ in range(3))
        self.line(f"br i1 {cond.ref}, label %{yes}, label %{no}")
        for name, emit in ((yes, then), (no, otherwise)):
            self.label(name)
            emit()
            self.line(f"br label %{done}")
        self.label(done)

    def ret(self, value: Reg | None = None) -> None:
        self.line("ret void" if value is None else f"ret {value.ty} {value.ref}")

    def text(self) -> str:
        args = ", ".join(
            f"ptr noalias {a.ref}" if a.ty == "ptr" and self.module.noalias else f"{a.ty} {a.ref}" for a in self.args
        )
        args += f"{_MARK}{self.name}{_MARK}"
        kind = "private " if self.private else ""
        head = f"define {kind}{self.returns} @{self.name}({args}) #0 {{\nentry:"
        return "\n".join([head, *self._slots, *self._entry, *self._body, "}"])


class Module:
    """One LLVM module as text. `fast` is put before float operations ("" keeps IEEE order; "contract " allows fma).

    Once one function uses a symbolic size, all of them take the table of symbol values as a last argument, and pass
    it on.
    """

    def __init__(self, *, fast: str = "contract ", noalias: bool = False) -> None:
        self.fast, self.noalias = fast, noalias
        self.takes_dims = False
        self.functions: list[Function] = []
        self._declared: dict[str, str] = {}
        self._globals: list[str] = []

    def function(
        self, name: str, args: Sequence[tuple[str, str]], returns: str = "void", *, private: bool = False
    ) -> Function:
        fn = Function(self, name, args, returns, private)
        self.functions.append(fn)
        return fn

    def declare(self, name: str, returns: str, args: Sequence[str]) -> None:
        immediates = {"llvm.prefetch.p0": "ptr, i32 immarg, i32 immarg, i32 immarg"}
        self._declared.setdefault(name, f"declare {returns} @{name}({immediates.get(name, ', '.join(args))})")

    def table(self, name: str, element: str, values: Sequence[int | float]) -> str:
        """A private constant array; returns its name (a `ptr` constant once prefixed with "@")."""
        items = ", ".join(f"{element} {float_literal(v, element) if element in FLOATS else int(v)}" for v in values)
        self._globals.append(f"@{name} = private unnamed_addr constant [{len(values)} x {element}] [{items}], align 64")
        return name

    def text(self) -> str:
        defined = {fn.name for fn in self.functions}
        declares = [text for name, text in sorted(self._declared.items()) if name not in defined]
        text = "\n\n".join([*self._globals, *(fn.text() for fn in self.functions), *declares, ""])

        def last_argument(match: re.Match[str]) -> str:
            takes = self.takes_dims and match.group(2) in defined
            return match.group(1) + (f"{', ' if match.group(1) != '(' else ''}ptr %{DIMS}" if takes else "")

        return re.sub(f"(.){_MARK}([^{_MARK}]*){_MARK}", last_argument, text)


_REDUCTIONS: dict[str, Callable[[Function, Reg, Reg], Reg]] = {
    "add": lambda _, a, b: a + b,
    "mul": lambda _, a, b: a * b,
    "max": Function.maximum,
    "min": Function.minimum,
}
