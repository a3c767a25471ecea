"""Swap files: ours are swap to util-linux, and what its mkswap(8) makes is an area to us."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pyksm.core import mkswap
from pyksm.engine import Config
from pyksm.errors import MachineError
from pyksm.scenario.engines import build

PAGES = 16
PAGE = 4096


def tool(name: str, *arguments: str | Path) -> str:
    """What a tool of util-linux, which every Debian has, prints; it has to succeed."""
    path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert path is not None, f"{name} of util-linux is missing"
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def made_by_util_linux(path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(bytes(PAGES * PAGE))
    tool("mkswap", "-L", "pyksm-test", path)
    return path


def test_a_file_of_mkswap8_holds_what_is_swapped_out(tmp_path: Path, engine: str) -> None:
    path = made_by_util_linux(tmp_path / "swap")
    m = build(engine, Config(frames=64))
    area = m.swapon(0, path=str(path))
    assert [(each.pages, each.max) for each in m.areas()] == [(PAGES - 1, PAGES)]
    pid = m.spawn()
    address = m.mmap(pid, 3)
    contents = b"".join(bytes([k + 1]) * PAGE for k in range(3))
    assert m.write_pages(pid, address, contents) == [0, 0, 0]
    m.swapout()
    slots = [page.swp_offset for page in m.pagemap(pid, address, 3)]
    stored = path.read_bytes()
    assert b"".join(stored[slot * PAGE : (slot + 1) * PAGE] for slot in slots) == contents
    m.swapoff(area)
    assert m.read_pages(pid, address, 3) == (contents, [0, 0, 0])
    assert m.census() == []
    m.close()
    assert "pyksm-test" in tool("swaplabel", path)  # the header is as mkswap left it


def test_util_linux_takes_our_file_for_swap(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    mkswap(str(path), PAGES)
    assert path.stat().st_size == PAGES * PAGE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= PAGES * PAGE  # swapon(8) refuses holes
    tool("swaplabel", "-L", "ours", path)
    assert "ours" in tool("swaplabel", path)


def test_a_file_of_the_other_byte_order(tmp_path: Path, engine: str) -> None:
    path = made_by_util_linux(tmp_path / "swap")
    header = bytearray(path.read_bytes())
    for at in (1024, 1028, 1032):
        header[at : at + 4] = header[at : at + 4][::-1]
    path.write_bytes(header)
    m = build(engine, Config(frames=64))
    m.swapon(0, path=str(path))
    assert m.areas()[0].max == PAGES


@pytest.mark.parametrize("at", [1024, 4086])
def test_a_damaged_header_is_refused(tmp_path: Path, engine: str, at: int) -> None:
    path = made_by_util_linux(tmp_path / "swap")
    header = bytearray(path.read_bytes())
    header[at] ^= 0x55
    path.write_bytes(header)
    m = build(engine, Config(frames=64))
    with pytest.raises(MachineError, match="Invalid argument"):
        m.swapon(0, path=str(path))
    assert m.areas() == []
    assert m.census() == []
