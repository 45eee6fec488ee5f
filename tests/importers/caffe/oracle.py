# SPDX-License-Identifier: Apache-2.0
"""Caffe's layers in plain loops: from bottoms, the fields of the parameter message, and blobs, to tops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Fields = Mapping[str, Any]
Oracle = Callable[[Sequence[Array], Fields, Sequence[Array]], Sequence[Array]]

LOWEST = -3.4028234663852886e38


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def sides(p: Fields, name: str, count: int, default: int, field: str = "") -> list[int]:
    """A field for all spatial dims, one for each, or `_h` and `_w`."""
    if f"{name}_h" in p:
        return [p[f"{name}_h"], p[f"{name}_w"]]
    values = listed(p.get(field or name, default))
    return values if len(values) == count else values * count


# -- convolutions -------------------------------------------------------------------------------------
def window(p: Fields, count: int) -> list[list[int]]:
    return [
        sides(p, "kernel", count, 0, "kernel_size"),
        sides(p, "stride", count, 1),
        sides(p, "pad", count, 0),
        sides(p, "dilation", count, 1),
    ]


def convolution(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    return [_convolved(x, p, blobs, transposed=False) for x in bottoms]


def deconvolution(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    return [_convolved(x, p, blobs, transposed=True) for x in bottoms]


def _convolved(x: Array, p: Fields, blobs: Sequence[Array], *, transposed: bool) -> Array:
    axis = p.get("axis", 1) % x.ndim
    lead, space = x.shape[:axis], x.shape[axis + 1 :]
    x = x.reshape(-1, *x.shape[axis:])
    kernel, strides, pads, dilations = window(p, len(space))
    sizes = list(zip(space, kernel, strides, pads, dilations, strict=True))
    if transposed:
        outs = [s * (d - 1) + r * (k - 1) + 1 - 2 * q for d, k, s, q, r in sizes]
    else:
        outs = [(d + 2 * q - r * (k - 1) - 1) // s + 1 for d, k, s, q, r in sizes]
    groups, m = p.get("group", 1), p["num_output"]
    mi, mo = x.shape[1] // groups, m // groups
    y, w = np.zeros((len(x), m, *outs)), blobs[0].astype(np.float64)
    for near in itertools.product(*map(range, space if transposed else outs)):
        for k in itertools.product(*map(range, kernel)):
            far = tuple(i * s - q + j * r for i, j, s, q, r in zip(near, k, strides, pads, dilations, strict=True))
            if not all(0 <= i < d for i, d in zip(far, outs if transposed else space, strict=True)):
                continue
            for g in range(groups):
                ins, out = slice(g * mi, (g + 1) * mi), slice(g * mo, (g + 1) * mo)
                if transposed:
                    y[(slice(None), out, *far)] += x[(slice(None), ins, *near)] @ w[(ins, slice(None), *k)]
                else:
                    y[(slice(None), out, *near)] += x[(slice(None), ins, *far)] @ w[(out, slice(None), *k)].T
    if p.get("bias_term", True):
        y += blobs[1].reshape(-1, *[1] * len(space))
    return y.reshape(*lead, *y.shape[1:])


def inner_product(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,), axis = bottoms, p.get("axis", 1) % bottoms[0].ndim
    w = blobs[0].reshape(-1, p["num_output"]).T if p.get("transpose") else blobs[0].reshape(p["num_output"], -1)
    y = x.reshape(-1, w.shape[1]).astype(np.float64) @ w.T.astype(np.float64)
    if p.get("bias_term", True):
        y += blobs[1].reshape(-1)
    return [y.reshape(*x.shape[:axis], p["num_output"])]


def embed(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    y = blobs[0][bottoms[0].astype(int)]
    return [y + blobs[1] if p.get("bias_term", True) else y]


# -- pools --------------------------------------------------------------------------------------------
def pooling(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    """pooling_layer.cpp: the pool, and for maxima their positions."""
    (x,) = bottoms
    n, c, *space = x.shape
    kernel, strides, pads, _ = window(p, 2)
    if p.get("global_pooling"):
        kernel = space
    rounded = math.floor if p.get("round_mode") == "FLOOR" or p.get("ceil_mode") is False else math.ceil
    outs = [rounded((d + 2 * q - k) / s) + 1 for d, k, s, q in zip(space, kernel, strides, pads, strict=True)]
    if any(pads):
        outs = [o - ((o - 1) * s >= d + q) for o, d, s, q in zip(outs, space, strides, pads, strict=True)]
    y, mask = np.zeros((n, c, *outs)), np.full((n, c, *outs), -1.0)
    is_max = p.get("pool", "MAX") == "MAX"
    for image, channel, *place in np.ndindex(*y.shape):
        at = (image, channel, *place)
        starts = [i * s - q for i, s, q in zip(place, strides, pads, strict=True)]
        ends = [min(a + k, d if is_max else d + q) for a, k, d, q in zip(starts, kernel, space, pads, strict=True)]
        size = (ends[0] - starts[0]) * (ends[1] - starts[1])
        rows, columns = (range(max(a, 0), min(z, d)) for a, z, d in zip(starts, ends, space, strict=True))
        if is_max:
            y[at] = LOWEST
            for h, w in itertools.product(rows, columns):
                if x[image, channel, h, w] > y[at]:
                    y[at], mask[at] = x[image, channel, h, w], h * space[1] + w
        else:
            total = sum(x[image, channel, h, w] for h, w in itertools.product(rows, columns))
            y[at] = total / size if size else math.nan
    return [y, mask] if is_max else [y]


def spatial_pyramid(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,), parts = bottoms, []
    for level in range(p["pyramid_height"]):
        bins = 2**level
        kernel = [math.ceil(d / bins) for d in x.shape[2:]]
        pads = [(k * bins - d + 1) // 2 for k, d in zip(kernel, x.shape[2:], strict=True)]
        q = {"pool": p.get("pool", "MAX"), "kernel_size": kernel, "stride": kernel, "pad": pads}
        parts.append(pooling([x], q, [])[0])
    return parts if len(parts) == 1 else [np.concatenate([part.reshape(len(x), -1) for part in parts], 1)]


# -- normalisations -----------------------------------------------------------------------------------
def lrn(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,), size = bottoms, p.get("local_size", 5)
    alpha, beta, k = p.get("alpha", 1), p.get("beta", 0.75), p.get("k", 1)
    half, y = (size - 1) // 2, np.zeros(x.shape)
    for n, c, h, w in np.ndindex(*x.shape):
        if p.get("norm_region") == "WITHIN_CHANNEL":
            part = x[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1].astype(np.float64)
            base = 1 + alpha / size**2 * (part**2).sum()
        else:
            base = k + alpha / size * (x[n, max(c - half, 0) : c + half + 1, h, w].astype(np.float64) ** 2).sum()
        y[n, c, h, w] = x[n, c, h, w] * base**-beta
    return [y]


def batch_norm(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,) = bottoms
    factor = blobs[2].reshape(-1)[0]
    factor = 0 if factor == 0 else 1 / factor
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        channel = x[:, c].astype(np.float64)
        mean, variance = (float(blob.reshape(-1)[c]) * factor for blob in blobs[:2])
        if p.get("use_global_stats") is False:
            mean, variance = channel.mean(), ((channel - channel.mean()) ** 2).mean()
        y[:, c] = (channel - mean) / math.sqrt(variance + p.get("eps", 1e-5))
    return [y]


def fork_norm(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    """PSPNet's BN, or SegNet's with a `bn_mode`."""
    x, y = bottoms[0].astype(np.float64), np.zeros(bottoms[0].shape)
    for c in range(x.shape[1]):
        slope, shift, *rest = (float(blob.reshape(-1)[c]) for blob in blobs)
        channel = x[:, c]
        if rest:
            channel = (channel - rest[0]) / math.sqrt(rest[1] + p.get("eps", 1e-5))
        elif p["bn_mode"] == "LEARN":
            channel = (channel - channel.mean()) / math.sqrt(channel.var() + 1e-9)
        y[:, c] = slope * channel + shift
    return [y]


def mean_variance(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,) = bottoms
    rows = x.reshape(len(x) if p.get("across_channels") else x.shape[0] * x.shape[1], -1).astype(np.float64)
    y = rows - rows.mean(1, keepdims=True)
    if p.get("normalize_variance", True):
        y = y / (np.sqrt((y**2).mean(1, keepdims=True)) + p.get("eps", 1e-9))
    return [y.reshape(x.shape)]


def normalize(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x = bottoms[0].astype(np.float64)
    axes = tuple(range(1, x.ndim)) if p.get("across_spatial", True) else (1,)
    y = x / np.sqrt((x**2).sum(axes, keepdims=True) + p.get("eps", 1e-10))
    scale = blobs[0].reshape(-1)
    for c in range(x.shape[1]):
        y[:, c] *= scale[0 if p.get("channel_shared", True) else c]
    return [y]


def softmax(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, axis = bottoms[0].astype(np.float64), p.get("axis", 1)
    e = np.exp(x - x.max(axis, keepdims=True))
    return [e / e.sum(axis, keepdims=True)]


# -- element by element -------------------------------------------------------------------------------
def log_of(base: float) -> float:
    return 1.0 if base == -1 else math.log(base)


def power(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, exponent, scale, shift = bottoms[0].astype(np.float64), p.get("power", 1), p.get("scale", 1), p.get("shift", 0)
    if exponent * scale == 0:
        return [np.full(x.shape, 1.0 if exponent == 0 else float(shift) ** exponent)]
    return [(shift + scale * x) ** exponent]


def prelu(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,), y = bottoms, np.zeros(bottoms[0].shape)
    for at in np.ndindex(*x.shape):
        slope = blobs[0].reshape(-1)[0 if p.get("channel_shared") else at[1]]
        y[at] = max(x[at], 0) + slope * min(x[at], 0)
    return [y]


def eltwise(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    kind, coefficients = p.get("operation", "SUM"), p.get("coeff", [1] * len(bottoms))
    if kind == "SUM":
        return [sum((c * x.astype(np.float64) for c, x in zip(coefficients, bottoms, strict=True)), np.float64(0))]
    return [(np.prod if kind == "PROD" else np.max)(np.stack(bottoms), 0)]


def placed(x: Array, array: Array, axis: int) -> Array:
    """`array` against x from `axis` on; a scalar anywhere."""
    start = axis % x.ndim if array.ndim else 0
    return array.reshape(*array.shape, *[1] * (x.ndim - start - array.ndim))


def scale(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, factors = bottoms[0], [*bottoms[1:], *blobs]
    y = x * placed(x, factors[0], p.get("axis", 1))
    return [y + placed(x, factors[1], p.get("axis", 1)) if p.get("bias_term") else y]


def bias(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    return [bottoms[0] + placed(bottoms[0], [*bottoms[1:], *blobs][0], p.get("axis", 1))]


def each(function: Callable[[Array, Fields], Array]) -> Oracle:
    return lambda bottoms, p, blobs: [function(bottoms[0].astype(np.float64), p)]


# -- moving elements ----------------------------------------------------------------------------------
def reduction(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, axis, kind = bottoms[0].astype(np.float64), p.get("axis", 0), p.get("operation", "SUM")
    rows = x.reshape(*x.shape[: axis % x.ndim], -1)
    values = {"SUM": rows, "ASUM": abs(rows), "SUMSQ": rows**2, "MEAN": rows / rows.shape[-1]}[kind]
    return [np.asarray(values.sum(-1) * p.get("coeff", 1))]


def arg_max(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    (x,), k, values = bottoms, p.get("top_k", 1), p.get("out_max_val", False)
    rows = np.moveaxis(x, p["axis"], -1) if "axis" in p else x.reshape(len(x), -1)
    indices, best = np.zeros((*rows.shape[:-1], k)), np.zeros((*rows.shape[:-1], k))
    for at in np.ndindex(*rows.shape[:-1]):
        pairs = sorted(((v, i) for i, v in enumerate(rows[at])), reverse=True)[:k]
        best[at], indices[at] = [v for v, _ in pairs], [i for _, i in pairs]
    if "axis" in p:
        return [np.moveaxis(best if values else indices, -1, p["axis"])]
    y = np.stack([indices, best] if values else [indices], 1)
    return [y.reshape(*y.shape, *[1] * (x.ndim - 3))]


def crop(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, like = bottoms
    start = p.get("axis", 2) % x.ndim
    offsets = listed(p.get("offset", 0))
    offsets = offsets if len(offsets) == x.ndim - start else offsets * (x.ndim - start)
    cut = [slice(o, o + like.shape[start + i]) for i, o in enumerate(offsets)]
    return [x[(*[slice(None)] * start, *cut)]]


def upsample(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, s = bottoms[0], p.get("scale", 2)
    n, c, h, w = x.shape
    if len(bottoms) == 1:
        return [x.repeat(s, 2).repeat(s, 3)]
    height, width = p.get("upsample_h", h * s), p.get("upsample_w", w * s)
    y = np.zeros((n, c, height * width))
    for at in np.ndindex(*x.shape):
        y[(*at[:2], int(bottoms[1][at]))] = x[at]
    return [y.reshape(n, c, height, width)]


def interp(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    """Bilinear between aligned corners."""
    x = bottoms[0].astype(np.float64)
    begin, end = -p.get("pad_beg", 0), p.get("pad_end", 0)
    x = x[:, :, begin : x.shape[2] + end, begin : x.shape[3] + end]
    sizes = [(d - 1) // p.get("shrink_factor", 1) + 1 for d in x.shape[2:]]
    sizes = [d + (d - 1) * (p.get("zoom_factor", 1) - 1) for d in sizes]
    if len(bottoms) == 2:
        sizes = list(bottoms[1].shape[2:])
    if "height" in p and ("shrink_factor" in p) == ("zoom_factor" in p):
        sizes = [p["height"], p["width"]]
    for axis, size in zip((2, 3), sizes, strict=True):
        places = [i * (x.shape[axis] - 1) / (size - 1) if size > 1 else 0.0 for i in range(size)]
        low = [min(int(place), x.shape[axis] - 1) for place in places]
        high = [min(i + 1, x.shape[axis] - 1) for i in low]
        part = np.array(places) - np.array(low)
        part = part.reshape(-1, *[1] * (3 - axis))
        x = x.take(low, axis) * (1 - part) + x.take(high, axis) * part
    return [x]


def roi_pooling(bottoms: Sequence[Array], p: Fields, blobs: Sequence[Array]) -> list[Array]:
    x, rois = bottoms
    height, width = p["pooled_h"], p["pooled_w"]
    y = np.zeros((len(rois), x.shape[1], height, width))
    for r, roi in enumerate(rois.reshape(len(rois), 5)):
        image = int(roi[0])
        x1, y1, x2, y2 = (int(math.floor(v * p.get("spatial_scale", 1) + 0.5)) for v in roi[1:])
        cell_h, cell_w = max(y2 - y1 + 1, 1) / height, max(x2 - x1 + 1, 1) / width
        for i, j in np.ndindex(height, width):
            top, bottom = (min(max(int(v) + y1, 0), x.shape[2]) for v in (i * cell_h, math.ceil((i + 1) * cell_h)))
            left, right = (min(max(int(v) + x1, 0), x.shape[3]) for v in (j * cell_w, math.ceil((j + 1) * cell_w)))
            if top < bottom and left < right:
                y[r, :, i, j] = x[image, :, top:bottom, left:right].max((1, 2))
    return [y]
