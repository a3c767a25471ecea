"""mm/swapfile.c: swap areas, finding free slots, dropping the swap of a page, swapon and swapoff.

Counting is in swap_map.py, swapoff's search for ptes in unuse.py and, from 5.1 on,
unuse_mm.py.
"""

from __future__ import annotations

import os
import stat
import struct
from errno import EBUSY, EINVAL, ENOMEM, EPERM

from pyksm.oracle import swap_state, unuse, unuse_mm
from pyksm.oracle.page_alloc import put_page, trylock_page, unlock_page
from pyksm.oracle.pgtable import max_swapfiles, non_swap_entry
from pyksm.oracle.structs import Machine, Page, SwapEntry, SwapInfo, kmem_alloc
from pyksm.oracle.swap import lru_add_drain
from pyksm.oracle.swap_map import (
    COUNT_CONTINUED,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    SWAP_MAP_MAX,
    swap_byte,
    swap_count,
    swap_count_continued,
    swap_duplicate,
    swap_info_get,
    swapcache_prepare,
)

__all__ = ["swap_duplicate", "swapcache_prepare"]  # their kernel file is this one

SWAPFILE_CLUSTER = 256
SWAP_FLAG_PRIO_MASK = 0x7FFF
HEADER_SIZE = 4096


def vm_swap_full(m: Machine) -> bool:
    return m.nr_swap_pages * 2 < m.total_swap_pages


# --- finding a free slot


def __try_to_reclaim_swap(m: Machine, area: SwapInfo, offset: int) -> bool:
    """Free a slot that only the swap cache holds, whether the page is mapped or not."""
    page = swap_state.find_get_page(m, (area.type, offset))
    if page is None:
        return False
    freed = False
    if trylock_page(page):
        freed = try_to_free_swap(m, page)
        unlock_page(page)
    put_page(m, page)
    return freed


def _in_use(m: Machine, area: SwapInfo, offset: int) -> int:
    assert area.swap_map is not None
    m.counters["scan_swap_map_slots"] += 1
    return area.swap_map[offset]


def _find_cluster(m: Machine, area: SwapInfo, offset: int, limit: int) -> int | None:
    """First of 256 free slots in a row that end at or below limit; unaligned."""
    last_in_cluster = offset + SWAPFILE_CLUSTER - 1
    while last_in_cluster <= limit:
        if _in_use(m, area, offset):
            last_in_cluster = offset + SWAPFILE_CLUSTER
        elif offset == last_in_cluster:
            return offset - (SWAPFILE_CLUSTER - 1)
        offset += 1
    return None


def _new_cluster(m: Machine, area: SwapInfo) -> tuple[int, int]:
    """(scan_base, offset) to start from when the current cluster is used up; rotating disk."""
    scan_base = area.lowest_bit
    found = _find_cluster(m, area, scan_base, area.highest_bit)
    if found is None:
        found = _find_cluster(m, area, area.lowest_bit, scan_base - 1)
    area.cluster_nr = SWAPFILE_CLUSTER - 1
    if found is None:
        return scan_base, scan_base
    area.cluster_next = found
    return scan_base, found


def _cache_only(m: Machine, area: SwapInfo, offset: int) -> bool:
    """A slot worth reclaiming from the swap cache, now that swap is filling up."""
    assert area.swap_map is not None
    return vm_swap_full(m) and area.swap_map[offset] == SWAP_HAS_CACHE


def _next_candidate(m: Machine, area: SwapInfo, offset: int, scan_base: int) -> int | None:
    """The next slot that looks free: up to highest_bit, then from lowest_bit + 1 (sic) to base."""
    for start, beyond in ((offset, area.highest_bit + 1), (area.lowest_bit, scan_base)):
        offset = start + 1
        while offset < beyond:
            if not _in_use(m, area, offset) or _cache_only(m, area, offset):
                return offset
            offset += 1
    return None


