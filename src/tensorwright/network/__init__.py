# SPDX-License-Identifier: Apache-2.0
"""The network definition API: `Network`, its layers' enums, and what it hands out.

A subfolder per concern: `definition` is the Network, `layer` what all layers share, and `windows`, `pointwise`,
`tensors` and `reductions` are the layers by family.
"""

from tensorwright.network.definition import Network
from tensorwright.network.enums import (
    ActivationType,
    ElementWiseOperation,
    InterpolationMode,
    MatrixOperation,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    ResizeSelector,
    ScaleMode,
    UnaryOperation,
)
from tensorwright.network.layer import Layer, Tensor

__all__ = [
    "ActivationType",
    "ElementWiseOperation",
    "InterpolationMode",
    "Layer",
    "MatrixOperation",
    "Network",
    "PaddingMode",
    "PoolingType",
    "ReduceOperation",
    "ResizeCoordinateTransformation",
    "ResizeRoundMode",
    "ResizeSelector",
    "ScaleMode",
    "Tensor",
    "UnaryOperation",
]
