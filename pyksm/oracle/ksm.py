"""mm/ksm.c: merging, unmerging, and which processes take part.

ksmd's scan and its sysfs files are in ksm_scan.py, the trees in ksm_tree.py, rmap walks of KSM
pages in ksm_rmap.py.
"""

from __future__ import annotations

from errno import EFAULT, EINTR, ENOMEM

from pyksm.engine import MADV_MERGEABLE
from pyksm.oracle import memory, mlock, mmap, rmap, swapfile
from pyksm.oracle.jhash import jhash2
from pyksm.oracle.ksm_nodes import (
    get_kpfn_nid,
    mm_slot_alloc,
    move_to_migrate_nodes,
    page_stable_node,
    remove_all_stable_nodes,
    set_page_stable_node,
    slab_free,
    stable_node_dup_del,
)
from pyksm.oracle.ksm_tree import (
    find_mergeable_vma,
    memcmp_pages,
    remove_rmap_item_from_tree,
    remove_trailing_rmap_items,
    stable_tree_append,
    stable_tree_insert,
    stable_tree_search,
    unstable_tree_search_insert,
)
from pyksm.oracle.page_alloc import (
    alloc_page_vma,
    copy_page,
    get_page,
    lock_page,
    put_page,
    trylock_page,
    unlock_page,
)
from pyksm.oracle.pgtable import (
    DIRTY,
    RW,
    SPECIAL,
    get_pte,
    has_table,
    mk_pte,
    next_table,
    pte_mkdirty,
    pte_present,
    set_pte,
    vm_page_prot,
)
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Machine,
    Mm,
    MmSlot,
    Page,
    RmapItem,
    Vma,
    events_before_failure,
    kmem_alloc,
    linear_page_index,
    schedule_point,
    signal_pending,
    switched,
)
from pyksm.oracle.swap import mark_page_accessed
from pyksm.oracle.xxhash import xxh64

KSM_RUN_UNMERGE = 2

# --- breaking


def break_ksm(m: Machine, vma: Vma, address: int) -> int:
    """Give the address a page of its own if it maps a KSM page; what is in swap is not seen."""
    m.counters["break_ksm"] += 1
    if m.has("unshare-break"):
        return _unshare_ksm(m, vma, address)
    ret = 0
    while not ret & (memory.VM_FAULT_WRITE | memory.VM_FAULT_ERROR):
        page = memory.follow_page(m, vma, address)
        if page is None:
            break
        if page.ksm:
            ret = memory.handle_mm_fault(m, vma, address, write=True)
        else:
            ret = memory.VM_FAULT_WRITE
        put_page(m, page)
    return -ENOMEM if ret & memory.VM_FAULT_OOM else 0


def _unshare_ksm(m: Machine, vma: Vma, address: int) -> int:
    """break_ksm() from 6.2 on (6cce3314b928): the page is shared no more, but still read-only.

    From 6.6 on (79271476b336) what KSM has merged with the zero page is unshared, too."""
    while True:
        pte = get_pte(vma.mm, address)
        if not pte_present(pte):
            return 0
        page = memory.vm_normal_page(m, pte)
        if not (is_ksm_zero_pte(m, pte) if page is None else page.ksm):
            return 0
        ret = memory.handle_mm_fault(m, vma, address, write=False, unshare=True)
        if ret & memory.VM_FAULT_ERROR:
            return -ENOMEM if ret & memory.VM_FAULT_OOM else 0


def break_cow(m: Machine, item: RmapItem) -> None:
    """Undo half a merge: drop the item's anon_vma, and the KSM page if it is still there."""
    assert item.anon_vma is not None
    rmap.put_anon_vma(item.anon_vma)
    if m.has("ksm-rmap-by-index"):
        item.forget_index()
    vma = find_mergeable_vma(item.mm, item.address)
    if vma is not None:
        break_ksm(m, vma, item.address)


