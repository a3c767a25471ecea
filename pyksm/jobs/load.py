"""Carry out a plan: processes of a memory become processes of a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyksm.engine import MADV_DONTNEED, MADV_MERGEABLE, Engine, PageInfo
from pyksm.errors import MachineError
from pyksm.jobs import plan as steps
from pyksm.jobs.plan import Plan, Range
from pyksm.targets.memory import PAGE_SHIFT, PAGE_SIZE, UNSHARED, Memory, ProcessMemory, runs

Progress = Callable[[int, int], None]  #: (done, in all)

#: Pages in one call of the engine: bounds the copies that exist for it at a time.
RUN = 1024


@dataclass
class Loaded:
    """Where everything is: ``pids[n]`` is the machine's process for ``memory.processes[n]``."""

    engine: Engine
    memory: Memory
    pids: list[int]

    def each(self) -> Iterator[tuple[ProcessMemory, int]]:
        """Real process and machine pid."""
        return zip(self.memory.processes, self.pids, strict=True)


def load(engine: Engine, memory: Memory, plan: Plan, progress: Progress | None = None) -> Loaded:
    """Build all processes. MachineError (ENOMEM) where the machine's frames do not suffice."""
    loader = _Loader(engine, memory, plan.writes, progress)
    for step in plan.steps:
        loader.do(step)
    return Loaded(engine, memory, [loader.pid[n] for n in range(len(memory.processes))])


class _Loader:
    def __init__(
        self, engine: Engine, memory: Memory, total: int, progress: Progress | None
    ) -> None:
        self.engine = engine
        self.memory = memory
        self.pid: dict[int, int] = {}
        self.total = total
        self.done = 0
        self.progress = progress

    def do(self, step: steps.Step) -> None:
        engine = self.engine
        match step:
            case steps.Spawn(node):
                self.pid[node] = engine.spawn()
            case steps.Fork(node, child):
                self.pid[child] = engine.fork(self.pid[node])
            case steps.Exit(node):
                engine.exit(self.pid[node])
            case steps.Map(node, ranges):
                for start, end in ranges:
                    engine.mmap(self.pid[node], end - start, start << PAGE_SHIFT)
            case steps.Unmap(node, ranges):
                for start, end in ranges:
                    engine.munmap(self.pid[node], start << PAGE_SHIFT, end - start)
            case steps.Write(node, vpn, content):
                self._write(self.pid[node], vpn, content)
            case steps.Drop(node, vpn):
                for start, end in _ranges(vpn):
                    engine.madvise(self.pid[node], start << PAGE_SHIFT, end - start, MADV_DONTNEED)
            case steps.ReadZero(node, vpn):
                for start, end in _ranges(vpn):
                    errors = engine.touch(self.pid[node], start << PAGE_SHIFT, end - start)
                    _raise_first(errors, "read fault")

    def _write(self, pid: int, vpn: Sequence[int], content: Sequence[int]) -> None:
        for first, end in runs(np.array(vpn, dtype=np.uint64), RUN):
            data = self.memory.store.join(content[first:end])
            _raise_first(self.engine.write_pages(pid, vpn[first] << PAGE_SHIFT, data), "load")
            self.done += end - first
            if self.progress:
                self.progress(self.done, self.total)


def _ranges(vpn: Sequence[int]) -> Iterator[Range]:
    for first, end in runs(np.array(vpn, dtype=np.uint64), RUN):
        yield vpn[first], vpn[end - 1] + 1


def _raise_first(errors: Sequence[int], what: str) -> None:
    for code in errors:
        if code:
            raise MachineError(code, what)


def advise(loaded: Loaded, everything: bool) -> int:
    """MADV_MERGEABLE on all mappings, or on those that were advised in reality; pages advised."""
    pages = 0
    for process, pid in loaded.each():
        for vma in process.vmas:
            if everything or vma.mergeable:
                count = (vma.end - vma.start) >> PAGE_SHIFT
                loaded.engine.madvise(pid, vma.start, count, MADV_MERGEABLE)
                first, end = np.searchsorted(
                    process.vpn, [vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT]
                )
                pages += int(end - first)
    return pages


