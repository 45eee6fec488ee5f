# SPDX-License-Identifier: Apache-2.0
"""CRC-32C (Castagnoli), which TensorFlow keeps of blocks and tensors (RFC 3720, appendix B.4).

A CRC is linear: parts of the data are taken side by side, each by its own lane of NumPy arrays, and joined.
"""

from __future__ import annotations

import functools

import numpy as np

from tensorwright.ir.op import Array

_POLYNOMIAL = 0x82F63B78  # its bits in reverse
_LANE_BITS = 12  # at most 4096 lanes
_SHORTEST_BITS = 6  # a lane has at least 64 bytes
_LEAST = 1 << 10  # fewer bytes are taken one by one
_MASK_DELTA, _ALL = 0xA282EAD8, 0xFFFFFFFF


def crc32c(data: Array) -> int:
    """The checksum of u8[size]."""
    state = _ALL
    while data.size >= _LEAST:
        size_bits = data.size.bit_length() - 1  # as much as is a power of 2
        lane_bits = max(_SHORTEST_BITS, size_bits - _LANE_BITS)
        states = _of_lanes(data[: 1 << size_bits].reshape(-1, 1 << lane_bits), state)
        state, data = _joined(states, lane_bits), data[1 << size_bits :]
    table = _bytes_table()
    for byte in data.tobytes():
        state = table[(state ^ byte) & 255] ^ state >> 8
    return state ^ _ALL


def masked(crc: int) -> int:
    """The form in which TensorFlow stores a checksum."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ALL


@functools.cache
def _bytes_table() -> list[int]:
    """What 8 steps make of each byte."""
    table = []
    for state in range(256):
        for _ in range(8):
            state = state >> 1 ^ (_POLYNOMIAL if state & 1 else 0)
        table.append(state)
    return table


@functools.cache
def _word_tables() -> tuple[Array, Array]:
    """What 32 steps make of the lower and of the upper half of a word, u32[65536] each."""
    table = np.array(_bytes_table(), np.uint32)
    tables = []
    for shift in (0, 16):
        state = np.arange(1 << 16, dtype=np.uint32) << np.uint32(shift)
        for _ in range(4):
            state = table[state & np.uint32(255)] ^ state >> np.uint32(8)
        tables.append(state)
    return tables[0], tables[1]


def _of_lanes(data: Array, start: int) -> Array:
    """The states after each row of u8[lanes, size], the first of which begins with `start`."""
    low, high = _word_tables()
    state = np.zeros(len(data), np.uint32)
    state[0] = start
    step = 256
    for at in range(0, data.shape[1], step):
        words = np.ascontiguousarray(data[:, at : at + step]).view("<u4").astype(np.uint32, copy=False)
        for word in np.ascontiguousarray(words.T):
            state ^= word
            state = low[state & np.uint32(0xFFFF)] ^ high[state >> np.uint32(16)]
    return state


def _joined(states: Array, lane_bits: int) -> int:
    """The state after all rows of 2**lane_bits bytes: the left one of two goes on through as many zeros as the right
    one has bytes."""
    while len(states) > 1:
        states = _mapped(_through_zeros(lane_bits), states[::2]) ^ states[1::2]
        lane_bits += 1
    return int(states[0])


@functools.cache
def _through_zeros(bits: int) -> Array:
    """What 2**bits zero bytes make of each byte of the state, u32[4, 256]: a linear map, which is applied to itself."""
    alone = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    if bits:
        half = _through_zeros(bits - 1)
        return _mapped(half, _mapped(half, alone))
    return np.asarray(np.array(_bytes_table(), np.uint32)[alone & np.uint32(255)] ^ alone >> np.uint32(8))


def _mapped(table: Array, states: Array) -> Array:
    """The linear map of all states."""
    a, b, c, d = (table[i][states >> np.uint32(8 * i) & np.uint32(255)] for i in range(4))
    return np.asarray(a ^ b ^ c ^ d)
