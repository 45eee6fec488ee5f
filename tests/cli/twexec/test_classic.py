# SPDX-License-Identifier: Apache-2.0
"""giexec's command lines on the bundled LeNet from Caffe, and models from TensorFlow and Darknet."""

from __future__ import annotations

import pathlib
import re
import sys

import numpy as np
import pytest

import tensorwright as tw
from tests.cli.twexec.running import CAFFEMODEL, NUMBER, PROTOTXT, ROOT, failed, figures, quick, twexec, value
from tests.cli.twexec.test_run import printed_output

LINE = re.compile(
    rf"^Average over (\d+) runs is ({NUMBER}) ms "
    rf"\(host walltime is ({NUMBER}) ms, (\d+)% percentile time is ({NUMBER})\)\.$",
    re.M,
)
TRAINED = (f"--deploy={PROTOTXT}", f"--model={CAFFEMODEL}", "--output=prob")
OFF = ("--builderOptimizationLevel=0", "--warmUp=0")


def test_classic_command_line_prints_a_line_for_each_iteration() -> None:
    text = twexec(*OFF, *TRAINED)
    lines = LINE.findall(text)
    assert len(lines) == 10 and {line[0] for line in lines} == {"10"} and {line[3] for line in lines} == {"99"}
    assert all(float(compute) <= float(host) for _, compute, host, _, _ in lines)
    averages = [float(x) for x in re.findall(rf"GPU latency: ({NUMBER}) ms", text)]
    assert averages == [float(line[1]) for line in lines]
    assert value(text, "Throughput") > 0 and "No --output was given" not in text


def test_iterations_and_runs_are_counted_as_giexec_did() -> None:
    text = twexec(*OFF, *TRAINED, "--iterations=3", "--avgRuns=4", "--percentile=50")
    assert [(line[0], line[3]) for line in LINE.findall(text)] == [("4", "50")] * 3
    assert "Timing trace has 12 queries" in text


def test_host_time_is_that_of_the_host() -> None:
    for _, average, host, _, _ in LINE.findall(twexec(*OFF, *TRAINED, "--hostTime")):
        assert average == host


def test_batch_is_the_first_dim_and_counts_in_the_throughput() -> None:
    text = twexec(*OFF, *TRAINED, "--batch=3", "--iterations=2")
    assert "[I] Input data: f32[3,1,28,28]" in text and "Timing trace has 60 queries" in text
    assert value(text, "Throughput") == pytest.approx(60 / value(text, "Total Host Walltime"), rel=1e-4)


def test_max_batch_is_a_range(tmp_path: pathlib.Path) -> None:
    saved = tmp_path / "batch.plan"
    twexec(*OFF, *TRAINED, "--batch=2", "--maxBatch=5", f"--engine={saved}", "--iterations=1")
    assert tw.load(saved).profiles[0]["data"] == tw.Range((1, 1, 28, 28), (2, 1, 28, 28), (5, 1, 28, 28))
    text = twexec(f"--engine={saved}", "--batch=5", "--iterations=1", "--warmUp=0")
    assert "[I] Input data: 5x1x28x28" in text and "Timing trace has 50 queries" in text and LINE.search(text)
    assert failed(f"--engine={saved}", "--batch=6").startswith("I130 ")


def test_batch_is_one_where_the_prototxt_has_another(tmp_path: pathlib.Path) -> None:
    text = PROTOTXT.read_text().replace("dim: 1 dim: 1 dim: 28", "dim: 10 dim: 1 dim: 28")
    assert "dim: 10" in text
    (tmp_path / "ten.prototxt").write_text(text)
    words = (f"--deploy={tmp_path / 'ten.prototxt'}", "--skipInference")
    assert "[I] Input data: f32[1,1,28,28]" in quick(*words) and "where the prototxt has 10" in quick(*words)
    assert "[I] Input data: f32[10,1,28,28]" in quick(*words, "--batch=10")
    assert "[I] Input data: f32[7,1,28,28]" in quick(*words, "--shapes=data:7x1x28x28")


def test_trained_network_computes_what_the_library_does(tmp_path: pathlib.Path) -> None:
    image = np.random.default_rng(1).random((1, 1, 28, 28), np.float32)
    image.tofile(tmp_path / "data.raw")
    text = quick(*TRAINED, "--dumpOutput", f"--loadInputs=data:{tmp_path / 'data.raw'}")
    dims, values = printed_output(text, "prob")
    want = tw.build(PROTOTXT, weights=CAFFEMODEL, tune="off")(image)
    assert dims == "1x10"
    np.testing.assert_allclose(values, want.reshape(-1), rtol=1e-4, atol=1e-12)


def test_missing_weights_are_random_and_missing_output_is_told() -> None:
    text = quick(f"--deploy={PROTOTXT}", "--half2", "--workspace=16", "--device=0", "--verbose")
    assert "random numbers from a fixed seed" in text and "[I] Weights: random" in text
    assert "[W] No --output was given: the outputs are what no layer reads: prob" in text
    assert "--half2: lower precision is allowed, and not used" in text and figures(text, "Latency")


def test_inner_blob_may_be_an_output() -> None:
    assert "[I] Output ip1: f32[1,500]" in quick(*TRAINED[:2], "--output=ip1", "--output=prob", "--skipInference")
    error = failed(*TRAINED[:2], "--output=prop")
    assert error.startswith("M107 ") and "prob" in error


def test_prototxt_in_the_old_style_is_refused_with_its_place(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text('name: "old"\nlayers { name: "c" type: CONVOLUTION bottom: "data" top: "c" }\n')
    error = failed(f"--deploy={path}")
    assert error.startswith("M103 ") and "line 2" in error and 'type: "Convolution"' in error


def test_uff_says_what_to_give_instead() -> None:
    assert "give the frozen graph with --tf" in failed("--uff=x.uff", "--uffInput=in,1,28,28")


# -- other formats ----------------------------------------------------------------------------------
def test_darknet_model_runs_with_its_weights_or_random_ones(tmp_path: pathlib.Path) -> None:
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    cfg.write_text(
        "[net]\nheight=8\nwidth=6\nchannels=3\n\n"
        "[convolutional]\nfilters=4\nsize=1\nstride=1\npad=1\nactivation=relu\n\n[avgpool]\n"
    )
    assert "random" in quick(f"--darknet={cfg}")
    head = np.array([0, 2, 0], "<i4").tobytes() + np.zeros(1, "<u8").tobytes()
    bias, kernel = np.array([1, 2, 3, -9], "<f4"), np.zeros((4, 3), "<f4")
    weights.write_bytes(head + bias.tobytes() + kernel.tobytes())
    text = quick(f"--darknet={cfg}", f"--model={weights}", "--dumpOutput")
    assert "[I] Format: Darknet" in text
    assert re.search(r"\[I\] 1 2 3 0$", text, re.M)


def test_tensorflow_frozen_graph_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "lenet"))
    from formats import frozen_graph, trained

    path = tmp_path / "frozen.pb"
    path.write_bytes(frozen_graph(trained()))
    text = quick(f"--tf={path}", "--output=prob", "--dumpOutput")
    dims, values = printed_output(text, "prob")
    assert dims == "1x10" and sum(values) == pytest.approx(1, abs=1e-4) and "[I] Format: TensorFlow" in text
    sys.modules.pop("formats", None)
