"""The command line: answers, exit status, one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import Ran
from scn import SCENARIOS

from pyksm.features import release
from pyksm.profiles import DEFAULT, PROFILES
from pyksm.scenario import parse, run

SHARE = """\
spawn A
spawn B
mmap A r 2
mmap B r 2
write A r 7
write B r 7
madvise A r mergeable
madvise B r mergeable
swapon S 16
scan 3
observe merged
swapout *
swapoff S
read A r
"""

PYKSM = [sys.executable, "-c", "from pyksm.cli import main; main()"]


@pytest.fixture
def share(tmp_path: Path) -> str:
    path = tmp_path / "share.ksm"
    path.write_text(SHARE)
    return str(path)


def test_run_json(engine: str, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "run", share, "--engine", engine, "--json")
    assert ran.status == 0
    assert ran.err == ""
    assert json.loads(ran.out) == run(parse(SHARE), engine)


def test_answer_has_the_contracts_form(engine: str) -> None:
    answer = run(parse(SHARE), engine, profile="3.9")
    assert list(answer) == ["engine", "profile", "kernel", "results"]
    assert (answer["engine"], answer["profile"], answer["kernel"]) == (engine, "3.9", None)
    assert [each["line"] for each in answer["results"]] == list(range(1, 15))
    observe = answer["results"][10]
    assert list(observe) == ["line", "op", "label", "errno", "observation"]
    assert set(observe["observation"]) == {"processes", "ksm", "swap", "swapcached", "vmstat"}
    assert answer["results"][9]["scans"] == 3
    assert answer["results"][13]["crc"] == ["fd2fb650", "fd2fb650"]
    assert json.loads(json.dumps(answer)) == answer


def test_run_for_people(engine: str, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "run", share, "--engine", engine)
    assert ran.status == 0
    assert ran.err == ""
    for text in ("madvise A r mergeable", "observe merged", "pages_sharing 3", "unuse_pte 4"):
        assert text in ran.out


def test_profile_is_said(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("3.9", "3.10"):
        ran = Ran(capsys, "run", share, "--json", "--profile", given)
        assert json.loads(ran.out)["profile"] == given


def test_diff(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "diff", share)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "core and oracle agree: 14 statements\n"
    assert Ran(capsys, "diff", share, "--engines", "oracle,core", "--profile", "3.9").status == 0


def test_diff_says_where(
    share: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that counts one thing otherwise: exit status 1 and the first differing path."""
    from pyksm.core import Core
    from pyksm.scenario import engines

    class Off(Core):
        def vmstat(self) -> Any:
            return {**super().vmstat(), "pswpin": 0}

        def ksm_scan(self, n: int) -> int:
            return super().ksm_scan(n) + 1

    monkeypatch.setitem(engines._FACTORIES, "core", Off)
    ran = Ran(capsys, "diff", share)
    assert ran.status == 1
    assert ran.out.startswith("/results/9/scans: 4 != 3   # line 10: scan 3\n")
    assert "core and oracle differ: " in ran.out


