"""mm/page_io.c: moving pages to and from slots. Reads end at once, writes when the device says."""

from __future__ import annotations

import os

from pyksm.oracle import swapfile
from pyksm.oracle.page_alloc import unlock_page
from pyksm.oracle.structs import Machine, Page, SwapEntry, Write, event, fails
from pyksm.oracle.swap import rotate_reclaimable_page


def swap_writepage(m: Machine, page: Page) -> None:
    """Write a locked page to its slot, or drop the slot when no pte needs it. Unlocks the page."""
    m.counters["swap_writepage"] += 1
    if swapfile.try_to_free_swap(m, page) or _swap_zeromap(m, page):
        unlock_page(page)
        return
    __swap_writepage(m, page)


def _swap_zeromap(m: Machine, page: Page) -> bool:
    """A page of zeros needs no I/O, only a mark on its slot (0ca0c24e3211)."""
    if not m.has("swap-zeromap"):
        return False
    assert page.private is not None
    kind, offset = page.private
    if any(page.data):
        m.swap_info[kind].zeromap.discard(offset)
        return False
    m.swap_info[kind].zeromap.add(offset)
    m.vmstat["swpout_zero"] += 1
    return True


def __swap_writepage(m: Machine, page: Page) -> None:
    """Submit the write; its end comes with end_swap_bio_write()."""
    m.counters["__swap_writepage"] += 1
    assert page.private is not None
    m.vmstat["pswpout"] += 1
    page.writeback = True
    unlock_page(page)
    failing = fails(m, "write") or not _store(m, page.private, page.data)
    m.writes.append(Write(page, page.private, failing))


def end_swap_bio_write(m: Machine, write: Write) -> None:
    page = write.page
    if write.fails:
        page.error = True
        page.dirty = True
        event(m, "Write-error on swap-device")
        page.reclaim = False
    end_page_writeback(m, page)


def end_page_writeback(m: Machine, page: Page) -> None:
    if page.reclaim:
        page.reclaim = False
        rotate_reclaimable_page(m, page)
    page.writeback = False


def complete_writes(m: Machine) -> None:
    """The device is done with everything that was submitted, in that order."""
    while m.writes:
        end_swap_bio_write(m, m.writes.pop(0))


def wait_on_page_writeback(m: Machine, page: Page) -> None:
    if page.writeback:
        complete_writes(m)


def swap_readpage(m: Machine, page: Page) -> None:
    """Read a locked page from its slot and unlock it. A failed read leaves zeros, not uptodate."""
    m.counters["swap_readpage"] += 1
    assert page.locked
    assert not page.uptodate
    assert page.private is not None
    kind, offset = page.private
    if offset in m.swap_info[kind].zeromap:
        m.vmstat["swpin_zero"] += 1
        page.data, page.uptodate = m.zero_page.data, True
        unlock_page(page)
        return
    m.vmstat["pswpin"] += 1
    data = None if fails(m, "read") else _load(m, page.private)
    if data is None:
        page.error = True
        event(m, "Read-error on swap-device")
    else:
        page.data = data
        page.uptodate = True
    unlock_page(page)


def _store(m: Machine, entry: SwapEntry, data: bytes) -> bool:
    area = m.swap_info[entry[0]]
    if area.fd < 0:
        area.slots[entry[1]] = data
        return True
    try:
        return os.pwrite(area.fd, data, entry[1] * len(data)) == len(data)
    except OSError:
        return False


def slot_content(m: Machine, entry: SwapEntry) -> bytes | None:
    """For who only looks: what the slot holds, None where that cannot be had."""
    if entry[1] in m.swap_info[entry[0]].zeromap:
        return m.zero_page.data
    return _load(m, entry)


def _load(m: Machine, entry: SwapEntry) -> bytes | None:
    area = m.swap_info[entry[0]]
    size = m.config.page_size
    if area.fd < 0:
        return area.slots.get(entry[1], m.zero_page.data)
    try:
        data = os.pread(area.fd, size, entry[1] * size)
    except OSError:
        return None
    return data if len(data) == size else None
