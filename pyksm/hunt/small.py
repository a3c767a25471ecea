"""Small scenarios made at random: few pages, few processes, and tasks that meet on them.

What :mod:`pyksm.hunt.generate` makes is long, so that one program tries much; here each is short,
so that many can be tried, in many orders each. Weights favour what races are made of: two tasks on
one page, pages that KSM shares, forks, small swap areas, swapoff, run=2, migration, and failures
ordered in advance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pyksm.bugs import Bug, exists_in
from pyksm.engine import FAULT_KINDS, POLICIES, policies_of
from pyksm.features import PROFILES
from pyksm.hunt import generate, small_scenes, small_vmas
from pyksm.hunt.generate import Chooser, Names, Seeded
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Setting, Value

MAX_PROCESSES = 5

Makes = Callable[[Chooser, Names], "st.Statement | list[st.Statement] | None"]


@dataclass(frozen=True)
class Theme:
    """What a scenario is about: which statements it favours, beside all others."""

    favours: tuple[tuple[Makes, int], ...] = ()
    tasks: int = 60  #: percent of the scenarios with tasks
    length: int = 9  #: statements of one without
    nodes: int = 30  #: percent with two nodes
    merged: int = 70  #: percent with mergeable pages
    area: int = 75  #: percent with a swap area from the beginning
    scarce: int = 4  #: percent with hardly any memory
    body: Callable[[Chooser, Names], list[st.Statement]] | None = None  #: makes all of it
    about: tuple[str, ...] = ()  #: words of a bug's row that say that it may be found so


def machine(
    choose: Chooser, profile: str | None, bugs: Sequence[Bug] = (), theme: Theme | None = None
) -> st.Machine:
    """A small machine of that profile, or of any on which these bugs can be."""
    theme = theme or Theme()
    heads = [st.Machine(profile=profile)] if profile else machines_with(bugs)
    head = choose.pick(heads)
    if not bugs:
        head = _mended(head)
    nodes = 2 if _chance(choose, theme.nodes) else 1
    frames = choose.integer(3, 9) if _chance(choose, theme.scarce) else 64
    policies = policies_of(effective(head.profile or DEFAULT, head.on, head.off))
    policy = policies[-1] if _chance(choose, 8) else POLICIES[0]
    return replace(head, nodes=nodes, frames=frames, agents=0, policy=policy)


def _mended(head: st.Machine) -> st.Machine:
    """Without what 4.19 has of the museum unasked (anonvma-double-reuse, CVE-2022-42703): scenes
    of vmas find it within seconds, and nothing else after that."""
    had = effective(head.profile or DEFAULT, head.on, head.off)
    if "anon-vma-reuse" in had and "anon-vma-active-vmas" not in had:
        return replace(head, on=(*head.on, "anon-vma-active-vmas"))
    return head


def machines_with(bugs: Sequence[Bug]) -> list[st.Machine]:
    """One of each profile that has the places which the bugs break; where none does, one with
    the features for it."""
    heads = [
        st.Machine(profile=name)
        for name in PROFILES
        if all(exists_in(bug, effective(name)) for bug in bugs)
    ]
    if heads:
        return heads
    on = tuple(dict.fromkeys(need for bug in bugs for need in bug.needs))
    off = tuple(dict.fromkeys(lack for bug in bugs for lack in bug.lacks))
    return [st.Machine(profile=name, on=on, off=off) for name in (DEFAULT, "3.9")]


def seeded(seed: int, profile: str | None = None, bugs: Sequence[Bug] = ()) -> st.Scenario:
    """The small scenario of that seed: always the same."""
    choose = Seeded(random.Random(seed))
    theme = choose.pick(themes(bugs))
    return small(choose, machine(choose, profile, bugs, theme), theme, f"seed-{seed}")


def themes(bugs: Sequence[Bug] = ()) -> Sequence[Theme]:
    """What to choose from: all there is. With bugs half of it is what their rows speak of: mostly
    vmas, where these are about them."""
    if not bugs:
        return (*THEMES, *SCENES, VMAS, LOCKED)
    rows = [f"{bug.name} {bug.kind} {bug.place}" for bug in bugs]
    known = (*THEMES, *SCENES)
    about = [
        each for each in (*known, LOCKED) if any(word in row for word in each.about for row in rows)
    ]
    if any(bug.place.startswith(small_vmas.PLACES) for bug in bugs):
        about += [VMAS] * (4 + 2 * len(about))
    return (*known, *(about * len(known))[: len(known)])


def small(
    choose: Chooser, head: st.Machine, theme: Theme, filename: str = "<random>"
) -> st.Scenario:
    """A scene, some statements, and mostly tasks that run at the same time."""
    features = effective(head.profile or DEFAULT, head.on, head.off)
    names = Names(nodes=head.nodes, features=features)
    if theme.body is not None:
        return st.Scenario((head, *theme.body(choose, names)), filename)
    table = _table(*_ANY, *theme.favours)
    body = scene(choose, names, theme)
    parallel = _chance(choose, theme.tasks)
    count = choose.integer(0, 4) if parallel else choose.integer(2, theme.length)
    body += _statements(choose, names, table, count)
    if parallel:
        body += tasks(choose, names, theme)
        body += _statements(choose, names, table, choose.integer(0, 3))
    if _chance(choose, 50):
        body += reveal(choose, names)
    return st.Scenario((head, *body), filename)


def scene(choose: Chooser, names: Names, theme: Theme) -> list[st.Statement]:
    """Processes with contents in common, merged or not, in swap or not."""
    body = _knobs(choose, names)
    npages = choose.pick((1, 1, 1, 2, 2, 3, 4))
    value = Value(choose.pick((0, 7, 7, 7)), _chance(choose, 15))
    mergeable = _chance(choose, theme.merged)
    for _ in range(choose.pick((1, 1, 2, 2, 3))):
        body += _process(choose, names, npages, value, mergeable)
    if _chance(choose, 25):
        body += _statements(choose, names, (_fork,), choose.pick((1, 1, 2)))
    if _chance(choose, theme.area):
        body += _statements(choose, names, (_swapon,), choose.pick((1, 1, 1, 2)))
    if mergeable and _chance(choose, 65):
        body.append(st.Scan(choose.pick((1, 2, 3, 3))))
    if names.areas and _chance(choose, 45):
        body.append(st.Swapout())
    return body


def _process(
    choose: Chooser, names: Names, npages: int, value: Value, mergeable: bool
) -> list[st.Statement]:
    process = names.new_process()
    names.processes[process] = {"r0": npages}
    made: list[st.Statement] = [
        st.Spawn(process), st.Mmap(process, "r0", npages, _bound(choose, names)),
    ]  # fmt: skip
    if _chance(choose, 85):
        made.append(st.Write(process, Pages("r0"), value))
    if mergeable and _chance(choose, 90):
        made.append(st.Madvise(process, Pages("r0"), "mergeable"))
    return made


def tasks(choose: Chooser, names: Names, theme: Theme) -> list[st.Statement]:
    """Two tasks, now and then three, of a statement or some."""
    table = _table(*_IN_TASKS, *theme.favours)
    group: list[st.Statement] = []
    for k in range(choose.pick((2, 2, 2, 2, 3))):
        count = choose.pick((1, 1, 1, 2, 2, 3, 5))
        statements = _statements(choose, names, table, count)
        if statements:
            group.append(st.Task(f"t{k}", tuple(statements)))
    return group


def reveal(choose: Chooser, names: Names) -> list[st.Statement]:
    """What brings to light what went wrong before: everything out once more, and off."""
    made: list[st.Statement] = []
    if _chance(choose, 50):
        made.append(st.Scan(choose.pick((1, 2))))
    if _chance(choose, 30):
        made += _statements(choose, names, (generate._exit,), 1)
    names.made_areas += 1
    area = f"S{names.made_areas}"
    made += [st.Swapon(area, 64), st.Swapout()]
    if _chance(choose, 50):
        made += [st.Swapoff(each) for each in (*names.areas, area)]
    return made


def _statements(
    choose: Chooser, names: Names, table: Sequence[Makes], count: int
) -> list[st.Statement]:
    made: list[st.Statement] = []
    for _ in range(count):
        one = choose.together(lambda choose: choose.pick(table)(choose, names))
        if isinstance(one, list):
            made += one
        elif one is not None:
            made.append(one)
    return made


def _chance(choose: Chooser, percent: int) -> bool:
    return choose.integer(1, 100) > 100 - percent  # the smallest choice is no


def _bound(choose: Chooser, names: Names) -> int:
    bound = names.nodes > 1 and _chance(choose, 40)
    return choose.integer(0, names.nodes - 1) if bound else -1


def _knobs(choose: Chooser, names: Names) -> list[st.Statement]:
    """Files of ksm as a scenario would set them first; only those that there are."""
    wanted = (
        ("max_page_sharing", "max-page-sharing", 25, (2, 2, 3)),
        ("stable_node_chains_prune_millisecs", "max-page-sharing", 15, (0,)),
        ("use_zero_pages", "zero-pages", 30, (1,)),
        ("smart_scan", "smart-scan", 10, (1,)),
    )
    chains = _chance(choose, 15)  # small and soon pruned: these go together
    settings = [
        Setting(key, choose.pick(values))
        for key, feature, percent, values in wanted
        if feature in names.features
        and _chance(choose, 100 if chains and feature == "max-page-sharing" else percent)
    ]
    if names.nodes > 1 and _chance(choose, 90 if chains else 35):
        settings.append(Setting("merge_across_nodes", 0))
    return [st.Ksm(tuple(settings))] if settings else []


# ---- statements that the other generator makes larger ----


def _poke(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None:
        return None
    index = choose.integer(0, max(0, where[2] - 1))
    page = Pages(where[1], index, index + 1)
    return st.Poke(where[0], page, choose.pick((0, 7)), choose.pick((0, 1)))


def _write(choose: Chooser, names: Names) -> st.Statement | None:
    """Mostly what the others have, or had."""
    where = names.region(choose)
    if where is None:
        return None
    value = Value(choose.pick((7, 7, 7, 7, 9, 9, 1, 0)), _chance(choose, 10))
    return st.Write(where[0], generate._pages(choose, where[1], where[2]), value)


def _mmap(choose: Chooser, names: Names) -> st.Statement | None:
    roomy = [name for name, had in names.processes.items() if len(had) < 3]
    if not roomy:
        return None
    process = choose.pick(roomy)
    region = f"r{len(names.processes[process])}"
    npages = choose.integer(1, 3)
    names.processes[process][region] = npages
    return st.Mmap(process, region, npages, _bound(choose, names))


def _fork(choose: Chooser, names: Names) -> st.Statement | None:
    return generate._fork(choose, names) if len(names.processes) < MAX_PROCESSES else None


def _swapon(choose: Chooser, names: Names) -> st.Statement | None:
    if len(names.areas) >= 2:
        return None
    names.made_areas += 1
    area = f"S{names.made_areas}"
    names.areas.append(area)
    return st.Swapon(area, choose.pick((2, 3, 4, 6, 9)), choose.pick((-1, -1, 1)))


def _run(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Ksm((Setting("run", choose.pick((2, 2, 2, 2, 1, 0))),))


def _across(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Ksm((Setting("merge_across_nodes", choose.integer(0, 1)),))


def _sharing(choose: Chooser, names: Names) -> st.Statement | None:
    if "max-page-sharing" not in names.features:
        return None
    return st.Ksm((Setting("max_page_sharing", choose.pick((2, 3))),))


def _migrate(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None or names.nodes == 1:
        return None
    return st.Migrate(where[0], Pages(where[1]), choose.integer(0, names.nodes - 1))


def _inject(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Inject(choose.pick(FAULT_KINDS), choose.pick((1, 1, 2, 2, 3, 4, 6, 9)))


def _prctl(choose: Chooser, names: Names) -> st.Statement | None:
    return generate._prctl(choose, names) if "merge-any" in names.features else None


def _newcomer(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """One more process with what the others have."""
    if len(names.processes) >= MAX_PROCESSES:
        return None
    return _process(choose, names, choose.pick((1, 1, 2)), Value(7), True)


def _rewritten(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """Soft-dirty bits forgotten, and set again by a write."""
    write = _write(choose, names)
    if not isinstance(write, st.Write):
        return None
    return [st.ClearRefs(write.process, choose.pick(("1", "4", "4"))), write]


def _parted(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A vma split by its protection, and mostly whole again."""
    where = names.region(choose)
    if where is None or where[2] < 2:
        return None
    process, region, npages = where
    start = choose.integer(0, npages - 1)
    pages = Pages(region, start, choose.integer(start + 1, npages))
    made: list[st.Statement] = [st.Mprotect(process, pages, choose.pick(("none", "r")))]
    if _chance(choose, 60):
        made += _statements(choose, names, (_write, _fork, generate._mremap), 1)
        made.append(st.Mprotect(process, pages, "rw"))
    return made