def scan_swap_map(m: Machine, area: SwapInfo, usage: int) -> int:
    """Take a free slot: next fit inside a cluster of 256, then the next free cluster. 0: none."""
    assert area.swap_map is not None
    scan_base = offset = area.cluster_next
    cluster_nr = area.cluster_nr
    area.cluster_nr -= 1
    if not cluster_nr:
        if area.pages - area.inuse_pages < SWAPFILE_CLUSTER:
            area.cluster_nr = SWAPFILE_CLUSTER - 1
        else:
            scan_base, offset = _new_cluster(m, area)
    while True:
        if not area.writeok or not area.highest_bit:
            return 0
        if offset > area.highest_bit:
            scan_base = offset = area.lowest_bit
        if _cache_only(m, area, offset):
            if __try_to_reclaim_swap(m, area, offset):
                continue
        elif not _in_use(m, area, offset):
            break
        candidate = _next_candidate(m, area, offset, scan_base)
        if candidate is None:
            return 0
        offset = candidate
    _take_slot(area, offset, usage)
    if not area.highest_bit:
        del_from_avail_list(m, area)
    return offset


def _take_slot(area: SwapInfo, offset: int, usage: int) -> None:
    assert area.swap_map is not None
    if offset == area.lowest_bit:
        area.lowest_bit += 1
    if offset == area.highest_bit:
        area.highest_bit -= 1
    area.inuse_pages += 1
    if area.inuse_pages == area.pages:
        area.lowest_bit = area.max
        area.highest_bit = 0
    area.swap_map[offset] = usage
    area.cluster_next = offset + 1


def get_swap_page(m: Machine) -> SwapEntry | None:
    """A slot for the swap cache: highest priority first, areas of one priority in turn."""
    m.counters["get_swap_page"] += 1
    if m.nr_swap_pages <= 0:
        return None
    m.nr_swap_pages -= 1
    if m.has("swap-avail-plist"):
        return _get_swap_page_in_turn(m)
    wrapped = 0
    kind = m.swap_list_next
    while kind >= 0 and wrapped < 2:
        kind = _prefer_freed_area(m, kind)
        area = m.swap_info[kind]
        following = area.next
        if following < 0 or (not wrapped and area.prio != m.swap_info[following].prio):
            following = m.swap_list_head
            wrapped += 1
        if area.highest_bit and area.writeok:
            m.swap_list_next = following
            offset = scan_swap_map(m, area, SWAP_HAS_CACHE)
            if offset:
                return (kind, offset)
            following = m.swap_list_next
        kind = following
    m.nr_swap_pages += 1
    return None


def _get_swap_page_in_turn(m: Machine) -> SwapEntry | None:
    """get_swap_page() of 3.16 (18ab4d4ced08): who is asked goes behind its equals."""
    for area in list(m.swap_avail):
        if area not in m.swap_avail:
            continue
        add_to_avail_list(m, area)
        offset = scan_swap_map(m, area, SWAP_HAS_CACHE)
        if offset:
            return (area.type, offset)
    m.nr_swap_pages += 1
    return None


def add_to_avail_list(m: Machine, area: SwapInfo) -> None:
    """Behind all that are at least as good. A full area whose swapoff failed is on it already."""
    del_from_avail_list(m, area)
    at = sum(other.prio >= area.prio for other in m.swap_avail)
    m.swap_avail.insert(at, area)


def del_from_avail_list(m: Machine, area: SwapInfo) -> None:
    if area in m.swap_avail:
        m.swap_avail.remove(area)


def _prefer_freed_area(m: Machine, kind: int) -> int:
    """An area of higher priority that freed a slot lately comes first."""
    freed, m.highest_priority_index = m.highest_priority_index, -1
    if freed not in (-1, kind):
        area = m.swap_info[freed]
        if m.swap_info[kind].prio < area.prio and area.writeok:
            m.swap_list_next = freed
            return freed
    return kind


# --- giving slots back


def swap_entry_free(m: Machine, area: SwapInfo, offset: int, usage: int) -> int:
    """One pte less, or no longer in the swap cache. Returns the byte; 0 means the slot is free."""
    assert area.swap_map is not None
    byte = area.swap_map[offset]
    has_cache, count = byte & SWAP_HAS_CACHE, swap_count(byte)
    if usage == SWAP_HAS_CACHE:
        assert has_cache
        has_cache = 0
    elif count & ~COUNT_CONTINUED <= SWAP_MAP_MAX:
        if count == COUNT_CONTINUED:
            more = swap_count_continued(area, offset, count)
            count = SWAP_MAP_MAX | (COUNT_CONTINUED if more else 0)
        else:
            count -= 1
    byte = count | has_cache
    area.swap_map[offset] = byte
    if not byte:
        if not area.highest_bit and area.writeok:
            add_to_avail_list(m, area)
        area.lowest_bit = min(area.lowest_bit, offset)
        area.highest_bit = max(area.highest_bit, offset)
        _set_highest_priority_index(m, area)
        m.nr_swap_pages += 1
        area.inuse_pages -= 1
        area.zeromap.discard(offset)
        if m.has("swap-synchronous"):
            area.slots.pop(offset, None)  # zram's swap_slot_free_notify()
        m.shadows.pop((area.type, offset), None)
    return byte


