"""mm/mmap.c: the list of vmas: mapping, unmapping, splitting, merging."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from errno import EEXIST, ENOMEM, EPERM

from pyksm.oracle import interval_tree, ksm, memory, mlock, rmap
from pyksm.oracle.pgtable import free_pgtables
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    TASK_SIZE,
    AnonVma,
    Machine,
    Mm,
    Vma,
    VmFlags,
    kmem_alloc,
    vma_pages,
)

GIB = 1 << 30


def find_vma(mm: Mm, address: int) -> Vma | None:
    """The first vma that ends above address."""
    for vma in mm.vmas:
        if vma.end > address:
            return vma
    return None


def vma_at(mm: Mm, address: int) -> Vma | None:
    vma = find_vma(mm, address)
    return vma if vma is not None and vma.start <= address else None


def vma_next(vma: Vma) -> Vma | None:
    at = vma.mm.vmas.index(vma) + 1
    return vma.mm.vmas[at] if at < len(vma.mm.vmas) else None


def vma_prev(vma: Vma) -> Vma | None:
    at = vma.mm.vmas.index(vma)
    return vma.mm.vmas[at - 1] if at else None


def find_vma_prev(mm: Mm, address: int) -> tuple[Vma | None, Vma | None]:
    """(the first vma that ends above address, the one before it)"""
    vma = find_vma(mm, address)
    if vma is None:
        return None, mm.vmas[-1] if mm.vmas else None
    return vma, vma_prev(vma)


#: What is done to one vma's part of a range: (vma, the one before, start, end) to (err, the vma
#: that is previous from now on).
Fixup = Callable[[Vma, Vma | None, int, int], tuple[int, Vma]]


def fixup_range(mm: Mm, start: int, end: int, fixup: Fixup) -> int:
    """Vma by vma, as mprotect and mlock go; a hole or an error ends it, what came before stays."""
    vma, prev = find_vma_prev(mm, start)
    if vma is None or vma.start > start:
        return -ENOMEM
    if start > vma.start:
        prev = vma
    while True:
        upto = min(vma.end, end)
        err, prev = fixup(vma, prev, start, upto)
        if err:
            return err
        start = max(upto, prev.end)
        if start >= end:
            return 0
        following = vma_next(prev)
        if following is None or following.start != start:
            return -ENOMEM
        vma = following


def find_vma_links(mm: Mm, start: int, end: int) -> tuple[bool, Vma | None]:
    """Whether nothing is mapped there, and which vma comes before."""
    vma, prev = find_vma_prev(mm, start)
    return vma is None or vma.start >= end, prev


def vma_link(mm: Mm, vma: Vma) -> None:
    mm.vmas.insert(bisect_left(mm.vmas, vma.start, key=lambda other: other.start), vma)


# --- adjusting bounds


def _transfer(vma: Vma, end: int, following: Vma) -> tuple[Vma | None, Vma | None, int, int]:
    """For vma_adjust(): who takes pages over from whom, how far the boundary in ``following``
    moves (pages), and how many vmas after it vanish."""
    if end >= following.end:
        return vma, following, 0, 1 + (end > following.end)
    if end > following.start:
        return vma, following, (end - following.start) >> PAGE_SHIFT, 0
    if end < vma.end:
        return following, vma, -((vma.end - end) >> PAGE_SHIFT), 0
    return None, None, 0, 0


def _export(m: Machine, exporter: Vma, importer: Vma) -> int:
    """A vma that takes pages over needs the anon_vmas that they belong to."""
    if exporter.anon_vma is not None and importer.anon_vma is None:
        importer.anon_vma = exporter.anon_vma  # first, so that it is counted (c4ea95d7cd08)
        if rmap.anon_vma_clone(m, importer, exporter):
            return -ENOMEM
    return 0


def _prepare_merge(
    m: Machine, importer: Vma, exporter: Vma | None, behind: Vma | None, copied: Vma | None
) -> int:
    """Before the first bound moves: the anon_vmas of all whose pages come in, and since 6.1 memory
    for the tree of vmas. Where there is none all is as before."""
    had = importer.anon_vma is not None
    for source in (exporter, copied, behind):
        if source is not None and _export(m, source, importer):
            return -ENOMEM
    if not m.has("maple-tree") or kmem_alloc(m):
        return 0
    if not had and importer.anon_vma is not None:
        rmap.unlink_anon_vmas(m, importer)
        importer.anon_vma = None
    return -ENOMEM


def _second(vma: Vma, removed: int) -> Vma | None:
    """The vma after the next one, where both vanish."""
    following = vma_next(vma)
    return vma_next(following) if removed == 2 and following is not None else None


def vma_adjust(
    m: Machine, vma: Vma, start: int, end: int, pgoff: int, copied: Vma | None = None
) -> int:
    """Give the vma new bounds, at its next one's expense; some pages may come from ``copied``,
    which is elsewhere."""
    wanted_end, first = end, True
    while True:
        following = vma_next(vma)
        importer: Vma | None = vma
        exporter, adjust_next, remove_next = None, 0, 0
        if following is not None:
            importer, exporter, adjust_next, remove_next = _transfer(vma, wanted_end, following)
            end = following.end if remove_next else wanted_end
        importer = importer or vma
        if first and _prepare_merge(m, importer, exporter, _second(vma, remove_next), copied):
            return -ENOMEM
        if not first and exporter is not None and _export(m, exporter, importer):
            return -ENOMEM
        for source in (exporter, copied):
            importer.written |= source is not None and source.written
        first, copied = False, None
        _set_bounds(vma, start, end, pgoff, following if adjust_next else None, adjust_next)
        if remove_next and following is not None:
            vma.mm.vmas.remove(following)
            if following.anon_vma is not None:
                rmap.unlink_anon_vmas(m, following)  # anon_vma_merge()
        if remove_next != 2:
            return 0


def _set_bounds(
    vma: Vma, start: int, end: int, pgoff: int, adjusted: Vma | None, pages: int
) -> None:
    """Change bounds with the interval trees kept in order; re-insertion comes after equals."""
    interval_tree.pre_update_vma(vma)
    if adjusted is not None:
        interval_tree.pre_update_vma(adjusted)
        adjusted.start += pages << PAGE_SHIFT
        adjusted.pgoff += pages
    vma.start, vma.end, vma.pgoff = start, end, pgoff
    interval_tree.post_update_vma(vma)
    if adjusted is not None:
        interval_tree.post_update_vma(adjusted)


def split_vma(m: Machine, vma: Vma, address: int, new_below: bool) -> int:
    """Split off a new vma, which is the part below address or the one above."""
    if not kmem_alloc(m):
        return -ENOMEM
    pages = (address - vma.start) >> PAGE_SHIFT
    new = replace(vma, chain=[])
    if new_below:
        new.end = address
    else:
        new.start = address
        new.pgoff += pages
    if rmap.anon_vma_clone(m, new, vma):
        return -ENOMEM
    if new_below:
        _set_bounds(vma, address, vma.end, vma.pgoff + pages, None, 0)
    else:
        _set_bounds(vma, vma.start, address, vma.pgoff, None, 0)
    vma_link(vma.mm, new)
    return 0


# --- merging


def _forked(vma: Vma | None) -> bool:
    """A vma whose chain came from a parent: it is not extended by one that has no anon_vma yet."""
    return vma is not None and vma.anon_vma is not None and len(vma.chain) > 1


def is_mergeable_anon_vma(m: Machine, vma: Vma, source: Vma | None) -> bool:
    """May pages of ``source`` (None: new ones) become the vma's? Until 6.16 a vma that was never
    written counted as forked, unless the pages were new as well."""
    anon_vma = source.anon_vma if source is not None else None
    if (anon_vma is None) == (vma.anon_vma is None):
        return anon_vma is vma.anon_vma
    if m.has("merge-with-unfaulted"):
        return not _forked(source if anon_vma is not None else vma)
    return len(vma.chain) == 1


def _can_vma_merge(m: Machine, vma: Vma, flags: VmFlags, source: Vma | None, node: int) -> bool:
    return vma.node == node and vma.flags() == flags and is_mergeable_anon_vma(m, vma, source)


def vma_merge(
    m: Machine,
    mm: Mm,
    prev: Vma | None,
    start: int,
    end: int,
    flags: VmFlags,
    source: Vma | None,
    pgoff: int,
    node: int,
) -> Vma | None:
    """Let a neighbour cover [start, end) with those flags; None when none can. ``source``: the vma
    whose pages are there, or will be."""
    at = mm.vmas.index(prev) + 1 if prev is not None else 0
    area = following = mm.vmas[at] if at < len(mm.vmas) else None
    if following is not None and following.end == end:
        following = mm.vmas[at + 1] if at + 1 < len(mm.vmas) else None
    copied = source if source is not None and not source.start <= start < source.end else None
    pglen = (end - start) >> PAGE_SHIFT
    before_next = (
        following is not None
        and end == following.start
        and _can_vma_merge(m, following, flags, source, node)
        and following.pgoff == pgoff + pglen
    )
    if (
        prev is not None
        and prev.end == start
        and _can_vma_merge(m, prev, flags, source, node)
        and prev.pgoff + vma_pages(prev) == pgoff
    ):
        if (
            before_next
            and following is not None
            and (None in (prev.anon_vma, following.anon_vma) or prev.anon_vma is following.anon_vma)
        ):
            end = following.end
        return prev if vma_adjust(m, prev, prev.start, end, prev.pgoff, copied) == 0 else None
    if not before_next or following is None or area is None:
        return None
    if prev is not None and start < prev.end:
        err = vma_adjust(m, prev, prev.start, start, prev.pgoff)
    else:
        err = vma_adjust(m, area, start, following.end, following.pgoff - pglen, copied)
    return area if err == 0 else None


def vma_modify_flags(
    m: Machine, vma: Vma, prev: Vma | None, start: int, end: int, flags: VmFlags
) -> tuple[int, Vma]:
    """Make [start, end) of a vma one that may be given these flags: merged, else split off."""
    pgoff = vma.pgoff + ((start - vma.start) >> PAGE_SHIFT)
    merged = vma_merge(m, vma.mm, prev, start, end, flags, vma, pgoff, vma.node)
    if merged is not None:
        return 0, merged
    err = 0
    if start != vma.start:
        err = split_vma(m, vma, start, new_below=True)
    if not err and end != vma.end:
        err = split_vma(m, vma, end, new_below=False)
    return err, vma


def _anon_vma_compatible(below: Vma, above: Vma) -> bool:
    """mprotect's flags may differ, nothing else."""
    return (
        below.end == above.start
        and below.node == above.node
        and below.mergeable == above.mergeable
        and (below.sealed, below.locked) == (above.sealed, above.locked)
        and above.pgoff == below.pgoff + vma_pages(below)
    )


