"""Every recording of every kernel, on both engines under that kernel's profile.

Compared: results, errnos, page and slot classes, KSM bits, map counts, counts of
/sys/kernel/mm/ksm and ksm_stat, vmstat; and, where swapoff goes entry by entry, its calls.
``python tests/recordings.py`` says how far engines are.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from recordings import (
    EXCEPTIONS,
    Exempt,
    answer_of,
    held_against,
    kernels,
    names,
    packed,
    recording,
)

from pyksm import profiles
from pyksm.scenario.compare import EXACT_CALLS

RECORDED = {
    "3.10.65": 262,
    "4.19.0": 262,
    "4.19.0-unfixed": 15,
    "6.1": 262,
    "6.12": 262,
    "6.18": 219,
}
ALL = [(kernel, name) for kernel in kernels() for name in names(kernel)]


def test_all_are_there() -> None:
    assert {kernel: len(names(kernel)) for kernel in kernels()} == RECORDED
    unstable = {kernel: len(had["unstable"]) for kernel, had in packed()["kernels"].items()}
    assert unstable["3.10.65"] == 0
    assert max(unstable.values()) <= 12
    assert all(profiles.find(kernel) for kernel in kernels())


@pytest.mark.parametrize(("kernel", "name"), ALL, ids=["-".join(each) for each in ALL])
def test_recording(kernel: str, name: str, engine: str) -> None:
    found = held_against(kernel, name, answer_of(kernel, name, engine))
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("exempt", EXCEPTIONS, ids=lambda each: f"{each.kernel}-{each.scenario}")
def test_exception_is_needed(exempt: Exempt) -> None:
    """One that no engine makes use of any more goes, and its line is the first that differs."""
    answers = [answer_of(exempt.kernel, exempt.scenario, engine) for engine in ("core", "oracle")]
    lines = [
        recording(exempt.kernel, exempt.scenario)["results"][int(each.path.split("/")[2])]["line"]
        for answer in answers
        for each in held_against(exempt.kernel, exempt.scenario, answer, strict=True)
    ]
    assert min(lines) == exempt.line
    assert len(exempt.reason) > 20


def test_exceptions_are_few() -> None:
    """Only of random scenarios with areas too small; the aim is one in a hundred of a kernel."""
    assert all(each.scenario.startswith("rand-") for each in EXCEPTIONS)
    of_kernel = Counter(each.kernel for each in EXCEPTIONS)
    assert of_kernel.keys() <= {"4.19.0", "6.1", "6.12", "6.18"}
    assert max(of_kernel.values(), default=0) <= 5


@pytest.mark.parametrize("kernel", ["3.10.65", "4.19.0", "6.1", "6.12", "6.18"])
def test_a_wrong_answer_is_found(kernel: str) -> None:
    """The comparison itself can fail: in contents, states, counts and calls."""
    recorded = recording(kernel, "seed-share-4")
    calls = EXACT_CALLS if kernel in ("3.10.65", "4.19.0") else ()
    for path, wrong in (
        (("crc", 0), "00000000"),
        (("observation", "ksm", "pages_shared"), 77),
        (("observation", "processes", "A", "r", "state"), "Q"),
        (("observation", "vmstat", "pswpin"), 77),
        *((("calls", name), 77) for name in calls),
    ):
        answer = json.loads(json.dumps(recorded))
        _spoil(answer["results"], path, wrong)
        found = held_against(kernel, "seed-share-4", answer)
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
