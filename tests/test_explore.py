"""The explorer and the hunter: what is found is found again, and what is right stays right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import Ran
from hypothesis import given, settings
from scn import load

from pyksm import museum
from pyksm.errors import InputError
from pyksm.hunt import small
from pyksm.hunt.explore import Bounds, explore, scheduled
from pyksm.hunt.hunt import hunt
from pyksm.hunt.judge import judge
from pyksm.hunt.reduce import reduce
from pyksm.scenario import Scenario, parse
from pyksm.testing import small_scenarios

SEED = "ksm-swapoff-resurrects-ksm-page"
RACE = "ksm-migration-hides-page-from-unmerge"


def race() -> Scenario:
    """A scenario of the museum with tasks, without its schedule."""
    return scheduled(museum.scenario(RACE), ())


def test_all_schedules_within_a_bound() -> None:
    """More preemptions are more schedules; what has been seen is not gone through again."""
    scenario = load("proof/swapoff-unmerge")
    results = [explore(scenario, Bounds(preemptions=k, stop=False)) for k in range(3)]
    assert all(each.complete and not each.found for each in results)
    ends = [each.ends for each in results]
    assert ends == sorted(ends)
    assert ends[0] < ends[2]
    assert results[2].pruned > 0


def test_found_and_found_again() -> None:
    """With as few preemptions as will do, and the schedule shows it on any machine."""
    scenario = race()
    assert not explore(scenario, Bounds(preemptions=2)).found
    found = explore(scenario, Bounds(preemptions=2), bugs=(RACE,)).found
    assert found
    assert not explore(scenario, Bounds(preemptions=found[0].preemptions - 1), bugs=(RACE,)).found
    again = judge(scheduled(scenario, found[0].schedule), bugs=(RACE,))
    assert {each.wrong.code for each in found} <= {each.code for each in again}


def test_two_workers_see_what_one_does() -> None:
    scenario = load("proof/swapoff-fault")
    one, two = (explore(scenario, Bounds(preemptions=2, jobs=jobs)) for jobs in (1, 2))
    assert one.complete
    assert two.complete
    assert (one.ends, one.found) == (two.ends, two.found)


@pytest.mark.parametrize("strategy", ["pct", "random"])
def test_by_lot_and_yet_repeatable(strategy: str) -> None:
    bounds = Bounds(strategy=strategy, schedules=60, seed=7)
    first, second = (explore(race(), bounds, bugs=(RACE,)) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    other = explore(race(), replace(bounds, seed=8, stop=False), bugs=(RACE,))
    assert other.steps != replace(first, seconds=0.0).steps


def test_a_machine_is_put_back_as_it_was() -> None:
    """What the judge does to it in the end as well: frees what waits in mlock's batch, here."""
    text = """
        machine agents=0 profile=6.18
        spawn P1
        mmap P1 r0 1
        mlock P1 r0[0]
        munmap P1 r0[0]
        task t0:
          read P1 r0
        task t1:
          read P1 r0
    """
    explored = explore(parse(text), Bounds(stop=False))
    assert explored.schedules > 1
    assert not explored.found


def test_before_tasks_begin() -> None:
    """What goes wrong there, or without tasks, has no schedule."""
    scenario = museum.scenario(SEED)
    found = explore(scenario, Bounds(), bugs=(SEED,)).found
    assert found
    assert found[0].schedule == ()
    tasks = "task a:\n  sleep 1\ntask b:\n  sleep 2\n"
    assert explore(parse(f"{scenario}{tasks}"), Bounds(jobs=2), bugs=(SEED,)).found


def test_reduced() -> None:
    """Statements that have no part in it go, and again the same ones."""
    text = str(race()).replace("task ", "spawn Z\nmmap Z z 3\nwrite Z z 1\ntask ", 1)
    scenario = parse(text)
    bounds = Bounds(preemptions=2)
    found = explore(scenario, bounds, bugs=(RACE,)).found[0]
    made = reduce(scenario, found, bounds, bugs=(RACE,))
    assert "Z" not in str(made.scenario)
    assert len(made.scenario.statements) <= len(race().statements)
    assert made == reduce(scenario, found, bounds, bugs=(RACE,))
    assert {each.code for each in judge(made.scenario, bugs=(RACE,))} >= {found.wrong.code}


@pytest.mark.parametrize(
    ("bug", "seed"), [("ksm-zero-page-rss", 40), ("ksm-fault-in-during-unmerge", 110)]
)
def test_hunted(bug: str, seed: int) -> None:
    """No scenario given; what is found is the bug's, and is as small as a scenario of it is."""
    made = hunt(bugs=(bug,), seconds=60, scenarios=2000, seed=seed)
    assert made.hunted is not None
    assert made.hunted.small is not None
    scenario = made.hunted.small.scenario
    assert len(scenario.statements) <= 14
    assert judge(scenario)
    assert judge(scenario.on(bugs=())) == []
    assert hunt(bugs=(bug,), seconds=60, scenarios=2000, seed=seed).hunted == made.hunted


