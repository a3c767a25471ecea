"""Scenarios made at random, weighted towards what this project is about.

Sharing (few values), forks, small swap areas, swapoff, run=2, failures ordered in advance,
statements that run inside others, and of a kernel's knobs those that it has. One generator serves
the seeded fuzzer and the hypothesis strategies: both are a :class:`Chooser`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pyksm.engine import FAULT_KINDS, POLICIES, SCHEDULE_POINTS, SWITCHES, policies_of
from pyksm.features import FEATURES, PROFILES
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Setting, Value

T = TypeVar("T")

MAX_PROCESSES = 7
MAX_REGIONS = 4
MAX_PAGES = 16
BIG = 90


class Chooser(Protocol):
    """Where the choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def pick(self, things: Sequence[T]) -> T: ...

    def together(self, make: Callable[[Chooser], T]) -> T:
        """What ``make`` makes, of choices that belong together: left out together, if at all."""
        ...


@dataclass
class Seeded:
    """Choices from a seed."""

    random: random.Random

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, things: Sequence[T]) -> T:
        return self.random.choice(things)

    def together(self, make: Callable[[Chooser], T]) -> T:
        return make(self)


@dataclass
class Names:
    """What exists as far as the generator knows: enough to make most statements meaningful."""

    nodes: int = 1
    features: frozenset[str] = frozenset()
    processes: dict[str, dict[str, int]] = field(default_factory=dict)
    areas: list[str] = field(default_factory=list)
    made: int = 0
    made_areas: int = 0

    def region(self, choose: Chooser) -> tuple[str, str, int] | None:
        """A process, a region of it and that region's pages; None where there is none yet."""
        owners = [name for name, regions in self.processes.items() if regions]
        if not owners:
            return None
        process = choose.pick(owners)
        region = choose.pick(list(self.processes[process]))
        return process, region, self.processes[process][region]

    def new_process(self) -> str:
        self.made += 1
        return f"P{self.made}"


#: Percent of the machines with features switched.
SWITCHED = 15


def program(seed: int, length: int = 45, profile: str | None = None) -> st.Scenario:
    """The program of that seed: always the same, some ``length`` statements.

    Under any profile, now and then with features switched, unless ``profile`` names one.
    """
    choose = Seeded(random.Random(seed))
    low, high = length // 2, length * 2
    if profile is not None:
        return build(choose, low, high, f"seed-{seed}", machine(choose, profile))
    return build(choose, low, high, f"seed-{seed}")


def build(
    choose: Chooser,
    low: int,
    high: int,
    filename: str = "<random>",
    head: st.Machine | None = None,
) -> st.Scenario:
    """A program of ``low`` to ``high`` statements beside its opening, chosen by ``choose``.

    ``head``: the machine it runs on; one of any profile where there is none.
    """
    if head is None:
        head = switched(choose, machine(choose, choose.pick(list(PROFILES))))
    features = effective(head.profile or DEFAULT, head.on, head.off)
    names = Names(nodes=head.nodes, features=features)
    first = opening(choose, names)
    body: list[st.Statement] = []

    def more(choose: Chooser) -> list[st.Statement] | None:
        # A choice with each statement, not one of the length: so hypothesis can drop any of them.
        goes_on = len(body) < low or choose.integer(0, 24) > 0
        return step(choose, names) if goes_on else None

    while len(body) < high and (statements := choose.together(more)) is not None:
        body += statements
    body = [*first, *body]
    return st.Scenario((head, *body, st.Observe("end")), filename)


def step(choose: Chooser, names: Names) -> list[st.Statement]:
    """The next statement (two, where one arms the other), with ``names`` kept up to date."""
    statement = _any(choose, names)
    if statement is None:
        return []
    if (often := _HOOKED.get(type(statement))) and _chance(choose, often):
        inner = _any(choose, names)
        if inner is not None:
            nth = choose.integer(1, choose.pick((1, 3, 12)))
            return [st.At(_point(choose, statement), nth, inner), statement]
    return [statement]