def test_stdin(engine: str) -> None:
    done = subprocess.run(
        [*PYKSM, "run", "-", "--json", "--engine", engine],
        input=SHARE.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == run(parse(SHARE), engine)
    assert done.stderr == b""


def test_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{DEFAULT} (default)" in Ran(capsys, "profiles").out
    listed = json.loads(Ran(capsys, "profiles", "--json").out)
    assert [each["name"] for each in listed] == list(PROFILES)
    assert [each["name"] for each in listed if each["default"]] == [DEFAULT]
    assert listed[0]["aliases"] == ["3.10", "3.10.65"]
    assert listed[0]["features"] == []


def test_one_profile(capsys: pytest.CaptureFixture[str]) -> None:
    said = Ran(capsys, "profiles", "6.1").out
    assert "ksm_rmap_items" not in said.splitlines()[0]
    assert "unmerging a PROT_NONE range finds no pages" in said
    profile = json.loads(Ran(capsys, "profiles", "6.1", "--json").out)
    (feature,) = [each for each in profile["features"] if each["name"] == "swapoff-per-mm"]
    assert (feature["since"], feature["commits"]) == ("5.1", ["b56a2d8af914"])
    assert {each["name"] for each in profile["features"]} == PROFILES["6.1"].features


def test_upgrade(capsys: pytest.CaptureFixture[str]) -> None:
    """What changes between two profiles, in the order of the releases that changed it."""
    said = Ran(capsys, "profiles", "6.1", "6.12").out
    gained, lost = said.index("gained"), said.index("lost")
    assert gained < said.index("smart-scan") < lost < said.index("break-skips-prot-none")
    changed = json.loads(Ran(capsys, "profiles", "6.1", "6.12", "--json").out)
    assert (changed["from"]["name"], changed["to"]["name"]) == ("6.1", "6.12")
    names = {key: [each["name"] for each in changed[key]] for key in ("gained", "lost")}
    assert set(names["gained"]) == PROFILES["6.12"].features - PROFILES["6.1"].features
    assert set(names["lost"]) == PROFILES["6.1"].features - PROFILES["6.12"].features
    releases = [each["release"] for each in changed["gained"]]
    assert releases == sorted(releases, key=release)
    assert {each["release"] for each in changed["lost"]} == {"6.2"}
    back = json.loads(Ran(capsys, "profiles", "6.12", "6.1", "--json").out)
    assert {each["name"]: each["release"] for each in back["lost"]} == {
        each["name"]: each["release"] for each in changed["gained"]
    }
    assert {each["release"] for each in back["gained"]} == {"6.2"}
    assert "nothing changes" in Ran(capsys, "profiles", "3.9", "3.10").out


def test_switched_features_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--with and --without go before what the file says."""
    path = tmp_path / "switched.ksm"
    path.write_text(
        "machine profile=6.12 without=kpageflags-ksm-wrong\nspawn A\nmmap A r 1\nobserve\n"
    )
    name, said = "kpageflags-ksm-wrong", []
    for options in ([], ["--with", name], ["--without", name], ["--with", name, "--without", name]):
        answer = json.loads(Ran(capsys, "run", str(path), "--json", *options).out)
        said.append("ksm" in answer["results"][2]["observation"]["processes"]["A"]["r"])
    assert said == [True, False, True, True]


def test_fuzz_finds_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "found.ksm"
    args = ("fuzz", "--seed", "5", "--programs", "4", "--seconds", "60", "--out", str(out))
    ran = Ran(capsys, *args)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "seed 5: 4 programs, core and oracle agree on all\n"
    assert not out.exists()


def test_fuzz_tries_something_and_says_what_it_has_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However short the time, and however long a kernel takes to boot: none would prove nothing."""
    ran = Ran(capsys, "fuzz", "--seed", "5", "--programs", "4", "--seconds", "1e-9")
    assert ran.status == 0
    assert ran.out == "seed 5: 1 of 4 programs, for time is up; core and oracle agree on them\n"


def test_fuzz_finds_shrinks_and_diff_replays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyksm.core import Core
    from pyksm.scenario import engines

    class Off(Core):
        def fork(self, pid: int) -> int:
            child = super().fork(pid)
            self.touch(child, 4 << 30, 1)
            return child

    monkeypatch.setitem(engines._FACTORIES, "core", Off)
    monkeypatch.setitem(engines._FACTORIES, "oracle", Core)
    out = tmp_path / "found.ksm"
    ran = Ran(capsys, "fuzz", "--seed", "1", "--seconds", "100", "--out", str(out))
    assert (ran.status, ran.err) == (1, "")
    assert f"replay: pyksm diff {out}" in ran.out
    found = parse(out.read_bytes())
    assert [each.op for each in found.body] == ["spawn", "mmap", "fork"]
    assert Ran(capsys, "diff", str(out)).status == 1
    monkeypatch.undo()
    assert Ran(capsys, "diff", str(out)).status == 0


SOME = str(SCENARIOS / "S10-fork.ksm")
BAD = {
    "no command": ([], "expected one of"),
    "unknown command": (["frob"], "No such command 'frob'"),
    "unknown option": (["run", "--bogus", "x"], "No such option '--bogus'"),
    "no file": (["run"], "Missing argument 'FILE'"),
    "two files": (["run", "a", "b"], "unexpected extra argument"),
    "missing file": (["run", "no/such.ksm"], "no/such.ksm: No such file", "expected a scenario"),
    "missing file, diff": (["diff", "no/such.ksm"], "no/such.ksm: No such file"),
    "a directory": (["run", "/"], "/: Is a directory, expected a scenario file"),
    "endless": (["run", "/dev/zero"], "too large, expected at most"),
    "engine": (["run", "x", "--engine", "vax"], "'vax' is not known, expected core or oracle"),
    "kernel": (["run", "x", "--engine", "kernel"], "no kernel given, expected --kernel IMAGE"),
    "profile": (["run", "x", "--profile", "2.6"], "'2.6' is not known, expected 3.9 or 3.10"),
    "profile, diff": (["diff", "x", "--profile", "2.6"], "'2.6' is not known"),
    "profile, fuzz": (["fuzz", "--profile", "2.6"], "'2.6' is not known"),
    "three profiles": (["profiles", "3.9", "4.19", "6.1"], "expected one profile or two"),
    "unknown profile": (["profiles", "3.9", "7.3"], "profile '7.3' is not known, expected 3.9"),
    "with": (
        ["run", SOME, "--with", "magic"],
        "feature 'magic' is not known, expected one of swap",
    ),
    "without": (["diff", SOME, "--without", ""], "feature '' is not known, expected one of"),
    "with, fuzz": (["fuzz", "--with", "magic"], "feature 'magic' is not known"),
    "one engine": (["diff", "x", "--engines", "core"], "expected two different engines"),
    "same engines": (["diff", "x", "--engines", "core,core"], "expected two different engines"),
    "no engines": (["fuzz", "--engines", ","], "is not known"),
    "seconds": (["fuzz", "--seconds", "soon"], "'soon': expected a number of seconds"),
    "no seconds": (["fuzz", "--seconds", "0"], "expected a number of seconds"),
    "endless seconds": (["fuzz", "--seconds", "inf"], "expected a number of seconds"),
    "seed": (["fuzz", "--seed", "x"], "'x' is not a valid integer"),
    "huge seed": (["fuzz", "--seed", "9" * 5000], "--seed"),
    "negative seed": (["fuzz", "--seed", "-1"], "--seed"),
    "out": (["fuzz", "--out", "no/such/dir/x"], "no/such/dir/x: No such file", "file to write"),
    "NUL": (["run", "a\0b"], "expected a scenario file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_usage(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, *said = BAD[what]
    Ran(capsys, *args).refused(*said)


BROKEN = {
    "binary": (bytes(range(256)) * 8, ":2:118: found byte 0x80, expected UTF-8"),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(57), "found '\\x7fELF"),
    "not UTF-8": (b"spawn \xe9\n", ":1:7: found byte 0xe9, expected UTF-8"),
    "NUL": (b"spawn A\0\n", ":1:7: found 'A\\x00', expected a process"),
    "huge number": (b"spawn A\nmmap A r 99999999999999999999\n", ":2:10: found"),
    "deep": (b"at shrink_zone:begin 1 " * 20_000 + b"spawn A", ":1:24: found 'at'"),
    "brackets": (b"read A " + b"r[" * 50_000, ":1:8: found"),
    "profile": (b"machine profile=2.6\n", "2.6', expected a profile (3.9, 3.10, 3.10.65, 4"),
    "machine": (b"machine nodes=64 frames=3\n", "nodes=64 frames=3"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("command", ["run", "diff"])
def test_broken_file(
    what: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, said = BROKEN[what]
    path = tmp_path / "broken.ksm"
    path.write_bytes(data)
    Ran(capsys, command, str(path)).refused(said)


def test_output_that_cannot_be_written(share: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PYKSM, "run", share, "--json"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


def test_broken_pipe_is_quiet(share: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [*PYKSM, "run", share, "--json"], stdout=pipe, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 141
    assert done.stderr == b""


def test_interrupt() -> None:
    process = subprocess.Popen(
        [*PYKSM, "fuzz", "--seconds", "100", "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err + out
    assert err.strip() == b""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "--help")
    assert ran.status == 0
    for command in ("run", "diff", "fuzz", "profiles"):
        assert f"  {command} " in ran.out


@pytest.mark.parametrize("name", sorted(path.stem for path in SCENARIOS.glob("S*.ksm")))
def test_engines_agree_on_the_seeds_rows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "diff", str(SCENARIOS / f"{name}.ksm"))
    assert ran.out.startswith("core and oracle agree")
    assert ran.status == 0
