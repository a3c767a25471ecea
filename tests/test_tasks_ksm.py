"""ksmd, reclaim, migration, faults, fork and exit at the same time: no order goes wrong."""

from __future__ import annotations

import pytest

from pyksm.hunt.explore import Bounds, Explored, explore
from pyksm.scenario import parse

SETUP = """
    machine nodes=2 frames=200
    spawn A
    spawn B
    mmap A r 2
    mmap B r 2
    write A r 7
    write B r 7
    madvise A r mergeable
    madvise B r mergeable
    swapon S 16
"""

#: What comes before the tasks, then each task's statements.
RACES: dict[str, tuple[str, ...]] = {
    "scan | swapout": ("scan 1", "scan 2", "swapout *"),
    "scan | swapout, merged": ("scan 3", "scan 2", "swapout *"),
    "scan | swapout, of what is merged with": (
        "scan 3; write A r 1; write B r[0] 1",
        "write A r 7; scan 2",
        "swapout B r",
    ),
    "scan | exit": ("scan 1", "scan 2", "exit A"),
    "scan | exit, merged": ("scan 3", "scan 2", "exit B"),
    "scan | exit, nothing to merge": (
        "spawn C; mmap C q 1; madvise C q mergeable",
        "scan 2",
        "exit C",
    ),
    "scan | fork": ("scan 1", "scan 2", "fork A C; write C r 9"),
    "scan | write": ("scan 1", "scan 2", "write A r 9; write B r[0] 9"),
    "scan | migrate": ("scan 1", "scan 2", "migrate A r 1; migrate B r 1"),
    "scan | munmap": ("scan 1", "scan 2", "munmap A r[0]; munmap A r[1]"),
    "scan | mremap": ("scan 3; swapout A r", "scan 2", "mremap A r[1] q"),
    "scan | unmerge": ("scan 1", "scan 2", "madvise A r unmergeable"),
    "scan | mode": ("scan 3; ksm run=2", "scan 2", "ksm merge_across_nodes=0; scan 1"),
    "scan | migrate, by node": (
        "ksm merge_across_nodes=0; scan 3",
        "scan 3",
        "migrate A r 1; migrate B r 1",
    ),
    "scan | run=2": ("scan 3", "scan 2", "ksm run=2"),
    "scan | run=2, page by page": ("scan 2; ksm pages_to_scan=1", "scan 2", "ksm run=2"),
    "scan | swapout | fault": ("scan 1", "scan 2", "swapout *", "write A r[0] 9; read B r"),
    "scan | swapout | exit": ("scan 3; fork A C", "scan 2", "swapout *", "exit A; exit B"),
    "scan | swapoff": ("scan 3; swapout *", "scan 2", "swapoff S"),
    "run=2 | migrate": ("scan 3", "ksm run=2", "migrate A r 1"),
    "run=2 | exit": ("scan 3", "ksm run=2", "exit A"),
    "run=2 | fork": ("scan 3", "ksm run=2", "fork A C"),
    "run=2 | fault": ("scan 3; swapout *", "ksm run=2", "read A r"),
    "migrate | migrate": ("scan 3", "migrate A r 1; migrate A r 0", "migrate B r 1"),
    "migrate | exit": ("scan 3", "migrate A r 1", "exit A"),
    "migrate | fork": ("fork A C", "migrate A r 1", "fork A D; exit C"),
    "migrate | fault": ("swapout A r", "read A r; migrate A r 1", "write A r 9"),
    "migrate | mremap": ("fork A C", "migrate A r 1", "mremap A r q"),
    "migrate | swapout": ("", "migrate A r 1", "swapout *"),
    "migrate | swapout, merged": ("scan 3", "migrate A r 1", "swapout *"),
    "migrate | swapoff": ("scan 3; swapout *", "read A r; migrate A r 1", "swapoff S"),
    "swapout | fault": ("", "swapout *", "write A r 9; read B r"),
    "swapout | fault, zeros": ("write A r 0", "swapout *", "write A r 9"),
    "swapout | exit": ("", "swapout *", "exit A"),
    "swapout | fork": ("", "swapout *", "fork A C; write A r 9"),
    "swapout | clear_refs": ("", "swapout *", "clear_refs A 1; read A r"),
    "swapout | swapout": ("scan 3", "swapout *", "swapout A r"),
    "swapout | swapoff": ("swapon T 16; swapout *", "read A r; swapout *", "swapoff S"),
    "fault | fault": ("mmap A n 4", "write A n[0] 3; swapout A n", "write A n[1] 4"),
    "swapout | swapoff, full": (
        "swapoff S; mmap A n 3; write A n 5; swapon T 4 priority=1; swapout A n; write A n[0] 1; "
        "swapout A n",
        "read A n[2]; read A n; swapout A n",
        "swapoff T",
    ),
    "fork | exit": ("mmap A n 4", "write A n[0] 3; fork A C; write C n 4", "exit A"),
}

