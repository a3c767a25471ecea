r"""Saved images: what ``pyksm capture`` writes. All numbers are little-endian.

===========  ====  ============================================================================
offset       size  what
===========  ====  ============================================================================
0            8     magic ``\x89PYKSM\r\n`` (a text-mode copy damages it visibly)
8            4     version, 1
12           4     page size, 4096
16           4     number of parts, n
20           4     CRC-32 of the first 20 bytes and the directory
24           24 n  directory: for each part its stored bytes (u64), its raw bytes (u64), CRC-32 of
                   the stored bytes (u32), kind (u32): 1 index, 2 ptes, 3 pages
24 + 24 n          the parts, in order, with nothing between, and nothing after the last
===========  ====  ============================================================================

Each part is a zlib stream. Order: one index, then for each process its ptes in parts of at most
65,536, then the pages in parts of at most 1,024.

* index: JSON, ``{"processes": [{"pid", "name", "ppid", "started", "origin", "swapped",
  "excluded": {reason: pages}, "vmas": [[start, end, mergeable, label], ...], "ptes": count},
  ...], "pages": count, "frames": count, "origins": count, "notes": [text, ...]}``.
* ptes: 24 bytes each, ascending by page number within a process: page number (u64), page of the
  store (i64, -1: the zero page), frame shared with other processes (i64, -1: none).
* pages: 4,096 bytes each, every content once.

A reader believes nothing: every claim is checked before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pyksm.errors import InputError
from pyksm.targets.imageindex import Index, index_of, parse_index
from pyksm.targets.memory import (
    PAGE_SHIFT,
    PAGE_SIZE,
    UNSHARED,
    Memory,
    PageStore,
    ProcessMemory,
)

MAGIC = b"\x89PYKSM\r\n"
VERSION = 1

_HEAD = struct.Struct("<8sIII")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<QQII")
_PTE = np.dtype([("vpn", "<u8"), ("content", "<i8"), ("frame", "<i8")])
_INDEX, _PTES, _PAGES = 1, 2, 3
_KINDS = {_INDEX: "index", _PTES: "ptes", _PAGES: "pages"}
_PTES_A_PART = 1 << 16
_PAGES_A_PART = 1 << 10
#: Most raw bytes that a part of each kind may have.
_RAW_LIMIT = {
    _INDEX: 64 << 20,
    _PTES: _PTES_A_PART * _PTE.itemsize,
    _PAGES: _PAGES_A_PART * PAGE_SIZE,
}
_ZLIB_LEVEL = 1  # memory images are big, and most of the gain is in the first level


@dataclass(frozen=True)
class _Part:
    number: int
    kind: int
    offset: int
    stored: int
    raw: int
    crc: int


# ------------------------------------------------------------------------------------- writing


def save(memory: Memory, path: str) -> int:
    """Write an image; its size in bytes.

    It appears under its name complete or not at all. An older image is replaced; InputError
    where something else is in the way or the disk is full.
    """
    _check_target(path)
    folder = os.path.dirname(path) or "."
    try:
        fd, temporary = tempfile.mkstemp(prefix=".pyksm-", dir=folder)
    except OSError as exc:
        raise _unwritable(path, exc) from None
    try:
        with os.fdopen(fd, "wb") as file:
            size = _write(memory, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as exc:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(exc, OSError):
            raise _unwritable(path, exc) from None
        raise
    return size


def check_writable(path: str) -> None:
    """InputError where :func:`save` could not write to ``path``: before the work, not after."""
    _check_target(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InputError(f"{path}: cannot be written: no directory {folder} (ENOENT)")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: cannot be written: directory not ours to write (EACCES)")


def _check_target(path: str) -> None:
    if "\0" in path:
        raise InputError(f"{path!r}: not a file name")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _unwritable(path, exc) from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: not a regular file; expected a new name or an older image")
    if not is_image(path):
        raise InputError(f"{path}: exists and is not a pyksm image; it is left alone")


def _unwritable(path: str, exc: OSError) -> InputError:
    code = errno.errorcode.get(exc.errno or 0, "?")
    return InputError(f"{path}: cannot be written: {exc.strerror} ({code})")


def _write(memory: Memory, file: BinaryIO) -> int:
    blobs = list(_part_sizes(memory))
    file.seek(_HEAD.size + _CRC.size + _ENTRY.size * len(blobs))
    directory = b""
    for kind, raw in _parts(memory):
        stored = zlib.compress(raw, _ZLIB_LEVEL)
        directory += _ENTRY.pack(len(stored), len(raw), zlib.crc32(stored), kind)
        file.write(stored)
    size = file.tell()
    head = _HEAD.pack(MAGIC, VERSION, PAGE_SIZE, len(blobs))
    file.seek(0)
    file.write(head + _CRC.pack(zlib.crc32(head + directory)) + directory)
    return size


def _part_sizes(memory: Memory) -> Iterator[int]:
    """One item for each part that :func:`_parts` will make."""
    yield 1
    for process in memory.processes:
        yield from range(0, len(process.vpn) + len(process.zero_vpn), _PTES_A_PART)
    yield from range(0, len(memory.store), _PAGES_A_PART)


def _parts(memory: Memory) -> Iterator[tuple[int, bytes]]:
    yield _INDEX, index_of(memory)
    for process in memory.processes:
        table = _table_of(process)
        for first in range(0, len(table), _PTES_A_PART):
            yield _PTES, table[first : first + _PTES_A_PART].tobytes()
    count = len(memory.store)
    for first in range(0, count, _PAGES_A_PART):
        yield _PAGES, memory.store.join(range(first, min(first + _PAGES_A_PART, count)))


def _table_of(process: ProcessMemory) -> NDArray[np.void]:
    table = np.empty(len(process.vpn) + len(process.zero_vpn), dtype=_PTE)
    table["vpn"] = np.concatenate([process.vpn, process.zero_vpn])
    zeros = np.full(len(process.zero_vpn), -1, dtype=np.int64)
    table["content"] = np.concatenate([process.content, zeros])
    table["frame"] = np.concatenate([process.frame, zeros])
    return table[np.argsort(table["vpn"])]


# ------------------------------------------------------------------------------------- reading


def is_image(path: str) -> bool:
    """Whether the file begins as an image does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load(path: str, into: Memory) -> None:
    """Add the processes of an image to ``into``.

    InputError with one line (file, part, what was expected) where it does not hold together;
    ``into`` is then unchanged but for contents that nobody refers to.
    """
    try:
        with open(path, "rb") as file:
            parts = _directory(path, file)
            index = parse_index(f"{path}: index", _raw(path, file, parts[0]))
            processes = _read_processes(path, file, parts, index)
            numbers = _read_pages(path, file, parts, index, into.store)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from None
    for process in processes:
        process.content = numbers[process.content]
        process.frame[process.frame != UNSHARED] += into.frames
        process.origin += into.origins
    into.processes += processes
    into.frames += index.frames
    into.origins += index.origins
    for note in index.notes:
        into.note(note)


