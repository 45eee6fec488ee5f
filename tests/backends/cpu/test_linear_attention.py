# SPDX-License-Identifier: Apache-2.0
"""Linear attention against its reference: every update rule, sizes that fill no register, every order of memory."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.kernels.linear_attention import LinearAttentionColumns
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.activation import Relu
from tensorwright.ops.linear_attention import LinearAttention
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, ordered, rejected, verify, workload

SIZES = {  # batch, steps, heads, queries, elements of a key and of a value
    "tiny": (1, 1, 1, 1, 1, 1),
    "odd": (2, 5, 3, 2, 7, 19),
    "narrow": (2, 9, 2, 1, 16, 3),
    "wide": (1, 4, 2, 4, 64, 64),
    "no_steps": (2, 0, 2, 1, 4, 8),
}


def arrays(sizes: tuple[int, ...], rule: tuple[bool, bool, bool], loose: bool) -> list[Array | None]:
    """Inputs of a recurrence that does not grow; `rule`: with a past, decays, rates; `loose`: one for several."""
    b, t, h, g, k, v = sizes
    rng = np.random.default_rng(SEED)
    shapes = [(b, t, h, g, k), (b, t, h, k), (b, t, h, v), (b, h, k, v)]
    q, keys, values, state = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    decay = rng.random((b, t, h, 1 if loose else k)).astype(np.float32)
    rate = rng.random((b, t, 1 if loose else h, 1)).astype(np.float32)
    given = zip(rule, (state, decay, rate), strict=True)
    return [q, keys / np.float32(np.sqrt(k)), values, *(x if is_given else None for is_given, x in given)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize(
    "rule", [(p, d, r) for p in (False, True) for d in (False, True) for r in (False, True)], ids=str
)
@pytest.mark.parametrize("name", [*SIZES])
def test_linear_attention_equals_reference(name: str, rule: tuple[bool, bool, bool], loose: bool, isa: str) -> None:
    inputs = arrays(SIZES[name], rule, loose)
    operands = [None if x is None else dense(*x.shape) for x in inputs]
    verify(LinearAttentionColumns(), workload(LinearAttention(0.3), *operands), isa, inputs)


@pytest.mark.parametrize("isa", ISAS)
def test_linear_attention_in_other_orders_of_memory_equals_reference(isa: str) -> None:
    inputs = arrays(SIZES["odd"], (True, True, True), False)

    def turned(x: Array) -> Operand:
        return ordered(tuple(reversed(range(x.ndim))), *x.shape, gap=1)

    operands = [turned(x) for x in inputs if x is not None]
    b, t, h, g, k, v = SIZES["odd"]
    out = ordered((3, 1, 0, 2), b, h, t * g + k, v, gap=2)
    verify(LinearAttentionColumns(), workload(LinearAttention(0.3), *operands, out=out), isa, inputs)


def test_linear_attention_says_why_it_rejects_and_compiles_for_neon() -> None:
    assert "not a linear attention" in rejected(LinearAttentionColumns(), workload(Relu(), dense(3)))
    shapes = [x.shape for x in arrays(SIZES["odd"], (True, True, True), False) if x is not None]
    halves = [dense(*s, dtype=DType.f16) for s in shapes]
    assert "f16" in rejected(LinearAttentionColumns(), workload(LinearAttention(1.0), *halves))
    compiles_for_neon(LinearAttentionColumns(), workload(LinearAttention(1.0), *(dense(*s) for s in shapes)))
