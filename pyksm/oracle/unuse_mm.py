"""mm/swapfile.c from 5.1 on (b56a2d8af914): swapoff that goes through each mm's page tables once.

A page stays in the swap cache until the last pte that refers to its slot is gone: whoever it does
not belong to gets a copy. What is left in the swap cache without ptes is dropped afterwards, and
as long as slots are in use it all starts again: a pte may have been moved or forked meanwhile.
"""

from __future__ import annotations

from errno import EINTR, ENOMEM, ETIMEDOUT

from pyksm.oracle import fork, ksm, memcontrol, page_io, rmap, swap_state, swapfile
from pyksm.oracle.page_alloc import get_page, lock_page, put_page, unlock_page
from pyksm.oracle.pgtable import (
    ACCESSED,
    PTE_MARKER_POISONED,
    get_pte,
    mk_pte,
    pte_present,
    pte_swp_clear_flags,
    pte_to_swp_entry,
    set_pte,
    swp_entry_to_pte,
    swp_exclusive,
    swp_soft_dirty_of,
    table_ranges,
    vm_page_prot,
)
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Machine,
    Mm,
    Page,
    SwapEntry,
    SwapInfo,
    Vma,
    event,
    schedule_point,
    signal_pending,
    switched,
)
from pyksm.oracle.swap import activate_page, has_batches
from pyksm.oracle.swap_map import SWAP_MAP_BAD, swap_count

#: Rounds without progress after which the real one would go on for as long as nothing else changes.
IDLE_ROUNDS = 16


class _Signal:
    """A signal that swapoff has seen stays pending until it returns."""

    def __init__(self, m: Machine) -> None:
        self._m = m
        self._seen = False

    def pending(self) -> bool:
        self._seen = self._seen or signal_pending(self._m)
        return self._seen


def try_to_unuse(m: Machine, area: SwapInfo) -> int:
    """Free every slot of the area. Returns 0, -EINTR or -ENOMEM."""
    m.counters["try_to_unuse"] += 1
    signal = _Signal(m)
    idle = 0
    while area.inuse_pages:
        before = _usage(m, area)
        err = _unuse_mms(m, area, signal)
        if err:
            return err
        _drop_leftovers(m, area, signal)
        if area.inuse_pages and signal.pending():
            return -EINTR
        idle = 0 if _usage(m, area) != before else idle + 1
        if area.inuse_pages and idle == IDLE_ROUNDS:
            event(m, "try_to_unuse makes no progress")
            return -ETIMEDOUT
    return 0


def _usage(m: Machine, area: SwapInfo) -> tuple[bytes, int]:
    """Every slot's count and whether it is in the swap cache."""
    assert area.swap_map is not None
    return bytes(area.swap_map), area.inuse_pages


def _unuse_mms(m: Machine, area: SwapInfo, signal: _Signal) -> int:
    """Down the mmlist, each mm held until the next one is."""
    prev_mm = m.init_mm
    prev_mm.users += 1
    err = 0
    while not err and area.inuse_pages and not signal.pending():
        mm = _next_on_mmlist(m, prev_mm)
        if mm is m.init_mm:
            break
        mm.users += 1
        fork.mmput(m, prev_mm)
        prev_mm = mm
        schedule_point(m, "try_to_unuse:next_entry")
        err = unuse_mm(m, mm, area)
    fork.mmput(m, prev_mm)
    return err


def _next_on_mmlist(m: Machine, mm: Mm) -> Mm:
    if mm not in m.mmlist:  # drained meanwhile: a ring of its own
        return m.init_mm
    return m.mmlist[(m.mmlist.index(mm) + 1) % len(m.mmlist)]


def _drop_leftovers(m: Machine, area: SwapInfo, signal: _Signal) -> None:
    """Pages that only the swap cache still knows."""
    i = 0
    while area.inuse_pages and not signal.pending() and (i := find_next_to_unuse(m, area, i)):
        schedule_point(m, "try_to_unuse:next_entry")
        page = swap_state.find_get_page(m, (area.type, i))
        if page is None:
            continue
        schedule_point(m, "try_to_unuse:lock_page")
        lock_page(page)
        page_io.wait_on_page_writeback(m, page)
        _free_swap_and_let_go(m, page)


def find_next_to_unuse(m: Machine, area: SwapInfo, prev: int) -> int:
    """The next slot in use after prev; 0 when there is none."""
    assert area.swap_map is not None
    for i in range(prev + 1, area.max):
        m.counters["find_next_to_unuse_slots"] += 1
        byte = area.swap_map[i]
        if byte and swap_count(byte) != SWAP_MAP_BAD:
            return i
    return 0


def _free_swap_and_let_go(m: Machine, page: Page) -> None:
    swapfile.try_to_free_swap(m, page)
    unlock_page(page)
    put_page(m, page)


