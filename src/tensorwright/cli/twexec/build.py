# SPDX-License-Identifier: Apache-2.0
"""From options to an engine: built from a model, or loaded from a plan."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tensorwright.cli.common import bytes_text
from tensorwright.cli.twexec.log import Log
from tensorwright.cli.twexec.model import Ranges, has_usual_name, imported
from tensorwright.cli.twexec.options import Options
from tensorwright.cli.twexec.shapes import build_ranges, filled
from tensorwright.errors import BuildError, PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorwright.plan.interface import TensorInfo
    from tensorwright.runtime.engine import Engine

_NO_SIZES: Final = "B121"  # inputs with dims that nothing bounds


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine and how it came to be: `notes` are lines about its model that the log has not shown."""

    engine: Engine
    seconds: float
    is_loaded: bool
    notes: tuple[str, ...]


def open_engine(options: Options, log: Log) -> Opened:
    """The engine that the options ask for, saved where they say.

    Raises what `tw.build` and `tw.load` raise, and BuildError B124 when its interface cannot have the formats asked.
    """
    import tensorwright as tw

    build = options.build
    notes: list[str] = []
    start = time.perf_counter()
    if build.load:
        engine = tw.load(build.load, target=options.target)
    else:
        engine, notes = _built(options, log)
    seconds = time.perf_counter() - start
    if build.load:
        check_formats(engine.inputs, engine.outputs, options)
    if build.save:
        engine.save(build.save)
    unseen = tuple(n for n in dict.fromkeys([*engine.notes, *notes]) if not any(seen.endswith(n) for seen in log.seen))
    return Opened(engine, seconds, build.load is not None, unseen)


def _built(options: Options, log: Log) -> tuple[Engine, list[str]]:
    profiles = build_ranges(options, log)
    if options.build.input_formats or options.build.output_formats:
        from tensorwright.plan.interface import TensorInfo

        graph = imported(options.model, profiles[0])
        outputs = zip(graph.output_names, graph.outputs, strict=True)
        check_formats(
            [TensorInfo.of(v.name, v.type) for v in graph.inputs],
            [TensorInfo.of(name, v.type) for name, v in outputs],
            options,
        )
    with _timing_cache(options) as cache:
        try:
            return _build(options, profiles, cache)
        except BuildError as error:
            if error.code != _NO_SIZES:
                raise
            complete = [filled(imported(options.model, ranges), ranges, log) for ranges in profiles]
            if complete == profiles:
                raise
        return _build(options, complete, cache)


def _build(options: Options, profiles: list[Ranges], cache: str | None) -> tuple[Engine, list[str]]:
    import tensorwright as tw

    model, build = options.model, options.build
    built = functools.partial(
        tw.build, target=options.target, tune=build.tune, timing_cache=cache, workspace=build.workspace_bytes
    )
    notes: list[str] = []
    if len(profiles) > 1 or has_usual_name(model):
        shapes = profiles if len(profiles) > 1 else profiles[0] or None
        outputs = list(model.outputs) or None
        engine = built(model.path, shapes=shapes, weights=model.weights, outputs=outputs)
    else:  # the flag names the format, where the name of the file does not
        graph = imported(model, profiles[0], notes)
        engine = built(graph)
    return engine, notes


@contextlib.contextmanager
def _timing_cache(options: Options) -> Iterator[str | None]:
    """The path of the timing cache; None is the user's own."""
    if options.build.keep_cache:
        yield options.build.timing_cache
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(pathlib.Path(folder) / "none.jsonl")


def check_formats(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], options: Options) -> None:
    """Raise BuildError B124 when inputs or outputs are asked to have another type than they have."""
    problems = []
    for flag, infos, asked in (
        ("inputIOFormats", inputs, options.build.input_formats),
        ("outputIOFormats", outputs, options.build.output_formats),
    ):
        if asked and len(asked) not in (1, len(infos)):
            problems.append(f"--{flag} has {len(asked)} formats for {len(infos)} tensors: give one, or one for each")
            continue
        wanted = asked * len(infos) if len(asked) == 1 else asked
        for info, dtype in zip(infos, wanted, strict=False):
            if dtype is not None and dtype != str(info.dtype.value):
                problems.append(f"--{flag} asks for {dtype}, the tensor is {info}")
    if problems:
        raise BuildError(
            "inputs and outputs cannot have the formats asked for",
            why=problems,
            do="leave the flag out: the types are those of the network",
            code="B124",
        )


# -- facts ------------------------------------------------------------------------------------------
def describe(opened: Opened, options: Options, log: Log) -> None:
    """Print what the engine is."""
    engine, build = opened.engine, options.build
    if opened.is_loaded:
        log.info(f"Engine loaded in {opened.seconds:.3g} sec.")
    else:
        log.info(f"Engine built in {opened.seconds:.3g} sec.")
    if build.save:
        log.info(f"Engine saved to {build.save}")
    memory, report = engine.memory(), engine.report()
    path = build.save or build.load
    size = os.path.getsize(path) if path else memory.constants + memory.weights + memory.code
    log.info(f"{'Loaded' if opened.is_loaded else 'Created'} engine with size: {size / (1 << 20):.6g} MiB")
    host = len(report["host_steps"])
    log.info(f"Steps: {len(report['steps'])}, of these in NumPy: {host if options.target != 'reference' else 'all'}")
    log.info(
        f"Memory: weights {bytes_text(memory.weights)}, code {bytes_text(memory.code)}; "
        f"each context: activations {bytes_text(memory.arena)}, scratch {bytes_text(memory.scratch)}"
    )
    for info in engine.inputs:
        log.info(f"Input {info}")
    for info in engine.outputs:
        log.info(f"Output {info}")
    for note in opened.notes:
        log.warning(f"Note: {note}")
    if build.monitor_memory:
        log.info(f"Peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.6g} MiB")


def plan_version(path: str) -> str:
    """Which version wrote a plan, without loading any code of it. Raises PlanError."""
    from tensorwright.plan.plan import read_plan

    producer = read_plan(path).producer
    if not producer:
        raise PlanError("the plan does not say which version wrote it", where=path, code="P106")
    return producer


def time_deserialize(options: Options, log: Log, repeat: int = 10) -> None:
    """Load the plan several times and print how long it takes."""
    import tensorwright as tw

    assert options.build.load is not None
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        engine = tw.load(options.build.load, target=options.target)
        times.append((time.perf_counter() - start) * 1e3)
        engine.close()
    total = sum(times)
    log.info(
        f"Total deserialization time = {total:.6g} milliseconds in {repeat} iterations, "
        f"average time = {total / repeat:.6g} milliseconds, first time = {times[0]:.6g} milliseconds."
    )
