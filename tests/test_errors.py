# SPDX-License-Identifier: Apache-2.0
"""The form of every error, and the promise that codes are stable."""

from __future__ import annotations

import inspect
import json

import pytest

import generate
from tensorwright import errors
from tensorwright.errors import BuildError, InputError, TensorwrightError, UnsupportedError

CLASSES = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, TensorwrightError)]


def test_error_with_every_part_prints_what_where_why_do() -> None:
    error = BuildError(
        "no kernel can run node 'head'",
        where="model.onnx",
        why=["gemm: K=7", "direct: rank 1"],
        do="raise the limit",
        code="B102",
    )
    assert str(error) == (
        "B102 no kernel can run node 'head'\n"
        "  where  model.onnx\n"
        "  why    gemm: K=7\n"
        "  why    direct: rank 1\n"
        "  do     raise the limit"
    )


def test_error_with_what_alone_is_one_line_with_the_default_code() -> None:
    assert str(InputError("wrong shape")) == "I100 wrong shape"


def test_error_as_dict_survives_json() -> None:
    error = InputError("wrong shape", where="input 'x'", why="expected [1,3], given [3]", code="I102")
    assert json.loads(json.dumps(error.as_dict())) == {
        "code": "I102",
        "error": "InputError",
        "what": "wrong shape",
        "where": "input 'x'",
        "why": ["expected [1,3], given [3]"],
        "do": "",
    }


def test_unsupported_error_lists_every_problem() -> None:
    error = UnsupportedError("2 ops are not supported", problems=["node a: Foo", "node b: Bar"])
    assert error.problems == ("node a: Foo", "node b: Bar")
    assert str(error).count("\n  why    ") == 2


def test_default_codes_are_distinct() -> None:
    codes = [kind.default_code for kind in CLASSES]
    assert len(set(codes)) == len(codes), codes


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_class_says_when_it_is_raised(kind: type[TensorwrightError]) -> None:
    assert kind.__doc__ and kind.__doc__ != TensorwrightError.__doc__ or kind is TensorwrightError


def test_raised_codes_have_the_letter_of_their_class() -> None:
    wrong = [
        f"{item.place}: {item.kind} with {item.code}"
        for item in generate.raised()
        if item.kind and item.code[0] != getattr(errors, item.kind).default_code[0]
    ]
    assert not wrong, wrong


def test_raised_code_belongs_to_one_class() -> None:
    owners: dict[str, set[str]] = {}
    for item in generate.raised():
        if item.kind:
            owners.setdefault(item.code, set()).add(item.kind)
    shared = {code: kinds for code, kinds in owners.items() if len(kinds) > 1}
    assert not shared, shared


def test_raised_codes_are_documented() -> None:
    page = (generate.DOCS / "errors.md").read_text(encoding="utf-8")
    missing = sorted({item.code for item in generate.raised() if f"| {item.code} |" not in page})
    assert not missing, f"{missing} are raised but not in docs/errors.md: run `make docs`"