def _reusable_anon_vma(old: Vma, below: Vma, above: Vma) -> AnonVma | None:
    if _anon_vma_compatible(below, above) and len(old.chain) == 1:
        return old.anon_vma
    return None


def find_mergeable_anon_vma(vma: Vma) -> AnonVma | None:
    """The next vma's anon_vma, else the previous one's, if it is compatible and not inherited."""
    near = vma_next(vma)
    if near is not None:
        anon_vma = _reusable_anon_vma(near, vma, near)
        if anon_vma is not None:
            return anon_vma
    near = vma_prev(vma)
    return _reusable_anon_vma(near, near, vma) if near is not None else None


# --- mmap and munmap


def get_unmapped_area(mm: Mm) -> int:
    """The first 1 GiB boundary above all vmas, at least 4 GiB."""
    highest = mm.vmas[-1].end if mm.vmas else 0
    return max(4 * GIB, -(-highest // GIB) * GIB)


def mmap_region(m: Machine, mm: Mm, start: int, npages: int, node: int) -> int:
    """Private, anonymous, read-write. Returns the address or -errno."""
    end = start + (npages << PAGE_SHIFT)
    if end > TASK_SIZE:
        return -ENOMEM
    is_free, prev = find_vma_links(mm, start, end)
    if not is_free:
        return -EEXIST
    pgoff = start >> PAGE_SHIFT
    vma = Vma(mm, start, end, pgoff, 3, node)
    joins = m.has("merge-any-joins-vmas")
    if joins:
        ksm.ksm_add_vma(m, vma)
    merged = vma_merge(m, mm, prev, start, end, vma.flags(), None, pgoff, node)
    if merged is not None:
        merged.softdirty = True
        return start
    if not kmem_alloc(m):
        return -ENOMEM
    vma_link(mm, vma)
    if not joins:
        ksm.ksm_add_vma(m, vma)
    return start


def do_munmap(m: Machine, mm: Mm, start: int, end: int) -> int:
    vma = find_vma(mm, start)
    if vma is None or vma.start >= end:
        return 0
    if vma.sealed:
        return -EPERM
    if start > vma.start and split_vma(m, vma, start, new_below=False):
        return -ENOMEM
    if any(each.sealed for each in mm.vmas if start < each.end and each.start < end):
        return -EPERM
    last = find_vma(mm, end)
    if last is not None and end > last.start and split_vma(m, last, end, new_below=True):
        return -ENOMEM
    mlock.munlock_vmas(m, [vma for vma in mm.vmas if vma.start >= start and vma.end <= end])
    unmapped = [vma for vma in mm.vmas if vma.start >= start and vma.end <= end]
    mm.vmas = [vma for vma in mm.vmas if vma.end <= start or vma.start >= end]
    unmap_region(m, unmapped, start, end)
    free_pgtables(mm, start, end)
    return 0


def unmap_region(m: Machine, vmas: list[Vma], start: int, end: int) -> None:
    """All ptes first, then the anon_vmas, and only then are the pages let go."""
    tlb = memory.MmuGather()
    tlb.begin(m)
    for vma in vmas:
        memory.unmap_single_vma(m, tlb, vma, start, end)
    for vma in vmas:
        rmap.unlink_anon_vmas(m, vma)
    tlb.finish(m)


def exit_mmap(m: Machine, mm: Mm) -> None:
    mlock.munlock_vmas(m, mm.vmas)
    vmas, mm.vmas = mm.vmas, []
    memory.MmuGather().begin(m)
    if vmas:
        unmap_region(m, vmas, 0, TASK_SIZE)
    mm.tables.clear()


def copy_vma(m: Machine, vma: Vma, start: int, end: int, pgoff: int) -> tuple[Vma | None, Vma]:
    """A vma for mremap to move to, and the source, which may have been merged into it."""
    if vma.anon_vma is None:
        pgoff = start >> PAGE_SHIFT
    old_start = vma.start
    is_free, prev = find_vma_links(vma.mm, start, end)
    if not is_free:
        return None, vma
    new = vma_merge(m, vma.mm, prev, start, end, vma.flags(), vma, pgoff, vma.node)
    if new is not None:
        return new, new if new.start <= old_start < new.end else vma
    if not kmem_alloc(m):
        return None, vma
    new = replace(vma, start=start, end=end, pgoff=pgoff, chain=[])
    if rmap.anon_vma_clone(m, new, vma):
        return None, vma
    vma_link(vma.mm, new)
    return new, vma
