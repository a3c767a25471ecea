"""Text to statements and back. A file that does not parse is refused whole."""

from __future__ import annotations

import re
from typing import Any

from pyksm import profiles
from pyksm.errors import InputError
from pyksm.scenario.kinds import Kind, WordError
from pyksm.scenario.schedule import TaskName
from pyksm.scenario.statements import (
    BLOCKS,
    IN_TASKS,
    MAX_TASKS,
    NTH,
    PAGES,
    POINT,
    PROCESS,
    STATEMENTS,
    At,
    Join,
    Machine,
    Scenario,
    Schedule,
    Statement,
    Swapout,
    Task,
    grammar,
    option_name,
)

_WORD = re.compile(r"[^ \t]+")
_COMMENT_AFTER_BLANK = re.compile(r"(?:^|[ \t])#")
_FIRST = STATEMENTS | BLOCKS
_BODY = {op: cls for op, cls in _FIRST.items() if cls is not Machine}
_SHOWN = 40  # characters of a wrong word that an error shows


def parse(text: str | bytes, filename: str = "<scenario>") -> Scenario:
    """The scenario that ``text`` is (bytes: UTF-8).

    Raises :class:`InputError`, one line ``file:line:column: found what, expected what``.
    """
    if isinstance(text, bytes):
        text = _decoded(text, filename)
    cursors = [
        _Cursor(content.removesuffix("\r"), number, filename)
        for number, content in enumerate(text.split("\n"), start=1)
    ]
    lines = _Lines([cursor for cursor in cursors if not cursor.done()])
    return Scenario(tuple(lines.statements()), filename)


def parse_schedule(text: str, tasks: tuple[str, ...], where: str) -> Schedule:
    """The schedule that ``text`` is, for a group of these tasks; ``where`` stands for a file."""
    cursor = _Cursor(text, 1, where, scheduled=True)
    if cursor.done():
        raise cursor.error("pieces of a schedule")
    statement = _plain(cursor, Schedule)
    assert isinstance(statement, Schedule)
    _check_tasks(cursor, statement, tasks, 0)
    return statement


