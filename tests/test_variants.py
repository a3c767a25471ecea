"""The core's other ways to do the same (engines.VARIANTS) against the plain core: nothing differs.

Compared: results, observations, raw ptes, pfns, work counters, events, census, schedule points, and
the bytes of every frame in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import direct
import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import kernels, names, packed
from scn import SCENARIOS, policies

from pyksm.core import Core
from pyksm.engine import FAULT_KINDS, Config
from pyksm.errors import MachineError
from pyksm.features import PROFILES
from pyksm.hunt import program
from pyksm.hunt.fuzz import answer
from pyksm.scenario import Scenario, engines, parse
from pyksm.scenario.compare import differences

PAGE = 4096
BASE = 4 << 30
VARIANTS = list(engines.VARIANTS)
ROWS = sorted(path.relative_to(SCENARIOS) for path in SCENARIOS.rglob("*.ksm"))


def held_to_the_core(scenarios: Iterable[Scenario], profile: str | None = None) -> None:
    for scenario in scenarios:
        plain = answer(scenario, "core", profile)
        for variant in VARIANTS:
            found = list(differences(plain, answer(scenario, variant, profile)))
            assert not found, f"{scenario.filename} {variant}\n" + "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rows(row: Any) -> None:
    """As they are, by either policy, and under the kernel of today."""
    scenario = parse((SCENARIOS / row).read_bytes(), row.name)
    held_to_the_core(scenario.on(policy=policy) for policy in policies(scenario))
    held_to_the_core([scenario.on(profile="6.18", policy="reread")])


@pytest.mark.parametrize("profile", list(PROFILES))
def test_programs(profile: str) -> None:
    held_to_the_core(program(seed, profile=profile) for seed in range(70_000, 70_040))


@pytest.mark.parametrize("kernel", kernels())
def test_recorded_scenarios(kernel: str) -> None:
    texts = [packed()["scenarios"][name]["text"] for name in names(kernel)[::12]]
    held_to_the_core((parse(text) for text in texts), kernel)


def frames(engine: Any) -> dict[int, bytes]:
    """The bytes of every frame that a process maps."""
    found = {}
    for pid in engine.processes():
        for vma in engine.vmas(pid):
            for page in engine.pagemap(pid, vma.start, (vma.end - vma.start) // PAGE):
                if page.state in "PZ":
                    found[page.pfn] = engine.frame(page.pfn).tobytes()
    return found


def played(variant: str, seed: int) -> Any:
    """The log of a direct program, the schedule points it came by, and every byte at its end."""
    machine = engines.factory(variant)(direct.config(seed))
    points: list[str] = []
    machine.set_hook(points.append)
    player = direct.Player(machine, seed)
    log = player.play(60)
    log.append(("end", (), [points, frames(machine)], None))
    machine.close()
    return log


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_direct_programs(first: int) -> None:
    for seed in range(80_000 + first, 80_010 + first):
        plain = played("core", seed)
        for variant in VARIANTS:
            found = direct.first_difference(plain, played(variant, seed))
            assert found is None, f"seed {seed} {variant}: {found}"


# What random programs are too small for: many pages, several areas, failures at every place.


def contents(npages: int, size: int, first: int) -> NDArray[np.uint8]:
    """Pages of which no two that are less than 1000 apart are the same."""
    pages = np.zeros((npages, size), dtype=np.uint8)
    pages[:, :4] = (first + np.arange(npages, dtype=np.uint32) % 1000).view(np.uint8).reshape(-1, 4)
    return pages


class Population:
    """Processes with pages of their own, forked ones and merged ones, in two areas and back."""

    def __init__(self, engine: Any, npages: int) -> None:
        self.engine = engine
        self.npages = npages
        self.size = engine.config.page_size
        self.log: list[Any] = []

    def do(self, name: str, *args: Any) -> Any:
        try:
            result = getattr(self.engine, name)(*args)
        except MachineError as error:
            result = f"errno {error.errno}"
        kept = [arg for arg in args if not isinstance(arg, np.ndarray)]
        self.log.append((name, kept, result, dict(self.engine.counters()), self.engine.events()))
        self.log.append(self.engine.census())
        return result

    def spawn(self, first: int) -> int:
        pid: int = self.do("spawn")
        self.do("mmap", pid, self.npages, BASE)
        self.do("write_pages", pid, BASE, contents(self.npages, self.size, first))
        self.do("madvise", pid, BASE, self.npages, 12)
        return pid

    def read(self) -> None:
        for pid in self.engine.processes():
            for vma in self.engine.vmas(pid):
                npages = (vma.end - vma.start) // PAGE
                self.log.append(self.engine.pagemap_array(pid, vma.start, npages).tobytes())
                self.log.append(self.engine.read_pages(pid, vma.start, npages))

    def run(self, before: Callable[[], Any]) -> list[Any]:
        one, other = self.spawn(1), self.spawn(1)
        self.do("ksm_scan", 2)
        child = self.do("fork", one)
        slots = 2 * self.npages
        areas = [self.do("swapon", slots, priority) for priority in (3, 3)]
        before()
        self.do("swapout")
        self.do("write", other, BASE + 5 * PAGE, b"of one process alone")
        self.do("write", one, BASE + 9 * PAGE, b"parent")
        self.do("swapoff", areas[0])
        self.do("write_pages", child, BASE, contents(self.npages // 2, self.size, 5))
        self.do("migrate", one, BASE, self.npages // 2, 1)
        self.do("swapout")
        self.do("swapon", slots, -1)
        self.do("exit", one)
        for area in (areas[1], areas[0]):
            self.do("swapoff", area)
        self.read()
        self.log.append(frames(self.engine))
        return self.log


def populated(variant: str, config: Config, npages: int, before: Any = None) -> list[Any]:
    machine = engines.factory(variant)(config)
    try:
        return Population(machine, npages).run(lambda: before and before(machine))
    finally:
        machine.close()


@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_byte_after_failures(profile: str) -> None:
    for kind in FAULT_KINDS:
        for nth in (1, 2, 5, 11, 30):
            size = (8, 4096, 64)[nth % 3]
            config = Config(nodes=2, frames=200, page_size=size, profile=profile)

            def order(machine: Any, kind: str = kind, nth: int = nth) -> None:
                machine.inject(kind, nth)

            plain = populated("core", config, 24, order)
            for variant in VARIANTS:
                assert populated(variant, config, 24, order) == plain, (kind, nth, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("profile", ["4.19", "6.18"])
def test_many_pages(profile: str, variant: str) -> None:
    """More buffers than a segment of content.c has, and more pages than fit a table or a batch."""
    config = Config(nodes=2, frames=24_000, page_size=16, profile=profile)
    npages = 5000 if profile == "6.18" else 1200
    assert populated(variant, config, npages) == populated("core", config, npages)


def test_hooks_that_change_what_is_under_way() -> None:
    """A process writes, another exits, at each schedule point of a swapoff in turn."""

    def log_of(variant: str, at: int, profile: str) -> list[Any]:
        machine: Any = engines.factory(variant)(Config(nodes=2, frames=200, profile=profile))
        points: list[str] = []

        def hook(point: str) -> None:
            points.append(point)
            if len(points) == at:
                for pid in machine.processes()[:2]:
                    machine.write(pid, BASE + 3 * PAGE, b"in between")
                machine.fork(machine.processes()[-1])
            if len(points) == at + 7:
                machine.exit(machine.processes()[1])

        log = Population(machine, 16).run(lambda: machine.set_hook(hook))
        machine.close()
        return [points, *log]

    for profile in ("3.9", "6.12"):
        for at in (1, 3, 14, 40, 60):
            plain = log_of("core", at, profile)
            for variant in VARIANTS:
                assert log_of(variant, at, profile) == plain, (at, profile, variant)


# By reference, for its own sake.


def by_reference(**how: Any) -> Core:
    return Core(Config(transfer="reference", **how))


def address(core: Core, pid: int, addr: int) -> int:
    """Where the bytes of a page are on the host."""
    view: NDArray[np.uint8] = core.frame(core.pagemap(pid, addr, 1)[0].pfn)
    return int(view.__array_interface__["data"][0])


@pytest.mark.parametrize("profile", ["3.9", "6.18"])
def test_contents_stay_where_they_are(profile: str) -> None:
    core = by_reference(frames=64, profile=profile)
    pid = core.spawn()
    addr = core.mmap(pid, 4)
    core.write_pages(pid, addr, contents(4, PAGE, 1))
    before = [address(core, pid, addr + k * PAGE) for k in range(4)]
    area = core.swapon(16)
    core.swapout()
    assert core.vmstat()["pswpout"] == 4
    core.swapoff(area)
    assert core.vmstat()["pswpin"] == 4
    assert [address(core, pid, addr + k * PAGE) for k in range(4)] == before
    assert core.read_pages(pid, addr, 4)[0] == contents(4, PAGE, 1).tobytes()
    core.write(pid, addr, b"!")  # nobody else refers to it: in place
    assert address(core, pid, addr) == before[0]
    core.close()


def test_a_view_is_of_the_content_at_its_time() -> None:
    core = by_reference(frames=64)
    parent = core.spawn()
    addr = core.mmap(parent, 1)
    core.write(parent, addr, b"shared")
    child = core.fork(parent)
    core.touch(child, addr, 1, True)  # a frame of its own, with the parent's bytes until it writes
    assert address(core, child, addr) == address(core, parent, addr)
    view = core.frame(core.pagemap(parent, addr, 1)[0].pfn)
    core.write(parent, addr, b"PARENT")
    assert view[:6].tobytes() == b"shared"
    assert core.frame(core.pagemap(parent, addr, 1)[0].pfn)[:6].tobytes() == b"PARENT"
    assert core.read(child, addr, 6) == b"shared"
    core.write(child, addr, b"CHILDS")
    assert view[:6].tobytes() == b"CHILDS"
    core.close()
    assert view[:6].tobytes() == b"CHILDS"


def test_more_slots_than_there_are_buffers_is_no_memory() -> None:
    core = by_reference(frames=2**32 - 1000, page_size=8)
    with pytest.raises(MachineError, match="12"):
        core.swapon(1000)
    assert core.areas() == []
    assert core.swapon(900) == 0
    core.close()


def test_areas_that_come_and_go_take_no_more() -> None:
    """The room of an area that has gone is there for the next."""
    core = by_reference(frames=2**32 - 3_000_000, page_size=8)
    for _ in range(3):
        assert core.swapon(2_000_000) == 0
        core.swapoff(0)
    core.close()


def test_configs_of_variants() -> None:
    """Each is what its name says, and the last is all of them."""
    made = {name: make(Config()).config for name, make in engines.VARIANTS.items()}
    assert made.pop(engines.TASKS) == Config()
    assert [(each.walk, each.transfer, each.threads) for each in made.values()] == [
        ("computed", "copy", 1),
        ("literal", "reference", 1),
        ("literal", "copy", 2),
        ("computed", "reference", 2),
    ]
