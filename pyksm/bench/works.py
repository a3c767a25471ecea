"""The timed works. Each builds what it needs on a fresh machine and times one thing or several."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pyksm.bench import population
from pyksm.bench.population import PAGE, Population
from pyksm.bench.settings import PER_MM, Settings, Shape, Way
from pyksm.engine import MADV_MERGEABLE, PROT_READ, Config, Engine
from pyksm.jobs.watch import Nobody, Watch

#: rmap walks of a page whose anon_vma has many vmas: as many as the report that asked for the
#: lookup by index had.
MANY_VMAS = 20_000
_LOOKUPS = 20_000
_WALKS, _STEPS = 1000, 1_000_000


@dataclass
class Sample:
    """One timed part: what it was counted in, how many of those, how long, and all work done."""

    part: str
    unit: str
    units: int
    ns: int = 0
    cpu_ns: int = 0  #: of the thread that worked
    counters: dict[str, int] = field(default_factory=dict)
    vmstat: dict[str, int] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)

    @property
    def exact(self) -> tuple[Any, ...]:
        """What must not differ between repetitions."""
        return self.units, self.counters, self.vmstat, self.facts


@dataclass
class Bench:
    """What a work is given. ``machine`` makes the machine, and closes the one before."""

    settings: Settings
    way: Way
    shape: Shape
    watch: Watch
    make: Callable[[Config], Engine]
    samples: list[Sample] = field(default_factory=list)
    _machine: Engine | None = None
    _made: Population | None = None

    def machine(self, frames: int, **changed: Any) -> Engine:
        self.close()
        config = self.settings.config(self.way, self.shape, population.spare(frames))
        self._machine = self.make(Config(**{**vars(config), **changed}))
        return self._machine

    def populate(self, engine: Engine, shape: Shape | None = None) -> Population:
        self._made = population.build(engine, shape or self.shape, self.watch)
        return self._made

    def swap_on(self, made: Population, slots: int) -> int:
        self._made = made
        return population.swap_on(made, slots, self.settings.backend)

    def close(self) -> None:
        if self._made is not None:
            for file in self._made.files:
                file.close()
        if self._machine is not None:
            self._machine.close()
        self._made = self._machine = None

    @contextlib.contextmanager
    def timed(self, engine: Engine, part: str, unit: str, units: int) -> Iterator[Sample]:
        """The block is one sample of a part."""
        sample = Sample(part, unit, units)
        self.watch.begin(part)
        counters, vmstat = dict(engine.counters()), dict(engine.vmstat())
        had = gc.isenabled()
        gc.disable()
        try:
            cpu, begin = time.thread_time_ns(), time.perf_counter_ns()
            yield sample
            sample.ns, sample.cpu_ns = time.perf_counter_ns() - begin, time.thread_time_ns() - cpu
        finally:
            if had:
                gc.enable()
        sample.counters = _grown(counters, dict(engine.counters()))
        sample.vmstat = _grown(vmstat, dict(engine.vmstat()))
        self.samples.append(sample)


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in after.items() if n != before[name]}


def swapoff(bench: Bench) -> None:
    """The swapoff of an area that holds the whole population."""
    engine = bench.machine(bench.shape.frames)
    made = bench.populate(engine)
    scans = 0
    if bench.shape.kind == "ksm":
        population.advise(made)
        scans = population.merge(made, bench.watch)
    in_use = engine.config.frames - engine.free_frames()
    area = bench.swap_on(made, in_use)
    slots = population.swap_out(made, area, bench.watch)
    with bench.timed(engine, "swapoff", "pte", bench.shape.ptes) as sample:
        engine.swapoff(area)
    sample.facts["slots"] = slots
    if scans:
        sample.facts["scans_before"] = scans


def scan(bench: Bench) -> None:
    """ksmd's first merge: full scans until nothing more gets merged."""
    engine = bench.machine(bench.shape.frames)
    made = bench.populate(engine)
    population.advise(made)
    with bench.timed(engine, "first merge", "pte", bench.shape.ptes) as sample:
        sample.facts["scans"] = population.merge(made, Nobody())
    for name in ("pages_shared", "pages_sharing"):
        sample.facts[name] = engine.ksm_read(name)


