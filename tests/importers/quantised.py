# SPDX-License-Identifier: Apache-2.0
"""Models of one quantised operator, and their check against ONNX Runtime: step by step of the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import tensorwright as tw
from tests.importers.models import Array, model, runtime_outputs

F32, F16, BF16, I32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT32
SEED = int(np.random.SeedSequence().entropy or 0)
U8, I8, U16, I16 = np.uint8, np.int8, np.uint16, np.int16


def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def integers(dtype: Any, *shape: int) -> Array:
    """Of the whole range."""
    info = np.iinfo(dtype)
    return rng().integers(info.min, info.max, shape, dtype, endpoint=True)


def reals(*shape: int, size: float = 3.0) -> Array:
    """Halves, so that ties are common, beside others."""
    values = rng().normal(0, size, shape)
    return np.where(rng().random(shape) < 0.5, np.round(values * 2) / 2, values).astype(np.float32)


def f32(*numbers: float) -> Array:
    return np.array(numbers[0] if len(numbers) == 1 else numbers, np.float32)


def one(
    op: str,
    arrays: Mapping[str, Array | None],
    fed: str = "x",
    *,
    domain: str = "",
    opset: int = 21,
    outputs: Sequence[str] = ("y",),
    kinds: Mapping[str, int] | None = None,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A node with those inputs (None: absent), of which `fed` are graph inputs, and what is fed."""
    given = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    feeds = {name: given[name] for name in fed.split()}
    reads = [name if array is not None else "" for name, array in arrays.items()]
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    proto = model(
        [helper.make_node(op, reads, list(outputs), "node", domain=domain, **attributes)],
        {name: list(array.shape) for name, array in feeds.items()},
        list(outputs),
        {name: array for name, array in given.items() if name not in feeds},
        opset=opset,
        kinds={**dict.fromkeys(outputs, TensorProto.UINT8), **types, **(kinds or {})},
    )
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto, feeds


def built(proto: onnx.ModelProto, feeds: Mapping[str, Array], **options: Any) -> list[Array]:
    """The outputs, from generated code alone."""
    with tw.build(proto, target="cpu", tune="off", host_steps=False, **options) as engine:
        found = engine.run(dict(feeds))
        return [found[output.name] for output in proto.graph.output]


def check(proto: onnx.ModelProto, feeds: Mapping[str, Array], *, by_reference: bool = False) -> None:
    want = ReferenceEvaluator(proto).run(None, dict(feeds)) if by_reference else runtime_outputs(proto, feeds)
    for got, expected in zip(built(proto, feeds), want, strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if np.dtype(got.dtype) in (np.float32, np.float16):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")
        else:
            wide = np.float64 if got.dtype.kind in "fV" else got.dtype  # NaN of ml_dtypes equals itself there
            np.testing.assert_array_equal(got.astype(wide), expected.astype(wide), err_msg=f"seed {SEED}")
