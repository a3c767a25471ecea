"""Random programs on the engine interface itself, for what the scenario language cannot say.

Mappings that adjoin, wild addresses and numbers, byte ranges across pages, batches of ksmd, short
pages. Two engines given the same seed must log the same.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

from pyksm.engine import FAULT_KINDS, POLICIES, Config, Engine, policies_of
from pyksm.errors import MachineError
from pyksm.profiles import PROFILES, effective

PAGE = 4096
BASE = 4 << 30
#: Where things are mapped: next to each other, and on both sides of a page table's end.
WINDOW = [BASE + k * PAGE for k in (*range(14), *range(506, 518))]
WILD = (0, 1, BASE + 1, 1 << 47, (1 << 47) - PAGE, 1 << 63, (1 << 64) - PAGE, 1 << 70, -PAGE)

Log = list[tuple[str, tuple[Any, ...], Any, Any]]


def config(seed: int) -> Config:
    choose = random.Random(seed)
    profile = random.Random(f"profile of {seed}").choice(list(PROFILES))
    made = Config(
        nodes=choose.choice((1, 2, 3)),
        frames=choose.choice((12, 30, 512, 512)),
        page_size=choose.choice((4096, 4096, 64, 8)),
        profile=profile,
        policy=choose.choice((*POLICIES, POLICIES[0])),
    )
    if made.policy in policies_of(effective(profile)):
        return made
    return dataclasses.replace(made, policy=POLICIES[0])


class Player:
    """Plays the program of a seed on an engine and keeps the log."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.choose = random.Random(f"direct {seed}")
        self.log: Log = []
        self.pids: list[int] = []
        self.types: list[int] = []

    def play(self, steps: int) -> Log:
        for _ in range(3):
            self.one(self.spawn)
            self.one(self.mmap)
        for _ in range(steps):
            self.one(self.choose.choice(OPERATIONS))
        return self.log

    def one(self, operation: Callable[..., tuple[str, tuple[Any, ...]]]) -> None:
        name, args = operation(self) if operation in OPERATIONS else operation()
        try:
            result = getattr(self.engine, name)(*args)
        except MachineError as error:
            result = f"errno {error.errno}"
        self.note(name, args, result)
        self.log.append((name, args, result, self.state()))

    def note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name in ("spawn", "fork") and isinstance(result, int):
            self.pids.append(result)
        elif name == "exit" and result is None:
            self.pids.remove(args[0])
        elif name == "swapon" and isinstance(result, int):
            self.types.append(result)
        elif name == "swapoff" and result is None:
            self.types.remove(args[0])

    def state(self) -> Any:
        engine = self.engine
        vmas = {pid: engine.vmas(pid) for pid in engine.processes()}
        return {
            "vmas": {pid: [dataclasses.astuple(v) for v in each] for pid, each in vmas.items()},
            "pages": {
                pid: [
                    dataclasses.astuple(page)
                    for vma in each
                    for page in engine.pagemap(pid, vma.start, (vma.end - vma.start) // PAGE)
                ]
                for pid, each in vmas.items()
            },
            "areas": [dataclasses.astuple(area) for area in engine.areas()],
            "ksm": dict(engine.ksm_counts()),
            "free": [engine.free_frames(node) for node in range(engine.config.nodes)],
            "peak": engine.peak_frames(),
            "cached": engine.swapcached(),
            "counters": dict(engine.counters()),
            "vmstat": dict(engine.vmstat()),
            "events": engine.events(),
            "census": sorted(line.partition(":")[0] for line in engine.census()),
        }

    # choices

    def pid(self) -> int:
        if self.pids and self.choose.random() < 0.97:
            return self.choose.choice(self.pids)
        return self.choose.choice((0, -1, 99, 1 << 40))

    def addr(self) -> int:
        return self.choose.choice(WINDOW if self.choose.random() < 0.96 else WILD)

    def npages(self) -> int:
        if self.choose.random() < 0.97:
            return self.choose.randint(1, 6)
        return self.choose.choice((0, -1, 1 << 36, 1 << 52, 1 << 64))

    def range(self) -> tuple[int, int, int]:
        return self.pid(), self.addr(), self.npages()

    def node(self) -> int:
        return self.choose.choice((-1, -1, -1, -1, -1, -1, 0, 0, 1, 1, 2, 7, -2))

    def content(self, length: int) -> bytes:
        return bytes([self.choose.choice((0, 1, 1, 1, 2, 3))]) * length

    # operations: each gives the engine's method and its arguments

    def spawn(self) -> tuple[str, tuple[Any, ...]]:
        return "spawn", ()

    def fork(self) -> tuple[str, tuple[Any, ...]]:
        return ("fork", (self.pid(),)) if len(self.pids) < 6 else self.exit()

    def exit(self) -> tuple[str, tuple[Any, ...]]:
        return "exit", (self.pid(),)

    def mmap(self) -> tuple[str, tuple[Any, ...]]:
        addr = self.addr() if self.choose.random() < 0.95 else 0
        return "mmap", (self.pid(), self.npages(), addr, self.node())

    def munmap(self) -> tuple[str, tuple[Any, ...]]:
        return "munmap", self.range()

    def mprotect(self) -> tuple[str, tuple[Any, ...]]:
        return "mprotect", (*self.range(), self.choose.choice((0, 1, 2, 3, 3, 3, 4)))

    def mlock(self) -> tuple[str, tuple[Any, ...]]:
        return self.choose.choice(("mlock", "mlock", "munlock")), self.range()

    def mremap(self) -> tuple[str, tuple[Any, ...]]:
        return "mremap", (*self.range(), self.addr())

    def madvise(self) -> tuple[str, tuple[Any, ...]]:
        return "madvise", (*self.range(), self.choose.choice((12, 12, 12, 13, 4, 3, 21, 0, -5)))

    def write_pages(self) -> tuple[str, tuple[Any, ...]]:
        pages = self.choose.randint(1, 6)
        return "write_pages", (self.pid(), self.addr(), self.content(pages * self.size))

    def read_pages(self) -> tuple[str, tuple[Any, ...]]:
        return "read_pages", (self.pid(), self.addr(), self.choose.randint(1, 6))

    def write(self) -> tuple[str, tuple[Any, ...]]:
        offset = self.choose.choice((0, 3, self.size - 1, self.size))
        data = self.content(self.choose.choice((0, 1, 5, self.size)))
        return "write", (self.pid(), self.addr() + offset, data)

    def read(self) -> tuple[str, tuple[Any, ...]]:
        offset = self.choose.choice((0, 3, self.size - 1))
        return "read", (self.pid(), self.addr() + offset, self.choose.choice((0, 1, 5, self.size)))

    def touch(self) -> tuple[str, tuple[Any, ...]]:
        return "touch", (*self.range(), self.choose.random() < 0.5)

    def pin(self) -> tuple[str, tuple[Any, ...]]:
        return "pin", self.range()

    def unpin(self) -> tuple[str, tuple[Any, ...]]:
        return "unpin", self.range()

    def migrate(self) -> tuple[str, tuple[Any, ...]]:
        return "migrate", (*self.range(), self.node())

    def swapon(self) -> tuple[str, tuple[Any, ...]]:
        npages = self.choose.choice((0, 1, 2, 5, 20, 40, 40))
        return "swapon", (npages, self.choose.choice((-1, -1, 3, 3, 32767, 32768, -2)))

    def type(self) -> int:
        known = self.types and self.choose.random() < 0.95
        return self.choose.choice(self.types if known else (-1, 5, 1 << 40))

    def swapoff(self) -> tuple[str, tuple[Any, ...]]:
        return "swapoff", (self.type(),)

    def swap_map(self) -> tuple[str, tuple[Any, ...]]:
        name = self.choose.choice(("swap_map", "swap_count"))
        return name, (self.type(), self.choose.choice((0, 1, 2, 3, 50, -1, 1 << 65)))

    def swapout(self) -> tuple[str, tuple[Any, ...]]:
        ranges = [self.range() for _ in range(self.choose.choice((0, 0, 1, 2)))]
        return "swapout", (ranges,)

    def ksm_write(self) -> tuple[str, tuple[Any, ...]]:
        keys = ("run", "run", "merge_across_nodes", "pages_to_scan", "full_scans", "nothing")
        value = self.choose.choice((0, 1, 2, 2, 3, -1, 1 << 32, 1 << 70))
        return "ksm_write", (self.choose.choice(keys), value)

    def ksm_scan(self) -> tuple[str, tuple[Any, ...]]:
        return "ksm_scan", (self.choose.choice((0, 1, 2, 3)),)

    def ksm_do_scan(self) -> tuple[str, tuple[Any, ...]]:
        return "ksm_do_scan", (self.choose.choice((0, 1, 2, 7, 30)),)

    def rmap_walk(self) -> tuple[str, tuple[Any, ...]]:
        return "rmap_walk", (self.pid(), self.addr())

    def inject(self) -> tuple[str, tuple[Any, ...]]:
        return "inject", (self.choose.choice((*FAULT_KINDS[:5], "none")), self.choose.randint(0, 9))

    @property
    def size(self) -> int:
        return self.engine.config.page_size


_WEIGHTS: dict[Callable[[Player], tuple[str, tuple[Any, ...]]], int] = {
    Player.spawn: 1,
    Player.fork: 6,
    Player.exit: 1,
    Player.mmap: 16,
    Player.munmap: 4,
    Player.mprotect: 7,
    Player.mlock: 7,
    Player.mremap: 6,
    Player.madvise: 12,
    Player.write_pages: 14,
    Player.read_pages: 3,
    Player.write: 6,
    Player.read: 4,
    Player.touch: 5,
    Player.pin: 2,
    Player.unpin: 2,
    Player.migrate: 4,
    Player.swapon: 4,
    Player.swapoff: 4,
    Player.swap_map: 3,
    Player.swapout: 8,
    Player.ksm_write: 3,
    Player.ksm_scan: 6,
    Player.ksm_do_scan: 5,
    Player.inject: 2,
    Player.rmap_walk: 2,
}
OPERATIONS = [operation for operation, weight in _WEIGHTS.items() for _ in range(weight)]


def play(make: Callable[[Config], Engine], seed: int, steps: int = 60) -> Log:
    """The log of the program of that seed on a fresh machine."""
    machine = make(config(seed))
    try:
        return Player(machine, seed).play(steps)
    finally:
        machine.close()


def differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """Where two states differ, path by path."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            yield from differences(left.get(key), right.get(key), f"{path}/{key}")
    elif left != right:
        yield f"{path}: {left!r:.300} != {right!r:.300}"


def first_difference(left: Log, right: Log) -> str | None:
    """The first step at which two logs part, and how; None where they agree."""
    for number, (one, other) in enumerate(zip(left, right, strict=True)):
        if one != other:
            head = f"step {number}: {one[0]}{one[1]}"
            if one[:2] != other[:2]:
                return f"{head}: the other did {other[0]}{other[1]}"
            if one[2] != other[2]:
                return f"{head}: {one[2]!r:.300} != {other[2]!r:.300}"
            return f"{head}: {sorted(differences(one[3], other[3]))[:6]}"
    return None
