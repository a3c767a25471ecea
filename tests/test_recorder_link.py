"""The recorder with an agent made up for the test: what it asks, and what it makes of answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pyksm.errors import InputError
from pyksm.recorder import Link, Recorder, RecorderError, noise
from pyksm.scenario import parse

HELLO = [
    "protocol 1", "release 9.9.9-test+x", "areas 2", "zero_pfn 7", "ksm_flag 1", "page_facts 1",
    "has_ksm 1", "has_swap 1", "zone 0 0 100", "zone 1 100 100",
]  # fmt: skip
QUIET = ["swapcached 3", "ksm full_scans 0", "ksm pages_scanned 40", "vmstat pswpin 5"]

Answers = Callable[[str], list[str] | None]


@contextmanager
def linked(answers: Answers) -> Iterator[tuple[Link, list[str]]]:
    """A link whose other end is ``answers``: lines for a request, or None to hang up."""
    ours, theirs = socket.socketpair()
    heard: list[str] = []

    def serve() -> None:
        with theirs, theirs.makefile("rw", encoding="ascii") as stream:
            for line in stream:
                heard.append(line.strip())
                said = answers(line.strip())
                if said is None:
                    return
                stream.write("".join(f"{each}\n" for each in said))
                stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    fd = ours.detach()
    link = Link(fd, fd, lambda: "it was the test")
    try:
        yield link, heard
    finally:
        link.close()
        thread.join(5)


def answering(**told: list[str]) -> Answers:
    """The plain agent: fine with everything, but for what is told by the request's first word."""
    plain = {"hello": [*HELLO, "= 0"], "observe": [*QUIET, "= 0"]} | told

    def answers(request: str) -> list[str]:
        return plain.get(request.split()[0], ["= 0"])

    return answers


def results(text: str, **told: list[str]) -> list[dict[str, Any]]:
    with linked(answering(**told)) as (link, _):
        answer = Recorder(link).record(parse(text))
    assert (answer["engine"], answer["kernel"], answer["contract"]) == ("kernel", "9.9.9", 1)
    return list(answer["results"])


