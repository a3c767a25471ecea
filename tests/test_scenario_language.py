"""The language: what parses, what it parses to, what is refused and how that is said."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from scn import SCENARIOS, load

from pyksm.errors import InputError
from pyksm.scenario import Pages, Setting, Value, parse
from pyksm.scenario import statements as st
from pyksm.scenario.contents import crc, pages, pattern
from pyksm.testing import scenarios

STATEMENTS = {
    "machine nodes=2 frames=100 profile=3.10 policy=memcpy bug=no-unmerge-check": st.Machine(
        2, 100, "3.10", "memcpy", ("no-unmerge-check",)
    ),
    "spawn A_1": st.Spawn("A_1"),
    "mmap A r 0x10 node=1": st.Mmap("A", "r", 16, 1),
    "write A r 7": st.Write("A", Pages("r"), Value(7)),
    "write A r[3] 7+": st.Write("A", Pages("r", 3, 4), Value(7, True)),
    "poke A r[2] 4095 255": st.Poke("A", Pages("r", 2, 3), 4095, 255),
    "read A r[1:4]": st.Read("A", Pages("r", 1, 4)),
    "fork A B": st.Fork("A", "B"),
    "exit A": st.Exit("A"),
    "munmap A r[0:2]": st.Munmap("A", Pages("r", 0, 2)),
    "mremap A r[0] m": st.Mremap("A", Pages("r", 0, 1), "m"),
    "mremap A m[1:3] r[2]": st.Mremap("A", Pages("m", 1, 3), Pages("r", 2, 3)),
    "madvise A r mergeable": st.Madvise("A", Pages("r"), "mergeable"),
    "mprotect A r none": st.Mprotect("A", Pages("r"), "none"),
    "mlock A r[1:3]": st.Mlock("A", Pages("r", 1, 3)),
    "munlock A r": st.Munlock("A", Pages("r")),
    "migrate A r 1": st.Migrate("A", Pages("r"), 1),
    "pin A r": st.Pin("A", Pages("r")),
    "unpin A r": st.Unpin("A", Pages("r")),
    "swapon S 64 priority=5": st.Swapon("S", 64, 5),
    "swapoff S": st.Swapoff("S"),
    "swapout *": st.Swapout(),
    "swapout A r[1]": st.Swapout("A", Pages("r", 1, 2)),
    "ksm run=2 advisor_mode=none": st.Ksm((Setting("run", 2), Setting("advisor_mode", "none"))),
    "scan 3": st.Scan(3),
    "prctl A memory_merge 1": st.Prctl("A", "memory_merge", 1),
    "clear_refs A 4": st.ClearRefs("A", "4"),
    "sleep 2000": st.Sleep(2000),
    "observe": st.Observe(),
    "observe a-label.2": st.Observe("a-label.2"),
    "inject page 4": st.Inject("page", 4),
    "census strict": st.Census("strict"),
    "rmap A r[0:2]": st.Rmap("A", Pages("r", 0, 2)),
    "at shrink_zone:begin 2 ksm run=2": st.At("shrink_zone:begin", 2, st.Ksm((Setting("run", 2),))),
}


@pytest.mark.parametrize("text", STATEMENTS)
def test_statement(text: str) -> None:
    (statement,) = parse(f"  {text}\t # comment").statements
    assert statement == STATEMENTS[text]
    assert parse(str(statement)).statements == (statement,)


def test_every_op_is_tried_above() -> None:
    assert {type(each) for each in STATEMENTS.values()} == set(st.STATEMENTS.values())


def test_lines_and_comments() -> None:
    scenario = parse("# one\n\nspawn A # two\r\n\t\nspawn B", "f.ksm")
    assert [each.line for each in scenario.statements] == [3, 5]
    assert scenario.filename == "f.ksm"
    assert str(scenario) == "spawn A\nspawn B\n"
    assert parse("").statements == ()


def test_machine_of_a_scenario() -> None:
    scenario = parse("spawn A")
    assert scenario.machine == st.Machine()
    changed = scenario.on(policy="memcpy", nodes=2)
    assert changed.machine == st.Machine(nodes=2, policy="memcpy")
    assert changed.body == scenario.body
    assert changed.on(nodes=1).machine == st.Machine(policy="memcpy")


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_written_text_parses_to_the_same(scenario: st.Scenario) -> None:
    assert parse(str(scenario)).statements == scenario.statements


def test_scenario_files_parse_to_themselves() -> None:
    files = sorted(SCENARIOS.glob("*.ksm"))
    assert len(files) >= 14
    for path in files:
        scenario = load(path.stem)
        assert parse(str(scenario)).statements == scenario.statements


REFUSED = {
    "spawn": (1, 6, "a process"),
    "spawn 1": (1, 7, "a process"),
    "spawn A B": (1, 9, "the end of the line"),
    "frobnicate A": (1, 1, "a statement (machine, spawn, mmap"),
    "spawn A\n  machine nodes=2": (2, 3, "machine as the first statement only"),
    "machine nodes=0": (1, 15, "a number of nodes (1 to 64)"),
    "machine nodes=2 nodes=2": (1, 17, "nodes= only once"),
    "machine frames=0": (1, 16, "a number of frames"),
    "machine profile=4.20": (1, 17, "a profile (3.9, 3.10, 3.10.65, 4.19,"),
    "machine with=magic": (1, 14, "a feature (swapoff-per-mm, "),
    "machine without=": (1, 17, "a feature (swapoff-per-mm, "),
    "machine policy=best": (1, 16, "a policy (reread, memcpy)"),
    "machine bug=bad": (1, 13, "a bug (unuse_pte-no-copy, no-unmerge-check"),
    "machine colour=red": (1, 9, "nodes= or frames="),
    "mmap A r": (1, 9, "a number of pages"),
    "mmap A r 1e3": (1, 10, "a number of pages (0 to 140737488355328)"),
    "mmap A r 140737488355329": (1, 10, "a number of pages"),
    "mmap A r " + "9" * 5000: (1, 10, "a number of pages"),
    "mmap A r -1": (1, 10, "a number of pages"),
    "mmap A r 1 node=": (1, 17, "a node"),
    "write A r": (1, 10, "a value V or V+"),
    "write A r[4:4] 1": (1, 13, "an end above the beginning 4"),
    "write A r[4:2] 1": (1, 13, "an end above the beginning 4"),
    "write A r[x] 1": (1, 11, "a page number"),
    "write A r[ 1": (1, 9, "pages R, R[i] or R[i:j]"),
    "write A r[1:2:3] 1": (1, 9, "pages R, R[i] or R[i:j]"),
    "write A r 18446744073709551616": (1, 11, "a value V or V+ (0 to 2^64-1)"),
    "poke A r 0 0": (1, 8, "a page R[i]"),
    "poke A r[0] 4096 0": (1, 13, "a byte offset (0 to 4095)"),
    "poke A r[0] 0 256": (1, 15, "a byte (0 to 255)"),
    "madvise A r maybe": (1, 13, "an advice (mergeable, unmergeable"),
    "mprotect A r x": (1, 14, "a protection (none, r, rw, sealed)"),
    "swapout": (1, 8, "* or a process"),
    "swapout A": (1, 10, "pages R, R[i] or R[i:j]"),
    "swapout * A": (1, 11, "the end of the line"),
    "swapon S 99999999": (1, 10, "a number of pages (0 to 16777216)"),
    "ksm": (1, 4, "a setting KEY=VALUE"),
    "ksm run": (1, 5, "a setting KEY=VALUE"),
    "ksm run=1 x=99999999999999999999": (1, 13, "a value for x"),
    "scan 65537": (1, 6, "a number of scans"),
    "prctl A vm 1": (1, 9, "what (memory_merge)"),
    "prctl A memory_merge": (1, 21, "on or off"),
    "prctl A memory_merge 2": (1, 22, "on or off (0 to 1)"),
    "clear_refs A 2": (1, 14, "what to clear (1, 4)"),
    "sleep": (1, 6, "milliseconds"),
    "sleep 1.5": (1, 7, "milliseconds (0 to 2147483647)"),
    "inject luck 1": (1, 8, "a kind of failure (page, kmem, read, write, signal, userfault)"),
    "inject page 0": (1, 13, "a count (1 to"),
    "census loose": (1, 8, "nothing or (strict)"),
    "at nowhere 1 spawn A": (1, 4, "a schedule point (try_to_unuse:next_entry"),
    "at shrink_zone:begin 1": (1, 23, "a statement (spawn"),
    "at shrink_zone:begin 1 machine": (1, 24, "machine as the first statement only"),
    "at shrink_zone:begin 1 at shrink_zone:begin 1 spawn A": (1, 24, "a statement (spawn"),
    "observe a/b": (1, 9, "a label"),
    "\0": (1, 1, "a statement"),
    "spawn A\u2028": (1, 7, "a process"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:40]))
def test_refused(text: str) -> None:
    line, column, expected = REFUSED[text]
    with pytest.raises(InputError) as caught:
        parse(text, "some.ksm")
    message = str(caught.value)
    assert message.startswith(f"some.ksm:{line}:{column}: found ")
    assert f"expected {expected}" in message
    assert message.isprintable()


def test_refused_bytes() -> None:
    with pytest.raises(InputError, match=r"f:2:7: found byte 0xff, expected UTF-8 text"):
        parse(b"spawn A\nspawn \xff", "f")


def test_a_long_wrong_word_is_not_shown_whole() -> None:
    with pytest.raises(InputError) as caught:
        parse("x" * 100_000)
    assert len(str(caught.value)) < 500


def test_a_strange_file_name_stays_on_one_line() -> None:
    with pytest.raises(InputError, match=re.escape(r"a\nb:1:1: found")):
        parse("x", "a\nb")


@given(hs.one_of(hs.text(), hs.binary()))
@settings(max_examples=300, deadline=None)
def test_anything_parses_or_is_refused_in_one_line(text: str | bytes) -> None:
    said = ""
    try:
        parse(text)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


def _words(value: int) -> list[int]:
    return [(value * 0x9E3779B97F4A7C15 + k) % 2**64 for k in range(512)]


@pytest.mark.parametrize("value", [1, 7, 255, 2**63, 2**64 - 1, 2**64 + 5])
def test_pattern(value: int) -> None:
    page = pattern(value)
    assert len(page) == 4096
    assert [int.from_bytes(page[k : k + 8], "little") for k in range(0, 4096, 8)] == _words(value)


def test_pattern_of_nothing_and_of_several() -> None:
    assert pattern(0) == bytes(4096)
    assert crc(pattern(0)) == "c71c0011"
    assert crc(pattern(7)) == "fd2fb650"
    assert pages(Value(5, True), 3) == pattern(5) + pattern(6) + pattern(7)
    assert pages(Value(5), 2) == pattern(5) * 2


@pytest.mark.parametrize("write", [str, repr])
def test_statements_show_what_they_are(write: Callable[[object], str]) -> None:
    assert "r[1:3]" in str(st.Read("A", Pages("r", 1, 3)))
    assert write(st.Spawn("A")) in ("spawn A", "Spawn(process='A')")
