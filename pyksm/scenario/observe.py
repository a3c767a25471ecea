"""The contract's observation of a machine, taken without touching a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyksm.engine import Engine, PageInfo
from pyksm.scenario.world import World

#: What /proc/PID/ksm_stat counts, in its order, and since which feature (ksm_process_profit hangs
#: on struct sizes and is left out, as in the recordings).
_KSM_STAT = (
    ("ksm_rmap_items", "ksm-rmap-items"),
    ("ksm_zero_pages", "ksm-stat-profit"),
    ("ksm_merging_pages", "ksm-stat-profit"),
)


class Classes:
    """Numbers things in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def of(self, thing: Any) -> int:
        return self._numbers.setdefault(thing, len(self._numbers))


@dataclass
class Shape:
    """What all regions of one observation have in common."""

    frames: Classes
    slots: Classes
    nodes: bool  #: the machine has several, so pages say theirs
    ksm: bool  #: /proc/kpageflags can be believed
    ksm_pages: bool  #: smaps counts KSM pages


def observation(engine: Engine, world: World, vmstat: Mapping[str, int]) -> dict[str, Any]:
    """The observation; ``vmstat`` is what the machine's counters were at the beginning."""
    features = engine.config.features
    shape = Shape(
        frames=Classes(),
        slots=Classes(),
        nodes=engine.config.nodes >= 2,
        ksm="kpageflags-ksm-wrong" not in features,
        ksm_pages="smaps-ksm" in features,
    )
    processes = {
        process.name: {
            each.name: region(engine.pagemap(process.pid, each.addr, each.npages), shape)
            for each in process.regions.values()
        }
        for process in world.processes.values()
    }
    answer: dict[str, Any] = {"processes": processes, "ksm": dict(engine.ksm_counts())}
    stats = _ksm_stats(engine, world, [key for key, since in _KSM_STAT if since in features])
    if stats:
        answer["ksm_stat"] = stats
    used = {area.type: area.used for area in engine.areas()}
    return answer | {
        "swap": {name: {"used": used[kind]} for name, kind in world.areas.items()},
        "swapcached": engine.swapcached(),
        "vmstat": {name: now - vmstat.get(name, 0) for name, now in engine.vmstat().items()},
    }


def _ksm_stats(engine: Engine, world: World, keys: list[str]) -> dict[str, dict[str, int]]:
    """Each process' ksm_stat; nothing where the kernel has no such file."""
    if not keys:
        return {}
    stats = {process.name: engine.ksm_stat(process.pid) for process in world.processes.values()}
    return {name: {key: stat[key] for key in keys} for name, stat in stats.items()}


def region(pages: list[PageInfo], shape: Shape) -> dict[str, Any]:
    """One region. smaps counts KSM pages by their mappings, the zero page never."""
    present = [page.state in "PZ" for page in pages]
    both = list(zip(pages, present, strict=True))
    answer: dict[str, Any] = {
        "state": "".join(page.state for page in pages),
        "page": [shape.frames.of(page.pfn) if here else None for page, here in both],
        "slot": [
            shape.slots.of((page.swp_type, page.swp_offset)) if page.state == "S" else None
            for page in pages
        ],
    }
    if shape.ksm:
        answer["ksm"] = "".join(str(int(page.ksm)) if here else "-" for page, here in both)
    answer["swapcache"] = "".join(str(int(page.swapcache)) if here else "-" for page, here in both)
    answer["mapcount"] = [page.mapcount if here else None for page, here in both]
    if shape.nodes:
        answer["node"] = [page.node if here else None for page, here in both]
    if shape.ksm_pages:
        answer["ksm_pages"] = sum(page.state == "P" and page.ksm for page in pages)
    return answer


def raw(engine: Engine, world: World) -> dict[str, dict[str, list[int]]]:
    """Every raw pte of every region: what engines are compared by beside observations. One more
    bit says that its page is marked as locked."""
    return {
        process.name: {
            region.name: [
                page.pte | page.mlocked << 64
                for page in engine.pagemap(process.pid, region.addr, region.npages)
            ]
            for region in process.regions.values()
        }
        for process in world.processes.values()
    }