def unmerge_ksm_pages(m: Machine, vma: Vma, start: int, end: int) -> int:
    address = start
    while address < end and vma.mm.users:
        # Without a page table nothing but the work is counted, be it terabytes.
        absent = (next_table(vma.mm, address, end) - address) >> PAGE_SHIFT
        absent = events_before_failure(m, "signal", absent)
        if absent:
            m.counters["break_ksm"] += absent
            address += absent << PAGE_SHIFT
            continue
        if signal_pending(m):
            return -EINTR  # -ERESTARTSYS inside
        err = break_ksm(m, vma, address)
        if err:
            return err
        address += PAGE_SIZE
    return 0


def unmerge_and_remove_all_rmap_items(m: Machine) -> int:
    """What a write of 2 to run does."""
    schedule_point(m, "unmerge_and_remove_all_rmap_items:begin")
    m.ksm.cursor = m.ksm.mm_slots[0] if m.ksm.mm_slots else None
    while (slot := m.ksm.cursor) is not None:
        schedule_point(m, "unmerge_and_remove_all_rmap_items:next_mm")
        for vma in slot.mm.vmas:
            if vma.mergeable and vma.anon_vma is not None:
                err = unmerge_ksm_pages(m, vma, vma.start, vma.end)
                if err:
                    m.ksm.cursor = None
                    return err
        remove_trailing_rmap_items(m, slot, 0)
        m.ksm.cursor = next_mm_slot(m, slot)
        if not slot.mm.users:
            free_mm_slot(m, slot)
    remove_all_stable_nodes(m)
    m.ksm.seqnr = 0
    return 0


# --- merging


def calc_checksum(m: Machine, page: Page) -> int:
    m.counters["calc_checksum"] += 1
    memo = m.ksm.checksums
    if page.data not in memo:
        if len(memo) > 65536:
            memo.clear()
        memo[page.data] = _checksum(m, page)
    return memo[page.data]


def _checksum(m: Machine, page: Page) -> int:
    return xxh64(page.data) & 0xFFFFFFFF if m.has("xxhash") else jhash2(page.data, 17)


def write_protect_page(m: Machine, vma: Vma, page: Page) -> int:
    """Make the vma's pte of the page read-only and clean: that pte, or -EFAULT.

    Refuses when somebody holds a reference that is neither a mapping, the swap cache's nor ours:
    they might write behind our back."""
    m.counters["write_protect_page"] += 1
    address = rmap.page_address_in_vma(m, page, vma)
    if address == -EFAULT:
        return -EFAULT
    pte = rmap.page_check_address(page, vma, address)
    if pte is None:
        return -EFAULT
    if pte & (RW | DIRTY) or page.exclusive:
        if page.mapcount + 1 + page.swapcache != page.count:
            return -EFAULT
        if page.exclusive and not rmap.page_try_share_anon_rmap(page):
            return -EFAULT
        if pte & DIRTY:
            page.dirty = True
        pte &= ~(RW | DIRTY)
        set_pte(vma.mm, address, pte)
    return pte


def replace_page(m: Machine, vma: Vma, page: Page, kpage: Page, orig_pte: int) -> int:
    m.counters["replace_page"] += 1
    address = rmap.page_address_in_vma(m, page, vma)
    if address == -EFAULT or not has_table(vma.mm, address):
        return -EFAULT
    if get_pte(vma.mm, address) != orig_pte:
        return -EFAULT
    newpte = mk_pte(kpage, vm_page_prot(vma))
    if kpage is m.zero_page:
        newpte |= SPECIAL
        if m.has("zero-pages-counted"):  # dirty: it is KSM's doing (79271476b336)
            newpte = pte_mkdirty(m, newpte)
            ksm_map_zero_page(m, vma.mm)
        vma.mm.anonpages -= 1
    else:
        get_page(kpage)
        rmap.page_add_anon_rmap(m, kpage, vma, address)
    set_pte(vma.mm, address, newpte)
    rmap.page_remove_rmap(m, page, vma)
    if not page.mapcount:
        swapfile.try_to_free_swap(m, page)
    put_page(m, page)
    return 0


