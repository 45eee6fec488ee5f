# SPDX-License-Identifier: Apache-2.0
"""Pre-processing shared by training and demo: scikit-learn's 8x8 digits become LeNet's 28x28 inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIDE, BOX = 28, 20  # as in MNIST: the digit fills a 20x20 box in the middle of a 28x28 field
PIXEL_MAX = 16  # the data set counts ink per 4x4 cell: 0..16


def to_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Digits u8[count, 8, 8] with values 0..16 as network input f32[count, 1, 28, 28] with values 0..1."""
    spread = _bilinear(BOX, images.shape[1])
    box = spread @ (images.astype(np.float32) / PIXEL_MAX) @ spread.T
    margin = (SIDE - BOX) // 2
    return np.pad(box, ((0, 0), (margin, margin), (margin, margin)))[:, None].astype(np.float32)


def _bilinear(size: int, from_size: int) -> npt.NDArray[np.float32]:
    """The matrix [size, from_size] that resizes one axis linearly, sampling at pixel centres."""
    centre = (np.arange(size) + 0.5) * from_size / size - 0.5
    distance = np.abs(np.clip(centre, 0, from_size - 1)[:, None] - np.arange(from_size))
    return np.maximum(0, 1 - distance).astype(np.float32)
