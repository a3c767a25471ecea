"""``pytest benchmarks --benchmark-only``: each workload on each engine.

Core and oracle do the same work on the same number of pages, in groups of one workload each, so
the relative column of the table is the ratio.
"""

from __future__ import annotations

from typing import Any

import pytest
from workloads import WORKLOADS, Workload, config

from pyksm.scenario import engines

NPAGES = {"core": 512, "oracle": 512}


@pytest.mark.parametrize("engine", ["core", "oracle"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name.replace(" ", "-"))
def test_engine(benchmark: Any, workload: Workload, engine: str) -> None:
    benchmark.group = workload.name
    make = engines.factory(engine)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        machine = make(config(NPAGES[engine]))
        return (machine, workload.prepare(machine, NPAGES[engine])), {}

    benchmark.pedantic(workload.run, setup=setup, rounds=3)
