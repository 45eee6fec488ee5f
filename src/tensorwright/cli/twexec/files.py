# SPDX-License-Identifier: Apache-2.0
"""The files of a command line: those to read must be there and those to write must be possible, before a long build."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterable, Iterator

from tensorwright.cli.twexec.options import Options
from tensorwright.errors import TensorwrightError


def check_files(options: Options) -> None:
    """Raise TensorwrightError T123 with all files that cannot be read, written, or would replace one that is read."""
    reads, writes = _reads(options), _writes(options)
    problems = [f"--{flag}: {path}: {why}" for flag, path in reads if (why := _unreadable(path))]
    problems += [f"--{flag}: {path}: {why}" for flag, path in writes if (why := _unwritable(path))]
    known = {os.path.realpath(path): flag for flag, path in reads}
    for flag, path in writes:
        other = known.setdefault(os.path.realpath(path), flag)
        if other != flag:
            problems.append(f"--{flag}: {path}: it is the file of --{other}")
    if problems:
        raise TensorwrightError(
            "files of the command line cannot be used",
            why=problems,
            do="check the paths, and the permissions of the folders",
            code="T123",
        )


def _reads(options: Options) -> list[tuple[str, str]]:
    model, build = options.model, options.build
    named = {model.flag: model.path, "model": model.weights if model.flag else None, "calib": build.calib}
    found = [(flag, path) for flag, path in named.items() if path]
    if build.load:
        found.append(("loadEngine", build.load))
    return [*found, *(("loadInputs", path) for path in options.inference.load_inputs.values())]


def _writes(options: Options) -> list[tuple[str, str]]:
    build, report = options.build, options.report
    named = {
        "saveEngine": build.save,
        "timingCacheFile": build.timing_cache,
        "exportTimes": report.export_times,
        "exportOutput": report.export_output,
        "exportProfile": report.export_profile,
        "exportLayerInfo": report.export_layers,
    }
    return [(flag, path) for flag, path in named.items() if path]


def _unreadable(path: str) -> str:
    if not os.path.exists(path):
        return f"there is no such file (looked in {pathlib.Path(path).absolute().parent})"
    return "" if os.access(path, os.R_OK) else "it may not be read"


def _unwritable(path: str) -> str:
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        return "its folder does not exist"
    if os.path.exists(path):
        if not os.path.isfile(path):
            return "it is there already, and is no regular file"
        if not os.access(path, os.W_OK):
            return "it may not be written"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "its folder may not be written"


@contextlib.contextmanager
def replaced(path: str) -> Iterator[pathlib.Path]:
    """A new file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Raises TensorwrightError T111 when that fails.
    """
    target = pathlib.Path(os.path.realpath(path))
    temporary = target.parent / f".{target.name[:100]}.{secrets.token_hex(4)}.part"
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise TensorwrightError(
            "a file cannot be written",
            where=path,
            why=error.strerror or str(error),
            do="check free space and permissions of the folder",
            code="T111",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str, data: object) -> None:
    """Write JSON, whole or not at all. Raises TensorwrightError T111."""
    with replaced(path) as file, file.open("w", encoding="utf-8") as stream:
        json.dump(data, stream, allow_nan=False, indent=1)
        stream.write("\n")


def write_rows(path: str, rows: Iterable[object]) -> None:
    """Write a JSON list, one row after the other, whole or not at all. Raises TensorwrightError T111."""
    with replaced(path) as file, file.open("w", encoding="utf-8") as stream:
        before = "[\n"
        for row in rows:
            stream.write(before + json.dumps(row, allow_nan=False))
            before = ",\n"
        stream.write("\n]\n" if before.startswith(",") else "[]\n")
