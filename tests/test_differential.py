"""Core against oracle after every operation: results, observations, ptes, work, census, contents.

No tolerance. Two ways: a hypothesis state machine, whose failures shrink by themselves, and a
fixed budget of seeded programs (``pyksm fuzz --seed N --programs 1`` replays number N).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as hs
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyksm.engine import policies_of
from pyksm.features import PROFILES
from pyksm.hunt import examine, program
from pyksm.profiles import effective
from pyksm.scenario import Run, engines
from pyksm.scenario import statements as st
from pyksm.scenario.compare import differences
from pyksm.scenario.contents import ZEROS, crc, pages
from pyksm.scenario.kinds import PAGE_BYTES, Pages
from pyksm.testing import Names, openings, steps

#: Programs of the fixed budget on the mail's kernel and on any (None), and how many one test runs:
#: small enough to spread over workers.
PROGRAMS: dict[str | None, int] = {"3.9": 1200, None: 1200}
BATCH = 40


class Contents:
    """What every page should hold: a plain map that knows nothing of frames, swap or KSM."""

    def __init__(self) -> None:
        self.pages: dict[str, dict[tuple[str, int], bytes]] = {}
        self.lengths: dict[str, dict[str, int]] = {}

    def expected(self, process: str, where: Pages) -> list[str]:
        """CRCs of the pages, supposing that they can be read."""
        held = self.pages[process]
        return [crc(held.get((where.region, k), ZEROS)) for k in self._span(process, where)]

    def _span(self, process: str, where: Pages) -> range:
        start = where.start or 0
        stop = self.lengths[process][where.region] if where.stop is None else where.stop
        return range(start, stop)

    def note(self, statement: st.Statement, result: dict[str, Any]) -> None:
        """Follow a statement that was carried out."""
        if isinstance(statement, st.Write):
            self._write(statement, result)
        elif _dropped(statement, result):
            self._forget(statement.process, statement.pages)
        elif result["errno"] is not None:
            return
        elif isinstance(statement, st.Spawn):
            self.pages[statement.process], self.lengths[statement.process] = {}, {}
        elif isinstance(statement, st.Fork):
            self.pages[statement.child] = dict(self.pages[statement.process])
            self.lengths[statement.child] = dict(self.lengths[statement.process])
        elif isinstance(statement, st.Exit):
            del self.pages[statement.process], self.lengths[statement.process]
        elif isinstance(statement, st.Mmap):
            self.lengths[statement.process][statement.region] = statement.npages
        else:
            self._pages(statement)

    def _pages(self, statement: st.Statement) -> None:
        if isinstance(statement, st.Poke):
            key = (statement.page.region, statement.page.start or 0)
            held = bytearray(self.pages[statement.process].get(key, ZEROS))
            held[statement.offset] = statement.byte
            self.pages[statement.process][key] = bytes(held)
        elif isinstance(statement, st.Munmap):
            self._forget(statement.process, statement.pages)
        elif isinstance(statement, st.Mremap):
            span = self._span(statement.process, statement.pages)
            held = self.pages[statement.process]
            self.lengths[statement.process][statement.to] = len(span)
            for index, old in enumerate(span):
                if (page := held.pop((statement.pages.region, old), None)) is not None:
                    held[statement.to, index] = page

    def _forget(self, process: str, where: Pages) -> None:
        for index in self._span(process, where):
            self.pages[process].pop((where.region, index), None)

    def _write(self, statement: st.Write, result: dict[str, Any]) -> None:
        if "codes" not in result:  # refused as a whole
            return
        data = pages(statement.value, len(result["codes"]))
        span = self._span(statement.process, statement.pages)
        for index, (page, code) in enumerate(zip(span, result["codes"], strict=True)):
            if code == 0:
                held = data[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
                self.pages[statement.process][statement.pages.region, page] = held


def _dropped(statement: st.Statement, result: dict[str, Any]) -> bool:
    """MADV_DONTNEED goes on behind a hole, and says ENOMEM in the end."""
    dontneed = isinstance(statement, st.Madvise) and statement.advice == "dontneed"
    return dontneed and result["errno"] in (None, "ENOMEM")


class Differential(RuleBasedStateMachine):
    """The same statements on both engines; everything that they say must be equal."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.names = Names()
        self.contents = Contents()
        self.lossy = False  # a failed read of a swap slot gives zeros: contents are no longer ours

    @initialize(
        nodes=hs.integers(1, 2),
        frames=hs.sampled_from([4096, 4096, 60]),
        policy=hs.sampled_from(["reread", "memcpy"]),
        profile=hs.sampled_from(list(PROFILES)),
        data=hs.data(),
    )
    def begin(
        self, nodes: int, frames: int, policy: str, profile: str, data: hs.DataObject
    ) -> None:
        policies = policies_of(effective(profile))
        machine = st.Machine(nodes, frames, profile, policy if policy in policies else "reread")
        config = engines.config(machine, None)
        self.names.nodes, self.names.features = nodes, config.features
        for name in engines.NAMES:
            self.runs.append(Run(engines.build(name, config), work=True))
        for statement in data.draw(openings(self.names)):
            self.carry_out(statement)

    @rule(data=hs.data(), count=hs.integers(1, 6))
    def some_steps(self, data: hs.DataObject, count: int) -> None:
        for _ in range(count):
            for statement in data.draw(steps(self.names)):
                self.carry_out(statement)

    @rule()
    def look(self) -> None:
        self.carry_out(st.Observe())
        self.carry_out(st.Census("strict"))

    @rule()
    def read_all(self) -> None:
        for process, regions in self.contents.lengths.items():
            for region in regions:
                self.carry_out(st.Read(process, Pages(region)))

    def carry_out(self, statement: st.Statement) -> None:
        """On both engines; the answers, and what an access read, must be right."""
        ours, theirs = (each.step(statement) for each in self.runs)
        found = list(differences(ours, theirs))
        assert not found, "\n".join(map(str, found))
        armed = statement.statement if isinstance(statement, st.At) else statement
        self.lossy |= isinstance(armed, st.Inject) and armed.kind in ("read", "write")
        for nested in ours.get("nested", []):
            self.note(self.armed_at(nested), nested)
        self.note(statement, ours)
        self.pending = [statement] if isinstance(statement, st.At) else []

    pending: list[st.At] = []  # noqa: RUF012 - replaced, never changed

    def armed_at(self, nested: dict[str, Any]) -> st.Statement:
        (at,) = self.pending
        assert at.statement.op == nested["op"]
        return at.statement

    def note(self, statement: st.Statement, result: dict[str, Any]) -> None:
        if isinstance(statement, st.Read) and "crc" in result and not self.lossy:
            expected = self.contents.expected(statement.process, statement.pages)
            for read, written in zip(result["crc"], expected, strict=True):
                assert read in (None, written)
        self.contents.note(statement, result)

    @invariant()
    def clean(self) -> None:
        for each in self.runs:
            assert each.engine.census() == []

    def teardown(self) -> None:
        for each in self.runs:
            each.engine.close()


