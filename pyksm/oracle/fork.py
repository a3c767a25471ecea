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
    if dup_mmap(m, mm, oldmm):
        mmput(m, mm)
        return None
    return mm


def dup_mmap(m: Machine, mm: Mm, oldmm: Mm) -> int:
    if oldmm.vm_mergeable and ksm.__ksm_enter(m, mm):  # ksm_fork()
        return -ENOMEM
    for mpnt in oldmm.vmas:
        if not kmem_alloc(m):
            return -ENOMEM
        tmp = replace(mpnt, mm=mm, chain=[])
        if rmap.anon_vma_fork(m, tmp, mpnt):
            return -ENOMEM
        mmap.vma_link(mm, tmp)
        if memory.copy_page_range(m, tmp, mpnt):
            return -ENOMEM
    mlock.agent_fork(m, mm, oldmm)
    return 0
