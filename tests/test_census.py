"""The census can say what it is there for: whatever is bent by hand, it sees (the oracle's).

The core's says the same in every test that compares the two; that it can fail, the museum shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scn import codes

from pyksm import museum
from pyksm.engine import Config
from pyksm.hunt.judge import judge
from pyksm.oracle import Oracle
from pyksm.oracle.pgtable import DIRTY, RW, swp_exclusive
from pyksm.oracle.structs import Machine, Page, Vma

PAGE = 4096
BASE = 4 << 30


class Scene:
    """Of a parent's eight pages the first is out, the second was read again and is in the swap
    cache, both still those of a first child; the third is its own and out; the last two are merged.
    A second child shares all but the sixth."""

    def __init__(self) -> None:
        self.oracle = Oracle(Config(frames=200, page_size=64))
        oracle = self.oracle
        self.pid = oracle.spawn()
        oracle.mmap(self.pid, 8, BASE)
        oracle.write_pages(self.pid, BASE, bytes(range(1, 65)) * 2)
        oracle.fork(self.pid)
        oracle.write(self.pid, BASE + 2 * PAGE, b"own")
        oracle.swapon(16)
        oracle.swapout()
        oracle.read(self.pid, BASE + PAGE, 1)
        oracle.write_pages(self.pid, BASE + 3 * PAGE, bytes(range(64)) * 5)
        oracle.madvise(self.pid, BASE + 6 * PAGE, 2, 12)
        oracle.ksm_scan(3)
        oracle.fork(self.pid)
        oracle.write(self.pid, BASE + 5 * PAGE, b"parent")
        self.m: Machine = oracle._m()
        assert oracle.census(True) == []

    def vma(self, at: int = 0) -> Vma:
        return next(v for v in self.m.mms[self.pid].vmas if v.start <= BASE + at * PAGE < v.end)

    def table(self) -> list[int]:
        (table,) = self.m.mms[self.pid].tables.values()
        return table

    def page(self, at: int) -> Page:
        return self.m.pages[self.oracle.pagemap(self.pid, BASE + at * PAGE, 1)[0].pfn]

    def cached(self) -> Page:
        """Clean, as its slot has it, and mapped by nothing that is dirty."""
        page = self.page(1)
        assert page.swapcache
        assert not page.dirty
        return page


def share(scene: Scene) -> None:
    scene.table()[3] |= RW


def own(scene: Scene) -> None:
    scene.page(3).exclusive = True


def own_ksm(scene: Scene) -> None:
    scene.page(6).exclusive = True


def own_slot(scene: Scene) -> None:
    scene.table()[0] |= swp_exclusive(scene.m)


def stale(scene: Scene) -> None:
    scene.cached().data = bytes(64)


def children(scene: Scene) -> None:
    anon_vma = scene.vma().anon_vma
    assert anon_vma is not None
    anon_vma.num_children += 1


def users(scene: Scene) -> None:
    anon_vma = scene.vma().anon_vma
    assert anon_vma is not None
    anon_vma.num_active_vmas -= 1


def chains(scene: Scene) -> None:
    """Another vma's chain, though both use one anon_vma."""
    low, high = scene.vma(0), scene.vma(7)
    assert low.anon_vma is high.anon_vma
    low.chain.append(low.chain[0])


def unwritten(scene: Scene) -> None:
    scene.vma().written = False


def off_the_list(scene: Scene) -> None:
    scene.m.mmlist.remove(scene.m.mms[scene.pid])


def counts(scene: Scene) -> None:
    scene.page(4).mapcount += 1


def not_paid_for(scene: Scene) -> None:
    scene.page(4).charged = False


BENT: dict[str, list[Callable[[Scene], None]]] = {
    "exclusive": [share, own, own_ksm, own_slot],
    "swap-stale": [stale],
    "anon-vma": [children, users, chains, unwritten],
    "mmlist": [off_the_list],
    "page-mapcount": [counts],
    "charge": [not_paid_for],
}


@pytest.mark.parametrize(
    ("code", "bend"),
    [(code, bend) for code, bends in BENT.items() for bend in bends],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_bent_is_seen(code: str, bend: Callable[[Scene], Any]) -> None:
    scene = Scene()
    bend(scene)
    assert codes(scene.oracle.census())[code] >= 1


def test_what_reclaim_would_write_may_differ_from_its_slot() -> None:
    """Dirty by itself, by a pte, under writeback, or not read at all: the slot is not asked."""
    for attribute, value in (("dirty", True), ("writeback", True), ("uptodate", False)):
        scene = Scene()
        stale(scene)
        setattr(scene.cached(), attribute, value)
        assert codes(scene.oracle.census())["swap-stale"] == 0
    scene = Scene()
    stale(scene)
    scene.table()[1] |= DIRTY
    assert codes(scene.oracle.census())["swap-stale"] == 0


@pytest.mark.parametrize(
    ("code", "bug"),
    [
        ("exclusive", "ksm-write-protect-failure-ignored"),
        ("swap-stale", "ksm-lost-dirty-on-merge"),
        ("anon-vma", "anonvma-degree-merge"),
        ("anon-vma", "anonvma-double-reuse"),
        ("anon-vma", "anonvma-dup-error-leak"),
        ("mmlist", "swapoff-hang-mmlist-orphan"),
    ],
)
def test_the_core_sees_it_too(code: str, bug: str) -> None:
    found = judge(museum.scenario(bug), bugs=[bug])
    assert code in {wrong.code for wrong in found}
