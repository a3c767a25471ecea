"""The targets that this project has set itself for scale, each with what is measured here and now.

    python benchmarks/targets.py                    all rows at full size: 5 to 20 minutes, 14 GiB
    python benchmarks/targets.py --quick            sizes a 64th of that, some of which prove little
    python benchmarks/live_kernel.py --yes --ptes 1Mi --json > live.json     (root)
    python benchmarks/targets.py --live live.json   and the rows that compare with a live kernel

A row's number comes from the command beside it, run in a process of its own. Exit status 1: a
target is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
from workloads import WORKLOADS, config

from pyksm.bench import memory, population, report
from pyksm.bench.settings import Shape
from pyksm.core import Core, object_size
from pyksm.engine import Config
from pyksm.jobs.watch import Nobody
from pyksm.scenario import engines

_MEBI = 1 << 20


@dataclass(frozen=True)
class Row:
    """A target and what came out. ``met`` None: not measured, or nothing was to be reached."""

    work: str
    target: str
    measured: str
    met: bool | None
    command: str


class Targets:
    """Where the numbers come from; every command is run once."""

    def __init__(self, quick: bool, live: Any) -> None:
        self.quick = quick
        self.live = live
        self._told: dict[tuple[str, ...], Any] = {}

    def apart(self) -> float:
        """By how much the limits before and after a command differed at most."""
        return max((told["limits_apart"] for told in self._told.values()), default=1.0)

    def size(self, ptes: int) -> str:
        return str(ptes // 64 if self.quick else ptes)

    def bench(self, *words: str) -> Any:
        """The JSON of a `pyksm bench` command."""
        if words not in self._told:
            click.echo(f"$ {said(words)}", err=True)
            command = [sys.executable, "-m", "pyksm", "bench", *words, "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE)
            if done.returncode:
                raise click.ClickException(f"{said(words)}: exit status {done.returncode}")
            self._told[words] = json.loads(done.stdout)
        return self._told[words]

    def kernel(
        self, kind: str, part: str, transfer: str = "copy", threads: int = 1
    ) -> float | None:
        """How many times as fast as the live kernel the model was in the run that we were given."""
        for each in self.live["runs"] if self.live else ():
            if each["population"]["kind"] == kind:
                for row in each["compared"]:
                    how = (row["part"], row["transfer"], row["threads"])
                    if how == (part, transfer, threads):
                        return float(row["kernel_per_model"])
        return None


def said(words: tuple[str, ...]) -> str:
    return " ".join(("pyksm", "bench", *words))


_LIVE = "live_kernel.py --yes --ptes 1Mi --json"


def against_kernel(all_of: Targets, work: str, least: float, ratio: float | None) -> Row:
    told = "not measured (needs --live)" if ratio is None else f"1/{ratio:.1f}"
    met = None if ratio is None else ratio >= least
    return Row(work, f"<= 1/{least:g} of the live kernel's time", told, met, _LIVE)


def at_most(work: str, value: float, most: float, unit: str, words: tuple[str, ...]) -> Row:
    return Row(work, f"<= {most:g} {unit}", f"{value:.3g} {unit}", value <= most, said(words))


def swapoff_distinct(t: Targets) -> Iterator[Row]:
    name = f"swapoff, 6.18, {int(t.size(_MEBI)):,} distinct ptes"
    yield against_kernel(t, name, 6, t.kernel("distinct", "swapoff"))
    by_reference = t.kernel("distinct", "swapoff", "reference")
    yield against_kernel(t, f"{name}, by reference", 20, by_reference)
    words = ("swapoff", "--ptes", t.size(_MEBI))
    words += ("--transfer", "copy", "--transfer", "reference")
    yield from of_memcpy(t, name, words)


def of_memcpy(t: Targets, name: str, words: tuple[str, ...]) -> Iterator[Row]:
    """Against memcpy from anywhere to anywhere, which is how pages lie; in order is told too."""
    run = t.bench(*words)["runs"][0]
    limit = run["times_limit"]
    yield at_most(name, limit["memcpy"], 1.3, "x memcpy", words)
    in_order, ns = limit["memcpy_in_order"], run["ns_per_pte"]
    yield Row(name, "-", f"{in_order:.3g} x memcpy in order; {ns:.0f} ns/pte", None, said(words))


def swapoff_ksm(t: Targets) -> Iterator[Row]:
    name = f"swapoff, 6.18, 16 processes x {int(t.size(65536)):,} KSM ptes"
    yield against_kernel(t, name, 6, t.kernel("ksm", "swapoff"))
    by_reference = t.kernel("ksm", "swapoff", "reference")
    yield against_kernel(t, f"{name}, by reference", 20, by_reference)
    words = ("swapoff", "--kind", "ksm", "--procs", "16", "--ptes", t.size(_MEBI))
    yield from of_memcpy(t, name, words)
    words += ("--page-bytes", "8")
    run = t.bench(*words)["runs"][0]
    yield at_most(f"{name}, 8-byte pages", run["ns_per_pte"], 60, "ns/pte", words)


def swapoff_literal(t: Targets) -> Iterator[Row]:
    name = "swapoff, 3.9 entry by entry, literal walk"
    sizes = "ptes=512..8192:5" if t.quick else "ptes=8192..131072:5"
    words = ("swapoff", "--profile", "3.9", "--page-bytes", "8", "--sweep", sizes, "--repeat", "3")
    told = t.bench(*words)
    run = told["runs"][-1]
    share = 100 / run["times_limit"]["read"]
    text = f"{share:.0f} % at {run['ptes']:,} ptes"
    yield Row(name, ">= 50 % of streaming read", text, share >= 50, said(words))
    fit = {f["of"]: f for f in told["fit"]}
    work, ns = fit["unuse_pte_compared"], fit["ns"]
    text = f"{work['exponent']:.3f}; of time {ns['exponent']:.2f} ± {ns['exponent_stderr']:.2f}"
    met = abs(work["exponent"] - 2) < 0.02
    yield Row(name, "exponent 2 of ptes compared", text, met, said(words))


def swapoff_computed(t: Targets) -> Iterator[Row]:
    words = ("swapoff", "--profile", "3.9", "--walk", "computed", "--ptes", t.size(_MEBI))
    run = t.bench(*words)["runs"][0]
    compared = run["counters"]["unuse_pte_compared"]
    name = f"swapoff, 3.9, {run['ptes']:,} entries, computed ({compared:,} comparisons counted)"
    yield at_most(name, run["ns_median"] / 1e9, 10, "s", words)


def swapoff_huge(t: Targets) -> Iterator[Row]:
    words = ("swapoff", "--ptes", t.size(10**8), "--page-bytes", "8", "--repeat", "1")
    run = t.bench(*words)["runs"][0]
    name = f"swapoff, 6.18, {run['ptes']:,} ptes, 8-byte pages"
    yield at_most(name, run["ns_median"] / 1e9, 60, "s", words)
    yield at_most(name, run["memory"]["peak_bytes"] / (1 << 30), 14, "GiB", words)


def first_merge(t: Targets) -> Iterator[Row]:
    name = f"ksmd's first merge, 16 processes x {int(t.size(65536)):,} ptes"
    yield against_kernel(t, name, 8, t.kernel("ksm", "first merge"))
    both = t.kernel("ksm", "first merge", threads=2)
    yield against_kernel(t, f"{name}, 2 threads", 8, both)
    words = ("scan", "--procs", "16", "--ptes", t.size(_MEBI), "--threads", "1", "--threads", "2")
    for run in t.bench(*words)["runs"]:
        share = 100 / run["times_limit"]["read"]
        text = f"{share:.0f} %; {run['ptes_per_s']:,.0f} ptes/s"
        told = name if run["threads"] == 1 else f"{name}, 2 threads"
        yield Row(told, ">= 50 % of streaming read", text, share >= 50, said(words))


def rmap_walks(t: Targets) -> Iterator[Row]:
    words = ("rmap", "--ptes", t.size(10**6), "--page-bytes", "64")
    runs = {run["part"]: run for run in t.bench(*words)["runs"]}
    for part in ("one KSM page, no max_page_sharing", "one KSM page, max_page_sharing=256"):
        run = runs[part]
        facts = run["facts"]
        text = (
            f"{report.time_of(run['ns_per_walk'])} for {facts['ptes_found']:,} of {run['ptes']:,}"
        )
        dups = facts.get("stable_node_dups", 0)
        text += f" ptes; chain of {dups:,} KSM pages" if dups else " ptes"
        yield Row(f"rmap walk, {part}", "shown", text, None, said(words))
    vmas = [run for part, run in runs.items() if "vmas" in part]
    whole, by_index = (run["ns_per_walk"] for run in vmas)
    text = f"{whole / by_index:,.0f} ({report.time_of(whole)}, {report.time_of(by_index)})"
    name = "rmap walk of a KSM page, 20,000 vmas, by index"
    yield Row(name, ">= 300 times whole-tree", text, whole / by_index >= 300, said(words))


def walks(t: Targets) -> Iterator[Row]:
    words = ("walk", "--ptes", t.size(4 * _MEBI), "--page-bytes", "64", "--repeat", "3")
    runs = {run["part"]: run["times_limit"] for run in t.bench(*words)["runs"]}
    for part, limit, unit in (
        ("page-table walk", "read", "x streaming read"),
        ("anon_vma lookup", "chase", "x tree depth of cache misses"),
        ("swap_map scan", "read_bytes", "x streaming read of bytes"),
    ):
        yield at_most(part, runs[part][limit], 2, unit, words)
    words = ("walk", "--ptes", t.size(_MEBI), "--repeat", "3")
    runs = {run["part"]: run["times_limit"] for run in t.bench(*words)["runs"]}
    yield at_most("page copy", runs["page copy"]["memcpy"], 2, "x memcpy", words)


def memory_sizes(t: Targets) -> Iterator[Row]:
    for name, most in (("pte", 8), ("page", 64), ("rmap_item", 64)):
        size = object_size(name)
        told = {"page": "a frame's record", "pte": "a pte"}.get(name, "an rmap_item")
        yield Row(f"memory: {told}", f"<= {most} bytes", f"{size} bytes", size <= most, "this")
    slots = 1 << 16 if t.quick else 1 << 22
    each = bytes_a_slot(slots)
    yield Row(
        f"memory: a slot, {slots:,} in use",
        "<= 2 bytes beside its page",
        f"{each:.2f} bytes",
        each <= 2,
        "this",
    )


def bytes_a_slot(slots: int) -> float:
    """Growth of the process from before swapon until all is out, without contents of the slots."""
    shape = Shape(slots, page_bytes=8)
    engine = Core(Config(frames=population.spare(slots), page_size=8))
    made = population.build(engine, shape, Nobody())
    before = memory.begin()
    area = population.swap_on(made, slots)
    population.swap_out(made, area, Nobody())
    after = memory.begin()
    engine.close()
    return (after - before) / slots - 8


def against_oracle(t: Targets) -> Iterator[Row]:
    """As tests/test_speed_ratio.py has it, and where contents only move: Python's do not."""
    npages = 256 if t.quick else 1024
    told = {
        "swapoff": "swapoff, KSM pages of 256 processes",
        "KSM scan": "two KSM scans",
        "swapoff alone": "swapoff, nothing shared",
    }
    for name, what in told.items():
        workload = next(each for each in WORKLOADS if each.name == name)
        best = {}
        for engine, rounds in (("core", 20), ("oracle", 1 if t.quick else 3)):
            times = []
            for _ in range(rounds):
                machine = engines.factory(engine)(config(npages))
                state = workload.prepare(machine, npages)
                begin = time.process_time()
                workload.run(machine, state)
                times.append(time.process_time() - begin)
                machine.close()
            best[engine] = min(times)
        ratio = best["oracle"] / best["core"]
        name = f"core against oracle, {what}, {npages:,} pages"
        yield Row(name, ">= 300 times", f"{ratio:,.0f} times", ratio >= 300, "this")


