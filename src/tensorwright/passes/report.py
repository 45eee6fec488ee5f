# SPDX-License-Identifier: Apache-2.0
"""What the passes did to a graph, stage by stage, edit by edit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tensorwright.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class EditRecord:
    """One edit: `rule` of stage `pass_name` replaced `nodes` by `result` (node names) because of `reason`."""

    pass_name: str
    rule: str
    nodes: tuple[str, ...]
    result: tuple[str, ...]
    reason: str

    def as_dict(self) -> dict[str, object]:
        """The record for `--json` output."""
        return {
            "pass": self.pass_name,
            "rule": self.rule,
            "nodes": list(self.nodes),
            "result": list(self.result),
            "reason": self.reason,
        }

    def __str__(self) -> str:
        result = f" -> {_names(self.result)}" if self.result else ""
        return f"{self.rule}: {_names(self.nodes)}{result} ({self.reason})"


@dataclass(slots=True)
class StageReport:
    """The edits of one stage and the number of nodes before and after it."""

    name: str
    purpose: str
    nodes_before: int
    nodes_after: int
    edits: list[EditRecord] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The stage for `--json` output."""
        return {
            "stage": self.name,
            "purpose": self.purpose,
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "edits": [edit.as_dict() for edit in self.edits],
        }


@dataclass(slots=True)
class Report:
    """The optimised `graph` and how it came about. `stopped` is set when stop-after-N-edits cut the pipeline short."""

    graph: Graph
    nodes_before: int
    stages: list[StageReport] = field(default_factory=list)
    stopped: bool = False

    @property
    def nodes_after(self) -> int:
        return len(self.graph)

    @property
    def edits(self) -> list[EditRecord]:
        """All edits in the order they were made."""
        return [edit for stage in self.stages for edit in stage.edits]

    def as_dict(self) -> dict[str, object]:
        """The report for `--json` output and for plans; the same input gives the same dict."""
        return {
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "stopped": self.stopped,
            "stages": [stage.as_dict() for stage in self.stages],
        }


def report_text(report: Report, *, limit: int | None = None) -> str:
    """The pipeline as a list for people: every stage, and under it the edits (at most `limit` a rule) with reasons."""
    lines = [
        f"{report.nodes_before} nodes -> {report.nodes_after} nodes, {_count(len(report.edits), 'edit')}"
        + (" (stopped early by the edit limit)" if report.stopped else "")
    ]
    for number, stage in enumerate(report.stages, 1):
        done = f"{_count(len(stage.edits), 'edit')}, {stage.nodes_before} -> {stage.nodes_after} nodes"
        lines.append(f"{number:2}. {stage.name:<28} {stage.purpose}: {done if stage.edits else 'nothing to do'}")
        shown: Counter[str] = Counter()
        for edit in stage.edits:
            shown[edit.rule] += 1
            if limit is None or shown[edit.rule] <= limit:
                lines.append(f"      {edit}")
        if limit is not None:
            lines += [f"      {rule}: {count - limit} more" for rule, count in shown.items() if count > limit]
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _names(names: tuple[str, ...], shown: int = 8) -> str:
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"