@pytest.mark.parametrize("bug", ["ksm-ebusy-path-keeps-unstable-item", "anonvma-double-reuse"])
def test_hunted_in_scenes(bug: str) -> None:
    """What takes a scene to be set: without, it is one scenario of some 100,000."""
    assert hunt(bugs=(bug,), seconds=60, scenarios=10_000, seed=10**12, shrink=False).hunted


def test_nothing_to_hunt() -> None:
    made = hunt(seconds=60, scenarios=150, seed=5000, jobs=2)
    assert made.hunted is None
    assert made.scenarios == 150
    assert made.schedules > 150


@settings(max_examples=15, deadline=None)
@given(small_scenarios())
def test_strategies_of_the_api(scenario: Scenario) -> None:
    """Small scenarios for the tests of others; by lot they are the seeded ones' kind."""
    assert str(parse(str(scenario))) == str(scenario)
    assert not explore(scenario, Bounds(strategy="random", schedules=5)).found


def test_seeded() -> None:
    assert str(small.seeded(3)) == str(small.seeded(3))
    assert len({str(small.seeded(seed)) for seed in range(50)}) > 40


@pytest.mark.parametrize(
    "bounds", [Bounds(strategy="all"), Bounds(preemptions=99), Bounds(depth=-1), Bounds(jobs=0)]
)
def test_bad_bounds(bounds: Bounds) -> None:
    with pytest.raises(InputError, match="expected"):
        explore(race(), bounds)


# ---- the commands ----


def test_command_explore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, page = tmp_path / "race.ksm", tmp_path / "found.ksm", tmp_path / "race.html"
    file.write_text(str(race()))
    right = Ran(capsys, "explore", str(file), "--out", str(out))
    assert right.status == 0
    assert "within the bound there are no others" in right.out
    assert not out.exists()
    wrong = Ran(capsys, "explore", str(file), "--bug", RACE, "--out", str(out), "--html", str(page))
    assert wrong.status == 1
    assert "schedule" in out.read_text()
    assert "I7" in wrong.out
    assert "I7" in page.read_text()
    replayed = Ran(capsys, "run", str(out))
    assert replayed.status == 1
    assert "wrong: I7" in replayed.out


def test_command_explore_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "race.ksm", tmp_path / "found.ksm"
    file.write_text(str(race()))
    told = Ran(
        capsys, "explore", str(file), "--bug", RACE, "--json", "--out", str(out), "--jobs", "1"
    )
    answer = json.loads(told.out)
    assert told.status == 1
    assert answer["found"][0]["invariant"] == "I7"
    assert answer["schedule"] in out.read_text()


def test_command_hunt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.ksm"
    told = Ran(capsys, "hunt", "--bug", "ksm-zero-page-rss", "--seed", "0", "--out", str(out))
    assert told.status == 1
    assert Ran(capsys, "run", str(out)).status == 1
    assert Ran(capsys, "hunt", "--seconds", "0.5", "--seed", "5000", "--jobs", "1").status == 0


@pytest.mark.parametrize(
    "args",
    [
        ("explore", "{plain}", "--strategy", "no"),
        ("explore", "{race}", "--bug", "no-such-bug"),
        ("explore", "{race}", "--profile", "9.9"),
        ("explore", "{race}", "--out", "/no/such/directory/x"),
        ("explore", "{race}", "--preemptions", "99"),
        ("explore", "/no/such/file"),
        ("hunt", "--bug", "no-such-bug"),
        ("hunt", "--bug", "ksm-zero-page-rss", "--profile", "3.9"),
        ("hunt", "--seconds", "-1"),
    ],
)
def test_bad_input(
    args: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and exit status 2."""
    names = {"plain": tmp_path / "plain.ksm", "race": tmp_path / "race.ksm"}
    names["plain"].write_text("spawn A\n")
    names["race"].write_text(str(race()))
    Ran(capsys, *(each.format(**names) for each in args)).refused()


def test_a_scenario_without_tasks_has_one_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "alone.ksm"
    file.write_text(str(museum.scenario("ksm-zero-page-rss")), encoding="utf-8")
    assert Ran(capsys, "explore", str(file), "--strategy", "random").status == 0
    out = tmp_path / "found.ksm"
    told = Ran(capsys, "explore", str(file), "--bug", "ksm-zero-page-rss", "--out", str(out))
    assert told.status == 1
    assert Ran(capsys, "run", str(out)).status == 1


def test_a_scenario_may_join_no_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one that is shrunk may."""
    file = tmp_path / "joined.ksm"
    file.write_text("spawn A\njoin\nmmap A r 1\n")
    assert Ran(capsys, "explore", str(file)).status == 0


def test_a_hunt_without_a_bug_has_all_to_choose_from() -> None:
    """No theme and no scene is for bugs alone: what hunts are clean of is what they look for."""
    assert {*small.THEMES, *small.SCENES, small.LOCKED, small.VMAS} == set(small.themes())