def _set_highest_priority_index(m: Machine, area: SwapInfo) -> None:
    old = m.highest_priority_index
    if old == -1 or m.swap_info[old].prio < area.prio:
        m.highest_priority_index = area.type


def swap_free(m: Machine, entry: SwapEntry) -> None:
    m.counters["swap_free"] += 1
    area = swap_info_get(m, entry)
    if area is not None:
        swap_entry_free(m, area, entry[1], 1)


def swapcache_free(m: Machine, entry: SwapEntry) -> None:
    area = swap_info_get(m, entry)
    if area is not None:
        swap_entry_free(m, area, entry[1], SWAP_HAS_CACHE)


def page_swapcount(m: Machine, page: Page) -> int:
    assert page.private is not None
    return swap_count(swap_byte(m, page.private))


def reuse_swap_page(m: Machine, page: Page) -> bool:
    """Whether a write needs no copy: one pte or swap pte in all. Then the swap is dropped."""
    m.counters["reuse_swap_page"] += 1
    assert page.locked
    if page.ksm:
        return False
    count = page.mapcount
    if count <= 1 and page.swapcache:
        count += page_swapcount(m, page)
        if count == 1 and not page.writeback:
            swap_state.delete_from_swap_cache(m, page)
            page.dirty = True
    return count <= 1


def try_to_free_swap(m: Machine, page: Page) -> bool:
    """Take a locked page out of the swap cache when no pte refers to its slot."""
    m.counters["try_to_free_swap"] += 1
    assert page.locked
    if not page.swapcache or page.writeback or page_swapcount(m, page):
        return False
    swap_state.delete_from_swap_cache(m, page)
    page.dirty = True
    return True


def free_swap_and_cache(m: Machine, entry: SwapEntry) -> None:
    """A swap pte goes away; if it was the last, so does an unmapped page in the swap cache."""
    m.counters["free_swap_and_cache"] += 1
    if non_swap_entry(m, entry):
        return
    area = swap_info_get(m, entry)
    if area is None or swap_entry_free(m, area, entry[1], 1) != SWAP_HAS_CACHE:
        return
    page = swap_state.find_get_page(m, entry)
    if page is None:
        return
    if trylock_page(page):
        if page.swapcache and not page.writeback and (not page.mapcount or vm_swap_full(m)):
            swap_state.delete_from_swap_cache(m, page)
            page.dirty = True
        unlock_page(page)
    put_page(m, page)


# --- swapon

#: The header says the last slot in 32 bits.
MAX_SLOTS = 1 << 32


def sys_swapon(m: Machine, npages: int, priority: int, path: str | None) -> int:
    """Returns the area's type or -errno."""
    if not -1 <= priority <= SWAP_FLAG_PRIO_MASK:
        return -EINVAL
    area = _alloc_swap_info(m)
    if isinstance(area, int):
        return area
    fd = -1
    if path is not None:
        fd = _open_swap_file(m, area, path)
        if fd < 0:
            return fd
        npages = _read_swap_header(m, fd, npages)
    if npages < 2 or npages > MAX_SLOTS:
        if fd >= 0:
            os.close(fd)
        area.file_id = None
        return -ENOMEM if npages > MAX_SLOTS else -EINVAL
    area.fd = fd
    area.max = npages
    area.pages = npages - 1
    area.inuse_pages = 0
    area.lowest_bit = area.cluster_next = 1
    area.highest_bit = npages - 1
    area.cluster_nr = 0
    area.swap_map = bytearray(npages)
    area.swap_map[0] = SWAP_MAP_BAD
    area.used = True
    area.next = -1
    if area.type == len(m.swap_info):
        m.swap_info.append(area)
    _enable_swap_info(m, area, priority)
    return area.type


def _alloc_swap_info(m: Machine) -> SwapInfo | int:
    """The record of the lowest type that is not in use."""
    if not kmem_alloc(m):
        return -ENOMEM
    for area in m.swap_info:
        if not area.used:
            return area
    if len(m.swap_info) >= max_swapfiles(m):
        return -EPERM
    return SwapInfo(len(m.swap_info), used=False)


