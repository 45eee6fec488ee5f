# SPDX-License-Identifier: Apache-2.0
"""Files, names, outputs and shapes; and what is said of files that cannot be read."""

from __future__ import annotations

import pathlib
import struct

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError, UnsupportedError
from tensorwright.importers.base import import_model
from tests.importers.darknet.oracle import Layers, Oracle, cfg_text, write

RNG = np.random.default_rng()

CONV = ("convolutional", {"filters": 12, "size": 3, "pad": 1, "batch_normalize": 1, "activation": "leaky"})
YOLO = ("yolo", {"classes": 1, "num": 2, "anchors": "10,14, 23,27"})

DETECTOR: Layers = [
    CONV,
    ("maxpool", {"size": 2, "stride": 2}),
    CONV,
    YOLO,
    ("route", {"layers": -2}),
    ("upsample", {"stride": 2}),
    ("route", {"layers": "-1,0"}),
    CONV,
    YOLO,
]
CLASSIFIER: Layers = [("connected", {"output": 5}), ("softmax", {}), ("cost", {})]


def folder_with(folder: pathlib.Path, layers: Layers, shape: tuple[int, ...]) -> tuple[str, str, Oracle]:
    oracle = Oracle(layers, shape, RNG)
    return *write(folder, layers, shape, oracle.numbers), oracle


def refused(folder: pathlib.Path, text: str | bytes) -> ModelError:
    """What importing a .cfg file of this text raises."""
    path = folder / "net.cfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError) as caught:
        import_model(path)
    return caught.value


def net(rest: str) -> str:
    return f"[net]\nheight=8\nwidth=8\nchannels=3\n{rest}"


# -- outputs, names, shapes -------------------------------------------------------------------------
def test_outputs_are_all_detectors_unless_chosen(tmp_path: pathlib.Path) -> None:
    cfg, weights, oracle = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    x = RNG.random((1, 3, 6, 8), np.float32)
    results = oracle.run(x[0])
    for outputs, expected in ((None, ["yolo_3", "yolo_8"]), (["convolutional_7", "data"], ["convolutional_7", "data"])):
        engine = tw.build(cfg, weights=weights, outputs=outputs, tune="off", host_steps=False)
        found = engine.run({"data": x})
        assert list(found) == expected
        for name in expected:
            known = x[0] if name == "data" else results[int(name.split("_")[1])]
            np.testing.assert_allclose(found[name][0], known, rtol=2e-4, atol=2e-5)


def test_outputs_of_a_classifier_are_those_before_the_cost(tmp_path: pathlib.Path) -> None:
    cfg, weights, oracle = folder_with(tmp_path, CLASSIFIER, (3, 2, 2))
    graph = import_model(cfg, weights=weights)
    assert graph.output_names == ("softmax_1",) and graph.outputs[0].type.shape == (1, 5)
    graph = import_model(cfg, weights=weights, outputs=["cost_2", "softmax_1"])
    assert graph.output_names == ("cost_2", "softmax_1")


def test_nodes_carry_the_names_of_layers(tmp_path: pathlib.Path) -> None:
    cfg, weights, _ = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    graph = import_model(cfg, weights=weights)
    origins = {origin for node in graph for origin in node.origin}
    assert {"convolutional_0.convolution", "convolutional_0.scale", "convolutional_0", "maxpool_1", "yolo_8"} <= origins


