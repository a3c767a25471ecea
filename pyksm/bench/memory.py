"""Memory of the host: what a population needs, what there is, what was used."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from pyksm.bench.settings import Settings, Shape, shape
from pyksm.core import object_size
from pyksm.errors import InputError

_TABLE_ROOM = 1.01  #: tables above the last level, pools not quite full
_CHUNK = 48 << 20  #: contents on their way in, status of pages on its way out
_PYTHON = 32 << 20
#: pids, vmas, anon_vmas and the tables of a process that has few pages
_PROCESS = 24 << 10
#: The oracle's objects and dictionaries, beside the contents.
_ORACLE_FRAME = 1200
_ORACLE_SLOT = 600


@dataclass(frozen=True)
class Use:
    """Bytes: at the peak, above what the process had before, and of those not page contents."""

    peak_bytes: int
    machine_bytes: int
    beside_pages_bytes: int


def needed(settings: Settings, at: Shape) -> int:
    """Bytes that the host's memory must hold at a time for this population."""
    frames, slots = frames_of(settings, at), slots_of(settings, at)
    if settings.engine == "oracle":
        each = _ORACLE_FRAME + at.page_bytes
        return _PYTHON + at.ptes * _ORACLE_FRAME + frames * each + slots * (_ORACLE_SLOT + 4096)
    slot = object_size("slot") + object_size("swap_entry")
    size: float = frames * (at.page_bytes + object_size("page"))
    size += at.ptes * object_size("pte") * _TABLE_ROOM
    size += slots * (slot + (at.page_bytes if settings.backend == "memory" else 0))
    if at.kind == "ksm":
        size += at.ptes * object_size("rmap_item") + at.contents * object_size("stable_node")
    return int(size) + at.procs * _PROCESS + _CHUNK + _PYTHON


def frames_of(settings: Settings, at: Shape) -> int:
    """Page frames that the work uses at most."""
    again = settings.what == "fault" and at.kind == "distinct"  # the children's copies
    return at.frames * 2 if again else at.frames


def slots_of(settings: Settings, at: Shape) -> int:
    """Slots that the work uses."""
    if settings.what == "swapoff":
        return at.contents
    return at.ptes if settings.what in ("rmap", "walk") else 0


def available(root: str = "/") -> int:
    """Bytes that can be had without swapping: of the host, and of the cgroups that we are in."""
    found = [_meminfo(root), *_cgroups(root)]
    return min(each for each in found if each is not None)


def _meminfo(root: str) -> int:
    with open(os.path.join(root, "proc/meminfo"), encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62  # a kernel before 3.14 does not say


def _cgroups(root: str) -> list[int]:
    """What is left in each memory cgroup on our way to the root."""
    left = []
    with contextlib.suppress(OSError):
        text = Path(root, "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            number, names, path = line.split(":", 2)
            if number == "0" and not names:
                files = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
            elif "memory" in names.split(","):
                files = (
                    "sys/fs/cgroup/memory",
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                )
            else:
                continue
            at = Path(root, files[0], path.lstrip("/"))
            top = Path(root, files[0])
            while True:
                if (room := _left(at, *files[1:])) is not None:
                    left.append(room)
                if at == top or top not in at.parents:
                    break
                at = at.parent
    return left


def _left(group: Path, most: str, current: str, droppable: str) -> int | None:
    """Bytes until a group's limit, page cache that can go counted as free; None: no limit."""
    try:
        limit = int((group / most).read_text())
        used = int((group / current).read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith(droppable + " "):
                used -= int(line.split()[1])
    except (OSError, ValueError):  # "max", or the group of somebody else's namespace
        return None
    return max(0, limit - used)


def gib(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"


def rounded(count: int) -> str:
    """A number of ptes, three digits, never more than it is."""
    if count < 100_000:
        return str(count)
    digits = len(str(count)) - 3
    return f"{count // 10**digits / 100:.3g}e{digits + 2}"


def refuse(settings: Settings, room: int | None = None) -> None:
    """InputError where the largest population does not fit, with what would."""
    room = available() if room is None else room
    at = max(settings.shapes, key=lambda each: needed(settings, each))
    wanted = needed(settings, at)
    if wanted <= room:
        return
    fits = _largest(settings, at, room)
    would = f"--ptes {rounded(fits)} would fit" if fits else "no number of them would fit"
    raise InputError(
        f"--ptes {rounded(at.ptes)} needs about {gib(wanted)}, {gib(room)} are available; {would}"
    )


def _largest(settings: Settings, at: Shape, room: int) -> int:
    """The most ptes that fit, 0 for none."""
    low, high = 0, at.ptes
    while high - low > 1:
        middle = (low + high) // 2
        try:
            tried = shape(
                middle,
                at.procs,
                at.kind,
                middle if settings.what == "rmap" else at.sharing,
                at.page_bytes,
            )
        except InputError:  # too few for so many processes
            low = middle
            continue
        low, high = (middle, high) if needed(settings, tried) <= room else (low, middle)
    return low if low >= max(at.procs, 1) else 0


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def begin() -> int:
    """Give back what was freed, forget the peak so far; bytes that the process has now."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return status("VmRSS")


def used(since: int, page_bytes: int, pages: int) -> Use:
    """What was used at most since :func:`begin`, with so many pages of contents in it."""
    peak = status("VmHWM")
    machine = max(0, peak - since)
    return Use(peak, machine, machine - pages * page_bytes)
