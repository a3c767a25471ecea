"""``pyksm bench``: what swapoff, ksmd, faults, fork and walks cost, beside the host's limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyksm.bench import memory, plot, report
from pyksm.bench.limits import MAX_BYTES, MIN_BYTES
from pyksm.bench.run import Results
from pyksm.bench.run import run as run_all
from pyksm.bench.settings import KINDS, number, settings, ways
from pyksm.cli.bar import Bar
from pyksm.cli.common import console, print_json
from pyksm.engine import MAX_THREADS, POLICIES, TRANSFERS, WALKS, Config, Engine
from pyksm.scenario import engines
from pyksm.targets import signals

_F = TypeVar("_F", bound=Callable[..., Any])

_FINE = 0
_MAX_REPEAT = 1000


def register(group: click.Group) -> None:
    """Add the command of this module."""
    group.add_command(bench)


class _Number(click.ParamType[Any]):
    """``1e6``, ``1M``, ``64Ki``, ``65536``."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return number(value, param.opts[0] if param else "", self.least, self.most)


def _many(flag: str, choices: tuple[str, ...], told: str) -> Callable[[_F], _F]:
    return click.option(flag, multiple=True, type=click.Choice(choices), help=told)


@click.command()
@click.argument("what", type=click.Choice(list(KINDS)))
@click.option("--ptes", metavar="N", help="Ptes in all; 1e6, 1M, 1Mi, 1_000_000. Default: 262144.")
@click.option(
    "--sweep",
    "series",
    metavar="ptes=A..B[:POINTS]",
    help="A series of sizes at equal distances of their logarithms, and how cost grows.",
)
@click.option("--procs", type=_Number(1, 65536), metavar="P", help="Processes. Default: 1 or 16.")
@click.option(
    "--kind",
    type=click.Choice(["distinct", "forked", "ksm"]),
    help="Pages all different; shared with forked children; or the same in several processes, "
    "advised mergeable and merged by KSM.",
)
@click.option(
    "--sharing",
    type=_Number(1, 1 << 32),
    metavar="N",
    help="How many ptes share a page. Default: one of each process.",
)
@click.option("--profile", "profiles", multiple=True, help="Kernel profile; may repeat.")
@_many("--policy", POLICIES, "Of swapoff that goes entry by entry; may repeat.")
@_many("--walk", WALKS, "How that looks for ptes; may repeat.")
@_many("--transfer", TRANSFERS, "Contents are copied, or shared until written; may repeat.")
@click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(1, MAX_THREADS),
    help="That read contents at a time; may repeat.",
)
@click.option(
    "--backend",
    type=click.Choice(["memory", "file"]),
    default="memory",
    show_default=True,
    help="Where slots are; a file is a nameless one in TMPDIR.",
)
@click.option(
    "--page-bytes",
    type=_Number(1, 1 << 20),
    default=4096,
    show_default=True,
    help="Bytes of content a page has.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, _MAX_REPEAT),
    help="Times, each on a fresh machine. Default: 5, with many ptes fewer.",
)
@click.option("--engine", default="core", show_default=True, help="core or oracle.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
@click.option("--plot", "picture", metavar="FILE", help="Draw it: .svg, .png or .pdf.")
@click.option(
    "--limit-bytes",
    type=_Number(MIN_BYTES, MAX_BYTES),
    metavar="N",
    help="Buffers to measure the limits with. Default: four times the last-level cache.",
)
def bench(
    what: str,
    ptes: str | None,
    series: str | None,
    procs: int | None,
    kind: str | None,
    sharing: int | None,
    profiles: tuple[str, ...],
    policy: tuple[str, ...],
    walk: tuple[str, ...],
    transfer: tuple[str, ...],
    threads: tuple[int, ...],
    backend: str,
    page_bytes: int,
    repeat: int | None,
    engine: str,
    as_json: bool,
    picture: str | None,
    limit_bytes: int | None,
) -> int:
    """Build a population, do WHAT with it, and say how long that took and what work it was.

    \b
    swapoff  of an area that holds the whole population
    scan     ksmd's first merge of it, in full scans
    fault    first writes, copies on write
    fork     fork and exit of its processes
    rmap     rmap walks: of a KSM page that N ptes share, of one among 20,000 vmas
    walk     page tables, anon_vma, swap_map, page copy: each beside its limit

    Limits of the host (memcpy, streaming read, cache misses) are measured first in the same
    process. Work counters are exact: they are the same in every repetition.
    """
    make = engines.factory(engine)
    asked = settings(
        what,
        ptes=ptes,
        series=series,
        procs=procs,
        kind=kind,
        sharing=sharing,
        page_bytes=page_bytes,
        of=ways(profiles, policy, walk, transfer, threads),
        backend=backend,
        repeat=repeat,
        engine=engine,
        limit_bytes=limit_bytes,
    )
    if picture is not None:
        plot.check(picture)
    memory.refuse(asked)
    results = Results(asked)
    with signals.tidied():
        try:
            _work(results, lambda config: engines.build(make, config), as_json)
        except KeyboardInterrupt:
            results.interrupted = True
            raise
        finally:
            if results.runs or results.interrupted:
                _show(results, as_json, picture)
    return _FINE


def _work(results: Results, make: Callable[[Config], Engine], as_json: bool) -> None:
    """Do it on a thread of its own: this one hears of signals, which C would keep from Python.

    Interrupted, the thread is left behind in C. It ends with the process, as all it holds does.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_all(results, make, bar)
        except BaseException as error:
            failed.append(error)

    with Bar(quiet=as_json) as bar:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
    if failed:
        raise failed[0]


def _show(results: Results, as_json: bool, picture: str | None) -> None:
    if picture is not None and results.runs:
        plot.draw(results, picture)  # first: whoever reads the text may hang up
    if as_json:
        print_json(report.result_json(results))
    else:
        report.print_results(console(), results)
