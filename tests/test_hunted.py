"""What hunts with no bug on called wrong and is not, or is no more: nothing is said of it now."""

from __future__ import annotations

import pytest

from pyksm.features import PROFILES
from pyksm.hunt.judge import judge
from pyksm.scenario import parse

#: Why it looked wrong, the profiles it was seen with (none: each), and the scenario.
HUNTED: dict[str, tuple[tuple[str, ...], str]] = {
    # The page is away and has come back while the read is under way, whose fault was in between.
    "moved away and back": (
        ("4.19", "6.1"),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 4
        fork P1 P2
        schedule t0@user:access#6 t1@task:next_op t0@user:access#2 t1
        task t0:
          read P2 r0
        task t1:
          mremap P2 r0[2] r1
          mremap P2 r1 r0[2]
        """,
    ),
    # Parent and child map one page. The child's unmerging has passed by when ksmd makes the
    # parent's a KSM page, which is the child's, too.
    "the parent's page merges": (
        ("6.1", "6.18"),
        """
        machine agents=0
        spawn P2
        mmap P2 r0 3
        write P2 r0 0
        madvise P2 r0 mergeable
        fork P2 P4
        scan 1
        schedule t2@break_ksm:pte_lock#3 t0
        task t0:
          scan 1
        task t2:
          madvise P4 r0 unmergeable
        """,
    ),
}


@pytest.mark.parametrize("name", HUNTED)
def test_right_after_all(name: str) -> None:
    profiles, text = HUNTED[name]
    for profile in profiles or PROFILES:
        assert judge(parse(text), profile=profile) == [], profile
