# SPDX-License-Identifier: Apache-2.0
"""The one place where passes change a graph: applies edits, checks them, records them, and stops loops."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from tensorwright import knobs
from tensorwright.errors import InternalError
from tensorwright.ir.graph import Edit, Graph, Value, union_origins
from tensorwright.ir.verify import verify
from tensorwright.memory import release
from tensorwright.passes.base import Rule, Stage, Sweep
from tensorwright.passes.report import EditRecord, Report, StageReport

_LOOP_SLACK = 100  # firings on one origin set beyond the number of nodes that a terminating rule may need


def run_stages(
    graph: Graph, stages: Sequence[Stage], *, stop_after_edits: int | None = None, check: str | None = None
) -> Report:
    """Run the stages on a copy of `graph`. Deterministic: the same graph gives the same report.

    After `stop_after_edits` edits only the stages that lowering requires still run. `check` is off, edit or stage
    (default: TENSORWRIGHT_CHECK); the types of every added node are verified unless it is off.
    Raises InternalError when an edit breaks the graph or a rule does not come to an end.
    """
    check = check if check is not None else knobs.CHECK.get()
    runner = _Runner(graph.copy(), stop_after_edits, check)
    for stage in stages:
        runner.run(stage)
    return runner.report


class _Runner:
    def __init__(self, graph: Graph, stop_after_edits: int | None, check: str) -> None:
        self.graph, self.check = graph, check
        self.left = stop_after_edits
        self.report = Report(graph, len(graph))
        self.log = knobs.logger("passes")

    def run(self, stage: Stage) -> None:
        record = StageReport(stage.name, stage.purpose, len(self.graph), len(self.graph))
        self.report.stages.append(record)
        fired: Counter[tuple[str, tuple[str, ...]]] = Counter()
        limit = len(self.graph) + _LOOP_SLACK
        for name, edit in self._proposals(stage):
            if not stage.required and self.left is not None:
                if self.left <= 0:
                    self.report.stopped = True
                    break
                self.left -= 1
            edit = _with_origins(edit)
            key = (name, union_origins(edit.remove))
            fired[key] += 1
            if fired[key] > limit:
                raise InternalError(
                    f"rule {name} of stage {stage.name} does not come to an end",
                    where=", ".join(key[1])[:200],
                    why=f"it fired {fired[key]} times on the same nodes; last reason: {edit.because}",
                )
            self._apply(stage, name, edit)
            removed, added = (tuple(node.name for node in nodes) for nodes in (edit.remove, edit.add))
            record.edits.append(EditRecord(stage.name, name, removed, added, edit.because))
            self.log.debug("%s: %s", stage.name, record.edits[-1])
        record.nodes_after = len(self.graph)
        self.graph.drop_unused_constants()
        for array in self.graph.constants.values():
            release(array)  # what the rules looked at
        if self.check != "off":
            verify(self.graph)

    def _apply(self, stage: Stage, name: str, edit: Edit) -> None:
        if self.check != "off":
            self._check_types(stage, name, edit)
        self.graph.apply(edit)
        if self.check == "edit":
            try:
                verify(self.graph)
            except InternalError as error:
                raise InternalError(
                    f"rule {name} of stage {stage.name} broke the graph: {error.what}",
                    where=error.where,
                    why=(*error.why, edit.because),
                ) from error

    def _check_types(self, stage: Stage, name: str, edit: Edit) -> None:
        for node in edit.add:
            try:
                types = node.op.infer(*(v.type if v is not None else None for v in node.inputs))
            except ValueError as error:
                raise InternalError(
                    f"rule {name} of stage {stage.name} made an ill-typed node", where=repr(node), why=str(error)
                ) from error
            if types != tuple(v.type for v in node.outputs):
                listed = ", ".join(map(str, types))
                raise InternalError(
                    f"rule {name} of stage {stage.name} made a node of the wrong type",
                    where=repr(node),
                    why=f"it infers {listed}; its outputs are {node.outputs}",
                )

    def _proposals(self, stage: Stage) -> Iterator[tuple[str, Edit]]:
        """Edits of the stage, each to be applied before the next is asked for."""
        for wide in stage.rules:
            if isinstance(wide, Sweep):
                for edit in wide(self.graph):
                    yield wide.name, edit
        rules = [rule for rule in stage.rules if isinstance(rule, Rule)]
        if rules:
            yield from self._local(rules)

    def _local(self, rules: Sequence[Rule]) -> Iterator[tuple[str, Edit]]:
        """Ask every rule about every node, and again around each edit, until a whole round finds nothing.

        The worklist holds values, not nodes: `Graph.apply` re-creates the readers of a replaced value, but they
        keep their outputs.
        """
        by_op: dict[type, list[Rule]] = {}
        found = True
        while found:
            found = False
            work = deque(node.outputs[0] for node in self.graph.nodes)
            waiting = set(work)
            while work:
                value = work.popleft()
                waiting.discard(value)
                node = self.graph.producer(value)
                if node is None:
                    continue
                kind = type(node.op)
                if kind not in by_op:
                    by_op[kind] = [rule for rule in rules if issubclass(kind, rule.on)]
                for rule in by_op[kind]:
                    edit = rule(self.graph, node)
                    if edit is not None:
                        near = self._around(edit)
                        yield rule.name, edit
                        found = True
                        work.extend(v for v in near if v not in waiting)
                        waiting.update(near)
                        break

    def _around(self, edit: Edit) -> dict[Value, None]:
        """First outputs of the nodes that an edit may make matchable: the new ones, their neighbours, and those that
        lose a reader. Asked before the edit is applied, when readers of replaced values can still be told apart."""
        near = {node.outputs[0]: None for node in edit.add}
        changed = (*(v for node in edit.add for v in node.outputs), *edit.replace)
        near.update((user.outputs[0], None) for value in changed for user in self.graph.users(value))
        read = (*(v for node in (*edit.add, *edit.remove) for v in node.inputs), *edit.replace.values())
        for value in read:
            producer = self.graph.producer(value)
            if producer is not None:
                near[producer.outputs[0]] = None
        return near


def _with_origins(edit: Edit) -> Edit:
    """The edit with the union of the removed nodes' origins in every added node that names none."""
    if all(node.origin for node in edit.add):
        return edit
    origin = union_origins(edit.remove)
    added = tuple(node if node.origin else dataclasses.replace(node, origin=origin) for node in edit.add)
    return dataclasses.replace(edit, add=added)
