"""Swapoff entry by entry, its walk computed: the same end and the same counts as by the walk."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from direct import first_difference, play
from hypothesis import given, settings
from hypothesis import strategies as hs

from pyksm.core import Core
from pyksm.engine import FAULT_KINDS, MADV_DONTNEED, MADV_MERGEABLE, SWITCHES, Config
from pyksm.errors import MachineError
from pyksm.hunt import examine, program

PAGE = 4096
#: Where swapoff goes entry by entry; 6.1 has all that came later.
BY_ENTRY = (
    {"profile": "3.9"},
    {"profile": "4.19"},
    {"profile": "4.19.0-unfixed"},
    {"profile": "6.1", "off": frozenset({"swapoff-per-mm"})},
)
#: Its swapoff keeps what it has read in the swap cache, and has no other policy.
KEEPS_CACHE = "4.19.0-unfixed"
WAYS = ("literal", "computed")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=hs.integers(0, 2**32),
    kernel=hs.sampled_from(BY_ENTRY),
    policy=hs.sampled_from(["reread", "memcpy"]),
    bugs=hs.sets(hs.sampled_from(SWITCHES)),
)
def test_programs(seed: int, kernel: dict[str, Any], policy: str, bugs: set[str]) -> None:
    """Both ways and the oracle, on everything that they say after each statement."""
    scenario = program(seed, profile=kernel["profile"]).on(
        off=tuple(kernel.get("off", ())),
        policy="reread" if kernel["profile"] == KEEPS_CACHE else policy,
        bugs=tuple(sorted(bugs)),
    )
    assert examine(scenario, ("core", "core+computed", "oracle")) == []


def made(walk: str, kernel: dict[str, Any]) -> Callable[[Config], Core]:
    """Machines that a program on the interface asks for, but with that kernel and walk."""

    def make(config: Config) -> Core:
        if kernel["profile"] == KEEPS_CACHE:
            config = dataclasses.replace(config, policy="reread")
        return Core(dataclasses.replace(config, walk=walk, **kernel))

    return make


@pytest.mark.parametrize("kernel", BY_ENTRY, ids=lambda kernel: str(kernel["profile"]))
def test_programs_on_the_interface(kernel: dict[str, Any]) -> None:
    """Mappings that adjoin, are split and moved: vmas of one family that have the same pages."""
    for seed in range(7000, 7040):
        literal, computed = (play(made(walk, kernel), seed) for walk in WAYS)
        assert first_difference(literal, computed) is None, seed


class Population:
    """Processes that share by fork and KSM, pages that stand twice in a process, split vmas."""

    def __init__(self, walk: str, seed: int, kernel: dict[str, Any], policy: str) -> None:
        self.choose = random.Random(f"population {seed}")
        self.core = Core(Config(frames=900, page_size=8, walk=walk, policy=policy, **kernel))
        self.pids = [self.core.spawn()]
        self.base = self.core.mmap(self.pids[0], 64, 4 << 30)
        self.areas: list[int] = []
        self.moves = 0
        self.fill(self.pids[0])
        for _ in range(self.choose.randint(3, 7)):
            self.choose.choice((self.fork, self.stranger, self.split, self.move, self.move))()
        self.core.ksm_scan(self.choose.randint(0, 3))
        for _ in range(self.choose.randint(1, 2)):
            self.areas.append(self.core.swapon(700))
            self.core.swapout([])
            self.touch_some()
            self.fork()
        self.core.swapout([])

    def fill(self, pid: int) -> None:
        for k in range(64):
            if self.choose.random() < 0.8:
                self.core.write(pid, self.base + k * PAGE, bytes([self.choose.randrange(12)]) * 8)
        if self.choose.random() < 0.7:
            self.core.madvise(pid, self.base, 64, MADV_MERGEABLE)

    def fork(self) -> None:
        self.pids.append(self.core.fork(self.choose.choice(self.pids)))

    def stranger(self) -> None:
        self.pids.append(self.core.spawn())
        self.core.mmap(self.pids[-1], 64, self.base)
        self.fill(self.pids[-1])

    def split(self) -> None:
        where = self.base + self.choose.randrange(60) * PAGE
        self.core.mprotect(self.choose.choice(self.pids), where, 2, 1)

    def move(self) -> None:
        """Away, and pages of the same family, index and perhaps contents in the old place."""
        pid, first = self.choose.choice(self.pids), self.choose.randrange(2, 50)
        where, to = self.base + first * PAGE, self.base + (96 + 16 * self.moves) * PAGE
        self.moves += 1
        self.core.mprotect(pid, self.base, 64, 3)
        held, _ = self.core.read_pages(pid, where, 8)
        try:
            self.core.mremap(pid, where, 8, to)
        except MachineError:  # it is more than one vma by now
            return
        self.core.mmap(pid, 8, where)
        self.core.write_pages(pid, where, held)
        self.core.madvise(pid, where, 8, MADV_MERGEABLE)

    def touch_some(self) -> None:
        for pid in self.pids:
            for k in self.choose.sample(range(64), 12):
                self.core.touch(pid, self.base + k * PAGE, 1, self.choose.random() < 0.3)
            for k in self.choose.sample(range(64), self.choose.choice((1, 12))):
                self.core.madvise(pid, self.base + k * PAGE, 1, MADV_DONTNEED)

    def swapoff(self, area: int) -> int:
        try:
            self.core.swapoff(area)
        except MachineError as error:
            return error.errno
        return 0

    def state(self) -> Any:
        """All there is to see, but the order of the LRU lists."""
        core = self.core
        return {
            "pages": [
                core.pagemap(p, v.start, (v.end - v.start) // PAGE)
                for p in self.pids
                for v in core.vmas(p)
            ],
            "areas": core.areas(),
            "slots": [
                core.swap_map(a, k)
                for a in self.areas
                for k in range(1, 700)
                if a in [each.type for each in core.areas()]
            ],
            "counters": core.counters(),
            "vmstat": core.vmstat(),
            "events": core.events(),
            "census": core.census(),
            "peak": core.peak_frames(),
        }

    def order(self) -> Any:
        """The order of the LRU lists: whose slot is whose after reclaim has taken all."""
        self.core.swapon(2000, 1)
        self.core.swapout([])
        return self.state()


def same(both: list[Population], seed: Any) -> None:
    for ours, theirs in (
        [each.state() for each in both],
        [each.order() for each in both],
    ):
        for key, value in ours.items():
            assert value == theirs[key], (seed, key)
    for each in both:
        each.core.close()


@pytest.mark.parametrize(
    ("kernel", "policy"),
    [
        (kernel, policy)
        for kernel in BY_ENTRY
        for policy in ("reread", "memcpy")
        if policy == "reread" or kernel["profile"] != KEEPS_CACHE
    ],
    ids=lambda each: each if isinstance(each, str) else str(each["profile"]),
)
def test_populations(kernel: dict[str, Any], policy: str) -> None:
    for seed in range(60):
        both = [Population(walk, seed, kernel, policy) for walk in WAYS]
        for area in both[0].areas:
            assert both[0].swapoff(area) == both[1].swapoff(area)
        same(both, seed)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_failures(kind: str) -> None:
    """The nth event fails for both, wherever in swapoff that is; then it goes on from there."""
    failed = 0
    for nth in (*range(1, 25), 40, 60, 90, 140, 200):
        both = [Population(walk, nth % 5, BY_ENTRY[nth % 2], "reread") for walk in WAYS]
        for each in both:
            each.core.inject(kind, nth)
        codes = [each.swapoff(each.areas[0]) for each in both]
        assert codes[0] == codes[1]
        failed += codes[0] != 0
        for each in both:
            each.core.inject(kind, 0)
        if codes[0]:
            assert both[0].state() == both[1].state()
            assert both[0].swapoff(both[0].areas[0]) == both[1].swapoff(both[1].areas[0])
        same(both, nth)
    assert failed or kind in ("kmem", "read", "write", "userfault")


def test_hook_may_change_everything() -> None:
    """With a hook the walk is done, since ptes and vmas come and go at its schedule points."""
    for seed in range(20):
        both = [Population(walk, seed, BY_ENTRY[0], "reread") for walk in WAYS]
        for each in both:
            calls = iter(range(10_000))

            def hook(point: str, each: Population = each, calls: Any = calls) -> None:
                number = next(calls)
                if number % 7 == 3 and len(each.pids) > 1:
                    each.core.exit(each.pids.pop())
                elif number % 5 == 0:
                    each.touch_some()
                elif number % 11 == 4:
                    each.swapoff(each.areas[-1])  # inside of it there are no hooks: computed

            each.core.set_hook(hook)
            each.swapoff(each.areas[0])
            each.core.set_hook(None)
        same(both, seed)


def large(walk: str, npages: int, processes: int, kind: str, **config: Any) -> tuple[Core, int]:
    """Distinct pages, or the same ones shared by fork or KSM, all in swap. And the area's type."""
    frames = npages * (processes if kind == "ksm" else 2) + 64
    core = Core(Config(frames=frames, page_size=8, walk=walk, **config))
    pids = [core.spawn()]
    addr = core.mmap(pids[0], npages)
    data = np.arange(1, npages + 1, dtype=np.uint64)
    core.write_pages(pids[0], addr, data)
    for _ in range(processes - 1):
        if kind == "forked":
            pids.append(core.fork(pids[0]))
            continue
        pids.append(core.spawn())
        core.mmap(pids[-1], npages, addr)
        core.write_pages(pids[-1], addr, data)
    for pid in pids if kind == "ksm" else ():
        core.madvise(pid, addr, npages, MADV_MERGEABLE)
    core.ksm_scan(2 if kind == "ksm" else 0)
    area = core.swapon(npages * processes + 64)
    core.swapout([])
    return core, area


