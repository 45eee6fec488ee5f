# SPDX-License-Identifier: Apache-2.0
"""Quantised operators of com.microsoft give what ONNX Runtime gives, to the last bit, in generated code alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tensorwright.errors import UnsupportedError
from tensorwright.importers.onnx import ops_microsoft_quantised
from tensorwright.importers.onnx.reader import import_onnx
from tests.importers.models import Array, runtime_outputs
from tests.importers.quantised import (
    F32,
    I8,
    SEED,
    U8,
    built,
    check,
    f32,
    integers,
    one,
    reals,
    rng,
)

MS = "com.microsoft"


def softmax(axis: int, opset: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    arrays = {"x": integers(U8, 3, 5, 7), "sx": f32(0.05), "zx": U8(120), "sy": f32(1 / 256), "zy": U8(0)}
    proto, feeds = one("QLinearSoftmax", arrays, domain=MS, axis=axis, opset=17)
    proto.graph.node[0].attribute.append(helper.make_attribute("opset", opset))
    return proto, feeds


_PAIR = {"x": integers(U8, 4, 7), "sx": f32(0.5), "zx": U8(3)}
_ONE = _PAIR | {"sy": f32(0.3), "zy": U8(9)}
_TWO = _PAIR | {"b": integers(U8, 4, 7), "sb": f32(0.3), "zb": U8(9)}
_IMAGE = _ONE | {"x": integers(U8, 2, 3, 8, 9)}
_FILTERS = {"w": integers(I8, 4, 3, 3, 3), "sw": f32(0.25), "zw": I8(0)}
_RIGHT = {"b": integers(I8, 7, 5), "sb": f32(0.25), "zb": I8(0)}
_RESULT = {"sr": f32(8.0), "zr": U8(100)}
_FLOAT: dict[str, Any] = {"kinds": {"y": F32}, "domain": MS}
CASES = {
    name: one(name, arrays, fed, **{"domain": MS, **options})[0]
    for name, arrays, fed, options in (
        ("QuantizeLinear", {"x": reals(4, 7, size=50), "s": f32(0.5), "z": U8(3)}, "x", {}),
        ("DequantizeLinear", _PAIR, "x", _FLOAT),
        ("QLinearAdd", _TWO | _RESULT, "x b", {}),
        ("QLinearMul", _TWO | _RESULT, "x b", {}),
        ("QLinearSigmoid", _ONE, "x", {}),
        ("QLinearLeakyRelu", _ONE, "x", {"alpha": 0.2}),
        ("QLinearReduceMean", _ONE, "x", {"axes": [1]}),
        ("QLinearAveragePool", _IMAGE, "x", {"kernel_shape": [2, 3], "strides": [2, 2]}),
        ("QLinearGlobalAveragePool", _IMAGE, "x", {}),
        ("QLinearConcat", {"sy": f32(0.5), "zy": U8(3)} | _TWO, "x b", {"axis": 1}),
        ("QLinearWhere", {"c": rng().random((4, 7)) < 0.5} | _TWO | _RESULT, "c x b", {}),
        ("QLinearConv", _PAIR | {"x": _IMAGE["x"]} | _FILTERS | _RESULT, "x", {"pads": [1, 1, 1, 1]}),
        ("NhwcMaxPool", {"x": _IMAGE["x"]}, "x", {"kernel_shape": [2, 2]}),
        ("QGemm", _PAIR | _RIGHT | {"c": None} | _RESULT, "x", {}),
        ("DynamicQuantizeMatMul", {"x": reals(4, 7)} | _RIGHT, "x", _FLOAT),
        (
            "MatMulIntegerToFloat",
            {"x": _PAIR["x"], "b": _RIGHT["b"], "sx": f32(0.5), "sb": f32(0.25), "zx": U8(3), "zb": I8(0)},
            "x",
            _FLOAT,
        ),
        (
            "MatMulNBits",
            {"x": reals(3, 32), "w": integers(U8, 6, 2, 8), "s": np.ones((6, 2), np.float32)},
            "x",
            _FLOAT | {"K": 32, "N": 6, "bits": 4, "block_size": 16},
        ),
    )
}
CASES["QLinearSoftmax"] = softmax(1, 13)[0]
"""A node of every operator of com.microsoft; the page of supported operators tries them, too."""
ONE_STEP = {"QLinearSoftmax", "QLinearReduceMean"}
NOT_ON_RUNTIME = {"QLinearReduceMean", "QLinearWhere"}


@pytest.mark.parametrize("name", CASES)
def test_every_operator_of_com_microsoft_has_generated_code(name: str) -> None:
    proto = CASES[name]
    info = {i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in proto.graph.input}
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    feeds = {
        n: reals(*shapes[n]) if t == np.float32 else rng().integers(0, 2, shapes[n]).astype(t) for n, t in info.items()
    }
    (got,) = built(proto, feeds)
    if name not in NOT_ON_RUNTIME:
        (want,) = runtime_outputs(proto, feeds)
        assert np.abs(got.astype(np.float64) - want).max() <= (1 if name in ONE_STEP else 1e-4), f"seed {SEED}"


def test_every_registered_operator_has_a_sample() -> None:
    assert {entry.name for entry in ops_microsoft_quantised.OPS} == {f"{MS}.{name}" for name in CASES}


SCALES = [(0.5, 0.25, 0.5), (0.037, 0.051, 0.083), (1.0, 1.0, 1.0)]


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("dtype", [U8, I8])
def test_qlinear_arithmetic_is_exact(dtype: Any, scales: tuple[float, ...], op: str) -> None:
    kinds = {"y": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    sa, sb, sc = map(f32, scales)
    sc = sc * f32(64 if op == "QLinearMul" else 1)
    for other in ((4, 67), (67,), (4, 1), ()):
        arrays = {"x": integers(dtype, 4, 67), "sa": sa, "za": dtype(101), "b": integers(dtype, *other), "sb": sb}
        arrays |= {"zb": dtype(33), "sc": sc, "zc": dtype(17)}
        check(*one(op, arrays, "x b", domain=MS, kinds=kinds))
    short = {"x": integers(dtype, 5), "sa": sa, "za": None, "b": integers(dtype, 5), "sb": sb, "zb": None, "sc": sc}
    whole = short | {"za": dtype(0), "zb": dtype(0), "zc": dtype(0)}
    (got,), (want,) = (built(*one(op, given, "x b", domain=MS, kinds=kinds)) for given in (short, whole))
    np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("dtype", [U8, I8])
@pytest.mark.parametrize(("op", "attributes"), [("QLinearLeakyRelu", {"alpha": 0.1}), ("QLinearSigmoid", {})])
def test_qlinear_activations_are_exact_on_every_number(op: str, attributes: dict[str, Any], dtype: Any) -> None:
    info = np.iinfo(dtype)
    kinds = {"y": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    x = np.arange(info.min, info.max + 1).astype(dtype)
    arrays = {"x": x, "sx": f32(0.07), "zx": dtype(20), "sy": f32(1 / 256), "zy": dtype(info.min)}
    if op == "QLinearLeakyRelu":
        arrays |= {"sx": f32(0.5), "sy": f32(0.75)}
    check(*one(op, arrays, domain=MS, kinds=kinds, **attributes))


def test_qlinear_concat_is_exact() -> None:
    parts: dict[str, Array] = {"sy": f32(0.5), "zy": U8(3)}
    for i, (scale, zero) in enumerate(((0.5, 3), (0.25, 100), (0.7, 9))):
        parts |= {f"x{i}": integers(U8, 2, 5 + i, 3), f"s{i}": f32(scale), f"z{i}": U8(zero)}
    check(*one("QLinearConcat", parts, "x0 x1 x2", domain=MS, axis=1))


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dtype", [U8, I8])
def test_qlinear_pools_are_exact(dtype: Any, last: int) -> None:
    kinds = {"y": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    x = integers(dtype, *((2, 9, 8, 5) if last else (2, 5, 9, 8)))
    arrays = {"x": x, "sx": f32(0.5), "zx": dtype(77), "sy": f32(0.31), "zy": dtype(50)}
    check(*one("QLinearGlobalAveragePool", arrays, domain=MS, kinds=kinds, channels_last=last))
    for options in ({"count_include_pad": 1}, {"ceil_mode": 1}):
        window = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]} | options
        check(*one("QLinearAveragePool", arrays, domain=MS, kinds=kinds, channels_last=last, **window))


def test_nhwc_max_pool_is_exact() -> None:
    window: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    check(*one("NhwcMaxPool", {"x": integers(U8, 2, 9, 8, 5)}, domain=MS, **window))


def test_qlinear_conv_with_channels_last_is_exact() -> None:
    arrays = {"x": integers(U8, 1, 7, 8, 5), "sx": f32(0.5), "zx": U8(120), "w": integers(I8, 6, 5, 3, 3)}
    arrays |= {"sw": f32(0.25), "zw": I8(0), "sy": f32(16.0), "zy": U8(131)}
    check(*one("QLinearConv", arrays, domain=MS, channels_last=1, pads=[1, 1, 1, 1]))


@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 13), (1, 12)])
def test_qlinear_softmax_is_within_one_step(axis: int, opset: int) -> None:
    proto, feeds = softmax(axis, opset)
    (got,), (want,) = built(proto, feeds), runtime_outputs(proto, feeds)
    assert np.abs(got.astype(int) - want).max() <= 1, f"seed {SEED}"


@pytest.mark.parametrize(("ta", "tb"), [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [U8, I8])
def test_qgemm_is_exact(dtype: Any, ta: int, tb: int) -> None:
    a, b = integers(U8, *((40, 9) if ta else (9, 40))), integers(dtype, *((21, 40) if tb else (40, 21)))
    bias = rng().integers(-999, 999, 21).astype(np.int32)
    for scale, zero in ((f32(0.5), dtype(3)), (rng().uniform(0.1, 1, 21).astype(np.float32), np.zeros(21, dtype))):
        arrays: dict[str, Array | None] = {"x": a, "sa": f32(0.03), "za": U8(99), "b": b, "sb": scale, "zb": zero}
        turns = {"transA": ta, "transB": tb, "alpha": 0.5}
        check(*one("QGemm", arrays | {"c": bias}, domain=MS, kinds={"y": F32}, **turns))
        check(*one("QGemm", arrays | {"c": None, "sy": f32(5.0), "zy": U8(120)}, domain=MS, **turns))


def test_dynamic_quantize_matmul_and_matmul_integer_to_float_are_exact() -> None:
    x, w, bias = reals(2, 7, 40), integers(I8, 40, 21), reals(21)
    scale, zero = rng().uniform(0.1, 1, 21).astype(np.float32), integers(I8, 21)
    for s, z in ((f32(0.5), I8(3)), (scale, zero)):
        arrays: dict[str, Array | None] = {"x": x, "w": w, "s": s, "z": z, "b": bias}
        check(*one("DynamicQuantizeMatMul", arrays, domain=MS, kinds={"y": F32}))
        arrays = {"x": integers(U8, 2, 7, 40), "w": w, "sa": f32(0.1), "s": s, "za": U8(99), "z": z, "b": bias}
        check(*one("MatMulIntegerToFloat", arrays, domain=MS, kinds={"y": F32}))


@pytest.mark.parametrize("zeros", ["none", "packed", "reals"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("depth", [64, 72])
def test_matmul_nbits_equals_onnx_runtime(depth: int, bits: int, zeros: str) -> None:
    columns, block = 19, 16
    blocks = -(-depth // block)
    if zeros == "reals" and bits == 8:
        pytest.skip("ONNX Runtime has no kernel for it")
    arrays: dict[str, Array | None] = {
        "x": reals(5, depth),
        "w": integers(U8, columns, blocks, block * bits // 8),
        "s": rng().uniform(0.1, 1, (columns, blocks)).astype(np.float32),
    }
    if zeros == "packed":
        arrays["z"] = integers(U8, columns, -(-blocks * bits // 8))
    elif zeros == "reals":
        arrays["z"] = rng().uniform(0, 15, (columns, blocks)).astype(np.float32)
    sizes = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    proto, feeds = one("MatMulNBits", arrays, domain=MS, kinds={"y": F32}, **sizes)
    (got,), (want,) = built(proto, feeds), runtime_outputs(proto, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max(), err_msg=f"seed {SEED}")


def test_matmul_nbits_takes_groups_and_a_bias() -> None:
    codes, scales = integers(U8, 6, 2, 8), rng().uniform(0.1, 1, (6, 2)).astype(np.float32)
    group, bias, x = rng().integers(0, 2, 32).astype(np.int32), reals(6), reals(3, 32)
    arrays = {"x": x, "w": codes, "s": scales, "z": None, "g": group, "b": bias}
    got = built(
        *one("MatMulNBits", arrays, domain=MS, kinds={"y": F32}, K=32, N=6, bits=4, block_size=16),
    )
    nibbles = np.stack([codes & 15, codes >> 4], -1).reshape(6, 32).astype(np.float32)
    np.testing.assert_allclose(got[0], x @ ((nibbles - 8) * scales[:, group]).T + bias, rtol=1e-4, atol=1e-4)


def test_matmul_nbits_with_weights_known_only_at_run_is_refused() -> None:
    arrays = {"x": reals(3, 32), "w": integers(U8, 6, 2, 8), "s": np.ones((6, 2), np.float32)}
    proto, _ = one("MatMulNBits", arrays, "x w", domain=MS, kinds={"y": F32}, K=32, N=6, bits=4, block_size=16)
    with pytest.raises(UnsupportedError, match="unpacks its weights when the engine is built"):
        import_onnx(proto)


def test_qlinear_where_and_reduce_mean_follow_their_formulas() -> None:
    x, y, chosen = integers(U8, 4, 7), integers(U8, 4, 7), rng().random((4, 7)) < 0.5
    arrays = {"c": chosen, "x": x, "sx": f32(0.5), "zx": U8(3), "y0": y, "sy": f32(0.3), "zy": U8(9)}
    (got,) = built(*one("QLinearWhere", arrays | {"sz": f32(0.4), "zz": U8(5)}, "c x y0", domain=MS))
    real = np.where(chosen, (x - f32(3)) * f32(0.5), (y - f32(9)) * f32(0.3))
    np.testing.assert_array_equal(got, np.clip(np.rint(real / f32(0.4)) + 5, 0, 255))
    arrays = {"x": x, "sx": f32(0.5), "zx": U8(3), "sy": f32(0.3), "zy": U8(9)}
    (got,) = built(*one("QLinearReduceMean", arrays, domain=MS, axes=[1], keepdims=0))
    mean = ((x - f32(3)) * f32(0.5)).mean(1, dtype=np.float64).astype(np.float32)
    assert np.abs(got.astype(int) - np.clip(np.rint(mean / f32(0.3)) + 9, 0, 255)).max() <= 1
