"""mlock and munlock: what is locked stays, whoever maps it, and what each kernel knows of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EAGAIN, EINVAL, ENOMEM, ESRCH
from typing import Any

import pytest

from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
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
from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.judge import judge
from pyksm.scenario import engines, parse, run

PAGE = 4096
SIZE = 64
BASE = 1 << 32
RW = PROT_READ | PROT_WRITE
PROFILES = ("3.9", "4.19", "6.1", "6.12", "6.18")
COUNTING = ("6.1", "6.12", "6.18")

Make = Callable[..., Engine]


@pytest.fixture
def make(engine: str) -> Iterator[Make]:
    """Makes small machines; at the end each must be clean."""
    made: list[Engine] = []

    def build(profile: str, **more: Any) -> Engine:
        config = Config(profile=profile, page_size=SIZE, frames=64, **more)
        made.append(engines.build(engine, config))
        return made[-1]

    yield build
    for each in made:
        assert each.census() == []
        each.close()


def process(engine: Engine, *values: int) -> int:
    pid = engine.spawn()
    engine.mmap(pid, len(values), BASE)
    fill(engine, pid, *values)
    return pid


def fill(engine: Engine, pid: int, *values: int) -> None:
    data = b"".join(bytes([value]) * SIZE for value in values)
    assert engine.write_pages(pid, BASE, data) == [0] * len(values)


def page(engine: Engine, pid: int, index: int = 0) -> PageInfo:
    return engine.pagemap(pid, BASE + index * PAGE, 1)[0]


def states(engine: Engine, pid: int, npages: int, addr: int = BASE) -> str:
    return "".join(each.state for each in engine.pagemap(pid, addr, npages))


def locked(engine: Engine, pid: int) -> list[tuple[int, int]]:
    """Which pages are in locked vmas, one pair of indices a vma."""
    vmas = [vma for vma in engine.vmas(pid) if vma.locked]
    return [((vma.start - BASE) // PAGE, (vma.end - BASE) // PAGE) for vma in vmas]


def fails(code: int) -> Any:
    return pytest.raises(MachineError, match=rf"^\[Errno {code}\]")


# ---- the calls ----


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_locked_stays(make: Make, profile: str) -> None:
    m = make(profile)
    a, b = process(m, 1, 2, 3), process(m, 4)
    m.swapon(32)
    m.mlock(a, BASE + PAGE, 1)
    m.swapout([])
    assert (states(m, a, 3), states(m, b, 1)) == ("SPS", "S")
    m.munlock(a, BASE, 3)
    m.swapout([])
    assert states(m, a, 3) == "SSS"
    assert m.read_pages(a, BASE, 3)[0] == b"".join(bytes([k]) * SIZE for k in (1, 2, 3))


@pytest.mark.parametrize("profile", PROFILES)
def test_pages_come_in(make: Make, profile: str) -> None:
    """As a write would have them where that is allowed, and as a read does where it is not."""
    m = make(profile)
    pid = m.spawn()
    m.mmap(pid, 3, BASE)
    m.mprotect(pid, BASE + PAGE, 1, PROT_READ)
    m.mprotect(pid, BASE + 2 * PAGE, 1, PROT_NONE)
    m.mlock(pid, BASE, 2)
    assert (states(m, pid, 3), page(m, pid).mlocked) == ("PZ.", True)
    with fails(ENOMEM):
        m.mlock(pid, BASE, 3)
    assert locked(m, pid) == [(0, 1), (1, 2), (2, 3)]
    m.munlock(pid, BASE, 3)
    assert locked(m, pid) == []
    assert not page(m, pid).mlocked


@pytest.mark.parametrize("profile", PROFILES)
def test_vmas_are_split_and_merged(make: Make, profile: str) -> None:
    m = make(profile)
    pid = process(m, 1, 2, 3, 4, 5)
    m.mlock(pid, BASE + PAGE, 1)
    m.mlock(pid, BASE + 3 * PAGE, 1)
    assert locked(m, pid) == [(1, 2), (3, 4)]
    m.mlock(pid, BASE + 2 * PAGE, 1)
    assert locked(m, pid) == [(1, 4)]
    m.munlock(pid, BASE + 2 * PAGE, 3)
    assert locked(m, pid) == [(1, 2)]
    assert len(m.vmas(pid)) == 3
    m.munlock(pid, BASE, 5)
    assert len(m.vmas(pid)) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_a_hole(make: Make, profile: str) -> None:
    """What comes before it is locked, and nothing is brought in."""
    m = make(profile)
    pid = m.spawn()
    m.mmap(pid, 4, BASE)
    m.munmap(pid, BASE + 2 * PAGE, 1)
    with fails(ENOMEM):
        m.mlock(pid, BASE, 4)
    assert (locked(m, pid), states(m, pid, 4)) == ([(0, 2)], "..-.")
    with fails(ENOMEM):
        m.munlock(pid, BASE + 2 * PAGE, 1)
    with fails(ENOMEM):
        m.munlock(pid, BASE, 4)
    assert locked(m, pid) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_no_memory_for_all(make: Make, profile: str) -> None:
    m = make(profile)
    pid = m.spawn()
    m.mmap(pid, 100, BASE)
    with fails(EAGAIN):
        m.mlock(pid, BASE, 100)
    assert (locked(m, pid), states(m, pid, 100).count("P")) == ([(0, 100)], 64)
    m.inject("kmem", 1)
    with fails(ENOMEM):
        m.munlock(pid, BASE + PAGE, 1)
    assert locked(m, pid) == [(0, 100)]


def test_what_is_refused(make: Make) -> None:
    m = make("6.18")
    pid = process(m, 1)
    for call in (m.mlock, m.munlock):
        for addr, npages in ((BASE + 1, 1), (BASE, 0), (BASE, -1), (1 << 47, 1)):
            with fails(EINVAL):
                call(pid, addr, npages)
        with fails(ESRCH):
            call(pid + 1, BASE, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_advice_that_is_not_taken(make: Make, profile: str) -> None:
    m = make(profile)
    pid = process(m, 1, 2)
    m.mlock(pid, BASE + PAGE, 1)
    with fails(EINVAL):
        m.madvise(pid, BASE, 2, MADV_DONTNEED)
    assert states(m, pid, 2) == ".P"
    with fails(EINVAL):
        m.madvise(pid, BASE + PAGE, 1, MADV_PAGEOUT)
    m.madvise(pid, BASE, 2, MADV_WILLNEED)
    m.madvise(pid, BASE, 2, MADV_MERGEABLE)


# ---- who else has the page ----


@pytest.mark.parametrize("profile", PROFILES)
def test_a_child_has_no_locks(make: Make, profile: str) -> None:
    m = make(profile)
    parent = process(m, 1, 2)
    m.mlock(parent, BASE, 2)
    child = m.fork(parent)
    assert locked(m, child) == []
    m.swapon(32)
    m.swapout([])
    assert states(m, parent, 2) == "PP"
    m.munmap(parent, BASE, 1)
    m.spawn()  # drains where munmap does not
    assert not page(m, child).mlocked
    m.exit(parent)
    m.spawn()
    assert not page(m, child, 1).mlocked
    m.swapout([])
    assert states(m, child, 2) == "SS"


@pytest.mark.parametrize(
    ("profile", "marked"),
    [("3.9", False), ("4.19", False), ("6.1", True), ("6.12", True), ("6.18", True)],
)
def test_a_child_that_locks(make: Make, profile: str, marked: bool) -> None:
    """Its copy takes the mark off the old page, which only the parent maps then: until locks are
    counted nobody asks. Reclaim does."""
    m = make(profile)
    parent = process(m, 1)
    m.mlock(parent, BASE, 1)
    child = m.fork(parent)
    m.mlock(child, BASE, 1)
    assert page(m, child).pfn != page(m, parent).pfn
    assert (page(m, parent).mlocked, page(m, child).mlocked) == (marked, True)
    m.swapon(32)
    m.swapout([])
    assert states(m, parent, 1) + states(m, child, 1) == "PP"
    assert page(m, parent).mlocked


@pytest.mark.parametrize(
    ("profile", "on", "off", "marked"),
    [
        ("3.9", (), (), False),
        ("3.9", ("mlock-under-pte-lock",), (), True),
        ("4.19", (), ("mlock-under-pte-lock",), False),
        ("4.19", (), (), True),
        ("6.1", (), (), True),
        ("6.18", (), (), True),
    ],
)
def test_a_page_at_two_places_of_one(
    make: Make, profile: str, on: tuple[str, ...], off: tuple[str, ...], marked: bool
) -> None:
    """Whoever unlocks one of them has mmap_sem, which it took at first to mark it for the other."""
    m = make(profile, on=frozenset(on), off=frozenset(off))
    pid = process(m, 7, 7)
    m.mlock(pid, BASE, 2)
    m.madvise(pid, BASE, 2, MADV_MERGEABLE)
    m.ksm_scan(3)
    assert [each.mapcount for each in m.pagemap(pid, BASE, 2)] == [2, 2]
    assert page(m, pid).mlocked
    m.munlock(pid, BASE, 1)
    assert page(m, pid).mlocked == marked
    m.munlock(pid, BASE, 2)
    assert not page(m, pid).mlocked


@pytest.mark.parametrize("profile", PROFILES)
def test_ksm_hands_a_lock_over(make: Make, profile: str) -> None:
    m = make(profile)
    a, b = process(m, 7), process(m, 7)
    m.mlock(b, BASE, 1)
    for pid in (a, b):
        m.madvise(pid, BASE, 1, MADV_MERGEABLE)
    m.ksm_scan(3)
    assert (page(m, a).ksm, page(m, a).pfn) == (True, page(m, b).pfn)
    assert page(m, b).mlocked
    m.swapon(32)
    m.swapout([])
    assert states(m, a, 1) + states(m, b, 1) == "PP"
    fill(m, b, 8)
    assert (page(m, a).mlocked, page(m, b).mlocked) == (profile in COUNTING, True)
    m.ksm_scan(1)
    assert (page(m, a).mlocked, page(m, b).mlocked) == (False, True)
    m.swapout([])
    assert states(m, a, 1) + states(m, b, 1) == "SP"
    assert m.events() == []


# ---- the batch (5.18) ----


@pytest.mark.parametrize("profile", COUNTING)
def test_batch_keeps_ksm_from_a_page(make: Make, profile: str) -> None:
    """Replaced in a locked vma, the page is still referred to when the child's turn comes."""
    m = make(profile)
    parent = m.spawn()
    m.mmap(parent, 2, BASE)
    m.madvise(parent, BASE, 2, MADV_MERGEABLE)
    m.mlock(parent, BASE, 2)
    m.fork(parent)
    m.ksm_scan(2)
    assert m.ksm_read("pages_volatile") == 1
    m.ksm_scan(1)
    assert m.ksm_read("pages_volatile") == 0


