"""Schedules of tasks as text: ``swapoff:12 unmerge@get_ksm_page:lock_page#2 swapoff``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pyksm.scenario.kinds import Name, WordError, number

#: Steps, and times a point is passed, in one piece.
STEPS_LIMIT = 2**32 - 1

_TASK = Name("a task")


@dataclass(frozen=True)
class Piece:
    """``NAME``: ``task`` runs until it ends or has to wait. ``NAME:N``: ``count`` steps.
    ``NAME@POINT#K``: until it is about to pass ``point`` for the ``count``-th time."""

    task: str
    count: int = 0
    point: str = ""

    def __str__(self) -> str:
        if self.point:
            return f"{self.task}@{self.point}" + (f"#{self.count}" if self.count != 1 else "")
        return f"{self.task}:{self.count}" if self.count else self.task


@dataclass(frozen=True)
class ScheduledPiece:
    """The kind of word that a piece is."""

    usage: str = "TASK, TASK:STEPS, TASK@POINT or TASK@POINT#TIMES"

    def parse(self, word: str) -> Piece:
        before, at, point = word.partition("@")
        if at:
            name, sharp, times = point.partition("#")
            task = self._task(before)
            _check_point(name, len(before) + 1)
            count = self._count(times, len(before) + len(name) + 2) if sharp else 1
            return Piece(task, count, name)
        task, colon, steps = word.partition(":")
        return Piece(self._task(task), self._count(steps, len(task) + 1) if colon else 0)

    def _task(self, word: str) -> str:
        try:
            return _TASK.parse(word)
        except WordError:
            raise WordError(self.usage) from None

    @staticmethod
    def _count(word: str, at: int) -> int:
        try:
            return number(word, f"a count (1 to {STEPS_LIMIT})", 1, STEPS_LIMIT)
        except WordError as error:
            raise WordError(error.args[0], at) from None


def _check_point(name: str, at: int) -> None:
    """The core knows which points there are."""
    from pyksm.tasks.points import NAMES  # loads the extension: only for those who name one

    if name in NAMES:
        return
    near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4)
    like = f" such as {' or '.join(near)}" if near else ""
    raise WordError(f"a point{like} (docs/tasks.md has all)", at)


@dataclass(frozen=True)
class TaskName:
    """``NAME:``, which ends the line that a task begins with."""

    usage: str = "a task's name and a colon (NAME:)"

    def parse(self, word: str) -> str:
        if not word.endswith(":"):
            raise WordError(self.usage)
        try:
            return _TASK.parse(word[:-1])
        except WordError:
            raise WordError(self.usage) from None
