# SPDX-License-Identifier: Apache-2.0
"""Each rule of the verifier, broken once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import Array
from tensorwright.ir.types import TensorType
from tensorwright.ir.verify import verify
from tensorwright.ops import Add, Neg, Softmax

T = TensorType(DType.f32, (2, 3))
x, a, b, stranger = Value("x", T), Value("a", T), Value("b", T), Value("stranger", T)
first, second = Node("first", Neg(), (x,), (a,)), Node("second", Neg(), (a,), (b,))


def graph(
    nodes: Sequence[Node],
    outputs: Sequence[tuple[str, Value]] = (("y", b),),
    constants: Mapping[Value, Array] | None = None,
    inputs: Sequence[Value] = (x,),
) -> Graph:
    return Graph("broken", inputs, outputs, nodes, constants or {})


def test_sound_graph_passes() -> None:
    verify(graph([first, second], constants={Value("c", T): np.zeros((2, 3), np.float32)}))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (graph([first, Node("second", Add(), (a, stranger), (b,))]), "second.* reads %stranger.*nothing defines"),
        (graph([second]), "second.* reads %a.*nothing defines"),
        (graph([first], [("y", b)]), "output 'y' reads %b.*nothing defines"),
        (graph([first, Node("first", Neg(), (a,), (b,))]), "node name 'first' is used twice"),
        (graph([first, Node("second", Neg(), (a,), (Value("a", T),))], [("y", a)]), "value name 'a' is used twice"),
        (graph([first, Node("second", Neg(), (x,), (a,))], [("y", a)]), "value name 'a' is used twice"),
        (graph([first, second], inputs=(x, Value("x", T))), "value name 'x' is used twice"),
        (graph([first, second], [("y", a), ("y", b)]), "output name 'y' is used twice"),
        (
            graph([first, Node("second", Neg(), (a,), (Value("b", T.with_shape((3, 2))),))], [("y", a)]),
            r"second.* gives f32\[2,3\] but records f32\[3,2\]",
        ),
        (
            graph([first, Node("second", Neg(), (a,), (Value("b", T.with_dtype(DType.f16)),))], [("y", a)]),
            r"second.* records f16\[2,3\]",
        ),
        (
            graph([first, Node("second", Neg(), (a,), (b, stranger))]),
            r"gives f32\[2,3\] but records f32\[2,3\], f32\[2,3\]",
        ),
        (
            graph([first, Node("second", Softmax(2), (a,), (b,))]),
            "second.* does not take its inputs.*axis 2 is out of range",
        ),
        (graph([first, Node("second", Neg(), (None,), (b,), ())]), "second.* does not take its inputs.*absent"),
        (
            graph([first, second], constants={Value("c", T): np.zeros((3, 2), np.float32)}),
            r"constant %c.*float32\[3, 2\]",
        ),
        (graph([first, second], constants={Value("c", T): np.zeros((2, 3))}), r"constant %c.*float64\[2, 3\]"),
    ],
)
def test_defect_raises_internal_error_naming_it(broken: Graph, message: str) -> None:
    with pytest.raises(InternalError, match=message) as caught:
        verify(broken)
    assert "graph 'broken'" in str(caught.value) and caught.value.code == "X100"
