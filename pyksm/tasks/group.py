"""A group of tasks within a run of a scenario: on the core at the same time, elsewhere in order."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyksm.errors import InputError
from pyksm.scenario import contents
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import PAGE_BYTES
from pyksm.scenario.runner import CALLS, Outcome, errno_name, result_of
from pyksm.scenario.world import World
from pyksm.tasks.compile import UNTOUCHED, Done, Program, Resolver, Step
from pyksm.tasks.sequential import Tables, carry_out

if TYPE_CHECKING:
    from pyksm.scenario.runner import Run
    from pyksm.tasks.core import TasksCore
    from pyksm.tasks.run import Recording

Results = list[dict[str, Any]]


def run_group(run: Run, group: st.Group) -> Results:
    """The result of the group, then one of each of its statements, in the order of the text."""
    resolver = Resolver(run.world)
    program = resolver.program(group)
    before = dict(run.engine.counters())
    if getattr(run.engine, "runs_tasks", False):
        head, done, pids, areas = _interleaved(run, program, resolver, group.line)
    else:
        head, done, pids, areas = _in_order(run, program, resolver)
    result = {"line": group.line, "op": "tasks", "errno": None, "tasks": list(group.names)} | head
    if not run.dead:
        result["calls"] = _calls(before, run.engine.counters())
        _note(run.world, program, done, pids, areas)
    events = run.engine.events()
    if events:
        result["events"] = events
    statements = [
        _statement(step, each, run.work) for step, each in zip(program.steps, done, strict=True)
    ]
    return [result, *statements]


_Ran = tuple[dict[str, Any], list[list[Done]], list[int], list[int]]


def _interleaved(run: Run, program: Program, resolver: Resolver, line: int) -> _Ran:
    from pyksm.tasks.arrays import Arrays
    from pyksm.tasks.run import run_program, to_watch

    machine: TasksCore = run.engine  # type: ignore[assignment]
    arrays = Arrays(program, pids=resolver.pids, types=resolver.types)
    trace = run.recordings is not None
    watch = to_watch(program, run.watch) if trace else ()
    recording = run_program(
        machine, arrays, max_steps=run.max_steps, trace=trace, watch=watch, seed=run.seed
    )
    if run.recordings is not None:
        run.recordings.append(replace(recording, line=line))
    run.dead = recording.end != "done"
    done = [ops.done(index) for ops in arrays.tasks for index in range(len(ops.steps))]
    return _head(recording), done, arrays.pids, arrays.areas


def _head(recording: Recording) -> dict[str, Any]:
    schedule = recording.schedule
    head: dict[str, Any] = {
        "end": recording.end,
        "steps": recording.steps,
        "preemptions": recording.preemptions,
        "schedule": None if schedule is None else " ".join(map(str, schedule)),
    }
    return head | ({"text": recording.text} if recording.text else {})


def _in_order(run: Run, program: Program, resolver: Resolver) -> _Ran:
    if program.schedule is not None:
        raise InputError(
            f"{program.schedule}: engine {run.engine.name} runs tasks one after the other, "
            "expected engine core"
        )
    tables = Tables(program, resolver.pids, resolver.types)
    done = [carry_out(run.engine, tables, step) for step in program.steps]
    return {"end": "done"}, done, tables.pids, tables.areas


def _calls(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    delta = {name: now[name] - before[name] for name in CALLS}
    return {name: calls for name, calls in delta.items() if calls}


def _note(
    world: World,
    program: Program,
    done: Sequence[Sequence[Done]],
    pids: Sequence[int],
    areas: Sequence[int],
) -> None:
    """What there is now, as if it had been made in the order of the text."""
    failed = [
        step.made
        for step, each in zip(program.steps, done, strict=True)
        if step.made is not None and any(one.code for one in each)
    ]
    world.processes.clear()
    for process, pid in zip(program.processes, pids, strict=True):
        if pid > 0:
            regions = {
                name: region
                for name, region in process.regions.items()
                if not any(region is each for each in failed)
            }
            world.processes[process.name] = replace(process, pid=pid, regions=regions)
    world.areas.clear()
    world.areas.update(
        {name: kind for name, kind in zip(program.areas, areas, strict=True) if kind >= 0}
    )


def _statement(step: Step, done: Sequence[Done], work: bool) -> dict[str, Any]:
    if not step.ops:
        return result_of(step.statement, Outcome(step.error))
    if not all(each.ended for each in done):
        return result_of(step.statement, Outcome()) | {"ended": False}
    code = next((each.code for each in done if each.code), 0)
    npages = step.ops[0].npages
    return result_of(step.statement, Outcome(code, _extra(step.statement, done[0], npages, work)))


def _extra(statement: st.Statement, done: Done, npages: int, work: bool) -> dict[str, Any]:
    """What else such a statement says, unless there was no such process for it any more."""
    codes = [-each for each in done.status]
    if done.code == errno.ESRCH and {*codes} <= {errno.ESRCH, -UNTOUCHED}:
        return {}
    if isinstance(statement, st.Read) and codes:
        view = memoryview(done.data)
        pages = [view[k * PAGE_BYTES : (k + 1) * PAGE_BYTES] for k in range(npages)]
        both = zip(pages, codes, strict=True)
        return {"crc": [None if code else contents.crc(page) for page, code in both]}
    if isinstance(statement, st.Write) and codes:
        return {"codes": codes} if work else {}
    if isinstance(statement, st.Scan) and not done.code:
        return {"scans": done.ret}
    if isinstance(statement, st.Migrate):
        if done.code:
            return {"status": ["ENOENT"] * npages}
        return {"status": [errno_name(-each) if each < 0 else each for each in done.status]}
    return {}
