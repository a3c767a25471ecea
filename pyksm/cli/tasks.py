"""What commands share about tasks and the museum's bugs: options in, words for results out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from pyksm import bugs, profiles
from pyksm.engine import SWITCHES
from pyksm.errors import InputError
from pyksm.scenario import Scenario, engines
from pyksm.scenario.kinds import PageRange, WordError
from pyksm.scenario.parser import parse_schedule, shown
from pyksm.scenario.runner import OOPS
from pyksm.scenario.statements import At
from pyksm.tasks.run import Recording
from pyksm.tasks.timeline_html import page


def bug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--bug NAME``, any number of times, as ``bug``; :func:`bugged` checks them."""
    told = "Switch in a bug of the museum (pyksm bugs lists them); may repeat."
    return click.option("--bug", "bug", multiple=True, metavar="NAME", help=told)(command)


def bugged(
    scenario: Scenario,
    names: Iterable[str],
    profile: str | None,
    asked: Iterable[str] = ("core",),
) -> Scenario:
    """The scenario with these bugs switched in on its machine, beside those of its own.

    InputError for a name that there is not, where one of the engines ``asked`` has none, and where
    the profile lacks what the bug breaks.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name in SWITCHES:
            continue
        check_place(find_bug(name), scenario, profile)
        others = [engine for engine in asked if engine not in ("core", engines.TASKS)]
        if others:
            raise InputError(f"bug {name}: engine {others[0]} has no bugs, expected core")
    had = scenario.machine.bugs
    added = tuple(name for name in names if name not in had)
    return scenario.on(bugs=(*had, *added)) if added else scenario


def find_bug(name: str) -> bugs.Bug:
    """The bug of that name; InputError says which are like it."""
    if name in bugs.NAMES:
        return bugs.find(name)
    near = difflib.get_close_matches(name, bugs.NAMES, n=3, cutoff=0.4)
    like = f" such as {' or '.join(near)}" if near else ""
    raise InputError(f"bug {shown(name)!r} is not known, expected one{like} (pyksm bugs has all)")


def check_place(bug: bugs.Bug, scenario: Scenario, profile: str | None) -> None:
    """InputError where the machine's kernel has no such place."""
    config = engines.config(scenario.machine, profile)
    if bugs.exists_in(bug, config.features):
        return
    missing = [f"has no {each}" for each in bug.needs if each not in config.features]
    missing += [f"has {each}" for each in bug.lacks if each in config.features]
    having = ", ".join(places(bug)) or "a profile with other features"
    raise InputError(
        f"bug {bug.name}: profile {config.profile} {' and '.join(missing)}, expected {having}"
    )


def places(bug: bugs.Bug) -> list[str]:
    """The profiles whose kernels have the place that the bug breaks."""
    known = profiles.PROFILES.values()
    return [each.name for each in known if bugs.exists_in(bug, each.features)]


def scheduled(scenario: Scenario, texts: Sequence[str]) -> Scenario:
    """The scenario with these schedules, one for each group of tasks from the first on."""
    groups = scenario.groups
    if len(texts) > len(groups):
        there = f"{len(groups)} groups of tasks" if groups else "no tasks"
        raise InputError(f"--schedule {shown(texts[len(groups)])!r}: the scenario has {there}")
    pairs = zip(texts, groups, strict=False)
    return scenario.scheduled(
        [parse_schedule(text, group.names, "--schedule") for text, group in pairs]
    )


def only_core(engine: str, asked: Mapping[str, object]) -> None:
    """InputError where something is asked of another engine that only the core has."""
    for option, value in asked.items():
        if value:
            raise InputError(f"{option}: engine {engine} has no steps to tell, expected core")


def replaying(scenario: Scenario, answer: dict[str, Any]) -> Scenario:
    """The scenario with the schedules that its groups of tasks had in ``answer``."""
    groups = [each for each in answer["results"] if each["op"] == "tasks" and each.get("schedule")]
    return scheduled(scenario, [each["schedule"] for each in groups])


def pages_to_watch(texts: Iterable[str]) -> list[tuple[str, str, int]]:
    """``P R``, ``P R[i]`` or ``P R[i:j]`` each: the pages of ``--watch``."""
    watched = []
    for text in texts:
        process, _, word = text.strip().partition(" ")
        try:
            pages = PageRange().parse(word.strip())
        except WordError as error:
            said = f"--watch {shown(text)!r}: expected a process and {error.args[0]}"
            raise InputError(said) from None
        start = pages.start or 0
        stop = start + 1 if pages.stop is None else min(pages.stop, start + 64)
        watched += [(process, pages.region, index) for index in range(start, stop)]
    return watched


def write_page(
    name: str,
    scenario: Scenario,
    recordings: Sequence[Recording],
    every: bool = False,
    wrong: Sequence[str] = (),
) -> None:
    """The timeline of a scenario's groups of tasks into an HTML file."""
    text = page(
        recordings, title=scenario.filename, scenario=str(scenario), wrong=wrong, every=every
    )
    try:
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--html {shown(name)}: {why}, expected a file to write") from None


def judged(scenario: Scenario, engine: str, profile: str | None) -> list[str]:
    """What is wrong with what the core does, where there is something to be judged: a scenario
    with tasks or with bugs of the museum. Without ``at``, which the judge cannot follow."""
    museum = set(scenario.machine.bugs) - set(SWITCHES)
    hooks = any(isinstance(each, At) for each in scenario.body)
    if engine not in ("core", engines.TASKS) or hooks or not (scenario.groups or museum):
        return []
    from pyksm.hunt.judge import judge  # the extension is only needed where it is asked for

    return [str(each) for each in judge(scenario, profile=profile)]


def broken(answer: dict[str, Any]) -> bool:
    """Whether the run could not be completed: tasks that did not end, or an oops."""
    return any(
        result.get("end", "done") != "done"
        or any(event.startswith(OOPS) for event in result.get("events", []))
        for result in answer["results"]
    )


def said_of_group(result: dict[str, Any]) -> list[str]:
    """The words for the result of a group of tasks."""
    if "end" not in result:
        return []
    said = [result["end"]]
    if "steps" in result:
        switches = result["preemptions"]
        said.append(f"{result['steps']} steps, {switches} preemption{'s' * (switches != 1)}")
        said.append(f"schedule {result['schedule'] or 'too long'}")
    if "text" in result:
        said.append(result["text"])
    return said
