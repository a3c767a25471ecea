"""``pyksm explore`` and ``pyksm hunt``: orders of tasks in which something goes wrong."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import click

from pyksm import profiles
from pyksm.cli.common import console, print_json, read_scenario, seconds_of
from pyksm.cli.fuzz import _writable as check_writable
from pyksm.cli.group import FINE, FOUND
from pyksm.cli.tasks import bug_option, bugged, check_place, find_bug, write_page
from pyksm.errors import InputError
from pyksm.hunt.explore import MAX_JOBS, MAX_PREEMPTIONS, STRATEGIES, Bounds, Exploration, Explored
from pyksm.hunt.hunt import Hunt, hunt
from pyksm.hunt.judge import Wrong, judge
from pyksm.hunt.reduce import Small, reduce
from pyksm.scenario import Scenario, parse
from pyksm.scenario.parser import shown
from pyksm.tasks.lane import recorded
from pyksm.tasks.run import Recording
from pyksm.tasks.timeline import draw


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(explore_command)
    group.add_command(hunt_command)


_JOBS = click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), default=2, show_default=True,
    help="How many at a time.",
)  # fmt: skip
_OUT = click.option("--out", default=None, help="Where the scenario that shows it goes.")
_HTML = click.option("--html", metavar="FILE", help="Draw what happens into a web page of its own.")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
_OPEN = click.option(
    "--open-ends", is_flag=True, help="Also what Linux itself gets wrong; see docs/exploring.md."
)


@click.command("explore", short_help="Look for an order of a scenario's tasks that goes wrong.")
@click.argument("file")
@click.option("--profile", default=None, help="Kernel profile; goes before the file's own.")
@bug_option
@click.option("--strategy", default="exhaustive", show_default=True, help=", ".join(STRATEGIES))
@click.option(
    "--preemptions", type=click.IntRange(0, MAX_PREEMPTIONS), default=2, show_default=True,
    help="Of an exhaustive search: at most so many switches away from a task that could go on.",
)  # fmt: skip
@click.option(
    "--depth", type=click.IntRange(0, MAX_PREEMPTIONS), default=3, show_default=True,
    help="Of PCT: steps at which priorities change.",
)  # fmt: skip
@click.option("--seconds", default="60", show_default=True, help="How long to look.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of PCT and random.")
@_JOBS
@click.option(
    "--census", type=click.Choice(("every", "end")), default="end", show_default=True,
    help="Recount everything whenever no statement is under way, or at the end alone.",
)  # fmt: skip
@_OPEN
@_OUT
@_HTML
@_JSON
def explore_command(
    file: str,
    profile: str | None,
    bug: tuple[str, ...],
    strategy: str,
    preemptions: int,
    depth: int,
    seconds: str,
    seed: int,
    jobs: int,
    census: str,
    open_ends: bool,
    out: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Run the schedules of the tasks in FILE (- for standard input) and judge each.

    A scenario without tasks has one order, which is judged.
    Exit status 0 where nothing is wrong within the bounds, which are said; 1 with a finding, shrunk
    and written to a file that `pyksm run` replays.
    """
    if profile is not None:
        profiles.find(profile)
    scenario = bugged(read_scenario(file), bug, profile)
    if profile is not None:
        scenario = scenario.on(profile=profile)
    if not scenario.groups and strategy in STRATEGIES:
        strategy = "exhaustive"  # of one order
    bounds = Bounds(
        strategy=strategy,
        preemptions=preemptions,
        depth=depth,
        seconds=seconds_of(seconds),
        seed=seed,
        jobs=jobs,
        each=census == "every" or not scenario.groups,
        open_ends=open_ends,
    )
    bounds.check()
    check_writable(out)
    check_writable(html)
    with Exploration(scenario, bounds) as exploration:
        explored = exploration.run(_progress if sys.stderr.isatty() else None)
    _clear()
    small = None
    if explored.found:
        small = reduce(scenario, explored.found[0], bounds)
    name = out or f"{PurePath(file).stem if file != '-' else 'stdin'}-found.ksm"
    _tell(_explored_json(explored, bounds), _said(explored, bounds), small, name, html, as_json)
    return FOUND if explored.found else FINE


