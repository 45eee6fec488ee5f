# SPDX-License-Identifier: Apache-2.0
"""Runs twexec in this process, and reads what it prints as a script would."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re

from tensorwright.cli.twexec.main import main

ROOT = pathlib.Path(__file__).resolve().parents[3]
LENET = ROOT / "examples" / "digits" / "lenet_digits.onnx"
PROTOTXT = ROOT / "examples" / "lenet" / "mnist.prototxt"
CAFFEMODEL = ROOT / "examples" / "lenet" / "mnist.caffemodel"

FAST = ("--builderOptimizationLevel=0", "--duration=0", "--iterations=2", "--warmUp=0")
STAMP = r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] "
NUMBER = r"\d+(?:\.\d+)?"


def twexec(*words: object, code: int = 0) -> str:
    """Standard output of a run that ends with `code`; its first and last lines are as trtexec's are."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = main([str(word) for word in words])
    text = printed.getvalue()
    assert found == code, text
    lines = text.splitlines()
    running = re.fullmatch(r"&&&& RUNNING (Tensorwright\.twexec \[Tensorwright v\d{4,}\] # twexec .*)", lines[0])
    assert running, lines[0]
    assert lines[-1] == f"&&&& {'FAILED' if code else 'PASSED'} {running.group(1)}"
    return text


def quick(*words: object, code: int = 0) -> str:
    """The same with few queries and without tuning, where the words do not say otherwise."""
    given = {str(word).partition("=")[0] for word in words}
    return twexec(*(word for word in FAST if word.partition("=")[0] not in given), *words, code=code)


def failed(*words: object) -> str:
    """What a run that fails says why: its [E] lines."""
    text = quick(*words, code=1)
    errors = re.findall(rf"^{STAMP}\[E\] (.*)$", text, re.M)
    assert re.match(r"[A-Z]\d{3} ", errors[0]), text
    assert "X101" not in errors[0], text
    return "\n".join(errors)


def value(text: str, name: str) -> float:
    """The number after `name:`."""
    return float(re.search(rf"\[I\] {re.escape(name)}: ({NUMBER})", text).group(1))


def figures(text: str, name: str) -> dict[str, float]:
    """The summary line of one part: min, max, mean, median, percentile(90%), ..., in ms."""
    line = re.search(rf"^{STAMP}\[I\] {re.escape(name)}: (.*)$", text, re.M).group(1)
    assert re.fullmatch(rf"(?:[a-z]+(?:\([\d.]+%\))? = {NUMBER} ms(?:, |$))+", line), line
    return {key: float(number) for key, number in re.findall(rf"([a-z]+(?:\([\d.]+%\))?) = ({NUMBER}) ms", line)}
