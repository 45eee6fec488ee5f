# SPDX-License-Identifier: Apache-2.0
"""Command lines that cannot be met: requests beyond this target, and flags that contradict each other."""

from __future__ import annotations

from typing import Final

from tensorwright.cli.twexec import values
from tensorwright.cli.twexec.flags import Effect
from tensorwright.cli.twexec.options import Options
from tensorwright.cli.twexec.parse import CommandLine
from tensorwright.errors import TensorwrightError

_TWICE: Final = "--engine is both --saveEngine and --loadEngine: give it alone"
_WEIGHTS: Final = "--model gives the weights of --deploy or --darknet: other models hold their weights"
_TRANSFERS: Final = "--noDataTransfers and --includeDataTransfers exclude each other"
_NO_PROFILE: Final = "--useProfile names a profile that is not built"
_BATCH_OR_SHAPES: Final = "--batch and --maxBatch exclude minShapes, optShapes and maxShapes: give one or the other"


def refuse(line: CommandLine) -> None:
    """Raise TensorwrightError T122 with all flags whose request cannot be met here, if there are any."""
    problems = [f"--{g.name}: {g.flag.help}" for g in line.given if g.flag.effect is Effect.REFUSED]
    problems += [text for met, text in _unmet(line) if not met]
    if problems:
        raise TensorwrightError(
            "flags ask for what this target cannot do",
            why=list(dict.fromkeys(problems)),
            do="leave them out: without them the result would be another than they ask for, so they are not ignored",
            code="T122",
        )


def _unmet(line: CommandLine) -> list[tuple[bool, str]]:
    """Values that cannot be met, of flags that can: (whether it is met, what to say)."""
    obey = line.get("precisionConstraints") == "obey"
    named = [(f, t) for f in ("layerPrecisions", "layerOutputTypes") for t in line.all(f)]
    rules = [
        (line.get("device", 0) == 0, "--device: there is one device, 0, the CPU of this machine"),
        (line.get("sparsity") != "force", "--sparsity=force: it would overwrite weights"),
        (line.get("runtimePlatform") != "WindowsAMD64", "--runtimePlatform: engines run on Linux only"),
        (
            not line.has("useDLACore") or line.has("allowGPUFallback"),
            "--useDLACore: there is no DLA here; with --allowGPUFallback all runs on this target",
        ),
    ]
    rules += [
        ("DLA" not in text.upper(), "--layerDeviceTypes: there is no DLA here") for text in line.all("layerDeviceTypes")
    ]
    for flag, text in named:
        try:
            other = values.not_fp32(text)
        except ValueError as error:
            rules.append((False, f"--{flag}: {error}"))
            continue
        rules.append(
            (not (obey and other), f"--{flag}: this version computes in fp32 only, not as {', '.join(other)} must")
        )
    return rules


def contradictions(line: CommandLine, options: Options) -> list[str]:
    """What is wrong with flags together."""
    model, build, inference = options.model, options.build, options.inference
    caffe_only = [f"--{flag}" for flag in ("batch", "maxBatch") if line.has(flag) and model.flag not in ("", "deploy")]
    no_weights = model.flag not in ("deploy", "darknet") and not build.load
    rules: list[tuple[object, str]] = [
        (model.flag or build.load, "there is no model: give --onnx, --deploy, --tf, --darknet, or --loadEngine"),
        (not (line.has("engine") and (line.has("saveEngine") or line.has("loadEngine"))), _TWICE),
        (not (line.has("model") and no_weights), _WEIGHTS),
        (not caffe_only, f"{' and '.join(caffe_only)}: for --deploy only; give --shapes for other models"),
        (not (model.max_batch and model.max_batch < (model.batch or 1)), "--maxBatch is less than --batch"),
        (not (line.has("noDataTransfers") and line.has("includeDataTransfers")), _TRANSFERS),
        (not inference.time_deserialize or build.load, "--timeDeserialize needs --loadEngine"),
        (not build.version_only or build.load, "--getPlanVersionOnly needs --loadEngine"),
        (not line.has("useRuntime") or build.load, "--useRuntime needs --loadEngine"),
        (build.keep_cache or build.timing_cache is None, "--noBuilderCache and --timingCacheFile exclude each other"),
        (build.load or inference.profile < max(len(build.profiles), 1), _NO_PROFILE),
        (not (line.has("workspace") and line.has("memPoolSize")), "--workspace and --memPoolSize: give one of them"),
        (build.load or not options.build.profiles or not (line.has("batch") or model.max_batch), _BATCH_OR_SHAPES),
    ]
    return [text for met, text in rules if not met]
