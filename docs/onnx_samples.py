# SPDX-License-Identifier: Apache-2.0
"""Sample models of ONNX operators: ONNX's own test cases, those of our importer tests, and some written out here."""

from __future__ import annotations

import functools
import importlib
import pathlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from tensorwright.importers.onnx.prepare import op_key

_OF_SIZES = ("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow", "MelWeightMatrix", "Range")
"""Operators whose inputs all say how large the result is: in models they are constants, the first one too."""

_AXIS = "axis = Constant <value = int64 {0}> ()"
_SPLIT = "s = SplitToSequence (x)"
_X, _Y = "uint8[1, 4, 6, 6] x, float xs, uint8 xz", "float ys, uint8 yz"
_MORE = {
    "ConcatFromSequence": f"(float[4] x) => (float[4] y) {{ {_SPLIT} y = ConcatFromSequence <axis = 0> (s) }}",
    "GlobalLpPool": "(float[1, 3, 5, 5] x) => (float[1, 3, 1, 1] y) { y = GlobalLpPool <p = 2> (x) }",
    "ImageScaler": "(float[1, 3, 5, 5] x) => (float[1, 3, 5, 5] y) "
    "{ y = ImageScaler <scale = 0.5, bias = [0.1, 0.2, 0.3]> (x) }",
    "Loop": "(float[2, 3] x) => (float[2, 3] y) { trips = Constant <value = int64 {3}> () "
    "go = Constant <value = bool {1}> () y = Loop (trips, go, x) < body = step "
    "(int64 i, bool k, float[2, 3] s) => (bool a, float[2, 3] n) { n = Tanh (s) a = Identity (k) } > }",
    "MaxRoiPool": "(float[1, 3, 8, 8] x, float[2, 5] rois) => (float[2, 3, 2, 2] y) "
    "{ y = MaxRoiPool <pooled_shape = [2, 2]> (x, rois) }",
    "Multinomial": "(float[2, 5] x) => (int32[2, 3] y) { y = Multinomial <sample_size = 3> (x) }",
    "Optional": "(float[3] x) => (optional(float[3]) y) { y = Optional (x) }",
    "ParametricSoftplus": "(float[3] x) => (float[3] y) { y = ParametricSoftplus <alpha = 0.5, beta = 2.0> (x) }",
    "RandomNormal": "() => (float[2, 3] y) { y = RandomNormal <shape = [2, 3]> () }",
    "RandomNormalLike": "(float[2, 3] x) => (float[2, 3] y) { y = RandomNormalLike (x) }",
    "RandomUniform": "() => (float[2, 3] y) { y = RandomUniform <shape = [2, 3]> () }",
    "RandomUniformLike": "(float[2, 3] x) => (float[2, 3] y) { y = RandomUniformLike (x) }",
    "ScaledTanh": "(float[3] x) => (float[3] y) { y = ScaledTanh <alpha = 0.5, beta = 2.0> (x) }",
    "SequenceAt": f"(float[4] x) => (float[1] y) {{ {_AXIS} {_SPLIT} y = SequenceAt (s, axis) }}",
    "SequenceConstruct": "(float[3] x) => (seq(float[3]) y) { y = SequenceConstruct (x, x) }",
    "SequenceEmpty": "() => (seq(float[3]) y) { y = SequenceEmpty () }",
    "SequenceErase": f"(float[4] x) => (seq(float[1]) y) {{ {_AXIS} {_SPLIT} y = SequenceErase (s, axis) }}",
    "SequenceLength": f"(float[4] x) => (int64 y) {{ {_SPLIT} y = SequenceLength (s) }}",
    "com.microsoft.DequantizeLinear": f"({_X}) => (float[1, 4, 6, 6] y) {{ y = DequantizeLinear (x, xs, xz) }}",
    "com.microsoft.DynamicQuantizeMatMul": "(float[3, 8] x, int8[8, 5] w, float ws, int8 wz) => (float[3, 5] y) "
    "{ y = DynamicQuantizeMatMul (x, w, ws, wz) }",
    "com.microsoft.MatMulIntegerToFloat": "(uint8[3, 8] x, int8[8, 5] w, float xs, float ws, uint8 xz, int8 wz) => "
    "(float[3, 5] y) { y = MatMulIntegerToFloat (x, w, xs, ws, xz, wz) }",
    "com.microsoft.MatMulNBits": "(float[3, 32] x, uint8[5, 2, 8] w, float[10] s) => (float[3, 5] y) "
    "{ y = MatMulNBits <K = 32, N = 5, bits = 4, block_size = 16> (x, w, s) }",
    "com.microsoft.NhwcMaxPool": "(uint8[1, 6, 6, 4] x) => (uint8[1, 5, 5, 4] y) "
    "{ y = NhwcMaxPool <kernel_shape = [2, 2]> (x) }",
    "com.microsoft.QGemm": f"(uint8[3, 8] x, float xs, uint8 xz, int8[8, 5] w, float ws, int8 wz, int32[5] b, {_Y}) => "
    "(uint8[3, 5] y) { y = QGemm (x, xs, xz, w, ws, wz, b, ys, yz) }",
    **{
        f"com.microsoft.QLinear{op}": f"({_X}, uint8[1, 4, 6, 6] x2, float ws, uint8 wz, {_Y}) => "
        f"(uint8[1, 4, 6, 6] y) {{ y = QLinear{op} (x, xs, xz, x2, ws, wz, ys, yz) }}"
        for op in ("Add", "Mul")
    },
    **{
        f"com.microsoft.QLinear{op}": f"({_X}, {_Y}) => (uint8{shape} y) "
        f"{{ y = QLinear{op} <{attrs}> (x, xs, xz, ys, yz) }}"
        for op, shape, attrs in (
            ("AveragePool", "[1, 4, 5, 5]", "kernel_shape = [2, 2]"),
            ("GlobalAveragePool", "[1, 4, 1, 1]", "channels_last = 0"),
            ("LeakyRelu", "[1, 4, 6, 6]", "alpha = 0.1"),
            ("ReduceMean", "[1, 4, 1, 1]", "axes = [2, 3]"),
            ("Softmax", "[1, 4, 6, 6]", "axis = -1, opset = 13"),
        )
    },
    "com.microsoft.QLinearConcat": f"({_Y}, {_X}, uint8[1, 4, 6, 6] x2, float ws, uint8 wz) => (uint8[1, 8, 6, 6] y) "
    "{ y = QLinearConcat <axis = 1> (ys, yz, x, xs, xz, x2, ws, wz) }",
    "com.microsoft.QLinearConv": f"({_X}, uint8[3, 4, 3, 3] w, float ws, uint8 wz, {_Y}) => (uint8[1, 3, 4, 4] y) "
    "{ y = QLinearConv <kernel_shape = [3, 3]> (x, xs, xz, w, ws, wz, ys, yz) }",
    "com.microsoft.QLinearSigmoid": f"({_X}, {_Y}) => (uint8[1, 4, 6, 6] y) "
    "{ y = QLinearSigmoid (x, xs, xz, ys, yz) }",
    "com.microsoft.QLinearWhere": f"(bool[1, 4, 6, 6] x3, {_X}, uint8[1, 4, 6, 6] x2, float ws, uint8 wz, {_Y}) => "
    "(uint8[1, 4, 6, 6] y) { y = QLinearWhere (x3, x, xs, xz, x2, ws, wz, ys, yz) }",
    "com.microsoft.QuantizeLinear": f"(float[2, 3] x, {_Y}) => (uint8[2, 3] y) {{ y = QuantizeLinear (x, ys, yz) }}",
}
"""Operators, or common forms of them, of which ONNX has no case. Inputs called x are given at run, others stored."""
_OPSETS = {"MaxRoiPool": 17, "ImageScaler": 7, "ParametricSoftplus": 7, "ScaledTanh": 7}


