"""The records of a machine: struct page, mm, vma, anon_vma, swap area, KSM items, and the machine.

Names are the kernel's. Where the kernel keeps a tagged pointer or a flag word there is a plain
field for each thing it can mean.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyksm.engine import Config
from pyksm.oracle.rbtree import RbNode, RbRoot

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = ~(PAGE_SIZE - 1)
PMD_SHIFT = 21
PMD_SIZE = 1 << PMD_SHIFT
TASK_SIZE = 1 << 47

#: A swap entry: (type, offset). ``None`` is the kernel's entry of value 0.
SwapEntry = tuple[int, int]

#: (pid, addr, npages), as Engine.swapout takes them.
Range = tuple[int, int, int]


class FrameStack:
    """Free frames, the last one freed on top; at first ``first`` on top and ``last`` at the bottom.

    What has never been handed out is not listed: a machine may have more frames than we have room.
    """

    def __init__(self, first: int, last: int) -> None:
        self._freed: list[int] = []
        self._new = range(first, last + 1)

    def __len__(self) -> int:
        return len(self._freed) + len(self._new)

    def push(self, pfn: int) -> None:
        self._freed.append(pfn)

    def pop(self) -> int:
        if self._freed:
            return self._freed.pop()
        pfn, self._new = self._new[0], self._new[1:]
        return pfn

    def used_before(self) -> list[int]:
        """Those that were handed out once and came back."""
        return self._freed


@dataclass(eq=False, slots=True)
class Page:
    """struct page with its content. ``mapping`` is spread over anon_vma, ksm and stable_node."""

    pfn: int
    node: int
    data: bytes
    count: int = 0  #: _count
    mapcount: int = 0  #: _mapcount + 1: ptes that map it
    anon_vma: AnonVma | None = None  #: page_anon_vma(): owner of a plain anonymous page
    exclusive: bool = False  #: PageAnonExclusive
    ksm: bool = False  #: PageKsm
    stable_node: StableNode | None = None  #: page_stable_node(), None also while a KSM page
    index: int = 0
    private: SwapEntry | None = None  #: swap entry while PageSwapCache
    locked: bool = False
    uptodate: bool = False
    error: bool = False
    dirty: bool = False
    writeback: bool = False
    swapcache: bool = False
    reclaim: bool = False
    referenced: bool = False
    workingset: bool = False
    lru: bool = False
    active: bool = False
    charged: bool = False  #: PageCgroupUsed, see memcontrol.py
    memcg: bool = False  #: on the LRU lists that pressure scans, not on ``Node.root``
    mlocked: bool = False  #: PageMlocked
    unevictable: bool = False  #: PageUnevictable: on ``Node.unevictable``
    mlock_count: int = 0  #: while unevictable: how many mappings lock it, or fewer
    agent: Mm | None = None  #: whose locked page it is, see mlock.py: then in no frame
    pins: int = 0  #: references that pin() took, a share of ``count``

    @property
    def anon(self) -> bool:
        """PageAnon: true for KSM pages too."""
        return self.ksm or self.anon_vma is not None


@dataclass(eq=False, slots=True)
class Pin:
    """References that somebody took to a page: by which page of whose is the key."""

    page: Page
    refs: int
    write: bool  #: for I/O to the page: what its owner sees there has to stay that page
    number: int = 0  #: the order in which they were taken
    gone: bool = False  #: its owner has unmapped or moved what was there


@dataclass(eq=False, slots=True)
class Node:
    """A memory node: free frames (a stack) and the two anonymous LRU lists, newest last.

    ``root``: pages that were not charged to anybody when they were put on the LRU."""

    nid: int
    first: int
    last: int
    free: FrameStack
    active: OrderedDict[Page, None] = field(default_factory=OrderedDict)
    inactive: OrderedDict[Page, None] = field(default_factory=OrderedDict)
    root: OrderedDict[Page, None] = field(default_factory=OrderedDict)
    unevictable: OrderedDict[Page, None] = field(default_factory=OrderedDict)  #: never scanned
    recent_scanned: int = 0  #: zone_reclaim_stat of the anonymous lists
    recent_rotated: int = 0
    anon_cost: int = 0  #: lruvec->anon_cost, see workingset.py
    nonresident_age: int = 0
    activations: int = 0  #: WORKINGSET_ACTIVATE_ANON
    refaults: int = 0  #: of which reclaim knew last time


@dataclass(eq=False, slots=True)
class AnonVma:
    """anon_vma. ``tree`` is the interval tree in its in-order: (start pgoff, insertion)."""

    root: AnonVma = field(init=False, repr=False)
    parent: AnonVma = field(init=False, repr=False)
    refcount: int = 1
    num_children: int = 0  #: a root counts itself
    num_active_vmas: int = 0  #: vmas whose anon_vma this is; ``degree`` was the sum of both
    tree: list[AnonVmaChain] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.parent = self


@dataclass(eq=False, slots=True)
class AnonVmaChain:
    """anon_vma_chain: one (vma, anon_vma) pair."""

    vma: Vma
    anon_vma: AnonVma


class VmFlags(NamedTuple):
    """What a vma is like, beside where it is: only equals are merged."""

    prot: int
    mergeable: bool
    sealed: bool
    locked: bool


@dataclass(eq=False, slots=True)
class Vma:
    """vm_area_struct of a private anonymous mapping."""

    mm: Mm
    start: int
    end: int
    pgoff: int
    prot: int  #: VM_READ and VM_WRITE, with the values of PROT_READ and PROT_WRITE
    node: int = -1  #: MPOL_BIND node, -1 for none
    softdirty: bool = True  #: VM_SOFTDIRTY: all of it counts as written since clear_refs
    mergeable: bool = False  #: VM_MERGEABLE
    sealed: bool = False  #: VM_SEALED
    locked: bool = False  #: VM_LOCKED
    anon_vma: AnonVma | None = None
    written: bool = False  #: something was, here or where its pages come from
    chain: list[AnonVmaChain] = field(default_factory=list)  #: newest first

    def flags(self) -> VmFlags:
        """vm_flags as far as merging compares them."""
        return VmFlags(self.prot, self.mergeable, self.sealed, self.locked)


@dataclass(eq=False, slots=True)
class Mm:
    """mm_struct. Tables are last-level page tables by address >> PMD_SHIFT."""

    pid: int
    users: int = 1
    vmas: list[Vma] = field(default_factory=list)  #: ascending
    tables: dict[int, list[int]] = field(default_factory=dict)
    anonpages: int = 0
    swapents: int = 0
    vm_mergeable: bool = False  #: MMF_VM_MERGEABLE
    merge_any: bool = False  #: MMF_VM_MERGE_ANY
    ksm_merging_pages: int = 0
    ksm_rmap_items: int = 0
    ksm_zero_pages: int = 0
    writer: bool = False  #: a call holds mmap_sem for writing
    readers: int = 0  #: faults that hold mmap_sem at a schedule point
    has_pinned: bool = False  #: MMF_HAS_PINNED: it has once had a page pinned for I/O
    forked: bool = False
    agent_pages: list[Page] = field(default_factory=list)  #: of mlock.py, those on the LRU


@dataclass(eq=False, slots=True)
class SwapInfo:
    """swap_info_struct. A type number keeps its record after swapoff, flags cleared."""

    type: int
    used: bool = True  #: SWP_USED
    writeok: bool = False  #: SWP_WRITEOK
    prio: int = 0
    next: int = -1
    max: int = 0
    pages: int = 0
    inuse_pages: int = 0
    lowest_bit: int = 0
    highest_bit: int = 0
    cluster_next: int = 0
    cluster_nr: int = 0
    swap_map: bytearray | None = None
    #: continuation pages by slot // PAGE_SIZE; a page is its non-zero bytes by slot
    continuations: dict[int, list[dict[int, int]]] = field(default_factory=dict)
    slots: dict[int, bytes] = field(default_factory=dict)  #: memory backend
    zeromap: set[int] = field(default_factory=set)  #: slots that hold zeros and were not written
    fd: int = -1  #: file backend
    file_id: tuple[int, int] | None = None


@dataclass(eq=False, slots=True)
class RmapItem:
    """rmap_item of KSM. In the kernel anon_vma and nid share memory, and so do head and node."""

    mm: Mm
    address: int
    oldchecksum: int = 0
    stable: bool = False  #: STABLE_FLAG
    unstable: bool = False  #: UNSTABLE_FLAG
    age: int = 0  #: visits while smart_scan was on
    remaining_skips: int = 0
    seqnr: int = 0  #: low byte of the scan that put it into the unstable tree
    nid: int = 0
    anon_vma: AnonVma | None = None
    index: int = 0  #: the page's, in the place of oldchecksum, age and remaining_skips: see below
    head: StableNode | None = None
    head_address: int = -1  #: rmap_item->head, which stays behind when the item leaves its node
    node: RbNode[RmapItem] | None = None

    def forget_index(self) -> None:
        """With ksm-rmap-by-index, when the item is not of a KSM page any more: all four are 0."""
        self.index = self.oldchecksum = self.age = self.remaining_skips = 0


@dataclass(eq=False, slots=True)
class StableNode:
    """stable_node of KSM: in a tree (``node``), in a chain, or on migrate_nodes (``migrating``).

    ``hlist`` holds rmap_items, newest last; a chain has ``dups``, newest first, instead.
    ``address`` stands for the memory it lies in, see :func:`ksm_nodes.slab_alloc`."""

    address: int
    kpfn: int
    nid: int
    node: RbNode[StableNode] | None = None
    migrating: bool = False
    chain: StableNode | None = None  #: whose dup it is
    hlist: dict[RmapItem, None] = field(default_factory=dict)
    is_chain: bool = False
    dups: list[StableNode] = field(default_factory=list)
    chain_prune_time: int = 0


@dataclass(eq=False, slots=True)
class MmSlot:
    """mm_slot of KSM, with its rmap_items in address order."""

    address: int
    mm: Mm
    rmap_list: list[RmapItem] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Advisor:
    """The scan-time advisor: its knobs in sysfs, and advisor_ctx (times in ms)."""

    mode: int = 0
    max_cpu: int = 70
    min_pages_to_scan: int = 500
    max_pages_to_scan: int = 30000
    target_scan_time: int = 200
    start_scan: int = 0
    scan_time: int = 0  #: of the last scan, in seconds
    change: int = 0


@dataclass(eq=False, slots=True)
class Ksm:
    """What mm/ksm.c keeps in static variables. ``cursor`` None is ksm_mm_head, between passes."""

    stable: list[RbRoot[StableNode]]
    unstable: list[RbRoot[RmapItem]]
    nr_node_ids: int = 1  #: ksm_nr_node_ids
    roots_allocated: bool = False
    migrate_nodes: list[StableNode] = field(default_factory=list)
    mm_slots: list[MmSlot] = field(default_factory=list)
    cursor: MmSlot | None = None
    address: int = 0
    rmap_pos: int = 0  #: ksm_scan.rmap_list, as a position in the slot's list
    seqnr: int = 0
    run: int = 0
    merge_across_nodes: int = 1
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    rmap_items: int = 0
    stable_node_chains: int = 0
    stable_node_dups: int = 0
    pages_scanned: int = 0
    pages_skipped: int = 0
    ksm_zero_pages: int = 0
    max_page_sharing: int = 256
    stable_node_chains_prune_millisecs: int = 2000
    use_zero_pages: int = 0
    zero_checksum: int | None = None  #: calc_checksum() of a page of zeros, once needed
    smart_scan: int = 0
    advisor: Advisor = field(default_factory=Advisor)
    mutex_held: bool = False  #: ksm_thread_mutex
    slab_free: list[int] = field(default_factory=list)  #: a stack
    slab_made: int = 0
    checksums: dict[bytes, int] = field(default_factory=dict)  #: memo of calc_checksum()


@dataclass(eq=False, slots=True)
class Write:
    """A write under way: its page, and whether the device will report an error."""

    page: Page
    entry: SwapEntry
    fails: bool


@dataclass(eq=False, slots=True)
class Machine:
    """Everything that there is. Every function of the oracle takes one as its first argument."""

    config: Config
    nodes: list[Node]
    zero_page: Page
    init_mm: Mm
    ksm: Ksm
    pages: dict[int, Page] = field(default_factory=dict)  #: struct pages by pfn, once used
    mms: dict[int, Mm] = field(default_factory=dict)  #: live processes by pid
    next_pid: int = 1
    pins: dict[tuple[int, int], list[Pin]] = field(default_factory=dict)
    pins_taken: int = 0  #: gives each pin its number
    # swapfile.c, swap_state.c, page_io.c
    swap_info: list[SwapInfo] = field(default_factory=list)
    swap_list_head: int = -1
    swap_list_next: int = -1
    swap_avail: list[SwapInfo] = field(default_factory=list)  #: swap_avail_head: areas with room
    nr_swap_pages: int = 0
    total_swap_pages: int = 0
    least_priority: int = 0
    highest_priority_index: int = -1
    mmlist: list[Mm] = field(default_factory=list)  #: ring that starts at init_mm
    swap_cache: dict[SwapEntry, Page] = field(default_factory=dict)
    shadows: dict[SwapEntry, tuple[int, int, bool]] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    lru_add_batch: list[Page | None] = field(default_factory=list)  #: see swap.py
    activate_batch: list[Page | None] = field(default_factory=list)
    mlock_batch: list[tuple[str, Page]] = field(default_factory=list)  #: see mlock.py
    just_read: Page | None = None  #: page that this visit of try_to_unuse read, see unuse_pte
    # bookkeeping
    in_use: int = 0
    peak: int = 0
    nr_mlock: int = 0  #: NR_MLOCK: frames that are marked as locked
    counters: Counter[str] = field(default_factory=Counter)
    vmstat: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    #: injected failures still to come, by kind: how many events from now, ascending
    orders: dict[str, list[int]] = field(default_factory=dict)
    hook: Callable[[str], None] | None = None
    in_hook: bool = False
    features: frozenset[str] = frozenset()  #: of pyksm/features.py
    swp_types: dict[str, int] = field(default_factory=dict)  #: of swap ptes that are no areas
    clock: int = 0  #: milliseconds

    def has(self, feature: str) -> bool:
        """Does this machine's kernel have it?"""
        return feature in self.features


