"""Tasks run: their results, schedules that replay, deadlocks, and what engines agree on."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
from scn import SCENARIOS

from pyksm.errors import InputError
from pyksm.hunt.fuzz import examine
from pyksm.hunt.generate import program
from pyksm.profiles import PROFILES
from pyksm.scenario import Scenario, parse, run
from pyksm.scenario import statements as st
from pyksm.scenario.parser import parse_schedule
from pyksm.tasks.compile import compiled
from pyksm.tasks.core import lib
from pyksm.tasks.run import Recording, _Names

#: Nobody has to wait for anybody when these run one after the other.
IN_ORDER = {
    "swapoff | unmerge | fork": """
        swapon S 64
        swapout *
        task off:
          swapoff S
        task unmerge:
          ksm run=2
        task c:
          read A r
          fork A C
          mmap C q 2
          write C q 5+
          mremap C q[1] q2
          read C q2
        read C q
    """,
    "scan | reclaim | write | poke": """
        task ksmd:
          scan 1
        task reclaim:
          swapon S 32 priority=1
          swapout *
          swapon S 8
          swapout B r[0:2]
        task writer:
          write A r[1:3] 9+
          poke B r[0] 17 3
          read B r
          madvise B r[2:4] unmergeable
          mprotect B r[3] r
          write B r[3] 1
        swapoff S
    """,
    "exit | spawn | errors": """
        task a:
          exit A
          exit A
        task b:
          read A r
          write A nowhere 1
          fork A D
          migrate A r 0
          migrate B r 7
          spawn A
          mmap A r 2
          write A r 3
        task c:
          inject page 1
          write A r[0] 4
          mmap B r 2
          swapoff S
          ksm run=3 sleep_millisecs=foo pages_to_scan=10
          pin B r[0]
          unpin B r[0]
          pin B r[2] write
          fork B E
          write E r[2] 7
          mremap B r[0] r[3]
          clear_refs B 1
          sleep 5
          munmap B r[1]
          read B r
        write A r 8
    """,
}
SETUP = """
    machine frames=400
    spawn A
    spawn B
    mmap A r 4
    mmap B r 4
    write A r 7
    write B r 7
    madvise A r mergeable
    madvise B r mergeable
    scan 2
"""


def scenario(text: str) -> Scenario:
    return parse(SETUP + text + "\nobserve end\ncensus strict\n")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", IN_ORDER)
def test_engines_agree_where_nobody_waits(name: str, profile: str) -> None:
    """The core runs the tasks at the same time, the others run their statements."""
    if profile == "4.19.0-unfixed" and "swapoff" in name:
        pytest.skip("that kernel's swapoff does not end")
    wanted = scenario(IN_ORDER[name])
    assert examine(wanted, ("core", "oracle", "core+all"), profile) == []


def results_of(wanted: Scenario, **how: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = run(wanted, "core", **how)["results"]
    return results


def test_results_in_the_order_of_the_text() -> None:
    wanted = scenario(IN_ORDER["swapoff | unmerge | fork"])
    results = results_of(wanted)
    assert [each["line"] for each in results] == [each.line for each in wanted.answered]
    (group,) = (each for each in results if each["op"] == "tasks")
    assert group["tasks"] == ["off", "unmerge", "c"]
    assert (group["end"], group["errno"], group["preemptions"]) == ("done", None, 0)
    assert group["schedule"] == "off unmerge c"
    assert group["steps"] >= 9
    assert "swapoff" in [each["op"] for each in results]
    assert len(next(each for each in results if each["op"] == "read")["crc"]) == 4


def test_a_schedule_replays() -> None:
    """What a run says it did gives that run again, trace and all."""
    text = IN_ORDER["swapoff | unmerge | fork"].replace(
        "task off:", "schedule off:2 unmerge:1 c@task:next_op off:1 c:1\n        task off:"
    )
    first: list[Recording] = []
    answer = results_of(scenario(text), recordings=first)
    (group,) = (each for each in answer if each["op"] == "tasks")
    assert group["preemptions"] >= 3
    said = text.replace("off:2 unmerge:1 c@task:next_op off:1 c:1", group["schedule"])
    second: list[Recording] = []
    assert results_of(scenario(said), recordings=second) == answer
    assert second[0].trace == first[0].trace
    assert second[0].seen == first[0].seen
    assert len(first[0].trace) == group["steps"]


MISFITS = {
    "a:100": "task a has ended before that",
    "a@shrink_page_list:trylock_page": "task a has ended before that",
    "a a:1": "task a has ended before that",
}


@pytest.mark.parametrize("schedule", MISFITS)
def test_a_schedule_that_does_not_fit(schedule: str) -> None:
    text = f"schedule {schedule}\ntask a:\n  spawn C\ntask b:\n  spawn D\n"
    with pytest.raises(InputError, match=f"piece [12] of the schedule: {MISFITS[schedule]}"):
        results_of(scenario(text))


def test_only_the_core_has_schedules() -> None:
    wanted = scenario("schedule a\ntask a:\n  spawn C\n")
    with pytest.raises(InputError, match="schedule a: engine oracle runs tasks one after the"):
        run(wanted, "oracle")
    assert examine(wanted, ("core", "core+tasks")) == []


def test_no_end() -> None:
    """A bound of steps: the machine is dead, statements that did not end say so."""
    wanted = scenario("task a:\n  spawn C\n  spawn D\ntask b:\n  spawn E\n")
    results = results_of(wanted, max_steps=2)
    head, *rest = results[-6:]
    assert (head["end"], head["steps"]) == ("livelock", 2)
    assert [each.get("ended") for each in rest[:3]] == [None, None, False]
    assert [each["errno"] for each in rest] == [None, None, None, "EIO", "EIO"]


def test_regions_of_the_text_whoever_is_first() -> None:
    """B's child is made before the region that the text has before it: it lies where it would."""
    wanted = parse(
        "spawn B\nschedule b a\ntask a:\n  mmap B r 2\n  write B r 1\n"
        "task b:\n  fork B C\nread C r\nread B r\n"
    )
    *_, child, parent = results_of(wanted)
    assert (child["errno"], child["crc"]) == ("EFAULT", [None, None])
    assert parent["errno"] is None


