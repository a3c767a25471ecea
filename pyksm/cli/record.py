"""``pyksm record``, and what commands with the engine ``kernel`` share."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pyksm import profiles
from pyksm.cli.common import print_json, read_scenario, seconds_of
from pyksm.cli.group import FINE
from pyksm.cli.live import Here, live_options
from pyksm.errors import InputError
from pyksm.recorder import guest, noise
from pyksm.recorder.recorder import Recorder, refuse_model_only
from pyksm.scenario import Scenario
from pyksm.scenario import statements as st
from pyksm.scenario.parser import shown

#: Says which kernel where --kernel does not.
KERNEL_VARIABLE = "PYKSM_KERNEL"


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(record_command)


@dataclass(frozen=True)
class Where:
    """Which kernel to ask, and how long for."""

    kernel: tuple[str, ...]
    accel: str
    seconds: float

    def image(self) -> tuple[str, ...]:
        """The kernel's files; :class:`InputError` where none was given."""
        if not self.kernel:
            raise InputError(
                f"no kernel given, expected --kernel IMAGE.deb|vmlinuz (or ${KERNEL_VARIABLE})"
            )
        return self.kernel

    @contextmanager
    def opened(self, scenarios: Sequence[Scenario]) -> Iterator[Recorder]:
        """A recorder that all the scenarios fit."""
        for scenario in scenarios:
            refuse_model_only(scenario)
        options = guest.Options(
            self.image(),
            accel=self.accel,
            boot_seconds=self.seconds,
            statement_seconds=self.seconds,
        )
        with guest.Guest(fitting(options, scenarios)) as booted:
            yield booted.recorder


def fitting(options: guest.Options, scenarios: Sequence[Scenario]) -> guest.Options:
    """As many nodes, and areas of such a size, as these scenarios ask for; no fewer than usual."""
    nodes, areas, area_pages = options.nodes, options.areas, options.area_pages
    for scenario in scenarios:
        swapons = [each for each in scenario.body if isinstance(each, st.Swapon)]
        wanted = (scenario.machine.nodes, len({each.area for each in swapons}))
        for number, limit, what in zip(
            wanted, (guest.MAX_NODES, guest.MAX_AREAS), ("memory nodes", "swap areas"), strict=True
        ):
            if number > limit:
                raise InputError(
                    f"{shown(scenario.filename)}: {number} {what}, expected at most {limit}"
                    " for a booted kernel"
                )
        nodes, areas = max(nodes, wanted[0]), max(areas, wanted[1])
        area_pages = max([area_pages, *(each.npages for each in swapons)])
    return dataclasses.replace(options, nodes=nodes, areas=areas, area_pages=area_pages)


def kernel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--kernel`` and what belongs to it, as one argument ``where``."""

    @functools.wraps(command)  # with the options that the command has already
    def made(*args: Any, kernel: tuple[str, ...], accel: str, timeout: str, **options: Any) -> Any:
        known = os.environ.get(KERNEL_VARIABLE, "")
        told = kernel or tuple(known.split(os.pathsep) if known else ())
        where = Where(told, accel, seconds_of(timeout, "--timeout"))
        return command(*args, where=where, **options)

    for option in (
        click.option(
            "--timeout",
            default="120",
            show_default=True,
            metavar="SECONDS",
            help="How long a kernel may take to boot, and for a statement.",
        ),
        click.option(
            "--accel",
            type=click.Choice(("auto", "tcg", "kvm")),
            default="auto",
            show_default=True,
            help="How qemu runs it; auto is tcg.",
        ),
        click.option(
            "--kernel",
            multiple=True,
            metavar="IMAGE",
            help="The kernel to boot: a Debian package or a vmlinuz; once more for a package of"
            f" its modules [${KERNEL_VARIABLE}, with : between].",
        ),
    ):
        made = option(made)
    return made


@click.command("record", short_help="Run scenarios on a real kernel.")
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--out", default=None, metavar="DIR", help="NAME.json for each NAME.ksm goes there.")
@click.option(
    "--runs",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="How often; DIR/unstable.json then says what differs.",
)
@live_options
@kernel_options
def record_command(
    files: tuple[str, ...], out: str | None, runs: int, where: Where, here: Here
) -> int:
    """Run each scenario FILE on a kernel booted under qemu, or on this one, and print its answer.

    The JSON is that of `pyksm run --json`; of several files a line each, without --out.
    """
    if here.restore:
        if files:
            raise InputError("--restore: expected no FILE, it records nothing")
        return here.put_back()
    if not files:
        raise InputError("no FILE, expected scenario files (- for standard input)")
    if runs > 1 and out is None:
        raise InputError("--runs: expected --out DIR, where unstable.json goes")
    if not here.wanted:
        where.image()
    scenarios = {_name(file): read_scenario(file) for file in files}
    if len(scenarios) < len(files):
        raise InputError("two scenario files of one name, expected different ones")
    folder = None if out is None else _folder(out)
    wanted = list(scenarios.values())
    with here.opened(wanted, where.seconds) if here.wanted else where.opened(wanted) as recorder:
        first = {}
        for index, (name, scenario) in enumerate(scenarios.items()):
            _progress(index, len(scenarios) * runs, name)
            first[name] = answer = record(recorder, scenario)
            if folder is not None:
                write_json(folder / f"{name}.json", answer)
            elif len(files) == 1:
                print_json(answer)
            else:
                sys.stdout.write(json.dumps(answer) + "\n")
        if folder is not None:
            _write_noise(folder, scenarios, first, _again(recorder, scenarios, runs - 1))
    _progress(0, 0, "")
    return FINE


def record(recorder: Recorder, scenario: Scenario) -> dict[str, Any]:
    """The kernel's answer, with the profile that is like it."""
    profile = profiles.for_release(recorder.kernel)
    return recorder.record(scenario, profile.name if profile else None)


def _name(file: str) -> str:
    return "stdin" if file == "-" else Path(file).name.removesuffix(".ksm")


def _folder(out: str) -> Path:
    try:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--out {shown(out)}: {why}, expected a directory") from None
    return folder


def _again(
    recorder: Recorder, scenarios: dict[str, Scenario], runs: int
) -> dict[str, list[dict[str, Any]]]:
    """Further runs, last scenario first: what one leaves behind for the next shows as well."""
    more: dict[str, list[dict[str, Any]]] = {name: [] for name in scenarios}
    for turn in range(runs):
        for index, (name, scenario) in enumerate(reversed(scenarios.items())):
            _progress((turn + 1) * len(scenarios) + index, len(scenarios) * (runs + 1), name)
            more[name].append(record(recorder, scenario))
    return more


def _write_noise(
    folder: Path,
    scenarios: dict[str, Scenario],
    first: dict[str, dict[str, Any]],
    more: dict[str, list[dict[str, Any]]],
) -> None:
    unstable = {name: noise.unstable([first[name], *more[name]]) for name in scenarios}
    lingering = {name: noise.lingering(scenarios[name], first[name]) for name in scenarios}
    if any(more.values()):
        write_json(
            folder / "unstable.json", {key: paths for key, paths in unstable.items() if paths}
        )
    write_json(
        folder / "lingering.json", {key: at for key, at in lingering.items() if at is not None}
    )


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(value) + "\n", encoding="utf-8")
    scratch.replace(path)


def _progress(done: int, all_of_them: int, name: str) -> None:
    if sys.stderr.isatty():
        text = f"{done} of {all_of_them}: {name}" if all_of_them else ""
        click.echo(f"\r\033[K{text}", nl=False, err=True)
