"""What the build of the core that runs tasks makes of its museum and its proofs.

``tasks_driver.py ANSWERS``: where there is no such file, what this build says is kept there; else
what it says is compared with that. Exit 0: no difference; 1: a difference, printed.
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyksm import museum
from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.judge import judge
from pyksm.scenario import Scenario, engines, parse, run
from pyksm.tasks.run import Recording

PROOFS = Path(__file__).parents[1] / "scenarios" / "proof"
#: Seconds that the core may take for one answer; it takes a few tenths.
HANG_S = 20


def proofs() -> Iterator[Scenario]:
    for path in sorted(PROOFS.glob("*.ksm")):
        yield parse(path.read_text(encoding="utf-8"), str(path))


def what_a_run_was(scenario: Scenario) -> Any:
    recordings: list[Recording] = []
    answer = run(scenario, engines.TASKS, work=True, recordings=recordings)
    return answer, [(each.end, each.schedule, each.trace, each.seen) for each in recordings]


def what_was_explored(scenario: Scenario, strategy: str, *bugs: str) -> Any:
    bounds = Bounds(strategy=strategy, preemptions=1, schedules=60, seed=3, stop=False)
    return replace(explore(scenario, bounds, bugs=bugs), seconds=0.0)


def answers() -> Iterator[tuple[str, Any]]:
    """Quick ones first."""
    for name in sorted(path.stem for path in museum.HERE.glob("*.ksm")):
        scenario = museum.scenario(name)
        yield f"{name}, switched in", [str(wrong) for wrong in judge(scenario, bugs=[name])]
        if scenario.groups:
            yield f"{name}, explored", what_was_explored(scenario, "exhaustive", name)
    for scenario in proofs():
        yield f"{scenario.filename}, run", what_a_run_was(scenario)
        for strategy in ("random", "pct", "exhaustive"):
            found = what_was_explored(scenario, strategy)
            yield f"{scenario.filename}, {strategy}", found


def first_difference(expected: dict[str, str]) -> str | None:
    signal.alarm(HANG_S)
    for what, answer in answers():
        if repr(answer) != expected[what]:
            return f"{what}: {expected[what][:60]} is now {repr(answer)[:60]}"
        signal.alarm(HANG_S)
    return None


def main(path: Path) -> int:
    if not path.exists():
        path.write_bytes(pickle.dumps({what: repr(answer) for what, answer in answers()}))
        return 0
    found = first_difference(pickle.loads(path.read_bytes()))
    if found is None:
        return 0
    print(found)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