def _directory(path: str, file: BinaryIO) -> list[_Part]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        raise InputError(f"{path}: not a pyksm image; expected magic {MAGIC!r}")
    _, version, page_size, count = _HEAD.unpack(head)
    if version != VERSION:
        raise InputError(f"{path}: image version {version}; expected {VERSION}")
    if page_size != PAGE_SIZE:
        raise InputError(f"{path}: pages of {page_size} bytes; expected {PAGE_SIZE}")
    length = count * _ENTRY.size
    if _HEAD.size + _CRC.size + length > size:
        raise InputError(f"{path}: directory of {count} parts; file has {size} bytes (truncated)")
    crc_bytes = file.read(_CRC.size)
    directory = file.read(length)
    if zlib.crc32(head + directory) != _CRC.unpack(crc_bytes)[0]:
        raise InputError(f"{path}: header and directory: CRC does not match (corrupted)")
    parts = []
    offset = _HEAD.size + _CRC.size + length
    for number, (stored, raw, crc, kind) in enumerate(_ENTRY.iter_unpack(directory)):
        parts.append(_Part(number, kind, offset, stored, raw, crc))
        _check_part(path, parts[-1], size)
        offset += stored
    if offset != size:
        raise InputError(f"{path}: {size - offset} bytes after the last part; expected none")
    if not parts or parts[0].kind != _INDEX:
        raise InputError(f"{path}: no index; expected it as part 0")
    return parts


def _check_part(path: str, part: _Part, size: int) -> None:
    where = f"{path}: part {part.number}"
    if part.kind not in _KINDS:
        raise InputError(f"{where}: kind {part.kind}; expected one of {sorted(_KINDS)}")
    if part.offset + part.stored > size:
        raise InputError(
            f"{where} ({_KINDS[part.kind]}): ends at byte {part.offset + part.stored}, "
            f"file has {size} (truncated)"
        )
    if part.raw > _RAW_LIMIT[part.kind]:
        raise InputError(
            f"{where} ({_KINDS[part.kind]}): {part.raw} raw bytes; "
            f"expected at most {_RAW_LIMIT[part.kind]}"
        )


def _raw(path: str, file: BinaryIO, part: _Part) -> bytes:
    where = f"{path}: part {part.number} ({_KINDS[part.kind]})"
    file.seek(part.offset)
    stored = file.read(part.stored)
    if len(stored) != part.stored:
        raise InputError(f"{where}: truncated")
    if zlib.crc32(stored) != part.crc:
        raise InputError(f"{where}: CRC does not match (corrupted)")
    stream = zlib.decompressobj()
    try:
        # One byte more than promised would already be wrong; never inflate beyond that.
        raw = stream.decompress(stored, part.raw + 1)
    except zlib.error as exc:
        raise InputError(f"{where}: not a zlib stream: {exc}") from None
    if len(raw) != part.raw or not stream.eof or stream.unused_data:
        raise InputError(f"{where}: does not inflate to the {part.raw} bytes it promises")
    return raw


