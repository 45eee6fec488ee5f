# SPDX-License-Identifier: Apache-2.0
"""An oracle that shares no code with ours: each op as a small ONNX model, run by ONNX Runtime.

Written for tests only, from the ONNX operator definitions; the importer goes the other way and is not used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType

OPSET = 21
NEWER: dict[type[Op], int] = {o.BitShift: 28, o.BitCast: 26, o.CumProd: 26, o.LinearAttention: 27}
"""Ops of newer opsets, which ONNX Runtime lacks: onnx's own evaluator answers."""
_ELEMENT = {
    DType.f64: TensorProto.DOUBLE,
    DType.f32: TensorProto.FLOAT,
    DType.f16: TensorProto.FLOAT16,
    DType.bf16: TensorProto.BFLOAT16,
    DType.i64: TensorProto.INT64,
    DType.i32: TensorProto.INT32,
    DType.i16: TensorProto.INT16,
    DType.i8: TensorProto.INT8,
    DType.u64: TensorProto.UINT64,
    DType.u32: TensorProto.UINT32,
    DType.u16: TensorProto.UINT16,
    DType.u8: TensorProto.UINT8,
    DType.bool: TensorProto.BOOL,
}


class Sketch:
    """The nodes and constants of one model in the making."""

    def __init__(self, types: Sequence[TensorType | None]) -> None:
        self.types = types
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs = ["" if t is None else f"in{i}" for i, t in enumerate(types)]

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        name = f"const{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def oracle(
    op: Op, types: Sequence[TensorType | None], arrays: Sequence[Array | None], *, runtime: bool = True
) -> Array:
    """The op's output on `arrays` as ONNX Runtime (optimisations off) or onnx's own evaluator computes it."""
    model = one_op_model(op, types)
    feeds = {f"in{i}": a for i, a in enumerate(arrays) if a is not None}
    if not runtime or type(op) in NEWER:
        return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def one_op_model(op: Op, types: Sequence[TensorType | None]) -> onnx.ModelProto:
    """A model with inputs in0, in1, ... (absent ones skipped) that computes the op."""
    sketch = Sketch(types)
    result = _write(sketch, op, sketch.inputs)
    graph = helper.make_graph(
        sketch.nodes,
        "case",
        [
            helper.make_tensor_value_info(f"in{i}", _ELEMENT[t.dtype], t.shape)
            for i, t in enumerate(types)
            if t is not None
        ],
        [helper.make_empty_tensor_value_info(result)],
        sketch.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", NEWER.get(type(op), OPSET))], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _write(s: Sketch, op: Op, inputs: Sequence[str]) -> str:
    """Append the op's nodes; the name of its result."""
    if type(op) in _SAME_NAME:
        return s.node(_RENAMED.get(type(op), type(op).__name__), *inputs)
    return _WRITERS[type(op)](s, op, list(inputs))


_SAME_NAME = {
    o.Abs,
    o.Neg,
    o.Exp,
    o.Log,
    o.Sqrt,
    o.Reciprocal,
    o.Relu,
    o.Sigmoid,
    o.Tanh,
    o.Erf,
    o.HardSwish,
    o.Mish,
    o.Softsign,
    o.Floor,
    o.Ceil,
    o.Round,
    o.Sign,
    o.Not,
    o.Sin,
    o.Cos,
    o.Tan,
    o.Asin,
    o.Acos,
    o.Atan,
    o.Sinh,
    o.Cosh,
    o.Asinh,
    o.Acosh,
    o.Atanh,
    o.IsNan,
    o.Add,
    o.Sub,
    o.Mul,
    o.Div,
    o.Pow,
    o.Maximum,
    o.Minimum,
    o.PRelu,
    o.Equal,
    o.Less,
    o.LessEqual,
    o.Greater,
    o.GreaterEqual,
    o.And,
    o.Or,
    o.Xor,
    o.Where,
    o.MatMul,
    o.BitwiseAnd,
    o.BitwiseOr,
    o.BitwiseXor,
    o.BitwiseNot,
    o.Determinant,
}
_RENAMED: dict[type[Op], str] = {
    o.Determinant: "Det",
    o.IsNan: "IsNaN",
    o.Maximum: "Max",
    o.Minimum: "Min",
    o.PRelu: "PRelu",
    o.LessEqual: "LessOrEqual",
    o.GreaterEqual: "GreaterOrEqual",
}


def _attributes(kind: str, **names: str) -> Callable[[Sketch, Any, list[str]], str]:
    """A writer of one node whose attributes are fields of the op: onnx name -> field."""

    def write(s: Sketch, op: Any, inputs: list[str]) -> str:
        given = {name: getattr(op, field) for name, field in names.items()}
        return s.node(kind, *inputs, **{k: int(v) if isinstance(v, bool) else v for k, v in given.items()})

    return write


def _silu(s: Sketch, op: o.Silu, inputs: list[str]) -> str:
    return s.node("Mul", inputs[0], s.node("Sigmoid", inputs[0]))


def _gelu(s: Sketch, op: o.Gelu, inputs: list[str]) -> str:
    return s.node("Gelu", inputs[0], approximate="tanh" if op.approximate else "none")


def _softplus(s: Sketch, op: o.Softplus, inputs: list[str]) -> str:
    beta = s.const(op.beta, np.float32)
    return s.node("Div", s.node("Softplus", s.node("Mul", inputs[0], beta)), beta)


def _clip(s: Sketch, op: o.Clip, inputs: list[str]) -> str:
    (kind,) = [t.dtype.numpy for t in s.types if t is not None]
    bounds = ["" if b is None else s.const(b, kind) for b in (op.low, op.high)]
    return s.node("Clip", inputs[0], *bounds)


def _cast(s: Sketch, op: o.Cast, inputs: list[str]) -> str:
    return s.node("Cast", inputs[0], to=_ELEMENT[op.dtype])


def _quantise(s: Sketch, op: o.Quantise | o.Dequantise, inputs: list[str]) -> str:
    """ONNX has scales of rank 1 along an axis, which is 1 in our rows."""
    kept = [
        s.node("Reshape", x, s.const([-1])) if t and t.rank > 1 else x for x, t in zip(inputs, s.types, strict=True)
    ]
    if isinstance(op, o.Dequantise):
        return s.node("DequantizeLinear", inputs[0], *kept[1:], axis=1)
    return s.node("QuantizeLinear", inputs[0], *kept[1:], axis=1, output_dtype=_ELEMENT[op.dtype])


def _convolution(s: Sketch, op: o.Convolution, inputs: list[str]) -> str:
    return s.node("Conv", *inputs, strides=op.strides, pads=op.pads, dilations=op.dilations, group=op.groups)


def _deconvolution(s: Sketch, op: o.Deconvolution, inputs: list[str]) -> str:
    extra = {"output_padding": op.output_padding} if op.output_padding else {}
    return s.node(
        "ConvTranspose", *inputs, strides=op.strides, pads=op.pads, dilations=op.dilations, group=op.groups, **extra
    )


def _pool(s: Sketch, op: o.MaxPool | o.AveragePool, inputs: list[str]) -> str:
    extra = {"count_include_pad": int(op.count_include_pad)} if isinstance(op, o.AveragePool) else {}
    return s.node(
        type(op).__name__,
        *inputs,
        kernel_shape=op.kernel,
        strides=op.strides,
        pads=op.pads,
        dilations=op.dilations,
        ceil_mode=int(op.ceil_mode),
        **extra,
    )


def _pool_indices(s: Sketch, op: o.MaxPoolIndices, inputs: list[str]) -> str:
    values = s.node(
        "MaxPool",
        *inputs,
        kernel_shape=op.kernel,
        strides=op.strides,
        pads=op.pads,
        dilations=op.dilations,
        ceil_mode=int(op.ceil_mode),
        storage_order=int(op.column_major),
    )
    s.nodes[-1].output.append(f"{values}_indices")
    return f"{values}_indices"


def _reduce(s: Sketch, op: o.Reduce, inputs: list[str]) -> str:
    return s.node(f"Reduce{op.how.capitalize()}", inputs[0], s.const(op.axes), keepdims=int(op.keepdims))


def _layer_norm(s: Sketch, op: o.LayerNorm, inputs: list[str]) -> str:
    return s.node("LayerNormalization", *inputs, axis=op.axis, epsilon=op.epsilon)


def _attention(s: Sketch, op: o.Attention, inputs: list[str]) -> str:
    q, k, v = inputs[:3]
    rank = next(t.rank for t in s.types if t is not None)
    swapped = s.node("Transpose", k, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = s.node("Mul", s.node("MatMul", q, swapped), s.const(op.scale, np.float32))
    if len(inputs) > 3:
        scores = s.node("Add", scores, inputs[3])
    return s.node("MatMul", s.node("Softmax", scores, axis=-1), v)


def _shape_input(kind: str, field: str) -> Callable[[Sketch, Any, list[str]], str]:
    """A writer of one node whose second input is a field of the op."""

    def write(s: Sketch, op: Any, inputs: list[str]) -> str:
        extra = {"allowzero": 1} if kind == "Reshape" else {}
        return s.node(kind, inputs[0], s.const(getattr(op, field)), **extra)

    return write


def _slice(s: Sketch, op: o.Slice, inputs: list[str]) -> str:
    low = np.iinfo(np.int64).min  # ONNX counts a negative end from the back
    ends = [low if end == -1 else end for end in op.ends]
    return s.node("Slice", inputs[0], s.const(op.starts), s.const(ends), s.const(op.axes), s.const(op.steps))


def _transpose(s: Sketch, op: o.Transpose, inputs: list[str]) -> str:
    return s.node("Transpose", inputs[0], **({"perm": op.perm} if op.perm else {}))  # an empty list has no type


def _pad(s: Sketch, op: o.Pad, inputs: list[str]) -> str:
    (kind,) = [t.dtype.numpy for t in s.types if t is not None]
    value = [s.const(op.value, kind)] if op.mode == "constant" else []
    return s.node("Pad", inputs[0], s.const(op.pads), *value, mode=op.mode)


def _arg(s: Sketch, op: o.ArgMax | o.ArgMin, inputs: list[str]) -> str:
    return s.node(type(op).__name__, inputs[0], axis=op.axis, keepdims=int(op.keepdims), select_last_index=int(op.last))


def _top_k(s: Sketch, op: o.TopKValues | o.TopKIndices, inputs: list[str]) -> str:
    values = s.node("TopK", inputs[0], s.const([op.k]), axis=op.axis, largest=int(op.largest))
    s.nodes[-1].output.append(f"{values}_indices")
    return values if isinstance(op, o.TopKValues) else f"{values}_indices"


def _running(s: Sketch, op: o.CumSum | o.CumProd, inputs: list[str]) -> str:
    return s.node(type(op).__name__, inputs[0], s.const(op.axis), exclusive=int(op.exclusive), reverse=int(op.reverse))


def _roi_align(s: Sketch, op: o.RoiAlign, inputs: list[str]) -> str:
    return s.node(
        "RoiAlign",
        *inputs,
        mode="max" if op.maximum else "avg",
        output_height=op.height,
        output_width=op.width,
        sampling_ratio=op.samples,
        spatial_scale=op.scale,
        coordinate_transformation_mode="half_pixel" if op.half_pixel else "output_half_pixel",
    )


def _bit_shift(s: Sketch, op: o.BitShift, inputs: list[str]) -> str:
    return s.node("BitShift", *inputs, direction="LEFT" if op.left else "RIGHT")


def _bit_cast(s: Sketch, op: o.BitCast, inputs: list[str]) -> str:
    return s.node("BitCast", *inputs, to=_ELEMENT[op.dtype])


def _max_roi_pool(s: Sketch, op: o.MaxRoiPool, inputs: list[str]) -> str:
    x, rois, batch = inputs
    images = s.node("Unsqueeze", s.node("Cast", batch, to=TensorProto.FLOAT), s.const([1]))
    boxes = s.node("Concat", images, rois, axis=1)
    return s.node("MaxRoiPool", x, boxes, pooled_shape=[op.height, op.width], spatial_scale=op.scale)


def _linear_attention(s: Sketch, op: o.LinearAttention, inputs: list[str]) -> str:
    q, _, v = (t for t in s.types[:3] if t is not None)
    (batch, steps, heads, group, _), width = q.shape, v.shape[3]
    packed = [s.node("Reshape", x, s.const([batch, steps, -1])) if x else "" for x in (*inputs, "", "", "")[:6]]
    packed[3] = inputs[3] if len(inputs) > 3 else ""
    packed[4] = s.node("Log", packed[4]) if packed[4] else ""
    rule = {(0, 0): "linear", (1, 0): "gated", (0, 1): "delta", (1, 1): "gated_delta"}
    output = s.node(
        "LinearAttention",
        *packed,
        q_num_heads=int(heads * group),
        kv_num_heads=int(heads),
        scale=op.scale,
        update_rule=rule[(bool(packed[4]), bool(packed[5]))],
    )
    s.nodes[-1].output.append(f"{output}_state")
    apart = s.node("Reshape", output, s.const([batch, steps, heads, group, width]))
    rows = s.node("Reshape", s.node("Transpose", apart, perm=[0, 2, 1, 3, 4]), s.const([batch, heads, -1, width]))
    return s.node("Concat", rows, f"{output}_state", axis=2)


def _resize(s: Sketch, op: o.Resize, inputs: list[str]) -> str:
    rounding = {"nearest_mode": op.rounding} if op.mode == "nearest" else {}
    return s.node(
        "Resize",
        inputs[0],
        "",
        s.const(op.scales, np.float32),
        mode=op.mode,
        cubic_coeff_a=op.cubic_coeff,
        coordinate_transformation_mode=op.coordinates,
        exclude_outside=int(op.exclude_outside),
        **rounding,
    )


def _recurrent(s: Sketch, op: o.Lstm | o.Gru | o.Rnn, inputs: list[str]) -> str:
    functions = [fn for d in range(op.directions) for fn in op.functions(d)]
    attributes: dict[str, Any] = {
        "direction": op.direction,
        "activations": [type(fn).__name__ for fn in functions],
        "hidden_size": next(t.shape[2] for t in s.types[2:] if t is not None),
    }
    for field in ("alpha", "beta"):
        values = [getattr(fn, field) for fn in functions if hasattr(fn, field)]
        attributes.update({f"activation_{field}": values} if values else {})
    attributes.update({"clip": op.clip} if op.clip is not None else {})
    for flag in ("input_forget", "linear_before_reset"):
        attributes.update({flag: int(getattr(op, flag))} if hasattr(op, flag) else {})
    y = s.node(type(op).__name__.upper(), *inputs, **attributes)
    states = [f"{y}_h", f"{y}_c"][: op.states]
    s.nodes[-1].output.extend(states)
    return s.node("Concat", y, *(s.node("Unsqueeze", state, s.const([0])) for state in states), axis=0)


def _literal(s: Sketch, op: o.Literal, inputs: list[str]) -> str:
    return s.node("Identity", s.const(op.value, op.dtype.numpy))


def _fused(s: Sketch, op: o.Fused, inputs: list[str]) -> str:
    values = list(inputs)
    if op.anchor is not None:
        values.append(_write(s, op.anchor, values[: op.anchor_inputs]))
    for instr in op.body:
        values.append(_write(s, instr.op, [values[a] for a in instr.args]))
    return values[-1]


_WRITERS: dict[type[Op], Callable[[Sketch, Any, list[str]], str]] = {
    o.Silu: _silu,
    o.Gelu: _gelu,
    o.Softplus: _softplus,
    o.Clip: _clip,
    o.Cast: _cast,
    o.Quantise: _quantise,
    o.Dequantise: _quantise,
    o.LeakyRelu: _attributes("LeakyRelu", alpha="alpha"),
    o.Elu: _attributes("Elu", alpha="alpha"),
    o.Selu: _attributes("Selu", alpha="alpha", gamma="gamma"),
    o.HardSigmoid: _attributes("HardSigmoid", alpha="alpha", beta="beta"),
    o.ThresholdedRelu: _attributes("ThresholdedRelu", alpha="alpha"),
    o.Mod: _attributes("Mod", fmod="fmod"),
    o.Convolution: _convolution,
    o.Deconvolution: _deconvolution,
    o.MaxPool: _pool,
    o.MaxPoolIndices: _pool_indices,
    o.AveragePool: _pool,
    o.Reduce: _reduce,
    o.Softmax: _attributes("Softmax", axis="axis"),
    o.LogSoftmax: _attributes("LogSoftmax", axis="axis"),
    o.BatchNorm: _attributes("BatchNormalization", epsilon="epsilon"),
    o.LayerNorm: _layer_norm,
    o.InstanceNorm: _attributes("InstanceNormalization", epsilon="epsilon"),
    o.Lrn: _attributes("LRN", size="size", alpha="alpha", beta="beta", bias="bias"),
    o.Attention: _attention,
    o.Reshape: _shape_input("Reshape", "shape"),
    o.Transpose: _transpose,
    o.Concat: _attributes("Concat", axis="axis"),
    o.Slice: _slice,
    o.Pad: _pad,
    o.Expand: _shape_input("Expand", "shape"),
    o.Tile: _shape_input("Tile", "repeats"),
    o.ShapeOf: _attributes("Shape", start="start", end="end"),
    o.Gather: _attributes("Gather", axis="axis"),
    o.GatherElements: _attributes("GatherElements", axis="axis"),
    o.GatherNd: _attributes("GatherND", batch_dims="batch_dims"),
    o.ScatterElements: _attributes("ScatterElements", axis="axis", reduction="reduction"),
    o.ScatterNd: _attributes("ScatterND", reduction="reduction"),
    o.ArgMax: _arg,
    o.ArgMin: _arg,
    o.TopKValues: _top_k,
    o.TopKIndices: _top_k,
    o.CumSum: _running,
    o.CumProd: _running,
    o.BitShift: _bit_shift,
    o.BitCast: _bit_cast,
    o.MaxRoiPool: _max_roi_pool,
    o.LinearAttention: _linear_attention,
    o.GridSample: _attributes("GridSample", mode="mode", padding_mode="padding", align_corners="align_corners"),
    o.RoiAlign: _roi_align,
    o.Resize: _resize,
    o.Lstm: _recurrent,
    o.Gru: _recurrent,
    o.Rnn: _recurrent,
    o.Literal: _literal,
    o.Fused: _fused,
}
