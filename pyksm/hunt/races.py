"""Races, found by trying every schedule point and every time that it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.scenario import Run, engines, run
from pyksm.scenario import statements as st


@dataclass(frozen=True)
class Schedule:
    """A schedule at which something goes wrong, and the scenario that replays it.

    ``violations`` are the lines of the census at the end, ``events`` what the kernel would have
    said on the way.
    """

    point: str
    nth: int
    scenario: st.Scenario
    violations: tuple[str, ...]
    events: tuple[str, ...]


def points(
    prefix: Sequence[st.Statement],
    victim: st.Statement,
    *,
    engine: str | engines.Factory = "core",
    machine: st.Machine | None = None,
) -> dict[str, int]:
    """How often ``victim``, carried out after ``prefix``, reaches each schedule point."""
    counts: Counter[str] = Counter()
    made = engines.build(engine, engines.config(machine or st.Machine(), None))
    try:
        under_way = Run(made)
        under_way.all(prefix)
        made.set_hook(lambda point: counts.update([point]))
        under_way.step(victim)
        made.set_hook(None)
    finally:
        made.close()
    return dict(counts)


def schedules(
    prefix: Sequence[st.Statement],
    victim: st.Statement,
    intruder: st.Statement,
    suffix: Sequence[st.Statement] = (),
    *,
    engine: str | engines.Factory = "core",
    machine: st.Machine | None = None,
    strict: bool = True,
) -> Iterator[tuple[str, int, st.Scenario]]:
    """Every scenario in which ``intruder`` runs once somewhere inside ``victim``."""
    machine = machine or st.Machine()
    census = st.Census("strict" if strict else None)
    for point, times in points(prefix, victim, engine=engine, machine=machine).items():
        for nth in range(1, times + 1):
            at = st.At(point, nth, intruder)
            body = (machine, *prefix, at, victim, *suffix, census)
            yield point, nth, st.Scenario(body, f"{point}-{nth}")


def find_schedule(
    prefix: Sequence[st.Statement],
    victim: st.Statement,
    intruder: st.Statement,
    suffix: Sequence[st.Statement] = (),
    *,
    engine: str | engines.Factory = "core",
    machine: st.Machine | None = None,
    strict: bool = True,
) -> list[Schedule]:
    """The schedules of ``intruder`` inside ``victim`` at which something goes wrong.

    Wrong is: the census at the end (``strict`` or not) finds something, or an event was said
    from ``victim`` on. Points in the order in which they are first reached.
    """
    found = []
    for point, nth, scenario in schedules(
        prefix, victim, intruder, suffix, engine=engine, machine=machine, strict=strict
    ):
        results = run(scenario, engine)["results"]
        violations = tuple(results[-1]["violations"])
        events = tuple(_events(results[len(prefix) + 1 :]))
        if violations or events:
            found.append(Schedule(point, nth, scenario, violations, events))
    return found


def _events(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        yield from result.get("events", [])
        yield from _events(result.get("nested", []))
