# SPDX-License-Identifier: Apache-2.0
"""The measured ceilings of one core: f32 FMA peak, and read bandwidth from L2 and from memory.

They bound what tuning can hope for (roofline). Generated microbenchmarks run once per machine and user; the
results live in the user cache directory, keyed by CPU model and instruction set.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tensorwright import knobs
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.ir.dtype import DType

if TYPE_CHECKING:
    from tensorwright.backends.cpu.target import CpuTarget

_FILE = "cpu_ceilings.json"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """GFLOP/s and GB/s of one core."""

    gflops: float
    gbytes: float
    cache_gbytes: float


def ceilings(t: CpuTarget) -> Ceilings:
    """The ceilings of the host, whose other properties are `t`: from the cache file, else measured and stored."""
    path = knobs.CACHE.get() / _FILE
    key = f"{t.cpu}|{t.isa}"
    known = _read(path)
    if key in known:
        return known[key]
    found = measure_ceilings(t)
    _write(path, {**known, key: found})
    return found


def _read(path: Path) -> dict[str, Ceilings]:
    """Entries of the file; whatever is missing or damaged is measured again."""
    try:
        data = json.loads(path.read_text())
        found = {key: Ceilings(*(float(entry[name]) for name in Ceilings.__slots__)) for key, entry in data.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {key: c for key, c in found.items() if min(c.gflops, c.gbytes, c.cache_gbytes) > 0}


def _write(path: Path, entries: dict[str, Ceilings]) -> None:
    """Replace the file; a read-only home only means that the next process measures again."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({k: asdict(v) for k, v in entries.items()}, indent=1, sort_keys=True) + "\n")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def measure_ceilings(t: CpuTarget) -> Ceilings:
    """Measure on the calling thread: the best of many short slices, since other processes can only slow them."""
    code = LoadedCode(compile_object(_benchmarks(t), t))
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    peak, stream = kind(code.address("peak")), kind(code.address("stream"))
    width = t.lanes(DType.f32)
    sink = np.zeros(width * _CHAINS, np.float32)
    flops = 2.0 * width * _chains(t) * 20_000
    gflops = flops / _best(lambda: peak(sink.ctypes.data, 20_000), 20) / 1e9
    in_cache = np.zeros(min(t.l2_bytes // 2, 256 << 10) // 4, np.float32)
    in_memory = np.zeros(min(max(2 * t.l3_bytes, 32 << 20), 128 << 20) // 4, np.float32)
    in_memory.fill(0.0)  # real pages: untouched ones all map to one page of zeros
    rate = {}
    for name, array, rounds in (("cache", in_cache, 100), ("memory", in_memory, 4)):
        read = functools.partial(stream, array.ctypes.data, array.nbytes // 64)
        rate[name] = array.nbytes / _best(read, rounds) / 1e9
    code.close()
    return Ceilings(round(gflops, 2), round(rate["memory"], 2), round(max(rate.values()), 2))


def _best(work: Callable[[], object], rounds: int) -> float:
    """Shortest duration in seconds; the first call warms up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - started)
    return max(min(times), 1) * 1e-9


_CHAINS = 24


def _chains(t: CpuTarget) -> int:
    """Independent FMA chains: more than latency x ports of any core, fewer than the registers."""
    return 12 if t.vector_registers == 16 else _CHAINS


def _benchmarks(t: CpuTarget) -> str:
    """`peak(sink, n)`: n rounds of one FMA per chain. `stream(data, lines)`: read 64-byte lines."""
    module = Module()
    ty = vector(t.lanes(DType.f32))
    f = module.function("peak", [("ptr", "sink"), ("i64", "n")])
    sums = [f.var(ty, f.load(ty, f.arg("sink"), i * t.lanes(DType.f32))) for i in range(_chains(t))]
    factor = f.splat(f.load("float", f.arg("sink")), t.lanes(DType.f32))
    with f.loop(0, f.arg("n")):
        for chain in sums:
            chain.set(f.fma(factor, factor, chain.get()))
    for i, chain in enumerate(sums):
        f.store(chain.get(), f.arg("sink"), i * t.lanes(DType.f32))
    f.ret()

    f = module.function("stream", [("ptr", "data"), ("i64", "lines")])
    per_line = 64 // (4 * t.lanes(DType.f32))
    sums = [f.var(ty, f.const(ty, 0.0)) for _ in range(8)]
    with f.loop(0, f.arg("lines") // (8 // per_line)) as block:
        for i, chain in enumerate(sums):
            chain.set(chain.get() + f.load(ty, f.arg("data"), (block * 8 + i) * t.lanes(DType.f32)))
    total = sums[0].get()
    for chain in sums[1:]:
        total = total + chain.get()
    # Kept alive by a store that never happens: the data is zero.
    with f.when(f.compare("one", f.reduce("add", total), 0.0)):
        f.store(total, f.arg("data"))
    f.ret()
    return module.text()
