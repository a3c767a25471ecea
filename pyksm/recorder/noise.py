"""What of an answer is noise: paths that differ between runs, and the line where timing sets in."""

from __future__ import annotations

import copy
from typing import Any

from pyksm.scenario import statements as st
from pyksm.scenario.compare import differences

#: With so many free swap pages 4.11 to 6.12 begin to set slots aside for each CPU, and go on with
#: it until there are few.
SLOTS_SET_ASIDE = 320


def most_swap(scenario: st.Scenario) -> int:
    """Pages of all areas that are on at the same time, as far as the text tells."""
    on: dict[str, int] = {}
    most = 0
    for statement in scenario.body:
        if isinstance(statement, st.Swapon):
            on.setdefault(statement.area, statement.npages)
        elif isinstance(statement, st.Swapoff):
            on.pop(statement.area, None)
        most = max(most, sum(on.values()))
    return most


def lingering(scenario: st.Scenario, answer: dict[str, Any]) -> int | None:
    """The line of the first observation with a full area and swap-cache pages that nobody maps.

    From there on it hangs on the device's speed what is still in the swap cache. None: never.
    """
    sizes = {each.area: each.npages for each in scenario.body if isinstance(each, st.Swapon)}
    for result in answer["results"]:
        seen = result.get("observation")
        if seen is None:
            continue
        full = any(area["used"] >= sizes[name] - 1 for name, area in seen["swap"].items())
        if full and seen["swapcached"] > _mapped_and_cached(seen):
            line: int = result["line"]
            return line
    return None


def _mapped_and_cached(seen: dict[str, Any]) -> int:
    frames = {
        frame
        for regions in seen["processes"].values()
        for region in regions.values()
        for frame, cached in zip(region["page"], region["swapcache"], strict=True)
        if cached == "1"
    }
    return len(frames)


def placed(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without the zero page's node: that hangs on where a boot has put the kernel."""
    answer = copy.deepcopy(answer)
    for result in answer["results"]:
        for regions in result.get("observation", {"processes": {}})["processes"].values():
            for region in regions.values():
                for index, state in enumerate(region["state"] if "node" in region else ""):
                    if state == "Z":
                        region["node"][index] = None
    return answer


def unstable(answers: list[dict[str, Any]]) -> list[str]:
    """Paths at which answers of the same kernel to the same scenario differ."""
    first, *others = answers
    found = {each.path: None for other in others for each in differences(first, other)}
    return list(found)