def fault(bench: Bench) -> None:
    """First writes, and writes to what is shared: copy on write after a fork, or of KSM pages."""
    if bench.shape.kind == "ksm":
        _fault_ksm(bench)
        return
    engine = bench.machine(bench.shape.frames * 2)
    _use_frames(engine, bench.shape.frames * 2)
    each = bench.shape.per_proc
    members = []
    for _ in range(bench.shape.procs):
        pid = engine.spawn()
        members.append((pid, engine.mmap(pid, each)))
    with bench.timed(engine, "first write", "pte", bench.shape.ptes):
        for pid, addr in members:
            engine.touch(pid, addr, each, True)
    children = [(engine.fork(pid), addr) for pid, addr in members]
    with bench.timed(engine, "copy on write", "pte", bench.shape.ptes):
        for pid, addr in children:
            engine.touch(pid, addr, each, True)
    with bench.timed(engine, "write by the last owner", "pte", bench.shape.ptes):
        for pid, addr in members:
            engine.touch(pid, addr, each, True)


def _fault_ksm(bench: Bench) -> None:
    engine = bench.machine(bench.shape.frames)
    made = bench.populate(engine)
    population.advise(made)
    population.merge(made, bench.watch)
    with bench.timed(engine, "copy on write, KSM", "pte", bench.shape.ptes):
        for pid, addr, npages in made.ranges():
            engine.touch(pid, addr, npages, True)


def _use_frames(engine: Engine, frames: int) -> None:
    """Let so many frames be used once and come back, so that the host's memory is behind them."""
    pid = engine.spawn()
    engine.touch(pid, engine.mmap(pid, frames), frames, True)
    engine.exit(pid)


def fork(bench: Bench) -> None:
    """fork() of every process of the population, whose children then exit."""
    engine = bench.machine(bench.shape.frames)
    made = bench.populate(engine)
    if bench.shape.kind == "ksm":
        population.advise(made)
        population.merge(made, bench.watch)
    for _ in range(2):  # the tables that the first children leave are those of the second
        children = []
        with bench.timed(engine, "fork", "pte", bench.shape.ptes):
            for pid, _addr in made.members:
                children.append(engine.fork(pid))
        with bench.timed(engine, "exit", "pte", bench.shape.ptes):
            for pid in children:
                engine.exit(pid)
    del bench.samples[-4:-2]


def rmap(bench: Bench) -> None:
    """rmap walks: of one KSM page that all ptes share, with and without a limit to sharing; and of
    one whose anon_vma has many vmas, by each of the lookups that there are."""
    _rmap_shared(bench, None, "one KSM page, no max_page_sharing")
    if "max-page-sharing" in bench.way.features:
        _rmap_shared(bench, 256, "one KSM page, max_page_sharing=256")
    for on, name in ((False, "whole tree"), (True, "by index")):
        _rmap_vmas(bench, on, f"{MANY_VMAS:,} vmas, {name}")


def _rmap_shared(bench: Bench, limit: int | None, part: str) -> None:
    shape = bench.shape
    engine = bench.machine(shape.frames)
    if "max-page-sharing" in engine.config.features:
        engine.ksm_write("max_page_sharing", limit or max(2, shape.sharing + 1))
    made = bench.populate(engine)
    population.advise(made)
    population.merge(made, bench.watch)
    pid, addr = made.members[0]
    sample = _timed_walks(bench, engine, part, pid, addr, shape.sharing)
    counts = engine.ksm_counts()
    for name in ("pages_shared", "pages_sharing", "stable_node_chains", "stable_node_dups"):
        if name in counts:
            sample.facts[name] = counts[name]