def test_shapes_choose_size_and_batch_instead_of_the_cfg(tmp_path: pathlib.Path) -> None:
    cfg, weights, oracle = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    assert import_model(cfg, weights=weights).inputs[0].type.shape == (1, 3, 6, 8)  # not the batch of [net]
    fixed = import_model(cfg, weights=weights, shapes={"data": (2, 3, 4, 4)})
    assert [v.type.shape for v in fixed.outputs] == [(2, 12, 2, 2), (2, 12, 4, 4)]
    sizes = tw.Range((1, 3, 4, 4), (2, 3, 6, 8), (3, 3, 12, 16))
    engine = tw.build(cfg, weights=weights, shapes={"data": sizes}, tune="off", host_steps=False)
    for shape in ((1, 3, 4, 4), (3, 3, 10, 16), (2, 3, 12, 6)):
        x = RNG.random(shape, np.float32)
        found = engine.run({"data": x})
        for sample in range(shape[0]):
            expected = oracle.run(x[sample])
            for name, index in (("yolo_3", 3), ("yolo_8", 8)):
                np.testing.assert_allclose(found[name][sample], expected[index], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shapes", [{"image": (1, 3, 6, 8)}, {"data": (3, 6, 8)}, {"data": (1, 3, 6, 8, 1)}])
def test_shapes_that_do_not_fit_give_m106(tmp_path: pathlib.Path, shapes: dict[str, tuple[int, ...]]) -> None:
    cfg, weights, _ = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    with pytest.raises(ModelError) as caught:
        import_model(cfg, weights=weights, shapes=shapes)
    assert caught.value.code == "M106"


def test_unknown_output_gives_m107_with_near_names(tmp_path: pathlib.Path) -> None:
    cfg, weights, _ = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    with pytest.raises(ModelError, match="yolo_8") as caught:
        import_model(cfg, weights=weights, outputs=["yolo_9"])
    assert caught.value.code == "M107"


# -- weights ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("version", "count"),
    [((0, 1, 0), "i"), ((0, 2, 0), "q"), ((0, 2, 5), "q"), ((1, 0, 0), "q"), ((0, 1001, 0), "i"), ((1001, 0, 0), "i")],
)
def test_header_of_every_version_is_read(tmp_path: pathlib.Path, version: tuple[int, ...], count: str) -> None:
    oracle = Oracle(CLASSIFIER, (3, 2, 2), RNG, transpose=max(version) > 1000)
    cfg, weights = write(tmp_path, CLASSIFIER, (3, 2, 2), oracle.numbers)
    pathlib.Path(weights).write_bytes(struct.pack(f"<iii{count}", *version, 99) + oracle.numbers.tobytes())
    x = RNG.random((1, 3, 2, 2), np.float32)
    found = tw.build(cfg, weights=weights, target="reference")(x)
    np.testing.assert_allclose(found[0], oracle.run(x[0])[-1], rtol=1e-5)


@pytest.mark.parametrize("revision", [0, 5])
def test_small_variances_are_normalised_as_by_the_program_that_wrote_the_file(
    tmp_path: pathlib.Path, revision: int
) -> None:
    layers: Layers = [("convolutional", {"filters": 2, "batch_normalize": 1, "activation": "linear"})]
    numbers = np.array([0, 0, 1, 1, 0, 0, 1e-4, 1e-12, 1, 1], np.float32)  # biases, scales, means, variances, kernel
    cfg, weights = write(tmp_path, layers, (1, 1, 1), numbers)
    pathlib.Path(weights).write_bytes(struct.pack("<iiiq", 0, 2, revision, 0) + numbers.tobytes())
    found = tw.build(cfg, weights=weights, target="reference")(np.ones((1, 1, 1, 1), np.float32))
    variance = numbers[6:8].astype(np.float64)
    deviation = np.sqrt(variance + 0.00001) if revision else np.sqrt(variance) + 0.000001
    np.testing.assert_allclose(found.reshape(2), 1 / deviation, rtol=1e-5)


def test_batchnorm_of_the_fork_has_biases(tmp_path: pathlib.Path) -> None:
    numbers = np.array([7, 8, 1, 2, 0, 1, 4 - 1e-5, 1 - 1e-5], np.float32)  # biases, scales, means, variances
    cfg, weights = write(tmp_path, [("batchnorm", {})], (2, 1, 1), numbers)
    pathlib.Path(weights).write_bytes(struct.pack("<iiiq", 0, 2, 5, 0) + numbers.tobytes())
    found = tw.build(cfg, weights=weights, target="reference")(np.full((1, 2, 1, 1), 3, np.float32))
    np.testing.assert_allclose(found.reshape(2), [7 + 3 / 2, 8 + 2 * (3 - 1)], rtol=1e-6)


def test_without_weights_they_are_random_the_same_and_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text(DETECTOR, (3, 6, 8)))
    notes: list[str] = []
    first, second = (import_model(tmp_path / "net.cfg", notes=notes) for _ in range(2))
    assert len(notes) == 2 and "random" in notes[0]
    arrays = [list(graph.constants.values()) for graph in (first, second)]
    assert all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True)) and any(a.std() > 0 for a in arrays[0])


