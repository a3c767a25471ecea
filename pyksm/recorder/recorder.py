"""Scenarios carried out by an agent, and its raw facts made into the contract's answer.

What is a scenario's own (names, errors of its own making, numbering of frames and slots) is the
same code as for the engines.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyksm.errors import InputError, MachineError
from pyksm.recorder import noise
from pyksm.recorder.link import Link, RecorderError, Reply
from pyksm.recorder.observed import VMSTAT, Observed, countable, facts_of, ksm_counts
from pyksm.recorder.stored import CONTRACT
from pyksm.scenario import statements as st
from pyksm.scenario.observe import Classes, Shape, region
from pyksm.scenario.runner import ADVICE, PROT, errno_name
from pyksm.scenario.world import Process, Span, World

#: Files of /sys/kernel/mm/ksm at the start of a scenario, where the kernel has them. run=2 comes
#: first: most can be written only while nothing is merged.
KSM_SETTINGS = (
    ("run", "2"),
    ("merge_across_nodes", "1"),
    ("use_zero_pages", "0"),
    ("smart_scan", "0"),
    ("advisor_mode", "none"),
    ("max_page_sharing", "256"),
    ("stable_node_chains_prune_millisecs", "2000"),
    ("pages_to_scan", "1000000"),
    ("sleep_millisecs", "10"),
    ("run", "0"),
)

#: Settings of the whole machine while it records, where it has the file.
MACHINE_SETTINGS = (
    ("/proc/sys/vm/page-cluster", "0"),
    ("/proc/sys/vm/swappiness", "100"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    ("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0"),
    ("/sys/kernel/mm/lru_gen/enabled", "0"),
    ("/proc/sys/kernel/numa_balancing", "0"),
    ("/sys/module/zswap/parameters/enabled", "N"),
)

#: Kernel functions whose calls are counted, where the kernel has them and they are not inlined.
CALLS = (
    "__read_swap_cache_async", "__swap_writepage", "break_ksm", "cmp_and_merge_page",
    "delete_from_swap_cache", "do_swap_page", "folio_free_swap", "folio_migrate_ksm",
    "ksm_might_need_to_copy", "ksm_migrate_page", "memcmp_pages", "page_address_in_vma",
    "page_referenced_ksm", "read_swap_cache_async", "remove_rmap_item_from_tree", "replace_page",
    "rmap_walk_ksm", "stable_tree_insert", "stable_tree_search", "swap_read_folio",
    "swap_readpage", "swap_writepage", "swapin_readahead", "try_to_free_swap",
    "try_to_merge_one_page", "try_to_unmap", "try_to_unmap_ksm", "try_to_unuse",
    "unstable_tree_search_insert", "unuse_mm", "unuse_pte", "unuse_pte_range", "unuse_vma",
    "write_protect_page",
)  # fmt: skip

_PRCTLS = {"memory_merge": 67}  # PR_SET_MEMORY_MERGE

#: A node that no machine has: what a scenario's machine does not have either.
_NO_NODE = 63

#: How often a scenario is begun again because ksmd went on for a scan too many.
_TRIES = 5


class _Overshot(Exception):
    """ksmd did more full scans than asked for: noise of a busy host."""


@dataclass
class _Outcome:
    code: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


S = TypeVar("S", bound=st.Statement)
_Handler = Callable[["_Run", Any], "_Outcome | Reply | None"]
_HANDLERS: dict[type[st.Statement], _Handler] = {}


def _does(cls: type[S]) -> Callable[[Callable[[_Run, S], _Outcome | Reply | None]], Any]:
    def note(handler: Callable[[_Run, S], _Outcome | Reply | None]) -> Any:
        _HANDLERS[cls] = handler
        return handler

    return note


class Recorder:
    """Records scenarios over a link. Sets the machine up (``settings``) when it is made."""

    def __init__(
        self,
        link: Link,
        *,
        statement_seconds: float = 120.0,
        hello_seconds: float = 120.0,
        settings: Sequence[tuple[str, str]] = MACHINE_SETTINGS,
    ) -> None:
        self.link = link
        self.seconds = statement_seconds
        self.facts = facts_of(link.ask_fine("hello", hello_seconds))
        for path, value in settings:
            link.ask(f"set {path} {value}", self.seconds)
        link.ask(f"calls {' '.join(CALLS)}", self.seconds)

    @property
    def kernel(self) -> str:
        """The kernel's version without what a distribution adds to it."""
        return self.facts.release.partition("-")[0].partition("+")[0]

    def record(self, scenario: st.Scenario, profile: str | None = None) -> dict[str, Any]:
        """The kernel's answer to a scenario; :class:`InputError` for one it cannot be asked."""
        refuse_model_only(scenario)
        for _ in range(_TRIES):
            run = _Run(self, scenario)
            results: list[dict[str, Any]] | None = None
            with contextlib.suppress(_Overshot):
                results = run.all()
            if run.most_swap >= noise.SLOTS_SET_ASIDE:
                self._no_slots_aside()
            if results is not None:
                head = {"engine": "kernel", "profile": profile, "kernel": self.kernel}
                return head | {"contract": CONTRACT, "results": results}
        raise RecorderError(f"{scenario.filename}: ksmd outran the recorder {_TRIES} times")

    def _no_slots_aside(self) -> None:
        """One page goes to a small area, so that the next scenario's slots are dealt one by one."""
        page = "0 100000000 1"
        for request in ("swapon 0 16 -1", "spawn 0", f"mmap {page} -1", f"write {page} 1 0"):
            self.link.ask(request, self.seconds)
        self.link.ask(f"swapout 1 {page} {page}", self.seconds)
        self.link.ask("reset", self.seconds)


