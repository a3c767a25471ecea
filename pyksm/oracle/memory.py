"""mm/memory.c: faults, copying page tables at fork, zapping, and looking pages up."""

from __future__ import annotations

from errno import EFAULT, EIO, ENOMEM

from pyksm.oracle import (
    ksm,
    memcontrol,
    mlock,
    mmap,
    page_io,
    rmap,
    swap_state,
    swapfile,
    workingset,
)
from pyksm.oracle.page_alloc import (
    alloc_page_vma,
    copy_page,
    get_page,
    lock_page,
    pfn_to_page,
    put_page,
    trylock_page,
    unlock_page,
)
from pyksm.oracle.pgtable import (
    ACCESSED,
    DIRTY,
    PRESENT,
    PROTNONE,
    RW,
    SOFT_DIRTY,
    SPECIAL,
    get_pte,
    is_error_entry,
    maybe_mkwrite,
    mk_pte,
    non_swap_entry,
    pte_alloc,
    pte_mkdirty,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    set_pte,
    swp_exclusive,
    swp_soft_dirty_of,
    table_ranges,
    vm_page_prot,
)
from pyksm.oracle.structs import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    Machine,
    Mm,
    Page,
    SwapEntry,
    Vma,
    fails,
    schedule_point,
)
from pyksm.oracle.swap import activate_page, lru_add_drain, lru_cache_add
from pyksm.oracle.swap_map import add_swap_count_continuation, swap_count

EHWPOISON = 133  # errno does not have it everywhere

VM_FAULT_OOM = 1
VM_FAULT_SIGBUS = 2
VM_FAULT_MAJOR = 4
VM_FAULT_WRITE = 8  #: COW was broken
VM_FAULT_HWPOISON = 16
VM_FAULT_ERROR = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_HWPOISON

PROT_WRITE = 2


def vm_normal_page(m: Machine, pte: int) -> Page | None:
    """The page of a present pte; None for the zero page."""
    return None if pte & SPECIAL else pfn_to_page(m, pte_pfn(pte))


def follow_page(m: Machine, vma: Vma, address: int) -> Page | None:
    """The page mapped at address with a reference; the zero page too. PROT_NONE or not, but in
    6.1 (474098edac26), which does not tell it from ptes marked for NUMA balancing."""
    pte = get_pte(vma.mm, address)
    if not pte_present(pte) or (pte & PROTNONE and m.has("break-skips-prot-none")):
        return None
    page = vm_normal_page(m, pte) or m.zero_page
    get_page(page)
    return page


# --- a user's access


def access_page(m: Machine, mm: Mm, address: int, write: bool) -> tuple[Page | None, int]:
    """Touch one page as a user instruction does: the page, or an errno. Faults until it can."""
    while True:
        vma = mmap.vma_at(mm, address)
        if vma is None or not (vma.prot & PROT_WRITE if write else vma.prot):
            return None, EFAULT
        pte = get_pte(mm, address)
        if pte & PRESENT and (not write or pte & RW):
            set_pte(mm, address & PAGE_MASK, pte | ACCESSED | (DIRTY if write else 0))
            return vm_normal_page(m, pte) or m.zero_page, 0
        fault = handle_mm_fault(m, vma, address & PAGE_MASK, write)
        if fault & VM_FAULT_OOM:
            return None, ENOMEM
        if fault & VM_FAULT_HWPOISON:
            return None, EHWPOISON
        if fault & VM_FAULT_SIGBUS:
            return None, EIO


# --- faults


def handle_mm_fault(m: Machine, vma: Vma, address: int, write: bool, unshare: bool = False) -> int:
    """``unshare`` (FAULT_FLAG_UNSHARE, without ``write``): make the page this process's alone, but
    leave it read-only."""
    m.counters["handle_mm_fault"] += 1
    pte_alloc(vma.mm, address)
    return handle_pte_fault(m, vma, address, write, unshare)


def handle_pte_fault(m: Machine, vma: Vma, address: int, write: bool, unshare: bool = False) -> int:
    pte = get_pte(vma.mm, address)
    if pte == 0:
        return do_anonymous_page(m, vma, address, write)
    if not pte_present(pte):
        return do_swap_page(m, vma, address, pte, write)
    if (write or unshare) and not pte & RW:
        return do_wp_page(m, vma, address, pte, unshare)
    set_pte(vma.mm, address, (pte_mkdirty(m, pte) if write else pte) | ACCESSED)
    return 0


