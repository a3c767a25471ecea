"""The hunter: small scenarios at random, some schedules of each, judged; what is wrong is shrunk.

With a bug of the museum switched in, only what goes away without it counts.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyksm import bugs as museum
from pyksm.errors import InputError, MachineError
from pyksm.hunt import small
from pyksm.hunt.explore import Bounds, Explored, Found, explore
from pyksm.hunt.reduce import Small, reduce
from pyksm.scenario import Scenario

#: Schedules that a scenario with tasks gets, by strategy: most races need one switch.
SCHEDULES = {"exhaustive": 120, "pct": 30, "random": 30}
#: Seeds of one worker are so far apart that none is tried twice.
_FAR = 10**9


@dataclass(frozen=True)
class Hunted:
    """A finding of the hunter: the scenario as it was made and as it was shrunk."""

    seed: int
    scenario: Scenario
    found: Found
    strategy: str
    small: Small | None = None


@dataclass(frozen=True)
class Hunt:
    """What a hunt came to. ``others``: findings that a bug's switch had no part in."""

    scenarios: int
    schedules: int
    steps: int
    seconds: float
    hunted: Hunted | None
    others: int = 0


@dataclass
class _Counts:
    scenarios: int = 0
    schedules: int = 0
    steps: int = 0
    others: int = 0


def hunt(
    *,
    bugs: Sequence[str] = (),
    profile: str | None = None,
    seconds: float = 60.0,
    scenarios: int = 2**62,
    seed: int = 0,
    jobs: int = 1,
    strategies: Sequence[str] = ("exhaustive", "pct"),
    shrink: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Hunt:
    """Make and try scenarios for so long, or until something is wrong.

    Scenario k is that of seed + k; with more ``jobs`` (processes) whoever is first has found it.
    """
    begin = time.monotonic()
    chase = _Chase(tuple(bugs), profile, tuple(strategies), begin + seconds)
    if jobs == 1:
        hunted = chase.run(range(seed, seed + min(scenarios, _FAR)), progress)
        counts = chase.counts
    else:
        hunted, counts = _in_parallel(chase, seed, scenarios, jobs, progress)
    if hunted is not None and shrink:
        hunted = replace(hunted, small=chase.shrunk(hunted))
    return Hunt(
        counts.scenarios,
        counts.schedules,
        counts.steps,
        time.monotonic() - begin,
        hunted,
        counts.others,
    )


class _Chase:
    """One worker's part."""

    def __init__(
        self, bugs: tuple[str, ...], profile: str | None, strategies: tuple[str, ...], end: float
    ) -> None:
        self._bugs = bugs
        self._rows = tuple(museum.find(name) for name in bugs)
        self._profile = profile
        self._strategies = strategies
        self._end = end
        self.counts = _Counts()

    def run(
        self, seeds: Sequence[int], progress: Callable[[int], None] | None = None
    ) -> Hunted | None:
        """The first of these seeds' scenarios that is wrong."""
        for seed in seeds:
            if time.monotonic() >= self._end:
                return None
            if progress is not None and not self.counts.scenarios % 50:
                progress(self.counts.scenarios)
            hunted = self.tried(seed)
            if hunted is not None:
                return hunted
        return None

    def tried(self, seed: int) -> Hunted | None:
        """That seed's scenario, by each strategy until it is wrong."""
        scenario = small.seeded(seed, self._profile, self._rows)
        self.counts.scenarios += 1
        for strategy in self._strategies if scenario.groups else self._strategies[:1]:
            found = self._wrong(scenario, self._bounds(strategy, seed))
            if found is not None:
                return Hunted(seed, scenario, found, strategy)
        return None

    def _bounds(self, strategy: str, seed: int) -> Bounds:
        return Bounds(
            strategy=strategy,
            schedules=SCHEDULES[strategy],
            preemptions=2 if seed % 5 == 0 else 1,
            seed=seed,
            depth=2 + seed % 3,
        )

    def _wrong(self, scenario: Scenario, bounds: Bounds) -> Found | None:
        result = self._explored(scenario, bounds, self._bugs)
        if result is None or not result.found:
            return None
        if not self._bugs:
            return result.found[0]
        for each in result.found:
            if not self._without(scenario, bounds, each):
                return each
        self.counts.others += 1
        return None

    def _without(self, scenario: Scenario, bounds: Bounds, found: Found) -> bool:
        """Whether it is wrong in the same way without the bugs."""
        plain = self._explored(scenario, replace(bounds, stop=False), ())
        if time.monotonic() >= self._end:
            return True  # there was no time to say that it is not
        kinds = {(each.wrong.invariant, each.wrong.code) for each in plain.found} if plain else ()
        return (found.wrong.invariant, found.wrong.code) in kinds

    def _explored(self, scenario: Scenario, bounds: Bounds, bugs: Sequence[str]) -> Explored | None:
        left = max(0.1, self._end - time.monotonic())
        try:
            result = explore(scenario, replace(bounds, seconds=left), bugs=bugs)
        except (InputError, MachineError):
            return None
        self.counts.schedules += result.schedules
        self.counts.steps += result.steps
        return result

    def shrunk(self, hunted: Hunted) -> Small:
        """The finding made small."""
        bounds = self._bounds(hunted.strategy, hunted.seed)
        made = reduce(hunted.scenario, hunted.found, bounds, bugs=self._bugs)
        return replace(made, scenario=made.scenario.on(bugs=self._bugs))


def _in_parallel(
    chase: _Chase,
    seed: int,
    scenarios: int,
    jobs: int,
    progress: Callable[[int], None] | None,
) -> tuple[Hunted | None, _Counts]:
    """Worker j of n takes seeds j, j + n, j + 2n ...; the first that finds something ends all."""
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    stop: Any = context.Event()
    last = seed + min(scenarios, _FAR)
    workers = [
        context.Process(
            target=_work,
            args=(chase, range(seed + k, last, jobs), results, stop),
            daemon=True,
        )
        for k in range(jobs)
    ]
    for each in workers:
        each.start()
    counts, hunted, left = _Counts(), None, jobs
    while left:
        try:
            one, part = results.get(timeout=1.0)
        except queue.Empty:
            if not any(each.is_alive() for each in workers):
                break
            continue
        left -= 1
        for name, value in vars(part).items():
            setattr(counts, name, getattr(counts, name) + value)
        if one is not None and (hunted is None or one.seed < hunted.seed):
            hunted = one
        if one is not None:
            stop.set()
        if progress is not None:
            progress(counts.scenarios)
    for each in workers:
        each.join(timeout=5.0)
    return hunted, counts


def _work(chase: _Chase, seeds: Sequence[int], results: Any, stop: Any) -> None:
    hunted = None
    try:
        for seed in seeds:
            if stop.is_set() or time.monotonic() >= chase._end:
                break
            hunted = chase.tried(seed)
            if hunted is not None:
                break
    finally:
        results.put((hunted, chase.counts))
