"""The oracle as an engine: system calls in, observations out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import (
    EBADF,
    EBUSY,
    EDEADLK,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ESRCH,
)

from pyksm.engine import (
    FAULT_KINDS,
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_PAGEOUT,
    MADV_UNMERGEABLE,
    POLICIES,
    PROT_SEAL,
    SWITCHES,
    AreaInfo,
    Config,
    PageInfo,
    VmaInfo,
)
from pyksm.errors import MachineError
from pyksm.oracle import (
    fork,
    ksm,
    ksm_scan,
    ksm_sysfs,
    madvise,
    memory,
    migrate,
    mlock,
    mmap,
    mprotect,
    mremap,
    mseal,
    rmap,
    swap_map,
    swapfile,
    task_mmu,
    vmscan,
)
from pyksm.oracle.census import census
from pyksm.oracle.page_alloc import put_page
from pyksm.oracle.pgtable import (
    SPECIAL,
    get_pte,
    non_swap_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    special_types,
)
from pyksm.oracle.rbtree import RbRoot
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    FrameStack,
    Ksm,
    Machine,
    Mm,
    Node,
    Page,
    Pin,
    SwapInfo,
)
from pyksm.oracle.swap import lru_add_drain

#: Every counter, so that one that never counted is there too. Kernel functions first.
COUNTERS = (
    "__swap_writepage",
    "break_ksm",
    "cmp_and_merge_page",
    "delete_from_swap_cache",
    "do_swap_page",
    "ksm_might_need_to_copy",
    "ksm_migrate_page",
    "memcmp_pages",
    "page_address_in_vma",
    "page_referenced_ksm",
    "read_swap_cache_async",
    "remove_rmap_item_from_tree",
    "replace_page",
    "rmap_walk_ksm",
    "stable_tree_insert",
    "stable_tree_search",
    "swap_readpage",
    "swap_writepage",
    "swapin_readahead",
    "try_to_free_swap",
    "try_to_merge_one_page",
    "try_to_unmap",
    "try_to_unmap_ksm",
    "try_to_unuse",
    "unstable_tree_search_insert",
    "unuse_mm",
    "unuse_pte",
    "unuse_pte_range",
    "unuse_vma",
    "write_protect_page",
    "handle_mm_fault",
    "do_anonymous_page",
    "do_wp_page",
    "reuse_swap_page",
    "copy_one_pte",
    "zap_pte",
    "move_pte",
    "anon_vma_prepare",
    "anon_vma_clone",
    "anon_vma_fork",
    "unlink_anon_vmas",
    "try_to_unmap_one",
    "page_referenced_one",
    "add_to_swap",
    "get_swap_page",
    "swap_duplicate",
    "swap_free",
    "free_swap_and_cache",
    "calc_checksum",
    "copy_page",
    "alloc_page",
    "free_page",
    "migrate_page",
    "unuse_copy",
    "unuse_pte_compared",
    "find_next_to_unuse_slots",
    "scan_swap_map_slots",
    "avc_visited",
    "kmem_alloc",
)
VMSTAT = ("pswpin", "pswpout", "pgmigrate_success")
#: Those that a feature brought.
VMSTAT_SINCE = {
    "ksm-event-counts": ("ksm_swpin_copy", "cow_ksm"),
    "swap-zeromap": ("swpin_zero", "swpout_zero"),
}


#: Frame numbers are 32 bits wide, and the last is no frame.
FRAMES_END = (1 << 32) - 1
#: Most bytes of results that a call gives; more is ENOMEM before it is tried.
BULK_MAX = 1 << 32
#: Bytes of one page's record, as C has it.
PAGE_RECORD = 48
#: Most milliseconds that one sleep takes.
SLEEP_MAX = (1 << 31) - 1
#: So many that a count of them might run over: no more are given.
MANY_REFERENCES = 2**31 - 1 - 2 * rmap.GUP_PIN_COUNTING_BIAS
#: Most pages that one call pins.
PINS_MAX = 1 << 28


def _make(config: Config) -> Machine:
    """A machine with all its memory free. Frame 0 is the zero page, of node 0."""
    size = config.page_size
    if not 1 <= config.nodes <= 64 or not config.nodes <= config.frames < FRAMES_END:
        raise MachineError(EINVAL, "nodes, frames")
    if not 8 <= size <= PAGE_SIZE or size & (size - 1):
        raise MachineError(EINVAL, "page_size")
    if config.policy not in POLICIES or not config.switches <= set(SWITCHES) or config.bugs:
        raise MachineError(EINVAL, "policy, switches")
    share = config.frames // config.nodes
    nodes = []
    for nid in range(config.nodes):
        first = 1 + nid * share
        last = config.frames if nid == config.nodes - 1 else first + share - 1
        nodes.append(Node(nid, first, last, FrameStack(first, last)))
    zero_page = Page(0, 0, bytes(size), count=1, uptodate=True)
    init_mm = Mm(0)
    state = Ksm([RbRoot() for _ in nodes], [RbRoot() for _ in nodes])
    m = Machine(config, nodes, zero_page, init_mm, state)
    m.features = config.features
    m.swp_types = special_types(m)
    m.least_priority = -1 if m.has("swap-numa-priority") else 0
    m.mmlist.append(init_mm)
    m.counters.update(dict.fromkeys(COUNTERS, 0))
    m.vmstat.update(dict.fromkeys(VMSTAT, 0))
    for feature, names in VMSTAT_SINCE.items():
        if m.has(feature):
            m.vmstat.update(dict.fromkeys(names, 0))
    return m


#: Of failures, of a kind at a time.
MAX_ORDERS = 8


class Oracle:
    """One machine, satisfying :class:`pyksm.engine.Engine`."""

    name = "oracle"

    def __init__(self, config: Config) -> None:
        self.config = config
        self._machine: Machine | None = _make(config)

    def close(self) -> None:
        if self._machine is not None:
            for area in self._machine.swap_info:
                if area.fd >= 0:
                    os.close(area.fd)
            self._machine = None

    # --- what every call checks

    def _m(self) -> Machine:
        if self._machine is None:
            raise MachineError(EBADF, "closed machine")
        return self._machine

    def _mm(self, pid: int, write: bool = False) -> tuple[Machine, Mm]:
        """``write``: for an operation that takes mmap_sem for writing, which a fault that a hook
        has interrupted holds for reading."""
        m = self._m()
        mm = m.mms.get(pid)
        if mm is None:
            raise MachineError(ESRCH, f"process {pid}")
        if write and mm.readers:
            raise MachineError(EDEADLK, f"mmap_sem of process {pid}")
        return m, mm

    def _range(
        self, pid: int, addr: int, npages: int, write: bool = False
    ) -> tuple[Machine, Mm, int]:
        """The machine, the mm, and the end of a page range."""
        m, mm = self._mm(pid, write)
        if addr < 0 or addr % PAGE_SIZE or npages <= 0:
            raise MachineError(EINVAL, f"range {addr:#x}, {npages} pages")
        end = addr + (npages << PAGE_SHIFT)
        if end > TASK_SIZE:
            raise MachineError(EINVAL, f"range {addr:#x}, {npages} pages")
        return m, mm, end

    def _bulk(self, pid: int, count: int, each: int, most: int = TASK_SIZE >> PAGE_SHIFT) -> None:
        """Refuse more results than there can be room for, before the first page is touched."""
        if count * each > BULK_MAX:
            self._mm(pid)
            raise MachineError(EINVAL if count > most else ENOMEM, f"results for {count}")

    def _area(self, kind: int, offset: int) -> tuple[Machine, SwapInfo]:
        m = self._m()
        if not 0 <= kind < len(m.swap_info) or not m.swap_info[kind].used:
            raise MachineError(EINVAL, f"swap area {kind}")
        if not 0 <= offset < m.swap_info[kind].max:
            raise MachineError(EINVAL, f"slot {offset}")
        return m, m.swap_info[kind]

    # --- processes

    def spawn(self) -> int:
        m = self._m()
        mm = fork.mm_alloc(m)
        if mm is not None:
            mlock.agent_spawn(m)
        return self._adopt(m, mm, "spawn")

    def fork(self, pid: int) -> int:
        m, mm = self._mm(pid, write=True)
        return self._adopt(m, fork.dup_mm(m, mm), "fork")

    def _adopt(self, m: Machine, mm: Mm | None, what: str) -> int:
        if mm is None:
            raise MachineError(ENOMEM, what)
        m.next_pid += 1
        m.mms[mm.pid] = mm
        lru_add_drain(m)  # a new agent locks its memory, and that drains
        return mm.pid

    def exit(self, pid: int) -> None:
        """The address space goes, unless swapoff holds it; then the pins, as files are closed."""
        m, mm = self._mm(pid, write=True)
        del m.mms[pid]
        fork.mmput(m, mm)
        held = [pin for key in list(m.pins) if key[0] == pid for pin in m.pins.pop(key)]
        for pin in sorted(held, key=lambda pin: pin.number):  # in the order they were taken
            _unpin(m, pin)

    def processes(self) -> list[int]:
        return list(self._m().mms)

    # --- address space

    def mmap(self, pid: int, npages: int, addr: int = 0, node: int = -1) -> int:
        m, mm = self._mm(pid, write=True)
        if addr < 0 or addr % PAGE_SIZE or npages <= 0 or not -1 <= node < len(m.nodes):
            raise MachineError(EINVAL, "mmap")
        start = addr or mmap.get_unmapped_area(mm)
        return _check(mmap.mmap_region(m, mm, start, npages, node), "mmap")

    def munmap(self, pid: int, addr: int, npages: int) -> None:
        m, mm, end = self._range(pid, addr, npages, write=True)
        _forget_pins(m, pid, addr, npages)
        with _mmap_sem(mm):
            err = mmap.do_munmap(m, mm, addr, end)
        _check(err, "munmap")

    def mprotect(self, pid: int, addr: int, npages: int, prot: int) -> None:
        m, mm, end = self._range(pid, addr, npages, write=True)
        if prot == PROT_SEAL and m.has("mseal"):
            _check(mseal.do_mseal(m, mm, addr, end), "mseal")
            return
        if prot & ~3:
            raise MachineError(EINVAL, f"mprotect {prot}")
        with _mmap_sem(mm):
            err = mprotect.sys_mprotect(m, mm, addr, end, prot)
        _check(err, "mprotect")

    def mlock(self, pid: int, addr: int, npages: int) -> None:
        m, mm, end = self._range(pid, addr, npages, write=True)
        with _mmap_sem(mm):
            err = mlock.do_mlock(m, mm, addr, end, on=True)
        _check(err or mlock.mm_populate(m, mm, addr, end), "mlock")

    def munlock(self, pid: int, addr: int, npages: int) -> None:
        m, mm, end = self._range(pid, addr, npages, write=True)
        with _mmap_sem(mm):
            err = mlock.do_mlock(m, mm, addr, end, on=False)
        _check(err, "munlock")

    def mremap(self, pid: int, addr: int, npages: int, new_addr: int) -> None:
        m, mm, end = self._range(pid, addr, npages, write=True)
        self._range(pid, new_addr, npages)
        _forget_pins(m, pid, addr, npages)
        _forget_pins(m, pid, new_addr, npages)
        with _mmap_sem(mm):
            err = mremap.mremap_to(m, mm, addr, end, new_addr)
        _check(err, "mremap")

    def madvise(self, pid: int, addr: int, npages: int, advice: int) -> None:
        write = advice in (MADV_MERGEABLE, MADV_UNMERGEABLE)
        m, mm, end = self._range(pid, addr, npages, write)
        if advice == MADV_DONTNEED:
            _forget_pins(m, pid, addr, npages)
        with _mmap_sem(mm, write):
            err = madvise.sys_madvise(m, mm, addr, end, advice)
        _check(err, "madvise")

    def write_pages(self, pid: int, addr: int, data: bytes) -> list[int]:
        size = self.config.page_size
        m, mm, _ = self._range(pid, addr, -(-len(data) // size))
        if len(data) % size:
            raise MachineError(EINVAL, f"write of {len(data)} bytes")
        errs = []
        for i in range(len(data) // size):
            page, err = memory.access_page(m, mm, addr + i * PAGE_SIZE, write=True)
            if page is not None:
                page.data = bytes(data[i * size : (i + 1) * size])
            errs.append(err)
        return errs

    def read_pages(self, pid: int, addr: int, npages: int) -> tuple[bytes, list[int]]:
        self._bulk(pid, npages, max(self.config.page_size, 16))
        m, mm, _ = self._range(pid, addr, npages)
        content, errs = [], []
        for i in range(npages):
            page, err = memory.access_page(m, mm, addr + i * PAGE_SIZE, write=False)
            content.append(m.zero_page.data if page is None else page.data)
            errs.append(err)
        return b"".join(content), errs

    def write(self, pid: int, addr: int, data: bytes) -> None:
        m, mm = self._mm(pid)
        at = 0
        for address, length in self._pieces(addr, len(data)):
            page, err = memory.access_page(m, mm, address, write=True)
            if page is None:
                raise MachineError(err, f"write at {address:#x}")
            low = address % PAGE_SIZE
            page.data = page.data[:low] + data[at : at + length] + page.data[low + length :]
            at += length

    def read(self, pid: int, addr: int, length: int) -> bytes:
        self._bulk(pid, length, 1, TASK_SIZE)
        m, mm = self._mm(pid)
        content = []
        for address, piece in self._pieces(addr, length):
            page, err = memory.access_page(m, mm, address, write=False)
            if page is None:
                raise MachineError(err, f"read at {address:#x}")
            content.append(page.data[address % PAGE_SIZE : address % PAGE_SIZE + piece])
        return b"".join(content)

    def _pieces(self, addr: int, length: int) -> Iterator[tuple[int, int]]:
        """(address, bytes) for each page of a range of bytes."""
        size = self.config.page_size
        beyond = not 0 <= addr < TASK_SIZE or addr + length > TASK_SIZE
        if beyond or length < 0 or (length and addr % PAGE_SIZE >= size):
            raise MachineError(EINVAL, f"range {addr:#x}, {length} bytes")
        while length > 0:
            piece = min(length, size - addr % PAGE_SIZE)
            yield addr, piece
            length -= piece
            addr = (addr // PAGE_SIZE + 1) * PAGE_SIZE

    def touch(self, pid: int, addr: int, npages: int, write: bool = False) -> list[int]:
        self._bulk(pid, npages, 16)
        m, mm, end = self._range(pid, addr, npages)
        return [memory.access_page(m, mm, at, write)[1] for at in range(addr, end, PAGE_SIZE)]

    def pin(self, pid: int, addr: int, npages: int, write: bool = False) -> None:
        """As get_user_pages(): what is not there is faulted in, to ``write`` what is not the
        process's own. All pages or none."""
        m, mm, end = self._range(pid, addr, npages)
        if npages > PINS_MAX:
            raise MachineError(ENOMEM, f"pin of {npages} pages")
        refs = rmap.GUP_PIN_COUNTING_BIAS if write and m.has("pins-counted") else 1
        pins: list[Pin] = []
        for address in range(addr, end, PAGE_SIZE):
            page, err = memory.access_page(m, mm, address, write)
            if page is None or page.count > MANY_REFERENCES:
                for pin in reversed(pins):
                    _unpin(m, pin)
                raise MachineError(err or ENOMEM, f"pin at {address:#x}")
            page.count += refs
            page.pins += refs
            mm.has_pinned |= write
            pins.append(Pin(page, refs, write))
        for i, pin in enumerate(pins):
            m.pins_taken += 1
            pin.number = m.pins_taken
            m.pins.setdefault((pid, addr + i * PAGE_SIZE), []).append(pin)

    def unpin(self, pid: int, addr: int, npages: int) -> None:
        """The latest pin of each address goes, whatever is mapped there now."""
        m, _, end = self._range(pid, addr, npages)
        for address in range(addr, end, PAGE_SIZE):
            if (pid, address) not in m.pins:
                raise MachineError(EINVAL, f"unpin at {address:#x}")
        for address in range(addr, end, PAGE_SIZE):
            key = (pid, address)
            _unpin(m, m.pins[key].pop())
            if not m.pins[key]:
                del m.pins[key]

    def migrate(self, pid: int, addr: int, npages: int, node: int) -> list[int]:
        self._bulk(pid, npages, 16)
        m, mm, _ = self._range(pid, addr, npages)
        err, status = migrate.do_pages_move(m, mm, addr, npages, node)
        _check(err, "migrate")
        return status

    # --- swap

    def swapon(self, npages: int, priority: int = -1, path: str | None = None) -> int:
        if path is not None and b"\0" in os.fsencode(path):
            raise MachineError(EINVAL, "swapon")
        kind = _check(swapfile.sys_swapon(self._m(), npages, priority, path), "swapon")
        lru_add_drain(self._m())
        return kind

    def swapoff(self, type: int) -> None:
        _check(swapfile.sys_swapoff(self._m(), type), "swapoff")

    def areas(self) -> list[AreaInfo]:
        return [
            AreaInfo(area.type, area.prio, area.pages, area.inuse_pages, area.max)
            for area in self._m().swap_info
            if area.used
        ]

    def swap_count(self, type: int, offset: int) -> int:
        _, area = self._area(type, offset)
        return swap_map.swp_swapcount(area, offset)

    def swap_map(self, type: int, offset: int) -> int:
        _, area = self._area(type, offset)
        assert area.swap_map is not None
        return area.swap_map[offset]

    def swapcached(self) -> int:
        return len(self._m().swap_cache)

    def swapout(self, ranges: Sequence[tuple[int, int, int]] = ()) -> None:
        for pid, addr, npages in ranges:
            self._range(pid, addr, npages)
        m = self._m()
        if m.has("madvise-pageout"):
            for pid, addr, npages in ranges:
                end = addr + npages * PAGE_SIZE
                madvise.sys_madvise(m, m.mms[pid], addr, end, MADV_PAGEOUT)
        vmscan.swapout(m, list(ranges))

    # --- KSM

    def ksm_write(self, key: str, value: int) -> None:
        number = max(-(1 << 63), min(value, (1 << 63) - 1))
        _check(ksm_sysfs.ksm_store(self._m(), key, number), f"ksm {key}={value}")

    def ksm_read(self, key: str) -> int:
        value = ksm_sysfs.ksm_show(self._m(), key)
        if value is None:
            raise MachineError(ENOENT, f"ksm {key}")
        return value

    def ksm_counts(self) -> dict[str, int]:
        return ksm_sysfs.ksm_counts(self._m())

    def ksm_stat(self, pid: int) -> dict[str, int]:
        m, mm = self._mm(pid)
        return ksm_sysfs.ksm_stat(m, mm)

    def prctl_memory_merge(self, pid: int, on: bool) -> None:
        m, mm = self._mm(pid, write=True)
        if not m.has("merge-any"):
            raise MachineError(EINVAL, "PR_SET_MEMORY_MERGE")
        with _mmap_sem(mm):
            err = (ksm.ksm_enable_merge_any if on else ksm.ksm_disable_merge_any)(m, mm)
        _check(err, "prctl")

    def memory_merge(self, pid: int) -> bool:
        m, mm = self._mm(pid)
        if not m.has("merge-any"):
            raise MachineError(EINVAL, "PR_GET_MEMORY_MERGE")
        return mm.merge_any

    @contextmanager
    def _ksmd(self) -> Iterator[Machine]:
        m = self._m()
        if m.ksm.mutex_held:
            raise MachineError(EDEADLK, "ksm_thread_mutex")
        yield m

    def ksm_scan(self, n: int) -> int:
        if not 0 <= n < 1 << 31:
            raise MachineError(EINVAL, f"{n} scans")
        with self._ksmd() as m:
            return ksm_scan.full_scans(m, n)

    def ksm_do_scan(self, npages: int) -> None:
        if not 0 <= npages < 1 << 32:
            raise MachineError(EINVAL, f"{npages} pages to scan")
        with self._ksmd() as m:
            if m.ksm.run == ksm.KSM_RUN_UNMERGE:
                raise MachineError(EBUSY, "ksm run is 2")
            m.ksm.mutex_held = True
            try:
                ksm_scan.ksm_do_scan(m, npages)
            finally:
                m.ksm.mutex_held = False

    # --- time

    def sleep(self, ms: int) -> None:
        m = self._m()
        if not 0 <= ms <= SLEEP_MAX:
            raise MachineError(EINVAL, f"sleep {ms}")
        m.clock += ms

    def clear_refs(self, pid: int, what: int) -> None:
        m, mm = self._mm(pid, write=True)
        _check(task_mmu.clear_refs_write(m, mm, what), f"clear_refs {what}")

    # --- observation

    def pagemap(self, pid: int, addr: int, npages: int) -> list[PageInfo]:
        self._bulk(pid, npages, PAGE_RECORD)
        m, mm, end = self._range(pid, addr, npages)
        return [_page_info(m, mm, address) for address in range(addr, end, PAGE_SIZE)]

    def rmap_walk(self, pid: int, addr: int) -> int:
        m, mm, _ = self._range(pid, addr, 1)
        pte = get_pte(mm, addr)
        page = memory.vm_normal_page(m, pte) if pte_present(pte) else None
        if mmap.vma_at(mm, addr) is None:
            raise MachineError(EFAULT, f"no vma at {addr:#x}")
        if page is None:
            raise MachineError(ENOENT, f"no page at {addr:#x}")
        return rmap.count_rmap(m, page)

    def vmas(self, pid: int) -> list[VmaInfo]:
        _, mm = self._mm(pid)
        return [
            VmaInfo(v.start, v.end, v.pgoff, v.prot, v.node, v.mergeable, len(v.chain), v.locked)
            for v in mm.vmas
        ]

    def free_frames(self, node: int = -1) -> int:
        m = self._m()
        if not -1 <= node < len(m.nodes):
            raise MachineError(EINVAL, f"node {node}")
        nodes = m.nodes if node < 0 else [m.nodes[node]]
        return sum(len(n.free) for n in nodes)

    def peak_frames(self, reset: bool = False) -> int:
        m = self._m()
        peak = m.peak
        if reset:
            m.peak = m.in_use
        return peak

    def counters(self) -> Mapping[str, int]:
        return dict(self._m().counters)

    def vmstat(self) -> Mapping[str, int]:
        return dict(self._m().vmstat)

    def events(self) -> list[str]:
        """What was logged since the last call."""
        m = self._m()
        events, m.events = m.events, []
        return events

    def census(self, strict: bool = False) -> list[str]:
        return census(self._m(), strict)

    def inject(self, kind: str, nth: int) -> None:
        m = self._m()
        if kind not in FAULT_KINDS or nth < 0:
            raise MachineError(EINVAL, f"inject {kind} {nth}")
        orders = {min(nth, 2**64 - 1), *m.orders.get(kind, ())} if nth else set()
        if len(orders) > MAX_ORDERS:
            raise MachineError(ENOSPC, f"inject {kind} {nth}")
        m.orders[kind] = sorted(orders)

    def set_hook(self, hook: Callable[[str], None] | None) -> None:
        self._m().hook = hook


