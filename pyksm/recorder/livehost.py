"""Whether a live machine may be used for recording, and the knobs that a recording turns.

Looked at before anything is changed: who uses swap or KSM already would be disturbed by us, and
would disturb what we record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pyksm.errors import InputError
from pyksm.recorder.livestate import Guard, active_swaps, read_knob

_KSM_COUNTS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


@dataclass(frozen=True)
class Host:
    """Where the files of a machine are; another ``root`` is a tree made for a test."""

    root: str = "/"

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    @property
    def ksm(self) -> str:
        return self.path("sys/kernel/mm/ksm")


def require_root() -> None:
    """InputError for everybody else."""
    if os.geteuid() != 0:
        raise InputError("live: needs root (it turns knobs of this machine's KSM and swap)")


def require_idle_ksm(host: Host) -> None:
    """InputError where the kernel has no KSM, or somebody uses it."""
    try:
        run = read_knob(f"{host.ksm}/run")
    except FileNotFoundError:
        raise InputError("live: this kernel has no KSM (/sys/kernel/mm/ksm is not there)") from None
    except OSError as exc:
        raise InputError(f"live: {host.ksm}/run: {exc.strerror}") from None
    if run != "0":
        raise InputError(f"live: KSM is at work here (run is {run}); expected it stopped (0)")
    for name in _KSM_COUNTS:
        if (count := read_knob(f"{host.ksm}/{name}")) != "0":
            raise InputError(f"live: KSM is in use here ({name} is {count}); expected 0")
    for pid, name in mergeable(host):
        raise InputError(
            f"live: PID {pid} ({name}) has memory advised mergeable, which our scans would merge "
            "with ours; expected no such process"
        )


def require_no_swap(host: Host) -> None:
    """InputError where a swap area is in use, or there can be none."""
    try:
        areas = active_swaps(host.path("proc/swaps"))
    except FileNotFoundError:
        raise InputError("live: this kernel has no swap (/proc/swaps is not there)") from None
    if areas:
        raise InputError(f"live: swap is in use by others ({areas[0]}); expected none (swapoff -a)")


def mergeable(host: Host) -> Iterator[tuple[int, str]]:
    """The processes with mergeable memory: pid and name."""
    proc = host.path("proc")
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        try:
            if _is_mergeable(f"{proc}/{pid}"):
                yield pid, read_knob(f"{proc}/{pid}/comm")
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile


def _is_mergeable(process: str) -> bool:
    try:
        with open(f"{process}/ksm_stat", encoding="ascii") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    if "ksm_mergeable:" in text:  # 6.16 on
        return "ksm_mergeable: yes" in text
    with open(f"{process}/smaps", encoding="utf-8", errors="replace") as file:
        return any(line.startswith("VmFlags:") and " mg" in line for line in file)


def memory_nodes(host: Host) -> int:
    """How many nodes have memory."""
    try:
        text = read_knob(host.path("sys/devices/system/node/has_memory"))
    except OSError:
        return 1  # a kernel without CONFIG_NUMA
    ranges = (part.partition("-") for part in text.split(",") if part)
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges) or 1


def keep_ksm(guard: Guard, host: Host) -> None:
    """All of KSM's knobs are put back, and whatever is merged by then is unmerged before."""
    names = [n for n in sorted(os.listdir(host.ksm)) if _writable(f"{host.ksm}/{n}")]
    names.sort(key=lambda name: name != "run")  # noted first: put back last
    for name in names:
        guard.keep(f"{host.ksm}/{name}")
    if "advisor_mode" in names:  # while there is one, pages_to_scan is its own
        guard.on_the_way(f"{host.ksm}/advisor_mode", "none")
    guard.on_the_way(f"{host.ksm}/run", "2")


def _writable(path: str) -> bool:
    # os.access says yes to root for everything.
    return bool(os.stat(path).st_mode & 0o200)
