"""``pyksm record --live`` and ``--restore``: the kernel that runs here."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from pyksm.cli.group import FINE
from pyksm.errors import InputError
from pyksm.recorder import live, livehost, livestate, liveswap
from pyksm.recorder.recorder import Recorder, refuse_model_only
from pyksm.scenario import Scenario
from pyksm.scenario import statements as st
from pyksm.scenario.parser import shown
from pyksm.targets import signals


@dataclass(frozen=True)
class Here:
    """What the user said of recording on this machine."""

    wanted: bool
    restore: bool
    yes: bool
    options: live.Options

    @contextmanager
    def opened(self, scenarios: Sequence[Scenario], seconds: float) -> Iterator[Recorder]:
        """A recorder that all the scenarios fit, once the user agrees."""
        for scenario in scenarios:
            refuse_model_only(scenario)
        options = _fitting(dataclasses.replace(self.options, statement_seconds=seconds), scenarios)
        live.check()
        if not self.yes:
            _ask(options)
        try:
            with signals.tidied(), live.Live(options) as machine:
                yield machine.recorder
        except livestate.StateError as error:
            raise InputError(f"live: {error}") from None

    def put_back(self) -> int:
        """``--restore``."""
        livehost.require_root()
        try:
            found = livestate.restore(self.options.journal)
        except livestate.StateError as error:
            raise InputError(f"restore: {error}") from None
        click.echo("everything is as it was" if found else "there is nothing to put back")
        return FINE


def _fitting(options: live.Options, scenarios: Sequence[Scenario]) -> live.Options:
    areas, area_pages = options.areas, options.area_pages
    nodes = livehost.memory_nodes(livehost.Host())
    for scenario in scenarios:
        if scenario.machine.nodes > nodes:
            raise InputError(
                f"{shown(scenario.filename)}: {scenario.machine.nodes} memory nodes, expected at "
                f"most the {nodes} of this machine"
            )
        swapons = [each for each in scenario.body if isinstance(each, st.Swapon)]
        areas = max(areas, len({each.area for each in swapons}))
        area_pages = max([area_pages, *(each.npages for each in swapons)])
    return dataclasses.replace(options, areas=areas, area_pages=area_pages)


def _ask(options: live.Options) -> None:
    if not sys.stdin.isatty():
        raise InputError("--live: nobody here to ask, expected --yes")
    click.echo("Recording on this kernel changes, until it is done:", err=True)
    for line in live.changes(options):
        click.echo(f"  {line}", err=True)
    if not click.confirm("Go on?", err=True):
        raise InputError("--live: not agreed to, nothing has been changed")


def live_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--live`` and what belongs to it, as one argument ``here``."""

    @functools.wraps(command)  # with the options that the command has already
    def made(
        *args: Any,
        is_live: bool,
        restore: bool,
        yes: bool,
        swap: str,
        swap_dir: str,
        journal: str,
        **options: Any,
    ) -> Any:
        chosen = live.Options(swap=swap, directory=swap_dir, journal=journal)
        return command(*args, here=Here(is_live, restore, yes, chosen), **options)

    for option in (
        click.option(
            "--journal",
            default=livestate.JOURNAL,
            show_default=True,
            metavar="FILE",
            help="--live: where it is kept how to put everything back.",
        ),
        click.option(
            "--swap-dir",
            default=live.Options.directory,
            show_default=True,
            metavar="DIR",
            help="--live: where swap files go.",
        ),
        click.option(
            "--swap",
            type=click.Choice(tuple(liveswap.KINDS)),
            default=live.Options.swap,
            show_default=True,
            help="--live: what swap areas are.",
        ),
        click.option(
            "--restore",
            is_flag=True,
            help="Put back what a --live that was killed with its watchdog has left, no more.",
        ),
        click.option("--yes", is_flag=True, help="--live: do not ask."),
        click.option(
            "--live",
            "is_live",
            is_flag=True,
            help="On the kernel that runs here, as root: says what it changes and asks, and puts "
            "all of it back.",
        ),
    ):
        made = option(made)
    return made
