# SPDX-License-Identifier: Apache-2.0
"""The text form: exact, deterministic, and safe against any text."""

from __future__ import annotations

import math
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright import ops as o
from tensorwright.ir.dims import SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder
from tensorwright.ir.op import Array, Op
from tensorwright.ir.parse import parse_graph, parse_op
from tensorwright.ir.text import graph_text, op_text, stored_constants
from tensorwright.ir.types import TensorType
from tensorwright.ir.verify import verify
from tests.suites.op_table import CASES

T = TensorType(DType.f32, (2, 3))


def again(graph: Graph) -> Graph:
    return parse_graph(graph_text(graph), stored_constants(graph))


def example() -> Graph:
    """Symbols, odd names, an absent input, stored and inline constants, a region, two outputs."""
    b = GraphBuilder("two words")
    batch = SymDim.symbol("batch size")
    x = b.input("x/in:0", TensorType(DType.f32, (batch, 3, 8, 8)))
    weights = b.constant(np.arange(4 * 27, dtype=np.float32).reshape(4, 3, 3, 3), "onnx::Conv_1")
    scale = b.constant(np.float32(0.1).reshape(()), "scale, é\n")
    op = o.Convolution((1, 1), (1, 1, 1, 1), (1, 1))
    (conv,) = b.add(op, x, weights, None, name="/conv/Conv", origin=("a b", "c"))
    body = (
        o.Instr(o.Literal(0.5), ()),
        o.Instr(o.Mul(), (2, 3)),
        o.Instr(o.Clip(None, 6.0), (4,)),
        o.Instr(o.Add(), (5, 1)),
    )
    (fused,) = b.add(o.Fused(o.Relu(), 1, body), conv, scale, name="fused", outputs=["fused result"])
    (flat,) = b.add(o.Reshape((batch, 256)), fused, name="flat")
    b.output(flat, "out put")
    b.output(conv)
    return b.finish()


def test_graph_text_of_example_is_as_documented() -> None:
    assert graph_text(example()).splitlines() == [
        'graph "two words"',
        'input %x/in:0: f32["batch size",3,8,8]',
        "const %onnx::Conv_1: f32[4,3,3,3]",
        r'const %"scale, \u00e9\n": f32[] = (0.1)',
        '%/conv/Conv: f32["batch size",4,8,8] = convolution[strides=(1,1) pads=(1,1,1,1) dilations=(1,1) groups=1]'
        '(%x/in:0, %onnx::Conv_1, _) from "a b", c',
        '%"fused result": f32["batch size",4,8,8] = fused[anchor=relu anchor_inputs=1 body=('
        r"literal[value=0.5 dtype=f32](),mul(2,3),clip[low=none high=6.0](4),add(5,1))]"
        r'(%/conv/Conv, %"scale, \u00e9\n") @fused',
        '%flat: f32["batch size",256] = reshape[shape=("batch size",256)](%"fused result")',
        'output "out put" = %flat',
        "output /conv/Conv = %/conv/Conv",
    ]


def test_graph_text_read_back_is_the_same_graph() -> None:
    graph = example()
    copy = again(graph)
    verify(copy)
    assert graph_text(copy) == graph_text(graph)
    for a, b in zip(graph.nodes, copy.nodes, strict=True):
        assert (a.name, a.op, a.origin) == (b.name, b.op, b.origin)
        assert [v and (v.name, v.type) for v in a.inputs] == [v and (v.name, v.type) for v in b.inputs]
    assert [a.tobytes() for a in graph.constants.values()] == [a.tobytes() for a in copy.constants.values()]


@pytest.mark.parametrize("op", list(dict.fromkeys(case.op for case in CASES)), ids=op_text)
def test_op_text_reads_back_equal(op: Op) -> None:
    assert parse_op(op_text(op)) == op and op_text(parse_op(op_text(op))) == op_text(op)


def test_op_text_of_equal_ops_is_equal() -> None:
    assert o.LeakyRelu(1) == o.LeakyRelu(1.0) and op_text(o.LeakyRelu(1)) == op_text(o.LeakyRelu(1.0))
    assert op_text(o.Softmax(np.int64(1))) == "softmax[axis=1]"  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False), st.floats(width=32), st.floats())
