"""rmap walks: what they find, what they cost, and why KSM pages have a most of sharers."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pyksm.core import Core
from pyksm.engine import MADV_MERGEABLE, PROT_READ, Config, Engine
from pyksm.errors import MachineError
from pyksm.hunt import generate
from pyksm.oracle import Oracle
from pyksm.scenario import Run, engines

PAGE = 4096
BY_INDEX = frozenset({"ksm-rmap-by-index"})


def words(numbers: range) -> bytes:
    """Contents of 8-byte pages."""
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def walk(machine: Engine, pid: int, addr: int) -> tuple[int, Mapping[str, int]]:
    """What a walk comes upon, and what it counts."""
    before = dict(machine.counters())
    ptes = machine.rmap_walk(pid, addr)
    now = machine.counters()
    return ptes, {name: now[name] - was for name, was in before.items() if now[name] != was}


# what it finds


@pytest.fixture
def machine(engine: str) -> Engine:
    return engines.factory(engine)(Config(frames=64, profile="6.18"))


def test_an_anonymous_page_and_its_copies_in_children(machine: Engine) -> None:
    pid = machine.spawn()
    addr = machine.mmap(pid, 3)
    machine.touch(pid, addr, 2, True)
    assert walk(machine, pid, addr) == (1, {"avc_visited": 1})
    child = machine.fork(pid)
    assert walk(machine, pid, addr) == (2, {"avc_visited": 2})
    machine.touch(child, addr, 1, True)
    # The child's vma is still looked at, though it has a page of its own there.
    assert walk(machine, pid, addr) == (1, {"avc_visited": 2})
    assert walk(machine, child, addr) == (1, {"avc_visited": 1})


def test_what_there_is_no_page_for(machine: Engine) -> None:
    pid = machine.spawn()
    addr = machine.mmap(pid, 3)
    machine.touch(pid, addr, 1, False)  # the zero page
    machine.touch(pid, addr + PAGE, 1, True)
    machine.swapon(16)
    machine.swapout()
    wrong = {
        (pid, addr): errno.ENOENT,
        (pid, addr + PAGE): errno.ENOENT,
        (pid, addr + 2 * PAGE): errno.ENOENT,
        (pid, addr + 3 * PAGE): errno.EFAULT,
        (pid, addr + 1): errno.EINVAL,
        (pid, 1 << 47): errno.EINVAL,
        (pid + 1, addr): errno.ESRCH,
    }
    for (process, at), code in wrong.items():
        with pytest.raises(MachineError) as caught:
            machine.rmap_walk(process, at)
        assert caught.value.errno == code


def test_a_forked_ksm_page_is_come_upon_twice(machine: Engine) -> None:
    """Once by each item in its own mm, and as the new fork of the parent's item."""
    pid = machine.spawn()
    addr = machine.mmap(pid, 2)
    machine.write_pages(pid, addr, bytes([1]) * 2 * PAGE)
    machine.madvise(pid, addr, 2, MADV_MERGEABLE)
    machine.ksm_scan(2)
    child = machine.fork(pid)
    assert walk(machine, child, addr)[0] == 4
    machine.ksm_scan(1)
    assert machine.pagemap(pid, addr, 1)[0].mapcount == 4
    assert walk(machine, child, addr)[0] == 6


# one KSM page and 20,000 vmas on one anon_vma


