"""Images: what is saved comes back, and nothing that does not hold together is believed."""

from __future__ import annotations

import json
import os
import resource
import stat
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memories
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyksm.errors import InputError
from pyksm.targets import image
from pyksm.targets.memory import Memory, Vma

INDEX, PTES, PAGES = 1, 2, 3
Part = tuple[int, bytes]


def small() -> Memory:
    """Two relatives and a stranger."""
    memory = Memory(notes=["made by hand"])
    memories.process(memory, {16: 1, 17: 2, 40: 0}, {16: 0}, zero=(18,), pid=10)
    memories.process(memory, {16: 1, 17: 3}, {16: 0}, pid=11, ppid=10)
    stranger = memories.process(memory, {20: 2}, vmas=[Vma(20 << 12, 30 << 12, True, "[heap]")])
    stranger.excluded = {"file": 7}
    stranger.swapped = 1
    return memory


def reload(memory: Memory, path: Path) -> Memory:
    image.save(memory, str(path))
    again = Memory()
    image.load(str(path), again)
    return again


def same(one: Memory, other: Memory) -> bool:
    """Equal as far as anybody can tell: contents by value, everything else by number."""
    if [one.frames, one.origins, one.notes] != [other.frames, other.origins, other.notes]:
        return False
    for a, b in zip(one.processes, other.processes, strict=True):
        scalars = ("pid", "name", "ppid", "started", "origin", "vmas", "swapped", "excluded")
        if any(getattr(a, name) != getattr(b, name) for name in scalars):
            return False
        if not all(
            np.array_equal(getattr(a, n), getattr(b, n)) for n in ("vpn", "frame", "zero_vpn")
        ):
            return False
        if one.store.join(a.content.tolist()) != other.store.join(b.content.tolist()):
            return False
    return True


def test_comes_back(tmp_path: Path) -> None:
    memory = small()
    again = reload(memory, tmp_path / "i")
    assert same(memory, again)
    assert len(again.store) == 4


def test_joins_what_was_there(tmp_path: Path) -> None:
    image.save(small(), str(tmp_path / "i"))
    memory = Memory()
    for _ in range(2):
        image.load(str(tmp_path / "i"), memory)
    assert len(memory.store) == 4
    assert [p.origin for p in memory.processes] == [0, 0, 0, 1, 1, 1]
    # The second family's frame is not the first one's.
    assert [int(p.frame.max()) for p in memory.processes] == [0, 0, -1, 1, 1, -1]
    assert memory.frames == 2
    assert memory.notes == ["made by hand"]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 2**35 - 1), st.integers(0, 40), max_size=20), max_size=4
    )
)
def test_any_memory_comes_back(tmp_path: Path, processes: list[dict[int, int]]) -> None:
    memory = Memory()
    for pages in processes:
        memories.process(memory, pages)
    assert same(memory, reload(memory, tmp_path / "i"))


def test_more_than_one_part_of_each_kind(tmp_path: Path) -> None:
    memory = Memory()
    memories.process(memory, {16 + k: k % 1500 for k in range(70_000)})
    assert same(memory, reload(memory, tmp_path / "i"))
    assert struct.unpack_from("<I", (tmp_path / "i").read_bytes(), 16)[0] == 1 + 2 + 2


# ---------------------------------------------------------------------------------- writing


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    image.save(small(), str(tmp_path / "i"))
    assert stat.S_IMODE(os.stat(tmp_path / "i").st_mode) == 0o600


def test_an_older_image_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "i"
    image.save(Memory(), str(path))
    assert same(small(), reload(small(), path))
    path.write_text("precious")
    for check in (lambda: image.save(small(), str(path)), lambda: image.check_writable(str(path))):
        with pytest.raises(InputError, match="exists and is not a pyksm image"):
            check()
    assert path.read_text() == "precious"
    for bad in (tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="not a regular file"):
            image.save(small(), str(bad))


def test_no_such_directory(tmp_path: Path) -> None:
    for check in (image.check_writable, lambda path: image.save(small(), path)):
        with pytest.raises(InputError, match="ENOENT"):
            check(str(tmp_path / "none" / "i"))


