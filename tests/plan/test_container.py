# SPDX-License-Identifier: Apache-2.0
"""The container: what is written is read, and anything else is a PlanError with the right code."""

from __future__ import annotations

import hashlib
import os
import pathlib
import resource
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from tensorwright.errors import PlanError
from tensorwright.plan import write
from tensorwright.plan.format import BIG_BYTES, PREAMBLE_BYTES, to_json
from tensorwright.plan.read import open_container
from tensorwright.plan.write import pack, write_sections

RNG = np.random.default_rng(7)
SECTIONS = [
    ("meta", b'{"a":1}'),
    ("empty", b""),
    ("code:cpu", RNG.bytes(777)),
    ("weights:cpu", RNG.bytes(BIG_BYTES + 13)),
]
PACKED = pack(SECTIONS)


def code_of(data: bytes) -> str:
    with pytest.raises(PlanError) as caught:
        open_container(data)
    return caught.value.code


def forged(table: object, body: bytes = b"", **changes: int) -> bytes:
    """A container with a correct head digest around any table: what a hostile writer would make."""
    text = table if isinstance(table, bytes) else to_json(table)
    fields = {"major": 1, "minor": 0, "table": len(text), "size": PREAMBLE_BYTES + len(text) + len(body), "reserved": 0}
    head = struct.pack("<8sHHIQQ", b"\x89TWPLAN\n", *{**fields, **changes}.values())
    return head + hashlib.blake2b(head + text, digest_size=32).digest() + text + body


