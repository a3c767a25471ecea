"""``pyksm profiles``: which kernels the engines can be."""

from __future__ import annotations

import click
from rich.table import Table

from pyksm import profiles
from pyksm.cli.common import console, print_json
from pyksm.cli.group import FINE


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(profiles_command)


@click.command("profiles", short_help="List the kernel profiles.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def profiles_command(as_json: bool) -> int:
    """List the kernel profiles: names, the kernel each answers like, its features."""
    known = list(profiles.PROFILES.values())
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "aliases": list(each.aliases),
                    "default": each.name == profiles.DEFAULT,
                    "recorded": each.recorded,
                    "summary": each.summary,
                    "features": sorted(each.features),
                }
                for each in known
            ]
        )
        return FINE
    table = Table(box=None, pad_edge=False)
    for column in ("profile", "also", "as recorded on", "what it is"):
        table.add_column(column, overflow="fold")
    for each in known:
        name = f"{each.name} (default)" if each.name == profiles.DEFAULT else each.name
        table.add_row(name, ", ".join(each.aliases), each.recorded, each.summary)
    console().print(table)
    return FINE
