"""What a benchmark is asked to do, checked: sizes, series, sweeps."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyksm import profiles
from pyksm.engine import MAX_THREADS, POLICIES, TRANSFERS, WALKS, Config, policies_of
from pyksm.errors import InputError
from pyksm.scenario.parser import shown

PER_MM = "swapoff-per-mm"

#: What can be measured, with the kinds of population that it is measured on, the usual one first.
KINDS: dict[str, tuple[str, ...]] = {
    "swapoff": ("distinct", "forked", "ksm"),
    "scan": ("ksm", "distinct"),
    "fault": ("distinct", "ksm"),
    "fork": ("distinct", "ksm"),
    "rmap": ("ksm",),
    "walk": ("distinct",),
}

DEFAULT_PTES = 262144
_ORACLE_PTES = 4096
_SHARERS = 16
_MAX_PTES = 1 << 32
_MAX_PROCS = 1 << 16
_MAX_POINTS = 100
_MAX_REPEAT = 10_000
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)([kmg]?i?)", re.IGNORECASE)


def number(text: str, what: str, least: int = 1, most: int = _MAX_PTES) -> int:
    """``1e6``, ``1M`` (1000s), ``64Ki`` (1024s), ``65536``, ``1_048_576``; InputError if not."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None or found[2].lower() not in _UNITS or found[1].endswith("_"):
        raise InputError(f"{what} {shown(text)}: expected a number, as 1e6, 1M, 64Ki or 65536")
    value = float(found[1].replace("_", "")) * _UNITS[found[2].lower()]
    if value != int(value):
        raise InputError(f"{what} {shown(text)}: expected a whole number")
    if not least <= value <= most:
        raise InputError(f"{what} {shown(text)}: expected {least:,} to {most:,}")
    return int(value)


def sweep(text: str) -> tuple[int, ...]:
    """``ptes=1e4..1e7`` or ``ptes=1e4..1e7:13``: sizes at equal distances of their logarithms."""
    name, equals, rest = text.partition("=")
    span, colon, count = rest.partition(":")
    low, dots, high = span.partition("..")
    if name.strip() != "ptes" or not equals or not dots:
        raise InputError(f"--sweep {shown(text)}: expected ptes=FROM..TO, as ptes=1e4..1e7")
    first, last = number(low, "--sweep from"), number(high, "--sweep to")
    if first >= last:
        raise InputError(f"--sweep {shown(text)}: {first:,} is not below {last:,}, expected so")
    decades = math.log10(last / first)
    points = max(3, 1 + round(2 * decades))
    if colon:
        points = number(count, "--sweep points", 2, _MAX_POINTS)
    step = math.log(last / first) / (points - 1)
    sizes = {round(first * math.exp(step * k)) for k in range(points)}
    return tuple(sorted(sizes))


@dataclass(frozen=True)
class Way:
    """One series: a kernel, its swapoff policy, and how the core does what it does."""

    profile: str
    policy: str = "reread"
    walk: str = "literal"
    transfer: str = "copy"
    threads: int = 1

    @property
    def features(self) -> frozenset[str]:
        return profiles.effective(self.profile)

    @property
    def per_mm(self) -> bool:
        return PER_MM in self.features

    @property
    def label(self) -> str:
        """What it is called in tables and plots: what is not usual is said."""
        words = [self.profile, "per-mm" if self.per_mm else self.policy]
        if self.walk != WALKS[0]:
            words.append(self.walk)
        if self.transfer != TRANSFERS[0]:
            words.append(self.transfer)
        if self.threads > 1:
            words.append(f"{self.threads} threads")
        return " ".join(words)


def ways(
    wanted: Sequence[str],
    policies: Sequence[str] = (),
    walks: Sequence[str] = (),
    transfers: Sequence[str] = (),
    threads: Sequence[int] = (),
) -> tuple[Way, ...]:
    """Every combination that there is; InputError for a choice that fits no profile at all."""
    known = [profiles.find(each).name for each in dict.fromkeys(wanted or (profiles.DEFAULT,))]
    made = [
        Way(name, *each)
        for name in dict.fromkeys(known)
        for each in _choices(Way(name), policies, walks, transfers, threads)
    ]
    for what, asked, had in (
        ("policy", policies, {way.policy for way in made if not way.per_mm}),
        ("walk", walks, {way.walk for way in made if not way.per_mm} | {WALKS[0]}),
    ):
        for each in asked:
            if each not in had:
                raise InputError(
                    f"--{what} {each} on profile {', '.join(known)}: its swapoff goes mm by mm, "
                    f"expected no --{what}, or a profile before 5.1, as 3.9 or 4.19"
                    if all(Way(name).per_mm for name in known)
                    else f"--{what} {each}: expected what profile {', '.join(known)} has"
                )
    return tuple(made)


