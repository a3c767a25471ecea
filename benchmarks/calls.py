"""What one operation costs through Python, beside the same call of C by way of cffi alone.

    python benchmarks/calls.py          ns of each operation, of the bare call, and their difference

Best of many short runs, taken in turn: what else the machine does only adds. The operations are of
one page or less; `pagemap_array`, `read_pages_into` and the like are there for more at a time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from pyksm import Machine
from pyksm._core import ffi, lib
from pyksm.core import Core

PAGE = 4096
RUNS, CALLS_IN_ONE = 60, 300

Call = Callable[[], Any]


def calls() -> dict[str, tuple[Call, Call | None]]:
    """Each operation by name, and what it comes down to, on a machine of resident pages."""
    machine = Machine(frames=1024)
    region = machine.spawn().mmap(64)
    region.touch(write=True)
    core = machine.engine
    assert isinstance(core, Core)
    area, handle, pid, addr = core.swapon(64), core._handle, region.process.pid, region.addr
    some, whole, out, first = b"12345678", b"x" * PAGE, bytearray(PAGE), region[0]
    room, status = ffi.new("char[]", PAGE), ffi.new("int32_t[1]")
    record, number = ffi.new("struct pyksm_page[1]"), ffi.new("int64_t *")
    return {
        "touch": (
            lambda: core.touch(pid, addr, 1),
            lambda: lib.pyksm_touch(handle, pid, addr, 1, 0, status),
        ),
        "read": (
            lambda: core.read(pid, addr, 8),
            lambda: lib.pyksm_read(handle, pid, addr, room, 8),
        ),
        "write": (
            lambda: core.write(pid, addr, some),
            lambda: lib.pyksm_write(handle, pid, addr, some, 8),
        ),
        "read_pages": (
            lambda: core.read_pages(pid, addr, 1),
            lambda: lib.pyksm_read_pages(handle, pid, addr, 1, room, status),
        ),
        "read_pages_into": (
            lambda: core.read_pages_into(pid, addr, out),
            lambda: lib.pyksm_read_pages(handle, pid, addr, 1, room, status),
        ),
        "write_pages": (
            lambda: core.write_pages(pid, addr, whole),
            lambda: lib.pyksm_write_pages(handle, pid, addr, 1, whole, status),
        ),
        "pagemap": (
            lambda: core.pagemap(pid, addr, 1),
            lambda: lib.pyksm_pagemap(handle, pid, addr, 1, record),
        ),
        "madvise": (
            lambda: core.madvise(pid, addr, 1, 3),
            lambda: lib.pyksm_madvise(handle, pid, addr, 1, 3),
        ),
        "migrate": (
            lambda: core.migrate(pid, addr, 1, 0),
            lambda: lib.pyksm_migrate(handle, pid, addr, 1, 0, status),
        ),
        "ksm_read": (
            lambda: core.ksm_read("pages_shared"),
            lambda: lib.pyksm_ksm_read(handle, b"pages_shared", number),
        ),
        "ksm_write": (
            lambda: core.ksm_write("run", 0),
            lambda: lib.pyksm_ksm_write(handle, b"run", 0),
        ),
        "swap_count": (
            lambda: core.swap_count(area, 1),
            lambda: lib.pyksm_swap_count(handle, area, 1),
        ),
        "frame": (lambda: core.frame(1), lambda: lib.pyksm_frame(handle, 1)),
        "Region.touch": (first.touch, None),
        "Region.read": (lambda: first.read(8), None),
        "Region.write": (lambda: first.write(some), None),
        "region[5] = page": (lambda: region.__setitem__(5, whole), None),
    }


def measured(runs: int = RUNS) -> dict[str, tuple[float, float | None]]:
    """ns of each operation and of its bare call, less what an empty one takes."""
    table = calls()
    best: dict[tuple[str, int], float] = {}
    ways = [("", 0, lambda: None)]
    ways += [(name, k, way) for name, both in table.items() for k, way in enumerate(both) if way]
    gc.disable()
    try:
        for _ in range(runs):
            for name, k, way in ways:
                begin = time.perf_counter()
                for _ in range(CALLS_IN_ONE):
                    way()
                taken = (time.perf_counter() - begin) / CALLS_IN_ONE * 1e9
                best[name, k] = min(taken, best.get((name, k), taken))
    finally:
        gc.enable()
    empty = best["", 0]
    return {
        name: (best[name, 0] - empty, best[name, 1] - empty if both[1] else None)
        for name, both in table.items()
    }


def main() -> None:
    """Print it."""
    print(f"{'operation':18} {'ns':>6} {'bare call':>10} {'over it':>8}")
    for name, (took, bare) in measured().items():
        beside = "" if bare is None else f"{bare:10.0f} {took - bare:8.0f}"
        print(f"{name:18} {took:6.0f} {beside}")


if __name__ == "__main__":
    main()
