# SPDX-License-Identifier: Apache-2.0
"""A context that the machine has no memory for."""

from __future__ import annotations

import pytest

from tensorwright.errors import TargetError
from tensorwright.runtime.arena import Arena


@pytest.mark.parametrize("size", [1 << 60, 1 << 70])
def test_more_memory_than_any_machine_has_is_a_typed_error(size: int) -> None:
    with pytest.raises(TargetError) as caught:
        Arena(size)
    assert caught.value.code == "D106" and str(size) in str(caught.value)