@pytest.mark.parametrize("profile", COUNTING)
def test_batch_frees_when_drained(make: Make, profile: str) -> None:
    """Who is replaced in a locked vma goes when the next scan begins."""
    m = make(profile)
    pids = process(m, 7), process(m, 7)
    m.mlock(pids[0], BASE, 1)
    for pid in pids:
        m.madvise(pid, BASE, 1, MADV_MERGEABLE)
    free = m.free_frames()
    m.ksm_scan(2)
    assert [page(m, pid).mapcount for pid in pids] == [2, 2]
    assert m.free_frames() == free
    assert m.census() == []
    m.ksm_scan(1)
    assert m.free_frames() == free + 1


@pytest.mark.parametrize(("profile", "copies"), [("6.1", 7), ("6.12", 15), ("6.18", 15)])
def test_batch_is_drained_when_full(make: Make, profile: str, copies: int) -> None:
    """Two entries a copy: the last one's new page fills it, its old page comes into the next."""
    m = make(profile)
    parent = process(m, *range(1, copies + 2))
    m.mlock(parent, BASE, copies + 1)
    child = m.fork(parent)
    fill(m, parent, *range(100, 100 + copies))
    assert all(page(m, child, i).mlocked for i in range(copies + 1))
    fill(m, parent, *range(100, 100 + copies + 1))
    assert [page(m, child, i).mlocked for i in range(copies + 1)] == [False] * copies + [True]
    m.exit(parent)
    m.spawn()
    assert not page(m, child, copies).mlocked


