"""An exhaustive search leaves off what it has seen: it finds what one finds that goes through all.

Two searches of one scenario, with pruning and without. The findings are the same ones, and so are
the ends that differ in what came before what; only the number of schedules is another. Where a step
depends on another and its footprint does not say so, ends are missing here before findings are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from scn import load

from pyksm import museum
from pyksm.bugs import BUGS, Bug
from pyksm.errors import InputError, MachineError
from pyksm.hunt import small
from pyksm.hunt.explore import Bounds, Explored, explore, scheduled
from pyksm.scenario import Scenario, parse
from pyksm.tasks.core import lib

pytestmark = pytest.mark.skipif(
    not lib.pyksm_tasks_traced(), reason="nothing is left off where accesses are not looked at"
)

RACES = [bug for bug in BUGS if bug.kind.startswith("interleaving")]
PROOFS = ("migrate-unmerge", "scan-reclaim", "swapoff-dontneed", "swapoff-fault", "swapoff-unmerge")

#: What an order to fail meets depends on when it is given.
INJECTED = """
machine frames=64 agents=0
spawn A
mmap A r 2
write A r 7
task order:
  inject kmem 4
  inject kmem 3
task forks:
  inject kmem 12
  fork A B
  fork A C
"""


def searched(
    scenario: Scenario, bugs: Collection[str], bounds: Bounds
) -> tuple[Explored, Explored]:
    """With pruning and without."""
    pruned, whole = (
        explore(scenario, replace(bounds, stop=False, prune=prune), bugs=bugs)
        for prune in (True, False)
    )
    return pruned, whole


def kinds(explored: Explored) -> set[tuple[str, str]]:
    return {(each.wrong.invariant, each.wrong.code) for each in explored.found}


def assert_same(pruned: Explored, whole: Explored) -> None:
    assert kinds(pruned) == kinds(whole)
    assert pruned.ends == whole.ends
    assert whole.pruned == 0
    assert pruned.schedules + pruned.pruned <= whole.schedules


@pytest.mark.parametrize("bug", RACES, ids=[bug.name for bug in RACES])
def test_races_of_the_museum(bug: Bug) -> None:
    """With the bug and without it."""
    scenario = scheduled(museum.scenario(bug.name), ())
    for bugs in ((bug.name,), ()):
        pruned, whole = searched(scenario, bugs, Bounds(preemptions=2))
        assert pruned.complete
        assert whole.complete
        assert_same(pruned, whole)
        assert pruned.schedules < whole.schedules


@pytest.mark.parametrize("name", PROOFS)
def test_races_that_are_right(name: str) -> None:
    pruned, whole = searched(load(f"proof/{name}"), (), Bounds(preemptions=2))
    assert pruned.complete
    assert whole.complete
    assert_same(pruned, whole)
    assert pruned.schedules < whole.schedules


def test_orders_to_fail() -> None:
    pruned, whole = searched(parse(INJECTED), (), Bounds(preemptions=3))
    assert pruned.complete
    assert whole.complete
    assert_same(pruned, whole)


def generated(seed: int, bugs: tuple[Bug, ...]) -> tuple[Explored, Explored] | None:
    """Both searches of that seed's scenario; None where it has no tasks or too many schedules."""
    scenario = small.seeded(seed, None, bugs)
    if len(scenario.groups) != 1:
        return None
    names = tuple(bug.name for bug in bugs)
    try:
        pruned, whole = searched(scenario, names, Bounds(preemptions=1, schedules=600))
    except (InputError, MachineError):
        return None
    return (pruned, whole) if whole.complete else None


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_generated(first: int) -> None:
    """Scenarios of the hunter, two of three for a bug of the museum, which is on."""
    compared = [
        both
        for seed in range(first, first + 40)
        if (both := generated(seed, (RACES[seed % len(RACES)],) if seed % 3 else ()))
    ]
    for pruned, whole in compared:
        assert_same(pruned, whole)
    assert len(compared) > 8
    assert sum(one.schedules for one, _ in compared) < sum(one.schedules for _, one in compared)