def try_to_merge_one_page(m: Machine, vma: Vma, page: Page, kpage: Page | None) -> int:
    """Map kpage in place of page; without kpage let page become a KSM page, with no node yet."""
    m.counters["try_to_merge_one_page"] += 1
    if page is kpage:
        return 0
    if not vma.mergeable or not page.anon or not trylock_page(page):
        return -EFAULT
    err = -EFAULT
    orig_pte = write_protect_page(m, vma, page)
    if orig_pte != -EFAULT:
        if kpage is None:
            set_page_stable_node(page, None)
            mark_page_accessed(m, page)
            if m.has("stable-page-dirty"):
                page.dirty = True
            err = 0
        elif memcmp_pages(m, page, kpage) == 0:
            err = replace_page(m, vma, page, kpage, orig_pte)
    if vma.locked and kpage is not None and not err and not m.has("mlock-count"):
        page = _hand_lock_over(m, page, kpage)
    unlock_page(page)
    return err


def _hand_lock_over(m: Machine, page: Page, kpage: Page) -> Page:
    """Mark kpage in the place of page. Which of them is left with its page lock."""
    mlock.munlock_vma_page(m, page)
    if kpage is m.zero_page or kpage.mlocked:
        return page
    unlock_page(page)
    lock_page(kpage)
    mlock.mlock_vma_page(m, kpage)
    return kpage


def try_to_merge_with_ksm_page(m: Machine, item: RmapItem, page: Page, kpage: Page | None) -> int:
    if m.has("stable-tree-restart"):
        vma = find_mergeable_vma(item.mm, item.address)
    else:
        vma = mmap.vma_at(item.mm, item.address) if item.mm.users else None
    if vma is None:
        return -EFAULT
    err = try_to_merge_one_page(m, vma, page, kpage)
    if err:
        return err
    remove_rmap_item_from_tree(m, item)
    assert vma.anon_vma is not None
    item.anon_vma = vma.anon_vma
    rmap.get_anon_vma(item.anon_vma)
    item.index = linear_page_index(vma, item.address)
    return 0


def try_to_merge_two_pages(
    m: Machine, item: RmapItem, page: Page, tree_item: RmapItem, tree_page: Page
) -> Page | None:
    """The page that is scanned becomes the KSM page, the one of the tree is replaced by it."""
    err = try_to_merge_with_ksm_page(m, item, page, None)
    if not err:
        err = try_to_merge_with_ksm_page(m, tree_item, tree_page, page)
        if err:
            break_cow(m, item)
    return None if err else page


def cmp_and_merge_page(m: Machine, page: Page, item: RmapItem) -> None:
    """What ksmd does with a page: the stable tree first, then (unless it changes) the unstable.

    From 6.11 on (d58a361b0350) a page that is not a KSM page is only looked for once it has stayed
    as it was."""
    m.counters["cmp_and_merge_page"] += 1
    node = page_stable_node(page)
    if node is not None:
        if not node.migrating and get_kpfn_nid(m, node.kpfn) != node.nid:
            stable_node_dup_del(m, node)
            move_to_migrate_nodes(m, node)
        if not node.migrating and item.head_address == node.address:
            return
    elif m.has("checksum-first"):
        remove_rmap_item_from_tree(m, item)
        if _is_done_with(m, page, item):
            return
    kpage = stable_tree_search(m, page)
    if kpage is page and node is not None and item.head_address == node.address:
        put_page(m, page)
        return
    remove_rmap_item_from_tree(m, item)
    if kpage is not None:
        _merge_with_stable(m, item, page, kpage)
        return
    if not m.has("checksum-first") and _is_done_with(m, page, item):
        return
    match = unstable_tree_search_insert(m, item, page)
    if match is not None:
        _merge_with_unstable(m, item, page, *match)


