"""pyksm bench: exact work, honest series, refusals before the work, and what is left on the way."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import Ran, complaint

from pyksm.bench import limits, memory, plot, population, report, works
from pyksm.bench.fit import power_law
from pyksm.bench.run import Results, run
from pyksm.bench.settings import KINDS, number, settings, shape, sweep, ways
from pyksm.cli import status
from pyksm.engine import Config
from pyksm.errors import InputError, MachineError, PyksmError
from pyksm.jobs.watch import Nobody
from pyksm.scenario import engines

Capture = pytest.CaptureFixture[str]

SMALL = ("--limit-bytes", "64Ki")
NO_MATPLOTLIB = importlib.util.find_spec("matplotlib") is None


def bench(capsys: Capture, *args: str) -> Any:
    """The JSON of a run."""
    capsys.readouterr()
    assert status(["bench", *args, *SMALL, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def counters(told: Any, part: int = 0) -> dict[str, int]:
    found: dict[str, int] = told["runs"][part]["counters"]
    return found


# ---- exact work


def test_swapoff_of_distinct_pages(engine: str, capsys: Capture) -> None:
    told = bench(capsys, "swapoff", "--ptes", "1000", "--engine", engine, "--repeat", "2")
    assert len(told["runs"]) == 1
    run = told["runs"][0]
    assert (run["part"], run["unit"], run["units"]) == ("swapoff", "pte", 1000)
    assert (run["ptes"], run["contents"], run["repetitions"]) == (1000, 1000, 2)
    done = run["counters"]
    assert done["unuse_pte"] == done["swap_readpage"] == done["unuse_pte_compared"] == 1000
    assert done["try_to_unuse"] == 1
    assert run["vmstat"] == {"pswpin": 1000}
    assert run["facts"] == {"slots": 1000}
    assert len(run["ns_all"]) == 2
    assert run["ns_min"] <= run["ns_median"] <= run["ns_max"]
    assert run["ns_per_pte"] == run["ns_median"] / 1000


def test_swapoff_of_ksm_pages_copies_for_all_but_one(engine: str, capsys: Capture) -> None:
    told = bench(capsys, "swapoff", "--ptes", "640", "--kind", "ksm", "--engine", engine)
    run = told["runs"][0]
    assert (run["ptes"], run["contents"], run["facts"]["slots"]) == (640, 40, 40)
    assert told["settings"]["procs"] == 16
    assert run["counters"]["unuse_pte"] == 640
    assert run["counters"]["swap_readpage"] == 40
    assert run["counters"]["copy_page"] == run["vmstat"]["ksm_swpin_copy"] == 600


def test_swapoff_of_a_forked_population(engine: str, capsys: Capture) -> None:
    args = ("swapoff", "--ptes", "400", "--kind", "forked", "--procs", "8", "--sharing", "4")
    done = counters(bench(capsys, *args, "--engine", engine))
    assert done["unuse_pte"] == 400
    assert done["swap_readpage"] == 100  # two families of four
    assert "copy_page" not in done


def test_engines_do_the_same_work(capsys: Capture) -> None:
    for what in KINDS:
        args = (what, "--ptes", "96", "--repeat", "1", "--procs", "2")
        core, oracle = (bench(capsys, *args, "--engine", e) for e in ("core", "oracle"))
        assert len(core["runs"]) == len(oracle["runs"]) > 0
        for ours, theirs in zip(core["runs"], oracle["runs"], strict=True):
            for same in ("part", "units", "counters", "vmstat", "facts", "ptes"):
                assert ours[same] == theirs[same], (what, ours["part"])


def test_memcpy_copies_what_reread_reads(capsys: Capture) -> None:
    args = ("swapoff", "--ptes", "320", "--kind", "ksm", "--profile", "3.9", "--repeat", "1")
    told = bench(capsys, *args, "--policy", "reread", "--policy", "memcpy")
    reread, memcpy = (run["counters"] for run in told["runs"])
    assert [run["series"] for run in told["runs"]] == ["3.9 reread", "3.9 memcpy"]
    assert reread["swap_readpage"] == 320
    assert memcpy["swap_readpage"] == 20
    assert memcpy["unuse_copy"] == 300


def test_the_sweep_shows_what_entry_by_entry_costs(capsys: Capture) -> None:
    sizes = "ptes=64..1024:5"
    told = bench(capsys, "swapoff", "--sweep", sizes, "--profile", "3.9", "--profile", "6.18")
    fits = {(f["series"], f["of"]): f for f in told["fit"]}
    old = fits["3.9 reread", "unuse_pte_compared"]
    assert abs(old["exponent"] - 2) < 0.02
    assert old["exponent_stderr"] < 0.01
    assert old["points"] == 5
    assert abs(fits["6.18 per-mm", "unuse_pte_compared"]["exponent"] - 1) < 1e-9
    assert fits["3.9 reread", "ns"]["points"] == 5
    compared = [r["counters"]["unuse_pte_compared"] for r in told["runs"] if r["profile"] == "3.9"]
    assert compared == [n * (n + 1) // 2 for n in (64, 128, 256, 512, 1024)]


def test_first_merge(engine: str, capsys: Capture) -> None:
    told = bench(capsys, "scan", "--ptes", "320", "--engine", engine, "--repeat", "2")
    run = told["runs"][0]
    assert (run["part"], run["facts"]["pages_shared"], run["facts"]["pages_sharing"]) == (
        "first merge",
        20,
        300,
    )
    assert run["facts"]["scans"] == 2
    assert run["counters"]["cmp_and_merge_page"] == 640


def test_more_sharers_than_processes_and_max_page_sharing(capsys: Capture) -> None:
    args = ("scan", "--ptes", "2000", "--procs", "4", "--sharing", "1000", "--repeat", "1")
    facts = bench(capsys, *args)["runs"][0]["facts"]
    assert facts["pages_shared"] + facts["pages_sharing"] == 2000
    assert facts["pages_shared"] == 2 * 4  # of 256 sharers at most
    assert bench(capsys, *args, "--profile", "3.9")["runs"][0]["facts"]["pages_shared"] == 2


def test_faults(engine: str, capsys: Capture) -> None:
    told = bench(capsys, "fault", "--ptes", "100", "--engine", engine, "--repeat", "1")
    first, copy, last = (run["counters"] for run in told["runs"])
    assert first["do_anonymous_page"] == first["alloc_page"] == 100
    assert copy["do_wp_page"] == copy["copy_page"] == 100
    assert "copy_page" not in last
    ksm = bench(capsys, "fault", "--kind", "ksm", "--ptes", "64", "--engine", engine)["runs"]
    assert ksm[0]["vmstat"] == {"cow_ksm": 64}


def test_fork_and_exit(capsys: Capture) -> None:
    told = bench(capsys, "fork", "--ptes", "100", "--procs", "5", "--repeat", "2")
    assert [run["part"] for run in told["runs"]] == ["fork", "exit"]
    assert counters(told)["copy_one_pte"] == 100
    assert counters(told, 1)["zap_pte"] == 100


def test_walks(capsys: Capture) -> None:
    told = bench(capsys, "walk", "--ptes", "4096", "--repeat", "1")
    runs = {run["part"]: run for run in told["runs"]}
    assert set(runs) == {"page-table walk", "anon_vma lookup", "swap_map scan", "page copy"}
    assert runs["page-table walk"]["counters"]["unuse_pte_compared"] == 4096
    # From slot 1 to the one that is in use, and from there on to the end of the area and around.
    assert runs["swap_map scan"]["counters"]["find_next_to_unuse_slots"] >= 4096
    assert runs["page copy"]["counters"]["copy_page"] == 4096
    assert runs["anon_vma lookup"]["facts"] == {"vmas": 4096, "tree_depth": 13}


def test_rmap_walks(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(works, "MANY_VMAS", 200)
    runs = {r["part"]: r for r in bench(capsys, "rmap", "--ptes", "1000", "--repeat", "1")["runs"]}
    assert runs["one KSM page, no max_page_sharing"]["facts"]["ptes_found"] == 1000
    limited = runs["one KSM page, max_page_sharing=256"]["facts"]
    assert limited["ptes_found"] <= 256
    assert limited["stable_node_chains"] == 1
    assert limited["stable_node_dups"] == 4
    whole, by_index = runs["200 vmas, whole tree"], runs["200 vmas, by index"]
    assert whole["facts"] == by_index["facts"] == {"ptes_found": 2, "vmas": 200}
    each = [run["counters"]["avc_visited"] / run["units"] for run in (whole, by_index)]
    assert each[0] > 10 * each[1]
    assert whole["units"] == whole["counters"]["rmap_walk_ksm"] == 1000
    assert each[0] == 2 * (200 + 1)  # both items, and of each all vmas of its anon_vma


def test_one_walk_is_what_grows(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(works, "MANY_VMAS", 100)
    monkeypatch.setattr(works, "_STEPS", 500)  # fewer walks of what is larger
    fits = bench(capsys, "rmap", "--sweep", "ptes=250..1000:3", "--repeat", "1")["fit"]
    found = {f["part"]: f["exponent"] for f in fits if f["of"] == "avc_visited"}
    assert found["one KSM page, no max_page_sharing"] == pytest.approx(1)
    assert found["100 vmas, whole tree"] == pytest.approx(0)


def test_other_ways_do_the_same_work(capsys: Capture) -> None:
    args = ("swapoff", "--ptes", "256", "--profile", "3.9", "--repeat", "1", "--kind", "ksm")
    many = ("--walk", "literal", "--walk", "computed", "--transfer", "reference", "--threads", "2")
    runs = bench(capsys, *args, *many)["runs"]
    assert [run["series"] for run in runs] == [
        "3.9 reread reference 2 threads",
        "3.9 reread computed reference 2 threads",
    ]
    assert runs[0]["counters"] == runs[1]["counters"] == counters(bench(capsys, *args))


def test_file_backend(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    args = ("swapoff", "--ptes", "64", "--repeat", "2")
    assert counters(bench(capsys, *args, "--backend", "file")) == counters(bench(capsys, *args))
    assert list(tmp_path.iterdir()) == []


# ---- what is said


def test_schema(capsys: Capture) -> None:
    told = bench(capsys, "swapoff", "--ptes", "256", "--repeat", "1")
    assert list(told) == [
        *("version", "command", "what", "interrupted", "machine", "limits", "limits_apart"),
        *("settings", "runs", "fit"),
    ]
    assert (told["version"], told["command"], told["interrupted"]) == (1, "bench", False)
    assert {*told["machine"]} == {
        *("cpu", "cores", "memory_bytes", "last_level_cache_bytes", "os", "kernel", "python"),
        *("pyksm", "date"),
    }
    assert told["limits"]["page_bytes"] == 4096
    assert all(value > 0 for value in told["limits"].values())
    run = told["runs"][0]
    limit = told["limits"]["memcpy_ns_per_page"]
    assert run["times_limit"]["memcpy"] == pytest.approx(run["ns_median"] / (256 * limit))
    assert run["memory"]["peak_bytes"] > 0
    assert "used before" in told["settings"]["touched"]


def test_tables_say_limits_work_and_memory(capsys: Capture) -> None:
    assert status(["bench", "swapoff", "--ptes", "512", "--repeat", "1", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "limits here" in out
    assert "has been used before the clock starts" in out
    assert ["unuse_pte", "512"] in [line.split() for line in out.splitlines()]


def test_repetitions_must_do_the_same_work(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    calls: list[int] = []

    def drifting(bench: works.Bench) -> None:
        engine = bench.machine(8)
        pid = engine.spawn()
        addr = engine.mmap(pid, 8)
        calls.append(1)
        with bench.timed(engine, "swapoff", "pte", 8):
            engine.touch(pid, addr, len(calls), True)

    monkeypatch.setitem(works.WORKS, "swapoff", drifting)
    assert status(["bench", "swapoff", "--ptes", "8", "--repeat", "2", *SMALL, "--json"]) == 2
    out, err = capsys.readouterr()
    assert "alloc_page is 2 in repetition 2 and was 1 before" in err
    assert json.loads(out)["runs"][0]["repetitions"] == 1


def test_swapped_out_for_certain() -> None:
    engine = engines.factory("core")(Config(frames=300))
    made = population.build(engine, shape(256, 1, "distinct", 1, 4096), Nobody())
    area = engine.swapon(100)
    with pytest.raises(PyksmError, match="expected 256 and none"):
        population.swap_out(made, area, Nobody())
    engine.close()


def test_contents_are_what_the_kind_says() -> None:
    def pages(kind: str, sharing: int, procs: int) -> list[bytes]:
        at = shape(48, procs, kind, sharing, 64)
        parts = (data for p in range(procs) for _, data in population.contents(at, p))
        flat = b"".join(parts)
        return [flat[k : k + 64] for k in range(0, len(flat), 64)]

    assert len(set(pages("distinct", 1, 4))) == 48
    for sharing, procs in ((4, 4), (2, 4), (12, 4), (48, 1)):
        found = pages("ksm", sharing, procs)
        assert len(found) == 48
        assert {found.count(each) for each in found} == {sharing}
    assert all(0 not in page[8:] for page in pages("distinct", 1, 1))


# ---- numbers and sweeps


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e6", 10**6), ("1M", 10**6), ("64Ki", 65536), ("1_048_576", 1 << 20), ("1.5k", 1500)],
)
def test_numbers(text: str, value: int) -> None:
    assert number(text, "--ptes") == value


@pytest.mark.parametrize(
    "text", ["", "-1", "0", "1.5", "1e", "1e99", "M", "1__", "0x10", "nan", "1 000", "1e-3", "5Q"]
)
def test_no_numbers(text: str) -> None:
    with pytest.raises(InputError, match="--ptes"):
        number(text, "--ptes")


def test_sweeps() -> None:
    assert sweep("ptes=1e4..1e7") == (10_000, 31_623, 100_000, 316_228, 10**6, 3_162_278, 10**7)
    assert sweep("ptes=10..1000:3") == (10, 100, 1000)
    assert sweep("ptes=1..3:3") == (1, 2, 3)
    for bad in ("ptes=1e7..1e4", "procs=1..4", "ptes=1..", "1..4", "ptes=5..5", "ptes=1..4:1"):
        with pytest.raises(InputError, match="--sweep"):
            sweep(bad)


def test_fit_of_a_synthetic_series() -> None:
    sizes = [1e3, 1e4, 1e5, 1e6]
    exact = power_law(sizes, [3 * n**1.25 for n in sizes])
    assert exact is not None
    assert exact.exponent == pytest.approx(1.25)
    assert exact.factor == pytest.approx(3)
    assert exact.stderr == pytest.approx(0, abs=1e-9)
    wobble = power_law(sizes, [n * f for n, f in zip(sizes, (1.1, 0.9, 1.1, 0.9), strict=True)])
    assert wobble is not None
    # By hand: y = x + (a, -a, a, -a), x at -1.5, -0.5, 0.5, 1.5 decades: slope off by -0.4 a.
    a = math.log(1.1 / 0.9) / 2
    slope = -0.4 * a / math.log(10)
    points = ((1, -1.5), (-1, -0.5), (1, 0.5), (-1, 1.5))
    left = sum((sign * a - slope * math.log(10) * x) ** 2 for sign, x in points)
    assert wobble.exponent == pytest.approx(1 + slope)
    assert wobble.stderr == pytest.approx(math.sqrt(left / 2 / (5 * math.log(10) ** 2)))
    two = power_law([1, 10], [1, 100])
    assert two is not None
    assert (round(two.exponent, 9), two.stderr) == (2, None)
    assert power_law([1], [1]) is None
    assert power_law([1, 10], [0, 0]) is None


# ---- limits


def test_limits_are_plausible() -> None:
    found = limits.measure(4096, 1 << 20)
    assert 1 < found.memcpy_in_order_ns_per_page < 1e6
    assert 1e-3 < found.read_ns_per_byte < 100
    assert 0.1 < found.chase_ns_per_step < 1e4
    assert found.memcpy_in_order_ns_per_page > 64 * found.read_ns_per_byte


def test_the_better_limits_count() -> None:
    slow = limits.Limits(4096, 1, 9, 2, 3, 4, 5, 6)
    fast = limits.Limits(4096, 1, 1, 2, 6, 4, 5, 6)
    assert limits.better(slow, fast) == limits.Limits(4096, 1, 1, 2, 3, 4, 5, 6)
    assert limits.apart(slow, fast) == 9


@pytest.mark.parametrize(
    ("kind", "page_bytes", "size"),
    [("copy", 12, 1 << 20), ("copy", 8192, 1 << 20), ("read", 4096, 1), ("read", 4096, 1 << 40)],
)
def test_limits_that_cannot_be(kind: str, page_bytes: int, size: int) -> None:
    with pytest.raises(MachineError):
        limits.one(kind, page_bytes, size)


# ---- refusals, before any work


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("pyksm.cli.bench.run_all", never)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("walk", "--kind", "ksm"), ("--kind ksm with walk", "expected distinct")),
        (("swapoff", "--policy", "memcpy"), ("--policy memcpy", "mm by mm", "3.9")),
        (("swapoff", "--walk", "computed"), ("--walk computed", "mm by mm")),
        (("swapoff", "--page-bytes", "100"), ("--page-bytes 100", "power of two")),
        (("swapoff", "--page-bytes", "8192"), ("--page-bytes 8192", "8 to 4096")),
        (("swapoff", "--page-bytes", "64", "--backend", "file"), ("--backend file", "4096")),
        (("swapoff", "--sweep", "ptes=1e7..1e4"), ("--sweep", "not below")),
        (("swapoff", "--sweep", "ptes=1..9", "--ptes", "5"), ("--sweep", "one of them")),
        (("swapoff", "--ptes", "many"), ("--ptes many", "expected a number")),
        (("swapoff", "--ptes", "10", "--procs", "11"), ("--procs 11", "--ptes 10")),
        (("swapoff", "--sharing", "2"), ("--sharing 2", "forked or ksm")),
        (("scan", "--procs", "4", "--sharing", "6"), ("--sharing 6", "multiple")),
        (("swapoff", "--kind", "forked", "--procs", "2", "--sharing", "4"), ("at most --procs",)),
        (("swapoff", "--profile", "2.4"), ("2.4", "expected")),
        (("swapoff", "--engine", "magic"), ("magic", "core or oracle")),
        (("swapoff", "--limit-bytes", "1"), ("--limit-bytes", "expected")),
        (("swapoff", "--plot", "x.gif"), ("--plot x.gif", ".svg")),
        (("swapoff", "--repeat", "0"), ("--repeat",)),
        (("sing",), ("sing", "swapoff")),
        ((), ("Missing argument",)),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_refused(args: tuple[str, ...], said: tuple[str, ...], capsys: Capture) -> None:
    Ran(capsys, "bench", *args).refused(*said)


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
@pytest.mark.usefixtures("no_work")
def test_plot_to_where_nothing_can_be_written(tmp_path: Path, capsys: Capture) -> None:
    said = complaint(capsys, "bench", "swapoff", "--plot", str(tmp_path / "no" / "x.svg"))
    assert "No such file or directory" in said
    (tmp_path / "d.svg").mkdir()
    said = complaint(capsys, "bench", "swapoff", "--plot", str(tmp_path / "d.svg"))
    assert "a directory" in said


@pytest.mark.usefixtures("no_work")
def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    said = complaint(capsys, "bench", "swapoff", "--plot", "x.svg")
    assert "matplotlib is not installed (pip install 'pyksm[plot]')" in said


@pytest.mark.usefixtures("no_work")
def test_what_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(memory, "available", lambda: 22 << 30)
    said = complaint(capsys, "bench", "swapoff", "--ptes", "3e8", "--page-bytes", "8")
    assert "--ptes 3e8 needs about" in said
    assert "22.0 GiB are available" in said
    fits = said.split("--ptes ")[2].split()[0]
    asked = settings("swapoff", ptes=fits, page_bytes=8)
    memory.refuse(asked)  # it does
    assert memory.needed(asked, asked.shapes[0]) > 0.98 * (22 << 30)
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    assert "no number of them would fit" in complaint(capsys, "bench", "swapoff")


def test_memory_of_the_host_and_of_cgroups(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/a/b\n")
    top = tmp_path / "sys" / "fs" / "cgroup"
    (top / "a" / "b").mkdir(parents=True)
    assert memory.available(str(tmp_path)) == 4096 * 1024
    for at, most in ((top / "a", "1000000"), (top / "a" / "b", "max")):
        (at / "memory.max").write_text(most + "\n")
        (at / "memory.current").write_text("500000\n")
        (at / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    assert memory.available(str(tmp_path)) == 600_000


@pytest.mark.parametrize("kind", ["distinct", "ksm"])
def test_the_estimate_is_near_what_is_used(kind: str) -> None:
    args = ["--ptes", "400000", "--page-bytes", "128", "--repeat", "1", "--kind", kind]
    done = subprocess.run(
        [sys.executable, "-m", "pyksm", "bench", "swapoff", *args, *SMALL, "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    used = json.loads(done.stdout)["runs"][0]["memory"]["machine_bytes"]
    asked = settings("swapoff", ptes="400000", page_bytes=128, kind=kind)
    wanted = memory.needed(asked, asked.shapes[0])
    least = settings("swapoff", ptes="16", page_bytes=128, kind=kind)
    fixed = memory.needed(least, least.shapes[0])
    assert used <= wanted
    assert used > 0.6 * (wanted - fixed)


# ---- interruption


def interrupted(tmp_path: Path, number: int, *args: str) -> tuple[int, str, str]:
    """A run that a signal ends while the second, endless size is at work in C."""
    long = ["--sweep", "ptes=64..2e6:2", "--profile", "3.9", "--page-bytes", "8", "--repeat", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "pyksm", "bench", "swapoff", *long, *SMALL, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    ) as process:
        time.sleep(4)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert list(tmp_path.iterdir()) == []
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_what_it_has(number: int, tmp_path: Path) -> None:
    code, out, err = interrupted(tmp_path, number, "--json")
    assert code == (130 if number == signal.SIGINT else -number)
    assert err in ("", "\n")  # click's, after a ^C
    told = json.loads(out)
    assert told["interrupted"] is True
    assert [run["ptes"] for run in told["runs"]] == [64]


def test_interrupted_table(tmp_path: Path) -> None:
    code, out, _ = interrupted(tmp_path, signal.SIGINT)
    assert code == 130
    assert "Interrupted: what is above is what there was so far." in out
    assert "3.9 reread" in out


# ---- plots


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
@pytest.mark.parametrize(
    ("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_plots(suffix: str, magic: bytes, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / f"plot.{suffix}"
    args = ("--sweep", "ptes=64..512:3", "--profile", "3.9", "--repeat", "2", "--plot", str(path))
    told = bench(capsys, "swapoff", *args)
    assert len(told["runs"]) == 3
    data = path.read_bytes()
    assert data.startswith(magic)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if suffix == "svg":
        for text in (b"3.9 reread", b"memcpy of a page a pte", b"ptes"):
            assert text in data


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
def test_a_plot_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def broken(self: Any, file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    asked = settings("swapoff", ptes="64", of=ways(()), repeat=1, limit_bytes=65536)
    results = Results(asked)
    run(results, engines.factory("core"), Nobody())
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="No space"):
        plot.draw(results, str(path))
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("x.png", b"old")]


# ---- the table of targets


def targets(*args: str) -> tuple[int, str]:
    script = str(Path(__file__).parents[1] / "benchmarks" / "targets.py")
    command = [sys.executable, script, "--quick", *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.returncode, done.stdout


def test_targets_say_what_is_met(tmp_path: Path) -> None:
    code, out = targets("--only", "swapoff-computed", "--only", "memory", "--json")
    told = json.loads(out)
    rows = {row["work"]: row for row in told["rows"]}
    assert rows["memory: a frame's record"]["measured"] == "64 bytes"
    assert rows["memory: a frame's record"]["met"] is True
    computed = next(row for name, row in rows.items() if "computed" in name)
    assert "134,225,920 comparisons counted" in computed["work"]  # 16384 * 16385 / 2
    assert computed["command"] == "pyksm bench swapoff --profile 3.9 --walk computed --ptes 16384"
    assert code == int(any(row["met"] is False for row in told["rows"]))


def test_targets_against_a_live_kernel(tmp_path: Path) -> None:
    compared = [
        {"part": "swapoff", "transfer": how, "threads": 1, "kernel_per_model": ratio}
        for how, ratio in (("copy", 6.04), ("reference", 19.9))
    ]
    live = tmp_path / "live.json"
    live.write_text(
        json.dumps({"runs": [{"population": {"kind": "distinct"}, "compared": compared}]})
    )
    code, out = targets("--only", "swapoff-distinct", "--live", str(live))
    assert code == 1
    rows = [line.split(" | ") for line in out.splitlines() if "live kernel's time" in line]
    assert [(row[2], row[3]) for row in rows] == [("1/6.0", "yes"), ("1/19.9", "**no**")]


def test_report_without_any_run() -> None:
    told = report.result_json(Results(settings("swapoff", ptes="64")))
    assert (told["runs"], told["fit"], told["limits"]) == ([], [], None)
