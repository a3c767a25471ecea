"""Timelines: what is recorded of a run, its rows, and the two ways they are drawn."""

from __future__ import annotations

import dataclasses
import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from pyksm.scenario import parse, run
from pyksm.tasks.lane import in_a_lane, recorded
from pyksm.tasks.run import Recording, Seen
from pyksm.tasks.timeline import Change, contents, draw, ended, rows, said, said_of
from pyksm.tasks.timeline_html import page

TEXT = """
machine profile=3.9 frames=64 agents=0
spawn A
spawn B
mmap A r 1
mmap B r 1
write A r 7
write B r 7
madvise A r mergeable
madvise B r mergeable
swapon S 2
scan 3
swapout *
schedule off:4 unmerge:2 off
task off:
  swapoff S
task unmerge:
  ksm run=2
  read A r
"""


@pytest.fixture(scope="module")
def recording() -> Recording:
    recordings: list[Recording] = []
    run(parse(TEXT), "core", recordings=recordings)
    (made,) = recordings
    return made


def test_steps(recording: Recording) -> None:
    """Who made which step is what the schedule says; each is in a statement of its task."""
    assert (recording.end, recording.text, recording.line) == ("done", "", 15)
    assert len(recording.trace) == recording.steps
    assert [each.task for each in recording.trace[:7]] == [0, 0, 0, 0, 1, 1, 0]
    assert [each.preempts for each in recording.trace[:7]] == [False] * 4 + [True, False, True]
    assert [each.point for each in recording.trace if each.point == "task:begin"] == [
        "task:begin", "task:begin",
    ]  # fmt: skip
    ops = [each.op for each in recording.trace if each.task == 1]
    assert ops == sorted(ops)
    assert set(ops) == {0, 1}


def test_locks(recording: Recording) -> None:
    """A page is locked by who brings it in, by name; in the end nobody has anything."""
    held = [lock for each in recording.trace for lock in each.locks or ()]
    assert (0, False, "mmap_sem of A") in held
    assert any(what.startswith("page lock of frame ") for _, _, what in held)
    assert recording.trace[-1].locks == ()


def test_pages(recording: Recording) -> None:
    """The slot's two users become two pages, one after the other."""
    assert [each.name for each in recording.watched] == ["A r[0]", "B r[0]"]
    assert len(recording.seen) == recording.steps + 1
    before, after = recording.seen[0], recording.seen[-1]
    assert [(each.state, each.count, each.cached) for each in before] == [("S", 2, True)] * 2
    assert [(each.state, each.mapcount, each.ksm) for each in after] == [("P", 1, False)] * 2
    assert len({each.pfn for each in after}) == 2
    assert {each.word for each in after} == {7 * 0x9E3779B97F4A7C15 % 2**64}
    changes = [change.name for row in rows(recording) for change in row.changes]
    assert {"A r[0]", "B r[0]"} <= set(changes)


def test_watched_pages_are_those_asked_for() -> None:
    recordings: list[Recording] = []
    pages = [("B", "r", 0), ("B", "r", 1), ("C", "r", 0)]
    run(parse(TEXT), "core", recordings=recordings, watch=pages)
    assert [each.name for each in recordings[0].watched] == ["B r[0]"]


def test_rows(recording: Recording) -> None:
    """Steps are folded and none is lost; a row ends where a page has changed."""
    folded, every = rows(recording), rows(recording, every=True)
    assert len(folded) < len(every) == recording.steps
    assert [step for row in folded for step in range(row.first, row.last + 1)] == [
        row.first for row in every
    ]
    assert [point for row in folded for point in row.points] == [row.points[0] for row in every]
    assert [change for row in folded for change in row.changes] == [
        change for row in every for change in row.changes
    ]
    assert [row.statement for row in folded if row.begins] == ["swapoff S", "ksm run=2", "read A r"]


def test_terminal(recording: Recording) -> None:
    out = io.StringIO()
    draw(Console(file=out, width=200), recording)
    text = out.getvalue()
    words = ["swapoff S", "ksm run=2", "▶ task:begin", "page lock of frame", "count 2, cached"]
    words += ["pattern 7", ended(recording), "schedule off:4 unmerge:2 off unmerge"]
    for expected in words:
        assert expected in text


class _Balanced(HTMLParser):
    """Every tag is closed, and nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page(recording: Recording) -> None:
    text = page([recording], title="<a & b>", scenario="write A r 7 # <x>", wrong=["I7: <bad>"])
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "img", "iframe"}
    words = ["&lt;a &amp; b&gt;", "# &lt;x&gt;", "I7: &lt;bad&gt;", "swapoff S", "pattern 7"]
    words += ["prefers-color-scheme: dark", "max-width: 46rem", 'data-task="unmerge"']
    for expected in words:
        assert expected in text
    for point in {each.point for each in recording.trace}:
        assert point in text


def test_a_lane_for_statements_without_tasks() -> None:
    """They do what they do without it; looking, reclaim and what is armed stay outside."""
    wanted = parse(
        "machine frames=64\nspawn A\nmmap A r 1\nwrite A r 3\nswapon S 8\nswapout *\n"
        "at do_swap_page:lock_page 1 sleep 1\nread A r\nswapoff S\nread A r\nobserve\n"
    )
    made = in_a_lane(wanted)
    assert [len(group.tasks[0].statements) for group in made.groups] == [4, 2]
    assert [each.op for each in made.statements if each.op not in ("task", "join")] == [
        "machine", "swapout", "at", "read", "observe",
    ]  # fmt: skip
    assert run(made, "core")["results"][-1] == run(wanted, "core")["results"][-1]
    first, second = recorded(wanted)
    assert (first.program.names, second.end) == (("all",), "done")
    with_tasks = parse(TEXT)
    assert in_a_lane(with_tasks) is with_tasks


def test_words() -> None:
    assert contents(0) == "pattern 0"
    assert contents(0x0123456789ABCDEF) == "begins 0x0123456789abcdef"
    assert said(Seen("")) == "no process"
    assert said(Seen("S", pte=0x7C00)) == "an entry of no area (0x7c00)"
    assert "KSM without a node" in said(Seen("P", ksm=True))
    before = Seen("P", pte=2, pfn=5, mapcount=2, refs=3, ksm=True, node=True, flags=("locked",))
    after = dataclasses.replace(before, pte=0, refs=2, node=False, flags=("dirty",), slot=1, area=0)
    assert said_of(Change("A r[0]", before, after)) == (
        "pte rw → ro, refs 3 → 2, KSM with its node → without a node, - locked, + dirty, "
        "+ slot 0:1, + count -1"
    )
    assert said_of(Change("A r[0]", Seen("."), after)).startswith(
        "nothing mapped → frame 5, pte ro"
    )
    one, other = Seen("S", area=0, slot=3, count=2), Seen("S", area=0, slot=3, count=1, cached=True)
    assert said_of(Change("A r[0]", one, other)) == "count 2 → 1, + cached"
    elsewhere = dataclasses.replace(other, slot=4)
    assert said_of(Change("A r[0]", one, elsewhere)).count("slot") == 2
    assert said(Seen("S", area=0, slot=3, count=1)) == "slot 0:3, count 1"
