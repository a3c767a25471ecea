"""``pyksm run`` and ``pyksm diff``."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pyksm import profiles
from pyksm.cli.common import (
    console,
    is_model,
    print_json,
    read_scenario,
    switch_options,
    switched,
    two_engines,
)
from pyksm.cli.group import FINE, FOUND
from pyksm.cli.record import Where, kernel_options, record
from pyksm.cli.tasks import (
    broken,
    bug_option,
    bugged,
    judged,
    only_core,
    pages_to_watch,
    replaying,
    said_of_group,
    scheduled,
    write_page,
)
from pyksm.errors import InputError, PyksmError
from pyksm.hunt.fuzz import examine
from pyksm.recorder import check, stored
from pyksm.recorder.recorder import refuse_model_only
from pyksm.scenario import Scenario, engines, run
from pyksm.scenario.compare import Difference
from pyksm.scenario.parser import shown
from pyksm.tasks.lane import recorded
from pyksm.tasks.run import Recording
from pyksm.tasks.timeline import draw

_SHOWN = 20  # differing paths that diff prints


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(run_command)
    group.add_command(diff_command)


@click.command("run", short_help="Run a scenario on an engine.")
@click.argument("file")
@click.option("--engine", default="core", show_default=True, help="core, oracle or kernel.")
@click.option("--profile", default=None, help="Kernel profile; goes before the file's own.")
@switch_options
@bug_option
@click.option(
    "--schedule", "schedules", multiple=True, metavar="TEXT",
    help="Which task goes when, as docs/tasks.md says; once for each group of tasks.",
)  # fmt: skip
@click.option(
    "--lot", type=click.IntRange(1, 2**64 - 1), default=None,
    help="Draw by lot, with this for a seed, which task goes next where no schedule says so.",
)  # fmt: skip
@click.option("--timeline", "timeline", is_flag=True, help="Draw what happened, step by step.")
@click.option("--all", "every", is_flag=True, help="Each step of it, also where no task changes.")
@click.option("--html", metavar="FILE", help="Draw that into a web page of its own.")
@click.option("--watch", multiple=True, metavar="'P R[i]'", help="A page to follow; may repeat.")
@kernel_options
@click.option("--json", "as_json", is_flag=True, help="The contract's JSON on standard output.")
def run_command(
    file: str,
    engine: str,
    profile: str | None,
    on: tuple[str, ...],
    off: tuple[str, ...],
    bug: tuple[str, ...],
    schedules: tuple[str, ...],
    lot: int | None,
    timeline: bool,
    every: bool,
    html: str | None,
    watch: tuple[str, ...],
    where: Where,
    as_json: bool,
) -> int:
    """Run the scenario FILE (- for standard input) and print its answer.

    Exit status 1 where it could not be run to its end: tasks that wait for each other, or do
    not end, or what a kernel would die of; and, with tasks or bugs of the museum, where what it
    does is wrong, which is said.
    """
    if engine == engines.KERNEL:
        where.image()
    else:
        engines.factory(engine)
    if profile is not None:
        profiles.find(profile)
    scenario = bugged(switched(read_scenario(file), on, off), bug, profile, [engine])
    scenario = scheduled(scenario, schedules)
    if engine not in ("core", engines.TASKS):
        only_core(engine, {"--timeline": timeline, "--html": html, "--lot": lot})
    recordings: list[Recording] = []
    if engine == engines.KERNEL:
        with where.opened([scenario]) as recorder:
            answer = record(recorder, scenario)
    else:
        drawn = recordings if timeline or html else None
        pages = pages_to_watch(watch)
        answer = run(
            scenario, engine, profile=profile, recordings=drawn, watch=pages, seed=lot or 0
        )
        if drawn is not None and not scenario.groups and engine in ("core", engines.TASKS):
            recordings = recorded(scenario, profile=profile, watch=pages)
    wrong = judged(scenario if lot is None else replaying(scenario, answer), engine, profile)
    if wrong:
        answer["wrong"] = wrong
    if as_json:
        print_json(answer)
    else:
        _print_answer(scenario, answer)
        for each in wrong:
            click.echo(f"wrong: {each}")
        for recording in recordings if timeline else ():
            console().print()
            draw(console(), recording, every)
    if html is not None:
        write_page(html, scenario, recordings, every, wrong)
    return FOUND if wrong or broken(answer) else FINE


@click.command("diff", short_help="Hold engines against each other on a scenario.")
@click.argument("file")
@click.option("--engines", "names", default="core,oracle", show_default=True, help=engines.HELP)
@click.option("--profile", default=None, help="Kernel profile; goes before the file's own.")
@switch_options
@bug_option
@kernel_options
def diff_command(
    file: str,
    names: str,
    profile: str | None,
    on: tuple[str, ...],
    off: tuple[str, ...],
    bug: tuple[str, ...],
    where: Where,
) -> int:
    """Run FILE on engines and compare all they say: results, raw ptes, work, census.

    With the engine kernel, or ANSWER.json that `pyksm record` wrote of one: what recordings are
    compared by, under the profile that is like that kernel. Exit status 0 where they agree, 1 with
    the first differing paths where not.
    """
    chosen = two_engines(names, kernel=True)
    if engines.KERNEL in chosen:
        where.image()
    if profile is not None:
        profiles.find(profile)
    scenario = bugged(switched(read_scenario(file), on, off), bug, profile, chosen)
    found = _examined(scenario, chosen, profile, where)
    if not found:
        click.echo(f"{' and '.join(chosen)} agree: {len(scenario.statements)} statements")
        return FINE
    print_differences(chosen, scenario, found)
    return FOUND


def _examined(
    scenario: Scenario, names: tuple[str, ...], profile: str | None, where: Where
) -> list[Difference]:
    models = [name for name in names if is_model(name)]
    if not models:
        raise InputError("--engines: expected core or oracle beside kernels and recordings")
    if len(models) == len(names):
        return examine(scenario, models, profile)
    refuse_model_only(scenario)
    found: list[Difference] = []
    kernels = []
    for name in names:
        if name == engines.KERNEL:
            with where.opened([scenario]) as recorder:
                kernels.append(recorder.kernel)
                for model in models:
                    found += check.examine(scenario, model, recorder, profile)
        elif name not in models:
            answer = stored.read(name, scenario)
            kernels.append(answer["kernel"])
            try:
                for model in models:
                    found += check.against(scenario, model, answer, profile=profile)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                if isinstance(error, PyksmError):
                    raise
                raise InputError(
                    f"{shown(name)}: an observation is not the contract's, expected a recording"
                ) from None
    if len(models) > 1:
        found += examine(scenario, models, check.profile_for(scenario, kernels[0], profile))
    return found


def print_differences(names: tuple[str, ...], scenario: Scenario, found: list[Difference]) -> None:
    """The first differing paths, with the statement that each belongs to."""
    for each in found[:_SHOWN]:
        click.echo(f"{each}{_where(scenario, each.path)}")
    if len(found) > _SHOWN:
        click.echo(f"... and {len(found) - _SHOWN} more")
    click.echo(f"{' and '.join(names)} differ: {len(found)} paths")


def _where(scenario: Scenario, path: str) -> str:
    parts = path.split("/")
    if len(parts) > 2 and parts[1] == "results" and int(parts[2]) < len(scenario.answered):
        statement = scenario.answered[int(parts[2])]
        return f"   # line {statement.line}: {statement}"
    return ""


def _print_answer(scenario: Scenario, answer: dict[str, Any]) -> None:
    out = console()
    out.print(Text(f"engine {answer['engine']}, profile {answer['profile']}"))
    table = Table(box=None, pad_edge=False)
    for column in ("line", "statement", "answer"):
        table.add_column(column, justify="right" if column == "line" else "left", overflow="fold")
    for statement, result in zip(scenario.answered, answer["results"], strict=True):
        bad = result["errno"] or result.get("end", "done") != "done" or "ended" in result
        style = "red" if bad else ""
        table.add_row(str(result["line"]), Text(str(statement)), Text(_said(result), style))
        for nested in result.get("nested", []):
            table.add_row(
                str(nested["line"]), Text(f"  {nested['op']} inside"), Text(_said(nested))
            )
    out.print(table)
    for result in answer["results"]:
        if "observation" in result:
            _print_observation(out, result)


def _said(result: dict[str, Any]) -> str:
    """A result in one cell: its errno or ok, then whatever else is worth a word."""
    said = said_of_group(result) or [result["errno"] or "ok"]
    if "ended" in result:
        return "did not end"
    if "crc" in result:
        crcs = result["crc"]
        kinds = len({each for each in crcs if each is not None})
        said.append(f"{len(crcs)} pages, {kinds} distinct: {_few(crcs)}")
    for key in ("scans", "status"):
        if key in result:
            said.append(f"{key} {result[key]}")
    for name in ("calls", "events", "violations"):
        said += _listed(name, result.get(name))
    if result.get("reached") is False:
        said.append("schedule point not reached")
    return "; ".join(str(each) for each in said)


def _few(things: list[Any], limit: int = 4) -> str:
    text = " ".join("EFAULT" if each is None else str(each) for each in things[:limit])
    return text if len(things) <= limit else f"{text} ..."


def _listed(name: str, value: Any) -> list[str]:
    if not value:
        return []
    if isinstance(value, dict):
        return [", ".join(f"{key} {count}" for key, count in value.items())]
    return [f"{name}: {', '.join(value)}"]


#: Keys of a region that make a better column by another name.
_COLUMNS = {"swapcache": "cached", "ksm_pages": "KSM pages"}


def _print_observation(out: Any, result: dict[str, Any]) -> None:
    seen = result["observation"]
    table = Table(box=None, pad_edge=False)
    regions = _regions(seen)
    columns = regions[0][2] if regions else ("state",)
    for column in ("process", "region", *columns):
        table.add_column(_COLUMNS.get(column, column), overflow="fold")
    for process, name, region in regions:
        cells = [
            _classes(each) if isinstance(each, list) else str(each) for each in region.values()
        ]
        table.add_row(*map(Text, (process, name, *cells)))
    label = f" {result['label']}" if "label" in result else ""
    out.print(Text(f"\nobserve{label} (line {result['line']})", "bold"))
    out.print(table)
    swap = ", ".join(f"{name} {area['used']}" for name, area in seen["swap"].items()) or "none on"
    out.print(Text(f"ksm: {', '.join(f'{key} {value}' for key, value in seen['ksm'].items())}"))
    for process, stat in seen.get("ksm_stat", {}).items():
        said = ", ".join(f"{key} {value}" for key, value in stat.items())
        out.print(Text(f"ksm_stat of {process}: {said}"))
    out.print(Text(f"swap: {swap}; swap cache {seen['swapcached']}"))
    out.print(Text(f"vmstat: {', '.join(f'{key} {n}' for key, n in seen['vmstat'].items())}"))


def _regions(seen: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (process, name, region)
        for process, regions in seen["processes"].items()
        for name, region in regions.items()
    ]


def _classes(values: list[int | None]) -> str:
    """``0-3 - 7*4``: runs that count up, runs that stay, and ``-`` for nothing."""
    text: list[str] = []
    at = 0
    while at < len(values):
        value, end = values[at], at + 1
        while end < len(values) and values[end] == value:
            end += 1
        if end == at + 1 and value is not None:
            while end < len(values) and values[end] == value + end - at:
                end += 1
            text.append(str(value) if end == at + 1 else f"{value}-{value + end - at - 1}")
        else:
            same = "-" if value is None else str(value)
            text.append(same if end == at + 1 else f"{same}*{end - at}")
        at = end
    return " ".join(text)
