"""Scenarios as programs of ops: what the core's tasks carry out (``csrc/include/pyksm_tasks.h``).

Names become indices and addresses before anything runs, as if the statements ran in the order of
the text: setup, then one task after the other. So a process that a task forks has the regions that
its parent has at that place of the text, whoever is first when they run. What is wrong with a
statement by itself (a region that there never was) is its result, and it is not run.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyksm.engine import FAULT_KINDS, ksm_value
from pyksm.errors import InputError, MachineError
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages
from pyksm.scenario.runner import ADVICE, PROT
from pyksm.scenario.world import Process, Region, Span, World

#: Pages that one read of a task may have: what it reads is kept until the tasks have ended.
READ_LIMIT = 65536

#: What stays in the status of a page that a call did not come to.
UNTOUCHED = 1


@dataclass(frozen=True)
class Op:
    """``struct pyksm_op``: ``kind`` is the name of its enum without PYKSM_OP\\_."""

    kind: str
    process: int = -1
    child: int = -1
    area: int = -1
    arg: int = 0
    addr: int = 0
    npages: int = 0
    to: int = 0
    value: int = 0
    key: str = ""


@dataclass(frozen=True)
class Step:
    """A statement and its ops. None where it has an ``error`` of its own (an errno), or where
    it only looks: ``observe``, ``census``, ``rmap``."""

    statement: st.Statement
    ops: tuple[Op, ...] = ()
    error: int = 0
    made: Region | None = None  #: the region that it makes


@dataclass(frozen=True)
class Program:
    """What a scenario with one group of tasks comes to. ``processes`` and ``areas``: the names of
    what ops have indices of; a name that is used again has another index."""

    names: tuple[str, ...]
    setup: tuple[Step, ...]
    tasks: tuple[tuple[Step, ...], ...]
    after: tuple[Step, ...]
    schedule: st.Schedule | None
    processes: tuple[Process, ...]
    areas: tuple[str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Those of the tasks, in the order of the text."""
        return tuple(step for task in self.tasks for step in task)


def compiled(scenario: st.Scenario, group: int = 0) -> Program:
    """The scenario's ``group``-th group of tasks as one; other groups run as statements in order.

    Raises InputError where it has no such group, and for ``at``, which needs a hook.
    """
    resolver = Resolver()
    setup: list[st.Statement] = []
    after: list[st.Statement] = []
    found: st.Group | None = None
    seen = 0
    for part in st.parts(scenario.body):
        if isinstance(part, st.Group) and seen == group and found is None:
            found = part
            continue
        seen += isinstance(part, st.Group)
        where = setup if found is None else after
        if isinstance(part, st.Group):
            where += [each for task in part.tasks for each in task.statements]
        else:
            where.append(part)
    if found is None:
        raise InputError("the scenario has no tasks, expected a block `task NAME:`")
    return resolver.program(found, setup, after)


