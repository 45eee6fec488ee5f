# SPDX-License-Identifier: Apache-2.0
"""Damaged files are read, or refused with a code: nothing else ever happens."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.importers.caffe.reader import import_caffe
from tests.importers.caffe.test_networks import compute, googlenet, ssd
from tests.importers.caffe.writer import inputs, layer, model_bytes, net_text, write

SEED = int(np.random.SeedSequence().generate_state(1)[0])
TRIES = 250
CODES = ("M103", "M104", "M106", "M107", "M201")
TOKEN = re.compile(r'"[^"\n]*"|[\w.+-]+|\S')
ODD = [
    "0",
    "-1",
    "1",
    "2",
    "4294967295",
    "99999999999999999999",
    "nan",
    "-inf",
    "1e38",
    '""',
    '"x"',
    "{",
    "}",
    ":",
    "TRAIN",
]


def prototxt() -> str:
    more = [
        layer("LSTM", ("seq", "cont"), ("lstm",), recurrent_param={"num_output": 3}),
        layer("Slice", ("x",), ("s0", "s1"), slice_param={"axis": 1, "slice_point": [1]}),
        layer("ArgMax", ("s0",), ("best",), argmax_param={"top_k": 2, "out_max_val": True}),
        layer("Power", ("s1",), ("s1",), "power", power_param={"power": 2, "scale": 3, "shift": 1}),
        layer("Reduction", ("s1",), ("sum",), reduction_param={"axis": 1, "coeff": 2}),
    ]
    shapes = {"x": (1, 3, 17, 15), "seq": (4, 2, 5), "cont": (4, 2)}
    return net_text([*inputs(shapes), *ssd(), *more])


def outcome(path: str, weights: str | None = None) -> str:
    """The code of the error, or "" for success. Fails for every other exception."""
    try:
        import_caffe(path, weights=weights)
    except ModelError as error:
        assert error.code in CODES, error
        return error.code
    return ""


def test_damaged_prototxt_is_read_or_refused(tmp_path: pathlib.Path) -> None:
    rng, whole, seen = np.random.default_rng(SEED), prototxt(), set()
    spans = [match.span() for match in TOKEN.finditer(whole)]
    assert outcome(write(tmp_path, whole)[0]) == ""
    for attempt in range(TRIES):
        text = whole
        for _ in range(rng.integers(1, 3)):
            start, end = spans[rng.integers(len(spans))]
            other = spans[rng.integers(len(spans))]
            new = ["", whole[start:end] * 2, whole[slice(*other)], ODD[rng.integers(len(ODD))]][rng.integers(4)]
            text = text[:start] + new + text[end:]
        try:
            seen.add(outcome(write(tmp_path, text)[0]))
        except Exception as error:
            raise AssertionError(f"seed {SEED}, attempt {attempt}: {error!r}\n{text}") from error
    assert {"", "M103", "M104"} <= seen


def test_damaged_caffemodel_is_read_or_refused(tmp_path: pathlib.Path) -> None:
    rng, seen = np.random.default_rng(SEED), set()
    feeds = {"x": np.zeros((1, 3, 33, 31), np.float32)}
    weights = {
        name: blobs for name, blobs in compute(googlenet(), feeds)[1].items() if name in ("a/1x1", "conv2", "fc")
    }
    whole = model_bytes(weights)
    source = net_text([*inputs({"x": (1, 3, 33, 31)}), *googlenet()])
    heads = [match.start() for match in re.finditer(rb"a/1x1|conv2|fc", whole)]
    for attempt in range(TRIES):
        data = bytearray(whole)
        near = heads[rng.integers(len(heads))] + int(rng.integers(-8, 40))  # numbers themselves may be anything
        kind = rng.integers(4)
        if kind == 0:
            data[near] = rng.integers(256)
        elif kind == 1:
            del data[near : near + rng.integers(1, 6)]
        elif kind == 2:
            data[near:near] = rng.bytes(int(rng.integers(1, 6)))
        else:
            del data[rng.integers(1, len(data)) :]
        try:
            seen.add(outcome(*write(tmp_path, source, bytes(data))))
        except Exception as error:
            raise AssertionError(f"seed {SEED}, attempt {attempt}: {error!r}") from error
    assert {"M103", "M104"} <= seen
