"""Findings made small: fewer tasks, statements and pages, then fewer switches between tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from pyksm.errors import InputError
from pyksm.hunt.explore import Bounds, Explored, Found, explore, scheduled
from pyksm.hunt.shrink import shrink
from pyksm.scenario import statements as st

#: Schedules that a smaller scenario gets to go wrong in the same way.
_SCHEDULES = 400
_SHRINKS = 400


@dataclasses.dataclass(frozen=True)
class Small:
    """A scenario with the schedule that shows it, and what is wrong there."""

    scenario: st.Scenario
    found: Found


def reduce(
    scenario: st.Scenario,
    found: Found,
    bounds: Bounds,
    *,
    profile: str | None = None,
    bugs: Collection[str] = (),
    budget: int = _SHRINKS,
) -> Small:
    """A smaller scenario that is wrong in the same way: the same invariant, the same code.

    Deterministic. Each candidate is explored anew, for it has other schedules; with no more
    preemptions than were needed, or by lot as before where that takes too many.
    """
    plain = scheduled(scenario, ())
    search = _Search(found, bounds, profile, bugs)
    if search(plain) is None:
        return Small(scheduled(scenario, found.schedule), found)

    def fails(candidate: st.Scenario) -> bool:
        return search(candidate) is not None

    while True:
        smaller = shrink(plain, fails, budget)
        for candidate in _within_tasks(smaller):
            if fails(candidate):
                smaller = candidate
                break
        if smaller == plain:
            break
        plain = smaller
    last = search(plain)
    assert last is not None
    return Small(scheduled(plain, last.schedule), last)


class _Search:
    """Looks for the finding in a scenario; what it was asked already it remembers."""

    def __init__(
        self, found: Found, bounds: Bounds, profile: str | None, bugs: Collection[str]
    ) -> None:
        self._kind = (found.wrong.invariant, found.wrong.code)
        self._profile = profile
        self._bugs = bugs
        self._known: dict[str, Found | None] = {}
        exhaustive = dataclasses.replace(
            bounds,
            strategy="exhaustive",
            preemptions=min(found.preemptions, 3),
            schedules=_SCHEDULES,
            seconds=60.0,
            jobs=1,
        )
        self._ways = [exhaustive]
        if bounds.strategy != "exhaustive":
            self._ways.append(dataclasses.replace(exhaustive, strategy=bounds.strategy))

    def __call__(self, scenario: st.Scenario) -> Found | None:
        key = str(scenario)
        if key not in self._known:
            self._known[key] = self._look(scenario)
        return self._known[key]

    def _look(self, scenario: st.Scenario) -> Found | None:
        for way in self._ways:
            result = self._explored(scenario, way)
            for each in result.found if result else ():
                if (each.wrong.invariant, each.wrong.code) == self._kind:
                    return each
        return None

    def _explored(self, scenario: st.Scenario, way: Bounds) -> Explored | None:
        try:
            return explore(scenario, way, profile=self._profile, bugs=self._bugs)
        except InputError:
            return None


def _within_tasks(scenario: st.Scenario) -> Iterator[st.Scenario]:
    """A task with a statement less, or with its statements before or behind all tasks."""
    for index, task in enumerate(scenario.statements):
        if not isinstance(task, st.Task):
            continue
        for k in range(len(task.statements)):
            rest = task.statements[:k] + task.statements[k + 1 :]
            yield _replaced(scenario, index, [dataclasses.replace(task, statements=rest)], rest)
        yield _replaced(scenario, index, list(task.statements), ())
        last = task.statements[-1]
        rest = task.statements[:-1]
        shorter = _replaced(scenario, index, [dataclasses.replace(task, statements=rest)], rest)
        yield dataclasses.replace(shorter, statements=(*shorter.statements, last))


def _replaced(
    scenario: st.Scenario,
    index: int,
    by: list[st.Statement],
    statements: tuple[st.Statement, ...],
) -> st.Scenario:
    """Without the task where it would be left with nothing to do."""
    if by and isinstance(by[0], st.Task) and not statements:
        by = []
    had = scenario.statements
    return dataclasses.replace(scenario, statements=(*had[:index], *by, *had[index + 1 :]))