def split(make: engines.Factory, npages: int, on: frozenset[str]) -> tuple[Engine, int, int]:
    """A KSM page of two processes: one has a vma a page, of one anon_vma, the other one page."""
    machine = make(Config(frames=npages + 64, page_size=8, on=on))
    pid, other = machine.spawn(), machine.spawn()
    addr, one = machine.mmap(pid, npages), machine.mmap(other, 1)
    machine.write_pages(pid, addr, words(range(1, npages + 1)))
    machine.write_pages(other, one, words(range(npages // 2, npages // 2 + 1)))
    for process, at, count in ((pid, addr, npages), (other, one, 1)):
        machine.madvise(process, at, count, MADV_MERGEABLE)
    machine.ksm_scan(2)
    assert machine.ksm_read("pages_sharing") == 1
    for k in range(0, npages, 2):
        machine.mprotect(pid, addr + k * PAGE, 1, PROT_READ)
    return machine, other, one


@pytest.mark.parametrize(("name", "npages"), [("core", 20_000), ("core", 64), ("oracle", 64)])
def test_lookup_of_all_vmas_and_by_index(name: str, npages: int) -> None:
    make = engines.factory(name)
    visited = []
    for on in (frozenset[str](), BY_INDEX):
        machine, pid, addr = split(make, npages, on)
        ptes, work = walk(machine, pid, addr)
        assert ptes == 2
        assert work["rmap_walk_ksm"] == 1
        visited.append(work["avc_visited"])
    # Both items look at what their anon_vmas have, in both passes.
    assert visited == [2 * (npages + 1), 4]
    assert npages < 20_000 or visited[0] >= 300 * visited[1]


def test_the_time_of_a_lookup_by_index() -> None:
    best = []
    for on in (frozenset[str](), BY_INDEX):
        machine, pid, addr = split(Core, 20_000, on)
        rounds = []
        for _ in range(20):
            begin = time.process_time_ns()
            for _ in range(3):
                machine.rmap_walk(pid, addr)
            rounds.append(time.process_time_ns() - begin)
        best.append(min(rounds))
    print(f"all vmas {best[0] / 3000:.1f} us, by index {best[1] / 3000:.2f} us")
    assert best[0] >= 100 * best[1]  # the call through Python is most of the latter


# one KSM page shared by very many ptes


@pytest.mark.parametrize(
    ("name", "npages", "most"),
    [("core", 65_536, 256), ("core", 65_536, 1 << 30), ("oracle", 60, 8), ("oracle", 60, 1 << 30)],
)
def test_a_most_of_sharers_bounds_the_walk(name: str, npages: int, most: int) -> None:
    """What max_page_sharing is for: without it a walk looks at every item of the content."""
    machine = engines.factory(name)(Config(frames=npages + 64, page_size=8))
    pid = machine.spawn()
    addr = machine.mmap(pid, npages)
    machine.write_pages(pid, addr, words(range(7, 8)) * npages)
    machine.madvise(pid, addr, npages, MADV_MERGEABLE)
    machine.ksm_write("max_page_sharing", most)
    machine.ksm_scan(2)
    dups = -(-npages // most)
    chain = {"stable_node_chains": int(dups > 1), "stable_node_dups": dups * (dups > 1)}
    counts = machine.ksm_counts()
    assert counts["pages_shared"] == dups
    assert counts["pages_sharing"] == npages - dups
    assert {key: counts[key] for key in chain} == chain
    for page in (0, npages // 2, npages - 1):
        mapped = machine.pagemap(pid, addr + page * PAGE, 1)[0].mapcount
        assert mapped <= most
        ptes, work = walk(machine, pid, addr + page * PAGE)
        assert ptes == mapped
        # Every item in both passes, each with the one vma of its anon_vma.
        assert work == {"rmap_walk_ksm": 1, "avc_visited": 2 * mapped}
    assert dups > 1 or mapped == npages


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_by_index_finds_what_all_vmas_have(first: int) -> None:
    """After random programs, whatever they have split, merged, moved and forked."""
    walked = 0
    for seed in range(first, first + 20):
        choose = generate.Seeded(random.Random(f"by index {seed}"))
        era = choose.pick(("3.9", "4.19", "6.1", "6.18"))
        head = replace(generate.machine(choose, era), on=tuple(BY_INDEX), bugs=())
        scenario = generate.build(choose, 30, 90, f"seed {seed}", head)
        machine = Oracle(engines.config(scenario.machine, None))
        Run(machine).all(scenario.body)
        places = [
            (pid, vma.start + k * PAGE)
            for pid in machine.processes()
            for vma in machine.vmas(pid)
            for k, page in enumerate(machine.pagemap(pid, vma.start, (vma.end - vma.start) // PAGE))
            if page.ksm
        ]
        by_index = [machine.rmap_walk(*place) for place in places]
        machine._m().features -= BY_INDEX
        assert by_index == [machine.rmap_walk(*place) for place in places], f"seed {seed}"
        walked += len(places)
    assert walked
