"""Memories made by hand or drawn, and a toy machine that carries out plans."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from pyksm.jobs import plan as steps
from pyksm.targets.memory import PAGE_SIZE, UNSHARED, Memory, ProcessMemory, Vma


def page(number: int) -> bytes:
    """A content that is different for every number; 0 is all zero."""
    return number.to_bytes(8, "little") * (PAGE_SIZE // 8)


def process(
    memory: Memory,
    pages: dict[int, int],
    frames: dict[int, int] | None = None,
    zero: tuple[int, ...] = (),
    vmas: list[Vma] | None = None,
    pid: int | None = None,
    ppid: int = 0,
    started: int | None = None,
) -> ProcessMemory:
    """Add a process with ``pages`` {vpn: number of content} and ``frames`` {vpn: frame}."""
    frames = frames or {}
    vpn = sorted(pages)
    count = len(memory.processes)
    made = ProcessMemory(
        pid=1000 + count if pid is None else pid,
        name=f"p{count}",
        ppid=ppid,
        started=count if started is None else started,
        vpn=np.array(vpn, dtype=np.uint64),
        content=np.array([memory.store.intern(page(pages[v])) for v in vpn], dtype=np.int64),
        frame=np.array([frames.get(v, UNSHARED) for v in vpn], dtype=np.int64),
        zero_vpn=np.array(sorted(zero), dtype=np.uint64),
    )
    made.vmas = around(set(vpn) | set(zero)) if vmas is None else vmas
    memory.processes.append(made)
    memory.frames = max(memory.frames, 1 + max(frames.values(), default=-1))
    memory.origins = max(memory.origins, 1)
    return made


def around(pages: set[int]) -> list[Vma]:
    """The smallest mappings that hold exactly these pages."""
    vmas: list[Vma] = []
    for v in sorted(pages):
        if vmas and vmas[-1].end == v * PAGE_SIZE:
            vmas[-1] = Vma(vmas[-1].start, (v + 1) * PAGE_SIZE)
        else:
            vmas.append(Vma(v * PAGE_SIZE, (v + 1) * PAGE_SIZE))
    return vmas


@dataclass
class ToyProcess:
    mapped: set[int] = field(default_factory=set)
    frame: dict[int, int] = field(default_factory=dict)  #: vpn: frame, -1 the zero page


class Toy:
    """Frames and their contents under fork and copy on write; refuses what a machine refuses."""

    def __init__(self) -> None:
        self.processes: dict[int, ToyProcess] = {}
        self.content: list[int] = []

    def run(self, plan: steps.Plan) -> None:
        for step in plan.steps:
            self.do(step)

    def do(self, step: steps.Step) -> None:
        match step:
            case steps.Spawn(node):
                assert node not in self.processes
                self.processes[node] = ToyProcess()
            case steps.Fork(node, child):
                assert child not in self.processes
                parent = self.processes[node]
                self.processes[child] = ToyProcess(set(parent.mapped), dict(parent.frame))
            case steps.Exit(node):
                del self.processes[node]
            case steps.Map(node, ranges):
                for start, end in ranges:
                    pages = set(range(start, end))
                    assert start < end
                    assert not pages & self.processes[node].mapped
                    self.processes[node].mapped |= pages
            case steps.Unmap(node, ranges):
                for start, end in ranges:
                    pages = set(range(start, end))
                    assert pages <= self.processes[node].mapped
                    self.processes[node].mapped -= pages
                    for vpn in pages:
                        self.processes[node].frame.pop(vpn, None)
            case steps.Write(node, vpns, contents):
                assert list(vpns) == sorted(set(vpns))
                for vpn, content in zip(vpns, contents, strict=True):
                    assert vpn in self.processes[node].mapped
                    self.processes[node].frame[vpn] = len(self.content)
                    self.content.append(content)
            case steps.Drop(node, vpns):
                assert set(vpns) <= self.processes[node].mapped
                for vpn in vpns:
                    del self.processes[node].frame[vpn]
            case steps.ReadZero(node, vpns):
                for vpn in vpns:
                    assert vpn in self.processes[node].mapped
                    assert vpn not in self.processes[node].frame
                    self.processes[node].frame[vpn] = -1


@st.composite
def histories(draw: st.DrawFn) -> tuple[Memory, bool]:
    """A memory that came about by real mmap, write, drop, munmap, fork and exit."""
    first = 16
    counter = iter(range(1, 1 << 30))
    live: dict[int, dict[int, tuple[int, int] | None]] = {}
    parent: dict[int, int] = {}

    def fresh() -> tuple[int, int]:
        number = next(counter)
        return number, draw(st.integers(1, 3))

    pid = 100
    live[pid] = {}
    parent[pid] = 1
    orphans = False
    for _ in range(draw(st.integers(1, 40))):
        who = draw(st.sampled_from(sorted(live)))
        op = draw(st.sampled_from(["map", "write", "write", "drop", "fork", "unmap", "exit"]))
        vpn = first + draw(st.integers(0, 5))
        mine = live[who]
        if op == "map":
            mine.setdefault(vpn, None)
        elif op == "write":
            mine[vpn] = fresh()
        elif op == "drop" and vpn in mine:
            mine[vpn] = None
        elif op == "unmap":
            mine.pop(vpn, None)
        elif op == "fork" and len(live) < 8:
            pid += 1
            live[pid] = dict(mine)
            parent[pid] = who
        elif op == "exit" and len(live) > 1:
            orphans = orphans or who in parent.values()
            del live[who]
            parent = {child: 1 if old == who else old for child, old in parent.items()}
    memory = Memory()
    count: dict[int, int] = defaultdict(int)
    for pages in live.values():
        for held in pages.values():
            if held:
                count[held[0]] += 1
    for who, pages in sorted(live.items()):
        have = {v: held for v, held in pages.items() if held}
        process(
            memory,
            {v: content for v, (_, content) in have.items()},
            {v: frame for v, (frame, _) in have.items() if count[frame] > 1},
            vmas=around(set(pages)),
            pid=who,
            ppid=parent[who],
            started=who,
        )
    return memory, orphans
