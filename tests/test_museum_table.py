"""benchmarks/museum.py: what it runs, keeps and tells."""

from __future__ import annotations

import json
from pathlib import Path

import museum
import pytest
from click.testing import CliRunner

from pyksm.hunt.hunt import hunt

HEAD = ["--bug", "anonvma-not-oldest", "--bug", "rss-leak-across-migration", "--jobs", "1"]


def test_a_table_of_what_is_kept(tmp_path: Path) -> None:
    """A sequential bug is hunted one way only; what was run is not run again; what is not found
    is said, and is exit status 1."""
    kept, page = tmp_path / "kept", tmp_path / "page.md"
    runs = [("anonvma-not-oldest", "exhaustive,pct", 1, True)]
    runs += [
        ("rss-leak-across-migration", strategy, 1, strategy == "pct")
        for strategy in museum.STRATEGIES
    ]
    for bug, strategy, seed, found in runs:
        made = {"bug": bug, "strategy": strategy, "seed": seed, "found": found, "seconds": 2.5}
        made |= {"scenarios": 10, "schedules": 1234, "limit": 5.0, "jobs": 1}
        with kept.open("a") as file:
            file.write(json.dumps(made) + "\n")
    options = ["--seeds", "1", "--seconds", "5", "--results", str(kept), "--write", str(page)]
    answer = CliRunner().invoke(museum.main, [*HEAD, *options])
    assert answer.exit_code == 1
    assert "not with each seed: rss-leak-across-migration" in answer.output
    text = page.read_text()
    assert "found 1 of 2 with each seed" in text
    assert "| anonvma-not-oldest | sequential | 1 of 1, 2.5 s, 1,234 |  |  |  |" in text
    assert "| 0 of 1 | 0 of 1 | 1 of 1, 2.5 s, 1,234 | 0 of 1 |" in text
    assert len(kept.read_text().splitlines()) == len(runs)


def test_it_hunts() -> None:
    options = ["--bug", "anonvma-not-oldest", "--seeds", "1", "--seconds", "60", "--jobs", "1"]
    answer = CliRunner().invoke(museum.main, options)
    assert answer.exit_code == 0, answer.output
    assert "| anonvma-not-oldest | sequential | 1 of 1, " in answer.output


@pytest.mark.parametrize("bug", ["anonvma-degree-merge", "anonvma-dup-error-leak"])
def test_scenarios_of_vmas_find_bugs_of_vmas(bug: str) -> None:
    """Soon: there are not many ways in which few vmas can be merged."""
    found = hunt(bugs=[bug], seconds=60, seed=1000, scenarios=400, shrink=False)
    assert found.hunted is not None
