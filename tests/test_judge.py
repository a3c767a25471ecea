"""The judge: what is right it lets pass, and what somebody changes behind its back it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pyksm.errors import InputError
from pyksm.features import PROFILES
from pyksm.hunt import judge as judging
from pyksm.hunt import program
from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.judge import judge, program_of
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario import statements as st
from pyksm.tasks.core import TasksCore, lib


def plain(scenario: Scenario) -> Scenario:
    """Without what needs a hook, and without what takes a check away."""
    body = tuple(each for each in scenario.body if not isinstance(each, st.At))
    return replace(scenario, statements=(replace(scenario.machine, bugs=()), *body))


@pytest.mark.parametrize("profile", list(PROFILES))
def test_programs_are_right(profile: str) -> None:
    """As the engines agree on them, and the census does: so it is the judge that would be wrong."""
    for seed in range(80_000, 80_030):
        assert judge(plain(program(seed, profile=profile))) == [], seed


def behind(text: str, line: int, act: Callable[[TasksCore], Any]) -> set[str]:
    """The codes of what is found where ``act`` changes the machine before that line's operation."""
    scenario = parse(text)
    machine = engines.build(engines.TASKS, engines.config(scenario.machine, None))
    assert isinstance(machine, TasksCore)
    trial = judging._Trial(machine, program_of(scenario), judging.flags(quiesce=False))
    run_op = lib.pyksm_run_op

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def pyksm_run_op(self, handle: Any, table: Any, op: Any) -> Any:
            if op.line == line:
                act(machine)
            return run_op(handle, table, op)

    patch = pytest.MonkeyPatch()
    patch.setattr(judging, "lib", Lib())
    try:
        return {each.code for each in trial.run()}
    finally:
        patch.undo()
        machine.close()


START = "spawn A\nmmap A r 4\nwrite A r 7\n"
ADDR = 4 << 30


@pytest.mark.parametrize(
    ("text", "line", "act", "code"),
    [
        ("read A r\n", 4, lambda m: m.write(1, ADDR, b"x"), "content"),
        ("sleep 1\n", 4, lambda m: m.write(1, ADDR + 4096, b"x"), "content"),
        ("fork A B\nsleep 1\n", 5, lambda m: m.write(2, ADDR, b"x"), "content"),
        ("sleep 1\n", 4, lambda m: m.munmap(1, ADDR, 1), "hole"),
        ("write A r 8\n", 4, lambda m: m.mprotect(1, ADDR, 1, 1), "fault"),
        ("clear_refs A 4\nwrite A r 8\nsleep 1\n", 6, lambda m: m.clear_refs(1, 4), "soft-dirty"),
    ],
)
def test_behind_its_back(text: str, line: int, act: Any, code: str) -> None:
    assert behind(START + text, line, lambda machine: None) == set()
    assert behind(START + text, line, act) == {code}


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_writers(first: str) -> None:
    """Whoever comes last is right; what either reads in between may be of either."""
    second = {"a": "b", "b": "a"}[first]
    text = f"""{START}schedule {first} {second}
task a:
  write A r 1
  read A r
task b:
  write A r 2
  read A r
join
read A r
"""
    assert judge(parse(text)) == []


def test_bad_input() -> None:
    at = parse(START + "at shrink_zone:begin 1 write A r 1\nswapout *")
    with pytest.raises(InputError, match="at"):
        judge(at)
    misfit = parse(
        START + "schedule a@syscall:mmap_sem b\ntask a:\n  sleep 1\ntask b:\n  sleep 1\n"
    )
    with pytest.raises(InputError, match="does not fit"):
        judge(misfit)


def test_a_child_made_while_its_page_moves_and_is_written() -> None:
    """What a moved page may hold is not known for a moment, nor what its child may."""
    scenario = parse("""
        machine frames=64 agents=0 profile=3.9
        spawn P1
        mmap P1 r0 1
        write P1 r0 7
        schedule t0@unlink_anon_vmas:anon_vma_lock t1
        task t0:
          mremap P1 r0 r1
          write P1 r1 9
        task t1:
          fork P1 P4
    """)
    assert judge(scenario) == []


def test_a_page_is_read_that_came_and_was_written_since_the_read_began() -> None:
    scenario = parse("""
        machine frames=64 agents=0
        spawn P1
        mmap P1 r0 1
        schedule t1@do_page_fault:mmap_sem t0
        task t0:
          mremap P1 r0 r1
          write P1 r1[0] 3
        task t1:
          read P1 r1
    """)
    assert judge(scenario) == []


def test_a_page_written_on_its_way_out_and_wanted_by_nobody_any_more() -> None:
    """What was written is in a pte alone, which goes: the page counts as clean, and nobody asks."""
    scenario = parse("""
        machine frames=64 agents=0 profile=6.1
        spawn P
        mmap P r 1
        write P r 7
        swapon S 2
        schedule reclaim@swap_writepage:end_io user
        task user:
          write P r 1
          exit P
        task reclaim:
          swapout *
    """)
    assert judge(scenario) == []


def test_a_pin_waits_for_a_fork_under_way() -> None:
    """Else the fork would share what is pinned, and the next write part it from its pin."""
    scenario = parse("""
        machine frames=64 agents=0
        spawn P
        mmap P r 1
        write P r 9
        task pin:
          pin P r write
        task fork:
          fork P C
        write P r 1
    """)
    explored = explore(scenario, Bounds(preemptions=2))
    assert explored.complete
    assert explored.found == ()
