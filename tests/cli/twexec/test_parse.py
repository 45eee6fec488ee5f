# SPDX-License-Identifier: Apache-2.0
"""Words to flags, flags to options: both spellings, values with a form of their own, mistakes, contradictions."""

from __future__ import annotations

import pytest

from tensorwright.cli.twexec import values
from tensorwright.cli.twexec.options import Options
from tensorwright.cli.twexec.parse import parse
from tensorwright.cli.twexec.read import read_options
from tensorwright.errors import TensorwrightError


def options(*words: str) -> Options:
    return read_options(parse(words))


def mistake(*words: str) -> str:
    with pytest.raises(TensorwrightError) as caught:
        options(*words)
    assert caught.value.code in ("T120", "T121", "T122")
    return str(caught.value)


# -- words ------------------------------------------------------------------------------------------
def test_value_after_equals_or_space_is_the_same() -> None:
    joined = options("--onnx=a.onnx", "--iterations=7", "--fp16", "--shapes=x:1x2", "--duration=-1")
    spaced = options("--onnx", "a.onnx", "--iterations", "7", "--fp16", "--shapes", "x:1x2", "--duration", "-1")
    assert joined == spaced
    assert joined.inference.iterations == 7 and joined.inference.duration_s is None
    assert joined.build.lower == ("fp16",) and joined.inference.shapes == {"x": (1, 2)}


def test_alias_is_its_flag() -> None:
    assert options("--onnx=a", "--streams=3").inference.streams == 3
    assert options("--onnx=a", "--buildOnly").build.skip_inference
    assert options("--onnx=a", "--nvtxMode=verbose").build.verbosity == "detailed"
    assert options("--onnx=a", "--dumpLayerTime").report.dump_profile


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--duratio=3"], "there is no flag --duratio; did you mean --duration?"),
        (["--saveengine=x"], "there is no flag --saveengine; did you mean --saveEngine?"),
        (["-onnx=x"], "there is no flag -onnx; did you mean --onnx?"),
        (["--qqqqq"], "there is no flag --qqqqq\n"),
        (["model.onnx"], "'model.onnx' belongs to no flag"),
        (["--batch=x"], "--batch: it takes a whole number of at least 1, not 'x'"),
        (["--batch", "x"], "--batch: it takes a whole number of at least 1, not 'x'"),
        (["--batch=0"], "--batch: it takes a whole number of at least 1, not '0'"),
        (["--iterations"], "--iterations: it needs a value, N"),
        (["--onnx", "--fp16"], "--onnx: it needs a value, <file>"),
        (["--onnx="], "--onnx: it takes a text, not nothing"),
        (["--fp16=1"], "--fp16: it takes no value"),
        (["--duration=-2"], "--duration: it takes a number from 0 to 1e+09, or -1, not '-2'"),
        (["--duration=nan"], "it takes a number"),
        (["--warmUp=1e300"], "it takes a number from 0 to 1e+09, not '1e300'"),
        (["--builderOptimizationLevel=6"], "it takes a whole number from 0 to 5, not '6'"),
        (["--profilingVerbosity=all"], "it takes one of layer_names_only, detailed, none"),
        (["--onnx=a", "--onnx=b"], "--onnx give two values, a and b"),
        (["--streams=1", "--infStreams=2"], "--streams and --infStreams give two values, 1 and 2"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistake_in_a_word_is_told(words: list[str], says: str) -> None:
    text = mistake(*words)
    assert text.startswith("T120 ") and says in text and "twexec --help" in text


def test_all_mistakes_are_told_at_once() -> None:
    text = mistake("--oonx=a", "--batch=x", "--fp16=2", "left")
    assert text.startswith("T120 the command line has 4 mistakes") and text.count("\n  why    ") == 4


def test_value_of_an_unknown_flag_is_not_a_mistake_of_its_own() -> None:
    assert mistake("--duratio", "3").count("\n  why    ") == 1


def test_same_value_twice_is_no_mistake() -> None:
    assert options("--onnx=a", "--onnx=a", "--fp16", "--fp16").model.path == "a"


# -- values -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("data:1x3x224x224", {"data": (1, 3, 224, 224)}),
        ("a:1,b:2x3", {"a": (1,), "b": (2, 3)}),
        ("s:scalar,t:", {"s": (), "t": ()}),
        ("'in:0':1x3,'a,b':2", {"in:0": (1, 3), "a,b": (2,)}),
        ("in:0:1x3", {"in:0": (1, 3)}),
        ("x*:0x3", {"x*": (0, 3)}),
    ],
)
def test_named_shapes_are_read(text: str, want: dict[str, tuple[int, ...]]) -> None:
    assert values.named_shapes(text) == want


