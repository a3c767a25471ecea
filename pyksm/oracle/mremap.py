"""mm/mremap.c: moving pages to a fixed place (MREMAP_MAYMOVE | MREMAP_FIXED)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM, EPERM

from pyksm.oracle import ksm, mmap
from pyksm.oracle.pgtable import (
    SOFT_DIRTY,
    get_pte,
    next_table,
    pmd_addr_end,
    pte_alloc,
    pte_present,
    set_pte,
    swp_soft_dirty,
)
from pyksm.oracle.structs import PAGE_SHIFT, PAGE_SIZE, Machine, Mm, Vma


def mremap_to(m: Machine, mm: Mm, start: int, end: int, new_start: int) -> int:
    """What was mapped at the new place goes, even when the move then fails."""
    vma = mmap.vma_at(mm, start)
    if vma is not None and vma.sealed and not m.has("mremap-many-vmas"):
        return -EPERM
    if new_start < end and start < new_start + end - start:
        return -EINVAL
    if m.has("mremap-many-vmas"):
        return remap_move(m, mm, start, end, new_start)
    return _unmap_and_move(m, mm, start, end, new_start)


def remap_move(m: Machine, mm: Mm, start: int, end: int, new_start: int) -> int:
    """Vma by vma, with the gaps between them kept; a gap at the start is refused at once."""
    vma = mmap.find_vma(mm, start)
    if vma is None or vma.start > start:
        return -EFAULT
    last_end = vma.start
    while vma is not None and vma.start < end:
        low, high = max(vma.start, start), min(vma.end, end)
        new_start += vma.start - last_end
        last_end = vma.end
        if vma.sealed:
            return -EPERM
        err = _unmap_and_move(m, mm, low, high, new_start)
        if err:
            return err
        new_start += high - low
        vma = mmap.find_vma(mm, last_end)
    return 0


def _unmap_and_move(m: Machine, mm: Mm, start: int, end: int, new_start: int) -> int:
    err = mmap.do_munmap(m, mm, new_start, new_start + end - start)
    if err:
        return err
    vma = mmap.vma_at(mm, start)
    if vma is None or end > vma.end:
        return -EFAULT
    return move_vma(m, vma, start, end, new_start)


def move_vma(m: Machine, vma: Vma, start: int, end: int, new_start: int) -> int:
    """KSM pages are broken first, for their rmap_items know the old address."""
    if vma.mergeable:
        err = ksm.ksm_unmergeable(m, vma, start, end)
        if err:
            return err
    pgoff = vma.pgoff + ((start - vma.start) >> PAGE_SHIFT)
    new_vma, vma = mmap.copy_vma(m, vma, new_start, new_start + end - start, pgoff)
    if new_vma is None:
        return -ENOMEM
    move_page_tables(m, vma, start, end, new_start)
    mmap.do_munmap(m, vma.mm, start, end)  # out of memory for a split: the old range stays mapped
    return 0


def move_page_tables(m: Machine, vma: Vma, start: int, end: int, new_start: int) -> None:
    """Only tables that are there are gone through, and only for them is there a destination."""
    mm = vma.mm
    while (at := next_table(mm, start, end)) < end:
        new_start += at - start
        start = at
        room = pmd_addr_end(new_start, new_start + end - start) - new_start
        upto = min(pmd_addr_end(start, end), start + room)
        pte_alloc(mm, new_start)
        for address in range(start, upto, PAGE_SIZE):
            pte = get_pte(mm, address)
            if pte:
                m.counters["move_pte"] += 1
                set_pte(mm, address, 0)
                set_pte(mm, new_start + address - start, move_soft_dirty_pte(m, pte))
        new_start += upto - start
        start = upto


def move_soft_dirty_pte(m: Machine, pte: int) -> int:
    """What was moved counts as written there."""
    if not m.has("soft-dirty"):
        return pte
    return pte | (SOFT_DIRTY if pte_present(pte) else swp_soft_dirty(m))
