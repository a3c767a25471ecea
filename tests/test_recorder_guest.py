"""Guests that do not come up, with scripts in qemu's place: one line, status 2, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

IMAGE = bytes(0x202) + b"HdrS" + bytes(100)

#: What stands in for qemu, and what is then said. Each writes its pid first.
GUESTS = {
    "hangs": ("sleep 600", "no answer to 'hello' within 1 s: qemu still runs"),
    "ends": ("exit 3", "the agent ended at 'hello': qemu ended with status 3"),
    "dies": ("kill -9 $$", "qemu ended with status -9"),
    "panics": (
        "for word; do case $word in file:*) echo 'Kernel panic - not syncing: none' >${word#file:};"
        " esac; done; exit 0",
        "the console's last word was: Kernel panic - not syncing: none",
    ),
}


class Place:
    """A directory with a scenario, a kernel, and a script in qemu's place."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.pid = at / "pid"
        (at / "bin").mkdir()
        (at / "tmp").mkdir()
        (at / "cache").mkdir()
        (at / "vmlinuz").write_bytes(IMAGE)
        (at / "a.ksm").write_text("spawn A\n")

    def put(self, script: str) -> None:
        qemu = self.at / "bin" / "qemu-system-x86_64"
        qemu.write_text(f"#!/bin/sh\necho $$ >{self.pid}\n{script}\n")
        qemu.chmod(0o755)

    def start(self, *args: str, path: str | None = None) -> subprocess.Popen[str]:
        usual = (args[0], "--kernel", "vmlinuz", "--timeout", "1")
        return subprocess.Popen(
            [sys.executable, "-m", "pyksm", *usual, *args[1:]],
            cwd=self.at,
            env=os.environ
            | {
                "PATH": path or f"{self.at / 'bin'}:{os.environ['PATH']}",
                "TMPDIR": str(self.at / "tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def complaint(self, *args: str, path: str | None = None) -> str:
        with self.start(*args, path=path) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, ""), err
        assert err.startswith("pyksm: ")
        assert err.count("\n") == 1
        assert list((self.at / "tmp").iterdir()) == []
        return err

    def gone(self) -> bool:
        """Whether the script's process has ended."""
        try:
            os.kill(int(self.pid.read_text()), 0)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("what", GUESTS)
def test_guest_that_does_not_come_up(what: str, place: Place) -> None:
    script, said = GUESTS[what]
    place.put(script)
    assert said in place.complaint("record", "a.ksm")
    assert place.gone()


@pytest.mark.parametrize(
    "command",
    [
        ("run", "a.ksm", "--engine", "kernel", "--json"),
        ("diff", "a.ksm", "--engines", "core,kernel"),
        ("fuzz", "--against", "kernel", "--programs", "1"),
    ],
)
def test_other_commands_say_the_same(command: tuple[str, ...], place: Place) -> None:
    place.put("exit 3")
    assert "qemu ended with status 3" in place.complaint(*command)


def test_no_qemu(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    python = tmp_path / "empty" / "cc"
    python.symlink_to("/usr/bin/cc")
    said = place.complaint("record", "a.ksm", path=str(tmp_path / "empty"))
    assert "qemu-system-x86_64 is not there, expected qemu (Debian: qemu-system-x86)" in said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_while_it_waits(how: signal.Signals, place: Place) -> None:
    place.put("exec sleep 600")
    with place.start("record", "a.ksm", "--timeout", "600") as process:
        end = time.monotonic() + 60
        while not (place.pid.exists() and place.pid.read_text().strip()):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(how)
        process.wait(60)
    while not place.gone():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list((place.at / "tmp").iterdir()) == []


BAD = {
    "no kernel": (["record", "a.ksm", "--kernel", "none.deb"], "none.deb: No such file"),
    "no scenario": (["record", "b.ksm"], "b.ksm: No such file or directory, expected a scenario"),
    "model only": (["record", "c.ksm"], "c.ksm:2:1: 'census' is for engines only"),
    "one name": (["record", "a.ksm", "a.ksm"], "two scenario files of one name"),
    "nodes": (["record", "n.ksm"], "n.ksm: 9 memory nodes, expected at most 8"),
    "runs": (["record", "a.ksm", "--runs", "2"], "--runs: expected --out DIR"),
    "out": (["record", "a.ksm", "--out", "vmlinuz"], "--out vmlinuz: File exists, expected a"),
    "time": (["record", "a.ksm", "--timeout", "never"], "--timeout 'never': expected a number"),
    "accel": (["record", "a.ksm", "--accel", "warp"], "'warp' is not one of"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_usage(what: str, place: Place) -> None:
    place.put("exit 3")
    (place.at / "c.ksm").write_text("spawn A\ncensus\n")
    (place.at / "n.ksm").write_text("machine nodes=9\n")
    args, said = BAD[what]
    assert said in place.complaint(*args)
    assert not place.pid.exists()
