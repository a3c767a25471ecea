"""The runner: names to addresses, errors of the scenario's own making, the answer's extras."""

from __future__ import annotations

from typing import Any

import pytest
from scn import Answer

from pyksm.engine import Config, Engine
from pyksm.errors import InputError, MachineError
from pyksm.scenario import Run, engines, parse, run
from pyksm.scenario import statements as st
from pyksm.scenario.compare import Difference, differences
from pyksm.scenario.contents import crc, pattern
from pyksm.scenario.runner import CALLS

POINTS = "ksm_do_scan:next_item"


def config(**changes: Any) -> Config:
    return engines.config(st.Machine(**changes), None)


@pytest.fixture
def machine(engine: str) -> Any:
    made = engines.build(engine, config())
    yield made
    made.close()


def test_addresses(machine: Engine) -> None:
    """Regions 1 GiB apart from 4 GiB on, numbered over parents too, never used again."""
    under_way = Run(machine)
    text = "spawn A\nmmap A a 1\nmmap A b 2\nfork A B\nmunmap B b\nmmap B c 1\nmremap A b[1] d"
    assert [each["errno"] for each in under_way.all(parse(text).statements)] == [None] * 7
    at = {
        name: {region.name: region.addr >> 30 for region in process.regions.values()}
        for name, process in under_way.world.processes.items()
    }
    assert at == {"A": {"a": 4, "b": 5, "d": 6}, "B": {"a": 4, "b": 5, "c": 6}}


def test_mremap_over_pages_of_an_old_region(machine: Engine) -> None:
    """It stays as long as it is; what was there goes; the pages must all be there."""
    text = "spawn A\nmmap A r 3\nmmap A s 2\nwrite A r 1\nwrite A s 5+\nmremap A s r[1]\nread A r"
    under_way = Run(machine)
    results = under_way.all(parse(text + "\nmremap A r[0:2] s[1]\nmremap A r[0] t[0]").statements)
    assert results[6]["crc"] == [crc(pattern(value)) for value in (1, 5, 6)]
    assert [each["errno"] for each in results[-2:]] == ["ERANGE", "ENOENT"]
    assert sorted(under_way.world.process("A").regions) == ["r", "s"]


