# SPDX-License-Identifier: Apache-2.0
"""A sample of the damaged files of `tests.fuzz.files`, and that its limits do find what they are there for."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.fuzz import files
from tests.fuzz.mutate import Case, written

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = os.environ.get("TENSORWRIGHT_CASES", "60").replace("all", "2000")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


@pytest.mark.slow
def test_damaged_files_give_typed_errors_or_right_results(tmp_path: pathlib.Path) -> None:
    """In a process without threads, which may fork. The sample is another one every day, and named when it fails."""
    start = 0 if COUNT == "2000" else int(time.strftime("%j")) * 60 % 2000
    log = tmp_path / "log.jsonl"
    words = [sys.executable, "-m", "tests.fuzz.files", "--count", COUNT, "--start", str(start), "--json", str(log)]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    outcomes = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(outcomes) == int(COUNT)
    assert {"refused", "ran"} <= {outcome["kind"] for outcome in outcomes}


@pytest.mark.slow
def test_case_depends_on_its_number_only(tmp_path: pathlib.Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cases = []
        for number in range(12):
            folder = tmp_path / name / str(number)
            folder.mkdir()
            case = written(number, folder)
            cases.append((case.model, case.path.read_bytes().replace(str(folder).encode(), b"")))
        texts.append(cases)
    assert texts[0] == texts[1] and len({text for _, text in texts[0]}) == 12


def sound(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "m.onnx"
    path.write_bytes((ROOT / "examples" / "digits" / "lenet_digits.onnx").read_bytes())
    return path


def _work_for_ever() -> None:
    while True:
        pass


def _ask_for_too_much() -> None:
    np.empty(files.SLACK_BYTES + (64 << 20), np.uint8)  # never touched


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "crash": (lambda: os.kill(os.getpid(), 11), "SIGSEGV in import"),
    "untyped": (lambda: {}["missing"], "KeyError"),
    "hang": (_work_for_ever, "SIGXCPU in import"),
    "memory": (_ask_for_too_much, "MemoryError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_kind_of_fault_is_found(name: str, tmp_path: pathlib.Path) -> None:
    """What an importer with this fault would do, in a process of its own."""
    _, what = FAULTS[name]
    code = (
        "import pathlib, sys\n"
        "from tests.fuzz import files, test_fuzz_files\n"
        "from tests.fuzz.mutate import Case\n"
        "files.SECONDS = 1\n"
        f"files.import_onnx = lambda path: test_fuzz_files.FAULTS[{name!r}][0]()\n"
        f"outcome = files._supervised(Case(0, 'lenet', 'nothing', pathlib.Path({str(sound(tmp_path))!r})))\n"
        "sys.stdout.write(f'{outcome.kind} {outcome.what}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("FAILED") and what in done.stdout, done.stdout + done.stderr


def test_data_outside_of_the_folder_is_a_fault(tmp_path: pathlib.Path) -> None:
    case = Case(0, "lenet", "nothing", sound(tmp_path), escapes=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_limit", lambda size: None)
        kind, what = files._outcome(case, lambda stage: None)
    assert kind == "FAILED" and "outside" in what
