"""Targets that mean ill: small files that ask for much, names and streams that cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import memories
import pytest

import pyksm
from pyksm.cli import status
from pyksm.errors import InputError
from pyksm.jobs import plan
from pyksm.targets import image
from pyksm.targets.memory import Memory, Vma

Capture = pytest.CaptureFixture[str]


def test_many_mappings_take_no_time() -> None:
    """Planning compared each mapping with each: minutes for 60,000, which Linux allows."""
    memory = Memory()
    for k in range(2):
        pages = {16 + 2 * j: 1 for j in range(60_000)}
        memories.process(memory, pages, frames={16: 0}, pid=1 + k, ppid=k)
    begin = time.monotonic()
    plan.make_plan(memory)
    assert time.monotonic() - begin < 10


def test_more_generations_than_any_box_has(tmp_path: Path, capsys: Capture) -> None:
    """Anonymous rmap of a chain of forks is quadratic: 20,000 generations would take gigabytes."""
    memory = Memory()
    for k in range(plan.MAX_GENERATIONS + 1):
        memories.process(memory, {16: 1}, frames={16: 0}, pid=1 + k, ppid=k)
    path = str(tmp_path / "chain")
    image.save(memory, path)
    assert status(["estimate", path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "a family of 4097 processes, 4097 generations" in err
    assert "expected at most 4096 and" in err
    assert err.count("\n") == 1


def test_too_many_links(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    for k in range(4):
        memories.process(memory, {16: 1, 20: 1}, frames={16: 0}, pid=1 + k, ppid=k)
    monkeypatch.setattr(plan, "MAX_CHAINS", 20)
    plan.make_plan(memory)
    monkeypatch.setattr(plan, "MAX_CHAINS", 19)
    with pytest.raises(InputError, match="20 links"):
        plan.make_plan(memory)


# ------------------------------------------------------------------ signals half way

SOURCE = str(Path(pyksm.__file__).parent.parent)

# The command line, saying when it has come to a place, and then staying there for a while.
STAYING = f"""
import sys, time
sys.path.insert(0, {SOURCE!r})
from pyksm.cli import main
from pyksm.targets import image, procfs

def stay(*args):
    print("there", flush=True)
    time.sleep(30)

place = sys.argv.pop(1)
if place == "read":
    procfs.ProcessFiles.read_pages = stay
else:
    image._parts = stay
main()
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat, none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def interpreters_of(pid: int) -> list[int]:
    """Those that a pyksm process has spawned, grandchildren too."""
    found: list[int] = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            found += [int(entry), *interpreters_of(int(entry))]
    return found


def ended_at(place: str, number: signal.Signals, *args: str, seen: list[int]) -> int:
    """The status of a command that gets a signal when it has come to that place."""
    with subprocess.Popen(
        [sys.executable, "-c", STAYING, place, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        seen += interpreters_of(process.pid)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert err.strip() == b""  # click ends the line in which Ctrl-C was typed
    return process.returncode


ENDINGS = [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]


@pytest.mark.parametrize(("number", "expected"), ENDINGS)
def test_whoever_was_stopped_goes_on(number: signal.Signals, expected: int) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as target:
        time.sleep(0.2)
        try:
            args = ("estimate", "--stop", str(target.pid))
            assert ended_at("read", number, *args, seen=[]) == expected
            wait_until(lambda: state_of(target.pid) in tuple("SR"))
        finally:
            target.kill()


@pytest.mark.parametrize(("number", "expected"), [*ENDINGS, (signal.SIGKILL, -signal.SIGKILL)])
def test_no_interpreter_of_ours_is_left(number: signal.Signals, expected: int) -> None:
    seen: list[int] = []
    assert ended_at("read", number, "swapoff", "--procs", "2", seen=seen) == expected
    assert len(seen) == 3
    wait_until(lambda: all(state_of(pid) in ("", "Z") for pid in seen))


@pytest.mark.parametrize(("number", "expected"), ENDINGS)
def test_no_half_of_an_image_is_left(tmp_path: Path, number: signal.Signals, expected: int) -> None:
    memory = Memory()
    memories.process(memory, {16: 1})
    image.save(memory, str(tmp_path / "old"))
    args = ("capture", str(tmp_path / "old"), "-o", str(tmp_path / "new"))
    assert ended_at("save", number, *args, seen=[]) == expected
    assert os.listdir(tmp_path) == ["old"]


def test_ctrl_c_in_the_middle_of_c(tmp_path: Path) -> None:
    """What 3.9 does with many pages of one content in one process takes it hours."""
    memory = Memory()
    vma = Vma(16 << 12, 1 << 46)
    memories.process(memory, {16 + 512 * k: 1 for k in range(60_000)}, vmas=[vma])
    path = str(tmp_path / "long")
    image.save(memory, path)
    command = f"import sys; sys.path.insert(0, {SOURCE!r}); from pyksm.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "swapoff", path, "--policy", "reread"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT
    assert err == b""