def do_anonymous_page(m: Machine, vma: Vma, address: int, write: bool) -> int:
    """First touch: the zero page for a read, a page of zeros for a write."""
    m.counters["do_anonymous_page"] += 1
    if not write:
        set_pte(vma.mm, address, mk_pte(m.zero_page, vm_page_prot(vma)) | SPECIAL)
        return 0
    if rmap.anon_vma_prepare(m, vma):
        return VM_FAULT_OOM
    page = alloc_page_vma(m, vma)
    if page is None:
        return VM_FAULT_OOM
    page.uptodate = True
    pte = mk_pte(page, vm_page_prot(vma))
    if vma.prot & PROT_WRITE:
        pte = pte_mkdirty(m, pte) | RW
    vma.mm.anonpages += 1
    rmap.page_add_new_anon_rmap(m, page, vma, address)
    set_pte(vma.mm, address, pte)
    return 0


def do_wp_page(m: Machine, vma: Vma, address: int, pte: int, unshare: bool = False) -> int:
    """A write to a read-only pte: the page itself if nobody else has it, else a copy."""
    m.counters["do_wp_page"] += 1
    if not unshare and m.has("uffd-wp") and fails(m, "userfault"):
        return VM_FAULT_SIGBUS  # a userfaultfd's (5.7)
    old_page = vm_normal_page(m, pte)
    if old_page is None and unshare and not m.has("zero-pages-counted"):
        return 0  # unsharing the zero page came with KSM's own marks on it (d7c0e68dab98)
    if old_page is not None and _wp_can_reuse(m, vma, old_page):
        if unshare:
            return 0
        set_pte(vma.mm, address, maybe_mkwrite(pte_mkdirty(m, pte | ACCESSED), vma))
        return VM_FAULT_WRITE
    if old_page is not None and old_page.ksm and m.has("ksm-event-counts"):
        m.vmstat["cow_ksm"] += 1
    return _wp_page_copy(m, vma, address, pte, old_page, unshare)


def _wp_can_reuse(m: Machine, vma: Vma, page: Page) -> bool:
    """Whether the page may be written where it is; then it belongs to the vma's own anon_vma."""
    if m.has("anon-exclusive"):
        return page.exclusive or _reuse_by_refcount(m, vma, page)
    if page.ksm:
        return False
    if m.has("reuse-by-refcount"):  # 5.9 to 5.18: who is in the swap cache is copied
        return page.count == 1
    lock_page(page)
    reuse = swapfile.reuse_swap_page(m, page)
    if reuse:
        rmap.page_move_anon_rmap(m, page, vma)
    unlock_page(page)
    return reuse


def _reuse_by_refcount(m: Machine, vma: Vma, page: Page) -> bool:
    """wp_can_reuse_anon_folio(): no reference but this mapping's, once it is out of swap cache."""
    batched = page in m.lru_add_batch  # which has no reference here
    if page.ksm or page.count + batched > 3:
        return False
    if not page.lru:
        lru_add_drain(m)
    if page.count > 1 + page.swapcache or not trylock_page(page):
        return False
    if page.swapcache:
        swapfile.try_to_free_swap(m, page)
    reuse = page.count == 1
    if reuse:
        rmap.page_move_anon_rmap(m, page, vma)
    unlock_page(page)
    return reuse


def _wp_page_copy(
    m: Machine, vma: Vma, address: int, orig_pte: int, old_page: Page | None, unshare: bool
) -> int:
    if rmap.anon_vma_prepare(m, vma):
        return VM_FAULT_OOM
    new_page = alloc_page_vma(m, vma)
    if new_page is None:
        return VM_FAULT_OOM
    if old_page is not None:
        copy_page(m, new_page, old_page)
    else:
        ksm.ksm_might_unmap_zero_page(m, vma.mm, orig_pte)
        vma.mm.anonpages += 1
    new_page.uptodate = True
    rmap.page_add_new_anon_rmap(m, new_page, vma, address)
    pte = mk_pte(new_page, vm_page_prot(vma))
    if unshare:
        pte |= orig_pte & SOFT_DIRTY
    else:
        pte = maybe_mkwrite(pte_mkdirty(m, pte), vma)
    set_pte(vma.mm, address, pte)
    if old_page is not None:
        rmap.page_remove_rmap(m, old_page, vma)
        if vma.locked and not m.has("mlock-count"):  # others need not have it locked
            lock_page(old_page)
            mlock.munlock_vma_page(m, old_page)
            unlock_page(old_page)
        if m.has("cow-frees-swap-cache"):
            swap_state.free_swap_cache(m, old_page)
        put_page(m, old_page)
    return 0 if unshare else VM_FAULT_WRITE


