"""mm/mseal.c: mappings that stay as they are (6.10, 8be7258aad44)."""

from __future__ import annotations

from errno import ENOMEM

from pyksm.oracle import mmap
from pyksm.oracle.structs import Machine, Mm, Vma


def do_mseal(m: Machine, mm: Mm, start: int, end: int) -> int:
    """A hole is found before anything is sealed; what is sealed before memory runs out stays so."""
    at = start
    for each in mm.vmas:
        if each.start <= at < each.end:
            at = each.end
    if at < end:
        return -ENOMEM
    vma, prev = mmap.find_vma_prev(mm, start)
    if vma is not None and start > vma.start:
        prev = vma
    while vma is not None and start < end:
        err, prev = mseal_fixup(m, vma, prev, start, min(vma.end, end))
        if err:
            return err
        start = prev.end
        vma = mmap.vma_next(prev)
    return 0


def mseal_fixup(m: Machine, vma: Vma, prev: Vma | None, start: int, end: int) -> tuple[int, Vma]:
    if vma.sealed:
        return 0, vma
    flags = vma.flags()._replace(sealed=True)
    err, vma = mmap.vma_modify_flags(m, vma, prev, start, end, flags)
    if err:
        return err, vma
    vma.sealed = True
    return 0, vma