TestDifferential = Differential.TestCase
TestDifferential.settings = settings(
    max_examples=120,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize(
    ("profile", "first"),
    [(profile, first) for profile, count in PROGRAMS.items() for first in range(0, count, BATCH)],
)
def test_programs(profile: str | None, first: int) -> None:
    for seed in range(first, first + BATCH):
        found = examine(program(seed, profile=profile))
        assert not found, f"seed {seed}\n" + "\n".join(map(str, found[:10]))


def test_programs_are_what_they_claim() -> None:
    """The budget is spent on what matters: every op, many swapoffs, forks and merges."""
    ops: dict[str, int] = {}
    profiles: set[str | None] = set()
    switched = 0
    for seed in range(0, 2400, 10):
        scenario = program(seed)
        assert program(seed) == scenario
        profiles.add(scenario.machine.profile)
        switched += bool(scenario.machine.on or scenario.machine.off)
        for statement in scenario.statements:
            ops[statement.op] = ops.get(statement.op, 0) + 1
    assert profiles == set(PROFILES)
    assert switched > 10
    assert set(ops) == set(st.STATEMENTS) - {"census"}
    for op in ("swapoff", "fork", "scan", "swapout", "ksm", "at", "inject"):
        assert ops[op] > 2400 // 10 // 3, op
