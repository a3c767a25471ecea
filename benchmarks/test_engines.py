"""``pytest benchmarks --benchmark-only``: each workload on each engine.

Core and oracle do the same work on the same number of pages; each workload is a group of the table,
whose number in brackets is the ratio.
"""

from __future__ import annotations

from typing import Any

import pytest
from workloads import WORKLOADS, Workload, config

from pyksm.scenario import engines

NPAGES = 1024


@pytest.mark.parametrize("engine", ["core", "oracle"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name.replace(" ", "-"))
def test_engine(benchmark: Any, workload: Workload, engine: str) -> None:
    benchmark.group = workload.name
    make = engines.factory(engine)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        machine = make(config(NPAGES))
        return (machine, workload.prepare(machine, NPAGES)), {}

    benchmark.pedantic(workload.run, setup=setup, rounds=3)
