# SPDX-License-Identifier: Apache-2.0
"""A kernel that was compiled to be timed is not compiled again for the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu import compile as compilation
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.tune.workload import symbol_of
from tests.importers.models import model, node


def test_build_compiles_each_kernel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    compiled = compilation.compile_object

    def counted(ir: str, target: CpuTarget) -> bytes:
        texts.append(ir)
        return compiled(ir, target)

    monkeypatch.setattr(compilation, "compile_object", counted)
    size = int(np.random.default_rng().integers(100, 10_000))  # not one that an earlier test left in the cache
    proto = model(
        [node("Relu", ["x"], ["r"]), node("Softmax", ["r"], ["y"], axis=-1)], {"x": [3, size]}, {"y": [3, size]}
    )
    with tw.build(proto, timing_cache=tmp_path / "tune.jsonl") as engine:
        kernels = {step["kernel"].split()[0] for step in engine.report()["steps"]}
        y = engine.run({"x": np.zeros((3, size), np.float32)})["y"]
    assert np.allclose(y, 1 / size)
    assert len(texts) == len(set(texts)) > 0
    assert all(any(f"@{kernel}_" in text for text in texts) for kernel in kernels)


def test_symbol_tells_kernels_of_different_workloads_and_configurations_apart() -> None:
    small, large = (Workload(Relu(), (o,), (o,)) for o in (Operand(DType.f32, (n,), (1,)) for n in (8, 9)))
    symbols = [
        symbol_of(small, "f", {"a": 1, "b": 2}),
        symbol_of(small, "f", {"a": 2, "b": 1}),
        symbol_of(large, "f", {}),
    ]
    assert len(set(symbols)) == 3
    assert symbols[0] == symbol_of(small, "f", {"b": 2, "a": 1})
    assert all(symbol.isidentifier() for symbol in symbols)