def _any(choose: Chooser, names: Names) -> st.Statement | None:
    extra = [maker for maker, need in _EXTRA if need is None or need in names.features]
    index = choose.integer(0, len(_TABLE) + len(extra) - 1)
    maker = _TABLE[index] if index < len(_TABLE) else extra[index - len(_TABLE)]
    return maker(choose, names)


#: How often, in percent, another statement is made to run inside one of these.
_HOOKED: dict[type[st.Statement], int] = {
    st.Swapoff: 40, st.Swapout: 10, st.Ksm: 40, st.Scan: 15, st.Read: 15, st.Write: 6, st.Poke: 10,
}  # fmt: skip
_FAULT = ("do_swap_page:lock_page",)
_POINTS: dict[type[st.Statement], tuple[str, ...]] = {
    st.Swapoff: ("try_to_unuse:next_entry", "try_to_unuse:lock_page"),
    st.Swapout: ("shrink_zone:begin",),
    st.Ksm: tuple(point for point in SCHEDULE_POINTS if point.startswith(("unmerge", "remove"))),
    st.Scan: ("ksm_do_scan:next_item",),
    st.Read: _FAULT,
    st.Write: _FAULT,
    st.Poke: _FAULT,
}


def _point(choose: Chooser, statement: st.Statement) -> str:
    """Mostly one that such a statement can reach."""
    return choose.pick(SCHEDULE_POINTS if _chance(choose, 5) else _POINTS[type(statement)])


def _chance(choose: Chooser, percent: int) -> bool:
    return choose.integer(1, 100) > 100 - percent  # the smallest choice is no


def machine(choose: Chooser, profile: str) -> st.Machine:
    """A machine of that profile; the other swapoff policy only where there can be one."""
    tight = _chance(choose, 12)
    policies = policies_of(effective(profile))
    return st.Machine(
        nodes=choose.pick((1, 1, 1, 2, 2, 3)),
        frames=choose.integer(20, 120) if tight else 4096,
        profile=profile,
        policy=policies[-1] if _chance(choose, 20) else POLICIES[0],
        bugs=_bugs(choose) if _chance(choose, 12) else (),
    )


def switched(choose: Chooser, head: st.Machine) -> st.Machine:
    """The machine, now and then with a feature or two switched."""
    if not _chance(choose, SWITCHED):
        return head
    had = effective(head.profile or DEFAULT)
    picked = {choose.pick(_SWITCHABLE).name for _ in range(choose.integer(1, 2))}
    on, off = tuple(sorted(picked - had)), tuple(sorted(picked & had))
    policies = policies_of(effective(head.profile or DEFAULT, on, off))
    policy = head.policy if head.policy in policies else POLICIES[0]
    return replace(head, on=on, off=off, policy=policy)


#: A museum piece is a bug that released kernels had: those have profiles of their own.
_SWITCHABLE = tuple(each for each in FEATURES if not each.museum)


def _bugs(choose: Chooser) -> tuple[str, ...]:
    """One switch, or the two that together let a page into the wrong anon_vma."""
    pair = ("unuse_pte-no-copy", "unuse_vma-brute-force")
    return pair if _chance(choose, 40) else (choose.pick(SWITCHES),)


def opening(choose: Chooser, names: Names) -> list[st.Statement]:
    """Two or three processes with some contents in common: else little would ever merge."""
    body: list[st.Statement] = []
    npages = choose.integer(1, 8)
    for _ in range(choose.integer(1, 3)):
        process = names.new_process()
        names.processes[process] = {"r0": npages}
        body.append(st.Spawn(process))
        body.append(st.Mmap(process, "r0", npages, _bound(choose, names)))
        body.append(st.Write(process, Pages("r0"), _value(choose)))
        if _chance(choose, 80):
            body.append(st.Madvise(process, Pages("r0"), "mergeable"))
    return body


