# SPDX-License-Identifier: Apache-2.0
"""The layers of SSD (Liu et al. 2016): prior boxes, and detections decoded from them."""

from __future__ import annotations

from tensorwright.importers.caffe.layer import LayerType

LAYERS: list[LayerType] = []
