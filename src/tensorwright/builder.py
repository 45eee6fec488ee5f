# SPDX-License-Identifier: Apache-2.0
"""The build: import, optimise, lower, tune, assemble. The whole road of a network in one short file."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tensorwright import __version__
from tensorwright.backends.base import Accept, CpuKernel, Workload, accepted
from tensorwright.backends.cpu.assemble import assemble
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.launch import native_of
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.errors import BuildError, PlanError, TargetError
from tensorwright.importers.base import import_model
from tensorwright.ir.dims import Symbol, SymDim
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.parse import parse_graph
from tensorwright.ir.source_builder import LARGEST_VALUE
from tensorwright.ir.text import graph_text, stored_constants
from tensorwright.lower.partition import Division, assumed_equal, divide
from tensorwright.lower.program import Program
from tensorwright.ops.control_flow import ControlFlow, nested
from tensorwright.ops.host import OnnxHost
from tensorwright.ops.label import label
from tensorwright.passes.pipeline import optimise
from tensorwright.plan.interface import Equality
from tensorwright.plan.plan import IMPORT_NOTES, Native, Plan
from tensorwright.plan.plan import Choice as PlanChoice
from tensorwright.plan.scheduled import infos, schedule_of
from tensorwright.runtime.engine import Engine
from tensorwright.shapes import Range
from tensorwright.tune.cache import TuningCache
from tensorwright.tune.progress import Listener, listening
from tensorwright.tune.record import Choice
from tensorwright.tune.search import tune as tune_workloads
from tensorwright.tune.search import unsupported
from tensorwright.tune.workload import constants_of, symbol_of, tasks_of

if TYPE_CHECKING:
    from tensorwright.importers.base import Model

Shapes = Mapping[str, Sequence[int] | Range]

_LOG = logging.getLogger("tensorwright")

PRODUCER = f"tensorwright {__version__}"


@dataclass(frozen=True, slots=True)
class Options:
    """What a build was asked, in checked form. `workspace_bytes` bounds one kernel's workspace."""

    target: CpuTarget
    shapes: Mapping[str, Range]
    tune: str
    threads: int | None
    workspace_bytes: int | None
    cache: TuningCache | None
    progress: bool | Listener | None
    host_steps: bool = True


