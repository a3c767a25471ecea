"""Programs run by the core's tasks, and what is left of a run to be looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.errors import InputError
from pyksm.scenario.kinds import PAGE_BYTES
from pyksm.scenario.schedule import Piece
from pyksm.tasks.arrays import Arrays
from pyksm.tasks.compile import Program
from pyksm.tasks.core import TasksCore, ffi, lib
from pyksm.tasks.points import NAMES as POINTS

#: How a run may end, in the order of ``enum pyksm_end``.
ENDS = ("done", "deadlock", "livelock", "oops", "misfit")

#: Switches that a schedule that replays may have, and steps that a recording keeps.
_MAX_TAKEN = 65536
_MAX_TRACE = 100_000
_LOG_BYTES = 8 << 20
#: Ptes that a recording follows.
MAX_WATCH = 8

_TASK = re.compile(r"\btask (\d+)\b")
_OF_PID = re.compile(r"\bof pid (\d+)\b")


@dataclass(frozen=True)
class Watched:
    """A page that a recording follows."""

    process: int
    name: str  #: ``P R[i]``
    addr: int


@dataclass(frozen=True)
class Seen:
    """A watched pte, its page and its slot. ``state`` is empty where there is no such process."""

    state: str
    pte: int = 0
    pfn: int = -1
    mapcount: int = -1
    refs: int = -1
    ksm: bool = False
    node: bool = False  #: the KSM page has its stable node
    word: int | None = None  #: the first one of the page
    flags: tuple[str, ...] = ()
    area: int = -1
    slot: int = -1
    count: int = -1  #: of the slot
    cached: bool = False  #: the slot's page is in the swap cache


@dataclass(frozen=True)
class Taken:
    """One step: the task that made it, the point that it passed to do so, which of its ops it was
    in, and who had which locks when it was made: (task, alone, lock)."""

    task: int
    point: str
    op: int
    preempts: bool
    locks: tuple[tuple[int, bool, str], ...] | None


@dataclass(frozen=True)
class Recording:
    """What a run of tasks was like.

    ``schedule`` replays it. ``seen`` has a row of the ``watched`` pages before the first step, then
    one after each of ``trace``; both are empty where nobody asked.
    """

    program: Program
    end: str
    text: str
    steps: int
    preemptions: int
    schedule: tuple[Piece, ...] | None
    trace: tuple[Taken, ...] = ()
    watched: tuple[Watched, ...] = ()
    seen: tuple[tuple[Seen, ...], ...] = ()
    line: int = 0  #: of the group


def run_program(
    machine: TasksCore,
    arrays: Arrays,
    *,
    max_steps: int = 0,
    trace: bool = False,
    watch: Sequence[Watched] = (),
    seed: int = 0,
) -> Recording:
    """Run the program's tasks on ``machine``; what its statements came to is then in ``arrays``.

    With a ``seed`` it is drawn by lot who goes next when the schedule is used up. InputError where
    the program's schedule does not fit.
    """
    out = ffi.new("struct pyksm_outcome *")
    out.max_steps, out.seed = max_steps, seed
    kept = [ffi.new("struct pyksm_segment[]", _MAX_TAKEN)]
    out.taken, out.max_taken = kept[0], _MAX_TAKEN
    if trace:
        kept += _room(out, watch)
    nr = len(arrays.tasks)
    pids = arrays.pids
    machine.run_tasks(arrays.table, arrays.c_tasks, nr, arrays.schedule, arrays.nr_segments, out)
    names = _Names(arrays.program, [*enumerate(pids), *enumerate(arrays.pids)])
    text = names.in_text(ffi.string(out.text).decode("utf-8", "replace"))
    end = ENDS[out.end]
    if end == "misfit":
        raise InputError(f"{text}, expected a schedule that fits")
    return Recording(
        arrays.program,
        end,
        text,
        out.steps,
        out.preemptions,
        _taken(out, arrays.program.names),
        _trace(out, names) if trace else (),
        tuple(watch),
        _seen(out) if trace and watch else (),
    )


def _room(out: Any, watch: Sequence[Watched]) -> list[Any]:
    """What C writes a trace to."""
    out.max_trace = _MAX_TRACE
    out.log_size = _LOG_BYTES
    out.nr_watch = len(watch)
    trace = ffi.new("struct pyksm_step[]", _MAX_TRACE)
    log = ffi.new("char[]", _LOG_BYTES)
    out.trace, out.log = trace, log
    if not watch:
        return [trace, log]
    watched = ffi.new("struct pyksm_watch[]", len(watch))
    for c, each in zip(watched, watch, strict=True):
        c.process, c.addr = each.process, each.addr
    seen = ffi.new("struct pyksm_seen[]", (_MAX_TRACE + 1) * len(watch))
    out.watch, out.seen = watched, seen
    return [trace, log, watched, seen]


class _Names:
    """What the core knows by number only, in its texts."""

    def __init__(self, program: Program, pids: Iterable[tuple[int, int]]) -> None:
        """``pids``: (process, pid), before and after."""
        self._tasks = program.names
        self._processes = {str(pid): program.processes[index].name for index, pid in pids if pid}

    def in_text(self, text: str) -> str:
        return self.in_lock(_TASK.sub(lambda match: f"task {self._tasks[int(match[1])]}", text))

    def in_lock(self, text: str) -> str:
        """A process that came and went has no name here."""
        return _OF_PID.sub(
            lambda match: f"of {self._processes.get(match[1], f'pid {match[1]}')}", text
        )


def _taken(out: Any, names: Sequence[str]) -> tuple[Piece, ...] | None:
    if out.nr_taken > out.max_taken:
        return None
    taken = out.taken[0 : out.nr_taken]
    return tuple(Piece(names[each.task], each.count) for each in taken)


def _trace(out: Any, names: _Names) -> tuple[Taken, ...]:
    said: dict[int, tuple[tuple[int, bool, str], ...] | None] = {2**32 - 1: None}
    trace = []
    for c in out.trace[0 : min(out.steps, out.max_trace)]:
        if c.locks not in said:
            said[c.locks] = _locks(names.in_lock(ffi.string(out.log + c.locks).decode("ascii")))
        preempts = bool(c.flags & lib.PYKSM_STEP_PREEMPTS)
        trace.append(Taken(c.task, POINTS[c.point], c.op, preempts, said[c.locks]))
    return tuple(trace)


def _locks(text: str) -> tuple[tuple[int, bool, str], ...]:
    """``0w page lock of frame 5; 1r …; ``"""
    held = [each.partition(" ") for each in text.split("; ") if each]
    return tuple((int(who[:-1]), who[-1] == "w", what) for who, _, what in held)


def _seen(out: Any) -> tuple[tuple[Seen, ...], ...]:
    rows = min(out.steps, out.max_trace) + 1
    n = out.nr_watch
    return tuple(
        tuple(_one_seen(out.seen[row * n + each]) for each in range(n)) for row in range(rows)
    )


_SEEN_FLAGS = (
    (lib.PYKSM_SEEN_LOCKED, "locked"),
    (lib.PYKSM_SEEN_DIRTY, "dirty"),
    (lib.PYKSM_SEEN_WRITEBACK, "writeback"),
)
_SWAP_HAS_CACHE, _COUNT = 0x40, 0x3F


def _one_seen(c: Any) -> Seen:
    page = c.page
    if not page.state:
        return Seen("")
    present = page.state == ord("P")
    in_map = c.slot_map if c.slot_map >= 0 else 0
    flags = tuple(name for bit, name in _SEEN_FLAGS if c.flags & bit)
    if present and not c.flags & lib.PYKSM_SEEN_UPTODATE:
        flags += ("not uptodate",)
    return Seen(
        chr(page.state),
        page.pte,
        page.pfn,
        page.mapcount,
        c.refs,
        bool(page.ksm),
        bool(c.flags & lib.PYKSM_SEEN_NODE),
        c.word if present else None,
        flags,
        c.slot_type,
        c.slot,
        in_map & _COUNT if c.slot_map >= 0 else -1,
        bool(in_map & _SWAP_HAS_CACHE),
    )


def to_watch(program: Program, pages: Sequence[tuple[str, str, int]] = ()) -> tuple[Watched, ...]:
    """Pages (process, region, index) of a program, those that there are; where none are named,
    what its tasks name by page first, then the first page of each region."""
    chosen: dict[tuple[int, int], Watched] = {}
    for process, name, index in pages:
        for each in program.processes:
            region = each.regions.get(name)
            if each.name == process and region is not None and index < region.npages:
                addr = region.addr + index * PAGE_BYTES
                chosen[each.pid, addr] = Watched(each.pid, f"{process} {name}[{index}]", addr)
    if not pages:
        ops = [op for step in program.steps for op in step.ops if op.process >= 0]
        wanted = [(op.process, op.addr) for op in ops if op.npages]
        wanted += [
            (each.pid, region.addr)
            for each in program.processes
            for region in each.regions.values()
        ]
        for pid, addr in wanted:
            chosen.setdefault((pid, addr), Watched(pid, _page_name(program, pid, addr), addr))
    return tuple(chosen.values())[:MAX_WATCH]


def _page_name(program: Program, process: int, addr: int) -> str:
    owner = program.processes[process]
    for region in owner.regions.values():
        if region.addr <= addr < region.addr + region.npages * PAGE_BYTES:
            return f"{owner.name} {region.name}[{(addr - region.addr) // PAGE_BYTES}]"
    return f"{owner.name} 0x{addr:x}"
