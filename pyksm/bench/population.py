"""Populations: processes with many pages, written, merged and swapped out by the engine's calls.

Every frame and slot that the timed work will use has been used by the building of it: the host's
memory behind them is there when the clock starts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pyksm.bench.settings import Shape
from pyksm.engine import MADV_MERGEABLE, MADV_PAGEOUT, Engine
from pyksm.errors import MachineError, PyksmError
from pyksm.jobs.watch import Watch

PAGE = 4096  #: of address space, whatever a page holds
_CHUNK_BYTES = 4 << 20  #: of contents that are handed over at a time
_CHUNK_PAGES = 1 << 18
_SPARE_FRAMES = 1024
_SPARE_SLOTS = 64
#: Scans without growth after which merging is over; before the first growth there may be more.
_STILL = 2
_STILL_AT_FIRST = 4


def spare(frames: int) -> int:
    """As many, and those that a policy or a batch holds for a while."""
    return frames + _SPARE_FRAMES


@dataclass
class Population:
    """What was built: (pid, address) of each process; ``heads`` of them have written the pages."""

    engine: Engine
    shape: Shape
    members: list[tuple[int, int]] = field(default_factory=list)
    files: list[IO[bytes]] = field(default_factory=list)

    def ranges(self) -> list[tuple[int, int, int]]:
        return [(pid, addr, self.shape.per_proc) for pid, addr in self.members]


def words(first: int, count: int, modulo: int) -> NDArray[np.uint64]:
    """The first 8 bytes of contents ``first`` on: all different, without pattern (splitmix64)."""
    z = (np.arange(first, first + count, dtype=np.uint64) % np.uint64(modulo)) + np.uint64(1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def contents(shape: Shape, process: int) -> Iterator[tuple[int, bytes]]:
    """What is in a process's pages: (first page, whole pages), piece by piece."""
    step = min(_CHUNK_PAGES, _CHUNK_BYTES // shape.page_bytes)
    # The same in every page but for its first word: as much to read, and not one byte of zeros.
    rest = words(1 << 40, shape.page_bytes // 8, 1 << 62) | np.uint64(0x0101010101010101)
    pages = np.tile(rest, (min(step, shape.per_proc), 1))
    for at in range(0, shape.per_proc, step):
        count = min(step, shape.per_proc - at)
        pages[:count, 0] = words(shape.content_of(process, at), count, shape.contents)
        yield at, pages[:count].tobytes()


def build(engine: Engine, shape: Shape, watch: Watch) -> Population:
    """The processes with their pages written; of a forked population the children too."""
    made = Population(engine, shape)
    watch.begin("write pages")
    for process in range(shape.procs):
        if shape.kind == "forked" and process % shape.family:
            head, addr = made.members[process - process % shape.family]
            made.members.append((engine.fork(head), addr))
            continue
        pid = engine.spawn()
        addr = engine.mmap(pid, shape.per_proc)
        made.members.append((pid, addr))
        for at, data in contents(shape, process):
            failed = engine.write_pages(pid, addr + at * PAGE, data)
            if any(failed):
                raise MachineError(next(filter(None, failed)), "write_pages")
            watch.advance(process * shape.per_proc + at, shape.ptes)
    return made


def expected_sharing(engine: Engine, shape: Shape) -> int:
    """pages_sharing when all is merged: each KSM page is shared by max_page_sharing at most."""
    most = shape.sharing
    if "max-page-sharing" in engine.config.features:
        most = min(most, engine.ksm_read("max_page_sharing"))
    return shape.ptes - shape.contents * -(-shape.sharing // most)


def advise(made: Population) -> None:
    for pid, addr, npages in made.ranges():
        made.engine.madvise(pid, addr, npages, MADV_MERGEABLE)


def merge(made: Population, watch: Watch) -> int:
    """Full scans until everything is merged, or nothing more gets merged; how many scans."""
    engine = made.engine
    wanted = expected_sharing(engine, made.shape)
    before, still, scans = 0, 0, 0
    watch.begin("KSM scans")
    while True:
        engine.ksm_scan(1)
        scans += 1
        now = engine.ksm_read("pages_sharing")
        watch.advance(now, wanted)
        still = 0 if now > before else still + 1
        if scans > 1 and (now >= wanted or still >= (_STILL if now else _STILL_AT_FIRST)):
            return scans
        before = now


def swap_header(slots: int) -> bytes:
    """The first page of an area of so many slots, as mkswap(8) writes it."""
    head = bytearray(PAGE)
    head[1024:1032] = (1).to_bytes(4, "little") + (slots - 1).to_bytes(4, "little")
    head[PAGE - 10 :] = b"SWAPSPACE2"
    return bytes(head)


def swap_file(made: Population, slots: int) -> str:
    """A swap file that has no name, so that nothing is left of it however we end."""
    file = tempfile.TemporaryFile(prefix="pyksm-bench-")  # noqa: SIM115 (closed with the machine)
    made.files.append(file)
    os.posix_fallocate(file.fileno(), 0, slots * PAGE)
    os.pwrite(file.fileno(), swap_header(slots), 0)
    return f"/proc/self/fd/{file.fileno()}"


def swap_on(made: Population, slots: int, backend: str = "memory") -> int:
    """An area with room for so many pages; its type. Reclaim does nothing where no slot is free."""
    slots += _SPARE_SLOTS
    path = swap_file(made, slots) if backend == "file" else None
    return made.engine.swapon(slots, -1, path)


def swap_out(made: Population, area: int, watch: Watch) -> int:
    """Everything, until it is only in its slots; how many those are."""
    engine = made.engine
    watch.begin("swap out")
    used = _used(engine, area)
    if "madvise-pageout" in engine.config.features and made.shape.sharing == 1:
        for done, (pid, addr, npages) in enumerate(made.ranges()):
            engine.madvise(pid, addr, npages, MADV_PAGEOUT)
            watch.advance(done + 1, made.shape.procs)
    if _used(engine, area) - used < made.shape.contents or engine.swapcached():
        engine.swapout()
    left = engine.swapcached()
    if left or _used(engine, area) - used < made.shape.contents:
        raise PyksmError(
            f"the population could not be swapped out: {_used(engine, area):,} slots in use, "
            f"{left:,} pages left in the swap cache; expected {made.shape.contents:,} and none"
        )
    return _used(engine, area) - used


def _used(engine: Engine, area: int) -> int:
    return next(each.used for each in engine.areas() if each.type == area)
