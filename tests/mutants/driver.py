"""The differential suite's quick driver, against one build of the core.

``driver.py ANSWERS``: runs the core on the scenarios and on the direct programs in that file, and
compares with the oracle's answers kept there; each of its variants on the scenarios that are files,
one of them in turn on every second of the rest.
Exit 0: no difference; 1: a difference, printed.
"""

from __future__ import annotations

import itertools
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import direct
from scn import policies

from pyksm.engine import SWITCHES
from pyksm.hunt.fuzz import answer
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario.compare import differences

#: A scenario or the seed of a direct program, and what the oracle makes of it.
Answers = list[tuple[Scenario | int, Any]]


#: Seconds that the core may take for one scenario; it takes milliseconds.
HANG_S = 15


def scenarios(rows: Path) -> list[Scenario]:
    """The rows of the seed and the corner cases, as they are and then on other machines.

    Quick and telling ones first: most mutants do not live to see the rest. No random ones: whether
    they notice a mutant is luck, which changes with each word that their generator learns.
    """
    files = sorted(rows.rglob("*.ksm"), key=lambda file: file.stat().st_size)
    plain = [parse(file.read_text(encoding="utf-8"), str(file)) for file in files]
    memcpy = [each.on(policy="memcpy") for each in plain if "memcpy" in policies(each)]
    bugs = [*((switch,) for switch in SWITCHES), ("unuse_pte-no-copy", "unuse_vma-brute-force")]
    switched = [each.on(bugs=taken) for taken in bugs for each in plain]
    eras = [
        each.on(profile=era, policy="reread")
        for era in ("4.19", "6.1", "6.12", "6.18")
        for each in plain
    ]
    return [*plain, *eras, *switched, *memcpy]


def ask(what: Scenario | int, engine: str) -> Any:
    """What an engine makes of a scenario or of a direct program."""
    if isinstance(what, Scenario):
        return answer(what, engine)
    return direct.play(engines.factory(engine), what)


def asked(answers: Answers) -> Iterator[tuple[str, Scenario | int, Any]]:
    """Who is asked what, and what the answer should be."""
    files, rest, seen = [], [], set()
    for what, expected in answers:
        first = isinstance(what, Scenario) and what.filename not in seen
        (files if first else rest).append((what, expected))
        if isinstance(what, Scenario):
            seen.add(what.filename)
    # What a corner is there to show must not hang on which variant has its turn: all are asked.
    for engine in ("core", *engines.VARIANTS):
        yield from ((engine, what, expected) for what, expected in files)
    turns = itertools.cycle(engines.VARIANTS)
    for number, (what, expected) in enumerate(rest):
        yield "core", what, expected
        if number % 2 == 0:
            yield next(turns), what, expected


def first_difference(answers: Answers) -> str | None:
    """The first scenario or program on which the core differs from the kept answer, and how."""
    for engine, what, expected in asked(answers):
        signal.alarm(HANG_S)  # a mutant in an endless loop is ended by the signal
        found = ask(what, engine)
        if isinstance(what, Scenario):
            difference = next(differences(expected, found), None)
            if difference is not None:
                return f"{engine}: {Path(what.filename).name}: {difference}"
        elif found != expected:
            difference = direct.first_difference(expected, found)
            return f"{engine}: direct program {what}: {difference}"
    return None


def main(path: str) -> int:
    answers: Answers = pickle.loads(Path(path).read_bytes())
    found = first_difference(answers)
    if found is None:
        return 0
    print(found)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
