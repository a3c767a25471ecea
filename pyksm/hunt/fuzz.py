"""Engines held against each other on programs made at random."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.errors import InputError
from pyksm.hunt.generate import program
from pyksm.hunt.shrink import shrink
from pyksm.scenario import Scenario, engines, run
from pyksm.scenario.compare import Difference, differences

EngineName = str | engines.Factory


@dataclass(frozen=True)
class Finding:
    """A scenario on which engines differ, or on which one breaks its own census."""

    seed: int
    scenario: Scenario
    differences: tuple[Difference, ...]


def answer(scenario: Scenario, engine: EngineName, profile: str | None = None) -> dict[str, Any]:
    """What an engine says, work counters, raw ptes and census included.

    An engine that raises what no engine should is an answer too: ``crash`` says what.
    """
    try:
        return run(scenario, engine, profile=profile, work=True)
    except InputError:
        raise
    except Exception as error:  # whatever it is, it is a finding
        return {"engine": str(engine), "crash": f"{type(error).__name__}: {error}"}


def examine(
    scenario: Scenario,
    names: Sequence[EngineName] = engines.NAMES,
    profile: str | None = None,
) -> list[Difference]:
    """Where the engines differ on ``scenario``, and where a census finds something wrong.

    A census is expected to be clean unless the machine has a switch on, whose very point it is.
    """
    answers = [answer(scenario, engine, profile) for engine in names]
    found: list[Difference] = []
    for other in answers[1:]:
        found += differences(answers[0], other)
    if not scenario.machine.bugs:
        found += [wrong for each in answers for wrong in _violations(each)]
    return found


def _violations(answer: dict[str, Any]) -> list[Difference]:
    if "crash" in answer:
        return [Difference("/crash", answer["crash"], "no crash")]
    return [
        Difference(f"/results/{index}/census", result["census"], [])
        for index, result in enumerate(answer["results"])
        if result.get("census")
    ]


class Budget:
    """Programs that may still be tried: by number, by time, both, or for ever."""

    def __init__(
        self,
        seconds: float | None,
        programs: int | None,
        progress: Callable[[int, int], None] | None,
        seed: int,
    ) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._programs = programs
        self._progress = progress
        self._seed = seed
        self.tried = 0

    def seeds(self, most: int | None = None) -> Iterator[int]:
        """The seeds to try next, each counted as it is given; ``most`` of them at a time."""
        last = None if most is None else self.tried + most
        while self.left() and self.tried != last:
            seed = self._seed + self.tried
            if self._progress is not None:
                self._progress(self.tried, seed)
            self.tried += 1
            yield seed

    def left(self) -> bool:
        """Whether there is time and number for another one. For the first there is always time."""
        if self._programs is not None and self.tried >= self._programs:
            return False
        return not self.tried or self._end is None or time.monotonic() < self._end


def fuzz(
    *,
    names: Sequence[EngineName] = engines.NAMES,
    seconds: float | None = None,
    programs: int | None = None,
    seed: int = 0,
    profile: str | None = None,
    prepare: Callable[[Scenario], Scenario] = lambda scenario: scenario,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, Finding | None]:
    """Try the programs of ``seed``, ``seed + 1``, … until one is a finding or the budget is used.

    At least one is tried. ``profile`` and what ``prepare`` changes become part of the program, so
    that it replays by itself. Returns how many were tried and the finding, shrunk. ``progress`` is
    told how many were tried and the seed under way.
    """
    budget = Budget(seconds, programs, progress, seed)
    for each in budget.seeds():
        scenario = prepare(program(each, profile=profile))
        if examine(scenario, names):
            small = shrink(scenario, lambda candidate: bool(examine(candidate, names)))
            return budget.tried, Finding(each, small, tuple(examine(small, names)))
    return budget.tried, None