def do_swap_page(m: Machine, vma: Vma, address: int, orig_pte: int, write: bool) -> int:
    """Bring a swapped page back, from the swap cache or from its slot."""
    m.counters["do_swap_page"] += 1
    entry = pte_to_swp_entry(m, orig_pte)
    if is_error_entry(m, entry):
        return VM_FAULT_HWPOISON if m.has("swapin-poison-marker") else VM_FAULT_SIGBUS
    if non_swap_entry(m, entry):
        return 0  # under migration: it ends before anyone else runs
    ret = 0
    swapcache = swap_state.lookup_swap_cache(m, entry)
    if swapcache is None:
        if _is_read_directly(m, entry):
            return _swapin_direct(m, vma, address, orig_pte, write)
        swapcache = swap_state.swapin_readahead(m, entry, vma)
        if swapcache is None:
            return VM_FAULT_OOM if get_pte(vma.mm, address) == orig_pte else 0
        ret = VM_FAULT_MAJOR
    vma.mm.readers += 1  # mmap_sem is held while the page lock is waited for
    schedule_point(m, "do_swap_page:lock_page")
    vma.mm.readers -= 1
    lock_page(swapcache)
    if swapcache.swapcache and swapcache.private == entry:
        page = ksm.ksm_might_need_to_copy(m, swapcache, vma, address)
        if page is not None and _is_in_batch(m, page, swapcache, write):
            lru_add_drain(m)
        if page is None:
            ret = VM_FAULT_OOM
        elif get_pte(vma.mm, address) != orig_pte or not page.uptodate:
            if get_pte(vma.mm, address) == orig_pte:
                ret = VM_FAULT_SIGBUS
            if page is not swapcache:
                unlock_page(page)
                put_page(m, page)
        else:
            return _map_swap_page(m, vma, address, page, swapcache, write, ret)
    unlock_page(swapcache)
    put_page(m, swapcache)
    return ret


def _is_read_directly(m: Machine, entry: SwapEntry) -> bool:
    """SWP_SYNCHRONOUS_IO, and nobody else refers to the slot."""
    area = m.swap_info[entry[0]]
    if not m.has("swap-synchronous") or area.fd >= 0 or area.swap_map is None:
        return False
    return swap_count(area.swap_map[entry[1]]) == 1


def _swapin_direct(m: Machine, vma: Vma, address: int, orig_pte: int, write: bool) -> int:
    """Past the swap cache, the slot claimed as if for it (swapcache_prepare(), 13ddaf26be32)."""
    entry = pte_to_swp_entry(m, orig_pte)
    page = alloc_page_vma(m, vma)
    if page is None:
        return VM_FAULT_OOM
    claims = m.has("swapin-claims")
    if claims and swapfile.swapcache_prepare(m, entry):
        put_page(m, page)
        return 0
    page.locked = True
    page.charged = m.has("swapin-charged-at-read")
    workingset.workingset_refault(m, page, entry)
    lru_cache_add(m, page, page.active)
    page.private = entry
    page_io.swap_readpage(m, page)
    page.private = None
    vma.mm.readers += 1
    schedule_point(m, "do_swap_page:lock_page")
    vma.mm.readers -= 1
    lock_page(page)
    if get_pte(vma.mm, address) == orig_pte and page.uptodate:
        ret = _map_swap_page(m, vma, address, page, None, write, VM_FAULT_MAJOR)
    else:
        ret = VM_FAULT_SIGBUS if get_pte(vma.mm, address) == orig_pte else VM_FAULT_MAJOR
        unlock_page(page)
        put_page(m, page)
    if claims:
        swapfile.swapcache_free(m, entry)
    return ret


def _is_in_batch(m: Machine, page: Page, swapcache: Page, write: bool) -> bool:
    """A batch's reference would look like another user's to a writer."""
    return write and page is swapcache and not (page.ksm or page.lru) and m.has("anon-exclusive")


def _map_swap_page(
    m: Machine, vma: Vma, address: int, page: Page, swapcache: Page | None, write: bool, ret: int
) -> int:
    """The end of do_swap_page(): both pages are locked (no ``swapcache``: read past it). The
    reference becomes the mapping's."""
    if m.has("anon-exclusive"):
        pte = _map_exclusive(m, vma, address, page, swapcache, write)
    else:
        pte = _map_by_swap_count(m, vma, address, page, swapcache, write)
    if write and pte & RW:
        write = False
        ret |= VM_FAULT_WRITE
    unlock_page(page)
    if swapcache is not None and page is not swapcache:
        unlock_page(swapcache)
        put_page(m, swapcache)
    if write:
        ret |= do_wp_page(m, vma, address, pte)
        if ret & VM_FAULT_ERROR:
            ret &= VM_FAULT_ERROR
    return ret


