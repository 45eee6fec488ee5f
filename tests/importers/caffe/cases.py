# SPDX-License-Identifier: Apache-2.0
"""One layer with random bottoms and blobs, against its oracle."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.importers.caffe.oracle import Oracle
from tests.importers.caffe.writer import Array, check, layer

RNG = np.random.default_rng()

FIELDS = {
    "ArgMax": "argmax_param",
    "BN": "bn_param",
    "BatchNorm": "batch_norm_param",
    "DepthwiseConvolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "Normalize": "norm_param",
    "PReLU": "prelu_param",
    "ROIPooling": "roi_pooling_param",
    "ShuffleChannel": "shuffle_channel_param",
    "TanH": "tanh_param",
}
"""Of layers whose parameter message is not called after their type."""


@dataclass(frozen=True)
class Case:
    """A layer: shapes of its bottoms, fields of its parameter, shapes of its blobs, and what it should compute.

    Bottoms are normal numbers, or integers below `most`; `positive` makes bottoms and blobs positive.
    """

    kind: str
    shapes: Sequence[tuple[int, ...]]
    p: Mapping[str, Any] = field(default_factory=dict)
    blobs: Sequence[tuple[int, ...]] = ()
    oracle: Oracle | None = None
    tops: int = 1
    most: int = 0
    positive: bool = False


def numbers(case: Case, shape: tuple[int, ...]) -> Array:
    if case.most:
        return RNG.integers(0, case.most, shape).astype(np.float32)
    values = RNG.standard_normal(shape)
    return (abs(values) + 0.2 if case.positive else values).astype(np.float32)


def check_case(case: Case, folder: pathlib.Path, given: Mapping[int, Array] | None = None) -> None:
    """The layer gives what the oracle gives; `given` are bottoms by number."""
    given = given or {}
    bottoms = [given.get(i, numbers(case, shape)) for i, shape in enumerate(case.shapes)]
    blobs = [np.asarray(RNG.standard_normal(shape), np.float32) for shape in case.blobs]
    if case.positive:
        blobs = [abs(blob) + np.float32(0.2) for blob in blobs]
    assert case.oracle is not None
    expected = case.oracle(bottoms, case.p, blobs)[: case.tops]
    names, tops = [f"x{i}" for i in range(len(bottoms))], [f"y{i}" for i in range(case.tops)]
    param = {FIELDS.get(case.kind, f"{case.kind.lower()}_param"): case.p} if case.p else {}
    check(
        folder,
        [layer(case.kind, names, tops, "layer", **param)],
        dict(zip(names, bottoms, strict=True)),
        dict(zip(tops, expected, strict=True)),
        {"layer": blobs} if blobs else None,
    )
