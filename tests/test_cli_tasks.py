"""The command line of tasks and of the museum: run --schedule, --timeline, --html, --bug; bugs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import Ran

from pyksm import museum
from pyksm.bugs import BUGS, CHECKS
from pyksm.profiles import PROFILES

TASKS = """\
machine profile=3.9
spawn A
mmap A r 1
write A r 7
swapon S 8
swapout *
task off:
  swapoff S
task reader:
  read A r
read A r
"""
SEED = "ksm-swapoff-resurrects-ksm-page"


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    path = tmp_path / "tasks.ksm"
    path.write_text(TASKS)
    return str(path)


def test_run(tasks: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "run", tasks, "--schedule", "off:2 reader:3 off", "--json")
    assert (ran.status, ran.err) == (0, "")
    results = json.loads(ran.out)["results"]
    (group,) = (each for each in results if each["op"] == "tasks")
    assert group["schedule"].startswith("off:2 reader:3 off")
    ran = Ran(capsys, "run", tasks)
    assert ran.status == 0
    assert "tasks off, reader" in ran.out
    assert "schedule off reader" in ran.out


def test_by_lot(tasks: str, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = Ran(capsys, "run", tasks, "--lot", "5", "--json")
    assert (drawn.status, drawn.err) == (0, "")
    results = json.loads(drawn.out)["results"]
    (said,) = (each["schedule"] for each in results if each["op"] == "tasks")
    assert said.count(" ") > 2
    assert Ran(capsys, "run", tasks, "--schedule", said, "--json").out == drawn.out


def test_drawn(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "drawn.html"
    ran = Ran(capsys, "run", tasks, "--timeline", "--html", str(html), "--watch", "A r")
    assert (ran.status, ran.err) == (0, "")
    assert "locks held then" in ran.out
    assert "A r[0]: slot 0:1, count 1" in ran.out
    assert html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    every = Ran(capsys, "run", tasks, "--timeline", "--all")
    assert every.out.count("\n") > ran.out.count("\n")


def test_diff(tasks: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "diff", tasks)
    assert (ran.status, ran.out) == (0, "core and oracle agree: 9 statements\n")


REFUSED = {
    ("--schedule", "off:2 writer"): "--schedule:1:7: found 'writer', expected a task of the group",
    ("--schedule", "off@nowhere"): "--schedule:1:5: found 'off@nowhere', expected a point",
    ("--schedule", "off:1000"): "piece 1 of the schedule: task off has ended before that",
    ("--schedule", "off", "--schedule", "off"): "'off': the scenario has 1 groups of tasks",
    ("--schedule", "off", "--engine", "oracle"): "schedule off: engine oracle runs tasks one aft",
    (
        "--timeline",
        "--engine",
        "oracle",
    ): "--timeline: engine oracle has no steps to tell, expected",
    ("--lot", "3", "--engine", "core+all"): "--lot: engine core+all has no steps to tell, expected",
    ("--watch", "A"): "--watch 'A': expected a process and pages R, R[i] or R[i:j]",
    ("--html", "/nowhere/x.html"): "--html /nowhere/x.html: No such file or directory, expected",
    ("--bug", "ksm-swapoff-resurects"): f"is not known, expected one such as {SEED}",
    ("--bug", "xyzzy"): "bug 'xyzzy' is not known, expected one (pyksm bugs has all)",
    ("--bug", SEED, "--engine", "oracle"): f"bug {SEED}: engine oracle has no bugs, expected core",
    ("--bug", "swapoff-loses-pte-bits"): "profile 3.9 has no swapoff-soft-dirty, expected 6.1, 6.1",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_refused(
    arguments: tuple[str, ...], tasks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "run", tasks, *arguments, "--json")
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert REFUSED[arguments] in ran.err


def test_kernels_have_no_tasks(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "recorded.json"
    recording.write_text('{"kernel": "6.1.0", "results": []}')
    Ran(capsys, "diff", tasks, "--engines", f"core,{recording}").refused("'task'")
    Ran(capsys, "diff", tasks, "--bug", SEED).refused("engine oracle has no bugs")


def test_bug_changes_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(museum.path(SEED))
    right = json.loads(Ran(capsys, "run", file, "--json").out)["results"]
    wrong = json.loads(Ran(capsys, "run", file, "--json", "--bug", SEED).out)["results"]
    census = next(index for index, each in enumerate(right) if each["op"] == "census")
    assert right[census]["violations"] == []
    assert wrong[census]["violations"]


def test_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    listed = Ran(capsys, "bugs")
    assert (listed.status, listed.err) == (0, "")
    described = json.loads(Ran(capsys, "bugs", "--json").out)
    assert [each["name"] for each in described] == [bug.name for bug in (*BUGS, *CHECKS)]
    for each in described:
        assert each["name"] in listed.out
        assert set(each["profiles"]) <= set(PROFILES)
    one = Ran(capsys, "bugs", SEED)
    for said in ("9e16b7fb1d06", "mm/swapfile.c: unuse_pte", "I7", "swapoff S", f"--bug {SEED}"):
        assert said in one.out
    answer = json.loads(Ran(capsys, "bugs", SEED, "--json").out)
    assert answer["text"] == museum.path(SEED).read_text(encoding="utf-8")
    assert answer["scenario"] == f"{SEED}.ksm"
    alone = Ran(capsys, "bugs", SEED, "--scenario")
    assert (alone.status, alone.out) == (0, answer["text"])
    Ran(capsys, "bugs", "--scenario").refused("expected the NAME of a bug")
    Ran(capsys, "bugs", CHECKS[0].name, "--scenario").refused("has no scenario, expected one that")
    Ran(capsys, "bugs", "xyzzy").refused("is not known, expected one (pyksm bugs has all)")
