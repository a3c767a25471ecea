"""The files of /proc that capture reads, opened together and parsed.

Everything of a process is opened before anything of any process is read, so that a PID that is
gone or not ours is refused with nothing half done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pyksm.errors import InputError
from pyksm.targets.memory import ADDRESS_FIRST, ADDRESS_LIMIT, PAGE_SHIFT, PAGE_SIZE, Vma

# Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
PM_PRESENT = 1 << 63
PM_SWAP = 1 << 62
PM_FILE = 1 << 61
PM_EXCLUSIVE = 1 << 56
PM_WHERE = (1 << 55) - 1  #: pfn, or swap type and offset; 0 where the reader has no privilege

# Bits of an entry of /proc/kpageflags.
KPF_KSM = 1 << 21
KPF_ZERO_PAGE = 1 << 24

_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)$")
_PAGEMAP_CHUNK = 1 << 16  #: entries in one read: 512 KiB for 256 MiB of addresses

# A mapping this large may be a reservation of terabytes with a few pages in it (sanitizers,
# garbage collectors), which is better not read entry by entry.
_SPARSE_BYTES = 1 << 30
_PAGEMAP_SCAN = 0xC0606610  #: _IOWR('f', 16, struct pm_scan_arg), linux/fs.h
_SCAN_ARG = struct.Struct("<12Q")
_SCAN_CATEGORIES = 1 << 3 | 1 << 4  #: PAGE_IS_PRESENT, PAGE_IS_SWAPPED
_SCAN_REGIONS = 4096

Range = tuple[int, int]  #: page numbers, end exclusive


@dataclass(frozen=True)
class Mapping:
    """One entry of /proc/PID/smaps; ``rss`` to ``huge`` in pages."""

    vma: Vma
    perms: str
    rss: int
    anonymous: int
    swap: int
    flags: frozenset[str]
    huge: int = 0  #: in transparent huge pages, mapped as such

    def exclusion(self) -> str | None:
        """Why none of its pages is private anonymous memory (a key of EXCLUDED), or None."""
        if self.vma.label.startswith(("[vdso", "[vvar", "[vsyscall")):
            return "vdso"
        if self.perms[3] == "s":
            return "shared"
        if self.flags & {"io", "pf"}:
            return "device"
        if "ht" in self.flags:
            return "hugetlb"
        if self.vma.start < ADDRESS_FIRST or self.vma.end > ADDRESS_LIMIT:
            return "high"
        return None


def parse_smaps(text: str) -> list[Mapping]:
    """The mappings in a text of /proc/PID/smaps."""
    mappings: list[Mapping] = []
    header: re.Match[str] | None = None
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if match := _HEADER.match(line):
            if header:
                mappings.append(_mapping(header, fields))
            header, fields = match, {}
        else:
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    if header:
        mappings.append(_mapping(header, fields))
    return mappings


def _mapping(header: re.Match[str], fields: dict[str, str]) -> Mapping:
    flags = frozenset(fields.get("VmFlags", "").split())
    start, end = int(header[1], 16), int(header[2], 16)
    return Mapping(
        vma=Vma(start, end, mergeable="mg" in flags, label=header[4]),
        perms=header[3],
        rss=_pages(fields.get("Rss")),
        anonymous=_pages(fields.get("Anonymous")),
        swap=_pages(fields.get("Swap")),
        huge=_pages(fields.get("AnonHugePages")),
        flags=flags,
    )


def _pages(text: str | None) -> int:
    return int(text.split()[0]) * 1024 // PAGE_SIZE if text else 0


class ProcessFiles:
    """The open files of one process; close them with :meth:`close` or a ``with`` block."""

    def __init__(self, pid: int) -> None:
        """Open everything. InputError where the process is gone, not ours or without memory."""
        self.pid = pid
        self._fds: list[int] = []
        status = _status(pid)
        _check_has_memory(pid, status)
        self.name = status.get("Name", "?")
        self.ppid = int(status.get("PPid", "0"))
        self.started, self.state = _start_and_state(pid)
        try:
            self._smaps = self._open("smaps")
            self._pagemap = self._open("pagemap")
            self._mem = self._open("mem")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ProcessFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _open(self, name: str) -> int:
        try:
            fd = os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise refused(self.pid, exc) from None
        self._fds.append(fd)
        return fd

    def mappings(self) -> list[Mapping]:
        """Its mappings now."""
        chunks = []
        try:
            os.lseek(self._smaps, 0, os.SEEK_SET)
            while chunk := os.read(self._smaps, 1 << 16):
                chunks.append(chunk)
        except OSError as exc:
            raise refused(self.pid, exc) from None
        return parse_smaps(b"".join(chunks).decode(errors="replace"))

    def pagemap(self, vma: Vma) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Page numbers in ``vma`` and their pagemap entries: all pages, or those with something.

        Fewer where the process has ended meanwhile.
        """
        ranges = [(vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT)]
        if vma.end - vma.start > _SPARSE_BYTES:
            ranges = self._occupied(vma) or ranges
        entries = [self._entries(first, end) for first, end in ranges]
        pages = [
            np.arange(first, first + len(e), dtype=np.uint64)
            for (first, _), e in zip(ranges, entries, strict=True)
        ]
        return np.concatenate(pages), np.concatenate(entries)

    def _occupied(self, vma: Vma) -> list[Range] | None:
        """Ranges of pages with something in them, without a look at every empty page.

        None where the kernel has no PAGEMAP_SCAN (it came with Linux 6.7), or nothing is there.
        """
        ranges: list[Range] = []
        found = np.empty((_SCAN_REGIONS, 3), dtype=np.uint64)  # struct page_region
        start = vma.start
        while start < vma.end:
            # struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages,
            # and the masks: inverted, all of, any of, to return.
            arg = bytearray(
                _SCAN_ARG.pack(
                    _SCAN_ARG.size, 0, start, vma.end, 0, found.ctypes.data, len(found), 0,
                    0, 0, _SCAN_CATEGORIES, _SCAN_CATEGORIES,
                )
            )  # fmt: skip
            try:
                count = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, arg)
            except OSError:
                return None
            for first, end, _ in found[:count].tolist():
                ranges.append((first >> PAGE_SHIFT, end >> PAGE_SHIFT))
            start = max(_SCAN_ARG.unpack(arg)[4], start + PAGE_SIZE)
        return ranges or None

    def _entries(self, first: int, end: int) -> NDArray[np.uint64]:
        parts = []
        for page in range(first, end, _PAGEMAP_CHUNK):
            size = 8 * min(_PAGEMAP_CHUNK, end - page)
            try:
                data = os.pread(self._pagemap, size, page * 8)
            except OSError as exc:
                raise refused(self.pid, exc) from None
            parts.append(np.frombuffer(data, dtype="<u8", count=len(data) // 8))
            if len(data) < size:
                break
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)

    def read_pages(self, vpn: int, count: int) -> bytes | None:
        """The contents of consecutive pages; None where any of them cannot be read (now)."""
        try:
            data = os.pread(self._mem, count * PAGE_SIZE, vpn << PAGE_SHIFT)
        except OSError as exc:
            # EIO and EFAULT: no page there any more.
            if exc.errno in (errno.EIO, errno.EFAULT):
                return None
            raise refused(self.pid, exc) from None
        return data if len(data) == count * PAGE_SIZE else None

    def check_alive(self) -> None:
        """InputError where the process ended or another took its PID while it was read."""
        with contextlib.suppress(InputError):
            started, state = _start_and_state(self.pid)
            if started == self.started and state not in "ZX":
                return
        raise InputError(f"PID {self.pid}: ended while it was being read (ESRCH)")


def refused(pid: int, exc: OSError) -> InputError:
    """One line for a failed access to a process."""
    code = errno.errorcode.get(exc.errno or 0, str(exc.errno))
    if exc.errno in (errno.EPERM, errno.EACCES):
        return InputError(f"PID {pid}: not ours to read ({code})")
    if exc.errno in (errno.ESRCH, errno.ENOENT):
        return InputError(f"PID {pid}: no such process (ESRCH)")
    return InputError(f"PID {pid}: cannot be read: {os.strerror(exc.errno or 0)} ({code})")


def _slurp(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError as exc:
        raise refused(pid, exc) from None


def _status(pid: int) -> dict[str, str]:
    pairs = (line.partition(":") for line in _slurp(pid, "status").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _check_has_memory(pid: int, status: dict[str, str]) -> None:
    if status.get("Tgid", str(pid)) != str(pid):
        raise InputError(f"PID {pid}: a thread; expected a process, here {status['Tgid']}")
    if status.get("State", "").startswith(("Z", "X")):
        raise InputError(f"PID {pid}: has ended, its memory is gone (ESRCH)")
    if "VmSize" not in status:
        raise InputError(f"PID {pid}: a kernel thread; expected a process with memory of its own")


def _start_and_state(pid: int) -> tuple[int, str]:
    # The command name is in parentheses and may hold anything, parentheses included.
    words = _slurp(pid, "stat").rpartition(")")[2].split()
    return int(words[19]), words[0]


def process_state(pid: int) -> str:
    """The state letter of /proc/PID/stat. InputError where the process is gone."""
    return _start_and_state(pid)[1]


def page_flags(pfns: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """/proc/kpageflags of ascending frame numbers; None where we may not read it."""
    try:
        fd = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    flags = np.zeros(len(pfns), dtype=np.uint64)
    breaks = np.flatnonzero(np.diff(pfns) != 1) + 1
    edges = [0, *breaks.tolist(), len(pfns)]
    try:
        for first, end in pairwise(edges):
            data = os.pread(fd, (end - first) * 8, int(pfns[first]) * 8) if end > first else b""
            flags[first : first + len(data) // 8] = np.frombuffer(data, dtype="<u8")
    except OSError:
        return None
    finally:
        os.close(fd)
    return flags