@pytest.mark.parametrize(
    "text", ["1x3", "a:1x", "a:1x-1", "a:axb", ":1", "a:1,a:2", "'a:1", "", ",", "a:9999999999x9999999999", "a:²"]
)
def test_named_shapes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        values.named_shapes(text)


def test_wildcards_stand_for_all_names_that_fit() -> None:
    names = ["a_0", "a_1", "b[0]", "c"]
    assert values.matched({"a_*": 1, "c": 2}, names) == {"a_0": 1, "a_1": 1, "c": 2}
    assert values.matched({"b[*": 1}, names) == {"b[0]": 1}
    for given, says in (
        ({"a*": 1, "a_0": 2}, "named twice"),
        ({"*_*": 1}, "more than one"),
        ({"d*": 1}, "no input 'd\\*'"),
        ({"a_2": 1}, "did you mean 'a_[01]'"),
    ):
        with pytest.raises(ValueError, match=says):
            values.matched(given, names)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("workspace:512", 512 << 20),
        ("workspace:1.5G", 3 << 29),
        ("workspace:100B", 100),
        ("workspace:2k,dlaSRAM:1", 2048),
    ],
)
def test_memory_pools_are_read(text: str, want: int) -> None:
    assert options("--onnx=a", f"--memPoolSize={text}").build.workspace_bytes == want


@pytest.mark.parametrize("text", ["workspace", "workspace:x", "heap:3", "workspace:-1", "workspace:" + "9" * 400])
def test_memory_pools_that_are_none_are_refused(text: str) -> None:
    assert "--memPoolSize: " in mistake("--onnx=a", f"--memPoolSize={text}")


@pytest.mark.parametrize("text", ["101", "-1", "x", "", "90,nan"])
def test_percentiles_that_are_none_are_refused(text: str) -> None:
    assert "--percentile: " in mistake("--onnx=a", f"--percentile={text}")


def test_percentiles_may_be_repeated() -> None:
    assert options("--onnx=a", "--percentile=50,99.5", "--percentile=0").report.percentiles == (50, 99.5, 0)


@pytest.mark.parametrize("text", ["hwc", "fp32:hwc8", "fp99:chw", "fp32", ""])
def test_formats_that_cannot_be_met_are_refused(text: str) -> None:
    assert "--inputIOFormats: " in mistake("--onnx=a", f"--inputIOFormats={text}")


def test_formats_of_both_generations_are_read() -> None:
    found = options("--onnx=a", "--inputIOFormats=fp32:chw+hwc8,int64:chw", "--outputIOFormats=chw").build
    assert found.input_formats == ("f32", "i64") and found.output_formats == (None,)


# -- shapes and profiles ----------------------------------------------------------------------------
def test_opt_shapes_alone_are_min_and_max() -> None:
    (profile,) = options("--onnx=a", "--optShapes=x:2x3").build.profiles
    assert profile.min == profile.opt == profile.max == {"x": (2, 3)}


