# SPDX-License-Identifier: Apache-2.0
"""The flags that say what engine is wanted: one row each."""

from __future__ import annotations

from typing import Final

from tensorwright.cli.twexec.flags import FILE, SPEC, SWITCH, acts, idle, number, one_of, refused, text, whole

_FP32 = "this version builds fp32 only, which the flag allows too; a line says that nothing lower is used"
_NO_DLA = "there is no DLA here"
_NO_REFIT = "engines of this version cannot be refitted: build again from the changed model"
_NO_ROUTES = "there are no build routes here: --builderOptimizationLevel=5 tries all kernels"
_NO_SAFETY = "there is no safety runtime here"
_NAMES, _SIZE, _SHAPES = text("<names>"), whole(0), text("<name:shape,...>")

MODEL: Final = (
    acts("onnx", FILE, "all", "ONNX model to build"),
    acts("deploy", FILE, "classic to 8.6", "Caffe prototxt to build"),
    acts(
        "model", FILE, "classic to 8.6", "weights of --deploy (.caffemodel) or --darknet (.weights); random without it"
    ),
    acts("tf", text("<file or folder>"), "twexec", "TensorFlow frozen graph (.pb) or SavedModel folder to build"),
    acts("darknet", FILE, "twexec", "Darknet .cfg to build"),
    acts(
        "output",
        text("<name,...>"),
        "classic to 8.6",
        "tensors to compute, by name; without it those that the model declares, or that nothing reads",
        repeats=True,
    ),
    acts(
        "batch",
        whole(1),
        "classic to 8.6",
        "with --deploy: first dim of every input, and samples of a query",
        default="1",
    ),
    acts("maxBatch", whole(1), "to 8.6", "with --deploy: build for 1 to N samples, tuned for --batch"),
    refused("uff", FILE, "5.0 to 8.6", "UFF files were made from frozen graphs: give the frozen graph with --tf"),
    refused(
        "uffInput", SPEC, "5.0 to 8.6", "it belongs to --uff: give the frozen graph with --tf, which has its inputs"
    ),
    refused("uffNHWC", SWITCH, "5.0 to 8.6", "it belongs to --uff: --tf reads the layout from the graph"),
    idle("input", text("<name>"), "5.1", "inputs are those of the model, as they were there"),
    idle("explicitBatch", SWITCH, "7.0 to 9", "networks always have explicit batches"),
    idle("explicitPrecision", SWITCH, "7.0 to 9", "quantisation is always read from the model"),
)

SHAPES: Final = (
    acts("minShapes", _SHAPES, "all", "smallest shapes of the optimization profile", repeats=True),
    acts("optShapes", _SHAPES, "all", "shapes to tune for; alone it is min and max as well", repeats=True),
    acts("maxShapes", _SHAPES, "all", "largest shapes of the optimization profile", repeats=True),
    acts(
        "profile",
        _SIZE,
        "9+",
        "begin optimization profile N, counted from 0: the shape flags after it belong to it",
        repeats=True,
    ),
    idle("minShapesCalib", _SHAPES, "7.0 to 10", "nothing is calibrated"),
    idle("optShapesCalib", _SHAPES, "7.0 to 10", "nothing is calibrated"),
    idle("maxShapesCalib", _SHAPES, "7.0 to 10", "nothing is calibrated"),
    idle("calibProfile", _SIZE, "9 to 10", "nothing is calibrated"),
    acts(
        "inputIOFormats",
        SPEC,
        "all",
        "type:format of the inputs, for all or in their order; only chw and the type they have can be met",
    ),
    acts("outputIOFormats", SPEC, "all", "the same for the outputs"),
    idle("directIO", SWITCH, "8.2+", "inputs and outputs are plain row-major arrays"),
)

