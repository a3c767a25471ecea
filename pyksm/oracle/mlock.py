"""mm/mlock.c: locked memory. And the locked pages that recorded processes have for themselves.

A page of a locked vma is marked, and then on a list that reclaim does not scan. Until 5.18 there is
only the mark: whoever unlocks one mapping looks at the others. Since then every mapping of a locked
vma counts itself in and out (``Page.mlock_count``), as long as the page is on that list: not at
once but when the batch of swap.py is drained. Wherever a mark is missing, reclaim finds out.
"""

from __future__ import annotations

from errno import EAGAIN, ENOMEM

from pyksm.oracle import memory, mmap, rmap, swapfile
from pyksm.oracle.page_alloc import get_page, lock_page, put_page, trylock_page, unlock_page
from pyksm.oracle.pgtable import DIRTY, RW, SPECIAL, get_pte, pte_present, table_ranges
from pyksm.oracle.structs import PAGE_SIZE, Machine, Mm, Page, Vma
from pyksm.oracle.swap import (
    del_page_from_lru_list,
    isolate_lru_page,
    lru_add_drain,
    lru_cache_add,
    lru_cache_add_lru,
    mark_page_accessed,
    mlock_batch_add,
    mlock_page_drain,
    putback_lru_page,
    update_page_reclaim_stat,
)

PROT_WRITE = 2


def _set_mlocked(m: Machine, page: Page) -> None:
    m.nr_mlock += not page.mlocked
    page.mlocked = True


def _clear_mlocked(m: Machine, page: Page) -> None:
    m.nr_mlock -= page.mlocked
    page.mlocked = False


# --- until 5.18


def mlock_vma_page(m: Machine, page: Page) -> None:
    """Mark it, and put it where it belongs, unless somebody has it off the LRU and will do that."""
    if not page.mlocked:
        _set_mlocked(m, page)
        if isolate_lru_page(m, page):
            putback_lru_page(m, page)


def munlock_vma_page(m: Machine, page: Page, at_once: bool = False) -> None:
    """Take the mark off, unless another mapping is locked: asked only if there are two or more.
    ``at_once``: with one it does not go by the batch."""
    if not page.mlocked:
        return
    _clear_mlocked(m, page)
    if not isolate_lru_page(m, page):
        return
    if page.mapcount > 1:
        rmap.try_to_munlock(m, page)
    elif at_once:
        lru_cache_add_lru(m, page, page.active)
        update_page_reclaim_stat(m, page, page.active)
        put_page(m, page)
        return
    putback_lru_page(m, page)


def munlock_vma_pages_range(m: Machine, vma: Vma, start: int, end: int) -> None:
    vma.locked = False
    for page in _mapped(m, vma, start, end):
        get_page(page)
        lock_page(page)
        munlock_vma_page(m, page, at_once=True)
        unlock_page(page)
        put_page(m, page)


def munlock_vmas(m: Machine, vmas: list[Vma]) -> None:
    """Vmas that are about to go. From 5.18 on each page is seen to when its mapping goes."""
    for vma in vmas:
        if vma.locked and not m.has("mlock-count"):
            munlock_vma_pages_range(m, vma, vma.start, vma.end)


# --- from 5.18 on


def mlock_folio(m: Machine, page: Page) -> None:
    """One more mapping locks it: the mark at once, the rest later."""
    _set_mlocked(m, page)
    mlock_batch_add(m, "mlock", page)


def munlock_folio(m: Machine, page: Page) -> None:
    """One less. Whether the mark goes with it will be seen later."""
    mlock_batch_add(m, "munlock", page)


def mlock_vma_pages_range(m: Machine, vma: Vma, start: int, end: int) -> None:
    """What is mapped so far, now that the vma is locked, or is not any more."""
    lru_add_drain(m)
    for page in _mapped(m, vma, start, end):
        (mlock_folio if vma.locked else munlock_folio)(m, page)
    lru_add_drain(m)


# --- for the rmap


def mlock_new_page(m: Machine, page: Page) -> None:
    _set_mlocked(m, page)
    if m.has("mlock-count"):
        mlock_batch_add(m, "new", page)
    else:
        lru_cache_add(m, page, active=False)


def rmap_mlock(m: Machine, page: Page) -> None:
    """mlock_vma_folio(): a locked vma maps the page."""
    if m.has("mlock-count"):
        mlock_folio(m, page)


def rmap_munlock(m: Machine, page: Page, vma: Vma) -> None:
    """A mapping has gone; before 5.18 with the last one of a marked page the mark goes (3.7)."""
    if m.has("mlock-count"):
        if vma.locked:
            munlock_folio(m, page)
    elif page.mlocked and not page.mapcount:
        _clear_mlocked(m, page)
        if isolate_lru_page(m, page):
            putback_lru_page(m, page)


def migrated_mlock(m: Machine, vma: Vma) -> None:
    """Migration, which cannot have references left over from its walks, has the batch drained."""
    if vma.locked and m.has("mlock-count"):
        mlock_page_drain(m)


# --- the calls


