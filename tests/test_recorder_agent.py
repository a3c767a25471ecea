"""The agent itself, as a child of the test: what it does to memory needs neither root nor swap."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyksm.recorder import agent
from pyksm.recorder.link import PROTOCOL, Link, RecorderError
from pyksm.scenario import contents

AT = "100000000"  # where the first region of a process lies
NEXT = "140000000"


@pytest.fixture(scope="module")
def program() -> Path:
    return agent.program()


@pytest.fixture
def link(program: Path) -> Iterator[Link]:
    with subprocess.Popen(
        [program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        made = Link(
            os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()), lambda: "a child"
        )
        process.stdin.close()
        yield made
        made.close()
        assert process.wait(10) == 0


def crcs(link: Link, process: int, npages: int, at: str = AT) -> list[str]:
    return link.ask(f"read {process} {at} {npages}", 10).words("crc")


def of(*values: int) -> list[str]:
    return [contents.crc(contents.pattern(value)) for value in values]


def test_hello(link: Link) -> None:
    said = link.ask_fine("hello", 10)
    assert said.number("protocol") == PROTOCOL
    assert said.words("release") == [os.uname().release]


def test_contents_are_those_of_the_contract(link: Link) -> None:
    for request in ("spawn 0", f"mmap 0 {AT} 4 -1", f"write 0 {AT} 4 18446744073709551615 1"):
        link.ask_fine(request, 10)
    assert crcs(link, 0, 4) == of(2**64 - 1, 2**64, 2**64 + 1, 2**64 + 2)
    link.ask_fine(f"write 0 {AT} 4 7 0", 10)
    link.ask_fine(f"write 0 {AT} 1 0 0", 10)
    assert crcs(link, 0, 4) == of(0, 7, 7, 7)
    link.ask_fine(f"poke 0 {int(AT, 16) + 4096 + 9:x} 255", 10)
    poked = bytearray(contents.pattern(7))
    poked[9] = 255
    assert crcs(link, 0, 4) == [*of(0), contents.crc(bytes(poked)), *of(7, 7)]


def test_processes(link: Link) -> None:
    for request in ("spawn 0", f"mmap 0 {AT} 2 -1", f"write 0 {AT} 2 5 1", "fork 0 3", "fork 3 1"):
        link.ask_fine(request, 10)
    link.ask_fine(f"write 3 {AT} 1 9 0", 10)
    assert [crcs(link, process, 2) for process in (0, 3, 1)] == [of(5, 6), of(9, 6), of(5, 6)]
    assert link.ask("spawn 3", 10).code
    for process in (0, 3):
        link.ask_fine(f"exit {process}", 10)
    assert crcs(link, 1, 2) == of(5, 6)
    assert link.ask(f"read 0 {AT} 1", 10).code
    link.ask_fine("reset", 10)
    assert link.ask("exit 1", 10).code
    link.ask_fine("spawn 1", 10)


def test_what_cannot_be_accessed_is_left_out(link: Link) -> None:
    for request in ("spawn 0", f"mmap 0 {AT} 3 -1", f"write 0 {AT} 3 4 0"):
        link.ask_fine(request, 10)
    link.ask_fine(f"munmap 0 {int(AT, 16) + 4096:x} 1", 10)
    link.ask_fine(f"mprotect 0 {int(AT, 16) + 8192:x} 1 1", 10)
    assert crcs(link, 0, 3) == [*of(4), "-", *of(4)]
    assert os.strerror(link.ask(f"read 0 {AT} 3", 10).code) == "Bad address"
    assert link.ask(f"write 0 {AT} 3 5 0", 10).code
    assert crcs(link, 0, 3) == [*of(5), "-", *of(4)]
    link.ask_fine(f"mremap 0 {int(AT, 16) + 8192:x} 1 {NEXT}", 10)
    assert crcs(link, 0, 1, NEXT) == of(4)


def test_pins_are_all_or_none_and_a_child_has_none(link: Link) -> None:
    for request in ("spawn 0", f"mmap 0 {AT} 2 -1", f"write 0 {AT} 2 4 0"):
        link.ask_fine(request, 10)
    assert link.ask(f"pin 0 {AT} 3", 10).code
    assert link.ask(f"unpin 0 {AT} 1", 10).code
    link.ask_fine(f"pin 0 {AT} 2", 10)
    link.ask_fine("fork 0 1", 10)
    assert link.ask(f"unpin 1 {AT} 1", 10).code
    link.ask_fine(f"unpin 0 {AT} 2", 10)


def test_facts_of_pages(link: Link) -> None:
    for request in ("spawn 0", f"mmap 0 {AT} 3 -1", f"write 0 {AT} 1 4 0"):
        link.ask_fine(request, 10)
    link.ask_fine(f"munmap 0 {int(AT, 16) + 8192:x} 1", 10)
    said = link.ask_fine(f"observe 0 {AT} 3", 10)
    first, second, third = (int(word.split(",")[0], 16) for word in said.words("pages")[2:])
    assert (first >> 63, second, third) == (1, 0, 0)
    assert said.words("mapping")[:3] == ["0", AT, f"{int(AT, 16) + 8192:x}"]


def test_what_is_not_understood(link: Link) -> None:
    for request in ("dance", "set", "ksm ../../../etc/passwd 1", "swapout 5 0 0 1", "swapoff 0"):
        assert link.ask(request, 10).code, request
    assert link.ask(" ".join(["hello"] * 20_000), 10).code == 0
    link.ask_fine("hello", 10)


def test_ends_when_nobody_listens(program: Path) -> None:
    done = subprocess.run([program, "serve"], input=b"spawn 0\nspawn 1\n", check=True, timeout=10)
    assert done.returncode == 0
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2


def test_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = agent.program()
    assert first.parent == tmp_path / "pyksm"
    assert agent.program() == first
    assert [each.name for each in first.parent.iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("/nonexistent/cc", "No such file"),
        ("false", "no message"),
        ("sh -c 'echo no >&2; exit 1' x", "no;"),
    ],
)
def test_no_compiler(
    compiler: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(RecorderError) as raised:
        agent.program()
    assert said in str(raised.value)
    assert str(raised.value).endswith("(Debian: gcc, libc6-dev)")
    assert list((tmp_path / "pyksm").iterdir()) == []
