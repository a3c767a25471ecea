"""Programs as the core takes them: arrays of ``struct pyksm_op``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyksm.scenario.schedule import Piece
from pyksm.tasks.compile import UNTOUCHED, Done, Op, Program, Step
from pyksm.tasks.core import ffi, lib
from pyksm.tasks.points import index_of

_KINDS = {
    kind: getattr(lib, f"PYKSM_OP_{kind}")
    for kind in (
        "SPAWN", "MMAP", "WRITE", "POKE", "READ", "FORK", "EXIT", "MUNMAP", "MREMAP", "MADVISE",
        "MPROTECT", "MIGRATE", "PIN", "UNPIN", "SWAPON", "SWAPOFF", "SWAPOUT", "KSM", "SCAN",
        "PRCTL", "CLEAR_REFS", "SLEEP", "INJECT", "MLOCK", "MUNLOCK",
    )
}  # fmt: skip
#: Kinds whose calls say something of each page.
_STATUS = frozenset({"WRITE", "READ", "MIGRATE"})

_U64 = 2**64


class Ops:
    """The ops of some steps in one array (``ops``, ``nr`` of them)."""

    def __init__(self, steps: Sequence[Step], page_size: int = 4096, keep: bool = True) -> None:
        """``keep``: make room for what pages read and what each page's call came to."""
        flat = [(step, op) for step in steps for op in step.ops]
        self.nr = len(flat)
        self.ops = ffi.new("struct pyksm_op[]", self.nr)
        self._kept: list[Any] = []
        self._page_size = page_size
        self._first: list[int] = []
        at = 0
        for step in steps:
            self._first.append(at)
            at += len(step.ops)
        self.steps = tuple(steps)
        self.step_of = tuple(k for k, step in enumerate(steps) for _ in step.ops)
        for index, (step, op) in enumerate(flat):
            self._fill(self.ops[index], step.statement.line, op, keep)

    def _fill(self, c: Any, line: int, op: Op, keep: bool) -> None:
        c.kind = _KINDS[op.kind]
        c.process, c.child, c.area, c.arg = op.process, op.child, op.area, op.arg
        c.line = line
        c.addr, c.npages, c.to, c.value = op.addr, op.npages, op.to, op.value % _U64
        c.key = op.key.encode("ascii")[: lib.PYKSM_OP_KEY - 1]
        c.err = 1
        if keep and op.kind in _STATUS:
            c.status = self._keep(ffi.new("int32_t[]", [UNTOUCHED] * op.npages))
        if keep and op.kind == "READ":
            c.data = self._keep(ffi.new("unsigned char[]", op.npages * self._page_size))

    def _keep(self, made: Any) -> Any:
        self._kept.append(made)
        return made

    def done(self, step: int) -> list[Done]:
        """What the ops of the ``step``-th step came to."""
        first = self._first[step]
        return [self._done(self.ops[first + k], op) for k, op in enumerate(self.steps[step].ops)]

    def _done(self, c: Any, op: Op) -> Done:
        if c.err > 0:
            return Done(ended=False, begin=c.begin)
        status: Sequence[int] = ()
        data = b""
        if c.status != ffi.NULL:
            status = list(c.status[0 : op.npages])
        if c.data != ffi.NULL:
            data = ffi.unpack(ffi.cast("char *", c.data), op.npages * self._page_size)
        return Done(-c.err, c.ret, status, data, begin=c.begin, end=c.end)


class Arrays:
    """A program in C's terms. Keep it for as long as C may look at what it has.

    ``setup``, ``tasks``, ``after``: :class:`Ops`; ``c_tasks``: ``struct pyksm_task[]``;
    ``table``: ``struct pyksm_program *``; ``schedule``, ``nr_segments``: the program's own.
    """

    def __init__(
        self,
        program: Program,
        *,
        pids: Sequence[int] = (),
        types: Sequence[int] = (),
        page_size: int = 4096,
        keep: bool = True,
    ) -> None:
        """``pids`` and ``types``: those of the first processes and areas, which there are."""
        self.program = program
        self.setup = Ops(program.setup, page_size, keep)
        self.tasks = tuple(Ops(steps, page_size, keep) for steps in program.tasks)
        self.after = Ops(program.after, page_size, keep)
        self.c_tasks = ffi.new("struct pyksm_task[]", len(self.tasks))
        for c, task in zip(self.c_tasks, self.tasks, strict=True):
            c.ops, c.nr = task.ops, task.nr
        nr_pids, nr_areas = len(program.processes), len(program.areas)
        self._pids = ffi.new("int32_t[]", [*pids, *[0] * (nr_pids - len(pids))] or 1)
        self._areas = ffi.new("int32_t[]", [*types, *[-1] * (nr_areas - len(types))] or 1)
        self.table = ffi.new(
            "struct pyksm_program *",
            {"pids": self._pids, "areas": self._areas, "nr_pids": nr_pids, "nr_areas": nr_areas},
        )
        pieces = program.schedule.pieces if program.schedule else ()
        self.schedule = segments(pieces, program.names)
        self.nr_segments = len(pieces)

    @property
    def pids(self) -> list[int]:
        """Of each process: 0 where it is not (or no more)."""
        return list(self._pids[0 : len(self.program.processes)])

    @property
    def areas(self) -> list[int]:
        """The type of each area: -1 where it is off."""
        return list(self._areas[0 : len(self.program.areas)])


def segments(pieces: Sequence[Piece], names: Sequence[str]) -> Any:
    """``struct pyksm_segment[]`` of a schedule's pieces."""
    made = ffi.new("struct pyksm_segment[]", max(1, len(pieces)))
    for c, piece in zip(made, pieces, strict=False):
        c.task = names.index(piece.task)
        c.point = index_of(piece.point) if piece.point else -1
        c.count = piece.count
    return made
