"""Generator, shrinker, fuzzer, strategies and the race finder."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as hs

from pyksm.core import Core
from pyksm.engine import Config
from pyksm.hunt import examine, find_schedule, fuzz, program, shrink
from pyksm.hunt.races import points
from pyksm.scenario import Pages, Scenario, Value, parse, run
from pyksm.scenario import statements as st
from pyksm.testing import Names, scenarios, steps


def test_a_seed_is_a_program() -> None:
    assert program(12) == program(12)
    assert str(program(12)) != str(program(13))
    assert program(3).filename == "seed-3"


def test_shrink_to_what_matters() -> None:
    """Whatever else a program does: left is the fork and the write of one page before it."""
    scenario = parse(
        "machine nodes=2 frames=77\n"
        + "".join(f"spawn X{k}\nmmap X{k} r 9\n" for k in range(20))
        + "write X3 r[2:8] 5+\nscan 3\nfork X3 Y\nswapon S 40\nswapout *"
    )

    def fails(each: Scenario) -> bool:
        ops = [statement.op for statement in each.statements]
        return "write" in ops and "fork" in ops[ops.index("write") :]

    asked = []

    def counting(each: Scenario) -> bool:
        asked.append(each)
        return fails(each)

    small = shrink(scenario, counting)
    assert [str(each) for each in small.body] == ["write X3 r[0] 5", "fork X3 Y"]
    assert small.machine == st.Machine()
    assert shrink(scenario, fails) == small
    assert len(asked) < 200


def test_shrink_keeps_to_its_budget() -> None:
    asked = []

    def fails(each: Scenario) -> bool:
        asked.append(each)
        return len(each.statements) > 3

    shrink(program(1), fails, budget=5)
    assert len(asked) == 5


def test_examine_agrees_with_itself() -> None:
    assert examine(program(4)) == []


class Quiet(Core):
    """An engine with one small lie: no swap cache to be seen."""

    def swapcached(self) -> int:
        return 0


class Broken(Core):
    """An engine that fails as no engine may."""

    def mmap(self, pid: int, npages: int, addr: int = 0, node: int = -1) -> int:
        raise ZeroDivisionError("bug")


class Unclean(Core):
    """An engine whose census complains once there is a process."""

    def census(self, strict: bool = False) -> list[str]:
        return ["lru: lost"] if self.processes() else []


def test_fuzz_finds_a_lie() -> None:
    tried, finding = fuzz(names=(Quiet, Core), programs=200, seed=0)
    assert finding is not None
    assert tried == finding.seed + 1
    assert len(finding.scenario.body) <= 12
    assert any(each.path.endswith("/swapcached") for each in finding.differences)
    assert examine(parse(str(finding.scenario)), (Quiet, Core))
    assert not examine(finding.scenario, (Core, Core))


def test_a_crash_is_a_finding() -> None:
    _, finding = fuzz(names=(Broken, Core), programs=5, seed=0)
    assert finding is not None
    assert [each.op for each in finding.scenario.body] == ["spawn", "mmap"]
    assert "ZeroDivisionError: bug" in str(finding.differences)


def test_an_unclean_census_is_a_finding_where_engines_agree() -> None:
    found = examine(parse("spawn A"), (Unclean, Unclean))
    assert [each.path for each in found] == ["/results/0/census"] * 2
    assert examine(parse("machine bug=no-unmerge-check\nspawn A"), (Unclean, Unclean)) == []


def test_fuzz_keeps_to_its_budget() -> None:
    told: list[tuple[int, int]] = []
    tried, finding = fuzz(
        names=(Core, Core), programs=3, seed=7, progress=lambda *each: told.append(each)
    )
    assert (tried, finding) == (3, None)
    assert told == [(0, 7), (1, 8), (2, 9)]
    assert fuzz(seconds=1e-9) == (1, None)  # none would prove nothing


@given(scenarios(max_size=15))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_strategies_give_programs_that_engines_agree_on(scenario: Scenario) -> None:
    assert examine(scenario) == []


@given(scenarios(max_size=3, profile="4.19"))
@settings(max_examples=20, deadline=None)
def test_strategies_keep_to_a_profile(scenario: Scenario) -> None:
    assert (scenario.machine.profile, scenario.machine.on) == ("4.19", ())


def test_strategies_shrink() -> None:
    """Hypothesis itself finds a small program with a swap area in it."""
    small = find(
        scenarios(max_size=8),
        lambda each: any(isinstance(one, st.Swapon) for one in each.statements),
        settings=settings(max_examples=100, deadline=None, derandomize=True, database=None),
    )
    assert len(small.statements) <= 12


@given(hs.data())
@settings(max_examples=20, deadline=None)
def test_steps_keep_names(data: hs.DataObject) -> None:
    names = Names()
    ops: list[str] = []
    for _ in range(30):
        for each in data.draw(steps(names)):
            ops.append(each.statement.op if isinstance(each, st.At) else each.op)
    assert len(names.processes) <= ops.count("spawn") + ops.count("fork")


MERGED = parse(
    """spawn A
    spawn B
    mmap A r 2
    mmap B r 2
    write A r 7
    write B r 7
    madvise A r mergeable
    madvise B r mergeable
    swapon S 64
    scan 3"""
).statements


def test_points_are_counted(engine: str) -> None:
    counted = points(MERGED, st.Scan(1), engine=engine)
    # Four items and the look that finds the scan at its end.
    assert counted == {"ksm_do_scan:next_item": 5}
    assert points(MERGED, st.Observe(), engine=engine) == {}


def test_a_harmless_intruder_is_no_finding(engine: str) -> None:
    intruder = st.Write("A", Pages("r"), Value(3))
    found = find_schedule(MERGED, st.Scan(1), intruder, engine=engine)
    assert found == []


def test_machine_goes_into_the_schedules() -> None:
    made: list[Config] = []

    class Watching(Core):
        def __init__(self, config: Config | None = None) -> None:
            super().__init__(config)
            made.append(self.config)

    machine = st.Machine(nodes=2, profile="3.9", policy="memcpy")
    find_schedule(MERGED, st.Scan(1), st.Observe(), engine=Watching, machine=machine)
    assert {(each.nodes, each.policy) for each in made} == {(2, "memcpy")}


@pytest.mark.parametrize("seed", [0, 11])
def test_programs_run_everywhere(seed: int, engine: str) -> None:
    results: list[dict[str, Any]] = run(program(seed), engine, work=True)["results"]
    assert len(results) == len(program(seed).body)
    assert all(each["census"] == [] for each in results if "census" in each)
