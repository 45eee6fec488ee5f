# SPDX-License-Identifier: Apache-2.0
"""Write a plan file so that a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tensorwright.errors import PlanError
from tensorwright.memory import pieces
from tensorwright.plan.format import Bytes, Data, layout, parts_of


def pack(sections: Sequence[tuple[str, Data]]) -> bytes:
    """The whole container in memory."""
    return b"".join(_chunks(sections))


def write_sections(path: str | os.PathLike[str], sections: Sequence[tuple[str, Data]]) -> None:
    """Write a container to `path`, replacing a file there atomically.

    On any failure (full disk, interrupt) the old file stays, no temporary file remains, and PlanError P108
    says what the system reported. Names must be unique; order is kept.
    """
    path = Path(os.path.realpath(path))  # through a link: the link stays
    try:
        with _temporary(path) as file:
            for chunk in _chunks(sections):
                file.write(chunk)
    except OSError as error:
        raise PlanError(
            f"the plan could not be written: {error.strerror or error}",
            where=str(path),
            why="a file that was there before is unchanged" if path.exists() else (),
            do="check free space and permissions of the folder",
            code="P108",
        ) from error


def _chunks(sections: Sequence[tuple[str, Data]]) -> Iterator[Bytes]:
    head, table = layout(sections)
    yield head
    end = len(head)
    for section, (_, data) in zip(table, sections, strict=True):
        yield bytes(section.offset - end)
        for part in parts_of(data):
            yield from pieces(part)
        end = section.offset + section.size


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A new file in the folder of `path` that takes its place when the block ends well, and vanishes otherwise."""
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"{path.name} is not a regular file")
    temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}.part"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
    except BaseException:  # also KeyboardInterrupt: nothing of us may stay behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable where the system can (a folder cannot be opened everywhere)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
