"""The museum: each bug, switched in, is found by its scenario; without it there is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from pyksm import museum
from pyksm.bugs import BUGS, Bug, exists_in
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import Run, Scenario, engines, parse
from pyksm.scenario.observe import raw
from pyksm.scenario.statements import parts

#: What a line of the census, an event or a result that differs says is broken.
INVARIANTS = {
    "page-mapcount": "I3",
    "page-refcount": "I3",
    "page-free": "I3",
    "lru": "I3",
    "swap-count": "I3",
    "swap-cache": "I3",
    "swap-inuse": "I3",
    "anon-vma": "I3",
    "vma": "I3",
    "ksm-rmap-item": "I3",
    "rmap": "I4",
    "ksm-rmap": "I4",
    "ksm-no-node": "I4",
    "BUG": "I5",
    "WARN": "I7",
    "ksm-tree": "I6",
    "ksm-unmerged": "I7",
    "mm-counter": "I8",
    "ksm-counts": "I8",
    "mmlist": "I9",
    "ksm-writable": "I6",
    "ksm-misplaced": "I6",
    "charge": "I8",
    "kvm": "I4",
    "try": "I9",
    "deadlock": "I9",
    "livelock": "I9",
    "result crc": "I1",
    "result errno": "I9",
    "result node": "I4",
    "result soft_dirty": "I8",
}
#: What may be said of a machine with nothing wrong, when its disk fails.
DISK = {"Read-error", "Write-error"}


def soft_dirty(run: Run) -> dict[str, Any]:
    """What is soft-dirty: of pages in memory (bit 11) and in swap (bit 1), as pagemap says it."""
    return {
        process: {
            region: [bool(pte & (1 << 11 if pte & 1 else 1 << 1)) for pte in ptes]
            for region, ptes in regions.items()
        }
        for process, regions in raw(run.engine, run.world).items()
    }


def answers(scenario: Scenario) -> tuple[list[dict[str, Any]], set[str]]:
    """The results, and the codes of what a census after each statement and the events say."""
    machine = engines.build(engines.TASKS, engines.config(scenario.machine, None))
    said: set[str] = set()
    results: list[dict[str, Any]] = []
    try:
        run = Run(machine)
        for part in parts(scenario.body):
            made = run.part(part)
            results += made
            lines = [] if run.dead else machine.census()
            for result in made:
                lines += [*result.get("violations", []), *result.get("events", [])]
                lines += [result["end"]] if result.get("end", "done") != "done" else []
            said |= {line.partition(":")[0].partition(" ")[0].partition("_")[0] for line in lines}
            if run.dead:
                break
        if "soft-dirty" in machine.config.features and not run.dead:
            results.append({"soft_dirty": soft_dirty(run)})
    finally:
        machine.close()
    return results, said - DISK


def findings(scenario: Scenario, bug: Bug) -> set[str]:
    """What is wrong with the bug switched in: beside census and events, answers that differ."""
    right, _ = answers(scenario)
    wrong, said = answers(scenario.on(bugs=(*scenario.machine.bugs, bug.name)))
    for one, other in zip(right, wrong, strict=False):
        said |= {f"result {key}" for key in one if one[key] != other.get(key)}
    return said


def of_invariants(said: set[str]) -> set[str]:
    return {INVARIANTS[code] for code in said if code in INVARIANTS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_found(bug: Bug) -> None:
    """Where the kernel has the place that is broken: something of what the row names."""
    scenario = museum.scenario(bug.name)
    machine = scenario.machine
    assert exists_in(bug, effective(machine.profile or DEFAULT, machine.on, machine.off))
    assert answers(scenario)[1] == set(), "without the bug"
    assert of_invariants(findings(scenario, bug)) & set(bug.invariants)


def test_every_scenario_is_of_a_bug() -> None:
    """And it does not switch the bug in by itself."""
    for path in museum.HERE.glob("*.ksm"):
        assert path.stem in {bug.name for bug in BUGS}
        assert not museum.scenario(path.stem).machine.bugs


def test_what_is_right_is_not_found() -> None:
    """The helper that the tests above rest on: it says nothing where no bug's place is met."""
    harmless = parse("spawn A\nmmap A r 2\nwrite A r 1\nread A r\ncensus strict")
    for bug in BUGS:
        assert findings(harmless, bug) == set()
