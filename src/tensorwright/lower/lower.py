# SPDX-License-Identifier: Apache-2.0
"""Optimised graph to program: every value gets a place in memory, every computing node becomes a step.

Ops that only re-index become views. A backward sweep first decides which values are produced straight into
a larger buffer (a concat result, an engine output); the forward sweep then emits steps, with explicit
copies where a view or a shared place is impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tensorwright.backends.base import Operand, Workload, row_major
from tensorwright.ir.dims import SymDim, high
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import Array, Op, dims_of
from tensorwright.lower.layout import assign_layout
from tensorwright.lower.phases import group_phases
from tensorwright.lower.program import Buffer, Interface, Place, Program, Step, View
from tensorwright.lower.views import VIEW_OPS, Strided, source_of, view
from tensorwright.ops.attention import Attention
from tensorwright.ops.copy import Copy
from tensorwright.ops.fused import Fused
from tensorwright.ops.norm import LayerNorm
from tensorwright.ops.shape import Concat

# Inputs of these ops must have their last axis contiguous; anything else is copied first.
_LAST_AXIS_CONTIGUOUS: dict[type[Op], tuple[int, ...]] = {Attention: (0, 1, 2), LayerNorm: (0,)}


@dataclass(eq=False, slots=True)
class _Room:
    """A buffer being laid out; `size_elems` is known from the dense value it was made for."""

    name: str
    place: Place
    index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Spot:
    """A value's place: a room and the strided elements inside it."""

    room: _Room
    at: Strided


@dataclass(slots=True)
class _Draft:
    """A step before buffers are final."""

    name: str
    op: Op
    inputs: tuple[tuple[Value, _Spot] | None, ...]
    output: tuple[Value, _Spot]
    origin: tuple[str, ...]
    needs: set[int] = field(default_factory=set)
    node: str = ""


