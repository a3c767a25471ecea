"""Ops carried out by any engine one by one: what tasks do where nothing interleaves them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from pyksm.engine import FAULT_KINDS, Engine
from pyksm.errors import MachineError
from pyksm.scenario import contents
from pyksm.scenario.kinds import Value
from pyksm.tasks.compile import Done, Op, Program, Step


class Tables:
    """The pid of each process of a program and the type of each area: 0 and -1 where there is
    none (yet)."""

    def __init__(self, program: Program, pids: list[int], types: list[int]) -> None:
        self.pids = [*pids, *[0] * (len(program.processes) - len(pids))]
        self.areas = [*types, *[-1] * (len(program.areas) - len(types))]


def carry_out(engine: Engine, tables: Tables, step: Step) -> list[Done]:
    """The ops of a step, as the core's ``pyksm_run_op()`` would."""
    return [_one(engine, tables, op) for op in step.ops]


def _one(engine: Engine, tables: Tables, op: Op) -> Done:
    try:
        return _CALLS[op.kind](engine, tables, op) or Done()
    except MachineError as error:
        return Done(error.errno or errno.EIO)
    except MemoryError:
        return Done(errno.ENOMEM)


def _pid(tables: Tables, op: Op) -> int:
    pid = tables.pids[op.process]
    if not pid:
        raise MachineError(errno.ESRCH, op.kind.lower())
    return pid


def _spawn(engine: Engine, tables: Tables, op: Op) -> None:
    tables.pids[op.process] = engine.spawn()


def _fork(engine: Engine, tables: Tables, op: Op) -> None:
    tables.pids[op.child] = engine.fork(_pid(tables, op))


def _exit(engine: Engine, tables: Tables, op: Op) -> None:
    engine.exit(_pid(tables, op))
    tables.pids[op.process] = 0


def _write(engine: Engine, tables: Tables, op: Op) -> Done:
    data = contents.pages(Value(op.value, bool(op.arg)), op.npages)
    codes = engine.write_pages(_pid(tables, op), op.addr, data)
    return Done(_first(codes), status=[-code for code in codes])


def _read(engine: Engine, tables: Tables, op: Op) -> Done:
    data, codes = engine.read_pages(_pid(tables, op), op.addr, op.npages)
    return Done(_first(codes), status=[-code for code in codes], data=bytes(data))


def _poke(engine: Engine, tables: Tables, op: Op) -> None:
    engine.write(_pid(tables, op), op.addr + op.to, bytes([op.value]))


def _migrate(engine: Engine, tables: Tables, op: Op) -> Done:
    status = engine.migrate(_pid(tables, op), op.addr, op.npages, op.arg)
    return Done(status=list(status))


def _swapon(engine: Engine, tables: Tables, op: Op) -> None:
    tables.areas[op.area] = engine.swapon(op.npages, op.arg)


def _swapoff(engine: Engine, tables: Tables, op: Op) -> None:
    if tables.areas[op.area] < 0:
        raise MachineError(errno.EINVAL, "swapoff")
    engine.swapoff(tables.areas[op.area])
    tables.areas[op.area] = -1


def _swapout(engine: Engine, tables: Tables, op: Op) -> None:
    engine.swapout([(_pid(tables, op), op.addr, op.npages)] if op.npages else [])


def _first(codes: list[int]) -> int:
    return next((code for code in codes if code), 0)


_Call = Callable[[Engine, Tables, Op], "Done | None"]


def _ranged(call: Callable[..., Any]) -> _Call:
    """A call of a process, a range, and nothing else that the engine says."""

    def made(engine: Engine, tables: Tables, op: Op) -> None:
        call(engine, op, _pid(tables, op), op.addr, op.npages)

    return made


_CALLS: dict[str, _Call] = {
    "SPAWN": _spawn,
    "FORK": _fork,
    "EXIT": _exit,
    "WRITE": _write,
    "READ": _read,
    "POKE": _poke,
    "MIGRATE": _migrate,
    "SWAPON": _swapon,
    "SWAPOFF": _swapoff,
    "SWAPOUT": _swapout,
    "MMAP": _ranged(lambda engine, op, pid, addr, n: engine.mmap(pid, n, addr, op.arg)),
    "MUNMAP": _ranged(lambda engine, op, *where: engine.munmap(*where)),
    "MREMAP": _ranged(lambda engine, op, *where: engine.mremap(*where, op.to)),
    "MADVISE": _ranged(lambda engine, op, *where: engine.madvise(*where, op.arg)),
    "MPROTECT": _ranged(lambda engine, op, *where: engine.mprotect(*where, op.arg)),
    "MLOCK": _ranged(lambda engine, op, *where: engine.mlock(*where)),
    "MUNLOCK": _ranged(lambda engine, op, *where: engine.munlock(*where)),
    "PIN": _ranged(lambda engine, op, *where: engine.pin(*where, bool(op.arg))),
    "UNPIN": _ranged(lambda engine, op, *where: engine.unpin(*where)),
    "KSM": lambda engine, tables, op: engine.ksm_write(op.key, op.value),
    "SCAN": lambda engine, tables, op: Done(ret=engine.ksm_scan(op.value)),
    "PRCTL": lambda engine, tables, op: engine.prctl_memory_merge(_pid(tables, op), bool(op.arg)),
    "CLEAR_REFS": lambda engine, tables, op: engine.clear_refs(_pid(tables, op), op.arg),
    "SLEEP": lambda engine, tables, op: engine.sleep(op.value),
    "INJECT": lambda engine, tables, op: engine.inject(FAULT_KINDS[op.arg], op.value),
}
