# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: every way in which tensors are stored, and what is said of damaged ones."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tensorwright.errors import ModelError
from tensorwright.importers.tensorflow.bundle import Bundle, parse_part
from tensorwright.importers.tensorflow.checksum import crc32c
from tensorwright.importers.tensorflow.schema import BundleEntry, BundleHeader
from tensorwright.importers.tensorflow.table import unpacked
from tensorwright.importers.tensorflow.tensors import UnsupportedTypeError
from tensorwright.importers.wire import MalformedError
from tests.importers.tensorflow import bundles
from tests.importers.tensorflow.bundles import BundleWriter

Array = np.ndarray[Any, Any]
rng = np.random.default_rng()


def random(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def refused(prefix: pathlib.Path, key: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        Bundle(prefix).array(key or "")
    return caught.value


# -- checksums and packing ------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 9, 255, 1023, 1024, 1025, 4099, 70_001])
def test_checksum_is_that_of_the_bits(size: int) -> None:
    data = rng.integers(0, 256, size).astype(np.uint8)
    assert crc32c(data) == bundles.crc32c(data.tobytes())


def test_checksum_of_known_texts() -> None:
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    assert crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA  # RFC 3720, B.4


def test_unpacking_gives_what_was_packed() -> None:
    for size in (0, 1, 59, 60, 61, 200, 5000):
        data = bytes(rng.integers(0, 3, size).astype(np.uint8)) + b"abcdefgh" * 20
        assert unpacked(bundles.snappy(data)) == data


def test_unpacking_of_copies_that_overlap() -> None:
    assert unpacked(b"\x0a\x00a" + bytes([(9 - 4) << 2 | 1, 1])) == b"a" * 10
    assert unpacked(b"\x06\x04ab" + bytes([3 << 2 | 3, 2, 0, 0, 0])) == b"ababab"


@pytest.mark.parametrize(
    "data", [b"", b"\x05", b"\x05\x10ab", b"\x05\x01\x09", b"\x02\x0cabcd", b"\xff" * 9, b"\x04\xfc"]
)
def test_packed_nonsense_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpacked(data)


def test_hostile_size_of_a_packed_block_allocates_nothing() -> None:
    with pytest.raises(MalformedError, match="bytes"):
        unpacked(bundles.varint(1 << 40) + b"\x00a")


# -- tensors --------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True])
def test_all_tensors_of_all_files(tmp_path: pathlib.Path, packed: bool) -> None:
    writer, want = BundleWriter(shards=3), {}
    for number, dtype in enumerate(["float32", "float64", "int32", "uint8", "int64", "bool", "float16", "int8"] * 4):
        shape = [(), (3,), (2, 0), (2, 3, 5), (700,)][number % 5]
        want[f"layer_{number}/kernel"] = (rng.standard_normal(shape) * 3).astype(dtype)
        writer.add(f"layer_{number}/kernel", want[f"layer_{number}/kernel"], shard=number % 3)
    bundle = Bundle(writer.save(tmp_path / "variables" / "variables", packed=packed))
    assert sorted(bundle.keys()) == sorted(want)
    for key, array in want.items():
        assert key in bundle and bundle.array(key).dtype == array.dtype
        np.testing.assert_array_equal(bundle.array(key), array)
    assert "other" not in bundle


def test_arrays_are_views_of_the_file(tmp_path: pathlib.Path) -> None:
    writer = BundleWriter()
    writer.add("w", random(64, 64))
    array = Bundle(writer.save(tmp_path / "v")).array("w")
    assert not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize("full", [False, True])
def test_tensor_in_parts(tmp_path: pathlib.Path, full: bool) -> None:
    writer, array = BundleWriter(), random(10, 4)
    writer.add_parts("embedding", array, [3, 7], full=full)
    bundle = Bundle(writer.save(tmp_path / "v"))
    assert bundle.keys() == ["embedding"]
    np.testing.assert_array_equal(bundle.array("embedding"), array)
    np.testing.assert_array_equal(bundle.array("embedding", parse_part("10 4 3,4:-")), array[3:7])
    np.testing.assert_array_equal(bundle.array("embedding", parse_part("10 4 2,6:1,2")), array[2:8, 1:3])


def test_part_of_a_whole_tensor(tmp_path: pathlib.Path) -> None:
    writer, array = BundleWriter(), random(10, 4)
    writer.add("w", array)
    bundle = Bundle(writer.save(tmp_path / "v"))
    np.testing.assert_array_equal(bundle.array("w", parse_part("10 4 5,5:0,4")), array[5:])
    assert parse_part("") is None
    with pytest.raises(ModelError, match="M108"):
        bundle.array("w", parse_part("10 4 5,6:-"))
    for text in ("10 4 0,5", "10 4 a,b:-", "10 -"):
        with pytest.raises(ValueError):
            parse_part(text + ":")


def test_text(tmp_path: pathlib.Path) -> None:
    writer = BundleWriter()
    writer.add_text("graph", b"x" * 300)
    writer.add("w", random(3))
    bundle = Bundle(writer.save(tmp_path / "v"))
    assert bundle.text("graph") == b"x" * 300
    with pytest.raises(UnsupportedTypeError, match="string"):
        bundle.array("graph")
    with pytest.raises(ModelError, match="M108"):
        bundle.text("w")


# -- damage ---------------------------------------------------------------------------------------
def test_absent_and_foreign_index(tmp_path: pathlib.Path) -> None:
    assert refused(tmp_path / "v").code == "M101"
    for data, code in ((b"", "M102"), (b"x" * 20, "M103"), (b"x" * 200, "M103"), (b"PK\x03\x04" + b"x" * 99, "M103")):
        (tmp_path / "v.index").write_bytes(data)
        assert refused(tmp_path / "v").code == code


def test_big_endian_and_no_shards(tmp_path: pathlib.Path) -> None:
    for header in (
        BundleHeader(num_shards=1, endianness=1),
        BundleHeader(num_shards=0),
        BundleHeader(num_shards=1 << 30),
    ):
        writer = BundleWriter()
        writer.entries[b""] = header.SerializeToString()
        assert refused(writer.save(tmp_path / "v")).code == "M103"


def test_absent_tensor_and_absent_file(tmp_path: pathlib.Path) -> None:
    writer = BundleWriter(shards=2)
    writer.add("w", random(3), shard=1)
    prefix = writer.save(tmp_path / "v")
    assert refused(prefix, "u").code == "M108"
    prefix.with_name("v.data-00001-of-00002").unlink()
    error = refused(prefix, "w")
    assert error.code == "M108" and "v.data-00001-of-00002" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1 << 60},
        {"size": 1 << 60},
        {"offset": -5},
        {"size": -5},
        {"shard_id": 7},
        {"shard_id": -1},
        {"size": 8},
        {"crc32c": 1},
    ],
)
def test_entries_that_contradict_their_file(tmp_path: pathlib.Path, change: dict[str, int]) -> None:
    writer = BundleWriter()
    writer.add("w", random(3))
    entry = BundleEntry.FromString(writer.entries[b"w"])
    for name, value in change.items():
        setattr(entry, name, value)
    writer.entries[b"w"] = entry.SerializeToString()
    assert refused(writer.save(tmp_path / "v"), "w").code == "M108"


