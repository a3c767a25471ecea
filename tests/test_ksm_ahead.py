"""ksmd's shortcuts (what it knows of contents, keys in the trees, looking ahead, a second thread)
change nothing that shows, whatever happens between scans. The census holds the core to what it
remembers: frames of one content id are equal, a tree node's key is that of its page.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from direct import differences

from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_UNMERGEABLE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    Config,
    Engine,
)
from pyksm.errors import MachineError
from pyksm.oracle import Oracle
from pyksm.profiles import PROFILES
from pyksm.scenario import engines

PAGE = 4096
AT = 1 << 32
PAGES = 40


def content(value: int, size: int) -> bytes:
    """Equal for equal values only; many begin alike, as far as the last bytes or the first word."""
    word = bytes([value // 3])
    if value % 3 == 0:
        return word * size
    if value % 3 == 1:
        return bytes(size - 1) + word
    return (bytes(7) + word + bytes([value]) * size)[:size]


class Player:
    """Plays the program of a seed: operations that give scans something to get wrong."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.choose = random.Random(seed)
        self.pids: list[int] = []
        self.areas: list[int] = []
        for _ in range(3):
            self.spawn()

    def one(self) -> Any:
        name = self.choose.choice(NAMES)
        try:
            return name, getattr(self, name)(), self.state()
        except MachineError as error:
            return name, error.errno, self.state()

    def state(self) -> dict[str, Any]:
        return {
            "pages": [self.engine.pagemap(pid, AT, PAGES) for pid in self.pids],
            "ksm": dict(self.engine.ksm_counts()),
            "counters": dict(self.engine.counters()),
            "census": self.engine.census(),
            "events": self.engine.events(),
        }

    def some(self) -> tuple[int, int, int]:
        first = self.choose.randrange(PAGES)
        return (
            self.choose.choice(self.pids),
            AT + first * PAGE,
            min(self.choose.choice((1, 4, 40)), PAGES - first),
        )

    def spawn(self) -> None:
        if len(self.pids) > 5:
            return
        pid = self.engine.spawn()
        self.pids.append(pid)
        self.engine.mmap(pid, PAGES, AT)
        self.engine.madvise(pid, AT, PAGES, MADV_MERGEABLE)
        self.write(pid, AT, PAGES)

    def fork(self) -> None:
        if len(self.pids) < 6:
            self.pids.append(self.engine.fork(self.choose.choice(self.pids)))

    def exit(self) -> None:
        if len(self.pids) > 2:
            self.engine.exit(self.pids.pop(self.choose.randrange(len(self.pids))))

    def write(self, pid: int, addr: int, npages: int) -> Any:
        size, kinds = self.engine.config.page_size, self.choose.choice((3, 9, 90))
        pages = (content(self.choose.randrange(kinds), size) for _ in range(npages))
        return self.engine.write_pages(pid, addr, b"".join(pages))

    def rewrite(self) -> Any:
        return self.write(*self.some())

    def poke(self) -> None:
        pid, addr, _ = self.some()
        offset = self.choose.choice((0, 5, self.engine.config.page_size - 1))
        self.engine.write(pid, addr + offset, bytes([self.choose.randrange(3)]))

    def scan(self) -> int:
        return self.engine.ksm_scan(self.choose.choice((1, 2)))

    def do_scan(self) -> None:
        self.engine.ksm_do_scan(self.choose.choice((1, 10, 50, 200)))

    def migrate(self) -> Any:
        nodes = self.engine.config.nodes
        return self.engine.migrate(*self.some(), self.choose.randrange(nodes))

    def swapon(self) -> None:
        if len(self.areas) < 2:
            self.areas.append(self.engine.swapon(self.choose.choice((20, 200))))

    def swapout(self) -> None:
        self.engine.swapout([self.some() for _ in range(self.choose.randrange(2))])

    def swapoff(self) -> None:
        if self.areas:
            self.engine.swapoff(self.areas[0])
            self.areas.pop(0)

    def touch(self) -> Any:
        return self.engine.touch(*self.some(), self.choose.random() < 0.5)

    def protect(self) -> None:
        both = PROT_READ | PROT_WRITE
        self.engine.mprotect(*self.some(), self.choose.choice((PROT_NONE, PROT_READ, both, both)))

    def advise(self) -> None:
        advice = (MADV_MERGEABLE, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTNEED)
        self.engine.madvise(*self.some(), self.choose.choice(advice))

    def knob(self) -> None:
        key, values = self.choose.choice(KNOBS)
        self.engine.ksm_write(key, self.choose.choice(values))

    def broken_unmerge(self) -> None:
        """A signal in its midst leaves the unstable tree to the next scan."""
        self.engine.inject("signal", self.choose.randint(1, 60))
        try:
            self.engine.ksm_write("run", 2)
        finally:
            self.engine.inject("none", 0)
            self.engine.ksm_write("run", 1)


KNOBS = (
    ("max_page_sharing", (2, 3, 256)),
    ("merge_across_nodes", (0, 1)),
    ("use_zero_pages", (0, 1)),
    ("smart_scan", (0, 1)),
    ("run", (2, 1, 1)),
)
NAMES = (
    *("scan", "do_scan", "rewrite", "poke") * 3,
    *("migrate", "swapon", "swapout", "swapoff", "touch", "protect", "advise", "fork", "exit"),
    *("spawn", "knob", "broken_unmerge"),
)


