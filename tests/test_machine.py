"""The Python face, on both engines."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pyksm
from pyksm import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    PAGE_DTYPE,
    PROT_READ,
    PROT_WRITE,
    InputError,
    Machine,
    MachineError,
)

PAGE = 4096


@pytest.fixture
def m(engine: str) -> Iterator[Machine]:
    with Machine(engine, nodes=2, frames=512) as machine:
        yield machine
        assert machine.census() == []


def refused(code: int) -> pytest.RaisesExc[MachineError]:
    return pytest.RaisesExc(MachineError, check=lambda error: error.errno == code)


def test_contents(m: Machine) -> None:
    region = m.spawn().mmap(4)
    assert len(region) == 4
    assert region.states == "...."
    region[0] = b"short"
    region[1:3] = bytes([7]) * (2 * PAGE)
    assert region.states == "PPP."
    assert region[0].read() == b"short".ljust(PAGE, b"\0")
    region.write(b"across", PAGE - 3)
    assert region.read(6, PAGE - 3) == b"across"
    assert region.read(2, 3 * PAGE) == b"\0\0"
    assert region.states == "PPPZ"
    region[:] = np.arange(4 * PAGE // 4, dtype=np.uint32)
    assert region[-1].read()[-4:] == (4 * PAGE // 4 - 1).to_bytes(4, "little")


def test_ranges(m: Machine) -> None:
    region = m.spawn().mmap(4)
    assert [part.addr - region.addr for part in region] == [0, PAGE, 2 * PAGE, 3 * PAGE]
    assert region[1:][1:2] == region[2]
    assert len({region[0], region[0:1]}) == 1
    assert region[0] != region[1]
    assert region[0] != "region"
    for key in (4, -5, slice(0, 5), slice(3, 2)):
        with refused(errno.ERANGE):
            region[key]
    with pytest.raises(ValueError, match="step"):
        region[::2]
    with refused(errno.ERANGE):
        region.read(1, 4 * PAGE)
    with refused(errno.ERANGE):
        region.write(b"ab", 4 * PAGE - 1)
    with pytest.raises(ValueError, match="pages of"):
        region[0:2] = bytes(PAGE + 1)


def test_errors_carry_errno(m: Machine) -> None:
    process = m.spawn()
    region = process.mmap(2)
    region.touch(write=True)
    region[0].munmap()
    with refused(errno.EFAULT):
        region.touch()
    with refused(errno.EFAULT):
        region[0] = b"x"
    with refused(errno.EFAULT):
        region.read()
    with pytest.raises(OSError, match="mmap") as caught:
        process.mmap(1, region[1].addr)
    assert caught.value.errno == errno.EEXIST
    assert isinstance(caught.value, pyksm.PyksmError)
    process.exit()
    for use in (process.fork, process.exit, region.read, lambda: process.vmas):
        with refused(errno.ESRCH):
            use()
    with refused(errno.ENOENT):
        m.ksm["no_such_file"]
    with refused(errno.EACCES):
        m.ksm["full_scans"] = 1


def test_fork_shares_until_written(m: Machine) -> None:
    parent = m.spawn(name="A")
    region = parent.mmap(2, name="heap")
    region[:] = b"both"
    child = parent.fork(name="B")
    assert [p.name for p in m.processes] == ["A", "B"]
    theirs = child.regions["heap"]
    assert theirs == region.of(child)
    assert region.pages["pfn"].tolist() == theirs.pages["pfn"].tolist()
    theirs[0] = b"mine"
    assert region.read(4) == b"both"
    assert region.pages["mapcount"].tolist() == [1, 2]
    with refused(errno.EEXIST):
        parent.fork(name="A")
    with refused(errno.EEXIST):
        parent.mmap(1, name="heap")
    child.exit()
    assert [p.name for p in m.processes] == ["A"]


def test_system_calls(m: Machine) -> None:
    process = m.spawn()
    region = process.mmap(4, node=1)
    region[:] = b"abc"
    assert region.pages["node"].tolist() == [1] * 4
    assert region.migrate(0) == [0] * 4
    region[1].pin()
    region[1].unpin()
    region[2].mprotect(PROT_READ)
    with refused(errno.EFAULT):
        region[2].write(b"x")
    region[2].mprotect(PROT_READ | PROT_WRITE)
    region[3].madvise(MADV_DONTNEED)
    assert region.states == "PPP."
    moved = region[0:2].move(name="moved")
    assert region.states == "--P."
    assert moved.read(3) == b"abc"
    assert [vma.prot for vma in process.vmas] == [PROT_READ | PROT_WRITE] * len(process.vmas)
    with refused(errno.EEXIST):
        moved.move(name="moved")


def test_arrays(m: Machine, engine: str) -> None:
    region = m.spawn().mmap(600)
    region[5:7] = b"content"
    pages = region.pages
    assert pages.dtype == PAGE_DTYPE
    assert pages.shape == (600,)
    assert pages["state"][4:8].tolist() == [b".", b"P", b"P", b"."]
    assert region.ptes.dtype == np.uint64
    assert (region.ptes[5:7] & 1).all()
    assert not region.ptes[:5].any()
    first, second = region.pte_tables()
    assert first is not None
    assert first[:600].tolist() == region.ptes[:512].tolist()
    assert second is None
    contents = region[4:7].contents()
    assert contents[0] is None
    assert contents[1] is not None
    assert contents[1][:7].tobytes() == b"content"
    region[5].write(b"C")
    assert contents[1][:1].tobytes() == (b"C" if engine == "core" else b"c")


def test_ksm_swap_and_swapoff(m: Machine) -> None:
    a, b = m.spawn().mmap(8), m.spawn().mmap(8)
    for region in (a, b):
        region[:] = b"the same"
        region.madvise(MADV_MERGEABLE)
    assert m.ksm.scan(2) == 2
    assert (m.ksm.run, m.ksm.full_scans) == (0, 2)
    assert m.ksm.pages_shared == 1
    assert m.ksm.pages_sharing == 15
    assert m.ksm.pages_unshared == m.ksm.pages_volatile == 0
    assert m.ksm.counts["pages_sharing"] == 15
    assert a.pages["ksm"].all()
    with refused(errno.EBUSY):
        m.ksm.merge_across_nodes = 0
    assert m.ksm.merge_across_nodes == 1

    area = m.swap.on(64)
    m.swapout()
    assert a.states == b.states == "S" * 8
    assert area.used == 1
    assert area.info.pages == 63
    slot = int(a.pages["swp_offset"][0])
    assert area.count(slot) == 16
    assert area.map(slot) == 16
    assert m.swap.cached == 0
    with m.counting() as work:
        area.off()
    assert work["try_to_unuse"] == 1
    assert work["unuse_pte"] == 16
    assert "page_referenced_ksm" not in work
    assert m.swap.areas == []
    with refused(errno.EINVAL):
        area.off()
    with refused(errno.EINVAL):
        _ = area.used
    assert a.read(8) == b.read(8) == b"the same"
    assert m.vmstat["pswpout"] == 1
    assert m.peak_frames > 0


def test_swapout_of_regions(m: Machine) -> None:
    region = m.spawn().mmap(4)
    region[:] = b"x"
    area = m.swap.on(32, 5, name="disk")
    assert m.swap.areas[0].name == "disk"
    region[0:2].swapout()
    assert region.states[0:2] == "SS"
    m.swapout(region)
    assert region.states == "SSSS"
    with refused(errno.EEXIST):
        m.swap.on(8, name="disk")
    region.touch()
    area.off()


def test_swap_file(m: Machine, tmp_path: Path) -> None:
    from pyksm.core import mkswap

    path = tmp_path / "swap"
    mkswap(path, 16)
    assert path.stat().st_size == 16 * PAGE
    region = m.spawn().mmap(2)
    region[:] = b"to disk and back"
    area = m.swap.on(path=str(path))
    assert area.info.pages == 15
    m.swapout()
    assert path.read_bytes().count(b"to disk and back") == 2
    area.off()
    assert region.read(16) == b"to disk and back"
    with refused(errno.ENOENT):
        m.swap.on(path=str(tmp_path / "absent"))


def test_observation(m: Machine) -> None:
    process = m.spawn(name="A")
    process.mmap(3, name="r")[0] = b"x"
    m.swap.on(16, name="S")
    seen = m.observe()
    assert seen["processes"]["A"]["r"]["state"] == "P.."
    assert seen["swap"] == {"S": {"used": 0}}
    m.engine.exit(process.pid)  # behind the face's back
    assert m.observe()["processes"] == {}


def test_faults_and_events(m: Machine) -> None:
    region = m.spawn().mmap(2)
    m.inject("page", 2)
    region[0] = b"fits"
    with refused(errno.ENOMEM):
        region[1] = b"does not"
    region[1] = b"fits now"
    with refused(errno.EINVAL):
        m.inject("no such kind")
    assert m.events() == []
    assert m.free_frames() == m.free_frames(0) + m.free_frames(1) == 510


def test_hooked(m: Machine) -> None:
    region = m.spawn().mmap(4)
    region[:] = b"x"
    region.madvise(MADV_MERGEABLE)
    points: list[str] = []
    with m.hooked(points.append):
        m.ksm.scan()
    assert points
    assert set(points) <= set(pyksm.SCHEDULE_POINTS)
    n = len(points)
    m.ksm.scan()
    assert len(points) == n

    def stop(point: str) -> None:
        raise InterruptedError(point)

    with pytest.raises(InterruptedError), m.hooked(stop):
        m.ksm.scan()


def test_short_pages(engine: str) -> None:
    with Machine(engine, frames=64, page_size=64) as m:
        region = m.spawn().mmap(4)
        region[:] = bytes(range(256))
        assert region.read() == bytes(range(256))
        region.write(b"across three" * 12, 60)
        assert region.read(144, 60) == b"across three" * 12
        assert region.contents()[3] is not None


def test_closed(engine: str) -> None:
    m = Machine(engine)
    region = m.spawn().mmap(1)
    m.close()
    for use in (m.spawn, region.read, m.observe, m.census, lambda: m.counters, m.swapout):
        with refused(errno.EBADF):
            use()


def test_refused_configs(engine: str) -> None:
    for wrong in ({"profile": "1.0"}, {"policy": "best"}, {"switches": ["none"]}):
        with pytest.raises(InputError):
            Machine(engine, **wrong)  # type: ignore[arg-type]
    for wrong_number in ({"nodes": 0}, {"nodes": 65}, {"frames": -1}, {"page_size": 100}):
        with refused(errno.EINVAL):
            Machine(engine, **wrong_number)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        Machine("no such engine")


@pytest.mark.parametrize("profile", ["6.18", "6.1", "4.19.0-unfixed"])
def test_no_memcpy_where_swapoff_keeps_the_page(engine: str, profile: str) -> None:
    with pytest.raises(InputError, match=f"policy memcpy on profile {profile}: its swapoff keeps"):
        Machine(engine, profile=profile, policy="memcpy")
    Machine(engine, profile="6.18", off="swapoff-per-mm", policy="memcpy").close()


def test_a_switch_may_be_one_name(engine: str) -> None:
    with Machine(engine, profile="3.9", switches="no-unmerge-check", policy="memcpy") as m:
        assert m.config.switches == {"no-unmerge-check"}
        assert "memcpy" in repr(m)


def test_reprs(m: Machine) -> None:
    process = m.spawn()
    assert repr(process) == "<Process P1 pid 1>"
    assert repr(process.mmap(2)) == "<Region P1 0x100000000 2 pages>"
    assert repr(m.swap.on(8)) == "<Area S0 type 0>"


def test_every_exported_name_is_there() -> None:
    for name in pyksm.__all__:
        assert getattr(pyksm, name) is not None
        assert name in dir(pyksm)
    with pytest.raises(AttributeError):
        pyksm.no_such_name  # noqa: B018
    assert (Path(pyksm.include_dir()) / "pyksm.h").is_file()


def test_import_is_quick() -> None:
    heavy = "numpy", "cffi", "pyksm._core", "click", "rich"
    code = f"import sys, pyksm; print([n for n in {heavy} if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
