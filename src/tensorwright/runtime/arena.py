# SPDX-License-Identifier: Apache-2.0
"""Memory of a context: one anonymous mapping, given back to the system as soon as it is dropped."""

from __future__ import annotations

import numpy as np

from tensorwright.errors import TargetError
from tensorwright.ir.op import Array
from tensorwright.memory import anonymous


class Arena:
    """`size_bytes` of zeroed, page-aligned memory starting at `address`; pages take memory once they are touched.

    Raises TargetError D106 where the machine has not so much.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        try:
            self._map = anonymous(size_bytes)
        except (OSError, OverflowError) as error:
            raise TargetError(
                f"this machine has not the {size_bytes} bytes that a context of the engine needs",
                why=str(error),
                do="run smaller shapes, or build with a smaller maximum",
                code="D106",
            ) from error
        self.bytes: Array = np.frombuffer(self._map, np.uint8)
        self.address: int = self.bytes.ctypes.data

    def close(self) -> None:
        """Give the memory back; nothing may use the address any more."""
        self.bytes = np.empty(0, np.uint8)
        self._map.close()
