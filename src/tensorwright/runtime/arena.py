# SPDX-License-Identifier: Apache-2.0
"""Memory of a context: one anonymous mapping, given back to the system as soon as it is dropped."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import Array
from tensorwright.memory import anonymous


class Arena:
    """`size_bytes` of zeroed, page-aligned memory starting at `address`; pages take memory once they are touched."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._map = anonymous(size_bytes)
        self.bytes: Array = np.frombuffer(self._map, np.uint8)
        self.address: int = self.bytes.ctypes.data

    def close(self) -> None:
        """Give the memory back; nothing may use the address any more."""
        self.bytes = np.empty(0, np.uint8)
        self._map.close()
