"""How to build real processes in a machine so that their shared frames are really shared.

Two processes share an anonymous frame only because one of their common ancestors wrote it and
forked. So each group of processes that share frames (a family) is rebuilt as a fork tree: an
ancestor maps, writes what its descendants share, forks, and only then does each process write
what is its own. Parents are those that /proc names; where a family's parent is not among the
processes, an ancestor without memory of its own stands in for it and exits at the end.

A plan is data: :func:`make_plan` looks at nothing but its argument, :mod:`pyksm.jobs.load`
carries it out on any engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pyksm.errors import InputError
from pyksm.targets.memory import PAGE_SHIFT, UNSHARED, Memory, ProcessMemory

Range = tuple[int, int]  #: page numbers, end exclusive

MAX_GENERATIONS = 4096
MAX_CHAINS = 1 << 25


@dataclass(frozen=True)
class Spawn:
    node: int


@dataclass(frozen=True)
class Fork:
    node: int
    child: int


@dataclass(frozen=True)
class Exit:
    node: int


@dataclass(frozen=True)
class Map:
    node: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Unmap:
    node: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Write:
    """Write pages (ascending) with contents of the store."""

    node: int
    vpn: Sequence[int]
    content: Sequence[int]


@dataclass(frozen=True)
class Drop:
    """Inherited pages that the process does not have (any more): MADV_DONTNEED."""

    node: int
    vpn: Sequence[int]


@dataclass(frozen=True)
class ReadZero:
    """Read faults, which map the zero page."""

    node: int
    vpn: Sequence[int]


Step = Spawn | Fork | Exit | Map | Unmap | Write | Drop | ReadZero


@dataclass
class Plan:
    """Steps in order. Nodes 0 .. n-1 are the processes of the memory; others are stand-ins."""

    steps: list[Step] = field(default_factory=list)
    writes: int = 0  #: pages written, an upper bound of the frames in use while loading
    shared_frames: int = 0  #: frames that two or more processes map
    shared_ptes: int = 0  #: ptes that map them
    lost_ptes: int = 0  #: of those, ptes that no fork tree could give their frame


@dataclass
class _Node:
    """One process of a family's tree, while it is being planned."""

    number: int
    children: list[int] = field(default_factory=list)
    own: list[Range] = field(default_factory=list)  #: what it maps in the end
    need: dict[int, int] = field(default_factory=dict)  #: page: frame it must be born with
    carry: list[Range] = field(default_factory=list)  #: what must be mapped at birth for that
    mapped: list[Range] = field(default_factory=list)


def make_plan(memory: Memory) -> Plan:
    """The steps that rebuild all processes of ``memory`` with their sharing."""
    plan = Plan()
    groups = _groups(memory.processes)
    plan.shared_frames = len(groups)
    plan.shared_ptes = sum(len(owners) for _, owners in groups.values())
    stand_in = len(memory.processes)
    for family in _families(len(memory.processes), groups):
        planner = _Family(memory, family, groups, stand_in)
        planner.plan(plan)
        stand_in += 1
    plan.writes = sum(len(s.vpn) for s in plan.steps if isinstance(s, Write))
    return plan


def _groups(processes: Sequence[ProcessMemory]) -> dict[int, tuple[int, tuple[int, ...]]]:
    """For each frame that two or more processes map: its page number and those processes."""
    owners: dict[int, list[int]] = defaultdict(list)
    page: dict[int, int] = {}
    for number, process in enumerate(processes):
        shared = np.flatnonzero(process.frame != UNSHARED)
        pairs = zip(process.frame[shared].tolist(), process.vpn[shared].tolist(), strict=True)
        for frame, vpn in pairs:
            owners[frame].append(number)
            page[frame] = vpn
    return {f: (page[f], tuple(who)) for f, who in owners.items() if len(who) > 1}


def _families(count: int, groups: dict[int, tuple[int, tuple[int, ...]]]) -> list[list[int]]:
    """Processes connected by shared frames, each family and the list in ascending order."""
    leader = list(range(count))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for owners in {who for _, who in groups.values()}:
        first = find(owners[0])
        for other in owners[1:]:
            leader[find(other)] = first
    families: dict[int, list[int]] = defaultdict(list)
    for number in range(count):
        families[find(number)].append(number)
    return list(families.values())


