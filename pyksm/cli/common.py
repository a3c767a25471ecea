"""What commands share: scenario files in, engines by name, JSON and tables out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click
from rich.console import Console

from pyksm import profiles
from pyksm.errors import InputError
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario.parser import shown

#: A scenario file larger than this is not one.
_FILE_LIMIT = 64 << 20


def read_scenario(name: str) -> Scenario:
    """The scenario in a file, ``-`` for standard input; raises InputError, also for I/O errors."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_FILE_LIMIT + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{shown(name)}: {why}, expected a scenario file") from None
    if len(data) > _FILE_LIMIT:
        raise InputError(f"{shown(name)}: too large, expected at most {_FILE_LIMIT >> 20} MiB")
    return parse(data, "<stdin>" if name == "-" else name)


def switch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--with`` and ``--without`` as ``on`` and ``off``, checked by :func:`switched`."""
    for flag, name in (("--without", "off"), ("--with", "on")):
        told = f"Switch a feature {name}; may repeat."
        command = click.option(flag, name, multiple=True, metavar="FEATURE", help=told)(command)
    return command


def switched(scenario: Scenario, on: Iterable[str] = (), off: Iterable[str] = ()) -> Scenario:
    """The scenario with features switched on its machine; these go before the file's own."""
    on, off = tuple(on), tuple(off)
    profiles.effective(profiles.DEFAULT, on, off)  # InputError for a wrong name
    if not on and not off:
        return scenario
    had = scenario.machine
    return scenario.on(
        on=(*(each for each in had.on if each not in off), *on),
        off=(*(each for each in had.off if each not in on), *off),
    )


def two_engines(text: str, kernel: bool = False) -> tuple[str, ...]:
    """``core,oracle``: two engines or more, all known and different.

    With ``kernel`` also that, and recordings by their file names (``*.json``).
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not (kernel and not is_model(name)):
            engines.factory(name)
    if len(names) < 2 or len(set(names)) != len(names):
        raise InputError(f"--engines {text!r}: expected two different engines, as core,oracle")
    return names


def is_model(name: str) -> bool:
    """Whether an engine computes its answer; a kernel and a recording of one do not."""
    return name != engines.KERNEL and not name.endswith(".json")


def seconds_of(text: str, what: str = "--seconds") -> float:
    """A finite number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and 0 < number <= 1e9):
        raise InputError(f"{what} {shown(text)!r}: expected a number of seconds above 0")
    return number


def console(stderr: bool = False) -> Console:
    """A console that wraps nothing when its output is not a terminal."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = 200
    return made


def print_json(value: Any) -> None:
    """``value`` as JSON on standard output; an answer's results a line each."""
    if isinstance(value, dict) and isinstance(value.get("results"), list):
        head = {key: each for key, each in value.items() if key != "results"}
        lines = ",\n".join(json.dumps(each) for each in value["results"])
        text = json.dumps(head)[:-1] + f', "results": [\n{lines}\n]}}'
    else:
        text = json.dumps(value)
    sys.stdout.write(text + "\n")
