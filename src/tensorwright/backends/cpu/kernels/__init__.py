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
from tensorwright.backends.cpu.kernels.cum_sum import CumSumRows
from tensorwright.backends.cpu.kernels.decided import NonZeroScan, ShapeWriter, SizeReader
from tensorwright.backends.cpu.kernels.deconv import Deconv
from tensorwright.backends.cpu.kernels.dense_generic import DenseGeneric
from tensorwright.backends.cpu.kernels.determinant import DeterminantLu
from tensorwright.backends.cpu.kernels.gather import GatherRows
from tensorwright.backends.cpu.kernels.gemm import Gemm
from tensorwright.backends.cpu.kernels.grid_sample import GridSampleNd
from tensorwright.backends.cpu.kernels.index_elements import IndexElements
from tensorwright.backends.cpu.kernels.linear_attention import LinearAttentionColumns
from tensorwright.backends.cpu.kernels.lrn import LrnChannels
from tensorwright.backends.cpu.kernels.max_roi_pool import MaxRoiPoolCells
from tensorwright.backends.cpu.kernels.nms import NmsGreedy
from tensorwright.backends.cpu.kernels.norm import NormRows
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.kernels.pool import PoolNd
from tensorwright.backends.cpu.kernels.pool_indices import PoolIndices
from tensorwright.backends.cpu.kernels.random import RandomBlocks, RandomKeys
from tensorwright.backends.cpu.kernels.recurrent import RecurrentFused
from tensorwright.backends.cpu.kernels.reduce import ReduceNd
from tensorwright.backends.cpu.kernels.resize import ResizeTables
from tensorwright.backends.cpu.kernels.roi_align import RoiAlignCells
from tensorwright.backends.cpu.kernels.softmax import SoftmaxRows
from tensorwright.backends.cpu.kernels.top_k import TopKRows
from tensorwright.backends.cpu.kernels.widened import Widened

_FAMILIES: tuple[KernelFamily[Any, Any, Any], ...] = (
    Gemm(),
    ConvWinograd(),
    ConvDirect(),
    ConvDepthwise(),
    ConvGrouped(),
    Deconv(),
    DenseGeneric(),
    AttentionTiled(),
    PointwiseNd(),
    SoftmaxRows(),
    NormRows(),
    ReduceNd(),
    ArgExtreme(),
    LrnChannels(),
    PoolNd(),
    PoolIndices(),
    GatherRows(),
    IndexElements(),
    TopKRows(),
    CumSumRows(),
    GridSampleNd(),
    RoiAlignCells(),
    MaxRoiPoolCells(),
    DeterminantLu(),
    LinearAttentionColumns(),
    NonZeroScan(),
    SizeReader(),
    ShapeWriter(),
    NmsGreedy(),
    RandomKeys(),
    RandomBlocks(),
    ResizeTables(),
    RecurrentFused(),
)

FAMILIES: tuple[KernelFamily[Any, Any, Any], ...] = (*_FAMILIES, Widened(_FAMILIES))