@pytest.mark.parametrize("profile", COUNTING)
def test_faulting_in_ends_with_a_drain(make: Make, profile: str) -> None:
    """The page that came from swap and was copied has lost its mark: its slot is worth keeping."""
    m = make(profile)
    area = m.swapon(16)
    parent = process(m, 7)
    m.swapout([])
    child = m.fork(parent)
    m.mlock(child, BASE, 1)
    m.read_pages(parent, BASE, 1)
    assert page(m, parent).swapcache
    assert m.swap_count(area, 0) == 0


@pytest.mark.parametrize("profile", COUNTING)
def test_nothing_is_left_in_the_batch(make: Make, profile: str) -> None:
    m = make(profile)
    free = m.free_frames()
    pid = process(m, 7, 7)
    m.madvise(pid, BASE, 2, MADV_MERGEABLE)
    m.mlock(pid, BASE, 2)
    m.ksm_scan(2)
    m.ksm_write("run", 2)
    m.exit(pid)
    m.spawn()
    assert m.free_frames() == free


@pytest.mark.parametrize("by", ["munmap", "dontneed", "exit"])
@pytest.mark.parametrize("profile", COUNTING)
def test_who_zaps_drains_until_6_13(make: Make, profile: str, by: str) -> None:
    """The page that a copy has replaced loses its mark then; on a running 6.18.44 it keeps it."""
    m = make(profile)
    other = process(m, 3, 4)
    parent = process(m, 1)
    m.mlock(parent, BASE, 1)
    child = m.fork(parent)
    fill(m, parent, 2)
    assert page(m, child).mlocked
    if by == "munmap":
        m.munmap(other, BASE, 1)
    elif by == "dontneed":
        m.madvise(other, BASE, 1, MADV_DONTNEED)
    else:
        m.exit(other)
    assert page(m, child).mlocked == (profile == "6.18")
    m.mlock(parent, BASE, 1)
    assert not page(m, child).mlocked


