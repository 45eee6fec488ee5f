# SPDX-License-Identifier: Apache-2.0
"""Ops that select, order, scatter or contract give what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.importers.models import assert_agrees, model, node
from tests.importers.test_onnx_ops import Case, ints

I64 = TensorProto.INT64
X = {"x": [4, 5, 6]}
SMALL = {"x": [3, 3, 4], "i": [3, 2, 4]}
POOLED = {"x": [2, 3, 9, 8]}

INDEX = [
    Case("GatherElements", SMALL, attributes={"axis": 1}, kinds={"i": I64}),
    Case("GatherElements", X, {"i": ints(0, -1, 3, 2).reshape(4, 1, 1)}, {"axis": -1}),
    Case("GatherND", {"x": [3, 4, 5], "i": [2, 6, 2]}, kinds={"i": I64}),
    Case("GatherND", {"x": [3, 4, 5], "i": [3, 2, 1]}, attributes={"batch_dims": 1}, kinds={"i": I64}),
    Case("Scatter", X, {"i": ints(0, 3).reshape(1, 2, 1), "u": np.ones((1, 2, 1), np.float32)}, {"axis": 1}, 9),
    Case("ScatterElements", X, {"i": ints(0, -1).reshape(2, 1, 1), "u": np.ones((2, 1, 1), np.float32)}, opset=13),
    Case(
        "ScatterElements",
        {**SMALL, "u": [3, 2, 4]},
        attributes={"axis": 1, "reduction": "add"},
        kinds={"i": I64},
        opset=16,
    ),
    Case("ScatterND", X, {"i": ints(1, 2, 3, 0).reshape(2, 2), "u": np.ones((2, 6), np.float32)}, opset=13),
    Case(
        "ScatterND",
        {"x": [3, 4], "i": [5, 1], "u": [5, 4]},
        attributes={"reduction": "max"},
        kinds={"i": I64},
        opset=18,
    ),
    Case("Compress", X, {"c": np.array([True, False, True])}, {"axis": 1}, 11),
    Case("Compress", X, {"c": np.array([False] * 7 + [True, True])}, opset=11),
    Case("ReverseSequence", X, {"l": ints(1, 4, 3, 2, 4)}, {"time_axis": 0, "batch_axis": 1}),
    Case("ReverseSequence", X, {"l": ints(1, 5, 3, 2)}, {"time_axis": 1, "batch_axis": 0}),
    Case(
        "MaxUnpool",
        {"x": [1, 1, 2, 2]},
        {"i": ints(5, 7, 13, 15).reshape(1, 1, 2, 2)},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        11,
    ),
    *(
        Case(
            "MaxPool",
            POOLED,
            attributes={"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "storage_order": order},
            outputs=("y", "i"),
        )
        for order in (0, 1)
    ),
    Case("Hardmax", X, attributes={"axis": 1}, opset=13),
    Case("Hardmax", X, opset=11),
    Case("TopK", X, {"k": ints(3)}, {"axis": 1}, 10, ("y", "i")),
    Case("TopK", X, {"k": ints(2)}, {"largest": 0}, 11, ("y", "i")),
    Case("TopK", X, attributes={"k": 2, "axis": 0}, opset=8, outputs=("y", "i")),
    Case("CumSum", X, {"a": ints(-1).reshape(())}, {"exclusive": 1}, 14),
    Case("CumSum", X, {"a": ints(0).reshape(())}, {"reverse": 1}, 11),
]
COMPOSED = [
    Case("MeanVarianceNormalization", POOLED, opset=13),
    Case("MeanVarianceNormalization", X, attributes={"axes": [-1]}, opset=9),
    Case("STFT", {"x": [2, 50, 1], "w": [16]}, {"s": ints(7).reshape(())}, reads=("x", "s", "w")),
    Case("STFT", {"x": [2, 50, 1]}, {"s": ints(5).reshape(()), "l": ints(8).reshape(())}, reads=("x", "s", "", "l")),
    Case(
        "STFT",
        {"x": [1, 30, 2]},
        {"s": ints(3).reshape(()), "l": ints(9).reshape(())},
        {"onesided": 0},
        reads=("x", "s", "", "l"),
    ),
    *(Case("GlobalLpPool", POOLED, attributes={"p": p}) for p in (1, 2, 3)),
    Case("LpPool", POOLED, attributes={"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, opset=18),
    Case("LpPool", POOLED, attributes={"kernel_shape": [2, 2], "p": 3, "auto_pad": "SAME_UPPER"}, opset=11),
    Case("LpPool", POOLED, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, opset=18),
    *(
        Case(f"{name}Window", {}, {"n": ints(10).reshape(())}, {"periodic": p})
        for name in ("Hann", "Hamming", "Blackman")
        for p in (0, 1)
    ),
]

GRID = {"x": [2, 3, 7, 5], "g": [2, 4, 6, 2]}
ROIS = {"x": [3, 4, 9, 8], "r": [5, 4]}
IMAGES = {"n": ints(0, 2, 1, 0, 2)}
SAMPLE = [
    *(Case("GridSample", GRID, attributes={"mode": m}, opset=16) for m in ("nearest", "bilinear", "bicubic")),
    *(
        Case("GridSample", GRID, attributes={"padding_mode": p, "align_corners": 1}, opset=20)
        for p in ("border", "reflection")
    ),
    Case("GridSample", GRID, attributes={"mode": "cubic"}, opset=20),
    Case(
        "RoiAlign", ROIS, IMAGES, {"output_height": 3, "output_width": 2, "spatial_scale": 2.0, "sampling_ratio": 2}, 10
    ),
    Case(
        "RoiAlign",
        ROIS,
        IMAGES,
        {"coordinate_transformation_mode": "output_half_pixel", "output_height": 2, "mode": "max"},
        16,
    ),
]


def einsum(equation: str, *shapes: list[int]) -> Case:
    return Case("Einsum", {f"x{i}": s for i, s in enumerate(shapes)}, attributes={"equation": equation})


EINSUM = [
    einsum("ij,jk->ik", [3, 4], [4, 5]),
    einsum("ij,jk", [3, 4], [4, 5]),
    einsum("bij, bjk -> bik", [2, 3, 4], [2, 4, 5]),
    einsum("bhid,bhjd->bhij", [2, 3, 4, 5], [2, 3, 6, 5]),
    einsum("bqhd,bkhd->bhqk", [2, 4, 3, 5], [2, 6, 3, 5]),
    einsum("ij->ji", [3, 4]),
    einsum("ij->", [3, 4]),
    einsum("ii->i", [4, 4]),
    einsum("bii->b", [2, 4, 4]),
    einsum("i,j->ij", [3], [4]),
    einsum("i,i", [4], [4]),
    einsum("ij,ij->ij", [3, 4], [3, 4]),
    einsum("ijk,k->j", [3, 4, 5], [5]),
    einsum("...ij,...jk->...ik", [2, 3, 4], [2, 4, 5]),
    einsum("...ij,jk->...ik", [2, 6, 3, 4], [4, 5]),
    einsum("a...,a...->...", [3, 4], [3, 4]),
    einsum("ab,bc,cd->ad", [2, 3], [3, 4], [4, 5]),
    einsum("abc,cd,b->ad", [2, 3, 4], [4, 5], [3]),
    einsum("zxy,wy->zwx", [2, 3, 4], [5, 4]),
    einsum("ij,kl->jl", [2, 3], [4, 5]),
]


@pytest.mark.parametrize("case", [*INDEX, *COMPOSED, *SAMPLE, *EINSUM], ids=lambda c: f"{c}")
def test_op_imported_agrees_with_onnx_runtime(case: Case) -> None:
    proto = model(
        [node(case.op, case.reads or (*case.inputs, *case.constants), case.outputs, "the_node", **case.attributes)],
        case.inputs,
        case.outputs,
        case.constants,
        opset=case.opset,
        kinds={**({"i": I64} if "i" in case.outputs else {}), **case.kinds},
    )
    for seed in (1, 2):
        assert_agrees(proto, seed=seed)
