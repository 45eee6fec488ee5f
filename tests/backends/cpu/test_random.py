# SPDX-License-Identifier: Apache-2.0
"""Philox against its published vectors, the kernel against the reference bit for bit, and keys that never repeat."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.base import Workload
from tensorwright.backends.cpu.invoke import LoadedKernel
from tensorwright.backends.cpu.kernels.random import RandomBlocks, RandomKeys
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.ops.activation import Relu
from tensorwright.ops.random import RandomBits, RandomKey, philox
from tensorwright.ops.shape import Concat
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    rejected,
    verify,
    view,
    workload,
)
from tests.backends.cpu.sized_check import symbols

KEY = dense(2, dtype=DType.u32)
# The test vectors that Salmon et al. publish with their library (Random123): counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter,key,want", KNOWN)
def test_philox_gives_the_published_numbers(
    counter: tuple[int, ...], key: tuple[int, int], want: tuple[int, ...]
) -> None:
    got = philox(tuple(np.array([c], np.uint64) for c in counter), key)
    assert [int(word[0]) for word in got] == list(want)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3,), (31,), (32,), (5, 7), (2, 3, 1111), ()])
def test_bits_equal_reference(shape: tuple[int, ...], double: bool, isa: str) -> None:
    key = np.random.default_rng(SEED).integers(0, 1 << 32, 2).astype(np.uint32)
    verify(RandomBlocks(), workload(RandomBits(shape, double), KEY), isa, [key])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("double", [False, True])
def test_bits_in_another_order_of_memory_equal_reference(double: bool, isa: str) -> None:
    key = np.random.default_rng(SEED).integers(0, 1 << 32, 2).astype(np.uint32)
    out = ordered((2, 0, 1), 3, 5, 7, gap=2, dtype=DType.u64 if double else DType.u32)
    verify(RandomBlocks(), workload(RandomBits((3, 5, 7), double), KEY, out=out), isa, [key])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("parts", [(5,), (3, 4)])  # whole, and in places of one array with gaps
def test_bits_of_a_symbolic_shape_equal_reference(parts: tuple[int, ...], double: bool) -> None:
    n = symbols({"n": (0, 4, 200)})["n"]
    b = GraphBuilder()
    x, key = b.input("x", TensorType(DType.f32, (n,))), b.input("key", KEY.type)
    drawn = [b.add(RandomBits((n, 3, part), double), key)[0] for part in parts]  # type: ignore[arg-type]
    b.output(b.add(Concat(2), *drawn)[0] if len(parts) > 1 else drawn[0], "y")
    b.output(b.add(Relu(), x)[0], "z")
    graph = b.finish()
    steps = [s.workload for s in lower(graph).steps if isinstance(s.workload.op, RandomBits)]
    assert [w.outputs[0].is_row_major for w in steps] == [len(parts) == 1] * len(parts)
    with tw.build(graph, tune="off", host_steps=False) as engine:
        for size in (0, 1, 4, 7, 17, 33, 200):
            words = np.random.default_rng().integers(0, 1 << 32, 2).astype(np.uint32)
            got = engine.run({"x": np.zeros(size, np.float32), "key": words})["y"]
            want = [RandomBits((size, 3, part), double).reference(words)[0] for part in parts]
            np.testing.assert_array_equal(got, np.concatenate(want, 2))


@pytest.mark.parametrize("isa", ISAS)
def test_keys_never_repeat(isa: str) -> None:
    target = CpuTarget.parse(f"cpu:{isa}")
    w = Workload(RandomKey(), (), (KEY,))
    (config,) = RandomKeys().candidates(w, target)
    loaded = LoadedKernel(w, RandomKeys().emit(w, config, target, "kernel", {}), target, [])
    seen = set()
    for _ in range(50):
        loaded.run(1)
        seen.add(tuple(loaded.outputs[0].tolist()))
    loaded.code.close()
    assert len(seen) == 50
    assert len({tuple(RandomKey().reference()[0].tolist()) for _ in range(50)}) == 50


def two_draws() -> Graph:
    b = GraphBuilder()
    for name in ("a", "b"):
        (key,) = b.add(RandomKey())
        b.output(b.add(RandomBits((4,)), key)[0], name)
    return b.finish()


def test_equal_draws_of_a_network_are_neither_merged_nor_repeated() -> None:
    with tw.build(two_draws(), target="cpu", tune="quick", host_steps=False) as engine:
        first, second = engine.run({}), engine.run({})
        drawn = {tuple(result[name].tolist()) for result in (first, second) for name in ("a", "b")}
        assert len(drawn) == 4
        contexts = [engine.create_context() for _ in range(2)]
        assert len({tuple(context.run({})["a"].tolist()) for context in contexts}) == 2


def test_random_families_say_why_they_reject() -> None:
    assert "not a random key" in rejected(RandomKeys(), workload(Relu(), dense(3)))
    assert "gaps" in rejected(RandomKeys(), Workload(RandomKey(), (), (view((2,), (3,), DType.u32),)))
    assert "does not draw" in rejected(RandomBlocks(), workload(Relu(), dense(3)))


def test_random_families_compile_for_neon() -> None:
    compiles_for_neon(RandomBlocks(), workload(RandomBits((5, 7)), KEY))
    compiles_for_neon(RandomBlocks(), workload(RandomBits((5, 7), True), KEY))
    compiles_for_neon(RandomKeys(), Workload(RandomKey(), (), (KEY,)))
