"""How the recorder speaks to the agent: a line out, lines back, the last of them ``= ERRNO``.

``agent/protocol.c`` lists the requests.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pyksm.errors import PyksmError

#: What the agent's ``hello`` must say it speaks.
PROTOCOL = 1


class RecorderError(PyksmError):
    """A kernel that cannot be recorded on, or that stopped answering. ``str()`` is one line."""


@dataclass(frozen=True)
class Reply:
    """What the agent said to one request: an errno (0: fine) and lines of words."""

    code: int
    lines: list[list[str]] = field(default_factory=list)

    def words(self, key: str) -> list[str]:
        """The words behind ``key`` on its line; none where it was not said."""
        return next((line[1:] for line in self.lines if line[0] == key), [])

    def number(self, key: str, default: int = 0) -> int:
        """The number behind ``key``."""
        words = self.words(key)
        return int(words[0]) if words else default


class Link:
    """A line to an agent over a pair of file descriptors, which it owns.

    ``why_dead`` is asked, where the other side hangs up or says nothing in time, for what may have
    become of it.
    """

    def __init__(self, read_fd: int, write_fd: int, why_dead: Callable[[], str]) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._why_dead = why_dead
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(read_fd, selectors.EVENT_READ)

    def ask(self, request: str, seconds: float) -> Reply:
        """Send a request and wait for its answer; :class:`RecorderError` after ``seconds``."""
        try:
            _write_all(self._write_fd, request.encode() + b"\n")
        except OSError:
            raise self._gone(request) from None
        end = time.monotonic() + seconds
        lines: list[list[str]] = []
        while True:
            words = self._line(request, end, seconds).split()
            if words and words[0] == "=":
                return Reply(_code(words), lines)
            if words:
                lines.append(words)

    def ask_fine(self, request: str, seconds: float) -> Reply:
        """The same for a request that has to succeed."""
        reply = self.ask(request, seconds)
        if reply.code:
            what = " ".join(request.split()[:3])
            raise RecorderError(f"the agent's {what!r} failed: {os.strerror(reply.code)}")
        return reply

    def close(self) -> None:
        """Hang up: the agent ends."""
        self._selector.close()
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)

    def _line(self, request: str, end: float, seconds: float) -> str:
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, end - time.monotonic())):
                what = " ".join(request.split()[:3])
                raise RecorderError(
                    f"no answer to {what!r} within {seconds:g} s{_because(self._why_dead())}"
                )
            try:
                part = os.read(self._read_fd, 1 << 16)
            except OSError:
                part = b""
            if not part:
                raise self._gone(request)
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace")

    def _gone(self, request: str) -> RecorderError:
        what = " ".join(request.split()[:3])
        return RecorderError(f"the agent ended at {what!r}{_because(self._why_dead())}")


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _code(words: list[str]) -> int:
    try:
        return int(words[1])
    except (IndexError, ValueError):
        raise RecorderError(f"the agent said {' '.join(words)!r}, expected = ERRNO") from None


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
