"""Random scenarios for a booted kernel: what engines alone know is left out, and so is noise.

Swap areas mostly hold everything (a full one leaves to timing what stays in the swap cache, see
the recordings' README), and together stay below the 320 free pages at which 4.11 to 6.12 begin to
set slots aside for each CPU. ksmd runs in ``scan`` only. One program in three locks memory.
"""

from __future__ import annotations

import dataclasses
import random

from pyksm.hunt import generate
from pyksm.hunt.generate import Chooser, Names, Seeded
from pyksm.recorder.noise import SLOTS_SET_ASIDE, most_swap
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Setting

#: Pages of an area that is alone, and of others beside it.
_FIRST_AREA, _AREA = (150, 190), (48, 60)
_REGION_PAGES = 32

#: Settings beside run and merge_across_nodes; a kernel that lacks one says ENOENT.
_SETTINGS = (
    *(("use_zero_pages", value) for value in (0, 1, 1)),
    *(("max_page_sharing", value) for value in (2, 3, 5, 256)),
    *(("stable_node_chains_prune_millisecs", value) for value in (0, 2000)),
    *(("smart_scan", value) for value in (0, 1)),
)  # fmt: skip


def program(seed: int, length: int = 45) -> st.Scenario:
    """The program of that seed: always the same, some ``length`` statements."""
    choose = Seeded(random.Random(f"kernel {seed}"))
    machine = st.Machine(nodes=choose.pick((1, 1, 1, 2)))
    names = Names(nodes=machine.nodes)
    body = _opening(choose, names)
    wanted = choose.integer(length // 2, length * 3 // 2)
    table = _LOCKING if seed % 3 == 2 else _TABLE
    while len(body) < wanted:
        statement = table[choose.integer(0, len(table) - 1)](choose, names)
        if statement is not None:
            body.append(_tamed(statement, choose, names))
        if choose.integer(1, 100) <= 12:
            body.append(st.Observe())
    body += [st.Observe("end"), *_all_read(names), st.Observe("read")]
    return st.Scenario((machine, *body), f"kernel-seed-{seed}")


def quiet(scenario: st.Scenario) -> bool:
    """Whether its areas are of sizes that programs of this module have."""
    sizes = [each.npages for each in scenario.body if isinstance(each, st.Swapon)]
    return min(sizes, default=_AREA[0]) >= _AREA[0] and most_swap(scenario) < SLOTS_SET_ASIDE


def _opening(choose: Chooser, names: Names) -> list[st.Statement]:
    """Two in three begin with an area: without one there is little to see."""
    body: list[st.Statement] = []
    if choose.integer(1, 3) > 1 and (area := generate._swapon(choose, names)) is not None:
        body.append(_tamed(area, choose, names))
    return body + [_tamed(each, choose, names) for each in generate.opening(choose, names)]


def _all_read(names: Names) -> list[st.Statement]:
    """Every page of everybody: contents are what it is all about."""
    return [
        st.Read(process, Pages(region))
        for process, regions in names.processes.items()
        for region in regions
    ]


def _tamed(statement: st.Statement, choose: Chooser, names: Names) -> st.Statement:
    """The same without what would be noise."""
    if isinstance(statement, st.Swapon):
        low, high = _FIRST_AREA if len(names.areas) == 1 else _AREA
        return dataclasses.replace(statement, npages=choose.integer(low, high))
    if isinstance(statement, st.Mmap) and statement.npages > _REGION_PAGES:
        names.processes[statement.process][statement.region] = _REGION_PAGES
        return dataclasses.replace(statement, npages=_REGION_PAGES)
    if isinstance(statement, st.Ksm):
        return st.Ksm(tuple(_quiet(setting, choose) for setting in statement.settings))
    return statement


def _quiet(setting: Setting, choose: Chooser) -> Setting:
    if setting.key == "run" and setting.value == 1:  # ksmd would run beside what follows
        return Setting(*choose.pick(_SETTINGS))
    return setting


def _setting(choose: Chooser, names: Names) -> st.Statement:
    return st.Ksm((Setting(*choose.pick(_SETTINGS)),))


_TABLE: tuple[generate.Maker, ...] = (
    *(maker for maker in generate._TABLE if maker is not generate._inject),
    _setting,
    _setting,
    _setting,
)
#: Of seeds that booted programs and others of ours are not of: those stay what they were.
_LOCKING = (*_TABLE, *[generate._mlock] * 6, *[generate._munlock] * 3)
