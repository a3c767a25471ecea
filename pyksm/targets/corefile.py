"""ELF core files as input: what the kernel or gcore wrote of one x86-64 process.

Kept: PT_LOAD segments with content that are anonymous or written private file mappings. A core
file says neither which frames are shared nor which pages were ever touched; pages that are all
zero are taken as never touched (a stack or an arena is mostly that).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from pyksm.errors import InputError
from pyksm.targets.live import Progress
from pyksm.targets.memory import (
    ADDRESS_FIRST,
    ADDRESS_LIMIT,
    PAGE_SHIFT,
    PAGE_SIZE,
    UNSHARED,
    Memory,
    ProcessMemory,
    Vma,
    is_zero,
    keep_used_vmas,
)

MAGIC = b"\x7fELF"

_CHUNK = 256  #: pages read at a time
_NOTES_LIMIT = 64 << 20  #: bytes of notes; 65,530 mappings with long paths need less
_NT_FILE = 0x46494C45
_AT_SYSINFO_EHDR = 33  #: where the vdso is (elf.h)
_VSYSCALL = 0xFFFFFFFFFF600000
_PF_W = 2
#: Files behind shared memory. Its pages are in the core, and they are not private.
_SHARED_FILES = ("/dev/zero", "/SYSV", "/memfd:", "/dev/shm/")


@dataclass(frozen=True)
class _Segment:
    """One PT_LOAD; all in bytes."""

    index: int
    start: int
    filesz: int
    memsz: int
    offset: int
    writable: bool

    @property
    def end(self) -> int:
        return self.start + self.memsz


@dataclass
class _Notes:
    pid: int = 0
    ppid: int = 0
    name: str = "?"
    vdso: int = -1
    has_files: bool = False
    files: list[tuple[int, int, str]] = field(default_factory=list)  #: start, end, path


def read_core(path: str, into: Memory, progress: Progress | None = None) -> None:
    """Add the process of a core file to ``into``.

    InputError where the file is foreign, for another machine, truncated or contradicts itself;
    ``into`` is then unchanged but for contents that nobody refers to.
    """
    try:
        with open(path, "rb") as file:
            segments, notes = _parse(path, file)
            process = _load(path, file, segments, notes, into, progress)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from None
    process.origin = into.origins
    into.origins += 1
    into.processes.append(process)
    into.note("core files do not say which frames are shared: each process is loaded on its own")
    if not notes.has_files:
        into.note(f"{path}: no NT_FILE note, so file-backed pages are not told apart")


def _parse(path: str, file: BinaryIO) -> tuple[list[_Segment], _Notes]:
    try:
        elf = ELFFile(file)
        _check_kind(path, elf)
        size = os.fstat(file.fileno()).st_size
        loads: list[_Segment] = []
        notes = _Notes()
        for index, segment in enumerate(elf.iter_segments()):
            if segment["p_type"] == "PT_LOAD":
                loads.append(_segment(index, segment.header))
            elif isinstance(segment, NoteSegment):
                _check_notes(path, file, segment, index, size)
                for note in segment.iter_notes():
                    _take_note(notes, note)
    except (InputError, OSError):
        raise
    except Exception as exc:
        # pyelftools lets whatever its parser meets in a damaged header through.
        why = str(exc) or type(exc).__name__
        raise InputError(f"{path}: damaged ELF file: {why.splitlines()[0]}") from None
    _check_segments(path, loads, size)
    notes.files.sort()
    return loads, notes


def _check_kind(path: str, elf: ELFFile) -> None:
    if elf["e_type"] != "ET_CORE":
        raise InputError(f"{path}: ELF file of type {elf['e_type']}; expected a core (ET_CORE)")
    machine = elf["e_machine"]
    if elf.elfclass != 64 or not elf.little_endian or machine != "EM_X86_64":
        order = "little" if elf.little_endian else "big"
        raise InputError(
            f"{path}: core of a {elf.elfclass}-bit {order}-endian {machine}; "
            "expected 64-bit little-endian EM_X86_64"
        )


def _segment(index: int, header: Any) -> _Segment:
    return _Segment(
        index=index,
        start=header["p_vaddr"],
        filesz=header["p_filesz"],
        memsz=max(header["p_memsz"], header["p_filesz"]),
        offset=header["p_offset"],
        writable=bool(header["p_flags"] & _PF_W),
    )


def _check_notes(path: str, file: BinaryIO, segment: NoteSegment, index: int, size: int) -> None:
    """Bounds of every note, which pyelftools takes on trust."""
    where = f"{path}: note segment {index}"
    offset, length = segment["p_offset"], segment["p_filesz"]
    if offset + length > size:
        raise InputError(f"{where}: ends at byte {offset + length}, file has {size} (truncated)")
    if length > _NOTES_LIMIT:
        raise InputError(f"{where}: {length} bytes; expected at most {_NOTES_LIMIT}")
    file.seek(offset)
    data = file.read(length)
    at = 0
    while at + 12 < len(data):
        namesz, descsz, kind = struct.unpack_from("<III", data, at)
        desc = at + 12 + (namesz + 3 & ~3)
        at = desc + (descsz + 3 & ~3)
        if desc + descsz > len(data):
            raise InputError(f"{where}: a note of {descsz} bytes runs past the segment's end")
        if kind == _NT_FILE:
            count = struct.unpack_from("<Q", data, desc)[0] if descsz >= 16 else 1
            if descsz < 16 or count * 25 + 16 > descsz:
                raise InputError(f"{where}: NT_FILE of {descsz} bytes claims {count} mappings")


def _take_note(notes: _Notes, note: Any) -> None:
    if note["n_name"] != "CORE":
        return
    desc = note["n_desc"]
    if note["n_type"] == "NT_PRPSINFO":
        notes.pid, notes.ppid = desc["pr_pid"], desc["pr_ppid"]
        notes.name = desc["pr_fname"].split(b"\0")[0].decode(errors="replace") or "?"
    elif note["n_type"] == "NT_FILE":
        notes.has_files = True
        for entry, name in zip(desc["Elf_Nt_File_Entry"], desc["filename"], strict=True):
            text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
            notes.files.append((entry["vm_start"], entry["vm_end"], text))
    elif note["n_type"] == "NT_AUXV":
        data = note["n_descdata"]
        words = np.frombuffer(data, dtype="<u8", count=len(data) // 16 * 2).reshape(-1, 2)
        for value in words[words[:, 0] == _AT_SYSINFO_EHDR, 1].tolist():
            notes.vdso = value


def _check_segments(path: str, loads: list[_Segment], size: int) -> None:
    if not loads:
        raise InputError(f"{path}: no PT_LOAD segment; expected the memory of a process")
    for s in loads:
        where = f"{path}: segment {s.index} at {s.start:#x}"
        if s.filesz and s.offset + s.filesz > size:
            raise InputError(
                f"{where}: ends at byte {s.offset + s.filesz}, file has {size} (truncated)"
            )
        if s.end > 1 << 64:
            raise InputError(f"{where}: runs past the last address")
        if s.filesz and s.start % PAGE_SIZE:
            raise InputError(f"{where}: not page aligned; expected a multiple of {PAGE_SIZE}")
    _check_overlap(path, "in memory", [(s.start, s.end, s.index) for s in loads if s.memsz])
    _check_overlap(
        path, "in the file", [(s.offset, s.offset + s.filesz, s.index) for s in loads if s.filesz]
    )


def _check_overlap(path: str, what: str, ranges: list[tuple[int, int, int]]) -> None:
    ranges.sort()
    for (_, end, one), (start, _, other) in pairwise(ranges):
        if start < end:
            raise InputError(f"{path}: segments {one} and {other} overlap {what}")


def _load(
    path: str,
    file: BinaryIO,
    segments: list[_Segment],
    notes: _Notes,
    into: Memory,
    progress: Progress | None,
) -> ProcessMemory:
    process = ProcessMemory(notes.pid, notes.name, ppid=notes.ppid)
    total = sum(s.filesz for s in segments) // PAGE_SIZE
    vpns: list[int] = []
    contents: list[int] = []
    vmas: list[Vma] = []
    done = 0
    for segment in sorted(segments, key=lambda s: s.start):
        pages = -(-segment.filesz // PAGE_SIZE)
        name = _file_of(segment, notes)
        if reason := _exclusion(segment, name, notes):
            process.exclude(reason, pages)
        elif pages:
            process.exclude("undumped", (segment.memsz - segment.filesz) // PAGE_SIZE)
            vmas.append(Vma(segment.start, _page_end(segment.end), label=name or ""))
            untouched = 0
            first = segment.start >> PAGE_SHIFT
            for k, page in enumerate(_pages(path, file, segment)):
                if is_zero(page):
                    untouched += 1
                    continue
                vpns.append(first + k)
                contents.append(into.store.intern(page))
                if progress and k % _CHUNK == 0:
                    progress(done + k, total)
            process.exclude("untouched", untouched)
        done += pages
    process.vpn = np.array(vpns, dtype=np.uint64)
    process.content = np.array(contents, dtype=np.int64)
    process.frame = np.full(len(vpns), UNSHARED, dtype=np.int64)
    process.vmas = keep_used_vmas(vmas, process.vpn)
    return process


def _page_end(address: int) -> int:
    return (address + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)


def _file_of(segment: _Segment, notes: _Notes) -> str | None:
    """The path of the file mapped where the segment lies, or None."""
    at = bisect_left(notes.files, (segment.start + 1,))
    for start, end, name in notes.files[max(at - 1, 0) : at + 1]:
        if start < segment.end and segment.start < end:
            return name
    return None


def _exclusion(segment: _Segment, name: str | None, notes: _Notes) -> str | None:
    if segment.start in (notes.vdso, _VSYSCALL):
        return "vdso"
    if segment.start < ADDRESS_FIRST or segment.end > ADDRESS_LIMIT:
        return "high"
    if name is None:
        return None
    if name.startswith(_SHARED_FILES):
        return "shared"
    # A written page of a private file mapping is anonymous; one that cannot be written is not.
    return None if segment.writable else "file"


def _pages(path: str, file: BinaryIO, segment: _Segment) -> Iterator[bytes]:
    file.seek(segment.offset)
    left = segment.filesz
    while left:
        want = min(left, _CHUNK * PAGE_SIZE)
        data = file.read(want)
        if len(data) != want:
            raise InputError(f"{path}: segment {segment.index} at {segment.start:#x}: truncated")
        left -= want
        for at in range(0, want, PAGE_SIZE):
            page = data[at : at + PAGE_SIZE]
            yield page if len(page) == PAGE_SIZE else page.ljust(PAGE_SIZE, b"\0")
