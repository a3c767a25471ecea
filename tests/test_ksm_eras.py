"""KSM beyond 3.9: what no recording shows, counted out by hand from the kernels' own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EACCES, EBUSY, EINVAL, ENOENT, ENOMEM, ERANGE
from typing import Any

import pytest

from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_UNMERGEABLE,
    PROT_NONE,
    Config,
    Engine,
)
from pyksm.errors import MachineError
from pyksm.scenario import engines

PAGE = 4096
SIZE = 64

RW, DIRTY, SPECIAL, SOFT_DIRTY = 1 << 1, 1 << 6, 1 << 9, 1 << 11


class Box:
    """A small machine, and short words for what these tests do to it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[int, int] = {}

    def process(self, *values: int, mergeable: bool = True) -> int:
        """A process with a page of each value; 0 is a page of zeros that was written."""
        pid = self.engine.spawn()
        self.addresses[pid] = self.engine.mmap(pid, len(values), 1 << 32)
        self.write(pid, 0, *values)
        if mergeable:
            self.advise(pid, MADV_MERGEABLE, len(values))
        return pid

    def at(self, pid: int, page: int) -> int:
        return self.addresses[pid] + page * PAGE

    def write(self, pid: int, page: int, *values: int) -> None:
        data = b"".join(bytes([value]) * SIZE for value in values)
        assert self.engine.write_pages(pid, self.at(pid, page), data) == [0] * len(values)

    def advise(self, pid: int, advice: int, npages: int, page: int = 0) -> None:
        self.engine.madvise(pid, self.at(pid, page), npages, advice)

    def fork(self, pid: int) -> int:
        child = self.engine.fork(pid)
        self.addresses[child] = self.addresses[pid]
        return child

    def states(self, pid: int, npages: int) -> str:
        pages = self.engine.pagemap(pid, self.at(pid, 0), npages)
        return "".join("K" if page.ksm else page.state for page in pages)

    def frames(self, pid: int, npages: int) -> int:
        return len({page.pfn for page in self.engine.pagemap(pid, self.at(pid, 0), npages)})

    def counts(self, *names: str) -> tuple[int, ...]:
        counts = self.engine.ksm_counts()
        return tuple(counts[name] for name in names)

    def merged(self) -> tuple[int, ...]:
        """shared, sharing, unshared, volatile"""
        return self.counts("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")

    def chains(self) -> tuple[int, ...]:
        return self.counts("stable_node_chains", "stable_node_dups")

    def refused(self, key: str, value: int) -> int | None:
        try:
            self.engine.ksm_write(key, value)
        except MachineError as err:
            return err.errno
        return None

    def clean(self) -> None:
        assert self.engine.census() == []


@pytest.fixture
def box(engine: str) -> Iterator[Callable[..., Box]]:
    made: list[Engine] = []

    def make(profile: str, **changes: Any) -> Box:
        config = Config(frames=512, page_size=SIZE, profile=profile, **changes)
        made.append(engines.build(engine, config))
        return Box(made[-1])

    yield make
    for each in made:
        assert each.census() == []
        each.close()


# --- chains


@pytest.mark.parametrize("profile", ["4.19", "6.1", "6.12", "6.18"])
@pytest.mark.parametrize(
    ("limit", "pages", "merged", "chains"),
    [
        (2, 5, (2, 2, 1, 0), (1, 2)),
        (2, 4, (2, 2, 0, 0), (1, 2)),
        (3, 3, (1, 2, 0, 0), (0, 0)),
        (3, 5, (2, 3, 0, 0), (1, 2)),
        (3, 7, (2, 4, 1, 0), (1, 2)),
        (256, 9, (1, 8, 0, 0), (0, 0)),
    ],
)
def test_full_nodes(
    box: Callable[..., Box],
    profile: str,
    limit: int,
    pages: int,
    merged: tuple[int, ...],
    chains: tuple[int, ...],
) -> None:
    """K equal pages make K // limit full nodes; of the rest two or more make another."""
    b = box(profile)
    b.engine.ksm_write("max_page_sharing", limit)
    b.process(*[7] * pages)
    b.engine.ksm_scan(2)
    assert (b.merged(), b.chains()) == (merged, chains)
    b.engine.ksm_scan(2)
    assert (b.merged(), b.chains()) == (merged, chains)


