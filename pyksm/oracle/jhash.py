"""include/linux/jhash.h: Bob Jenkins' lookup3 hash over 32-bit words, for ksmd's checksum."""

from __future__ import annotations

import struct

_M = 0xFFFFFFFF
_INIT = 0xDEADBEEF


def _rol(word: int, shift: int) -> int:
    return (word << shift | word >> (32 - shift)) & _M


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = (a - c & _M) ^ _rol(c, 4)
    c = c + b & _M
    b = (b - a & _M) ^ _rol(a, 6)
    a = a + c & _M
    c = (c - b & _M) ^ _rol(b, 8)
    b = b + a & _M
    a = (a - c & _M) ^ _rol(c, 16)
    c = c + b & _M
    b = (b - a & _M) ^ _rol(a, 19)
    a = a + c & _M
    c = (c - b & _M) ^ _rol(b, 4)
    b = b + a & _M
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rol(b, 14) & _M
    a = (a ^ c) - _rol(c, 11) & _M
    b = (b ^ a) - _rol(a, 25) & _M
    c = (c ^ b) - _rol(b, 16) & _M
    a = (a ^ c) - _rol(c, 4) & _M
    b = (b ^ a) - _rol(a, 14) & _M
    return (c ^ b) - _rol(b, 24) & _M


def jhash2(data: bytes, initval: int) -> int:
    """Hash of the little-endian 32-bit words of ``data``."""
    words = struct.unpack(f"<{len(data) // 4}I", data)
    length = len(words)
    a = b = c = (_INIT + (length << 2) + initval) & _M
    at = 0
    while length - at > 3:
        a, b, c = _mix(a + words[at] & _M, b + words[at + 1] & _M, c + words[at + 2] & _M)
        at += 3
    rest = length - at
    if rest == 0:
        return c
    if rest >= 3:
        c = c + words[at + 2] & _M
    if rest >= 2:
        b = b + words[at + 1] & _M
    return _final(a + words[at] & _M, b, c)
