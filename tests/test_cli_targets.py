"""pyksm swapoff, estimate and capture, as a user or a program calls them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import corewriter
import memories
import pytest
from commandline import complaint

import pyksm
from pyksm.cli import status
from pyksm.profiles import DEFAULT
from pyksm.targets import image
from pyksm.targets.memory import Memory

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """An image of three strangers with a page alike and a page of their own."""
    memory = Memory()
    for k in range(3):
        memories.process(memory, {16: 1, 17: 10 + k})
    path = str(tmp_path / "saved")
    image.save(memory, path)
    return path


def answer(capsys: Capture, *args: str) -> Any:
    assert status([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_swapoff_of_an_image(engine: str, saved: str, capsys: Capture) -> None:
    told = answer(capsys, "swapoff", saved, "--engine", engine)
    assert (told["version"], told["command"], told["fine"]) == (1, "swapoff", True)
    assert told["source"]["kind"] == "files"
    assert told["source"]["targets"] == [saved]
    assert told["source"]["distinct_pages"] == 4
    assert told["machine"]["engine"] == engine
    reads = {name: policy["page_reads"] for name, policy in told["policies"].items()}
    assert reads == {"per-mm": 4, "reread": 6, "memcpy": 4}
    assert told["machine"]["profile"] == DEFAULT
    old = answer(capsys, "swapoff", saved, "--engine", engine, "--profile", "4.19")
    reads = {name: policy["page_reads"] for name, policy in old["policies"].items()}
    assert reads == {"reread": 6, "memcpy": 4}


@pytest.mark.parametrize("policy", ["per-mm", "reread", "memcpy"])
def test_one_policy(saved: str, capsys: Capture, policy: str) -> None:
    told = answer(capsys, "swapoff", saved, "--policy", policy)
    assert list(told["policies"]) == [policy]


def test_estimate(engine: str, saved: str, capsys: Capture) -> None:
    told = answer(capsys, "estimate", saved, "--engine", engine)
    assert told["command"] == "estimate"
    assert (told["ksm"]["pages_shared"], told["ksm"]["pages_sharing"]) == (1, 2)
    assert told["ksm"]["general_profit"] == 2 * 4096 - 6 * 64
    assert "policies" not in told
    advised = answer(capsys, "estimate", saved, "--engine", engine, "--mergeable", "advised")
    assert advised["ksm"]["pages_shared"] == 0


def test_tables_without_progress(saved: str, capsys: Capture) -> None:
    assert status(["swapoff", saved]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "6 private anonymous pages (24.0 KiB), 4 different contents" in out
    assert ["ptes", "in", "swap", "6", "6", "6"] in [line.split() for line in out.splitlines()]
    assert status(["estimate", saved]) == 0
    assert "pages_sharing" in capsys.readouterr().out


def test_too_little_memory_is_a_finding(saved: str, capsys: Capture) -> None:
    assert status(["swapoff", saved, "--frames", "3"]) == 1
    assert "failed: ENOMEM" in capsys.readouterr().out
    assert status(["swapoff", saved, "--frames", "6"]) == 0


def test_capture_then_swapoff_of_own_interpreters(tmp_path: Path, capsys: Capture) -> None:
    path = str(tmp_path / "own")
    told = answer(capsys, "capture", "--procs", "2", "-o", path)
    assert told["source"]["kind"] == "own"
    assert told["image"] == {"path": path, "bytes": os.path.getsize(path)}
    assert len(told["source"]["processes"]) == 3
    swapped = answer(capsys, "swapoff", path)
    assert swapped["source"]["ptes"] == told["source"]["ptes"] > 5000
    assert swapped["source"]["processes"] == told["source"]["processes"]
    reread, memcpy = swapped["policies"]["reread"], swapped["policies"]["memcpy"]
    # All have loaded the same sources: two families read those pages twice, or copy them.
    assert reread["page_rereads"] == memcpy["copies"] > 100
    assert memcpy["page_reads"] == memcpy["slots"] < memcpy["ptes"]
    assert reread["unchanged"]
    assert memcpy["unchanged"]
    if os.geteuid() == 0:
        assert swapped["sharing"]["ptes_rebuilt"] == swapped["sharing"]["ptes"] > 1000
    assert status(["capture", path, "-o", path]) == 0  # an older image may be replaced
    assert "private anonymous pages" in capsys.readouterr().out


def test_a_running_process_and_a_core_together(tmp_path: Path, capsys: Capture) -> None:
    core = tmp_path / "core"
    core.write_bytes(corewriter.core([corewriter.Load(0x400000, memories.page(3))]))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        time.sleep(0.2)
        try:
            told = answer(capsys, "estimate", str(process.pid), str(core), "--stop")
        finally:
            process.kill()
    assert told["source"]["kind"] == "mixed"
    assert told["source"]["processes"][0]["pid"] == process.pid
    assert told["source"]["processes"][1]["ptes"] == 1


def test_estimate_with_so_many_scans(engine: str, saved: str, capsys: Capture) -> None:
    for scans, shared in ((0, 0), (1, 0), (2, 1), (5, 1)):
        words = ("--engine", engine, "--profile", "3.10", "--scans", str(scans))
        told = answer(capsys, "estimate", saved, *words)
        assert told["ksm"]["full_scans"] == told["ksm"]["counts"]["full_scans"] == scans
        assert told["ksm"]["pages_shared"] == shared
        assert told["ksm"]["settled"] == (scans == 5)
        assert told["machine"]["profile"] == "3.9"


def test_estimate_with_knobs_of_ksm(engine: str, saved: str, capsys: Capture) -> None:
    words = ("--engine", engine, "--profile", "3.9")
    told = answer(capsys, "estimate", saved, *words, "--ksm", "merge_across_nodes=0")
    assert told["ksm"]["pages_shared"] == 1
    for setting, why in {
        "no_such_file=1": "ENOENT",
        "pages_shared=1": "EACCES",
        "merge_across_nodes=7": "EINVAL",
        "use_zero_pages": "FILE=NUMBER",
        "use_zero_pages=x": "FILE=NUMBER",
        "=1": "FILE=NUMBER",
        f"pages_to_scan={'9' * 30}": "FILE=NUMBER",
        "run=1": "expected another file",
    }.items():
        for command in ("estimate", "swapoff"):
            err = complaint(capsys, command, saved, *words, "--ksm", setting)
            assert why in err
    assert "9.9" in complaint(capsys, "estimate", saved, "--profile", "9.9")
    assert "--scans" in complaint(capsys, "estimate", saved, "--scans", "-1")


@pytest.mark.parametrize("command", ["swapoff", "estimate", "capture"])
def test_bad_input_is_one_line(tmp_path: Path, capsys: Capture, command: str) -> None:
    more = ["-o", str(tmp_path / "new")] if command == "capture" else []
    (tmp_path / "text").write_text("no")
    (tmp_path / "cut").write_bytes(image.MAGIC)
    for target, expected in (
        (str(tmp_path / "none"), "No such file"),
        (str(tmp_path / "text"), "neither a pyksm image nor an ELF core file"),
        (str(tmp_path / "cut"), "not a pyksm image"),
        ("2147483647", "PID 2147483647: no such process (ESRCH)"),
        ("0", "not a PID"),
        (str(os.getpid()), "this is pyksm itself"),
    ):
        assert expected in complaint(capsys, command, target, *more)
    assert not (tmp_path / "new").exists()
    for wrong in (["--procs", "0"], ["--procs", "x"], ["--nonsense"]):
        complaint(capsys, command, *wrong, *more)


def test_bad_options(saved: str, tmp_path: Path, capsys: Capture) -> None:
    for wrong, expected in (
        (["--engine", "abacus"], "expected core or oracle"),
        (["--policy", "hope"], "--policy"),
        (["--frames", "0"], "--frames"),
        (["--frames", "-5"], "--frames"),
        (["--mergeable", "some"], "--mergeable"),
    ):
        assert expected in complaint(capsys, "swapoff", saved, *wrong)
    assert "--output" in complaint(capsys, "capture", saved)
    # Refused before any process is read or spawned.
    assert "not a regular file" in complaint(capsys, "capture", "-o", str(tmp_path))
    (tmp_path / "text").write_text("precious")
    assert "left alone" in complaint(capsys, "capture", saved, "-o", str(tmp_path / "text"))
    assert (tmp_path / "text").read_text() == "precious"


# ------------------------------------------------------------------ as a process of its own

SOURCE = str(Path(pyksm.__file__).parent.parent)
COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {SOURCE!r}); from pyksm.cli import main; main()",
]


def children_of(pid: int) -> list[int]:
    """Direct children that are still there."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    words = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(words[1]) == pid:
                found.append(int(entry))
    return found


def test_ctrl_c_ends_the_interpreters(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "swapoff", "--procs", "40"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        while len(spawned := children_of(process.pid)) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert not any(os.path.exists(f"/proc/{pid}") for pid in spawned)


def test_progress_goes_to_a_terminal_and_nowhere_else(saved: str) -> None:
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "swapoff", saved, "--json"], stdout=subprocess.PIPE, stderr=secondary
    ) as process:
        os.close(secondary)
        out, _ = process.communicate(timeout=60)
    drawn = b""
    try:
        while chunk := os.read(primary, 65536):
            drawn += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(primary)
    assert process.returncode == 0
    assert json.loads(out)["fine"]
    assert b"swapoff" in drawn
    piped = subprocess.run([*COMMAND, "swapoff", saved], capture_output=True, check=True)
    assert piped.stderr == b""
    assert b"\x1b" not in piped.stdout