def test_op_with_float_attributes_reads_back_exact(alpha: float, low: float, beta: float) -> None:
    assert parse_op(op_text(o.LeakyRelu(alpha))) == o.LeakyRelu(alpha)
    for op in (o.Clip(low, None), o.Softplus(beta)):
        assert op_text(parse_op(op_text(op))) == op_text(op)


def test_op_with_numbers_that_are_not_finite_reads_back() -> None:
    clip = parse_op("clip[low=-inf high=nan]")
    assert isinstance(clip, o.Clip) and clip.low == -math.inf and clip.high is not None and math.isnan(clip.high)


def one_constant(array: Array) -> Graph:
    b = GraphBuilder()
    b.output(b.constant(array, "c"))
    return b.finish()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int64, np.uint8, np.int16]
    ),
    st.integers(0, 8),
    st.binary(min_size=64, max_size=64),
)
def test_inline_constant_of_any_bits_reads_back_bit_equal(dtype: type, elems: int, data: bytes) -> None:
    array = np.frombuffer(data, dtype)[:elems].copy()
    text = graph_text(one_constant(array))
    (value,) = parse_graph(text).constants.values()
    assert value.tobytes() == array.tobytes() and value.dtype == array.dtype and value.shape == array.shape


def test_inline_constants_are_readable() -> None:
    def shown(array: Array) -> str:
        return graph_text(one_constant(array)).splitlines()[1].partition(" = ")[2]

    assert shown(np.array([[0.1, -0.0], [np.inf, 1e-45]], np.float32)) == "(0.1, -0.0, inf, 1e-45)"
    assert shown(np.array([True, False])) == "(true, false)" and shown(np.array(-7)) == "(-7)"
    assert shown(np.zeros((0, 3), np.float32)) == "()" and shown(np.float32(np.nan).reshape(1)) == "(nan)"
    assert shown(np.array([0x7FC00001], np.uint32).view(np.float32)) == "0x0100c07f"


def test_constant_above_the_limit_is_stored_beside_the_text() -> None:
    graph = one_constant(np.arange(9.0))
    assert " = (" not in graph_text(graph) and list(stored_constants(graph)) == ["c"]
    with pytest.raises(ValueError, match="line 2: the array of constant %c is missing"):
        parse_graph(graph_text(graph))
    with pytest.raises(ValueError, match=r"line 2: constant %c: f64\[9\] is stored as float32\[9\]"):
        parse_graph(graph_text(graph), {"c": np.zeros(9, np.float32)})


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_any_name_reads_back(name: str, origin: str) -> None:
    b = GraphBuilder(name)
    x = b.input(name, TensorType(DType.f32, (SymDim.symbol(name),)))
    b.output(b.add(o.Relu(), x, name=name, origin=(origin, name))[0], origin)
    graph = b.finish()
    copy = again(graph)
    assert graph_text(copy) == graph_text(graph) and "\n" not in graph_text(graph).splitlines()[1]
    assert copy.inputs[0].name == name and copy.nodes[0].origin == (origin, name) and copy.output_names == (origin,)


def test_order_of_parallel_nodes_reads_back_the_same() -> None:
    rng = np.random.default_rng(3)
    b = GraphBuilder()
    values = [b.input("x", T)]
    for _ in range(200):
        a, c = (values[int(i)] for i in rng.integers(max(0, len(values) - 12), len(values), 2))
        values.append(b.add(o.Add(), a, c)[0])
    b.output(values[-1])
    text = graph_text(b.finish())
    assert graph_text(parse_graph(text)) == text


def test_text_with_comments_and_blank_lines_is_accepted() -> None:
    text = "# a note\n\ngraph g\n  # another\ninput %x: f32[2,3]\n%y: f32[2,3] = relu(%x)  \noutput y = %y\n"
    assert graph_text(parse_graph(text)) == "graph g\ninput %x: f32[2,3]\n%y: f32[2,3] = relu(%x)\noutput y = %y\n"