def fails(m: Machine, kind: str) -> bool:
    """Count one event of that kind and say whether inject() ordered it to fail."""
    left = [order - 1 for order in m.orders.get(kind, ())]
    m.orders[kind] = [order for order in left if order]
    return 0 in left


def events_before_failure(m: Machine, kind: str, count: int) -> int:
    """Up to that many events at once, those before the one ordered to fail. How many they are."""
    left = m.orders.get(kind, [])
    if left:
        count = min(count, left[0] - 1)
        m.orders[kind] = [order - count for order in left]
    return count


def kmem_alloc(m: Machine) -> bool:
    """kmem_cache_alloc() or kmalloc(): whether it worked."""
    m.counters["kmem_alloc"] += 1
    return not fails(m, "kmem")


def signal_pending(m: Machine) -> bool:
    return fails(m, "signal")


def schedule_point(m: Machine, name: str) -> None:
    """Where the kernel could lose the processor. What the hook does is not interrupted itself."""
    if m.hook is None or m.in_hook:
        return
    m.in_hook = True
    try:
        m.hook(name)
    finally:
        m.in_hook = False


def switched(m: Machine, name: str) -> bool:
    return name in m.config.switches


def event(m: Machine, text: str) -> None:
    m.events.append(text)


def linear_page_index(vma: Vma, address: int) -> int:
    return ((address - vma.start) >> PAGE_SHIFT) + vma.pgoff


def vma_pages(vma: Vma) -> int:
    return (vma.end - vma.start) >> PAGE_SHIFT
