"""Recordings in files, held against engines; and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commandline import Ran
from recordings import packed, recording

NAME = "seed-share-4"


def spoilt(**changes: Any) -> dict[str, Any]:
    return recording("3.10.65", NAME) | changes


def results(**changes: Any) -> list[dict[str, Any]]:
    first, *others = recording("3.10.65", NAME)["results"]
    return [first | changes, *others]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.ksm").write_text(packed()["scenarios"][NAME]["text"])
    return tmp_path


def test_agree(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "a.json").write_text(json.dumps(recording("3.10.65", NAME)))
    (files / "b.json").write_text(json.dumps(spoilt(contract=1)))
    ran = Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json,oracle,b.json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("core and a.json and oracle and b.json agree")


def test_differ(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "a.json").write_text(json.dumps(spoilt(results=results(errno="EIO"))))
    ran = Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.startswith("/results/0/errno: None != 'EIO'")


BAD: dict[str, tuple[Any, str]] = {
    "another contract": (spoilt(contract=2), "contract version 2, expected 1"),
    "an engine's": (spoilt(kernel=None), "no kernel's answer, expected a recording"),
    "a list": ([], "no kernel's answer"),
    "no results": (spoilt(results=3), "results are not those of the contract"),
    "a result without errno": (spoilt(results=[{"line": 1}]), "results are not those"),
    "an observation of another kind": (
        spoilt(results=results(observation={"pages": 3})),
        "results are not those of the contract",
    ),
    "an observation without regions": (
        spoilt(
            results=results(
                observation={
                    "processes": {"A": 1},
                    "ksm": {},
                    "swap": {},
                    "swapcached": 0,
                    "vmstat": {},
                }
            )
        ),
        "an observation is not the contract's",
    ),
    "another scenario": (spoilt(results=results(line=77)), "result 0 is of line 77 (spawn)"),
    "cut short": (spoilt(results=results()[:3]), "3 results, expected a recording of s.ksm"),
    "unlike any": (spoilt(kernel="vax"), "no profile is like kernel vax"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_recording(what: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer, said = BAD[what]
    (files / "a.json").write_text(json.dumps(answer))
    Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json").refused(said)


def test_a_recording_may_end_in_an_endless_swapoff(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = "4.19.0-unfixed"
    assert recording(kernel, NAME)["results"][-1]["errno"] == "ETIMEDOUT"
    (files / "a.json").write_text(json.dumps(recording(kernel, NAME)))
    ran = Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json", "--profile", kernel)
    assert (ran.status, ran.err) == (0, "")


def test_no_recording(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ran(capsys, "diff", "s.ksm", "--engines", "core,none.json").refused("none.json: No such file")
    (files / "a.json").write_bytes(b"\xff{")
    Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json").refused("a.json: not JSON")
    (files / "a.json").write_text("[" * 100_000)
    Ran(capsys, "diff", "s.ksm", "--engines", "core,a.json").refused("a.json: not JSON")
    Ran(capsys, "diff", "s.ksm", "--engines", "a.json,b.json").refused("expected core or oracle")
    Ran(capsys, "run", "s.ksm", "--engine", "a.json").refused("'a.json' is not known")
