"""A small writer of ELF core files, for what gcore would not write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

PAGE = 4096
PF_X, PF_W, PF_R = 1, 2, 4
_EHDR = "<16sHHIQQQIHHHHHH"
_PHDR = "<IIQQQQQQ"


@dataclass
class Load:
    """A PT_LOAD: ``data`` in the file, ``memsz`` in memory (default: as much)."""

    vaddr: int
    data: bytes
    memsz: int | None = None
    flags: int = PF_R | PF_W
    filesz: int | None = None  #: a lie about len(data)
    offset: int | None = None  #: a lie about where it is


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    """One note, padded as the ABI has it."""
    name += b"\0"
    return (
        struct.pack("<III", len(name), len(desc), kind)
        + name.ljust(-(-len(name) // 4) * 4, b"\0")
        + desc.ljust(-(-len(desc) // 4) * 4, b"\0")
    )


def prpsinfo(pid: int, name: bytes, ppid: int = 1) -> bytes:
    """NT_PRPSINFO of x86-64."""
    head = struct.pack("<bbbbxxxxQIIiiii", 0, 0, 0, 0, 0, 0, 0, pid, ppid, pid, pid)
    return note(b"CORE", 3, head + name.ljust(16, b"\0") + bytes(80))


def auxv(vdso: int) -> bytes:
    """NT_AUXV that says where the vdso is."""
    return note(b"CORE", 6, struct.pack("<QQQQ", 33, vdso, 0, 0))


def files(entries: Sequence[tuple[int, int, bytes]], count: int | None = None) -> bytes:
    """NT_FILE of (start, end, path); ``count`` is a lie about how many."""
    desc = struct.pack("<QQ", len(entries) if count is None else count, PAGE)
    desc += b"".join(struct.pack("<QQQ", start, end, 0) for start, end, _ in entries)
    return note(b"CORE", 0x46494C45, desc + b"".join(path + b"\0" for _, _, path in entries))


def core(
    loads: Sequence[Load],
    notes: bytes = b"",
    e_type: int = 4,
    machine: int = 62,
    elfclass: int = 2,
    data: int = 1,
) -> bytes:
    """The bytes of a core file."""
    phnum = len(loads) + 1
    ident = b"\x7fELF" + bytes([elfclass, data, 1]) + bytes(9)
    ehdr = struct.pack(_EHDR, ident, e_type, machine, 1, 0, 64, 0, 0, 64, 56, phnum, 0, 0, 0)
    at = 64 + 56 * phnum
    phdrs = struct.pack(_PHDR, 4, 0, at, 0, 0, len(notes), 0, 1)
    at += len(notes)
    body = b""
    for load in loads:
        body += bytes(-(at + len(body)) % PAGE)
        offset = at + len(body) if load.offset is None else load.offset
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = filesz if load.memsz is None else load.memsz
        phdrs += struct.pack(_PHDR, 1, load.flags, offset, load.vaddr, 0, filesz, memsz, PAGE)
        body += load.data
    return ehdr + phdrs + notes + body