def _sequence(path: str, parts: list[_Part], index: Index) -> list[list[_Part]]:
    """The pte parts of each process, then the page parts; InputError where they do not fit."""
    rest = iter(parts[1:])
    wanted = [(_PTES, ptes, _PTES_A_PART, _PTE.itemsize) for ptes in index.ptes]
    wanted.append((_PAGES, index.pages, _PAGES_A_PART, PAGE_SIZE))
    groups: list[list[_Part]] = []
    for kind, count, most, width in wanted:
        group = []
        for first in range(0, count, most):
            part = next(rest, None)
            if part is None:
                raise InputError(f"{path}: index promises more {_KINDS[kind]} than there are parts")
            raw = min(most, count - first) * width
            if (part.kind, part.raw) != (kind, raw):
                raise InputError(
                    f"{path}: part {part.number}: {part.raw} bytes of {_KINDS[part.kind]}; "
                    f"expected {raw} of {_KINDS[kind]}"
                )
            group.append(part)
        groups.append(group)
    if (extra := next(rest, None)) is not None:
        raise InputError(f"{path}: part {extra.number}: not in the index; expected no more parts")
    return groups


def _read_processes(
    path: str, file: BinaryIO, parts: list[_Part], index: Index
) -> list[ProcessMemory]:
    groups = _sequence(path, parts, index)
    owner: dict[int, tuple[int, int]] = {}
    for process, group in zip(index.processes, groups, strict=False):
        where = f"{path}: ptes of PID {process.pid}"
        tables = [np.frombuffer(_raw(path, file, part), dtype=_PTE) for part in group]
        table = np.concatenate([np.empty(0, dtype=_PTE), *tables])
        _check_table(where, table, process, index)
        is_zero = table["content"] < 0
        process.vpn = table["vpn"][~is_zero].astype(np.uint64)
        process.content = table["content"][~is_zero].astype(np.int64)
        process.frame = table["frame"][~is_zero].astype(np.int64)
        process.zero_vpn = table["vpn"][is_zero].astype(np.uint64)
        _check_frames(where, process, owner)
    return index.processes


def _check_table(where: str, table: NDArray[np.void], process: ProcessMemory, index: Index) -> None:
    vpn, content, frame = table["vpn"], table["content"], table["frame"]
    if np.any(vpn[1:] <= vpn[:-1]):
        raise InputError(f"{where}: page numbers not ascending")
    if np.any((content < -1) | (content >= index.pages)):
        raise InputError(f"{where}: a content number outside -1..{index.pages - 1}")
    if np.any((frame < -1) | (frame >= index.frames)) or np.any(frame[content < 0] != -1):
        raise InputError(f"{where}: a frame number outside -1..{index.frames - 1}")
    starts = np.array([v.start >> PAGE_SHIFT for v in process.vmas], dtype=np.uint64)
    ends = np.array([v.end >> PAGE_SHIFT for v in process.vmas], dtype=np.uint64)
    at = np.searchsorted(starts, vpn, side="right") - 1
    if len(vpn) and (np.any(at < 0) or np.any(vpn >= ends[at])):
        raise InputError(f"{where}: a page outside the mappings of the process")


def _check_frames(where: str, process: ProcessMemory, owner: dict[int, tuple[int, int]]) -> None:
    """A frame has one content and one address, whoever maps it."""
    shared = np.flatnonzero(process.frame != UNSHARED)
    columns = (process.frame[shared], process.vpn[shared], process.content[shared])
    for frame, vpn, content in zip(*(c.tolist() for c in columns), strict=True):
        if owner.setdefault(frame, (vpn, content)) != (vpn, content):
            raise InputError(f"{where}: frame {frame} at two addresses or with two contents")


def _read_pages(
    path: str, file: BinaryIO, parts: list[_Part], index: Index, store: PageStore
) -> NDArray[np.int64]:
    """Numbers in ``store`` of the image's pages. A repeated page is refused: it would be a bomb."""
    numbers = np.empty(index.pages, dtype=np.int64)
    seen: set[int] = set()
    first = 0
    for part in _sequence(path, parts, index)[-1]:
        interned = store.intern_all(_raw(path, file, part))
        seen.update(interned)
        numbers[first : first + len(interned)] = interned
        first += len(interned)
        if len(seen) != first:
            raise InputError(f"{path}: part {part.number} (pages): a page that occurred before")
    return numbers
