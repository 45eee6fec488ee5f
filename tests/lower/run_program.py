# SPDX-License-Identifier: Apache-2.0
"""Execute a lowered program in NumPy: each step's `reference` on real, strided, poisoned buffers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorwright.lower.program import Place, Program, View


def run_program(program: Program, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name. Buffers start as NaN bytes, so reading what no step wrote shows."""
    memory = {b: np.full(max(b.size_bytes, 8), 0xFF, np.uint8) for b in program.buffers}
    for b in program.buffers:
        source = {
            Place.input: lambda b=b: feeds[program.inputs[b.index].name],
            Place.constant: lambda b=b: program.constants[b.index],
        }.get(b.place)
        if source is not None:
            data = np.ascontiguousarray(source()).reshape(-1).view(np.uint8)
            assert len(data) == b.size_bytes
            memory[b][: len(data)] = data

    def array(v: View) -> np.ndarray:
        o = v.operand
        flat = memory[v.buffer][: v.buffer.size_bytes].view(o.dtype.numpy)
        assert 0 <= v.offset - o.start_elems <= len(flat) - o.span_elems, f"{v} leaves its buffer"
        return np.lib.stride_tricks.as_strided(flat[v.offset :], o.shape, [s * o.dtype.size_bytes for s in o.strides])

    done: set[int] = set()
    for phase in program.phases:
        for number in phase:
            step = program.steps[number]
            (out,) = step.workload.op.reference(*(array(v).copy() if v is not None else None for v in step.inputs))
            assert out.shape == step.outputs[0].operand.shape
            array(step.outputs[0])[...] = out
        done.update(phase)
    assert done == set(range(len(program.steps)))
    outs = {}
    for b in program.buffers:
        if b.place is Place.output:
            t = program.outputs[b.index].type
            outs[program.outputs[b.index].name] = memory[b][: t.size_bytes].view(t.dtype.numpy).reshape(t.static_shape)
    return outs