def everything(core: Core) -> Any:
    """Raw pagemaps and counts, and for the order of the LRU lists both again after swapping out."""
    found: list[Any] = []
    for _ in range(2):
        for pid in core.processes():
            (vma,) = core.vmas(pid)
            npages = (vma.end - vma.start) // PAGE
            found.append(core.pagemap_array(pid, vma.start, npages).tobytes())
        found += [core.counters(), core.vmstat(), core.events(), core.free_frames(), core.areas()]
        core.swapon(1 << 18)
        core.swapout([])
    return found


@pytest.mark.parametrize(
    ("npages", "processes", "kind"), [(65536, 1, "distinct"), (8192, 4, "ksm"), (8192, 4, "forked")]
)
def test_at_large(npages: int, processes: int, kind: str) -> None:
    """Two thousand million ptes compared, or as many counted."""
    answers = []
    for walk in WAYS:
        core, area = large(walk, npages, processes, kind, profile="3.9")
        before = core.counters()["unuse_pte_compared"]
        core.swapoff(area)
        compared = core.counters()["unuse_pte_compared"] - before
        answers.append((compared, everything(core)))
        core.close()
    assert answers[0] == answers[1]
    if kind == "distinct":  # entry k is found at the kth pte
        assert answers[0][0] == npages * (npages + 1) // 2


