# SPDX-License-Identifier: Apache-2.0
"""From flags with values to options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from tensorwright.cli.twexec import values
from tensorwright.cli.twexec.check import contradictions, refuse
from tensorwright.cli.twexec.flags import Effect
from tensorwright.cli.twexec.options import (
    FORMATS,
    LOWER,
    BuildOptions,
    InferenceOptions,
    ModelOptions,
    Options,
    ProfileShapes,
    ReportOptions,
    Shapes,
)
from tensorwright.cli.twexec.parse import CommandLine
from tensorwright.errors import TensorwrightError

T = TypeVar("T")

_BUILDS: Final = (
    *FORMATS,
    *LOWER,
    *("model", "output", "maxBatch", "minShapes", "optShapes", "maxShapes", "profile", "calib", "workspace"),
    *("memPoolSize", "builderOptimizationLevel", "timingCacheFile", "noBuilderCache", "stronglyTyped"),
)


class _Reader:
    """Collects what is wrong while options are read."""

    def __init__(self, line: CommandLine) -> None:
        self.line = line
        self.problems: list[str] = []

    def read(self, name: str, read: Callable[[str], T], default: T) -> T:
        """The value of a flag that has a form of its own."""
        return self.of(name, self.line.get(name), read, default)

    def of(self, name: str, text: str | None, read: Callable[[str], T], default: T) -> T:
        """The value of this text of a flag."""
        if text is None:
            return default
        try:
            return read(text)
        except ValueError as error:
            self.problems.append(f"--{name}: {error}")
            return default

    def merged(self, name: str, read: Callable[[str], dict[str, T]]) -> dict[str, T]:
        """The values of a flag that may be repeated, together."""
        found: dict[str, T] = {}
        for text in self.line.all(name):
            self.add(name, found, self.of(name, text, read, {}))
        return found

    def add(self, name: str, found: dict[str, T], more: Mapping[str, T]) -> None:
        """Add what is named to what was."""
        self.problems += [f"--{name}: {key!r} is named twice" for key in more if key in found]
        found.update(more)


def read_options(line: CommandLine) -> Options:
    """The options of a command line.

    Raises TensorwrightError T122 with all flags whose request cannot be met here, T121 with all values that cannot be
    read and all flags that contradict each other.
    """
    refuse(line)
    reader = _Reader(line)
    model = _model(reader)
    options = Options(
        model=model,
        build=_build(reader, model),
        inference=_inference(reader),
        report=_report(reader),
        target=line.get("target", "cpu"),
        classic=_is_classic(line),
        idle=_idle(line, bool(model.flag)),
    )
    reader.problems += contradictions(line, options)
    if reader.problems:
        raise TensorwrightError(
            "the flags of the command line cannot all be met",
            why=reader.problems,
            do="correct or leave out what is named; `twexec --help` lists all flags",
            code="T121",
        )
    return options


# -- parts ------------------------------------------------------------------------------------------
def _is_classic(line: CommandLine) -> bool:
    return line.has("deploy") or line.has("engine")


def _model(reader: _Reader) -> ModelOptions:
    line = reader.line
    flags = [flag for flag in FORMATS if line.has(flag)]
    if len(flags) > 1:
        reader.problems.append(f"one model is built at a time, not those of {' and '.join('--' + f for f in flags)}")
    flag = "" if line.has("loadEngine") or not flags else flags[0]
    outputs = [name.strip() for text in line.all("output") for name in text.split(",") if name.strip()]
    return ModelOptions(
        flag,
        line.get(flag, "") if flag else "",
        line.get("model"),
        tuple(dict.fromkeys(outputs)),
        line.get("batch"),
        line.get("maxBatch"),
    )


def _build(reader: _Reader, model: ModelOptions) -> BuildOptions:
    line = reader.line
    engine = line.get("engine")
    pools = reader.merged("memPoolSize", values.pool_sizes)
    megabytes = line.get("workspace")
    workspace = None if megabytes is None else int(megabytes * (1 << 20))
    verbosity = line.get("profilingVerbosity", "layer_names_only")
    return BuildOptions(
        profiles=_profiles(reader),
        lower=tuple(name for name in LOWER if line.has(name)),
        calib=line.get("calib"),
        workspace_bytes=pools.get("workspace", workspace),
        level=line.get("builderOptimizationLevel", 3),
        timing_cache=line.get("timingCacheFile"),
        keep_cache=not line.has("noBuilderCache"),
        verbosity={"default": "layer_names_only", "verbose": "detailed"}.get(verbosity, verbosity),
        input_formats=tuple(reader.read("inputIOFormats", values.io_formats, [])),
        output_formats=tuple(reader.read("outputIOFormats", values.io_formats, [])),
        save=line.get("saveEngine", engine if model.flag else None),
        load=line.get("loadEngine", None if model.flag else engine),
        skip_inference=line.has("skipInference"),
        version_only=line.has("getPlanVersionOnly"),
        monitor_memory=line.has("monitorMemory"),
    )


def _profiles(reader: _Reader) -> tuple[ProfileShapes, ...]:
    """The build shapes by profile. Shape flags before any --profile belong to profile 0."""
    found: dict[int, ProfileShapes] = {}
    current = 0
    for g in reader.line.given:
        if g.flag.name == "profile":
            current = g.value
            if current in found:
                reader.problems.append(f"--profile={current} is given twice, or follows shapes that belong to it")
            found.setdefault(current, ProfileShapes())
        elif g.flag.name in ("minShapes", "optShapes", "maxShapes"):
            part: Shapes = getattr(found.setdefault(current, ProfileShapes()), g.flag.name[:3])
            reader.add(g.name, part, reader.of(g.name, g.value, values.named_shapes, {}))
    if sorted(found) != list(range(len(found))):
        reader.problems.append(f"profiles are counted from 0 without gaps, not {', '.join(map(str, sorted(found)))}")
    profiles = tuple(found[number] for number in sorted(found))
    for profile in profiles:
        if not profile.has_wildcards:
            reader.problems += profile.complete()
    return profiles


def _inference(reader: _Reader) -> InferenceOptions:
    line = reader.line
    duration = line.get("duration", 0.0 if _is_classic(line) else 3.0)
    groups = line.get("avgRuns", 10) if _is_classic(line) and not line.has("duration") else 1
    return InferenceOptions(
        shapes=reader.merged("shapes", values.named_shapes),
        load_inputs=reader.merged("loadInputs", values.named),
        iterations=line.get("iterations", 10) * groups,
        duration_s=None if duration == -1 else duration,
        warm_up_ms=line.get("warmUp", 200.0),
        sleep_ms=line.get("sleepTime", 0.0),
        idle_ms=line.get("idleTime", 0.0),
        streams=line.get("infStreams", 1),
        transfers=not line.has("noDataTransfers"),
        profile=line.get("useProfile", 0),
        time_deserialize=line.has("timeDeserialize"),
        threads=line.has("threads"),
    )


def _report(reader: _Reader) -> ReportOptions:
    line = reader.line
    given: list[float] = []
    for text in line.all("percentile"):
        given += reader.of("percentile", text, values.percentiles, [])
    return ReportOptions(
        verbose=line.has("verbose"),
        avg_runs=line.get("avgRuns", 10),
        percentiles=tuple(dict.fromkeys(given)) or (90.0, 95.0, 99.0),
        host_time=line.has("hostTime"),
        dump_output=line.has("dumpOutput"),
        dump_raw=line.has("dumpRawBindingsToFile"),
        dump_profile=line.has("dumpProfile"),
        dump_layers=line.has("dumpLayerInfo"),
        dump_optimization_profile=line.has("dumpOptimizationProfile"),
        export_times=line.get("exportTimes"),
        export_output=line.get("exportOutput"),
        export_profile=line.get("exportProfile"),
        export_layers=line.get("exportLayerInfo"),
    )


def _idle(line: CommandLine, builds: bool) -> tuple[tuple[str, str], ...]:
    """The flags without meaning, each with the reason: here, or as a plan is loaded and nothing is built."""
    found = {g.name: g.flag.help for g in line.given if g.flag.effect is Effect.IDLE}
    if not builds:
        found |= {g.name: "the engine is loaded, not built" for g in line.given if g.flag.name in _BUILDS}
    return tuple(found.items())
