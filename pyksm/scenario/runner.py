"""Runs a scenario on an engine: statements in, the contract's answer out."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pyksm import profiles
from pyksm.engine import (
    MADV_DONTNEED,
    MADV_MERGEABLE,
    MADV_PAGEOUT,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    PROT_NONE,
    PROT_READ,
    PROT_SEAL,
    PROT_WRITE,
    Engine,
    ksm_value,
)
from pyksm.errors import InputError, MachineError
from pyksm.scenario import contents, engines
from pyksm.scenario import statements as st
from pyksm.scenario.kinds import PAGE_BYTES, Setting, Value
from pyksm.scenario.observe import observation, raw
from pyksm.scenario.world import Process, World

if TYPE_CHECKING:
    from pyksm.tasks.run import Recording

ADVICE = {
    "mergeable": MADV_MERGEABLE,
    "unmergeable": MADV_UNMERGEABLE,
    "dontneed": MADV_DONTNEED,
    "pageout": MADV_PAGEOUT,
    "willneed": MADV_WILLNEED,
}
PROT = {
    "none": PROT_NONE,
    "r": PROT_READ,
    "rw": PROT_READ | PROT_WRITE,
    "sealed": PROT_SEAL,
}

#: The kernel functions whose calls the recordings count.
CALLS = (
    "__swap_writepage", "break_ksm", "cmp_and_merge_page", "delete_from_swap_cache",
    "do_swap_page", "ksm_might_need_to_copy", "ksm_migrate_page", "memcmp_pages",
    "page_address_in_vma", "page_referenced_ksm", "read_swap_cache_async",
    "remove_rmap_item_from_tree", "replace_page", "rmap_walk_ksm", "stable_tree_insert",
    "stable_tree_search", "swap_readpage", "swap_writepage", "swapin_readahead",
    "try_to_free_swap", "try_to_merge_one_page", "try_to_unmap", "try_to_unmap_ksm",
    "try_to_unuse", "unstable_tree_search_insert", "unuse_mm", "unuse_pte", "unuse_pte_range",
    "unuse_vma", "write_protect_page",
)  # fmt: skip
#: The statements that say them.
COUNTED = (st.Swapout, st.Swapoff, st.Scan, st.Ksm, st.Migrate)

_NAMES = {errno.EDEADLK: "EDEADLK", errno.EOPNOTSUPP: "EOPNOTSUPP", 133: "EHWPOISON"}

#: How the event begins that says what a kernel would have died of; the machine is dead then.
OOPS = "BUG:"

#: Pages that one read or write statement hands to the engine at a time.
_CHUNK = 1024


@dataclass
class Outcome:
    """What a statement came to: an errno (0: fine) and further keys of its result."""

    code: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


S = TypeVar("S", bound=st.Statement)
Handler = Callable[["Run", Any], Outcome | None]
_HANDLERS: dict[type[st.Statement], Handler] = {}


def _does(cls: type[S]) -> Callable[[Callable[[Run, S], Outcome | None]], Any]:
    def note(handler: Callable[[Run, S], Outcome | None]) -> Any:
        _HANDLERS[cls] = handler
        return handler

    return note


def run(
    scenario: st.Scenario,
    engine: str | engines.Factory,
    *,
    profile: str | None = None,
    work: bool = False,
    recordings: list[Recording] | None = None,
    watch: Sequence[tuple[str, str, int]] = (),
    max_steps: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Run on a fresh machine and answer as the contract says.

    ``engine``: a name or what makes one from a :class:`pyksm.engine.Config`. ``profile`` goes
    before the file's own. With ``work`` each result also has the deltas of all work counters
    (``work``), the raw ptes (``raw``), the codes of a census (``census``), the free frames
    (``frames``) and ``pages_to_scan``: what two engines are compared by. The machine statement
    itself has no result, as in the recordings.

    A scenario with tasks runs on the core that has them where the engine is ``core``. Of each group
    of tasks a recording is added to ``recordings``, which follows the pages ``watch`` (process,
    region, index; a choice of its own where there are none); a group is given up after
    ``max_steps`` (1,000,000 where it is 0). With a ``seed`` it is drawn by lot which task goes next
    where the schedule does not say.

    Raises :class:`pyksm.errors.InputError` where the engine, the profile or the machine asked for
    is not to be had, and where a schedule does not fit.
    """
    wanted = engines.config(scenario.machine, profile)
    machine = engines.build(engine, wanted, tasks=bool(scenario.groups))
    try:
        under_way = Run(machine, work=work)
        under_way.recordings, under_way.watch = recordings, watch
        under_way.max_steps, under_way.seed = max_steps, seed
        results = under_way.all(scenario.body)
    finally:
        machine.close()
    name = profile or scenario.machine.profile or profiles.DEFAULT
    return {"engine": machine.name, "profile": name, "kernel": None, "results": results}


