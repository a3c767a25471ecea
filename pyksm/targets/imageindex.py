"""The index of an image: JSON written by :func:`index_of`, read and checked by the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pyksm.errors import InputError
from pyksm.targets.memory import (
    ADDRESS_FIRST,
    ADDRESS_LIMIT,
    EXCLUDED,
    PAGE_SIZE,
    Memory,
    ProcessMemory,
    Vma,
)

_MAX_PROCESSES = 1 << 16
_MAX_PTES = 1 << 28  #: of one process: 1 TiB
_MAX_NUMBER = 1 << 62
_MAX_TEXT = 4096


@dataclass
class Index:
    """What the index promises; ``ptes`` runs parallel to ``processes``."""

    processes: list[ProcessMemory]
    ptes: list[int]
    pages: int
    frames: int
    origins: int
    notes: list[str]


def index_of(memory: Memory) -> bytes:
    """The JSON text for the processes of ``memory``."""
    processes = [
        {
            "pid": p.pid,
            "name": p.name,
            "ppid": p.ppid,
            "started": p.started,
            "origin": p.origin,
            "swapped": p.swapped,
            "excluded": p.excluded,
            "vmas": [[v.start, v.end, v.mergeable, v.label[:_MAX_TEXT]] for v in p.vmas],
            "ptes": len(p.vpn) + len(p.zero_vpn),
        }
        for p in memory.processes
    ]
    return json.dumps(
        {
            "processes": processes,
            "pages": len(memory.store),
            "frames": memory.frames,
            "origins": memory.origins,
            "notes": memory.notes,
        }
    ).encode()


def parse_index(where: str, data: bytes) -> Index:
    """Check everything that can be checked without the other parts. InputError otherwise."""
    try:
        top = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not JSON; expected an object") from None
    reader = _Reader(where)
    origins = reader.number(top, "origins", _MAX_PROCESSES)
    entries = reader.items(top, "processes", _MAX_PROCESSES)
    processes, ptes = [], []
    for k, entry in enumerate(entries):
        one = _Reader(f"{where}: process {k}")
        processes.append(_process(one, entry, origins))
        ptes.append(one.number(entry, "ptes", _MAX_PTES))
    return Index(
        processes=processes,
        ptes=ptes,
        pages=reader.number(top, "pages", _MAX_PTES),
        frames=reader.number(top, "frames", _MAX_NUMBER),
        origins=origins,
        notes=[reader.text_of(note, "notes") for note in reader.items(top, "notes", 1000)],
    )


class _Reader:
    """Takes values out of parsed JSON; every mismatch is an InputError that says where."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, key: str, expected: str) -> InputError:
        return InputError(f"{self.where}: {key}: expected {expected}")

    def value(self, holder: Any, key: str) -> Any:
        if not isinstance(holder, dict) or key not in holder:
            raise self.fail(key, "to be present")
        return holder[key]

    def number(self, holder: Any, key: str, most: int) -> int:
        return self.number_of(self.value(holder, key), key, most)

    def number_of(self, value: Any, key: str, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.fail(key, f"a whole number from 0 to {most}")
        return value

    def text(self, holder: Any, key: str) -> str:
        return self.text_of(self.value(holder, key), key)

    def text_of(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise self.fail(key, f"text of at most {_MAX_TEXT} characters")
        return value

    def items(self, holder: Any, key: str, most: int) -> list[Any]:
        value = self.value(holder, key)
        if not isinstance(value, list) or len(value) > most:
            raise self.fail(key, f"a list of at most {most}")
        return value


def _process(reader: _Reader, entry: Any, origins: int) -> ProcessMemory:
    process = ProcessMemory(
        pid=reader.number(entry, "pid", 1 << 31),
        name=reader.text(entry, "name"),
        ppid=reader.number(entry, "ppid", 1 << 31),
        started=reader.number(entry, "started", _MAX_NUMBER),
        origin=reader.number(entry, "origin", max(origins - 1, 0)),
        swapped=reader.number(entry, "swapped", _MAX_PTES),
    )
    excluded = reader.value(entry, "excluded")
    if not isinstance(excluded, dict):
        raise reader.fail("excluded", "an object")
    for reason, pages in excluded.items():
        if reason not in EXCLUDED:
            raise reader.fail("excluded", f"one of {', '.join(EXCLUDED)}")
        process.exclude(reason, reader.number_of(pages, "excluded", _MAX_NUMBER))
    last = ADDRESS_FIRST
    for item in reader.items(entry, "vmas", 1 << 20):
        process.vmas.append(_vma(reader, item, last))
        last = process.vmas[-1].end
    return process


def _vma(reader: _Reader, item: Any, last: int) -> Vma:
    if not isinstance(item, list) or len(item) != 4 or not isinstance(item[2], bool):
        raise reader.fail("vmas", "[start, end, mergeable, label]")
    start = reader.number_of(item[0], "vmas", ADDRESS_LIMIT)
    end = reader.number_of(item[1], "vmas", ADDRESS_LIMIT)
    if start % PAGE_SIZE or end % PAGE_SIZE or start >= end:
        raise reader.fail("vmas", f"start < end, both multiples of {PAGE_SIZE}")
    if start < last:
        raise reader.fail("vmas", "mappings in order of address that do not overlap")
    return Vma(start, end, item[2], reader.text_of(item[3], "vmas"))
