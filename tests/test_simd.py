"""How the core searches arrays: nothing but time may depend on it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from direct import first_difference, play

from pyksm.core import Core, simd
from pyksm.engine import Config
from pyksm.errors import InputError

PAGE = 4096
BASE = 4 << 30
BEGINNING = simd()
BEST = simd("auto")
simd(BEGINNING)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = simd()
    yield
    simd(before)


def swapoff(how: str, shift: int, npages: int, profile: str) -> Any:
    """A region at some place of its page table, partly swapped out and back: all that shows."""
    choose = random.Random(f"{shift} {npages}")
    simd(how)
    core = Core(Config(frames=2048, page_size=8, profile=profile))
    pid, addr = core.spawn(), BASE + shift * PAGE
    core.mmap(pid, npages, addr)
    rare = choose.choice((1, 2, npages))
    for k in range(npages):
        if choose.randrange(rare) == 0:
            core.write_pages(pid, addr + k * PAGE, k.to_bytes(8, "little"))
    area = core.swapon(choose.choice((npages + 2, 4 * npages + 40)))
    for k in range(npages):  # slots in use here and there, each a search for a free one
        core.swapout([(pid, addr + choose.randrange(npages) * PAGE, 1)])
        if choose.random() < 0.4:
            core.read_pages(pid, addr + k * PAGE, 1)
    out = core.pagemap_array(pid, addr, npages).tobytes()
    slots = [core.swap_map(area, k) for k in range(1, npages + 2)]
    core.swapoff(area)
    back = core.pagemap_array(pid, addr, npages).tobytes(), core.read_pages(pid, addr, npages)
    found = out, slots, back, core.counters(), core.census()
    core.close()
    return found


@pytest.mark.skipif(BEST == "portable", reason="this host has nothing else")
@pytest.mark.parametrize("profile", ["3.9", "6.18"])
def test_every_length_and_alignment(profile: str) -> None:
    for npages in range(1, 41):
        for shift in (0, 1, 2, 3, 509 - npages % 4):
            ours, theirs = (swapoff(how, shift, npages, profile) for how in ("portable", BEST))
            assert ours == theirs, (shift, npages)
            assert ours[-1] == []


@pytest.mark.skipif(BEST == "portable", reason="this host has nothing else")
def test_programs_do_not_see_it() -> None:
    def on(how: str) -> Any:
        simd(how)
        return Core

    for seed in range(9000, 9060):
        assert first_difference(play(on("portable"), seed), play(on(BEST), seed)) is None, seed


def test_choice_is_the_process_own() -> None:
    assert simd("portable") == simd() == "portable"
    assert simd("auto") == simd() == BEST
    for wrong in ("abacus", "", "avx2\0", "\udc80"):
        with pytest.raises(InputError, match="expected one of auto, portable"):
            simd(wrong)
        assert simd() == BEST
    with pytest.raises(TypeError):
        simd(2)  # type: ignore[arg-type]


def imported(value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pyksm.core import simd; print(simd())"],
        env=os.environ | {"PYKSM_SIMD": value},
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_says_what_a_process_begins_with() -> None:
    assert imported("portable").stdout == "portable\n"
    assert imported("auto").stdout == imported("").stdout == f"{BEST}\n"
    wrong = imported("abacus")
    assert wrong.returncode != 0
    assert "simd 'abacus': expected one of auto, portable" in wrong.stderr


def test_what_the_environment_says_holds_here() -> None:
    """In CI's run with PYKSM_SIMD=portable: the variable has reached this very process."""
    wanted = os.environ.get("PYKSM_SIMD") or "auto"
    assert (BEST if wanted == "auto" else wanted) == BEGINNING