class _Family:
    def __init__(
        self,
        memory: Memory,
        members: list[int],
        groups: dict[int, tuple[int, tuple[int, ...]]],
        stand_in: int,
    ) -> None:
        self.memory = memory
        self.nodes = {number: _Node(number) for number in members}
        for number, node in self.nodes.items():
            vmas = memory.processes[number].vmas
            node.own = union([(v.start >> PAGE_SHIFT, v.end >> PAGE_SHIFT) for v in vmas])
        self.parent: dict[int, int] = {}
        self.root = self._grow_tree(stand_in)
        self._check_size()
        inside = set(members)
        mine = {f: (vpn, who) for f, (vpn, who) in groups.items() if who[0] in inside}
        self.content: dict[int, int] = {}
        self._find_needs(mine)
        self._find_carried()
        self.made: set[int] = set()
        self.lost = 0

    # ------------------------------------------------------------------------- the tree

    def _grow_tree(self, stand_in: int) -> int:
        """Link children to parents; the root's number."""
        processes = self.memory.processes
        by_pid = {(processes[n].origin, processes[n].pid): n for n in self.nodes}
        roots = []
        for number in sorted(self.nodes, key=self._age):
            process = processes[number]
            parent = by_pid.get((process.origin, process.ppid))
            # A parent is older than its child; what claims otherwise (a PID used again, an
            # image made by hand) would make a cycle.
            if parent is None or self._age(parent) >= self._age(number):
                roots.append(number)
            else:
                self.parent[number] = parent
                self.nodes[parent].children.append(number)
        if len(roots) == 1:
            return roots[0]
        self.nodes[stand_in] = _Node(stand_in, children=roots)
        self.parent |= dict.fromkeys(roots, stand_in)
        return stand_in

    def _check_size(self) -> None:
        """InputError where the kernel's own records of the family would fill the memory.

        Each mapping has a chain to each ancestor: a thousand generations of a thousand mappings
        have half a billion. No box has such a family; a file may say so in a few kilobytes.
        """
        depth: dict[int, int] = {}
        chains = 0
        for number in self._walk():
            depth[number] = 1 + depth.get(self.parent.get(number, -1), 0)
            chains += depth[number] * len(self.nodes[number].own)
        deepest = max(depth.values())
        if deepest > MAX_GENERATIONS or chains > MAX_CHAINS:
            raise InputError(
                f"a family of {len(depth)} processes, {deepest} generations, {chains} links of "
                f"mappings to ancestors; expected at most {MAX_GENERATIONS} and {MAX_CHAINS}"
            )

    def _age(self, number: int) -> tuple[int, int, int]:
        process = self.memory.processes[number]
        return process.started, process.pid, number

    def _find_needs(self, groups: dict[int, tuple[int, tuple[int, ...]]]) -> None:
        """What each node must be born with: frames shared across its edge to its parent."""
        edges: dict[tuple[int, ...], list[int]] = {}
        for frame, (vpn, owners) in groups.items():
            if owners not in edges:
                edges[owners] = self._edges(owners)
            for number in edges[owners]:
                # Two frames at one page across one edge cannot come from forks: first one wins.
                self.nodes[number].need.setdefault(vpn, frame)

    def _edges(self, owners: tuple[int, ...]) -> list[int]:
        """Nodes whose subtree has some of the owners, but not all."""
        count: dict[int, int] = defaultdict(int)
        for owner in owners:
            number: int | None = owner
            while number is not None:
                count[number] += 1
                number = self.parent.get(number)
        return [number for number, n in count.items() if n < len(owners)]

    def _find_carried(self) -> None:
        """The mappings that hold each node's needs, from leaves to the root."""
        below: dict[int, list[Range]] = {}
        for number in reversed(list(self._walk())):
            node = self.nodes[number]
            ranges = node.own + [r for child in node.children for r in below[child]]
            below[number] = union(ranges)
            node.carry = holding(below[number], node.need)

    def _walk(self) -> Iterator[int]:
        """Every node, parents before children."""
        todo = [self.root]
        while todo:
            number = todo.pop()
            yield number
            todo += self.nodes[number].children

    # ------------------------------------------------------------------------ the steps

    def plan(self, plan: Plan) -> None:
        """Append this family's steps: a walk in depth, without recursion (chains may be long)."""
        self.steps = plan.steps
        self.steps.append(Spawn(self.root))
        self._remap(self.nodes[self.root], born=[])
        stack: list[tuple[_Node, Iterator[int], dict[int, int]]] = []
        root = self.nodes[self.root]
        stack.append((root, iter(root.children), {}))
        while stack:
            node, children, held = stack[-1]
            number = next(children, None)
            if number is None:
                stack.pop()
                self._finish(node, held)
                continue
            child = self.nodes[number]
            self._prepare(node, child, held)
            self.steps.append(Fork(node.number, number))
            self._remap(child, born=node.mapped)
            inherited = {v: f for v, f in held.items() if contains(child.mapped, v)}
            stack.append((child, iter(child.children), inherited))
        plan.lost_ptes += self.lost

    def _remap(self, node: _Node, born: list[Range]) -> None:
        """From the mappings it is born with to those that it and its children's births need."""
        carried = [r for child in node.children for r in self.nodes[child].carry]
        node.mapped = union(node.own + carried)
        self._change(node.number, born, node.mapped)

    def _change(self, number: int, before: list[Range], after: list[Range]) -> None:
        if gone := difference(before, after):
            self.steps.append(Unmap(number, tuple(gone)))
        if new := difference(after, before):
            self.steps.append(Map(number, tuple(new)))

    def _prepare(self, node: _Node, child: _Node, held: dict[int, int]) -> None:
        """Before the fork: write the frames that the child must be born with."""
        pages = []
        for vpn, frame in child.need.items():
            # A frame is made once. One that was overwritten since cannot be had again.
            if held.get(vpn) != frame and frame not in self.made:
                pages.append(vpn)
                held[vpn] = frame
                self.made.add(frame)
        self._write(node.number, {vpn: self._content_of(held[vpn], vpn) for vpn in pages})

    def _content_of(self, frame: int, vpn: int) -> int:
        if not self.content:
            for number in self.nodes:
                if number >= len(self.memory.processes):
                    continue
                process = self.memory.processes[number]
                shared = process.frame != UNSHARED
                pairs = (process.frame[shared].tolist(), process.content[shared].tolist())
                self.content.update(zip(*pairs, strict=True))
        return self.content[frame]

    def _write(self, number: int, pages: dict[int, int]) -> None:
        if pages:
            vpn = sorted(pages)
            self.steps.append(Write(number, vpn, [pages[v] for v in vpn]))

    def _finish(self, node: _Node, held: dict[int, int]) -> None:
        """After its last fork: what is its own, and nothing else."""
        number = node.number
        if number >= len(self.memory.processes):
            self.steps.append(Exit(number))
            return
        process = self.memory.processes[number]
        self._change(number, node.mapped, node.own)
        node.mapped = node.own
        frames, vpns = process.frame.tolist(), process.vpn.tolist()
        own: dict[int, int] = {}
        for vpn, frame, content in zip(vpns, frames, process.content.tolist(), strict=True):
            if frame == UNSHARED or held.get(vpn) != frame:
                own[vpn] = content
                # Where the frame is nobody else's after all, nothing is lost by a new one.
                self.lost += frame in self.made
                if frame != UNSHARED:
                    self.made.add(frame)
        kept = set(vpns)
        stale = sorted(v for v in held if v not in kept and contains(node.own, v))
        if stale:
            self.steps.append(Drop(number, stale))
        self._write(number, own)
        if len(process.zero_vpn):
            self.steps.append(ReadZero(number, process.zero_vpn.tolist()))


# ------------------------------------------------------------------------- sets of page ranges


def union(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint, not adjoining."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def difference(left: Iterable[Range], right: Sequence[Range]) -> list[Range]:
    """What is in ``left`` and not in ``right``; both sorted and disjoint."""
    rest = []
    first = 0  # the first range of right that reaches beyond what is behind us
    for start, end in left:
        while first < len(right) and right[first][1] <= start:
            first += 1
        at = first
        while at < len(right) and right[at][0] < end:
            cut_start, cut_end = right[at]
            if start < cut_start:
                rest.append((start, cut_start))
            start = max(start, cut_end)
            at += 1
        if start < end:
            rest.append((start, end))
    return rest


def contains(ranges: Sequence[Range], page: int) -> bool:
    """Whether one of the sorted, disjoint ranges holds the page."""
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] <= page:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low][0] <= page


def holding(ranges: Sequence[Range], pages: Iterable[int]) -> list[Range]:
    """Those of the sorted, disjoint ranges that hold at least one of the pages."""
    numbers = np.sort(np.fromiter(pages, dtype=np.int64))
    kept = []
    for start, end in ranges:
        first, last = np.searchsorted(numbers, [start, end])
        if first != last:
            kept.append((start, end))
    return kept
