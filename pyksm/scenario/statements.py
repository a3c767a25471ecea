"""Statements: one class an op, and its fields are its grammar.

Parser, writer, usage lines and strategies all read the fields' metadata, so a new op is one
class here and one handler in :mod:`pyksm.scenario.runner`.
"""

# ruff: noqa: RUF009 - the defaults are dataclass fields, made by the helpers below

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pyksm.bugs import NAMES as BUGS
from pyksm.engine import FAULT_KINDS, POLICIES, SCHEDULE_POINTS, SWITCHES
from pyksm.errors import InputError
from pyksm.features import NAMES as FEATURES
from pyksm.scenario.kinds import (
    FRAMES_LIMIT,
    PAGE_BYTES,
    SCANS_LIMIT,
    SLEEP_LIMIT,
    SLOTS_LIMIT,
    Choice,
    Content,
    Destination,
    Kind,
    KsmSetting,
    Label,
    Name,
    Number,
    PageRange,
    Pages,
    Setting,
    Value,
)
from pyksm.scenario.schedule import Piece, ScheduledPiece, TaskName

#: Locked pages of a recording agent's own: what it adds to the calls of the swapout that follows.
AGENT_PAGES = 79

ADVICE = ("mergeable", "unmergeable", "dontneed", "pageout", "willneed")
#: sealed is mseal(2).
PROTECTIONS = ("none", "r", "rw", "sealed")
PRCTLS = ("memory_merge",)
#: What clear_refs takes: 1 clears accessed bits, 4 soft-dirty bits.
REFERENCES = ("1", "4")

PROCESS = Name("a process")
REGION = Name("a region")
AREA = Name("a swap area")
COUNT = Number("a number of pages")
PAGES = PageRange()
PAGE = PageRange(single=True)
CONTENT = Content()
NODE = Number("a node", high=2**31 - 1)


def word(kind: Kind) -> Any:
    """A word in its place."""
    return field(metadata={"kind": kind, "how": "word"})


def last(kind: Kind, default: Any = None) -> Any:
    """A word that may be left out at the end."""
    return field(default=default, metadata={"kind": kind, "how": "last"})


def option(kind: Kind, default: Any = None, name: str = "") -> Any:
    """``name=WORD`` anywhere behind the words; the name is the field's unless said."""
    return field(default=default, metadata={"kind": kind, "how": "option", "name": name})


def options(kind: Kind, name: str) -> Any:
    """``name=WORD``, any number of times: a tuple."""
    return field(default=(), metadata={"kind": kind, "how": "options", "name": name})


def words(kind: Kind) -> Any:
    """One word or more up to the end: a tuple."""
    return field(metadata={"kind": kind, "how": "words"})


@dataclass(frozen=True)
class Statement:
    """One line. ``line`` is its place in the file, 0 where it was not read from one."""

    op: ClassVar[str] = ""
    line: int = field(default=0, kw_only=True, compare=False, repr=False)

    def __str__(self) -> str:
        return " ".join([self.op, *_written(self)])


def _written(statement: Statement) -> list[str]:
    text: list[str] = []
    for item in grammar(type(statement)):
        value, how = getattr(statement, item.name), item.metadata["how"]
        if how == "word":
            text.append(str(value))
        elif how == "words":
            text.extend(str(each) for each in value)
        elif how == "options":
            text.extend(f"{option_name(item)}={each}" for each in value)
        elif value != item.default:
            text.append(f"{option_name(item)}={value}" if how == "option" else str(value))
    return text


def grammar(cls: type[Statement]) -> list[dataclasses.Field[Any]]:
    """The fields of a statement class that are words of it, in order."""
    return [item for item in dataclasses.fields(cls) if "kind" in item.metadata]


def option_name(item: dataclasses.Field[Any]) -> str:
    """The NAME of a ``NAME=WORD``."""
    return str(item.metadata.get("name") or item.name)


