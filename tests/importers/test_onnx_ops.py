# SPDX-License-Identifier: Apache-2.0
"""Each ONNX op in each of its forms gives what ONNX Runtime gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.importers.models import Shape, assert_agrees, model, node

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@dataclass(frozen=True)
class Case:
    """One node of `op`, which reads `inputs` (by shape), then `constants`; `reads` is another order, "" is absent."""

    op: str
    inputs: Mapping[str, Shape]
    constants: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: Sequence[str] = ("y",)
    kinds: Mapping[str, int] = field(default_factory=dict)
    reads: Sequence[str] = ()

    def __str__(self) -> str:
        extra = "-".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{self.opset}-{extra}".replace(" ", "")[:60]


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


X = {"x": [2, 3, 5, 7]}
IMAGE = {"x": [2, 4, 9, 8]}
PAIR = {"a": [2, 3, 4], "b": [3, 1]}

UNARY = [
    "Abs",
    "Neg",
    "Exp",
    "Reciprocal",
    "Tanh",
    "Floor",
    "Ceil",
    "Erf",
    "Round",
    "Sign",
    "Sin",
    "Cos",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Relu",
    "Sigmoid",
    "Softsign",
    "Softplus",
    "HardSwish",
    "LeakyRelu",
    "Elu",
    "Selu",
    "HardSigmoid",
    "ThresholdedRelu",
    "Celu",
    "Log",
    "Sqrt",
    "Tan",
    "Asin",
    "Acos",
    "Acosh",
    "Atanh",
    "Shrink",
    "Identity",
]
POINTWISE = [
    *(Case(op, X) for op in UNARY),
    Case("Mish", X, opset=18),
    Case("Gelu", X, opset=20),
    Case("Gelu", X, {}, {"approximate": "tanh"}, 20),
    *(Case(op, PAIR) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")),
    *(Case(op, PAIR, kinds={"y": BOOL}) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")),
    *(Case(op, PAIR, kinds={"a": BOOL, "b": BOOL, "y": BOOL}) for op in ("And", "Or", "Xor")),
    Case("Not", X, kinds={"x": BOOL, "y": BOOL}),
    Case("IsNaN", X, kinds={"y": BOOL}),
    Case("IsInf", X, kinds={"y": BOOL}),
    Case("Sum", {"a": [2, 3], "b": [3], "c": [2, 1]}),
    Case("Mean", {"a": [2, 3], "b": [3], "c": [2, 1]}),
    Case("Max", {"a": [4]}),
    Case("Pow", X, {"e": floats(2)}),
    Case("Pow", X, {"e": ints(3)}),
    Case("PRelu", X, {"s": weights(3, 1, 1)}),
    Case("LeakyRelu", X, {}, {"alpha": 0.3}),
    Case("Elu", X, {}, {"alpha": 0.5}),
    Case("Selu", X, {}, {"alpha": 1.2, "gamma": 0.7}),
    Case("HardSigmoid", X, {}, {"alpha": 0.3, "beta": 0.4}),
    Case("ThresholdedRelu", X, {}, {"alpha": 0.2}),
    Case("Celu", X, {}, {"alpha": 0.4}),
    Case("Shrink", X, {}, {"bias": 0.2, "lambd": 0.7}),
    Case("Clip", X, {}, {"min": -0.5, "max": 0.5}, 7),
    Case("Clip", X, {}, {"min": -0.5}, 10),
    Case("Clip", X, {}, {}, 7),
    Case("Clip", X, {"low": np.float32(-0.5), "high": np.float32(0.25)}, opset=11),
    Case("Clip", X, {"low": np.float32(0)}, opset=13),
    Case("Clip", X, {"high": np.float32(0)}, reads=("x", "", "high"), opset=13),
    Case("Clip", {**X, "low": []}, opset=13),
    Case("Clip", X, {"low": np.int64(1)}, kinds={"x": I64, "y": I64}, opset=13),
    Case("Mod", {"a": [6], "b": [6]}, {}, {"fmod": 1}),
    Case("Mod", {"a": [6]}, {"b": ints(1, -2, 3, -4, 5, 7)}, kinds={"a": I64, "y": I64}),
    Case("Div", {"a": [6]}, {"b": ints(1, -2, 3, -4, 5, 7)}, kinds={"a": I64, "y": I64}),
    Case("Where", {"c": [3, 1], "a": [2, 3, 4], "b": [4]}, kinds={"c": BOOL}),
    Case("Cast", X, {}, {"to": I64}, kinds={"y": I64}),
    Case("Cast", X, {}, {"to": BOOL}, kinds={"y": BOOL}),
    Case("Cast", X, {}, {"to": F}, kinds={"x": I64}),
    Case("CastLike", X, {"like": ints(1)}, opset=15, kinds={"y": I64}),
]
CONV = [
    Case("Conv", IMAGE, {"w": weights(6, 4, 3, 3)}),
    Case("Conv", IMAGE, {"w": weights(6, 4, 3, 3), "b": weights(6)}, opset=7),
    Case(
        "Conv",
        IMAGE,
        {"w": weights(6, 2, 3, 2)},
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]},
    ),
    Case("Conv", IMAGE, {"w": weights(4, 1, 3, 3)}, {"group": 4, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    *(
        Case("Conv", IMAGE, {"w": weights(5, 4, 3, 2)}, {"auto_pad": mode, "strides": [2, 2]})
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", IMAGE, {"w": weights(5, 4, 2, 2)}, {"auto_pad": "SAME_LOWER"}),
    Case("Conv", {"x": [2, 4, 9]}, {"w": weights(5, 4, 3)}),
    Case("Conv", {"x": [1, 2, 5, 4, 3]}, {"w": weights(3, 2, 2, 2, 2)}),
    Case("Conv", {**IMAGE, "w": [3, 4, 1, 1]}),
    Case("ConvTranspose", IMAGE, {"w": weights(4, 3, 2, 2), "b": weights(3)}, {"strides": [2, 2]}),
    Case(
        "ConvTranspose",
        IMAGE,
        {"w": weights(4, 3, 3, 3)},
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 2]},
    ),
    Case("ConvTranspose", IMAGE, {"w": weights(4, 2, 3, 2)}, {"group": 2, "dilations": [2, 1]}),
    Case("ConvTranspose", IMAGE, {"w": weights(4, 3, 3, 3)}, {"strides": [2, 2], "output_shape": [18, 16]}),
    *(
        Case("ConvTranspose", IMAGE, {"w": weights(4, 3, 4, 3)}, {"strides": [2, 2], "auto_pad": mode})
        for mode in ("SAME_UPPER", "SAME_LOWER")
    ),
]
POOL = [
    *(
        Case(op, IMAGE, {}, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, opset)
        for op, opset in (("MaxPool", 8), ("AveragePool", 7), ("MaxPool", 12), ("AveragePool", 19))
    ),
    *(
        Case(op, IMAGE, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case(op, IMAGE, {}, {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": mode})
        for op in ("MaxPool", "AveragePool")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("MaxPool", IMAGE, {}, {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    Case("GlobalAveragePool", IMAGE),
    Case("GlobalMaxPool", IMAGE),
]
LINEAR = [
    Case("MatMul", {"a": [2, 3, 4], "b": [4, 5]}),
    Case("MatMul", {"a": [4], "b": [3, 4, 5]}),
    Case("MatMul", {"a": [2, 1, 3, 4], "b": [5, 4, 2]}),
    Case("Gemm", {"a": [3, 4], "b": [4, 5]}, opset=11),
    Case("Gemm", {"a": [3, 4], "b": [4, 5], "c": [5]}, opset=7),
    Case("Gemm", {"a": [4, 3], "b": [5, 4], "c": [3, 1]}, {}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", {"a": [3, 4], "b": [4, 5], "c": []}, {}, {"beta": 0.0}),
]
REDUCE = [
    *(
        Case(op, X, {}, {"axes": [1, -1], "keepdims": k}, 11)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
        for k in (0, 1)
    ),
    *(
        Case(op, X, {"axes": ints(-2, 0)}, {"keepdims": 0}, 18)
        for op in (
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
        )
    ),
    Case("ReduceSum", X, {"axes": ints(2)}, opset=13),
    Case("ReduceMean", X, opset=13),
    Case("ReduceMax", X, opset=18),
    Case("ReduceSum", X, {"axes": ints()}, {"noop_with_empty_axes": 1}, 13),
    Case("ReduceSum", X, {"axes": ints()}, {}, 13),
    *(
        Case(op, X, {}, {"axis": a}, opset)
        for op in ("Softmax", "LogSoftmax")
        for a, opset in ((1, 11), (3, 11), (-2, 11), (1, 13), (-1, 13))
    ),
    Case("Softmax", X, opset=11),
    Case("Softmax", X, opset=13),
    Case("LpNormalization", X, {}, {"p": 1, "axis": 1}),
    *(
        Case(op, X, {}, {"axis": a, "keepdims": k}, opset, kinds={"y": I64})
        for op in ("ArgMax", "ArgMin")
        for a, k, opset in ((1, 0, 11), (-1, 1, 13))
    ),
    Case("ArgMax", X, {}, {"axis": 2, "select_last_index": 1}, kinds={"x": I64, "y": I64}),
]
NORM = [
    *(
        Case(
            "BatchNormalization",
            IMAGE,
            {"s": weights(4), "b": weights(4), "m": weights(4), "v": weights(4) ** 2},
            {"epsilon": 1e-3},
            opset,
        )
        for opset in (7, 9, 14, 15)
    ),
    Case("InstanceNormalization", IMAGE, {"s": weights(4), "b": weights(4)}),
    Case("LayerNormalization", X, {"s": weights(7), "b": weights(7)}),
    Case("LayerNormalization", X, {"s": weights(5, 7)}, {"axis": 2}),
    Case("LayerNormalization", X, {"s": weights(7)}, outputs=("y", "mean", "inverse")),
    Case("LRN", IMAGE, {}, {"size": 3, "alpha": 0.02, "beta": 0.6, "bias": 2.0}),
    Case("LRN", IMAGE, {}, {"size": 5}),
    Case("GroupNormalization", IMAGE, {"s": weights(4), "b": weights(4)}, {"num_groups": 2}, 21),
    Case("MeanVarianceNormalization", IMAGE, opset=13),
]
SHAPE = [
    Case("Reshape", X, {"s": ints(0, -1, 7)}),
    Case("Reshape", X, {"s": ints(6, 35)}, {"allowzero": 1}),
    Case("Reshape", X, {"s": ints(-1)}, opset=7),
    *(Case("Flatten", X, {}, {"axis": a}, opset) for a, opset in ((0, 9), (1, 9), (4, 9), (-1, 13), (-3, 13))),
    Case("Squeeze", {"x": [1, 3, 1, 2]}, {}, {"axes": [0]}, 7),
    Case("Squeeze", {"x": [1, 3, 1, 2]}, {"a": ints(-2)}, {}, 13),
    Case("Squeeze", {"x": [1, 3, 1, 2]}, opset=13),
    Case("Unsqueeze", X, {}, {"axes": [0, 3]}, 7),
    Case("Unsqueeze", X, {"a": ints(-1, 1)}, {}, 13),
    Case("Transpose", X),
    Case("Transpose", X, {}, {"perm": [0, 2, 3, 1]}),
    *(Case("Concat", {"a": [2, 3], "b": [2, 1], "c": [2, 2]}, {}, {"axis": a}) for a in (1, -1)),
    Case("Concat", {"a": [2, 3]}, {}, {"axis": 0}),
    Case("Split", IMAGE, {}, {"axis": 1, "split": [1, 3]}, 7, ("p", "q")),
    Case("Split", IMAGE, {}, {"axis": -1}, 11, ("p", "q")),
    Case("Split", IMAGE, {"s": ints(4, 0, 5)}, {"axis": 2}, 13, ("p", "q", "r")),
    Case("Split", IMAGE, {}, {"axis": 2, "num_outputs": 2}, 18, ("p", "q")),
    Case("Slice", IMAGE, {}, {"starts": [1, -3], "ends": [3, 100], "axes": [1, 2]}, 7),
    Case("Slice", IMAGE, {}, {"starts": [0], "ends": [-1]}, 9),
    Case("Slice", IMAGE, {"s": ints(-1, 1), "e": ints(-100, 8), "a": ints(2, -1), "t": ints(-2, 3)}, opset=13),
    Case("Slice", IMAGE, {"s": ints(5), "e": ints(2)}, opset=13),
    Case("Slice", IMAGE, {"s": ints(0), "e": ints(2**62)}, opset=10),
    Case("Pad", X, {}, {"pads": [0, 1, 0, 2, 1, 0, 0, 3], "value": 1.5}, 10),
    Case("Pad", X, {"p": ints(0, 1, 0, 2, 1, 0, 0, 3), "v": np.float32(-2)}, opset=13),
    Case("Pad", X, {"p": ints(1, -1), "v": np.float32(0), "a": ints(-1)}, opset=18),
    *(Case("Pad", X, {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}, {"mode": mode}, 11) for mode in ("reflect", "edge")),
    Case("Pad", X, {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}, {"mode": "wrap"}, 19),
    Case("Tile", X, {"r": ints(1, 2, 1, 3)}),
    Case("Expand", {"x": [3, 1]}, {"s": ints(2, 1, 4)}),
    Case("Expand", {"x": [3, 4]}, {"s": ints(1)}),
    Case("Gather", X, {"i": ints(0, -1, 2)}, {"axis": 1}),
    Case("Gather", X, {"i": np.int64(1)}),
    Case("Gather", {"x": [9, 4], "i": [2, 3]}, kinds={"i": I64}),
    Case("DepthToSpace", {"x": [2, 8, 3, 2]}, {}, {"blocksize": 2}),
    Case("DepthToSpace", {"x": [2, 8, 3, 2]}, {}, {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", {"x": [2, 3, 4, 6]}, {}, {"blocksize": 2}),
    Case("Dropout", X, opset=11),
    Case("Dropout", X, {"r": np.float32(0.5)}, opset=13),
    Case("Dropout", X, opset=13, outputs=("y", "mask"), kinds={"mask": BOOL}),
    Case("Trilu", X, {"k": np.int64(1)}, {"upper": 1}),
    Case("Trilu", X, {}, {"upper": 0}),
    Case("Shape", X, kinds={"y": I64}),
    Case("Shape", X, {}, {"start": 1, "end": -1}, kinds={"y": I64}),
    Case("Size", X, kinds={"y": I64}),
    Case("OneHot", {"i": [2, 3]}, {"d": np.int64(4), "v": floats(-1, 2)}, {"axis": 1}, kinds={"i": I64}),
    Case("EyeLike", {"x": [3, 4]}, {}, {"k": 1}),
    Case("ConstantOfShape", {}, {"s": ints(2, 3)}),
    Case("ConstantOfShape", {}, {"s": ints(70, 80)}),
    Case("Range", {}, {"a": np.int64(3), "b": np.int64(11), "c": np.int64(3)}, kinds={"y": I64}),
    Case("Range", {}, {"a": np.float32(1), "b": np.float32(-2), "c": np.float32(-0.4)}),
]
SCALES = floats(1, 1, 2, 1.5)
RESIZE = [
    Case("Upsample", IMAGE, {}, {"scales": [1.0, 1.0, 2.0, 3.0]}, 7),
    Case("Upsample", IMAGE, {"s": floats(1, 1, 2, 2)}, {"mode": "linear"}, 9),
    Case("Resize", IMAGE, {"s": floats(1, 1, 2, 2)}, opset=10),
    Case("Resize", IMAGE, {"s": floats(1, 1, 0.5, 0.5)}, opset=10),
    Case("Resize", IMAGE, {"s": floats(1, 1, 2, 2)}, {"mode": "linear"}, 10),
    *(
        Case("Resize", IMAGE, {"r": floats(), "s": SCALES}, {"mode": mode, "coordinate_transformation_mode": c}, 13)
        for mode in ("nearest", "linear", "cubic")
        for c in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    *(
        Case(
            "Resize",
            IMAGE,
            {"r": floats(), "s": SCALES},
            {"nearest_mode": r, "coordinate_transformation_mode": "asymmetric"},
            13,
        )
        for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    Case("Resize", IMAGE, {"n": ints(2, 4, 5, 11)}, {"mode": "linear"}, 13, reads=("x", "", "", "n")),
    Case("Resize", IMAGE, {"n": ints(5, 11)}, {"axes": [2, 3]}, 18, reads=("x", "", "", "n")),
    *(
        Case(
            "Resize",
            IMAGE,
            {"n": ints(18, 24)},
            {"axes": [2, 3], "keep_aspect_ratio_policy": p},
            18,
            reads=("x", "", "", "n"),
        )
        for p in ("not_larger", "not_smaller")
    ),
    Case(
        "Resize",
        IMAGE,
        {"r": floats(), "s": SCALES},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        13,
    ),
]


@pytest.mark.parametrize("case", [*POINTWISE, *CONV, *POOL, *LINEAR, *REDUCE, *NORM, *SHAPE, *RESIZE], ids=str)
def test_op_imported_agrees_with_onnx_runtime(case: Case) -> None:
    reads = case.reads or (*case.inputs, *case.constants)
    proto = model(
        [node(case.op, reads, case.outputs, "the_node", **case.attributes)],
        case.inputs,
        case.outputs,
        case.constants,
        opset=case.opset,
        kinds=case.kinds,
    )
    for seed in (1, 2):
        assert_agrees(proto, seed=seed)