def test_shape_flags_belong_to_the_profile_before_them() -> None:
    found = options(
        *("--onnx=a", "--useProfile=1", "--profile=1", "--optShapes=x:4", "--minShapes=x:1", "--maxShapes=x:9"),
        *("--profile=0", "--optShapes=x:2,y:3"),
    )
    first, second = found.build.profiles
    assert first.opt == {"x": (2,), "y": (3,)} and (second.min, second.max) == ({"x": (1,)}, {"x": (9,)})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--minShapes=x:1", "--maxShapes=x:3"], "input 'x' has no --optShapes"),
        (["--minShapes=x:1"], "input 'x' has no --optShapes and no --maxShapes"),
        (["--optShapes=x:1", "--optShapes=x:2"], "'x' is named twice"),
        (["--profile=1", "--optShapes=x:1"], "profiles are counted from 0 without gaps, not 1"),
        (["--profile=0", "--optShapes=x:1", "--profile=0"], "--profile=0 is given twice"),
        (["--optShapes=x:1", "--useProfile=1"], "--useProfile names a profile that is not built"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_build_shapes_that_do_not_fit_are_refused(words: list[str], says: str) -> None:
    text = mistake("--onnx=a", *words)
    assert text.startswith("T121 ") and says in text


# -- contradictions ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fp16"], "there is no model"),
        (["--onnx=a", "--deploy=b"], "one model is built at a time, not those of --onnx and --deploy"),
        (["--onnx=a", "--model=b"], "--model gives the weights of --deploy or --darknet"),
        (["--model=b"], "--model gives the weights"),
        (["--onnx=a", "--batch=2"], "--batch: for --deploy only; give --shapes"),
        (["--deploy=a", "--batch=4", "--maxBatch=2"], "--maxBatch is less than --batch"),
        (["--deploy=a", "--batch=4", "--optShapes=data:2x3"], "--batch and --maxBatch exclude"),
        (["--onnx=a", "--engine=b", "--saveEngine=c"], "--engine is both"),
        (["--onnx=a", "--noDataTransfers", "--includeDataTransfers"], "exclude each other"),
        (["--onnx=a", "--timeDeserialize"], "--timeDeserialize needs --loadEngine"),
        (["--onnx=a", "--getPlanVersionOnly"], "--getPlanVersionOnly needs --loadEngine"),
        (["--onnx=a", "--useRuntime=lean"], "--useRuntime needs --loadEngine"),
        (["--onnx=a", "--noBuilderCache", "--timingCacheFile=b"], "exclude each other"),
        (["--onnx=a", "--workspace=1", "--memPoolSize=workspace:2"], "give one of them"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_flags_that_contradict_each_other_are_refused(words: list[str], says: str) -> None:
    text = mistake(*words)
    assert text.startswith("T121 ") and says in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device=1"], "there is one device, 0"),
        (["--sparsity=force"], "it would overwrite weights"),
        (["--useDLACore=0"], "there is no DLA here"),
        (["--runtimePlatform=WindowsAMD64"], "Linux only"),
        (["--layerDeviceTypes=conv:DLA"], "there is no DLA here"),
        (["--precisionConstraints=obey", "--layerPrecisions=conv1:fp16,fc:fp32"], "not as conv1 must"),
        (["--precisionConstraints=obey", "--layerOutputTypes=a:fp32+int8"], "not as a must"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_values_that_cannot_be_met_are_refused(words: list[str], says: str) -> None:
    text = mistake("--onnx=a", *words)
    assert text.startswith("T122 ") and says in text


@pytest.mark.parametrize(
    "words",
    [
        ["--device=0"],
        ["--sparsity=enable"],
        ["--useDLACore=0", "--allowGPUFallback"],
        ["--layerDeviceTypes=conv:GPU"],
        ["--layerPrecisions=conv1:fp16", "--precisionConstraints=prefer"],
        ["--layerPrecisions=conv1:fp32", "--precisionConstraints=obey"],
    ],
    ids=" ".join,
)
def test_values_that_can_be_met_are_accepted(words: list[str]) -> None:
    assert options("--onnx=a", *words).model.path == "a"


# -- classic ----------------------------------------------------------------------------------------
def test_classic_iterations_are_groups_unless_a_duration_is_given() -> None:
    assert options("--deploy=a").inference.iterations == 100 and options("--deploy=a").inference.duration_s == 0
    assert options("--deploy=a", "--iterations=3", "--avgRuns=4").inference.iterations == 12
    timed = options("--deploy=a", "--iterations=3", "--duration=1").inference
    assert (timed.iterations, timed.duration_s) == (3, 1)
    modern = options("--onnx=a").inference
    assert (modern.iterations, modern.duration_s, modern.warm_up_ms) == (10, 3, 200)


def test_engine_is_written_with_a_model_and_read_without() -> None:
    written, read = options("--deploy=a", "--engine=e").build, options("--engine=e").build
    assert (written.save, written.load) == ("e", None) and (read.save, read.load) == (None, "e")


def test_outputs_may_be_repeated_and_lists() -> None:
    assert options("--deploy=a", "--output=x,y", "--output=z").model.outputs == ("x", "y", "z")


def test_plan_makes_flags_about_the_model_idle() -> None:
    found = options("--loadEngine=p", "--onnx=a", "--fp16", "--useCudaGraph")
    assert found.model.flag == "" and {name for name, _ in found.idle} == {"onnx", "fp16", "useCudaGraph"}
