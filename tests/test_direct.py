"""Core against oracle on the interface itself: see direct.py."""

from __future__ import annotations

import pytest
from direct import first_difference, play

from pyksm.core import Core
from pyksm.oracle import Oracle

PROGRAMS, BATCH = 600, 30


@pytest.mark.parametrize("first", range(0, PROGRAMS, BATCH))
def test_engines_agree(first: int) -> None:
    for seed in range(first, first + BATCH):
        core, oracle = play(Core, seed), play(Oracle, seed)
        assert first_difference(core, oracle) is None, f"seed {seed}"
        assert not any(state["census"] for *_, state in core), f"seed {seed}"
