"""benchmarks/clean_hunts.py: what it runs, keeps and tells."""

from __future__ import annotations

import json
from pathlib import Path

import clean_hunts
from click.testing import CliRunner


def test_goes_on_behind_what_is_kept(tmp_path: Path) -> None:
    kept, page = tmp_path / "kept", tmp_path / "page.md"
    before = {"profile": "6.1", "seed": 0, "scenarios": 1000, "schedules": 30_000, "jobs": 2}
    before |= {"steps": 2_500_000, "seconds": 30.0, "processor": 60.0, "found": None}
    kept.write_text(json.dumps(before) + "\n")
    options = ["--profile", "6.1", "--seconds", "1", "--jobs", "1"]
    answer = CliRunner().invoke(
        clean_hunts.main, [*options, "--results", str(kept), "--write", str(page)]
    )
    assert answer.exit_code == 0, answer.output
    first, second = map(json.loads, kept.read_text().splitlines())
    assert first == before
    assert second["seed"] == 2000
    assert second["scenarios"] > 0
    assert second["processor"] > 0
    row = page.read_text().splitlines()[-1]
    assert row.startswith(f"| 6.1 | {1000 + second['scenarios']:,} | ")
    assert row.endswith(" min | nothing |")
    took, used = (float(row.split("|")[at].split()[0]) for at in (5, 6))
    assert 0.5 <= took < 1.0 <= used


def test_what_was_found_is_told(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    found = {"profile": "3.9", "seed": 0, "scenarios": 5, "schedules": 6, "jobs": 1, "steps": 7}
    found |= {"seconds": 90.0, "processor": 60.0}
    found |= {"found": {"seed": 4, "wrong": "I3 lru: page 2 is on no list"}}
    kept.write_text(json.dumps(found) + "\n")
    options = ["--profile", "6.18", "--seconds", "1", "--jobs", "1", "--results", str(kept)]
    answer = CliRunner().invoke(clean_hunts.main, options)
    assert answer.exit_code == 1
    assert (
        "| 3.9 | 5 | 6 | 0 million | 1.5 min | 1.0 min | I3 lru: page 2 is on no list |"
        in answer.output
    )
