# SPDX-License-Identifier: Apache-2.0
"""All layer types that can be imported: the lists of the `layers_*` files together, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tensorwright.importers.caffe import (
    layers_conv,
    layers_detection,
    layers_norm,
    layers_pointwise,
    layers_pool,
    layers_recurrent,
    layers_shape,
)
from tensorwright.importers.caffe.layer import LayerType

ALL_LAYERS: tuple[LayerType, ...] = (
    *layers_conv.LAYERS,
    *layers_detection.LAYERS,
    *layers_norm.LAYERS,
    *layers_pointwise.LAYERS,
    *layers_pool.LAYERS,
    *layers_recurrent.LAYERS,
    *layers_shape.LAYERS,
)

BY_NAME: Mapping[str, LayerType] = {entry.name: entry for entry in ALL_LAYERS}

ALIASES: Mapping[str, str] = {"ConvolutionDepthwise": "DepthwiseConvolution", "CuDNNBatchNorm": "BatchNorm"}
"""Names that forks give to the same layers."""


def find_layer(name: str) -> LayerType | None:
    """The function that reads layers of a type; None when there is none."""
    return BY_NAME.get(ALIASES.get(name, name))
