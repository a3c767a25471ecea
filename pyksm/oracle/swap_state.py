"""mm/swap_state.c: the swap cache, and reading a slot through it."""

from __future__ import annotations

from pyksm.oracle import memcontrol, page_io, swapfile, workingset
from pyksm.oracle.page_alloc import (
    alloc_page_vma,
    get_page,
    put_page,
    trylock_page,
    unlock_page,
)
from pyksm.oracle.structs import Machine, Page, SwapEntry, Vma
from pyksm.oracle.swap import lru_cache_add


def add_to_swap_cache(m: Machine, page: Page, entry: SwapEntry) -> None:
    """Only who holds the slot's SWAP_HAS_CACHE may call, so it never finds another page there."""
    assert page.locked
    assert not page.swapcache
    assert entry not in m.swap_cache
    get_page(page)
    page.swapcache = True
    page.private = entry
    m.swap_cache[entry] = page


def __delete_from_swap_cache(m: Machine, page: Page) -> SwapEntry:
    """Out of the cache, with the reference and the slot's SWAP_HAS_CACHE left to the caller."""
    assert page.locked
    assert page.swapcache
    assert not page.writeback
    assert page.private is not None
    entry = page.private
    del m.swap_cache[entry]
    page.private = None
    page.swapcache = False
    return entry


def delete_from_swap_cache(m: Machine, page: Page) -> None:
    m.counters["delete_from_swap_cache"] += 1
    swapfile.swapcache_free(m, __delete_from_swap_cache(m, page))
    memcontrol.uncharge_swapcache(m, page)
    put_page(m, page)


def remove_mapping(m: Machine, page: Page) -> None:
    """The swap cache's part of __remove_mapping() in mm/vmscan.c."""
    assert page.private is not None
    workingset.workingset_eviction(m, page, page.private)
    swapfile.swapcache_free(m, __delete_from_swap_cache(m, page))


def add_to_swap(m: Machine, page: Page) -> bool:
    """Find a slot for the page and put it into the swap cache, dirty so that it gets written."""
    m.counters["add_to_swap"] += 1
    entry = swapfile.get_swap_page(m)
    if entry is None:
        return False
    add_to_swap_cache(m, page, entry)
    page.dirty = True
    return True


def free_swap_cache(m: Machine, page: Page) -> None:
    """Drop the swap cache of a page that nobody maps and no pte refers to."""
    if page.swapcache and not page.mapcount and trylock_page(page):
        swapfile.try_to_free_swap(m, page)
        unlock_page(page)


def free_page_and_swap_cache(m: Machine, page: Page) -> None:
    free_swap_cache(m, page)
    put_page(m, page)


def find_get_page(m: Machine, entry: SwapEntry) -> Page | None:
    page = m.swap_cache.get(entry)
    if page is not None:
        get_page(page)
    return page


def lookup_swap_cache(m: Machine, entry: SwapEntry) -> Page | None:
    return find_get_page(m, entry)


def read_swap_cache_async(m: Machine, entry: SwapEntry, vma: Vma | None) -> Page | None:
    """The slot's page with a reference: from the cache, or read. None: no frame, or a free slot."""
    m.counters["read_swap_cache_async"] += 1
    page = find_get_page(m, entry)
    if page is not None:
        return page
    page = alloc_page_vma(m, vma)
    if page is None:
        return None
    if swapfile.swapcache_prepare(m, entry):
        put_page(m, page)
        return None
    page.locked = True
    page.charged = m.has("swapin-charged-at-read")
    add_to_swap_cache(m, page, entry)
    workingset.workingset_refault(m, page, entry)
    lru_cache_add(m, page, page.active)
    page_io.swap_readpage(m, page)
    return page


def swapin_readahead(m: Machine, entry: SwapEntry, vma: Vma) -> Page | None:
    """With page-cluster 0 the block to read ahead is the slot itself: 3.9 asks for it twice."""
    m.counters["swapin_readahead"] += 1
    if not m.has("readahead-once"):
        page = read_swap_cache_async(m, entry, vma)
        if page is not None:
            put_page(m, page)
    return read_swap_cache_async(m, entry, vma)
