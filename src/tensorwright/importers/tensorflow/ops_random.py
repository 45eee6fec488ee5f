# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's random numbers, and what they decide whatever they are.

A graph that was frozen with its dropout inside draws a number r from [0, 1) for each element and keeps those where
floor(r + keep) is 1, or r >= rate. With keep = 1 or rate = 0 that is every element, which `decided` finds from the
range of r.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.random import DIGITS, normal, uniform
from tensorwright.ops.random import RandomKey
from tensorwright.ops.shape import Expand

Range = tuple[float, float]
"""The least number, and one that is greater than all; equal where all are that number."""

Ranges = dict[Value, Range]


@tf_op("RandomUniform", "RandomStandardNormal")
def random(b: Builder, n: OpNode) -> Result:
    """Fractions from [0, 1), or standard normal numbers; of a seed always the same, without one new in each run."""
    dtype, shape = n.dtype("dtype", DType.f32), n.dims(0, "it is the shape of the result")
    if dtype not in DIGITS:
        n.refuse(f"it draws numbers of {dtype}", "draw float32 and cast")
    seeds = [n.integer(name, 0) & 0xFFFFFFFF for name in ("seed", "seed2")]
    key = b.constant(np.array(seeds, np.uint32)) if any(seeds) else b.add(RandomKey())
    draw = uniform if n.op == "RandomUniform" else normal
    return as_type(b, draw(b, key, shape, dtype), dtype)


def decided(b: Builder, op: str, inputs: tuple[Value, ...], result: Value, ranges: Ranges) -> Value:
    """The result of an op, or the constant that it is for all numbers that its operands may be; `ranges` has these, and
    gets that of the result."""
    if op == "RandomUniform":
        ranges[result] = (0.0, 1.0)
        return result
    if not any(v in ranges for v in inputs):
        return result
    known = [_range(b, v, ranges) for v in inputs]
    found = [r for r in known if r is not None]
    if len(found) != len(inputs):
        return result
    number = _decision(op, found)
    if number is not None:
        return b.add(Expand(result.type.shape), b.scalar(number, result.type.dtype))
    moved = _moved(op, found)
    if moved is not None:
        ranges[result] = moved
    return result


def _range(b: Builder, value: Value, ranges: Ranges) -> Range | None:
    array = b.known(value)
    if array is not None and array.size == 1:
        number = float(array.reshape(-1)[0])
        return number, number
    return ranges.get(value)


def _decision(op: str, r: list[Range]) -> float | bool | None:
    if op == "Floor" and math.floor(r[0][0]) == math.ceil(r[0][1]) - 1:
        return math.floor(r[0][0])
    if op == "GreaterEqual" and r[0][0] >= r[1][1]:
        return True
    return None


def _moved(op: str, r: list[Range]) -> Range | None:
    if op in ("Add", "AddV2"):
        return r[0][0] + r[1][0], r[0][1] + r[1][1]
    if op == "Sub" and r[1][0] == r[1][1]:
        return r[0][0] - r[1][0], r[0][1] - r[1][0]
    factors = [x[0] for x in r if x[0] == x[1]]
    if op == "Mul" and len(r) == 2 and factors and factors[0] > 0:
        other = r[1] if r[0][0] == r[0][1] else r[0]
        return other[0] * factors[0], other[1] * factors[0]
    return None


OPS: list[TfOp] = [*random]
