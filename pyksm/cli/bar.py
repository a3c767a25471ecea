"""The bar on standard error that shows how far a job is."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Bar:
    """A :class:`~pyksm.jobs.watch.Watch` that draws on standard error, if that is a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.live = sys.stderr.isatty() and not quiet
        self._progress: Progress | None = None
        self._next = 0.0

    def __enter__(self) -> Bar:
        if self.live:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def begin(self, phase: str) -> None:
        if self._progress:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            self._progress.add_task(phase, total=None)
            self._next = 0.0

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._progress and now >= self._next:
            self._next = now + 0.1
            for task in self._progress.task_ids:
                self._progress.update(task, completed=done, total=total)