def test_short_weights_say_which_layer_needs_how_much(tmp_path: pathlib.Path) -> None:
    cfg, weights, oracle = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    path = pathlib.Path(weights)
    path.write_bytes(path.read_bytes()[:-4])
    needed, layer = 20 + 4 * len(oracle.numbers), "convolutional_7"
    with pytest.raises(ModelError, match=rf"{layer}.*(\n.*)*first {needed} bytes .* has {needed - 4}") as caught:
        import_model(cfg, weights=weights)
    assert caught.value.code == "M104"


def test_long_weights_are_a_note(tmp_path: pathlib.Path) -> None:
    cfg, weights, _ = folder_with(tmp_path, DETECTOR, (3, 6, 8))
    with open(weights, "ab") as file:
        file.write(b"\0" * 12)
    notes: list[str] = []
    import_model(cfg, weights=weights, notes=notes)
    assert notes == [f"{weights} has 3 more numbers than the network needs"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "M102"), (b"\1\0\0\0", "M103"), (b"PK\x03\x04" + bytes(99), "M103"), (b"\xff" * 99, "M103"), (None, "M101")],
)
def test_foreign_weights_are_refused(tmp_path: pathlib.Path, content: bytes | None, code: str) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text(CLASSIFIER, (3, 2, 2)))
    if content is not None:
        (tmp_path / "w").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        import_model(tmp_path / "net.cfg", weights=tmp_path / "w")
    assert caught.value.code == code


# -- .cfg -------------------------------------------------------------------------------------------
def test_blanks_comments_and_line_ends_of_every_kind_are_read(tmp_path: pathlib.Path) -> None:
    text = (
        "# caf\xe9\n\n; more\r\n[network]\r\n  he ight = 8 # rows\nwidth=8\n\tchannels\t=\t3\nheight=9\n"
        "learning_rate=.1\n[conv] ; the first\nfilters = 4\nsize=3\nactivation = li near\n"
    )
    (tmp_path / "net.cfg").write_bytes(text.encode("latin-1"))
    graph = import_model(tmp_path / "net.cfg")
    assert graph.inputs[0].type.shape == (1, 3, 8, 8) and graph.outputs[0].type.shape == (1, 4, 6, 6)


def test_everything_unsupported_is_named_at_once(tmp_path: pathlib.Path) -> None:
    error = refused(
        tmp_path,
        net(
            "[rnn]\noutput=3\n[conv]\nactivation=sine\nxnor=1\nantialiasing=0\n[gru]\noutput=3\n[rnn]\n"
            "[softmax]\ntree=words\nspatial=1\n[shortcut]\nfrom=-1\nweights_type=per_channel\n[conv]\nsize=x\n"
        ),
    )
    assert isinstance(error, UnsupportedError) and error.code == "M201"
    text = str(error)
    for part in ("[rnn] (line 5, line 13), 2 times", "[gru]", "activation=sine", "xnor=1", "tree=words", "spatial=1"):
        assert part in text
    assert "weights_type=per_channel" in text and "line 21: size=x of [conv] is not an integer" in text
    assert "antialiasing" not in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[net]\nheight=8\n[conv]\n", "inputs="),
        (net(""), "no layer"),
        ("[conv]\nfilters=3\n", "not [net]"),
        ("filters=3\n[net]\ninputs=3\n[softmax]\n", "line 1: 'filters=3' stands before the first section"),
        (net("[yolo]\nmask=0,3\nnum=3\n"), "[yolo] of line 5: mask=0,3 names anchors that are not among num=3"),
        (net("[conv]\nfilters\n"), "line 6: 'filters' is neither"),
        (net("[conv]\nfilters=\n"), "line 6"),
        (net("[conv]\nfilters=0\n"), "line 6: filters=0 of [conv] must be at least 1"),
        (net("[conv]\nfilters=99999999999999\n"), "does not fit in 32 bits"),
        (net("[conv]\nstride=-1\n"), "at least 1"),
        (net("[upsample]\nscale=much\n"), "scale=much of [upsample] is not a number"),
        (net("[route]\nlayers=-1,\n"), "layers=-1, of [route] is not an integer"),
    ],
)
def test_mistakes_of_the_text_give_m104(tmp_path: pathlib.Path, text: str, part: str) -> None:
    error = refused(tmp_path, text)
    assert error.code == "M104" and part in str(error)


