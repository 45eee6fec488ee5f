# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's resizes. Three formulas give the place of output pixel i: i * (in - 1) / (out - 1) with align_corners,
(i + 0.5) * in / out - 0.5 with half_pixel_centers, else i * in / out."""

from __future__ import annotations

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.ops_shape import as_type
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ops.shape import Resize, Transpose


@tf_op("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")
def resize(b: Builder, n: OpNode) -> Result:
    """NHWC images at another size."""
    x, sizes = n.input(0), n.dims(1, "it is the size of the result")
    if x.type.rank != 4 or len(sizes) != 2 or any(isinstance(d, int) and d < 1 for d in sizes):
        raise ValueError(f"it resizes images of rank 4 to two sizes, not {x.type} to {[str(d) for d in sizes]}")
    corners, half = n.flag("align_corners"), n.flag("half_pixel_centers")
    coordinates = "align_corners" if corners else "half_pixel" if half else "asymmetric"
    target: tuple[Dim, ...] = (*x.type.shape[:1], x.type.shape[3], *sizes)
    first = b.add(Transpose((0, 3, 1, 2)), x)
    ratios = (1.0, 1.0, None, None)
    if n.op == "ResizeNearestNeighbor":
        if half and not corners:
            op = Resize("nearest", target, ratios, "half_pixel", "round_prefer_ceil")  # floor((i + 0.5) * in / out)
        else:
            op = Resize("nearest", target, ratios, coordinates, "round_prefer_ceil" if corners else "floor")
        return b.add(Transpose((0, 2, 3, 1)), b.add(op, first))
    first = as_type(b, first, DType.f32)
    if n.op == "ResizeBilinear":
        op = Resize("linear", target, ratios, coordinates)
    else:
        op = Resize("cubic", target, ratios, coordinates, cubic_coeff=-0.5 if half else -0.75, exclude_outside=half)
    return b.add(Transpose((0, 2, 3, 1)), b.add(op, first))


OPS: list[TfOp] = [*resize]
