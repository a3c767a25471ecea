"""Schedules of a scenario with tasks, explored and judged: is there an order that goes wrong?

The work is C's (``csrc/explore.c``); here a scenario is made a program for it, and what is found a
scenario with a schedule that shows it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pyksm.engine import Config
from pyksm.errors import InputError, MachineError
from pyksm.hunt.judge import Wrong, flags, program_of, wrong_of
from pyksm.scenario import engines
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import PAGE_BYTES
from pyksm.scenario.schedule import Piece
from pyksm.tasks.arrays import Arrays
from pyksm.tasks.compile import Program
from pyksm.tasks.core import c_config, ffi, lib
from pyksm.tasks.points import NAMES as POINTS

STRATEGIES = ("exhaustive", "pct", "random")
ENDS = ("done", "deadlock", "livelock", "oops", "misfit")
MAX_PREEMPTIONS: int = lib.PYKSM_MAX_PREEMPTIONS
MAX_JOBS: int = lib.PYKSM_MAX_WORKERS

#: Bytes of content that pages have here, unless a scenario pokes beyond them.
PAGE_SIZE = 64
#: Frames of a machine that does not say how many: what a scenario of some statements can use.
FRAMES = 4096
#: Milliseconds that C works for before Python looks at the clock, and for Control-C.
_TURN_MS = 200
_FOR_EVER = 2**62


@dataclass(frozen=True)
class Bounds:
    """How far to look. ``preemptions``: of an exhaustive search; ``depth``: change points of PCT;
    ``stop``: with the first schedule that is wrong. ``each``: a census whenever no statement is
    under way; ``open_ends``: see :func:`pyksm.hunt.judge.flags`. ``prune``: leave off what has been
    seen; without, an exhaustive search goes through it again, and finds the same in more time."""

    strategy: str = "exhaustive"
    preemptions: int = 2
    depth: int = 3
    seconds: float = 3600.0
    schedules: int = _FOR_EVER
    seed: int = 0
    jobs: int = 1
    stop: bool = True
    each: bool = False
    quiesce: bool = True
    open_ends: bool = False
    prune: bool = True
    max_steps: int = 20_000

    def check(self) -> None:
        """InputError for what there is not."""
        if self.strategy not in STRATEGIES:
            raise InputError(f"strategy {self.strategy!r}: expected one of {', '.join(STRATEGIES)}")
        for name, value, most in (
            ("preemptions", self.preemptions, MAX_PREEMPTIONS),
            ("depth", self.depth, MAX_PREEMPTIONS),
        ):
            if not 0 <= value <= most:
                raise InputError(f"{name} {value}: expected 0 to {most}")
        if not 1 <= self.jobs <= MAX_JOBS:
            raise InputError(f"jobs {self.jobs}: expected 1 to {MAX_JOBS}")


@dataclass(frozen=True)
class Found:
    """Something wrong, and the schedule that shows it: None where there are no tasks."""

    wrong: Wrong
    schedule: tuple[Piece, ...]
    end: str
    preemptions: int
    steps: int
    schedules: int  #: that were run before it


@dataclass(frozen=True)
class Explored:
    """What was looked at, and what came of it."""

    schedules: int
    pruned: int
    steps: int
    longest: int
    ends: int
    states: int
    waiting: int
    complete: bool
    seconds: float
    found: tuple[Found, ...] = field(default=())

    @property
    def rate(self) -> float:
        """Schedule steps a second, of all workers together."""
        return self.steps / self.seconds if self.seconds else 0.0


def explore(
    scenario: st.Scenario,
    bounds: Bounds | None = None,
    *,
    profile: str | None = None,
    bugs: Collection[str] = (),
    progress: Callable[[Exploration], None] | None = None,
) -> Explored:
    """Run schedules of the scenario's tasks within ``bounds``. Its own schedule does not matter.

    ``profile`` goes before the scenario's own, ``bugs`` of the museum are switched in beside its.
    """
    with Exploration(scenario, bounds or Bounds(), profile=profile, bugs=bugs) as exploration:
        return exploration.run(progress)


def machine_of(scenario: st.Scenario, profile: str | None, bugs: Collection[str]) -> Config:
    """The machine that it asks for, with smaller pages and, where it does not say, fewer frames:
    but for addresses of frames on further nodes nothing differs."""
    wanted = engines.config(scenario.on(bugs=(*scenario.machine.bugs, *bugs)).machine, profile)
    frames = FRAMES if wanted.frames == st.Machine().frames else wanted.frames
    return replace(wanted, frames=frames, page_size=page_size_of(scenario))


def page_size_of(scenario: st.Scenario) -> int:
    """Small pages, as long as no statement pokes beyond them."""
    far = max((each.offset for each in _all(scenario) if isinstance(each, st.Poke)), default=0)
    size = PAGE_SIZE
    while size <= far and size < PAGE_BYTES:
        size *= 2
    return size


def _all(scenario: st.Scenario) -> list[st.Statement]:
    return [
        inner
        for each in scenario.body
        for inner in (each.statements if isinstance(each, st.Task) else (each,))
    ]


class Exploration:
    """One exploration under way; a context manager."""

    def __init__(
        self,
        scenario: st.Scenario,
        bounds: Bounds,
        *,
        profile: str | None = None,
        bugs: Collection[str] = (),
    ) -> None:
        bounds.check()
        self.bounds = bounds
        self.scenario = scenario
        self.program: Program = program_of(scenario)
        wanted = machine_of(scenario, profile, bugs)
        self._machine = c_config(wanted)
        self._arrays = Arrays(self.program, page_size=wanted.page_size, keep=False)
        self._config = self._c_explore_config(wanted)
        err = ffi.new("int *")
        self._handle: Any = lib.pyksm_explore_new(self._config, err)
        if self._handle == ffi.NULL:
            raise MachineError(-err[0], "exploration")
        self._began = time.monotonic()
        self._errors: list[int] = []

    def _c_explore_config(self, wanted: Config) -> Any:
        arrays, bounds = self._arrays, self.bounds
        how = flags(
            each=bounds.each,
            quiesce=bounds.quiesce,
            open_ends=bounds.open_ends,
            bugs=wanted.bugs,
        )
        return ffi.new(
            "struct pyksm_explore_config *",
            {
                "machine": self._machine,
                "setup": arrays.setup.ops,
                "nr_setup": arrays.setup.nr,
                "after": arrays.after.ops,
                "nr_after": arrays.after.nr,
                "tasks": arrays.c_tasks,
                "nr_tasks": len(arrays.tasks),
                "nr_pids": len(self.program.processes),
                "nr_areas": len(self.program.areas),
                "judge": how,
                "strategy": STRATEGIES.index(bounds.strategy),
                "preemptions": bounds.preemptions,
                "depth": bounds.depth,
                "stop": int(bounds.stop),
                "unpruned": int(not bounds.prune),
                "states": min(bounds.schedules, 2**20) * 64,
                "seed": bounds.seed,
                "max_steps": bounds.max_steps,
            },
        )

    def __enter__(self) -> Exploration:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give its memory back."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.pyksm_explore_free(handle)

    def run(self, progress: Callable[[Exploration], None] | None = None) -> Explored:
        """Until the bounds are reached: by as many threads as there are to be jobs."""
        end = self._began + self.bounds.seconds
        done = 0
        while True:
            ms = min(_TURN_MS, max(1, int((end - time.monotonic()) * 1000)))
            self._turn(ms, self.bounds.schedules - done)
            result = self._result()
            done = int(result.schedules + result.pruned)
            if progress is not None:
                progress(self)
            over = time.monotonic() >= end or done >= self.bounds.schedules
            if over or self._over(result):
                return self.result()

    def _over(self, result: Any) -> bool:
        stopped = self.bounds.stop and lib.pyksm_explore_finding(self._handle, 0) != ffi.NULL
        return stopped or bool(result.complete) or not self.program.tasks

    def _turn(self, ms: int, schedules: int) -> None:
        if self.bounds.jobs == 1 or not self.program.tasks:
            self._work(0, ms, schedules)
        else:
            share = schedules // self.bounds.jobs + 1
            threads = [
                threading.Thread(target=self._work, args=(k, ms, share))
                for k in range(self.bounds.jobs)
            ]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        if self._errors:
            raise MachineError(self._errors[0], "exploration")

    def _work(self, worker: int, ms: int, schedules: int) -> None:
        err = lib.pyksm_explore_run(self._handle, worker, ms, schedules)
        if err:
            self._errors.append(-err)

    def _result(self) -> Any:
        result = ffi.new("struct pyksm_explored *")
        lib.pyksm_explore_result(self._handle, result)
        return result

    def result(self) -> Explored:
        """So far."""
        result = self._result()
        return Explored(
            result.schedules,
            result.pruned,
            result.steps,
            result.longest,
            result.ends,
            result.states,
            result.waiting,
            bool(result.complete) or not self.program.tasks,
            time.monotonic() - self._began,
            self._found(),
        )

    def _found(self) -> tuple[Found, ...]:
        found: list[Found] = []
        while (each := lib.pyksm_explore_finding(self._handle, len(found))) != ffi.NULL:
            found.append(
                Found(
                    wrong_of(each.wrong, self.program.names),
                    self._pieces(each.schedule[0 : each.nr_segments]),
                    ENDS[each.end],
                    each.preemptions,
                    each.steps,
                    each.schedules,
                )
            )
        return tuple(found)

    def _pieces(self, segments: Sequence[Any]) -> tuple[Piece, ...]:
        names = self.program.names
        return tuple(
            Piece(names[each.task], each.count, POINTS[each.point] if each.point >= 0 else "")
            for each in segments
        )


def scheduled(scenario: st.Scenario, pieces: Sequence[Piece]) -> st.Scenario:
    """The scenario with that schedule for its last group of tasks, in place of its own."""
    statements = [each for each in scenario.statements if not isinstance(each, st.Schedule)]
    others = [each for each in scenario.statements if isinstance(each, st.Schedule)]
    groups = scenario.groups
    if not groups:
        return scenario
    if len(groups) > 1 and others:
        statements = [each for each in scenario.statements if each is not groups[-1].schedule]
    at = next(k for k, each in enumerate(statements) if each is groups[-1].tasks[0])
    if pieces:
        statements.insert(at, st.Schedule(tuple(pieces)))
    return replace(scenario, statements=tuple(statements))
