"""mm/ksm.c: ksmd going from page to page, and the files in /sys/kernel/mm/ksm."""

from __future__ import annotations

from errno import EACCES, EBUSY, EDEADLK, EINVAL, ENOENT, ENOMEM

from pyksm.oracle import ksm, memory
from pyksm.oracle.ksm_tree import (
    get_ksm_page,
    remove_all_stable_nodes,
    remove_rmap_item_from_tree,
    remove_trailing_rmap_items,
)
from pyksm.oracle.page_alloc import put_page
from pyksm.oracle.pgtable import next_table
from pyksm.oracle.rbtree import RbRoot
from pyksm.oracle.structs import (
    PAGE_SIZE,
    Machine,
    MmSlot,
    Page,
    RmapItem,
    kmem_alloc,
    schedule_point,
)

UINT_MAX = (1 << 32) - 1


# --- the scan


def ksm_do_scan(m: Machine, npages: int) -> int:
    """One batch of ksmd: at most npages pages, never beyond the end of a pass. How many it was."""
    done = 0
    while done < npages:
        schedule_point(m, "ksm_do_scan:next_item")
        found = scan_get_next_rmap_item(m)
        if found is None:
            break
        page, item = found
        ksm.cmp_and_merge_page(m, page, item)
        put_page(m, page)
        done += 1
    return done


def scan_get_next_rmap_item(m: Machine) -> tuple[Page, RmapItem] | None:
    """The next anonymous page, with a reference. None at the end of a pass or of memory."""
    scan = m.ksm
    if not scan.mm_slots:
        return None
    if scan.cursor is None:
        _begin_pass(m)
    while (slot := scan.cursor) is not None:
        page = _next_page(m, slot)
        if page is not None:
            item = get_next_rmap_item(m, slot, scan.address)
            if item is None:
                put_page(m, page)
                return None
            scan.rmap_pos += 1
            scan.address += PAGE_SIZE
            return page, item
        _end_mm(m, slot)
    scan.seqnr += 1
    return None


def _begin_pass(m: Machine) -> None:
    if not m.ksm.merge_across_nodes:
        for node in list(m.ksm.migrate_nodes):
            page = get_ksm_page(m, node, lock_it=False)
            if page is not None:
                put_page(m, page)
    for nid in range(m.ksm.nr_node_ids):
        m.ksm.unstable[nid] = RbRoot()
    _set_cursor(m, m.ksm.mm_slots[0])


def _set_cursor(m: Machine, slot: MmSlot | None) -> None:
    m.ksm.cursor = slot
    m.ksm.address = m.ksm.rmap_pos = 0


def _next_page(m: Machine, slot: MmSlot) -> Page | None:
    """The next anonymous page in a mergeable vma of the mm at or above the scan's address."""
    scan, mm = m.ksm, slot.mm
    for vma in mm.vmas:
        if vma.end <= scan.address or not vma.mergeable:
            continue
        scan.address = max(scan.address, vma.start)
        if vma.anon_vma is None:
            scan.address = vma.end
        while scan.address < vma.end:
            scan.address = next_table(mm, scan.address, vma.end)
            if scan.address == vma.end:
                break
            page = memory.follow_page(m, vma, scan.address)
            if page is not None:
                if page.anon:
                    return page
                put_page(m, page)
            scan.address += PAGE_SIZE
    return None


def get_next_rmap_item(m: Machine, slot: MmSlot, address: int) -> RmapItem | None:
    """The address's item; items before it have no page any more and are freed."""
    items, at = slot.rmap_list, m.ksm.rmap_pos
    while at < len(items) and items[at].address <= address:
        if items[at].address == address:
            return items[at]
        item = items[at]
        del items[at]
        remove_rmap_item_from_tree(m, item)
        m.ksm.rmap_items -= 1
    if not kmem_alloc(m):
        return None
    m.ksm.rmap_items += 1
    item = RmapItem(slot.mm, address)
    items.insert(at, item)
    return item


def _end_mm(m: Machine, slot: MmSlot) -> None:
    """On to the next mm. One that exited, or has no mergeable vma, loses its slot."""
    scan = m.ksm
    if not slot.mm.users:
        scan.address = scan.rmap_pos = 0
    remove_trailing_rmap_items(m, slot, scan.rmap_pos)
    nothing_mergeable = scan.address == 0
    _set_cursor(m, ksm.next_mm_slot(m, slot))
    if nothing_mergeable:
        ksm.free_mm_slot(m, slot)


def full_scans(m: Machine, n: int) -> int:
    """What ``scan N`` asks of ksmd: run it until n passes ended. How many did."""
    m.ksm.run = 1
    scans = idle = 0
    while scans < n and idle < 2 and m.ksm.mm_slots:
        before = m.ksm.seqnr
        m.ksm.mutex_held = True
        try:
            done = ksm_do_scan(m, 1 << 62)
        finally:
            m.ksm.mutex_held = False
        if m.ksm.seqnr != before:
            scans += 1
            idle = 0
        else:
            idle = 0 if done else idle + 1
    m.ksm.run = 0
    return scans


# --- sysfs


def ksm_store(m: Machine, key: str, value: int) -> int:
    if key == "run":
        return run_store(m, value)
    if key == "merge_across_nodes":
        return merge_across_nodes_store(m, value)
    if key in ("pages_to_scan", "sleep_millisecs"):
        if not 0 <= value <= UINT_MAX:
            return -EINVAL
        setattr(m.ksm, key, value)
        return 0
    return -EACCES if key in ksm_counts(m) else -ENOENT


def run_store(m: Machine, value: int) -> int:
    if not 0 <= value <= ksm.KSM_RUN_UNMERGE:
        return -EINVAL
    if m.ksm.mutex_held:
        return -EDEADLK
    if m.ksm.run == value:
        return 0
    m.ksm.run = value
    if value != ksm.KSM_RUN_UNMERGE:
        return 0
    m.ksm.mutex_held = True
    try:
        err = ksm.unmerge_and_remove_all_rmap_items(m)
    finally:
        m.ksm.mutex_held = False
    if err:
        m.ksm.run = 0
    return err


def merge_across_nodes_store(m: Machine, value: int) -> int:
    """Only while nothing is merged, not even as far as the counters know."""
    if value not in (0, 1):
        return -EINVAL
    if m.ksm.mutex_held:
        return -EDEADLK
    if m.ksm.merge_across_nodes == value:
        return 0
    m.ksm.mutex_held = True
    try:
        if m.ksm.pages_shared or remove_all_stable_nodes(m):
            return -EBUSY
    finally:
        m.ksm.mutex_held = False
    if not m.ksm.roots_allocated:
        if not kmem_alloc(m):
            return -ENOMEM
        m.ksm.roots_allocated = True
    m.ksm.merge_across_nodes = value
    m.ksm.nr_node_ids = 1 if value else len(m.nodes)
    return 0


def ksm_counts(m: Machine) -> dict[str, int]:
    k = m.ksm
    volatile = k.rmap_items - k.pages_shared - k.pages_sharing - k.pages_unshared
    return {
        "full_scans": k.seqnr,
        "pages_shared": k.pages_shared,
        "pages_sharing": k.pages_sharing,
        "pages_unshared": k.pages_unshared,
        "pages_volatile": max(volatile, 0),
    }


def ksm_show(m: Machine, key: str) -> int:
    """The value of a file, -ENOENT where there is none."""
    if key in ("run", "merge_across_nodes", "pages_to_scan", "sleep_millisecs"):
        value: int = getattr(m.ksm, key)
        return value
    return ksm_counts(m).get(key, -ENOENT)
