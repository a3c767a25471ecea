"""Scenarios recorded to be drawn, also those without tasks: their statements are then one lane."""

from __future__ import annotations

from collections.abc import Sequence

from pyksm.scenario import run
from pyksm.scenario import statements as st
from pyksm.tasks.run import Recording

#: The task that such statements are of.
LANE = "all"


def recorded(
    scenario: st.Scenario,
    *,
    profile: str | None = None,
    watch: Sequence[tuple[str, str, int]] = (),
) -> list[Recording]:
    """What happens in a scenario, step by step: a recording for each group of its tasks."""
    recordings: list[Recording] = []
    run(in_a_lane(scenario), "core", profile=profile, recordings=recordings, watch=watch)
    return recordings


def in_a_lane(scenario: st.Scenario) -> st.Scenario:
    """The scenario itself where it has tasks, else its statements as those of one task at a time.

    Not those that only look, what stands behind an ``at``, and reclaim, which is another one where
    others may be in its way.
    """
    if scenario.groups:
        return scenario
    statements: list[st.Statement] = list(scenario.statements[:1])
    inside: list[st.Statement] = []

    def end_lane() -> None:
        if inside:
            statements.extend((st.Task(LANE, tuple(inside), line=inside[0].line), st.Join()))
            inside.clear()

    if not scenario.statements or not isinstance(scenario.statements[0], st.Machine):
        statements.clear()
    armed = False
    for each in scenario.body:
        if each.op in st.IN_TASKS and not isinstance(each, st.Swapout) and not armed:
            inside.append(each)
        else:
            end_lane()
            statements.append(each)
        armed = isinstance(each, st.At)
    end_lane()
    return st.Scenario(tuple(statements), scenario.filename)