def _map_by_swap_count(
    m: Machine, vma: Vma, address: int, page: Page, swapcache: Page | None, write: bool
) -> int:
    """Until 5.17: writable where reuse_swap_page() says so. Returns the new pte."""
    orig_pte = get_pte(vma.mm, address)
    charge = memcontrol.try_charge_swapin(page)
    vma.mm.anonpages += 1
    vma.mm.swapents -= 1
    pte = mk_pte(page, vm_page_prot(vma))
    exclusive = write and swapfile.reuse_swap_page(m, page)
    if exclusive:
        pte = maybe_mkwrite(pte_mkdirty(m, pte), vma)
    pte |= swp_soft_dirty_of(m, orig_pte)
    set_pte(vma.mm, address, pte)
    if page is (swapcache or page):
        rmap.do_page_add_anon_rmap(m, page, vma, address, exclusive)
    else:
        rmap.page_add_new_anon_rmap(m, page, vma, address)
    memcontrol.commit_charge_swapin(m, page, charge)
    if m.has("swapin-activates") and page is (swapcache or page):
        activate_page(m, page)
    swapfile.swap_free(m, pte_to_swp_entry(m, orig_pte))
    if slot_not_worth_keeping(m, vma, page):
        swapfile.try_to_free_swap(m, page)
    return pte


def _map_exclusive(
    m: Machine, vma: Vma, address: int, page: Page, swapcache: Page | None, write: bool
) -> int:
    """From 5.18 on (c145e0b47c77): the slot is given up first, then references are counted."""
    orig_pte = get_pte(vma.mm, address)
    exclusive = page is not swapcache or bool(orig_pte & swp_exclusive(m))
    swapfile.swap_free(m, pte_to_swp_entry(m, orig_pte))
    if should_try_to_free_swap(m, vma, page, write):
        swapfile.try_to_free_swap(m, page)
    vma.mm.anonpages += 1
    vma.mm.swapents -= 1
    pte = mk_pte(page, vm_page_prot(vma)) | swp_soft_dirty_of(m, orig_pte)
    exclusive = not page.ksm and (exclusive or page.count == 1)
    if exclusive and write:
        pte = maybe_mkwrite(pte_mkdirty(m, pte), vma)
    elif exclusive and m.has("swapin-maps-writable") and not tracks_soft_dirty(m, vma, pte):
        pte = maybe_mkwrite(pte, vma)
    if page is (swapcache or page):
        rmap.do_page_add_anon_rmap(m, page, vma, address, exclusive)
    else:
        rmap.page_add_new_anon_rmap(m, page, vma, address)
    set_pte(vma.mm, address, pte)
    return pte


def should_try_to_free_swap(m: Machine, vma: Vma, page: Page, write: bool) -> bool:
    """A writer may turn out to be the only user, too."""
    if not page.swapcache:
        return False
    writers = write and not page.ksm and page.count == 2
    return writers or slot_not_worth_keeping(m, vma, page)


def slot_not_worth_keeping(m: Machine, vma: Vma, page: Page) -> bool:
    """Slots are short, or the page is locked and not swapped out again so soon."""
    return swapfile.vm_swap_full(m) or vma.locked or page.mlocked


def tracks_soft_dirty(m: Machine, vma: Vma, pte: int) -> bool:
    """pte_needs_soft_dirty_wp(): the next write has to fault to be noticed."""
    return m.has("soft-dirty") and not vma.softdirty and not pte & SOFT_DIRTY


# --- fork


def copy_page_range(m: Machine, dst: Vma, src: Vma) -> int:
    """Copy a vma's ptes to the child, unless they can all be found again by faulting."""
    if src.anon_vma is None:
        return 0
    for _, address, upto in table_ranges(src.mm, src.start, src.end):
        err = copy_pte_range(m, dst, src, address, upto)
        if err:
            return err
    return 0


def copy_pte_range(m: Machine, dst: Vma, src: Vma, address: int, end: int) -> int:
    pte_alloc(dst.mm, address)
    while address < end:
        pte = get_pte(src.mm, address)
        if page_needs_cow_for_dma(m, src, pte):
            if not copy_present_page(m, dst, address, pfn_to_page(m, pte_pfn(pte))):
                return -ENOMEM
        elif pte and not copy_one_pte(m, dst, src, address, pte):
            # A second chance, now that no pte lock is held.
            if add_swap_count_continuation(m, pte_to_swp_entry(m, pte)) < 0:
                return -ENOMEM
            continue
        address += PAGE_SIZE
    return 0


