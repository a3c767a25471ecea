"""The Python face: a machine, its processes and their memory, swap areas and KSM as objects.

Works on either engine. Where the engine has memory to look at (the core), arrays are read-only
numpy views of it; elsewhere they are copies. Every refusal is a
:class:`~pyksm.errors.MachineError`, an ``OSError`` with ``errno``: EBADF for a closed machine,
ESRCH for a process that has exited, ERANGE for pages outside a region, else what the kernel says.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pyksm import profiles
from pyksm.arrays import PAGE_DTYPE, Buffer
from pyksm.engine import POLICIES, SWITCHES, AreaInfo, Config, Engine, VmaInfo, ksm_value
from pyksm.errors import InputError, MachineError
from pyksm.scenario import engines as _engines
from pyksm.scenario.observe import observation
from pyksm.scenario.world import Process as _Names
from pyksm.scenario.world import World

__all__ = ["Area", "Ksm", "Machine", "Process", "Region", "Swap"]

#: Addresses that a page takes, whatever bytes of content it has.
PAGE_SPAN = 4096

_TABLE_SPAN = 512 * PAGE_SPAN
_GIB = 1 << 30


@runtime_checkable
class _Views(Protocol):
    """What an engine offers beyond the interface if its memory can be looked at in place."""

    def frame(self, pfn: int) -> NDArray[np.uint8]: ...
    def pte_table(self, pid: int, addr: int) -> NDArray[np.uint64] | None: ...
    def pagemap_array(self, pid: int, addr: int, npages: int) -> NDArray[np.void]: ...


def _flat(data: Buffer) -> memoryview:
    """The bytes of any contiguous buffer, without a copy."""
    source: Any = data
    return memoryview(source).cast("B")


def _raise_first(errors: list[int], what: Callable[[], str]) -> None:
    if any(errors):
        raise MachineError(next(filter(None, errors)), what())


def _names(names: Iterable[str]) -> frozenset[str]:
    """Names given as one or as several."""
    return frozenset([names] if isinstance(names, str) else names)


def _config_of(
    nodes: int,
    frames: int,
    page_size: int,
    profile: str,
    policy: str,
    switches: Iterable[str],
    on: Iterable[str],
    off: Iterable[str],
    **how: Any,
) -> Config:
    """InputError for names that no engine knows; numbers are the engine's to judge."""
    wanted, on, off = _names(switches), _names(on), _names(off)
    if policy not in POLICIES:
        raise InputError(f"policy {policy!r} is not known, expected {' or '.join(POLICIES)}")
    for name in wanted - set(SWITCHES):
        raise InputError(f"switch {name!r} is not known, expected {' or '.join(SWITCHES)}")
    config = Config(nodes, frames, page_size, profile, policy, wanted, on=on, off=off, **how)
    config.features  # noqa: B018 - raises where there is no such machine
    return config