class Run:
    """One run: an engine, the names in use, the statements waiting at a schedule point."""

    def __init__(self, engine: Engine, *, work: bool = False) -> None:
        self.engine = engine
        self.world = World()
        self.work = work
        self.vmstat = dict(engine.vmstat())
        self.armed: list[st.At] = []
        self.dead = False  # an oops, or tasks that did not end: each further statement is EIO
        self.recordings: list[Recording] | None = None
        self.watch: Sequence[tuple[str, str, int]] = ()
        self.max_steps = self.seed = 0

    def all(self, statements: Sequence[st.Statement]) -> list[dict[str, Any]]:
        """The results of statements, in order."""
        return [result for part in st.parts(statements) for result in self.part(part)]

    def part(self, part: st.Statement | st.Group) -> list[dict[str, Any]]:
        """Carry out a statement, or tasks at the same time, and give the results."""
        return self._group(part) if isinstance(part, st.Group) else [self.step(part)]

    def _group(self, group: st.Group) -> list[dict[str, Any]]:
        """The result of the group, then those of its statements."""
        from pyksm.tasks.group import run_group  # it knows this module

        if self.armed:
            raise InputError(f"{self.armed[0]}: expected a statement after it and no tasks")
        if self.dead:
            head = {"line": group.line, "op": "tasks", "errno": errno_name(errno.EIO)}
            inner = [each for task in group.tasks for each in task.statements]
            return [head, *(result_of(each, Outcome(errno.EIO)) for each in inner)]
        before = dict(self.engine.counters()) if self.work else None
        results = run_group(self, group)
        if before is not None and not self.dead:
            results[0] |= self._watch(before)
        return results

    def step(self, statement: st.Statement) -> dict[str, Any]:
        """Carry out one statement, with what waits for it, and give its result."""
        if self.dead:
            return result_of(statement, Outcome(errno.EIO))
        if isinstance(statement, st.At):
            self.armed.append(statement)
            return result_of(statement, Outcome())
        before = dict(self.engine.counters()) if self.work else None
        if self.armed:
            armed, self.armed = self.armed, []
            result = self._step_hooked(statement, armed)
        else:
            result = self._carry_out(statement)
        if before is not None and not self.dead:
            result |= self._watch(before)
        return result

    def _step_hooked(self, statement: st.Statement, armed: list[st.At]) -> dict[str, Any]:
        """With the hook set: each armed statement runs when its point is reached often enough."""
        reached: dict[str, int] = {}
        nested: list[dict[str, Any]] = []
        waiting = list(armed)
        early: list[str] = []
        inside = False

        def hook(point: str) -> None:
            nonlocal inside
            if inside:  # points inside a nested statement do not count
                return
            reached[point] = reached.get(point, 0) + 1
            due = [at for at in waiting if at.point == point and at.nth == reached[point]]
            if not due:
                return
            early.extend(self.engine.events())
            inside = True
            for at in due:
                waiting.remove(at)
                nested.append(self._carry_out(at.statement) | {"line": at.line})
            inside = False

        self.engine.set_hook(hook)
        try:
            result = self._carry_out(statement)
        finally:
            self.engine.set_hook(None)
        if early:
            result["events"] = early + result.get("events", [])
        if nested:
            result["nested"] = nested
        if waiting:
            result["reached"] = False
        return result

    def _carry_out(self, statement: st.Statement) -> dict[str, Any]:
        counted = isinstance(statement, COUNTED)
        before = dict(self.engine.counters()) if counted else {}
        try:
            outcome = _HANDLERS[type(statement)](self, statement) or Outcome()
        except MachineError as error:
            outcome = Outcome(error.errno or errno.EIO)
        except MemoryError:
            outcome = Outcome(errno.ENOMEM)
        if counted:
            now = self.engine.counters()
            delta = {name: now[name] - before[name] for name in CALLS}
            outcome.extra["calls"] = {name: calls for name, calls in delta.items() if calls}
        events = self.engine.events()
        if events:
            outcome.extra["events"] = events
            self.dead = any(event.startswith(OOPS) for event in events)
        return result_of(statement, outcome)

    def _watch(self, before: Mapping[str, int]) -> dict[str, Any]:
        now = self.engine.counters()
        delta = {name: count - before.get(name, 0) for name, count in now.items()}
        codes = sorted(line.partition(":")[0] for line in self.engine.census())
        free = [self.engine.free_frames(node) for node in range(self.engine.config.nodes)]
        return {
            "work": {name: count for name, count in sorted(delta.items()) if count},
            "census": codes,
            "frames": {"free": free, "peak": self.engine.peak_frames()},
            "raw": raw(self.engine, self.world),
            # The advisor sets it, and no observation of a kernel says it.
            "pages_to_scan": self.engine.ksm_read("pages_to_scan"),
        }

    def new_region(self, process: Process, name: str, npages: int) -> int:
        """The address for a new region, its name free."""
        self.world.new_region(process, name)
        return process.next_addr(npages)