def _chain_of_one(b: Box) -> int:
    """Two full nodes of two, of which the pages of one are then written to."""
    b.engine.ksm_write("max_page_sharing", 2)
    pid = b.process(7, 7, 7, 7)
    b.engine.ksm_scan(2)
    assert b.chains() == (1, 2)
    b.write(pid, 2, 8, 9)
    return pid


def test_chain_is_pruned_when_it_is_time(box: Callable[..., Box]) -> None:
    """4.19 dissolves a chain with one dup only every 2000 ms, and only if the dup has room."""
    b = box("4.19")
    pid = _chain_of_one(b)
    b.engine.sleep(1999)
    b.engine.ksm_scan(2)
    assert b.chains() == (1, 1)
    b.engine.sleep(1)
    b.engine.ksm_scan(1)
    assert b.chains() == (1, 1)  # full, so it is no candidate
    b.engine.munmap(pid, b.at(pid, 0), 1)
    b.engine.sleep(2000)
    b.process(7)
    b.engine.ksm_scan(1)
    assert (b.chains(), b.counts("pages_shared", "pages_sharing")) == ((0, 0), (1, 1))


def test_chain_of_one_is_none(box: Callable[..., Box]) -> None:
    b = box("6.12")
    _chain_of_one(b)
    b.engine.ksm_scan(2)
    assert b.chains() == (0, 0)


def test_max_page_sharing_is_an_int(box: Callable[..., Box]) -> None:
    b = box("4.19")
    wanted = {2: None, 1: EINVAL, 0: EINVAL, -1: EINVAL, 1 << 31: ERANGE, -(1 << 31) - 1: ERANGE}
    assert {value: b.refused("max_page_sharing", value) for value in wanted} == wanted
    b.process(7, 7)
    b.engine.ksm_scan(2)
    assert b.refused("max_page_sharing", 3) == EBUSY
    assert b.refused("max_page_sharing", 2) is None
    b.engine.ksm_write("run", 2)
    assert b.refused("max_page_sharing", 3) is None


def test_no_memory_for_a_chain(box: Callable[..., Box]) -> None:
    """The new node goes as well, and both pages are private again."""
    b = box("6.1")
    b.engine.ksm_write("max_page_sharing", 2)
    pid = b.process(7, 7, 7, 7)
    b.engine.ksm_do_scan(100)
    b.engine.ksm_do_scan(2)
    b.engine.inject("kmem", 2)
    b.engine.ksm_do_scan(2)
    assert (b.states(pid, 4), b.chains()) == ("KKPP", (0, 0))


# --- nodes that find each other in the wrong trees


def _swapped_places(b: Box, pages: int, nodes: int) -> tuple[list[int], list[int]]:
    """Pages of 7: two on memory node 1, and some on node 0 in so many stable nodes; then all moved
    to the other node. Those first on node 1 are visited first, and only one still maps its page."""
    k = b.engine
    k.ksm_write("merge_across_nodes", 0)
    far, near = [], []
    for node, pids, count in ((1, far, 2), (0, near, pages)):
        for _ in range(count):
            pid = k.spawn()
            b.addresses[pid] = k.mmap(pid, 1, 1 << 32, node)
            b.write(pid, 0, 7)
            b.advise(pid, MADV_MERGEABLE, 1)
            pids.append(pid)
    k.ksm_scan(2)
    assert b.counts("pages_shared", "pages_sharing") == (1 + nodes, 1 + pages - nodes)
    b.write(far[1], 0, 8)
    for node, pids in ((0, far[:1]), (1, near)):
        for pid in pids:
            k.migrate(pid, b.at(pid, 0), 1, node)
    return far, near


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.12"])
def test_nodes_change_places(box: Callable[..., Box], profile: str) -> None:
    """The first one finds in its tree the other one, whose page is gone from there, and replaces
    it; that one finds the other tree empty."""
    b = box(profile, nodes=2)
    far, near = _swapped_places(b, pages=2, nodes=1)
    b.engine.ksm_scan(1)
    b.clean()
    assert "".join(b.states(pid, 1) for pid in far + near) == "KPKK"
    for node, wanted in ((0, far[0]), (1, near[0])):
        pid = b.engine.spawn()
        b.addresses[pid] = b.engine.mmap(pid, 1, 1 << 32, node)
        b.write(pid, 0, 7)
        b.advise(pid, MADV_MERGEABLE, 1)
        b.engine.ksm_scan(2)
        pages = [b.engine.pagemap(each, b.at(each, 0), 1)[0].pfn for each in (pid, wanted)]
        assert pages[0] == pages[1]


