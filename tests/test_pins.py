"""Pages pinned for I/O (``pin ... write``): what fork, reclaim and write faults make of them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from pyksm.core import Core
from pyksm.engine import Config
from pyksm.errors import MachineError
from pyksm.features import PROFILES
from pyksm.hunt import program
from pyksm.hunt.fuzz import answer
from pyksm.scenario import Scenario, parse, run
from pyksm.scenario import statements as st
from pyksm.scenario.compare import differences

PINNED = """
spawn A
mmap A r 1
write A r 1
swapon S 16
pin A r write
"""


def results(text: str, profile: str, engine: str) -> list[dict[str, Any]]:
    answered: list[dict[str, Any]] = run(parse(text), engine, profile=profile)["results"]
    assert all(each["errno"] is None for each in answered)
    return answered


def region(result: dict[str, Any], process: str = "A") -> dict[str, Any]:
    found: dict[str, Any] = result["observation"]["processes"][process]["r"]
    return found


@pytest.mark.parametrize("engine", ["core", "oracle"])
def test_fork_copies_for_the_child(engine: str) -> None:
    """Before 5.9 both shared it, and the first to write got the copy: the parent, perhaps."""
    text = PINNED + "fork A B\nwrite A r 2\nread A r\nread B r\nobserve\ncensus"
    for profile, copied in (("4.19", False), ("6.18", True)):
        forked = results(PINNED + "fork A B\nobserve", profile, engine)[-1]
        assert region(forked)["mapcount"] == region(forked, "B")["mapcount"] == [2 - copied]
        answered = results(text, profile, engine)
        assert answered[-4]["crc"] != answered[-3]["crc"]
        assert answered[-1]["violations"] == []


@pytest.mark.parametrize("engine", ["core", "oracle"])
def test_reclaim_leaves_it_alone(engine: str) -> None:
    for profile, state in (("4.19", "S"), ("6.1", "P")):
        answered = results(PINNED + "swapout A r\nobserve\ncensus", profile, engine)
        assert region(answered[-2])["state"] == state
        assert answered[-1]["violations"] == []
    answered = results(PINNED + "unpin A r\nswapout A r\nobserve", "6.1", engine)
    assert region(answered[-1])["state"] == "S"


def test_no_more_references_than_can_be_counted() -> None:
    core = Core(Config(frames=8))
    pid = core.spawn()
    addr = core.mmap(pid, 1)
    for _ in range((2**31 - 1 - 2048) // 1024 + 1):
        core.pin(pid, addr, 1, True)
    with pytest.raises(MachineError, match="Cannot allocate"):
        core.pin(pid, addr, 1, True)
    core.exit(pid)
    assert core.census() == []


def with_io(scenario: Scenario) -> Scenario:
    """The same with pages pinned for I/O here and there."""
    choose = random.Random(scenario.filename)
    statements: list[st.Statement] = []
    for each in scenario.statements:
        if isinstance(each, st.Pin):
            each = dataclasses.replace(each, how=choose.choice((None, "write")))
        statements.append(each)
        if isinstance(each, (st.Write, st.Read)) and choose.random() < 0.15:
            statements.append(st.Pin(each.process, each.pages, "write"))
    return dataclasses.replace(scenario, statements=tuple(statements))


@pytest.mark.parametrize("profile", list(PROFILES))
def test_programs(profile: str) -> None:
    for seed in range(90_000, 90_006):
        scenario = with_io(program(seed, profile=profile))
        wanted = answer(scenario, "core", profile)
        assert not list(differences(wanted, answer(scenario, "oracle", profile)))
        assert all(each.get("census", []) == [] for each in wanted["results"])
