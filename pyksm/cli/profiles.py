"""``pyksm profiles``: which kernels the engines can be, and what changes from one to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pyksm import features, profiles
from pyksm.cli.common import console, print_json
from pyksm.cli.group import FINE
from pyksm.errors import InputError
from pyksm.features import Feature, Profile


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(profiles_command)


@click.command("profiles", short_help="List the kernel profiles, or what changes between two.")
@click.argument("names", nargs=-1, metavar="[FROM [TO]]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def profiles_command(names: tuple[str, ...], as_json: bool) -> int:
    """List the kernel profiles and their features, with the upstream commits.

    With one name, that profile in full; with two, what an upgrade from the first kernel to the
    second gains and loses. Each feature can be switched by itself: --with and --without of run,
    diff and fuzz, `machine with=` and `without=` in a scenario.
    """
    if len(names) > 2:
        raise InputError(f"profiles {' '.join(names)}: expected one profile or two")
    chosen = [profiles.find(name) for name in names]
    if not chosen:
        _list(as_json)
    elif len(chosen) == 1:
        _one(chosen[0], as_json)
    else:
        _two(chosen[0], chosen[1], as_json)
    return FINE


def _list(as_json: bool) -> None:
    known = list(profiles.PROFILES.values())
    if as_json:
        print_json([_described(each) | {"features": _in_order(each)} for each in known])
        return
    out = console()
    out.print(_table(known))
    out.print()
    marks = {each.name: each.name for each in known}
    table = Table(box=None, pad_edge=False)
    for column in ("feature", "since", "until", "commits"):
        table.add_column(column)
    for mark in marks:
        table.add_column(mark, justify="center")
    for feature in features.FEATURES:
        has = ["x" if feature.name in each.features else "" for each in known]
        table.add_row(feature.name, feature.since, feature.until or "", _commits(feature), *has)
    out.print(table)


def _one(profile: Profile, as_json: bool) -> None:
    having = [each for each in features.FEATURES if each.name in profile.features]
    if as_json:
        print_json(_described(profile) | {"features": [_in_full(each) for each in having]})
        return
    out = console()
    out.print(_table([profile]))
    _print_features(out, "has", [(each.since, each) for each in having])


def _two(old: Profile, new: Profile, as_json: bool) -> None:
    older = min(old, new, key=profiles.release_of)
    gained = _changed(new.features - old.features, older)
    lost = _changed(old.features - new.features, older)
    if as_json:
        answer: dict[str, Any] = {"from": _described(old), "to": _described(new)}
        for name, changed in (("gained", gained), ("lost", lost)):
            answer[name] = [{"release": when} | _in_full(each) for when, each in changed]
        print_json(answer)
        return
    out = console()
    out.print(_table([old, new]))
    _print_features(out, "gained", gained)
    _print_features(out, "lost", lost)
    if not gained and not lost:
        out.print("\nnothing changes")


def _changed(names: Iterable[str], older: Profile) -> list[tuple[str, Feature]]:
    """Features with the release that made the change after the older kernel, in that order."""
    wanted = frozenset(names)
    changed = [
        (each.until if each.until and each.name in older.features else each.since, each)
        for each in features.FEATURES
        if each.name in wanted
    ]
    return sorted(changed, key=lambda item: features.release(item[0]))


def _table(shown: list[Profile]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("profile", "also", "as recorded on", "what it is"):
        table.add_column(column, overflow="fold")
    for each in shown:
        name = f"{each.name} (default)" if each.name == profiles.DEFAULT else each.name
        table.add_row(name, ", ".join(each.aliases), each.recorded, each.summary)
    return table


def _print_features(out: Console, title: str, having: list[tuple[str, Feature]]) -> None:
    if not having:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("release")
    table.add_column(title)
    table.add_column("what it is", overflow="fold", ratio=1)
    table.add_column("commits", overflow="fold", max_width=26)
    for when, each in having:
        table.add_row(when, each.name, each.summary, _commits(each))
    out.print()
    out.print(table)


def _commits(feature: Feature) -> str:
    return " ".join(feature.commits) or "not traced"


def _in_order(profile: Profile) -> list[str]:
    return [name for name in features.NAMES if name in profile.features]


def _described(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "aliases": list(profile.aliases),
        "default": profile.name == profiles.DEFAULT,
        "recorded": profile.recorded,
        "summary": profile.summary,
    }


def _in_full(feature: Feature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "area": feature.area,
        "since": feature.since,
        "until": feature.until,
        "commits": list(feature.commits),
        "needs": list(feature.needs),
        "museum": feature.museum,
        "summary": feature.summary,
    }