@pytest.mark.parametrize("profile", ["4.19", "6.1", "6.12"])
def test_dups_change_places(box: Callable[..., Box], profile: str) -> None:
    """The same where a chain of two stands in the first one's way, a full one and one with room:
    it takes the latter's place in it. On the other node they meet again, in a chain of their own.
    """
    b = box(profile, nodes=2)
    b.engine.ksm_write("max_page_sharing", 3)
    far, near = _swapped_places(b, pages=5, nodes=2)
    assert b.chains() == (1, 2)
    b.engine.ksm_scan(1)
    b.clean()
    assert b.chains() == (2, 3)
    assert "".join(b.states(pid, 1) for pid in far + near) == "KPKKKKK"
    b.engine.ksm_scan(1)  # pages in place are not looked up: nobody sees the chain of one
    assert b.chains() == (2, 3)


# --- zero pages


@pytest.mark.parametrize(
    ("profile", "marks"), [("4.19", ()), ("6.1", ()), ("6.12", (DIRTY, SOFT_DIRTY))]
)
def test_zero_pte(box: Callable[..., Box], profile: str, marks: tuple[int, ...]) -> None:
    """Since 6.6 a dirty pte of the zero page is one that KSM has put there."""
    b = box(profile)
    b.engine.ksm_write("use_zero_pages", 1)
    pid = b.process(0)
    b.engine.ksm_scan(2)
    (page,) = b.engine.pagemap(pid, b.at(pid, 0), 1)
    assert page.pte & (SPECIAL | DIRTY | SOFT_DIRTY | RW) == sum(marks, SPECIAL)


@pytest.mark.parametrize("profile", ["4.19", "6.1"])
def test_zero_pages_uncounted(box: Callable[..., Box], profile: str) -> None:
    b = box(profile)
    b.engine.ksm_write("use_zero_pages", 1)
    pid = b.process(0, 0, 5)
    b.engine.ksm_scan(2)
    assert (b.states(pid, 3), b.merged()) == ("ZZP", (0, 0, 1, 2))
    b.engine.ksm_scan(1)
    assert b.merged() == (0, 0, 1, 0)
    assert "ksm_zero_pages" not in b.engine.ksm_counts()
    b.engine.ksm_write("run", 2)
    assert b.states(pid, 3) == "ZZP"


@pytest.mark.parametrize("profile", ["6.12", "6.18"])
def test_zero_pages_counted(box: Callable[..., Box], profile: str) -> None:
    """Up by merging and by fork, down by writing, unmapping, exit and unmerging."""
    b = box(profile)
    b.engine.ksm_write("use_zero_pages", 1)
    pid = b.process(0, 0, 0, 0, 0, 0)
    b.engine.ksm_scan(2)
    child = b.fork(pid)

    def zero_pages() -> tuple[int, ...]:
        own = (b.engine.ksm_stat(each)["ksm_zero_pages"] for each in (pid, child))
        return (*b.counts("ksm_zero_pages"), *own)

    assert (b.states(child, 6), zero_pages()) == ("Z" * 6, (12, 6, 6))
    b.write(pid, 0, 1)
    assert zero_pages() == (11, 5, 6)
    b.engine.munmap(pid, b.at(pid, 1), 1)
    b.advise(pid, MADV_DONTNEED, 1, page=2)
    assert zero_pages() == (9, 3, 6)
    b.engine.touch(pid, b.at(pid, 2), 1)  # the zero page, but nobody's doing
    b.advise(pid, MADV_UNMERGEABLE, 2, page=2)
    assert (b.states(pid, 6), zero_pages()) == ("P-ZPZZ", (8, 2, 6))
    b.clean()
    b.engine.ksm_write("run", 2)
    assert (b.states(pid, 6), b.states(child, 6), zero_pages()) == ("P-ZPPP", "P" * 6, (0, 0, 0))


def test_zero_pages_of_exit(box: Callable[..., Box]) -> None:
    b = box("6.12")
    b.engine.ksm_write("use_zero_pages", 1)
    pid = b.process(0, 0)
    b.engine.ksm_scan(2)
    assert b.counts("ksm_zero_pages", "general_profit") == (2, 2 * PAGE - 2 * 64)
    b.engine.exit(pid)
    assert b.counts("ksm_zero_pages") == (0,)


