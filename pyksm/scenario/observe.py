"""The contract's observation of a machine, taken without touching a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyksm.engine import Engine, PageInfo
from pyksm.scenario.world import World


class Classes:
    """Numbers things in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def of(self, thing: Any) -> int:
        return self._numbers.setdefault(thing, len(self._numbers))


def observation(engine: Engine, world: World, vmstat: Mapping[str, int]) -> dict[str, Any]:
    """The observation; ``vmstat`` is what the machine's counters were at the beginning."""
    frames, slots = Classes(), Classes()
    nodes = engine.config.nodes >= 2
    processes = {
        process.name: {
            region.name: _region(
                engine.pagemap(process.pid, region.addr, region.npages), frames, slots, nodes
            )
            for region in process.regions.values()
        }
        for process in world.processes.values()
    }
    used = {area.type: area.used for area in engine.areas()}
    return {
        "processes": processes,
        "ksm": dict(engine.ksm_counts()),
        "swap": {name: {"used": used[kind]} for name, kind in world.areas.items()},
        "swapcached": engine.swapcached(),
        "vmstat": {name: now - vmstat.get(name, 0) for name, now in engine.vmstat().items()},
    }


def _region(pages: list[PageInfo], frames: Classes, slots: Classes, nodes: bool) -> dict[str, Any]:
    present = [page.state in "PZ" for page in pages]
    both = list(zip(pages, present, strict=True))
    answer: dict[str, Any] = {
        "state": "".join(page.state for page in pages),
        "page": [frames.of(page.pfn) if here else None for page, here in both],
        "slot": [
            slots.of((page.swp_type, page.swp_offset)) if page.state == "S" else None
            for page in pages
        ],
        "ksm": "".join(str(int(page.ksm)) if here else "-" for page, here in both),
        "swapcache": "".join(str(int(page.swapcache)) if here else "-" for page, here in both),
        "mapcount": [page.mapcount if here else None for page, here in both],
    }
    if nodes:
        answer["node"] = [page.node if here else None for page, here in both]
    return answer


def raw(engine: Engine, world: World) -> dict[str, dict[str, list[int]]]:
    """Every raw pte of every region: what engines are compared by beside observations."""
    return {
        process.name: {
            region.name: [
                page.pte for page in engine.pagemap(process.pid, region.addr, region.npages)
            ]
            for region in process.regions.values()
        }
        for process in world.processes.values()
    }
