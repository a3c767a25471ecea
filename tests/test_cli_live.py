"""``pyksm record --live`` and ``--restore`` up to where they would touch the machine."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from commandline import complaint

from pyksm.cli import live as cli_live
from pyksm.cli import status
from pyksm.recorder import live, livehost, livestate

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "one.ksm"
    path.write_text("spawn A\nmmap A r 4\nobserve end\n")
    return str(path)


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these may get as far as that."""

    def touched(*_: object) -> None:
        raise AssertionError("the machine was touched")

    monkeypatch.setattr(livestate.Guard, "__enter__", touched)


def test_not_for_everybody(scenario: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in complaint(capsys, "record", "--live", "--yes", scenario)
    assert "needs root" in complaint(capsys, "record", "--restore")


def test_asks_or_wants_yes(scenario: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "check", lambda: None)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "expected --yes" in complaint(capsys, "record", "--live", scenario)


def test_says_what_it_changes(
    scenario: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setattr(live, "check", lambda: None)
    monkeypatch.setattr(cli_live.sys, "stdin", Terminal)
    monkeypatch.setattr(cli_live.click, "confirm", lambda *_, **__: False)
    monkeypatch.setattr(live, "_group_directory", lambda: "/sys/fs/cgroup/pyksm-live-1")
    assert status(["record", "--live", scenario]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for word in ("/sys/kernel/mm/ksm", "page-cluster", "256 MiB", "pyksm-live-1", "--restore"):
        assert word in err
    assert err.endswith("pyksm: --live: not agreed to, nothing has been changed\n")


def test_scenarios_that_do_not_fit(tmp_path: Path, capsys: Capture) -> None:
    nodes = livehost.memory_nodes(livehost.Host())
    assert nodes >= 1
    path = tmp_path / "nodes.ksm"
    path.write_text(f"machine nodes={nodes + 1}\nspawn A\n")
    err = complaint(capsys, "record", "--live", "--yes", str(path))
    assert f"{nodes + 1} memory nodes" in err
    path.write_text("spawn A\ninject page 1\n")
    assert "for engines only" in complaint(capsys, "record", "--live", "--yes", str(path))


def test_words_that_contradict(scenario: str, capsys: Capture) -> None:
    assert "expected no FILE" in complaint(capsys, "record", "--restore", scenario)
    assert "no FILE" in complaint(capsys, "record", "--live", "--yes")
    assert "tape" in complaint(capsys, "record", "--live", "--swap", "tape", scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="restoring is for root")
def test_restore(tmp_path: Path, capsys: Capture) -> None:
    journal, left = tmp_path / "journal", tmp_path / "area0"
    words = ["record", "--restore", "--journal", str(journal)]
    assert status(words) == 0
    assert capsys.readouterr().out == "there is nothing to put back\n"
    left.touch()
    entries = [{"boot": livestate._boot(), "pid": 1}, {"do": "unlink", "path": str(left)}]
    journal.write_text("".join(json.dumps(each) + "\n" for each in entries))
    assert status(words) == 0
    assert capsys.readouterr().out == "everything is as it was\n"
    assert not left.exists()
    assert not journal.exists()
    journal.write_text("what\n")
    assert "not a journal" in complaint(capsys, *words)


def test_nodes_with_memory(tmp_path: Path) -> None:
    host = livehost.Host(str(tmp_path))
    assert livehost.memory_nodes(host) == 1
    (tmp_path / "sys/devices/system/node").mkdir(parents=True)
    for text, count in {"0": 1, "0-1": 2, "0,2-3": 3}.items():
        (tmp_path / "sys/devices/system/node/has_memory").write_text(text + "\n")
        assert livehost.memory_nodes(host) == count
