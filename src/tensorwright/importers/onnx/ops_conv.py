# SPDX-License-Identifier: Apache-2.0
"""ONNX convolutions and pools."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.importers.onnx.windows import Window, read_window
from tensorwright.importers.windows import split_padding
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.pool import AveragePool, MaxPool, MaxPoolIndices
from tensorwright.ops.reduce import How, Reduce


@onnx_op("Conv")
def conv(b: Builder, n: OnnxNode) -> Result:
    """Cross-correlation with an optional bias; `auto_pad` is resolved to pads."""
    return convolved(b, n)


def convolved(b: Builder, n: OnnxNode) -> Value:
    """What Conv computes, from the inputs and attributes that it has."""
    x, w = n.input(0), n.input(1)
    return b.add(convolution_of(n, x, w), x, w, *_bias(n))


def convolution_of(n: OnnxNode, x: Value, w: Value) -> Convolution:
    """The convolution of x by w that the node's attributes describe."""
    window = read_window(n, _spatial(x), _kernel_shape(n, w))
    return Convolution(window.strides, window.pads, window.dilations, n.attr("group", int, 1))


@onnx_op("ConvTranspose")
def conv_transpose(b: Builder, n: OnnxNode) -> Result:
    """Transposed convolution; an asked output size is resolved to pads."""
    x, w = n.input(0), n.input(1)
    spatial, kernel = _spatial(x), _kernel_shape(n, w)
    extra = n.ints("output_padding") or (0,) * len(spatial)
    wanted, mode = n.ints("output_shape"), n.attr("auto_pad", str, "NOTSET") or "NOTSET"
    if wanted is None and mode in ("NOTSET", "VALID"):
        window = read_window(n, spatial, kernel)
    else:
        n.ignore("pads")
        window = read_window(n, (1,) * len(spatial), kernel)  # sizes do not matter: the padding is computed below
        window, extra = _fit_output(n, window, spatial, wanted, extra, upper=mode == "SAME_UPPER")
    op = Deconvolution(window.strides, window.pads, window.dilations, n.attr("group", int, 1), extra)
    return b.add(op, x, w, *_bias(n))


def _fit_output(
    n: OnnxNode,
    window: Window,
    spatial: tuple[Dim, ...],
    wanted: tuple[int, ...] | None,
    extra: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[Window, tuple[int, ...]]:
    """Padding for an asked output size (SAME asks for size * stride), by the formulas of the ONNX operator text.

    Where even no padding gives too little, the rest is added at the end.
    """
    if wanted is not None and len(wanted) != len(spatial):
        raise ValueError(f"output_shape {list(wanted)} must have {len(spatial)} entries")
    pairs, rest = [], []
    for axis, (size, stride, extent) in enumerate(zip(spatial, window.strides, window.extents, strict=True)):
        target = wanted[axis] if wanted is not None else size * stride
        total = (size - 1) * stride + extra[axis] + extent - target
        if not isinstance(total, int):
            n.refuse(f"output_shape needs a known size, not {size}", "give every input a fixed shape with shapes=")
        pairs.append(split_padding(max(total, 0), upper=upper))
        rest.append(extra[axis] + max(-total, 0))
    pads = tuple(begin for begin, _ in pairs) + tuple(end for _, end in pairs)
    return Window(window.kernel, window.strides, window.dilations, pads), tuple(rest)


@onnx_op("MaxPool")
def max_pool(b: Builder, n: OnnxNode) -> Result:
    """The maximum of each window and, where they are read, the positions."""
    column_major = n.flag("storage_order")
    x = n.input(0)
    op = max_pool_of(n, x)
    y = b.add(op, x)
    if not n.output_used(1):
        return y
    return [y, b.add(MaxPoolIndices(op.kernel, op.strides, op.pads, op.dilations, op.ceil_mode, column_major), x)]


def max_pool_of(n: OnnxNode, x: Value) -> MaxPool:
    """The pool of x that the node's attributes describe."""
    w = read_window(n, _spatial(x), _required_kernel(n))
    return MaxPool(w.kernel, w.strides, w.pads, w.dilations, n.flag("ceil_mode"))


@onnx_op("AveragePool")
def average_pool(b: Builder, n: OnnxNode) -> Result:
    """The average of each window."""
    return b.add(average_pool_of(n, n.input(0)), n.input(0))


def average_pool_of(n: OnnxNode, x: Value) -> AveragePool:
    """The same for an average."""
    w = read_window(n, _spatial(x), _required_kernel(n))
    return AveragePool(w.kernel, w.strides, w.pads, w.dilations, n.flag("ceil_mode"), n.flag("count_include_pad"))


def _global_pool(name: str, how: How) -> OnnxOp:
    def translate(b: Builder, n: OnnxNode) -> Result:
        x = n.input(0)
        return b.add(Reduce(how, tuple(range(2, 2 + len(_spatial(x)))), True), x)

    return OnnxOp(name, 7, translate)


def _spatial(x: Value) -> tuple[Dim, ...]:
    if x.type.rank < 3:
        raise ValueError(f"the input must have batch, channel and spatial dims, it is {x.type}")
    return x.type.shape[2:]


def _required_kernel(n: OnnxNode) -> tuple[int, ...]:
    kernel = n.ints("kernel_shape")
    if kernel is None:
        raise ValueError("attribute 'kernel_shape' is missing")
    return kernel


def _kernel_shape(n: OnnxNode, w: Value) -> tuple[int, ...]:
    if not w.type.is_static:
        n.refuse(f"its weight has the symbolic shape {w.type}", "give every input a fixed shape with shapes=")
    shape = w.type.static_shape[2:]
    declared = n.ints("kernel_shape")
    if declared is not None and declared != shape:
        raise ValueError(f"kernel_shape {list(declared)} contradicts the weight {w.type}")
    return shape


def _bias(n: OnnxNode) -> tuple[Value, ...]:
    bias = n.optional(2)
    return () if bias is None else (bias,)


OPS = [
    conv,
    conv_transpose,
    max_pool,
    average_pool,
    _global_pool("GlobalAveragePool", "mean"),
    _global_pool("GlobalMaxPool", "max"),
]