def build(
    model: Model,
    target: str = "cpu",
    precision: str = "fp32",
    *,
    shapes: Shapes | Sequence[Shapes] | None = None,
    calibration: object = None,
    max_drop: object = None,
    workspace: str | int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    progress: bool | Listener = False,
    tune: str = "quick",
    weights: str | os.PathLike[str] | None = None,
    outputs: Sequence[str] | None = None,
    threads: int | None = None,
    host_steps: bool = True,
) -> Engine:
    """Build an engine for this machine from a model.

    `model`: path of a model (.onnx, .prototxt, .pb, .cfg, a SavedModel folder), bytes of an ONNX file, an
    `onnx.ModelProto` or a `tw.Network`. `weights`: the second file of Caffe (.caffemodel) and Darknet (.weights)
    models; without it they get seeded random weights, and `engine.notes` says so. `outputs`: names of the tensors to
    compute, where not those that the model declares. `target`: "cpu"; "cpu:avx2",
    "cpu:avx512" to override the instruction set; "reference" for the unoptimised graph in NumPy. `shapes`: input
    name -> shape for inputs with symbolic dims, or `tw.Range(min, opt, max)`: one engine then runs every shape of the
    range, tuned for `opt`. A sequence of such mappings gives an engine of several profiles, each tuned for its own
    range; a run uses the first that fits. `tune`: "off" (first guess of every kernel), "quick" or "full".
    `timing_cache`: file that keeps measurements (default: one in the user's cache folder). `workspace` ("1GiB" or
    bytes) bounds the workspace of a kernel. `progress`: True draws a progress bar, a callable receives every event.
    `threads` bounds the workers of a run. `host_steps`: nodes that no kernel can run are run in NumPy, and the log,
    `engine.notes` and the report name them; False makes them an error (B102).

    Raises ModelError or UnsupportedError for the model, BuildError for options that cannot be met, TargetError for an
    unknown target. Nothing is approximated silently: precisions other than fp32 are refused by this version.
    """
    if precision != "fp32" or calibration is not None or max_drop is not None:
        raise BuildError(
            f"this version builds fp32 engines only; precision={precision!r}"
            + (" with calibration" if calibration is not None else ""),
            do="leave precision, calibration and max_drop out",
            code="B120",
        )
    profiles = [shapes or {}] if shapes is None or isinstance(shapes, Mapping) else list(shapes) or [{}]
    bounds = [{name: Range.of(shape) for name, shape in profile.items()} for profile in profiles]
    notes: list[str] = []
    graphs = [import_model(model, weights=weights, outputs=outputs, shapes=r or None, notes=notes) for r in bounds]
    notes = list(dict.fromkeys(notes))
    for note in notes:
        _LOG.warning("%s", note)
    if target == "reference":
        plans = [reference_plan(graph) for graph in graphs]
        return Engine(_whole(plans, notes), target=target)
    chosen = cpu_target(target)
    cache = TuningCache.open(timing_cache)
    limit = parse_bytes(workspace)
    try:
        plans = [
            make_plan(graph, Options(chosen, ranges, tune, threads, limit, cache, progress, host_steps))
            for graph, ranges in zip(graphs, bounds, strict=True)
        ]
    except MemoryError as error:
        raise BuildError(
            "there is not enough memory to build the model",
            where=graphs[0].name,
            why=str(error),
            do="give smaller shapes with shapes=, or build on a larger machine",
            code="B126",
        ) from error
    return Engine(_whole(plans, notes), threads=threads, notes=cache.notes)


def _whole(plans: Sequence[Plan], notes: Sequence[str]) -> Plan:
    """The plan of all profiles, with what the import had to say."""
    first = plans[0]
    report = {**first.report, IMPORT_NOTES: list(notes)} if notes else first.report
    return replace(first, profiles=tuple(plans[1:]), report=report)


def make_plan(graph: Graph, options: Options) -> Plan:
    """Optimise, lower, tune and assemble a graph. Raises BuildError."""
    _check_inputs(graph)
    equalities = _equalities(graph)
    report = optimise(graph)
    parts = _divided(report.graph, options)
    programs = parts.programs()
    choices = _tuned(programs.values(), options)
    return Plan(
        name=graph.name,
        producer=PRODUCER,
        inputs=infos(report.graph.inputs, [v.name for v in report.graph.inputs]),
        outputs=infos(report.graph.outputs, report.graph.output_names),
        graph=graph_text(report.graph),
        constants=stored_constants(report.graph),
        choices=tuple(PlanChoice(key, c.family, c.version, dict(c.config), c.seconds) for key, c in choices.items()),
        options={
            "target": options.target.fingerprint,
            "precision": "fp32",
            "tune": options.tune,
            "threads": options.threads,
            "shapes": {name: shape.as_json() for name, shape in options.shapes.items()},
        },
        report={"passes": report.as_dict()},
        native={key: _assembled(program, choices, options) for key, program in programs.items()},
        schedule=None if parts.is_whole else schedule_of(parts),
        symbols=report.graph.symbols,
        equalities=equalities,
    )


def reference_plan(graph: Graph) -> Plan:
    """The graph as it was imported, without code: what target "reference" runs. Raises BuildError B121."""
    _check_inputs(graph)
    return Plan(
        name=graph.name,
        producer=PRODUCER,
        inputs=infos(graph.inputs, [v.name for v in graph.inputs]),
        outputs=infos(graph.outputs, graph.output_names),
        graph=graph_text(graph),
        constants=stored_constants(graph),
        options={"target": "reference", "precision": "fp32"},
        symbols=graph.symbols,
        equalities=_equalities(graph),
    )