def result_of(statement: st.Statement, outcome: Outcome) -> dict[str, Any]:
    """A statement's result as the contract has it."""
    label = getattr(statement, "label", None)
    name = errno_name(outcome.code) if outcome.code else None
    head = {"line": statement.line, "op": statement.op}
    if label is not None:
        head["label"] = label
    return head | {"errno": name} | outcome.extra


def errno_name(code: int) -> str:
    """The kernel's name of an errno; Python knows some by their other one."""
    return _NAMES.get(code) or errno.errorcode.get(code, f"E{code}")


def _first(codes: list[int]) -> int:
    return next((code for code in codes if code), 0)


@_does(st.Spawn)
def _spawn(run: Run, statement: st.Spawn) -> None:
    run.world.new_process(statement.process)
    pid = run.engine.spawn()
    run.world.processes[statement.process] = Process(statement.process, pid)


@_does(st.Mmap)
def _mmap(run: Run, statement: st.Mmap) -> None:
    process = run.world.process(statement.process)
    addr = run.new_region(process, statement.region, statement.npages)
    run.engine.mmap(process.pid, statement.npages, addr, statement.node)
    process.add(statement.region, addr, statement.npages)


@_does(st.Write)
def _write(run: Run, statement: st.Write) -> Outcome:
    span = run.world.span(statement.process, statement.pages)
    codes: list[int] = []
    for done in range(0, span.npages, _CHUNK):
        count = min(_CHUNK, span.npages - done)
        base = statement.value.base + (done if statement.value.step else 0)
        data = contents.pages(Value(base, statement.value.step), count)
        codes += run.engine.write_pages(span.pid, span.addr + done * PAGE_BYTES, data)
    # Which pages it was: only for those who keep a map of contents beside the machine.
    return Outcome(_first(codes), {"codes": codes} if run.work else {})


@_does(st.Poke)
def _poke(run: Run, statement: st.Poke) -> None:
    span = run.world.span(statement.process, statement.page)
    run.engine.write(span.pid, span.addr + statement.offset, bytes([statement.byte]))


@_does(st.Read)
def _read(run: Run, statement: st.Read) -> Outcome:
    span = run.world.span(statement.process, statement.pages)
    crcs: list[str | None] = []
    codes: list[int] = []
    for done in range(0, span.npages, _CHUNK):
        count = min(_CHUNK, span.npages - done)
        data, errors = run.engine.read_pages(span.pid, span.addr + done * PAGE_BYTES, count)
        view = memoryview(data)
        codes += errors
        crcs += [
            None if code else contents.crc(view[k * PAGE_BYTES : (k + 1) * PAGE_BYTES])
            for k, code in enumerate(errors)
        ]
    return Outcome(_first(codes), {"crc": crcs})


@_does(st.Fork)
def _fork(run: Run, statement: st.Fork) -> None:
    parent = run.world.process(statement.process)
    run.world.new_process(statement.child)
    run.world.fork(parent, statement.child, run.engine.fork(parent.pid))


@_does(st.Exit)
def _exit(run: Run, statement: st.Exit) -> None:
    run.engine.exit(run.world.process(statement.process).pid)
    del run.world.processes[statement.process]


@_does(st.Munmap)
def _munmap(run: Run, statement: st.Munmap) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.munmap(span.pid, span.addr, span.npages)


@_does(st.Mremap)
def _mremap(run: Run, statement: st.Mremap) -> None:
    span = run.world.span(statement.process, statement.pages)
    addr = run.world.destination(span, statement.to)
    run.engine.mremap(span.pid, span.addr, span.npages, addr)
    if isinstance(statement.to, str):
        span.process.add(statement.to, addr, span.npages)


@_does(st.Madvise)
def _madvise(run: Run, statement: st.Madvise) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.madvise(span.pid, span.addr, span.npages, ADVICE[statement.advice])