def test_kstrtobool(box: Callable[..., Box]) -> None:
    """The first digit decides."""
    b = box("6.12")
    for key in ("use_zero_pages", "smart_scan"):
        for value, wanted in ((1, 1), (0, 0), (10, 1), (0, 0), (199, 1)):
            assert b.refused(key, value) is None
            assert b.engine.ksm_read(key) == wanted
        assert [b.refused(key, value) for value in (2, -1, 90)] == [EINVAL] * 3


# --- when ksmd looks, and how often


@pytest.mark.parametrize(("profile", "visits"), [("4.19", 1), ("6.1", 1), ("6.12", 2)])
def test_newcomer(box: Callable[..., Box], profile: str, visits: int) -> None:
    b = box(profile)
    b.process(7, 7)
    b.engine.ksm_scan(2)
    pid = b.process(7)
    for visit in range(1, visits + 1):
        b.engine.ksm_scan(1)
        assert b.states(pid, 1) == "PK"[visit == visits]


def test_smart_scan(box: Callable[..., Box]) -> None:
    """A page that never merges: which of its visits are skipped. Another that does is not."""
    b = box("6.12")
    b.engine.ksm_write("smart_scan", 1)
    b.process(7)
    visits = ""
    for _ in range(40):
        skipped, scanned = b.counts("pages_skipped", "pages_scanned")
        b.engine.ksm_scan(1)
        more = b.counts("pages_skipped", "pages_scanned")
        visits += {(1, 0): "-", (0, 1): "S"}[more[0] - skipped, more[1] - scanned]
    assert visits == "SSSS-S--S----S--------S--------S--------"
    assert b.merged() == (0, 0, 0, 1)
    b.process(8, 8)
    b.engine.ksm_scan(2)
    assert b.counts("pages_shared", "pages_sharing") == (1, 1)


def test_advisor(box: Callable[..., Box]) -> None:
    """Numbers of a scan that took no time, and of one of 400 s, where 200 are wanted."""
    b = box("6.12")
    b.process(7, 8)
    k = b.engine
    assert [k.ksm_read("pages_to_scan"), b.refused("pages_to_scan", 200)] == [100, None]
    k.ksm_write("advisor_mode", 1)
    assert (k.ksm_read("pages_to_scan"), b.refused("pages_to_scan", 200)) == (500, EINVAL)
    k.ksm_scan(1)
    # factor 20000, change 30: 500 * 100 // 20000 * 30 // 100 = 0, but 10 % of a CPU are granted
    assert k.ksm_read("pages_to_scan") == 5000
    k.ksm_scan(1)
    assert k.ksm_read("pages_to_scan") == 30000
    k.ksm_write("advisor_max_pages_to_scan", 100)
    k.ksm_do_scan(1)
    k.sleep(400_999)
    k.ksm_do_scan(10)
    assert k.ksm_read("pages_to_scan") == 100
    k.ksm_write("advisor_mode", 0)
    assert (k.ksm_read("pages_to_scan"), b.refused("pages_to_scan", 200)) == (100, None)
    assert b.refused("advisor_mode", 2) == EINVAL
    assert b.refused("advisor_target_scan_time", 0) == EINVAL


@pytest.mark.parametrize(
    ("profile", "keys"),
    [
        ("3.9", ()),
        ("4.19", ("max_page_sharing", "stable_node_chains_prune_millisecs", "use_zero_pages")),
        ("6.12", ("max_page_sharing", "use_zero_pages", "smart_scan", "advisor_mode")),
    ],
)
def test_files(box: Callable[..., Box], profile: str, keys: tuple[str, ...]) -> None:
    b = box(profile)
    for key in ("max_page_sharing", "use_zero_pages", "smart_scan", "advisor_mode"):
        assert b.refused(key, 2 if key == "max_page_sharing" else 1) == (
            None if key in keys else ENOENT
        )
    for key in b.engine.ksm_counts():
        assert b.refused(key, 1) == EACCES
    missing = "stable_node_dups" if profile == "3.9" else "nothing"
    with pytest.raises(MachineError) as raised:
        b.engine.ksm_read(missing)
    assert raised.value.errno == ENOENT


# --- processes