def respecialise(plan: Plan, *, target: str) -> Plan:
    """The same network for another target: its graph and choices are kept, code is generated again (the passes
    change nothing in a graph that they made).

    A choice that the target cannot use (its family rejects the workload there) falls back to the family order's first
    guess. Raises TargetError for an unknown target, PlanError P106 for a graph that is not one.
    """
    chosen = cpu_target(target)
    try:
        graph = parse_graph(plan.graph, plan.constants)
    except ValueError as error:
        raise PlanError(
            "the plan's graph cannot be read", where=plan.name, why=str(error), do="build the plan again", code="P106"
        ) from error
    graph = optimise(graph).graph
    options = Options(chosen, {}, "off", None, None, None, None)
    parts = _divided(graph, options)
    programs = parts.programs()
    first_guess = _tuned(programs.values(), options)
    kept = {c.workload: c for c in plan.choices}
    choices = {
        key: _replayed(task.workload, kept.get(key), chosen) or first_guess[key]
        for program in programs.values()
        for key, task in tasks_of(program).items()
    }
    native = {key: _assembled(program, choices, options) for key, program in programs.items()}
    return replace(
        plan,
        native=native,
        schedule=None if parts.is_whole else schedule_of(parts),
        profiles=tuple(respecialise(profile, target=target) for profile in plan.profiles),
    )


def cpu_target(text: str) -> CpuTarget:
    """The CPU target a user named. Raises TargetError for other devices and unknown names."""
    if text == "cpu" or text.startswith("cpu:"):
        return CpuTarget.parse(text)
    raise TargetError(
        f"this version cannot build for target {text!r}",
        why="it generates code for CPUs only",
        do="use target='cpu', cpu:avx512, cpu:avx2 or reference",
        code="D101",
    )


def parse_bytes(text: str | int | None) -> int | None:
    """Bytes of "512MiB", "1GiB", "2e9" or a number; None stays None. Raises BuildError B122."""
    if text is None or isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]i?)?B?\s*", text, re.IGNORECASE)
    try:
        number = float(match.group(1)) if match else -1.0
    except ValueError:
        number = -1.0
    if match is None or number < 0:
        raise BuildError(
            f"workspace {text!r} is not a size", do='write "512MiB", "1GiB" or a number of bytes', code="B122"
        )
    unit = (match.group(2) or "").lower()
    power = "kmgt".find(unit[0]) + 1 if unit else 0
    return int(number * (1024 if unit.endswith("i") else 1000) ** power)


# -- parts ------------------------------------------------------------------------------------------
def _check_inputs(graph: Graph) -> None:
    """Kernels need bounds: dims of inputs may be without only where host steps alone read them.

    Raises BuildError B121, and B125 for inputs that no machine can hold.
    """
    for value in graph.inputs:
        if value.type.is_bounded and value.type.size_bytes > LARGEST_VALUE:
            raise BuildError(
                f"input {value.name!r} has {value.type.size_bytes} bytes",
                where=graph.name,
                why=str(value.type),
                do="give smaller shapes with shapes=",
                code="B125",
            )
    loose = [v for v in graph.inputs if _symbols(v)]
    symbols = frozenset(name for v in loose for name in _symbols(v))
    if symbols and any(
        symbols & _symbols(value)
        for node in graph.nodes
        if not isinstance(node.op, (OnnxHost, ControlFlow))
        for value in node.outputs
    ):
        names = ", ".join(f"{v.name}: {v.type}" for v in loose)
        example = ", ".join(
            f"{v.name!r}: ({', '.join(str(d) if isinstance(d, int) else '1' for d in v.type.shape)},)" for v in loose
        )
        raise BuildError(
            "the model has inputs of symbolic shape, and nothing says which sizes the engine must run",
            where=graph.name,
            why=names,
            do=f"pass shapes={{{example}}}, or a range of shapes: tw.Range(min, opt, max)",
            code="B121",
        )