DAMAGE = ["", " ", "-", "0", "9", "_", "%", "(", ")", "[", "]", ",", '"', "\n", "=", "\\", "none", "inf", "add", "f16"]
HEAD = "graph g\ninput %x: f32[2,3]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 'graph'"),
        ("input %x: f32[2]", "line 1: expected 'graph'"),
        (HEAD + "graph h", "line 3: expected 'graph' and its name once"),
        (HEAD + "%y: f32[2,3] = relu(%z)", "line 3: value %z is used before it is defined"),
        (HEAD + "%x: f32[2,3] = relu(%x)", "line 3: value %x is defined twice"),
        (HEAD + "%y: f32[2,3] = relu(%x) @n\n%z: f32[2,3] = relu(%x) @n", "line 4: node n is defined twice"),
        (HEAD + "%y: f32[3,2] = relu(%x)", r"line 3: relu gives \(f32\[2,3\]\), not the types of \[%y: f32\[3,2\]\]"),
        (HEAD + "%y: f32[2,3] = relu(%x, %x)", "line 3: relu takes 1 inputs, not 2"),
        (HEAD + "%y: f32[2,3] = frobnicate(%x)", "line 3: there is no op 'frobnicate'"),
        (HEAD + "%y: f32[2,3] = softmax(%x)", "line 3: softmax lacks axis"),
        (HEAD + "%y: f32[2,3] = softmax[axis=one](%x)", "line 3: expected a number"),
        (
            HEAD + "%y: f32[2,3] = softmax[axis=1 axis=1](%x)",
            "line 3: softmax has no attribute 'axis', or has it twice",
        ),
        (HEAD + "%y: f32[2,3] = softmax[axis=1 depth=2](%x)", "line 3: softmax has no attribute 'depth'"),
        (HEAD + "%y: f32[2,3] = reduce[how=median axes=(1) keepdims=true](%x)", "line 3: expected one of sum, mean"),
        (HEAD + "%y: f32[2,3] = relu(%x) trailing", "line 3: expected the end of the line at 'trailing'"),
        (HEAD + "%y: f99[2,3] = relu(%x)", "line 3: there is no element type 'f99'"),
        (HEAD + "%y: f32[2,-3] = relu(%x)", "line 3: dimension -3 is negative"),
        (HEAD + "%y: f32[2,3 = relu(%x)", "line 3: expected ','"),
        (HEAD + '%"y: f32[2,3] = relu(%x)', "line 3: expected a quoted name"),
        (HEAD + "const %c: f32[2] = (1.0)", r"line 3: 1 elements do not fill f32\[2\]"),
        (HEAD + "const %c: u8[1] = (300)", "line 3: an element does not fit u8"),
        (HEAD + "const %c: f32[1] = 0x00", "line 3: 2 hex digits do not fill"),
        (HEAD + "const %c: f32[n] = (1.0)", r"line 3: constant %c: f32\[n\] has symbolic dims"),
        (HEAD + "output y = %y", "line 3: value %y is used before"),
        (HEAD + "output y = %x\noutput y = %x", "line 4: output 'y' is defined twice"),
        (HEAD + " = relu(%x)", "line 3: a node without outputs needs a name"),
        (HEAD + f"%y: f32[2,3] = {'fused[anchor=' * 60}relu", "line 3: ops are nested too deeply"),
        (HEAD + f"%y: f32[2,3] = softmax[axis={'9' * 5000}](%x)", "line 3: 9+... is too long for a number"),
    ],
)
def test_parse_graph_of_bad_text_raises_value_error_with_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_graph(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_parse_graph_of_damaged_text_gives_a_graph_or_a_value_error(data: st.DataObject) -> None:
    graph = example()
    text = graph_text(graph)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        new = data.draw(st.sampled_from(DAMAGE))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 3)) :]
    try:
        parsed = parse_graph(text, stored_constants(graph))
    except ValueError:
        return
    verify(parsed)


def test_text_of_ten_thousand_nodes_takes_near_linear_time() -> None:
    def seconds(nodes: int) -> float:
        b = GraphBuilder()
        x = b.input("x", T)
        for _ in range(nodes):
            (x,) = b.add(o.LeakyRelu(), x)
        b.output(x)
        graph = b.finish()
        start = time.perf_counter()
        assert len(parse_graph(graph_text(graph))) == nodes
        return time.perf_counter() - start

    assert min(seconds(10_000) for _ in range(2)) < 40 * min(seconds(1_000) for _ in range(3))