class Region:
    """``npages`` pages of a process from ``addr``; indexing and slicing give smaller regions.

    A region is a name for addresses: it stays when the memory behind it is unmapped, and ``of``
    gives the same addresses in another process, a child for instance.
    """

    __slots__ = ("addr", "npages", "process")

    def __init__(self, process: Process, addr: int, npages: int) -> None:
        self.process = process
        self.addr = addr
        self.npages = npages

    def __repr__(self) -> str:
        return f"<Region {self.process.name} {self.addr:#x} {self.npages} pages>"

    def __len__(self) -> int:
        return self.npages

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Process, int, int]:
        return self.process, self.addr, self.npages

    def __getitem__(self, key: int | slice) -> Region:
        """Page ``key`` or the pages of a slice (no step) as a region; ERANGE outside."""
        start, stop = self._span(key)
        return Region(self.process, self.addr + start * PAGE_SPAN, stop - start)

    def __iter__(self) -> Iterator[Region]:
        return (self[k] for k in range(self.npages))

    def __setitem__(self, key: int | slice, data: Buffer) -> None:
        """Write whole pages: as many bytes as the pages hold, or a page or less of bytes, which
        every page gets, filled up with zeros. Pages before a failing one stay written."""
        start, stop = self._span(key)
        machine = self.process.machine
        size, npages = machine.page_size, stop - start
        raw = data if type(data) is bytes else _flat(data)
        if len(raw) != npages * size:
            if len(raw) > size:
                raise ValueError(f"{len(raw)} bytes for {npages} pages of {size}")
            raw = bytes(raw).ljust(size, b"\0") * npages
        pid, addr = self.process.pid, self.addr + start * PAGE_SPAN
        errors = machine.engine.write_pages(pid, addr, machine._plain(raw))
        _raise_first(errors, lambda: f"write {self[start:stop]!r}")

    def _span(self, key: int | slice) -> tuple[int, int]:
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise ValueError("a region's slice has no step")
            start = 0 if key.start is None else key.start
            stop = self.npages if key.stop is None else key.stop
            start, stop = (k + self.npages if k < 0 else k for k in (start, stop))
        else:
            start = key + self.npages if key < 0 else key
            stop = start + 1
        if not 0 <= start <= stop <= self.npages:
            raise MachineError(errno.ERANGE, f"pages {start}:{stop} of {self!r}")
        return start, stop

    @property
    def _engine(self) -> Engine:
        return self.process.machine.engine

    @property
    def _pid(self) -> int:
        return self.process.pid

    def of(self, process: Process) -> Region:
        """The same addresses in another process of the machine."""
        return Region(process, self.addr, self.npages)

    # contents

    def _bytes(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """(address, from, to) of the pieces of a byte range: one, unless pages are short."""
        size = self.process.machine.page_size
        if offset < 0 or length < 0 or offset + length > self.npages * size:
            raise MachineError(errno.ERANGE, f"bytes {offset}:{offset + length} of {self!r}")
        if size == PAGE_SPAN:
            return [(self.addr + offset, 0, length)] if length else []
        pieces, done = [], 0
        while done < length:
            page, within = divmod(offset + done, size)
            piece = min(length - done, size - within)
            pieces.append((self.addr + page * PAGE_SPAN + within, done, done + piece))
            done += piece
        return pieces

    def write(self, data: Buffer, offset: int = 0) -> None:
        """Write bytes at a byte offset. Bytes before a page that fails stay written."""
        process, machine = self.process, self.process.machine
        raw, pid = data if type(data) is bytes else _flat(data), process.pid
        for addr, start, stop in self._bytes(offset, len(raw)):
            machine.engine.write(pid, addr, machine._plain(raw[start:stop]))

    def read(self, length: int | None = None, offset: int = 0) -> bytes:
        """``length`` bytes (all to the end by default) from a byte offset, with read faults."""
        process, machine = self.process, self.process.machine
        engine, pid = machine.engine, process.pid
        beyond = self.npages * machine.page_size - offset
        if length is None:
            length = beyond
        if machine.page_size == PAGE_SPAN and offset >= 0 and 0 < length <= beyond:
            return engine.read(pid, self.addr + offset, length)
        pieces = [engine.read(pid, addr, b - a) for addr, a, b in self._bytes(offset, length)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def touch(self, write: bool = False) -> None:
        """Fault every page in. All are tried; raises the first error."""
        process = self.process
        errors = process.machine.engine.touch(process.pid, self.addr, self.npages, write)
        _raise_first(errors, lambda: f"touch {self!r}")

    # system calls

    def madvise(self, advice: int) -> None:
        """madvise(2): MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTNEED, MADV_WILLNEED, ..."""
        self._engine.madvise(self._pid, self.addr, self.npages, advice)

    def mprotect(self, prot: int) -> None:
        """mprotect(2): PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE."""
        self._engine.mprotect(self._pid, self.addr, self.npages, prot)

    def mlock(self) -> None:
        """mlock(2): the pages are brought in, and stay until :meth:`munlock`."""
        self._engine.mlock(self._pid, self.addr, self.npages)

    def munlock(self) -> None:
        """munlock(2)"""
        self._engine.munlock(self._pid, self.addr, self.npages)

    def munmap(self) -> None:
        """munmap(2): the pages become holes."""
        self._engine.munmap(self._pid, self.addr, self.npages)

    def move(self, addr: int | None = None, *, name: str | None = None) -> Region:
        """mremap(2) to ``addr``, by default above everything mapped. Returns the new region."""
        self.process._new_region(name)
        target = self.process._above() if addr is None else addr
        self._engine.mremap(self._pid, self.addr, self.npages, target)
        return self.process._named(name, target, self.npages)

    def pin(self, write: bool = False) -> None:
        """Take an extra reference on the pages, as vmsplice() into a pipe does; or ``write``, to
        have a device write to them."""
        self._engine.pin(self._pid, self.addr, self.npages, write)

    def unpin(self) -> None:
        """Drop the references that :meth:`pin` took."""
        self._engine.unpin(self._pid, self.addr, self.npages)

    def migrate(self, node: int) -> list[int]:
        """move_pages(2): for each page the node it is on afterwards, or ``-errno``."""
        return self._engine.migrate(self._pid, self.addr, self.npages, node)

    def swapout(self) -> None:
        """Reclaim until none of the pages is resident, or nothing more can go."""
        self._engine.swapout([(self._pid, self.addr, self.npages)])

    # observation: touches nothing

    @property
    def pages(self) -> NDArray[np.void]:
        """What is there, a record a page: shape (npages,), dtype :data:`pyksm.PAGE_DTYPE`."""
        engine, views = self._engine, self.process.machine._views
        if views is not None:
            return views.pagemap_array(self._pid, self.addr, self.npages)
        infos = engine.pagemap(self._pid, self.addr, self.npages)
        out = np.zeros(len(infos), dtype=PAGE_DTYPE)
        for field in PAGE_DTYPE.names or ():
            out[field] = [getattr(info, field) for info in infos]
        return out

    def rmap_walk(self) -> int:
        """How often rmap walks of the region's pages come upon ptes that map them: the work is
        counted, nothing is changed. ENOENT for a page that is not present."""
        addresses = (self.addr + k * PAGE_SPAN for k in range(self.npages))
        return sum(self._engine.rmap_walk(self._pid, addr) for addr in addresses)

    @property
    def states(self) -> str:
        """A character a page: ``.`` nothing, ``P`` present, ``Z`` zero page, ``S`` swapped out,
        ``-`` a hole."""
        return bytes(self.pages["state"]).decode("ascii")

    @property
    def ptes(self) -> NDArray[np.uint64]:
        """The raw x86-64 ptes as they are now, a copy: shape (npages,), dtype uint64."""
        return np.ascontiguousarray(self.pages["pte"])

    def pte_tables(self) -> list[NDArray[np.uint64] | None]:
        """The last-level page tables under the region, each of shape (512,), dtype uint64.

        Views that follow the machine on the core, copies elsewhere; None where there is none.
        """
        first = self.addr - self.addr % _TABLE_SPAN
        addrs = range(first, self.addr + self.npages * PAGE_SPAN, _TABLE_SPAN)
        views = self.process.machine._views
        if views is not None:
            return [views.pte_table(self._pid, addr) for addr in addrs]
        tables = [Region(self.process, addr, 512).ptes for addr in addrs]
        return [table if table.any() else None for table in tables]

    def contents(self) -> list[NDArray[np.uint8] | None]:
        """Content of each resident page, shape (page_size,), dtype uint8; None where there is
        none. Read-only views on the core; copies elsewhere, read as the process would."""
        views = self.process.machine._views
        pages = self.pages
        resident = np.isin(pages["state"], (b"P", b"Z"))
        if views is not None:
            pairs = zip(pages["pfn"].tolist(), resident.tolist(), strict=True)
            return [views.frame(pfn) if here else None for pfn, here in pairs]
        return [
            np.frombuffer(page.read(), dtype=np.uint8) if here else None
            for page, here in zip(self, resident.tolist(), strict=True)
        ]


class Process:
    """A process of a machine; made by :meth:`Machine.spawn` and :meth:`fork`."""

    def __init__(self, machine: Machine, pid: int, names: _Names) -> None:
        self.machine = machine
        self.pid = pid
        self._names = names

    @property
    def name(self) -> str:
        return self._names.name

    def __repr__(self) -> str:
        return f"<Process {self.name} pid {self.pid}>"

    def _above(self) -> int:
        ends = [vma.end for vma in self.vmas]
        return max(4 * _GIB, *(-(-end // _GIB) * _GIB for end in ends), 0)

    def _new_region(self, name: str | None) -> None:
        if name is not None:
            self.machine._world.new_region(self._names, name)

    def _named(self, name: str | None, addr: int, npages: int) -> Region:
        taken = self._names.made
        while name is None or name in self._names.regions:
            name, taken = f"r{taken}", taken + 1
        self._names.add(name, addr, npages)
        return Region(self, addr, npages)

    def mmap(
        self, npages: int, addr: int = 0, *, node: int | None = None, name: str | None = None
    ) -> Region:
        """mmap(2), private anonymous read-write; ``addr`` 0: above all others, GiB aligned.

        ``node``: bind the memory to that node. ``name``: what :meth:`Machine.observe` calls it.
        """
        self._new_region(name)
        where = self.machine.engine.mmap(self.pid, npages, addr, -1 if node is None else node)
        return self._named(name, where, npages)

    @property
    def regions(self) -> dict[str, Region]:
        """Regions by name, in order of creation; a child has its parent's."""
        return {
            name: Region(self, region.addr, region.npages)
            for name, region in self._names.regions.items()
        }

    @property
    def vmas(self) -> list[VmaInfo]:
        return self.machine.engine.vmas(self.pid)

    def fork(self, *, name: str | None = None) -> Process:
        """A child with the same memory, copied on write."""
        machine = self.machine
        name = machine._new_name(name)
        pid = machine.engine.fork(self.pid)
        machine._world.fork(self._names, name, pid)
        return machine._process(name, pid)

    @property
    def memory_merge(self) -> bool:
        """prctl(PR_GET_MEMORY_MERGE), and writing it PR_SET_MEMORY_MERGE: all of the process'
        memory, now and later, is mergeable; children inherit it. EINVAL before 6.4."""
        return self.machine.engine.memory_merge(self.pid)

    @memory_merge.setter
    def memory_merge(self, on: bool) -> None:
        self.machine.engine.prctl_memory_merge(self.pid, on)

    @property
    def ksm_stat(self) -> dict[str, int]:
        """The counts of /proc/PID/ksm_stat; empty where the kernel has none."""
        return self.machine.engine.ksm_stat(self.pid)

    def clear_refs(self, what: int = 1) -> None:
        """Write to /proc/PID/clear_refs: 1 forgets accessed bits, 4 soft-dirty bits (3.11 on)."""
        self.machine.engine.clear_refs(self.pid, what)

    def exit(self) -> None:
        """The process ends; using it afterwards is ESRCH."""
        self.machine.engine.exit(self.pid)
        self.machine._forget(self)


class Area:
    """An active swap area; made by :meth:`Swap.on`."""

    def __init__(self, machine: Machine, type: int, name: str) -> None:
        self.machine = machine
        self.type = type
        self.name = name

    def __repr__(self) -> str:
        return f"<Area {self.name} type {self.type}>"

    @property
    def info(self) -> AreaInfo:
        """Type, priority, usable pages, used pages, max (slots, header included); EINVAL: off."""
        if self.machine._world.areas.get(self.name) == self.type:
            for area in self.machine.engine.areas():
                if area.type == self.type:
                    return area
        raise MachineError(errno.EINVAL, f"swap area {self.name} is not on")

    @property
    def used(self) -> int:
        """Slots in use."""
        return self.info.used

    def count(self, offset: int) -> int:
        """Swap ptes that refer to a slot."""
        return self.machine.engine.swap_count(self.info.type, offset)

    def map(self, offset: int) -> int:
        """The raw swap_map byte of a slot: count, SWAP_HAS_CACHE 0x40, continued 0x80."""
        return self.machine.engine.swap_map(self.info.type, offset)

    def off(self) -> None:
        """swapoff(2). EINTR, ENOMEM: failed on the way, the area is on and holds the rest."""
        self.machine.engine.swapoff(self.info.type)
        self.machine._world.areas.pop(self.name, None)


class Swap:
    """Swap areas of a machine: ``machine.swap``."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def on(
        self,
        npages: int = 0,
        priority: int = -1,
        path: str | None = None,
        *,
        name: str | None = None,
    ) -> Area:
        """swapon(2): an area of ``npages`` slots, slot 0 its header, in memory or in a file.

        ``priority`` -1: automatic. ``path``: a file in mkswap(8)'s format (``npages`` 0: all of
        it). ``name``: what :meth:`Machine.observe` calls it.
        """
        areas = self._machine._world.areas
        if name is not None and name in areas:
            raise MachineError(errno.EEXIST, f"swap area {name}")
        type = self._machine.engine.swapon(npages, priority, path)
        taken = len(areas)
        while name is None or name in areas:
            name, taken = f"S{taken}", taken + 1
        areas[name] = type
        return Area(self._machine, type, name)

    @property
    def areas(self) -> list[Area]:
        """Active areas, in the order in which they were turned on."""
        machine = self._machine
        return [Area(machine, type, name) for name, type in machine._world.areas.items()]

    @property
    def cached(self) -> int:
        """Pages in the swap cache."""
        return self._machine.engine.swapcached()


class Ksm:
    """/sys/kernel/mm/ksm of a machine: ``machine.ksm``; files by name, or as attributes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getitem__(self, key: str) -> int:
        return self._machine.engine.ksm_read(key)

    def __setitem__(self, key: str, value: int | str) -> None:
        """Write to a file: a number, or a word where it takes words (``advisor_mode``)."""
        number = ksm_value(key, value)
        if number is None:
            self[key]  # ENOENT goes before EINVAL
            raise MachineError(errno.EINVAL, f"ksm {key}={value}")
        self._machine.engine.ksm_write(key, number)

    def scan(self, n: int = 1) -> int:
        """Run ksmd for ``n`` full scans; returns how many really happened."""
        return self._machine.engine.ksm_scan(n)

    def do_scan(self, npages: int) -> None:
        """One batch of ksmd: ``npages`` pages."""
        self._machine.engine.ksm_do_scan(npages)

    @property
    def counts(self) -> dict[str, int]:
        """Every file that is a count."""
        return self._machine.engine.ksm_counts()

    @property
    def run(self) -> int:
        """0 stopped, 1 running, 2 stopped and everything unmerged; writing 2 unmerges."""
        return self["run"]

    @run.setter
    def run(self, value: int) -> None:
        self["run"] = value

    @property
    def merge_across_nodes(self) -> int:
        """1: one tree for all nodes; EBUSY to change it while anything is merged."""
        return self["merge_across_nodes"]

    @merge_across_nodes.setter
    def merge_across_nodes(self, value: int) -> None:
        self["merge_across_nodes"] = value

    @property
    def pages_shared(self) -> int:
        """KSM pages in use."""
        return self["pages_shared"]

    @property
    def pages_sharing(self) -> int:
        """Further ptes that share them: the pages saved."""
        return self["pages_sharing"]

    @property
    def pages_unshared(self) -> int:
        """Pages unique but repeatedly checked for merging."""
        return self["pages_unshared"]

    @property
    def pages_volatile(self) -> int:
        """Pages that change too fast for a tree."""
        return self["pages_volatile"]

    @property
    def full_scans(self) -> int:
        """Times that all mergeable memory has been scanned."""
        return self["full_scans"]


class Machine:
    """A simulated host with memory nodes, processes, swap and KSM.

    :param engine: ``"core"`` (C), ``"oracle"`` (pure Python), or a function that makes an
        :class:`~pyksm.engine.Engine` from a :class:`~pyksm.engine.Config`.
    :param nodes: memory nodes, 1..64.
    :param frames: page frames of all nodes together.
    :param page_size: bytes of content a page has, 4096 or a smaller power of two down to 8; it
        takes 4096 bytes of address space all the same.
    :param profile: the kernel to behave like, see ``pyksm profiles``.
    :param policy: what swapoff does with an entry that other processes still need:
        ``"reread"`` as Linux up to 5.0, or ``"memcpy"``. From 5.1 on (``swapoff-per-mm``) the
        question does not arise.
    :param switches: names in :data:`pyksm.SWITCHES`: checks or shortcuts taken away.
    :param on: features (names in :data:`pyksm.FEATURES`) that it has beside the profile's, with
        all that they need.
    :param off: features of the profile that it does not have, nor any that needs them.
    :param walk: how the core's swapoff by entries finds ptes: ``"literal"``, as the kernel, or
        ``"computed"``, with the same results and counters in a fraction of the time.
    :param transfer: how the core moves contents: ``"copy"``, or ``"reference"``, shared until
        somebody writes.
    :param threads: 1 or 2 threads of the core that may read contents at a time.
    """

    def __init__(
        self,
        engine: str | Callable[[Config], Engine] = "core",
        *,
        nodes: int = 1,
        frames: int = 65536,
        page_size: int = 4096,
        profile: str = profiles.DEFAULT,
        policy: str = "reread",
        switches: Iterable[str] = (),
        on: Iterable[str] = (),
        off: Iterable[str] = (),
        walk: str = "literal",
        transfer: str = "copy",
        threads: int = 1,
    ) -> None:
        how = {"walk": walk, "transfer": transfer, "threads": threads}
        config = _config_of(nodes, frames, page_size, profile, policy, switches, on, off, **how)
        make = _engines.factory(engine) if isinstance(engine, str) else engine
        self.engine = make(config)
        #: The engine once more if its memory can be looked at in place.
        self._views = self.engine if isinstance(self.engine, _Views) else None
        self.config = config
        self.page_size = page_size
        self.swap = Swap(self)
        self.ksm = Ksm(self)
        self._world = World()
        self._processes: dict[int, Process] = {}
        self._vmstat = self.engine.vmstat()

    def _plain(self, data: bytes | memoryview) -> Any:
        """Data as the engine takes it: a buffer where it can, else bytes."""
        return data if self._views is not None or type(data) is bytes else bytes(data)

    def __repr__(self) -> str:
        return f"<Machine {self.engine.name} {self.config}>"

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the machine. Arrays that it gave out stay valid; all else is EBADF from now on."""
        self.engine.close()

    # processes

    def _new_name(self, name: str | None) -> str:
        if name is not None:
            self._world.new_process(name)
            return name
        taken = len(self._world.processes) + 1
        while f"P{taken}" in self._world.processes:
            taken += 1
        return f"P{taken}"

    def _process(self, name: str, pid: int) -> Process:
        process = Process(self, pid, self._world.processes[name])
        self._processes[pid] = process
        return process

    def _forget(self, process: Process) -> None:
        self._processes.pop(process.pid, None)
        self._world.processes.pop(process.name, None)

    def spawn(self, *, name: str | None = None) -> Process:
        """A new process with no memory. ``name``: what :meth:`observe` calls it."""
        name = self._new_name(name)
        pid = self.engine.spawn()
        self._world.processes[name] = _Names(name, pid)
        return self._process(name, pid)

    @property
    def processes(self) -> list[Process]:
        """Processes that have not exited, in order of creation."""
        alive = self.engine.processes()
        return [self._processes[pid] for pid in alive if pid in self._processes]

    # reclaim, observation

    def swapout(self, *regions: Region) -> None:
        """Reclaim until none of the regions' pages (none given: of all) is resident, or nothing
        more can go."""
        self.engine.swapout([(r.process.pid, r.addr, r.npages) for r in regions])

    def observe(self) -> dict[str, Any]:
        """The scenario contract's observation: processes, ksm, swap, swapcached, vmstat."""
        alive = set(self.engine.processes())
        for process in list(self._processes.values()):
            if process.pid not in alive:
                self._forget(process)
        return observation(self.engine, self._world, self._vmstat)

    def sleep(self, ms: int) -> None:
        """Let the clock go on: chain pruning and the advisor look at it."""
        self.engine.sleep(ms)

    @property
    def counters(self) -> Mapping[str, int]:
        """Work counters since the machine was made: kernel function names to calls."""
        return self.engine.counters()

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """``with m.counting() as work:`` fills ``work`` with what the block counted."""
        work: dict[str, int] = {}
        before = self.counters
        try:
            yield work
        finally:
            now = self.counters.items()
            work.update({name: n - before[name] for name, n in now if n != before[name]})

    @property
    def vmstat(self) -> Mapping[str, int]:
        """/proc/vmstat's counts since the machine was made."""
        return self.engine.vmstat()

    @property
    def peak_frames(self) -> int:
        """Most frames ever in use at once."""
        return self.engine.peak_frames()

    def free_frames(self, node: int | None = None) -> int:
        """Free frames of a node, of all nodes by default."""
        return self.engine.free_frames(-1 if node is None else node)

    def events(self) -> list[str]:
        """Warnings the kernel would have logged since the last call."""
        return self.engine.events()

    def census(self, *, strict: bool = False) -> list[str]:
        """Recount everything: a line for each thing that is wrong, none if all is well.

        ``strict``: also what is legal but worth knowing, such as a KSM page that rmap misses.
        """
        return self.engine.census(strict)

    def inject(self, kind: str, nth: int = 1) -> None:
        """Let the nth next event of a kind in :data:`pyksm.FAULT_KINDS` fail, once."""
        self.engine.inject(kind, nth)

    @contextmanager
    def hooked(self, hook: Callable[[str], None]) -> Iterator[None]:
        """``hook(point)`` runs at every schedule point in the block, with the machine in the
        middle of an operation; it may call anything but :meth:`close`. What it raises, the
        interrupted operation raises when it is done."""
        self.engine.set_hook(hook)
        try:
            yield
        finally:
            self.engine.set_hook(None)
