"""Tasks and schedules: what parses, what is refused and how, and what they compile to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyksm.errors import InputError
from pyksm.scenario import parse, run
from pyksm.scenario import statements as st
from pyksm.scenario.parser import parse_schedule
from pyksm.scenario.schedule import Piece
from pyksm.tasks.compile import compiled
from pyksm.tasks.points import in_page

TEXT = """\
machine frames=100
spawn A
mmap A r 4
schedule a:3 b@do_swap_page:lock_page a@task:next_op#2 b # who
task a:
  write A r 1
  exit A
task b:
    fork A B
    write B r[1] 2+   # of b

    mmap B s 2
observe
task c:
read A r
  scan 1
join
task d:
scan 1
join
census
"""


def test_tasks_and_groups() -> None:
    scenario = parse(TEXT)
    first, second, third = scenario.groups
    assert first.names == ("a", "b")
    assert [str(each) for each in first.tasks[1].statements] == [
        "fork A B", "write B r[1] 2+", "mmap B s 2",
    ]  # fmt: skip
    assert first.schedule == st.Schedule(
        (
            Piece("a", 3),
            Piece("b", 1, "do_swap_page:lock_page"),
            Piece("a", 2, "task:next_op"),
            Piece("b"),
        )
    )
    assert [str(each) for each in second.tasks[0].statements] == ["read A r", "scan 1"]
    assert third.names == ("d",)
    assert (second.schedule, third.schedule) == (None, None)
    assert [each.line for each in scenario.answered] == [2, 3, 5, 6, 7, 9, 10, 12, 13, 14, 15, 16,
                                                         18, 19, 21]  # fmt: skip


def test_written_text_parses_to_the_same() -> None:
    scenario = parse(TEXT)
    assert parse(str(scenario)).statements == scenario.statements
    assert str(parse(str(scenario))) == str(scenario)


def test_schedule_of_a_command_line() -> None:
    schedule = parse_schedule("a@do_swap_page:lock_page#2 b:1", ("a", "b"), "--schedule")
    assert schedule.pieces == (Piece("a", 2, "do_swap_page:lock_page"), Piece("b", 1))
    with pytest.raises(InputError, match=r"^--schedule:1:4: found 'c', expected a task of the gr"):
        parse_schedule("a  c", ("a", "b"), "--schedule")
    with pytest.raises(InputError, match=r"^--schedule:1:1: found the end of the line, expected"):
        parse_schedule("", ("a", "b"), "--schedule")


MAY = "a statement that a task may have (spawn, mmap, write"
REFUSED = {
    "task a:\n  observe": (2, 3, MAY),
    "task a:\n  spawn A\n  census": (3, 3, MAY),
    "task a:\n  at shrink_zone:begin 1 scan 1": (2, 3, MAY),
    "task a:\n  machine nodes=2": (2, 3, MAY),
    "task a:\n  rmap A r": (2, 3, MAY),
    "task a:\n  task b:\n    spawn A": (2, 3, MAY),
    "task a:\n  spawn A\n  schedule a": (3, 3, MAY),
    "task a:\n  spawn A\n  join": (3, 3, MAY),
    "task a:\nspawn A\nobserve": (3, 1, MAY),
    "task a:\n": (1, 8, "a statement of task a"),
    "task a:\ntask b:\n  spawn A": (2, 1, "a statement of task a"),
    "task a": (1, 6, "a task's name and a colon (NAME:)"),
    "task": (1, 5, "a task's name and a colon (NAME:)"),
    "task 1:": (1, 6, "a task's name and a colon (NAME:)"),
    "task a: spawn A": (1, 9, "the end of the line"),
    "task a:\n spawn A\ntask a:\n spawn B": (3, 6, "another name: the group has a task a"),
    "".join(f"task t{k}:\n spawn P{k}\n" for k in range(9)): (17, 6, "at most 8 tasks in a group"),
    "join now": (1, 6, "the end of the line"),
    "schedule": (1, 9, "TASK, TASK:STEPS, TASK@POINT or TASK@POINT#TIMES"),
    "schedule a": (1, 11, "a task after the schedule"),
    "schedule a\nobserve": (2, 1, "a task after the schedule"),
    "schedule a c:3\ntask a:\n spawn A": (1, 12, "a task of the group (a)"),
    "schedule a:0\ntask a:\n spawn A": (1, 12, "a count (1 to 4294967295)"),
    "schedule a@do_swap_page:lock_page#x\ntask a:\n spawn A": (1, 35, "a count (1 to 4294967295)"),
    "schedule a@do_swap_page:lock_pgae": (1, 12, "a point such as do_swap_page:lock_page or "),
    "schedule a@xyzzyx": (1, 12, "a point (docs/tasks.md has all)"),
    "schedule 7:1": (1, 10, "TASK, TASK:STEPS, TASK@POINT or TASK@POINT#TIMES"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    line, column, expected = REFUSED[text]
    with pytest.raises(InputError) as caught:
        parse(text, "f.ksm")
    said = str(caught.value)
    assert said.startswith(f"f.ksm:{line}:{column}: found ")
    assert f", expected {expected}" in said
    assert "\n" not in said


def test_objects_that_no_file_says() -> None:
    """Shrinking makes them: they are refused where they are used."""
    task = st.Task("a", (st.Spawn("A"),))
    for statements, expected in (
        ((st.Schedule((Piece("a"),)),), "expected a task after it"),
        ((task, task), "expected a name for each task"),
        ((st.Schedule((Piece("b"),)), task), "expected a task of a"),
        ((st.Task("a", (st.Observe(),)),), "expected nothing like that in a task"),
        (tuple(st.Task(f"t{k}", task.statements) for k in range(9)), "at most 8 tasks"),
    ):
        with pytest.raises(InputError, match=expected):
            tuple(st.parts(statements))


def test_compiled_in_the_order_of_the_text() -> None:
    program = compiled(parse(TEXT))
    assert program.names == ("a", "b")
    assert [each.name for each in program.processes] == ["A", "B"]
    spawn, mmap = (step.ops[0] for step in program.setup)
    assert (spawn.kind, spawn.process) == ("SPAWN", 0)
    fork, write, second = (step.ops[0] for step in program.tasks[1])
    assert (fork.kind, fork.process, fork.child) == ("FORK", 0, 1)
    assert (write.process, write.addr, write.npages) == (1, mmap.addr + 4096, 1)
    assert (second.process, second.npages) == (1, 2)
    assert second.addr > mmap.addr
    # A has exited at the end of the text, but maybe not when this runs.
    assert [step.ops[0].process for step in program.after[1:2]] == [0]
    assert [step.statement.op for step in program.after] == [
        "observe", "read", "scan", "scan", "census",
    ]  # fmt: skip


def test_errors_of_the_scenarios_own_making() -> None:
    program = compiled(
        parse(
            "spawn A\nmmap A r 4\ntask a:\n write A x 1\n write A r[3:5] 1\n write B r 1\n"
            " spawn A\n mmap A r 1\n swapoff S\n swapon S 8\n swapon S 8\n exit A\n write A x 1\n"
            " spawn A\n write A r 1\n"
        )
    )
    assert [step.error for step in program.steps] == [2, 34, 3, 17, 17, 22, 0, 17, 0, 3, 0, 2]
    assert [bool(step.ops) for step in program.steps] == [not step.error for step in program.steps]
    assert [each.name for each in program.processes] == ["A", "A"]


def test_no_tasks_no_program() -> None:
    with pytest.raises(InputError, match="has no tasks"):
        compiled(parse("spawn A"))
    with pytest.raises(InputError, match="no `at` beside tasks"):
        compiled(parse("at shrink_zone:begin 1 scan 1\ntask a:\n scan 1"))


PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_page_has_every_point() -> None:
    assert in_page(PAGE) == PAGE, "python -m pyksm.tasks.points docs/tasks.md"


def test_page_has_a_scenario() -> None:
    text = PAGE.split("```")[1].strip()
    results = run(parse(text), "core")["results"]
    assert [each["end"] for each in results if each["op"] == "tasks"] == ["done"]
    assert results[-1]["violations"] == []
    said = {(each["errno"], each.get("ended")) for each in results}
    assert said == {(None, None)}