PRECISION: Final = (
    acts("fp16", SWITCH, "to 10", f"allow fp16: {_FP32}"),
    acts("bf16", SWITCH, "9 to 10", f"allow bf16: {_FP32}"),
    acts("fp8", SWITCH, "8.6 to 10", f"allow fp8: {_FP32}"),
    acts("int8", SWITCH, "classic to 10", f"allow int8: {_FP32}"),
    acts("int4", SWITCH, "10.3 to 10", f"allow int4: {_FP32}"),
    acts("best", SWITCH, "7.0 to 10", f"allow all precisions: {_FP32}"),
    acts("half2", SWITCH, "classic", f"allow paired fp16: {_FP32}"),
    acts(
        "calib", FILE, "classic to 10", "calibration cache: it must exist; nothing is calibrated in fp32, says a line"
    ),
    acts("stronglyTyped", SWITCH, "9+", "compute in the types of the network, as this version always does"),
    idle("noTF32", SWITCH, "7.0+", "fp32 is always computed in full fp32"),
    acts(
        "precisionConstraints",
        one_of("none", "prefer", "obey"),
        "8.2 to 10",
        "with obey, --layerPrecisions and --layerOutputTypes other than fp32 are refused",
        default="none",
    ),
    acts("layerPrecisions", SPEC, "8.5 to 10", "layer:precision, where only fp32 can be met", repeats=True),
    acts("layerOutputTypes", SPEC, "8.5 to 10", "layer:type, where only fp32 can be met", repeats=True),
    acts("layerDeviceTypes", SPEC, "8.6+", "layer:device; DLA is refused, GPU means this target", repeats=True),
    acts(
        "sparsity",
        one_of("disable", "enable", "force"),
        "8.0+",
        "force, which overwrites weights, is refused; enable finds no sparse kernels",
        default="disable",
    ),
    idle("decomposableAttentions", _NAMES, "10.16+", "attentions are fused as the kernels allow"),
    idle("distributiveIndependence", SWITCH, "10.16+", "results never depend on other samples"),
)

EFFORT: Final = (
    acts("workspace", number(0, "MiB"), "classic to 9", "most workspace of a kernel", default="no bound"),
    acts(
        "memPoolSize",
        SPEC,
        "8.4+",
        "workspace:S bounds the workspace of a kernel, S in MiB or with suffix B, K, M, G; there are no other pools",
        repeats=True,
    ),
    acts(
        "builderOptimizationLevel",
        whole(0, 5),
        "8.6+",
        "0: first guess of every kernel; 1 to 3: time a few; 4 and 5: time all",
        default="3",
    ),
    acts("timingCacheFile", FILE, "8.0+", "file of measured kernel times, read and extended", default="the user's"),
    acts("noBuilderCache", SWITCH, "7.0+", "read and keep no measured kernel times"),
    refused("errorOnTimingCacheMiss", SWITCH, "9+", "what is not in the cache is measured"),
    acts(
        "profilingVerbosity",
        one_of("layer_names_only", "detailed", "none", "default", "verbose"),
        "8.2+",
        "how much --dumpLayerInfo and --exportLayerInfo tell",
        aliases=("nvtxMode",),
        default="layer_names_only",
    ),
    acts("monitorMemory", SWITCH, "10.6+", "print the memory that the process took at most"),
    idle("minTiming", _SIZE, "to 9", "kernels are timed until the figures are steady"),
    idle("avgTiming", _SIZE, "all", "kernels are timed until the figures are steady"),
    idle("maxTactics", whole(-1), "10.4+", "--builderOptimizationLevel says how many kernels are timed"),
    idle("maxAuxStreams", whole(-1), "8.6+", "the steps of an inference share one pool of threads"),
    idle("heuristic", SWITCH, "8.5 to 9", "--builderOptimizationLevel=0 chooses without timing"),
    idle("tacticSources", SPEC, "8.0+", "all kernels are generated; there are no libraries to choose from"),
    idle("preview", SPEC, "8.5+", "there are no preview features"),
    idle("tilingOptimizationLevel", whole(0, 3), "10.8+", "tiles are part of every kernel's tuning"),
    idle("l2LimitForTiling", whole(-1), "10.8+", "tiles are part of every kernel's tuning"),
    idle("noCompilationCache", SWITCH, "9+", "compiled code is not kept outside of plans"),
    acts(
        "hardwareCompatibilityLevel",
        text("none|ampere+|sameComputeCapability"),
        "8.6+",
        "any level: a plan holds a portable part, from which other machines make their code",
        default="none",
    ),
    acts("runtimePlatform", one_of("SameAsBuild", "WindowsAMD64"), "10.2+", "only SameAsBuild", default="SameAsBuild"),
    idle("versionCompatible", SWITCH, "8.6+", "plans of all released versions can be read", aliases=("vc",)),
    idle("excludeLeanRuntime", SWITCH, "8.6+", "plans hold no runtime"),
    idle("allowWeightStreaming", SWITCH, "10.0+", "weights stay mapped from the plan"),
    refused("refit", SWITCH, "8.0+", _NO_REFIT),
    refused("stripWeights", SWITCH, "10.0+", "plans always hold their weights"),
    refused("stripAllWeights", SWITCH, "10.2+", "plans always hold their weights"),
    refused("weightless", SWITCH, "9 to 10", "plans always hold their weights"),
    refused("markDebug", _NAMES, "10.0+", "name the tensors in --output, or use `tensorwright compare`"),
    refused(
        "markUnfusedTensorsAsDebugTensors", SWITCH, "10.16+", "use `tensorwright compare`, which looks at all tensors"
    ),
    idle("pluginInstanceNorm", SWITCH, "10.0+", "InstanceNormalization is always native", aliases=("pi",)),
    idle("nativeInstanceNorm", SWITCH, "9", "InstanceNormalization is always native", aliases=("ni",)),
    idle("enablePluginOverride", SWITCH, "10.15+", "there are no plugins to prefer"),
    idle("tempdir", text("<folder>"), "8.6+", "a run writes no temporary files"),
    idle("tempfileControls", SPEC, "8.6+", "a run writes no temporary files"),
    refused("setBuildRoute", SPEC, "11.1", _NO_ROUTES),
    refused("tuneBuildRoutes", SPEC, "11.1", _NO_ROUTES),
    refused("tuneBuildRouteFile", FILE, "11.1", _NO_ROUTES),
    refused("tuningSearch", text("fast|full|mixed"), "11.1", _NO_ROUTES),
    refused("tuningCacheFile", FILE, "11.1", _NO_ROUTES),
    refused("tuningTimeOut", text("<seconds>"), "11.1", _NO_ROUTES),
    refused("saveAllEngines", SWITCH, "11.1", _NO_ROUTES),
    refused("dryRun", SWITCH, "11.1", _NO_ROUTES),
    refused("continue", SWITCH, "11.1", _NO_ROUTES),
    refused("helpBuildRoute", text("<knob>", optional=True), "11.1", _NO_ROUTES),
)

