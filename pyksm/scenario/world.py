"""Names to ids and addresses: the scenario's own book-keeping beside an engine."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace

from pyksm.errors import MachineError
from pyksm.scenario.kinds import PAGE_BYTES, Pages

#: Where the first region of every process lies, and how far apart regions are.
BASE = 4 << 30
STRIDE = 1 << 30
#: Pages of a region: the next one must not adjoin.
REGION_LIMIT = STRIDE // PAGE_BYTES - 1
_TOP = 1 << 47


@dataclass(frozen=True)
class Region:
    """A named range of addresses. It keeps its length; pages that went away are holes."""

    name: str
    addr: int
    npages: int


@dataclass
class Process:
    """A named process. ``made`` counts the regions it and its ancestors ever made."""

    name: str
    pid: int
    regions: dict[str, Region] = field(default_factory=dict)
    made: int = 0

    def next_addr(self, npages: int) -> int:
        """Where a new region of that many pages goes; ENOMEM where it does not fit."""
        addr = BASE + self.made * STRIDE
        if npages > REGION_LIMIT or addr + STRIDE > _TOP:
            raise MachineError(errno.ENOMEM, f"region of {npages} pages")
        return addr

    def add(self, name: str, addr: int, npages: int) -> None:
        """Note a region that the engine has made."""
        self.regions[name] = Region(name, addr, npages)
        self.made += 1


@dataclass(frozen=True)
class Span:
    """Pages of a process as an engine wants them: ``npages`` from ``addr``."""

    process: Process
    addr: int
    npages: int

    @property
    def pid(self) -> int:
        return self.process.pid


class World:
    """Processes and swap areas by name, in order of creation."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.areas: dict[str, int] = {}

    def process(self, name: str) -> Process:
        """ESRCH where there is none."""
        try:
            return self.processes[name]
        except KeyError:
            raise MachineError(errno.ESRCH, f"process {name}") from None

    def span(self, name: str, pages: Pages) -> Span:
        """ESRCH, then ENOENT for an unknown region, then ERANGE past its end."""
        process = self.process(name)
        region = process.regions.get(pages.region)
        if region is None:
            raise MachineError(errno.ENOENT, f"region {pages.region} of {name}")
        start = 0 if pages.start is None else pages.start
        stop = region.npages if pages.stop is None else pages.stop
        if stop > region.npages:
            raise MachineError(errno.ERANGE, f"pages {pages} of {name}")
        return Span(process, region.addr + start * PAGE_BYTES, stop - start)

    def destination(self, source: Span, to: str | Pages) -> int:
        """Where mremap moves pages to: EEXIST where a new region's name is in use, the errors of
        :meth:`span` where the pages of an old one are not all there."""
        if isinstance(to, Pages):
            first = to.start or 0
            pages = Pages(to.region, first, first + source.npages)
            return self.span(source.process.name, pages).addr
        self.new_region(source.process, to)
        return source.process.next_addr(source.npages)

    def new_process(self, name: str) -> None:
        """EEXIST where the name is in use."""
        if name in self.processes:
            raise MachineError(errno.EEXIST, f"process {name}")

    def new_region(self, process: Process, name: str) -> None:
        """EEXIST where the name is in use."""
        if name in process.regions:
            raise MachineError(errno.EEXIST, f"region {name} of {process.name}")

    def fork(self, parent: Process, name: str, pid: int) -> None:
        """Note a child: same regions, same addresses."""
        self.processes[name] = replace(parent, name=name, pid=pid, regions=dict(parent.regions))