def _equalities(graph: Graph) -> tuple[Equality, ...]:
    """The sizes that a run must find equal, each pair once, named by the first node that needs it."""
    told = {s for v in graph.inputs for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    found: dict[tuple[str, str], Equality] = {}
    for a, b, node in assumed_equal(graph):
        if all(d.symbols <= told for d in (a, b) if isinstance(d, SymDim)):
            found.setdefault((str(a), str(b)), Equality(str(a), str(b), ", ".join(node.origin)))
    return tuple(found.values())


def _symbols(value: Value) -> frozenset[str]:
    """The symbols without bounds in a value's shape."""
    names = (name for dim in value.type.shape if isinstance(dim, SymDim) for name in dim.symbols)
    return frozenset(name for name in names if not isinstance(name, Symbol))


def _divided(graph: Graph, options: Options) -> Division:
    """The graph cut into native parts, which kernels can run, and host parts. Raises BuildError B102 where host steps
    are needed and not allowed."""

    def refused(program: Program) -> dict[str, str]:
        lost = unsupported((step.workload for step in program.steps), options.target, FAMILIES)
        return {step.node: lost[step.workload.key] for step in program.steps if step.workload.key in lost}

    parts = divide(graph, refused)
    lost = parts.host_nodes
    if lost and not options.host_steps:
        raise BuildError(
            f"no kernel can run {len(lost)} of {sum(map(len, nested(graph)))} nodes, and host_steps=False was asked",
            where=graph.name,
            why=[f"{n.name} ({label(n.op)}), from {', '.join(n.origin)}: {reason}" for n, reason in lost],
            do="leave host_steps=False out to run these in NumPy, or change them",
            code="B102",
        )
    return parts


def _tuned(programs: Iterable[Program], options: Options) -> dict[str, Choice]:
    tasks = {key: task for program in programs for key, task in tasks_of(program).items()}
    with listening(options.progress) as listener:
        return tune_workloads(
            [t.workload for t in tasks.values()],
            {key: t.constants for key, t in tasks.items()},
            options.target,
            FAMILIES,
            mode=options.tune,
            cache=options.cache,
            progress=listener,
            where={key: t.where for key, t in tasks.items()},
        )


def _replayed(w: Workload, choice: PlanChoice | None, target: CpuTarget) -> Choice | None:
    """A plan's choice for a workload, where it is still one of its family's candidates on `target`."""
    family = next(
        (f for f in FAMILIES if choice is not None and (f.name, f.version) == (choice.family, choice.version)), None
    )
    if choice is None or family is None or not isinstance(accepted(family, w, target), Accept):
        return None
    if all(c.as_dict() != dict(choice.config) for c in family.candidates(w.at_opt(), target)):
        return None
    return Choice(choice.family, choice.version, choice.config, choice.seconds, "plan")


def _assembled(program: Program, choices: Mapping[str, Choice], options: Options) -> Native:
    """Native code of the program with these choices."""
    families = {f.name: f for f in FAMILIES}
    kernels: list[CpuKernel] = []
    labels: list[str] = []
    for step in program.steps:
        choice = choices[step.workload.key]
        family = families[choice.family]
        config = family.config(**choice.config)
        symbol = symbol_of(step.workload, family.name, config.as_dict())
        kernel = family.emit(step.workload, config, options.target, symbol, constants_of(program, step.inputs))
        if options.workspace_bytes is not None and kernel.workspace_bytes > options.workspace_bytes:
            raise BuildError(
                f"step {step.name!r} needs a workspace of {kernel.workspace_bytes} bytes",
                where=", ".join(step.origin),
                why=f"workspace= allows {options.workspace_bytes}",
                do="raise workspace=, or leave it out",
                code="B123",
            )
        kernels.append(kernel)
        labels.append(f"{family.name} {config}")
    seconds = [choices[step.workload.key].seconds for step in program.steps]
    code = assemble(program, kernels, options.target, labels=labels, seconds=seconds, max_threads=options.threads or 0)
    return native_of(code)
