"""The core is at least 300 times as fast as the oracle in swapoff and in a KSM scan.

In what both really do. On 1024 pages of 4096 bytes: the mail's swapoff, of 256 unrelated processes
that share their pages through KSM, which is looking and reading again and again; and two full scans
of pages that ksmd has not seen, which are checksums and trees. Not where contents only move: the
oracle's are Python's, which it never copies, so a swapoff of pages that nobody shares is some 30
times as fast with pages of 4096 bytes, where the core does little but copy them, and 100 to 300
with pages of 8 (``pytest benchmarks --benchmark-only`` has that and more).
"""

from __future__ import annotations

import time

import pytest
from workloads import WORKLOADS, Workload, config

from pyksm.engine import Engine
from pyksm.scenario import engines

NPAGES = 1024
WANTED = 300
#: A disturbed measurement only takes longer: the best of all counts, and there may be more.
ATTEMPTS = 6
ROUNDS = {"core": 12, "oracle": 1}


def seconds(workload: Workload, engine: str) -> float:
    """Processor time of the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS[engine]):
        machine: Engine = engines.factory(engine)(config(NPAGES))
        state = workload.prepare(machine, NPAGES)
        begin = time.process_time()
        workload.run(machine, state)
        best = min(best, time.process_time() - begin)
        machine.close()
    return best


@pytest.mark.parametrize("name", ["swapoff", "KSM scan"])
def test_core_against_oracle(name: str) -> None:
    workload = next(each for each in WORKLOADS if each.name == name)
    best = dict.fromkeys(ROUNDS, float("inf"))
    for _ in range(ATTEMPTS):
        for engine in best:
            best[engine] = min(best[engine], seconds(workload, engine))
        ratio = best["oracle"] / best["core"]
        if ratio >= WANTED:
            break
    times = ", ".join(f"{engine} {took * 1e3:.2f} ms" for engine, took in best.items())
    print(f"{name}: {times}, {ratio:.0f} x")
    assert ratio >= WANTED
