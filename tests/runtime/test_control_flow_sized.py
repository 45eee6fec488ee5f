# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan in engines for a range of batches: symbols in bodies, against ONNX Runtime at many batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest

import tensorwright as tw
from tests.importers.models import model, node, runtime_outputs
from tests.runtime.test_control_flow import BOOL, I64, F, W, body, counted

B = "batch"
ROWS = (F, [B, 8])
RUNS = ((3, True, 4), (1, False, 1), (0, True, 6), (19, False, 9))  # iterations, condition, steps of a sequence
BATCHES = (4, 1, 9, 2, 7, 4)
RNG = np.random.default_rng(11)
GO = node("Identity", ["keep"], ["go"])


def loop(
    nodes: Sequence[onnx.NodeProto], made: dict[str, tuple[int, Sequence[int | str] | None]], **constants: object
) -> onnx.GraphProto:
    """A body of a loop over v, f32[batch, 8]; the first of `made` is its next value."""
    return body([*nodes, GO], counted(v=ROWS), {"go": (BOOL, []), **made}, constants)


def if_around_batches() -> onnx.ModelProto:
    then_branch = body([node("MatMul", ["e", "w"], ["p"]), node("Add", ["p", "x"], ["t"])], {}, {"t": ROWS})
    else_branch = body([node("Mul", ["x", "two"], ["q"])], {}, {"q": ROWS}, {"two": np.float32(2)})
    choose = node("If", ["c"], ["r"], then_branch=then_branch, else_branch=else_branch)
    nodes = [node("Exp", ["x"], ["e"]), choose, node("Relu", ["r"], ["y"])]
    return model(nodes, {"x": [B, 8], "c": []}, constants={"w": W}, kinds={"c": BOOL})


def if_of_two_sizes() -> onnx.ModelProto:
    """The batch, and twice the batch."""
    then_branch = body([node("Neg", ["x"], ["t"])], {}, {"t": (F, None)})
    else_branch = body([node("Concat", ["x", "x"], ["q"], axis=0)], {}, {"q": (F, None)})
    choose = node("If", ["c"], ["y"], then_branch=then_branch, else_branch=else_branch)
    return model([choose], {"x": [B, 8], "c": []}, kinds={"c": BOOL})


def if_of_a_shape() -> onnx.ModelProto:
    """A branch knows the batch by a shape alone, which is computed around it."""
    then_branch = body([node("Expand", ["half", "s"], ["t"])], {}, {"t": ROWS}, {"half": np.float32(0.5)})
    else_branch = body([node("Neg", ["x"], ["q"])], {}, {"q": ROWS})
    choose = node("If", ["c"], ["r"], then_branch=then_branch, else_branch=else_branch)
    nodes = [node("Shape", ["x"], ["s"]), choose, node("Add", ["r", "x"], ["y"])]
    return model(nodes, {"x": [B, 8], "c": []}, kinds={"c": BOOL})


def loop_with_rows() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["v", "w"], ["p"]),
        node("Add", ["p", "e"], ["a"]),
        node("Tanh", ["a"], ["n"]),
        node("ReduceSum", ["n", "axis"], ["s"], keepdims=0),
    ]
    inner = loop(nodes, {"n": ROWS, "s": (F, [B])}, axis=np.array([1]))
    outer = [node("Exp", ["x"], ["e"]), node("Loop", ["m", "", "v0"], ["last", "sums"], body=inner)]
    outer.append(node("Mul", ["last", "x"], ["y"]))
    return model(outer, {"m": [], "v0": [B, 8], "x": [B, 8]}, ["y", "sums"], {"w": W}, kinds={"m": I64})


def loop_of_known_length(trips: int) -> onnx.ModelProto:
    nodes = [node("MatMul", ["v", "w"], ["p"]), node("Tanh", ["p"], ["n"]), node("Neg", ["n"], ["row"])]
    inner = loop(nodes, {"n": ROWS, "row": ROWS})
    outer = [node("Loop", ["m", "", "v0"], ["y", "rows"], body=inner), node("Relu", ["rows"], ["z"])]
    return model(outer, {"v0": [B, 8]}, ["y", "z"], {"w": W, "m": np.int64(trips)})


def loop_with_exit() -> onnx.ModelProto:
    nodes = [
        node("Mul", ["v", "f"], ["n"]),
        node("ReduceMax", ["n"], ["top"], keepdims=0),
        node("Less", ["top", "bound"], ["go"]),
        node("Identity", ["n"], ["row"]),
    ]
    inner = body(nodes, counted(v=ROWS), {"go": (BOOL, []), "n": ROWS, "row": ROWS}, {"f": np.float32(1.5)})
    outer = [node("Abs", ["x"], ["a"]), node("Loop", ["m", "c", "a"], ["y", "rows"], body=inner)]
    kinds = {"m": I64, "c": BOOL}
    return model(outer, {"m": [], "c": [], "x": [B, 8]}, ["y", "rows"], {"bound": np.float32(20)}, kinds=kinds)


