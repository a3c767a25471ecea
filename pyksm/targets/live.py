"""Capture: the private anonymous memory of running processes, through /proc.

The tables (smaps, pagemap) of all processes are read first, then the contents. A page that two
processes share at one address is read once, so their contents agree even if the processes run on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pyksm.errors import InputError
from pyksm.targets import procfs
from pyksm.targets.memory import (
    PAGE_SIZE,
    UNSHARED,
    Memory,
    ProcessMemory,
    Vma,
    is_zero,
    keep_used_vmas,
    runs,
)
from pyksm.targets.procfs import ProcessFiles
from pyksm.targets.signals import deferred

Progress = Callable[[int, int], None]  #: (pages read, pages in all)

_RUN = 256  #: pages read with one system call
_STOP_SECONDS = 5.0

NO_PFNS = "no frame numbers (needs CAP_SYS_ADMIN): sharing through fork is not seen"
NO_FLAGS = "no /proc/kpageflags: KSM and zero pages of the host are not told apart"
HUGE = (
    "{} pages are in transparent huge pages, loaded as small ones; ksmd splits them, and from "
    "Linux 6.12 on zeros in them then go to the zero page"
)
MOVED = "{} pages are on frames that others map at other addresses: loaded as pages of their own"
TORN = "read while running (no --stop): pages may be from different moments"


def capture(
    pids: Sequence[int], into: Memory, stop: bool = False, progress: Progress | None = None
) -> None:
    """Add the processes to ``into``.

    With ``stop`` they are stopped (SIGSTOP) while they are read and continued whatever happens.
    InputError where one of them is gone, not ours or has no memory; ``into`` is then unchanged
    but for contents that nobody refers to.
    """
    _check_pids(pids, stop)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(ProcessFiles(pid)) for pid in pids]
        if stop:
            stack.enter_context(frozen(pids))
        scans = [_Scan(f, into.origins) for f in files]
        notes = _assign_frames(scans, into.frames)
        nframes = 1 + max([into.frames - 1, *(int(s.frame.max(initial=-1)) for s in scans)])
        _read_contents(scans, into, nframes, progress)
        for file in files:
            file.check_alive()
    into.processes += [scan.finish() for scan in scans]
    into.frames = nframes
    into.origins += 1
    if huge := sum(scan.huge for scan in scans):
        notes.append(HUGE.format(huge))
    for note in notes if stop else [*notes, TORN]:
        into.note(note)


def _check_pids(pids: Sequence[int], stop: bool) -> None:
    for pid in pids:
        if pids.count(pid) > 1:
            raise InputError(f"PID {pid}: named twice; expected each process once")
    # Our own memory grows by what we read of it, and stopped we would never go on.
    if os.getpid() in pids:
        raise InputError(f"PID {os.getpid()}: this is pyksm itself; expected another process")


@contextlib.contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """SIGSTOP the processes that are not stopped already, and SIGCONT them at the end."""
    stopped: list[int] = []
    try:
        for pid in pids:
            if procfs.process_state(pid) in "Tt":
                continue
            stopped.append(pid)
            _signal(pid, signal.SIGSTOP)
        for pid in stopped:
            _await_stop(pid)
        yield
    finally:
        with deferred():  # a second Ctrl-C leaves none of them stopped either
            for pid in stopped:
                with contextlib.suppress(InputError):
                    _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except OSError as exc:
        raise procfs.refused(pid, exc) from None


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while procfs.process_state(pid) not in "Tt":
        if time.monotonic() > deadline:
            raise InputError(f"PID {pid}: did not stop within {_STOP_SECONDS:.0f} s of SIGSTOP")
        time.sleep(0.001)


class _Scan:
    """The tables of one process, and what is being made of them."""

    def __init__(self, files: ProcessFiles, origin: int) -> None:
        self.files = files
        self.process = ProcessMemory(
            files.pid, files.name, ppid=files.ppid, started=files.started, origin=origin
        )
        self.vmas: list[Vma] = []
        self.huge = 0
        vpns, entries = [], []
        for mapping in files.mappings():
            if reason := mapping.exclusion():
                self.process.exclude(reason, mapping.rss + mapping.swap)
            elif not mapping.anonymous + mapping.swap and mapping.rss:
                self.process.exclude("file", mapping.rss)
            elif mapping.rss + mapping.swap:
                self.vmas.append(mapping.vma)
                self.huge += mapping.huge
                vpn, entry = self._anonymous(mapping.vma)
                vpns.append(vpn)
                entries.append(entry)
        none = np.empty(0, dtype=np.uint64)
        self.vpn = np.concatenate([none, *vpns])
        self.entry = np.concatenate([none, *entries])
        self.where = self.entry & np.uint64(procfs.PM_WHERE | procfs.PM_SWAP)
        self.zero = np.zeros(len(self.vpn), dtype=bool)
        self.zero_known = False  #: ``zero`` is what the kernel says
        self.frame = np.full(len(self.vpn), UNSHARED, dtype=np.int64)
        self.content = np.full(len(self.vpn), -1, dtype=np.int64)

    def _anonymous(self, vma: Vma) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        vpn, entry = self.files.pagemap(vma)
        here = (entry & np.uint64(procfs.PM_PRESENT | procfs.PM_SWAP)) != 0
        filed = (entry & np.uint64(procfs.PM_FILE)) != 0
        self.process.exclude("file", int(np.count_nonzero(here & filed)))
        kept = here & ~filed
        return vpn[kept], entry[kept]

    @property
    def present(self) -> NDArray[np.bool_]:
        present: NDArray[np.bool_] = (self.entry & np.uint64(procfs.PM_PRESENT)) != 0
        return present

    @property
    def many(self) -> NDArray[np.bool_]:
        """Present pages that this process may share with another pte."""
        alone: NDArray[np.bool_] = (self.entry & np.uint64(procfs.PM_EXCLUSIVE)) != 0
        return self.present & ~alone

    def finish(self) -> ProcessMemory:
        process = self.process
        kept = (self.content >= 0) & ~self.zero
        process.vpn, process.content = self.vpn[kept], self.content[kept]
        process.frame = self.frame[kept]
        process.zero_vpn = self.vpn[self.zero]
        process.swapped = int(np.count_nonzero(~self.present[kept]))
        process.exclude("vanished", int(np.count_nonzero((self.content < 0) & ~self.zero)))
        process.vmas = keep_used_vmas(self.vmas, process.vpn, process.zero_vpn)
        return process


def _assign_frames(scans: list[_Scan], first: int) -> list[str]:
    """Number the frames that two processes map at one address, from ``first`` on. Notes."""
    if not any(int(s.where[s.present].max(initial=0)) for s in scans):
        return [NO_PFNS] if len(scans) > 1 else []
    notes = _drop_special_frames(scans)
    where = np.concatenate([s.where for s in scans])
    vpn = np.concatenate([s.vpn for s in scans])
    usable = np.flatnonzero((where & np.uint64(procfs.PM_WHERE)) != 0)
    order = usable[np.lexsort((where[usable], vpn[usable]))]
    same = (np.diff(where[order]) == 0) & (np.diff(vpn[order]) == 0)
    # Frames of one owner need no number: only what is really shared is numbered.
    joined = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    starts = np.concatenate([[True], ~same])[: len(order)]
    frame = np.full(len(where), UNSHARED, dtype=np.int64)
    shared = order[joined[: len(order)]]
    frame[shared] = first - 1 + np.cumsum(starts[joined[: len(order)]])
    begin = 0
    for scan in scans:
        scan.frame = frame[begin : begin + len(scan.vpn)]
        begin += len(scan.vpn)
    if moved := _count_moved(where[usable], vpn[usable]):
        notes.append(MOVED.format(moved))
    return notes


def _count_moved(where: NDArray[np.uint64], vpn: NDArray[np.uint64]) -> int:
    """Pages whose frame is mapped at more than one address: mremap after a fork, mostly."""
    order = np.lexsort((vpn, where))
    where, vpn = where[order], vpn[order]
    elsewhere = (np.diff(where) == 0) & (np.diff(vpn) != 0)
    return int(np.count_nonzero(np.isin(where, where[1:][elsewhere])))


def _drop_special_frames(scans: list[_Scan]) -> list[str]:
    """Zero pages are marked as such; a KSM page of the host is not sharing through fork."""
    none = np.empty(0, dtype=np.uint64)
    pfns = np.unique(np.concatenate([none, *(s.where[s.many] for s in scans)]))
    flags = procfs.page_flags(pfns)
    if flags is None:
        return [NO_FLAGS]
    zero = pfns[(flags & np.uint64(procfs.KPF_ZERO_PAGE)) != 0]
    ksm = pfns[(flags & np.uint64(procfs.KPF_KSM)) != 0]
    merged = 0
    for scan in scans:
        scan.zero_known = True
        scan.zero = scan.present & np.isin(scan.where, zero)
        is_ksm = scan.present & np.isin(scan.where, ksm)
        scan.where[is_ksm | scan.zero] = 0
        merged += int(np.count_nonzero(is_ksm))
    if merged:
        return [f"{merged} pages are KSM pages on this host: loaded as pages of their own"]
    return []


def _read_contents(
    scans: list[_Scan], memory: Memory, nframes: int, progress: Progress | None
) -> None:
    known = np.full(nframes, -1, dtype=np.int64)
    total = sum(len(scan.vpn) for scan in scans)
    done = 0
    for scan in scans:
        framed = scan.frame != UNSHARED
        scan.content[framed] = known[scan.frame[framed]]
        wanted = np.flatnonzero((scan.content < 0) & ~scan.zero)
        for first, end in runs(scan.vpn[wanted], _RUN):
            index = wanted[first:end]
            _read_run(scan, index, memory)
            if progress:
                progress(done + end, total)
        known[scan.frame[framed]] = scan.content[framed]
        done += len(scan.vpn)
        _guess_zero_pages(scan, memory)


def _read_run(scan: _Scan, index: NDArray[np.int64], memory: Memory) -> None:
    first = int(scan.vpn[index[0]])
    data = scan.files.read_pages(first, len(index))
    if data is not None:
        scan.content[index] = memory.store.intern_all(data)
        return
    for k, at in enumerate(index.tolist()):
        page = scan.files.read_pages(first + k, 1)
        if page is not None:
            assert len(page) == PAGE_SIZE
            scan.content[at] = memory.store.intern(page)


def _guess_zero_pages(scan: _Scan, memory: Memory) -> None:
    """Without frame numbers: zeros that are not exclusively mapped are taken for the zero page."""
    if scan.zero_known:
        return
    candidates = np.flatnonzero(scan.many & (scan.frame == UNSHARED) & (scan.content >= 0))
    for at in candidates.tolist():
        scan.zero[at] = is_zero(memory.store[int(scan.content[at])])
