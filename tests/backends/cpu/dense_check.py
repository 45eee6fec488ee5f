# SPDX-License-Identifier: Apache-2.0
"""Workloads and the oracle check for dense (matrix and convolution) kernel families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.backends.base import Accept, KernelFamily, Operand, Workload, row_major
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.invoke import run_kernel
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.lower.views import channels_last, dense
from tensorwright.ops.activation import Relu
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Add, Mul
from tensorwright.ops.fused import Fused, Instr, Literal

F32 = DType.f32
BODIES = ("none", "bias_relu", "residual", "scalars")


def plain(*shape: int, constant: bool = False) -> Operand:
    return Operand(F32, shape, row_major(shape), constant)


def image(*shape: int, pad: int = 0) -> Operand:
    """Channels-last activation; `pad` extra elements per pixel, as inside a concat."""
    strides = dense((*shape[:1], shape[1] + pad, *shape[2:]), channels_last(len(shape)))
    return Operand(F32, shape, tuple(1 if i == 1 else s for i, s in enumerate(strides)))


def with_body(anchor: Op, inputs: Sequence[Operand], out: Operand, body: str, channel_axis: int) -> Workload:
    """The anchor bare, or fused with one of `BODIES`."""
    n = len(inputs)
    if body == "none":
        return Workload(anchor, tuple(inputs), (out,))
    rank = len(out.shape)
    per_channel = plain(
        *(
            out.shape[channel_axis] if i == channel_axis else 1
            for i in range(channel_axis if channel_axis else 0, rank)
        ),
        constant=True,
    )
    extras, instrs = {
        "bias_relu": ([per_channel], (Instr(Add(), (n + 1, n)), Instr(Relu(), (n + 2,)))),
        "residual": ([per_channel, out], (Instr(Add(), (n + 2, n)), Instr(Add(), (n + 1, n + 3)))),
        "scalars": ([], (Instr(Literal(0.5), ()), Instr(Mul(), (n + 1, n)), Instr(Mul(), (n, n + 2)))),
    }[body]
    return Workload(Fused(anchor, n, instrs), (*inputs, *extras), (out,))


def conv_workload(
    x: Operand,
    k: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    body: str = "none",
    pad: int = 0,
) -> Workload:
    n, c, h, w = x.shape
    out_h = (h + pads[0] + pads[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    out_w = (w + pads[1] + pads[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    return with_body(
        Convolution(stride, pads, dilation, 1),
        [x, plain(k, c, *kernel, constant=True)],
        image(n, k, out_h, out_w, pad=pad),
        body,
        1,
    )


def check(
    family: KernelFamily[Any, Any, Any], w: Workload, isa: str, *, most: int = 99, tolerance: float = 2e-5
) -> int:
    """Run candidates against the reference with several unit splits; returns how many were checked."""
    target = CpuTarget.parse(f"cpu:{isa}")
    accepted = family.accepts(w, target)
    assert isinstance(accepted, Accept), accepted
    seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(seed)
    inputs = [None if o is None else rng.standard_normal(o.shape).astype(np.float32) for o in w.inputs]
    (want,) = w.op.reference(*inputs)
    constants = {
        i: a
        for i, (o, a) in enumerate(zip(w.inputs, inputs, strict=True))
        if o is not None and a is not None and o.constant
    }
    count = 0
    for config in list(family.candidates(w, target))[:most]:
        kernel = family.emit(w, config, target, "kernel", constants)
        splits = (1, 3, max(s.units for s in kernel.stages) + 1)[count % 3]
        (got,) = run_kernel(w, kernel, target, inputs, splits)
        error = np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-6)
        assert error <= tolerance, f"{family.name} {config} on {w.key}: error {error} (seed {seed}, {splits} splits)"
        count += 1
    return count


def compiles_for_neon(family: KernelFamily[Any, Any, Any], w: Workload) -> None:
    """The first candidate becomes aarch64 object code."""
    target = CpuTarget.parse("cpu:neon")
    constants = {i: np.zeros(o.shape, np.float32) for i, o in enumerate(w.inputs) if o is not None and o.constant}
    config = next(iter(family.candidates(w.at_opt(), target)))
    assert compile_object(family.emit(w, config, target, "kernel", constants).ir, target)[:4] == b"\x7fELF"
