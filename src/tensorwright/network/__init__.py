# SPDX-License-Identifier: Apache-2.0
"""The network definition API: `Network`, its layers' enums, and what it hands out.

`definition` is the Network: `base` what it is made of, `add_basic` and `add_special` the methods that add layers.
`layer` is what all layers share, `writer` makes the graph of them. The layers by family are `windows`, `pointwise`,
`tensors`, `reductions`, `selection`, `quantisation`, `generators`, `sequences`, `recurrent`, and with what they share
in `control` those of `conditionals` and `loops`. `composed` has what several ops compute together, for layers and
importers alike.
"""

from tensorwright.network.definition import Network
from tensorwright.network.enums import (
    ActivationType,
    AttentionNormalizationOp,
    BoundingBoxFormat,
    CumulativeOperation,
    ElementWiseOperation,
    FillOperation,
    InterpolationMode,
    LoopOutput,
    MatrixOperation,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    ResizeSelector,
    RNNDirection,
    RNNGateType,
    RNNInputMode,
    RNNOperation,
    SampleMode,
    ScaleMode,
    ScatterMode,
    TopKOperation,
    TripLimit,
    UnaryOperation,
)
from tensorwright.network.layer import Layer, Tensor

__all__ = [
    "ActivationType",
    "AttentionNormalizationOp",
    "BoundingBoxFormat",
    "CumulativeOperation",
    "ElementWiseOperation",
    "FillOperation",
    "InterpolationMode",
    "Layer",
    "LoopOutput",
    "MatrixOperation",
    "Network",
    "PaddingMode",
    "PoolingType",
    "RNNDirection",
    "RNNGateType",
    "RNNInputMode",
    "RNNOperation",
    "ReduceOperation",
    "ResizeCoordinateTransformation",
    "ResizeRoundMode",
    "ResizeSelector",
    "SampleMode",
    "ScaleMode",
    "ScatterMode",
    "Tensor",
    "TopKOperation",
    "TripLimit",
    "UnaryOperation",
]