def loop_as_often_as_the_batch() -> onnx.ModelProto:
    """The number of iterations is the batch, of which each takes one."""
    nodes = [node("Gather", ["x", "i"], ["r"], axis=0), node("Add", ["v", "r"], ["n"]), node("Neg", ["n"], ["row"])]
    inner = body([*nodes, GO], counted(v=(F, [8])), {"go": (BOOL, []), "n": (F, [8]), "row": (F, [8])})
    outer = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["count"], axis=0),
        node("Loop", ["count", "", "v0"], ["y", "rows"], body=inner),
    ]
    return model(outer, {"x": [B, 8], "v0": [8]}, ["y", "rows"], {"zero": np.int64(0)})


def loop_over_twice_the_batch() -> onnx.ModelProto:
    """The body's inputs do not tell the batch: their first dim is 2 * batch."""
    nodes = [node("MatMul", ["v", "w"], ["p"]), node("Tanh", ["p"], ["n"]), node("Neg", ["n"], ["row"])]
    made: dict[str, tuple[int, None]] = {"n": (F, None), "row": (F, None)}
    inner = body([*nodes, GO], counted(v=(F, None)), {"go": (BOOL, []), **made})
    outer = [node("Concat", ["x", "x"], ["d"], axis=0), node("Loop", ["m", "", "d"], ["y", "rows"], body=inner)]
    return model(outer, {"m": [], "x": [B, 8]}, ["y", "rows"], {"w": W}, kinds={"m": I64})


def loop_that_restores_a_shape() -> onnx.ModelProto:
    """The body flattens, and restores the shape that was computed around it."""
    nodes = [node("Reshape", ["v", "flat"], ["f"]), node("Softmax", ["f"], ["t"]), node("Reshape", ["t", "s"], ["n"])]
    inner = loop(nodes, {"n": ROWS}, flat=np.array([-1]))
    outer = [node("Shape", ["x"], ["s"]), node("Loop", ["m", "", "x"], ["y"], body=inner)]
    return model(outer, {"m": [], "x": [B, 8]}, kinds={"m": I64})