def refuse_model_only(scenario: st.Scenario) -> None:
    """:class:`InputError` for statements that only engines know."""
    for statement in scenario.body:
        ours = (isinstance(statement, st.Pin) and statement.how is not None) or (
            isinstance(statement, st.Mprotect) and statement.prot == "sealed"
        )
        if type(statement) not in _HANDLERS or ours:
            what = statement if ours else statement.op
            place = f"{scenario.filename}:{statement.line}:1"
            raise InputError(
                f"{place}: '{what}' is for engines only, expected a statement that a"
                " kernel can carry out"
            )


class _Run:
    """One scenario under way. A process's pid is its number at the agent."""

    def __init__(self, recorder: Recorder, scenario: st.Scenario) -> None:
        self.link = recorder.link
        self.facts = recorder.facts
        self.seconds = recorder.seconds
        self.scenario = scenario
        self.nodes = scenario.machine.nodes
        self.world = World()
        self.area_numbers: dict[str, int] = {}
        self.area_pages: dict[str, int] = {}
        self.most_swap = 0  #: pages of all areas that were on at the same time

    def all(self) -> list[dict[str, Any]]:
        if self.nodes > self.facts.nodes:
            raise RecorderError(
                f"{self.scenario.filename}: wants {self.nodes} memory nodes, the machine has"
                f" {self.facts.nodes}"
            )
        self._reset()
        results = [self._step(statement) for statement in self.scenario.body]
        self.ask("reset")
        return results

    def ask(self, request: str) -> Reply:
        return self.link.ask(request, self.seconds)

    def _reset(self) -> None:
        self.link.ask_fine("reset", self.seconds)
        for key, value in KSM_SETTINGS:
            self.ask(f"set /sys/kernel/mm/ksm/{key} {value}")
        self.begin = Observed(self.ask("observe"), self.facts)

    def _step(self, statement: st.Statement) -> dict[str, Any]:
        try:
            said = _HANDLERS[type(statement)](self, statement)
        except MachineError as error:
            said = _Outcome(error.errno or errno.EIO)
        if isinstance(said, Reply):
            said = _Outcome(said.code, _time_and_calls(said))
        outcome = said or _Outcome()
        if outcome.code == errno.EOWNERDEAD:
            raise RecorderError(
                f"{self.scenario.filename}:{statement.line}: the process was killed, expected"
                " a scenario that fits into the machine's memory"
            )
        label = getattr(statement, "label", None)
        head: dict[str, Any] = {"line": statement.line, "op": statement.op}
        if label is not None:
            head["label"] = label
        name = errno_name(outcome.code) if outcome.code else None
        return head | {"errno": name} | outcome.extra

    def on(self, op: str, span: Span, *words: object) -> Reply:
        """A request about pages of a process."""
        text = " ".join([op, _span(span), *map(str, words)])
        return self.ask(text)

    def free_number(self) -> int:
        taken = {process.pid for process in self.world.processes.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def spans(self) -> Iterator[Span]:
        """Every region of every process."""
        for process in self.world.processes.values():
            for each in process.regions.values():
                yield Span(process, each.addr, each.npages)


def _span(span: Span) -> str:
    return f"{span.pid} {span.addr:x} {span.npages}"


def _time_and_calls(reply: Reply) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if words := reply.words("ms"):
        extra["ms"] = float(words[0])
    if any(line[0] == "counted" for line in reply.lines):
        extra["calls"] = {line[1]: int(line[2]) for line in reply.lines if line[0] == "calls"}
    return extra


def _observation(run: _Run) -> dict[str, Any]:
    spans = list(run.spans())
    seen = Observed(run.ask(" ".join(["observe", *map(_span, spans)])), run.facts)
    shape = Shape(Classes(), Classes(), run.nodes >= 2, run.facts.ksm_flag, ksm_pages=False)
    processes: dict[str, Any] = {}
    for process in run.world.processes.values():
        regions = processes[process.name] = {}
        for each in process.regions.values():
            span = Span(process, each.addr, each.npages)
            regions[each.name] = region(seen.infos(span), shape)
            merged = seen.ksm_pages(span)
            if merged is not None:
                regions[each.name]["ksm_pages"] = merged
    answer: dict[str, Any] = {"processes": processes, "ksm": ksm_counts(seen, run.begin)}
    stat = {
        process.name: countable(seen.ksm_stat[process.pid])
        for process in run.world.processes.values()
        if process.pid in seen.ksm_stat
    }
    if stat:
        answer["ksm_stat"] = stat
    areas = run.area_numbers.items()
    answer["swap"] = {name: {"used": seen.used.get(number, 0)} for name, number in areas}
    answer["swapcached"] = max(0, seen.swapcached - run.begin.swapcached)
    answer["vmstat"] = {
        name: seen.vmstat[name] - run.begin.vmstat.get(name, 0)
        for name in VMSTAT
        if name in seen.vmstat
    }
    return answer


@_does(st.Spawn)
def _spawn(run: _Run, statement: st.Spawn) -> Reply:
    run.world.new_process(statement.process)
    number = run.free_number()
    reply = run.ask(f"spawn {number}")
    if not reply.code:
        run.world.processes[statement.process] = Process(statement.process, number)
    return reply


@_does(st.Mmap)
def _mmap(run: _Run, statement: st.Mmap) -> Reply:
    process = run.world.process(statement.process)
    run.world.new_region(process, statement.region)
    addr = process.next_addr(statement.npages)
    node = statement.node if statement.node < run.nodes else _NO_NODE
    reply = run.on("mmap", Span(process, addr, statement.npages), node)
    if not reply.code:
        process.add(statement.region, addr, statement.npages)
    return reply


@_does(st.Write)
def _write(run: _Run, statement: st.Write) -> Reply:
    span = run.world.span(statement.process, statement.pages)
    return run.on("write", span, statement.value.base, int(statement.value.step))


@_does(st.Poke)
def _poke(run: _Run, statement: st.Poke) -> Reply:
    span = run.world.span(statement.process, statement.page)
    return run.ask(f"poke {span.pid} {span.addr + statement.offset:x} {statement.byte}")


@_does(st.Read)
def _read(run: _Run, statement: st.Read) -> _Outcome:
    reply = run.on("read", run.world.span(statement.process, statement.pages))
    crcs = [None if word == "-" else word for word in reply.words("crc")]
    return _Outcome(reply.code, {"crc": crcs})


@_does(st.Fork)
def _fork(run: _Run, statement: st.Fork) -> Reply:
    parent = run.world.process(statement.process)
    run.world.new_process(statement.child)
    number = run.free_number()
    reply = run.ask(f"fork {parent.pid} {number}")
    if not reply.code:
        run.world.fork(parent, statement.child, number)
    return reply


@_does(st.Exit)
def _exit(run: _Run, statement: st.Exit) -> Reply:
    reply = run.ask(f"exit {run.world.process(statement.process).pid}")
    del run.world.processes[statement.process]
    return reply


@_does(st.Munmap)
def _munmap(run: _Run, statement: st.Munmap) -> Reply:
    return run.on("munmap", run.world.span(statement.process, statement.pages))


@_does(st.Mremap)
def _mremap(run: _Run, statement: st.Mremap) -> Reply:
    span = run.world.span(statement.process, statement.pages)
    addr = run.world.destination(span, statement.to)
    reply = run.on("mremap", span, f"{addr:x}")
    if not reply.code and isinstance(statement.to, str):
        span.process.add(statement.to, addr, span.npages)
    return reply


@_does(st.Madvise)
def _madvise(run: _Run, statement: st.Madvise) -> Reply:
    span = run.world.span(statement.process, statement.pages)
    return run.on("madvise", span, ADVICE[statement.advice])


@_does(st.Mprotect)
def _mprotect(run: _Run, statement: st.Mprotect) -> Reply:
    span = run.world.span(statement.process, statement.pages)
    return run.on("mprotect", span, PROT[statement.prot])


@_does(st.Mlock)
def _mlock(run: _Run, statement: st.Mlock) -> Reply:
    return run.on("mlock", run.world.span(statement.process, statement.pages))


@_does(st.Munlock)
def _munlock(run: _Run, statement: st.Munlock) -> Reply:
    return run.on("munlock", run.world.span(statement.process, statement.pages))


@_does(st.Migrate)
def _migrate(run: _Run, statement: st.Migrate) -> _Outcome:
    span = run.world.span(statement.process, statement.pages)
    node = statement.node if statement.node < run.nodes else _NO_NODE
    reply = run.on("migrate", span, node)
    status = [int(word) for word in reply.words("status")]
    named = [errno_name(-each) if each < 0 else each for each in status]
    return _Outcome(reply.code, {"status": named} | _time_and_calls(reply))


@_does(st.Pin)
def _pin(run: _Run, statement: st.Pin) -> Reply:
    return run.on("pin", run.world.span(statement.process, statement.pages))


@_does(st.Unpin)
def _unpin(run: _Run, statement: st.Unpin) -> Reply:
    return run.on("unpin", run.world.span(statement.process, statement.pages))


@_does(st.Swapon)
def _swapon(run: _Run, statement: st.Swapon) -> Reply:
    if statement.area in run.area_numbers:
        raise MachineError(errno.EEXIST, f"area {statement.area}")
    taken = set(run.area_numbers.values())
    number = next(k for k in range(len(taken) + 1) if k not in taken)
    if number >= run.facts.areas:
        raise RecorderError(
            f"{run.scenario.filename}:{statement.line}: one swap area more than the machine's"
            f" {run.facts.areas}"
        )
    reply = run.ask(f"swapon {number} {statement.npages} {statement.priority}")
    if not reply.code:
        run.area_numbers[statement.area] = number
        run.area_pages[statement.area] = statement.npages
        run.most_swap = max(run.most_swap, sum(run.area_pages.values()))
    return reply


@_does(st.Swapoff)
def _swapoff(run: _Run, statement: st.Swapoff) -> Reply:
    if statement.area not in run.area_numbers:
        raise MachineError(errno.EINVAL, f"area {statement.area}")
    reply = run.ask(f"swapoff {run.area_numbers[statement.area]}")
    if not reply.code:
        del run.area_numbers[statement.area]
        del run.area_pages[statement.area]
    return reply


@_does(st.Swapout)
def _swapout(run: _Run, statement: st.Swapout) -> Reply:
    named: list[Span] = []
    if statement.process is not None and statement.pages is not None:
        named.append(run.world.span(statement.process, statement.pages))
    spans = [*named, *run.spans()]
    return run.ask(" ".join(["swapout", str(len(named)), *map(_span, spans)]))


@_does(st.Ksm)
def _ksm_settings(run: _Run, statement: st.Ksm) -> _Outcome:
    """All are tried in order, the first error is the statement's."""
    first, extra = 0, dict[str, Any]()
    for setting in statement.settings:
        reply = run.ask(f"ksm {setting.key} {setting.value}")
        first = first or reply.code
        said = _time_and_calls(reply)
        extra["ms"] = round(extra.get("ms", 0.0) + said.get("ms", 0.0), 1)
        if "calls" in said:
            calls = extra.setdefault("calls", {})
            for name, count in said["calls"].items():
                calls[name] = calls.get(name, 0) + count
    return _Outcome(first, extra)


@_does(st.Scan)
def _scan(run: _Run, statement: st.Scan) -> _Outcome:
    reply = run.ask(f"scan {statement.count}")
    scans = reply.number("scans")
    if scans > statement.count:
        raise _Overshot
    return _Outcome(reply.code, {"scans": scans} | _time_and_calls(reply))


@_does(st.Prctl)
def _prctl(run: _Run, statement: st.Prctl) -> Reply:
    process = run.world.process(statement.process)
    return run.ask(f"prctl {process.pid} {_PRCTLS[statement.what]} {statement.value} 0 0")


@_does(st.ClearRefs)
def _clear_refs(run: _Run, statement: st.ClearRefs) -> Reply:
    return run.ask(f"clear_refs {run.world.process(statement.process).pid} {statement.what}")


@_does(st.Sleep)
def _sleep(run: _Run, statement: st.Sleep) -> Reply:
    seconds = run.seconds + statement.ms / 1000
    return run.link.ask(f"sleep {statement.ms}", seconds)


@_does(st.Observe)
def _observe(run: _Run, statement: st.Observe) -> _Outcome:
    return _Outcome(0, {"observation": _observation(run)})
