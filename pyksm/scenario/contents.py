"""What pages hold: the contract's pattern(V) and the CRC of a page."""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

from pyksm.scenario.kinds import PAGE_BYTES, Value

_GOLDEN = 0x9E3779B97F4A7C15
_INDEX = np.arange(PAGE_BYTES // 8, dtype="<u8")
ZEROS = bytes(PAGE_BYTES)


@lru_cache(maxsize=1024)
def pattern(value: int) -> bytes:
    """4096 bytes: zeros for 0, else word k is ``value * golden + k`` mod 2^64, little-endian."""
    if value == 0:
        return ZEROS
    start = np.uint64(value * _GOLDEN % 2**64)
    words: bytes = (_INDEX + start).tobytes()
    return words


def pages(value: Value, npages: int) -> bytes:
    """The contents that ``write P R[i:j] V`` or ``V+`` gives to ``npages`` pages."""
    if not value.step:
        return pattern(value.base) * npages
    return b"".join(pattern(value.base + k) for k in range(npages))


def crc(page: bytes | memoryview) -> str:
    """CRC-32 (zlib's), 8 hex digits."""
    return f"{zlib.crc32(page):08x}"
