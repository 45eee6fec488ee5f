# SPDX-License-Identifier: Apache-2.0
"""Quantised operators of ONNX give what ONNX Runtime gives, to the last bit, in generated code alone."""

from __future__ import annotations

import pathlib
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.reader import import_onnx
from tests.importers.models import Array, model, runtime_outputs
from tests.importers.quantised import (
    BF16,
    F16,
    F32,
    I8,
    I16,
    I32,
    SEED,
    U8,
    U16,
    built,
    check,
    f32,
    integers,
    one,
    reals,
    rng,
)


# -- QuantizeLinear and DequantizeLinear --------------------------------------------------------------
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("scale", [0.5, 0.037])
@pytest.mark.parametrize("dtype", [U8, I8, U16, I16])
def test_quantize_linear_per_tensor_is_exact(dtype: Any, scale: float, domain: str) -> None:
    middle = int(np.iinfo(dtype).max // 3)
    x = reals(3, 67, size=scale * 150)
    kind = {"y": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    check(*one("QuantizeLinear", {"x": x, "s": f32(scale), "z": dtype(middle)}, domain=domain, kinds=kind))
    kind = {"y": F32}
    q = integers(dtype, 3, 67)
    check(*one("DequantizeLinear", {"x": q, "s": f32(scale), "z": dtype(middle)}, domain=domain, kinds=kind))


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
def test_quantize_linear_defaults_to_u8_and_zero(opset: int) -> None:
    check(*one("QuantizeLinear", {"x": reals(5, 7, size=99), "s": f32(0.5)}, opset=opset))
    check(*one("DequantizeLinear", {"x": integers(U8, 5, 7), "s": f32(0.3)}, opset=opset, kinds={"y": F32}))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantisation_per_axis_is_exact(axis: int) -> None:
    size = (3, 5, 7)[axis]
    scale, zero = rng().uniform(0.1, 1, size).astype(np.float32), integers(I8, size)
    x = reals(3, 5, 7, size=20)
    check(*one("QuantizeLinear", {"x": x, "s": scale, "z": zero}, axis=axis, kinds={"y": TensorProto.INT8}))
    q = integers(I8, 3, 5, 7)
    check(*one("DequantizeLinear", {"x": q, "s": scale, "z": zero}, axis=axis, kinds={"y": F32}))
    check(*one("DequantizeLinear", {"x": q, "s": scale, "z": zero}, "x s z", axis=axis, kinds={"y": F32}))


@pytest.mark.parametrize(("length", "block"), [(8, 4), (9, 4), (5, 5), (7, 3)])
@pytest.mark.parametrize("axis", [0, 1])
def test_quantisation_by_blocks_is_exact(axis: int, length: int, block: int) -> None:
    shape, blocks = [(length, 6), (6, length)][axis], -(-length // block)
    scales = [(blocks, 6), (6, blocks)][axis]
    scale, zero = rng().uniform(0.1, 1, scales).astype(np.float32), integers(U8, *scales)
    options: dict[str, Any] = {"axis": axis, "block_size": block}
    check(*one("QuantizeLinear", {"x": reals(*shape, size=40), "s": scale, "z": zero}, **options))
    q = integers(U8, *shape)
    check(*one("DequantizeLinear", {"x": q, "s": scale, "z": zero}, "x s z", kinds={"y": F32}, **options))


def test_dequantize_linear_of_i32_and_to_halves_is_exact() -> None:
    check(*one("DequantizeLinear", {"x": integers(np.int32, 99), "s": f32(1e-5)}, kinds={"y": F32}))
    for dtype in (U8, I8, U16, I16):
        arrays = {"x": integers(dtype, 99), "s": np.float16(0.037), "z": dtype(7)}
        check(*one("DequantizeLinear", arrays, kinds={"y": F16}))


SMALL = {
    "i4": (ml_dtypes.int4, TensorProto.INT4),
    "u4": (ml_dtypes.uint4, TensorProto.UINT4),
    "f8e4m3fn": (ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E4M3FN),
    "f8e5m2": (ml_dtypes.float8_e5m2, TensorProto.FLOAT8E5M2),
    "f8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, TensorProto.FLOAT8E4M3FNUZ),
    "f8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, TensorProto.FLOAT8E5M2FNUZ),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_types_equal_onnx_reference(name: str) -> None:
    dtype, kind = SMALL[name]
    x = np.concatenate([reals(200, size=9), [1e6, -1e6, 0.0]]).astype(np.float32)
    arrays = {"x": x, "s": f32(0.5), "z": np.zeros((), dtype)}
    check(*one("QuantizeLinear", arrays, kinds={"y": kind}), by_reference=True)
    if name.startswith("f8"):
        check(*one("QuantizeLinear", arrays, kinds={"y": kind}, saturate=0), by_reference=True)
    with np.errstate(all="ignore"):
        q = x.clip(-8 if name != "u4" else 0, 7).astype(dtype)
    check(*one("DequantizeLinear", {"x": q, "s": f32(0.5)}, kinds={"y": F32}), by_reference=True)


def test_precision_and_output_dtype_are_obeyed() -> None:
    x, scale = reals(500, size=30).astype(np.float16), np.float16(0.3)
    options: dict[str, Any] = {"output_dtype": TensorProto.INT16, "opset": 23, "kinds": {"y": TensorProto.INT16}}
    check(*one("QuantizeLinear", {"x": x, "s": scale}, **options), by_reference=True)
    check(*one("QuantizeLinear", {"x": x, "s": scale}, precision=F32, **options), by_reference=True)
    q = {"x": integers(I8, 99), "s": f32(0.1)}
    for kind in (F16, BF16):
        proto, feeds = one("DequantizeLinear", q, output_dtype=kind, opset=23, kinds={"y": kind})
        check(proto, feeds, by_reference=True)


def test_quantisation_that_contradicts_itself_is_a_model_error() -> None:
    x, q = reals(4, 6), integers(U8, 4, 6)
    scale = np.ones((4, 2), np.float32)
    for proto, _ in (
        one("QuantizeLinear", {"x": x, "s": scale}, axis=1, block_size=2),
        one("DequantizeLinear", {"x": q, "s": scale}, axis=1),
        one("DequantizeLinear", {"x": q, "s": np.ones(5, np.float32), "z": np.zeros(6, U8)}, axis=1),
        one("QuantizeLinear", {"x": x, "s": f32(1), "z": I8(0)}, output_dtype=TensorProto.UINT8),
    ):
        with pytest.raises(ModelError):
            import_onnx(proto)


# -- products -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shapes", [((3, 300), (300, 33)), ((2, 3, 4, 5), (3, 5, 6)), ((1, 7), (7, 1))])
@pytest.mark.parametrize("left", [U8, I8])
@pytest.mark.parametrize("right", [U8, I8])
def test_matmul_integer_is_exact(right: Any, left: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = integers(left, *shapes[0]), integers(right, *shapes[1])
    kinds = {"y": I32}
    check(*one("MatMulInteger", {"x": a, "w": b}, kinds=kinds))
    check(*one("MatMulInteger", {"x": a, "w": b, "za": left(9), "zb": right(99)}, "x w za zb", kinds=kinds))


def test_matmul_integer_takes_zero_points_per_row_and_column() -> None:
    a, b, za, zb = integers(U8, 4, 9), integers(I8, 9, 5), integers(U8, 4), integers(I8, 5)
    proto, feeds = one("MatMulInteger", {"x": a, "w": b, "za": za, "zb": zb}, kinds={"y": I32})
    (got,) = built(proto, feeds)
    want = (a.astype(np.int32) - za[:, None]) @ (b.astype(np.int32) - zb)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("scale", [2.0**-10, 0.00071])
@pytest.mark.parametrize("kind", [U8, I8])
def test_qlinear_matmul_is_exact(kind: Any, scale: float) -> None:
    a, b, z = integers(U8, 17, 64), integers(kind, 64, 33), kind(5)
    for b_scale, zb in ((f32(0.5), kind(3)), (rng().uniform(0.1, 1, 33).astype(np.float32), integers(kind, 33))):
        arrays = {"x": a, "sa": f32(scale), "za": U8(101), "w": b, "sb": b_scale, "zb": zb, "sy": f32(0.125), "zy": z}
        if kind is I8:  # ONNX Runtime wants one type for a and y
            arrays |= {"x": integers(I8, 17, 64), "za": I8(-3)}
        proto, feeds = one("QLinearMatMul", arrays, kinds={"y": helper.np_dtype_to_tensor_dtype(np.dtype(kind))})
        check(proto, feeds)


def test_qlinear_matmul_of_small_floats_multiplies_their_values() -> None:
    dtype, kind = SMALL["f8e4m3fn"]
    a, b = (reals(*shape).astype(dtype) for shape in ((5, 32), (32, 9)))
    zero = np.zeros((), dtype)
    arrays = {"x": a, "sa": f32(0.5), "za": zero, "w": b, "sb": f32(0.25), "zb": zero, "sy": f32(0.75), "zy": zero}
    (got,) = built(*one("QLinearMatMul", arrays, kinds={"y": kind}))
    factor = f32(0.5) * f32(0.25) / f32(0.75)
    want = (a.astype(np.float32) @ b.astype(np.float32) * factor).clip(-448, 448).astype(dtype)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32), err_msg=f"seed {SEED}")


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 5, 9, 8), (7, 5, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((1, 6, 7, 7), (9, 2, 3, 3), {"group": 3, "dilations": [2, 1]}),
    ((1, 16, 9, 9), (16, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    ((1, 33, 5, 5), (40, 33, 1, 1), {}),
    ((2, 3, 17), (4, 3, 5), {"auto_pad": "SAME_UPPER", "strides": [2]}),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_of_integers_are_exact(case: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]) -> None:
    x_shape, w_shape, attributes = case
    x, w, m = integers(U8, *x_shape), integers(U8, *w_shape), w_shape[0]
    kinds = {"y": I32}
    check(*one("ConvInteger", {"x": x, "w": w, "zx": U8(7)}, kinds=kinds, **attributes))
    check(*one("ConvInteger", {"x": x, "w": w, "zx": U8(7), "zw": U8(30)}, "x w", kinds=kinds, **attributes))
    weights, bias = integers(I8, *w_shape), rng().integers(-9999, 9999, m).astype(np.int32)
    for scale, zero in ((f32(0.25), I8(0)), (rng().uniform(0.1, 1, m).astype(np.float32), np.zeros(m, I8))):
        arrays = {"x": x, "sx": f32(0.5), "zx": U8(120), "w": weights, "sw": scale, "zw": zero}
        arrays |= {"sy": f32(16.0), "zy": U8(131)}
        check(*one("QLinearConv", arrays, **attributes))
        check(*one("QLinearConv", arrays | {"b": bias}, **attributes))


def test_conv_integer_takes_zero_points_per_filter() -> None:
    x, w, zeros = integers(U8, 1, 3, 6, 6), integers(I8, 4, 3, 3, 3), integers(I8, 4)
    got = built(*one("ConvInteger", {"x": x, "w": w, "zx": U8(9), "zw": zeros}, kinds={"y": I32}))
    centred = w.astype(np.int32) - zeros[:, None, None, None]
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.int32) - 9, (3, 3), (2, 3))
    np.testing.assert_array_equal(got[0], np.einsum("nchwij,fcij->nfhw", windows, centred))


@pytest.mark.parametrize("size", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_dynamic_quantize_linear_is_exact(shift: float, size: float) -> None:
    x = (rng().standard_normal((9, 35)) * size + shift * (size > 0)).astype(np.float32)
    kinds = {"s": F32}
    check(*one("DynamicQuantizeLinear", {"x": x}, outputs=("y", "s", "z"), kinds=kinds))


# -- whole networks -----------------------------------------------------------------------------------
def small_network() -> onnx.ModelProto:
    """An image network with a residual, pools and a classifier."""
    r = rng()

    def weights(*shape: int) -> Array:
        return (r.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("LeakyRelu", ["c2"], ["l2"], alpha=0.1),
        helper.make_node("Add", ["l2", "p1"], ["a2"]),
        helper.make_node("Concat", ["a2", "p1"], ["k2"], axis=1),
        helper.make_node("Conv", ["k2", "w3"], ["c3"]),
        helper.make_node("Sigmoid", ["c3"], ["s3"]),
        helper.make_node("GlobalAveragePool", ["s3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    constants = {"w1": weights(16, 3, 3, 3), "b1": weights(16), "w2": weights(16, 4, 3, 3), "b2": weights(16)}
    constants |= {"w3": weights(24, 32, 1, 1), "w4": weights(10, 24), "b4": weights(10)}
    return model(nodes, {"x": [2, 3, 21, 20]}, ["y"], constants)


def quantised_network(form: str, per_channel: bool, folder: pathlib.Path) -> onnx.ModelProto:
    """The network as ONNX Runtime's tools quantise it: with operators on integers, or with pairs of conversions."""
    images = [{"x": rng().standard_normal((2, 3, 21, 20)).astype(np.float32)} for _ in range(3)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # no type hints
        def get_next(self) -> dict[str, Array] | None:
            return images.pop() if images else None

    onnx.save(small_network(), folder / "plain.onnx")
    quantization.quantize_static(
        folder / "plain.onnx",
        folder / "quantised.onnx",
        Reader(),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(folder / "quantised.onnx")


@pytest.mark.parametrize("per_channel", [False, True])
def test_network_of_integer_operators_is_exact(per_channel: bool, tmp_path: pathlib.Path) -> None:
    proto = quantised_network("QOperator", per_channel, tmp_path)
    assert {"QLinearConv", "QLinearAdd", "QLinearLeakyRelu", "QGemm"} <= {n.op_type for n in proto.graph.node}
    feeds = {"x": rng().standard_normal((2, 3, 21, 20)).astype(np.float32)}
    (got,), (want,) = built(proto, feeds), runtime_outputs(proto, feeds)
    np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("per_channel", [False, True])
def test_network_of_conversions_is_within_one_step(per_channel: bool, tmp_path: pathlib.Path) -> None:
    """Its convolutions are in f32: sums in another order may fall on the other side of a tie, rarely."""
    proto = quantised_network("QDQ", per_channel, tmp_path)
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= {n.op_type for n in proto.graph.node}
    last = next(n for n in proto.graph.node if n.output[0] == "y")
    assert last.op_type == "DequantizeLinear"
    step = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == last.input[1]))
    feeds = {"x": rng().standard_normal((2, 3, 21, 20)).astype(np.float32)}
    (got,), (want,) = built(proto, feeds), runtime_outputs(proto, feeds)
    steps = np.abs(got - want) / step
    assert steps.max() <= 1.01 and (steps > 0.5).mean() <= 0.1, f"{steps.max()} steps, seed {SEED}"
