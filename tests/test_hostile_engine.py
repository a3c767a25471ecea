"""Engines under hostile use: programs that once broke one, each with what it was about."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyksm.core import Core, mkswap
from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_UNMERGEABLE,
    PROT_READ,
    Config,
    Engine,
)
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

    assert on_both(program, frames=512, profile="3.9") == [True, True]


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


def refused(call: Callable[[], object]) -> str:
    """The errno's name."""
    with pytest.raises(MachineError) as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


def test_numbers_too_large_for_the_host() -> None:
    """Refused before memory is taken for them, by both with one errno."""

    def program(engine: Engine) -> list[str]:
        pid = engine.spawn()
        addr = engine.mmap(pid, 1 << 34)
        return [
            refused(lambda: engine.touch(pid, addr, 1 << 34)),
            refused(lambda: engine.pagemap(pid, addr, 1 << 34)),
            refused(lambda: engine.read_pages(pid, addr, 1 << 34)),
            refused(lambda: engine.migrate(pid, addr, 1 << 34, 0)),
            refused(lambda: engine.pin(pid, addr, 1 << 34)),
            refused(lambda: engine.unpin(pid, addr, 1 << 34)),
            refused(lambda: engine.read(pid, addr, 1 << 46)),
            refused(lambda: engine.read(pid, addr, 1 << 48)),
            refused(lambda: engine.touch(pid, addr, 1 << 36)),
            refused(lambda: engine.touch(99, addr, 1 << 36)),
            refused(lambda: engine.swapon((1 << 32) + 1)),
            refused(lambda: engine.swapon(1 << 80)),
            refused(lambda: engine.swapon(-(1 << 80))),
            refused(lambda: engine.ksm_scan(1 << 31)),
            refused(lambda: engine.ksm_scan(-1)),
            refused(lambda: engine.ksm_do_scan(1 << 32)),
            refused(lambda: engine.ksm_do_scan(-1)),
        ]

    assert on_both(program, frames=64) == [
        *("ENOMEM", "ENOMEM", "ENOMEM", "ENOMEM", "ENOMEM", "EINVAL"),
        *("ENOMEM", "EINVAL", "EINVAL", "ESRCH"),
        *("ENOMEM", "ENOMEM", "EINVAL", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ]


@pytest.mark.parametrize("make", [Core, Oracle])
@pytest.mark.parametrize("frames", [(1 << 32) - 1, 1 << 40, 1 << 70])
def test_more_frames_than_there_are_numbers(make: Any, frames: int) -> None:
    assert refused(lambda: make(Config(frames=frames))) == "EINVAL"


def test_the_oracle_lists_no_frame_that_was_never_used() -> None:
    engine = Oracle(Config(nodes=3, frames=(1 << 32) - 2))
    assert engine.free_frames() == (1 << 32) - 2
    assert engine.census() == []


def test_terabytes_with_a_few_pages_in_them() -> None:
    """What walks a mapping goes by page tables, not by pages: each of these took minutes."""

    def program(engine: Engine) -> list[Any]:
        pid, npages = engine.spawn(), 1 << 33
        addr = engine.mmap(pid, npages)
        last = addr + (npages - 1) * PAGE
        area = engine.swapon(100)
        begin = time.monotonic()
        engine.madvise(pid, addr, npages, MADV_MERGEABLE)
        for at in (addr, addr + (1 << 40), last):
            engine.write_pages(pid, at, b"x" * PAGE)
        child = engine.fork(pid)
        scans = engine.ksm_scan(3)
        engine.mprotect(pid, addr, npages, PROT_READ)
        engine.swapout([(pid, addr, npages)])
        engine.swapoff(area)
        engine.inject("signal", (1 << 32) + 5)
        broken_off = refused(lambda: engine.madvise(pid, addr, npages, MADV_UNMERGEABLE))
        engine.madvise(pid, addr, npages, MADV_UNMERGEABLE)
        engine.ksm_write("run", 2)
        engine.mremap(child, addr, npages, addr + (npages << 12))
        engine.madvise(pid, addr, npages, MADV_DONTNEED)
        engine.munmap(pid, addr, npages)
        engine.exit(child)
        assert time.monotonic() - begin < 5
        return [scans, broken_off, engine.free_frames()]

    assert on_both(program, frames=64) == [3, "EINTR", 64]


def test_a_scan_that_gets_somewhere_is_not_given_up() -> None:
    """Two batches in a row that did nothing end it, not two that met with lack of memory."""

    def program(engine: Engine) -> int:
        pid = engine.spawn()
        addr = engine.mmap(pid, 6)
        engine.madvise(pid, addr, 6, MADV_MERGEABLE)
        engine.touch(pid, addr, 6, write=True)
        points: list[str] = []

        def hook(point: str) -> None:
            points.append(point)
            if len(points) % 2 == 0:
                engine.inject("kmem", 1)

        engine.set_hook(hook)
        return engine.ksm_scan(2)

    assert on_both(program, frames=64) == 2


def test_swap_files(tmp_path: Path) -> None:
    """What a path may be, and what its header promises; swapon(8) follows links."""
    good = tmp_path / "good"
    mkswap(good, 64)
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes(good.read_bytes()[: 10 * PAGE])
    names = ("none", "fifo", "empty", "cut", "", "x" * 300, "a\0b", "good/x")

    def program(engine: Engine) -> list[str]:
        errors = [refused(lambda n=name: engine.swapon(0, -1, f"{tmp_path}/{n}")) for name in names]
        for npages in (-1, 1, 65, 1 << 40):
            errors.append(refused(lambda n=npages: engine.swapon(n, -1, str(good))))
        area = engine.swapon(0, -1, str(tmp_path / "link"))
        errors.append(refused(lambda: engine.swapon(0, -1, str(good))))
        errors.append(refused(lambda: engine.swapon(65, -1, str(good))))
        assert engine.areas()[0].max == 64
        engine.swapoff(area)
        engine.swapoff(engine.swapon(10, -1, str(good)))
        return errors

    def short_pages(engine: Engine) -> list[str]:
        return [
            refused(lambda n=n: engine.swapon(0, -1, f"{tmp_path}/{n}")) for n in ("none", "good")
        ]

    assert on_both(short_pages, frames=128, page_size=64) == ["ENOENT", "EINVAL"]
    assert on_both(program, frames=128) == [
        *("ENOENT", "EINVAL", "EINVAL", "EINVAL", "EISDIR", "ENAMETOOLONG", "EINVAL", "ENOTDIR"),
        *("EINVAL", "EINVAL", "EINVAL", "EINVAL", "EBUSY", "EBUSY"),
    ]
