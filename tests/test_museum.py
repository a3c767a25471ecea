"""The museum: each bug, switched in, is found by its scenario; without it there is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyksm import museum
from pyksm.bugs import BUGS, Bug, exists_in
from pyksm.errors import InputError
from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.judge import Wrong, judge
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import Scenario, parse
from pyksm.scenario.statements import Schedule
from pyksm.testing import examine


def without_bug(scenario: Scenario) -> list[Wrong]:
    """Where a lock that the bug forgets is in the way, the tasks run in any other order."""
    try:
        return judge(scenario)
    except InputError:
        kept = tuple(each for each in scenario.statements if not isinstance(each, Schedule))
        return judge(replace(scenario, statements=kept))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_found(bug: Bug) -> None:
    """Where the kernel has the place that is broken: something of what the row names."""
    scenario = museum.scenario(bug.name)
    machine = scenario.machine
    assert exists_in(bug, effective(machine.profile or DEFAULT, machine.on, machine.off))
    assert without_bug(scenario) == []
    found = judge(scenario, bugs=[bug.name])
    assert {wrong.invariant for wrong in found} & set(bug.invariants), found


@pytest.mark.parametrize("path", sorted(museum.HERE.glob("*.ksm")), ids=lambda path: path.stem)
def test_engines_agree_where_no_bug_is(path: Path) -> None:
    """What the model has for the museum's sake is in both of them."""
    scenario = museum.scenario(path.stem)
    if not scenario.groups:
        assert examine(scenario) == []


#: There Linux has a race of its own: a fault that finds its slot free, and then its pte as it was,
#: for the slot was freed and taken again in between, is out of memory.
ABA = {"swapin-cache-page-removed-aba", "swap-skip-cache-aba"}
RACES = [bug for bug in BUGS if bug.kind.startswith("interleaving") and bug.name not in ABA]
#: Preemptions that it takes where two do not do.
MORE = {"swapoff-spurious-ebusy": 3}


@pytest.mark.parametrize("bug", RACES, ids=lambda bug: bug.name)
def test_no_schedule_need_be_given(bug: Bug) -> None:
    """Whoever tries all within two preemptions comes upon it, and without the bug on nothing."""
    scenario = museum.scenario(bug.name)
    bounds = Bounds(preemptions=MORE.get(bug.name, Bounds().preemptions))
    found = explore(scenario, bounds, bugs=[bug.name]).found
    assert {each.wrong.invariant for each in found} & set(bug.invariants), found
    right = explore(scenario, bounds)
    assert right.complete
    assert right.found == ()


def test_every_scenario_is_of_a_bug() -> None:
    """And it does not switch the bug in by itself."""
    for path in museum.HERE.glob("*.ksm"):
        assert path.stem in {bug.name for bug in BUGS}
        assert not museum.scenario(path.stem).machine.bugs


def test_what_is_right_is_not_found() -> None:
    """Nothing is said where no bug's place is met."""
    harmless = parse("spawn A\nmmap A r 2\nwrite A r 1\nread A r\ncensus strict")
    for bug in BUGS:
        assert judge(harmless, bugs=[bug.name]) == []
