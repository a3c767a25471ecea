"""An area like zram (feature swap-synchronous): faults read past the swap cache, both engines."""

from __future__ import annotations

import pytest

from pyksm.features import PROFILES
from pyksm.hunt import program
from pyksm.hunt.fuzz import answer
from pyksm.scenario import parse, run
from pyksm.scenario.compare import differences

SWAPPED = """
machine with=swap-synchronous
spawn A
mmap A r 2
write A r 7+
swapon S 16
swapout *
"""


@pytest.mark.parametrize("engine", ["core", "oracle"])
@pytest.mark.parametrize("profile", ["4.19", "6.18"])
def test_past_the_swap_cache(engine: str, profile: str) -> None:
    """The slot is free when the page is mapped. A shared slot is read into the swap cache."""
    for fork, cached in (("", 0), ("fork A B\n", 1)):
        text = SWAPPED + fork + "read A r[0]\nobserve\ncensus"
        results = run(parse(text), engine, profile=profile)["results"]
        observed = results[-2]["observation"]
        assert observed["swapcached"] == cached
        assert observed["swap"]["S"]["used"] == 1 + cached
        assert results[-1]["violations"] == []


@pytest.mark.parametrize("engine", ["core", "oracle"])
def test_a_failed_read_gives_the_claim_back(engine: str) -> None:
    text = SWAPPED + "inject read 1\nread A r[0]\nread A r[0]\nexit A\nswapoff S\ncensus"
    results = run(parse(text), engine)["results"]
    assert [each["errno"] for each in results[-5:-1]] == ["EIO", None, None, None]
    assert results[-1]["violations"] == []


@pytest.mark.parametrize("profile", list(PROFILES))
def test_programs(profile: str) -> None:
    for seed in range(91_000, 91_005):
        claims = ("swapin-claims",) if seed % 2 else ()
        scenario = program(seed, profile=profile)
        scenario = scenario.on(on=(*scenario.machine.on, "swap-synchronous", *claims))
        wanted = answer(scenario, "core", profile)
        for engine in ("oracle", "core+reference"):
            assert not list(differences(wanted, answer(scenario, engine, profile)))
        assert all(each.get("census", []) == [] for each in wanted["results"])