class Resolver:
    """Names to indices and addresses, in the order in which it is given statements."""

    def __init__(self, world: World | None = None) -> None:
        """``world``: what there is already."""
        self.processes: list[Process] = []
        self.areas: list[str] = []
        self.pids: list[int] = []  # of each process, and of each area, at the beginning
        self.types: list[int] = []
        self._world = World()
        self._exited: set[str] = set()
        for process in world.processes.values() if world else ():
            self._add(Process(process.name, 0, dict(process.regions), process.made), process.pid)
        for name, area in world.areas.items() if world else ():
            self._world.areas[name] = self._add_area(name, area)

    def program(
        self,
        group: st.Group,
        setup: Iterable[st.Statement] = (),
        after: Iterable[st.Statement] = (),
    ) -> Program:
        """A group of tasks with what comes before and after."""
        first = self.steps(setup)
        tasks = tuple(self.steps(task.statements) for task in group.tasks)
        last = self.steps(after)
        processes, areas = tuple(self.processes), tuple(self.areas)
        return Program(group.names, first, tasks, last, group.schedule, processes, areas)

    def steps(self, statements: Iterable[st.Statement]) -> tuple[Step, ...]:
        """Statement by statement."""
        return tuple(self.step(each) for each in statements)

    def step(self, statement: st.Statement) -> Step:
        """One statement's ops, or its error."""
        if isinstance(statement, (st.Observe, st.Census, st.Rmap)):
            return Step(statement)
        if isinstance(statement, st.At):
            raise InputError(f"{statement} (line {statement.line}): expected no `at` beside tasks")
        try:
            made = _MAKERS[type(statement)](self, statement)
        except MachineError as error:
            return Step(statement, error=error.errno or errno.EIO)
        if isinstance(made, Op):
            made = (made,)
        return Step(statement, tuple(made), made=self._region_of(statement))

    # what the makers below ask for

    def process(self, name: str) -> Process:
        """Also one that has exited: another task may be quicker than that."""
        return self._world.process(name)

    def span(self, name: str, pages: Pages) -> Span:
        try:
            return self._world.span(name, pages)
        except MachineError:
            if name in self._exited:
                raise MachineError(errno.ESRCH, f"process {name}") from None
            raise

    def new_process(self, name: str) -> int:
        if name not in self._exited:
            self._world.new_process(name)
        return self._add(Process(name, 0), 0)

    def fork(self, parent: Process, name: str) -> int:
        if name not in self._exited:
            self._world.new_process(name)
        return self._add(Process(name, 0, dict(parent.regions), parent.made), 0)

    def exit(self, process: Process) -> None:
        self._exited.add(process.name)

    def new_region(self, process: Process, name: str, npages: int) -> int:
        self._world.new_region(process, name)
        addr = process.next_addr(npages)
        process.add(name, addr, npages)
        return addr

    def destination(self, source: Span, to: str | Pages) -> int:
        addr = self._world.destination(source, to)
        if isinstance(to, str):
            source.process.add(to, addr, source.npages)
        return addr

    def swapon(self, name: str) -> int:
        if name in self._world.areas:
            raise MachineError(errno.EEXIST, f"area {name}")
        self._world.areas[name] = self._add_area(name, -1)
        return self._world.areas[name]

    def swapoff(self, name: str) -> int:
        """The area is off from here on for those who want one of its name; to take it off again
        is up to the core, which knows whether it is."""
        known = [index for index, each in enumerate(self.areas) if each == name]
        if not known:
            raise MachineError(errno.EINVAL, f"area {name}")
        self._world.areas.pop(name, None)
        return known[-1]

    def _add(self, process: Process, pid: int) -> int:
        process.pid = len(self.processes)
        self.processes.append(process)
        self.pids.append(pid)
        self._exited.discard(process.name)
        self._world.processes[process.name] = process
        return process.pid

    def _add_area(self, name: str, area: int) -> int:
        self.areas.append(name)
        self.types.append(area)
        return len(self.areas) - 1

    def _region_of(self, statement: st.Statement) -> Region | None:
        if isinstance(statement, st.Mmap):
            return self.process(statement.process).regions[statement.region]
        if isinstance(statement, st.Mremap) and isinstance(statement.to, str):
            return self.process(statement.process).regions[statement.to]
        return None


_Maker = Callable[[Resolver, Any], "Op | Sequence[Op]"]


def _spawn(to: Resolver, statement: st.Spawn) -> Op:
    return Op("SPAWN", to.new_process(statement.process))


def _mmap(to: Resolver, statement: st.Mmap) -> Op:
    process = to.process(statement.process)
    addr = to.new_region(process, statement.region, statement.npages)
    return Op("MMAP", process.pid, arg=statement.node, addr=addr, npages=statement.npages)


def _write(to: Resolver, statement: st.Write) -> Op:
    span = to.span(statement.process, statement.pages)
    value = statement.value
    return Op("WRITE", arg=int(value.step), value=value.base, **_range(span))


def _poke(to: Resolver, statement: st.Poke) -> Op:
    span = to.span(statement.process, statement.page)
    return Op("POKE", to=statement.offset, value=statement.byte, **_range(span))


def _read(to: Resolver, statement: st.Read) -> Op:
    span = to.span(statement.process, statement.pages)
    if span.npages > READ_LIMIT:
        raise InputError(
            f"{statement} (line {statement.line}): {span.npages} pages beside tasks, expected at "
            f"most {READ_LIMIT}"
        )
    return Op("READ", **_range(span))


def _fork(to: Resolver, statement: st.Fork) -> Op:
    parent = to.process(statement.process)
    return Op("FORK", parent.pid, to.fork(parent, statement.child))


def _exit(to: Resolver, statement: st.Exit) -> Op:
    process = to.process(statement.process)
    to.exit(process)
    return Op("EXIT", process.pid)


def _munmap(to: Resolver, statement: st.Munmap) -> Op:
    return Op("MUNMAP", **_range(to.span(statement.process, statement.pages)))


