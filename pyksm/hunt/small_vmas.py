"""Small scenarios about vmas and anon_vmas: split, merged, forked and moved, with no KSM in them.

What goes wrong with anon_vmas takes a family of processes and vmas that adjoin; what goes wrong
with rmap walks takes somebody who moves, unmaps or forks while somebody else migrates or reclaims.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyksm.hunt import generate
from pyksm.hunt.generate import Chooser, Maker, Names
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Value

#: The files whose bugs are hunted with these above all.
PLACES = ("mm/rmap.c", "mm/mmap.c", "mm/vma.c", "mm/mremap.c", "mm/migrate.c", "kernel/fork.c")
#: Percent of these that are a family's life, which is longer, and runs no tasks.
FAMILIES = 30
MAX_PROCESSES = 5


def body(choose: Chooser, names: Names) -> list[st.Statement]:
    """All statements of such a scenario but the machine."""
    made = _scene(choose, names)
    if _chance(choose, FAMILIES):
        return made + _statements(choose, names, _FAMILY, choose.integer(10, 40))
    if _chance(choose, 40):
        return made + _statements(choose, names, _ALONE, choose.integer(1, 8))
    made += _statements(choose, names, _ALONE, choose.integer(0, 3))
    for k in range(2):
        inside = _statements(choose, names, _IN_TASKS, choose.pick((1, 1, 1, 2)))
        made += [st.Task(f"t{k}", tuple(inside))] if inside else []
    return made


def _scene(choose: Chooser, names: Names) -> list[st.Statement]:
    """One process with some pages: all written, or only those at an end, in vmas of their own."""
    npages = choose.pick((1, 2, 3, 3, 3, 4))
    process = names.new_process()
    names.processes[process] = {"r0": npages}
    made: list[st.Statement] = [st.Spawn(process), st.Mmap(process, "r0", npages, -1)]
    at = choose.integer(0, npages - 1)
    apart = _chance(choose, 60) and npages > 1
    if apart:
        made.append(st.Mprotect(process, Pages("r0", at, at + 1), choose.pick(("none", "r"))))
    low = choose.integer(0, npages - 1) if apart or _chance(choose, 30) else 0
    made.append(st.Write(process, Pages("r0", low, npages), Value(1, _chance(choose, 50))))
    if _chance(choose, 40):
        made.append(st.Swapon("S1", choose.pick((3, 6, 9)), -1))
        names.areas.append("S1")
        names.made_areas += 1
    if apart and _chance(choose, 50):
        made += _failing(choose) if _chance(choose, 40) else []
        made.append(st.Mprotect(process, Pages("r0", at, at + 1), "rw"))
    return made


def _failing(choose: Chooser) -> list[st.Statement]:
    """An allocation that fails, or two in a row: some are tried again at once."""
    nth = choose.integer(1, 4)
    return [st.Inject("kmem", nth + k) for k in range(choose.pick((1, 1, 2)))]


def _statements(
    choose: Chooser, names: Names, table: Sequence[Maker], count: int
) -> list[st.Statement]:
    made: list[st.Statement] = []
    for _ in range(count):
        statement = choose.together(lambda choose: choose.pick(table)(choose, names))
        if isinstance(statement, st.Mprotect | st.Fork | st.Munmap) and _chance(choose, 10):
            made += _failing(choose)
        made += [] if statement is None else [statement]
    return made


def _chance(choose: Chooser, percent: int) -> bool:
    return choose.integer(1, 100) > 100 - percent  # the smallest choice is no


def _some(choose: Chooser, names: Names) -> tuple[str, Pages] | None:
    """A process and pages of a region of it, often but one."""
    where = names.region(choose)
    if where is None or not where[2]:
        return None
    process, region, npages = where
    start = choose.integer(0, npages - 1)
    stop = start + 1 if _chance(choose, 50) else choose.integer(start + 1, npages)
    return process, Pages(region, start, stop)


def _write(choose: Chooser, names: Names) -> st.Statement | None:
    some = _some(choose, names)
    return some and st.Write(*some, Value(choose.pick((1, 2, 3)), _chance(choose, 50)))


def _read(choose: Chooser, names: Names) -> st.Statement | None:
    some = _some(choose, names)
    return some and st.Read(*some)


def _mprotect(choose: Chooser, names: Names) -> st.Statement | None:
    some = _some(choose, names)
    return some and st.Mprotect(*some, choose.pick(("rw", "rw", "r", "none")))


def _munmap(choose: Chooser, names: Names) -> st.Statement | None:
    some = _some(choose, names)
    return some and st.Munmap(*some)


def _mremap(choose: Chooser, names: Names) -> st.Statement | None:
    """Away to a region of their own, or back to where pages were once."""
    where = names.region(choose)
    if where is None or not where[2]:
        return None
    process, region, npages = where
    others = names.processes[process]
    if region != "r0" and npages <= others["r0"]:
        at = choose.integer(0, others["r0"] - npages)
        return st.Mremap(process, Pages(region), Pages("r0", at, at + 1))
    if len(others) > 3:
        return None
    at = choose.integer(0, npages - 1)
    to = f"r{len(others)}"
    others[to] = 1
    return st.Mremap(process, Pages(region, at, at + 1), to)


def _fork(choose: Chooser, names: Names) -> st.Statement | None:
    return generate._fork(choose, names) if len(names.processes) < MAX_PROCESSES else None


def _migrate(choose: Chooser, names: Names) -> st.Statement | None:
    where = names.region(choose)
    if where is None or names.nodes == 1:
        return None
    return st.Migrate(where[0], Pages(where[1]), choose.pick((1, 1, 0)))


def _swapout(choose: Chooser, names: Names) -> st.Statement | None:
    return st.Swapout() if names.areas else None


def _table(*weighted: tuple[Maker, int]) -> tuple[Maker, ...]:
    return tuple(maker for maker, weight in weighted for _ in range(weight))


_FAMILY = _table((_fork, 8), (generate._exit, 4), (_mprotect, 4), (_write, 4), (_munmap, 1))
_ALONE = _table(
    (_fork, 6), (generate._exit, 2), (_mprotect, 6), (_write, 6), (_read, 3), (_munmap, 2),
    (_mremap, 7), (_migrate, 2), (_swapout, 4), (generate._clear_refs, 1),
)  # fmt: skip
_IN_TASKS = _table(
    (_fork, 5), (generate._exit, 3), (_mprotect, 3), (_write, 6), (_read, 4), (_munmap, 6),
    (_mremap, 9), (_migrate, 14), (_swapout, 5), (generate._swapoff, 2),
)  # fmt: skip
