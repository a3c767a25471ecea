"""mm/ksm.c: ksmd going from page to page."""

from __future__ import annotations

from pyksm.oracle import ksm, memory
from pyksm.oracle.ksm_advisor import advisor_start_scan, advisor_stop_scan
from pyksm.oracle.ksm_nodes import get_ksm_page
from pyksm.oracle.ksm_tree import (
    alloc_rmap_item,
    free_rmap_item,
    remove_rmap_item_from_tree,
    remove_trailing_rmap_items,
)
from pyksm.oracle.page_alloc import get_page, put_page
from pyksm.oracle.pgtable import get_pte, next_table, pte_present
from pyksm.oracle.rbtree import RbRoot
from pyksm.oracle.structs import (
    PAGE_SIZE,
    Machine,
    MmSlot,
    Page,
    RmapItem,
    schedule_point,
)
from pyksm.oracle.swap import lru_add_drain

AGE_MAX = 255  #: U8_MAX


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
        m.ksm.pages_scanned += 1
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
        if page is None:
            _end_mm(m, slot)
            continue
        item = get_next_rmap_item(m, slot, scan.address)
        if item is None:
            put_page(m, page)
            return None
        scan.rmap_pos += 1
        scan.address += PAGE_SIZE
        if not should_skip_rmap_item(m, page, item):
            return page, item
        put_page(m, page)
    advisor_stop_scan(m)
    scan.seqnr += 1
    return None


def should_skip_rmap_item(m: Machine, page: Page, item: RmapItem) -> bool:
    """With smart_scan (6.7, 5e924ff54d08) a page that never merges is left out more and more."""
    if not m.ksm.smart_scan or page.ksm:
        return False
    if item.stable and m.has("ksm-rmap-by-index"):
        return False  # it has no age: its page's index is there
    age = item.age
    item.age = min(age + 1, AGE_MAX)
    if age < 3:
        return False
    if not item.remaining_skips:
        item.remaining_skips = skip_age(age)
        return False
    m.ksm.pages_skipped += 1
    item.remaining_skips -= 1
    remove_rmap_item_from_tree(m, item)
    return True


def skip_age(age: int) -> int:
    """How many visits of an item of that age are left out before the next one counts."""
    for limit, skips in ((3, 1), (5, 2), (8, 4)):
        if age <= limit:
            return skips
    return 8


def _begin_pass(m: Machine) -> None:
    lru_add_drain(m)
    advisor_start_scan(m)
    if not m.ksm.merge_across_nodes:
        for node in list(m.ksm.migrate_nodes):
            page = get_ksm_page(m, node)
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
            pte = get_pte(mm, scan.address)
            page = memory.vm_normal_page(m, pte) if pte_present(pte) else None
            if page is not None and page.anon:
                get_page(page)
                return page
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
        free_rmap_item(m, item)
    new = alloc_rmap_item(m, slot.mm, address)
    if new is not None:
        items.insert(at, new)
    return new


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