# ---- what moves and comes back ----


@pytest.mark.parametrize(
    ("profile", "on", "off", "marked"),
    [
        ("3.9", (), (), False),
        ("3.9", ("migration-keeps-mlock",), (), True),
        ("4.19", (), ("migration-keeps-mlock",), False),
        *((profile, (), (), True) for profile in PROFILES[1:]),
    ],
)
def test_migration(
    make: Make, profile: str, on: tuple[str, ...], off: tuple[str, ...], marked: bool
) -> None:
    m = make(profile, nodes=2, on=frozenset(on), off=frozenset(off))
    pid = process(m, 1)
    m.mlock(pid, BASE, 1)
    assert m.migrate(pid, BASE, 1, 1) == [1]
    assert page(m, pid).mlocked == marked
    m.swapon(16)
    m.swapout([])
    assert (states(m, pid, 1), page(m, pid).mlocked) == ("P", True)
    m.munlock(pid, BASE, 1)
    assert not page(m, pid).mlocked


@pytest.mark.parametrize("profile", PROFILES)
def test_mremap(make: Make, profile: str) -> None:
    m = make(profile)
    pid = process(m, 1, 2)
    m.mlock(pid, BASE, 2)
    m.mremap(pid, BASE, 1, BASE + 8 * PAGE)
    assert locked(m, pid) == [(1, 2), (8, 9)]
    m.swapon(32)
    m.swapout([])
    assert states(m, pid, 9) == "-P------P"


@pytest.mark.parametrize(
    ("profile", "on", "off", "state"),
    [
        ("3.9", (), (), "Z"),
        ("3.9", ("mprotect-populates-locked",), (), "P"),
        ("4.19", (), ("mprotect-populates-locked",), "Z"),
        *((profile, (), (), "P") for profile in PROFILES[1:]),
    ],
)
def test_mprotect_brings_pages_of_its_own(
    make: Make, profile: str, on: tuple[str, ...], off: tuple[str, ...], state: str
) -> None:
    m = make(profile, on=frozenset(on), off=frozenset(off))
    pid = m.spawn()
    m.mmap(pid, 1, BASE)
    m.mprotect(pid, BASE, 1, PROT_READ)
    m.mlock(pid, BASE, 1)
    m.mprotect(pid, BASE, 1, RW)
    assert states(m, pid, 1) == state


