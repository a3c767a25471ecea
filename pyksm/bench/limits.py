"""What this host can do at best, measured in this process: all else is compared with it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from pyksm._core import ffi, lib
from pyksm.errors import MachineError

#: Kinds of ``pyksm_limit``, in its order.
KINDS = ("copy", "copy_in_order", "read", "read_bytes", "chase", "first_touch")

MIN_BYTES: int = lib.PYKSM_LIMIT_MIN_BYTES
MAX_BYTES: int = lib.PYKSM_LIMIT_MAX_BYTES
_LEAST = 128 << 20


@dataclass(frozen=True)
class Limits:
    """Nanoseconds, medians of several passes. Buffers were touched before, and are cold."""

    page_bytes: int
    buffer_bytes: int
    memcpy_ns_per_page: float  #: from anywhere to anywhere
    memcpy_in_order_ns_per_page: float  #: one page after the other
    read_ns_per_byte: float  #: in words
    read_bytes_ns_per_byte: float  #: looking at every byte
    chase_ns_per_step: float  #: a cache line that says which is next
    first_touch_ns_per_4096_bytes: float  #: of host memory: what is never part of a timed work


def measure(page_bytes: int, buffer_bytes: int | None = None) -> Limits:
    """All of them, with buffers of that size (default: four times the last-level cache)."""
    size = buffer_bytes or default_bytes()
    return Limits(page_bytes, size, *(one(kind, page_bytes, size) for kind in KINDS))


def better(one: Limits, other: Limits) -> Limits:
    """The best of two measurements: what the host can do when nobody else is at work."""
    least = {
        field.name: min(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Limits)
    }
    return Limits(**least)


def apart(one: Limits, other: Limits) -> float:
    """By which factor two measurements differ where they differ most."""
    pairs = [
        sorted((getattr(one, field.name), getattr(other, field.name))) for field in fields(Limits)
    ]
    return float(max(high / low for low, high in pairs))


def one(kind: str, page_bytes: int, buffer_bytes: int) -> float:
    """One of them; MachineError (ENOMEM) where the host has no such memory."""
    ns = ffi.new("double *")
    ret = lib.pyksm_limit(KINDS.index(kind), page_bytes, buffer_bytes, ns)
    if ret < 0:
        raise MachineError(-ret, f"limit {kind}, {buffer_bytes:,} bytes")
    return float(ns[0])


def default_bytes() -> int:
    """Four times the last-level cache, a power of two."""
    wanted = max(_LEAST, 4 * last_level_cache())
    return min(MAX_BYTES, 1 << (wanted - 1).bit_length())


def last_level_cache() -> int:
    """Bytes; 0 where the host does not say."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            found = re.fullmatch(r"(\d+)([KM]?)", file.read_text().strip())
        except OSError:
            continue
        if found:
            sizes.append(int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]])
    return max(*sizes, _sysconf("SC_LEVEL3_CACHE_SIZE"))


def _sysconf(name: str) -> int:
    try:
        return max(0, os.sysconf(name))
    except (OSError, ValueError):
        return 0
