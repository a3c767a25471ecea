"""What came out, for programs and for people.

The JSON of ``pyksm swapoff``, ``estimate`` and ``capture`` (keys are stable; sizes in pages
unless the name says bytes, times in seconds)::

    version      1
    command      "swapoff", "estimate" or "capture"
    source       kind       "own", "pids", "files" or "mixed"
                 targets    as given
                 processes  [{pid, name, ppid, ptes, zero_ptes, swapped, vmas,
                              excluded: {reason: pages}}]
                 ptes, distinct_pages      anonymous ptes; different contents among them
                 notes      [text]: what was not seen and why
    machine      engine, frames, profile                             swapoff, estimate
    sharing      frames, ptes, ptes_rebuilt                          swapoff, estimate
    ksm          fields of pyksm.jobs.swapoff.Merged                 swapoff, estimate
    policies     {policy: fields of pyksm.jobs.swapoff.PolicyResult} swapoff
    fine         every swapoff ended well and changed no byte        swapoff
    image        path, bytes                                         capture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pyksm.jobs.swapoff import Merged, PolicyResult, Result
from pyksm.targets.memory import EXCLUDED, PAGE_SIZE, Memory

VERSION = 1

#: Counts that not every kernel has, said where there are any.
_IF_ANY = ("ksm_zero_pages", "stable_node_chains", "stable_node_dups")

#: Rows of the table of policies: what people read, and the field.
_ROWS = (
    ("result", "errno"),
    ("processes", "processes"),
    ("ptes in swap", "ptes"),
    ("slots in use", "slots"),
    ("KSM pages shared", "pages_shared"),
    ("KSM pages sharing", "pages_sharing"),
    ("saved by KSM", "bytes_saved"),
    ("page reads", "page_reads"),
    ("  of them re-reads", "page_rereads"),
    ("page writes", "page_writes"),
    ("copies", "copies"),
    ("ptes visited", "ptes_visited"),
    ("frames free before", "frames_free"),
    ("frames at the peak", "frames_peak"),
    ("frames shared at the end", "shared_frames_after"),
    ("  ptes that share them", "shared_ptes_after"),
    ("  KSM pages among them", "ksm_frames_after"),
    ("ptes left in swap", "swapped_ptes_after"),
    ("pages verified", "pages_verified"),
    ("every byte as before", "unchanged"),
    ("time of swapoff", "seconds"),
)


def source_json(memory: Memory, kind: str, targets: Sequence[str]) -> dict[str, Any]:
    """The "source" of the JSON."""
    return {
        "kind": kind,
        "targets": list(targets),
        "processes": [
            {
                "pid": p.pid,
                "name": p.name,
                "ppid": p.ppid,
                "ptes": len(p.vpn),
                "zero_ptes": len(p.zero_vpn),
                "swapped": p.swapped,
                "vmas": len(p.vmas),
                "excluded": p.excluded,
            }
            for p in memory.processes
        ],
        "ptes": memory.ptes,
        "distinct_pages": memory.distinct,
        "notes": memory.notes,
    }


def result_json(
    command: str, source: dict[str, Any], engine: str, result: Result
) -> dict[str, Any]:
    """The JSON of swapoff and estimate."""
    answer: dict[str, Any] = {
        "version": VERSION,
        "command": command,
        "source": source,
        "machine": {
            "engine": engine,
            "frames": result.machine_frames,
            "profile": result.profile,
        },
        "sharing": asdict(result.sharing),
        "ksm": asdict(result.merged),
    }
    if command == "swapoff":
        answer["policies"] = {p.policy: asdict(p) for p in result.policies}
        answer["fine"] = result.fine
    return answer


def capture_json(source: dict[str, Any], path: str, size: int) -> dict[str, Any]:
    """The JSON of capture."""
    image = {"path": path, "bytes": size}
    return {"version": VERSION, "command": "capture", "source": source, "image": image}


# -------------------------------------------------------------------------------- for people


def size_of(count: int) -> str:
    """Bytes as people read them."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("not reached")


