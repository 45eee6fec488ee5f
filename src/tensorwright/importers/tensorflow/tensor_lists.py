# SPDX-License-Identifier: Apache-2.0
"""Lists of tensors: being written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensorwright.ir.graph import Value


@dataclass(frozen=True, slots=True)
class TensorList:
    """A list."""

    stacked: Value


LIST_OPS: Mapping[str, Callable[..., Any]] = {}
