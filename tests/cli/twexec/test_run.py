# SPDX-License-Identifier: Apache-2.0
"""Builds and runs from the command line: what is printed, in the shape that scripts read."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import threading
import time

import numpy as np
import pytest

import tensorwright as tw
from tests.cli.twexec.running import LENET, NUMBER, STAMP, failed, figures, quick, twexec, value

PARTS = ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")


# -- the report -------------------------------------------------------------------------------------
def test_report_has_the_lines_that_scripts_read() -> None:
    text = quick(f"--onnx={LENET}", "--iterations=20")
    titles = ["Model Options", "Build Options", "System Options", "Inference Options", "Reporting Options"]
    titles += ["Device Information", "Trace details", "Performance summary"]
    assert re.findall(r"\[I\] === (.*) ===$", text, re.M) == titles
    assert re.search(rf"^{STAMP}\[I\] Engine built in {NUMBER} sec\.$", text, re.M)
    assert re.search(rf"^{STAMP}\[I\] Warmup completed 0 queries over 0 ms$", text, re.M)
    assert re.search(rf"^{STAMP}\[I\] Timing trace has 20 queries over {NUMBER} s$", text, re.M)
    average = rf"Average on 10 runs - GPU latency: {NUMBER} ms - Host latency: {NUMBER} ms \(enqueue {NUMBER} ms\)"
    assert len(re.findall(rf"^{STAMP}\[I\] {average}$", text, re.M)) == 2
    assert "Average over" not in text, "the line of giexec belongs to classic command lines"
    keys = ["min", "max", "mean", "median", "percentile(90%)", "percentile(95%)", "percentile(99%)"]
    for part in PARTS:
        found = figures(text, part)
        assert list(found) == keys
        assert found["min"] <= found["median"] <= found["percentile(90%)"] <= found["percentile(99%)"] <= found["max"]
    assert value(text, "Throughput") == pytest.approx(20 / value(text, "Total Host Walltime"), rel=1e-4)
    mean = value(text, "Total GPU Compute Time") * 1e3 / 20
    assert figures(text, "GPU Compute Time")["mean"] == pytest.approx(mean, rel=1e-3)


def test_latency_is_the_sum_of_its_parts(plan: pathlib.Path) -> None:
    text = quick(f"--loadEngine={plan}", "--iterations=50")
    means = {part: figures(text, part)["mean"] for part in PARTS}
    parts = means["H2D Latency"] + means["GPU Compute Time"] + means["D2H Latency"]
    assert means["Latency"] == pytest.approx(parts, rel=1e-3)
    assert min(means.values()) > 0


def test_percentiles_are_those_asked_for(plan: pathlib.Path) -> None:
    found = figures(quick(f"--loadEngine={plan}", "--percentile=0,50,99.9,100", "--iterations=9"), "Latency")
    assert list(found)[4:] == ["percentile(0%)", "percentile(50%)", "percentile(99.9%)", "percentile(100%)"]
    assert found["percentile(0%)"] == found["min"] and found["percentile(100%)"] == found["max"]
    assert found["percentile(50%)"] == found["median"]


def test_without_data_transfers_copies_are_lines_of_zeros(plan: pathlib.Path) -> None:
    text = quick(f"--loadEngine={plan}", "--noDataTransfers")
    assert set(figures(text, "H2D Latency").values()) == set(figures(text, "D2H Latency").values()) == {0.0}
    assert figures(text, "Latency") == figures(text, "GPU Compute Time")


def test_trace_omits_the_middle_of_many_lines(plan: pathlib.Path) -> None:
    text = quick(f"--loadEngine={plan}", "--iterations=405", "--avgRuns=1")
    assert len(re.findall("Average on 1 runs", text)) == 400 and "... Omitting 5 lines" in text


def test_duration_and_warm_up_are_kept(plan: pathlib.Path) -> None:
    text = twexec(f"--loadEngine={plan}", "--duration=0.2", "--warmUp=50", "--iterations=1")
    assert 0.2 <= value(text, "Total Host Walltime") < 10
    assert int(re.search(r"Warmup completed (\d+) queries over 50 ms", text).group(1)) > 0


def test_pauses_are_no_part_of_the_latency(plan: pathlib.Path) -> None:
    text = quick(f"--loadEngine={plan}", "--idleTime=30", "--sleepTime=30", "--iterations=3")
    assert value(text, "Total Host Walltime") >= 0.12 and figures(text, "Latency")["median"] < 30


def test_streams_run_at_once_each_on_its_own(plan: pathlib.Path) -> None:
    text = quick(f"--loadEngine={plan}", "--streams=3", "--iterations=40", "--threads")
    assert "Timing trace has 120 queries" in text and "Several streams share the cores" in text


def test_verbose_explains_the_figures(plan: pathlib.Path) -> None:
    assert re.search(rf"^{STAMP}\[V\] GPU Compute Time: .*CPU", quick(f"--loadEngine={plan}", "--verbose"), re.M)
    assert "[V]" not in quick(f"--loadEngine={plan}")


@pytest.mark.parametrize("streams", [1, 2])
def test_endless_run_ends_on_ctrl_c_with_a_report(plan: pathlib.Path, streams: int) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while signal.getsignal(signal.SIGINT) is before:  # until the measurement begins
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt, daemon=True)
    killer.start()
    text = twexec(f"--loadEngine={plan}", "--duration=-1", "--warmUp=0", f"--infStreams={streams}")
    killer.join()
    assert value(text, "Total Host Walltime") > 0.2
    assert "[W] The measurement was interrupted" in text and value(text, "Throughput") > 0
    assert signal.getsignal(signal.SIGINT) is before


# -- values -----------------------------------------------------------------------------------------
def printed_output(text: str, name: str) -> tuple[str, list[float]]:
    dims, values = re.search(rf"\[I\] {name}: \((.*)\)\n{STAMP}\[I\] (.*)$", text, re.M).group(1, 2)
    return dims, [float(v) for v in values.split()]


def test_loaded_inputs_give_the_outputs_of_the_engine(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = np.random.default_rng(5).random((1, 1, 28, 28), np.float32)
    image.tofile(tmp_path / "image.raw")
    text = quick(f"--loadEngine={plan}", f"--loadInputs=image:{tmp_path / 'image.raw'}", "--dumpOutput")
    dims, values = printed_output(text, "probability")
    assert dims == "1x10"
    np.testing.assert_allclose(values, tw.load(plan)(image).reshape(-1), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("size", [0, 3135, 3137, 6272])
def test_input_file_of_another_size_is_refused(plan: pathlib.Path, tmp_path: pathlib.Path, size: int) -> None:
    (tmp_path / "image.raw").write_bytes(bytes(size))
    error = failed(f"--loadEngine={plan}", f"--loadInputs=image:{tmp_path / 'image.raw'}")
    assert error.startswith("I117 ") and f"it has {size} bytes; f32[1,1,28,28] has 3136" in error


def test_input_file_of_no_input_is_refused(plan: pathlib.Path) -> None:
    error = failed(f"--loadEngine={plan}", f"--loadInputs=imag:{LENET}")
    assert error.startswith("I112 ") and "did you mean 'image'" in error


def test_random_values_are_the_same_in_every_run(plan: pathlib.Path) -> None:
    first, second = (printed_output(quick(f"--loadEngine={plan}", "--dumpOutput"), "probability") for _ in range(2))
    assert first == second and sum(first[1]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_sizes_that_the_data_decides_are_reported(counting: pathlib.Path, tmp_path: pathlib.Path, target: str) -> None:
    np.array([0, 7, 0, -1, 2, 0], "<i8").tofile(tmp_path / "x.raw")
    text = quick(f"--onnx={counting}", f"--loadInputs=x:{tmp_path / 'x.raw'}", "--dumpOutput", f"--target={target}")
    assert printed_output(text, "where") == ("1x3", [1, 3, 4])
    assert printed_output(text, "twice") == ("6", [0, 14, 0, -2, 4, 0])


# -- shapes -----------------------------------------------------------------------------------------
def test_free_dims_are_one_with_a_warning(dynamic: pathlib.Path) -> None:
    text = quick(f"--onnx={dynamic}")
    assert "[W] Dynamic dimensions of input in:0" in text and "[I] Input in:0: f32[1,3,1,8]" in text


@pytest.mark.parametrize("text", ["'in:0':2x3x5x8", "in:0:2x3x5x8", "in*:2x3x5x8", "*:2x3x5x8"])
def test_shapes_alone_are_built_and_run(dynamic: pathlib.Path, text: str) -> None:
    assert "[I] Input in:0: f32[2,3,5,8]" in quick(f"--onnx={dynamic}", f"--shapes={text}")


def test_build_shapes_are_a_range_and_opt_is_run(dynamic: pathlib.Path, tmp_path: pathlib.Path) -> None:
    saved = tmp_path / "range.plan"
    words = ["--minShapes=in*:1x3x4x8", "--optShapes='in:0':2x3x6x8", "--maxShapes=in:0:4x3x9x8"]
    text = quick(f"--onnx={dynamic}", *words, f"--saveEngine={saved}", "--dumpOptimizationProfile", "--dumpOutput")
    assert "in:0: min=1x3x4x8, opt=2x3x6x8, max=4x3x9x8" in text
    assert printed_output(text, "mean")[0] == "2x4x1x1"
    other = quick(f"--loadEngine={saved}", "--shapes=in:0:4x3x9x8", "--dumpOutput")
    assert printed_output(other, "mean")[0] == "4x4x1x1"
    error = failed(f"--loadEngine={saved}", "--shapes=in:0:5x3x9x8")
    assert error.startswith("I130 ") and "n = 5 is not in 1..4" in error


def test_profile_is_chosen_by_number(dynamic: pathlib.Path, tmp_path: pathlib.Path) -> None:
    saved = tmp_path / "two.plan"
    words = ["--profile=0", "--optShapes=in:0:1x3x4x8", "--profile=1", "--optShapes=in:0:3x3x4x8"]
    text = quick(
        f"--onnx={dynamic}", *words, "--useProfile=1", f"--saveEngine={saved}", "--dumpOutput", "--dumpProfile"
    )
    assert printed_output(text, "mean")[0] == "3x4x1x1" and "stem + stem_relu" in text
    assert printed_output(quick(f"--loadEngine={saved}", "--dumpOutput"), "mean")[0] == "1x4x1x1"
    assert failed(f"--loadEngine={saved}", "--useProfile=2").startswith("I132 ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--shapes=out*:1x3x4x8"], "I112"),
        (["--shapes=input:1x3x4x8"], "M106"),
        (["--shapes=in:0:1x4x4x8"], "M106"),
        (["--shapes=in:0:1x3"], "M106"),
        (["--minShapes=in:0:2x3x4x8", "--optShapes=in:0:1x3x4x8", "--maxShapes=in:0:3x3x4x8"], "B110"),
        (["--minShapes=in*:1x3x4x8", "--optShapes=in:0:1x3x4x8"], "I112"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else x,
)
def test_shapes_that_do_not_fit_the_model_are_refused(dynamic: pathlib.Path, words: list[str], code: str) -> None:
    assert failed(f"--onnx={dynamic}", *words).startswith(f"{code} ")


# -- build ------------------------------------------------------------------------------------------
def test_saved_engine_is_loaded_again(tmp_path: pathlib.Path) -> None:
    saved = tmp_path / "saved.plan"
    text = quick(f"--onnx={LENET}", f"--saveEngine={saved}", "--skipInference", "--monitorMemory")
    assert "Performance summary" not in text and "Peak memory" in text
    assert f"Created engine with size: {saved.stat().st_size / 2**20:.6g} MiB" in text
    copy = tmp_path / "copy.plan"
    text = twexec(f"--loadEngine={saved}", f"--saveEngine={copy}", "--getPlanVersionOnly")
    assert f"Plan was created with: tensorwright {tw.__version__}" in text and not copy.exists()
    text = quick(f"--loadEngine={saved}", f"--saveEngine={copy}")
    assert copy.read_bytes() == saved.read_bytes() and re.search(r"Engine loaded in .* sec\.", text)
    text = quick(f"--loadEngine={saved}", "--timeDeserialize")
    assert re.search(rf"average time = {NUMBER} milliseconds, first time = {NUMBER} milliseconds\.", text)


def test_lower_precision_is_allowed_and_said_not_to_be_used() -> None:
    text = quick(f"--onnx={LENET}", "--fp16", "--int8", "--best", "--skipInference")
    assert re.search(r"\[W\] --fp16, --int8, --best: .* this version builds fp32 only", text)
    assert "[I] Precision: FP32 (+fp16 allowed) (+int8 allowed) (+best allowed)" in text


def test_calibration_cache_must_be_there(tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "calib.cache"
    error = failed(f"--onnx={LENET}", "--int8", f"--calib={cache}")
    assert error.startswith("T123 ") and f"--calib: {cache}: there is no such file" in error
    cache.write_text("TRT-1-EntropyCalibration2\n")
    assert "is there, and is not used" in quick(f"--onnx={LENET}", "--int8", f"--calib={cache}", "--skipInference")


@pytest.mark.parametrize("name", ["useCudaGraph", "useSpinWait", "noTF32", "exposeDMA", "minTiming=3"])
def test_flag_without_meaning_says_so(plan: pathlib.Path, name: str) -> None:
    text = quick(f"--loadEngine={plan}", f"--{name}")
    assert f"[W] --{name.partition('=')[0]} has no meaning on target cpu: " in text


def test_formats_of_the_interface_are_checked_before_the_build() -> None:
    assert "PASSED" in quick(f"--onnx={LENET}", "--inputIOFormats=fp32:chw", "--outputIOFormats=chw", "--skipInference")
    error = failed(f"--onnx={LENET}", "--inputIOFormats=fp16:chw")
    assert error.startswith("B124 ") and "asks for f16, the tensor is image: f32[1,1,28,28]" in error
    error = failed(f"--onnx={LENET}", "--outputIOFormats=fp32:chw,fp32:chw,fp32:chw")
    assert "3 formats for 1 tensors" in error


def test_timing_cache_is_written_where_asked_or_not_at_all(tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "times.jsonl"
    words = [f"--onnx={LENET}", "--builderOptimizationLevel=2", "--skipInference"]
    twexec(*words, f"--timingCacheFile={cache}")
    assert cache.read_text().startswith('{"tensorwright_tuning"')
    before = cache.read_text()
    twexec(*words, f"--timingCacheFile={cache}")
    assert cache.read_text() == before


def test_workspace_bounds_a_kernel(plan: pathlib.Path) -> None:
    assert "workspace: 64 MiB" in quick(f"--onnx={LENET}", "--workspace=64", "--skipInference")


def test_output_chooses_tensors_of_the_model() -> None:
    text = quick(f"--onnx={LENET}", "--output=probability,relu3_out")
    assert "[I] Output relu3_out: f32[1,500]" in text
    error = failed(f"--onnx={LENET}", "--output=relu9_out")
    assert error.startswith("M107 ") and "relu3_out" in error


def test_flag_names_the_format_whatever_the_file_is_called(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "model.bin"
    other.write_bytes(LENET.read_bytes())
    assert "[I] Input image: f32[1,1,28,28]" in quick(f"--onnx={other}", "--skipInference")