@dataclass(frozen=True)
class Machine(Statement):
    """What the machine is like; only as the first statement."""

    op = "machine"
    nodes: int = option(Number("a number of nodes", 64, 1), 1)
    frames: int = option(Number("a number of frames", FRAMES_LIMIT, 1), 65536)
    profile: str | None = option(Name("a profile"), None)
    policy: str = option(Choice("a policy", POLICIES), "reread")
    bugs: tuple[str, ...] = options(Choice("a bug", (*SWITCHES, *BUGS)), "bug")
    agents: int = option(Number("a number of locked pages", 65536), AGENT_PAGES)
    on: tuple[str, ...] = options(Choice("a feature", FEATURES), "with")
    off: tuple[str, ...] = options(Choice("a feature", FEATURES), "without")


@dataclass(frozen=True)
class Spawn(Statement):
    """A new process."""

    op = "spawn"
    process: str = word(PROCESS)


@dataclass(frozen=True)
class Mmap(Statement):
    """A new region of a process."""

    op = "mmap"
    process: str = word(PROCESS)
    region: str = word(REGION)
    npages: int = word(COUNT)
    node: int = option(NODE, -1)


@dataclass(frozen=True)
class Write(Statement):
    """Whole pages get a pattern."""

    op = "write"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    value: Value = word(CONTENT)


@dataclass(frozen=True)
class Poke(Statement):
    """One byte of one page."""

    op = "poke"
    process: str = word(PROCESS)
    page: Pages = word(PAGE)
    offset: int = word(Number("a byte offset", PAGE_BYTES - 1))
    byte: int = word(Number("a byte", 255))


@dataclass(frozen=True)
class Read(Statement):
    """Read faults; the CRC of each page."""

    op = "read"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class Fork(Statement):
    """``child`` is a child of ``process``."""

    op = "fork"
    process: str = word(PROCESS)
    child: str = word(PROCESS)


@dataclass(frozen=True)
class Exit(Statement):
    """The process ends."""

    op = "exit"
    process: str = word(PROCESS)


@dataclass(frozen=True)
class Munmap(Statement):
    """The pages become holes."""

    op = "munmap"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class Mremap(Statement):
    """The pages move to a new region ``to``, or over those from a page of an old one on."""

    op = "mremap"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    to: str | Pages = word(Destination())


@dataclass(frozen=True)
class Madvise(Statement):
    """Advice about pages."""

    op = "madvise"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    advice: str = word(Choice("an advice", ADVICE))


@dataclass(frozen=True)
class Mprotect(Statement):
    """Protection of pages."""

    op = "mprotect"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    prot: str = word(Choice("a protection", PROTECTIONS))


@dataclass(frozen=True)
class Mlock(Statement):
    """Pages are brought in, and stay."""

    op = "mlock"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class Munlock(Statement):
    """Pages need not stay any more."""

    op = "munlock"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class Migrate(Statement):
    """Resident pages move to a node."""

    op = "migrate"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    node: int = word(NODE)


@dataclass(frozen=True)
class Pin(Statement):
    """An extra reference on pages; ``write``: for I/O to them."""

    op = "pin"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)
    how: str | None = last(Choice("nothing or", ("write",)))


@dataclass(frozen=True)
class Unpin(Statement):
    """The extra reference is dropped."""

    op = "unpin"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class Swapon(Statement):
    """A swap area of ``npages`` slots, its header included."""

    op = "swapon"
    area: str = word(AREA)
    npages: int = word(Number("a number of pages", SLOTS_LIMIT))
    priority: int = option(Number("a priority", 2**31 - 1), -1)


@dataclass(frozen=True)
class Swapoff(Statement):
    """The area goes."""

    op = "swapoff"
    area: str = word(AREA)


@dataclass(frozen=True)
class Swapout(Statement):
    """Reclaim until the pages are out; ``process`` None: everything (``swapout *``)."""

    op = "swapout"
    process: str | None = None
    pages: Pages | None = None

    def __str__(self) -> str:
        return "swapout *" if self.process is None else f"swapout {self.process} {self.pages}"


