"""Signals, for those who hold what must not be left behind: stopped processes, children, files."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: What ends a program that does nothing about it, and can be caught.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _may_handle() -> bool:
    # Only the main thread has handlers, and only it is interrupted by them.
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Handlers of Python's (Ctrl-C, say) wait until the block is over.

    Blocking the signals would not do: another thread, of a numerical library say, would take
    them for us.
    """
    late: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if _may_handle():
        for number in ENDING:
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda n, _: late.append(n))
    try:
        yield
    finally:
        _restore(before)
        for n in late[:1]:
            signal.raise_signal(n)


@contextlib.contextmanager
def tidied() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt the block as Ctrl-C does, so that it leaves nothing behind.

    Then they do to us what they would have done. Not for a block that is long in C: there Python
    does not look at signals.
    """
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    try:
        with _handled({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}, signal.SIG_DFL):
            yield
    finally:
        for number in received[:1]:
            with contextlib.suppress(OSError):
                sys.stdout.flush()  # what has been said so far; the signal ends us
            signal.raise_signal(number)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C ends the program on the spot: for a block that is long in C and holds nothing."""
    with _handled({signal.SIGINT: signal.SIG_DFL}, signal.default_int_handler):
        yield


@contextlib.contextmanager
def _handled(wanted: dict[signal.Signals, Any], instead_of: Any) -> Iterator[None]:
    """Other handlers in the block, where nobody else (nohup, an embedder) has set one."""
    before: dict[signal.Signals, Any] = {}
    if _may_handle():
        for number, handler in wanted.items():
            if signal.getsignal(number) == instead_of:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        _restore(before)


def _restore(before: dict[signal.Signals, Callable[..., Any] | int | None]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
