"""``pytest benchmarks --benchmark-only``: the works of `pyksm bench`, on its populations.

Smaller than one would ask that command for, so that all of them together take a minute; whoever
wants limits, exact work and growth beside the times asks the command.
"""

from __future__ import annotations

from typing import Any

import pytest

from pyksm.bench import population
from pyksm.bench.population import Population
from pyksm.bench.settings import Shape, Way, ways
from pyksm.engine import Config, Engine
from pyksm.jobs.watch import Nobody
from pyksm.scenario import engines

PTES = 16384
SHAPES = {
    "distinct": Shape(PTES),
    "forked": Shape(PTES, 16, "forked", 16),
    "ksm": Shape(PTES, 16, "ksm", 16),
}
WAYS = (
    *ways(["6.18"], transfers=["copy", "reference"]),
    *ways(["3.9"], policies=["reread", "memcpy"], walks=["literal", "computed"]),
)


def built(way: Way, shape: Shape, merged: bool = True) -> Population:
    """A machine with the population on it."""
    frames = population.spare(shape.frames)
    engine: Engine = engines.factory("core")(Config(frames=frames, **vars(way)))
    made = population.build(engine, shape, Nobody())
    if shape.kind == "ksm":
        population.advise(made)
        if merged:
            population.merge(made, Nobody())
    return made


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.label.replace(" ", "-"))
@pytest.mark.parametrize("kind", SHAPES)
def test_swapoff(benchmark: Any, kind: str, way: Way) -> None:
    benchmark.group = f"swapoff, {kind}, {PTES:,} ptes"

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        made = built(way, SHAPES[kind])
        area = population.swap_on(made, PTES)
        population.swap_out(made, area, Nobody())
        return (made.engine, area), {}

    def swapoff(engine: Engine, area: int) -> None:
        engine.swapoff(area)

    benchmark.pedantic(swapoff, setup=setup, rounds=3)


@pytest.mark.parametrize("profile", ["3.9", "4.19", "6.18"])
def test_first_merge(benchmark: Any, profile: str) -> None:
    benchmark.group = f"ksmd's first merge, {PTES:,} ptes"

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (built(Way(profile), SHAPES["ksm"], merged=False),), {}

    def merge(made: Population) -> None:
        population.merge(made, Nobody())

    benchmark.pedantic(merge, setup=setup, rounds=3)


@pytest.mark.parametrize("kind", ["distinct", "ksm"])
def test_fork(benchmark: Any, kind: str) -> None:
    benchmark.group = f"fork, {PTES:,} ptes"

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (built(Way("6.18"), SHAPES[kind]),), {}

    def fork(made: Population) -> None:
        for pid, _ in made.members:
            made.engine.fork(pid)

    benchmark.pedantic(fork, setup=setup, rounds=3)


def test_copy_on_write(benchmark: Any) -> None:
    benchmark.group = f"copy on write of KSM pages, {PTES:,} ptes"

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (built(Way("6.18"), SHAPES["ksm"]),), {}

    def write(made: Population) -> None:
        for pid, addr, npages in made.ranges():
            made.engine.touch(pid, addr, npages, True)

    benchmark.pedantic(write, setup=setup, rounds=3)
