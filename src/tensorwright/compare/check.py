# SPDX-License-Identifier: Apache-2.0
"""What of a model cannot be imported, and what would run in NumPy: found without generating code."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.builder import cpu_target
from tensorwright.errors import UnsupportedError
from tensorwright.importers.base import import_model
from tensorwright.lower.partition import divide
from tensorwright.lower.program import Program
from tensorwright.ops.control_flow import nested
from tensorwright.ops.label import label
from tensorwright.passes.pipeline import optimise
from tensorwright.plan.schedule import HostStep
from tensorwright.shapes import Range
from tensorwright.tune.search import unsupported


@dataclass(frozen=True, slots=True)
class Checked:
    """`problems` keep the model from being imported (`problem` sums them up, `do` says what helps); `host_steps` run
    in NumPy. `nodes` counts the nodes of the optimised graph and its bodies."""

    target: str
    nodes: int = 0
    problem: str = ""
    problems: tuple[str, ...] = ()
    do: str = ""
    host_steps: tuple[HostStep, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The findings for JSON."""
        steps = [step.as_dict() for step in self.host_steps]
        return {"ok": not self.problems, **dataclasses.asdict(self), "host_steps": steps}


def check(
    model: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    outputs: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int] | Range] | None = None,
    target: str = "cpu",
) -> Checked:
    """Import and optimise `model` and ask every kernel family of `target` about every step.

    Open dims of inputs count as 1 where `shapes` does not say. What an import refuses comes back as `problems`, all at
    once. Raises ModelError for a file that is no consistent model, TargetError for an unknown target.
    """
    chosen = cpu_target(target)
    try:
        graph = import_model(model, weights=weights, outputs=outputs, shapes=shapes)
    except UnsupportedError as error:
        return Checked(chosen.fingerprint, problem=error.what, problems=error.problems, do=error.do)
    open_inputs = [v for v in graph.inputs if not v.type.is_static]
    if open_inputs:  # kernels are asked about one size; whether they take an op does not hang on it
        ones = {v.name: tuple(d if isinstance(d, int) else 1 for d in v.type.shape) for v in open_inputs}
        sizes = {**ones, **(shapes or {})}
        graph = import_model(model, weights=weights, outputs=outputs, shapes=sizes)
    graph = optimise(graph).graph
    host = divide(graph, lambda program: refused(program, chosen)).host_nodes
    steps = tuple(HostStep(node.name, label(node.op), node.origin, reason) for node, reason in host)
    return Checked(chosen.fingerprint, nodes=sum(map(len, nested(graph))), host_steps=steps)


def refused(program: Program, target: CpuTarget) -> dict[str, str]:
    """By name of the graph node: the steps that no kernel family accepts, each with the reason."""
    lost = unsupported([step.workload for step in program.steps], target, FAMILIES)
    return {step.node: lost[step.workload.key] for step in program.steps if step.workload.key in lost}