def through_python(t: Targets) -> Iterator[Row]:
    """One touch through Python, less what one of many in a call takes; and many pages in a call."""
    pages = 10**4 if t.quick else 10**6
    engine = Core(Config(frames=population.spare(pages), page_size=8))
    pid = engine.spawn()
    addr = engine.mmap(pid, pages)
    data = bytes(range(8)) * pages
    wrote, failed = timed(lambda: engine.write_pages(pid, addr, data))
    read, (back, _) = timed(lambda: engine.read_pages(pid, addr, pages))
    fine = not any(failed) and back == data
    calls = 20_000
    one = min(
        timed(lambda: [engine.touch(pid, addr, 1) for _ in range(calls)])[0] for _ in range(5)
    )
    many = min(timed(lambda: engine.touch(pid, addr, pages))[0] for _ in range(3))
    over = one / calls - many / pages
    engine.close()
    name = "one op through Python (touch)"
    yield Row(name, "< 1 µs over the C call", f"{over * 1e6:.2f} µs", over < 1e-6, "this")
    text = f"write {wrote * 1e3:.1f} ms, read {read * 1e3:.1f} ms"
    yield Row(f"{pages:,} pages of 8 bytes in one call", "one call each", text, fine, "this")


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and what came out."""
    begin = time.process_time()
    value = do()
    return time.process_time() - begin, value


GROUPS: dict[str, Callable[[Targets], Iterator[Row]]] = {
    "swapoff-distinct": swapoff_distinct,
    "swapoff-ksm": swapoff_ksm,
    "swapoff-literal": swapoff_literal,
    "swapoff-computed": swapoff_computed,
    "swapoff-huge": swapoff_huge,
    "first-merge": first_merge,
    "rmap": rmap_walks,
    "walks": walks,
    "memory": memory_sizes,
    "oracle": against_oracle,
    "python": through_python,
}


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes.")
@click.option("--live", type=click.File("rb"), help="What live_kernel.py --json said.")
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="May repeat.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def main(quick: bool, live: Any, only: tuple[str, ...], as_json: bool) -> None:
    """Measure every target, and say which are met."""
    targets = Targets(quick, json.load(live) if live else None)
    rows = [row for name in only or GROUPS for row in GROUPS[name](targets)]
    here = report.machine()
    if as_json:
        told = {"version": 1, "quick": quick, "machine": here, "rows": [asdict(r) for r in rows]}
        click.echo(json.dumps({**told, "limits_apart": targets.apart()}))
    else:
        show(rows, here, quick)
        if targets.apart() > report.QUIET:
            print(
                "\nThe host was not quiet: its limits before and after a command differed by up to "
                f"{targets.apart():.1f} times."
            )
    sys.exit(1 if any(row.met is False for row in rows) else 0)


def show(rows: list[Row], here: dict[str, Any], quick: bool) -> None:
    """A table in Markdown's form, which is one for people too."""
    print(
        f"{here['cpu']}, {here['cores']} cores, {memory.gib(here['memory_bytes'])}, {here['os']}, "
        f"Linux {here['kernel']}, Python {here['python']}, pyksm {here['pyksm']}, {here['date']}"
        f"{', small sizes' if quick else ''}.\n"
    )
    print("| work | target | measured | met | by |\n| --- | --- | --- | --- | --- |")
    word = {True: "yes", False: "**no**", None: "-"}
    for row in rows:
        command = "" if row.command == "this" else f"`{row.command}`"
        print(f"| {row.work} | {row.target} | {row.measured} | {word[row.met]} | {command} |")


if __name__ == "__main__":
    main()
