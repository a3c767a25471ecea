"""mm/ksm.c, the part that mm/rmap.c calls: from a KSM page to the ptes that map it.

Each walk goes twice over the rmap_items of the page's stable node: first to the vma that the item
is about, then to vmas of other mms at the same address, in case they were forked since ksmd passed.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyksm.oracle import interval_tree, rmap
from pyksm.oracle.structs import PAGE_SHIFT, Machine, Page, RmapItem, StableNode, Vma, switched


def _vmas_of_item(m: Machine, item: RmapItem, search_new_forks: bool) -> Iterator[Vma]:
    """vmas that cover the item's address: of its own mm, or else of all others."""
    assert item.anon_vma is not None
    if m.has("ksm-rmap-by-index"):
        by_address = switched(m, "rmap-by-address")
        index = item.address >> PAGE_SHIFT if by_address else item.index
        avcs = interval_tree.foreach(m, item.anon_vma, index, index)
    else:
        avcs = interval_tree.foreach_all(m, item.anon_vma)
    for avc in avcs:
        vma = avc.vma
        if vma.start <= item.address < vma.end and (vma.mm is not item.mm) == search_new_forks:
            yield vma


def _candidates(m: Machine, node: StableNode) -> Iterator[tuple[RmapItem, Vma]]:
    for search_new_forks in (False, True):
        for item in reversed(node.hlist):
            for vma in _vmas_of_item(m, item, search_new_forks):
                yield item, vma


def page_referenced_ksm(m: Machine, page: Page, seen: rmap.Referenced) -> None:
    """Stops when as many ptes were found as map the page."""
    m.counters["page_referenced_ksm"] += 1
    if page.stable_node is None:
        return
    for search_new_forks in (False, True):
        for item in reversed(page.stable_node.hlist):
            for vma in _vmas_of_item(m, item, search_new_forks):
                rmap.page_referenced_one(m, page, vma, item.address, seen)
                if not search_new_forks or seen.mapcount == 0:
                    break
            if seen.mapcount == 0:
                return


def try_to_unmap_ksm(m: Machine, page: Page, action: int) -> int:
    m.counters["try_to_unmap_ksm"] += 1
    if page.stable_node is None:
        return rmap.SWAP_FAIL
    ret = rmap.SWAP_AGAIN
    for item, vma in _candidates(m, page.stable_node):
        ret = rmap.try_to_unmap_one(m, page, vma, item.address, action)
        if ret != rmap.SWAP_AGAIN or not page.mapcount:
            break
    return ret


def rmap_walk_ksm(m: Machine, page: Page, rmap_one: rmap.RmapOne) -> None:
    m.counters["rmap_walk_ksm"] += 1
    if page.stable_node is None:
        return
    for item, vma in _candidates(m, page.stable_node):
        if rmap_one(page, vma, item.address) != rmap.SWAP_AGAIN:
            break
