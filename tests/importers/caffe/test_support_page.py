# SPDX-License-Identifier: Apache-2.0
"""The table of Caffe layers is about all layers that are read."""

from __future__ import annotations

import pathlib

import pytest

import caffe_support
from tensorwright.compare.check import check
from tensorwright.importers.caffe.registry import ALIASES, ALL_LAYERS, BY_NAME, find_layer


def test_every_layer_type_has_one_function_a_meaning_and_a_sample() -> None:
    assert len(BY_NAME) == len(ALL_LAYERS)
    assert set(caffe_support.SAMPLES) == set(BY_NAME)
    assert all((entry.translate.__doc__ or "").strip() for entry in ALL_LAYERS)
    assert all(find_layer(alias) is BY_NAME[name] for alias, name in ALIASES.items())


@pytest.mark.parametrize("kind", caffe_support.SAMPLES)
def test_sample_is_compiled(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sample.prototxt"
    path.write_text(caffe_support.sample_text(kind))
    checked = check(path, target="cpu")
    assert not checked.problems and not checked.host_steps, checked