def _sealed(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A seal, and what is not to break it."""
    where = names.region(choose)
    if where is None:
        return None
    process, pages = where[0], Pages(where[1])
    made: list[st.Statement] = [st.Mprotect(process, pages, "sealed")]
    if _chance(choose, 70):
        made.append(st.Madvise(process, pages, choose.pick(("unmergeable", "mergeable"))))
    if _chance(choose, 70):
        made.append(st.Munmap(process, pages))
    return made


def _locked(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """Pages are locked, and something is done to them, or to others of theirs."""
    where = names.region(choose)
    if where is None:
        return None
    rest = (
        generate._scan, generate._munlock, generate._munmap, generate._swapout, generate._mprotect,
        generate._mremap, generate._exit, _fork, _write, _migrate,
    )  # fmt: skip
    lock = st.Mlock(where[0], Pages(where[1]))
    return [lock, *_statements(choose, names, rest, choose.integer(0, 2))]


def _churn(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A page is written, goes out, is written once more: its slot may be another page's by then."""
    where = names.region(choose)
    if where is None:
        return None
    page = Pages(where[1], 0, 1)
    made: list[st.Statement] = [st.Write(where[0], page, Value(choose.pick((1, 2, 9))))]
    if _chance(choose, 50):
        made += _statements(choose, names, (generate._exit, _write), 1)
    made.append(st.Swapout(where[0], page) if _chance(choose, 60) else st.Swapout())
    if _chance(choose, 60):
        made.append(st.Write(where[0], page, Value(choose.pick((3, 9)))))
        if _chance(choose, 60):
            made.append(st.Swapout(where[0], page))
    return made


def _twin(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """Somebody has the same, is merged, and one of them goes."""
    made = _newcomer(choose, names)
    if made is None:
        return None
    made.append(st.Scan(choose.pick((2, 3))))
    return made + _statements(choose, names, (generate._exit, _write, generate._munmap), 1)


def _shared_pin(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A page that fork shares is pinned by one, who goes, and written by the other."""
    where = names.region(choose)
    if where is None or len(names.processes) >= MAX_PROCESSES:
        return None
    parent, region, _ = where
    child = names.new_process()
    names.processes[child] = dict(names.processes[parent])
    one, other = choose.pick(((child, parent), (parent, child)))
    pages = Pages(region)
    made: list[st.Statement] = [
        st.Fork(parent, child), st.Pin(one, pages, choose.pick((None, "write"))),
    ]  # fmt: skip
    if _chance(choose, 60):
        made.append(choose.pick((st.Munmap(one, pages), st.Madvise(one, pages, "dontneed"))))
    made.append(st.Write(other, pages, Value(9)))
    return made


def _back(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """Pages move away, and later back to where they were."""
    where = names.region(choose)
    if where is None or len(names.processes[where[0]]) > generate.MAX_REGIONS:
        return None
    process, region, npages = where
    index = choose.integer(0, npages - 1)
    page = Pages(region, index, index + 1)
    to = f"r{len(names.processes[process])}"
    names.processes[process][to] = 1
    between = _statements(choose, names, (_parted, _write, _fork), choose.integer(0, 2))
    return [st.Mremap(process, page, to), *between, st.Mremap(process, Pages(to), page)]


def _pinned(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A pin, for reading or writing, and what may go wrong under it."""
    where = names.region(choose)
    if where is None:
        return None
    pin = st.Pin(where[0], Pages(where[1]), choose.pick((None, "write")))
    rest = (generate._swapout, generate._read, _write, generate._munmap)
    return [pin, *_statements(choose, names, rest, choose.integer(0, 3))]


def _failed_fork(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """A fork that fails somewhere in the middle, where there are some vmas."""
    more = _mmap(choose, names)
    fork = _fork(choose, names)
    if not isinstance(fork, st.Fork):
        return None
    made: list[st.Statement] = [] if more is None else [more]
    return [*made, st.Inject(choose.pick(("kmem", "kmem", "page")), choose.integer(2, 12)), fork]


def _failing(choose: Chooser, names: Names) -> list[st.Statement] | None:
    """Failures of one kind, one or two, and what meets them."""
    kind = choose.pick(FAULT_KINDS)
    nth = choose.pick((1, 1, 2, 2, 3, 4, 6))
    made: list[st.Statement] = [st.Inject(kind, nth)]
    if _chance(choose, 35):
        made.append(st.Inject(kind, nth + 1))
    meets = (
        generate._swapoff, generate._swapout, generate._read, _fork, _run, generate._scan,
        generate._mprotect, generate._mremap, generate._madvise, _migrate,
    )  # fmt: skip
    return made + _statements(choose, names, meets, 1)


def _table(*weighted: tuple[Makes, int]) -> tuple[Makes, ...]:
    return tuple(maker for maker, weight in weighted for _ in range(weight))


_ANY = (
    (_write, 10), (generate._read, 6), (_poke, 2), (_fork, 8), (generate._exit, 5),
    (_mmap, 3), (generate._munmap, 3), (generate._mremap, 5), (generate._madvise, 8),
    (generate._mprotect, 3), (_migrate, 7), (_pinned, 2), (generate._unpin, 2), (_swapon, 4),
    (generate._swapoff, 8), (generate._swapout, 10), (_run, 5), (_across, 3), (_sharing, 2),
    (generate._scan, 10), (_inject, 2), (_failing, 4), (_prctl, 2), (generate._clear_refs, 1),
    (_rewritten, 2), (_newcomer, 4), (_parted, 2), (_sealed, 1), (_back, 1), (_churn, 2),
    (_twin, 3), (_shared_pin, 1),
)  # fmt: skip
_IN_TASKS = (
    (_write, 12), (generate._read, 12), (_poke, 2), (_fork, 8), (generate._exit, 6),
    (_mmap, 1), (generate._munmap, 4), (generate._mremap, 5), (generate._madvise, 7),
    (generate._mprotect, 2), (_migrate, 10), (generate._pin, 1), (generate._unpin, 1),
    (_swapon, 1), (generate._swapoff, 10), (generate._swapout, 12), (_run, 8), (_across, 1),
    (_sharing, 1), (generate._scan, 12), (_inject, 2), (_prctl, 1), (generate._clear_refs, 1),
    (_back, 1), (_newcomer, 1), (_churn, 6), (_failed_fork, 2),
)  # fmt: skip

#: vmas and anon_vmas: split, merged, forked and moved
VMAS = Theme(body=small_vmas.body, nodes=60, scarce=0)
#: who shares what is clear, what is done is not
SCENES = (
    Theme(
        body=small_scenes.churned,
        nodes=0,
        about=("do_swap_page", "swap_state", "page_io", "write_protect_page", "reuse_swap_page"),
    ),
    Theme(body=small_scenes.families, nodes=0, about=("need_to_copy", "unuse_pte")),
    Theme(
        body=small_scenes.trees,
        nodes=100,
        scarce=0,
        about=("stable_", "rmap_item", "merge_across", "cmp_and_merge"),
    ),
    Theme(
        body=small_scenes.alone,
        nodes=50,
        about=("scan_get_next", "zero", "cmp_and_merge", "ksm_exit", "merge_one_page"),
    ),
    Theme(
        body=small_scenes.in_hand,
        nodes=100,
        scarce=0,
        about=("unstable", "interleaving mm/ksm.c: break_ksm"),
    ),
    Theme(body=small_scenes.rewritten, nodes=0, scarce=0, about=("write_protect_page", "reuse")),
    Theme(body=small_scenes.stillborn, nodes=50, scarce=0, about=("fork", "dup_mmap")),
    Theme(body=small_scenes.moved, nodes=100, scarce=0, about=("mremap", "vma", "rmap_walk")),
    Theme(body=small_scenes.lineage, nodes=0, scarce=0, about=("anon_vma",)),
    Theme(body=small_scenes.heirs, nodes=0, scarce=0, about=("anon_vma",)),
    Theme(body=small_scenes.crowd, nodes=0, scarce=0, about=("continu",)),
)
#: what is locked; of bugs only those that are about that are looked for so
LOCKED = Theme(
    ((_locked, 30), (generate._munlock, 6), (generate._scan, 14), (_fork, 6)),
    tasks=40,
    merged=80,
    about=("mlock",),
)
THEMES = (
    Theme(),
    # KSM, its nodes, and what unmerges
    Theme(((generate._scan, 14), (_run, 6), (_newcomer, 6), (_write, 8)), merged=100),
    # nodes of memory
    Theme(
        ((_migrate, 22), (generate._scan, 16), (_newcomer, 14), (generate._munmap, 4),
         (generate._swapout, 6), (_across, 4)),
        tasks=40, nodes=100, merged=90, length=14,
    ),
    # the swap cache, small areas, what is written again in between
    Theme(
        ((generate._swapout, 18), (_write, 14), (generate._read, 18), (_rewritten, 6),
         (generate._swapoff, 8), (generate._exit, 4), (_churn, 16), (_twin, 6)),
        merged=40, area=100, about=("swapfile", "do_swap_page", "swap_state", "page_io"),
    ),
    # families of processes and of vmas
    Theme(
        ((_fork, 20), (_parted, 14), (generate._exit, 10), (_back, 8), (_write, 8),
         (generate._mremap, 6)),
        tasks=30, length=16, merged=15,
    ),
    # failures, and no memory
    Theme(
        ((_failing, 30), (_failed_fork, 16), (generate._swapoff, 8), (generate._madvise, 8),
         (_run, 6)),
        tasks=50, scarce=25, about=("fault",),
    ),
    # pins
    Theme(
        ((_pinned, 24), (_shared_pin, 20), (generate._unpin, 8), (_fork, 6)),
        tasks=25, merged=25, about=("do_wp_page", "pinned"),
    ),
    # prctl, seals
    Theme(((_prctl, 18), (_mmap, 8), (generate._scan, 10), (_sealed, 10)), merged=40),
    # who comes and goes while ksmd and run=2 walk
    Theme(
        ((generate._scan, 26), (generate._exit, 20), (_run, 14), (_fork, 10)),
        tasks=90, merged=100, area=30,
    ),
    # forks, migration and then swapoff
    Theme(((_fork, 22), (_migrate, 26), (generate._mremap, 6), (generate._munmap, 8)), nodes=100),
)  # fmt: skip
