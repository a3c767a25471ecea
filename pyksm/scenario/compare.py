"""Answers held against each other, path by path, and against recordings of real kernels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

#: Says who answered, how long it took, or in which steps a group of tasks ran: never compared.
IGNORED = frozenset({"engine", "ms", "steps", "preemptions", "schedule"})

#: Calls of swapoff that a model must make exactly as often as the kernel did, where swapoff goes
#: entry by entry. The later kernels' swapoff is another one, with most of these inlined.
EXACT_CALLS = ("try_to_unuse", "unuse_mm", "unuse_pte", "swap_readpage", "ksm_might_need_to_copy")

#: Those of them that an endless swapoff (ETIMEDOUT) has made by the time it goes in circles.
LOOP_CALLS = ("try_to_unuse", "unuse_pte", "swap_readpage", "ksm_might_need_to_copy")

#: Kernels (the beginning of a recording's ``kernel``) whose calls of swapoff are compared.
_CALLS_OF = ("3.10.", "4.19.")

#: Keys of a result that a recording is not compared by: times, what struct sizes decide, what the
#: model alone has. ``calls`` is compared by itself.
_NOT_RECORDED = frozenset({"ms", "status", "general_profit", "calls", "events"})

#: What hangs on timing once a full area has left pages in the swap cache: see ``lingering.json``.
_TIMING_KEYS = frozenset(
    {"swapcached", "pswpin", "swpin_zero", "ksm_swpin_copy", "cow_ksm", "swapcache", "page",
     "mapcount", "ksm", "ksm_pages", "ksm_stat", "calls"}
)  # fmt: skip


class _Absent:
    """Stands where one side has nothing."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """Where two answers differ (a JSON pointer) and what either has there."""

    path: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.left)} != {_short(self.right)}"


def _short(value: Any, limit: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def differences(left: Any, right: Any, path: str = "") -> Iterator[Difference]:
    """Every path at which two JSON values differ, in the order of the left one."""
    if isinstance(left, dict) and isinstance(right, dict):
        yield from _of_objects(left, right, path)
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            one = left[index] if index < len(left) else ABSENT
            two = right[index] if index < len(right) else ABSENT
            yield from differences(one, two, f"{path}/{index}")
    elif type(left) is not type(right) or left != right:
        yield Difference(path, left, right)


def _of_objects(left: dict[str, Any], right: dict[str, Any], path: str) -> Iterator[Difference]:
    for key in [*left, *(key for key in right if key not in left)]:
        if key not in IGNORED:
            one, two = left.get(key, ABSENT), right.get(key, ABSENT)
            if key == "violations":
                one, two = _codes(one), _codes(two)
            yield from differences(one, two, f"{path}/{_escaped(key)}")


def _codes(lines: Any) -> Any:
    """Census lines by their codes: how an engine words the rest is its own affair."""
    return sorted(line.partition(":")[0] for line in lines) if isinstance(lines, list) else lines


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def recording_differences(
    answer: dict[str, Any],
    recording: dict[str, Any],
    *,
    unstable: Collection[str] = (),
    lingering: int | None = None,
) -> list[Difference]:
    """Where ``answer`` is not what a real kernel said.

    ``unstable``: paths that differed between two runs of that kernel. ``lingering``: the line
    from which on the swap cache, and what hangs on it, depended on the device's speed. A
    recording ends where its kernel did not come back from a swapoff.
    """
    found: list[Difference] = []
    counted = str(recording.get("kernel")).startswith(_CALLS_OF)
    answered, recorded = answer["results"], recording["results"]
    if recorded and recorded[-1]["errno"] == "ETIMEDOUT":
        answered = answered[: len(recorded)]
    results = zip(answered, recorded, strict=True)
    for index, (ours, theirs) in enumerate(results):
        loose = lingering is not None and theirs["line"] >= lingering
        path = f"/results/{index}"
        left, right = _comparable(ours, theirs), _comparable(theirs, theirs)
        noise = [each for each in unstable if each.startswith(f"{path}/observation/processes/")]
        if noise:
            for result in (left, right):
                _renumber(result.get("observation"), f"{path}/observation", noise)
        found += differences(left, right, path)
        if counted and theirs["op"] == "swapoff" and theirs["errno"] in (None, "ETIMEDOUT"):
            names = LOOP_CALLS if theirs["errno"] else EXACT_CALLS
            found += differences(_calls(ours, names), _calls(theirs, names), f"{path}/calls")
        if loose:
            found = [each for each in found if not _timing(each.path, path)]
    return [each for each in found if not _excused(each.path, unstable)]


def _comparable(result: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """The keys that both could have: a model's own extras are dropped."""
    return {
        key: _stripped(value)
        for key, value in result.items()
        if key not in _NOT_RECORDED and (key in recorded or key in ("crc", "scans"))
    }


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [*value]
    if not isinstance(value, dict):
        return value
    return {key: _stripped(each) for key, each in value.items() if key not in _NOT_RECORDED}


def _renumber(observation: Any, path: str, noise: Collection[str]) -> None:
    """Number classes anew by the pages that are no noise: others must not shift their numbers."""
    for key in ("page", "slot"):
        numbers: dict[int, int] = {}
        for process, regions in (observation or {"processes": {}})["processes"].items():
            for name, region in regions.items():
                where = f"{path}/processes/{process}/{name}/{key}"
                for index, had in enumerate(region[key]):
                    if had is not None and not _excused(f"{where}/{index}", noise):
                        region[key][index] = numbers.setdefault(had, len(numbers))


def _calls(result: dict[str, Any], names: Collection[str]) -> dict[str, int]:
    calls = result.get("calls", {})
    return {name: calls.get(name, 0) for name in names}


def _timing(path: str, result: str) -> bool:
    return path.startswith(f"{result}/") and not _TIMING_KEYS.isdisjoint(path.split("/"))


def _excused(path: str, unstable: Collection[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in unstable)
