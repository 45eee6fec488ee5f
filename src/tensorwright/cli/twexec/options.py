# SPDX-License-Identifier: Apache-2.0
"""What a command line asks for, typed and free of contradictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tensorwright.cli.twexec.values import Shape

Shapes = dict[str, Shape]

FORMATS: Final = {"onnx": "ONNX", "deploy": "Caffe", "tf": "TensorFlow", "darknet": "Darknet"}
LOWER: Final = ("fp16", "bf16", "fp8", "int8", "int4", "half2", "best")


@dataclass(slots=True)
class ProfileShapes:
    """The build shapes of one optimization profile."""

    min: Shapes = field(default_factory=dict)
    opt: Shapes = field(default_factory=dict)
    max: Shapes = field(default_factory=dict)

    @property
    def has_wildcards(self) -> bool:
        """Whether names are given that stand for others."""
        return any("*" in name for part in (self.min, self.opt, self.max) for name in part)

    def complete(self) -> list[str]:
        """Let opt alone be min and max as well, and tell which inputs have two of the three, or min or max alone."""
        problems = []
        for name in dict.fromkeys([*self.min, *self.opt, *self.max]):
            missing = [side for side in ("min", "opt", "max") if name not in getattr(self, side)]
            if missing == ["min", "max"]:
                self.min[name] = self.max[name] = self.opt[name]
            elif missing:
                problems.append(f"input {name!r} has no {' and no '.join(f'--{side}Shapes' for side in missing)}")
        return problems


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The network. `flag` is the one that named it, "" with a plan; `batch` and `max_batch` are None if not given."""

    flag: str
    path: str
    weights: str | None
    outputs: tuple[str, ...]
    batch: int | None
    max_batch: int | None

    @property
    def format(self) -> str:
        """The name of the format."""
        return FORMATS.get(self.flag, "")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the engine is made or read. `lower` are the flags that allow less than fp32."""

    profiles: tuple[ProfileShapes, ...]
    lower: tuple[str, ...]
    calib: str | None
    workspace_bytes: int | None
    level: int
    timing_cache: str | None
    keep_cache: bool
    verbosity: str
    input_formats: tuple[str | None, ...]
    output_formats: tuple[str | None, ...]
    save: str | None
    load: str | None
    skip_inference: bool
    version_only: bool
    monitor_memory: bool

    @property
    def tune(self) -> str:
        """The level as `tw.build` has it."""
        return "off" if self.level == 0 else "quick" if self.level <= 3 else "full"


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How the engine is run. `duration_s` None is without end; times are in ms but for that."""

    shapes: Shapes
    load_inputs: Mapping[str, str]
    iterations: int
    duration_s: float | None
    warm_up_ms: float
    sleep_ms: float
    idle_ms: float
    streams: int
    transfers: bool
    profile: int
    time_deserialize: bool
    threads: bool


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is printed and written. The `export_...` are paths."""

    verbose: bool
    avg_runs: int
    percentiles: tuple[float, ...]
    host_time: bool
    dump_output: bool
    dump_raw: bool
    dump_profile: bool
    dump_layers: bool
    dump_optimization_profile: bool
    export_times: str | None
    export_output: str | None
    export_profile: str | None
    export_layers: str | None

    @property
    def wants_profile(self) -> bool:
        """Whether layers have to be timed."""
        return self.dump_profile or self.export_profile is not None

    @property
    def wants_layers(self) -> bool:
        """Whether layers have to be known."""
        return self.wants_profile or self.dump_layers or self.export_layers is not None


@dataclass(frozen=True, slots=True)
class Options:
    """All of it. `classic`: in the manner of giexec. `idle` are the flags without meaning here, with the reason."""

    model: ModelOptions
    build: BuildOptions
    inference: InferenceOptions
    report: ReportOptions
    target: str
    classic: bool
    idle: tuple[tuple[str, str], ...]
