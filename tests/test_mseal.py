"""mseal: what is sealed stays as it is; core and oracle agree on what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pyksm.core import Core
from pyksm.engine import PROT_READ, PROT_SEAL, PROT_WRITE, Config, Engine
from pyksm.errors import MachineError
from pyksm.oracle import Oracle

BASE = 4 << 30
PAGE = 4096
PAGES = 12
DONTNEED, UNMERGEABLE, MERGEABLE = 4, 13, 12


def config(profile: str) -> Config:
    return Config(frames=256, page_size=64, profile=profile)


def outcome(engine: Engine, name: str, *args: Any) -> Any:
    try:
        return getattr(engine, name)(*args)
    except MachineError as error:
        return f"errno {error.errno}"


class Program:
    """Random operations on a dozen pages, the same for each engine."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.pids = [1]

    def range(self) -> tuple[int, int, int]:
        first = self.choose.randrange(PAGES)
        npages = self.choose.randint(1, PAGES - first)
        return self.choose.choice(self.pids), BASE + first * PAGE, npages

    def step(self) -> tuple[str, tuple[Any, ...]]:
        where, kind = self.range(), self.choose.randrange(12)
        if kind < 3:
            return "mprotect", (*where, PROT_SEAL)
        if kind < 5:
            prot = self.choose.choice((0, PROT_READ, PROT_READ | PROT_WRITE))
            return "mprotect", (*where, prot)
        if kind == 5:
            return "munmap", (where[0], where[1], min(where[2], 2))
        if kind == 6:
            return "mremap", (*where, BASE + self.choose.randrange(2 * PAGES) * PAGE)
        if kind == 7:
            return "mmap", (where[0], where[2], where[1], -1)
        if kind == 8 and len(self.pids) < 3:
            self.pids.append(len(self.pids) + 1)
            return "fork", (where[0],)
        if kind == 9:
            return "inject", ("kmem", self.choose.randint(1, 4))
        advice = self.choose.choice((DONTNEED, MERGEABLE, UNMERGEABLE))
        return "madvise", (*where, advice)


def seen(engine: Engine, pids: list[int]) -> list[Any]:
    return [(outcome(engine, "vmas", pid), engine.census()) for pid in pids]


@pytest.mark.parametrize("profile", ["6.1", "6.12", "6.18"])
def test_engines_agree(profile: str) -> None:
    for seed in range(20):
        core, oracle, program = Core(config(profile)), Oracle(config(profile)), Program(seed)
        for engine in (core, oracle):
            engine.spawn()
            engine.mmap(1, PAGES, BASE)
            outcome(engine, "write_pages", 1, BASE, b"\x01" * 64 * PAGES)
        for _ in range(30):
            name, args = program.step()
            assert outcome(core, name, *args) == outcome(oracle, name, *args), (seed, name, args)
            assert seen(core, program.pids) == seen(oracle, program.pids), (seed, name, args)
        core.close()


@pytest.mark.parametrize("make", [Core, Oracle])
def test_what_is_refused(make: Any) -> None:
    engine = make(config("6.12"))
    engine.spawn()
    engine.mmap(1, 4, BASE)
    engine.write_pages(1, BASE, b"\x07" * 64 * 4)
    engine.mprotect(1, BASE + PAGE, 2, PROT_SEAL)
    refused = "errno 1"
    assert outcome(engine, "munmap", 1, BASE, 4) == refused
    assert outcome(engine, "mprotect", 1, BASE + PAGE, 1, PROT_READ) == refused
    assert outcome(engine, "mremap", 1, BASE + PAGE, 1, BASE + 64 * PAGE) == refused
    assert outcome(engine, "madvise", 1, BASE + PAGE, 1, DONTNEED) is None  # it may be written to
    assert outcome(engine, "munmap", 1, BASE, 1) is None
    assert outcome(engine, "mprotect", 1, BASE, 4, PROT_SEAL) == "errno 12"  # a hole
    child = engine.fork(1)
    assert outcome(engine, "munmap", child, BASE + 2 * PAGE, 1) == refused
    engine.exit(1)
    assert engine.census() == []


def test_before_there_was_mseal() -> None:
    core = Core(config("6.1"))
    core.spawn()
    core.mmap(1, 1, BASE)
    assert outcome(core, "mprotect", 1, BASE, 1, PROT_SEAL) == "errno 22"