ERRORS = {
    "exit B": "ESRCH",
    "spawn A": "EEXIST",
    "fork B C": "ESRCH",
    "fork A A": "EEXIST",
    "mmap B r 1": "ESRCH",
    "mmap A r 1": "EEXIST",
    "mmap A s 0": "EINVAL",
    "mmap A s 262144": "ENOMEM",
    "mmap A s 140737488355328": "ENOMEM",
    "mmap A s 1 node=7": "EINVAL",
    "read B r": "ESRCH",
    "read A s": "ENOENT",
    "read A r[3:5]": "ERANGE",
    "write A r[4] 1": "ERANGE",
    "poke A r[140737488355327] 0 1": "ERANGE",
    "mremap A r[0] r": "EEXIST",
    "mremap A r[4] s": "ERANGE",
    "swapon S 8": "EEXIST",
    "swapon T 1": "EINVAL",
    "swapon T 8 priority=32768": "EINVAL",
    "swapoff T": "EINVAL",
    "ksm run=3": "EINVAL",
    "ksm run=none": "EINVAL",
    "ksm advisor_mode=fast": "EINVAL",
    "ksm advisor_mode=0": "EINVAL",
    "ksm no_such_file=fast": "ENOENT",
    "clear_refs B 1": "ESRCH",
    "prctl B memory_merge 1": "ESRCH",
    "ksm pages_shared=1": "EACCES",
    "migrate A r 7": "ENODEV",
    "swapout B r": "ESRCH",
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_of_the_scenarios_own_making(engine: str, text: str) -> None:
    before = "spawn A\nmmap A r 4\nwrite A r 1\nswapon S 8\n"
    answer = Answer(f"{before}{text}\nobserve end\ncensus", engine)
    assert answer.errors() == [(5, ERRORS[text])]
    plain = Answer(f"{before}observe end", engine)
    assert answer.seen("end") == plain.seen("end")
    assert answer.only("census")["violations"] == []


def test_the_rest_goes_on(engine: str) -> None:
    answer = Answer(
        """spawn A
        mmap A r 4
        munmap A r[1]
        write A r 7
        mprotect A r[3] none
        read A r
        observe end""",
        engine,
    )
    assert answer.errors() == [(4, "EFAULT"), (6, "EFAULT")]
    assert answer.only("read")["crc"] == ["fd2fb650", None, "fd2fb650", None]
    assert answer.states("end") == {"A": "P-PP"}


def test_all_settings_are_tried(engine: str) -> None:
    answer = Answer("ksm nothing=1 run=5 pages_to_scan=7 run=1", engine)
    assert answer.errors() == [(1, "ENOENT")]
    made = engines.build(engine, config())
    Run(made).all(answer.scenario.statements)
    assert (made.ksm_read("pages_to_scan"), made.ksm_read("run")) == (7, 1)
    made.close()


def test_a_fresh_machine(engine: str) -> None:
    made = engines.build(engine, config())
    state = {key: made.ksm_read(key) for key in ("run", "full_scans", "merge_across_nodes")}
    made.close()
    assert state == {"run": 0, "full_scans": 0, "merge_across_nodes": 1}


def test_names_can_be_used_again(engine: str) -> None:
    answer = Answer(
        "spawn A\nspawn B\nexit A\nspawn A\nswapon S 9\nswapoff S\nswapon S 9\nobserve o",
        engine,
    )
    assert answer.errors() == []
    assert list(answer.seen("o")["processes"]) == ["B", "A"]
    assert answer.seen("o")["swap"] == {"S": {"used": 0}}


def test_zero_page_and_node(engine: str) -> None:
    text = "machine nodes=2 profile=3.9\nspawn A\nmmap A r 3\nread A r[1]\nobserve o"
    answer = Answer(text, engine)
    assert answer.region("o", "A") == {
        "state": ".Z.",
        "page": [None, 0, None],
        "slot": [None, None, None],
        "ksm": "-0-",
        "swapcache": "-0-",
        "mapcount": [None, 0, None],
        "node": [None, 0, None],
    }
    assert "node" not in Answer("spawn A\nmmap A r 1\nobserve o", engine).region("o", "A")


def test_scan_of_nothing(engine: str) -> None:
    answer = Answer("spawn A\nmmap A r 1\nscan 5\nscan 0", engine)
    assert [each["scans"] for each in answer.ops("scan")] == [0, 0]


def test_calls_are_said_where_the_recordings_have_them(engine: str) -> None:
    text = "spawn A\nmmap A r 2\nwrite A r 1\nmadvise A r mergeable\nswapon S 9\nscan 2\nswapout *"
    answer = Answer(f"{text}\nksm run=2\nmigrate A r 0\nswapoff S\nread A r", engine)
    with_calls = {each["op"] for each in answer.results if "calls" in each}
    assert with_calls == {"scan", "swapout", "ksm", "migrate", "swapoff"}
    for each in answer.results:
        assert set(each.get("calls", {})) <= set(CALLS)
        assert 0 not in each.get("calls", {}).values()
    assert answer.only("swapoff")["calls"]["try_to_unuse"] == 1
    assert not {"work", "census", "raw", "frames"} & set(answer.results[-1])


def test_work_mode(engine: str) -> None:
    answer = Answer("spawn A\nmmap A r 2\nwrite A r 1+\nread A r[0]", engine, work=True)
    written, read = answer.results[2:]
    assert written["work"]["do_anonymous_page"] == 2
    assert written["codes"] == [0, 0]
    assert written["census"] == []
    assert read["work"] == {}
    assert read["frames"] == {"free": [65534], "peak": 2}
    one, two = read["raw"]["A"]["r"]
    assert one & 1
    assert two & 1
    assert one != two


NESTED = """\
spawn A
spawn B
mmap A r 1
mmap B r 1
write A r 7
write B r 7
madvise A r mergeable
madvise B r mergeable
scan 1
at ksm_do_scan:next_item 2 write B r 8
at ksm_do_scan:next_item 1 read B r
scan 1
observe o
"""


def test_at_runs_inside(engine: str) -> None:
    answer = Answer(NESTED, engine)
    scan = answer.ops("scan")[1]
    assert answer.errors() == []
    assert scan["nested"] == [
        {"line": 11, "op": "read", "errno": None, "crc": ["fd2fb650"]},
        {"line": 10, "op": "write", "errno": None},
    ]
    assert "reached" not in scan
    assert answer.seen("o")["ksm"]["pages_shared"] == 0


def test_at_not_reached(engine: str) -> None:
    answer = Answer(NESTED.replace("next_item 2", "next_item 9"), engine)
    scan = answer.ops("scan")[1]
    assert scan["reached"] is False
    assert [each["op"] for each in scan["nested"]] == ["read"]
    answer = Answer("at shrink_zone:begin 1 spawn A\nspawn B\nobserve o", engine)
    assert answer.results[0] == {"line": 1, "op": "at", "errno": None}
    assert answer.results[1] == {"line": 2, "op": "spawn", "errno": None, "reached": False}
    assert list(answer.seen("o")["processes"]) == ["B"]


def test_a_nested_statement_that_would_wait_is_refused(engine: str) -> None:
    answer = Answer(NESTED.replace("2 write B r 8", "2 ksm run=2"), engine)
    assert [each["errno"] for each in answer.ops("scan")[1]["nested"]] == [None, "EDEADLK"]


@pytest.mark.parametrize(
    ("kind", "text", "errno"),
    [
        ("page", "write A r 1", "ENOMEM"),
        ("kmem", "fork A B", "ENOMEM"),
        ("signal", "swapoff S", "EINTR"),
        ("page", "swapoff S", "ENOMEM"),
        ("read", "read A out", "EIO"),
    ],
)
def test_inject(engine: str, kind: str, text: str, errno: str) -> None:
    before = "spawn A\nmmap A r 2\nmmap A out 1\nwrite A out 5\nswapon S 9\nswapout *\n"
    answer = Answer(f"{before}inject {kind} 1\n{text}\ncensus\n{text}\ncensus", engine)
    assert answer.results[7]["errno"] == errno
    if (kind, text) != ("read", "read A out"):  # a page that could not be read stays unreadable
        assert answer.results[9]["errno"] is None
    assert [each["violations"] for each in answer.ops("census")] == [[], []]


def test_orders_of_failures_add_up(machine: Engine) -> None:
    """In whatever order they are given; the same event twice is once; eight may be waiting."""

    def mapped() -> int | None:
        try:
            machine.mmap(pid, 1)
        except MachineError as error:
            return error.errno
        return None

    pid = machine.spawn()
    for nth in (5, 2, 3, 5):
        machine.inject("kmem", nth)
    assert [mapped() for _ in range(7)] == [None, 12, 12, None, 12, None, None]
    for nth in range(9, 1, -1):
        machine.inject("kmem", nth)
    machine.inject("kmem", 4)
    with pytest.raises(MachineError, match="28"):
        machine.inject("kmem", 1)
    machine.inject("kmem", 0)
    assert [mapped() for _ in range(9)] == [None] * 9


def test_a_machine_that_cannot_be() -> None:
    with pytest.raises(InputError, match="nodes=64 frames=3"):
        run(parse("machine nodes=64 frames=3"), "core")
    with pytest.raises(InputError, match="nodes=64 frames=3"):
        run(parse("machine nodes=64 frames=3"), "oracle")
    with pytest.raises(InputError, match="expected core or oracle"):
        run(parse(""), "vax")
    with pytest.raises(InputError, match=r"expected 3\.9 or 3\.10"):
        run(parse(""), "core", profile="2.6")


def test_a_factory_is_an_engine_too(engine: str) -> None:
    made = []

    def factory(wanted: Config) -> Engine:
        made.append(wanted)
        return engines.build(engine, wanted)

    answer = run(parse("machine nodes=2 frames=99 profile=3.9 policy=memcpy\nspawn A"), factory)
    assert answer["engine"] == engine
    assert made == [config(nodes=2, frames=99, profile="3.9", policy="memcpy")]


def test_profile_from_outside_goes_first() -> None:
    scenario = parse("machine profile=3.9\nspawn A")
    assert run(scenario, "core")["profile"] == "3.9"
    assert run(scenario, "core", profile="3.10")["profile"] == "3.10"


def test_differences() -> None:
    one = {"a": [1, {"b/c": None}], "ms": 5, "x": True}
    two = {"a": [2, {"b/c": 0}, 3], "ms": 6, "y": 1, "x": 1}
    assert [str(each) for each in differences(one, two)] == [
        "/a/0: 1 != 2",
        "/a/1/b~1c: None != 0",
        "/a/2: absent != 3",
        "/x: True != 1",
        "/y: absent != 1",
    ]
    assert list(differences(one, dict(one))) == []
    assert len(str(Difference("/x", "y" * 500, 1))) < 200
