"""kernel/fork.c: the life of an mm."""

from __future__ import annotations

from dataclasses import replace
from errno import ENOMEM

from pyksm.oracle import ksm, memory, mlock, mmap, rmap
from pyksm.oracle.structs import Machine, Mm, kmem_alloc


def mm_alloc(m: Machine) -> Mm | None:
    return Mm(m.next_pid) if kmem_alloc(m) else None


def mmput(m: Machine, mm: Mm) -> None:
    """The last user is gone: tell KSM, drop all memory, leave swapoff's list."""
    mm.users -= 1
    if mm.users:
        return
    if mm.vm_mergeable:
        ksm.__ksm_exit(m, mm)
    mmap.exit_mmap(m, mm)
    mlock.agent_exit(m, mm)
    if mm in m.mmlist:
        m.mmlist.remove(mm)


def dup_mm(m: Machine, oldmm: Mm) -> Mm | None:
    """A copy of the address space, or None when memory ran out on the way."""
    mm = mm_alloc(m)
    if mm is None:
        return None
    mm.merge_any = oldmm.merge_any
    mm.ksm_merging_pages, mm.ksm_rmap_items = oldmm.ksm_merging_pages, oldmm.ksm_rmap_items
    mm.ksm_zero_pages = oldmm.ksm_zero_pages
    if dup_mmap(m, mm, oldmm):
        mmput(m, mm)
        return None
    return mm


def dup_mmap(m: Machine, mm: Mm, oldmm: Mm) -> int:
    late = m.has("ksm-fork-late")  # and only if nothing failed (985da552a98e)
    if not late and ksm.ksm_fork(m, mm, oldmm):
        return -ENOMEM
    for mpnt in oldmm.vmas:
        if not kmem_alloc(m):
            return -ENOMEM
        tmp = replace(mpnt, mm=mm, locked=False, anon_vma=None, chain=[])
        if rmap.anon_vma_fork(m, tmp, mpnt):
            return -ENOMEM
        mmap.vma_link(mm, tmp)
        if memory.copy_page_range(m, tmp, mpnt):
            return -ENOMEM
    if late:
        ksm.ksm_fork(m, mm, oldmm)
    mlock.agent_fork(m, mm, oldmm)
    return 0
