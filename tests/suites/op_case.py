# SPDX-License-Identifier: Apache-2.0
"""A row of the op table: an op, its input types and the kind of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ir.text import op_text
from tensorwright.ir.types import TensorType

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """One input: its type and what its values are like (see `values`)."""

    shape: Shape
    kind: str = "normal"
    dtype: DType = DType.f32

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)


@dataclass(frozen=True)
class OpCase:
    """`id` is unique; `inputs` may hold None for an absent optional input."""

    id: str
    op: Op
    inputs: tuple[Spec | None, ...]

    def make(self, rng: np.random.Generator) -> list[Array | None]:
        """Input arrays: the same ones for the same generator state."""
        return [None if spec is None else values(spec, rng) for spec in self.inputs]

    @property
    def types(self) -> list[TensorType | None]:
        return [None if spec is None else spec.type for spec in self.inputs]


def values(spec: Spec, rng: np.random.Generator) -> Array:
    """Values of a kind: normal, positive, unit (-1..1), nonzero, large (up to 1e4), special (NaN, infinities, zeros and
    denormals among normal ones), integers (-4..4, so that ties are common), bool, `index N` (-N..N-1), or `lengths N`
    (1..N)."""
    name, _, argument = spec.kind.partition(" ")
    normal = rng.standard_normal(spec.shape)
    if name == "index":
        made = rng.integers(-int(argument), int(argument), spec.shape)
    elif name == "lengths":
        made = rng.integers(1, int(argument) + 1, spec.shape)
    elif name == "integers":
        made = rng.integers(-4, 5, spec.shape)
    elif name == "special":
        specials = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 1.0])
        picked = specials[rng.integers(0, len(specials), spec.shape)]
        made = np.where(rng.random(spec.shape) < 0.5, picked, normal)
    else:
        made = {
            "normal": normal,
            "positive": np.abs(normal) + 0.1,
            "unit": np.tanh(normal),
            "large": normal * 1e4,
            "nonzero": np.sign(normal) * (np.abs(normal) + 0.1),
            "bool": normal > 0,
        }[name]
    with np.errstate(all="ignore"):
        return np.asarray(made).astype(spec.dtype.numpy)


def case(op: Op, *inputs: Spec | Shape | None, note: str = "") -> OpCase:
    """A row; a bare shape means normal f32 values."""
    specs = tuple(Spec(x) if isinstance(x, tuple) else x for x in inputs)
    shown = ",".join(
        "_" if s is None else f"{s.type}{'' if s.kind == 'normal' else ':' + s.kind.replace(' ', '')}" for s in specs
    )
    return OpCase(f"{op_text(op)}({shown}){' ' + note if note else ''}".replace(" ", ";"), op, specs)
