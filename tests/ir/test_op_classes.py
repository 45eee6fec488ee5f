# SPDX-License-Identifier: Apache-2.0
"""Op classes become dataclasses when they are first used, whichever way that is and from whichever thread."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import threading

import pytest

from tensorwright.ir.op import OPS, Op, finished, op


def test_op_classes_are_frozen_dataclasses_of_their_own_fields() -> None:
    for cls in OPS.values():
        assert "__init__" in vars(finished(cls))
        assert dataclasses.is_dataclass(cls)
        annotated = [item for base in cls.__mro__ for item in vars(base).get("__annotations__", {}).items()]
        attributes = {name for name, hint in annotated if not str(hint).startswith("ClassVar")}
        assert {field.name for field in dataclasses.fields(cls)} == attributes  # type: ignore[arg-type]


def test_op_class_used_by_many_threads_at_once_makes_equal_instances() -> None:
    @op("test_used_by_threads")
    class Used(Op):
        """Of this test."""

        axis: int
        name: str = "x"

    made: list[Op] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        made.append(Used(3))

    threads = [threading.Thread(target=use) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        del OPS["test_used_by_threads"]
    assert len(made) == 8
    assert len({*made, copy.copy(made[0]), Used(axis=3)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        made[0].axis = 4  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Used()  # type: ignore[call-arg]


def test_importing_the_builder_imports_no_network_and_finishes_few_op_classes() -> None:
    code = """
import sys, tensorwright.builder
from tensorwright.ir.op import OPS, _UNFINISHED
assert "tensorwright.network" not in sys.modules
assert 2 * len(_UNFINISHED) > len(OPS), (len(_UNFINISHED), len(OPS))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
