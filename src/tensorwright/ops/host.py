# SPDX-License-Identifier: Apache-2.0
"""The long tail: ONNX operators that run on the host, through ONNX's own reference implementation."""

from __future__ import annotations

import base64
import binascii
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorwright.errors import InputError
from tensorwright.ir.dims import Dim
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import ObjectType, TensorType

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx.reference import ReferenceEvaluator

EVALUATOR_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    OSError,
)
"""What the reference evaluator raises for operators it lacks and for data it cannot take; it has no class for it."""


@op("onnx_host", compare=EXACT)
class OnnxHost(Op):
    """An ONNX model of one node, evaluated by `onnx.reference`. It never becomes a kernel.

    Inputs are those of the model, in order, all present; an empty optional is None. Values of an `ObjectType` are
    what `onnx.reference` takes and gives: lists, None, arrays of strings. `types` are the output types as found at
    import; a dim that only the data decides is a symbol of its own. `pure` is False for what draws random numbers:
    such an op must run at every inference, and never stands for another one.
    """

    model: str
    """A serialised ModelProto as base64 text."""
    types: tuple[TensorType, ...]
    pure: bool = True
    reason: str = ""
    bounded: tuple[Dim, ...] = ()
    """The dims of `types` that a run decides within bounds, so that kernels can follow."""

    @staticmethod
    def of(
        proto: ModelProto,
        types: tuple[TensorType, ...],
        *,
        pure: bool = True,
        reason: str = "",
        bounded: tuple[Dim, ...] = (),
    ) -> OnnxHost:
        """The op that runs this model."""
        text = base64.b64encode(proto.SerializeToString(deterministic=True)).decode()
        return OnnxHost(text, types, pure, reason, bounded)

    @property
    def decides(self) -> tuple[Dim, ...]:
        return self.bounded

    def prepare(self) -> None:
        """Build the evaluator now. Raises one of EVALUATOR_ERRORS for an operator that ONNX's reference lacks."""
        _ = self._evaluator

    @property
    def node_kind(self) -> str:
        """The ONNX operator, for reports: "NonZero", "ai.onnx.ml.LabelEncoder"."""
        node = self._proto.graph.node[0]
        return f"{node.domain}.{node.op_type}" if node.domain else node.op_type

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        if any(t is None for t in inputs):
            raise ValueError("onnx_host lists only inputs that are present")
        given, declared = len(inputs), len(self._proto.graph.input)
        if given != declared or len(self.types) != len(self._proto.graph.output):
            raise ValueError(f"onnx_host takes {declared} inputs and lists {len(self.types)} outputs, not {given}")
        return self.types

    def reference(self, *inputs: Any) -> tuple[Any, ...]:
        """The results. Raises InputError I120 when ONNX's reference cannot compute them from these inputs."""
        try:
            results = self._evaluator.run(None, dict(zip(self._evaluator.input_names, inputs, strict=True)))
            return tuple(_checked(r, t) for r, t in zip(results, self.types, strict=True))
        except EVALUATOR_ERRORS as error:
            raise InputError(
                f"the operator {self.node_kind} cannot be computed from these inputs",
                why=f"onnx.reference: {error}",
                do="install what it names" if isinstance(error, ImportError) else "check the model's inputs",
                code="I120",
            ) from error

    @functools.cached_property
    def _proto(self) -> ModelProto:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx import ModelProto

        try:
            proto = ModelProto()
            proto.ParseFromString(base64.b64decode(self.model, validate=True))
        except (DecodeError, binascii.Error) as error:
            raise ValueError(f"onnx_host holds no model: {error}") from error
        if len(proto.graph.node) != 1:
            raise ValueError(f"onnx_host holds a model of {len(proto.graph.node)} nodes")
        return proto

    @functools.cached_property
    def _evaluator(self) -> ReferenceEvaluator:
        """Built on first use; evaluators keep no state between runs."""
        from onnx.reference import ReferenceEvaluator

        from tensorwright.ops.onnx_control_flow import CONTROL_FLOW

        return ReferenceEvaluator(self._proto, new_ops=list(CONTROL_FLOW))


def _checked(result: Any, expected: TensorType) -> Any:
    """A result as an array of the recorded type. Raises ValueError where its shape contradicts that."""
    if isinstance(expected, ObjectType):
        return result
    array: Array = np.asarray(result)
    fits = array.ndim == expected.rank and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(expected.shape, array.shape, strict=False)
    )
    if not fits:
        raise ValueError(f"the result has the shape {list(array.shape)}, its type is {expected}")
    # some reference implementations compute in f64 and forget to round
    return np.ascontiguousarray(array).reshape(array.shape).astype(expected.dtype.numpy, copy=False)
