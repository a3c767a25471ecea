"""Hunts with no bug switched in, profile by profile: they should find nothing.

    python benchmarks/clean_hunts.py --seconds 600 --write docs/hunts.md
    python benchmarks/clean_hunts.py --profile 6.18 --seconds 20 --seed 7

What is found stops that profile's hunt, is shown, and is exit status 1; `pyksm hunt --profile
PROFILE --seed SEED` with the seed that is told finds it again. With --results what has been run is
kept in a file, a line of JSON each, and the next call goes on behind it: the table has the sums.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import museum

from pyksm.features import PROFILES
from pyksm.hunt.hunt import hunt

#: Seeds of a profile begin that far from those of the one before, and none is tried twice.
FAR = 10**15


def processor() -> float:
    """Seconds of processor time of this process and of the ones it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def ran(profile: str, seed: int, seconds: float, jobs: int) -> dict[str, Any]:
    """One hunt. ``seed`` counts from the profile's first."""
    first = list(PROFILES).index(profile) * FAR + seed
    before = processor()
    made = hunt(profile=profile, seconds=seconds, seed=first, jobs=jobs, shrink=False)
    found = made.hunted
    return {
        "profile": profile,
        "seed": seed,
        "scenarios": made.scenarios,
        "schedules": made.schedules,
        "steps": made.steps,
        "seconds": made.seconds,
        "processor": processor() - before,
        "jobs": jobs,
        "found": None if found is None else {"seed": found.seed, "wrong": str(found.found.wrong)},
    }


def behind(results: Sequence[dict[str, Any]], profile: str) -> int:
    """The first seed that none of these can have tried: workers take turns, but one may lag."""
    mine = [each for each in results if each["profile"] == profile]
    return max((each["seed"] + each["scenarios"] * each["jobs"] for each in mine), default=0)


def lines(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page."""
    yield "# Hunts with no bug switched in"
    yield ""
    yield f"{museum.about()}; `python benchmarks/clean_hunts.py`."
    yield ""
    yield (
        "Scenarios at random, some schedules of each, judged as `pyksm hunt` does without `--bug`. "
        "What [findings.md](findings.md) tells of is left out. Time is by the clock, whatever else "
        "ran; processor time is that of all processes that hunted."
    )
    yield ""
    yield "| profile | scenarios | schedules | steps | time | processor time | found |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for profile in PROFILES:
        mine = [each for each in results if each["profile"] == profile]
        if not mine:
            continue
        sums = [f"{sum(each[name] for each in mine):,}" for name in ("scenarios", "schedules")]
        steps = sum(each["steps"] for each in mine) / 1e6
        took, used = (sum(each[of] for each in mine) / 60 for of in ("seconds", "processor"))
        found = "; ".join(each["found"]["wrong"] for each in mine if each["found"]) or "nothing"
        yield (
            f"| {profile} | {sums[0]} | {sums[1]} | {steps:,.0f} million | {took:.1f} min "
            f"| {used:.1f} min | {found} |"
        )
    if any(each["found"] for each in results):
        yield ""
        yield (
            "What was found ended one hunt, and the next went on behind it. What has been decided "
            "on since is Linux's ([findings.md](findings.md)) or a mistake of ours "
            "(`tests/test_hunted.py`, `tests/test_explore.py`)."
        )


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", "profiles", multiple=True, type=click.Choice(list(PROFILES)))
@click.option("--seconds", type=click.FloatRange(1), default=600.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, help="The first scenario.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="Keep what was run there.")
@click.option("--write", type=click.Path(path_type=Path), help="The table goes there.")
def main(
    profiles: Sequence[str],
    seconds: float,
    seed: int,
    jobs: int,
    results: Path | None,
    write: Path | None,
) -> None:
    had = museum.read(results)
    for profile in profiles or list(PROFILES):
        had.append(ran(profile, max(seed, behind(had, profile)), seconds, jobs))
        click.echo(f"{profile}: {had[-1]['found'] or 'nothing'}", err=True)
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(had[-1]) + "\n")
    page = "\n".join(lines(had)) + "\n"
    if write is not None:
        write.write_text(page, encoding="utf-8")
    else:
        click.echo(page, nl=False)
    sys.exit(1 if any(each["found"] for each in had) else 0)


if __name__ == "__main__":
    main()
