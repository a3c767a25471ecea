"""Plans: whatever was forked in reality is forked again, and shares what was shared."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import memories
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import Toy, histories

from pyksm.jobs import plan as steps
from pyksm.jobs.plan import contains, difference, holding, make_plan, union
from pyksm.targets.memory import PAGE_SHIFT, UNSHARED, Memory, Vma


def built(memory: Memory) -> Toy:
    """A toy machine after the plan, with contents, zero pages and mappings checked."""
    toy = Toy()
    toy.run(make_plan(memory))
    assert set(toy.processes) == set(range(len(memory.processes)))
    for number, real in enumerate(memory.processes):
        made = toy.processes[number]
        own = {vpn for v in real.vmas for vpn in range(v.start >> PAGE_SHIFT, v.end >> PAGE_SHIFT)}
        assert made.mapped == own
        expected = dict(zip(real.vpn.tolist(), real.content.tolist(), strict=True))
        expected |= dict.fromkeys(real.zero_vpn.tolist(), -1)
        contents = {v: -1 if f < 0 else toy.content[f] for v, f in made.frame.items()}
        assert contents == expected
    return toy


def sharing_of(memory: Memory, toy: Toy) -> tuple[set[frozenset[tuple[int, int]]], ...]:
    """Groups of (process, page) that share a frame: in reality and in the toy."""
    real: dict[int, set[tuple[int, int]]] = defaultdict(set)
    made: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for number, process in enumerate(memory.processes):
        for vpn, frame in zip(process.vpn.tolist(), process.frame.tolist(), strict=True):
            if frame != UNSHARED:
                real[frame].add((number, vpn))
            made[toy.processes[number].frame[vpn]].add((number, vpn))
    return tuple(
        {frozenset(group) for group in groups.values() if len(group) > 1} for groups in (real, made)
    )


def test_strangers_share_nothing() -> None:
    memory = Memory()
    memories.process(memory, {16: 1, 17: 2}, zero=(18,))
    memories.process(memory, {16: 1, 17: 2})
    plan = make_plan(memory)
    assert (plan.writes, plan.shared_frames, plan.lost_ptes) == (4, 0, 0)
    assert not [s for s in plan.steps if isinstance(s, steps.Fork)]
    real, made = sharing_of(memory, built(memory))
    assert real == made == set()


def test_parent_and_child() -> None:
    memory = Memory()
    parent = memories.process(memory, {16: 1, 17: 2, 40: 9}, {16: 0})
    memories.process(memory, {16: 1, 17: 3, 50: 4}, {16: 0}, ppid=parent.pid)
    plan = make_plan(memory)
    # One page before the fork, then two of each process: nothing is written twice.
    assert plan.writes == 5
    assert [type(s) for s in plan.steps].count(steps.Exit) == 0
    real, made = sharing_of(memory, built(memory))
    assert made == real == {frozenset({(0, 16), (1, 16)})}


def test_siblings_get_a_stand_in_that_exits() -> None:
    memory = Memory()
    for k in range(3):
        memories.process(memory, {16: 1, 20 + k: 2}, {16: 7}, ppid=1)
    plan = make_plan(memory)
    assert [s for s in plan.steps if isinstance(s, steps.Exit)] == [steps.Exit(3)]
    real, made = sharing_of(memory, built(memory))
    assert made == real
    assert len(next(iter(made))) == 3


def test_a_parent_that_moved_on_gives_each_child_its_page() -> None:
    memory = Memory()
    parent = memories.process(memory, {16: 5}, {16: 2})
    for k in range(3):
        grandchild_frame = {16: min(k, 1)}
        child = memories.process(memory, {16: 3 + min(k, 1)}, grandchild_frame, ppid=parent.pid)
        memories.process(memory, {16: 3 + min(k, 1)}, grandchild_frame, ppid=child.pid)
    memories.process(memory, {16: 5}, {16: 2}, ppid=parent.pid)
    assert make_plan(memory).lost_ptes == 0
    real, made = sharing_of(memory, built(memory))
    assert made == real
    assert len(made) == 3


def test_a_parent_younger_than_its_child_is_no_parent() -> None:
    memory = Memory()
    memories.process(memory, {16: 1}, {16: 0}, pid=5, ppid=6, started=1)
    memories.process(memory, {16: 1}, {16: 0}, pid=6, ppid=5, started=1)
    memories.process(memory, {16: 1}, {16: 0}, pid=7, ppid=7, started=1)
    real, made = sharing_of(memory, built(memory))
    assert made == real


def test_a_long_chain_needs_no_recursion() -> None:
    memory = Memory()
    for k in range(3000):
        memories.process(memory, {16: 1}, {16: 0}, pid=10 + k, ppid=9 + k)
    real, made = sharing_of(memory, built(memory))
    assert made == real


def test_what_forks_cannot_make_is_counted_and_contents_stay_right() -> None:
    memory = Memory()
    # Frames 0 and 1 in turns at one page among siblings: one parent cannot have done that.
    for k in range(4):
        memories.process(memory, {16: 1 + k % 2, 17: 3}, {16: k % 2, 17: 2}, ppid=1)
    plan = make_plan(memory)
    real, made = sharing_of(memory, built(memory))
    # One keeps the old frame and is alone with it, the other gets a new one.
    assert real - made == {frozenset({(0, 16), (2, 16)})}
    assert made < real
    assert plan.lost_ptes == 1


@settings(max_examples=400, deadline=None)
@given(histories())
def test_any_history_comes_back(case: tuple[Memory, bool]) -> None:
    memory, orphans = case
    plan = make_plan(memory)
    real, made = sharing_of(memory, built(memory))
    # Never more sharing than there was; all of it unless a parent that mattered is gone.
    assert all(any(group <= whole for whole in real) for group in made)
    if not orphans:
        assert plan.lost_ptes == 0
        assert made == real
    assert plan.shared_frames == len(real)
    assert plan.shared_ptes == sum(map(len, real))


ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=8).map(
    lambda pairs: [(start, start + length) for start, length in pairs]
)


def pages(of: list[tuple[int, int]]) -> set[int]:
    return {v for start, end in of for v in range(start, end)}


@given(ranges, ranges, st.sets(st.integers(0, 60)))
def test_range_sets(
    left: list[tuple[int, int]], right: list[tuple[int, int]], some: set[int]
) -> None:
    one, other = union(left), union(right)
    assert pages(one) == pages(left)
    assert all(a[1] < b[0] for a, b in pairwise(one))
    assert pages(difference(one, other)) == pages(left) - pages(right)
    assert all(start < end for start, end in difference(one, other))
    assert {v for v in some if contains(one, v)} == some & pages(left)
    assert all(pages([r]) & some for r in holding(one, some))
    assert pages(holding(one, some)) & some == pages(left) & some


def test_vma_is_a_value() -> None:
    with pytest.raises(AttributeError):
        Vma(0, 4096).start = 1  # type: ignore[misc]
