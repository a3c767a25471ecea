"""mm/madvise.c"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOMEM, EPERM

from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_PAGEOUT,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
)
from pyksm.oracle import ksm, memory, mmap, page_io, swap_state, vmscan
from pyksm.oracle.page_alloc import put_page
from pyksm.oracle.pgtable import (
    ACCESSED,
    get_pte,
    non_swap_entry,
    pte_present,
    pte_to_swp_entry,
    table_ranges,
)
from pyksm.oracle.structs import PAGE_SHIFT, PAGE_SIZE, Machine, Mm, Vma
from pyksm.oracle.swap import isolate_lru_page, lru_add_drain

VALID = (MADV_WILLNEED, MADV_DONTNEED, MADV_MERGEABLE, MADV_UNMERGEABLE)


def sys_madvise(m: Machine, mm: Mm, start: int, end: int, advice: int) -> int:
    """Holes are passed over, and reported at the end by -ENOMEM."""
    if advice not in VALID and not (advice == MADV_PAGEOUT and m.has("madvise-pageout")):
        return -EINVAL
    unmapped_error = 0
    vma, prev = mmap.find_vma_prev(mm, start)
    if vma is not None and start > vma.start:
        prev = vma
    while True:
        if vma is None:
            return -ENOMEM
        if start < vma.start:
            unmapped_error = -ENOMEM
            start = vma.start
            if start >= end:
                return -ENOMEM
        upto = min(vma.end, end)
        err, prev = madvise_vma(m, vma, prev, start, upto, advice)
        if err:
            return err
        start = max(upto, prev.end)
        if start >= end:
            return unmapped_error
        vma = mmap.vma_next(prev)


def madvise_vma(
    m: Machine, vma: Vma, prev: Vma | None, start: int, end: int, advice: int
) -> tuple[int, Vma]:
    """One vma's part. Returns 0 or -errno, and the vma that is previous from now on."""
    if advice == MADV_WILLNEED:
        force_swapin_readahead(m, vma, start, end)
        return 0, vma
    if advice == MADV_DONTNEED:
        if vma.sealed and not vma.prot & memory.PROT_WRITE:
            return -EPERM, vma  # what can be written to can be emptied by hand
        if vma.locked:
            return -EINVAL, vma
        memory.zap_page_range(m, vma, start, end)
        return 0, vma
    if advice == MADV_PAGEOUT:
        if vma.locked:
            return -EINVAL, vma
        madvise_pageout(m, vma, start, end)
        return 0, vma
    return madvise_behavior(m, vma, prev, start, end, advice)


def madvise_behavior(
    m: Machine, vma: Vma, prev: Vma | None, start: int, end: int, advice: int
) -> tuple[int, Vma]:
    """Set or clear VM_MERGEABLE on a part of a vma, which splits it or merges it with others."""
    err, mergeable = ksm.ksm_madvise(m, vma, start, end, advice)
    if err or mergeable == vma.mergeable:
        return _again(err), vma
    flags = vma.flags()._replace(mergeable=mergeable)
    err, vma = mmap.vma_modify_flags(m, vma, prev, start, end, flags)
    if err:
        return _again(err), vma
    vma.mergeable = mergeable
    return 0, vma


def madvise_pageout(m: Machine, vma: Vma, start: int, end: int) -> None:
    """Reclaim what only this vma maps, and let the writes end."""
    lru_add_drain(m)
    for table, low, high in table_ranges(vma.mm, start, end):
        pages = []
        first = low >> PAGE_SHIFT & 511
        for i in range(first, first + ((high - low) >> PAGE_SHIFT)):
            page = memory.vm_normal_page(m, table[i]) if pte_present(table[i]) else None
            if page is None or not page.lru or page.mapcount != 1:
                continue
            table[i] &= ~ACCESSED
            page.referenced = False
            if isolate_lru_page(m, page):
                pages.append(page)
        vmscan.reclaim_pages(m, pages)
    page_io.complete_writes(m)


def _again(err: int) -> int:
    """madvise() means a hole by -ENOMEM, so lack of memory is called something else."""
    return -EAGAIN if err == -ENOMEM else err


def force_swapin_readahead(m: Machine, vma: Vma, start: int, end: int) -> None:
    """Read what is swapped out into the swap cache, and leave the ptes alone."""
    for _, low, high in table_ranges(vma.mm, start, end):
        for address in range(low, high, PAGE_SIZE):
            pte = get_pte(vma.mm, address)
            if not pte or pte_present(pte) or non_swap_entry(m, pte_to_swp_entry(m, pte)):
                continue
            page = swap_state.read_swap_cache_async(m, pte_to_swp_entry(m, pte), vma)
            if page is not None:
                put_page(m, page)
    lru_add_drain(m)
