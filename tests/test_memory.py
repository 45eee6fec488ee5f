# SPDX-License-Identifier: Apache-2.0
"""Mapped files, large arrays in files, and finding equal bytes."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tensorwright import memory
from tensorwright.memory import Contents, anonymous, as_bytes, filed, has_changed, is_same, map_file, pieces, release


def resident_files() -> int:
    """Bytes of mapped files in this process's memory."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssFile:")[2].split()[0]) << 10


def test_a_mapped_file_is_read_only_and_outlives_its_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(200)))
    data = map_file(path)
    path.unlink()
    assert data.tolist() == list(range(200)) and not data.flags.writeable
    assert not map_file_of(tmp_path, b"").size


def map_file_of(folder: pathlib.Path, content: bytes) -> memory.Array:
    path = folder / "other"
    path.write_bytes(content)
    return map_file(path)


def test_release_gives_pages_back_and_reads_them_again(tmp_path: pathlib.Path) -> None:
    path, size = tmp_path / "data", 32 << 20
    path.write_bytes(np.arange(size // 8).tobytes())
    values = map_file(path).view(np.int64)
    before = resident_files()
    assert int(values.sum()) == (size // 8) * (size // 8 - 1) // 2
    assert resident_files() - before > size // 2
    part = np.lib.stride_tricks.as_strided(values[1000:], (size // 8 - 1000,), (8,))
    release(part)
    assert resident_files() - before < size // 4
    assert values[-1] == size // 8 - 1
    own = np.ones(1 << 20)
    release(own)
    assert own.all()


def test_a_change_of_a_mapped_file_is_noticed_and_a_replacement_is_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(9000))
    part = map_file(path)[100:].view(np.uint32)[::2]
    (tmp_path / "new").write_bytes(b"another")
    (tmp_path / "new").replace(path)
    assert not has_changed(part) and not has_changed(np.ones(3))
    again = map_file(path)
    with path.open("ab") as file:
        file.write(b"more")
    assert has_changed(again) and has_changed(memoryview(again)[2:])  # type: ignore[arg-type]


def test_large_arrays_are_filed_in_c_order(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1 << 12)
    monkeypatch.setattr(memory, "PIECE", 1000)
    monkeypatch.setenv("TENSORWRIGHT_CACHE", str(tmp_path / "new"))
    array = np.random.default_rng().standard_normal((60, 50)).T
    stored = filed(array)
    np.testing.assert_array_equal(stored, array)
    assert stored.flags.c_contiguous and not stored.flags.writeable and not list((tmp_path / "new").iterdir())
    assert filed(stored) is stored
    small = np.ones((4, 4))
    assert filed(small) is small


def test_what_cannot_be_filed_stays_in_memory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1)
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("TENSORWRIGHT_CACHE", str(tmp_path / "file"))
    array = np.ones(5)
    assert filed(array) is array


def test_anonymous_memory_is_zero_and_aligned() -> None:
    data = np.frombuffer(anonymous(3 << 20), np.uint8)
    assert data.size == 3 << 20 and not data.any() and data.ctypes.data % 4096 == 0 and data.flags.writeable


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 14, (1 << 14) + 1, 300_000])
def test_contents_tell_equal_bytes_from_nearly_equal_ones(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PIECE", 4096)
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    contents: Contents[str] = Contents()
    assert contents.find(data) is None
    contents.note(data, "first")
    contents.note(data.copy(), "second")
    assert contents.find(data.copy()) == "first" and is_same(data, data.copy())
    for at in {0, size // 2, size // 3 + 1, size - 1} if size > 1 else ():
        other = data.copy()
        other[at] ^= 1
        assert contents.find(other) is None and not is_same(data, other)


def test_pieces_are_the_bytes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PIECE", 7)
    array = np.arange(24, dtype=np.int16).reshape(4, 6).T
    assert b"".join(pieces(array)) == array.tobytes() == as_bytes(array).tobytes()
    assert [len(piece) for piece in pieces(bytes(15))] == [7, 7, 1]
