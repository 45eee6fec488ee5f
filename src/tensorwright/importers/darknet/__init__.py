# SPDX-License-Identifier: Apache-2.0
"""Darknet: networks of a .cfg and a .weights file, written on the public network API; `decode` makes boxes of maps.

`cfg` reads the sections, `layers`, `joins` (those that read several), `detectors` (yolo and region) and `rare` say what
each kind of layer becomes, with `activations`; `weights` hands out the numbers, `reader` puts all together, `boxes`
turns the maps of detectors into boxes.
"""

from tensorwright.importers.darknet.boxes import Detection, decode

__all__ = ["Detection", "decode"]
