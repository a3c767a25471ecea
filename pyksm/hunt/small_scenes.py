"""Small scenarios in scenes that are set: who shares what, and where it is, is clear; what is done
next is left to chance.

A race or a mistake that takes a certain scene (a page that is nobody's in the swap cache, trees on
two nodes with equal contents, one process alone) is rare where everything is drawn by lot.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyksm.hunt.generate import Chooser, Names
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import Pages, Setting, Value

_PAGE = Pages("r0", 0, 1)


def _pick(choose: Chooser, made: Sequence[list[st.Statement]]) -> list[st.Statement]:
    return list(choose.pick(made))


def _process(names: Names, npages: int, node: int = -1) -> str:
    process = names.new_process()
    names.processes[process] = {"r0": npages}
    return process


def _with_page(process: str, npages: int, value: int, node: int = -1) -> list[st.Statement]:
    return [
        st.Spawn(process), st.Mmap(process, "r0", npages, node),
        st.Write(process, Pages("r0"), Value(value)),
    ]  # fmt: skip


def churned(choose: Chooser, names: Names) -> list[st.Statement]:
    """One page, perhaps a child's too, in a small area: one task is about to bring it in, the other
    one writes it, sends it out and ends who shares it, more than once."""
    owner = _process(names, 1)
    made = _with_page(owner, 1, 1)
    sharers = [owner]
    if choose.integer(0, 3):
        child = _process(names, 1)
        made.append(st.Fork(owner, child))
        sharers.append(child)
    out = bool(choose.integer(0, 3))
    made.append(st.Swapon("S1", choose.pick((2, 3, 3, 4, 9))))
    names.areas.append("S1")
    made += [st.Swapout()] if out else []
    first: st.Statement = choose.pick(
        (
            st.Read(owner, _PAGE),
            st.Read(owner, _PAGE),
            st.Write(owner, _PAGE, Value(8)),
            st.Swapout(owner, _PAGE),
            st.Madvise(owner, _PAGE, "pageout"),
            st.Swapoff("S1"),
        )
    )
    busy: list[st.Statement] = []
    for k in range(choose.integer(1, 5)):
        who = choose.pick(sharers)
        each = [st.Write(one, _PAGE, Value(2 + k + 10 * j)) for j, one in enumerate(sharers)]
        busy += _pick(
            choose,
            (
                [st.Write(who, _PAGE, Value(2 + k))],
                [st.Write(owner, _PAGE, Value(2 + k)), st.Swapout(owner, _PAGE)],
                [st.Swapout(owner, _PAGE)],
                [st.Swapout()],
                [*choose.pick((each, each[::-1])), st.Swapout()],
                [st.Exit(sharers[-1])] if len(sharers) > 1 else [st.Read(who, _PAGE)],
                [st.Madvise(who, _PAGE, "willneed")],
            ),
        )
    made += [st.Task("slow", (first,)), st.Task("quick", tuple(busy))]
    if choose.integer(0, 1):
        made += _pick(choose, ([st.Swapout()], [st.Read(owner, _PAGE)], [st.Swapoff("S1")]))
    return made


def families(choose: Chooser, names: Names) -> list[st.Statement]:
    """Two processes have merged one page, which is in swap: each of them, ksmd and swapoff may come
    for it, one after the other or at the same time."""
    one, two = _process(names, 1), _process(names, 1)
    made: list[st.Statement] = []
    for process in (one, two):
        made += [*_with_page(process, 1, 7), st.Madvise(process, Pages("r0"), "mergeable")]
    made += [st.Swapon("S1", choose.pick((2, 9, 64))), st.Scan(3), st.Swapout()]
    rest: list[st.Statement] = []
    for _ in range(choose.integer(2, 5)):
        who = choose.pick((one, two))
        rest += _pick(
            choose,
            (
                [st.Scan(1)],
                [st.Read(who, _PAGE)],
                [st.Read(who, _PAGE)],
                [st.Write(who, _PAGE, Value(9))],
                [st.Exit(who)],
                [st.Swapoff("S1")],
                [st.Inject("read", 1), st.Swapoff("S1")],
                [st.Inject("read", 1)],
                [st.Swapout()],
                [st.Ksm((Setting("run", 2),))],
            ),
        )
    if choose.integer(0, 2) or len(rest) < 2:
        return made + rest
    half = len(rest) // 2
    return [*made, st.Task("t0", tuple(rest[:half])), st.Task("t1", tuple(rest[half:]))]


def trees(choose: Chooser, names: Names) -> list[st.Statement]:
    """Equal contents on two nodes, merged apart, few sharers each: some go or move, ksmd looks."""
    settings = [Setting("merge_across_nodes", 0)]
    if "max-page-sharing" in names.features and choose.integer(0, 2):
        settings.append(Setting("max_page_sharing", 2))
        if choose.integer(0, 2):
            settings.append(Setting("stable_node_chains_prune_millisecs", 0))
    made: list[st.Statement] = [st.Ksm(tuple(settings))]
    owners = []
    for node in (0, 1, *choose.pick(((), (0,), (1,)))):
        npages = choose.pick((1, 2, 2, 4))
        owner = _process(names, npages)
        owners.append((owner, npages, node))
        made += _with_page(owner, npages, 7, node)
        made.append(st.Madvise(owner, Pages("r0"), "mergeable"))
    made.append(st.Scan(3))
    if choose.integer(0, 1):
        made += [st.Swapon("S1", choose.pick((2, 2, 3, 9))), st.Swapout()]
        names.areas.append("S1")
    for _ in range(choose.integer(2, 8)):
        owner, npages, node = choose.pick(owners)
        at = choose.integer(0, npages - 1)
        page = Pages("r0", at, at + 1)
        made += _pick(
            choose,
            (
                [st.Migrate(owner, Pages("r0"), 1 - node)],
                [st.Migrate(owner, page, 1 - node)],
                [st.Munmap(owner, page)],
                [st.Read(owner, page)],
                [st.Scan(1)],
                [st.Scan(1)],
                [st.Write(owner, page, Value(choose.pick((7, 9))))],
            ),
        )
    return [*made, st.Scan(choose.pick((1, 2)))]


def alone(choose: Chooser, names: Names) -> list[st.Statement]:
    """One or two processes of a page or two: ksmd scans while they write, leave, move or come."""
    made: list[st.Statement] = []
    zeros = "zero-pages" in names.features and bool(choose.integer(0, 1))
    if zeros:
        made.append(st.Ksm((Setting("use_zero_pages", 1),)))
    mine: list[str] = []
    for k in range(choose.pick((1, 2, 2))):
        npages = choose.pick((1, 1, 2))
        process = _process(names, npages)
        mine.append(process)
        value = 0 if zeros else choose.pick((7, 7, 5))
        written = choose.integer(0, 3)
        made += [st.Spawn(process), st.Mmap(process, "r0", npages)]
        made += [st.Write(process, Pages("r0"), Value(value))] if written else []
        made.append(st.Madvise(process, Pages("r0"), "mergeable"))
        if k == 0 and choose.integer(0, 2):
            made.append(st.Scan(choose.pick((1, 2, 3))))
    if choose.integer(0, 2):
        made.append(st.Scan(choose.pick((1, 1, 3))))
    if choose.integer(0, 1):
        made.append(st.Write(mine[-1], _PAGE, Value(choose.pick((7, 7, 0)))))
    others = [_of_a_user(choose, names, choose.pick(mine)) for _ in range(choose.pick((1, 1, 2)))]
    tasks = [st.Task("ksmd", (st.Scan(choose.pick((1, 1, 2))),)), st.Task("user", tuple(others))]
    return [*made, *tasks, *([st.Scan(2)] if choose.integer(0, 1) else [])]


def _of_a_user(choose: Chooser, names: Names, who: str) -> st.Statement:
    return choose.pick(
        (
            st.Exit(who),
            st.Write(who, _PAGE, Value(choose.pick((9, 7, 0)))),
            st.Munmap(who, _PAGE),
            st.Madvise(who, _PAGE, "dontneed"),
            st.Madvise(who, _PAGE, "unmergeable"),
            st.Fork(who, "C"),
            st.Ksm((Setting("run", 2),)),
            st.Migrate(who, _PAGE, names.nodes - 1),
        )
    )


def in_hand(choose: Chooser, names: Names) -> list[st.Statement]:
    """Pages that are merged, and some that ksmd knows and that are like no other until they are
    written. While somebody has a merged page in hand, on its way to elsewhere, ksmd comes by, or
    all is unmerged."""
    made: list[st.Statement] = []
    shared = _process(names, choose.pick((2, 2, 3)))
    others = [_process(names, 1) for _ in range(choose.pick((1, 1, 2)))]
    for k, process in enumerate((shared, *others)):
        npages = names.processes[process]["r0"]
        made += [*_with_page(process, npages, 7 - k), st.Madvise(process, Pages("r0"), "mergeable")]
    made.append(st.Scan(choose.pick((1, 2, 3, 3))))
    if choose.integer(0, 2):
        made.append(st.Swapon("S1", choose.pick((2, 9))))
        names.areas.append("S1")
        made += [st.Swapout(shared, _PAGE)] if not choose.integer(0, 4) else []
    for process in others:
        value = choose.pick((7, 7, 7, 9, None))
        made += [] if value is None else [st.Write(process, _PAGE, Value(value))]
    tasks = [st.Task("holder", (_holder(choose, names, shared),)), _comes_by(choose, shared)]
    made += choose.pick((tasks, tasks[::-1]))
    return [*made, st.Scan(choose.pick((1, 2)))] if choose.integer(0, 3) else made


def _holder(choose: Chooser, names: Names, shared: str) -> st.Statement:
    """Who has a page in hand for a while."""
    return choose.pick(
        (
            st.Migrate(shared, _PAGE, names.nodes - 1),
            st.Migrate(shared, Pages("r0"), names.nodes - 1),
            st.Swapout(shared, _PAGE),
            st.Swapout(),
            st.Read(shared, _PAGE),
            st.Swapoff(names.areas[0]) if names.areas else st.Fork(shared, "C"),
        )
    )


def _comes_by(choose: Chooser, shared: str) -> st.Task:
    """Who finds it so."""
    scan, all_apart = st.Scan(1), st.Ksm((Setting("run", 2),))
    apart = st.Madvise(shared, choose.pick((_PAGE, Pages("r0"))), "unmergeable")
    return st.Task("ksmd", (choose.pick((scan, scan, all_apart, apart)),))


def rewritten(choose: Chooser, names: Names) -> list[st.Statement]:
    """A page is written while it is on its way out, by its only process or one of two; then another
    gets the same, ksmd looks, some go, and all is sent out and read."""
    one, two = _process(names, 1), _process(names, 1)
    made: list[st.Statement] = []
    for process in choose.pick(((one, two), (two, one))):
        made += [st.Spawn(process), st.Mmap(process, "r0", 1)]
        if process == one or choose.integer(0, 1):
            made.append(st.Write(process, _PAGE, Value(7)))
        made.append(st.Madvise(process, _PAGE, "mergeable"))
    made.append(st.Swapon("S1", choose.pick((2, 2, 3, 9))))
    made += [
        st.Task("reclaim", (choose.pick((st.Swapout(one, _PAGE), st.Swapout())),)),
        st.Task("writer", (st.Write(one, _PAGE, Value(9)),)),
    ]
    if choose.integer(0, 4):
        made.append(st.Write(two, _PAGE, Value(9)))
    if choose.integer(0, 4):
        made.append(st.Scan(choose.pick((1, 2, 2, 3))))
    if choose.integer(0, 3):
        made.append(
            choose.pick((st.Exit(one), st.Munmap(one, _PAGE), st.Write(one, _PAGE, Value(8))))
        )
    return [*made, st.Swapon("S2", 64), st.Swapout(), st.Read(two, _PAGE)]


def stillborn(choose: Chooser, names: Names) -> list[st.Statement]:
    """A fork of some regions, some of them in swap, that fails in the middle, while others walk."""
    parent = names.new_process()
    names.processes[parent] = {}
    made: list[st.Statement] = [st.Spawn(parent)]
    regions = choose.integer(1, 3)
    for k in range(regions):
        node = k % names.nodes if choose.integer(0, 1) else -1
        made += [st.Mmap(parent, f"r{k}", 1, node), st.Write(parent, Pages(f"r{k}"), Value(7 + k))]
        names.processes[parent][f"r{k}"] = 1
    merged = bool(choose.integer(0, 1))
    if merged:
        made += [st.Madvise(parent, Pages(f"r{k}"), "mergeable") for k in range(regions)]
        made.append(st.Scan(1))
    made.append(st.Swapon("S1", choose.pick((9, 64))))
    names.areas.append("S1")
    made.append(choose.pick((st.Swapout(), st.Swapout(parent, Pages("r0")))))
    made.append(st.Inject(choose.pick(("kmem", "kmem", "kmem", "page")), choose.integer(2, 12)))
    walk: st.Statement = choose.pick(
        (
            st.Swapoff("S1"),
            st.Swapoff("S1"),
            st.Scan(1),
            st.Ksm((Setting("run", 2),)),
            st.Swapout(),
        )
    )
    return [*made, st.Task("fork", (st.Fork(parent, "C"),)), st.Task("walk", (walk,))]


def moved(choose: Chooser, names: Names) -> list[st.Statement]:
    """Pages of a region move away and back, written before or not, shared by fork or not, while
    somebody migrates or reclaims them."""
    owner = _process(names, 2)
    made: list[st.Statement] = [st.Spawn(owner), st.Mmap(owner, "r0", 2)]
    at = choose.integer(0, 1)
    apart = bool(choose.integer(0, 1))
    if apart:
        made.append(st.Mprotect(owner, Pages("r0", 1 - at, 2 - at), "r"))
    written = Pages("r0", at, at + 1)
    both = bool(choose.integer(0, 1)) and not apart
    made.append(st.Write(owner, Pages("r0") if both else written, Value(1, both)))
    child = None
    if choose.integer(0, 1):
        child = _process(names, 2)
        made.append(st.Fork(owner, child))
    made.append(st.Mremap(owner, written, "s"))
    names.processes[owner]["s"] = 1
    if apart:
        made.append(st.Mprotect(owner, Pages("r0", 1 - at, 2 - at), "rw"))
    back = st.Mremap(owner, Pages("s"), written)
    who = child or owner
    other: st.Statement = choose.pick(
        (st.Migrate(who, written, names.nodes - 1), st.Swapout(), st.Read(who, written))
    )
    if choose.integer(0, 1):
        made += [st.Task("back", (back,)), st.Task("walk", (other,))]
    else:
        made += [back, other]
    return [*made, st.Swapon("S9", 9), st.Swapout(), st.Read(owner, Pages("r0"))]


def lineage(choose: Chooser, names: Names) -> list[st.Statement]:
    """A family that forks generation by generation; vmas are split, written and whole again, and
    those in between go. In the end what is left is sent out."""
    npages = choose.pick((2, 2, 3))
    oldest = _process(names, npages)
    living = [oldest]
    made = _with_page(oldest, npages, 1)
    for _ in range(choose.integer(3, 6)):
        child = _process(names, npages)
        made.append(st.Fork(living[-1], child))
        living.append(child)
        start = choose.pick((0, 0, 1))
        pages = Pages("r0", start, choose.pick((start + 1, npages)))
        split: list[st.Statement] = [st.Mprotect(who, pages, "r") for who in living[-2:]]
        made += _pick(
            choose,
            (
                [], [], [], split, split, split[1:],
                [st.Mprotect(child, pages, "rw")], [st.Write(child, pages, Value(2, step=True))],
            ),
        )  # fmt: skip
        if len(living) > 2 and choose.integer(0, 1):
            made.append(st.Exit(living.pop(choose.integer(1, len(living) - 2))))
    if choose.integer(0, 1):
        made.append(st.Mprotect(living[-1], Pages("r0"), "rw"))
    if len(living) > 1 and choose.integer(0, 1):
        made.append(st.Exit(living[-2]))
    return [*made, st.Swapon("S1", 16), st.Swapout()]


def heirs(choose: Chooser, names: Names) -> list[st.Statement]:
    """A line of forks from which two of those in between go, so that what they leave idle can be
    taken by who is born later. Somewhere in the line vmas are split, and their parts come down by
    ways of their own; the last but one writes, the last is whole again."""
    npages = choose.pick((2, 2, 3))
    cut = choose.integer(1, npages - 1)
    part = choose.pick((Pages("r0", cut, npages), Pages("r0", cut, npages), Pages("r0", 0, cut)))
    line = [_process(names, npages) for _ in range(choose.pick((5, 6, 6, 7)))]
    split, goes = choose.integer(2, len(line) - 3), _departures(choose, line)
    made = _with_page(line[0], npages, 1)
    for k, child in enumerate(line[1:], 1):
        made.append(st.Fork(line[k - 1], child))
        if k == split:
            apart = choose.pick((line[k - 1 : k + 1], line[k - 1 : k + 1], [child], [line[k - 1]]))
            made += [st.Mprotect(who, part, "r") for who in apart]
        if k == len(line) - 2 and choose.integer(0, 3):
            made += _written(choose, child, part)
        made += [st.Exit(who) for who in goes.get(k, ())]
    if choose.integer(0, 3):
        made.append(st.Mprotect(line[-1], choose.pick((part, Pages("r0"))), "rw"))
    if choose.integer(0, 2):
        made.append(st.Exit(line[-2]))
    return [*made, st.Swapon("S1", 16), st.Swapout()]


def _departures(choose: Chooser, line: list[str]) -> dict[int, list[str]]:
    """Who goes when the k-th has been born: one at once and the other late, or by lot."""
    goes: dict[int, list[str]] = {}
    late = len(line) - 2
    for born, when in ((1, 2), (2, late)):
        by_lot = choose.integer(born + 1, late)
        goes.setdefault(choose.pick((when, by_lot)), []).append(line[born])
    return goes


def _written(choose: Chooser, who: str, part: Pages) -> list[st.Statement]:
    """Pages of one's own, in a vma that was perhaps read-only, and perhaps is then."""
    made: list[st.Statement] = [st.Mprotect(who, part, "rw")] if choose.integer(0, 3) else []
    made.append(st.Write(who, choose.pick((part, Pages("r0"))), Value(2, step=True)))
    return [*made, *([st.Mprotect(who, part, "r")] if choose.integer(0, 2) else [])]


def crowd(choose: Chooser, names: Names) -> list[st.Statement]:
    """Slots with as many references as a count's first digit can say, and forks that want more."""
    owner = _process(names, 2)
    made: list[st.Statement] = [
        st.Spawn(owner), st.Mmap(owner, "r0", 2), st.Write(owner, Pages("r0"), Value(1, step=True)),
        st.Swapon("S1", 64), st.Swapout(),
    ]  # fmt: skip
    children = [f"C{k}" for k in range(choose.integer(59, 63))]
    made += [st.Fork(owner, child) for child in children]
    ways = (Pages("r0", 0, 1), Pages("r0", 1, 2), None)
    for child in children[:2]:
        page = choose.pick(ways)
        made += [st.Munmap(child, page)] if page else []
    if choose.integer(0, 1):
        made.append(st.Fork(owner, "D"))
    last = choose.pick((children[0], owner))
    tasks = (st.Task("t0", (st.Fork(last, "X"),)), st.Task("t1", (st.Fork(children[1], "Y"),)))
    return [*made, *tasks]