@pytest.mark.parametrize(
    ("layers", "layer"),
    [
        ("[route]\nlayers=-1\n", "route_0"),
        ("[conv]\n[route]\nlayers=1\n", "route_1"),
        ("[conv]\n[route]\n", "route_1"),
        ("[conv]\n[route]\nlayers=0\ngroups=2\n", "route_1"),
        ("[conv]\nfilters=4\n[route]\nlayers=0\ngroups=2\ngroup_id=2\n", "route_1"),
        ("[conv]\ngroups=2\n", "convolutional_0"),
        ("[conv]\nsize=9\n", "convolutional_0"),
        ("[conv]\nsize=3\ndilation=2\n", "convolutional_0"),
        ("[conv]\nfilters=2000000000\nsize=2000000000\npadding=2000000000\n", "convolutional_0"),
        ("[softmax]\n[conv]\n", "convolutional_1"),
        ("[conv]\n[shortcut]\n", "shortcut_1"),
        ("[maxpool]\nsize=3\nstride=2\n[conv]\nstride=8\n[shortcut]\nfrom=0\n[yolo]\n", "yolo_3"),
        ("[conv]\nstride_x=2\n[shortcut]\nfrom=0\n[conv]\n[shortcut]\nfrom=0\n[conv]\nstride_x=2\n[shortcut]\nfrom=0\n",
         "shortcut_5"),
        ("[reorg]\nstride=2\n", "reorg_0"),
        ("[crop]\ncrop_height=9\n", "crop_0"),
        ("[yolo]\nclasses=1\n", "yolo_0"),
        ("[conv]\nfilters=7\n[region]\nclasses=1\n", "region_1"),
        ("[conv]\nfilters=4\n[region]\nclasses=1\ncoords=2\n", "region_1"),
        ("[local]\nsize=5\npad=1\n", "local_0"),
        ("[detection]\nclasses=3\n", "detection_0"),
        ("[softmax]\n[l2norm]\n", "l2norm_1"),
        ("[yolo]\nnum=2147483647\n", "yolo_0"),
        ("[upsample]\nstride=999\n[local]\nsize=999\npad=499\n", "local_1"),
        ("[upsample]\nstride=9999\n[conv]\nsize=2\n[shortcut]\nfrom=0\nalpha=2\n", "shortcut_2"),
        ("[upsample]\nstride=99999\n", "upsample_0"),
        ("[conv]\nfilters=99999\n[lrn]\n", "normalization_1"),
        ("[conv]\nfilters=2\n[sam]\nfrom=-1\n[conv]\n[sam]\nfrom=0\n", "sam_3"),
        ("[conv]\nfilters=2\n[scale_channels]\nfrom=0\n", "scale_channels_1"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_are_named(tmp_path: pathlib.Path, layers: str, layer: str) -> None:
    error = refused(tmp_path, net(layers))
    assert error.code == "M104" and error.what == f"layer {layer} does not fit" and "line" in error.where and error.why


@pytest.mark.parametrize("content", [b"\x00\xff", b"just words", b"PK\x03\x04zip", b"<html>"])
def test_files_of_other_formats_give_m103(tmp_path: pathlib.Path, content: bytes) -> None:
    assert refused(tmp_path, content).code == "M103"


def test_empty_file_gives_m102(tmp_path: pathlib.Path) -> None:
    assert refused(tmp_path, b"").code == "M102"


def test_unknown_options_are_notes_and_those_of_training_are_not(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text(net("[conv]\nlearning_rate=1\njitter=.3\nfilter=64\n"))
    notes: list[str] = []
    import_model(tmp_path / "net.cfg", notes=notes)
    assert [note for note in notes if "line" in note] == [
        "line 8: [conv] has an option 'filter' that is not known; it is ignored"
    ]
