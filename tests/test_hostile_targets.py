"""Targets that mean ill: small files that ask for much, names and streams that cannot be used."""

from __future__ import annotations

import time
from pathlib import Path

import memories
import pytest

from pyksm.cli import status
from pyksm.errors import InputError
from pyksm.jobs import plan
from pyksm.targets import image
from pyksm.targets.memory import Memory

Capture = pytest.CaptureFixture[str]


def test_many_mappings_take_no_time() -> None:
    """Planning compared each mapping with each: 60,000 of them, which Linux allows, took minutes."""
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