def test_a_write_that_fails_leaves_the_old_image_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "i"
    image.save(small(), str(path))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit of the process's own stands in for a full disk: write(2) fails with EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written: File too large \(EFBIG\)"):
            image.save(small(), str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["i"]


# ------------------------------------------------------------------------------------ damage


def test_every_truncation_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "i"
    image.save(small(), str(path))
    good = path.read_bytes()
    damaged = [good[:n] for n in range(len(good))] + [good + b"x"]
    damaged += [good[:n] + bytes([good[n] ^ 0x41]) + good[n + 1 :] for n in range(len(good))]
    for data in damaged:
        path.write_bytes(data)
        memory = Memory()
        with pytest.raises(InputError) as caught:
            image.load(str(path), memory)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert (memory.processes, memory.frames, memory.origins) == ([], 0, 0)


def forge(path: Path, parts: list[Part], raw: dict[int, int] | None = None) -> None:
    """An image with these parts and sound CRCs; ``raw`` overrides what parts claim to hold."""
    directory = body = b""
    for number, (kind, data) in enumerate(parts):
        stored = zlib.compress(data)
        size = (raw or {}).get(number, len(data))
        directory += struct.pack("<QQII", len(stored), size, zlib.crc32(stored), kind)
        body += stored
    head = struct.pack("<8sIII", image.MAGIC, 1, 4096, len(parts))
    crc = struct.pack("<I", zlib.crc32(head + directory))
    path.write_bytes(head + crc + directory + body)


def index(**changes: Any) -> dict[str, Any]:
    process = {
        "pid": 1,
        "name": "p",
        "ppid": 0,
        "started": 0,
        "origin": 0,
        "swapped": 0,
        "excluded": {},
        "vmas": [[0x10000, 0x20000, False, ""]],
        "ptes": 2,
    }
    process |= {k: v for k, v in changes.items() if k in process}
    top = {"processes": [process], "pages": 2, "frames": 1, "origins": 1, "notes": []}
    return top | {k: v for k, v in changes.items() if k in top}


def ptes(*rows: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<Qqq", *row) for row in rows)


GOOD_PTES = ptes((16, 0, -1), (17, 1, 0))
GOOD_PAGES = memories.page(1) + memories.page(2)


def parts(top: Any = None, table: bytes = GOOD_PTES, pages: bytes = GOOD_PAGES) -> list[Part]:
    data = top if isinstance(top, bytes) else json.dumps(index() if top is None else top).encode()
    return [(INDEX, data), (PTES, table), (PAGES, pages)]


def test_the_forger_can_make_a_good_one(tmp_path: Path) -> None:
    forge(tmp_path / "i", parts())
    memory = Memory()
    image.load(str(tmp_path / "i"), memory)
    assert memory.ptes == 2


HUGE = 1 << 40
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "index no JSON": (lambda p: forge(p, parts(b"{")), "index: not JSON"),
    "index deep": (lambda p: forge(p, parts(b"[" * 100_000)), "index: not JSON"),
    "index a list": (lambda p: forge(p, parts([])), "expected to be present"),
    "index empty": (lambda p: forge(p, parts({})), "expected to be present"),
    "pid text": (lambda p: forge(p, parts(index(pid="1"))), "process 0: pid: expected a whole"),
    "pid true": (lambda p: forge(p, parts(index(pid=True))), "process 0: pid: expected a whole"),
    "pid negative": (lambda p: forge(p, parts(index(pid=-1))), "pid: expected a whole number"),
    "name number": (lambda p: forge(p, parts(index(name=1))), "name: expected text"),
    "origin": (lambda p: forge(p, parts(index(origin=1))), "origin: expected"),
    "excluded": (lambda p: forge(p, parts(index(excluded={"x": 1}))), "excluded: expected one of"),
    "notes": (lambda p: forge(p, parts(index(notes=[1]))), "notes: expected text"),
    "vma backwards": (
        lambda p: forge(p, parts(index(vmas=[[0x20000, 0x10000, False, ""]]))),
        "start < end",
    ),
    "vma unaligned": (
        lambda p: forge(p, parts(index(vmas=[[0x10001, 0x20000, False, ""]]))),
        "multiples of 4096",
    ),
    "vmas overlap": (
        lambda p: forge(
            p,
            parts(index(vmas=[[0x10000, 0x20000, False, ""], [0x1F000, 0x21000, False, ""]])),
        ),
        "do not overlap",
    ),
    "vma at 0": (lambda p: forge(p, parts(index(vmas=[[0, 4096, False, ""]]))), "vmas: expected"),
    "vma too high": (
        lambda p: forge(p, parts(index(vmas=[[0x10000, 1 << 48, False, ""]]))),
        "vmas: expected",
    ),
    "vma shape": (lambda p: forge(p, parts(index(vmas=[[1, 2]]))), "[start, end, mergeable"),
    "ptes promised": (lambda p: forge(p, parts(index(ptes=HUGE))), "ptes: expected a whole"),
    "ptes too many": (lambda p: forge(p, parts(index(ptes=3))), "expected 72 of ptes"),
    "ptes not there": (
        lambda p: forge(p, parts(index(ptes=1 << 27))),
        "expected 1572864 of ptes",
    ),
    "pages promised": (lambda p: forge(p, parts(index(pages=5))), "expected 20480 of pages"),
    "no pages": (lambda p: forge(p, parts()[:2]), "promises more pages"),
    "extra part": (lambda p: forge(p, [*parts(), (PAGES, b"")]), "part 3: not in the index"),
    "no index": (lambda p: forge(p, parts()[1:]), "no index"),
    "no parts": (lambda p: forge(p, []), "no index"),
    "unknown kind": (lambda p: forge(p, [*parts(), (9, b"")]), "kind 9; expected one of"),
    "pte order": (
        lambda p: forge(p, parts(table=ptes((17, 0, -1), (16, 1, 0)))),
        "ptes of PID 1: page numbers not ascending",
    ),
    "pte twice": (lambda p: forge(p, parts(table=ptes((16, 0, -1), (16, 1, 0)))), "not ascending"),
    "pte outside": (
        lambda p: forge(p, parts(table=ptes((16, 0, -1), (32, 1, 0)))),
        "outside the mappings",
    ),
    "pte below": (
        lambda p: forge(p, parts(table=ptes((0, 0, -1), (16, 1, 0)))),
        "outside the mappings",
    ),
    "content index": (
        lambda p: forge(p, parts(table=ptes((16, 0, -1), (17, 2, 0)))),
        "content number outside -1..1",
    ),
    "content below": (
        lambda p: forge(p, parts(table=ptes((16, 0, -1), (17, -2, 0)))),
        "content number",
    ),
    "frame index": (
        lambda p: forge(p, parts(table=ptes((16, 0, -1), (17, 1, 1)))),
        "frame number outside -1..0",
    ),
    "zero page framed": (
        lambda p: forge(p, parts(table=ptes((16, 0, -1), (17, -1, 0)))),
        "frame number",
    ),
    "frame twice": (
        lambda p: forge(p, parts(table=ptes((16, 0, 0), (17, 1, 0)))),
        "frame 0 at two addresses",
    ),
    "page twice": (lambda p: forge(p, parts(pages=memories.page(1) * 2)), "occurred before"),
    "bomb": (
        lambda p: forge(p, [(INDEX, bytes(32 << 20)), *parts()[1:]], raw={0: 10}),
        "does not inflate to the 10 bytes",
    ),
    "raw too large": (lambda p: forge(p, parts(), raw={2: HUGE}), "expected at most 4194304"),
    "raw too small": (lambda p: forge(p, parts(), raw={0: 10_000}), "does not inflate"),
    "many parts": (
        lambda p: p.write_bytes(struct.pack("<8sIIII", image.MAGIC, 1, 4096, 1 << 31, 0)),
        "directory of 2147483648 parts",
    ),
    "version": (
        lambda p: p.write_bytes(struct.pack("<8sIIII", image.MAGIC, 2, 4096, 0, 0)),
        "image version 2; expected 1",
    ),
    "page size": (
        lambda p: p.write_bytes(struct.pack("<8sIIII", image.MAGIC, 1, 65536, 0, 0)),
        "pages of 65536 bytes; expected 4096",
    ),
    "foreign": (lambda p: p.write_bytes(b"PK\3\4" + bytes(100)), "not a pyksm image"),
    "empty": (lambda p: p.write_bytes(b""), "not a pyksm image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused_cheaply(tmp_path: Path, name: str) -> None:
    make, expected = HOSTILE[name]
    path = tmp_path / "i"
    make(path)
    memory = Memory()
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            image.load(str(path), memory)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert peak < 4 << 20
    assert memory.processes == []
