# SPDX-License-Identifier: Apache-2.0
"""Ops with bodies: being written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CONTROL_FLOW: Mapping[str, Callable[..., Any]] = {}