def play(make: Callable[[Config], Engine], config: Config, seed: int, steps: int) -> list[Any]:
    machine = make(config)
    try:
        player = Player(machine, seed)
        return [player.one() for _ in range(steps)]
    finally:
        machine.close()


@pytest.mark.parametrize("first", range(0, 120, 10))
def test_engines_agree(first: int) -> None:
    for seed in range(first, first + 10):
        choose = random.Random(f"machine of {seed}")
        config = Config(
            nodes=choose.choice((1, 1, 2)),
            frames=choose.choice((150, 400)),
            page_size=choose.choice((4096, 128, 8)),
            profile=choose.choice(list(PROFILES)),
        )
        logs = [
            play(make, config, seed, 40)
            for make in (Oracle, engines.factory("core"), engines.factory("core+threads"))
        ]
        for log in logs[1:]:
            for step, (one, other) in enumerate(zip(logs[0], log, strict=True)):
                assert one[:2] == other[:2], f"seed {seed} step {step}"
                parts = sorted(differences(one[2], other[2]))
                assert not parts, f"seed {seed} step {step}: {one[0]}: {parts[:4]}"
                assert not other[2]["census"], f"seed {seed} step {step}: {one[0]}"


@pytest.mark.parametrize("engine", ["core", "core+threads"])
def test_more_contents_than_ids(engine: str) -> None:
    """There are hardly more content ids than frames: those of contents overwritten come back."""
    machine = engines.factory(engine)(Config(frames=100, page_size=128))
    pids = [machine.spawn() for _ in range(2)]
    for pid in pids:
        machine.mmap(pid, PAGES, AT)
        machine.madvise(pid, AT, PAGES, MADV_MERGEABLE)
    for turn in range(200):
        for pid in pids:
            numbers = (turn << 20 | (page << 8 if turn % 9 else pid) for page in range(PAGES))
            machine.write_pages(pid, AT, b"".join(n.to_bytes(4, "little") * 32 for n in numbers))
        machine.ksm_write("smart_scan", 0)
        assert machine.ksm_scan(2) == 2
        counts = dict(machine.ksm_counts())
        shared = PAGES if turn % 9 else 2
        assert (counts["pages_shared"], counts["pages_sharing"]) == (shared, 2 * PAGES - shared)
        assert machine.census() == []
    machine.close()


def merge_two(machine: Engine, first: int) -> tuple[int, int]:
    """Two processes with the same pages, from that number on, are merged."""
    size = machine.config.page_size
    data = b"".join(n.to_bytes(8, "little") * (size // 8) for n in range(first, first + 600))
    for _ in range(2):
        pid = machine.spawn()
        addr = machine.mmap(pid, 600)
        machine.write_pages(pid, addr, data)
        machine.madvise(pid, addr, 600, MADV_MERGEABLE)
    machine.ksm_scan(2)
    counts = dict(machine.ksm_counts())
    return counts["pages_shared"], counts["pages_sharing"]


def in_child(machine: Engine) -> int:
    """The exit status of a child of fork(2) that goes on with its copy of the machine."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if merge_two(machine, 600) == (1200, 1200) else 2
            machine.close()
        finally:
            os._exit(status)
    for _ in range(600):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def test_a_forked_host_process_goes_on() -> None:
    """The child of fork(2) has the machine and not its second thread."""
    machine = engines.factory("core+threads")(Config(frames=5000, page_size=4096))
    assert merge_two(machine, 0) == (600, 600)
    assert in_child(machine) == 0
    assert merge_two(machine, 600) == (1200, 1200)
    machine.close()


def scan_many(profile: str, hooked: bool, threads: int) -> tuple[dict[str, int], dict[str, int]]:
    """Three processes of 20,000 pages, some alike: trees that outgrow the host's caches."""
    machine = engines.factory("core")(
        Config(frames=70_000, page_size=8, profile=profile, threads=threads)
    )
    if hooked:
        machine.set_hook(lambda point: None)
    for first in (0, 1000, 19_000):
        pid = machine.spawn()
        addr = machine.mmap(pid, 20_000)
        numbers = (n * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for n in range(first, first + 20_000))
        machine.write_pages(pid, addr, b"".join(n.to_bytes(8, "little") for n in numbers))
        machine.madvise(pid, addr, 20_000, MADV_MERGEABLE)
    assert machine.ksm_scan(3) == 3
    assert machine.census() == []
    found = dict(machine.ksm_counts()), dict(machine.counters())
    machine.close()
    return found


@pytest.mark.parametrize("profile", ["3.9", "6.18"])
def test_large_trees(profile: str) -> None:
    """With a hook, which could change anything, no page of a tree is taken for granted."""
    counts, work = scan_many(profile, hooked=False, threads=1)
    assert (counts["pages_shared"], counts["pages_sharing"]) == (20_000, 21_000)
    assert counts["pages_unshared"] == 60_000 - 41_000
    assert (counts, work) == scan_many(profile, hooked=True, threads=1)
    assert (counts, work) == scan_many(profile, hooked=False, threads=2)