def test_a_million_entries() -> None:
    core, area = large("computed", 1 << 20, 1, "distinct", profile="3.9")
    begin = time.monotonic()
    core.swapoff(area)
    assert time.monotonic() - begin < 10
    assert core.counters()["unuse_pte_compared"] == (1 << 20) * ((1 << 20) + 1) // 2
    core.close()


def seconds(core: Core, area: int) -> float:
    begin = time.process_time()
    core.swapoff(area)
    return time.process_time() - begin


def test_a_page_in_many_ptes_of_one_process() -> None:
    """What was found before is not passed again and again: 60,000 ptes of one slot, one a visit."""
    npages = 60_000
    core = Core(Config(frames=2 * npages, page_size=8, profile="3.9", walk="computed"))
    pid = core.spawn()
    addr = core.mmap(pid, npages)
    core.write_pages(pid, addr, np.ones(npages, dtype=np.uint64))
    core.madvise(pid, addr, npages, MADV_MERGEABLE)
    core.ksm_scan(2)
    area = core.swapon(64)
    core.swapout([])
    assert seconds(core, area) < 5
    compared = core.counters()["unuse_pte_compared"]
    assert compared == npages * (npages + 1) // 2
    core.close()


def test_an_owner_of_many_vmas() -> None:
    """A shared page has an owner from its first pte on: relatives are looked up."""
    npages = 20_000
    core = Core(Config(frames=4 * npages, page_size=8, profile="3.9", walk="computed"))
    pid = core.spawn()
    addr = core.mmap(pid, npages)
    core.write_pages(pid, addr, np.arange(1, npages + 1, dtype=np.uint64))
    for k in range(0, npages, 2):
        core.mprotect(pid, addr + k * PAGE, 1, 1)
    core.fork(pid)
    area = core.swapon(npages + 64)
    core.swapout([])
    before = core.counters()["page_address_in_vma"]
    assert seconds(core, area) < 5
    # the second process: its kth vma has the page
    assert core.counters()["page_address_in_vma"] - before == npages * (npages + 1) // 2
    assert core.census() == []
    core.close()
