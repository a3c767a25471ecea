"""Every repetition of every size of every series, and what came out so far."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from pyksm.bench import memory
from pyksm.bench.limits import Limits, apart, better, measure
from pyksm.bench.memory import Use
from pyksm.bench.settings import Settings, Shape, Way
from pyksm.bench.works import WORKS, Bench, Sample
from pyksm.engine import Config, Engine
from pyksm.errors import PyksmError
from pyksm.jobs.watch import Watch


@dataclass
class Run:
    """One part of the work at one size in one series, all its repetitions."""

    way: Way
    shape: Shape
    part: str
    samples: list[Sample] = field(default_factory=list)
    use: Use | None = None  #: of the first repetition

    @property
    def first(self) -> Sample:
        return self.samples[0]

    @property
    def ns(self) -> float:
        return statistics.median(each.ns for each in self.samples)

    @property
    def cpu_ns(self) -> float:
        return statistics.median(each.cpu_ns for each in self.samples)

    def cost(self, ns: float) -> float:
        """What grows with the size: of walks that are repeated one, of all else the whole."""
        return ns / self.first.units if self.first.unit in ("walk", "lookup") else ns

    @property
    def ns_per_unit(self) -> float:
        return self.ns / self.first.units


@dataclass
class Results:
    """What there is so far: whole until ``interrupted``."""

    settings: Settings
    limits: Limits | None = None
    runs: list[Run] = field(default_factory=list)
    interrupted: bool = False
    limits_apart: float = 1.0  #: how much those before and those after the work differ

    def add(self, way: Way, shape: Shape, sample: Sample, use: Use) -> None:
        """One more repetition; PyksmError where its work differs from the first one's."""
        for run in self.runs:
            if (run.way, run.shape, run.part) == (way, shape, sample.part):
                _require_same(run, sample)
                run.samples.append(sample)
                return
        self.runs.append(Run(way, shape, sample.part, [sample], use))


def _require_same(run: Run, sample: Sample) -> None:
    if sample.exact == run.first.exact:
        return
    for what in ("counters", "vmstat", "facts"):
        before, now = getattr(run.first, what), getattr(sample, what)
        for name in sorted({*before, *now}):
            if before.get(name, 0) != now.get(name, 0):
                raise PyksmError(
                    f"{run.part} of {run.shape.ptes:,} ptes, {run.way.label}: {name} is "
                    f"{now.get(name, 0):,} in repetition {len(run.samples) + 1} and was "
                    f"{before.get(name, 0):,} before; expected the same work each time"
                )
    raise PyksmError(f"{run.part}: {sample.units:,} units, {run.first.units:,} before")


def run(results: Results, make: Callable[[Config], Engine], watch: Watch) -> None:
    """Do it all; ``results`` has at any time what is done."""
    settings = results.settings
    results.limits = before = _limits(settings, watch)
    for shape in settings.shapes:
        for way in settings.ways:
            times = settings.repetitions(shape)
            for k in range(times):
                where = f"{way.label}, {shape.ptes:,} ptes, {k + 1} of {times}"
                repetition(results, way, shape, make, _Labelled(watch, where))
    after = _limits(settings, watch)
    results.limits_apart, results.limits = apart(before, after), better(before, after)


def _limits(settings: Settings, watch: Watch) -> Limits:
    watch.begin("measure the limits of this host")
    return measure(settings.shapes[0].page_bytes, settings.limit_bytes)


class _Labelled:
    """A watch that also says which repetition it is."""

    def __init__(self, watch: Watch, where: str) -> None:
        self.live = watch.live
        self._watch, self._where = watch, where

    def begin(self, phase: str) -> None:
        self._watch.begin(f"{self._where}: {phase}")

    def advance(self, done: int, total: int) -> None:
        self._watch.advance(done, total)


def repetition(
    results: Results, way: Way, shape: Shape, make: Callable[[Config], Engine], watch: Watch
) -> None:
    """One repetition on machines of its own."""
    settings = results.settings
    bench = Bench(settings, way, shape, watch, make)
    before = memory.begin()
    try:
        WORKS[settings.what](bench)
        frames, slots = memory.frames_of(settings, shape), memory.slots_of(settings, shape)
        pages = frames + (slots if settings.backend == "memory" else 0)
        use = memory.used(before, shape.page_bytes, pages)
    finally:
        bench.close()
    for sample in bench.samples:
        results.add(way, shape, sample, use)
