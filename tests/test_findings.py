"""docs/findings.md: what goes wrong with no bug switched in, in which kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyksm.features import PROFILES
from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.judge import judge
from pyksm.scenario import Scenario, parse

HERE = Path(__file__).parent / "findings"

#: What the judge says of each, and the profiles in which it does.
FINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "half-ksm-page": ("ksm-no-node", tuple(PROFILES)),
    "moved-page-without-a-place": ("ksm-rmap", tuple(each for each in PROFILES if each != "3.9")),
    "no-access-and-passed-over": ("run-2", ("6.1",)),
    "migration-entry-astray": ("oops", ("6.1",)),
    "a-pte-of-its-neighbour": ("livelock", ("3.9",)),
    "cleared-while-it-moves": ("soft-dirty", ("6.12", "6.18")),
    "item-of-a-node-that-is-gone": ("ksm-rmap", ("3.9",)),
    "swapin-while-run-becomes-2": ("run-2", tuple(PROFILES)),
    "swapoff-trusts-a-failed-write": ("content", ("3.9", "4.19")),
    "swapoff-and-ksmd-wait-for-each-other": ("deadlock", ("3.9", "4.19", "4.19.0-unfixed")),
    "swapoff-waits-for-a-page-of-its-own": ("deadlock", ("3.9", "4.19", "4.19.0-unfixed")),
    "a-child-that-ksm-does-not-know": ("run-2", ("6.12", "6.18")),
    "a-fault-that-blames-memory": ("errno", ("3.9", "4.19", "4.19.0-unfixed")),
    "a-pin-that-blames-memory": ("errno", tuple(PROFILES)),
}


def scenario(name: str) -> Scenario:
    return parse((HERE / f"{name}.ksm").read_bytes(), f"{name}.ksm")


def said(name: str, profile: str, *, open_ends: bool = True) -> set[str]:
    return {wrong.code for wrong in judge(scenario(name), profile=profile, open_ends=open_ends)}


def test_each_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "findings.md").read_text(encoding="utf-8")
    for path in HERE.glob("*.ksm"):
        assert path.stem in FINDINGS
        assert f"tests/findings/{path.name}" in page


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", FINDINGS)
def test_found_where_the_page_says(name: str, profile: str) -> None:
    code, profiles = FINDINGS[name]
    assert (code in said(name, profile)) == (profile in profiles)


@pytest.mark.parametrize("name", FINDINGS)
def test_not_held_against_the_rest(name: str) -> None:
    """Explorations and hunts leave out what Linux is known to get wrong, unless it is asked for."""
    for profile in FINDINGS[name][1]:
        assert said(name, profile, open_ends=False) == set()


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.18"])
def test_the_deadlock_needs_swapoff_by_entries(profile: str) -> None:
    """All orders within two preemptions: none in a kernel whose swapoff goes mm by mm."""
    explored = explore(
        scenario("swapoff-and-ksmd-wait-for-each-other"),
        Bounds(preemptions=2, open_ends=True),
        profile=profile,
    )
    if profile == "6.18":
        assert explored.complete
        assert explored.found == ()
    else:
        assert explored.found[0].wrong.code == "deadlock"


def test_the_race_is_found_by_itself() -> None:
    """No schedule given: one preemption is enough, and it takes one."""
    race = scenario("swapin-while-run-becomes-2")
    assert explore(race, Bounds(preemptions=0, open_ends=True)).found == ()
    assert explore(race, Bounds(preemptions=1, open_ends=True)).found[0].wrong.code == "run-2"
