"""Core files: what is taken, what is left out, and what is refused with one line."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import corewriter
import pytest
from corewriter import PF_R, PF_X, Load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memories import page

from pyksm.errors import InputError
from pyksm.targets.corefile import read_core
from pyksm.targets.memory import Memory, ProcessMemory, Vma

BASE = 0x7F0000000000
VDSO = 0x7FFF00000000


def some_core() -> bytes:
    loads = [
        Load(0x400000, page(1), flags=PF_R | PF_X),  # text of a program
        Load(0x600000, page(2) + page(3)),  # its data, written
        Load(0x800000, page(2) + bytes(4096) + page(4), memsz=5 * 4096),  # the heap
        Load(0x900000, page(8), flags=PF_R),  # anonymous, made read-only
        Load(BASE, page(5)),  # shared memory
        Load(VDSO, page(6), flags=PF_R | PF_X),
        Load(0xFFFFFFFFFF600000, page(7), flags=PF_R | PF_X),
    ]
    mapped = corewriter.files(
        [
            (0x400000, 0x401000, b"/bin/prog"),
            (0x600000, 0x602000, b"/bin/prog"),
            (BASE, BASE + 4096, b"/dev/shm/x"),
        ]
    )
    return corewriter.core(loads, corewriter.prpsinfo(77, b"prog") + corewriter.auxv(VDSO) + mapped)


def read(path: Path, data: bytes) -> Memory:
    path.write_bytes(data)
    memory = Memory()
    read_core(str(path), memory)
    return memory


def content(memory: Memory, process: ProcessMemory) -> dict[int, bytes]:
    pairs = zip(process.vpn.tolist(), process.content.tolist(), strict=True)
    return {vpn: memory.store[number] for vpn, number in pairs}


def test_takes_private_anonymous_memory_and_counts_the_rest(tmp_path: Path) -> None:
    memory = read(tmp_path / "core", some_core())
    (process,) = memory.processes
    assert (process.pid, process.name) == (77, "prog")
    assert content(memory, process) == {
        0x600: page(2),
        0x601: page(3),
        0x800: page(2),
        0x802: page(4),
        0x900: page(8),
    }
    assert len(memory.store) == 4
    assert process.excluded == {"file": 1, "shared": 1, "vdso": 2, "untouched": 1, "undumped": 2}
    assert process.vmas == [
        Vma(0x600000, 0x602000, label="/bin/prog"),
        Vma(0x800000, 0x805000),
        Vma(0x900000, 0x901000),
    ]
    assert (process.frame == -1).all()
    assert any("not say which frames are shared" in note for note in memory.notes)


def test_without_a_file_note_everything_counts_and_is_said(tmp_path: Path) -> None:
    memory = read(tmp_path / "c", corewriter.core([Load(0x400000, page(1), flags=PF_R | PF_X)]))
    assert memory.ptes == 1
    assert any("no NT_FILE" in note for note in memory.notes)


def test_a_last_page_cut_short_is_filled_with_zeros(tmp_path: Path) -> None:
    memory = read(tmp_path / "core", corewriter.core([Load(0x400000, page(1)[:100], memsz=4096)]))
    assert memory.store[0] == page(1)[:100] + bytes(3996)


def test_two_cores_are_two_processes_with_one_store(tmp_path: Path) -> None:
    memory = Memory()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(some_core())
        read_core(str(tmp_path / name), memory)
    assert (memory.ptes, memory.distinct, memory.origins) == (10, 4, 2)
    assert [p.origin for p in memory.processes] == [0, 1]


GOOD = [Load(0x400000, page(1))]
HUGE = 1 << 62

BAD = {
    "not a core": (corewriter.core(GOOD, e_type=2), "type ET_EXEC; expected a core"),
    "32-bit": (corewriter.core(GOOD, elfclass=1), ""),
    "aarch64": (corewriter.core(GOOD, machine=183), "EM_AARCH64; expected 64-bit"),
    "big-endian": (corewriter.core(GOOD, data=2), ""),
    "no memory": (corewriter.core([]), "no PT_LOAD"),
    "truncated": (some_core()[:-5000], "segment 6 at 0x7fff00000000: ends at byte"),
    "claims more": (
        corewriter.core([Load(0x400000, page(1), filesz=HUGE)]),
        "segment 1 at 0x400000: ends at byte",
    ),
    "beyond the file": (
        corewriter.core([Load(0x400000, page(1), offset=HUGE)]),
        "(truncated)",
    ),
    "misaligned": (corewriter.core([Load(0x400010, page(1))]), "not page aligned"),
    "wraps": (
        corewriter.core([Load((1 << 64) - 4096, page(1), memsz=8192)]),
        "past the last address",
    ),
    "overlap in memory": (
        corewriter.core([Load(0x400000, page(1) * 2), Load(0x401000, page(1))]),
        "segments 1 and 2 overlap in memory",
    ),
    "overlap in the file": (
        corewriter.core([Load(k << 12, page(1), offset=4096) for k in range(1, 4)]),
        "overlap in the file",
    ),
    "note too long": (
        corewriter.core(GOOD, b"\4\0\0\0\xff\xff\xff\xff\1\0\0\0CORE"),
        "past the segment's end",
    ),
    "file note lies": (corewriter.core(GOOD, corewriter.files([], count=HUGE)), "claims"),
    "half a header": (some_core()[:40], "damaged ELF file"),
    "phdrs cut off": (some_core()[:100], ""),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_cores_are_refused_with_one_line(tmp_path: Path, name: str) -> None:
    data, expected = BAD[name]
    path = tmp_path / "core"
    with pytest.raises(InputError) as caught:
        read(path, data)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert expected in line
    assert "\n" not in line


def test_missing_file() -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_core("/nonexistent/core", Memory())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_headers_never_do_anything_else(
    tmp_path: Path, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(some_core())
    for at, value in flips:
        data[at] = value
    # An InputError or a memory that the file can hold; any other exception fails the test.
    with contextlib.suppress(InputError):
        assert read(tmp_path / "core", bytes(data)).ptes <= len(data) // 4096


@pytest.mark.skipif(not shutil.which("gcore"), reason="gcore (gdb) is not installed")
def test_a_real_core_holds_what_the_process_held(tmp_path: Path) -> None:
    program = (
        "import ctypes, mmap, sys\n"
        "m = mmap.mmap(-1, 16 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for k in range(8): m[k * 4096 : (k + 1) * 4096] = (k + 1).to_bytes(8, 'little') * 512\n"
        "print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    # Where the suite runs under a preloaded sanitizer, gdb and what it dumps should not.
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain
    ) as process:
        assert process.stdout is not None
        address = int(process.stdout.readline())
        made = subprocess.run(
            ["gcore", "-o", str(tmp_path / "core"), str(process.pid)],
            capture_output=True,
            text=True,
            check=False,
            env=plain,
            timeout=60,
        )
        process.kill()
    path = tmp_path / f"core.{process.pid}"
    assert path.exists(), made.stderr
    memory = Memory()
    read_core(str(path), memory)
    (real,) = memory.processes
    assert real.pid == process.pid
    pages = content(memory, real)
    for k in range(8):
        assert pages[address // 4096 + k] == page(k + 1)
    assert address // 4096 + 8 not in pages
    assert memory.ptes > 100  # the interpreter itself
    assert real.excluded["file"] > 10
