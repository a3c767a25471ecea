"""Every recording of a real 3.10.65, on both engines, calls of swapoff included."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pyksm.scenario import parse, run
from pyksm.scenario.compare import EXACT_CALLS, Difference, recording_differences

PACKED = Path(__file__).parent / "data" / "recordings-3.10.65.json.xz"


@cache
def recordings() -> dict[str, Any]:
    packed: dict[str, Any] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return packed


def names() -> list[str]:
    return sorted(recordings()["scenarios"])


def held_against(name: str, answer: dict[str, Any]) -> list[Difference]:
    """Differences from the recording, excusing what its folder says was noise and nothing else."""
    packed = recordings()
    return recording_differences(
        answer,
        packed["scenarios"][name]["answer"],
        unstable=packed["unstable"].get(name, ()),
        lingering=packed["lingering"].get(name),
    )


def test_all_are_there() -> None:
    packed = recordings()
    assert len(packed["scenarios"]) == 262
    assert packed["unstable"] == {}
    assert len(packed["lingering"]) == 12
    assert len(packed["functions"]) == 30


@pytest.mark.parametrize("name", names())
def test_recording(name: str, engine: str) -> None:
    scenario = parse(recordings()["scenarios"][name]["text"], name)
    found = held_against(name, run(scenario, engine))
    assert not found, "\n".join(map(str, found[:10]))


def test_a_wrong_answer_is_found() -> None:
    """The comparison itself can fail: in contents, states, counts and calls."""
    recorded = recordings()["scenarios"]["seed-share-4"]["answer"]
    for path, wrong in (
        (("crc", 0), "00000000"),
        (("observation", "ksm", "pages_shared"), 77),
        (("observation", "processes", "A", "r", "state"), "Q"),
        (("observation", "vmstat", "pswpin"), 77),
        *((("calls", name), 77) for name in EXACT_CALLS),
    ):
        answer = json.loads(json.dumps(recorded))
        _spoil(answer["results"], path, wrong)
        found = held_against("seed-share-4", answer)
        assert [each.left for each in found] == [wrong]


def _spoil(results: list[dict[str, Any]], path: tuple[Any, ...], wrong: Any) -> None:
    """Put ``wrong`` at ``path`` of the first result that has it (calls: those of swapoff)."""
    for result in results:
        if path[0] in result and (path[0] != "calls" or result["op"] == "swapoff"):
            place = result
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = wrong
            return
    raise AssertionError(f"no result has {path}")