def _timed_walks(
    bench: Bench, engine: Engine, part: str, pid: int, addr: int, steps: int
) -> Sample:
    """Walks of one page, as many as make the call's own cost small; what was found by each."""
    walks = max(1, min(_WALKS, _STEPS // steps))
    found = engine.rmap_walk(pid, addr)
    walk = engine.rmap_walk
    with bench.timed(engine, part, "walk", walks) as sample:
        for _ in range(walks):
            walk(pid, addr)
    sample.facts["ptes_found"] = found
    return sample


def _rmap_vmas(bench: Bench, by_index: bool, part: str) -> None:
    """Two pages that are one by KSM, one of them among many vmas of one anon_vma."""
    on = frozenset({"ksm-rmap-by-index"}) if by_index else frozenset()
    engine = bench.machine(MANY_VMAS + 2, on=on)
    size = bench.shape.page_bytes
    pid = engine.spawn()
    addr = engine.mmap(pid, MANY_VMAS)
    engine.touch(pid, addr, MANY_VMAS, True)
    other = engine.spawn()
    there = engine.mmap(other, 1)
    shared = addr + MANY_VMAS // 2 * PAGE
    for who, at in ((pid, shared), (other, there)):
        engine.write_pages(who, at, b"\x5a" * size)
        engine.madvise(who, at, 1, MADV_MERGEABLE)
    population.merge(Population(engine, Shape(2, 2, "ksm", 2, size)), bench.watch)
    for page in range(0, MANY_VMAS, 2):
        if (at := addr + page * PAGE) != shared:
            engine.mprotect(pid, at, 1, PROT_READ)
    sample = _timed_walks(bench, engine, part, pid, shared, 1 if by_index else MANY_VMAS)
    sample.facts["vmas"] = MANY_VMAS


def walk(bench: Bench) -> None:
    """The four elementary things, each of which has a limit of its own."""
    _walk_tables(bench)
    _walk_anon_vma(bench)
    _walk_swap_map(bench)
    _walk_copy(bench)


def _walk_tables(bench: Bench) -> None:
    """Swapoff of one page whose pte is the last of many that are present."""
    npages = bench.shape.ptes
    engine = bench.machine(npages)
    pid = engine.spawn()
    addr = engine.mmap(pid, npages)
    last = addr + (npages - 1) * PAGE
    engine.write_pages(pid, last, b"\x5a" * bench.shape.page_bytes)
    made = Population(engine, Shape(1, 1, "distinct", 1, bench.shape.page_bytes), [(pid, last)])
    area = bench.swap_on(made, 1)
    population.swap_out(made, area, bench.watch)
    engine.touch(pid, addr, npages - 1, True)
    with bench.timed(engine, "page-table walk", "pte", npages):
        engine.swapoff(area)


def _walk_anon_vma(bench: Bench) -> None:
    """rmap walks of pages here and there, each in one of many vmas of one anon_vma."""
    vmas = bench.shape.ptes
    engine = bench.machine(vmas)
    pid = engine.spawn()
    addr = engine.mmap(pid, vmas)
    engine.touch(pid, addr, vmas, True)
    for page in range(0, vmas, 2):
        engine.mprotect(pid, addr + page * PAGE, 1, PROT_READ)
    pages = population.words(0, min(_LOOKUPS, vmas), 1 << 40) % vmas
    places = [addr + int(page) * PAGE for page in pages]
    with bench.timed(engine, "anon_vma lookup", "lookup", len(places)) as sample:
        for place in places:
            engine.rmap_walk(pid, place)
    sample.facts["vmas"] = vmas
    sample.facts["tree_depth"] = max(1, vmas.bit_length())


def _walk_swap_map(bench: Bench) -> None:
    """Swapoff of an area with one slot in use, behind many that are free; entry by entry, because
    swapoff that goes mm by mm looks at swap_map only for what no mm has."""
    slots = bench.shape.ptes
    engine = bench.machine(slots, off=frozenset({PER_MM}))
    size = bench.shape.page_bytes
    gone = Population(engine, Shape(max(1, slots - 1), 1, "distinct", 1, size))
    pid = engine.spawn()
    addr = engine.mmap(pid, slots - 1)
    engine.touch(pid, addr, slots - 1, True)
    gone.members.append((pid, addr))
    area = bench.swap_on(gone, slots)
    one = Shape(1, 1, "distinct", 1, size)
    population.swap_out(gone, area, bench.watch)
    last = Population(engine, one, [(engine.spawn(), 0)], gone.files)
    other = last.members[0][0]
    there = engine.mmap(other, 1)
    last.members[0] = (other, there)
    engine.write_pages(other, there, b"\x5a" * size)
    population.swap_out(last, area, bench.watch)
    engine.exit(pid)
    with bench.timed(engine, "swap_map scan", "slot", slots):
        engine.swapoff(area)


def _walk_copy(bench: Bench) -> None:
    """The copy on write of a child's whole memory."""
    npages = bench.shape.ptes
    engine = bench.machine(npages * 2)
    _use_frames(engine, npages * 2)
    pid = engine.spawn()
    addr = engine.mmap(pid, npages)
    engine.touch(pid, addr, npages, True)
    child = engine.fork(pid)
    with bench.timed(engine, "page copy", "pte", npages):
        engine.touch(child, addr, npages, True)


WORKS: dict[str, Callable[[Bench], None]] = {
    "swapoff": swapoff,
    "scan": scan,
    "fault": fault,
    "fork": fork,
    "rmap": rmap,
    "walk": walk,
}
