"""Capture of running processes: contents, sharing, what is left out, and who is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memories import page

import pyksm
from pyksm.errors import InputError
from pyksm.targets import live, own, procfs
from pyksm.targets.choose import read_targets, source_kind
from pyksm.targets.live import capture, frozen
from pyksm.targets.memory import Memory, ProcessMemory, Vma
from pyksm.targets.own import interpreters

ROOT = os.geteuid() == 0

# A region of 8 pages: 4 written, 1 read, 3 never touched; advised mergeable. A private mapping of
# a file, one page of two written. A shared mapping. Then a child that writes page 1 of the region.
PROGRAM = r"""
import ctypes, mmap, os, sys, tempfile
def page(number): return number.to_bytes(8, "little") * 512
def address(m): return ctypes.addressof(ctypes.c_char.from_buffer(m))
region = mmap.mmap(-1, 8 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for k in range(4): region[k * 4096 : (k + 1) * 4096] = page(k + 1)
region[4 * 4096]
ctypes.CDLL(None).madvise(ctypes.c_void_p(address(region)), ctypes.c_size_t(8 * 4096), 12)
with tempfile.TemporaryFile() as file:
    file.write(page(50) + page(51))
    file.flush()
    filed = mmap.mmap(file.fileno(), 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
filed[0:8192]
filed[0:4096] = page(60)
shared = mmap.mmap(-1, 4096)
shared[0:4096] = page(70)
if (child := os.fork()) == 0:
    region[4096:8192] = page(9)
    os.write(1, b"\n")
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), child, address(region), address(filed), address(shared), flush=True)
sys.stdin.read()
"""


@dataclass
class Pair:
    parent: int
    child: int
    region: int  #: page numbers
    filed: int
    shared: int


@contextlib.contextmanager
def running() -> Iterator[Pair]:
    """The program above, parent and child waiting."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        parent, child, *addresses = map(int, b" ".join(lines).split())
        try:
            yield Pair(parent, child, *(address // 4096 for address in addresses))
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running() as made:
        yield made


def contents(memory: Memory, process: ProcessMemory) -> dict[int, bytes]:
    pairs = zip(process.vpn.tolist(), process.content.tolist(), strict=True)
    return {vpn: memory.store[number] for vpn, number in pairs}


def test_contents_and_what_is_left_out(pair: Pair) -> None:
    memory = Memory()
    capture([pair.parent, pair.child], memory, stop=True)
    parent, child = memory.processes
    assert (parent.pid, child.pid, child.ppid) == (pair.parent, pair.child, pair.parent)
    assert parent.started <= child.started
    ours, theirs = contents(memory, parent), contents(memory, child)
    for k in range(4):
        assert ours[pair.region + k] == page(k + 1)
        assert theirs[pair.region + k] == page(9 if k == 1 else k + 1)
    for k in range(4, 8):
        assert pair.region + k not in ours
    assert ours[pair.filed] == page(60)  # written: anonymous now
    assert pair.filed + 1 not in ours  # still the file's
    assert pair.shared not in ours
    assert parent.excluded["file"] > 0
    assert parent.excluded["shared"] > 0
    assert parent.excluded["vdso"] > 0
    assert "vanished" not in parent.excluded
    (vma,) = [v for v in parent.vmas if v.start <= pair.region * 4096 < v.end]
    assert vma.mergeable
    assert sum(v.mergeable for v in parent.vmas) == 1
    assert live.TORN not in memory.notes


@pytest.mark.skipif(not ROOT, reason="frame numbers need CAP_SYS_ADMIN; the other half runs below")
def test_sharing_as_root(pair: Pair) -> None:
    memory = Memory()
    capture([pair.parent, pair.child], memory)
    frames = [dict(zip(p.vpn.tolist(), p.frame.tolist(), strict=True)) for p in memory.processes]
    for k in (0, 2, 3):
        shared = {f[pair.region + k] for f in frames}
        assert len(shared) == 1
        assert shared != {-1}
    assert [f[pair.region + 1] for f in frames] == [-1, -1]
    assert [pair.region + 4 in p.zero_vpn for p in memory.processes] == [True, True]
    assert memory.frames == len({f for f in frames[0].values() if f >= 0})
    assert live.TORN in memory.notes
    assert live.NO_PFNS not in memory.notes


def test_a_page_that_vanishes_is_counted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = procfs.ProcessFiles.read_pages

    def some(self: procfs.ProcessFiles, vpn: int, count: int) -> bytes | None:
        return None if vpn <= pair.region + 2 < vpn + count else real(self, vpn, count)

    monkeypatch.setattr(procfs.ProcessFiles, "read_pages", some)
    memory = Memory()
    capture([pair.parent], memory)
    (process,) = memory.processes
    assert process.excluded["vanished"] == 1
    pages = contents(memory, process)
    assert pair.region + 2 not in pages
    assert pages[pair.region + 3] == page(4)


SPARSE = r"""
import ctypes, mmap, sys
pages = 1 << 30  # 4 TiB of addresses: entry by entry that would be 8 GiB of pagemap
region = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
for k in range(0, pages, pages // 8):
    region[k * 4096 : (k + 1) * 4096] = (k + 1).to_bytes(8, "little") * 512
print(ctypes.addressof(ctypes.c_char.from_buffer(region)) // 4096, flush=True)
sys.stdin.read()
"""


def test_a_large_reservation_is_not_read_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SPARSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        with procfs.ProcessFiles(process.pid) as files:
            if files._occupied(Vma(first << 12, (first + 1) << 12)) is None:
                pytest.skip("this kernel has no PAGEMAP_SCAN, so every entry is read")
        memory = Memory()
        capture([process.pid], memory)
        # Both ways of looking see the same of a mapping that both can read.
        region = Vma(first << 12, (first + (1 << 19)) << 12)
        with procfs.ProcessFiles(process.pid) as files:
            vpn, entry = files.pagemap(region)
            monkeypatch.setattr(procfs, "_SPARSE_BYTES", 1 << 60)
            every, entries = files.pagemap(region)
        process.kill()
    pages = contents(memory, memory.processes[0])
    wanted = {first + k: page(k + 1) for k in range(0, 1 << 30, 1 << 27)}
    assert {vpn: pages.get(vpn) for vpn in wanted} == wanted
    assert len(every) == 1 << 19
    assert vpn.tolist() == every[entries & np.uint64(3 << 62) != 0].tolist()
    assert entry.tolist() == entries[entries & np.uint64(3 << 62) != 0].tolist()


def test_stopped_while_read_and_only_then(pair: Pair) -> None:
    _await_sleep(pair.parent)
    with frozen([pair.parent, pair.child]):
        assert procfs.process_state(pair.parent) == "T"
        # What was stopped before stays so.
        with frozen([pair.parent]):
            pass
        assert procfs.process_state(pair.parent) == "T"
    with pytest.raises(RuntimeError), frozen([pair.parent]):
        raise RuntimeError
    _await_sleep(pair.parent)


def _await_sleep(pid: int) -> None:
    deadline = time.monotonic() + 5
    while procfs.process_state(pid) != "S":
        assert time.monotonic() < deadline


# ----------------------------------------------------------------------- who is refused


def refusal(*pids: int, stop: bool = False) -> str:
    memory = Memory()
    with pytest.raises(InputError) as caught:
        capture(pids, memory, stop=stop)
    assert not memory.processes
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gone(pair: Pair) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert refusal(pair.parent, process.pid) == f"PID {process.pid}: no such process (ESRCH)"


def test_zombie() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert "has ended" in refusal(process.pid)
    process.wait()


def test_kernel_thread_and_thread() -> None:
    with pytest.raises(InputError, match="a kernel thread; expected a process"):
        procfs._check_has_memory(2, {"Name": "kthreadd", "State": "S (sleeping)", "Tgid": "2"})
    with pytest.raises(InputError, match="a thread; expected a process, here 40"):
        procfs._check_has_memory(41, {"State": "S", "Tgid": "40", "VmSize": "1 kB"})


@pytest.mark.skipif(not Path("/proc/2/status").exists(), reason="no kernel threads to be seen")
def test_a_real_kernel_thread() -> None:
    assert "a kernel thread" in refusal(2)


def test_ourselves_and_twice(pair: Pair) -> None:
    assert "this is pyksm itself" in refusal(os.getpid(), stop=True)
    assert "named twice" in refusal(pair.parent, pair.parent)


def test_ended_while_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as made:
        real = live._read_contents

        def killer(*args: Any) -> None:
            real(*args)
            os.kill(made.child, signal.SIGKILL)
            time.sleep(0.1)

        monkeypatch.setattr(live, "_read_contents", killer)
        assert refusal(made.parent, made.child) == (
            f"PID {made.child}: ended while it was being read (ESRCH)"
        )


# ----------------------------------------------------------------------- without privileges

# Drops to an ordinary user (if it is root), then captures a fork pair of its own, and tries one
# of the user it was.
UNPRIVILEGED = r"""
import ctypes, json, mmap, os, sys
sys.path[:0] = json.loads(sys.argv[2])
from pyksm.errors import InputError
from pyksm.targets.live import capture
from pyksm.targets.memory import Memory
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    # After a change of user a process belongs to root in /proc until it says otherwise.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
region = mmap.mmap(-1, 4 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
region[0:4096] = b"x" * 4096
region[4096]
at = ctypes.addressof(ctypes.c_char.from_buffer(region)) // 4096
inlet, outlet = os.pipe()
pids = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        os.close(outlet)
        os.read(inlet, 1)
        os._exit(0)
    pids.append(pid)
memory = Memory()
capture(pids, memory, stop=True)
try:
    capture([int(sys.argv[1])], Memory())
    refused = None
except InputError as exc:
    refused = str(exc)
print(json.dumps({
    "notes": memory.notes,
    "framed": [int((p.frame >= 0).sum()) for p in memory.processes],
    "zero": [at + 1 in p.zero_vpn for p in memory.processes],
    "has": [at in p.vpn for p in memory.processes],
    "refused": refused,
}))
"""


def test_without_privileges() -> None:
    # Modules are loaded before the privileges go, from wherever this process has them.
    path = json.dumps([str(Path(pyksm.__file__).parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(os.getpid()), path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["notes"] == [live.NO_PFNS]
    assert answer["framed"] == [0, 0]
    assert answer["zero"] == [True, True]
    assert answer["has"] == [True, True]
    if ROOT:
        assert answer["refused"] in (
            f"PID {os.getpid()}: not ours to read (EACCES)",
            f"PID {os.getpid()}: not ours to read (EPERM)",
        )


# ----------------------------------------------------------------------------- pieces of /proc

SMAPS = """\
00400000-00402000 r-xp 00000000 fe:00 131 /bin/a name with: colons (deleted)
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00600000-00700000 rw-p 00000000 00:00 0
Rss:                  40 kB
Anonymous:            36 kB
Swap:                 12 kB
VmFlags: rd wr mr mw me ac mg
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0                          [vvar]
VmFlags: rd mr pf io de dd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex
"""


def test_smaps() -> None:
    text, heap, vvar, vsyscall = procfs.parse_smaps(SMAPS)
    assert text.vma == Vma(0x400000, 0x402000, label="/bin/a name with: colons (deleted)")
    assert (text.rss, text.anonymous, text.swap) == (2, 0, 0)
    assert heap.vma == Vma(0x600000, 0x700000, mergeable=True)
    assert (heap.rss, heap.anonymous, heap.swap) == (10, 9, 3)
    assert [m.exclusion() for m in (text, heap, vvar, vsyscall)] == [None, None, "vdso", "vdso"]


@pytest.mark.parametrize(
    ("perms", "flags", "reason"),
    [
        ("rw-s", "", "shared"),
        ("rw-p", "io", "device"),
        ("rw-p", "pf", "device"),
        ("rw-p", "ht", "hugetlb"),
    ],
)
def test_exclusions(perms: str, flags: str, reason: str) -> None:
    mapping = procfs.Mapping(Vma(4096, 8192), perms, 1, 1, 0, frozenset(flags.split()))
    assert mapping.exclusion() == reason
    for bad in (Vma(0, 8192), Vma(1 << 46, (1 << 47) + 4096)):
        high = procfs.Mapping(bad, "rw-p", 1, 1, 0, frozenset())
        assert high.exclusion() == "high"


class Tables:
    """What _assign_frames looks at, without a process behind it."""

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        self.vpn = np.array([vpn for vpn, _ in rows], dtype=np.uint64)
        self.where = np.array([pfn for _, pfn in rows], dtype=np.uint64)
        self.present = np.ones(len(rows), dtype=bool)
        self.many = self.present
        self.zero = np.zeros(len(rows), dtype=bool)
        self.zero_known = False
        self.frame = np.full(len(rows), -1)


def test_frames_that_are_shared_get_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {90: procfs.KPF_ZERO_PAGE, 91: procfs.KPF_KSM}
    monkeypatch.setattr(
        procfs,
        "page_flags",
        lambda pfns: np.array([flags.get(int(p), 0) for p in pfns], dtype=np.uint64),
    )
    tables: Any = [
        Tables([(1, 10), (2, 20), (3, 30), (4, 90), (5, 91), (6, 60)]),
        Tables([(1, 10), (2, 21), (3, 30), (4, 90), (5, 91), (7, 60)]),
        Tables([(1, 10), (8, 0)]),
    ]
    notes = live._assign_frames(tables, 100)
    assert [t.frame.tolist() for t in tables] == [
        [100, -1, 101, -1, -1, -1],
        [100, -1, 101, -1, -1, -1],
        [100, -1],
    ]
    assert tables[0].zero.tolist() == [False, False, False, True, False, False]
    assert notes == [
        "2 pages are KSM pages on this host: loaded as pages of their own",
        live.MOVED.format(2),
    ]


# ------------------------------------------------------------------ own interpreters, targets


def alive(pid: int) -> bool:
    try:
        return procfs.process_state(pid) not in "ZX"
    except InputError:
        return False


def test_own_interpreters_end_however_the_block_is_left() -> None:
    with contextlib.suppress(KeyboardInterrupt), interpreters(2) as pids:
        assert len(pids) == 3
        assert all(map(alive, pids))
        raise KeyboardInterrupt
    assert not any(map(alive, pids))


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_own_interpreters_have_a_limit(count: int) -> None:
    with pytest.raises(InputError, match="expected 1 to 1000"), interpreters(count):
        pass


def test_own_interpreters_are_the_default_target() -> None:
    memory = read_targets([], procs=1)
    assert len(memory.processes) == 2
    assert memory.ptes > 2000
    assert memory.distinct < memory.ptes
    assert live.TORN not in memory.notes


def test_targets_of_all_kinds(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="neither a pyksm image nor an ELF core file"):
        read_targets([str(tmp_path / "text")])
    with pytest.raises(InputError, match="not a regular file"):
        read_targets([str(tmp_path)])
    with pytest.raises(InputError, match="No such file"):
        read_targets([str(tmp_path / "none")])
    with pytest.raises(InputError, match="not a file name"):
        read_targets(["a\0b"])
    for bad in ("0", "99999999999999999999"):
        with pytest.raises(InputError, match="not a PID; expected 1 to 2147483647"):
            read_targets([bad])
    assert source_kind([]) == "own"
    assert source_kind(["12"]) == "pids"
    assert source_kind(["x"]) == "files"
    assert source_kind(["12", "x"]) == "mixed"


def kernel() -> tuple[int, ...]:
    return tuple(int(each) for each in os.uname().release.split(".")[:2])


@pytest.mark.skipif(not ROOT or kernel() < (6, 4), reason="PR_SET_MEMORY_MERGE: root, Linux 6.4")
def test_mergeable_interpreters_and_what_ksmd_would_see_of_them() -> None:
    memory = Memory()
    with interpreters(1, mergeable=True) as pids:
        capture(pids, memory, stop=True)
    parent, child = memory.processes
    for process in (parent, child):  # inherited by fork
        assert process.vmas
        assert all(vma.mergeable for vma in process.vmas)
        labels = {vma.label for vma in process.vmas}
        assert {"[heap]", "[stack]"} <= labels


def test_mergeable_interpreters_of_older_kernels() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-c", own._PROGRAM, "0", "0", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        pid = own._await(process)
        mappings = procfs.parse_smaps(Path(f"/proc/{pid}/smaps").read_text())
        assert process.stdin is not None
        process.stdin.close()
    writable = [each for each in mappings if each.perms == "rw-p"]
    assert {"[heap]", "[stack]"} <= {each.vma.label for each in writable}
    assert sum(not each.vma.mergeable for each in writable) <= 2  # made by advising itself


MOVED = r"""
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
def anonymous(size): return libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
size = 16 * 4096
old, new = anonymous(size), anonymous(size)
ctypes.memset(old, 7, size)
if (child := os.fork()) == 0:
    args = ctypes.c_void_p(old), ctypes.c_size_t(size), ctypes.c_size_t(size), 3
    libc.mremap(*args, ctypes.c_void_p(new))
    os.write(1, b"\n")
    sys.stdin.read()
    os._exit(0)
huge = (anonymous(4 << 20) + (2 << 20) - 1) & -(2 << 20)
libc.madvise(ctypes.c_void_p(huge), ctypes.c_size_t(2 << 20), 14)
ctypes.memset(huge, 8, 4096)
print(os.getpid(), child, huge, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not ROOT, reason="frame numbers need CAP_SYS_ADMIN")
def test_what_cannot_be_loaded_as_it_is_is_said() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MOVED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        parent, child, huge = map(int, b" ".join(lines).split())
        memory = Memory()
        capture([parent, child], memory, stop=True)
        smaps = Path(f"/proc/{parent}/smaps").read_text()
        os.kill(child, signal.SIGKILL)
        process.kill()
    moved = [note for note in memory.notes if "at other addresses" in note]
    assert moved == [live.MOVED.format(32)]
    pages = sum(mapping.huge for mapping in procfs.parse_smaps(smaps))
    told = [note for note in memory.notes if "huge" in note]
    assert told == ([live.HUGE.format(pages)] if pages else [])
    here = [vpn for vpn in memory.processes[0].vpn.tolist() if 0 <= vpn - (huge >> 12) < 512]
    assert len(here) == (512 if pages else 1)
