"""Memories made by hand or drawn, and a toy machine that carries out plans."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

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
