# SPDX-License-Identifier: Apache-2.0
"""Environment variables are typed, checked and listed."""

from __future__ import annotations

import logging
import pathlib
import re

import pytest

import tensorwright
from tensorwright import knobs
from tensorwright.errors import TensorwrightError

BAD_TEXT = {
    "TENSORWRIGHT_THREADS": ["0", "-1", "two", "1.5"],
    "TENSORWRIGHT_STOP_AFTER_EDITS": ["-1", "x"],
    "TENSORWRIGHT_CHECK": ["yes", "edits"],
    "TENSORWRIGHT_LOG": ["pases"],
}


def test_knob_without_variable_gives_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for knob in knobs.ALL:
        monkeypatch.delenv(knob.name, raising=False)
        assert knob.get() == knob.default
        monkeypatch.setenv(knob.name, "  ")
        assert knob.get() == knob.default


def test_knob_text_is_parsed_to_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"THREADS": "3", "STOP_AFTER_EDITS": "0", "CHECK": "Edit", "LOG": "passes, tune", "CACHE": "x/y"}
    for name, text in texts.items():
        monkeypatch.setenv(f"TENSORWRIGHT_{name}", text)
    assert knobs.THREADS.get() == 3
    assert knobs.STOP_AFTER_EDITS.get() == 0
    assert knobs.CHECK.get() == "edit"
    assert knobs.LOG.get() == ("passes", "tune")
    assert knobs.CACHE.get() == pathlib.Path("x/y")
    monkeypatch.setenv("TENSORWRIGHT_LOG", "all")
    assert knobs.LOG.get() == knobs.LOG_TOPICS


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD_TEXT.items() for text in texts])
def test_knob_with_bad_text_raises_typed_error(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    (knob,) = (k for k in knobs.ALL if k.name == name)
    with pytest.raises(TensorwrightError) as caught:
        knob.get()
    assert caught.value.code == "T101"
    assert name in str(caught.value) and text in str(caught.value)


def test_knob_listing_shows_name_value_and_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORWRIGHT_THREADS", "2")
    rows = {row["name"]: row for row in (knob.as_dict() for knob in knobs.ALL)}
    assert rows["TENSORWRIGHT_THREADS"]["value"] == 2 and rows["TENSORWRIGHT_THREADS"]["is_set"] is True
    assert all(row["help"] for row in rows.values())


def test_only_knobs_reads_the_environment() -> None:
    package = pathlib.Path(tensorwright.__file__).parent
    reads = re.compile(r"os\.environ|getenv\(")
    assert {path.name for path in package.rglob("*.py") if reads.search(path.read_text())} == {"knobs.py"}


def test_every_variable_in_the_package_is_a_knob() -> None:
    package = pathlib.Path(tensorwright.__file__).parent
    found = {name for path in package.rglob("*.py") for name in re.findall(r"TENSORWRIGHT_[A-Z_]+", path.read_text())}
    assert found <= {knob.name for knob in knobs.ALL}


def test_logger_of_a_named_topic_writes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENSORWRIGHT_LOG", "lower")
    log = knobs.logger("lower")
    try:
        log.debug("a line")
        assert capsys.readouterr().err == "tensorwright.lower: a line\n"
        assert knobs.logger("lower") is log and len(log.handlers) == 1
    finally:
        log.handlers.clear()
        log.setLevel(logging.NOTSET)
        log.propagate = True
