# SPDX-License-Identifier: Apache-2.0
"""Small programs written by hand, with kernels of a few lines each, and what they must compute in NumPy.

They exercise all that a kernel may ask of a program: several stages, a workspace, scratch, packed weights, views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.backends.base import CpuKernel, Operand, Packed, Stage, Workload, row_major
from tensorwright.backends.cpu.assemble import assemble
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.launch import CpuCode, native_of
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType
from tensorwright.lower.phases import group_phases
from tensorwright.lower.program import Buffer, Interface, Place, Program, Step, View
from tensorwright.ops.elementwise import Add, Mul, Neg
from tensorwright.ops.fused import Fused, Instr
from tensorwright.ops.reduce import Reduce
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.plan import Plan

F32 = DType.f32
BLOCK = 8  # elements per unit of work


def pointwise(op: Op, inputs: int) -> Fused:
    return Fused(None, inputs, (Instr(op, tuple(range(inputs))),))


@dataclass
class Tiny:
    """A program under construction; `values` holds what each buffer must contain at the end."""

    n: int
    steps: list[Step] = field(default_factory=list)
    kernels: list[CpuKernel] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    rules: list[tuple[Buffer, Callable[[dict[Buffer, Array]], Array]]] = field(default_factory=list)

    def buffer(self, name: str, place: Place, index: int = 0) -> Buffer:
        self.buffers.append(Buffer(name, place, index, 4 * self.n))
        return self.buffers[-1]

    def input(self, name: str) -> Buffer:
        self.inputs.append(name)
        return self.buffer(name, Place.input, len(self.inputs) - 1)

    def constant(self, name: str, array: Array) -> Buffer:
        self.constants.append(array)
        return self.buffer(name, Place.constant, len(self.constants) - 1)

    def result(self, name: str, output: bool) -> Buffer:
        if output:
            self.outputs.append(name)
        return self.buffer(name, Place.output if output else Place.arena, len(self.outputs) - 1 if output else 0)

    def _step(
        self, op: Op, kernel: CpuKernel, sources: list[Buffer], name: str, output: bool, rule: Callable[..., Array]
    ) -> Buffer:
        target = self.result(name, output)
        shape = (self.n,)
        operands = [Operand(F32, shape, row_major(shape), b.place is Place.constant) for b in (*sources, target)]
        workload = Workload(op, tuple(operands[:-1]), (operands[-1],))
        views = [View(b, 0, o) for b, o in zip((*sources, target), operands, strict=True)]
        self.steps.append(Step(name, workload, tuple(views[:-1]), (views[-1],), (f"node_{name}",)))
        self.kernels.append(kernel)
        self.rules.append((target, lambda values: rule(*(values[b] for b in sources))))
        return target

    def binary(self, kind: type[Add | Mul], a: Buffer, b: Buffer, name: str, output: bool = False) -> Buffer:
        """a + b or a * b."""
        kernel = binary_kernel("add" if kind is Add else "mul", self.n)
        rule = np.add if kind is Add else np.multiply
        return self._step(pointwise(kind(), 2), kernel, [a, b], name, output, rule)

    def scale(self, a: Buffer, weights: Array, name: str, output: bool = False, packed: bool = True) -> Buffer:
        """a * weights; the kernel either packs the weights (negated) or reads them as they are."""
        source = self.constant(f"{name}_w", weights)
        kernel = binary_kernel("mul", self.n, negate=packed)
        if packed:
            kernel = dataclasses.replace(kernel, packed={1: Packed.of(weights.shape, lambda: -weights)})
        return self._step(pointwise(Mul(), 2), kernel, [a, source], name, output, np.multiply)

    def mean_free(self, a: Buffer, name: str, output: bool = False) -> Buffer:
        """a - sum(a): two stages through a workspace of one partial sum per unit."""
        kernel = subtract_sum_kernel(self.n)
        return self._step(Reduce("sum", (0,), True), kernel, [a], name, output, lambda x: x - x.sum())

    def negate(self, a: Buffer, name: str, output: bool = False) -> Buffer:
        """-a, each unit through scratch."""
        return self._step(Neg(), scratch_kernel(self.n), [a], name, output, np.negative)

    def program(self, name: str = "tiny") -> Program:
        """The program, its steps grouped into phases by true dependencies."""
        writer = {step.outputs[0].buffer: i for i, step in enumerate(self.steps)}
        needs = [{writer[v.buffer] for v in step.inputs if v and v.buffer in writer} for step in self.steps]
        phases, _ = group_phases(needs)
        port = TensorType(F32, (self.n,))
        inputs, outputs = (tuple(Interface(i, port) for i in names) for names in (self.inputs, self.outputs))
        return Program(
            name,
            inputs,
            outputs,
            tuple(self.steps),
            tuple(map(tuple, phases)),
            tuple(self.buffers),
            tuple(self.constants),
        )

    def expected(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Outputs by name, from NumPy."""
        values = {
            b: feeds[b.name] if b.place is Place.input else self.constants[b.index]
            for b in self.buffers
            if b.place in (Place.input, Place.constant)
        }
        for target, rule in self.rules:
            values[target] = rule(values)
        return {b.name: values[b] for b in self.buffers if b.place is Place.output}

    def feeds(self, rng: np.random.Generator) -> dict[str, Array]:
        """Small integers, so that sums are exact in any order."""
        return {name: rng.integers(-3, 4, self.n).astype(np.float32) for name in self.inputs}


