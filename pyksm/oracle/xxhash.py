"""lib/xxhash.c: the 64-bit xxHash (XXH64), for ksmd's checksum from 5.0 on (59e1a2f4bf83)."""

from __future__ import annotations

import struct

_M = 0xFFFFFFFFFFFFFFFF
_P1 = 11400714785074694791
_P2 = 14029467366897019727
_P3 = 1609587929392839161
_P4 = 9650029242287828579
_P5 = 2870177450012600261


def _rol(word: int, shift: int) -> int:
    return (word << shift | word >> (64 - shift)) & _M


def _round(lane: int, word: int) -> int:
    return _rol(lane + word * _P2 & _M, 31) * _P1 & _M


def _stripes(data: bytes, seed: int) -> int:
    """The 32-byte stripes of ``data``, four lanes side by side, merged into one word."""
    a, b = seed + _P1 + _P2 & _M, seed + _P2 & _M
    c, d = seed & _M, seed - _P1 & _M
    for one, two, three, four in struct.iter_unpack("<4Q", data[: len(data) & ~31]):
        a = _round(a, one)
        b = _round(b, two)
        c = _round(c, three)
        d = _round(d, four)
    h = _rol(a, 1) + _rol(b, 7) + _rol(c, 12) + _rol(d, 18) & _M
    for lane in (a, b, c, d):
        h = ((h ^ _round(0, lane)) * _P1 + _P4) & _M
    return h


def xxh64(data: bytes, seed: int = 0) -> int:
    """Hash of ``data``, 64 bits."""
    h = _stripes(data, seed) if len(data) >= 32 else seed + _P5 & _M
    h = h + len(data) & _M
    at = len(data) & ~31
    while len(data) - at >= 8:
        (word,) = struct.unpack_from("<Q", data, at)
        h = _rol(h ^ _round(0, word), 27) * _P1 + _P4 & _M
        at += 8
    if len(data) - at >= 4:
        (word,) = struct.unpack_from("<I", data, at)
        h = _rol(h ^ word * _P1 & _M, 23) * _P2 + _P3 & _M
        at += 4
    for byte in data[at:]:
        h = _rol(h ^ byte * _P5 & _M, 11) * _P1 & _M
    return _avalanche(h)


def _avalanche(h: int) -> int:
    h = (h ^ h >> 33) * _P2 & _M
    h = (h ^ h >> 29) * _P3 & _M
    return h ^ h >> 32
