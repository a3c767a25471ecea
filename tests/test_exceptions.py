"""What looks wrong and is not: the exceptions that I1 to I10 make for a kernel that is right.

Each scenario comes to such a state, which is looked for, and the judge must let it pass. Both
engines come to the same.
"""

from __future__ import annotations

import pytest
from scn import Answer, codes

from pyksm.hunt.judge import judge
from pyksm.scenario import parse
from pyksm.testing import examine

MERGED = """spawn A
spawn B
mmap A r 1
mmap B r 1
write A r 7
write B r 7
madvise A r mergeable
madvise B r mergeable
swapon S 2
scan 3
swapout *
"""
OUT = """spawn A
mmap A r 1
write A r 1
swapon S 8
"""


def passed(text: str, profile: str) -> Answer:
    """The judge and both engines have nothing to say; the answer of one of them."""
    scenario = parse(f"machine profile={profile}\n{text}")
    assert judge(scenario) == []
    assert examine(scenario) == []
    return Answer(scenario, "core")


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_I1_a_page_that_cannot_be_read_is_an_error(profile: str) -> None:
    """Not its content, but none of anybody else's either; it may be read the next time."""
    answer = passed(f"{OUT}swapout *\ninject read 1\nread A r\nread A r", profile)
    assert answer.ops("read")[0]["errno"] == "EIO"
    assert answer.ops("read")[0]["crc"] == [None]


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_I2_a_write_that_fails_leaves_the_page_dirty(profile: str) -> None:
    """Its slot has nothing of it, and it is kept."""
    answer = passed(f"{OUT}inject write 1\nswapout A r\nread A r\nswapoff S\nread A r", profile)
    assert "Write-error on swap-device" in answer.events()
    assert len(answer.crcs()) == 1


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_I7_unmergeable_memory_may_get_a_ksm_page_back_from_swap(profile: str) -> None:
    """MADV_UNMERGEABLE passes swap entries by; only run=2 promises more. And I4: such a page has no
    item any more when ksmd has seen that it is not to merge there, so no walk finds it."""
    answer = passed(
        f"{MERGED}madvise A r unmergeable\nread A r\nscan 2\nobserve back\ncensus strict", profile
    )
    assert answer.region("back", "A")["ksm"] == "1"
    assert codes(answer.only("census")["violations"])["ksm-rmap"] == 1


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_I4_a_page_that_a_fork_has_copied_is_found_by_its_relatives(profile: str) -> None:
    """The child has no item of its own until ksmd has come by."""
    answer = passed(f"{MERGED}read A r\nfork A C\nread C r\ncensus strict\nrmap C r", profile)
    assert answer.only("census")["violations"] == []
    assert answer.only("rmap")["ptes"][0] >= 2


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.1", "6.18"])
def test_I5_a_page_in_the_swap_cache_may_name_an_anon_vma_that_has_gone(profile: str) -> None:
    """A's copy of the page, brought in for A alone, names A's; then A goes, and B asks for it."""
    answer = passed(f"{MERGED}ksm run=2 run=0\nread A r\nexit A\nread B r\ncensus strict", profile)
    assert answer.only("census")["violations"] == []
    assert len(answer.crcs()) == 1


@pytest.mark.parametrize("profile", ["6.1", "6.18"])
def test_I10_what_somebody_only_looks_at_may_be_shared_and_swapped(profile: str) -> None:
    """A plain reference is no pin: the page may be forked, and what is in swap is a copy."""
    answer = passed(f"{OUT}pin A r\nfork A B\nwrite A r 2\nread B r\nunpin A r\nread A r", profile)
    assert len(answer.crcs()) == 2
