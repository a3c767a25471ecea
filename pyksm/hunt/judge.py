"""What is wrong with what a scenario does on the core: the C judge, asked from Python.

It keeps a plain map of what each page of each process may hold, knows what an operation may
answer and what must hold after it, takes a census at the end, and lets the machine come to rest:
one quiet scan, then all processes exit and nothing may be left (``csrc/judge.c``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.errors import InputError
from pyksm.scenario import engines
from pyksm.scenario.statements import Scenario, Statement, parts
from pyksm.tasks.arrays import Arrays, Ops
from pyksm.tasks.compile import Program, Resolver, compiled
from pyksm.tasks.core import ffi, lib


@dataclass(frozen=True)
class Wrong:
    """A finding: which of the invariants I1 to I10 of the catalogue it breaks, what kind of
    finding it is, and what was seen. ``line`` is the statement's, 0: it was seen at the end."""

    invariant: str
    code: str
    text: str
    line: int = 0

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"{self.invariant} {self.code}: {self.text}{where}"


#: Bugs that look like what Linux gets wrong anyway: hunting one of them, the judge says that too.
_STALE_HEAD = frozenset({"ksm-migrate-missing-rmap-item"})


def flags(
    *,
    each: bool = True,
    quiesce: bool = True,
    open_ends: bool = False,
    bugs: Collection[str] = (),
) -> int:
    """What the judge is to look at.

    ``each``: a census whenever no statement is under way, not only at the end. ``open_ends``:
    also what Linux gets wrong to this day or did in that profile, as docs/findings.md has it.
    """
    ends = (
        lib.PYKSM_JUDGE_HALF_KSM
        | lib.PYKSM_JUDGE_STALE_HEAD
        | lib.PYKSM_JUDGE_SWAPIN_RACE
        | lib.PYKSM_JUDGE_FAILED_WRITE
        | lib.PYKSM_JUDGE_LAST_USER
        | lib.PYKSM_JUDGE_UNKNOWN_CHILD
        | lib.PYKSM_JUDGE_LEAKED_OOM
        | lib.PYKSM_JUDGE_PASSED_OVER
        | lib.PYKSM_JUDGE_LATE_FLAGS
        | lib.PYKSM_JUDGE_CLEARED_ENTRY
    )
    return (
        (lib.PYKSM_JUDGE_EACH if each else 0)
        | (lib.PYKSM_JUDGE_QUIESCE if quiesce else 0)
        | (ends if open_ends else 0)
        | (lib.PYKSM_JUDGE_STALE_HEAD if _STALE_HEAD & set(bugs) else 0)
    )


def judge(
    scenario: Scenario,
    *,
    profile: str | None = None,
    bugs: Collection[str] = (),
    each: bool = True,
    quiesce: bool = True,
    open_ends: bool = False,
) -> list[Wrong]:
    """Run the scenario once, its tasks as its schedule says, and judge it.

    ``profile`` goes before the scenario's own; ``bugs`` of the museum are switched in beside its
    own. Raises InputError for ``at``, and for a schedule that does not fit.
    """
    wanted = engines.config(scenario.on(bugs=(*scenario.machine.bugs, *bugs)).machine, profile)
    machine = engines.build(engines.TASKS, wanted)
    try:
        how = flags(each=each, quiesce=quiesce, open_ends=open_ends, bugs=wanted.bugs)
        return _Trial(machine, program_of(scenario), how).run()
    finally:
        machine.close()


def program_of(scenario: Scenario) -> Program:
    """Compiled: a scenario without tasks is all setup. Of more groups of tasks the last one runs
    as tasks, the others one statement after the other."""
    groups = scenario.groups
    if groups:
        return compiled(scenario, len(groups) - 1)
    resolver = Resolver()
    steps = resolver.steps([each for each in parts(scenario.body) if isinstance(each, Statement)])
    processes, areas = tuple(resolver.processes), tuple(resolver.areas)
    return Program((), steps, (), (), None, processes, areas)


class _Trial:
    """One run of a program on a machine, from its first operation on."""

    def __init__(self, machine: Any, program: Program, how: int) -> None:
        self._handle = machine._open("judge")
        self._arrays = Arrays(program, page_size=machine.config.page_size, keep=False)
        self._judge = ffi.gc(lib.pyksm_judge_new(self._handle, how), lib.pyksm_judge_free)
        if self._judge == ffi.NULL:
            raise MemoryError
        self._arrays.table.judge = self._judge

    def run(self) -> list[Wrong]:
        arrays = self._arrays
        self._sequence(arrays.setup)
        outcome = self._tasks() if arrays.tasks else ffi.NULL
        if outcome == ffi.NULL or outcome.end == lib.PYKSM_END_DONE:
            self._sequence(arrays.after)
        found = lib.pyksm_judge_finish(self._judge, self._handle, arrays.table, outcome)
        arrays.table.judge = ffi.NULL
        names = arrays.program.names
        return [wrong_of(lib.pyksm_judge_wrong(self._judge, k), names) for k in range(found)]

    def _sequence(self, ops: Ops) -> None:
        for k in range(ops.nr):
            lib.pyksm_run_op(self._handle, self._arrays.table, ops.ops + k)

    def _tasks(self) -> Any:
        arrays = self._arrays
        outcome = ffi.new("struct pyksm_outcome *")
        err = lib.pyksm_run_tasks(
            self._handle,
            arrays.table,
            arrays.c_tasks,
            len(arrays.tasks),
            arrays.schedule,
            arrays.nr_segments,
            outcome,
        )
        if err or outcome.end == lib.PYKSM_END_MISFIT:
            text = ffi.string(outcome.text).decode() if not err else f"errno {-err}"
            raise InputError(f"the schedule does not fit: {text}")
        return outcome


_TASK = re.compile(r"\btask (\d+)\b")


def wrong_of(c: Any, names: Sequence[str] = ()) -> Wrong:
    """``struct pyksm_wrong``; ``names``: of the tasks, which C knows by numbers."""
    text = ffi.string(c.text).decode(errors="replace")
    if names:
        text = _TASK.sub(lambda found: f"task {names[int(found[1])]}", text)
    return Wrong(f"I{c.invariant}", ffi.string(c.code).decode(), text, c.line)
