# SPDX-License-Identifier: Apache-2.0
"""The workloads of a program: each different one once, with the steps it stands for and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.backends.base import Operand, Workload
from tensorwright.ir.op import Array
from tensorwright.lower.program import Program, View
from tensorwright.ops.label import label


@dataclass(frozen=True)
class Task:
    """One workload to tune: the names of the steps that use it and the constants of the first of them."""

    workload: Workload
    steps: tuple[str, ...]
    origin: tuple[str, ...]
    constants: Mapping[int, Array]

    @property
    def count(self) -> int:
        """How many steps of the program this workload stands for."""
        return len(self.steps)

    @property
    def where(self) -> str:
        """The place in the model, for messages."""
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"step {self.steps[0]!r}{more}, from {', '.join(self.origin)}"


def tasks_of(program: Program) -> dict[str, Task]:
    """The tasks of a program by workload key, in execution order."""
    tasks: dict[str, Task] = {}
    for step in program.steps:
        key = step.workload.key
        known = tasks.get(key)
        if known is None:
            tasks[key] = Task(step.workload, (step.name,), step.origin, constants_of(program, step.inputs))
        else:
            tasks[key] = Task(known.workload, (*known.steps, step.name), known.origin, known.constants)
    return tasks


def constants_of(program: Program, inputs: tuple[View | None, ...]) -> dict[int, Array]:
    """The arrays of a step's constant inputs by index, as views with the operands' shapes and strides."""
    return {
        i: array_of(program.constants[v.buffer.index], v.offset, v.operand)
        for i, v in enumerate(inputs)
        if v is not None and v.operand.constant
    }


def array_of(base: Array, offset: int, operand: Operand) -> Array:
    """The view of `operand` at `offset` elements inside a buffer's array."""
    view = operand.over(np.ascontiguousarray(base).reshape(-1).view(operand.dtype.numpy)[offset:])
    view.flags.writeable = False
    return view


def symbol_of(w: Workload, family: str, config: Mapping[str, Any]) -> str:
    """The name of a kernel in object code. Equal kernels have equal names, wherever they are emitted: what was compiled
    to be timed needs no second compilation."""
    digest = hashlib.blake2b(f"{w.key} {sorted(config.items())}".encode(), digest_size=6)
    return f"{family}_{digest.hexdigest()}"


def short(w: Workload) -> str:
    """One phrase for displays: the operation and its shapes."""
    shapes = " x ".join("x".join(map(str, o.shape)) or "scalar" for o in w.inputs if o is not None)
    return f"{label(w.op)} {shapes}"