def binary_kernel(op: str, n: int, negate: bool = False) -> CpuKernel:
    """out = a op b (or a op -b), one unit per BLOCK elements; safe in place."""
    module = Module()
    symbol = f"tiny_{op}{'_negated' if negate else ''}_{n}"
    f = module.function(
        symbol,
        [
            ("ptr", "a"),
            ("ptr", "b"),
            ("ptr", "out"),
            ("ptr", "workspace"),
            ("ptr", "scratch"),
            ("i64", "begin"),
            ("i64", "end"),
        ],
    )
    with f.loop(f.arg("begin") * BLOCK, f.minimum(f.arg("end") * BLOCK, n)) as i:
        a, b = f.load("float", f.arg("a"), i), f.load("float", f.arg("b"), i)
        f.store(f.binary(op, a, f.fneg(b) if negate else b), f.arg("out"), i)
    f.ret()
    return CpuKernel(module.text(), (Stage(symbol, -(-n // BLOCK)),))


def subtract_sum_kernel(n: int) -> CpuKernel:
    """Stage 1: partial sums by unit into the workspace. Stage 2: every unit adds them all and subtracts."""
    module, units = Module(), -(-n // BLOCK)
    args = [("ptr", "a"), ("ptr", "out"), ("ptr", "workspace"), ("ptr", "scratch"), ("i64", "begin"), ("i64", "end")]
    f = module.function(f"tiny_partial_{n}", args)
    with f.loop(f.arg("begin"), f.arg("end")) as unit:
        total = f.var("float", f.const("float", 0.0))
        total.set(f.const("float", 0.0))
        with f.loop(unit * BLOCK, f.minimum((unit + 1) * BLOCK, n)) as i:
            total.set(total.get() + f.load("float", f.arg("a"), i))
        f.store(total.get(), f.arg("workspace"), unit)
    f.ret()
    f = module.function(f"tiny_subtract_{n}", args)
    total = f.var("float", f.const("float", 0.0))
    with f.loop(0, units) as unit:
        total.set(total.get() + f.load("float", f.arg("workspace"), unit))
    with f.loop(f.arg("begin") * BLOCK, f.minimum(f.arg("end") * BLOCK, n)) as i:
        f.store(f.load("float", f.arg("a"), i) - total.get(), f.arg("out"), i)
    f.ret()
    stages = (Stage(f"tiny_partial_{n}", units), Stage(f"tiny_subtract_{n}", units))
    return CpuKernel(module.text(), stages, workspace_bytes=4 * units)


def scratch_kernel(n: int) -> CpuKernel:
    """Copy each unit to scratch, then write it out negated."""
    module, symbol = Module(), f"tiny_scratch_{n}"
    args = [("ptr", "a"), ("ptr", "out"), ("ptr", "workspace"), ("ptr", "scratch"), ("i64", "begin"), ("i64", "end")]
    f = module.function(symbol, args)
    with f.loop(f.arg("begin"), f.arg("end")) as unit:
        last = f.minimum((unit + 1) * BLOCK, n)
        with f.loop(unit * BLOCK, last) as i:
            f.store(f.load("float", f.arg("a"), i), f.arg("scratch"), i - unit * BLOCK)
        with f.loop(unit * BLOCK, last) as i:
            f.store(f.fneg(f.load("float", f.arg("scratch"), i - unit * BLOCK)), f.arg("out"), i)
    f.ret()
    return CpuKernel(module.text(), (Stage(symbol, -(-n // BLOCK)),), scratch_bytes=4 * BLOCK)


def sample(n: int = 37) -> Tiny:
    """Two inputs, two outputs, every kind of kernel, concurrent steps and an in-place chain."""
    t = Tiny(n)
    x, y = t.input("x"), t.input("y")
    a = t.binary(Add, x, y, "sum")
    b = t.scale(x, np.arange(n, dtype=np.float32) % 3 - 1, "scaled")
    c = t.mean_free(a, "free")
    d = t.negate(b, "negated")
    e = t.binary(Mul, c, d, "product")
    t.scale(e, np.full(n, 2, np.float32), "first", output=True, packed=False)
    t.binary(Add, e, y, "second", output=True)
    return t


def random_tiny(rng: np.random.Generator, steps: int, n: int) -> Tiny:
    """A random network of `steps` steps; about a third of the values are read again much later."""
    t = Tiny(n)
    values = [t.input(f"in{i}") for i in range(int(rng.integers(1, 4)))]

    def pick() -> Buffer:
        recent = 0 if rng.random() < 0.3 else max(len(values) - 3, 0)
        return values[int(rng.integers(recent, len(values)))]

    for i in range(steps):
        output = i == steps - 1 or rng.random() < 0.1
        name = f"v{i}"
        match int(rng.integers(0, 5)):
            case 0:
                value = t.binary(Add, pick(), pick(), name, output)
            case 1:
                weights = rng.integers(-1, 2, n).astype(np.float32)
                value = t.scale(pick(), weights, name, output, packed=bool(rng.integers(0, 2)))
            case 2:
                value = t.negate(pick(), name, output)
            case 3:
                factor = t.constant(f"c{i}", rng.integers(-1, 2, n).astype(np.float32))
                value = t.binary(Mul, pick(), factor, name, output)
            case _:
                value = t.binary(Add, pick(), pick(), name, output)
        if not output:
            values.append(value)
    return t


def code_of(tiny: Tiny, max_threads: int = 0, seconds: Sequence[float] = ()) -> CpuCode:
    labels = ["tiny"] * len(tiny.steps)
    return assemble(
        tiny.program(), tiny.kernels, CpuTarget.probe(), labels=labels, seconds=seconds, max_threads=max_threads
    )


def plan_of(tiny: Tiny, max_threads: int = 0) -> Plan:
    """A complete plan; its graph text is a stand-in, since these programs come from no graph."""
    infos = [[TensorInfo(name, F32, (tiny.n,)) for name in names] for names in (tiny.inputs, tiny.outputs)]
    return Plan(
        name="tiny",
        producer="test",
        inputs=tuple(infos[0]),
        outputs=tuple(infos[1]),
        graph="graph tiny {}",
        constants={f"w{i}": c for i, c in enumerate(tiny.constants)},
        options={"precision": "fp32"},
        native={"cpu": native_of(code_of(tiny, max_threads))},
    )