def _open_swap_file(m: Machine, area: SwapInfo, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return -(error.errno or EINVAL)
    info = os.fstat(fd)
    file_id = (info.st_dev, info.st_ino)
    if any(other.used and other.file_id == file_id for other in m.swap_info):
        os.close(fd)
        return -EBUSY
    if not stat.S_ISREG(info.st_mode) or m.config.page_size != HEADER_SIZE:
        os.close(fd)
        return -EINVAL
    area.file_id = file_id
    return fd


def _read_swap_header(m: Machine, fd: int, npages: int) -> int:
    """maxpages as the header of a mkswap file has it (npages of them if that is set); 0: unfit."""
    header = os.pread(fd, HEADER_SIZE, 0)
    if len(header) != HEADER_SIZE or header[-10:] != b"SWAPSPACE2":
        return 0
    for order in "<>":
        version, last_page, nr_badpages = struct.unpack_from(order + "3I", header, 1024)
        if version == 1:
            break
    else:
        return 0
    maxpages: int = last_page + 1
    if maxpages * HEADER_SIZE > os.fstat(fd).st_size or nr_badpages:
        return 0  # shorter than it says, or bad pages in a regular file
    if npages > maxpages:
        return 0
    return npages or maxpages


def _enable_swap_info(m: Machine, area: SwapInfo, prio: int) -> None:
    """Onto swap_list by priority; without one, a new lowest."""
    if prio < 0:
        m.least_priority -= 1
        prio = m.least_priority
    area.prio = prio
    area.writeok = True
    add_to_avail_list(m, area)
    m.nr_swap_pages += area.pages
    m.total_swap_pages += area.pages
    prev, kind = -1, m.swap_list_head
    while kind >= 0 and area.prio < m.swap_info[kind].prio:
        prev, kind = kind, m.swap_info[kind].next
    area.next = kind
    if prev < 0:
        m.swap_list_head = m.swap_list_next = area.type
    else:
        m.swap_info[prev].next = area.type


# --- swapoff


def sys_swapoff(m: Machine, kind: int) -> int:
    prev, found = -1, m.swap_list_head
    while found >= 0 and found != kind:
        prev, found = found, m.swap_info[found].next
    if found < 0 or not m.swap_info[found].writeok:
        return -EINVAL
    area = m.swap_info[found]
    if not _enough_memory(m, area.pages):
        return -ENOMEM
    _disable_swap_info(m, area, prev)
    per_mm = m.has("swapoff-per-mm")
    err = unuse_mm.try_to_unuse(m, area) if per_mm else unuse.try_to_unuse(m, area)
    if err:
        _enable_swap_info(m, area, area.prio)  # reinsert_swap_info()
        return err
    area.continuations.clear()
    _drain_mmlist(m)
    lru_add_drain(m)
    if area.fd >= 0:
        os.close(area.fd)
    area.fd, area.file_id = -1, None
    area.highest_bit = area.max = 0
    area.swap_map = None
    area.used = False
    area.slots.clear()
    area.zeromap.clear()
    return 0


def _enough_memory(m: Machine, pages: int) -> bool:
    """__vm_enough_memory(), OVERCOMMIT_GUESS."""
    if m.has("overcommit-guess-total"):
        return pages <= m.config.frames + m.total_swap_pages
    return sum(len(node.free) for node in m.nodes) + m.nr_swap_pages > pages


def _disable_swap_info(m: Machine, area: SwapInfo, prev: int) -> None:
    """Off swap_list; later areas with automatic priorities move up by one."""
    if prev < 0:
        m.swap_list_head = area.next
    else:
        m.swap_info[prev].next = area.next
    if m.swap_list_next == area.type:
        m.swap_list_next = m.swap_list_head
    if area.prio < 0:
        kind = area.next
        while kind >= 0:
            m.swap_info[kind].prio = area.prio
            area.prio -= 1
            kind = m.swap_info[kind].next
        m.least_priority += 1
    m.nr_swap_pages -= area.pages
    m.total_swap_pages -= area.pages
    area.writeok = False
    del_from_avail_list(m, area)


def _drain_mmlist(m: Machine) -> None:
    """With no slot in use anywhere, nobody needs to be on the list."""
    if not any(area.inuse_pages for area in m.swap_info):
        del m.mmlist[1:]
