# SPDX-License-Identifier: Apache-2.0
"""Caffe's normalisations and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, Result, layer_type
from tensorwright.importers.caffe.weights import constant_filler
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Add, Div, Mul, Pow, Sqrt, Sub
from tensorwright.ops.norm import BatchNorm, Lrn
from tensorwright.ops.pool import AveragePool
from tensorwright.ops.reduce import Reduce, Softmax
from tensorwright.ops.shape import Reshape


def _f32(b: Builder, number: float) -> Value:
    return b.scalar(number, DType.f32)


@layer_type("Softmax")
def softmax(b: Builder, layer: Layer) -> Result:
    """Along `axis`, 1 by default."""
    x = layer.only()
    return b.add(Softmax(layer.axis(layer.proto.softmax_param.axis, x.type.rank)), x)


@layer_type("LRN")
def lrn(b: Builder, layer: Layer) -> Result:
    """Across channels x / (k + alpha/size * sum of squares)^beta; within a channel x / (1 + alpha * mean of the squares
    of a window, zeros around the image included)^beta."""
    x, p = layer.only(), layer.proto.lrn_param
    if p.local_size % 2 == 0:
        raise ValueError(f"its local_size {p.local_size} is even")
    if x.type.rank != 4:
        raise ValueError(f"it normalises images of rank 4, not {x.type}")
    if p.norm_region == 0:
        return b.add(Lrn(p.local_size, p.alpha, p.beta, p.k), x)
    size, pad = p.local_size, (p.local_size - 1) // 2
    mean = b.add(AveragePool((size, size), (1, 1), (pad,) * 4, (1, 1), False, True), b.add(Mul(), x, x))
    base = b.add(Add(), b.add(Mul(), mean, _f32(b, p.alpha)), _f32(b, 1.0))
    return b.add(Mul(), x, b.add(Pow(), base, _f32(b, -p.beta)))


@layer_type("BatchNorm")
def batch_norm(b: Builder, layer: Layer) -> Result:
    """(x - mean) / sqrt(variance + eps), with stored statistics that blob 2 scales, or those of the batch."""
    x, p = layer.only(), layer.proto.batch_norm_param
    channels = 1
    if x.type.rank > 1:
        (channels,) = layer.known_dims(x.type.shape[1:2], "there are statistics for each channel")
    mean, variance = (layer.array(i, (channels,), kind) for i, kind in ((0, "mean"), (1, "variance")))
    factor = float(layer.array(2, (1,), "factor")[0])
    if p.HasField("use_global_stats") and not p.use_global_stats:
        axes = tuple(i for i in range(x.type.rank) if i != 1)
        return _normalised(b, x, axes, lambda variance: b.add(Sqrt(), b.add(Add(), variance, _f32(b, p.eps))))
    factor = 0.0 if factor == 0 else 1 / factor
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    parameters = [ones, zeros, mean * np.float32(factor), variance * np.float32(factor)]
    inputs = [b.constant(a, f"{layer.name}/{i}") for i, a in enumerate(parameters)]
    if x.type.rank > 1:
        return b.add(BatchNorm(p.eps), x, *inputs)
    spread = b.add(Sqrt(), b.add(Add(), inputs[3], _f32(b, p.eps)))
    return b.add(Div(), b.add(Sub(), x, inputs[2]), spread)


@layer_type("BN")
def batch_norm_of_forks(b: Builder, layer: Layer) -> Result:
    """PSPNet's: slope * (x - mean) / sqrt(variance + eps) + bias, of four blobs. SegNet's, with `bn_mode`,
    `scale_filler` or `shift_filler`: scale * x + shift if `bn_mode: INFERENCE`, else of x normalised over the batch."""
    x, p = layer.only(), layer.proto.bn_param
    if x.type.rank != 4:
        raise ValueError(f"it normalises images of rank 4, not {x.type}")
    (channels,) = layer.known_dims(x.type.shape[1:2], "there are statistics for each channel")
    shape, epsilon, learns = (1, channels, 1, 1), 1e-9, 0
    is_segnet = any(p.HasField(name) for name in ("bn_mode", "scale_filler", "shift_filler"))
    fillers = (p.scale_filler, p.shift_filler) if is_segnet else (p.slope_filler, p.bias_filler)
    slope, bias = (
        layer.array(i, shape, kind, filler) for i, kind, filler in zip((0, 1), ("scale", "bias"), fillers, strict=True)
    )
    if not is_segnet:
        variance_filler = constant_filler(1.0 if p.frozen else 0.0)
        arrays = [slope, bias, layer.array(2, shape, "mean"), layer.array(3, shape, "variance", variance_filler)]
        inputs = [b.constant(a.reshape(channels), f"{layer.name}/{i}") for i, a in enumerate(arrays)]
        return b.add(BatchNorm(p.eps), x, *inputs)
    if p.bn_mode == learns:
        x = _normalised(b, x, (0, 2, 3), lambda variance: b.add(Sqrt(), b.add(Add(), variance, _f32(b, epsilon))))
    scaled = b.add(Mul(), x, b.constant(slope, f"{layer.name}/0"))
    return b.add(Add(), scaled, b.constant(bias, f"{layer.name}/1"))


@layer_type("MVN")
def mean_variance(b: Builder, layer: Layer) -> Result:
    """(x - mean) / (sqrt(variance) + eps) of each channel, or of all channels of an image."""
    x, p = layer.only(), layer.proto.mvn_param
    if not 2 <= x.type.rank <= 4:
        raise ValueError(f"it normalises [n,channels,...] of rank 2 to 4, not {x.type}")
    if x.type.rank == 2 and not p.across_channels:  # each channel is one element
        x = b.add(Reshape((*x.type.shape, 1)), x)
        return b.add(Reshape(x.type.shape[:2]), _varied(b, p, x, (2,)))
    axes = tuple(range(1 if p.across_channels else 2, x.type.rank))
    return _varied(b, p, x, axes)


def _varied(b: Builder, p: Any, x: Value, axes: tuple[int, ...]) -> Value:
    if not p.normalize_variance:
        return b.add(Sub(), x, b.add(Reduce("mean", axes), x))
    return _normalised(b, x, axes, lambda variance: b.add(Add(), b.add(Sqrt(), variance), _f32(b, p.eps)))


def _normalised(b: Builder, x: Value, axes: tuple[int, ...], spread: Callable[[Value], Value]) -> Value:
    """Zero mean over the axes, divided by what `spread` makes of the variance."""
    centred = b.add(Sub(), x, b.add(Reduce("mean", axes), x))
    variance = b.add(Reduce("mean", axes), b.add(Mul(), centred, centred))
    return b.add(Div(), centred, spread(variance))


@layer_type("Normalize")
def normalize(b: Builder, layer: Layer) -> Result:
    """Each pixel's channels (or each image) divided by their norm, times a scale of each channel (or one)."""
    x, p = layer.only(), layer.proto.norm_param
    if not 2 <= x.type.rank <= 4:
        raise ValueError(f"it normalises [n,channels,...] of rank 2 to 4, not {x.type}")
    axes = tuple(range(1, x.type.rank)) if p.across_spatial else (1,)
    total = b.add(Reduce("sum", axes), b.add(Mul(), x, x))
    y = b.add(Div(), x, b.add(Sqrt(), b.add(Add(), total, _f32(b, p.eps))))
    filler = p.scale_filler if p.HasField("scale_filler") else constant_filler(1.0)
    if p.channel_shared:
        scale: Array = layer.array(0, (), "scale", filler)
    else:
        (channels,) = layer.known_dims(x.type.shape[1:2], "there is a scale for each channel")
        scale = layer.array(0, (channels,), "scale", filler).reshape(channels, *[1] * (x.type.rank - 2))
    return b.add(Mul(), y, b.constant(scale, f"{layer.name}/0"))


LAYERS = [softmax, lrn, batch_norm, batch_norm_of_forks, mean_variance, normalize]