def test_merge_any(box: Callable[..., Box]) -> None:
    """All vmas, later ones too; a child inherits it; switched off, all is unmerged."""
    b = box("6.12")
    k = b.engine
    pid = b.process(7, 7, mergeable=False)
    assert not k.memory_merge(pid)
    k.prctl_memory_merge(pid, True)
    later = k.mmap(pid, 2, 2 << 32)
    assert k.write_pages(pid, later, b"\7" * 2 * SIZE) == [0, 0]
    assert [vma.mergeable for vma in k.vmas(pid)] == [True, True]
    child = b.fork(pid)
    assert k.memory_merge(child)
    k.ksm_scan(3)
    assert b.merged() == (1, 7, 0, 0)
    assert k.ksm_stat(pid)["ksm_merging_pages"] == k.ksm_stat(child)["ksm_merging_pages"] == 4
    k.prctl_memory_merge(pid, False)
    assert (k.memory_merge(pid), k.memory_merge(child)) == (False, True)
    assert (b.states(pid, 2), b.states(child, 2)) == ("PP", "KK")
    assert not any(vma.mergeable for vma in k.vmas(pid))


@pytest.mark.parametrize(("profile", "vmas"), [("6.12", 2), ("6.18", 1)])
def test_merge_any_and_neighbours(box: Callable[..., Box], profile: str, vmas: int) -> None:
    """Whether a new vma is mergeable before it is looked for one to join."""
    b = box(profile)
    pid = b.engine.spawn()
    b.engine.prctl_memory_merge(pid, True)
    b.engine.mmap(pid, 1, 1 << 32)
    b.engine.mmap(pid, 1, (1 << 32) + PAGE)
    assert len(b.engine.vmas(pid)) == vmas


def test_merge_any_enters_again(box: Callable[..., Box]) -> None:
    """ksmd drops a process without vmas, but its next vma is merged all the same."""
    b = box("6.12")
    pid = b.engine.spawn()
    b.engine.prctl_memory_merge(pid, True)
    b.engine.ksm_scan(1)
    b.addresses[pid] = b.engine.mmap(pid, 2, 1 << 32)
    b.write(pid, 0, 7, 7)
    b.engine.ksm_scan(2)
    assert b.states(pid, 2) == "KK"


def test_no_memory_for_prctl(box: Callable[..., Box]) -> None:
    b = box("6.12")
    pid = b.process(7, mergeable=False)
    b.engine.inject("kmem", 1)
    with pytest.raises(MachineError) as raised:
        b.engine.prctl_memory_merge(pid, True)
    assert (raised.value.errno, b.engine.memory_merge(pid)) == (ENOMEM, False)


@pytest.mark.parametrize("profile", ["3.9", "6.1"])
def test_no_prctl(box: Callable[..., Box], profile: str) -> None:
    b = box(profile)
    pid = b.engine.spawn()
    for call in (
        lambda: b.engine.prctl_memory_merge(pid, True),
        lambda: b.engine.memory_merge(pid),
    ):
        with pytest.raises(MachineError) as raised:
            call()
        assert raised.value.errno == EINVAL


@pytest.mark.parametrize(
    ("profile", "forked"),
    [
        ("3.9", {}),
        ("6.1", {"ksm_merging_pages": 2, "ksm_rmap_items": 3}),
        (
            "6.18",
            {
                "ksm_merging_pages": 0,
                "ksm_rmap_items": 0,
                "ksm_zero_pages": 0,
                "ksm_process_profit": 0,
                "ksm_merge_any": 0,
                "ksm_mergeable": 1,
            },
        ),
    ],
)
def test_forked_counts(box: Callable[..., Box], profile: str, forked: dict[str, int]) -> None:
    b = box(profile)
    pid = b.process(7, 7, 8)
    b.engine.ksm_scan(2)
    assert b.engine.ksm_stat(b.fork(pid)) == forked
    if profile == "6.18":
        assert b.engine.ksm_stat(pid)["ksm_process_profit"] == 2 * PAGE - 3 * 64


