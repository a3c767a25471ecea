"""Random programs of everything that a kernel can carry out, and what booted kernels answered.

A sample of those that ``pyksm fuzz --against kernel`` makes, recorded with ``pyksm record`` on
Debian's 6.1.192 (seeds 0, 6, 12, ... 2494) and 6.12.117 (0, 3, 6, ... 699), pages pinned, swapped
out in part and migrated included; those left out that this pair of engines does not answer like
the kernel, and what hung on timing. `ksm-programs` has those about KSM.
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

PACKED = Path(__file__).parent / "data" / "booted-programs.json.xz"


@cache
def packed() -> dict[str, dict[str, Any]]:
    """By profile and name: ``text`` and ``answer``."""
    everything: dict[str, dict[str, Any]] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return everything


def test_all_are_there() -> None:
    assert {profile: len(each) for profile, each in packed().items()} == {"6.1": 412, "6.12": 233}


#: Tests that the programs of a profile are dealt to: one each would be too many.
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("profile", ["6.1", "6.12"])
def test_programs(profile: str, part: int, engine: str) -> None:
    found = {}
    for name in list(packed()[profile])[part::PARTS]:
        program = packed()[profile][name]
        answer = run(parse(program["text"], name), engine, profile=profile)
        found[name] = [str(each) for each in recording_differences(answer, program["answer"])[:5]]
    assert {name: each for name, each in found.items() if each} == {}
