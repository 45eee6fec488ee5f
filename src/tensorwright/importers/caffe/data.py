# SPDX-License-Identifier: Apache-2.0
"""Layers that read or make up samples: an engine is given samples instead, so what they make becomes inputs."""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]

DATA_LAYERS = (
    *("Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "AnnotatedData", "VideoData"),
    *("DenseImageData", "BinSegData"),
)
"""Layers that read samples, then their labels."""


def makes_samples(layer: Any) -> bool:
    """Whether a layer reads samples. So does code of the user's own that is given nothing."""
    return layer.type in DATA_LAYERS or (layer.type == "Python" and not layer.bottom)


def data_shapes(layer: Any) -> list[Shape | None]:
    """The shape of each top of a layer that reads samples, as far as the prototxt tells it."""
    found = _sample_shapes(layer)
    return [found[i] if i < len(found) else None for i in range(len(layer.top))]


def _sample_shapes(layer: Any) -> list[Shape | None]:
    transform, crop = layer.transform_param, layer.transform_param.crop_size
    if layer.type == "MemoryData":
        p = layer.memory_data_param
        image: Shape | None = (p.batch_size, p.channels, crop or p.height, crop or p.width)
        return [image, (p.batch_size,)]
    if layer.type in ("HDF5Data", "Python", "DenseImageData", "BinSegData"):
        return []  # the files tell
    param = layer.image_data_param if layer.type == "ImageData" else layer.data_param
    batch, crop = param.batch_size, crop or param.crop_size
    height, width = transform.crop_h or crop, transform.crop_w or crop
    if layer.type == "ImageData" and not height:
        height, width = param.new_height, param.new_width
    if not height:
        height, width = transform.resize_param.height, transform.resize_param.width
    gray = transform.force_gray or (layer.type == "ImageData" and not param.is_color)
    is_color = transform.force_color or len(transform.mean_value) == 3 or (layer.type == "ImageData" and not gray)
    known = batch and height and width and (gray or is_color)
    return [(batch, 1 if gray else 3, height, width) if known else None, (batch,) if batch else None]


def dummy_shapes(layer: Any) -> list[Shape]:
    """The shape of each top of a DummyData layer: its own, or one for all. Raises ValueError."""
    p, count = layer.dummy_data_param, len(layer.top)
    sides = [list(p.num), list(p.channels), list(p.height), list(p.width)]
    if any(sides) and p.shape:
        raise ValueError("it has either shape, or num, channels, height and width")
    if any(sides):
        if any(len(numbers) not in (1, count) for numbers in sides):
            raise ValueError(f"it gives num, channels, height and width {sides} for {count} tops")
        return [tuple(numbers[i if len(numbers) > 1 else 0] for numbers in sides) for i in range(count)]
    if len(p.shape) not in (1, count):
        raise ValueError(f"it gives {len(p.shape)} shapes for {count} tops")
    return [tuple(p.shape[i if len(p.shape) > 1 else 0].dim) for i in range(count)]


def dummy_number(layer: Any, index: int) -> float | None:
    """The number of which a top of a DummyData layer consists; None for random ones. Raises ValueError."""
    fillers = layer.dummy_data_param.data_filler
    if len(fillers) not in (0, 1, len(layer.top)):
        raise ValueError(f"it has {len(fillers)} fillers for {len(layer.top)} tops")
    if not fillers:
        return 0.0
    filler = fillers[index if len(fillers) > 1 else 0]
    return float(filler.value) if filler.type == "constant" else None
