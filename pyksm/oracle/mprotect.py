"""mm/mprotect.c"""

from __future__ import annotations

from errno import EPERM

from pyksm.oracle import memory, mlock, mmap
from pyksm.oracle.pgtable import (
    DIRTY,
    PROTNONE,
    RW,
    pte_modify,
    pte_present,
    table_ranges,
    vm_page_prot,
)
from pyksm.oracle.structs import PAGE_SHIFT, Machine, Mm, Vma


def sys_mprotect(m: Machine, mm: Mm, start: int, end: int, prot: int) -> int:
    """Vmas before a hole or a failure keep their new protection."""
    return mmap.fixup_range(
        mm, start, end, lambda vma, prev, low, high: mprotect_fixup(m, vma, prev, low, high, prot)
    )


def mprotect_fixup(
    m: Machine, vma: Vma, prev: Vma | None, start: int, end: int, prot: int
) -> tuple[int, Vma]:
    """Change one vma's part, merging or splitting. Returns the vma that is previous from now on."""
    if vma.sealed:
        return -EPERM, vma
    if prot == vma.prot:
        return 0, vma
    flags = vma.flags()._replace(prot=prot)
    writable = prot & memory.PROT_WRITE and not vma.prot & memory.PROT_WRITE
    err, vma = mmap.vma_modify_flags(m, vma, prev, start, end, flags)
    if err:
        return err, vma
    vma.prot = prot
    change_protection(m, vma, start, end)
    if writable and vma.locked and m.has("mprotect-populates-locked"):
        mlock.populate_vma_page_range(m, vma, start, end)  # and no matter if that fails
    return 0, vma


def change_protection(m: Machine, vma: Vma, start: int, end: int) -> None:
    """Writability is given only where no fault need find out whether the page is shared."""
    prot = vm_page_prot(vma)
    for table, low, high in table_ranges(vma.mm, start, end):
        first = low >> PAGE_SHIFT & 511
        for i in range(first, first + ((high - low) >> PAGE_SHIFT)):
            if pte_present(table[i]):
                table[i] = pte_modify(table[i], prot)
                if can_change_pte_writable(m, vma, table[i]):
                    table[i] |= RW


def can_change_pte_writable(m: Machine, vma: Vma, pte: int) -> bool:
    """Of a page known to be this process's; until 6.1 only if the pte is dirty already."""
    if not m.has("mprotect-gives-writable") or not vma.prot & memory.PROT_WRITE:
        return False
    if not (pte & DIRTY or m.has("mprotect-clean-writable")):
        return False
    if pte & PROTNONE or memory.tracks_soft_dirty(m, vma, pte):
        return False
    page = memory.vm_normal_page(m, pte)
    return page is not None and page.exclusive
