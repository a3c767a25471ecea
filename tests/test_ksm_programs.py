"""Random programs of KSM, and what booted kernels answered: beyond what was recorded to begin with.

Made at random from what touches KSM but swap: full nodes and chains with and without pruning, zero
pages, smart scan, trees per node and migration between them, unmerging of all kinds, protections,
PR_SET_MEMORY_MERGE, fork. Recorded with ``pyksm record`` on Debian's 6.1.192 and 6.12.117; both
engines answered all of them alike at first try, so this is here to keep it so.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pyksm.scenario import parse, run
from pyksm.scenario.compare import recording_differences

PACKED = Path(__file__).parent / "data" / "ksm-programs.json.xz"


@cache
def packed() -> dict[str, dict[str, Any]]:
    """By profile and name: ``text`` and ``answer``."""
    everything: dict[str, dict[str, Any]] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return everything


ALL = [(profile, name) for profile, each in packed().items() for name in each]


def test_all_are_there() -> None:
    assert {profile: len(each) for profile, each in packed().items()} == {"6.1": 60, "6.12": 100}


@pytest.mark.parametrize(("profile", "name"), ALL, ids=["-".join(each) for each in ALL])
def test_program(profile: str, name: str, engine: str) -> None:
    program = packed()[profile][name]
    answer = run(parse(program["text"], name), engine, profile=profile)
    assert recording_differences(answer, program["answer"]) == []
