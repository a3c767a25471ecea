"""mm/vmscan.c: reclaim of anonymous pages, as far as swapping out needs it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from pyksm.oracle import mlock, page_io, rmap, swap_state, swapfile
from pyksm.oracle.page_alloc import (
    free_page,
    get_page,
    lock_page,
    put_page,
    trylock_page,
    unlock_page,
)
from pyksm.oracle.pgtable import ACCESSED, PTRS_PER_PTE, SPECIAL, pte_present, table_ranges
from pyksm.oracle.structs import PAGE_SHIFT, Machine, Node, Page, Range, schedule_point
from pyksm.oracle.swap import (
    del_page_from_lru_list,
    lru_add_drain,
    lru_cache_add_lru,
    putback_lru_page,
)
from pyksm.oracle.workingset import lru_note_cost

SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
IDLE_TURNS = 16
SWAPPINESS = 100


def swapout(m: Machine, ranges: list[Range]) -> None:
    """Pressure on everybody's memory: turns of reclaim until none of the ranges' pages (or
    nobody's) is resident and the swap cache is empty, or 16 in a row bring nothing."""
    idle = 0
    while idle < IDLE_TURNS and not _is_out(m, ranges):
        before = _progress(m)
        _clear_young(m)
        _turn(m)
        page_io.complete_writes(m)
        idle = 0 if _progress(m) != before else idle + 1


def _is_resident(pte: int) -> bool:
    return pte_present(pte) and not pte & SPECIAL


def _is_out(m: Machine, ranges: list[Range]) -> bool:
    """What is out is to be read back from its slot, so the cache has to go too."""
    if m.swap_cache:
        return False
    if ranges:
        return not any(_resident(m, *named) for named in ranges)
    return not any(
        any(map(_is_resident, table)) for mm in m.mms.values() for table in mm.tables.values()
    )


def _resident(m: Machine, pid: int, start: int, npages: int) -> bool:
    mm = m.mms.get(pid)
    if mm is None:  # it exited meanwhile, at a schedule point
        return False
    for table, low, high in table_ranges(mm, start, start + (npages << PAGE_SHIFT)):
        first = low >> PAGE_SHIFT & 511
        if any(map(_is_resident, table[first : first + ((high - low) >> PAGE_SHIFT)])):
            return True
    return False


def _progress(m: Machine) -> tuple[int, int, int]:
    """ptes unmapped, pages written, frames freed."""
    rss = sum(mm.anonpages for mm in m.mms.values())
    return rss, m.counters["__swap_writepage"], m.counters["free_page"]


def _clear_young(m: Machine) -> None:
    for mm in m.mms.values():
        for table in mm.tables.values():
            for i in range(PTRS_PER_PTE):
                if pte_present(table[i]):
                    table[i] &= ~ACCESSED


@dataclass(eq=False, slots=True)
class ScanControl:
    """scan_control, as far as it goes from round to round."""

    force_deactivate: bool = False
    skipped_deactivate: bool = False


def _turn(m: Machine) -> None:
    """One call, by a caller that drains where it would be, or has been, in vain. (On the recorded
    4.19.0 somebody always has.)"""
    lists = any(node.inactive or node.active for node in m.nodes)
    if not lists or not m.has("keep-young-once"):
        lru_add_drain(m)
    if try_to_free_mem_cgroup_pages(m) == 0:
        lru_add_drain(m)


def try_to_free_mem_cgroup_pages(m: Machine) -> int:
    """How many pages it freed. Where it freed none, active ones that it had to leave alone may be
    why: once more, and now deactivated they are (b91ac374346b)."""
    sc = ScanControl()
    freed = _descend(m, sc)
    if freed == 0 and sc.skipped_deactivate and m.has("keep-young-once"):
        freed = _descend(m, ScanControl(force_deactivate=True))
    return freed


def _descend(m: Machine, sc: ScanControl) -> int:
    """Up to 13 rounds over the nodes, until 32 pages were freed."""
    reclaimed = 0
    for priority in range(DEF_PRIORITY, -1, -1):
        for node in m.nodes:
            reclaimed += shrink_zone(m, sc, node, priority)
        if reclaimed >= SWAP_CLUSTER_MAX:
            break
    for node in m.nodes:
        node.refaults = node.activations  # snapshot_refaults()
    return reclaimed


def _may_deactivate(m: Machine, sc: ScanControl, node: Node) -> bool:
    if sc.force_deactivate or node.refaults != node.activations:
        return True
    return inactive_anon_is_low(m, node)


def shrink_zone(m: Machine, sc: ScanControl, node: Node, priority: int) -> int:
    """One round on a node. How many pages it freed. Deactivation has its own reasons."""
    schedule_point(m, "shrink_zone:begin")
    reclaimed = 0
    may_deactivate = _may_deactivate(m, sc, node)
    inactive, active = get_scan_count(m, node, priority)
    while inactive:
        batch = min(SWAP_CLUSTER_MAX, inactive)
        inactive -= batch
        reclaimed += shrink_inactive_list(m, node, batch)
        batch = min(SWAP_CLUSTER_MAX, active)
        active -= batch
        if not m.has("keep-young-once"):
            may_deactivate = inactive_anon_is_low(m, node)
        if batch and may_deactivate:
            shrink_active_list(m, node, batch)
        elif batch:
            sc.skipped_deactivate = True
        if reclaimed >= SWAP_CLUSTER_MAX:
            break
    if inactive_anon_is_low(m, node):
        shrink_active_list(m, node, SWAP_CLUSTER_MAX)
    if _writes_end_soon(m):
        page_io.complete_writes(m)
    return reclaimed


def _writes_end_soon(m: Machine) -> bool:
    """Whether the recorded machine was so slow that its disk was done before the next round. Of
    3.9 only the last round writes; 6.18's was the one that was not emulated."""
    if m.has("keep-young-once"):
        return m.has("reclaim-skips-writeback")
    return m.has("scan-anon-by-fraction")


def get_scan_count(m: Machine, node: Node, priority: int) -> tuple[int, int]:
    """How many pages of the inactive and of the active list to look at.

    With no file pages 3.10 finds that there are, as it were, enough inactive ones, so that
    anonymous pages are only scanned in the last round, and then all of them."""
    if m.nr_swap_pages <= 0:
        return 0, 0
    inactive, active = len(node.inactive), len(node.active)
    if priority == 0:
        return inactive, active
    if not m.has("scan-anon-by-fraction"):
        return 0, 0
    if m.has("keep-young-once"):  # by what it cost, nothing for file pages
        cost = node.anon_cost
        anon = SWAPPINESS * (3 * cost + 1) // (2 * cost + 1)
        every = anon + (200 - SWAPPINESS) * (3 * cost + 1) // (cost + 1)
        return (inactive >> priority) * anon // every, (active >> priority) * anon // every
    if node.recent_scanned > (inactive + active) // 4:
        node.recent_scanned //= 2
        node.recent_rotated //= 2
    anon = SWAPPINESS * (node.recent_scanned + 1) // (node.recent_rotated + 1)
    every = anon + (200 - SWAPPINESS) + 1  # of file pages none was scanned
    return (inactive >> priority) * anon // every, (active >> priority) * anon // every


def inactive_anon_is_low(m: Machine, node: Node) -> bool:
    return m.total_swap_pages > 0 and len(node.inactive) < len(node.active)


def isolate_lru_pages(m: Machine, node: Node, count: int, active: bool) -> list[Page]:
    """The oldest pages of a list, off the LRU and with a reference each, oldest first."""
    lru_add_drain(m)  # only now: how long the lists are has been looked at before
    lru = node.active if active else node.inactive
    pages = list(lru)[:count]
    node.recent_scanned += len(pages)
    for page in pages:
        get_page(page)
        del_page_from_lru_list(m, page)
    return pages


def shrink_active_list(m: Machine, node: Node, count: int) -> None:
    """Deactivate; that a page was referenced only counts for executables."""
    for page in isolate_lru_pages(m, node, count, active=True):
        if page.mlocked:
            putback_lru_page(m, page)
            continue
        node.recent_rotated += rmap.page_referenced(m, page)[0] > 0
        page.workingset = True
        _putback(m, page, active=False)


def _putback(m: Machine, page: Page, active: bool) -> None:
    """Straight to its list, but for one that has been locked meanwhile: that goes by the batch."""
    if page.mlocked:
        page.active = active
        putback_lru_page(m, page)
        return
    lru_cache_add_lru(m, page, active)
    put_page(m, page)


def shrink_inactive_list(m: Machine, node: Node, count: int) -> int:
    """How many of the oldest could be freed."""
    pages = isolate_lru_pages(m, node, count, active=False)
    before = m.counters["swap_writepage"]
    kept = shrink_page_list(m, pages)
    freed = sum(page.count == 0 for page in pages)  # one that its put-back frees is none
    for page in kept:
        node.recent_rotated += page.active
        node.nonresident_age += page.active
        _putback(m, page, page.active)
    lru_note_cost(m, node, m.counters["swap_writepage"] - before, len(pages) - freed)
    return freed


def reclaim_pages(m: Machine, pages: list[Page]) -> None:
    """Isolated pages, as MADV_PAGEOUT has them. Those of a node together (they come in runs)."""
    for _, run in groupby(pages, key=lambda page: page.node):
        isolated = list(run)
        for page in isolated:
            page.active = False
        for page in shrink_page_list(m, isolated):
            putback_lru_page(m, page)  # the batch has it when its write ends: no rotation


def shrink_page_list(m: Machine, pages: list[Page]) -> list[Page]:
    """Reclaim what can be; the pages that stay, some of them now active."""
    kept = []
    for page in pages:
        lock_page(page)
        if page.agent is not None and mlock.cull_agent_page(m, page):
            unlock_page(page)
            page.active = False
            put_page(m, page)
            continue
        if page.agent is not None:
            page.active = True
        elif not page.mlocked and _reclaim(m, page):
            free_page(m, page)
            continue
        if page.mlocked and page.locked:
            cull_mlocked(m, page)
            continue
        if page.locked:
            unlock_page(page)
        kept.append(page)
    return kept


def cull_mlocked(m: Machine, page: Page) -> None:
    """A locked page goes where reclaim does not look, and needs no slot."""
    if page.swapcache:
        swapfile.try_to_free_swap(m, page)
    unlock_page(page)
    putback_lru_page(m, page)


def _reclaim(m: Machine, page: Page) -> bool:
    """Try one locked page; true when only the caller's reference is left to it."""
    if page.writeback and m.has("reclaim-skips-writeback"):
        page.reclaim = True
        return _activate(m, page)
    if page.writeback and m.has("scan-anon-by-fraction") and page.reclaim:
        page_io.wait_on_page_writeback(m, page)  # who is there to come back for it in a v1 group
    elif page.writeback:
        page.reclaim = True
        return False
    references = page_check_references(m, page)
    if references == "activate":
        return _activate(m, page)
    if references == "keep":
        return False
    if page.anon and not page.swapcache:
        if m.has("pins-counted") and rmap.page_maybe_dma_pinned(page):
            return False
        if not swap_state.add_to_swap(m, page):
            return _activate(m, page)
    if page.mapcount and page.swapcache:
        unmapped = rmap.try_to_unmap(m, page, rmap.TTU_UNMAP)
        if unmapped == rmap.SWAP_MLOCK:
            return False  # it is marked now
        if unmapped == rmap.SWAP_FAIL:
            return _activate(m, page)
        if unmapped == rmap.SWAP_AGAIN:
            return _activate(m, page) if m.has("unmap-failure-activates") else False
    if page.dirty and not pageout(m, page):
        return False
    return page.swapcache and __remove_mapping(m, page)


def page_check_references(m: Machine, page: Page) -> str:
    """One young pte is not enough for activation since b518154e59aa, but for another round."""
    referenced_ptes, vm_locked = rmap.page_referenced(m, page)
    referenced_page, page.referenced = page.referenced, False
    if vm_locked:  # since 5.18 it is marked by now; before, try_to_unmap() has it to do
        return "keep" if m.has("mlock-count") else "reclaim"
    if not referenced_ptes:
        return "reclaim"
    if not m.has("keep-young-once"):
        return "activate"
    page.referenced = True
    return "activate" if referenced_page or referenced_ptes > 1 else "keep"


def _activate(m: Machine, page: Page) -> bool:
    """Not a candidate for swapping, so give its slot back where slots are short."""
    if page.swapcache and swapfile.vm_swap_full(m):
        swapfile.try_to_free_swap(m, page)
    page.active = True
    return False


def pageout(m: Machine, page: Page) -> bool:
    """Start to write a dirty page, which unlocks it. True: clean already, and locked again."""
    if page.count != 2 or not page.swapcache:
        return False
    page.dirty = False
    page.reclaim = True
    page_io.swap_writepage(m, page)
    if not page.writeback:
        page.reclaim = False
    return not page.writeback and not page.dirty and trylock_page(page)


def __remove_mapping(m: Machine, page: Page) -> bool:
    """Take a clean page with no other references out of the swap cache, for good."""
    if page.count != 2 or page.dirty:
        return False
    swap_state.remove_mapping(m, page)
    page.count = 0
    return True