def _mremap(to: Resolver, statement: st.Mremap) -> Op:
    span = to.span(statement.process, statement.pages)
    return Op("MREMAP", to=to.destination(span, statement.to), **_range(span))


def _madvise(to: Resolver, statement: st.Madvise) -> Op:
    span = to.span(statement.process, statement.pages)
    return Op("MADVISE", arg=ADVICE[statement.advice], **_range(span))


def _mprotect(to: Resolver, statement: st.Mprotect) -> Op:
    span = to.span(statement.process, statement.pages)
    return Op("MPROTECT", arg=PROT[statement.prot], **_range(span))


def _mlock(to: Resolver, statement: st.Mlock) -> Op:
    return Op("MLOCK", **_range(to.span(statement.process, statement.pages)))


def _munlock(to: Resolver, statement: st.Munlock) -> Op:
    return Op("MUNLOCK", **_range(to.span(statement.process, statement.pages)))


def _migrate(to: Resolver, statement: st.Migrate) -> Op:
    span = to.span(statement.process, statement.pages)
    return Op("MIGRATE", arg=statement.node, **_range(span))


def _pin(to: Resolver, statement: st.Pin) -> Op:
    return Op(
        "PIN",
        arg=int(statement.how is not None),
        **_range(to.span(statement.process, statement.pages)),
    )


def _unpin(to: Resolver, statement: st.Unpin) -> Op:
    return Op("UNPIN", **_range(to.span(statement.process, statement.pages)))


def _swapon(to: Resolver, statement: st.Swapon) -> Op:
    area = to.swapon(statement.area)
    return Op("SWAPON", area=area, arg=statement.priority, npages=statement.npages)


def _swapoff(to: Resolver, statement: st.Swapoff) -> Op:
    return Op("SWAPOFF", area=to.swapoff(statement.area))


def _swapout(to: Resolver, statement: st.Swapout) -> Op:
    if statement.process is None or statement.pages is None:
        return Op("SWAPOUT")
    return Op("SWAPOUT", **_range(to.span(statement.process, statement.pages)))


def _ksm(to: Resolver, statement: st.Ksm) -> list[Op]:
    """A write each. No file takes -1: a word that a file does not know is EINVAL like that."""
    del to
    values = [(each.key, ksm_value(each.key, each.value)) for each in statement.settings]
    return [Op("KSM", key=key, value=-1 if value is None else value) for key, value in values]


def _scan(to: Resolver, statement: st.Scan) -> Op:
    del to
    return Op("SCAN", value=statement.count)


def _prctl(to: Resolver, statement: st.Prctl) -> Op:
    return Op("PRCTL", to.process(statement.process).pid, arg=statement.value)


def _clear_refs(to: Resolver, statement: st.ClearRefs) -> Op:
    return Op("CLEAR_REFS", to.process(statement.process).pid, arg=int(statement.what))


def _sleep(to: Resolver, statement: st.Sleep) -> Op:
    del to
    return Op("SLEEP", value=statement.ms)


def _inject(to: Resolver, statement: st.Inject) -> Op:
    del to
    return Op("INJECT", arg=FAULT_KINDS.index(statement.kind), value=statement.nth)


def _range(span: Span) -> dict[str, Any]:
    return {"process": span.pid, "addr": span.addr, "npages": span.npages}


_MAKERS: dict[type[st.Statement], _Maker] = {
    st.Spawn: _spawn, st.Mmap: _mmap, st.Write: _write, st.Poke: _poke, st.Read: _read,
    st.Fork: _fork, st.Exit: _exit, st.Munmap: _munmap, st.Mremap: _mremap,
    st.Madvise: _madvise, st.Mprotect: _mprotect, st.Mlock: _mlock, st.Munlock: _munlock,
    st.Migrate: _migrate, st.Pin: _pin, st.Unpin: _unpin, st.Swapon: _swapon,
    st.Swapoff: _swapoff, st.Swapout: _swapout, st.Ksm: _ksm, st.Scan: _scan, st.Prctl: _prctl,
    st.ClearRefs: _clear_refs, st.Sleep: _sleep, st.Inject: _inject,
}  # fmt: skip


@dataclass
class Done:
    """What an op came to: 0 or an errno, and what its call said. ``ended`` False: it did not."""

    code: int = 0
    ret: int = 0
    status: Sequence[int] = ()
    data: bytes = b""
    ended: bool = True
    begin: int = 0
    end: int = 0