@_does(st.Mprotect)
def _mprotect(run: Run, statement: st.Mprotect) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.mprotect(span.pid, span.addr, span.npages, PROT[statement.prot])


@_does(st.Mlock)
def _mlock(run: Run, statement: st.Mlock) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.mlock(span.pid, span.addr, span.npages)


@_does(st.Munlock)
def _munlock(run: Run, statement: st.Munlock) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.munlock(span.pid, span.addr, span.npages)


@_does(st.Migrate)
def _migrate(run: Run, statement: st.Migrate) -> Outcome:
    span = run.world.span(statement.process, statement.pages)
    try:
        status = run.engine.migrate(span.pid, span.addr, span.npages, statement.node)
    except MachineError as error:
        # The recorder's statuses begin as ENOENT, and a refused call leaves them so.
        return Outcome(error.errno or errno.EIO, {"status": ["ENOENT"] * span.npages})
    return Outcome(0, {"status": [errno_name(-each) if each < 0 else each for each in status]})


@_does(st.Pin)
def _pin(run: Run, statement: st.Pin) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.pin(span.pid, span.addr, span.npages, statement.how is not None)


@_does(st.Unpin)
def _unpin(run: Run, statement: st.Unpin) -> None:
    span = run.world.span(statement.process, statement.pages)
    run.engine.unpin(span.pid, span.addr, span.npages)


@_does(st.Swapon)
def _swapon(run: Run, statement: st.Swapon) -> None:
    if statement.area in run.world.areas:
        raise MachineError(errno.EEXIST, f"area {statement.area}")
    run.world.areas[statement.area] = run.engine.swapon(statement.npages, statement.priority)


@_does(st.Swapoff)
def _swapoff(run: Run, statement: st.Swapoff) -> None:
    if statement.area not in run.world.areas:
        raise MachineError(errno.EINVAL, f"area {statement.area}")
    run.engine.swapoff(run.world.areas[statement.area])
    del run.world.areas[statement.area]


@_does(st.Swapout)
def _swapout(run: Run, statement: st.Swapout) -> None:
    if statement.process is None or statement.pages is None:
        run.engine.swapout()
        return
    span = run.world.span(statement.process, statement.pages)
    run.engine.swapout([(span.pid, span.addr, span.npages)])


@_does(st.Ksm)
def _ksm(run: Run, statement: st.Ksm) -> Outcome:
    return Outcome(_first([_setting(run, setting) for setting in statement.settings]))


def _setting(run: Run, setting: Setting) -> int:
    """All are tried in order; a word that a file does not take is EINVAL."""
    try:
        value = ksm_value(setting.key, setting.value)
        if value is None:
            run.engine.ksm_read(setting.key)
            return errno.EINVAL
        run.engine.ksm_write(setting.key, value)
    except MachineError as error:
        return error.errno or errno.EIO
    return 0


@_does(st.Scan)
def _scan(run: Run, statement: st.Scan) -> Outcome:
    return Outcome(0, {"scans": run.engine.ksm_scan(statement.count)})


@_does(st.Prctl)
def _prctl(run: Run, statement: st.Prctl) -> None:
    process = run.world.process(statement.process)
    run.engine.prctl_memory_merge(process.pid, bool(statement.value))


@_does(st.ClearRefs)
def _clear_refs(run: Run, statement: st.ClearRefs) -> None:
    run.engine.clear_refs(run.world.process(statement.process).pid, int(statement.what))


@_does(st.Sleep)
def _sleep(run: Run, statement: st.Sleep) -> None:
    run.engine.sleep(statement.ms)


@_does(st.Observe)
def _observe(run: Run, statement: st.Observe) -> Outcome:
    return Outcome(0, {"observation": observation(run.engine, run.world, run.vmstat)})


@_does(st.Inject)
def _inject(run: Run, statement: st.Inject) -> None:
    run.engine.inject(statement.kind, statement.nth)


@_does(st.Census)
def _census(run: Run, statement: st.Census) -> Outcome:
    return Outcome(0, {"violations": run.engine.census(statement.strict is not None)})


@_does(st.Rmap)
def _rmap(run: Run, statement: st.Rmap) -> Outcome:
    span = run.world.span(statement.process, statement.pages)
    ptes: list[int | None] = []
    code = 0
    for k in range(span.npages):
        try:
            ptes.append(run.engine.rmap_walk(span.pid, span.addr + k * PAGE_BYTES))
        except MachineError as error:
            ptes.append(None)
            code = code or error.errno or errno.EIO
    return Outcome(code, {"ptes": ptes})