def _value(choose: Chooser) -> Value:
    return Value(choose.pick((0, 1, 1, 2, 2, 3, 7)), _chance(choose, 30))


def _bound(choose: Chooser, names: Names) -> int:
    if names.nodes > 1 and _chance(choose, 40):
        return choose.integer(0, names.nodes - 1)
    return -1


def _pages(choose: Chooser, region: str, npages: int) -> Pages:
    if _chance(choose, 45) or npages == 0:
        return Pages(region)
    start = choose.integer(0, npages - 1)
    past = 1 if _chance(choose, 2) else 0
    return Pages(region, start, choose.integer(start + 1, npages) + past)


def _write(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None:
        return None
    process, region, npages = where
    return st.Write(process, _pages(choose, region, npages), _value(choose))


def _read(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Read(where[0], _pages(choose, where[1], where[2]))


def _poke(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None:
        return None
    process, region, npages = where
    index = choose.integer(0, max(0, npages - 1))
    offset = choose.pick((0, 7, 2048, 4095))
    return st.Poke(process, Pages(region, index, index + 1), offset, choose.pick((0, 1, 255)))


def _spawn(choose: Chooser, names: Names) -> st.Statement | None:
    if len(names.processes) >= MAX_PROCESSES:
        return None
    process = names.new_process()
    names.processes[process] = {}
    return st.Spawn(process)


def _fork(choose: Chooser, names: Names) -> st.Statement | None:
    if not names.processes or len(names.processes) >= MAX_PROCESSES:
        return None
    parent = choose.pick(list(names.processes))
    child = names.new_process()
    names.processes[child] = dict(names.processes[parent])
    return st.Fork(parent, child)


def _exit(choose: Chooser, names: Names) -> st.Statement | None:
    if len(names.processes) < 2:
        return None
    process = choose.pick(list(names.processes))
    del names.processes[process]
    return st.Exit(process)


def _mmap(choose: Chooser, names: Names) -> st.Statement | None:
    roomy = [name for name, had in names.processes.items() if len(had) < MAX_REGIONS]
    if not roomy:
        return None
    process = choose.pick(roomy)
    region = f"r{len(names.processes[process])}"
    # Now and then more pages than a swap_map byte can count.
    npages = choose.integer(1, BIG if _chance(choose, 6) else MAX_PAGES)
    names.processes[process][region] = npages
    return st.Mmap(process, region, npages, _bound(choose, names))


def _munmap(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Munmap(where[0], _pages(choose, where[1], where[2]))


def _mremap(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None or len(names.processes[where[0]]) > MAX_REGIONS:
        return None
    process, region, npages = where
    pages = _pages(choose, region, npages)
    to = f"r{len(names.processes[process])}"
    whole = pages.start is None or pages.stop is None
    names.processes[process][to] = npages if whole else (pages.stop or 0) - (pages.start or 0)
    return st.Mremap(process, pages, to)


def _madvise(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None:
        return None
    often = ("mergeable",) * 5 + ("unmergeable", "unmergeable", "dontneed", "willneed", "pageout")
    return st.Madvise(where[0], _pages(choose, where[1], where[2]), choose.pick(often))


def _mprotect(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None:
        return None
    prot = choose.pick(("none", "r", "rw", "rw", "rw"))
    return st.Mprotect(where[0], _pages(choose, where[1], where[2]), prot)


def _mlock(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Mlock(where[0], _pages(choose, where[1], where[2]))


def _munlock(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Munlock(where[0], _pages(choose, where[1], where[2]))


def _migrate(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None or (names.nodes == 1 and not _chance(choose, 5)):
        return None
    return st.Migrate(where[0], _pages(choose, *where[1:]), choose.integer(0, names.nodes - 1))


def _pin(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Pin(where[0], _pages(choose, where[1], where[2]))


def _unpin(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Unpin(where[0], _pages(choose, where[1], where[2]))


def _swapon(choose: Chooser, names: Names) -> st.Statement | None:
    if len(names.areas) >= 3:
        return None
    names.made_areas += 1
    area = f"S{names.made_areas}"
    names.areas.append(area)
    npages = choose.integer(2, choose.pick((12, 40, 90)))
    return st.Swapon(area, npages, choose.pick((-1, -1, -1, 1, 5)))


def _swapoff(choose: Chooser, names: Names) -> st.Statement | None:
    if not names.areas:
        return None
    area = choose.pick(names.areas)
    if _chance(choose, 90):  # a failed swapoff leaves it on: then it is still known
        names.areas.remove(area)
    return st.Swapoff(area)


def _swapout(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None or _chance(choose, 75):
        return st.Swapout()
    return st.Swapout(where[0], _pages(choose, where[1], where[2]))


def _ksm(choose: Chooser, names: Names) -> st.Statement | None:
    key = choose.pick(("run", "run", "run", "merge_across_nodes"))
    value = choose.pick((0, 1, 2, 2, 2)) if key == "run" else choose.integer(0, 1)
    return st.Ksm((Setting(key, value),))


def _knob(key: str, *values: int | str) -> Maker:
    """A setting of one of the files that came later."""

    def make(choose: Chooser, names: Names) -> st.Statement | None:
        return st.Ksm((Setting(key, choose.pick(values)),))

    return make


def _prctl(choose: Chooser, names: Names) -> st.Statement | None:
    if not names.processes:
        return None
    process = choose.pick(list(names.processes))
    return st.Prctl(process, "memory_merge", choose.pick((1, 1, 1, 0)))


def _clear_refs(choose: Chooser, names: Names) -> st.Statement | None:
    if not names.processes:
        return None
    return st.ClearRefs(choose.pick(list(names.processes)), choose.pick(st.REFERENCES))


def _sleep(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Sleep(choose.pick((1, 1000, 2000, 2001, 30000)))


def _scan(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Scan(choose.pick((1, 1, 2, 2, 3)))


#: A write by the user himself is meant to succeed: a userfaultfd's refusal is for scenarios.
FAILURES = FAULT_KINDS[:5]


def _inject(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Inject(choose.pick(FAILURES), choose.integer(1, choose.pick((2, 12, 60))))


def _rmap(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    return where and st.Rmap(where[0], _pages(choose, where[1], where[2]))


Maker = Callable[[Chooser, Names], st.Statement | None]

_WEIGHTS: tuple[tuple[Maker, int], ...] = (
    (_write, 13), (_read, 5), (_poke, 4), (_spawn, 3), (_fork, 6), (_exit, 2), (_mmap, 6),
    (_munmap, 3), (_mremap, 4), (_madvise, 10), (_mprotect, 3), (_migrate, 5), (_pin, 2),
    (_unpin, 2), (_swapon, 7), (_swapoff, 8), (_swapout, 10), (_ksm, 4), (_scan, 10), (_inject, 3),
)  # fmt: skip
#: Beside those, each with the feature without which it would say nothing.
_EXTRA: tuple[tuple[Maker, str | None], ...] = (
    *[(_prctl, "merge-any")] * 4,
    (_clear_refs, None),
    *[(_clear_refs, "soft-dirty")] * 2,
    (_sleep, "max-page-sharing"),
    (_sleep, "advisor"),
    *[(_knob("max_page_sharing", 2, 3, 4, 2, 256), "max-page-sharing")] * 3,
    (_knob("stable_node_chains_prune_millisecs", 0, 2000, 0), "max-page-sharing"),
    *[(_knob("use_zero_pages", 0, 1, 1), "zero-pages")] * 2,
    *[(_knob("smart_scan", 0, 1, 1), "smart-scan")] * 2,
    (_knob("advisor_mode", "none", "scan-time", "scan-time"), "advisor"),
    (_rmap, None),
    *[(_mlock, None)] * 3,
    (_munlock, None),
)
_TABLE: tuple[Maker, ...] = tuple(maker for maker, weight in _WEIGHTS for _ in range(weight))
