# SPDX-License-Identifier: Apache-2.0
"""The CPU kernel families, in the order the tuner asks them."""

from __future__ import annotations

from typing import Any

from tensorwright.backends.base import KernelFamily
from tensorwright.backends.cpu.kernels.arg_extreme import ArgExtreme
from tensorwright.backends.cpu.kernels.attention import AttentionTiled
from tensorwright.backends.cpu.kernels.conv_depthwise import ConvDepthwise
from tensorwright.backends.cpu.kernels.conv_direct import ConvDirect
from tensorwright.backends.cpu.kernels.conv_grouped import ConvGrouped
from tensorwright.backends.cpu.kernels.conv_winograd import ConvWinograd
from tensorwright.backends.cpu.kernels.deconv import Deconv
from tensorwright.backends.cpu.kernels.gather import GatherRows
from tensorwright.backends.cpu.kernels.gemm import Gemm
from tensorwright.backends.cpu.kernels.lrn import LrnChannels
from tensorwright.backends.cpu.kernels.norm import NormRows
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.kernels.pool import PoolNd
from tensorwright.backends.cpu.kernels.reduce import ReduceNd
from tensorwright.backends.cpu.kernels.resize import ResizeTables
from tensorwright.backends.cpu.kernels.softmax import SoftmaxRows

FAMILIES: tuple[KernelFamily[Any, Any, Any], ...] = (
    Gemm(),
    ConvWinograd(),
    ConvDirect(),
    ConvDepthwise(),
    ConvGrouped(),
    Deconv(),
    AttentionTiled(),
    PointwiseNd(),
    SoftmaxRows(),
    NormRows(),
    ReduceNd(),
    ArgExtreme(),
    LrnChannels(),
    PoolNd(),
    GatherRows(),
    ResizeTables(),
)
