"""Engines held against a booted kernel on programs made at random."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pyksm.hunt import forkernel
from pyksm.hunt.fuzz import Budget, Finding
from pyksm.hunt.shrink import shrink
from pyksm.recorder.check import examine, profile_for
from pyksm.recorder.link import RecorderError
from pyksm.recorder.recorder import Recorder
from pyksm.scenario import Scenario, parse
from pyksm.scenario.compare import Difference

#: Programs a boot: a kernel that one of them left in a strange state is not asked for long.
BATCH = 200
#: Candidates that shrinking may try: each is a run on the kernel.
_SHRINK_BUDGET = 400

Open = Callable[[], AbstractContextManager[Recorder]]


def fuzz_against(
    opened: Open,
    *,
    engine: str = "core",
    seconds: float | None = None,
    programs: int | None = None,
    seed: int = 0,
    profile: str | None = None,
    prepare: Callable[[Scenario], Scenario] = lambda scenario: scenario,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, Finding | None]:
    """Try the kernel programs of ``seed``, ``seed + 1``, … in batches, a boot (``opened``) each.

    As :func:`pyksm.hunt.fuzz.fuzz`, whose words these are; booting counts as time used.
    """
    budget = Budget(seconds, programs, progress, seed)
    while budget.left():
        with opened() as recorder:
            for each in budget.seeds(BATCH):
                scenario = prepare(forkernel.program(each))
                try:
                    finding = _finding(scenario, each, engine, recorder, profile)
                except RecorderError as error:
                    raise RecorderError(f"seed {each}: {error}") from None
                if finding is not None:
                    return budget.tried, finding
    return budget.tried, None


def _finding(
    scenario: Scenario, seed: int, engine: str, recorder: Recorder, profile: str | None
) -> Finding | None:
    """The scenario made small, where engine and kernel differ on it."""
    scenario = scenario.on(profile=profile_for(scenario, recorder.kernel, profile))
    scenario = parse(str(scenario), scenario.filename)  # with lines, by which noise goes
    first = examine(scenario, engine, recorder)
    if not first:
        return None
    kind = _kind(first[0])

    def fails(candidate: Scenario) -> bool:
        """The same kind of difference: shrinking must not end at another, known one."""
        return forkernel.quiet(candidate) and kind in map(
            _kind, examine(candidate, engine, recorder)
        )

    small = shrink(scenario, fails, _SHRINK_BUDGET)
    for candidate in (small, scenario):
        if found := examine(candidate, engine, recorder):
            return Finding(seed, candidate, tuple(found))
    return None  # the kernel has changed its mind


def _kind(difference: Difference) -> str:
    """The key that differs, whatever page, region or process it is of."""
    keys = [part for part in difference.path.split("/") if not part.isdigit()]
    return keys[-1]
