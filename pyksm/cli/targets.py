"""``pyksm swapoff``, ``estimate`` and ``capture``: the job on real memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict, TypeVar

import click
from rich.console import Console

from pyksm import profiles
from pyksm.cli.bar import Bar
from pyksm.cli.common import console, print_json
from pyksm.errors import InputError
from pyksm.jobs import report
from pyksm.jobs.swapoff import POLICIES, MakeEngine, Options, Result
from pyksm.jobs.swapoff import estimate as run_estimate
from pyksm.jobs.swapoff import swapoff as run_swapoff
from pyksm.scenario import engines
from pyksm.scenario.parser import shown
from pyksm.targets import image, signals
from pyksm.targets.choose import read_targets, source_kind
from pyksm.targets.memory import Memory
from pyksm.targets.own import DEFAULT_COUNT, MAX_COUNT

_FINE, _FOUND = 0, 1
_MAX_FRAMES = (1 << 32) - 2
_MAX_SCANS = 1 << 20

_F = TypeVar("_F", bound=Callable[..., Any])


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    for command in (swapoff, estimate, capture):
        group.add_command(command)


def _target_options(function: _F) -> _F:
    """What all three commands take."""
    for decorate in (
        click.argument("targets", nargs=-1, metavar="[TARGET]..."),
        click.option("--stop", is_flag=True, help="Stop the processes while they are read."),
        click.option(
            "--procs",
            type=click.IntRange(1, MAX_COUNT),
            default=DEFAULT_COUNT,
            show_default=True,
            help="Without a TARGET: spawn so many Python interpreters, the last with a child.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object for programs."),
    ):
        function = decorate(function)
    return function


def _machine_options(function: _F) -> _F:
    """What the commands with a machine take."""
    for decorate in (
        click.option("--engine", default="core", show_default=True, help="core or oracle."),
        click.option(
            "--mergeable",
            type=click.Choice(["all", "advised"]),
            default="all",
            show_default=True,
            help="What KSM may merge: everything, or what madvise(2) or prctl(2) has named.",
        ),
        click.option("--profile", help="Kernel profile (see pyksm profiles)."),
        click.option(
            "--scans",
            type=click.IntRange(0, _MAX_SCANS),
            help="Full scans of ksmd. Default: until one changes nothing.",
        ),
        click.option(
            "--ksm",
            "settings",
            multiple=True,
            metavar="FILE=N",
            help="Write to a file of /sys/kernel/mm/ksm, as use_zero_pages=1. May be repeated.",
        ),
    ):
        function = decorate(function)
    return function


@click.command()
@_target_options
@_machine_options
@click.option(
    "--policy",
    type=click.Choice([*POLICIES, "both"]),
    default=None,
    help="How swapoff goes: mm by mm (since 5.1), or entry by entry, where a slot that others "
    "still need is read again or copied. Default: all that there are.",
)
@click.option(
    "--frames",
    type=click.IntRange(1, _MAX_FRAMES),
    help="Page frames (4 KiB) free when swapoff begins. Default: as many as it can need.",
)
def swapoff(
    targets: tuple[str, ...],
    stop: bool,
    procs: int,
    as_json: bool,
    engine: str,
    mergeable: str,
    profile: str | None,
    scans: int | None,
    settings: tuple[str, ...],
    policy: str | None,
    frames: int | None,
) -> int:
    """Merge the memory of TARGETs, swap it out and swap it off, counting everything.

    A TARGET is a PID, an ELF core file or an image from `pyksm capture`. Exit status 1: swapoff
    failed (ENOMEM with --frames too small), or a byte changed.
    """
    options = Options(
        policies=None if policy in (None, "both") else (policy,),
        frames=frames,
        **_ksmd(mergeable, profile, scans, settings),
    )
    make = _maker(engine)
    with Bar() as bar:
        memory = _read(bar, targets, stop, procs)
        with _engine_at_work(bar):
            result = run_swapoff(memory, make, options, bar)
    with _answer(as_json, "swapoff", targets, memory, engine, result) as out:
        report.print_policies(out, result.policies)
    return _FINE if result.fine else _FOUND


@click.command()
@_target_options
@_machine_options
def estimate(
    targets: tuple[str, ...],
    stop: bool,
    procs: int,
    as_json: bool,
    engine: str,
    mergeable: str,
    profile: str | None,
    scans: int | None,
    settings: tuple[str, ...],
) -> int:
    """Say what KSM would save on the memory of TARGETs (as for swapoff), and stop there."""
    options = Options(**_ksmd(mergeable, profile, scans, settings))
    make = _maker(engine)
    with Bar() as bar:
        memory = _read(bar, targets, stop, procs)
        with _engine_at_work(bar):
            result = run_estimate(memory, make, options, bar)
    with _answer(as_json, "estimate", targets, memory, engine, result) as out:
        report.print_merged(out, result.merged)
    return _FINE


@click.command()
@_target_options
@click.option("-o", "--output", required=True, metavar="FILE", help="The image to write.")
def capture(targets: tuple[str, ...], stop: bool, procs: int, as_json: bool, output: str) -> int:
    """Save the private anonymous memory of TARGETs (as for swapoff) in an image.

    The image holds what the processes hold, secrets included: only its owner may read it.
    """
    image.check_writable(output)
    with Bar() as bar, signals.tidied():
        memory = _read(bar, targets, stop, procs)
        bar.begin("save")
        size = image.save(memory, output)
    source = report.source_json(memory, source_kind(targets), targets)
    if as_json:
        print_json(report.capture_json(source, output, size))
    else:
        out = console()
        report.print_source(out, memory)
        out.print(f"{report.printable(output)}: {report.size_of(size)}", markup=False)
    return _FINE


class _Ksmd(TypedDict):
    advised_only: bool
    profile: str
    scans: int | None
    ksm: dict[str, int]


def _ksmd(mergeable: str, profile: str | None, scans: int | None, settings: Sequence[str]) -> _Ksmd:
    """Those fields of Options that say what ksmd does, checked."""
    name = profiles.DEFAULT if profile is None else profiles.find(profile).name
    ksm: dict[str, int] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key and equals and value.isascii() and value.isdigit()) or len(value) > 19:
            raise InputError(f"--ksm {shown(text)}: expected FILE=NUMBER, as use_zero_pages=1")
        if key == "run":
            raise InputError("--ksm run: the scans are what runs it, expected another file")
        ksm[key] = int(value)
    return {"advised_only": mergeable == "advised", "profile": name, "scans": scans, "ksm": ksm}


def _maker(engine: str) -> MakeEngine:
    """Machines of that engine; InputError now for an unknown one, later for one too large."""
    factory = engines.factory(engine)
    return lambda config: engines.build(factory, config)


def _read(bar: Bar, targets: tuple[str, ...], stop: bool, procs: int) -> Memory:
    bar.begin("read memory")
    with signals.tidied():
        return read_targets(targets, stop=stop, procs=procs, progress=bar.advance)


def _engine_at_work(bar: Bar) -> contextlib.AbstractContextManager[None]:
    """Python sees Ctrl-C when C is done, and swapoff may be at it for hours. With a bar the hook
    that draws it sees Ctrl-C, and there is a terminal to be left in order."""
    return contextlib.nullcontext() if bar.live else signals.at_once()


@contextlib.contextmanager
def _answer(
    as_json: bool,
    command: str,
    targets: tuple[str, ...],
    memory: Memory,
    engine: str,
    result: Result,
) -> Iterator[Console]:
    """JSON, or what the tables have in common; the block then adds the command's own table."""
    if as_json:
        source = report.source_json(memory, source_kind(targets), targets)
        print_json(report.result_json(command, source, engine, result))
        yield Console(quiet=True)
        return
    out = console()
    report.print_source(out, memory)
    report.print_sharing(out, result)
    yield out
