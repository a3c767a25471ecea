"""Host memory that the core takes for what it models: sizes of records, bytes a slot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyksm.core import object_size
from pyksm.errors import MachineError


def test_records_are_as_small_as_promised() -> None:
    assert object_size("page") == 64
    assert object_size("pte") == 8
    assert object_size("page_table") == 512 * 8
    assert object_size("rmap_item") <= 64
    assert object_size("stable_node") <= 64
    assert object_size("slot") <= 2
    for name in ("mm", "vma", "anon_vma", "anon_vma_chain", "swap_entry"):
        assert object_size(name) > 0


@pytest.mark.parametrize("name", ["", "pages", "page\0", "é"])
def test_size_of_what_there_is_not(name: str) -> None:
    with pytest.raises(MachineError):
        object_size(name)


SLOTS_PROGRAM = """
import sys
import numpy as np
from pyksm.core import Core
from pyksm.engine import Config

def rss():
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096

profile, n = sys.argv[1], int(sys.argv[2])
core = Core(Config(profile=profile, frames=n + 16, page_size=8))
pid = core.spawn()
at = core.mmap(pid, n)
contents = np.arange(1, n + 1, dtype="<u8")
for k in range(0, n, 4096):
    core.write_pages(pid, at + k * 4096, contents[k : k + 4096])
before = rss()
core.swapon(n + 512)
core.swapout()
assert core.free_frames() == n + 16
print((rss() - before) / n - 8)
"""


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_bytes_a_slot(profile: str) -> None:
    """Beside the content, 8 bytes here: a count, a bit, what reclaim remembers since 5.9."""
    program = [sys.executable, "-c", SLOTS_PROGRAM, profile, str(1 << 19)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    assert 1 <= float(done.stdout) <= 2
