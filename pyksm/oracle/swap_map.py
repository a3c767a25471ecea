"""mm/swapfile.c, the counting: how many ptes refer to a slot, one byte each and continuations.

A byte holds the first digit (0..62), SWAP_HAS_CACHE and COUNT_CONTINUED; higher digits (0..127)
are in continuation pages, one byte for each slot of the 4096 that share a page of swap_map.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from pyksm.oracle.pgtable import non_swap_entry
from pyksm.oracle.structs import PAGE_SIZE, Machine, SwapEntry, SwapInfo, kmem_alloc

SWAP_HAS_CACHE = 0x40
COUNT_CONTINUED = 0x80
SWAP_MAP_MAX = 0x3E
SWAP_MAP_BAD = 0x3F
SWAP_CONT_MAX = 0x7F


def swap_count(byte: int) -> int:
    """Zero when no pte refers to the slot; may still hold COUNT_CONTINUED."""
    return byte & ~SWAP_HAS_CACHE


def swap_info_get(m: Machine, entry: SwapEntry) -> SwapInfo | None:
    """The area of an entry that is in use."""
    if entry[0] >= len(m.swap_info):
        return None
    area = m.swap_info[entry[0]]
    if not area.used or entry[1] >= area.max or area.swap_map is None:
        return None
    return area if area.swap_map[entry[1]] else None


def swap_byte(m: Machine, entry: SwapEntry) -> int:
    area = swap_info_get(m, entry)
    return area.swap_map[entry[1]] if area is not None and area.swap_map is not None else 0


def __swap_duplicate(m: Machine, entry: SwapEntry, usage: int) -> int:
    """Count one more pte, or claim the slot's place in the swap cache (SWAP_HAS_CACHE)."""
    if non_swap_entry(m, entry) or entry[0] >= len(m.swap_info):
        return -EINVAL
    area = m.swap_info[entry[0]]
    if entry[1] >= area.max or area.swap_map is None:
        return -EINVAL
    byte = area.swap_map[entry[1]]
    has_cache, count = byte & SWAP_HAS_CACHE, swap_count(byte)
    digit = count & ~COUNT_CONTINUED
    if usage == SWAP_HAS_CACHE:
        if has_cache:
            return -EEXIST
        if not count:
            return -ENOENT
        has_cache = SWAP_HAS_CACHE
    elif not byte:
        return -ENOENT
    elif digit < SWAP_MAP_MAX:
        count += 1
    elif digit > SWAP_MAP_MAX:
        return -EINVAL
    elif swap_count_continued(area, entry[1], count):
        count = COUNT_CONTINUED
    else:
        return -ENOMEM
    area.swap_map[entry[1]] = count | has_cache
    return 0


def swap_duplicate(m: Machine, entry: SwapEntry) -> int:
    """One more pte. -ENOMEM when no continuation page is to be had; 0 for any other trouble."""
    m.counters["swap_duplicate"] += 1
    err = 0
    while not err and __swap_duplicate(m, entry, 1) == -ENOMEM:
        err = add_swap_count_continuation(m, entry)
    return err


def swapcache_prepare(m: Machine, entry: SwapEntry) -> int:
    return __swap_duplicate(m, entry, SWAP_HAS_CACHE)


def add_swap_count_continuation(m: Machine, entry: SwapEntry) -> int:
    """Hang one more continuation page onto the slot's piece of swap_map, if it needs one."""
    allocated = kmem_alloc(m)
    area = swap_info_get(m, entry)
    if area is None or area.swap_map is None:
        return 0
    offset = entry[1]
    count = swap_count(area.swap_map[offset])
    if count & ~COUNT_CONTINUED != SWAP_MAP_MAX:
        return 0
    if not allocated:
        return -ENOMEM
    pages = area.continuations.setdefault(offset // PAGE_SIZE, [])
    for page in pages:
        if not count & COUNT_CONTINUED:
            return 0  # there is a page that this slot does not use yet
        count = page.get(offset, 0)
        if count & ~COUNT_CONTINUED != SWAP_CONT_MAX:
            return 0  # this page still has room
    pages.append({})
    return 0


def swap_count_continued(area: SwapInfo, offset: int, count: int) -> bool:
    """Carry into the continuation pages (True: done), or borrow (True: they hold still more)."""
    pages = area.continuations.get(offset // PAGE_SIZE)
    if not pages:
        return False
    if count == SWAP_MAP_MAX:
        pages[0][offset] = 1
        return True
    if count == SWAP_MAP_MAX | COUNT_CONTINUED:
        return _carry(pages, offset)
    return _borrow(pages, offset)


def _carry(pages: list[dict[int, int]], offset: int) -> bool:
    """As 1 is added to 999."""
    at = 0
    while pages[at].get(offset, 0) == SWAP_CONT_MAX | COUNT_CONTINUED:
        at += 1
    if pages[at].get(offset, 0) == SWAP_CONT_MAX:
        at += 1
        if at == len(pages):
            return False
        pages[at][offset] = 0
    pages[at][offset] = pages[at].get(offset, 0) + 1
    for page in pages[:at]:
        page[offset] = COUNT_CONTINUED
    return True


def _borrow(pages: list[dict[int, int]], offset: int) -> bool:
    """As 1 is taken from 1000."""
    at = 0
    while pages[at].get(offset, 0) == COUNT_CONTINUED:
        at += 1
    left = pages[at][offset] - 1
    pages[at][offset] = left
    count = 0 if left == 0 else COUNT_CONTINUED
    for page in reversed(pages[:at]):
        page[offset] = SWAP_CONT_MAX | count
        count = COUNT_CONTINUED
    return count == COUNT_CONTINUED


def swp_swapcount(area: SwapInfo, offset: int) -> int:
    """The exact number of ptes that refer to a slot."""
    assert area.swap_map is not None
    count = swap_count(area.swap_map[offset])
    if count == SWAP_MAP_BAD:
        return 0  # the header, which no pte refers to
    total = count & ~COUNT_CONTINUED
    unit = SWAP_MAP_MAX + 1
    for page in area.continuations.get(offset // PAGE_SIZE, []):
        if not count & COUNT_CONTINUED:
            break
        count = page.get(offset, 0)
        total += (count & ~COUNT_CONTINUED) * unit
        unit *= SWAP_CONT_MAX + 1
    return total