def test_a_group_needs_no_at() -> None:
    with pytest.raises(InputError, match="expected a statement after it and no tasks"):
        run(parse("at shrink_zone:begin 1 scan 1\ntask a:\n  scan 1\n"), "core")


def oops_and_more() -> list[dict[str, Any]]:
    """swapoff holds on to an mm that is on its way out, as no kernel does: some order is fatal."""
    path = SCENARIOS / "proof" / "swapoff-exit.ksm"
    wanted = parse(path.read_bytes()).on(bugs=("try_to_unuse-no-mm_users",))
    wanted = dataclasses.replace(wanted, statements=(*wanted.statements, st.Observe("end")))
    names = wanted.groups[0].names
    for steps in range(1, 12):
        for more in range(1, 12):
            text = f"exit:{steps} off:{more} exit off"
            try:
                schedule = parse_schedule(text, names, "--schedule")
                results = results_of(wanted.scheduled([schedule]), max_steps=5000)
            except InputError:
                continue
            if any(each.get("end") == "oops" for each in results):
                return results
    raise AssertionError("no order is fatal")


@pytest.mark.skipif(not lib.pyksm_tasks_traced(), reason="accesses are not looked at here")
def test_oops() -> None:
    results = oops_and_more()
    (group,) = (each for each in results if each["op"] == "tasks")
    assert group["text"].startswith("BUG: ")
    assert group["events"][-1] == group["text"].replace(" of A", " of pid 1")
    inner = results[results.index(group) + 1 :][:2]
    assert False in [each.get("ended") for each in inner]
    assert results[-1]["errno"] == "EIO"


def test_what_the_core_knows_by_number() -> None:
    program = compiled(parse("spawn A\nspawn B\ntask one:\n  sleep 1\ntask two:\n  sleep 1\n"))
    names = _Names(program, [(0, 7), (1, 9)])
    assert names.in_text(
        "task 0 waits at unuse_mm:mmap_sem for mmap_sem of pid 9, which task 1 has; task 1 waits "
        "at x for page lock of frame 3"
    ) == (
        "task one waits at unuse_mm:mmap_sem for mmap_sem of B, which task two has; task two waits "
        "at x for page lock of frame 3"
    )
    assert names.in_lock("pte lock of pid 8 at 0x0") == "pte lock of pid 8 at 0x0"


def in_tasks(wanted: Scenario, lot: random.Random) -> Scenario:
    """The same statements, most of them in groups of up to three tasks, one after the other.

    Not reclaim, which gives up sooner where others may be in its way (RULES.md).
    """
    statements: list[st.Statement] = []
    waiting: list[st.Statement] = []
    for each in (*wanted.body, st.Observe("end")):
        armed = bool(statements) and isinstance(statements[-1], st.At) and not waiting
        if each.op in st.IN_TASKS and each.op != "swapout" and not armed:
            waiting.append(each)
            continue
        while waiting:
            count = lot.randint(1, min(12, len(waiting)))
            cuts = sorted({0, count, *(lot.randint(1, count) for _ in range(2))})
            group = [
                st.Task(f"t{k}", tuple(waiting[first:end]))
                for k, (first, end) in enumerate(itertools.pairwise(cuts))
            ]
            statements += [*group, st.Join()] if lot.random() < 0.8 else waiting[:count]
            del waiting[:count]
        statements.append(each)
    return st.Scenario((wanted.machine, *statements))


@pytest.mark.parametrize("seed", range(12))
def test_programs_in_tasks(seed: int) -> None:
    wanted = in_tasks(program(seed), random.Random(seed))
    assert wanted.groups
    assert parse(str(wanted)).statements == wanted.statements
    assert examine(wanted) == []


@pytest.mark.parametrize("seed", range(1, 9))
def test_an_order_drawn_by_lot_replays(seed: int) -> None:
    """Each group's schedule, as it is told, gives the same answers by the same steps."""
    wanted = in_tasks(program(seed), random.Random(seed))
    first: list[Recording] = []
    answers = results_of(wanted, recordings=first, seed=seed)
    told = [each["schedule"] for each in answers if each["op"] == "tasks"]
    assert sum(recording.preemptions for recording in first) > 0
    pairs = zip(told, wanted.groups, strict=True)
    again = wanted.scheduled([parse_schedule(text, group.names, "") for text, group in pairs])
    second: list[Recording] = []
    assert results_of(again, recordings=second) == answers
    assert [each.trace for each in second] == [each.trace for each in first]