def _is_done_with(m: Machine, page: Page, item: RmapItem) -> bool:
    """The page has another checksum than its last visit left; or it is the zero page now."""
    checksum = calc_checksum(m, page)
    if item.oldchecksum != checksum:
        item.oldchecksum = checksum
        return True
    return try_to_merge_with_zero_page(m, item, page) == 0


def try_to_merge_with_zero_page(m: Machine, item: RmapItem, page: Page) -> int:
    """A page of zeros becomes the zero page if use_zero_pages says so: 0, else -EFAULT."""
    if not m.ksm.use_zero_pages:
        return -EFAULT
    if m.ksm.zero_checksum is None:
        m.ksm.zero_checksum = _checksum(m, m.zero_page)
    if item.oldchecksum != m.ksm.zero_checksum:
        return -EFAULT
    vma = find_mergeable_vma(item.mm, item.address)
    return 0 if vma is None else try_to_merge_one_page(m, vma, page, m.zero_page)


def is_ksm_zero_pte(m: Machine, pte: int) -> bool:
    """The zero page, put there by ksmd."""
    return m.has("zero-pages-counted") and bool(pte & SPECIAL) and bool(pte & DIRTY)


def ksm_map_zero_page(m: Machine, mm: Mm) -> None:
    m.ksm.ksm_zero_pages += 1
    mm.ksm_zero_pages += 1


def ksm_might_unmap_zero_page(m: Machine, mm: Mm, pte: int) -> None:
    """Who takes a pte of the zero page away says so here."""
    if is_ksm_zero_pte(m, pte):
        m.ksm.ksm_zero_pages -= 1
        mm.ksm_zero_pages -= 1


def _merge_with_stable(m: Machine, item: RmapItem, page: Page, kpage: Page) -> None:
    if try_to_merge_with_ksm_page(m, item, page, kpage) == 0:
        node = page_stable_node(kpage)
        assert node is not None
        stable_tree_append(m, item, node)
    put_page(m, kpage)


def _merge_with_unstable(
    m: Machine, item: RmapItem, page: Page, tree_item: RmapItem, tree_page: Page
) -> None:
    kpage = try_to_merge_two_pages(m, item, page, tree_item, tree_page)
    put_page(m, tree_page)
    if kpage is None:
        return
    lock_page(kpage)
    node = stable_tree_insert(m, kpage)
    if node is not None:
        stable_tree_append(m, tree_item, node)
        stable_tree_append(m, item, node)
    unlock_page(kpage)
    if node is None:
        break_cow(m, tree_item)
        break_cow(m, item)


# --- which processes take part


def ksm_madvise(m: Machine, vma: Vma, start: int, end: int, advice: int) -> tuple[int, bool]:
    """MADV_MERGEABLE and MADV_UNMERGEABLE: 0 or -errno, and what VM_MERGEABLE is to be."""
    if advice == MADV_MERGEABLE:
        if not vma.mergeable and not vma.mm.vm_mergeable:
            err = __ksm_enter(m, vma.mm)
            if err:
                return err, False
        return 0, True
    if not vma.mergeable:
        return 0, False
    err = ksm_unmergeable(m, vma, start, end)
    return err, bool(err)


def ksm_unmergeable(m: Machine, vma: Vma, start: int, end: int) -> int:
    return unmerge_ksm_pages(m, vma, start, end) if vma.anon_vma is not None else 0


def ksm_add_vma(m: Machine, vma: Vma) -> None:
    """A new vma of a process that wants all of them merged (6.4, d7597f59d1d3).

    ksmd may have dropped the process while it had none: then it is let in again (590c03ca6a3f)."""
    if not vma.mm.merge_any:
        return
    vma.mergeable = True
    if not vma.mm.vm_mergeable:
        __ksm_enter(m, vma.mm)