def unuse_mm(m: Machine, mm: Mm, area: SwapInfo) -> int:
    m.counters["unuse_mm"] += 1
    for vma in mm.vmas:
        if vma.anon_vma is not None:
            err = unuse_vma(m, vma, area)
            if err:
                return err
    return 0


def unuse_vma(m: Machine, vma: Vma, area: SwapInfo) -> int:
    m.counters["unuse_vma"] += 1
    for table, low, high in table_ranges(vma.mm, vma.start, vma.end):
        err = unuse_pte_range(m, vma, table, low, high, area)
        if err:
            return err
    return 0


def unuse_pte_range(
    m: Machine, vma: Vma, table: list[int], start: int, end: int, area: SwapInfo
) -> int:
    m.counters["unuse_pte_range"] += 1
    first = start >> PAGE_SHIFT & 511
    for address in range(start, end, PAGE_SIZE):
        m.counters["unuse_pte_compared"] += 1
        pte = table[first + ((address - start) >> PAGE_SHIFT)]
        if not pte or pte_present(pte):
            continue
        entry = pte_to_swp_entry(m, pte)
        if entry[0] == area.type:
            err = _unuse_entry(m, vma, address, entry)
            if err:
                return err
    return 0


def _unuse_entry(m: Machine, vma: Vma, address: int, entry: SwapEntry) -> int:
    """One pte's page: from the swap cache, or read to where the vma wants it."""
    just_read = None
    page = swap_state.lookup_swap_cache(m, entry)
    if page is None:
        page = just_read = swap_state.swapin_readahead(m, entry, vma)
    if page is None:
        area = m.swap_info[entry[0]]
        assert area.swap_map is not None
        return -ENOMEM if area.swap_map[entry[1]] else 0
    vma.mm.readers += 1  # mmap_lock is held
    schedule_point(m, "try_to_unuse:lock_page")
    vma.mm.readers -= 1
    m.just_read = just_read
    lock_page(page)
    page_io.wait_on_page_writeback(m, page)
    err = unuse_pte(m, vma, address, entry, page)
    if err:
        unlock_page(page)
        put_page(m, page)
        return err
    _free_swap_and_let_go(m, page)
    return 0


def unuse_pte(m: Machine, vma: Vma, address: int, entry: SwapEntry, swapcache: Page) -> int:
    """Map the page, or a copy where it belongs to others, in place of the entry."""
    m.counters["unuse_pte"] += 1
    page = swapcache
    if not switched(m, "unuse_pte-no-copy"):
        mapped = ksm.ksm_might_need_to_copy(m, page, vma, address)
        if mapped is None:
            return -ENOMEM
        page = mapped
    pte = get_pte(vma.mm, address)
    if pte and pte_swp_clear_flags(m, pte) == swp_entry_to_pte(m, entry):
        if not page.uptodate and m.has("swapoff-error-entries"):
            _leave_error(m, vma, address, entry, page)
        else:
            _map(m, vma, address, entry, page, swapcache)
    if page is not swapcache:
        unlock_page(page)
        put_page(m, page)
    return 0


def _leave_error(m: Machine, vma: Vma, address: int, entry: SwapEntry, page: Page) -> None:
    """It could not be read: faults are to say so from now on."""
    vma.mm.swapents -= 1
    if m.has("swapin-poison-marker"):
        error = (m.swp_types["marker"], PTE_MARKER_POISONED)
    else:
        error = (m.swp_types["swapin-error"], page.pfn)
    set_pte(vma.mm, address, swp_entry_to_pte(m, error))
    swapfile.swap_free(m, entry)


def _map(m: Machine, vma: Vma, address: int, entry: SwapEntry, page: Page, swapcache: Page) -> None:
    orig_pte = get_pte(vma.mm, address)
    vma.mm.swapents -= 1
    vma.mm.anonpages += 1
    get_page(page)
    charge = memcontrol.try_charge_swapin(page)
    if page is swapcache:
        exclusive = bool(orig_pte & swp_exclusive(m))
        rmap.do_page_add_anon_rmap(m, page, vma, address, exclusive)
    else:
        rmap.page_add_new_anon_rmap(m, page, vma, address)
    memcontrol.commit_charge_swapin(m, page, charge)
    pte = mk_pte(page, vm_page_prot(vma)) & ~ACCESSED
    if m.has("swapoff-soft-dirty"):
        pte |= swp_soft_dirty_of(m, orig_pte)
    set_pte(vma.mm, address, pte)
    swapfile.swap_free(m, entry)
    if m.has("keep-young-once"):  # no more from 5.9 on (b518154e59aa)
        return
    if has_batches(m) or page is not m.just_read:
        activate_page(m, page)