def _decoded(text: bytes, filename: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - (text.rfind(b"\n", 0, error.start) + 1) + 1
        place = f"{shown(filename)}:{line}:{column}"
        found = f"byte 0x{text[error.start]:02x}"
        raise InputError(f"{place}: found {found}, expected UTF-8 text") from None


def shown(text: str, limit: int = 200) -> str:
    """``text`` fit for one line of an error: control characters escaped, not too long."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


class _Lines:
    """Lines with statements, read one after the other: which of them belong to which task."""

    def __init__(self, cursors: list[_Cursor]) -> None:
        self.cursors = cursors
        self.at = 0
        self.group: list[str] = []  # names of the tasks under way
        self.scheduled: _Cursor | None = None  # the schedule that waits for its tasks
        self.schedule: Schedule | None = None

    def statements(self) -> list[Statement]:
        statements: list[Statement] = []
        while self.at < len(self.cursors):
            cursor = self.cursors[self.at]
            self.at += 1
            statements.append(self._one(cursor, _BODY if statements else _FIRST))
        self._end_group(None)
        return statements

    def _one(self, cursor: _Cursor, known: dict[str, type[Statement]]) -> Statement:
        if cursor.peek() == Task.op:
            return self._task(cursor)
        self._end_group(cursor)
        statement = _statement(cursor, known)
        if isinstance(statement, Schedule):
            self.scheduled, self.schedule = cursor, statement
        return statement

    def _task(self, head: _Cursor) -> Task:
        """The lines of a block: those that are indented, or, where the first is not, all."""
        head.at += 1
        if len(self.group) == MAX_TASKS:
            raise head.error(f"at most {MAX_TASKS} tasks in a group")
        if head.peek().removesuffix(":") in self.group:
            raise head.error(f"another name: the group has a task {head.peek()[:-1]}")
        name = head.take(TaskName())
        if not head.done():
            raise head.error("the end of the line")
        self.group.append(name)
        inner = []
        indented = self._follows(head, indented=True)
        while self._follows(head, indented):
            inner.append(_statement(self.cursors[self.at], IN_TASKS))
            self.at += 1
        if not inner:
            raise self._next_error(head, f"a statement of task {name}")
        return Task(name, tuple(inner), line=head.line)

    def _follows(self, head: _Cursor, indented: bool) -> bool:
        """Whether the next line is of the task that begins with ``head``."""
        if self.at == len(self.cursors):
            return False
        cursor = self.cursors[self.at]
        if indented:
            return cursor.words[0][1] > head.words[0][1]
        return cursor.peek() not in (Task.op, Join.op)

    def _end_group(self, cursor: _Cursor | None) -> None:
        """What comes (None: the end) is no task: was a schedule given one, and knows it all?"""
        if self.scheduled is not None and self.schedule is not None:
            if not self.group:
                raise self._next_error(self.scheduled, "a task after the schedule", cursor)
            _check_tasks(self.scheduled, self.schedule, tuple(self.group), 1)
        self.scheduled = self.schedule = None
        self.group = []

    def _next_error(
        self, before: _Cursor, expected: str, cursor: _Cursor | None = None
    ) -> InputError:
        """Something else comes, or nothing: then it is the line before that is short of it."""
        if cursor is None and self.at < len(self.cursors):
            cursor = self.cursors[self.at]
        if cursor is None:
            return before.error_at(before.end, "", expected, "the end of the file")
        return cursor.error(expected)


def _check_tasks(
    cursor: _Cursor, schedule: Schedule, tasks: tuple[str, ...], first_word: int
) -> None:
    for index, piece in enumerate(schedule.pieces, start=first_word):
        if piece.task not in tasks:
            word, column = cursor.words[index]
            raise cursor.error_at(column, word, f"a task of the group ({', '.join(tasks)})")


class _Cursor:
    """The words of one line, read one after the other."""

    def __init__(self, content: str, line: int, filename: str, scheduled: bool = False) -> None:
        # A schedule's TASK@POINT#TIMES is one word: a comment does not begin inside of words there.
        scheduled = scheduled or content.lstrip(" \t").startswith(f"{Schedule.op} ")
        content = _COMMENT_AFTER_BLANK.split(content)[0] if scheduled else content.partition("#")[0]
        self.words = [(m.group(), m.start() + 1) for m in _WORD.finditer(content)]
        self.at = 0
        self.line = line
        self.filename = filename
        self.end = len(content.rstrip(" \t")) + 1

    def done(self) -> bool:
        return self.at == len(self.words)

    def peek(self) -> str:
        return "" if self.done() else self.words[self.at][0]

    def error_at(
        self, column: int, found: str, expected: str, end: str = "the end of the line"
    ) -> InputError:
        what = end if not found else f"'{shown(found, _SHOWN)}'"
        place = f"{shown(self.filename)}:{self.line}:{column}"
        return InputError(f"{place}: found {what}, expected {expected}")

    def error(self, expected: str, offset: int = 0) -> InputError:
        """For the word that comes next."""
        if self.done():
            return self.error_at(self.end, "", expected)
        found, column = self.words[self.at]
        return self.error_at(column + offset, found, expected)

    def take(self, kind: Kind, skip: int = 0) -> Any:
        """The next word as that kind, its first ``skip`` characters left out."""
        if self.done():
            raise self.error(kind.usage)
        try:
            value = kind.parse(self.peek()[skip:])
        except WordError as error:
            raise self.error(error.args[0], skip + error.at) from None
        self.at += 1
        return value


def _statement(cursor: _Cursor, known: dict[str, type[Statement]]) -> Statement:
    op = cursor.peek()
    cls = known.get(op)
    if cls is None and op == Machine.op and known is not IN_TASKS:
        raise cursor.error("machine as the first statement only")
    if cls is None and known is IN_TASKS:
        raise cursor.error(f"a statement that a task may have ({', '.join(known)})")
    if cls is None:
        raise cursor.error(f"a statement ({', '.join(known)})")
    cursor.at += 1
    if cls is At:
        statement: Statement = _at(cursor, known)
    elif cls is Swapout:
        statement = _swapout(cursor)
    else:
        statement = _plain(cursor, cls)
    if not cursor.done():
        raise cursor.error("the end of the line")
    return statement


def _at(cursor: _Cursor, known: dict[str, type[Statement]]) -> At:
    point, nth = cursor.take(POINT), cursor.take(NTH)
    inner = {op: cls for op, cls in STATEMENTS.items() if cls not in (At, Machine)}
    return At(point, nth, _statement(cursor, inner), line=cursor.line)


def _swapout(cursor: _Cursor) -> Swapout:
    if cursor.peek() == "*":
        cursor.at += 1
        return Swapout(line=cursor.line)
    if cursor.done():
        raise cursor.error("* or a process")
    return Swapout(cursor.take(PROCESS), cursor.take(PAGES), line=cursor.line)


def _plain(cursor: _Cursor, cls: type[Statement]) -> Statement:
    """Words in order, then options in any order."""
    values: dict[str, Any] = {"line": cursor.line}
    by_name = {}
    for item in grammar(cls):
        kind, how = item.metadata["kind"], item.metadata["how"]
        if how == "word" or (how == "last" and not cursor.done()):
            values[item.name] = cursor.take(kind)
        elif how == "words":
            values[item.name] = (cursor.take(kind),)
            while not cursor.done():
                values[item.name] += (cursor.take(kind),)
        elif how in ("option", "options"):
            by_name[option_name(item)] = item
    while by_name and not cursor.done():
        _option(cursor, by_name, values)
    return cls(**values)


def _option(cursor: _Cursor, by_name: dict[str, Any], values: dict[str, Any]) -> None:
    name, equals, _ = cursor.peek().partition("=")
    if not equals or name not in by_name:
        raise cursor.error(" or ".join(f"{known}=" for known in by_name))
    item = by_name[name]
    once = item.metadata["how"] == "option"
    if once and item.name in values:
        raise cursor.error(f"{name}= only once")
    kind = item.metadata["kind"]
    value = _profile(cursor) if name == "profile" else cursor.take(kind, len(name) + 1)
    values[item.name] = value if once else (*values.get(item.name, ()), value)


def _profile(cursor: _Cursor) -> str:
    """Profiles are looked up at once, so that a wrong one has a line and a column."""
    name = cursor.peek().partition("=")[2]
    try:
        profiles.find(name)
    except InputError:
        raise cursor.error(f"a profile ({', '.join(profiles.names())})", len("profile=")) from None
    cursor.at += 1
    return name
