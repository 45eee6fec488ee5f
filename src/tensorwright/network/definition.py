# SPDX-License-Identifier: Apache-2.0
"""`Network`: a model written layer by layer, with the names and argument order that TensorRT's users know."""

from __future__ import annotations

from tensorwright.network.add_basic import BasicLayers
from tensorwright.network.add_special import SpecialLayers


class Network(BasicLayers, SpecialLayers):
    """A network under construction: `add_*` returns a layer, whose properties may be set at any time.

    `to_graph` (or `tw.build(network)`) makes the Graph of the layers that the marked outputs need. Every mistake is a
    ModelError M110 that names the layer: wrong arguments at once, layers that do not fit when a shape or the graph is
    asked for.
    """
