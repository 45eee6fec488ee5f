# SPDX-License-Identifier: Apache-2.0
"""What README and docs show is what happens: commands run, outputs are real, links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

import onnx
import pytest

import generate
import onnx_support
from tensorwright.importers.onnx.registry import VERSIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def fenced(path: pathlib.Path, language: str) -> list[str]:
    """The bodies of the page's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def in_root(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def playground(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder where the examples' files are found and whatever a page writes is thrown away."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_links_of_page_lead_somewhere(page: pathlib.Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [target for target in targets if target and "://" not in target and not (page.parent / target).exists()]
    assert not missing, missing


SLOW_PAGES = ("onnx-support.md",)  # some ten seconds


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_PAGES else []) for name in generate.PAGES]
)
def test_generated_page_is_up_to_date(name: str) -> None:
    text = (generate.DOCS / name).read_text(encoding="utf-8")
    if name == "onnx-support.md" and f"onnx {onnx.__version__}" not in text:
        pytest.skip("the page was written with another version of onnx, which has other test cases")
    assert text == generate.PAGES[name](), "run `make docs`"


def test_support_page_has_a_row_for_every_registered_operator() -> None:
    text = (generate.DOCS / "onnx-support.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "versions" not in line
    ]
    assert all(len(row) == 4 for row in rows)
    ways = ("compiled", "decomposed", "at import", "host: ")
    assert all(row[3].startswith(ways) for row in rows), [row for row in rows if not row[3].startswith(ways)]
    assert all(row[2] != "-" for row in rows if row[3].startswith(("compiled", "decomposed")))
    assert {key.rpartition(".")[2] for key in VERSIONS} <= {row[0] for row in rows}, "run `make docs`"


@pytest.mark.slow
def test_every_registered_operator_has_a_sample() -> None:
    assert not onnx_support.without_sample(), "give these a model in the CASES of a test in tests/importers"


def test_readme_python_example_prints_what_it_shows(playground: pathlib.Path) -> None:
    (code,), (shown, *_) = fenced(ROOT / "README.md", "python"), fenced(ROOT / "README.md", "text")
    assert len([line for line in code.splitlines() if line.strip()]) <= 6
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102  the point of the test
    assert printed.getvalue() == shown


ABSTRACT = ("run-many-shapes.md",)  # its code is about a model that the reader has

RUNNING = [page for page in PAGES if ROOT / "docs" in page.parents and page.name not in ABSTRACT]


@pytest.mark.parametrize("page", RUNNING, ids=in_root)
def test_python_blocks_of_page_run(page: pathlib.Path, playground: pathlib.Path) -> None:
    names: dict[str, object] = {}
    for code in fenced(page, "python"):
        exec(compile(code, in_root(page), "exec"), names)  # noqa: S102


def commands(page: pathlib.Path) -> list[str]:
    lines = "".join(fenced(page, "sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith("tensorwright ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=in_root)
def test_commands_of_page_run_in_order(page: pathlib.Path, playground: pathlib.Path) -> None:
    for line in commands(page):
        words = [sys.executable, "-m", "tensorwright.cli.main", *shlex.split(line)[1:]]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"^make ([a-z-]+)", "".join(fenced(ROOT / "README.md", "sh")), re.M)
    assert {"demo", "test"} <= set(named)
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in named)