def page_needs_cow_for_dma(m: Machine, src: Vma, pte: int) -> bool:
    """A device may be about to write to it: the parent must not lose it to a copy on write."""
    if not (m.has("pins-counted") and src.mm.has_pinned and pte_present(pte)):
        return False
    page = vm_normal_page(m, pte)
    if page is None or not rmap.page_maybe_dma_pinned(page):
        return False
    return page.exclusive or not m.has("anon-exclusive")


def copy_present_page(m: Machine, dst: Vma, address: int, page: Page) -> bool:
    """A page of its own for the child, now; the parent's stays writable. False: no memory."""
    new_page = alloc_page_vma(m, dst)
    if new_page is None:
        return False
    copy_page(m, new_page, page)
    new_page.uptodate = True
    rmap.page_add_new_anon_rmap(m, new_page, dst, address)
    dst.mm.anonpages += 1
    m.counters["copy_one_pte"] += 1
    pte = pte_mkdirty(m, mk_pte(new_page, vm_page_prot(dst)))
    set_pte(dst.mm, address, maybe_mkwrite(pte, dst))
    return True


def copy_one_pte(m: Machine, dst: Vma, src: Vma, address: int, pte: int) -> bool:
    """False: the swap count needs a continuation page first."""
    if not pte_present(pte):
        return copy_nonpresent_pte(m, dst, src, address, pte)
    set_pte(src.mm, address, pte & ~RW)
    pte &= ~(RW | ACCESSED)
    page = vm_normal_page(m, pte)
    if page is not None:
        get_page(page)
        rmap.page_dup_rmap(page)
        dst.mm.anonpages += 1
    m.counters["copy_one_pte"] += 1
    set_pte(dst.mm, address, pte)
    return True


def copy_nonpresent_pte(m: Machine, dst: Vma, src: Vma, address: int, pte: int) -> bool:
    """A swap pte, from now on of both; or the mark of a page that could not be read."""
    entry = pte_to_swp_entry(m, pte)
    if not is_error_entry(m, entry):
        if swapfile.swap_duplicate(m, entry) < 0:
            return False
        if dst.mm not in m.mmlist:
            m.mmlist.insert(m.mmlist.index(src.mm) + 1, dst.mm)
        pte &= ~swp_exclusive(m)
        set_pte(src.mm, address, pte)
        dst.mm.swapents += 1
    m.counters["copy_one_pte"] += 1
    set_pte(dst.mm, address, pte)
    return True


# --- zapping


class MmuGather:
    """struct mmu_gather: pages taken out of page tables are freed together, at the end."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    def begin(self, m: Machine) -> None:
        """What is locked is to be known as that when its mappings go."""
        if m.has("mlock-count") and not m.has("zap-leaves-batches"):
            lru_add_drain(m)

    def finish(self, m: Machine) -> None:
        """tlb_finish_mmu()"""
        if not m.has("zap-leaves-batches"):
            lru_add_drain(m)
        for page in self.pages:
            swap_state.free_page_and_swap_cache(m, page)
        self.pages.clear()


def zap_page_range(m: Machine, vma: Vma, start: int, end: int) -> None:
    tlb = MmuGather()
    tlb.begin(m)
    unmap_single_vma(m, tlb, vma, start, end)
    tlb.finish(m)


def unmap_single_vma(m: Machine, tlb: MmuGather, vma: Vma, start: int, end: int) -> None:
    """Clear the vma's ptes in the range."""
    start, end = max(vma.start, start), min(vma.end, end)
    for table, low, high in table_ranges(vma.mm, start, end):
        zap_pte_range(m, tlb, vma, table, low, high)


def zap_pte_range(
    m: Machine, tlb: MmuGather, vma: Vma, table: list[int], address: int, end: int
) -> None:
    mm = vma.mm
    first = address >> PAGE_SHIFT & 511
    for i in range(first, first + ((end - address) >> PAGE_SHIFT)):
        pte = table[i]
        if not pte:
            continue
        m.counters["zap_pte"] += 1
        table[i] = 0
        if pte_present(pte):
            page = vm_normal_page(m, pte)
            if page is not None:
                mm.anonpages -= 1
                rmap.page_remove_rmap(m, page, vma)
                tlb.pages.append(page)
            else:
                ksm.ksm_might_unmap_zero_page(m, mm, pte)
        elif not is_error_entry(m, entry := pte_to_swp_entry(m, pte)):
            mm.swapents -= 1
            swapfile.free_swap_and_cache(m, entry)
