"""benchmarks/instructions.py: what it counts and what it complains of. CI runs it itself."""

from __future__ import annotations

import json
from pathlib import Path

import instructions
import pytest

#: Two functions of the driver and one of libc: 300 + 7 of their own and 40; calls say them again.
PROFILE = """\
# callgrind format
version: 1
positions: line
events: Ir
summary: 347

ob=(1) /build/driver
fl=(1) /src/swapoff.c
fn=(1) try_to_unuse
12 100
+3 150
cob=(2) /lib/libc.so.6
cfi=(2) memcpy.S
cfn=(2) memcpy
calls=4 88
* 40
-2 50
cfn=(3) swap_free
calls=1 7
* 7

ob=(2)
fl=(2)
fn=(2)
88 40

ob=(1)
fl=(1)
fn=(3)
7 7
"""


def test_only_its_own_instructions_count_and_each_once() -> None:
    assert instructions.own_instructions(PROFILE, "/build/driver") == 307
    assert instructions.own_instructions(PROFILE, "/lib/libc.so.6") == 40
    assert instructions.own_instructions(PROFILE, "/build/other") == 0


def test_more_than_three_percent_either_way_is_wrong() -> None:
    baseline = {"a": 100.0, "b": 100.0, "c": 100.0, "d": 100.0}
    counts = {"a": 102.9, "b": 103.1, "c": 97.1, "d": 96.9, "e": 1.0}
    said = dict(instructions.verdicts(counts, baseline))
    assert said["a"] == said["c"] == ""
    assert said["b"] == "+3.1%: slower"
    assert "lower the baseline" in said["d"]
    assert "not in the baseline" in said["e"]
    assert instructions.report({"a": 102.9}, baseline) == 0
    assert instructions.report(counts, baseline) == 1


def test_without_a_baseline_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "compiler", lambda: "cc 99 pdp11")
    assert instructions.main([]) == instructions.NO_BASELINE
    assert "no baseline for cc 99 pdp11, only for gcc 12.2.0 x86_64" in capsys.readouterr().err


def test_update_keeps_other_compilers_and_other_loops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"old": {"fork": 5.0}, "cc": {"fork": 4.0, "exit": 3.0}}))
    monkeypatch.setattr(instructions, "BASELINE", file)
    monkeypatch.setattr(instructions, "compiler", lambda: "cc")
    monkeypatch.setattr(instructions, "measure", lambda driver, only: {"fork": 2.0})
    assert instructions.main(["--build", str(tmp_path)]) == 1
    assert instructions.main(["--build", str(tmp_path), "--update"]) == 0
    assert json.loads(file.read_text()) == {
        "old": {"fork": 5.0},
        "cc": {"fork": 2.0, "exit": 3.0},
    }
    assert instructions.main(["--build", str(tmp_path)]) == 0


def test_the_baseline_is_of_debian_12() -> None:
    """That is what CI runs on, with its own compiler."""
    assert "gcc 12.2.0 x86_64" in json.loads(instructions.BASELINE.read_text(encoding="utf-8"))
