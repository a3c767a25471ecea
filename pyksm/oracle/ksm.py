"""mm/ksm.c: merging, unmerging, and which processes take part.

ksmd's scan and its sysfs files are in ksm_scan.py, the trees in ksm_tree.py, rmap walks of KSM
pages in ksm_rmap.py.
"""

from __future__ import annotations

from errno import EFAULT, EINTR, ENOMEM

from pyksm.engine import MADV_MERGEABLE
from pyksm.oracle import memory, mmap, rmap, swapfile
from pyksm.oracle.jhash import jhash2
from pyksm.oracle.ksm_tree import (
    erase_stable_node,
    find_mergeable_vma,
    get_kpfn_nid,
    memcmp_pages,
    move_to_migrate_nodes,
    page_stable_node,
    remove_all_stable_nodes,
    remove_rmap_item_from_tree,
    remove_trailing_rmap_items,
    set_page_stable_node,
    slab_alloc,
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
    get_pte,
    has_table,
    mk_pte,
    next_table,
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

KSM_RUN_UNMERGE = 2

# --- breaking


def break_ksm(m: Machine, vma: Vma, address: int) -> int:
    """Give the address a page of its own if it maps a KSM page; what is in swap is not seen."""
    m.counters["break_ksm"] += 1
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


def break_cow(m: Machine, item: RmapItem) -> None:
    """Undo half a merge: drop the item's anon_vma, and the KSM page if it is still there."""
    assert item.anon_vma is not None
    rmap.put_anon_vma(item.anon_vma)
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
        memo[page.data] = jhash2(page.data, 17)
    return memo[page.data]


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
    if pte & (RW | DIRTY):
        if page.mapcount + 1 + page.swapcache != page.count:
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
    get_page(kpage)
    rmap.page_add_anon_rmap(m, kpage, vma, address)
    set_pte(vma.mm, address, mk_pte(kpage, vm_page_prot(vma)))
    rmap.page_remove_rmap(page)
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
            err = 0
        elif memcmp_pages(m, page, kpage) == 0:
            err = replace_page(m, vma, page, kpage, orig_pte)
    unlock_page(page)
    return err


def try_to_merge_with_ksm_page(m: Machine, item: RmapItem, page: Page, kpage: Page | None) -> int:
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
    """What ksmd does with a page: the stable tree first, then (unless it changes) the unstable."""
    m.counters["cmp_and_merge_page"] += 1
    node = page_stable_node(page)
    if node is not None:
        if node.node is not None and get_kpfn_nid(m, node.kpfn) != node.nid:
            erase_stable_node(m, node)
            move_to_migrate_nodes(m, node)
        if node.node is not None and item.head_address == node.address:
            return
    kpage = stable_tree_search(m, page)
    if kpage is page and node is not None and item.head_address == node.address:
        put_page(m, page)
        return
    remove_rmap_item_from_tree(m, item)
    if kpage is not None:
        _merge_with_stable(m, item, page, kpage)
        return
    checksum = calc_checksum(m, page)
    if item.oldchecksum != checksum:
        item.oldchecksum = checksum
        return
    match = unstable_tree_search_insert(m, item, page)
    if match is not None:
        _merge_with_unstable(m, item, page, *match)


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


def __ksm_enter(m: Machine, mm: Mm) -> int:
    """Just behind ksmd's cursor; but to the end while everything is unmerged, not to be missed."""
    if not kmem_alloc(m):
        return -ENOMEM
    slots, cursor = m.ksm.mm_slots, m.ksm.cursor
    at = len(slots)
    if m.ksm.run != KSM_RUN_UNMERGE and cursor is not None:
        at = slots.index(cursor)
    slots.insert(at, MmSlot(slab_alloc(m), mm))
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
    m.ksm.slab_free.append(slot.address)
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
        copy_page(m, new_page, page)
        new_page.dirty = new_page.uptodate = True
        lock_page(new_page)
    return new_page
