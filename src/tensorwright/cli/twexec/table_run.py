# SPDX-License-Identifier: Apache-2.0
"""The flags that say how the engine is run and what is reported, one row each; and the table of all flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tensorwright.cli.twexec.flags import (
    FILE,
    SPEC,
    SWITCH,
    Flag,
    acts,
    by_name,
    idle,
    number,
    one_of,
    refused,
    text,
    whole,
)
from tensorwright.cli.twexec.table_build import DLA, EFFORT, ENGINE, MODEL, PRECISION, SHAPES

_COMPARE = "use `tensorwright compare`, which compares with other runtimes and with stored outputs"
_DEBUG = "name the tensors in --output and use --exportOutput, or use `tensorwright compare`"
_PLUGINS = "libraries of CUDA plugins cannot run here: write the layer with tw.Network, or in NumPy between two engines"
_WAITS = "threads always wait actively for a bounded time, TENSORWRIGHT_SPIN_US"
_ONE_CALL = "an inference is one native call anyway: there are no launches to record"

INFERENCE: Final = (
    acts(
        "shapes",
        text("<name:shape,...>"),
        "all",
        "shapes of the inputs to run; without build shapes the engine is built for them. Names may have one *, "
        "and single quotes around them",
        repeats=True,
    ),
    acts(
        "loadInputs",
        text("<name:file,...>"),
        "7.0+",
        "values of inputs, raw little-endian, exactly as many bytes as the input has",
        default="random",
        repeats=True,
    ),
    acts(
        "iterations",
        whole(1),
        "all",
        "least number of queries; with --deploy and without --duration, of groups of --avgRuns queries",
        default="10",
    ),
    acts(
        "duration",
        number(0, "s", also=-1),
        "6.0+",
        "least time to measure; 0: as --iterations says; -1: until Ctrl-C",
        default="3, with --deploy 0",
    ),
    acts("warmUp", number(0, "ms"), "6.0+", "queries that start earlier are not counted", default="200"),
    acts("sleepTime", number(0, "ms"), "7.0+", "pause before the computation of every query", default="0"),
    acts("idleTime", number(0, "ms"), "8.2+", "pause after every query", default="0"),
    acts(
        "infStreams",
        whole(1, 1024),
        "all",
        "contexts that run at once, each on a thread of its own",
        aliases=("streams",),
        default="1",
    ),
    acts("noDataTransfers", SWITCH, "8.0+", "do not copy inputs in and outputs out for every query"),
    acts("includeDataTransfers", SWITCH, "11.0+", "copy them, as is the default here"),
    acts("useProfile", whole(0), "9+", "optimization profile to run", default="0"),
    acts("timeDeserialize", SWITCH, "8.0+", "time only how long loading the plan of --loadEngine takes"),
    acts(
        "separateProfileRun",
        SWITCH,
        "8.0+",
        "profile layers in a second run, as is always done here: its clock calls are not in the reported latency",
    ),
    acts("hostTime", SWITCH, "classic", "the averages of classic mode are host times, with the copies"),
    acts("threads", SWITCH, "all", "one host thread for each stream, as is always so here"),
    idle("exposeDMA", SWITCH, "7.0+", "copies and computation of a stream never overlap"),
    idle("useManagedMemory", SWITCH, "8.2+", "the CPU has one memory; --noDataTransfers leaves the copies out"),
    idle("useSpinWait", SWITCH, "all", _WAITS),
    idle("noSpinWait", SWITCH, "11.0+", _WAITS),
    idle("useCudaGraph", SWITCH, "7.0+", _ONE_CALL),
    idle("noCudaGraph", SWITCH, "11.0+", _ONE_CALL),
    idle("persistentCacheRatio", number(0, "0..1"), "8.5+", "caches of a CPU cannot be set apart"),
    idle(
        "allocationStrategy",
        one_of("static", "profile", "runtime"),
        "10.0+",
        "pages of a context take memory once touched",
    ),
    idle("weightStreamingBudget", SPEC, "10.0+", "weights stay mapped from the plan"),
    refused("timeRefit", SWITCH, "8.0+", "engines of this version cannot be refitted"),
    refused("saveDebugTensors", SPEC, "10.0+", _DEBUG),
    refused("saveAllDebugTensors", SPEC, "10.16+", _DEBUG),
    refused("loadRefOutputs", SPEC, "11.1", _COMPARE),
    refused("refPair", SPEC, "11.1", _COMPARE),
    refused("accuracyAlgorithm", SPEC, "11.1", _COMPARE),
    refused("atol", SPEC, "11.1", _COMPARE),
    refused("rtol", SPEC, "11.1", _COMPARE),
    refused("accuracyThreshold", SPEC, "11.1", _COMPARE),
)

SYSTEM: Final = (
    acts("target", text("cpu|cpu:avx2|cpu:avx512|reference"), "twexec", "what to build for and run on", default="cpu"),
    acts("device", whole(0), "all", "only 0, this machine's CPU, exists", default="0"),
    refused("staticPlugins", FILE, "all", _PLUGINS, aliases=("plugins",)),
    refused("dynamicPlugins", FILE, "8.6+", _PLUGINS),
    refused("setPluginsToSerialize", FILE, "8.6+", _PLUGINS),
    idle("ignoreParsedPluginLibs", SWITCH, "8.6+", "no libraries are loaded from models"),
    acts("verbose", SWITCH, "all", "more lines: the builder's log, and what the figures mean"),
    acts("help", SWITCH, "all", "print this text"),
)

REPORTING: Final = (
    acts("avgRuns", whole(1), "all", "queries that one line of averages is about", default="10"),
    acts(
        "percentile",
        text("<P1,P2,...>"),
        "all",
        "percentiles of the summary, 0 to 100",
        default="90,95,99",
        repeats=True,
    ),
    acts("dumpOutput", SWITCH, "all", "print the outputs of the last query"),
    acts("exportOutput", FILE, "7.0+", "write the outputs of the last query as JSON"),
    acts("dumpRawBindingsToFile", SWITCH, "8.6+", "write every input and output to a raw file in the current folder"),
    acts("dumpProfile", SWITCH, "all", "print the time of every layer", aliases=("dumpLayerTime",)),
    acts("exportProfile", FILE, "all", "write the time of every layer as JSON"),
    acts("dumpLayerInfo", SWITCH, "8.2+", "print the layers of the engine"),
    acts("exportLayerInfo", FILE, "8.2+", "write the layers of the engine as JSON"),
    acts("dumpOptimizationProfile", SWITCH, "9+", "print min, opt and max of every input and profile"),
    acts("exportTimes", FILE, "all", "write the times of every query as JSON"),
    idle("dumpRefit", SWITCH, "8.0+", "engines of this version cannot be refitted, so the list is empty"),
)

GROUPS: Final[Mapping[str, tuple[Flag, ...]]] = {
    "Model": MODEL,
    "Shapes and formats": SHAPES,
    "Precision": PRECISION,
    "Build": EFFORT,
    "Engine files": ENGINE,
    "Inference": INFERENCE,
    "System": SYSTEM,
    "Reporting": REPORTING,
    "DLA and safety": DLA,
}
"""All flags, in the order of the help text."""

FLAGS: Final = by_name(GROUPS)
"""All flags by each of their names."""
