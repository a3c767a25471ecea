"""What is measured, as pairs of (prepare, run) that know an engine only by its interface.

Each run does the same work on either engine: their counters agree, see tests/test_direct.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.engine import MADV_MERGEABLE, Config, Engine

PAGE = 4096
#: Processes that share in the swapoff workload: what one reads another reads again.
SHARERS = 256


@dataclass(frozen=True)
class Workload:
    """``prepare(engine, npages)`` gives the state that ``run(engine, state)`` works on, once."""

    name: str
    prepare: Callable[[Engine, int], Any]
    run: Callable[[Engine, Any], None]


def config(npages: int) -> Config:
    """The mail's kernel, whose swapoff goes entry by entry."""
    return Config(frames=npages * 6 + 1024, profile="3.9")


def _region(engine: Engine, numbers: Sequence[int]) -> tuple[int, int]:
    """A process with a written page for each number, which says what is in it."""
    pid = engine.spawn()
    addr = engine.mmap(pid, len(numbers))
    for start in range(0, len(numbers), 256):
        words = (number.to_bytes(8, "little") for number in numbers[start : start + 256])
        engine.write_pages(pid, addr + start * PAGE, b"".join(w * (PAGE // 8) for w in words))
    return pid, addr


# page-table walk: observe every pte of a mapping


def _walk_prepare(engine: Engine, npages: int) -> Any:
    return (*_region(engine, range(npages)), npages)


def _walk(engine: Engine, state: Any) -> None:
    pid, addr, npages = state
    engine.touch(pid, addr, npages)


# interval lookup: unmap pages whose anon_vma has many chains


def _interval_prepare(engine: Engine, npages: int) -> Any:
    """A parent, split into one vma a page, and eight children: rmap must find nine of each."""
    pid, addr = _region(engine, range(npages))
    for k in range(0, npages, 2):
        engine.mprotect(pid, addr + k * PAGE, 1, 1)
    for _ in range(8):
        engine.fork(pid)
    engine.swapon(npages + 64)
    return None


def _interval(engine: Engine, state: Any) -> None:
    engine.swapout()


# swap_map scan: find a free slot behind many that are taken


def _slots_prepare(engine: Engine, npages: int) -> Any:
    engine.swapon(npages + 64)
    _region(engine, range(npages))
    engine.swapout()
    pid, addr = _region(engine, range(32))
    return pid, addr


def _slots(engine: Engine, state: Any) -> None:
    pid, addr = state
    engine.swapout([(pid, addr, 32)])


# page copy: break copy on write for a whole child


def _copy_prepare(engine: Engine, npages: int) -> Any:
    pid, addr = _region(engine, range(npages))
    return engine.fork(pid), addr, npages


def _copy(engine: Engine, state: Any) -> None:
    child, addr, npages = state
    engine.touch(child, addr, npages, True)


# KSM scan: two full scans over two processes; one page in four has its like in the other


def _scan_prepare(engine: Engine, npages: int) -> Any:
    half = npages // 2
    for first in (0, half - half // 4):
        pid, addr = _region(engine, range(first, first + half))
        engine.madvise(pid, addr, half, MADV_MERGEABLE)
    return None


def _scan(engine: Engine, state: Any) -> None:
    engine.ksm_scan(2)


# swapoff: of many unrelated processes that share their pages through KSM, as guests of one kind do,
# so that every slot is read again for each of them; and of one that shares nothing, where the time
# goes into moving 4 KiB a page


def _swapoff_prepare(engine: Engine, npages: int) -> Any:
    each = npages // SHARERS
    for _ in range(SHARERS):
        pid, addr = _region(engine, range(each))
        engine.madvise(pid, addr, each, MADV_MERGEABLE)
    engine.ksm_scan(2)
    return _swapped_out(engine, npages)


def _swapoff_alone_prepare(engine: Engine, npages: int) -> Any:
    _region(engine, range(npages))
    return _swapped_out(engine, npages)


def _swapped_out(engine: Engine, npages: int) -> int:
    area = engine.swapon(npages + 64)
    engine.swapout()
    return area


def _swapoff(engine: Engine, area: Any) -> None:
    engine.swapoff(area)


WORKLOADS = (
    Workload("page-table walk", _walk_prepare, _walk),
    Workload("interval lookup", _interval_prepare, _interval),
    Workload("swap_map scan", _slots_prepare, _slots),
    Workload("page copy", _copy_prepare, _copy),
    Workload("KSM scan", _scan_prepare, _scan),
    Workload("swapoff", _swapoff_prepare, _swapoff),
    Workload("swapoff alone", _swapoff_alone_prepare, _swapoff),
)
