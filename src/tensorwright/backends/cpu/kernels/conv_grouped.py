# SPDX-License-Identifier: Apache-2.0
"""Convolution in any form: up to three spatial dims, any groups and strides, weights known at build or not."""

from __future__ import annotations

from tensorwright.backends.base import Accept, Reject, Workload
from tensorwright.backends.cpu.epilogue import problem_of
from tensorwright.backends.cpu.kernels.conv_depthwise import depthwise_shape
from tensorwright.backends.cpu.kernels.spatial import grouped_shape
from tensorwright.backends.cpu.kernels.taps import TapsConfig, TapsFamily
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ops.conv import Convolution


class ConvGrouped(TapsFamily):
    """Register tiles within a group, for every convolution that no specialised family takes."""

    name, version, anchor = "conv_grouped", 1, Convolution

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        """Whether it can and should: trying what `conv_direct` and `conv_depthwise` take would only slow tuning."""
        p = problem_of(w)
        s = grouped_shape(p, Convolution)
        weights = p.inputs[1] if len(p.inputs) > 1 else None
        if not isinstance(s, str) and weights is not None and weights.constant:
            if s.groups == 1 and s.axes[0].size == s.axes[0].count == s.axes[0].kernel == 1:
                return Reject("groups=1 with constant weights: conv_direct is for it")
            if not isinstance(depthwise_shape(p), str):
                return Reject("depthwise on channels-last activations: conv_depthwise is for it")
        return super().accepts(w, t)


__all__ = ["ConvGrouped", "TapsConfig"]
