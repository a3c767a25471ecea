"""Kinds of words in a scenario: what each may be, how it reads and how it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

#: No number of pages, frames or events in a scenario may be larger: the user address space.
NUMBER_LIMIT = 2**47
#: Frames a scenario may ask for: 64 GiB, which both engines can still hold the records of.
FRAMES_LIMIT = 2**24
#: Slots of a swap area: 64 GiB.
SLOTS_LIMIT = 2**24
#: Milliseconds that one sleep may take: some 24 days.
SLEEP_LIMIT = 2**31 - 1
#: Full scans in one statement.
SCANS_LIMIT = 2**16
PAGE_BYTES = 4096

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,200}\Z")
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]{1,32}|[0-9]{1,40})\Z")
_PAGES = re.compile(r"([A-Za-z][A-Za-z0-9_]*)(?:\[([^\[\]:]*)(?:(:)([^\[\]:]*))?\])?\Z")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([A-Za-z0-9_.+-]+)\Z")


class WordError(Exception):
    """A word is not of its kind; ``args[0]`` says what was expected, ``at`` is a column offset."""

    def __init__(self, expected: str, at: int = 0) -> None:
        super().__init__(expected)
        self.at = at


@dataclass(frozen=True)
class Pages:
    """``R``, ``R[i]`` or ``R[i:j]``: pages ``start`` to ``stop - 1``, all where they are None."""

    region: str
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        if self.start is None or self.stop is None:
            return self.region
        if self.stop == self.start + 1:
            return f"{self.region}[{self.start}]"
        return f"{self.region}[{self.start}:{self.stop}]"


@dataclass(frozen=True)
class Value:
    """``V`` (the same pattern on every page) or, with ``step``, ``V+`` (one more a page)."""

    base: int
    step: bool = False

    def __str__(self) -> str:
        return f"{self.base}{'+' if self.step else ''}"


@dataclass(frozen=True)
class Setting:
    """``KEY=VALUE`` of a ``ksm`` statement; the value a number or, as it stands, a word."""

    key: str
    value: int | str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class Kind(Protocol):
    """A kind of word. ``parse`` raises :class:`WordError`."""

    @property
    def usage(self) -> str: ...

    def parse(self, word: str) -> Any: ...


@dataclass(frozen=True)
class Name:
    """A process, region, area or label."""

    usage: str

    def parse(self, word: str) -> str:
        if not _NAME.match(word):
            raise WordError(f"{self.usage} ([A-Za-z][A-Za-z0-9_]*)")
        return word


@dataclass(frozen=True)
class Label:
    """What an observation is called: freer than a name, for it names nothing."""

    usage: str = "a label"

    def parse(self, word: str) -> str:
        if not _LABEL.match(word):
            raise WordError(f"{self.usage} ([A-Za-z0-9_.-]+)")
        return word


@dataclass(frozen=True)
class Number:
    """Decimal or 0x hex, from ``low`` to ``high``."""

    usage: str
    high: int = NUMBER_LIMIT
    low: int = 0

    def parse(self, word: str) -> int:
        return number(word, f"{self.usage} ({self.low} to {self.high})", self.low, self.high)


def number(word: str, expected: str, low: int, high: int) -> int:
    """The number that ``word`` is; raises :class:`WordError` with ``expected``."""
    if not _NUMBER.match(word):
        raise WordError(expected)
    value = int(word, 16 if word[:2] in ("0x", "0X") else 10)
    if not low <= value <= high:
        raise WordError(expected)
    return value


@dataclass(frozen=True)
class PageRange:
    """``R``, ``R[i]`` or ``R[i:j]``; with ``single``, ``R[i]`` only."""

    single: bool = False

    @property
    def usage(self) -> str:
        return "a page R[i]" if self.single else "pages R, R[i] or R[i:j]"

    def parse(self, word: str) -> Pages:
        match = _PAGES.match(word)
        if match is None:
            raise WordError(self.usage)
        region, first, colon, last = match.groups()
        if first is None or (self.single and colon):
            if self.single:
                raise WordError(self.usage)
            return Pages(region)
        start = self._index(word, match.start(2), first)
        if not colon:
            return Pages(region, start, start + 1)
        stop = self._index(word, match.start(4), last)
        if stop <= start:
            raise WordError(f"an end above the beginning {start}", match.start(4))
        return Pages(region, start, stop)

    @staticmethod
    def _index(word: str, at: int, text: str) -> int:
        try:
            return number(text, f"a page number (0 to {NUMBER_LIMIT})", 0, NUMBER_LIMIT)
        except WordError as error:
            raise WordError(error.args[0], at) from None


@dataclass(frozen=True)
class Destination:
    """``R``: a region that is new; ``R[i]``: from that page of one on."""

    usage: str = "a region R or a page R[i] of one"

    def parse(self, word: str) -> str | Pages:
        if _NAME.match(word):
            return word
        try:
            pages = PageRange(single=True).parse(word)
        except WordError as error:
            raise WordError(self.usage, error.at) from None
        return pages


@dataclass(frozen=True)
class Content:
    """``V`` or ``V+``."""

    usage: str = "a value V or V+"

    def parse(self, word: str) -> Value:
        step = word.endswith("+")
        text = word[:-1] if step else word
        return Value(number(text, f"{self.usage} (0 to 2^64-1)", 0, 2**64 - 1), step)


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    what: str
    words: Sequence[str]

    @property
    def usage(self) -> str:
        return f"{self.what} ({', '.join(self.words)})"

    def parse(self, word: str) -> str:
        if word not in self.words:
            raise WordError(self.usage)
        return word


@dataclass(frozen=True)
class KsmSetting:
    """``KEY=VALUE``."""

    usage: str = "a setting KEY=VALUE"

    def parse(self, word: str) -> Setting:
        match = _SETTING.match(word)
        if match is None:
            raise WordError(self.usage)
        key, text = match.groups()
        if not text[0].isdigit():
            return Setting(key, text)
        try:
            return Setting(key, number(text, f"a value for {key} (0 to 2^63-1)", 0, 2**63 - 1))
        except WordError as error:
            raise WordError(error.args[0], match.start(2)) from None