@dataclass(frozen=True)
class Ksm(Statement):
    """Writes to /sys/kernel/mm/ksm, in order."""

    op = "ksm"
    settings: tuple[Setting, ...] = words(KsmSetting())


@dataclass(frozen=True)
class Scan(Statement):
    """Full scans of ksmd."""

    op = "scan"
    count: int = word(Number("a number of scans", SCANS_LIMIT))


@dataclass(frozen=True)
class Prctl(Statement):
    """prctl(2) of a process: PR_SET_MEMORY_MERGE makes all its vmas mergeable, now and later."""

    op = "prctl"
    process: str = word(PROCESS)
    what: str = word(Choice("what", PRCTLS))
    value: int = word(Number("on or off", 1))


@dataclass(frozen=True)
class ClearRefs(Statement):
    """Write to /proc/PID/clear_refs: forget accessed bits (1) or soft-dirty bits (4)."""

    op = "clear_refs"
    process: str = word(PROCESS)
    what: str = word(Choice("what to clear", REFERENCES))


@dataclass(frozen=True)
class Sleep(Statement):
    """Time goes by; chain pruning and the advisor look at the clock."""

    op = "sleep"
    ms: int = word(Number("milliseconds", SLEEP_LIMIT))


@dataclass(frozen=True)
class Observe(Statement):
    """The observation."""

    op = "observe"
    label: str | None = last(Label())


@dataclass(frozen=True)
class Inject(Statement):
    """The N-th such event from now on fails, once."""

    op = "inject"
    kind: str = word(Choice("a kind of failure", FAULT_KINDS))
    nth: int = word(Number("a count", low=1))


@dataclass(frozen=True)
class Census(Statement):
    """A full recount; ``violations`` in the result."""

    op = "census"
    strict: str | None = last(Choice("nothing or", ("strict",)))


@dataclass(frozen=True)
class Rmap(Statement):
    """An rmap walk of each page: the ptes that it comes upon."""

    op = "rmap"
    process: str = word(PROCESS)
    pages: Pages = word(PAGES)


@dataclass(frozen=True)
class At(Statement):
    """``statement`` runs inside the next one, when that reaches ``point`` for the N-th time."""

    op = "at"
    point: str
    nth: int
    statement: Statement

    def __str__(self) -> str:
        return f"at {self.point} {self.nth} {self.statement}"


@dataclass(frozen=True)
class Task(Statement):
    """Statements that run while those of the tasks beside it do."""

    op = "task"
    name: str = word(TaskName())
    statements: tuple[Statement, ...] = ()

    def __str__(self) -> str:
        return "\n  ".join([f"task {self.name}:", *map(str, self.statements)])


@dataclass(frozen=True)
class Schedule(Statement):
    """Who of the group of tasks that follows goes when."""

    op = "schedule"
    pieces: tuple[Piece, ...] = words(ScheduledPiece())


@dataclass(frozen=True)
class Join(Statement):
    """The end of a group of tasks: all are waited for."""

    op = "join"


POINT = Choice("a schedule point", SCHEDULE_POINTS)
NTH = Number("which time", low=1)

STATEMENTS: dict[str, type[Statement]] = {
    cls.op: cls
    for cls in (
        Machine, Spawn, Mmap, Write, Poke, Read, Fork, Exit, Munmap, Mremap, Madvise, Mprotect,
        Mlock, Munlock, Migrate, Pin, Unpin, Swapon, Swapoff, Swapout, Ksm, Scan, Prctl, ClearRefs,
        Sleep, Observe, Inject, Census, Rmap, At,
    )
}  # fmt: skip

#: What tasks are written with: these have no result of their own.
BLOCKS: dict[str, type[Statement]] = {cls.op: cls for cls in (Task, Schedule, Join)}
#: What a task may do: all that a process or an administrator can.
IN_TASKS: dict[str, type[Statement]] = {
    op: cls for op, cls in STATEMENTS.items() if cls not in (Machine, Observe, Census, Rmap, At)
}
#: Tasks that may run at the same time.
MAX_TASKS = 8


