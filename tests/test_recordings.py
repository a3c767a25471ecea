"""Every recording of every kernel, on both engines under that kernel's profile.

Compared: results, errnos, page and slot classes, KSM bits, map counts, counts of
/sys/kernel/mm/ksm and ksm_stat, vmstat; and, where swapoff goes entry by entry, its calls.
``python tests/recordings.py`` says how far engines are.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from recordings import (
    EXCEPTIONS,
    answer_of,
    held_against,
    kernels,
    names,
    packed,
    recording,
    unmatched,
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
UNMATCHED = unmatched()  # gone when it is empty
ALL = [(kernel, name) for kernel in kernels() for name in names(kernel)]


def test_all_are_there() -> None:
    assert {kernel: len(names(kernel)) for kernel in kernels()} == RECORDED
    unstable = {kernel: len(had["unstable"]) for kernel, had in packed()["kernels"].items()}
    assert unstable["3.10.65"] == 0
    assert max(unstable.values()) <= 12
    assert all(profiles.find(kernel) for kernel in kernels())


@pytest.mark.parametrize(("kernel", "name"), ALL, ids=["-".join(each) for each in ALL])
def test_recording(kernel: str, name: str, engine: str) -> None:
    try:
        found = held_against(kernel, name, answer_of(kernel, name, engine))
    except Exception:
        if (kernel, engine, name) not in UNMATCHED:
            raise
        pytest.xfail("not yet")
    if found and (kernel, engine, name) in UNMATCHED:
        pytest.xfail(f"not yet: {found[0]}")
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("exempt", EXCEPTIONS, ids=str)
def test_exception_is_needed(exempt: Any) -> None:
    assert len(exempt.reason) > 20
    found = [
        each.path
        for engine in ("core", "oracle")
        for each in held_against(
            exempt.kernel,
            exempt.scenario,
            answer_of(exempt.kernel, exempt.scenario, engine),
            strict=True,
        )
    ]
    assert any(f"{path}/".startswith(f"{exempt.path}/") for path in found)


def test_exceptions_are_few() -> None:
    scenarios = {(each.kernel, each.scenario) for each in EXCEPTIONS}
    assert not [name for _, name in scenarios if not name.startswith("rand-")]
    for kernel in kernels():
        assert sum(kernel == each for each, _ in scenarios) <= RECORDED[kernel] / 100


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
