"""Faults, swap and swapoff beyond 3.9: what no recording shows, by the kernels' own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EINTR, EINVAL, EIO, ENOMEM, EPERM, ETIMEDOUT
from typing import Any

import pytest

from pyksm.engine import (
    MADV_DONTNEED,
    MADV_PAGEOUT,
    MADV_WILLNEED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    Config,
    Engine,
    PageInfo,
)
from pyksm.errors import MachineError
from pyksm.scenario import engines

PAGE = 4096
EHWPOISON = 133
SIZE = 64
BASE = 1 << 32

RW, ACCESSED, DIRTY, SOFT_DIRTY = 1 << 1, 1 << 5, 1 << 6, 1 << 11
SWP_SOFT_DIRTY, SWP_EXCLUSIVE = 1 << 1, 1 << 3

Make = Callable[..., Engine]


@pytest.fixture
def make(engine: str) -> Iterator[Make]:
    """Makes small machines; at the end each must be clean."""
    made: list[Engine] = []

    def build(profile: str, **more: Any) -> Engine:
        made.append(
            engines.build(engine, Config(profile=profile, page_size=SIZE, frames=64, **more))
        )
        return made[-1]

    yield build
    for each in made:
        assert each.census() == []
        each.close()


def fill(engine: Engine, pid: int, first: int, *values: int) -> None:
    data = b"".join(bytes([value]) * SIZE for value in values)
    assert engine.write_pages(pid, BASE + first * PAGE, data) == [0] * len(values)


def process(engine: Engine, *values: int) -> int:
    pid = engine.spawn()
    engine.mmap(pid, len(values), BASE)
    fill(engine, pid, 0, *values)
    return pid


def page(engine: Engine, pid: int, index: int = 0) -> PageInfo:
    return engine.pagemap(pid, BASE + index * PAGE, 1)[0]


def states(engine: Engine, pid: int, npages: int) -> str:
    return "".join(each.state for each in engine.pagemap(pid, BASE, npages))


def fails(code: int) -> Any:
    return pytest.raises(MachineError, match=rf"^\[Errno {code}\]")


# ---- who may keep a page that he writes to ----


@pytest.mark.parametrize(
    ("profile", "on", "copies"),
    [
        *((profile, (), 0) for profile in ("3.9", "4.19", "6.1", "6.12", "6.18")),
        ("4.19", ("reuse-by-refcount",), 1),
    ],
)
def test_only_by_references_a_pin_makes_a_copy(
    make: Make, profile: str, on: tuple[str, ...], copies: int
) -> None:
    """From 5.9 to 5.18: whoever holds a reference might see what is written."""
    m = make(profile, on=frozenset(on))
    pid = process(m, 1)
    m.pin(pid, BASE, 1)
    m.mprotect(pid, BASE, 1, PROT_READ)
    m.mprotect(pid, BASE, 1, PROT_READ | PROT_WRITE)
    fill(m, pid, 0, 2)
    assert m.counters()["copy_page"] == copies
    m.unpin(pid, BASE, 1)


@pytest.mark.parametrize(("profile", "copies"), [("4.19", 0), ("6.1", 1)])
def test_after_a_fork_the_last_one_copies_a_pinned_page(
    make: Make, profile: str, copies: int
) -> None:
    """The child has gone: one mapping is left, but two references."""
    m = make(profile)
    pid = process(m, 1)
    m.pin(pid, BASE, 1)
    m.exit(m.fork(pid))
    fill(m, pid, 0, 2)
    assert m.counters()["copy_page"] == copies
    m.unpin(pid, BASE, 1)


@pytest.mark.parametrize(
    ("profile", "writable", "cached"),
    [("3.9", False, True), ("4.19", False, True), ("6.1", False, True), ("6.12", True, True)],
)
def test_what_a_read_brings_back(make: Make, profile: str, writable: bool, cached: bool) -> None:
    m = make(profile)
    pid = process(m, 1)
    m.swapon(16)
    m.swapout()
    assert m.read(pid, BASE, 1) == b"\x01"
    there = page(m, pid)
    assert bool(there.pte & RW) == writable
    assert not there.pte & DIRTY
    assert there.swapcache == cached


@pytest.mark.parametrize(("profile", "cached"), [("4.19", False), ("6.1", True), ("6.18", True)])
def test_what_a_later_write_leaves(make: Make, profile: str, cached: bool) -> None:
    """An exclusive page is kept as it is, its slot too; before, the slot was given up for it."""
    m = make(profile)
    pid = process(m, 1)
    m.swapon(16)
    m.swapout()
    m.read(pid, BASE, 1)
    fill(m, pid, 0, 2)
    assert page(m, pid).swapcache == cached
    assert m.counters()["copy_page"] == 0


@pytest.mark.parametrize(("profile", "marked"), [("3.9", False), ("4.19", False), ("6.1", True)])
def test_the_swap_pte_knows_who_is_alone(make: Make, profile: str, marked: bool) -> None:
    m = make(profile)
    pid = process(m, 1)
    m.swapon(16)
    m.swapout()
    bit = SWP_EXCLUSIVE if profile != "3.9" else 1 << 6
    assert bool(page(m, pid).pte & bit) == marked
    child = m.fork(pid)
    assert not page(m, pid).pte & bit
    assert not page(m, child).pte & bit


def test_protection_gives_writable_ptes(make: Make) -> None:
    """6.0: where a fault would only make it so; a clean one since 6.2."""
    for profile, dirty, clean in (
        ("4.19", False, False),
        ("6.1", True, False),
        ("6.12", True, True),
    ):
        m = make(profile)
        pid = process(m, 1, 2)
        m.swapon(16)
        m.swapout([(pid, BASE + PAGE, 1)])
        m.read(pid, BASE + PAGE, 1)
        fill(m, pid, 0, 1)
        for prot in (PROT_READ, PROT_READ | PROT_WRITE):
            m.mprotect(pid, BASE, 2, prot)
        assert bool(page(m, pid, 0).pte & RW) == dirty
        assert bool(page(m, pid, 1).pte & RW) == clean


# ---- layouts ----


@pytest.mark.parametrize(
    ("profile", "pte"),
    [("3.9", 0x200), ("4.19", 0x07FFFFFFFFFFFC00 | 2), ("6.1", 0x07FFFFFFFFFFFC00 | 2 | 8)],
)
def test_slot_1_of_area_0(make: Make, profile: str, pte: int) -> None:
    m = make(profile)
    pid = process(m, 1)
    m.swapon(16)
    m.swapout()
    assert page(m, pid).pte == pte


@pytest.mark.parametrize(
    ("profile", "most"), [("3.9", 29), ("4.19", 27), ("6.1", 22), ("6.12", 23), ("6.18", 24)]
)
def test_so_many_areas(make: Make, profile: str, most: int) -> None:
    m = make(profile)
    for _ in range(most):
        m.swapon(2)
    with fails(EPERM):
        m.swapon(2)


@pytest.mark.parametrize(("profile", "first"), [("3.9", -1), ("4.19", -2), ("6.18", -2)])
def test_automatic_priorities(make: Make, profile: str, first: int) -> None:
    m = make(profile)
    m.swapon(8)
    m.swapon(8)
    assert [area.priority for area in m.areas()] == [first, first - 1]
    m.swapoff(0)
    assert [area.priority for area in m.areas()] == [first]


# ---- soft-dirty ----


def test_soft_dirty_is_written_swapped_and_brought_back(make: Make) -> None:
    m = make("6.1")
    pid = process(m, 1, 2)
    assert page(m, pid).pte & SOFT_DIRTY
    m.clear_refs(pid, 4)
    assert not page(m, pid).pte & (SOFT_DIRTY | RW)
    fill(m, pid, 1, 3)
    assert page(m, pid, 1).pte & SOFT_DIRTY
    area = m.swapon(16)
    m.swapout()
    assert not page(m, pid, 0).pte & SWP_SOFT_DIRTY
    assert page(m, pid, 1).pte & SWP_SOFT_DIRTY
    m.swapoff(area)
    assert not page(m, pid, 0).pte & SOFT_DIRTY
    assert page(m, pid, 1).pte & SOFT_DIRTY


def test_swapoff_of_4_19_forgets_soft_dirty(make: Make) -> None:
    m = make("4.19")
    pid = process(m, 1)
    area = m.swapon(16)
    m.swapout()
    assert page(m, pid).pte & SWP_SOFT_DIRTY
    m.swapoff(area)
    assert not page(m, pid).pte & SOFT_DIRTY


def test_clear_refs_where_there_is_no_soft_dirty(make: Make) -> None:
    m = make("3.9")
    pid = process(m, 1)
    m.clear_refs(pid, 1)
    assert not page(m, pid).pte & ACCESSED
    for what in (0, 2, 4):
        with fails(EINVAL):
            m.clear_refs(pid, what)


def test_a_tracked_page_is_not_mapped_writable_by_a_read(make: Make) -> None:
    """Or the write that follows would not be seen."""
    m = make("6.18")
    pid = process(m, 1)
    m.clear_refs(pid, 4)
    m.swapon(16)
    m.swapout()
    m.read(pid, BASE, 1)
    assert not page(m, pid).pte & RW
    fill(m, pid, 0, 2)
    assert page(m, pid).pte & SOFT_DIRTY


# ---- swapoff ----


def merged_and_out(m: Engine, n: int) -> list[int]:
    """Unrelated processes with one page each in one slot."""
    pids = [process(m, 7) for _ in range(n)]
    for pid in pids:
        m.madvise(pid, BASE, 1, 12)
    m.ksm_scan(3)
    m.swapon(16)
    m.swapout()
    assert len({page(m, pid).swp_offset for pid in pids}) == 1
    return pids


@pytest.mark.parametrize(
    ("profile", "reads", "copies"), [("3.9", 4, 0), ("4.19", 4, 0), ("6.1", 1, 3), ("6.18", 1, 3)]
)
def test_a_slot_of_four_strangers(make: Make, profile: str, reads: int, copies: int) -> None:
    m = make(profile)
    merged_and_out(m, 4)
    before = dict(m.counters())
    m.swapoff(0)
    after = m.counters()
    assert after["swap_readpage"] - before["swap_readpage"] == reads
    assert after["copy_page"] - before["copy_page"] == copies
    assert m.vmstat().get("ksm_swpin_copy", copies) == copies


def test_the_loop_of_4_19_0_ends(make: Make) -> None:
    m = make("4.19.0-unfixed")
    pids = merged_and_out(m, 3)
    with fails(ETIMEDOUT):
        m.swapoff(0)
    assert m.events() == ["try_to_unuse makes no progress"]
    assert sorted(page(m, pid).state for pid in pids) == ["P", "S", "S"]
    assert m.areas()[0].used == 1
    for pid in pids:
        assert m.read(pid, BASE, 1) == b"\x07"
    m.swapoff(0)


@pytest.mark.parametrize(("profile", "nth", "left"), [("4.19", 2, 1), ("6.1", 2, 0)])
def test_a_signal_in_between(make: Make, profile: str, nth: int, left: int) -> None:
    """Mm by mm it is asked for before each, and matters only as long as slots are in use."""
    m = make(profile)
    one, two = process(m, 1, 2), process(m, 3)
    area = m.swapon(16)
    m.swapout()
    m.inject("signal", nth)
    with fails(EINTR):
        m.swapoff(area)
    out = states(m, one, 2) + states(m, two, 1)
    assert 0 < out.count("S") < 3
    m.inject("signal", 0)
    m.swapoff(area)
    assert states(m, one, 2) + states(m, two, 1) == "PPP"


def test_a_signal_after_the_last_slot_is_none(make: Make) -> None:
    m = make("6.1")
    process(m, 1)
    area = m.swapon(16)
    m.swapout()
    m.inject("signal", 2)  # before the mm, and then there is nothing left to be asked about
    m.swapoff(area)
    m.inject("signal", 0)


@pytest.mark.parametrize(
    ("profile", "errors"), [("4.19", [0]), ("6.1", [EIO]), ("6.12", [EHWPOISON])]
)
def test_what_swapoff_cannot_read(make: Make, profile: str, errors: list[int]) -> None:
    m = make(profile)
    pid = process(m, 1)
    area = m.swapon(16)
    m.swapout()
    m.inject("read", 1)
    m.swapoff(area)
    assert m.read_pages(pid, BASE, 1)[1] == errors
    child = m.fork(pid)
    assert m.read_pages(child, BASE, 1)[1] == errors
    m.madvise(pid, BASE, 1, MADV_DONTNEED)
    assert m.read_pages(pid, BASE, 1)[1] == [0]
    assert page(m, pid).state == "Z"
    m.exit(child)


def test_no_memory_for_a_copy(make: Make) -> None:
    m = make("6.1")
    pids = merged_and_out(m, 3)
    m.inject("page", 2)  # the page itself, then the first copy
    with fails(ENOMEM):
        m.swapoff(0)
    assert sorted(page(m, pid).state for pid in pids) == ["P", "S", "S"]
    m.swapoff(0)
    assert [page(m, pid).state for pid in pids] == ["P"] * 3


def test_what_only_the_cache_holds_is_dropped(make: Make) -> None:
    """A clean page whose last swap pte has gone: its slot is given back, and that is all."""
    m = make("6.1")
    pid = process(m, 1)
    area = m.swapon(16)
    m.swapout()
    m.read(pid, BASE, 1)
    reads = m.counters()["swap_readpage"]
    assert m.areas()[0].used == 1
    m.swapoff(area)
    assert m.counters()["swap_readpage"] == reads
    assert not page(m, pid).swapcache


@pytest.mark.parametrize(("profile", "node"), [("3.9", 0), ("4.19", 0), ("6.1", 1), ("6.18", 1)])
def test_the_node_of_what_swapoff_brings(make: Make, profile: str, node: int) -> None:
    m = make(profile, nodes=2)
    pid = m.spawn()
    m.mmap(pid, 1, BASE, 1)
    fill(m, pid, 0, 1)
    area = m.swapon(16)
    m.swapout()
    m.swapoff(area)
    assert page(m, pid).node == node


def test_how_much_room_swapoff_wants(make: Make) -> None:
    """5.2: only what all memory and swap together could not hold is refused at once."""
    for profile, refused in (("4.19", True), ("6.1", False)):
        m = make(profile)
        m.swapon(60)
        process(m, *range(1, 61))
        m.swapout([(1, BASE, 58)])
        if refused:
            with fails(ENOMEM):
                m.swapoff(0)
        free = m.free_frames()
        process(m, *range(1, free - 1))
        with fails(ENOMEM):
            m.swapoff(0)
        m.exit(1)


# ---- zeros, pageout, willneed ----


@pytest.mark.parametrize(("profile", "written", "zeros"), [("6.1", 2, None), ("6.12", 1, 1)])
def test_zeros_are_not_written(make: Make, profile: str, written: int, zeros: int | None) -> None:
    m = make(profile)
    pid = process(m, 0, 1)
    m.swapon(16)
    m.swapout()
    assert m.vmstat()["pswpout"] == written
    assert m.vmstat().get("swpout_zero") == zeros
    assert m.areas()[0].used == 2
    assert m.read(pid, BASE, SIZE) == bytes(SIZE)
    assert m.vmstat().get("swpin_zero") == zeros


def test_a_slot_of_zeros_is_none_when_it_is_used_again(make: Make) -> None:
    m = make("6.12")
    pid = process(m, 0)
    m.swapon(3)
    m.swapout()
    fill(m, pid, 0, 9)
    m.swapout()
    assert m.read(pid, BASE, SIZE) == bytes([9]) * SIZE


def test_pageout_takes_what_nobody_else_maps(make: Make) -> None:
    m = make("6.1")
    pid = process(m, 1, 2)
    child = m.fork(pid)
    fill(m, child, 1, 3)
    m.swapon(16)
    m.madvise(pid, BASE, 2, MADV_PAGEOUT)
    assert states(m, pid, 2) == "PS"
    assert states(m, child, 2) == "PP"
    assert m.swapcached() == 1
    old = make("4.19")
    pid = process(old, 1)
    with fails(EINVAL):
        old.madvise(pid, BASE, 1, MADV_PAGEOUT)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("profile", ["6.1", "6.12", "6.18"])
def test_pressure_goes_by_what_is_on_the_lists(make: Make, profile: str, wait: bool) -> None:
    """Three pages that MADV_PAGEOUT has written wait in the batch, so two active ones are too many
    for the empty inactive list, and go too. (Booted 6.1.192 and 6.12.117 answer so.)"""
    m = make(profile)
    pid = process(m, 1, 2, 3, 4, 5)
    m.swapout([(pid, BASE, 5)])  # there is nowhere to: that makes them active
    assert states(m, pid, 5) == "PPPPP"
    m.swapon(16)
    if not wait:
        m.madvise(pid, BASE + 2 * PAGE, 3, MADV_PAGEOUT)
        m.ksm_scan(1)  # drains
    m.swapout([(pid, BASE + 2 * PAGE, 3)])
    assert states(m, pid, 5) == ("SSSSS" if wait else "PPSSS")
    assert m.swapcached() == 0


def test_pageout_of_what_cannot_be_read(make: Make) -> None:
    m = make("6.18")
    pid = process(m, 1)
    m.swapon(16)
    m.mprotect(pid, BASE, 1, PROT_NONE)
    m.madvise(pid, BASE, 1, MADV_PAGEOUT)
    assert states(m, pid, 1) == "S"
    m.mprotect(pid, BASE, 1, PROT_READ)
    m.madvise(pid, BASE, 1, MADV_WILLNEED)
    assert m.read(pid, BASE, 1) == b"\x01"


# ---- anon_vmas ----


@pytest.mark.parametrize(("profile", "chain"), [("3.9", 4), ("4.19", 3), ("6.1", 3), ("6.18", 3)])
def test_chains_of_forks(make: Make, profile: str, chain: int) -> None:
    """A, B, C; A and B exit; then C's child D takes B's anon_vma, which nobody uses."""
    m = make(profile)
    a = process(m, 1)
    b = m.fork(a)
    c = m.fork(b)
    m.exit(a)
    m.exit(b)
    d = m.fork(c)
    assert m.vmas(d)[0].chain == chain
    fill(m, d, 0, 2)
    m.swapon(16)
    m.swapout()
    assert states(m, c, 1) + states(m, d, 1) == "SS"