@dataclass(frozen=True)
class Group:
    """Tasks that run at the same time, and in which order: as they come where nobody says."""

    tasks: tuple[Task, ...]
    schedule: Schedule | None = None

    @property
    def line(self) -> int:
        """Where its first task begins."""
        return self.tasks[0].line

    @property
    def names(self) -> tuple[str, ...]:
        """Its tasks' names, in order."""
        return tuple(task.name for task in self.tasks)

    def __str__(self) -> str:
        return f"tasks {', '.join(self.names)}"


def parts(statements: Sequence[Statement]) -> Iterator[Statement | Group]:
    """Statements one by one and tasks in their groups; InputError for what is no group."""
    at = 0
    while at < len(statements):
        schedule = statements[at]
        first = at + isinstance(schedule, Schedule)
        end = first
        while end < len(statements) and isinstance(statements[end], Task):
            end += 1
        tasks = tuple(each for each in statements[first:end] if isinstance(each, Task))
        if tasks:
            yield _checked(Group(tasks, schedule if isinstance(schedule, Schedule) else None))
            at = end
        elif first != at:
            raise InputError(f"schedule (line {schedule.line}): expected a task after it")
        else:
            if not isinstance(schedule, Join):
                yield schedule
            at += 1


def _checked(group: Group) -> Group:
    """A parser has seen to this; objects may come from elsewhere."""
    where = f"{group} (line {group.line})"
    if len(group.tasks) > MAX_TASKS:
        raise InputError(f"{where}: expected at most {MAX_TASKS} tasks in a group")
    if len(set(group.names)) != len(group.names):
        raise InputError(f"{where}: expected a name for each task")
    for each in (each for task in group.tasks for each in task.statements):
        if each.op not in IN_TASKS:
            raise InputError(f"{each} (line {each.line}): expected nothing like that in a task")
    for piece in group.schedule.pieces if group.schedule else ():
        if piece.task not in group.names:
            raise InputError(f"schedule, {piece}: expected a task of {', '.join(group.names)}")
    return group


@dataclass(frozen=True)
class Scenario:
    """What a file says: statements in order, and where they came from."""

    statements: tuple[Statement, ...]
    filename: str = "<scenario>"

    def __str__(self) -> str:
        return "".join(f"{statement}\n" for statement in self.statements)

    @property
    def machine(self) -> Machine:
        """The machine it asks for; the plain one where it does not say."""
        first = self.statements[0] if self.statements else None
        return first if isinstance(first, Machine) else Machine()

    @property
    def body(self) -> tuple[Statement, ...]:
        """The statements without the machine: those that have a result."""
        head = bool(self.statements) and isinstance(self.statements[0], Machine)
        return self.statements[1:] if head else self.statements

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of tasks."""
        return tuple(each for each in parts(self.body) if isinstance(each, Group))

    @property
    def answered(self) -> tuple[Statement | Group, ...]:
        """What has a result, in the order of the results: a group goes before its statements."""
        answered: list[Statement | Group] = []
        for each in parts(self.body):
            answered.append(each)
            if isinstance(each, Group):
                answered += [inner for task in each.tasks for inner in task.statements]
        return tuple(answered)

    def scheduled(self, schedules: Sequence[Schedule | None]) -> Scenario:
        """The same with these schedules for its groups of tasks, from the first on."""
        if not schedules:
            return self
        given = iter(schedules)
        statements: list[Statement] = []
        for part in parts(self.statements):
            if isinstance(part, Group):
                schedule = next(given, part.schedule)
                statements += [schedule, *part.tasks] if schedule else part.tasks
                statements.append(Join())
            else:
                statements.append(part)
        return dataclasses.replace(self, statements=tuple(statements))

    def on(self, **changes: Any) -> Scenario:
        """The same on another machine: fields of :class:`Machine` by name."""
        machine = dataclasses.replace(self.machine, **changes)
        return dataclasses.replace(self, statements=(machine, *self.body))