def lower(graph: Graph) -> Program:
    """The program of an optimised graph whose dims are fixed or bounded; steps are in execution order."""
    return _Lowering(graph).program()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.prefer = assign_layout(graph)
        self.spots: dict[Value, _Spot] = {}
        self.wanted: dict[Value, _Spot] = {}
        self.ready: dict[Value, frozenset[int]] = {}  # drafts that must have run before a value can be read
        self.drafts: list[_Draft] = []
        self.names: dict[str, int] = {}
        self.out_rooms: list[_Room] = []
        self.deciders: dict[str, int] = {}  # symbol: the draft that decides it

    # -- program --------------------------------------------------------------------------------
    def program(self) -> Program:
        g = self.graph
        constants: list[Array] = []
        for i, value in enumerate(g.inputs):
            self._own(value, _Room(value.name, Place.input, i, value.type.size_bytes))
        for value, array in g.constants.items():
            self._own(value, _Room(value.name, Place.constant, len(constants), value.type.size_bytes))
            constants.append(array)
        self._choose_destinations()
        for node in g.nodes:
            self._node(node)
        self._outputs()
        buffers = self._buffers()
        steps = [self._step(draft, buffers) for draft in self.drafts]
        phases, order = group_phases([draft.needs for draft in self.drafts])
        place = {old: new for new, old in enumerate(order)}
        used = [b for b in buffers.values() if b.place is not Place.constant]
        kept, arrays = self._kept_constants(steps, buffers, constants)
        return Program(
            g.name,
            tuple(Interface(v.name, v.type) for v in g.inputs),
            tuple(Interface(n, v.type) for n, v in zip(g.output_names, g.outputs, strict=True)),
            tuple(_renumber(steps[i], kept) for i in order),
            tuple(tuple(place[i] for i in phase) for phase in phases),
            (*used, *kept.values()),
            tuple(arrays),
        )

    def _own(self, value: Value, room: _Room) -> None:
        self.spots[value] = _Spot(room, Strided(0, row_major(value.type.sizes)))
        self.ready[value] = frozenset()

    def _kept_constants(
        self, steps: Sequence[Step], buffers: dict[_Room, Buffer], constants: Sequence[Array]
    ) -> tuple[dict[Buffer, Buffer], list[Array]]:
        """Constants that a step reads, numbered from 0 in order of first use."""
        kept: dict[Buffer, Buffer] = {}
        arrays: list[Array] = []
        for step in steps:
            for operand in step.inputs:
                if operand is not None and operand.buffer.place is Place.constant and operand.buffer not in kept:
                    b = operand.buffer
                    kept[b] = Buffer(b.name, b.place, len(arrays), b.size_bytes)
                    arrays.append(constants[b.index])
        return kept, arrays

    def _buffers(self) -> dict[_Room, Buffer]:
        rooms: dict[_Room, None] = dict.fromkeys(
            self.spots[v].room for v in (*self.graph.inputs, *self.graph.constants)
        )
        rooms.update(dict.fromkeys(self.out_rooms))
        for draft in self.drafts:
            rooms.update(
                dict.fromkeys(spot.room for item in (*draft.inputs, draft.output) if item for spot in item[1:])
            )
        arena = 0
        out: dict[_Room, Buffer] = {}
        for room in rooms:
            index = room.index
            if room.place is Place.arena:
                index, arena = arena, arena + 1
            out[room] = Buffer(room.name, room.place, index, room.size_bytes)
        return out

    def _step(self, draft: _Draft, buffers: dict[_Room, Buffer]) -> Step:
        def as_view(item: tuple[Value, _Spot]) -> View:
            value, spot = item
            operand = Operand(value.type.dtype, value.type.sizes, spot.at.strides)
            if spot.room.place is Place.constant and not operand.is_symbolic:
                operand = replace(operand, constant=True)
            return View(buffers[spot.room], spot.at.offset, operand)

        ins = tuple(as_view(i) if i is not None else None for i in draft.inputs)
        out = as_view(draft.output)
        workload = Workload(draft.op, tuple(i.operand if i else None for i in ins), (out.operand,))
        return Step(draft.name, workload, ins, (out,), draft.origin, draft.node)

    # -- backward: who is produced inside a larger buffer ------------------------------------------
    def _choose_destinations(self) -> None:
        g = self.graph
        for i, value in enumerate(g.outputs):
            room = _Room(g.output_names[i], Place.output, i, value.type.size_bytes)
            self.out_rooms.append(room)
            self._claim(value, _Spot(room, Strided(0, row_major(value.type.sizes))))
        for node in reversed(g.nodes):
            value = node.outputs[0]
            if isinstance(node.op, VIEW_OPS):
                source = node.inputs[0]
                if value in self.wanted and source is not None:
                    at = source_of(node.op, source.type.sizes, self.wanted[value].at, value.type.sizes)
                    if at is not None:
                        self._claim(source, _Spot(self.wanted[value].room, at))
            elif isinstance(node.op, Concat):
                if value not in self.wanted:
                    self.wanted[value] = _Spot(self._arena(value), Strided(0, self.prefer[value]))
                for part, spot in self._parts(node):
                    self._claim(part, spot)

    def _claim(self, value: Value, spot: _Spot) -> None:
        """Let `value` be produced at `spot` if nobody asked before and it does not hurt its producer."""
        producer = self.graph.producer(value)
        if producer is None or value in self.wanted:
            return
        shape = value.type.sizes
        walked = [axis for axis, s in enumerate(self.prefer[value]) if shape[axis] != 1 and s != 0]
        lane = min(walked, key=lambda axis: high(self.prefer[value][axis]), default=None)
        if lane is not None and spot.at.strides[lane] != 1 and not isinstance(producer.op, (Concat, *VIEW_OPS)):
            return  # its vectors would be scattered: a copy is cheaper
        self.wanted[value] = spot

    def _parts(self, node: Node) -> list[tuple[Value, _Spot]]:
        """Each concat operand with its slice of the result's place."""
        assert isinstance(node.op, Concat)
        whole, axis, start = self.wanted[node.output], node.op.axis, 0
        out = []
        for part in node.inputs:
            if part is None:
                continue
            out.append(
                (part, _Spot(whole.room, Strided(whole.at.offset + start * whole.at.strides[axis], whole.at.strides)))
            )
            start += part.type.sizes[axis]
        return out

    def _arena(self, value: Value) -> _Room:
        return _Room(value.name, Place.arena, 0, value.type.size_bytes)

    # -- forward: steps -----------------------------------------------------------------------------
    def _node(self, node: Node) -> None:
        value = node.outputs[0]
        if isinstance(node.op, VIEW_OPS):
            self._view(node, value)
        elif isinstance(node.op, Concat):
            waits: set[int] = set()
            for part, spot in self._parts(node):
                waits |= self.ready[part] if _same(self.spots[part], spot, part) else {self._copy(part, spot, node)}
            self.spots[value], self.ready[value] = self.wanted[value], frozenset(waits)
        else:
            if 0 in value.type.sizes:  # nothing to compute, and nobody can read it
                self.spots[value], self.ready[value] = (
                    _Spot(self._arena(value), Strided(0, self.prefer[value])),
                    frozenset(),
                )
                return
            spot = self.wanted.get(value) or _Spot(self._arena(value), Strided(0, self.prefer[value]))
            needs: set[int] = set()
            inputs = tuple(
                None if v is None else (v, self._operand(node, i, v, needs)) for i, v in enumerate(node.inputs)
            )
            self._emit(node.name, node.op, inputs, value, spot, node, needs)

    def _operand(self, node: Node, position: int, value: Value, needs: set[int]) -> _Spot:
        """Where the node reads an input (its producers join `needs`); copied first when the op's kernels need
        a contiguous last axis."""
        spot = self.spots[value]
        op = node.op.anchor if isinstance(node.op, Fused) and node.op.anchor is not None else node.op
        if (
            position in _LAST_AXIS_CONTIGUOUS.get(type(op), ())
            and value.type.sizes[-1] != 1
            and spot.at.strides[-1] != 1
        ):
            copied = _Spot(self._arena(value), Strided(0, row_major(value.type.sizes)))
            needs.add(self._copy(value, copied, node))
            return copied
        needs |= self.ready[value]
        return spot

    def _view(self, node: Node, value: Value) -> None:
        source = node.inputs[0]
        assert source is not None
        shape, out_shape = source.type.sizes, value.type.sizes
        spot = self.spots[source]
        at = view(node.op, shape, spot.at, out_shape)
        self.ready[value] = self.ready[source]
        if at is None:
            copied = self._copy_place(node, source, value)
            self.ready[value] = frozenset({self._copy(source, copied, node)})
            spot, at = copied, view(node.op, shape, copied.at, out_shape)
            if at is None:
                raise ValueError(f"{node} cannot be a view of a dense buffer")
        self.spots[value] = _Spot(spot.room, at)
        wanted = self.wanted.get(value)
        if wanted is None and any(s < 0 for s in at.strides):  # kernels walk memory upwards
            wanted = _Spot(self._arena(value), Strided(0, row_major(out_shape)))
        if wanted is not None and not _same(self.spots[value], wanted, value):
            self.ready[value] = frozenset({self._copy(value, wanted, node)})
            self.spots[value] = wanted

    def _copy_place(self, node: Node, source: Value, value: Value) -> _Spot:
        """Where to copy a source so that the view works: inside the wanted place if possible, else row-major."""
        shape = source.type.sizes
        wanted = self.wanted.get(value)
        if wanted is not None:
            at = source_of(node.op, shape, wanted.at, value.type.sizes)
            if at is not None:
                return _Spot(wanted.room, at)
        return _Spot(self._arena(source), Strided(0, row_major(shape)))

    def _copy(self, value: Value, spot: _Spot, node: Node) -> int:
        return self._emit(
            f"{node.name}/copy",
            Copy(),
            ((value, self.spots[value]),),
            value,
            spot,
            node,
            set(self.ready[value]),
            settle=False,
        )

    def _emit(
        self,
        name: str,
        op: Op,
        inputs: tuple[tuple[Value, _Spot] | None, ...],
        value: Value,
        spot: _Spot,
        node: Node | None,
        needs: set[int],
        *,
        settle: bool = True,
    ) -> int:
        self.names[name] = self.names.get(name, 0) + 1
        unique = name if self.names[name] == 1 else f"{name}_{self.names[name]}"
        number = len(self.drafts)
        if self.deciders or op.decides:
            sizes = [d for d in (*value.type.shape, *dims_of(op)) if isinstance(d, SymDim)]
            read = [v.type.shape for v, _ in filter(None, inputs)]
            sizes += [d for shape in read for d in shape if isinstance(d, SymDim)]
            needs = needs | {self.deciders[s] for d in sizes for s in d.symbols if s in self.deciders}
            self.deciders |= {s: number for d in op.decides if isinstance(d, SymDim) for s in d.symbols}
        if settle:
            self.spots[value], self.ready[value] = spot, frozenset({number})
        origin, owner = (node.origin, node.name) if node is not None else ((), "")
        self.drafts.append(_Draft(unique, op, inputs, (value, spot), origin, needs, owner))
        return number

    def _outputs(self) -> None:
        for room, value in zip(self.out_rooms, self.graph.outputs, strict=True):
            spot = _Spot(room, Strided(0, row_major(value.type.sizes)))
            if not _same(self.spots[value], spot, value):
                self._emit(
                    f"{room.name}/copy",
                    Copy(),
                    ((value, self.spots[value]),),
                    value,
                    spot,
                    self.graph.producer(value),
                    set(self.ready[value]),
                    settle=False,
                )


def _same(a: _Spot, b: _Spot, value: Value) -> bool:
    """Whether two spots are the same memory for a value of this shape (an empty one is anywhere)."""
    shape = value.type.sizes
    return (
        0 in shape
        or a.room is b.room
        and a.at.offset == b.at.offset
        and all(d == 1 or s == t for d, s, t in zip(shape, a.at.strides, b.at.strides, strict=True))
    )


def _renumber(step: Step, kept: dict[Buffer, Buffer]) -> Step:
    inputs = tuple(
        View(kept[v.buffer], v.offset, v.operand) if v is not None and v.buffer in kept else v for v in step.inputs
    )
    return Step(step.name, step.workload, inputs, step.outputs, step.origin, step.node)