def print_source(out: Console, memory: Memory) -> None:
    """The processes, what was left out, and what the user should know."""
    table = Table("PID", "name", box=None, pad_edge=False)
    for title in ("anon ptes", "zero ptes", "were in swap", "left out"):
        table.add_column(title, justify="right")
    for p in memory.processes:
        numbers = (len(p.vpn), len(p.zero_vpn), p.swapped, sum(p.excluded.values()))
        table.add_row(str(p.pid), _plain(p.name), *(f"{n:,}" for n in numbers))
    out.print(table)
    out.print(
        f"{memory.ptes:,} private anonymous pages ({size_of(memory.ptes * PAGE_SIZE)}), "
        f"{memory.distinct:,} different contents"
    )
    for reason, pages in _excluded(memory).items():
        out.print(f"left out: {pages:,} {EXCLUDED[reason]}", markup=False)
    for note in memory.notes:
        out.print(f"note: {printable(note)}", markup=False)


def _excluded(memory: Memory) -> dict[str, int]:
    totals: dict[str, int] = {}
    for process in memory.processes:
        for reason, pages in process.excluded.items():
            totals[reason] = totals.get(reason, 0) + pages
    return totals


def printable(text: str) -> str:
    """A text from outside, without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _plain(text: str) -> str:
    """The same where rich looks for markup."""
    return escape(printable(text))


def print_sharing(out: Console, result: Result) -> None:
    """Sharing through fork, where there is any."""
    s = result.sharing
    if s.frames:
        out.print(
            f"shared through fork: {s.frames:,} frames mapped by {s.ptes:,} ptes, "
            f"rebuilt for {s.ptes_rebuilt:,} of them"
        )


def print_merged(out: Console, merged: Merged) -> None:
    """What KSM makes of it: the whole and each process."""
    table = Table("PID", "name", box=None, pad_edge=False)
    for title in ("anon ptes", "mergeable", "on KSM pages", "profit"):
        table.add_column(title, justify="right")
    for p in merged.processes:
        numbers = (f"{n:,}" for n in (p.ptes, p.mergeable_ptes, p.ksm_ptes))
        table.add_row(str(p.pid), _plain(p.name), *numbers, size_of(p.profit))
    out.print(table)
    rows = (
        ("pages_shared", f"{merged.pages_shared:,}"),
        ("pages_sharing", f"{merged.pages_sharing:,}"),
        ("pages_unshared", f"{merged.pages_unshared:,}"),
        ("pages_volatile", f"{merged.pages_volatile:,}"),
        *((name, f"{merged.counts[name]:,}") for name in _IF_ANY if merged.counts.get(name)),
        ("saved (pages_sharing)", size_of(merged.bytes_saved)),
        ("general profit", size_of(merged.general_profit)),
        ("frames in use", f"{merged.frames_before:,} before, {merged.frames_after:,} after"),
        ("full scans", f"{merged.full_scans}{'' if merged.settled else ' (not settled)'}"),
    )
    totals = Table.grid(padding=(0, 2))
    for name, value in rows:
        totals.add_row(name, value)
    out.print(totals)


def print_policies(out: Console, results: Sequence[PolicyResult]) -> None:
    """The policies side by side."""
    table = Table("swapoff", box=None, pad_edge=False)
    for result in results:
        table.add_column(result.policy, justify="right")
    for title, name in _ROWS:
        table.add_row(title, *(_cell(name, result) for result in results))
    out.print(table)


def _cell(name: str, result: PolicyResult) -> str:
    value = getattr(result, name)
    if name == "errno":
        return f"failed: {value}" if value else "done"
    if name == "bytes_saved":
        return size_of(value)
    if name == "seconds":
        return f"{value['swapoff']:.3f} s"
    if name == "unchanged":
        if value:
            return "yes"
        return f"NO: {result.pages_different:,} differ, {result.pages_unread:,} unread"
    return f"{value:,}"
