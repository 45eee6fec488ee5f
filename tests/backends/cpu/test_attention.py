# SPDX-License-Identifier: Apache-2.0
"""Tiled attention against the reference: ragged sizes, strides, masks, online softmax, NaN and infinities."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Operand, Reject, Workload
from tensorwright.backends.cpu.kernels.attention import AttentionConfig, AttentionTiled
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.op import Array
from tensorwright.ops.attention import Attention
from tests.backends.cpu.dense_check import F32, compiles_for_neon, conv_workload, image, plain, with_body
from tests.backends.cpu.kernel_check import check_kernel, random_inputs

ISAS = ("avx512", "avx2")


def heads(batch: int, count: int, rows: int, depth: int, *, parts: int = 1) -> Operand:
    """[batch, heads, rows, depth] seen in a [batch, rows, parts*heads*depth] buffer, as after a split projection."""
    line = parts * count * depth
    return Operand(F32, (batch, count, rows, depth), (rows * line, depth, line, 1))


def attention(
    q: Operand, k: Operand, v: Operand, mask: Operand | None = None, out: Operand | None = None, body: str = "none"
) -> Workload:
    shape = (*np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2]), q.shape[-2], v.shape[-1])
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    return with_body(Attention(q.shape[-1] ** -0.5), inputs, out or plain(*shape), body, len(shape) - 1)


CASES = {
    "minilm": attention(
        heads(1, 2, 64, 32, parts=3),
        heads(1, 2, 64, 32, parts=3),
        heads(1, 2, 64, 32, parts=3),
        plain(1, 1, 1, 64),
        heads(1, 2, 64, 32),
    ),
    "vit": attention(heads(1, 2, 197, 64), heads(1, 2, 197, 64), heads(1, 2, 197, 64), out=heads(1, 2, 197, 64)),
    "ragged": attention(plain(2, 3, 29, 19), plain(2, 3, 45, 19), plain(2, 3, 45, 37), plain(3, 29, 45)),
    "one_key": attention(plain(3, 4, 5), plain(3, 1, 5), plain(3, 1, 2)),
    "one_query": attention(plain(2, 1, 40), plain(2, 33, 40), plain(2, 33, 16), plain(2, 1, 33)),
    "no_batch": attention(plain(7, 1), plain(9, 1), plain(9, 1)),
    "shared_keys": attention(plain(2, 4, 6, 8), plain(2, 1, 20, 8), plain(1, 20, 24), plain(4, 1, 20)),
    "transposed_keys": attention(plain(2, 6, 12), Operand(F32, (2, 21, 12), (252, 1, 21)), plain(2, 21, 8)),
    "all_strides_odd": attention(
        Operand(F32, (5, 6), (1, 5)),
        Operand(F32, (18, 6), (13, 2)),
        Operand(F32, (18, 9), (2, 36)),
        Operand(F32, (5, 18), (1, 7)),
        Operand(F32, (5, 9), (1, 6)),
    ),
    "long_online": attention(plain(1, 5, 7), plain(1, 1500, 7), plain(1, 1500, 20), plain(1, 1500)),
    "fused": attention(plain(2, 15, 8), plain(2, 17, 8), plain(2, 17, 33), body="residual"),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_attention_matches(isa: str, name: str) -> None:
    check_kernel(AttentionTiled(), CASES[name], isa, most=2)


class _Blocked(AttentionTiled):
    """Only configurations whose softmax walks small key blocks, so that short inputs take the online path."""

    def candidates(self, w: Workload, t: CpuTarget) -> list[AttentionConfig]:
        return [AttentionConfig(4, 1, 16), AttentionConfig(5, 2, 33)]


def _infinities(w: Workload) -> list[Array | None]:
    """Masks with -inf rows, -inf at the front and +inf, and a NaN in a query."""
    inputs = random_inputs(w)
    q, mask = inputs[0], inputs[3]
    assert q is not None and mask is not None
    mask[0] = -np.inf
    mask[1, :70] = -np.inf
    mask[2, 70:] = -np.inf
    mask[3, 40] = np.inf
    q[:, 5, 0] = np.nan
    return inputs


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", [AttentionTiled(), _Blocked()], ids=["whole", "online"])
def test_attention_infinite_scores_flow_as_the_reference(isa: str, family: AttentionTiled) -> None:
    w = attention(plain(2, 9, 8), plain(2, 99, 8), plain(2, 99, 20), plain(9, 99))
    check_kernel(family, w, isa, _infinities(w))


def test_attention_large_scores_do_not_overflow() -> None:
    w = attention(plain(1, 6, 4), plain(1, 50, 4), plain(1, 50, 4))
    inputs = [None if x is None else x * 100 for x in random_inputs(w)]
    check_kernel(
        AttentionTiled(), w, "avx512", inputs, tolerance=2e-4
    )  # scores near 1e4 have errors of 1e-3 themselves
    check_kernel(_Blocked(), w, "avx512", inputs, tolerance=2e-4)


@pytest.mark.parametrize("name", ["all_strides_odd", "long_online"])
def test_attention_compiles_for_neon(name: str) -> None:
    compiles_for_neon(AttentionTiled(), CASES[name])


def test_attention_rejects_what_it_cannot_run() -> None:
    target = CpuTarget.parse("cpu:avx2")
    no_keys = attention(plain(1, 3, 4), plain(1, 0, 4), plain(1, 0, 4))
    for reason, w in {"no keys": no_keys, "not attention": conv_workload(image(1, 4, 5, 5), 8, (3, 3))}.items():
        answer = AttentionTiled().accepts(w, target)
        assert isinstance(answer, Reject) and reason in answer.reason, answer