ENGINE: Final = (
    acts("saveEngine", FILE, "5.1+", "write the plan"),
    acts("loadEngine", FILE, "5.1+", "run this plan; flags about a model have no meaning then"),
    acts("engine", FILE, "classic", "as --saveEngine with a model, as --loadEngine without one"),
    acts("skipInference", SWITCH, "all", "stop when the engine is built and saved", aliases=("buildOnly",)),
    acts("getPlanVersionOnly", SWITCH, "9+", "print which version wrote the plan of --loadEngine, and stop"),
    idle("asyncFileReader", SWITCH, "10.16+", "plans are mapped, not read"),
    acts(
        "useRuntime",
        one_of("full", "lean", "dispatch"),
        "8.6+",
        "with --loadEngine; there is one runtime, which is all of these",
        default="full",
    ),
    idle("leanDLLPath", FILE, "8.6+", "there is one runtime"),
    refused("refitFromOnnx", FILE, "10.16+", _NO_REFIT),
)

DLA: Final = (
    acts("useDLACore", _SIZE, "all", f"{_NO_DLA}: refused, unless --allowGPUFallback lets all run on this target"),
    acts("allowGPUFallback", SWITCH, "all", "lets what --useDLACore asked for run on this target"),
    refused("buildDLAStandalone", SWITCH, "8.6+", _NO_DLA),
    refused("reportCapabilityDLA", SWITCH, "10.16+", f"{_NO_DLA}; `tensorwright check` reports for this target"),
    idle("uint8AsymmetricQuantizationDLA", SWITCH, "10.15+", _NO_DLA),
    idle("adjustForDLA", SWITCH, "10.16+", _NO_DLA),
    refused("safe", SWITCH, "all", _NO_SAFETY),
    refused("consistency", SWITCH, "8.2+", _NO_SAFETY),
    refused("restricted", SWITCH, "8.2 to 10", _NO_SAFETY),
    refused("serialized", SWITCH, "8.2+", _NO_SAFETY),
    refused("std", SWITCH, "10.16+", _NO_SAFETY),
    refused("dumpKernelText", SWITCH, "10.16+", _NO_SAFETY),
    refused("safetyPlugins", FILE, "10.16+", _NO_SAFETY),
    refused("remoteAutoTuningConfig", text("<address>"), "10.16+", "engines are tuned on the machine that builds them"),
    refused("cpuOnly", SWITCH, "10.16+", "it belongs to --remoteAutoTuningConfig; the build needs no GPU anyway"),
)
