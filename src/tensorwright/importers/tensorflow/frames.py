# SPDX-License-Identifier: Apache-2.0
"""TensorFlow 1's control flow as While and If: frames (Enter, Merge, Switch, NextIteration, Exit) and conditions
(Switch, Merge), which frozen graphs of TensorFlow 2 hold as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tensorwright.importers.tensorflow.graph_def import LoopParts, Part, Ref, TfNode, origin

_ENTER, _MERGE, _SWITCH = ("Enter", "RefEnter"), ("Merge", "RefMerge"), ("Switch", "RefSwitch")
_SWITCH_N = "_SwitchN"
_EXIT, _NEXT = ("Exit", "RefExit"), ("NextIteration", "RefNextIteration")


def structured(nodes: dict[str, TfNode]) -> None:
    """Put a While in the place of each frame, and an If in that of each condition. What has another form stays as it
    is."""
    if not any(node.op in (*_SWITCH, *_MERGE) for node in nodes.values()):
        return
    leaves = _loops(nodes)
    _conditions(nodes, leaves)


# -- loops ----------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Variable:
    enter: TfNode
    merge: TfNode
    switch: TfNode
    following: Ref


def _loops(nodes: dict[str, TfNode]) -> set[Ref]:
    """Structure all loops, inner ones first; what stands for their variables inside."""
    exits: dict[Ref, list[TfNode]] = {}
    for node in nodes.values():
        if node.op in _EXIT and node.inputs:
            exits.setdefault(node.inputs[0], []).append(node)
    waiting = {node.name: _variables(nodes, node) for node in nodes.values() if node.op == "LoopCond"}
    leaves = set[Ref]()
    while waiting:
        inner = {name for name, variables in waiting.items() if _structure(nodes, nodes[name], variables, exits)}
        for name in inner:
            for variable in waiting.pop(name):
                leaves |= {Ref(variable.merge.name, 0), Ref(variable.switch.name, 1)}
        if not inner:
            break
    return leaves | {Ref(node.name, 0) for node in nodes.values() if node.op in _ENTER}


def _variables(nodes: dict[str, TfNode], loop: TfNode) -> list[_Variable]:
    """The variables of a loop, in the order of their Switches."""
    found = []
    for switch in nodes.values():
        if switch.op not in _SWITCH or len(switch.inputs) != 2 or switch.inputs[1].node != loop.name:
            continue
        merge = nodes.get(switch.inputs[0].node)
        if merge is None or merge.op not in _MERGE or len(merge.inputs) != 2:
            continue
        makers = [nodes.get(ref.node) for ref in merge.inputs]
        enter = next((n for n in makers if n is not None and n.op in _ENTER), None)
        back = next((n for n in makers if n is not None and n.op in _NEXT), None)
        if enter is not None and back is not None and back.inputs:
            found.append(_Variable(enter, merge, switch, back.inputs[0]))
    return found


def _structure(
    nodes: dict[str, TfNode], loop: TfNode, variables: list[_Variable], exits: dict[Ref, list[TfNode]]
) -> bool:
    """Put a While in the place of a loop; False while there are other loops inside of it."""
    inside, after = [Ref(v.switch.name, 1) for v in variables], [v.following for v in variables]
    before, condition = [Ref(v.merge.name, 0) for v in variables], loop.inputs[:1]
    reached = _reached(nodes, [*after, *condition], {*inside, *before}, _ENTER)
    if any(nodes[name].op in (*_EXIT, "LoopCond") for name in reached if name in nodes):
        return False
    fixed = [Ref(name, 0) for name in nodes if name in reached and nodes[name].op in _ENTER]
    parts = LoopParts(Part(nodes, [*before, *fixed], condition), Part(nodes, [*inside, *fixed], [*after, *fixed]))
    enters = [*(v.enter for v in variables), *(nodes[ref.node] for ref in fixed)]
    inputs = [enter.inputs[0] for enter in enters]
    for number, variable in enumerate(variables):
        for node in exits.get(Ref(variable.switch.name, 0), ()):
            nodes[node.name] = TfNode(node.name, "Identity", [Ref(loop.name, number)], {}, controls=node.controls)
    nodes[loop.name] = TfNode(loop.name, "While", inputs, {"parts": parts})
    return True


def _reached(nodes: dict[str, TfNode], refs: Iterable[Ref], stops: set[Ref], last: tuple[str, ...]) -> set[str]:
    """The nodes that outputs need, up to the stops and to ops of these kinds."""
    found, waiting = set[str](), list(refs)
    while waiting:
        ref = waiting.pop()
        if ref in stops or ref.node in found or ref.node not in nodes:
            continue
        found.add(ref.node)
        if nodes[ref.node].op not in last:
            waiting += nodes[ref.node].inputs
    return found


# -- conditions -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Choice:
    """A Merge, and its inputs by the side (0 and 1, or the number of a branch) that gives them."""

    merge: TfNode
    sides: Mapping[int, Ref]


def _conditions(nodes: dict[str, TfNode], leaves: set[Ref]) -> None:
    """Structure all conditions, inner ones first."""
    loops = {ref.node for ref in leaves}
    waiting = {n.name: n for n in nodes.values() if n.op in _MERGE and n.name not in loops and len(n.inputs) > 1}
    while waiting:
        ready: dict[tuple[Ref, str], list[_Choice]] = {}
        for merge in waiting.values():
            taken = [_taken(nodes, ref, leaves, waiting) for ref in merge.inputs]
            known = [sides for sides in taken if sides is not None]
            predicate = _predicate_of(known) if len(known) == len(taken) else None
            if predicate is not None:
                sides = {
                    side: ref for ref, t in zip(merge.inputs, known, strict=True) for p, side in t if p == predicate
                }
                ready.setdefault((predicate, merge.name.rpartition("/")[0]), []).append(_Choice(merge, sides))
        for (predicate, _), choices in ready.items():
            _choose(nodes, predicate, choices, leaves)
        done = {choice.merge.name for choices in ready.values() for choice in choices}
        waiting = {name: merge for name, merge in waiting.items() if name not in done}
        if not done:
            break


def _taken(
    nodes: dict[str, TfNode], ref: Ref, leaves: set[Ref], waiting: Mapping[str, TfNode]
) -> set[tuple[Ref, int]] | None:
    """Which sides must be taken that an output is computed; None where another condition comes first."""
    found, queue, seen = set[tuple[Ref, int]](), [ref], set[Ref]()
    while queue:
        ref = queue.pop()
        node = nodes.get(ref.node)
        if ref in seen or ref in leaves or node is None:
            continue
        seen.add(ref)
        if node.name in waiting:
            return None
        if _is_switch(node):
            found.add((_predicate(nodes, node), ref.index))
            queue.append(node.inputs[0])
        else:
            queue += [*node.inputs, *(Ref(name, 0) for name in node.controls)]
    return found


def _is_switch(node: TfNode) -> bool:
    return node.op in (*_SWITCH, _SWITCH_N) and len(node.inputs) == 2


def _predicate(nodes: dict[str, TfNode], switch: TfNode) -> Ref:
    """What decides a Switch."""
    node, index = origin(nodes, switch.inputs[1])
    return switch.inputs[1] if node is None else Ref(node.name, index)


def _predicate_of(taken: list[set[tuple[Ref, int]]]) -> Ref | None:
    """The predicate of which each input of a Merge needs another side."""
    for predicate, _ in sorted(taken[0], key=str):
        sides = [[side for p, side in t if p == predicate] for t in taken]
        if all(len(s) == 1 for s in sides) and sorted(s[0] for s in sides) == list(range(len(taken))):
            return predicate
    return None


def _choose(nodes: dict[str, TfNode], predicate: Ref, choices: list[_Choice], leaves: set[Ref]) -> None:
    """Put an If, or a Case, in the place of Merges that one condition decides."""
    switches, others = set[str](), set[Ref]()
    queue, seen = [ref for choice in choices for ref in choice.sides.values()], set[Ref]()
    while queue:
        ref = queue.pop()
        node = nodes.get(ref.node)
        if ref in seen or node is None:
            continue
        seen.add(ref)
        if ref in leaves or node.op == "Placeholder":
            others.add(ref)
        elif _is_switch(node) and _predicate(nodes, node) == predicate:
            switches.add(node.name)
        else:
            queue += node.inputs
    first, rest = sorted(switches), sorted(others, key=str)
    is_case = any(nodes[name].op == _SWITCH_N for name in first) or len(choices[0].sides) > 2
    count = min(len(choice.sides) for choice in choices)
    parts = [
        Part(nodes, [*(Ref(name, side) for name in first), *rest], [choice.sides[side] for choice in choices])
        for side in (range(count) if is_case else (1, 0))
    ]
    name, inputs = f"{choices[0].merge.name}/chosen", [predicate, *(nodes[n].inputs[0] for n in first), *rest]
    nodes[name] = TfNode(name, "Case" if is_case else "If", inputs, {"parts": parts})
    for number, choice in enumerate(choices):
        nodes[choice.merge.name] = TfNode(choice.merge.name, "Identity", [Ref(name, number)], {})