@click.command("hunt", short_help="Make scenarios and look for one that goes wrong.")
@bug_option
@click.option("--profile", default=None, help="Kernel profile. Default: any that has the bug.")
@click.option("--seconds", default="60", show_default=True, help="How long to look.")
@click.option("--seed", type=click.IntRange(0, 2**62), default=None, help="The first scenario.")
@_JOBS
@_OUT
@_HTML
@_JSON
def hunt_command(
    bug: tuple[str, ...],
    profile: str | None,
    seconds: str,
    seed: int | None,
    jobs: int,
    out: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Small scenarios at random, some schedules of each, judged; what goes wrong is shrunk.

    With --bug only what is right without it counts. Exit status 0 where nothing was found, 1 with
    a finding, written to a file that `pyksm run` replays. Scenario k is that of seed + k.
    """
    for name in bug:
        found = find_bug(name)
        if profile is not None:
            check_place(found, Scenario(()), profile)
    if profile is not None:
        profiles.find(profile)
    limit = seconds_of(seconds)
    check_writable(out)
    check_writable(html)
    first = secrets.randbelow(10**9) if seed is None else seed
    made = hunt(bugs=bug, profile=profile, seconds=limit, seed=first, jobs=jobs)
    small = made.hunted.small if made.hunted else None
    seed_found = made.hunted.seed if made.hunted else first
    name = out or f"pyksm-hunt-{seed_found}.ksm"
    _tell(_hunt_json(made, first), _said_of_hunt(made, first, bug), small, name, html, as_json)
    return FOUND if small else FINE


# ---- what is said ----


def _progress(exploration: Exploration) -> None:
    now = exploration.result()
    text = f"\r{now.schedules:,} schedules, {now.waiting:,} waiting, {now.rate:,.0f} steps/s "
    click.echo(text, nl=False, err=True)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)


def _said(explored: Explored, bounds: Bounds) -> list[str]:
    """The bounds and what there was within them."""
    within = {
        "exhaustive": f"exhaustive, at most {bounds.preemptions} preemptions",
        "pct": f"PCT, {bounds.depth} changes of priority, seed {bounds.seed}",
        "random": f"random, seed {bounds.seed}",
    }[bounds.strategy]
    counts = [f"{explored.schedules:,} schedules"]
    if bounds.strategy == "exhaustive":
        counts.append(f"{explored.pruned:,} left off as equivalent")
        counts.append(f"{explored.ends:,} ends that differ")
    counts.append(f"the longest of {explored.longest:,} steps")
    if explored.found:
        over = "something is wrong"
    elif explored.complete:
        over = "nothing is wrong, and within the bound there are no others"
    elif bounds.strategy == "exhaustive":
        over = f"nothing is wrong so far; time is up, {explored.waiting:,} are waiting"
    else:
        over = "nothing is wrong so far"
    rate = f"{explored.steps:,} steps in {explored.seconds:.1f} s: {explored.rate:,.0f} a second"
    return [f"{within}: {', '.join(counts)}", rate, over]


def _said_of_hunt(made: Hunt, seed: int, bugs: Sequence[str]) -> list[str]:
    what = f"{made.scenarios:,} scenarios from seed {seed}, {made.schedules:,} schedules"
    lines = [f"{what}, {made.seconds:.1f} s"]
    if made.others:
        lines.append(f"{made.others} more went wrong without {' and '.join(bugs)} too")
    if made.hunted is None:
        lines.append("nothing is wrong so far")
    else:
        lines.append(f"scenario {made.hunted.seed} is wrong ({made.hunted.strategy})")
    return lines


def _tell(
    answer: dict[str, Any],
    said: Sequence[str],
    small: Small | None,
    name: str,
    html: str | None,
    as_json: bool,
) -> None:
    if not as_json:
        for line in said:
            click.echo(line)
    if small is not None:
        scenario = _written(small, name)
        recordings = recorded(scenario)
        wrong = judge(scenario) or [small.found.wrong]
        answer["found"] = [_wrong_json(each) for each in wrong]
        answer["schedule"] = " ".join(map(str, small.found.schedule))
        answer["preemptions"] = small.found.preemptions
        answer["file"] = name
        if html is not None:
            write_page(html, scenario, recordings, wrong=[str(each) for each in wrong])
        if not as_json:
            _show(scenario, wrong, recordings, name)
    if as_json:
        print_json(answer)


def _show(
    scenario: Scenario, wrong: Sequence[Wrong], recordings: Sequence[Recording], name: str
) -> None:
    click.echo()
    for each in wrong:
        click.echo(str(each))
    click.echo(f"\n{scenario}")
    for recording in recordings:
        draw(console(), recording)
    click.echo(f"\nwritten to {shown(name)}; replay: pyksm run {shown(name)} --timeline")


def _written(small: Small, name: str) -> Scenario:
    """The finding's file; parsed again, so that lines are those of the file."""
    wrong = dataclasses.replace(small.found.wrong, line=0)
    text = f"# {shown(str(wrong))}\n{small.scenario}"
    try:
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(name)}: {why}, expected a file to write") from None
    return parse(text, name)


def _wrong_json(wrong: Wrong) -> dict[str, Any]:
    return dataclasses.asdict(wrong)


def _explored_json(explored: Explored, bounds: Bounds) -> dict[str, Any]:
    answer = dataclasses.asdict(dataclasses.replace(explored, found=()))
    limits = {"strategy": bounds.strategy, "seed": bounds.seed, "rate": explored.rate}
    return answer | limits | {"preemptions": bounds.preemptions, "depth": bounds.depth}


def _hunt_json(made: Hunt, seed: int) -> dict[str, Any]:
    answer = dataclasses.asdict(dataclasses.replace(made, hunted=None))
    del answer["hunted"]
    found = made.hunted
    return answer | {"seed": found.seed if found else seed, "found": []}
