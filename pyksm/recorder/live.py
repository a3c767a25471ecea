"""Recording on the kernel at hand: the agent as a child, and everything it needs put up for it.

Everything is asked first and put back last (:mod:`.livestate`): knobs of KSM and of the machine,
swap areas, a memory cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pyksm.errors import InputError
from pyksm.recorder import agent, livehost, liveswap
from pyksm.recorder.link import Link, RecorderError
from pyksm.recorder.livehost import Host
from pyksm.recorder.livestate import JOURNAL, Guard, read_knob, write_knob
from pyksm.recorder.recorder import Recorder
from pyksm.scenario import statements as st

AREAS = 4

#: How long to wait for others who have come to use KSM.
_ALONE_SECONDS = 60.0

#: Settings of the machine that a recording needs and that cannot be had for its own memory alone.
#: (Huge pages can: the agent declines them. So can swappiness in a cgroup v1.)
MACHINE_SETTINGS = (
    ("/proc/sys/vm/page-cluster", "0"),
    ("/proc/sys/vm/swappiness", "100"),
    ("/sys/kernel/mm/lru_gen/enabled", "0"),
    ("/proc/sys/kernel/numa_balancing", "0"),
    ("/sys/module/zswap/parameters/enabled", "N"),
)


@dataclass(frozen=True)
class Options:
    """How to record here. ``swap``: a kind of :data:`.liveswap.KINDS`."""

    swap: str = "file"
    directory: str = "/var/tmp"  #: of swap files
    areas: int = AREAS
    area_pages: int = 16384
    statement_seconds: float = 120.0
    journal: str = JOURNAL


def changes(options: Options) -> list[str]:
    """What is going to be changed on this machine, for the user: a line each."""
    host = Host()
    knobs = [path for path, _ in MACHINE_SETTINGS if os.path.exists(path)]
    size = options.areas * options.area_pages * 4096 >> 20
    return [
        f"KSM: every knob of {host.ksm}; ksmd runs",
        f"swap: {options.areas} areas, {size} MiB together, {liveswap.KINDS[options.swap]}",
        f"memory cgroup: {_group_directory()}",
        *(f"{path}: {read_knob(path)}, while recording {_wanted(path)}" for path in knobs),
        f"all of it is put back at the end; until then {options.journal} says how "
        "(pyksm record --restore, should everything else fail)",
    ]


def _wanted(path: str) -> str:
    return dict(MACHINE_SETTINGS)[path]


def check() -> None:
    """InputError where this machine may not be recorded on."""
    host = Host()
    livehost.require_root()
    livehost.require_no_swap(host)
    livehost.require_idle_ksm(host)
    _group_directory()


class LiveRecorder(Recorder):
    """A recorder that knows that it may not be alone."""

    def record(self, scenario: st.Scenario, profile: str | None = None) -> dict[str, Any]:
        """As the recorder's, but once more where somebody else's memory was merged with ours."""
        host = Host()
        deadline = time.monotonic() + _ALONE_SECONDS
        while True:
            before = list(livehost.mergeable(host))
            answer = super().record(scenario, profile)
            strangers = before or list(livehost.mergeable(host))  # ours are gone by now
            if not strangers:
                return answer
            if time.monotonic() > deadline:
                pid, name = strangers[0]
                raise RecorderError(
                    f"{scenario.filename}: PID {pid} ({name}) has had memory advised mergeable "
                    "meanwhile, expected nobody else to use KSM"
                )
            time.sleep(0.5)


@dataclass
class Live:
    """This machine, ready to record: a context manager whose ``recorder`` records."""

    options: Options = field(default_factory=Options)
    recorder: Recorder = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Live:
        check()
        program = agent.program()
        with self._stack:
            guard = self._stack.enter_context(Guard(self.options.journal))
            group = _set_up(guard)
            areas = liveswap.make(guard, self._stack, self.options)
            link = self._start(guard, str(program))
            for area in areas:
                link.ask_fine(f"area {area}", 10)
            link.ask_fine(f"group {group}", 10)
            self._try_swap(link)
            self.recorder = LiveRecorder(
                link, statement_seconds=self.options.statement_seconds, settings=()
            )
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _start(self, guard: Guard, program: str) -> Link:
        # A session of its own, which the guard ends; and it ends with its input.
        process = subprocess.Popen(
            [program, "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        guard.session(process.pid)
        self._stack.callback(_end, process)
        # One CPU, a lower one of node 0 most likely: what others have in their per-CPU lists of
        # pages is out of reclaim's reach.
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        link = Link(os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()), self._why_dead)
        self._stack.callback(link.close)
        process.stdin.close()
        process.stdout.close()
        return link

    def _try_swap(self, link: Link) -> None:
        """RecorderError now where nothing can be swapped on: else scenarios would say so."""
        try:
            link.ask_fine("swapon 0 10 -1", self.options.statement_seconds)
            link.ask_fine("swapoff 0", self.options.statement_seconds)
        except RecorderError as error:
            raise RecorderError(
                f"live: no swap on {liveswap.KINDS[self.options.swap]}: {error}; expected another "
                "--swap or --swap-dir"
            ) from None

    def _why_dead(self) -> str:
        status = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(0.5)
        if status is None:
            return "the agent still runs"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the agent ended with {how}"


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _set_up(guard: Guard) -> str:
    """Knobs and the memory cgroup; its directory."""
    livehost.keep_ksm(guard, Host())
    group = _make_group(guard)
    own = f"{group}/memory.swappiness"  # v1
    for path, value in MACHINE_SETTINGS:
        if not os.path.exists(path):
            continue
        if path.endswith("swappiness") and os.path.exists(own):
            write_knob(own, value)
        else:
            guard.set(path, value)
    return group


def _make_group(guard: Guard) -> str:
    directory = _group_directory()
    parent = os.path.dirname(directory)
    control = f"{parent}/cgroup.subtree_control"  # v2
    if os.path.exists(control) and "memory" not in _words(control):
        guard.on_the_way(control, "-memory")
        write_knob(control, "+memory")
    guard.directory(directory)
    os.mkdir(directory)
    return directory


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _group_directory() -> str:
    """Where the memory cgroup will be, v2 or v1. InputError where there can be none."""
    name = f"pyksm-live-{os.getpid()}"
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split() for line in file]
    for _, where, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return f"{where}/{name}"
        if kind == "cgroup2" and "memory" in _words(f"{where}/cgroup.controllers"):
            return f"{where}/{name}"
    raise InputError("live: no memory cgroup is mounted, v1 or v2; expected one to make a group in")