def _choices(
    plain: Way,
    policies: Sequence[str],
    walks: Sequence[str],
    transfers: Sequence[str],
    threads: Sequence[int],
) -> list[tuple[str, str, str, int]]:
    """What of all that is asked for a profile's kernel can have."""
    having = () if plain.per_mm else policies_of(plain.features)
    policies = [each for each in policies if each in having] or POLICIES[:1]
    walks = (() if plain.per_mm else walks) or WALKS[:1]
    every = itertools.product(policies, walks, transfers or TRANSFERS[:1], threads or (1,))
    return list(dict.fromkeys(every))


@dataclass(frozen=True)
class Shape:
    """A population: ``ptes`` in all, dealt evenly to ``procs``; each content ``sharing`` times."""

    ptes: int
    procs: int = 1
    kind: str = "distinct"
    sharing: int = 1
    page_bytes: int = 4096

    @property
    def per_proc(self) -> int:
        return self.ptes // self.procs

    @property
    def contents(self) -> int:
        return self.ptes // self.sharing

    @property
    def family(self) -> int:
        """How many neighbouring processes have the same contents."""
        return min(self.sharing, self.procs)

    @property
    def frames(self) -> int:
        """The most that are in use at a time: each pte its own before KSM and after swapoff."""
        return self.contents if self.kind == "forked" else self.ptes

    def content_of(self, process: int, page: int) -> int:
        """The number of the first content from there on; they count up, modulo ``contents``."""
        if self.sharing > self.procs:
            return page % self.contents
        return process // self.family * self.per_proc + page


def shape(ptes: int, procs: int, kind: str, sharing: int, page_bytes: int) -> Shape:
    """The largest population of at most so many ptes; InputError where there is none."""
    low, high = sorted((procs, sharing))
    if high % low:
        raise InputError(
            f"--sharing {sharing:,} with --procs {procs:,}: expected one to be a multiple of the "
            "other"
        )
    if kind == "distinct" and sharing != 1:
        raise InputError(f"--sharing {sharing:,} with --kind distinct: expected forked or ksm")
    if kind == "forked" and sharing > procs:
        raise InputError(
            f"--sharing {sharing:,} with --kind forked: expected at most --procs ({procs:,})"
        )
    if procs > ptes:
        raise InputError(f"--procs {procs:,}: more than --ptes {ptes:,}, expected at most as many")
    if sharing > ptes:
        raise InputError(f"--sharing {sharing:,}: more than --ptes {ptes:,}, expected at most that")
    return Shape(ptes // high * high, procs, kind, sharing, page_bytes)


@dataclass(frozen=True)
class Settings:
    """All of it. ``repeat`` None: as often as the size allows."""

    what: str
    shapes: tuple[Shape, ...]
    ways: tuple[Way, ...]
    backend: str = "memory"
    repeat: int | None = None
    engine: str = "core"
    limit_bytes: int | None = None

    def repetitions(self, at: Shape) -> int:
        if self.repeat is not None:
            return self.repeat
        return 5 if at.ptes <= 1 << 21 else 3 if at.ptes <= 1 << 24 else 1

    def config(self, way: Way, at: Shape, frames: int) -> Config:
        return Config(
            frames=frames,
            page_size=at.page_bytes,
            profile=way.profile,
            policy=way.policy,
            walk=way.walk,
            transfer=way.transfer,
            threads=way.threads,
        )


def settings(
    what: str,
    *,
    ptes: str | None = None,
    series: str | None = None,
    procs: int | None = None,
    kind: str | None = None,
    sharing: int | None = None,
    page_bytes: int = 4096,
    of: tuple[Way, ...] = (),
    backend: str = "memory",
    repeat: int | None = None,
    engine: str = "core",
    limit_bytes: int | None = None,
) -> Settings:
    """What the command line says, checked and with what it does not say filled in."""
    kinds = KINDS[what]
    kind = kind or kinds[0]
    if kind not in kinds:
        raise InputError(f"--kind {kind} with {what}: expected {' or '.join(kinds)}")
    if page_bytes < 8 or page_bytes > 4096 or page_bytes & (page_bytes - 1):
        raise InputError(f"--page-bytes {page_bytes}: expected a power of two, 8 to 4096")
    if backend == "file" and page_bytes != 4096:
        raise InputError(f"--page-bytes {page_bytes} with --backend file: expected 4096 there")
    if ptes is not None and series is not None:
        raise InputError("--ptes and --sweep: expected one of them, a sweep says the sizes itself")
    procs = procs or (_SHARERS if kind != "distinct" and what != "rmap" else 1)
    if series is not None:
        sizes = sweep(series)
    elif ptes is not None:
        sizes = (number(ptes, "--ptes"),)
    else:
        sizes = (_ORACLE_PTES if engine == "oracle" else DEFAULT_PTES,)
    shapes = []
    for size in sizes:
        every = size if what == "rmap" else 1 if kind == "distinct" else procs
        shapes.append(shape(size, procs, kind, sharing or every, page_bytes))
    return Settings(
        what, tuple(dict.fromkeys(shapes)), of or ways(()), backend, repeat, engine, limit_bytes
    )


__all__ = [
    "KINDS",
    "MAX_THREADS",
    "Settings",
    "Shape",
    "Way",
    "number",
    "settings",
    "shape",
    "sweep",
    "ways",
]
