"""``pyksm bugs``: what is in the museum."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pyksm import museum
from pyksm.bugs import BUGS, CHECKS, Bug
from pyksm.cli.common import console, print_json
from pyksm.cli.group import FINE
from pyksm.cli.tasks import find_bug, places
from pyksm.errors import InputError


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(bugs_command)


@click.command("bugs", short_help="List the museum of kernel bugs, or show one of them.")
@click.argument("name", required=False)
@click.option("--scenario", "alone", is_flag=True, help="Its scenario alone, as a file has it.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def bugs_command(name: str | None, alone: bool, as_json: bool) -> int:
    """List the bugs that can be switched in, or show the one called NAME with its scenario.

    --bug of run, diff, explore and hunt switches one in, and so does `machine bug=` in a scenario.
    Only the engine core has them. A check is no bug that Linux had: it is one of its precautions,
    taken away.
    """
    chosen = [find_bug(name)] if name is not None else [*BUGS, *CHECKS]
    if alone:
        _print_scenario(None if name is None else chosen[0])
    elif as_json:
        described = [_described(each) for each in chosen]
        print_json(described if name is None else described[0] | {"text": _scenario(chosen[0])})
    elif name is None:
        _list()
    else:
        _show(chosen[0])
    return FINE


def _described(bug: Bug) -> dict[str, Any]:
    return {
        "name": bug.name,
        "kind": bug.kind,
        "introduced": bug.introduced,
        "fixed": bug.fixed,
        "commits": list(bug.commits),
        "invariants": list(bug.invariants),
        "place": bug.place,
        "summary": bug.summary,
        "needs": list(bug.needs),
        "lacks": list(bug.lacks),
        "profiles": places(bug),
        "corrected": bug.corrected,
        "scenario": museum.path(bug.name).name if _has_scenario(bug) else None,
    }


def _has_scenario(bug: Bug) -> bool:
    return museum.path(bug.name).is_file()


def _scenario(bug: Bug) -> str | None:
    return museum.path(bug.name).read_text(encoding="utf-8") if _has_scenario(bug) else None


def _print_scenario(bug: Bug | None) -> None:
    if bug is None:
        raise InputError("--scenario: expected the NAME of a bug")
    text = _scenario(bug)
    if text is None:
        raise InputError(f"bug {bug.name} has no scenario, expected one that has")
    click.echo(text, nl=False)


def _list() -> None:
    out = console()
    for title, rows in ((f"{len(BUGS)} bugs", BUGS), (f"{len(CHECKS)} checks", CHECKS)):
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for column in ("name", "kind", "kernels", "commit", "breaks", "place"):
            table.add_column(column, overflow="fold")
        for bug in rows:
            breaks = " ".join(bug.invariants)
            table.add_row(bug.name, bug.kind, _kernels(bug), _commits(bug), breaks, bug.place)
        out.print(table)
        out.print()
    out.print("pyksm bugs NAME shows one, with its scenario.")


def _kernels(bug: Bug) -> str:
    """Those that had it: from the release that brought it up to the one that had the fix."""
    return "" if bug.kind == "check" else f"{bug.introduced} to {bug.fixed}"


def _commits(bug: Bug) -> str:
    return " ".join(bug.commits) or ("" if bug.kind == "check" else "not traced")


def _show(bug: Bug) -> None:
    out = console()
    rows = {
        "kind": bug.kind,
        "where": bug.place,
        "kernels": _kernels(bug),
        "fixed by": _commits(bug),
        "what it is": bug.summary,
        "breaks": ", ".join(bug.invariants),
        "needs": ", ".join(bug.needs),
        "not with": ", ".join(bug.lacks),
        "profiles": ", ".join(places(bug)),
        "corrected": bug.corrected,
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        if value:
            table.add_row(key, Text(value))
    out.print(Text(bug.name, "bold"))
    out.print(table)
    scenario = _scenario(bug)
    if scenario is not None:
        out.print(Text(f"\n{bug.name}.ksm", "bold"))
        out.print(Text(scenario.rstrip("\n")))
        out.print(Text(f"\npyksm bugs {bug.name} --scenario >FILE"))
        out.print(Text(f"pyksm run FILE --bug {bug.name}"))