@contextmanager
def _mmap_sem(mm: Mm, write: bool = True) -> Iterator[None]:
    """Held for writing, as far as it matters to whoever would like to read."""
    mm.writer = write
    try:
        yield
    finally:
        mm.writer = False


def _check(result: int, what: str) -> int:
    if result < 0:
        raise MachineError(-result, what)
    return result


def _unpin(m: Machine, pin: Pin) -> None:
    pin.page.pins -= pin.refs
    pin.page.count -= pin.refs - 1
    put_page(m, pin.page)


def _forget_pins(m: Machine, pid: int, addr: int, npages: int) -> None:
    """What they were taken of is there no more. Only the census wants to know."""
    for (owner, address), pins in m.pins.items():
        if owner == pid and addr <= address < addr + npages * PAGE_SIZE:
            for pin in pins:
                pin.gone = True


def _page_info(m: Machine, mm: Mm, address: int) -> PageInfo:
    pte = get_pte(mm, address)
    if mmap.vma_at(mm, address) is None:
        return PageInfo("-", 0, -1, -1, -1, False, False, -1, -1)
    if not pte:
        return PageInfo(".", 0, -1, -1, -1, False, False, -1, -1)
    if not pte_present(pte):
        kind, offset = entry = pte_to_swp_entry(m, pte)
        if non_swap_entry(m, entry):
            kind = offset = -1
        return PageInfo("S", pte, -1, kind, offset, False, False, -1, -1)
    if pte & SPECIAL:
        node = len(m.nodes) - 1 if m.has("zero-page-last-node") else 0
        return PageInfo("Z", pte, 0, -1, -1, False, False, 0, node)
    page = m.pages[pte_pfn(pte)]
    return PageInfo(
        "P", pte, page.pfn, -1, -1, page.ksm, page.swapcache, page.mapcount, page.node, page.mlocked
    )
