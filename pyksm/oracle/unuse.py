"""mm/swapfile.c, swapoff's own part: bring every slot of an area back, one entry at a time.

For an entry, all mms that ever swapped are searched for ptes, starting with the mm that had the
previous one. A page fresh from swap takes the first pte's anon_vma as owner; from then on only
that family's ptes at that index are found, and what is left has to wait for the next cycle.
"""

from __future__ import annotations

from errno import EFAULT, EINTR, ENOMEM, ETIMEDOUT

from pyksm.oracle import fork, ksm, memcontrol, page_io, rmap, swap_state, swapfile
from pyksm.oracle.page_alloc import (
    alloc_page,
    copy_page,
    get_page,
    lock_page,
    put_page,
    unlock_page,
)
from pyksm.oracle.pgtable import (
    ACCESSED,
    get_pte,
    mk_pte,
    pte_swp_clear_flags,
    set_pte,
    swp_entry_to_pte,
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
from pyksm.oracle.swap import activate_page, has_batches, lru_cache_add
from pyksm.oracle.swap_map import SWAP_MAP_BAD, swap_count, swapcache_prepare


def find_next_to_unuse(m: Machine, area: SwapInfo, prev: int) -> int:
    """The next slot in use after prev, going once around; 0 when there is none."""
    assert area.swap_map is not None
    limit, i = area.max, prev
    while True:
        i += 1
        if i >= limit:
            if not prev:
                return 0
            limit, prev, i = prev + 1, 0, 1
        m.counters["find_next_to_unuse_slots"] += 1
        byte = area.swap_map[i]
        if byte and swap_count(byte) != SWAP_MAP_BAD:
            return i


def try_to_unuse(m: Machine, area: SwapInfo) -> int:
    """Free every slot of the area. Returns 0, -EINTR or -ENOMEM."""
    m.counters["try_to_unuse"] += 1
    start_mm = m.init_mm
    start_mm.users += 1
    i = retval = idle = 0
    while not retval and (i := find_next_to_unuse(m, area, i)):
        schedule_point(m, "try_to_unuse:next_entry")
        if signal_pending(m):
            retval = -EINTR
            break
        entry = (area.type, i)
        reads = m.counters["swap_readpage"]
        page = swap_state.read_swap_cache_async(m, entry, None)
        if page is None:
            if _byte(area, i):
                retval = -ENOMEM
            continue
        m.just_read = page if m.counters["swap_readpage"] > reads else None
        before = _progress(m, area)
        while page is not None:
            start_mm, retval = _unuse_entry(m, area, entry, page, start_mm)
            page, retval = _finish_entry(m, area, entry, page, retval)
        m.just_read = None
        idle = idle + 1 if _progress(m, area) == before else 0
        if idle > area.inuse_pages and m.has("swapoff-keeps-shared-cache") and not retval:
            event(m, "try_to_unuse makes no progress")
            retval = -ETIMEDOUT  # every slot was visited in vain: it would go on forever
    fork.mmput(m, start_mm)
    return retval


def _progress(m: Machine, area: SwapInfo) -> tuple[int, int]:
    """ptes restored, slots still in use."""
    return m.counters["unuse_pte"], area.inuse_pages


def _byte(area: SwapInfo, offset: int) -> int:
    assert area.swap_map is not None
    return area.swap_map[offset]


def _unuse_entry(
    m: Machine, area: SwapInfo, entry: SwapEntry, page: Page, start_mm: Mm
) -> tuple[Mm, int]:
    """Lock the page and give it to whoever has the entry. Returns the next start_mm, and 0 or an
    error."""
    if start_mm.users == 1:  # exited but for our hold
        fork.mmput(m, start_mm)
        start_mm = m.init_mm
        start_mm.users += 1
    just_read = m.just_read
    schedule_point(m, "try_to_unuse:lock_page")
    m.just_read = just_read  # another area's swapoff in between had its own
    page_io.wait_on_page_writeback(m, page)
    lock_page(page)
    retval = 0
    swcount = _byte(area, entry[1])
    if swap_count(swcount) and start_mm is not m.init_mm:
        retval = unuse_mm(m, start_mm, entry, page)
    if swap_count(_byte(area, entry[1])):
        start_mm, retval = _unuse_ring(m, area, entry, page, start_mm, swcount, retval)
    return start_mm, retval


def _unuse_ring(
    m: Machine,
    area: SwapInfo,
    entry: SwapEntry,
    page: Page,
    start_mm: Mm,
    swcount: int,
    retval: int,
) -> tuple[Mm, int]:
    """Go around the mmlist from start_mm; the first mm that helps is the next start_mm, unless
    start_mm itself did."""
    set_start_mm = _byte(area, entry[1]) >= swcount
    new_start_mm = prev_mm = start_mm
    start_mm.users += 2
    p = start_mm
    while swap_count(_byte(area, entry[1])) and not retval:
        p = _next_on_mmlist(m, p)
        if p is start_mm:
            break
        mm = p
        if not mm.users:
            continue
        mm.users += 1
        fork.mmput(m, prev_mm)
        prev_mm = mm
        swcount = _byte(area, entry[1])
        if not swap_count(swcount):
            pass
        elif mm is m.init_mm:
            set_start_mm = True
        else:
            retval = unuse_mm(m, mm, entry, page)
        if set_start_mm and _byte(area, entry[1]) < swcount:
            fork.mmput(m, new_start_mm)
            mm.users += 1
            new_start_mm = mm
            set_start_mm = False
    fork.mmput(m, prev_mm)
    fork.mmput(m, start_mm)
    return new_start_mm, retval


def _next_on_mmlist(m: Machine, mm: Mm) -> Mm:
    if mm not in m.mmlist:  # drained meanwhile: a ring of its own
        return mm
    return m.mmlist[(m.mmlist.index(mm) + 1) % len(m.mmlist)]


def _finish_entry(
    m: Machine, area: SwapInfo, entry: SwapEntry, page: Page, retval: int
) -> tuple[Page | None, int]:
    """Out of the swap cache with the page, whether all its ptes were found or not.

    Returns the page to go on with for the same entry (policy memcpy), and 0 or an error."""
    again: Page | None = None
    if not retval:
        if swap_count(_byte(area, entry[1])) and page.dirty and page.swapcache:
            # What is left will be read from the slot, so the content has to be there.
            page_io.swap_writepage(m, page)
            lock_page(page)
            page_io.wait_on_page_writeback(m, page)
        keeps = m.has("swapoff-keeps-shared-cache") and swap_count(_byte(area, entry[1]))
        if page.swapcache and page.private == entry and not keeps:
            swap_state.delete_from_swap_cache(m, page)
        left = swap_count(_byte(area, entry[1])) and entry not in m.swap_cache
        if m.config.policy == "memcpy" and left:
            again = m.just_read = _unuse_copy(m, entry, page)
            retval = 0 if again is not None else -ENOMEM
        page.dirty = True  # its ptes are clean, so the page itself has to remember
    unlock_page(page)
    put_page(m, page)
    return again, retval


def _unuse_copy(m: Machine, entry: SwapEntry, page: Page) -> Page | None:
    """Policy memcpy: a copy of the page in hand stands in the swap cache as if it had been read."""
    copy = alloc_page(m, 0)
    if copy is None:
        return None
    m.counters["unuse_copy"] += 1
    copy_page(m, copy, page)
    swapcache_prepare(m, entry)
    copy.locked = True
    swap_state.add_to_swap_cache(m, copy, entry)
    copy.charged = m.has("swapin-charged-at-read")
    lru_cache_add(m, copy, active=False)
    copy.uptodate = True
    unlock_page(copy)
    return copy


def unuse_mm(m: Machine, mm: Mm, entry: SwapEntry, page: Page) -> int:
    """Search an mm; one pte found is enough for this visit."""
    m.counters["unuse_mm"] += 1
    for vma in mm.vmas:
        if vma.anon_vma is not None:
            ret = unuse_vma(m, vma, entry, page)
            if ret:
                return min(ret, 0)
    return 0


def unuse_vma(m: Machine, vma: Vma, entry: SwapEntry, page: Page) -> int:
    """A page with an owner can be at one address only; else the whole vma is searched."""
    m.counters["unuse_vma"] += 1
    if page.anon_vma is not None and not switched(m, "unuse_vma-brute-force"):
        start = rmap.page_address_in_vma(m, page, vma)
        if start == -EFAULT:
            return 0
        end = start + PAGE_SIZE
    else:
        start, end = vma.start, vma.end
    for table, low, high in table_ranges(vma.mm, start, end):
        ret = unuse_pte_range(m, vma, table, low, high, entry, page)
        if ret:
            return ret
    return 0


def unuse_pte_range(
    m: Machine, vma: Vma, table: list[int], start: int, end: int, entry: SwapEntry, page: Page
) -> int:
    m.counters["unuse_pte_range"] += 1
    swp_pte = swp_entry_to_pte(m, entry)
    address = start
    while address < end:
        first = address >> PAGE_SHIFT & 511
        beyond = first + ((end - address) >> PAGE_SHIFT)
        found = _find(m, table, swp_pte, first, beyond)
        m.counters["unuse_pte_compared"] += min(found + 1, beyond) - first
        if found == beyond:
            return 0
        address += (found - first) << PAGE_SHIFT
        ret = unuse_pte(m, vma, address, entry, page)
        if ret:
            return ret
        address += PAGE_SIZE
    return 0


def _find(m: Machine, table: list[int], swp_pte: int, first: int, beyond: int) -> int:
    """The first place in the range that holds the entry, whatever flags it has; else beyond."""
    if m.has("soft-dirty") or m.has("anon-exclusive"):
        for i in range(first, beyond):
            if table[i] and pte_swp_clear_flags(m, table[i]) == swp_pte:
                return i
        return beyond
    try:
        return table.index(swp_pte, first, beyond)
    except ValueError:
        return beyond


def unuse_pte(m: Machine, vma: Vma, address: int, entry: SwapEntry, page: Page) -> int:
    """Map the page, or a copy where it belongs to others, in place of the entry. 1: done."""
    m.counters["unuse_pte"] += 1
    swapcache = page
    if not switched(m, "unuse_pte-no-copy"):
        mapped = ksm.ksm_might_need_to_copy(m, page, vma, address)
        if mapped is None:
            return -ENOMEM
        page = mapped
    ret = 0
    mm = vma.mm
    if pte_swp_clear_flags(m, get_pte(mm, address)) == swp_entry_to_pte(m, entry):
        ret = 1
        mm.swapents -= 1
        mm.anonpages += 1
        get_page(page)
        set_pte(mm, address, mk_pte(page, vm_page_prot(vma)) & ~ACCESSED)
        if page is swapcache:
            rmap.page_add_anon_rmap(m, page, vma, address)
        else:
            rmap.page_add_new_anon_rmap(m, page, vma, address)
        memcontrol.commit_charge_swapin(m, page, memcontrol.try_charge_swapin(page))
        swapfile.swap_free(m, entry)
        # A page just read is not on the LRU yet on a real kernel, which later ones' batches tell.
        if has_batches(m) or page is not m.just_read:
            activate_page(m, page)
    if page is not swapcache:
        unlock_page(page)
        put_page(m, page)
    return ret
