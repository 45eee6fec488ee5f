# SPDX-License-Identifier: Apache-2.0
"""Windows that no network has are refused before anything loops over them."""

from __future__ import annotations

import pytest

from tensorwright.ir.dtype import DType
from tensorwright.ir.types import TensorType
from tensorwright.ops import AveragePool, Convolution, MaxPool

X = TensorType(DType.f32, (1, 1, 8, 8))
HUGE = 2**31 - 1


@pytest.mark.parametrize(
    "op",
    [
        MaxPool((HUGE, HUGE), (1, 1), (HUGE - 1, HUGE - 1, 0, 0), (1, 1)),
        AveragePool((4096, 4096), (1, 1), (2048, 2048, 2048, 2048), (1, 1)),
        MaxPool((2, 2), (HUGE, 1), (0, 0, 0, 0), (1, 1)),
    ],
)
def test_huge_window_is_refused(op: MaxPool | AveragePool) -> None:
    with pytest.raises(ValueError, match="their product is at most"):
        op.infer(X)


def test_window_of_a_large_image_is_fine() -> None:
    (y,) = MaxPool((1024, 1024), (1, 1), (0, 0, 0, 0), (1, 1)).infer(TensorType(DType.f32, (1, 1, 1024, 1024)))
    assert y.static_shape == (1, 1, 1, 1)
    w = TensorType(DType.f32, (1, 1, 3, 3))
    assert Convolution((1, 1), (1, 1, 1, 1), (1, 1)).infer(X, w)[0].static_shape == (1, 1, 8, 8)
