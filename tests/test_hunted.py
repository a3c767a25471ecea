"""What hunts with no bug on called wrong and is not, or is no more: nothing is said of it now."""

from __future__ import annotations

import pytest

from pyksm.features import PROFILES
from pyksm.hunt.judge import judge
from pyksm.scenario import parse

#: Why it looked wrong, the profiles it was seen with (none: each), and the scenario.
HUNTED: dict[str, tuple[tuple[str, ...], str]] = {
    # Who was about to become mergeable when run became 2: its page has become a KSM page through a
    # child that was mergeable before.
    "about to be mergeable": (
        ("6.12", "6.18"),
        """
        machine agents=0
        spawn P2
        mmap P2 r0 2
        write P2 r0 7
        fork P2 P3
        fork P3 P4
        schedule t2@__ksm_enter:mmlist_lock#2 t0
        task t0:
          ksm run=2
        task t2:
          prctl P4 memory_merge 1
          scan 3
          madvise P2 r0 mergeable
        """,
    ),
    # In 6.1 unmerging passes by what may not be accessed; the child comes to be like that when its
    # fork has begun already.
    "no access while a child is made": (
        ("6.1",),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 2
        write P1 r0 7
        madvise P1 r0 mergeable
        scan 2
        schedule t0@syscall:mmap_sem t1
        task t0:
          fork P1 P3
        task t1:
          mprotect P1 r0[0] none
        join
        ksm run=2
        """,
    ),
    # It was moved to where another move under way takes it from, and was written there; the child
    # that is made then has it where that one takes it to.
    "moved on while it is written": (
        ("4.19", "6.18"),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 1
        schedule t0@syscall:mmap_sem t1@syscall:mmap_sem t0@syscall:mmap_sem t1
        task t0:
          mremap P1 r0[0] r1
          write P1 r1[0] 7
          fork P1 P2
        task t1:
          mremap P1 r1 r2
        """,
    ),
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
    # Where the page has come to before its child is made the child has it as well, and its own
    # mremap to there is one too early.
    "moved while a child is made": (
        ("3.9", "6.18"),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 1
        write P1 r0[0] 7
        mmap P1 r1 2
        schedule t0@syscall:mmap_sem t1
        task t0:
          fork P1 P2
        task t1:
          mremap P1 r0 r2
          mremap P2 r1[1] r2
        """,
    ),
    # The same where ksmd has begun before.
    "ksmd is at work when a child unmerges": (
        ("4.19", "6.18"),
        """
        machine nodes=2 agents=0
        spawn P1
        mmap P1 r0 2 node=1
        write P1 r0 7
        madvise P1 r0 mergeable
        schedule t0@ksm_scan_thread:ksm_thread_mutex#2 t1@vma_adjust:anon_vma_lock t0
        task t0:
          fork P1 P3
          scan 2
        task t1:
          madvise P3 r0[1] unmergeable
          poke P3 r0[1] 0 0
        """,
    ),
    # An mremap from nowhere clears where it was to go to, which has been mapped meanwhile.
    "cleared by an mremap that fails": (
        ("4.19", "6.1"),
        """
        machine agents=0
        spawn P1
        schedule t1@syscall:mmap_sem#2 t0@syscall:mmap_sem#2 t1
        task t0:
          mmap P1 r1 1
          fork P1 P2
        task t1:
          mremap P1 r1[0] r2
          mremap P1 r2 r1[0]
        """,
    ),
    # Two write one setting: the second has nothing to change by then, and pages are merged again.
    "a setting written twice": (
        (),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 2
        write P1 r0 7
        madvise P1 r0 mergeable
        schedule t1@remove_all_stable_nodes:begin t0
        task t0:
          ksm merge_across_nodes=0
        task t1:
          ksm merge_across_nodes=0
          scan 3
        """,
    ),
    # What is pinned while the range is dropped is dropped, too.
    "pinned on its way out": (
        (),
        """
        machine agents=0
        spawn P1
        mmap P1 r0 1
        fork P1 P4
        write P4 r0[0] 9
        schedule t1@zap_pte_range:pte_lock t0
        task t0:
          pin P4 r0 write
        task t1:
          madvise P4 r0 dontneed
        poke P4 r0[0] 0 0
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
