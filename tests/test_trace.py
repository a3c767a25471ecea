"""The build with tasks looks at each access: what would crash a kernel ends the machine, not us."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pyksm import museum
from pyksm.bugs import BUGS
from pyksm.engine import Config
from pyksm.errors import MachineError
from pyksm.hunt.fuzz import answer
from pyksm.hunt.generate import program
from pyksm.hunt.judge import judge
from pyksm.scenario import parse, run
from pyksm.tasks.core import TasksCore, lib

pytestmark = pytest.mark.skipif(
    not lib.pyksm_tasks_traced(), reason="this build does not look at accesses to memory"
)

#: What each of them does, which only the one who looks at accesses can see.
ENDS = {
    "ksm-chain-collapse-uaf": "use after free of a stable_node",
    "ksm-copy-check-reads-freed-anon-vma": "use after free of a anon_vma",
    "ksm-mm-freed-after-cursor-advance": "use after free of a mm_struct",
    "ksm-half-page-oops": "NULL pointer dereference, address 0x0",
    "ksm-zero-page-null-vma": "NULL pointer dereference, address 0x20",
}


@pytest.mark.parametrize("bug", ENDS)
def test_what_a_kernel_would_die_of(bug: str) -> None:
    found = judge(museum.scenario(bug), bugs=[bug])
    assert f"BUG: {ENDS[bug]}" in [each.text for each in found if each.code == "oops"], found


class Kept(TasksCore):
    """One that outlives its scenario."""

    def close(self) -> None:
        pass


def dead_machine() -> TasksCore:
    """What is left of one after its scenario."""
    made: list[Kept] = []
    bug = "ksm-half-page-oops"

    def make(config: Config) -> TasksCore:
        made.append(Kept(replace(config, bugs=frozenset({bug}))))
        return made[0]

    results = run(museum.scenario(bug), make)["results"]
    assert any(each.get("errno") == "EIO" for each in results), results
    return made[0]


def test_a_dead_machine_answers() -> None:
    """Every call is EIO, what was counted can still be read, and it can be closed."""
    machine = dead_machine()
    calls: list[Callable[[], Any]] = [
        machine.spawn,
        machine.census,
        lambda: machine.fork(1),
        lambda: machine.mmap(1, 4),
        lambda: machine.write_pages(1, 1 << 32, bytes(4096)),
        lambda: machine.swapon(16),
        lambda: machine.ksm_scan(1),
        lambda: machine.pagemap(1, 1 << 32, 1),
        lambda: machine.exit(1),
    ]
    for call in calls:
        with pytest.raises(MachineError) as error:
            call()
        assert error.value.errno == errno.EIO
    assert machine.counters()["handle_mm_fault"] > 0
    assert machine.events() == []
    TasksCore.close(machine)


@pytest.mark.parametrize("first", range(0, len(BUGS), 8))
def test_no_bug_ends_the_process(first: int) -> None:
    """Programs that have nothing to do with bugs, on machines that have two of them."""
    for k, bug in enumerate(BUGS[first : first + 8]):
        for seed in (first + k, 1000 + first + k):
            names = (bug.name, BUGS[seed * 7 % len(BUGS)].name)
            found = answer(program(seed).on(bugs=names), "core")
            assert "crash" not in found, (names, seed, found["crash"])


def test_a_call_that_goes_round_and_round_is_a_soft_lockup() -> None:
    """The hunter's: a KSM page that may be written to is never broken by writing, and outside of
    tasks no scheduler counts the steps."""
    scenario = parse("""
        machine profile=4.19 frames=64 agents=0 bug=ksm-write-protect-failure-ignored
        spawn A
        mmap A r 2
        write A r 7
        pin A r
        madvise A r mergeable
        scan 3
        madvise A r unmergeable
    """)
    assert any("soft lockup" in wrong.text for wrong in judge(scenario))
