# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions that every format has, under the names that ONNX and TensorFlow share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorwright.ir.op import Op
from tensorwright.ops import activation as act
from tensorwright.ops import elementwise as ew

UNARY: Mapping[str, Callable[[], Op]] = {
    "Abs": ew.Abs,
    "Neg": ew.Neg,
    "Exp": ew.Exp,
    "Log": ew.Log,
    "Sqrt": ew.Sqrt,
    "Reciprocal": ew.Reciprocal,
    "Tanh": ew.Tanh,
    "Floor": ew.Floor,
    "Ceil": ew.Ceil,
    "Erf": ew.Erf,
    "Round": ew.Round,
    "Sign": ew.Sign,
    "Sin": ew.Sin,
    "Cos": ew.Cos,
    "Tan": ew.Tan,
    "Asin": ew.Asin,
    "Acos": ew.Acos,
    "Atan": ew.Atan,
    "Sinh": ew.Sinh,
    "Cosh": ew.Cosh,
    "Asinh": ew.Asinh,
    "Acosh": ew.Acosh,
    "Atanh": ew.Atanh,
    "Relu": act.Relu,
    "Sigmoid": act.Sigmoid,
    "Softsign": act.Softsign,
    "Softplus": act.Softplus,
}
BINARY: Mapping[str, Callable[[], Op]] = {
    "Add": ew.Add,
    "Sub": ew.Sub,
    "Mul": ew.Mul,
    "Pow": ew.Pow,
    "Equal": ew.Equal,
    "Less": ew.Less,
    "Greater": ew.Greater,
}
