# SPDX-License-Identifier: Apache-2.0
"""The table of flags: every flag of trtexec and giexec is in it, and help and documentation follow from it."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest

from tensorwright.cli.twexec.echo import help_text
from tensorwright.cli.twexec.flags import Effect, Flag
from tensorwright.cli.twexec.main import main
from tensorwright.cli.twexec.table_run import FLAGS, GROUPS
from tests.cli.twexec.running import ROOT, failed, twexec

# By the section of trtexec's own help, over all its versions, and giexec's.
MODEL = "onnx deploy model output uff uffInput uffNHWC"
SHAPES = """minShapes optShapes maxShapes profile minShapesCalib optShapesCalib maxShapesCalib calibProfile
    maxBatch batch explicitBatch explicitPrecision inputIOFormats outputIOFormats"""
PRECISION = """fp16 int8 bf16 fp8 int4 best noTF32 stronglyTyped calib precisionConstraints layerPrecisions
    layerOutputTypes layerDeviceTypes sparsity decomposableAttentions distributiveIndependence directIO"""
EFFORT = """workspace memPoolSize minTiming avgTiming builderOptimizationLevel maxTactics maxAuxStreams
    heuristic tacticSources preview tilingOptimizationLevel l2LimitForTiling timingCacheFile
    noBuilderCache noCompilationCache errorOnTimingCacheMiss profilingVerbosity nvtxMode
    hardwareCompatibilityLevel runtimePlatform versionCompatible vc excludeLeanRuntime
    allowWeightStreaming refit stripWeights stripAllWeights weightless monitorMemory setBuildRoute
    markDebug markUnfusedTensorsAsDebugTensors pluginInstanceNorm pi nativeInstanceNorm ni
    enablePluginOverride uint8AsymmetricQuantizationDLA reportCapabilityDLA adjustForDLA tempdir
    tempfileControls"""
ENGINE = """saveEngine loadEngine skipInference buildOnly asyncFileReader getPlanVersionOnly useRuntime
    leanDLLPath refitFromOnnx useDLACore allowGPUFallback buildDLAStandalone safe consistency restricted
    serialized std dumpKernelText remoteAutoTuningConfig cpuOnly safetyPlugins"""
INFERENCE = """shapes loadInputs iterations duration warmUp sleepTime idleTime infStreams streams exposeDMA
    noDataTransfers includeDataTransfers useManagedMemory useSpinWait noSpinWait useCudaGraph
    noCudaGraph threads timeDeserialize timeRefit separateProfileRun persistentCacheRatio useProfile
    allocationStrategy weightStreamingBudget saveDebugTensors saveAllDebugTensors loadRefOutputs refPair
    accuracyAlgorithm atol rtol accuracyThreshold"""
TUNING = """tuneBuildRoutes tuneBuildRouteFile tuningSearch tuningCacheFile tuningTimeOut saveAllEngines dryRun
    continue helpBuildRoute"""
SYSTEM = "device plugins staticPlugins dynamicPlugins setPluginsToSerialize ignoreParsedPluginLibs verbose help"
REPORTING = """avgRuns percentile dumpRefit dumpOutput dumpRawBindingsToFile dumpProfile exportProfile
    dumpLayerInfo exportLayerInfo dumpOptimizationProfile exportTimes exportOutput"""
CLASSIC = "deploy output model batch device iterations avgRuns workspace half2 int8 verbose hostTime engine calib input"

ACTING = """onnx saveEngine loadEngine shapes minShapes optShapes maxShapes fp16 int8 best warmUp duration
    iterations avgRuns percentile dumpProfile exportProfile exportTimes exportLayerInfo dumpLayerInfo
    timingCacheFile loadInputs dumpOutput exportOutput noDataTransfers streams infStreams threads
    verbose skipInference memPoolSize deploy model output batch device workspace half2 hostTime engine
    calib"""


@pytest.mark.parametrize(
    "names",
    [MODEL, SHAPES, PRECISION, EFFORT, ENGINE, INFERENCE, TUNING, SYSTEM, REPORTING, CLASSIC],
    ids="model shapes precision effort engine inference tuning system reporting classic".split(),
)
def test_every_flag_of_the_original_is_known(names: str) -> None:
    assert not [name for name in names.split() if name not in FLAGS]


def test_most_used_flags_act() -> None:
    assert {name: FLAGS[name].effect for name in ACTING.split()} == dict.fromkeys(ACTING.split(), Effect.ACTS)


def test_names_are_unique() -> None:
    names = [name for flags in GROUPS.values() for flag in flags for name in (flag.name, *flag.aliases)]
    assert len(names) == len(set(names)) == len(FLAGS)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--onnx=x", "--help"]], ids=str)
def test_help_names_every_flag(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text == help_text() and max(map(len, text.splitlines())) <= 120
    assert not [name for name in FLAGS if not re.search(rf"--{name}(?![A-Za-z0-9])", text)]


@pytest.mark.parametrize("flag", [f for f in FLAGS.values() if f.effect is Effect.REFUSED], ids=lambda f: f.name)
def test_refused_flag_says_why(flag: Flag) -> None:
    words = [f"--{flag.name}"] if flag.kind.is_switch else [f"--{flag.name}=x"]
    error = failed("--onnx=no.onnx", *words)
    assert error.startswith("T122 ") and f"--{flag.name}: {flag.help}" in error


# -- documentation ----------------------------------------------------------------------------------
PAGE = ROOT / "docs" / "how-to" / "twexec.md"


def test_page_has_a_row_for_every_flag() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`--{flag.name}" in text for flag in FLAGS.values())


@pytest.mark.slow
def test_commands_of_the_pages_run_in_order(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for line in "".join(blocks).splitlines() if line.startswith("twexec ")]
    assert len(lines) >= 4
    for line in lines:
        twexec(*shlex.split(line.split("  #")[0])[1:])
