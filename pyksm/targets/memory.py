"""The private anonymous memory of some processes, as every reader hands it over.

Contents are interned: a page that occurs a thousand times is kept once, and the processes refer
to it by number. Who shares a physical frame with whom (through fork) is kept beside that, because
equal contents and one frame are different things until KSM has been there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

PAGE_SIZE = 4096
PAGE_SHIFT = 12

#: User addresses of the model, in bytes: page 0 is not mapped, 4-level page tables end at 2^47.
ADDRESS_FIRST = PAGE_SIZE
ADDRESS_LIMIT = 1 << 47

#: ``ProcessMemory.frame`` of a page that shares its frame with nobody that we have read.
UNSHARED = -1

#: Why pages were left out, and how a report says it.
EXCLUDED = {
    "file": "clean pages of private file mappings",
    "shared": "shared memory and shared file mappings",
    "device": "device mappings",
    "vdso": "vdso, vvar and vsyscall",
    "hugetlb": "huge TLB pages",
    "high": "outside the addresses of the model",
    "vanished": "gone before they could be read",
    "untouched": "all zero in the core file, taken as never touched",
    "undumped": "not in the core file",
}

_ZERO_PAGE = bytes(PAGE_SIZE)


class PageStore:
    """Distinct pages, numbered from 0 in order of first appearance.

    The dictionary is keyed by the content itself, so equal hashes are told apart by comparison
    and every page is held by exactly one ``bytes`` object.
    """

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._pages: list[bytes] = []

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, number: int) -> bytes:
        return self._pages[number]

    def intern(self, page: bytes) -> int:
        """The number of this content, a new one if it has not been seen. 4096 bytes exactly."""
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page has {PAGE_SIZE} bytes, not {len(page)}")
        number = self._number.setdefault(page, len(self._pages))
        if number == len(self._pages):
            self._pages.append(page)
        return number

    def intern_all(self, data: bytes) -> list[int]:
        """Numbers of the consecutive pages in ``data`` (a multiple of 4096 bytes)."""
        return [self.intern(data[i : i + PAGE_SIZE]) for i in range(0, len(data), PAGE_SIZE)]

    def join(self, numbers: Iterable[int]) -> bytes:
        """The contents of these pages, one after the other."""
        pages = self._pages
        return b"".join([pages[i] for i in numbers])


def is_zero(page: bytes) -> bool:
    """Whether a page holds nothing but zero bytes."""
    return page == _ZERO_PAGE


@dataclass(frozen=True)
class Vma:
    """A private mapping that has anonymous pages. ``start``, ``end`` in bytes, end exclusive."""

    start: int
    end: int
    mergeable: bool = False  #: it was advised MADV_MERGEABLE ("mg" of VmFlags)
    label: str = ""  #: what /proc/PID/maps or the core file calls it


def _no_pages() -> NDArray[np.uint64]:
    return np.empty(0, dtype=np.uint64)


def _no_numbers() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass
class ProcessMemory:
    """One process. The three arrays run in parallel, ordered by ``vpn`` (address / 4096)."""

    pid: int
    name: str
    ppid: int = 0
    started: int = 0  #: clock ticks since boot; orders parents before children
    origin: int = 0  #: pids and ppids mean something to each other within one origin only
    vmas: list[Vma] = field(default_factory=list)
    vpn: NDArray[np.uint64] = field(default_factory=_no_pages)
    content: NDArray[np.int64] = field(default_factory=_no_numbers)  #: number in the page store
    frame: NDArray[np.int64] = field(default_factory=_no_numbers)  #: equal: one physical frame
    zero_vpn: NDArray[np.uint64] = field(default_factory=_no_pages)  #: the shared zero page
    swapped: int = 0  #: pages that were in swap when read
    excluded: dict[str, int] = field(default_factory=dict)  #: reason (EXCLUDED): pages

    def exclude(self, reason: str, pages: int) -> None:
        """Count pages that are left out."""
        if pages:
            self.excluded[reason] = self.excluded.get(reason, 0) + pages


@dataclass
class Memory:
    """Some processes and the store of their contents. ``notes``: what the user should know."""

    store: PageStore = field(default_factory=PageStore)
    processes: list[ProcessMemory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    frames: int = 0  #: frame numbers in use by ``ProcessMemory.frame``: 0 .. frames-1
    origins: int = 0  #: origins in use by ``ProcessMemory.origin``: 0 .. origins-1

    @property
    def ptes(self) -> int:
        """Anonymous pages of all processes, a shared one counted once for each."""
        return sum(len(p.vpn) for p in self.processes)

    @property
    def distinct(self) -> int:
        """Different contents among those pages."""
        if not self.processes:
            return 0
        return len(np.unique(np.concatenate([p.content for p in self.processes])))

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)


def runs(vpn: NDArray[np.uint64], limit: int) -> Iterator[tuple[int, int]]:
    """Index ranges (first, end) of consecutive page numbers, at most ``limit`` pages each."""
    if not len(vpn):
        return
    breaks = np.flatnonzero(np.diff(vpn) != 1) + 1
    edges = [0, *breaks.tolist(), len(vpn)]
    for first, end in pairwise(edges):
        for begin in range(first, end, limit):
            yield begin, min(begin + limit, end)


def keep_used_vmas(vmas: Iterable[Vma], *vpns: NDArray[np.uint64]) -> list[Vma]:
    """The mappings that hold at least one of the pages, by address."""
    pages = np.sort(np.concatenate(vpns)) if vpns else _no_pages()
    used = []
    for vma in sorted(vmas, key=lambda v: v.start):
        first, end = np.searchsorted(pages, [vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT])
        if first != end:
            used.append(vma)
    return used
