"""Whom a job tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Told about phases in order. ``live``: somebody looks, so a hook is worth its cost."""

    live: bool

    def begin(self, phase: str) -> None:
        """A phase begins; the one before it is over."""
        ...

    def advance(self, done: int, total: int) -> None:
        """So much of the phase is done."""
        ...


class Nobody:
    """The watch of programs and tests."""

    live = False

    def begin(self, phase: str) -> None:
        pass

    def advance(self, done: int, total: int) -> None:
        pass