def test_huge_and_negative_shapes_allocate_nothing(tmp_path: pathlib.Path) -> None:
    for sizes in ((1 << 40, 1 << 20), (-1, -3), (3, -1)):
        for parts in (False, True):
            writer = BundleWriter()
            writer.add_parts("w", random(4, 2), [2], full=False) if parts else writer.add("w", random(3))
            entry = BundleEntry.FromString(writer.entries[b"w"])
            del entry.shape.dim[:]
            for size in sizes:
                entry.shape.dim.add(size=size)
            writer.entries[b"w"] = entry.SerializeToString()
            assert refused(writer.save(tmp_path / "v"), "w").code == "M108"


def test_parts_that_leave_a_gap(tmp_path: pathlib.Path) -> None:
    writer = BundleWriter()
    writer.add_parts("w", random(6, 2), [3], full=False)
    entry = BundleEntry.FromString(writer.entries[b"w"])
    del entry.slices[1]
    writer.entries[b"w"] = entry.SerializeToString()
    error = refused(writer.save(tmp_path / "v"), "w")
    assert error.code == "M108" and "do not make up" in str(error)


def test_changed_bytes_of_a_tensor_are_noticed(tmp_path: pathlib.Path) -> None:
    writer = BundleWriter()
    writer.add("w", random(50, 50))
    writer.data[0][rng.integers(len(writer.data[0]))] ^= 4
    error = refused(writer.save(tmp_path / "v"), "w")
    assert error.code == "M108" and "checksum" in str(error)


def test_every_truncation_and_any_changed_byte_of_the_index(tmp_path: pathlib.Path) -> None:
    writer, arrays = BundleWriter(), {f"w{i}": random(3) for i in range(12)}
    for key, array in arrays.items():
        writer.add(key, array)
    prefix = writer.save(tmp_path / "v")
    file = tmp_path / "v.index"
    whole = file.read_bytes()
    for size in range(1, len(whole)):
        file.write_bytes(whole[:size])
        assert refused(prefix).code == "M103"
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            bundle = Bundle(prefix)
        except ModelError as error:
            assert error.code == "M103"
            continue
        for key, array in arrays.items():  # only padding may change without notice
            np.testing.assert_array_equal(bundle.array(key), array)
