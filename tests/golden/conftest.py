# SPDX-License-Identifier: Apache-2.0
"""`python -m pytest tests/golden --update-golden` writes the expected graphs anew; review them as a diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the expected graphs instead of comparing")