BROKEN = {
    "hangs up": (None, "the agent ended at 'hello': it was the test"),
    "says nothing": ([], "no answer to 'hello' within 0.2 s: it was the test"),
    "half an answer": (["protocol 1"], "no answer to 'hello' within 0.2 s"),
    "no number": (["= fine"], "the agent said '= fine', expected = ERRNO"),
    "an errno": (["= 5"], "the agent's 'hello' failed: Input/output error"),
    "another protocol": (["protocol 77", "= 0"], "speaks protocol 77, expected 1"),
    "no protocol": (["= 0"], "speaks protocol none, expected 1"),
    "no KSM": ([*HELLO, "has_ksm 0", "= 0"], "kernel 9.9.9-test+x has no KSM, expected one with"),
    "no swap": ([*HELLO, "has_swap 0", "= 0"], "has no swap, expected one with CONFIG_SWAP"),
    "no pages": ([*HELLO, "page_facts 0", "= 0"], "does not show its pages, expected one with"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_agent(what: str) -> None:
    said, complaint = BROKEN[what]
    # The first line of a key counts: put ours first.
    lines = None if said is None else sorted(said, key=lambda line: not line.endswith(" 0"))
    lines = lines and [
        *(each for each in lines if each[0] != "="),
        *(e for e in lines if e[0] == "="),
    ]
    with linked(lambda request: lines) as (link, _), pytest.raises(RecorderError) as raised:
        Recorder(link, hello_seconds=0.2)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_statement_that_never_ends() -> None:
    with linked(answering(scan=[])) as (link, _):
        recorder = Recorder(link, statement_seconds=0.2)
        with pytest.raises(RecorderError, match="no answer to 'scan 2' within"):
            recorder.record(parse("scan 2"))


def test_the_machine_is_prepared_and_each_scenario_begins_anew() -> None:
    with linked(answering()) as (link, heard):
        recorder = Recorder(link)
        assert "set /proc/sys/vm/page-cluster 0" in heard
        assert "set /sys/kernel/mm/transparent_hugepage/enabled never" in heard
        heard.clear()
        recorder.record(parse("spawn A"))
    first = heard.index("reset")
    assert heard[first + 1] == "set /sys/kernel/mm/ksm/run 2"
    assert heard.index("set /sys/kernel/mm/ksm/run 0") < heard.index("observe") < len(heard) - 2
    assert heard[-2:] == ["spawn 0", "reset"]


def test_requests() -> None:
    text = """
        machine nodes=2
        spawn A
        mmap A r 4 node=1
        write A r[1:3] 0x10+
        poke A r[2] 5 255
        read A r[0]
        fork A B
        madvise B r mergeable
        mprotect B r[0] rw
        mmap B s 2
        mremap B s t
        munmap B r[3]
        migrate B r 1
        migrate B r 5
        pin A r
        unpin A r
        swapon S 64 priority=5
        swapout B r[1]
        swapout *
        ksm run=0 merge_across_nodes=0
        scan 2
        prctl B memory_merge 1
        clear_refs B 4
        sleep 5
        exit A
        spawn C
        swapoff S
    """
    with linked(answering(scan=["scans 2", "= 0"])) as (link, heard):
        Recorder(link).record(parse(text))
    assert heard[heard.index("spawn 0") : -1] == [
        "spawn 0",
        "mmap 0 100000000 4 1",
        "write 0 100001000 2 16 1",
        "poke 0 100002005 255",
        "read 0 100000000 1",
        "fork 0 1",
        "madvise 1 100000000 4 12",
        "mprotect 1 100000000 1 3",
        "mmap 1 140000000 2 -1",
        "mremap 1 140000000 2 180000000",
        "munmap 1 100003000 1",
        "migrate 1 100000000 4 1",
        "migrate 1 100000000 4 63",
        "pin 0 100000000 4",
        "unpin 0 100000000 4",
        "swapon 0 64 5",
        "swapout 1 1 100001000 1 0 100000000 4 1 100000000 4 1 140000000 2 1 180000000 2",
        "swapout 0 0 100000000 4 1 100000000 4 1 140000000 2 1 180000000 2",
        "ksm run 0",
        "ksm merge_across_nodes 0",
        "scan 2",
        "prctl 1 67 1 0 0",
        "clear_refs 1 4",
        "sleep 5",
        "exit 0",
        "spawn 0",
        "swapoff 0",
    ]


def test_errors_of_the_scenarios_own_making() -> None:
    text = """
        spawn A
        spawn A
        read B r
        mmap A r 2
        mmap A r 2
        read A s
        read A r[1:3]
        fork A A
        mremap A r r
        swapoff S
        swapon S 8
        swapon S 8
    """
    errnos = [result["errno"] for result in results(text)]
    assert errnos == [
        None, "EEXIST", "ESRCH", None, "EEXIST", "ENOENT", "ERANGE", "EEXIST", "EEXIST", "EINVAL",
        None, "EEXIST",
    ]  # fmt: skip


def test_what_the_agent_says_becomes_a_result() -> None:
    said = results(
        "spawn A\nmmap A r 2\nread A r\nscan 3\nmigrate A r 0\nmadvise A r pageout",
        read=["crc 0a0b0c0d -", "= 14"],
        scan=["scans 1", "ms 12.5", "counted", "calls break_ksm 3", "= 0"],
        migrate=["status 0 -16", "ms 0.1", "= 0"],
        madvise=["= 95"],
    )
    plain = [{key: each[key] for key in each if key not in ("line", "op")} for each in said[2:]]
    assert plain == [
        {"errno": "EFAULT", "crc": ["0a0b0c0d", None]},
        {"errno": None, "scans": 1, "ms": 12.5, "calls": {"break_ksm": 3}},
        {"errno": None, "status": [0, "EBUSY"], "ms": 0.1},
        {"errno": "EOPNOTSUPP"},
    ]


def entry(pfn: int) -> str:
    return f"{1 << 63 | pfn:x}"


OBSERVED = [
    "says_ksm_pages 1",
    f"pages 0 100000000 {entry(99)},202008,3 {entry(7)},1000000,0 {1 << 62 | 5 << 5:x} 0 0",
    f"pages 1 100000000 {entry(120)},0,1 {entry(99)},202008,3",
    "mapping 0 100000000 100004000 1",
    "mapping 1 100000000 100002000 1",
    "ksm_stat 0 ksm_rmap_items 4",
    "ksm_stat 0 ksm_process_profit 99",
    "swap 0 12",
    "ksm full_scans 4",
    "ksm pages_scanned 50",
    "swapcached 5",
    "vmstat nr_free_pages 5",
    "vmstat pswpin 8",
    "= 0",
]


def test_observation() -> None:
    text = "machine nodes=2\nspawn A\nmmap A r 5\nspawn B\nmmap B r 2\nswapon S 64\nobserve x"
    seen = iter([[*QUIET, "= 0"], OBSERVED])

    def answers(request: str) -> list[str]:
        return next(seen) if request.startswith("observe") else answering()(request)

    with linked(answers) as (link, heard):
        answer = Recorder(link).record(parse(text))
    assert heard[-2] == "observe 0 100000000 5 1 100000000 2"
    assert answer["results"][-1]["label"] == "x"
    assert answer["results"][-1]["observation"] == {
        "processes": {
            "A": {
                "r": {
                    "state": "PZS.-",
                    "page": [0, 1, None, None, None],
                    "slot": [None, None, 0, None, None],
                    "ksm": "10---",
                    "swapcache": "10---",
                    "mapcount": [3, 0, None, None, None],
                    "node": [0, 0, None, None, None],
                    "ksm_pages": 1,
                }
            },
            "B": {
                "r": {
                    "state": "PP",
                    "page": [2, 0],
                    "slot": [None, None],
                    "ksm": "01",
                    "swapcache": "01",
                    "mapcount": [1, 3],
                    "node": [1, 0],
                    "ksm_pages": 1,
                }
            },
        },
        "ksm": {"full_scans": 4, "pages_scanned": 10},
        "ksm_stat": {"A": {"ksm_rmap_items": 4}},
        "swap": {"S": {"used": 12}},
        "swapcached": 2,
        "vmstat": {"pswpin": 3},
    }


def test_a_scan_too_many_is_tried_again() -> None:
    scans = iter([3, 4, 2])

    def answers(request: str) -> list[str]:
        return [f"scans {next(scans)}", "= 0"] if request == "scan 2" else answering()(request)

    with linked(answers) as (link, heard):
        answer = Recorder(link).record(parse("spawn A\nscan 2"))
    assert answer["results"][1]["scans"] == 2
    assert heard.count("spawn 0") == 3

    with linked(answering(scan=["scans 9", "= 0"])) as (link, _):
        recorder = Recorder(link)
        with pytest.raises(RecorderError, match="ksmd outran the recorder"):
            recorder.record(parse("scan 2"))


REFUSED = {
    "model only": ("spawn A\ncensus", "<scenario>:2:1: 'census' is for engines only"),
    "nested": ("at shrink_zone:begin 1 spawn A", "'at' is for engines only"),
    "nodes": ("machine nodes=3\nspawn A", "wants 3 memory nodes, the machine has 2"),
    "areas": ("swapon S 8\nswapon T 8\nswapon U 8", "one swap area more than the machine's 2"),
    "killed": ("spawn A\nexit A", "<scenario>:2: the process was killed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_recorded(what: str) -> None:
    text, complaint = REFUSED[what]
    with linked(answering(exit=["= 130"])) as (link, _):
        recorder = Recorder(link)
        with pytest.raises((RecorderError, InputError)) as raised:
            recorder.record(parse(text))
    assert complaint in str(raised.value)


def observed(line: int, used: int, cached: int, mapped: str) -> dict[str, Any]:
    region = {"page": list(range(len(mapped))), "swapcache": mapped}
    seen = {"processes": {"A": {"r": region}}, "swap": {"S": {"used": used}}, "swapcached": cached}
    return {"line": line, "op": "observe", "errno": None, "observation": seen}


def test_lingering_begins_where_a_full_area_has_pages_that_nobody_maps() -> None:
    scenario = parse("swapon S 8")
    answer = {
        "results": [
            observed(2, 6, 3, "00"),
            observed(3, 7, 2, "11"),
            observed(4, 7, 2, "10"),
            observed(5, 7, 3, "00"),
        ]
    }
    assert noise.lingering(scenario, answer) == 4
    assert noise.lingering(scenario, {"results": answer["results"][:2]}) is None


def test_slots_set_aside_are_given_up_before_the_next_scenario() -> None:
    with linked(answering()) as (link, heard):
        recorder = Recorder(link)
        recorder.record(parse("swapon S 200\nswapoff S\nswapon T 200"))
        assert heard[-1] == "reset"
        assert "swapon 0 16 -1" not in heard
        recorder.record(parse("swapon S 200\nswapoff S\nswapon S 150\nswapon T 169"))
        assert heard[-1] == "reset"
        assert "swapon 0 16 -1" not in heard
        recorder.record(parse("swapon S 200\nswapon T 120"))
        assert heard[heard.index("swapon 0 16 -1") :] == [
            "swapon 0 16 -1",
            "spawn 0",
            "mmap 0 100000000 1 -1",
            "write 0 100000000 1 1 0",
            "swapout 1 0 100000000 1 0 100000000 1",
            "reset",
        ]


def test_the_zero_pages_node_is_not_compared() -> None:
    answer = {"results": [observed(2, 6, 3, "00"), {"op": "scan"}]}
    region = answer["results"][0]["observation"]["processes"]["A"]["r"]
    region |= {"state": "PZ", "node": [1, 1]}
    placed = noise.placed(answer)
    assert placed["results"][0]["observation"]["processes"]["A"]["r"]["node"] == [1, None]
    assert region["node"] == [1, 1]


def test_unstable_is_what_runs_disagree_on() -> None:
    one = {"results": [{"op": "scan", "ms": 1, "scans": 2, "calls": {"a": 1}}]}
    two = {"results": [{"op": "scan", "ms": 2, "scans": 2, "calls": {"a": 2}}]}
    assert noise.unstable([one, one]) == []
    assert noise.unstable([one, one, two]) == ["/results/0/calls/a"]
