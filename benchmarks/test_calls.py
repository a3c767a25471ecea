"""``pytest benchmarks/test_calls.py --benchmark-only``: what one operation costs through Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import PAGE, calls

from pyksm.core import Core
from pyksm.engine import Config

TABLE = calls()
PAGES = 16_384


@pytest.mark.parametrize("name", [name for name, both in TABLE.items() if both[1]])
@pytest.mark.parametrize("way", ["operation", "bare call"])
def test_one(benchmark: Any, name: str, way: str) -> None:
    benchmark.group = name
    benchmark(TABLE[name][way == "bare call"])


@pytest.mark.parametrize("name", [name for name, both in TABLE.items() if not both[1]])
def test_object(benchmark: Any, name: str) -> None:
    benchmark.group = "Region"
    benchmark(TABLE[name][0])


@pytest.mark.parametrize("name", ["write_pages", "read_pages_into", "numpy's copy"])
def test_many(benchmark: Any, name: str) -> None:
    """Whole pages, all in one call, into memory that was touched before."""
    benchmark.group = f"{PAGES:,} pages of {PAGE} bytes"
    core = Core(Config(frames=PAGES + 64))
    pid = core.spawn()
    addr = core.mmap(pid, PAGES)
    here, there = np.ones((2, PAGES, PAGE), dtype=np.uint8)
    core.write_pages(pid, addr, here)
    if name == "numpy's copy":
        benchmark(np.copyto, there, here)
    else:
        benchmark(getattr(core, name), pid, addr, here)
    core.close()
