"""Engines under hostile use: programs that once broke one, each with what it was about."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyksm.core import Core
from pyksm.engine import MADV_MERGEABLE, Config, Engine
from pyksm.errors import MachineError
from pyksm.oracle import Oracle

PAGE = 4096


def on_both(program: Callable[[Engine], Any], **config: Any) -> Any:
    """What the program returns, the same on both engines; work, events and census agree too."""
    answers = []
    for make in (Core, Oracle):
        engine: Engine = make(Config(**config))
        returned = program(engine)
        answers.append((returned, dict(engine.counters()), engine.events(), engine.census()))
        engine.close()
    assert answers[0] == answers[1]
    assert answers[0][3] == []
    return answers[0][0]


@pytest.mark.parametrize(
    ("contents", "looked_at"),
    [
        ((6, 8, 7, 2, 1, 11, 9, 3, 4, 10, 0, 5), 4),
        ((5, 3, 4, 11, 1, 8, 7, 9, 2, 6, 0, 10), 10),
        (tuple(range(40)), 39),
    ],
)
def test_unmerge_broken_off_in_mid_scan(contents: tuple[int, ...], looked_at: int) -> None:
    """The next scan takes items out of the unstable tree that it dropped (3.10 does as well)."""

    def program(engine: Engine) -> dict[str, int]:
        pid, npages = engine.spawn(), len(contents)
        addr = engine.mmap(pid, npages)
        engine.madvise(pid, addr, npages, MADV_MERGEABLE)
        for k, content in enumerate(contents):
            engine.write_pages(pid, addr + k * PAGE, bytes([content + 1]) * PAGE)
        engine.ksm_scan(1)
        engine.ksm_do_scan(looked_at)
        engine.inject("signal", 1)
        with pytest.raises(MachineError) as caught:
            engine.ksm_write("run", 2)
        assert caught.value.errno == errno.EINTR
        engine.ksm_do_scan(3 * npages)
        return engine.ksm_counts()

    assert on_both(program, frames=512)["pages_unshared"] == len(contents)


def test_swapoff_maps_an_unread_ksm_page_while_run_is_2() -> None:
    """ksm_might_need_to_copy() hands such a page back; the census knows that this is no fault."""

    def program(engine: Engine) -> list[bool]:
        pids = [engine.spawn(), engine.spawn()]
        (addr,) = {engine.mmap(pid, 1) for pid in pids}
        engine.write_pages(pids[1], addr, b"x" * PAGE)
        area = engine.swapon(20)
        engine.swapout()
        engine.inject("read", 1)
        engine.swapoff(area)
        engine.write_pages(pids[0], addr, bytes(PAGE))
        for pid in pids:
            engine.madvise(pid, addr, 1, MADV_MERGEABLE)
        engine.ksm_scan(3)
        engine.pin(pids[1], addr, 1)  # so that it stays in the swap cache
        area = engine.swapon(20)
        engine.swapout()
        engine.ksm_write("run", 2)
        engine.swapoff(area)
        return [engine.pagemap(pid, addr, 1)[0].ksm for pid in pids]

    assert on_both(program, frames=512) == [True, True]


def test_pins_are_found_in_time() -> None:
    """Unpinning looked through all pins for each page: a gigabyte took half a minute."""

    def program(engine: Engine) -> list[int]:
        pid, npages = engine.spawn(), 200_000
        addr = engine.mmap(pid, npages)
        engine.pin(pid, addr, npages)
        engine.pin(pid, addr, 3)
        free = [engine.free_frames()]
        begin = time.monotonic()
        engine.unpin(pid, addr, npages)
        assert time.monotonic() - begin < 2  # 0.01 s; it was 2e10 comparisons
        for first, count in ((0, 4), (3, 1), (0, npages), (0, 1 << 34)):
            with pytest.raises(MachineError) as caught:
                engine.unpin(pid, addr + first * PAGE, count)
            assert caught.value.errno == errno.EINVAL
        engine.unpin(pid, addr, 3)
        return [*free, engine.free_frames()]

    assert on_both(program, frames=512) == [512, 512]
