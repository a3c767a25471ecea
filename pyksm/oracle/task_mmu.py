"""fs/proc/task_mmu.c: what a write to /proc/PID/clear_refs does."""

from __future__ import annotations

from errno import EINVAL

from pyksm.oracle import memory
from pyksm.oracle.pgtable import (
    ACCESSED,
    RW,
    SOFT_DIRTY,
    pte_present,
    swp_soft_dirty,
    table_ranges,
)
from pyksm.oracle.structs import PAGE_SHIFT, Machine, Mm

CLEAR_REFS_ALL = 1
CLEAR_REFS_SOFT_DIRTY = 4


def clear_refs_write(m: Machine, mm: Mm, what: int) -> int:
    """All ptes of the process: no longer young, or no longer soft-dirty."""
    if what == CLEAR_REFS_SOFT_DIRTY and m.has("soft-dirty"):
        for vma in mm.vmas:
            vma.softdirty = False
    elif what != CLEAR_REFS_ALL:
        return -EINVAL
    for vma in mm.vmas:
        for table, low, high in table_ranges(mm, vma.start, vma.end):
            first = low >> PAGE_SHIFT & 511
            for i in range(first, first + ((high - low) >> PAGE_SHIFT)):
                if table[i]:
                    clear_refs_pte(m, table, i, what)
    return 0


def clear_refs_pte(m: Machine, table: list[int], i: int, what: int) -> None:
    pte = table[i]
    if what == CLEAR_REFS_SOFT_DIRTY:  # so that the next write faults; the zero page's too
        table[i] &= ~(RW | SOFT_DIRTY) if pte_present(pte) else ~swp_soft_dirty(m)
        return
    page = memory.vm_normal_page(m, pte) if pte_present(pte) else None
    if page is not None:
        table[i] &= ~ACCESSED
        page.referenced = False
