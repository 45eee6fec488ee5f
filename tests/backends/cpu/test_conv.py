# SPDX-License-Identifier: Apache-2.0
"""Direct and Winograd convolution against the reference: borders, strides, dilation, layouts, epilogues."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Reject, Workload
from tensorwright.backends.cpu.invoke import run_kernel
from tensorwright.backends.cpu.kernels.conv_direct import ConvDirect
from tensorwright.backends.cpu.kernels.conv_winograd import ConvWinograd
from tensorwright.backends.cpu.target import CpuTarget
from tests.backends.cpu.dense_check import BODIES, check, compiles_for_neon, conv_workload, image, plain

ISAS = ("avx512", "avx2")
DIRECT = {
    "planar_first_layer": conv_workload(plain(1, 3, 20, 23), 18, (7, 7), (2, 2), (3, 3, 3, 3), body="bias_relu"),
    "one_channel": conv_workload(plain(1, 1, 12, 12), 20, (5, 5)),
    "batch": conv_workload(image(3, 5, 6, 6), 17, (3, 3), pads=(1, 1, 1, 1), body="residual"),
    "stride_and_dilation": conv_workload(image(1, 6, 13, 15), 9, (3, 2), (2, 3), (2, 1, 1, 0), (2, 3)),
    "kernel_wider_than_input": conv_workload(image(1, 4, 2, 3), 8, (5, 5), pads=(2, 2, 2, 2)),
    "inside_concats": conv_workload(image(1, 16, 9, 8, pad=5), 33, (3, 3), pads=(1, 1, 1, 1), pad=7),
    "all_padding_rows": conv_workload(image(1, 3, 3, 3), 4, (2, 2), pads=(3, 3, 3, 3)),
    "pointwise_stride": conv_workload(image(1, 12, 7, 7), 40, (1, 1), (2, 2), body="scalars"),
    "single_pixel": conv_workload(image(1, 1, 1, 1), 1, (1, 1)),
}
WINOGRAD = {
    "even": conv_workload(image(1, 16, 8, 8), 32, (3, 3), pads=(1, 1, 1, 1), body="bias_relu"),
    "odd_and_ragged": conv_workload(image(1, 21, 13, 7), 50, (3, 3), pads=(1, 1, 1, 1), body="residual"),
    "no_padding_batch": conv_workload(image(2, 16, 9, 14), 16, (3, 3)),
    "uneven_padding": conv_workload(image(1, 40, 6, 5), 24, (3, 3), pads=(0, 1, 2, 1), body="scalars"),
    "tiny_inside_concats": conv_workload(image(1, 18, 2, 3, pad=3), 19, (3, 3), pads=(1, 1, 1, 1), pad=9),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", DIRECT)
def test_direct_convolution_matches(isa: str, name: str) -> None:
    assert check(ConvDirect(), DIRECT[name], isa, most=3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_convolution_matches(isa: str, name: str) -> None:
    assert check(ConvWinograd(), WINOGRAD[name], isa, most=4, tolerance=4e-5)


@pytest.mark.parametrize("body", BODIES)
def test_convolution_epilogues_match(body: str) -> None:
    w = conv_workload(image(1, 16, 6, 9), 20, (3, 3), pads=(1, 1, 1, 1), body=body)
    assert check(ConvDirect(), w, "avx512", most=1)
    assert check(ConvWinograd(), w, "avx2", most=1, tolerance=4e-5)


@pytest.mark.parametrize(
    "family,w", [(ConvDirect(), DIRECT["batch"]), (ConvWinograd(), WINOGRAD["even"])], ids=["direct", "winograd"]
)
def test_convolution_compiles_for_neon(family: ConvDirect | ConvWinograd, w: Workload) -> None:
    compiles_for_neon(family, w)


def test_winograd_rejects_other_kernels_and_strides() -> None:
    target = CpuTarget.parse("cpu:avx512")
    for w in (
        conv_workload(image(1, 16, 8, 8), 32, (5, 5)),
        conv_workload(image(1, 16, 8, 8), 32, (3, 3), (2, 2)),
        conv_workload(plain(1, 16, 8, 8), 32, (3, 3)),
        conv_workload(image(1, 3, 8, 8), 32, (3, 3)),
    ):
        assert isinstance(ConvWinograd().accepts(w, target), Reject)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 3e38])
def test_winograd_keeps_non_finite_values_where_they_belong(isa: str, value: float) -> None:
    """An infinity reaches the nine pixels around it and no others, as in direct convolution."""
    w = conv_workload(image(1, 16, 13, 10), 24, (3, 3), pads=(1, 1, 1, 1), body="bias_relu")
    target, family = CpuTarget.parse(f"cpu:{isa}"), ConvWinograd()
    rng = np.random.default_rng(11)
    inputs = [rng.standard_normal(o.shape).astype(np.float32) for o in w.inputs if o is not None]
    inputs[0][0, 3, 6, 5] = value
    with np.errstate(all="ignore"):
        (want,) = w.op.reference(*inputs)
    for config in family.candidates(w, target):
        (got,) = run_kernel(w, family.emit(w, config, target, "kernel", {1: inputs[1], 2: inputs[2]}), target, inputs)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=str(config))
