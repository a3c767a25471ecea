"""The differential suite's quick driver, against one build of the core.

``driver.py ANSWERS``: runs the core on the scenarios and on the direct programs in that file, its
variants on every second of them in turn, and compares with the oracle's answers kept there.
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
from pyksm.hunt.generate import program
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario.compare import differences

#: A scenario or the seed of a direct program, and what the oracle makes of it.
Answers = list[tuple[Scenario | int, Any]]


#: Seconds that the core may take for one scenario; it takes milliseconds.
HANG_S = 15


def scenarios(rows: Path, programs: int) -> list[Scenario]:
    """The rows of the seed and the corner cases, as they are and on other machines; then programs.

    Quick and telling ones first: most mutants do not live to see the rest.
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
    random = [program(seed) for seed in range(programs)]
    return [*plain, *random, *eras, *switched, *memcpy]


def ask(what: Scenario | int, engine: str) -> Any:
    """What an engine makes of a scenario or of a direct program."""
    if isinstance(what, Scenario):
        return answer(what, engine)
    return direct.play(engines.factory(engine), what)


def asked(answers: Answers) -> Iterator[tuple[str, Scenario | int, Any]]:
    """Who is asked what, and what the answer should be."""
    variants = itertools.cycle(engines.VARIANTS)
    for number, (what, expected) in enumerate(answers):
        yield "core", what, expected
        if number % 2 == 0:
            yield next(variants), what, expected


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