# ------------------------------------------------------------------------------- looking at it


@dataclass
class Seen:
    """The anonymous ptes of one process, in parallel with its ``vpn``."""

    pfn: NDArray[np.int64]  #: -1 where not present
    mapcount: NDArray[np.int64]
    ksm: NDArray[np.bool_]
    zero: NDArray[np.bool_]  #: on the zero page


def look(loaded: Loaded) -> list[Seen]:
    """Every loaded page, without touching it."""
    return [_look(loaded.engine, pid, process.vpn) for process, pid in loaded.each()]


def _look(engine: Engine, pid: int, vpn: NDArray[np.uint64]) -> Seen:
    pfn: list[int] = []
    mapcount: list[int] = []
    ksm: list[bool] = []
    zero: list[bool] = []
    for first, end in runs(vpn, RUN):
        infos: list[PageInfo] = engine.pagemap(pid, int(vpn[first]) << PAGE_SHIFT, end - first)
        pfn += [info.pfn for info in infos]
        mapcount += [info.mapcount for info in infos]
        ksm += [info.ksm for info in infos]
        zero += [info.state == "Z" for info in infos]
    return Seen(
        np.array(pfn, np.int64),
        np.array(mapcount, np.int64),
        np.array(ksm, np.bool_),
        np.array(zero, np.bool_),
    )


def count_rebuilt(loaded: Loaded) -> int:
    """Ptes of really shared frames that share their frame in the machine as well.

    Of a frame that fell apart into several, the owners of the largest part count, if it has two.
    """
    parts: dict[int, dict[int, int]] = {}
    for process, pid in loaded.each():
        shared = np.flatnonzero(process.frame != UNSHARED)
        seen = _look(loaded.engine, pid, process.vpn[shared])
        for frame, pfn in zip(process.frame[shared].tolist(), seen.pfn.tolist(), strict=True):
            counts = parts.setdefault(frame, {})
            counts[pfn] = counts.get(pfn, 0) + 1
    largest = [max(counts.values()) for counts in parts.values()]
    return sum(count for count in largest if count > 1)


@dataclass
class Verified:
    """Pages read back and compared, byte by byte, with what was loaded."""

    same: int = 0
    different: int = 0
    unread: int = 0  #: could not be read: no frame to bring them in

    def add(self, data: bytes, expected: bytes, errors: Sequence[int]) -> None:
        if data == expected and not any(errors):
            self.same += len(errors)
            return
        for k, code in enumerate(errors):
            at = slice(k * PAGE_SIZE, (k + 1) * PAGE_SIZE)
            if code:
                self.unread += 1
            elif data[at] == expected[at]:
                self.same += 1
            else:
                self.different += 1


def verify(loaded: Loaded, progress: Progress | None = None) -> Verified:
    """Read every page back, which brings in those that are still in swap."""
    result = Verified()
    memory = loaded.memory
    total = memory.ptes
    for process, pid in loaded.each():
        numbers = process.content.tolist()
        for first, end in runs(process.vpn, RUN):
            expected = memory.store.join(numbers[first:end])
            _compare(loaded.engine, pid, int(process.vpn[first]), expected, result)
            if progress:
                progress(result.same + result.different + result.unread, total)
        for first, end in runs(process.zero_vpn, RUN):
            zeros = bytes((end - first) * PAGE_SIZE)
            _compare(loaded.engine, pid, int(process.zero_vpn[first]), zeros, result)
    return result


def _compare(engine: Engine, pid: int, vpn: int, expected: bytes, result: Verified) -> None:
    data, errors = engine.read_pages(pid, vpn << PAGE_SHIFT, len(expected) // PAGE_SIZE)
    result.add(data, expected, errors)
