"""Small scenarios made at random: few pages, few processes, and tasks that meet on them.

What :mod:`pyksm.hunt.generate` makes is long, so that one program tries much; here each is short,
so that many can be tried, in many orders each. Weights favour what races are made of: two tasks on
one page, pages that KSM shares, forks, small swap areas, swapoff, run=2, migration, and failures
ordered in advance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pyksm.bugs import Bug, exists_in
from pyksm.engine import FAULT_KINDS, POLICIES, policies_of
from pyksm.features import PROFILES
from pyksm.hunt import generate
from pyksm.hunt.generate import Chooser, Maker, Names, Seeded
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Setting, Value

#: Percent of the scenarios with tasks.
TASKS = 60
MAX_PROCESSES = 4


def machine(choose: Chooser, profile: str | None, bugs: Sequence[Bug] = ()) -> st.Machine:
    """A small machine of that profile, or of any on which these bugs can be."""
    heads = [st.Machine(profile=profile)] if profile else machines_with(bugs)
    head = choose.pick(heads)
    nodes = choose.pick((1, 1, 2))
    frames = choose.integer(8, 20) if _chance(choose, 6) else 64
    policies = policies_of(effective(head.profile or DEFAULT, head.on, head.off))
    policy = policies[-1] if _chance(choose, 10) else POLICIES[0]
    return replace(head, nodes=nodes, frames=frames, agents=0, policy=policy)


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
    return small(choose, machine(choose, profile, bugs), f"seed-{seed}")


def small(choose: Chooser, head: st.Machine, filename: str = "<random>") -> st.Scenario:
    """A scene, some statements, and mostly tasks that run at the same time."""
    features = effective(head.profile or DEFAULT, head.on, head.off)
    names = Names(nodes=head.nodes, features=features)
    body = scene(choose, names)
    parallel = _chance(choose, TASKS)
    body += _statements(choose, names, _SEQUENTIAL, choose.integer(0, 3 if parallel else 10))
    if parallel:
        body += tasks(choose, names)
        body += _statements(choose, names, _SEQUENTIAL, choose.integer(0, 3))
    return st.Scenario((head, *body), filename)


def scene(choose: Chooser, names: Names) -> list[st.Statement]:
    """Processes with contents in common, merged or not, in swap or not."""
    body = _knobs(choose, names)
    npages = choose.pick((1, 1, 1, 2, 2, 3, 5))
    value = Value(choose.pick((0, 1, 2, 2)), _chance(choose, 15))
    mergeable = _chance(choose, 75)
    for _ in range(choose.pick((1, 2, 2, 3))):
        process = names.new_process()
        names.processes[process] = {"r0": npages}
        body += [st.Spawn(process), st.Mmap(process, "r0", npages, _bound(choose, names))]
        if _chance(choose, 90):
            body.append(st.Write(process, Pages("r0"), value))
        if mergeable and _chance(choose, 90):
            body.append(st.Madvise(process, Pages("r0"), "mergeable"))
    if _chance(choose, 25):
        body += _statements(choose, names, (generate._fork,), 1)
    if _chance(choose, 75):
        body += _statements(choose, names, (_swapon,), choose.pick((1, 1, 1, 2)))
    if mergeable and _chance(choose, 65):
        body.append(st.Scan(choose.pick((1, 2, 3, 3))))
    if names.areas and _chance(choose, 50):
        body.append(st.Swapout())
    return body


def tasks(choose: Chooser, names: Names) -> list[st.Statement]:
    """Two tasks, now and then three, of a statement or some; one of them may meet a failure."""
    group: list[st.Statement] = []
    for k in range(choose.pick((2, 2, 2, 3))):
        count = choose.pick((1, 1, 1, 2, 3))
        statements = _statements(choose, names, _IN_TASKS, count)
        if statements:
            group.append(st.Task(f"t{k}", tuple(statements)))
    return group


def _statements(
    choose: Chooser, names: Names, table: Sequence[Maker], count: int
) -> list[st.Statement]:
    made = [choose.together(lambda choose: choose.pick(table)(choose, names)) for _ in range(count)]
    return [each for each in made if each is not None]


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
    settings = [
        Setting(key, choose.pick(values))
        for key, feature, percent, values in wanted
        if feature in names.features and _chance(choose, percent)
    ]
    if names.nodes > 1 and _chance(choose, 35):
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


def _table(*weighted: tuple[Maker, int]) -> tuple[Maker, ...]:
    return tuple(maker for maker, weight in weighted for _ in range(weight))


_SEQUENTIAL = _table(
    (generate._write, 10), (generate._read, 6), (_poke, 2), (_fork, 8), (generate._exit, 5),
    (_mmap, 3), (generate._munmap, 3), (generate._mremap, 5), (generate._madvise, 8),
    (generate._mprotect, 3), (_migrate, 7), (generate._pin, 2), (generate._unpin, 2), (_swapon, 4),
    (generate._swapoff, 8), (generate._swapout, 10), (_run, 5), (_across, 3), (_sharing, 2),
    (generate._scan, 10), (_inject, 6), (_prctl, 2), (generate._clear_refs, 2),
)  # fmt: skip
_IN_TASKS = _table(
    (generate._write, 12), (generate._read, 12), (_poke, 2), (_fork, 8), (generate._exit, 5),
    (_mmap, 1), (generate._munmap, 4), (generate._mremap, 5), (generate._madvise, 7),
    (generate._mprotect, 2), (_migrate, 9), (generate._pin, 1), (generate._unpin, 1), (_swapon, 1),
    (generate._swapoff, 12), (generate._swapout, 10), (_run, 8), (_across, 2), (_sharing, 1),
    (generate._scan, 12), (_inject, 3), (_prctl, 1), (generate._clear_refs, 1),
)  # fmt: skip
