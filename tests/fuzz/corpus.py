# SPDX-License-Identifier: Apache-2.0
"""The sound models that fuzzing starts from: each a few nodes of one kind, and ONNX's own case of every operator."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper, parser

from tests.networks.nets import NETS

_TEXTS = {
    "branches": """
        agraph (float[2, 3] x, int64[1] n) => (float[2, 3] y, float[2, 3] last) {
            zero = Constant <value = float {0.0}> ()
            one = Constant <value = int64[1] {1}> ()
            total = ReduceSum <keepdims = 0> (x)
            up = Greater (total, zero)
            picked = If (up) <
                then_branch = yes () => (float[2, 3] a) { a = Relu (x) },
                else_branch = no () => (float[2, 3] b) {
                    big = Equal (n, one)
                    flag = Squeeze (big)
                    b = If (flag) <
                        then_branch = inner () => (float[2, 3] c) { c = Neg (x) },
                        else_branch = outer () => (float[2, 3] d) { d = Abs (x) }
                    >
                }
            >
            y = Add (picked, x)
            last = Identity (picked)
        }""",
    "loops": """
        agraph (float[2, 3] x, float[4, 3] rows) => (float[2, 3] y, float[K, 2, 3] all, float[4, 3] sums) {
            trips = Constant <value = int64 {3}> ()
            go = Constant <value = bool {1}> ()
            half = Constant <value = float {0.5}> ()
            start = Constant <value = float[3] {0.0, 0.0, 0.0}> ()
            y, all = Loop (trips, go, x) <
                body = step (int64 i, bool keep, float[2, 3] state) => (bool again, float[2, 3] next, float[2, 3] out) {
                    scaled = Mul (state, half)
                    next = Add (scaled, x)
                    out = Tanh (next)
                    again = Identity (keep)
                }
            >
            end, sums = Scan (start, rows) <
                num_scan_inputs = 1,
                body = add (float[3] before, float[3] row) => (float[3] after, float[3] seen) {
                    after = Add (before, row)
                    seen = Relu (after)
                }
            >
        }""",
    "quantised": """
        agraph (float[1, 4, 5, 5] x) => (float[1, 3, 5, 5] y, int32[5, 2] m, float[1, 4, 5, 5] d) {
            scale = Constant <value = float {0.05}> ()
            zero = Constant <value = uint8 {128}> ()
            ws = Constant <value = float {0.02}> ()
            wz = Constant <value = int8 {0}> ()
            q = QuantizeLinear (x, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            c = QLinearConv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (q, scale, zero, w, ws, wz, scale, zero)
            y = DequantizeLinear (c, scale, zero)
            row = Slice (q, first, second, axes)
            flat = Reshape (row, shape)
            m = MatMulInteger (flat, b, zero)
        }""",
    "strings": """
        agraph (float[2] x) => (string[2] joined, float[2] y, int64[2] codes) {
            a = Constant <value_strings = ["left", "right"]> ()
            b = Constant <value_strings = ["-", "+"]> ()
            joined = StringConcat (a, b)
            lower = StringNormalizer <case_change_action = "UPPER", is_case_sensitive = 1> (a)
            codes = ai.onnx.ml.LabelEncoder <keys_strings = ["left", "right"], values_int64s = [4, 7]> (a)
            number = Cast <to = 1> (codes)
            y = Add (x, number)
        }""",
    "sequences": """
        agraph (float[3, 4] x) => (float[3, 4] y, float[1, 4] first, bool there) {
            where = Constant <value = int64 {0}> ()
            rows = SplitToSequence <axis = 0> (x)
            first = SequenceAt (rows, where)
            longer = SequenceInsert (rows, first)
            shorter = SequenceErase (longer, where)
            y = ConcatFromSequence <axis = 0> (shorter)
            may = Optional (first)
            there = OptionalHasElement (may)
        }""",
    "shapes": """
        agraph (float[batch, 3, 4] x) => (float[batch, 12] flat, float[2, 8] tiled, float[p, q] padded, int64[4] r) {
            s = Shape (x)
            zero = Constant <value = int64 {0}> ()
            n = Gather (s, zero)
            axes = Constant <value = int64[1] {0}> ()
            n1 = Unsqueeze (n, axes)
            rest = Constant <value = int64[1] {12}> ()
            shape = Concat <axis = 0> (n1, rest)
            flat = Reshape (x, shape)
            two = Constant <value = int64[2] {2, 4}> ()
            ones = ConstantOfShape <value = float[1] {1.0}> (two)
            reps = Constant <value = int64[2] {1, 2}> ()
            tiled = Tile (ones, reps)
            pads = Constant <value = int64[4] {1, 0, 0, 2}> ()
            row = Expand (ones, two)
            padded = Pad (row, pads)
            start = Constant <value = int64 {1}> ()
            limit = Constant <value = int64 {9}> ()
            delta = Constant <value = int64 {2}> ()
            r = Range (start, limit, delta)
        }""",
    "indices": """
        agraph (float[4, 6] x, int64[3] i) =>
            (float[3, 6] y, float[4, 2] top, int64[4, 2] at, float[4, 6] put, int64[2, k] nz, float[3, 5] hot) {
            y = Gather (x, i)
            two = Constant <value = int64[1] {2}> ()
            top, at = TopK <axis = 1> (x, two)
            places = Constant <value = int64[2, 1] {0, 3}> ()
            news = Constant <value = float[2, 6] {0,1,2,3,4,5,6,7,8,9,10,11}> ()
            put = ScatterND (x, places, news)
            nz = NonZero (x)
            depth = Constant <value = int64 {5}> ()
            values = Constant <value = float[2] {0.0, 1.0}> ()
            hot = OneHot (i, depth, values)
        }""",
    "functions": """
        agraph (float[2, 3] x) => (float[2, 3] y) {
            a = local.Scaled <factor = 0.5> (x)
            y = local.Twice (a)
        }
        < opset_import: ["" : 17], domain: "local" >
        Scaled <factor> (v) => (r) { f = Constant <value_float: float = @factor> ()  r = Mul (v, f) }
        < opset_import: ["" : 17, "local" : 1], domain: "local" >
        Twice (v) => (r) { b = local.Scaled <factor = 2.0> (v)  r = Add (b, v) }""",
    "random": """
        agraph (float[8, 3] x) => (float[8, 3] y, bool[8, 3] coin) {
            noise = RandomUniformLike <seed = 3.0> (x)
            quiet, coin = Dropout (x)
            y = Add (noise, quiet)
        }""",
    "contrib": """
        agraph (float[2, 8] x, float[2, 8] skip) => (float[2, 8] y, float[2, 5] z) {
            g = com.microsoft.Gelu (x)
            gamma = Constant <value = float[8] {1, 1, 1, 1, 2, 2, 2, 2}> ()
            y = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (g, skip, gamma)
            z = com.microsoft.FusedMatMul <alpha = 0.25> (y, w)
        }""",
}
_WEIGHTS = {
    "quantised": {
        "w": np.arange(3 * 4 * 9).reshape(3, 4, 3, 3).astype(np.int8),
        "first": np.array([0]),
        "second": np.array([1]),
        "axes": np.array([1]),
        "shape": np.array([5, 5]),
        "b": np.arange(10).reshape(5, 2).astype(np.int8),
    },
    "contrib": {"w": np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5)},
}


def _written(name: str) -> ModelProto:
    opsets = '["" : 17, "local" : 1, "com.microsoft" : 1, "ai.onnx.ml" : 3]'
    text = _TEXTS[name].strip()
    opset = opsets.replace("17", "20") if name == "strings" else opsets
    proto = parser.parse_model(f"< ir_version: 8, opset_import: {opset} >\n{text}")
    for key, array in _WEIGHTS.get(name, {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, key))
    return proto


def _stored() -> ModelProto:
    """Two layers whose weights are worth a file of their own; those of the first one are large (128 KiB)."""
    proto = parser.parse_model("""
        < ir_version: 8, opset_import: ["" : 17] >
        agraph (float[3, 128] x) => (float[3, 32] y) { h = MatMul (x, w)  r = Relu (h)  y = Gemm (r, v, b) }""")
    rng = np.random.default_rng(5)
    for name, shape in {"w": (128, 256), "v": (256, 32), "b": (32,)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


MODELS: dict[str, Callable[[], ModelProto]] = {
    **{name: functools.partial(_written, name) for name in _TEXTS},
    "stored": _stored,
    **{name: NETS[name] for name in ("mobile", "encoder", "recurrent", "detector")},
}
"""Our models by name. All but the last four hold few weights, so that damage meets their structure."""


@functools.cache
def operator_cases() -> dict[str, ModelProto]:
    """ONNX's own test models of single operators, some 1,900."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        cases = collect_testcases(None)
    return {case.name: case.model for case in sorted(cases, key=lambda case: str(case.name)) if case.model is not None}


def pick(rng: np.random.Generator) -> tuple[str, ModelProto]:
    """One of our models, or as often one of ONNX's; a copy that may be changed, with all its data inside."""
    if rng.random() < 0.5:
        name = str(rng.choice(list(MODELS)))
        return name, MODELS[name]()
    cases = operator_cases()
    name = str(rng.choice(list(cases)))
    result = onnx.ModelProto()
    result.CopyFrom(cases[name])
    return name, result