@pytest.mark.parametrize("profile", PROFILES)
def test_the_slot_is_given_back(make: Make, profile: str) -> None:
    """Of a page that was out and is locked now: it will not go there again so soon."""
    m = make(profile)
    pid = process(m, 1, 2)
    m.swapon(32)
    m.swapout([])
    m.mprotect(pid, BASE, 2, PROT_READ)
    assert m.touch(pid, BASE, 1) == [0]
    m.mlock(pid, BASE + PAGE, 1)
    assert [each.swapcache for each in m.pagemap(pid, BASE, 2)] == [True, False]
    assert m.areas()[0].used == 1


@pytest.mark.parametrize(
    ("profile", "on", "off", "marked"),
    [
        *((profile, (), (), True) for profile in ("3.9", "4.19", "6.1")),
        ("6.1", ("swapin-misses-mlock",), (), False),
        ("6.12", (), (), False),
        ("6.18", (), (), False),
        ("6.18", (), ("swapin-misses-mlock",), True),
    ],
)
def test_what_was_out(
    make: Make, profile: str, on: tuple[str, ...], off: tuple[str, ...], marked: bool
) -> None:
    m = make(profile, on=frozenset(on), off=frozenset(off))
    pid = process(m, 1)
    m.swapon(32)
    m.swapout([])
    m.mlock(pid, BASE, 1)
    assert (states(m, pid, 1), page(m, pid).mlocked) == ("P", marked)
    m.swapout([])
    assert (states(m, pid, 1), page(m, pid).mlocked) == ("P", True)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_page_that_cannot_be_read(make: Make, profile: str) -> None:
    m = make(profile)
    pid = process(m, 1)
    m.swapon(32)
    m.swapout([])
    m.inject("read", 1)
    with fails(ENOMEM):
        m.mlock(pid, BASE, 1)
    assert states(m, pid, 1) == "S"
    assert m.events() == ["Read-error on swap-device"]


# ---- tasks ----


@pytest.mark.parametrize("handed", [True, False])
@pytest.mark.parametrize("profile", ["4.19", "6.1", "6.18"])
def test_a_merge_hands_its_flags_over(profile: str, handed: bool) -> None:
    """Reclaim comes to the page behind one that is being unlocked while their vmas are made one.
    Until 4.9 (e86f15ee64d8) it finds that one locked, and marks it for good."""
    scenario = parse(
        f"""
        machine profile={profile} {"" if handed else "without=merge-hands-flags-over"} agents=0
        swapon S1 16
        spawn P1
        mmap P1 r0 2
        write P1 r0 7
        mlock P1 r0[0]
        schedule a@unlink_anon_vmas:anon_vma_lock b a
        task a:
          munlock P1 r0[0]
        task b:
          swapout P1 r0[1]
        join
        swapout *
        observe
        """
    )
    observed = run(scenario, "core")["results"][-1]["observation"]
    marked = profile == "4.19" and not handed
    assert observed["processes"]["P1"]["r0"]["state"] == ("SP" if marked else "SS")


#: Reclaim, ksmd and a child, each beside a process that locks what it has.
RACES = {
    "reclaim": "mlock A r | swapout *",
    "unlocked": "mlock A r; munlock A r | swapout *",
    "ksmd": "mlock A r; munlock A r | scan 1",
    "fork": "mlock A r | fork A C; write C r 3",
    "exit": "mlock A r; exit A | swapout *",
    "swapoff": "mlock A r | swapoff S",
    "migrate": "mlock A r; munlock A r | migrate B r 1",
}


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("profile", ["4.19", "6.1", "6.18"])
def test_beside_others(profile: str, race: str) -> None:
    lines = [
        f"machine profile={profile} nodes=2 agents=0", "swapon S 16",
        *(line.format(each) for each in "AB" for line in (
            "spawn {}", "mmap {} r 1", "write {} r 7", "madvise {} r mergeable")),
        "scan 2", "mlock B r" if race == "exit" else "swapout *",
    ]  # fmt: skip
    for k, task in enumerate(RACES[race].split(" | ")):
        lines += [f"task t{k}:", *(f"  {statement}" for statement in task.split("; "))]
    scenario = parse("\n".join(lines))
    assert judge(scenario) == []
    found = explore(scenario, Bounds(preemptions=1))
    assert found.complete
    assert found.found == ()
