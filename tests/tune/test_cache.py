# SPDX-License-Identifier: Apache-2.0
"""The timing cache file: round trip, merging, and indifference to whatever lies in its place."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tensorwright.tune.cache import TuningCache
from tensorwright.tune.record import Outcome, Record

LINE = b'{"tensorwright_tuning": 2}\n{"target": "cpu", "workload": "a", "mode": '  # how the file of one record begins


def record(seconds: float = 1e-3) -> Record:
    won = Outcome("gemm", 2, {"rows": 14, "pack": True, "order": "nk"}, "won", seconds, True)
    slow = Outcome("gemm", 2, {"rows": 6, "pack": True, "order": "nk"}, "slow", 3 * seconds)
    return Record("quick", ("gemm@2",), (won, slow, Outcome("direct", 1, None, "rejected", reason="K=7 < 8")))


def saved(path: Path, *keys: str, target: str = "cpu") -> None:
    cache = TuningCache(path)
    for key in keys:
        cache.put(target, key, record())
    cache.save()


def test_cache_saved_and_opened_returns_equal_records(tmp_path: Path) -> None:
    saved(tmp_path / "t.json", "a", 'mat_mul(f32[1,"x"])')
    again = TuningCache(tmp_path / "t.json")
    assert again.get("cpu", "a") == record()
    assert again.get("cpu", 'mat_mul(f32[1,"x"])') == record()
    assert again.get("other cpu", "a") is None
    assert again.notes == []


def test_cache_file_has_one_line_of_json_per_record(tmp_path: Path) -> None:
    saved(tmp_path / "t.json", "b", "a")
    head, *lines = map(json.loads, (tmp_path / "t.json").read_text().splitlines())
    assert head == {"tensorwright_tuning": 2}
    assert [(line["target"], line["workload"]) for line in lines] == [("cpu", "b"), ("cpu", "a")]
    assert lines[1]["outcomes"][2]["reason"] == "K=7 < 8"


def test_cache_later_line_replaces_an_earlier_one_and_the_file_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    saved(path, "a", "b", "c")
    sizes = []
    for seconds in range(1, 20):
        cache = TuningCache(path)
        cache.put("cpu", "b", record(seconds))
        cache.save()
        assert TuningCache(path).get("cpu", "b") == record(seconds)
        sizes.append(path.stat().st_size)
    assert max(sizes) < 3 * sizes[0]
    assert TuningCache(path).get("cpu", "a") == TuningCache(path).get("cpu", "c") == record()
    assert [p.name for p in tmp_path.iterdir() if p.suffix not in (".json", ".lock")] == []


def test_cache_saved_adds_to_the_file_without_reading_it_again(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    saved(path, "a")
    before = path.read_bytes()
    saved(path, "b")
    assert path.read_bytes().startswith(before + b"\n")


def test_cache_keys_that_look_like_json_are_kept_apart(tmp_path: Path) -> None:
    keys = ['a", "mode": "quick', "a", 'a\n{"target": "cpu"', "a\\", "\N{SNOWMAN}"]
    saved(tmp_path / "t.json", *keys)
    again = TuningCache(tmp_path / "t.json")
    assert all(again.get("cpu", key) == record() for key in keys)


def test_cache_saved_by_two_processes_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    first, second = TuningCache(path), TuningCache(path)
    first.put("cpu", "a", record(1))
    second.put("cpu", "b", record(2))
    second.put("cpu 2", "a", record(3))
    first.save()
    second.save()
    merged = TuningCache(path)
    expected = {("cpu", "a"): record(1), ("cpu", "b"): record(2), ("cpu 2", "a"): record(3)}
    assert {place: merged.get(*place) for place in expected} == expected


def test_cache_saved_from_many_threads_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    threads = [threading.Thread(target=saved, args=(path, f"k{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(TuningCache(path).get("cpu", f"k{i}") == record() for i in range(12))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\x80 no text",
        b"[]",
        b"{}",
        b'{"tensorwright_tuning": 99}',
        b'{"tensorwright_tuning": 1, "targets": {"cpu": {}}}',
        b"[" * 100_000,
        LINE + b'"quick"}',
        LINE + b"3}",
        LINE + b'"quick", "families": [',
        LINE + b"[" * 100_000,
        LINE + b'"off", "families": [], "outcomes": [{"f": 1}]}',
    ],
    ids=range(12),
)
def test_cache_foreign_or_damaged_file_is_ignored_with_a_note(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    cache = TuningCache(path)
    assert cache.get("cpu", "a") is None
    assert len(cache.notes) == 1
    assert "ignored" in cache.notes[0]


def test_cache_damaged_record_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    saved(path, "a", "b", "c")
    path.write_text(path.read_text().replace('"workload": "b", "mode": "quick"', '"workload": "b", "mode": quick'))
    cache = TuningCache(path)
    assert cache.get("cpu", "a") == cache.get("cpu", "c") == record()
    assert cache.notes == []
    assert cache.get("cpu", "b") is None
    assert "damaged" in cache.notes[0]


@pytest.mark.parametrize("length", [0, 30, 200])
def test_cache_truncated_file_takes_new_records(tmp_path: Path, length: int) -> None:
    path = tmp_path / "t.json"
    saved(path, "a")
    path.write_bytes(path.read_bytes()[:length])
    saved(path, "b")
    assert TuningCache(path).get("cpu", "b") == record()


@pytest.mark.parametrize("content", [b"\x08\x07 an ONNX file", b'{"tensorwright_tuning": 3}\n', b"{}"])
def test_cache_never_overwrites_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    cache = TuningCache(path)
    cache.put("cpu", "a", record())
    cache.save()
    assert path.read_bytes() == content
    assert "was not saved" in cache.notes[-1]


def test_cache_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = TuningCache(tmp_path / "file" / "t.json")
    cache.put("cpu", "a", record())
    cache.save()
    assert "was not saved" in cache.notes[-1]


def test_cache_without_changes_does_not_touch_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TuningCache(path).save()
    assert not path.exists()


def test_cache_default_lies_in_the_folder_of_the_knob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORWRIGHT_CACHE", str(tmp_path))
    assert TuningCache.open().path == tmp_path / "tuning.jsonl"
    assert TuningCache.open(tmp_path / "mine.json").path == tmp_path / "mine.json"
