"""How soon the hunter finds each bug of the museum, with no scenario given, strategy by strategy.

    python benchmarks/museum.py --write docs/museum.md        everything: hours on 2 cores
    python benchmarks/museum.py --bug anonvma-not-oldest --strategy pct --seconds 20

A hunt is what `pyksm hunt --bug NAME --seed SEED --jobs N` does before it shrinks what it has
found: strategies "exhaustive,pct" are its own, the others show what each is good for. A bug whose
kind is sequential needs no order of tasks, so only that one pair is run. With --results what has
been run is kept in a file, a line of JSON each, and not run again. Exit status 1: a bug was not
found with each seed by `exhaustive,pct`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pyksm.bench import report
from pyksm.bugs import BUGS, Bug, find
from pyksm.hunt.hunt import hunt

OWN = "exhaustive,pct"
STRATEGIES = (OWN, "exhaustive", "pct", "random")


def strategies_of(bug: Bug, wanted: Sequence[str]) -> list[str]:
    return [each for each in wanted if each == OWN or bug.kind.startswith("interleaving")]


def ran(bug: Bug, strategy: str, seed: int, seconds: float, jobs: int) -> dict[str, Any]:
    """One hunt. Seeds are far apart, so that no two hunts try the same scenario."""
    made = hunt(
        bugs=[bug.name],
        seconds=seconds,
        seed=seed * 10**12,
        jobs=jobs,
        strategies=strategy.split(","),
        shrink=False,
    )
    return {
        "bug": bug.name,
        "strategy": strategy,
        "seed": seed,
        "found": made.hunted is not None,
        "seconds": made.seconds,
        "scenarios": made.scenarios,
        "schedules": made.schedules,
        "limit": seconds,
        "jobs": jobs,
    }


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result[each] for each in ("bug", "strategy", "seed", "limit", "jobs"))


def told(results: Sequence[dict[str, Any]]) -> str:
    """Of one bug and strategy: in how many runs it was found, and the median of what that took."""
    found = [each for each in results if each["found"]]
    if not results:
        return ""
    of = f"{len(found)} of {len(results)}"
    if not found:
        return of
    seconds = statistics.median(each["seconds"] for each in found)
    schedules = statistics.median(each["schedules"] for each in found)
    return f"{of}, {seconds:.1f} s, {schedules:,.0f}"


def about() -> str:
    here = report.machine()
    return (
        f"{here['cpu']}, {here['cores']} cores, {here['os']}, Linux {here['kernel']}, Python "
        f"{here['python']}, pyksm {here['pyksm']}, {here['date']}"
    )


def lines(results: Sequence[dict[str, Any]], strategies: Sequence[str]) -> Iterator[str]:
    """The page."""
    limits = sorted({f"{each['limit']:g} s" for each in results})
    jobs = sorted({str(each["jobs"]) for each in results})
    own = [each for each in results if each["strategy"] == OWN]
    names = {each["bug"] for each in own}
    always = {name for name in names if all(each["found"] for each in own if each["bug"] == name)}
    yield "# The museum's bugs, hunted"
    yield ""
    yield f"{about()}. At most {', '.join(limits)} a hunt, {', '.join(jobs)} process(es)."
    yield ""
    yield (
        f"`{OWN}` is what `pyksm hunt --bug NAME` does; it found {len(always)} of {len(names)} "
        "with each seed. Of each: in how many runs the bug was found, and, of those, the median "
        "of the time and of the schedules that it took."
    )
    yield ""
    yield "| bug | kind | " + " | ".join(f"`{each}`" for each in strategies) + " |"
    yield "| --- | --- | " + " | ".join("---" for _ in strategies) + " |"
    for bug in BUGS:
        mine = [each for each in results if each["bug"] == bug.name]
        cells = [told([one for one in mine if one["strategy"] == each]) for each in strategies]
        if mine:
            yield f"| {bug.name} | {bug.kind} | " + " | ".join(cells) + " |"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bug", "bugs", multiple=True, help="Only this one.")
@click.option("--strategy", "strategies", multiple=True, type=click.Choice(STRATEGIES))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="Keep what was run there.")
@click.option("--write", type=click.Path(path_type=Path), help="The table goes there.")
def main(
    bugs: Sequence[str],
    strategies: Sequence[str],
    seeds: int,
    seconds: float,
    jobs: int,
    results: Path | None,
    write: Path | None,
) -> None:
    rows = [find(name) for name in bugs] or list(BUGS)
    wanted = [each for each in STRATEGIES if each in (strategies or STRATEGIES)]
    had = read(results)
    done = {key(each) for each in had}
    for bug in rows:
        for strategy in strategies_of(bug, wanted):
            for seed in range(1, seeds + 1):
                if (bug.name, strategy, seed, seconds, jobs) in done:
                    continue
                had.append(ran(bug, strategy, seed, seconds, jobs))
                click.echo(f"{bug.name} {strategy} {told(had[-1:])}", err=True)
                if results is not None:
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(had[-1]) + "\n")
    page = "\n".join(lines(had, wanted)) + "\n"
    if write is not None:
        write.write_text(page, encoding="utf-8")
    else:
        click.echo(page, nl=False)
    missed = {each["bug"] for each in had if each["strategy"] == OWN and not each["found"]}
    if missed:
        click.echo(f"not with each seed: {', '.join(sorted(missed))}", err=True)
    sys.exit(1 if missed else 0)


def read(results: Path | None) -> list[dict[str, Any]]:
    """What was run before."""
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
