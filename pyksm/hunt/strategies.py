"""Hypothesis strategies for scenarios (also as :mod:`pyksm.testing`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as hs

from pyksm.hunt import generate, small
from pyksm.scenario import Scenario, Statement

T = TypeVar("T")


class _Drawn:
    """A :class:`pyksm.hunt.generate.Chooser` whose choices hypothesis makes, and shrinks."""

    def __init__(self, draw: hs.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(hs.integers(low, high))

    def pick(self, things: Sequence[T]) -> T:
        return self._draw(hs.sampled_from(things))

    def together(self, make: Callable[[generate.Chooser], T]) -> T:
        return self._draw(_together(make))


@hs.composite
def _together(draw: hs.DrawFn, make: Callable[[generate.Chooser], T]) -> T:
    return make(_Drawn(draw))


@hs.composite
def scenarios(
    draw: hs.DrawFn, min_size: int = 0, max_size: int = 40, profile: str | None = None
) -> Scenario:
    """Whole programs: sharing, forks, small areas, swapoff, run=2, failures, schedules.

    ``min_size`` and ``max_size`` bound the statements beside the few that every program opens with.
    ``profile``: the kernel profile; any, now and then with features switched, where there is none.
    """
    drawn = _Drawn(draw)
    head = None if profile is None else generate.machine(drawn, profile)
    return generate.build(drawn, min_size, max_size, head=head)


@hs.composite
def openings(draw: hs.DrawFn, names: generate.Names) -> list[Statement]:
    """What a program opens with: processes with contents in common. ``names`` is told of them."""
    return generate.opening(_Drawn(draw), names)


@hs.composite
def steps(draw: hs.DrawFn, names: generate.Names) -> list[Statement]:
    """The next statement of a program under way (none, one or two), ``names`` kept up to date."""
    return generate.step(_Drawn(draw), names)


@hs.composite
def small_scenarios(draw: hs.DrawFn, profile: str | None = None) -> Scenario:
    """Short programs of few pages and processes, mostly with tasks that meet on them."""
    drawn = _Drawn(draw)
    theme = drawn.pick(small.THEMES)
    return small.small(drawn, small.machine(drawn, profile, theme=theme), theme)
