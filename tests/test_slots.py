"""Where slots are looked for, on areas with room for clusters: core against oracle."""

from __future__ import annotations

import random

import pytest

from pyksm.core import Core
from pyksm.engine import Config, Engine
from pyksm.oracle import Oracle

PAGE = 4096
NPAGES = 900


class Fragmenting:
    """Slots taken and given back here and there, until areas are full of holes and runs."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.choose = engine, random.Random(f"slots {seed}")
        self.pid = engine.spawn()
        self.addr = engine.mmap(self.pid, NPAGES)
        engine.touch(self.pid, self.addr, NPAGES, True)
        sizes = [self.choose.randint(260, 1400) for _ in range(self.choose.randint(1, 2))]
        self.areas = {engine.swapon(size): size for size in sizes}

    def some(self) -> tuple[int, int]:
        """Address and number of pages: short runs and long ones."""
        npages = self.choose.choice((1, 2, 40, 256, 300))
        return self.addr + self.choose.randrange(NPAGES - npages) * PAGE, npages

    def step(self) -> None:
        where, npages = self.some()
        what = self.choose.randrange(5)
        if what < 2:
            self.engine.swapout([(self.pid, where, npages)])
        else:  # a read leaves the slot to the swap cache, a write takes it away
            self.engine.touch(self.pid, where, npages, what < 4)

    def state(self) -> dict[str, object]:
        engine = self.engine
        slots = [engine.swap_map(area, k) for area, n in self.areas.items() for k in range(1, n, 7)]
        pages = [page.swp_offset for page in engine.pagemap(self.pid, self.addr, NPAGES)]
        return {"counters": dict(engine.counters()), "slots": slots, "pages": pages}


@pytest.mark.parametrize("seed", range(10))
def test_fragmented_areas(seed: int) -> None:
    config = Config(frames=2000, page_size=8, profile=("3.9", "4.19", "6.18")[seed % 3])
    with_cluster = 0
    both = [Fragmenting(make(config), seed) for make in (Core, Oracle)]
    for number in range(80):
        before = both[0].engine.counters()["scan_swap_map_slots"]
        for each in both:
            each.step()
        ours, theirs = (each.state() for each in both)
        for key, value in ours.items():
            assert value == theirs[key], (number, key)
        with_cluster += both[0].engine.counters()["scan_swap_map_slots"] - before > 512
    assert with_cluster
    for area in list(both[0].areas):
        for each in both:
            each.engine.swapoff(area)
            del each.areas[area]
        assert both[0].state() == both[1].state()
    for each in both:
        assert each.engine.census() == []
        each.engine.close()