def _mapped(m: Machine, vma: Vma, start: int, end: int) -> list[Page]:
    """The pages of a part of a vma, but for the zero page."""
    return [
        page
        for _, low, high in table_ranges(vma.mm, start, end)
        for address in range(low, high, PAGE_SIZE)
        if pte_present(pte := get_pte(vma.mm, address))
        and (page := memory.vm_normal_page(m, pte)) is not None
    ]


def do_mlock(m: Machine, mm: Mm, start: int, end: int, on: bool) -> int:
    """Lock or unlock; vmas before a hole or a failure stay so."""
    return mmap.fixup_range(
        mm, start, end, lambda vma, prev, low, high: mlock_fixup(m, vma, prev, low, high, on)
    )


def mlock_fixup(
    m: Machine, vma: Vma, prev: Vma | None, start: int, end: int, on: bool
) -> tuple[int, Vma]:
    if vma.locked == on:
        return 0, vma
    softdirty = vma.softdirty
    err, vma = mmap.vma_modify_flags(m, vma, prev, start, end, vma.flags()._replace(locked=on))
    if err:
        return err, vma
    if on or m.has("mlock-count"):
        vma.locked, vma.softdirty = on, softdirty  # vm_flags is set as a whole
    if m.has("mlock-count"):
        mlock_vma_pages_range(m, vma, start, end)
    elif not on:
        munlock_vma_pages_range(m, vma, start, end)
    return 0, vma


def mm_populate(m: Machine, mm: Mm, start: int, end: int) -> int:
    for vma in list(mm.vmas):
        low, high = max(vma.start, start), min(vma.end, end)
        err = populate_vma_page_range(m, vma, low, high) if low < high else 0
        if err:
            return err
    return 0


def populate_vma_page_range(m: Machine, vma: Vma, start: int, end: int) -> int:
    """Fault everything in; what has come into batches by that is not left there (5.18)."""
    err = _populate(m, vma, start, end)
    if m.has("mlock-count"):
        lru_add_drain(m)
    return err


def _populate(m: Machine, vma: Vma, start: int, end: int) -> int:
    """By a write where that is allowed (so that a page is the process's own). The errors are
    mlock's."""
    if not vma.prot:
        return -ENOMEM
    write = bool(vma.prot & PROT_WRITE)
    for address in range(start, end, PAGE_SIZE):
        while not _follow(m, vma, address, write):
            fault = memory.handle_mm_fault(m, vma, address, write)
            if fault & memory.VM_FAULT_ERROR:
                return -EAGAIN if fault & memory.VM_FAULT_OOM else -ENOMEM
    return 0


def _follow(m: Machine, vma: Vma, address: int, write: bool) -> bool:
    """follow_page() with FOLL_TOUCH and, while there was such a thing, FOLL_MLOCK."""
    pte = get_pte(vma.mm, address)
    if not pte_present(pte) or (write and not pte & RW):
        return False
    if pte & SPECIAL:
        return True
    page = memory.vm_normal_page(m, pte)
    assert page is not None
    if write and not pte & DIRTY:
        page.dirty = True
    mark_page_accessed(m, page)
    if vma.locked and not m.has("mlock-count") and trylock_page(page):
        lru_add_drain(m)
        mlock_vma_page(m, page)
        unlock_page(page)
    return True


# --- the agents
#
# Processes of a recorded scenario are agents that lock their own memory. When one that was forked
# forks again, the new agent breaks copy on write on ``Config.agent_pages`` of those pages, and
# do_wp_page() takes the old page's mark away although the parent still has it locked. It is on the
# LRU then, until reclaim comes by, gives it a slot, finds it locked and takes the slot back.

#: Pages that a new agent had on the active list before it locked them.
ACTIVE_BEFORE = 28


def agent_spawn(m: Machine) -> None:
    """What it had on the active list counts in the balance of reclaim (RULES.md)."""
    if m.config.agent_pages:
        m.nodes[0].recent_scanned += ACTIVE_BEFORE
        m.nodes[0].recent_rotated += ACTIVE_BEFORE


def agent_fork(m: Machine, mm: Mm, oldmm: Mm) -> None:
    mm.forked = True
    if not oldmm.forked or oldmm.agent_pages or m.has("mlock-count"):
        return
    for _ in range(m.config.agent_pages):
        page = Page(-1, 0, b"", count=1, uptodate=True, charged=True, agent=oldmm)
        lru_cache_add(m, page, active=False)
        oldmm.agent_pages.append(page)


def agent_exit(m: Machine, mm: Mm) -> None:
    for page in mm.agent_pages:
        del_page_from_lru_list(m, page)
    mm.agent_pages.clear()


def cull_agent_page(m: Machine, page: Page) -> bool:
    """False where there was no slot to try it with."""
    m.counters["add_to_swap"] += 1
    entry = swapfile.get_swap_page(m)
    if entry is None:
        return False
    for function in ("try_to_unmap", "try_to_free_swap", "delete_from_swap_cache"):
        m.counters[function] += 1
    swapfile.swapcache_free(m, entry)
    assert page.agent is not None
    page.agent.agent_pages.remove(page)
    return True
