"""Delta debugging of scenarios: fewer statements, then simpler ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from pyksm.errors import InputError
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Value

Fails = Callable[[st.Scenario], bool]


def shrink(scenario: st.Scenario, fails: Fails, budget: int = 2000) -> st.Scenario:
    """A smaller scenario for which ``fails`` still holds; asks it at most ``budget`` times.

    Deterministic. ``scenario`` itself must fail.
    """
    left = [budget]

    def still(candidate: st.Scenario) -> bool:
        left[0] -= 1
        try:
            return left[0] >= 0 and fails(candidate)
        except InputError:  # there is no such machine
            return False

    while left[0] > 0:
        smaller = _simplified(_without(scenario, still), still)
        if smaller == scenario:
            break
        scenario = smaller
    return scenario


def _with(scenario: st.Scenario, body: list[st.Statement]) -> st.Scenario:
    head = scenario.statements[: len(scenario.statements) - len(scenario.body)]
    return dataclasses.replace(scenario, statements=(*head, *body))


def _without(scenario: st.Scenario, still: Fails) -> st.Scenario:
    """Leave out runs of statements, halves first, then quarters, down to single ones."""
    body = list(scenario.body)
    size = max(1, len(body) // 2)
    while True:
        at = 0
        while at < len(body):
            candidate = body[:at] + body[at + size :]
            if still(_with(scenario, candidate)):
                body = candidate
            else:
                at += size
        if size == 1:
            return _with(scenario, body)
        size //= 2


def _simplified(scenario: st.Scenario, still: Fails) -> st.Scenario:
    """Simpler statements one by one, and the plain machine if that will do."""
    for machine in _simpler_machines(scenario.machine):
        candidate = dataclasses.replace(scenario, statements=(machine, *scenario.body))
        if still(candidate):
            scenario = candidate
    for index in range(len(scenario.body)):
        for simpler in _simpler(scenario.body[index]):
            body = list(scenario.body)
            body[index] = simpler
            candidate = _with(scenario, body)
            if still(candidate):
                scenario = candidate
                break
    return scenario


def _simpler_machines(machine: st.Machine) -> Iterator[st.Machine]:
    plain = st.Machine()
    for name in ("nodes", "frames", "policy", "bugs", "on", "off", "profile"):
        if getattr(machine, name) != getattr(plain, name):
            yield dataclasses.replace(machine, **{name: getattr(plain, name)})


def _simpler(statement: st.Statement) -> Iterator[st.Statement]:
    """Variants with fewer pages, plain values, smaller numbers; the simplest first."""
    if isinstance(statement, st.At):
        yield from _fewer(statement, "nth")
        for inner in _simpler(statement.statement):
            yield dataclasses.replace(statement, statement=inner)
        return
    pages = getattr(statement, "pages", None)
    if isinstance(pages, Pages):
        yield from (_replaced(statement, pages=each) for each in _fewer_pages(pages))
    if isinstance(statement, st.Write) and statement.value.step:
        yield dataclasses.replace(statement, value=Value(statement.value.base))
    for name in ("npages", "count", "nth"):
        if hasattr(statement, name):
            yield from _fewer(statement, name)


def _fewer_pages(pages: Pages) -> Iterator[Pages]:
    """The first page of the region, then the first of these pages."""
    for start in dict.fromkeys((0, pages.start or 0)):
        if (pages.start, pages.stop) != (start, start + 1) and start <= (pages.start or 0):
            yield Pages(pages.region, start, start + 1)


def _replaced(statement: st.Statement, **changes: object) -> st.Statement:
    return dataclasses.replace(statement, **changes)  # type: ignore[arg-type]


def _fewer(statement: st.Statement, name: str) -> Iterator[st.Statement]:
    value = getattr(statement, name)
    for smaller in dict.fromkeys((1, value // 2, value - 1)):
        if 0 < smaller < value:
            yield _replaced(statement, **{name: smaller})