def ksm_enable_merge_any(m: Machine, mm: Mm) -> int:
    """prctl(PR_SET_MEMORY_MERGE, 1)"""
    if mm.merge_any:
        return 0
    if not mm.vm_mergeable:
        err = __ksm_enter(m, mm)
        if err:
            return err
    mm.merge_any = True
    for vma in mm.vmas:
        vma.mergeable = True
    return 0


def ksm_disable_merge_any(m: Machine, mm: Mm) -> int:
    """prctl(PR_SET_MEMORY_MERGE, 0): all or nothing, as far as the flags go."""
    if not mm.merge_any:
        return 0
    for vma in mm.vmas:
        err = ksm_unmergeable(m, vma, vma.start, vma.end) if vma.mergeable else 0
        if err:
            for each in mm.vmas:
                each.mergeable = True
            return err
        vma.mergeable = False
    mm.merge_any = False
    return 0


def ksm_fork(m: Machine, mm: Mm, oldmm: Mm) -> int:
    """A child of a process that ksmd visits is visited too. What it counts are copies of what its
    parent counts, which is wrong and was set right in 6.18 (4d6fc29f3634)."""
    if not oldmm.vm_mergeable:
        return 0
    if m.has("ksm-counts-start-at-zero"):
        mm.ksm_merging_pages = mm.ksm_rmap_items = 0
        m.ksm.ksm_zero_pages += mm.ksm_zero_pages
    return __ksm_enter(m, mm)


def __ksm_enter(m: Machine, mm: Mm) -> int:
    """Just behind ksmd's cursor; but to the end while everything is unmerged, not to be missed."""
    if not kmem_alloc(m):
        return -ENOMEM
    slots, cursor = m.ksm.mm_slots, m.ksm.cursor
    at = len(slots)
    if m.ksm.run != KSM_RUN_UNMERGE and cursor is not None:
        at = slots.index(cursor)
    slots.insert(at, MmSlot(mm_slot_alloc(m), mm))
    mm.vm_mergeable = True
    return 0


def __ksm_exit(m: Machine, mm: Mm) -> None:
    """Free a slot without items at once; one with items is moved to be ksmd's next."""
    slots, cursor = m.ksm.mm_slots, m.ksm.cursor
    slot = next((slot for slot in slots if slot.mm is mm), None)
    if slot is None or slot is cursor:
        return
    if not slot.rmap_list:
        free_mm_slot(m, slot)
        return
    slots.remove(slot)
    slots.insert(slots.index(cursor) + 1 if cursor is not None else 0, slot)


def next_mm_slot(m: Machine, slot: MmSlot) -> MmSlot | None:
    at = m.ksm.mm_slots.index(slot) + 1
    return m.ksm.mm_slots[at] if at < len(m.ksm.mm_slots) else None


def free_mm_slot(m: Machine, slot: MmSlot) -> None:
    m.ksm.mm_slots.remove(slot)
    slab_free(m, slot.address)
    slot.mm.vm_mergeable = False


# --- swap-in


def ksm_might_need_to_copy(m: Machine, page: Page, vma: Vma, address: int) -> Page | None:
    """The page, if it may be mapped there as it is; else a copy, locked. None: no memory.

    A KSM page may be unless everything is being unmerged or its node is gone; another page only
    where its owner and index say that it belongs."""
    m.counters["ksm_might_need_to_copy"] += 1
    if page.ksm:
        if switched(m, "no-unmerge-check"):
            return page
        if page.stable_node is not None and m.ksm.run != KSM_RUN_UNMERGE:
            return page
    elif page.anon_vma is None or (
        vma.anon_vma is not None
        and page.anon_vma.root is vma.anon_vma.root
        and page.index == linear_page_index(vma, address)
    ):
        return page
    if not page.uptodate:
        return page
    new_page = alloc_page_vma(m, vma)
    if new_page is not None:
        if m.has("ksm-event-counts"):
            m.vmstat["ksm_swpin_copy"] += 1
        copy_page(m, new_page, page)
        new_page.dirty = new_page.uptodate = True
        lock_page(new_page)
    return new_page
