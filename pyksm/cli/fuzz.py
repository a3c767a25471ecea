"""``pyksm fuzz``: engines held against each other on programs made at random."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from typing import TypedDict

import click

from pyksm import profiles
from pyksm.cli.common import seconds_of, switch_options, switched, two_engines
from pyksm.cli.group import FINE, FOUND
from pyksm.cli.record import Where, kernel_options
from pyksm.cli.scenario import print_differences
from pyksm.errors import InputError
from pyksm.hunt.against import fuzz_against
from pyksm.hunt.fuzz import Finding, fuzz
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario.parser import shown


def register(group: click.Group) -> None:
    """Add the commands of this module."""
    group.add_command(fuzz_command)


@click.command("fuzz", short_help="Look for programs on which engines differ.")
@click.option("--engines", "names", default="core,oracle", show_default=True, help=engines.HELP)
@click.option("--seconds", default="10", show_default=True, help="How long to look.")
@click.option("--programs", type=click.IntRange(1, 2**31), default=None, help="How many at most.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=None, help="The first program.")
@click.option(
    "--profile", default=None, help="Kernel profile. Default: any, and features switched."
)
@switch_options
@click.option(
    "--against",
    type=click.Choice((engines.KERNEL,)),
    default=None,
    help="Hold the first engine against a booted kernel instead.",
)
@kernel_options
@click.option("--out", default=None, help="Where the shrunk program goes [pyksm-fuzz-SEED.ksm].")
def fuzz_command(
    names: str,
    seconds: str,
    programs: int | None,
    seed: int | None,
    profile: str | None,
    on: tuple[str, ...],
    off: tuple[str, ...],
    against: str | None,
    where: Where,
    out: str | None,
) -> int:
    """Run random programs on engines; compare results, raw ptes, work counters, events, census.

    Exit status 0 where nothing was found; 1 with a finding, shrunk and written to a file that
    `pyksm diff` replays. Program k of `--seed N` is that of seed N + k. With `--against kernel` the
    programs are others, which a kernel can carry out, and --kernel says which.
    """
    chosen, limit = two_engines(names), seconds_of(seconds)
    if profile is not None:
        profiles.find(profile)
    switched(Scenario(()), on, off)
    first = secrets.randbelow(10**9) if seed is None else seed
    _writable(out)
    if against is not None:
        where.image()
        chosen = (chosen[0], against)
    common: Common = {
        "seconds": limit,
        "programs": programs,
        "seed": first,
        "profile": profile,
        "prepare": lambda scenario: switched(scenario, on, off),
        "progress": _progress if sys.stderr.isatty() else None,
    }
    if against is None:
        tried, finding = fuzz(names=chosen, **common)
    else:
        tried, finding = fuzz_against(lambda: where.opened([]), engine=chosen[0], **common)
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    if finding is None:
        click.echo(f"seed {first}: {_fine(chosen, tried, programs)}")
        return FINE
    _report(chosen, tried, finding, out or f"pyksm-fuzz-{finding.seed}.ksm")
    return FOUND


def _fine(names: tuple[str, ...], tried: int, wanted: int | None) -> str:
    who = " and ".join(names)
    if wanted is not None and tried < wanted:
        return f"{tried} of {wanted} programs, for time is up; {who} agree on them"
    return f"{tried} programs, {who} agree on all"


class Common(TypedDict):
    """What both ways to fuzz take."""

    seconds: float
    programs: int | None
    seed: int
    profile: str | None
    prepare: Callable[[Scenario], Scenario]
    progress: Callable[[int, int], None] | None


def _progress(tried: int, seed: int) -> None:
    click.echo(f"\r{tried} programs, seed {seed}", nl=False, err=True)


def _writable(out: str | None) -> None:
    """Know before the hunt, not after it, that a finding can be written."""
    if out is not None:
        existed = os.path.lexists(out)
        try:
            with open(out, "a", encoding="utf-8"):
                pass
            if not existed:
                os.unlink(out)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(f"--out {shown(out)}: {why}, expected a file to write") from None


def _report(names: tuple[str, ...], tried: int, finding: Finding, out: str) -> None:
    how = f"--engines {','.join(names)}"
    made = f"--against {engines.KERNEL}" if engines.KERNEL in names else how
    text = [f"# pyksm fuzz {made} --seed {finding.seed} --programs 1"]
    text += [f"# {shown(str(each))}" for each in finding.differences[:3]]
    written = "\n".join([*text, str(finding.scenario)])
    with open(out, "w", encoding="utf-8") as file:
        file.write(written)
    click.echo(f"seed {finding.seed} (program {tried}): {' and '.join(names)} differ")
    # Parsed again, so that lines are those of the file.
    print_differences(names, parse(written), list(finding.differences))
    click.echo(f"shrunk to {len(finding.scenario.statements)} statements in {shown(out)}")
    kernel = " --kernel IMAGE" if engines.KERNEL in names else ""
    click.echo(f"replay: pyksm diff {shown(out)} {how}{kernel}")