def test_sections_written_are_read_back_aligned(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.plan"
    write_sections(path, SECTIONS)
    container = open_container(path)
    assert [(s.name, bytes(container[s.name])) for s in container.sections] == SECTIONS
    assert all(s.offset % (4096 if s.size >= BIG_BYTES else 64) == 0 for s in container.sections)
    assert path.read_bytes() == PACKED


def test_section_of_mapped_file_outlives_the_container_and_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.plan"
    write_sections(path, SECTIONS)
    data = open_container(path)["weights:cpu"]
    path.unlink()
    assert bytes(data) == SECTIONS[3][1] and data.readonly


def test_missing_section_is_named() -> None:
    with pytest.raises(PlanError, match="section 'graph'") as caught:
        open_container(PACKED)["graph"]
    assert caught.value.code == "P106"


@pytest.mark.parametrize("size", [*range(70), 100, 500, 4095, 4096, 4097, len(PACKED) - 1])
def test_truncated_file_is_said_to_be_truncated(size: int) -> None:
    assert code_of(PACKED[:size]) == ("P101" if size == 0 else "P103")


def test_longer_file_is_damaged() -> None:
    assert code_of(PACKED + b"\0") == "P104"


def test_any_flipped_bit_is_found() -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    spots = {*range(600), *rng.integers(0, len(PACKED), 300).tolist(), len(PACKED) - 1}
    for spot in spots:
        data = bytearray(PACKED)
        data[spot] ^= 1 << int(rng.integers(0, 8))
        code = code_of(bytes(data))
        assert code in ("P101", "P102", "P103", "P104"), f"byte {spot}, seed {seed}"
        if spot >= 600:
            assert code == "P104", f"byte {spot}, seed {seed}"


def test_damaged_section_is_named() -> None:
    data = bytearray(PACKED)
    data[-1] ^= 1
    with pytest.raises(PlanError, match="P104 the plan is damaged: section 'weights:cpu'"):
        open_container(bytes(data))


def test_random_bytes_after_the_magic_never_crash() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        assert code_of(b"\x89TWPLAN\n" + rng.bytes(int(rng.integers(0, 200)))) in ("P102", "P103", "P104")


@pytest.mark.parametrize("data", [b"PK\x03\x04 a zip", b"\x08\x03\x12 an onnx model", b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_other_file_is_not_a_plan(data: bytes) -> None:
    assert code_of(data) == "P101"


def test_newer_major_version_is_refused_before_anything_else_is_read() -> None:
    with pytest.raises(PlanError, match=r"P102 the plan has format 2\.5; .* reads up to 1\.x"):
        open_container(forged([], major=2, minor=5))


def test_newer_minor_version_with_an_unknown_section_is_read() -> None:
    body = b"from the future"
    table = to_json([["new.thing", 256, len(body), f"blake2b:{hashlib.blake2b(body, digest_size=32).hexdigest()}"]])
    data = forged(table.ljust(256 - PREAMBLE_BYTES), body, minor=9)
    assert bytes(open_container(data)["new.thing"]) == body


@pytest.mark.parametrize(
    "table",
    [
        {},
        [1],
        [["x"]],
        [["x", 128, 0]],
        [["X", 128, 0, ""]],
        [["x", -64, 0, ""]],
        [["x", 1 << 62, 1 << 62, ""]],
        [["x", 0, 64, ""]],
        [["x", 128, -1, ""]],
        [["x", 128.0, 0, ""]],
        [["x", 65, 0, ""]],
        b"not json",
        b"[" * 5000,
        b'"text"',
        b"\xff\xfe",
    ],
)
def test_hostile_table_with_a_correct_digest_is_refused(table: object) -> None:
    assert code_of(forged(table, bytes(256))) in ("P104", "P106")


def test_two_sections_of_one_name_are_refused() -> None:
    empty = f"blake2b:{hashlib.blake2b(b'', digest_size=32).hexdigest()}"
    table = to_json([["x", 256, 0, empty], ["x", 256, 0, empty]])
    assert code_of(forged(table.ljust(192))) == "P104"


def test_absent_file_and_folder_are_reported(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path / "absent.plan", tmp_path):
        with pytest.raises(PlanError) as caught:
            open_container(path)
        assert (caught.value.code, caught.value.where) == ("P107", str(path))


def test_empty_file_is_not_a_plan(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "empty.plan"
    path.touch()
    with pytest.raises(PlanError, match="P101"):
        open_container(path)


# -- writing ------------------------------------------------------------------------------------------
@pytest.fixture
def old(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder with an older plan in it, which every failed save must leave alone."""
    path = tmp_path / "m.plan"
    path.write_bytes(b"old")
    yield path
    assert os.listdir(tmp_path) == ["m.plan"], "a temporary file is left"


def test_full_disk_leaves_the_old_file(old: pathlib.Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG_BYTES // 2, limit[1]))  # the kernel then refuses longer files
    try:
        with pytest.raises(PlanError, match="P108 the plan could not be written: File too large") as caught:
            write_sections(old, SECTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "unchanged" in str(caught.value) and old.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_interrupted_save_leaves_the_old_file(old: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def interrupt(*_: object) -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    def interrupt_now(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((write, "_chunks", interrupt) if call == "write" else (os, "fsync", interrupt_now)))
    with pytest.raises(KeyboardInterrupt):
        write_sections(old, SECTIONS)
    assert old.read_bytes() == b"old"


def test_save_replaces_and_keeps_permissions(old: pathlib.Path) -> None:
    old.chmod(0o640)
    write_sections(old, SECTIONS)
    assert old.read_bytes() == PACKED and old.stat().st_mode & 0o777 == 0o640


def test_save_through_a_link_keeps_the_link(tmp_path: pathlib.Path) -> None:
    real, link = tmp_path / "real.plan", tmp_path / "link.plan"
    link.symlink_to(real)
    write_sections(link, SECTIONS)
    assert link.is_symlink() and real.read_bytes() == PACKED


def test_new_file_gets_the_permissions_of_any_new_file(tmp_path: pathlib.Path) -> None:
    write_sections(tmp_path / "a.plan", SECTIONS)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.plan").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("place", ["no/such/folder/a.plan", "folder", "pipe"])
def test_save_to_an_impossible_place_is_a_plan_error(tmp_path: pathlib.Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PlanError) as caught:
        write_sections(tmp_path / place, SECTIONS)
    assert caught.value.code == "P108"
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
