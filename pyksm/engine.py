"""What an engine is: the one interface that core, oracle and kernel answer behind.

Everything above an engine (scenarios, tests, fuzzer, command line, embedders) calls these
operations and reads these observations; nothing above knows which engine answers.
Addresses are user virtual addresses in bytes and page aligned; range sizes are in pages.
Failures raise :class:`pyksm.errors.MachineError` (an ``OSError`` with ``errno``) and leave the
machine as it was, except where the operation's text says that earlier pages stay done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyksm.errors import InputError
from pyksm.profiles import DEFAULT, effective

MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_MERGEABLE = 12
MADV_UNMERGEABLE = 13
MADV_PAGEOUT = 21

PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2
#: By itself: mseal(2) instead of mprotect(2).
PROT_SEAL = 0x10000

#: swapoff policies: as Linux 3.9 has it, and the one that the mail calls obvious.
POLICIES = ("reread", "memcpy")

#: How the core does what it does: only time differs, see :class:`Config`.
WALKS = ("literal", "computed")
TRANSFERS = ("copy", "reference")
MAX_THREADS = 2

#: Switches that take one check or shortcut away, by name.
SWITCHES = (
    "unuse_pte-no-copy",
    "no-unmerge-check",
    "unuse_vma-brute-force",
    "rmap-by-address",
)

#: Kinds of failure that :meth:`Engine.inject` orders.
FAULT_KINDS = ("page", "kmem", "read", "write", "signal", "userfault")

#: Files of /sys/kernel/mm/ksm that take words and no numbers; engines number the words.
KSM_WORDS: Mapping[str, tuple[str, ...]] = {"advisor_mode": ("none", "scan-time")}

#: Points at which the hook runs, by name: kernel function and place.
SCHEDULE_POINTS = (
    "try_to_unuse:next_entry",
    "try_to_unuse:lock_page",
    "do_swap_page:lock_page",
    "unmerge_and_remove_all_rmap_items:begin",
    "unmerge_and_remove_all_rmap_items:next_mm",
    "remove_all_stable_nodes:begin",
    "ksm_do_scan:next_item",
    "shrink_zone:begin",
)


def policies_of(features: frozenset[str]) -> tuple[str, ...]:
    """The swapoff policies that there are with such features: two only where swapoff drops a page
    that others still need from the swap cache."""
    keeps = features & {"swapoff-per-mm", "swapoff-keeps-shared-cache"}
    return POLICIES[:1] if keeps else POLICIES


@dataclass(frozen=True)
class Config:
    """How a machine is made. ``frames`` counts all nodes together, the zero page not included.

    ``agent_pages``: locked pages that each process has beside its mappings, as the agents of the
    recorded scenarios have (79); they are in no frame and only disturb reclaim, see RULES.md.
    ``on``, ``off``: features switched beside those of the profile, see :mod:`pyksm.features`.

    How the core does it (no result and no counter differs, the oracle takes no notice): ``walk``:
    swapoff that goes entry by entry looks at every pte (``literal``) or only where it is, counting
    what looking would have cost (``computed``); ``transfer``: contents are copied, or shared until
    somebody writes (``reference``, 4 bytes more a slot); ``threads``: 1 or 2 that may read contents
    at a time.

    ``bugs``: of the museum (:mod:`pyksm.bugs`), switched in; only engine ``core+tasks`` has them.
    """

    nodes: int = 1
    frames: int = 65536
    page_size: int = 4096
    profile: str = DEFAULT
    policy: str = "reread"
    switches: frozenset[str] = frozenset()
    agent_pages: int = 0
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    walk: str = "literal"
    transfer: str = "copy"
    threads: int = 1
    bugs: frozenset[str] = frozenset()

    @property
    def features(self) -> frozenset[str]:
        """What the machine is like (names of :mod:`pyksm.features`); InputError for wrong names,
        and for the memcpy policy where swapoff does not go entry by entry."""
        having = effective(self.profile, self.on, self.off)
        if self.policy in POLICIES and self.policy not in policies_of(having):
            raise InputError(
                f"policy memcpy on profile {self.profile}: its swapoff keeps what it has read in "
                "the swap cache; expected profile 3.9 or 4.19, or feature swapoff-per-mm off"
            )
        return having


def ksm_value(key: str, value: int | str) -> int | None:
    """The number that an engine takes for what one writes to a file, None where the file takes
    no such word (or, for a file that takes words, no number)."""
    words = KSM_WORDS.get(key)
    if words is None:
        return None if isinstance(value, str) else value
    return words.index(value) if isinstance(value, str) and value in words else None


@dataclass(frozen=True)
class PageInfo:
    """One page of a process, observed without touching it. ``-1`` where a field does not apply."""

    state: str  #: '.', 'P', 'Z', 'S' or '-' (a hole), as in the scenario contract
    pte: int  #: raw x86-64 pte, 0 where nothing is mapped
    pfn: int  #: frame of a present page; the zero page is frame 0
    swp_type: int  #: swap area of a swap pte
    swp_offset: int  #: slot of a swap pte
    ksm: bool  #: PageKsm of the present page
    swapcache: bool  #: PageSwapCache of the present page
    mapcount: int  #: ptes that map the present page; 0 for the zero page
    node: int  #: memory node of the present page
    mlocked: bool = False  #: PageMlocked of the present page


@dataclass(frozen=True)
class VmaInfo:
    """One vma. ``chain``: anon_vma_chains on it, 0 where it was never written."""

    start: int
    end: int
    pgoff: int
    prot: int
    node: int
    mergeable: bool
    chain: int
    locked: bool = False  #: VM_LOCKED


@dataclass(frozen=True)
class AreaInfo:
    """One active swap area. ``pages``: usable slots; ``max``: slots, header included."""

    type: int
    priority: int
    pages: int
    used: int
    max: int


class Engine(Protocol):
    """Operations and observations of one machine. See RULES.md for the fine print."""

    name: str
    config: Config

    def close(self) -> None: ...

    # processes
    def spawn(self) -> int: ...
    def fork(self, pid: int) -> int: ...
    def exit(self, pid: int) -> None: ...
    def processes(self) -> list[int]: ...

    # address space
    def mmap(self, pid: int, npages: int, addr: int = 0, node: int = -1) -> int: ...
    def munmap(self, pid: int, addr: int, npages: int) -> None: ...
    def mprotect(self, pid: int, addr: int, npages: int, prot: int) -> None: ...
    def mlock(self, pid: int, addr: int, npages: int) -> None: ...
    def munlock(self, pid: int, addr: int, npages: int) -> None: ...
    def mremap(self, pid: int, addr: int, npages: int, new_addr: int) -> None: ...
    def madvise(self, pid: int, addr: int, npages: int, advice: int) -> None: ...
    def write_pages(self, pid: int, addr: int, data: bytes) -> list[int]:
        """Write whole pages; a 0 or errno (positive) for each. Never raises for a page's fault."""
        ...

    def read_pages(self, pid: int, addr: int, npages: int) -> tuple[bytes, list[int]]:
        """Read whole pages; content (zeros where it failed) and a 0 or errno for each."""
        ...

    def write(self, pid: int, addr: int, data: bytes) -> None: ...
    def read(self, pid: int, addr: int, length: int) -> bytes: ...
    def touch(self, pid: int, addr: int, npages: int, write: bool = False) -> list[int]: ...
    def pin(self, pid: int, addr: int, npages: int, write: bool = False) -> None:
        """An extra reference to each page, as vmsplice() takes it; ``write``: for I/O to them,
        after they were made the process's own."""
        ...

    def unpin(self, pid: int, addr: int, npages: int) -> None: ...
    def migrate(self, pid: int, addr: int, npages: int, node: int) -> list[int]:
        """A node or ``-errno`` for each page."""
        ...

    # swap
    def swapon(self, npages: int, priority: int = -1, path: str | None = None) -> int: ...
    def swapoff(self, type: int) -> None: ...
    def areas(self) -> list[AreaInfo]: ...
    def swap_count(self, type: int, offset: int) -> int: ...
    def swap_map(self, type: int, offset: int) -> int: ...
    def swapcached(self) -> int: ...
    def swapout(self, ranges: Sequence[tuple[int, int, int]] = ()) -> None:
        """Reclaim until none of the (pid, addr, npages) ranges (none given: of all) is resident."""
        ...

    # KSM
    def ksm_write(self, key: str, value: int) -> None: ...
    def ksm_read(self, key: str) -> int: ...
    def ksm_counts(self) -> dict[str, int]:
        """Every file of /sys/kernel/mm/ksm that is a count."""
        ...

    def ksm_scan(self, n: int) -> int: ...
    def ksm_do_scan(self, npages: int) -> None: ...

    def ksm_stat(self, pid: int) -> dict[str, int]:
        """What /proc/PID/ksm_stat has of counts (``ksm_merging_pages`` of its own file from 5.18
        on too); empty where the kernel has neither."""
        ...

    def prctl_memory_merge(self, pid: int, on: bool) -> None:
        """prctl(PR_SET_MEMORY_MERGE); EINVAL where the kernel does not have it."""
        ...

    def memory_merge(self, pid: int) -> bool:
        """prctl(PR_GET_MEMORY_MERGE); EINVAL where the kernel does not have it."""
        ...

    # time and references
    def sleep(self, ms: int) -> None:
        """Let the machine's clock go on: chain pruning and the advisor look at it, nothing else
        does, and nothing else moves it."""
        ...

    def clear_refs(self, pid: int, what: int) -> None:
        """Write to /proc/PID/clear_refs: 1 clears accessed bits, 4 soft-dirty bits (writable ptes
        become read-only); EINVAL for others and for 4 where the kernel has no soft-dirty."""
        ...

    # observation
    def pagemap(self, pid: int, addr: int, npages: int) -> list[PageInfo]: ...
    def rmap_walk(self, pid: int, addr: int) -> int:
        """How often rmap_walk() of the page at ``addr`` comes upon a pte that maps it: nothing is
        changed, the work is counted. EFAULT in a hole, ENOENT where there is no page or the zero
        page. Twice for a pte that KSM has an item for and that a forked item leads to as well."""
        ...

    def vmas(self, pid: int) -> list[VmaInfo]: ...
    def free_frames(self, node: int = -1) -> int: ...
    def peak_frames(self, reset: bool = False) -> int: ...
    def counters(self) -> Mapping[str, int]: ...
    def vmstat(self) -> Mapping[str, int]: ...
    def events(self) -> list[str]: ...
    def census(self, strict: bool = False) -> list[str]: ...
    def inject(self, kind: str, nth: int) -> None:
        """Let the nth (from 1) event of that kind from now on fail, once, beside those ordered
        before (8 of a kind at most: ENOSPC); 0 takes all of that kind back."""
        ...

    def set_hook(self, hook: Callable[[str], None] | None) -> None: ...