def loop_that_decides(trips: int) -> onnx.ModelProto:
    """In each iteration the data decides a size, another one each time."""
    nodes = [
        node("Sub", ["v", "third"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("NonZero", ["r"], ["nz"]),
        node("Cast", ["nz"], ["found"], to=F),
        node("ReduceSum", ["found"], ["row"], keepdims=0),
    ]
    inner = loop(nodes, {"n": ROWS, "row": (F, [])}, third=np.float32(0.3))
    outer = [node("Loop", ["m", "", "x"], ["y", "rows"], body=inner)]
    return model(outer, {"x": [B, 8]}, ["y", "rows"], {"m": np.int64(trips)})


def loop_that_decides_within() -> onnx.ModelProto:
    """Numbers go in and come out; the batch and a size that the data decides are inside alone."""
    nodes = [
        node("Expand", ["v", "s"], ["wide"]),
        node("NonZero", ["wide"], ["nz"]),
        node("Cast", ["nz"], ["found"], to=F),
        node("ReduceMean", ["found"], ["mean"], keepdims=0),
        node("Add", ["v", "mean"], ["n"]),
    ]
    inner = body([*nodes, GO], counted(v=(F, [])), {"go": (BOOL, []), "n": (F, [])})
    outer = [node("Shape", ["x"], ["s"]), node("Loop", ["m", "", "v0"], ["n"], body=inner)]
    outer.append(node("Mul", ["n", "x"], ["y"]))
    return model(outer, {"m": [], "x": [B, 8], "v0": []}, kinds={"m": I64})


def rows_of_a_decided_size() -> onnx.ModelProto:
    """Sizes that the data decides, in the body and around it, meet in one program."""
    nodes = [node("Tanh", ["v"], ["n"]), node("NonZero", ["r"], ["nz"]), node("Cast", ["nz"], ["row"], to=F)]
    inner = loop([node("Relu", ["minus"], ["r"]), *nodes], {"n": ROWS, "row": (F, None)})
    outer = [
        node("Neg", ["x"], ["minus"]),
        node("Relu", ["x"], ["plus"]),
        node("NonZero", ["plus"], ["found"]),
        node("Cast", ["found"], ["places"], to=F),
        node("ReduceSum", ["places"], ["sum"], keepdims=0),
        node("Loop", ["m", "", "x"], ["last", "rows"], body=inner),
        node("Add", ["rows", "sum"], ["y"]),
        node("Neg", ["places"], ["z"]),
    ]
    return model(outer, {"x": [B, 8]}, ["y", "z"], {"m": np.int64(17)})


def scan_of(axis: int, out_axis: int, backwards: int) -> onnx.ModelProto:
    """A recurrent layer; the batch and the number of steps are both symbols."""
    nodes = [
        node("MatMul", ["h", "w"], ["p"]),
        node("Add", ["p", "a"], ["q"]),
        node("Tanh", ["q"], ["n"]),
        node("Neg", ["n"], ["row"]),
    ]
    inner = body(nodes, {"h": ROWS, "a": ROWS}, {"n": ROWS, "row": ROWS}, {"w": W})
    shape: list[int | str] = [B, 8]
    shape.insert(axis, "steps")
    scan = node(
        "Scan",
        ["h0", "x"],
        ["y", "rows"],
        body=inner,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[backwards],
        scan_output_axes=[out_axis],
        scan_output_directions=[backwards],
    )
    return model([scan], {"h0": [B, 8], "x": shape}, ["y", "rows"])


def scan_over_the_batch() -> onnx.ModelProto:
    nodes = [node("Add", ["h", "a"], ["n"]), node("Mul", ["n", "gain"], ["row"])]
    inner = body(nodes, {"h": (F, [8]), "a": (F, [8])}, {"n": (F, [8]), "row": (F, [8])})
    scan = node("Scan", ["h0", "x"], ["y", "rows"], body=inner, num_scan_inputs=1)
    return model([scan], {"h0": [8], "x": [B, 8], "gain": [8]}, ["y", "rows"])


def if_in_scan_in_loop() -> onnx.ModelProto:
    """The innermost branch takes the batch from two levels up."""
    one = body([node("Add", ["h", "e"], ["o"])], {}, {"o": ROWS})
    other = body([node("Expand", ["half", "es"], ["ev"])], {}, {"ev": ROWS}, {"half": np.float32(0.5)})
    nodes = [
        node("ReduceSum", ["a"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["hn"], then_branch=one, else_branch=other),
        node("Mul", ["hn", "a"], ["r"]),
    ]
    slices = body(nodes, {"h": ROWS, "a": ROWS}, {"hn": ROWS, "r": ROWS}, {"zero": np.float32(0)})
    scan = node("Scan", ["v", "x"], ["last", "rows"], body=slices, num_scan_inputs=1)
    inner = loop([scan, node("Tanh", ["last"], ["n"])], {"n": ROWS, "rows": (F, ["steps", B, 8])})
    outer = [node("Exp", ["v0"], ["e"]), node("Shape", ["e"], ["es"])]
    outer.append(node("Loop", ["m", "", "v0"], ["y", "all"], body=inner))
    return model(outer, {"m": [], "x": ["steps", B, 8], "v0": [B, 8]}, ["y", "all"], kinds={"m": I64})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    f.__name__: f
    for f in (
        if_around_batches,
        if_of_two_sizes,
        if_of_a_shape,
        loop_with_rows,
        loop_with_exit,
        loop_as_often_as_the_batch,
        loop_over_twice_the_batch,
        loop_that_restores_a_shape,
        loop_that_decides_within,
        rows_of_a_decided_size,
        scan_over_the_batch,
        if_in_scan_in_loop,
    )
}
MODELS |= {
    f"{f.__name__}_{n}": lambda f=f, n=n: f(n) for f in (loop_of_known_length, loop_that_decides) for n in (3, 21)
}
MODELS |= {f"scan_{a}_{o}_{b}": lambda a=a, o=o, b=b: scan_of(a, o, b) for a, o, b in ((0, 0, 0), (1, 2, 1))}


def shape_of(info: onnx.ValueInfoProto, **sizes: int) -> list[int]:
    dims = info.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in dims]


def build(proto: onnx.ModelProto) -> tw.Engine:
    ranges = {i.name: tw.Range(*(shape_of(i, batch=n, steps=n) for n in (1, 4, 9))) for i in proto.graph.input}
    return tw.build(proto, shapes=ranges, tune="off", host_steps=False)


def feeds(proto: onnx.ModelProto, batch: int, trips: int, condition: bool, steps: int) -> dict[str, np.ndarray]:
    made = {"m": np.array(trips), "c": np.array(condition)}
    for info in proto.graph.input:
        if info.name not in made:
            shape = shape_of(info, batch=batch, steps=steps)
            made[info.name] = RNG.normal(size=shape).astype(np.float32)
    return {info.name: made[info.name] for info in proto.graph.input}


@pytest.mark.parametrize("name", MODELS)
def test_bodies_of_symbolic_sizes_agree_with_onnx_runtime_at_every_batch(name: str) -> None:
    proto = MODELS[name]()
    with build(proto) as engine:
        for batch in BATCHES:
            for run in RUNS:
                given = feeds(proto, batch, *run)
                got = engine.run(given)
                for (output, a), b in zip(got.items(), runtime_outputs(proto, given), strict=True):
                    where = f"{output} at batch {batch}, {run}"
                    if b.size or a.size:  # of stacks without rows ONNX Runtime takes the symbols for 0
                        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
                        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=where)


@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_stacks_without_rows_have_the_sizes_of_the_run(target: str) -> None:
    proto = if_in_scan_in_loop()
    ranges = {i.name: tw.Range(*(shape_of(i, batch=n, steps=n) for n in (1, 4, 9))) for i in proto.graph.input}
    with tw.build(proto, shapes=ranges, tune="off", target=target) as engine:
        for batch in (2, 7):
            assert engine.run(feeds(proto, batch, 0, True, 5))["all"].shape == (0, 5, batch, 8)
