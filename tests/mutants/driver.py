"""The differential suite's quick driver, against one build of the core.

``driver.py ANSWERS``: runs the core on the scenarios in that file and compares with the oracle's
answers kept there. Exit 0: no difference; 1: a difference, which it prints.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from pyksm.hunt.fuzz import answer
from pyksm.hunt.generate import program
from pyksm.scenario import Scenario, parse
from pyksm.scenario.compare import differences

Answers = list[tuple[Scenario, dict[str, Any]]]


def scenarios(rows: Path, programs: int) -> list[Scenario]:
    """The rows of the seed, then as many random programs."""
    files = sorted(rows.rglob("*.ksm"))
    return [
        *(parse(file.read_text(encoding="utf-8"), str(file)) for file in files),
        *(program(seed) for seed in range(programs)),
    ]


def first_difference(answers: Answers) -> str | None:
    """The first scenario on which the core differs from the kept answers, and how."""
    for scenario, expected in answers:
        found = next(differences(expected, answer(scenario, "core")), None)
        if found is not None:
            return f"{Path(scenario.filename).name}: {found}"
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