@functools.cache
def samples() -> Mapping[str, list[ModelProto]]:
    """Sample models by the operator they show. Inputs behind the first one are also tried as constants."""
    from onnx.backend.test.case.node import collect_testcases

    found: dict[str, list[ModelProto]] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # ONNX's cases overflow and divide by zero on purpose
        cases = collect_testcases(None)
    for case in sorted(cases, key=lambda case: str(case.name)):
        if case.model is not None and len(case.model.graph.node) == 1:
            found.setdefault(op_key(case.model.graph.node[0]), []).append(_with_constants(case.model, case.data_sets))
    for proto in _test_samples():
        found.setdefault(op_key(proto.graph.node[0]), []).append(proto)
    for key, text in _MORE.items():
        found.setdefault(key, []).append(_written(key, text))
    return found


def _written(key: str, text: str) -> ModelProto:
    """The model of a text of `_MORE`; its last node is the operator."""
    domain, _, name = key.rpartition(".")
    opsets = f'["" : {_OPSETS.get(name, 20)}, "com.microsoft" : 1]'
    proto = parser.parse_model(f"< ir_version: 8, opset_import: {opsets} > g {text}")
    proto.graph.node[-1].domain = domain
    for info in proto.graph.input:
        if not info.name.rstrip("23") == "x":
            tensor = info.type.tensor_type
            shape = [dim.dim_value for dim in tensor.shape.dim]
            ones = np.ones(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            proto.graph.initializer.append(numpy_helper.from_array(ones, info.name))
    return proto


def _test_samples() -> Iterator[ModelProto]:
    """The models of one node in the `CASES` of our own importer tests."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if str(root) not in sys.path:  # `make docs` runs a file of docs/
        sys.path.append(str(root))
    for path in sorted((root / "tests" / "importers").glob("test_*.py")):
        cases = getattr(importlib.import_module(f"tests.importers.{path.stem}"), "CASES", None)
        for proto in cases.values() if isinstance(cases, dict) else ():
            if isinstance(proto, ModelProto) and len(proto.graph.node) == 1:
                yield proto


def _with_constants(proto: ModelProto, data_sets: Sequence[tuple[Sequence[object], object]]) -> ModelProto:
    """The case with all inputs but the first stored: sizes, axes and weights are, in models."""
    result = ModelProto()
    result.CopyFrom(proto)
    arrays = data_sets[0][0] if data_sets else ()
    first = 0 if op_key(proto.graph.node[0]) in _OF_SIZES else 1
    for info, value in list(zip(result.graph.input, arrays, strict=False))[first:]:
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "OUS":
            result.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
        elif isinstance(value, TensorProto):
            result.graph.initializer.append(value)
            result.graph.initializer[-1].name = info.name
    return result


def variable(proto: ModelProto) -> ModelProto | None:
    """The sample with everything given at run; None when that is what it is."""
    inputs = {info.name for info in proto.graph.input}
    if not any(tensor.name in inputs for tensor in proto.graph.initializer):
        return None
    result = ModelProto()
    result.CopyFrom(proto)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in inputs]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result