@pytest.mark.parametrize(
    ("profile", "works"), [("4.19", False), ("6.1", False), ("6.12", True), ("6.18", True)]
)
def test_fork_without_memory_for_ksm(box: Callable[..., Box], profile: str, works: bool) -> None:
    """The mm_slot is the second thing that fork allocates, or the last, and then it is no must."""
    b = box(profile)
    pid = b.process(7)
    before = b.engine.counters()["kmem_alloc"]
    b.engine.exit(b.fork(pid))
    each = b.engine.counters()["kmem_alloc"] - before
    b.engine.inject("kmem", each if works else 2)
    if works:
        child = b.fork(pid)
        b.engine.ksm_scan(2)
        assert b.merged() == (0, 0, 1, 0)  # the child's page was not looked at
        b.engine.exit(child)
    else:
        with pytest.raises(MachineError):
            b.fork(pid)


# --- unmerging


@pytest.mark.parametrize(
    ("profile", "left"), [("4.19", "PP"), ("6.1", "KK"), ("6.12", "PP"), ("6.18", "PP")]
)
def test_unmerge_prot_none(box: Callable[..., Box], profile: str, left: str) -> None:
    b = box(profile)
    pid = b.process(7, 7)
    b.engine.ksm_scan(2)
    b.engine.mprotect(pid, b.at(pid, 0), 2, PROT_NONE)
    b.advise(pid, MADV_UNMERGEABLE, 2)
    assert b.states(pid, 2) == left


@pytest.mark.parametrize(
    ("profile", "bits"),
    [("3.9", RW | DIRTY), ("4.19", RW | DIRTY), ("6.1", RW | DIRTY), ("6.12", 0)],
)
def test_unmerged_pte(box: Callable[..., Box], profile: str, bits: int) -> None:
    """Unmerging wrote to the page once; since 6.2 it only makes sure that nobody else has it."""
    b = box(profile)
    pid = b.process(7, 7)
    b.engine.ksm_scan(2)
    b.advise(pid, MADV_UNMERGEABLE, 2)
    for page in b.engine.pagemap(pid, b.at(pid, 0), 2):
        assert (page.ksm, page.pte & (RW | DIRTY)) == (False, bits)
    copies = b.engine.counters()["copy_page"]
    b.write(pid, 0, 9, 9)
    assert b.engine.counters()["copy_page"] == copies


@pytest.mark.parametrize(
    ("profile", "status"), [("3.9", 1), ("4.19", 1), ("6.1", -ENOENT), ("6.12", 1)]
)
def test_move_pages_prot_none(box: Callable[..., Box], profile: str, status: int) -> None:
    """What unmerging does not see in 6.1, move_pages does not either, nor a partner in merging."""
    b = box(profile, nodes=2)
    pid = b.process(7)
    b.engine.ksm_scan(2)
    b.engine.mprotect(pid, b.at(pid, 0), 1, PROT_NONE)
    assert b.engine.migrate(pid, b.at(pid, 0), 1, 1) == [status]
    other = b.process(7)
    b.engine.ksm_scan(2)
    assert b.states(other, 1) == ("P" if status < 0 else "K")


@pytest.mark.parametrize(("profile", "warns"), [("4.19", True), ("6.1", False)])
def test_busy_node(box: Callable[..., Box], profile: str, warns: bool) -> None:
    """A page that is mapped where nothing is mergeable keeps its node through run=2."""
    b = box(profile)
    pid = b.process(7, 7)
    b.engine.ksm_scan(2)
    child = b.fork(pid)
    b.engine.ksm_scan(1)
    b.engine.swapon(64)
    b.engine.swapout()
    b.advise(child, MADV_UNMERGEABLE, 2)
    b.engine.touch(child, b.at(child, 0), 1)
    b.engine.events()
    b.engine.ksm_write("run", 2)
    said = [line for line in b.engine.events() if "remove_stable_node" in line]
    assert bool(said) == (warns and "K" in b.states(child, 1))


def test_the_advisor_follows_how_scans_develop(box: Callable[..., Box]) -> None:
    """Two scans of 50 s where 1 s is wanted: 100 % of the last, of which 30 % weigh each time."""
    b = box("6.12")
    b.process(1, 2, 3)
    b.engine.ksm_write("advisor_mode", 1)
    b.engine.ksm_write("advisor_target_scan_time", 1)
    b.engine.ksm_write("advisor_max_pages_to_scan", 10**6)
    for pages in (500, 500 * 50 * 30 // 100, 7500 * 50 * 51 // 100):
        assert b.engine.ksm_read("pages_to_scan") == pages
        b.engine.ksm_do_scan(1)
        b.engine.sleep(50_000)
        b.engine.ksm_scan(1)