_CHAINS = "; ".join(
    (
        "ksm max_page_sharing=2 stable_node_chains_prune_millisecs=0",
        "fork A C; write C r 7; fork B D; write D r 7; scan 3",
    )
)
_ZEROS = "ksm use_zero_pages=1; write A r 0; write B r 0; scan 1"
#: Those of what came with 4.12 and 4.13: zero pages in the place of others, chains of full nodes.
LATER_RACES: dict[str, tuple[str, ...]] = {
    "chains: scan | exit": (_CHAINS, "scan 2", "exit A; exit C"),
    "chains: scan | migrate": (_CHAINS, "scan 2", "migrate A r 1; migrate C r 1"),
    "chains: scan | swapout": (_CHAINS, "scan 2", "swapout A r; swapout C r"),
    "chains: run=2 | exit": (_CHAINS, "ksm run=2", "exit A; exit C"),
    "zeros: scan | write": (_ZEROS, "scan 2", "write A r 0; write B r 3"),
    "zeros: scan | munmap": (_ZEROS, "scan 2", "munmap A r"),
    "zeros: scan | swapout": (_ZEROS, "scan 2", "swapout *"),
    "zeros: run=2 | fork": (f"{_ZEROS}; scan 2", "ksm run=2", "fork A C; read C r"),
}

#: A bug of the museum, in which of the races it shows, and a kernel that could have it.
BUGS = (
    ("ksm-migration-hides-page-from-unmerge", "run=2 | migrate", "3.10"),
    ("ksm-enter-behind-unmerge-cursor", "run=2 | fork", "3.10"),
    ("ksm-mm-freed-after-cursor-advance", "scan | exit, nothing to merge", "3.10"),
)


def race(name: str, profile: str, bounds: Bounds, bugs: tuple[str, ...] = ()) -> Explored:
    before, *tasks = (each.replace("; ", "\n") for each in (RACES | LATER_RACES)[name])
    blocks = [f"task t{k}:\n{body}" for k, body in enumerate(tasks)]
    text = "\n".join([SETUP, before, *blocks])
    return explore(parse(text), bounds, profile=profile, bugs=bugs)


@pytest.mark.parametrize("name", RACES)
def test_no_order_goes_wrong(name: str) -> None:
    """Each order with one switch that nobody had to make, and some by chance."""
    all_went_well(name, ("3.10", "6.18"), ("3.9", "4.19", "6.1", "6.12"))


@pytest.mark.parametrize("name", LATER_RACES)
def test_no_order_of_later_ones_goes_wrong(name: str) -> None:
    all_went_well(name, ("4.19", "6.18"), ("6.1", "6.12"))


def all_went_well(name: str, exhaustively: tuple[str, ...], by_chance: tuple[str, ...]) -> None:
    three = len((RACES | LATER_RACES)[name]) > 3
    for profile in exhaustively[three:]:
        every = race(name, profile, Bounds(preemptions=1))
        assert (every.found, every.complete) == ((), True)
    for seed, profile in enumerate(by_chance):
        for strategy in ("random", "pct"):
            some = race(name, profile, Bounds(strategy, seed=seed, schedules=10))
            assert (some.found, some.schedules) == ((), 10)


@pytest.mark.parametrize(("bug", "name", "profile"), BUGS)
def test_some_order_of_a_bug_does(bug: str, name: str, profile: str) -> None:
    assert race(name, profile, Bounds(preemptions=2), (bug,)).found
