"""What came out, for programs and for people.

The JSON of ``pyksm bench`` (keys are stable; a number's unit is in its name)::

    version      1
    command      "bench"
    what         "swapoff", "scan", "fault", "fork", "rmap" or "walk"
    interrupted  whether runs or repetitions are missing
    machine      cpu, cores, memory_bytes, last_level_cache_bytes, os, kernel, python, pyksm,
                 date (UTC, ISO 8601)
    limits       fields of pyksm.bench.limits.Limits: the better of a measurement before the work
                 and one after it (interrupted: the first); null where interrupted before
    limits_apart the factor by which the two differ at most: far from 1 the host was not quiet
    settings     engine, kind, procs, sharing, page_bytes, backend, repeat (null: by size),
                 touched (what the clock never sees)
    runs         a part of the work at one size in one series each:
                 series, part, profile, policy ("per-mm" where swapoff goes so), walk, transfer,
                 threads, ptes, contents, repetitions, unit, units,
                 ns_median, ns_min, ns_max, ns_all, cpu_ns_median,
                 ns_per_<unit>           the median for one unit
                 <unit>s_per_s           and how many a second
                 times_limit             {memcpy, memcpy_in_order, read, read_bytes, chase}: how
                                         many times as long as the moving and reading alone would
                                         take at the limits; those that there is anything of
                 counters, vmstat        work of the timed part; the same in each repetition
                 facts                   of the population and the result
                 memory                  peak_bytes of the process; machine_bytes of those the
                                         population's, beside_pages_bytes without page contents,
                                         and both per pte
    fit          a series and part each, of sweeps: series, part, of ("ns" or a counter; of one
                 where the part is walks or lookups of the same kind, else of all the work),
                 exponent, exponent_stderr (null: two points), factor, points
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.table import Table

from pyksm.bench.fit import Fit, power_law
from pyksm.bench.limits import Limits, last_level_cache
from pyksm.bench.memory import gib
from pyksm.bench.run import Results, Run

VERSION = 1

TOUCHED = (
    "All memory of frames, slots and page tables that the timed part uses has been used before "
    "the clock starts."
)

#: The counter that says how a part's work grows.
MAIN_COUNTER = {
    "swapoff": "unuse_pte_compared",
    "first merge": "memcmp_pages",
    "fork": "copy_one_pte",
    "exit": "zap_pte",
    "page-table walk": "unuse_pte_compared",
    "swap_map scan": "find_next_to_unuse_slots",
    "anon_vma lookup": "avc_visited",
    "page copy": "copy_page",
}
_RMAP_COUNTER = "avc_visited"  #: that of rmap walks, whose parts are named by what is walked


_PTE_BYTES = 8


def moved_pages(run: Run) -> int:
    """Pages whose contents are moved: read from slots, and copied."""
    counters, vmstat = run.first.counters, run.first.vmstat
    reads = counters.get("swap_readpage", 0) - vmstat.get("swpin_zero", 0)
    return reads + counters.get("copy_page", 0)


def read_bytes(run: Run) -> int:
    """Bytes that are read in order: ptes compared; contents for checksums, and for pages found to
    be equal both, once more when they are merged."""
    counters = run.first.counters
    pages = counters.get("calc_checksum", 0) + 4 * counters.get("try_to_merge_one_page", 0)
    return _PTE_BYTES * counters.get("unuse_pte_compared", 0) + pages * run.shape.page_bytes


def times_limit(run: Run, limits: Limits) -> dict[str, float]:
    """How many times as long as at the limits; see above."""
    counters = run.first.counters
    slots = counters.get("find_next_to_unuse_slots", 0) + counters.get("scan_swap_map_slots", 0)
    steps = run.first.units * run.first.facts.get("tree_depth", 1)
    if run.first.unit == "walk":
        steps = counters.get("avc_visited", 0)
    least = {
        "memcpy": moved_pages(run) * limits.memcpy_ns_per_page,
        "memcpy_in_order": moved_pages(run) * limits.memcpy_in_order_ns_per_page,
        "read": read_bytes(run) * limits.read_ns_per_byte,
        "read_bytes": slots * limits.read_bytes_ns_per_byte,
        "chase": steps * limits.chase_ns_per_step,
    }
    return {name: run.ns / ns for name, ns in least.items() if ns}


def fits(results: Results) -> list[tuple[str, str, str, Fit]]:
    """(series, part, of what, fit) of every series with two sizes or more."""
    series: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        series.setdefault((run.way.label, run.part), []).append(run)
    found = []
    for (label, part), runs in series.items():
        sizes = [float(run.shape.ptes) for run in runs]
        costs = {"ns": [run.cost(run.ns) for run in runs]}
        counter = _main_counter(runs)
        if counter is not None:
            costs[counter] = [run.cost(run.first.counters.get(counter, 0)) for run in runs]
        for of, values in costs.items():
            if (fit := power_law(sizes, values)) is not None:
                found.append((label, part, of, fit))
    return found


def _main_counter(runs: list[Run]) -> str | None:
    """The counter to fit: the one that is said above, else the largest."""
    counters = runs[-1].first.counters
    unit = runs[0].first.unit
    named = _RMAP_COUNTER if unit == "walk" else MAIN_COUNTER.get(runs[0].part)
    if named in counters:
        return named
    return max(counters, key=lambda name: counters[name], default=None)


def machine() -> dict[str, Any]:
    """The host, as whoever reads the numbers wants to know it."""
    import pyksm

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "last_level_cache_bytes": last_level_cache(),
        "os": _os(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pyksm": pyksm.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _os() -> str:
    try:
        return str(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        return platform.system()


def result_json(results: Results) -> dict[str, Any]:
    """All of it, see above."""
    settings = results.settings
    shape = settings.shapes[0]
    return {
        "version": VERSION,
        "command": "bench",
        "what": settings.what,
        "interrupted": results.interrupted,
        "machine": machine(),
        "limits": results.limits and asdict(results.limits),
        "limits_apart": results.limits_apart,
        "settings": {
            "engine": settings.engine,
            "kind": shape.kind,
            "procs": shape.procs,
            "sharing": [each.sharing for each in settings.shapes],
            "page_bytes": shape.page_bytes,
            "backend": settings.backend,
            "repeat": settings.repeat,
            "touched": TOUCHED,
        },
        "runs": [run_json(run, results.limits) for run in results.runs],
        "fit": [
            {
                "series": label,
                "part": part,
                "of": of,
                "exponent": fit.exponent,
                "exponent_stderr": fit.stderr,
                "factor": fit.factor,
                "points": fit.points,
            }
            for label, part, of, fit in fits(results)
        ],
    }


def run_json(run: Run, limits: Limits | None) -> dict[str, Any]:
    """One of the runs."""
    first, unit, way = run.first, run.first.unit, run.way
    use = run.use
    return {
        "series": way.label,
        "part": run.part,
        "profile": way.profile,
        "policy": "per-mm" if way.per_mm else way.policy,
        "walk": way.walk,
        "transfer": way.transfer,
        "threads": way.threads,
        "ptes": run.shape.ptes,
        "contents": run.shape.contents,
        "repetitions": len(run.samples),
        "unit": unit,
        "units": first.units,
        "ns_median": run.ns,
        "ns_min": min(each.ns for each in run.samples),
        "ns_max": max(each.ns for each in run.samples),
        "ns_all": [each.ns for each in run.samples],
        "cpu_ns_median": run.cpu_ns,
        f"ns_per_{unit}": run.ns_per_unit,
        f"{unit}s_per_s": 1e9 / run.ns_per_unit if run.ns_per_unit else None,
        "times_limit": times_limit(run, limits) if limits else {},
        "counters": first.counters,
        "vmstat": first.vmstat,
        "facts": first.facts,
        "memory": use
        and {
            "peak_bytes": use.peak_bytes,
            "machine_bytes": use.machine_bytes,
            "machine_bytes_per_pte": use.machine_bytes / run.shape.ptes,
            "beside_pages_bytes": use.beside_pages_bytes,
            "beside_pages_bytes_per_pte": use.beside_pages_bytes / run.shape.ptes,
        },
    }


# -------------------------------------------------------------------------------- for people


def print_results(out: Console, results: Results) -> None:
    """Limits, a table of times, one of work; for sweeps how cost grows."""
    here = machine()
    out.print(
        f"{here['cpu']}, {here['cores']} cores, {gib(here['memory_bytes'])}, {here['os']}, "
        f"Linux {here['kernel']}, Python {here['python']}, pyksm {here['pyksm']}, {here['date']}",
        markup=False,
    )
    if (limits := results.limits) is not None:
        out.print(_limits_line(limits), markup=False)
    if results.limits_apart > QUIET:
        out.print(
            f"This host was not quiet: limits before and after differ by up to "
            f"{results.limits_apart:.1f} times; the better ones count.",
            markup=False,
        )
    out.print(TOUCHED, markup=False)
    if results.runs:
        _print_times(out, results)
        _print_work(out, results)
    _print_fits(out, results)
    if results.interrupted:
        out.print("Interrupted: what is above is what there was so far.", markup=False)


def _limits_line(limits: Limits) -> str:
    return (
        f"limits here, {gib(limits.buffer_bytes)} buffers: memcpy {limits.page_bytes} bytes "
        f"{time_of(limits.memcpy_ns_per_page)} anywhere, "
        f"{time_of(limits.memcpy_in_order_ns_per_page)} in order; read "
        f"{1 / limits.read_ns_per_byte:.1f} GB/s, bytes {1 / limits.read_bytes_ns_per_byte:.1f} "
        f"GB/s; cache miss {time_of(limits.chase_ns_per_step)}; first touch of 4096 bytes "
        f"{time_of(limits.first_touch_ns_per_4096_bytes)}"
    )


def time_of(ns: float) -> str:
    """Nanoseconds as people read them."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:,.0f} {unit}"
    return f"{ns:.3g} ns"


_LIMITS = {
    "memcpy": "memcpy",
    "memcpy_in_order": "memcpy in order",
    "read": "read",
    "read_bytes": "read of bytes",
    "chase": "cache miss",
}
#: A limit that is less of the time than one part in so many says nothing about it.
_TOLD = 100
#: Limits that differ by more than that between before and after are worth a word.
QUIET = 1.5


def _print_times(out: Console, results: Results) -> None:
    table = Table("series", "part", box=None, pad_edge=False)
    for title in ("ptes", "median", "min..max", "runs", "per unit", "peak memory", "per pte"):
        table.add_column(title, justify="right")
    table.add_column("times the limit")
    for run in results.runs:
        times = [each.ns for each in run.samples]
        limit = times_limit(run, results.limits) if results.limits else {}
        use = run.use
        table.add_row(
            run.way.label,
            run.part,
            f"{run.shape.ptes:,}",
            time_of(run.ns),
            f"{time_of(min(times))}..{time_of(max(times))}",
            str(len(times)),
            f"{time_of(run.ns_per_unit)}/{run.first.unit}",
            gib(use.peak_bytes) if use else "",
            f"{use.machine_bytes / run.shape.ptes:,.1f} B" if use else "",
            ", ".join(f"{_LIMITS[k]} {value:.3g}" for k, value in limit.items() if value < _TOLD),
        )
    out.print(table)


def _print_work(out: Console, results: Results) -> None:
    """All counters that moved, a column for each run; of a sweep the largest size only."""
    largest = max(run.shape.ptes for run in results.runs)
    runs = [run for run in results.runs if run.shape.ptes == largest]
    title = f"work, {largest:,} ptes, the same each time"
    table = Table(title, box=None, pad_edge=False)
    for run in runs:
        parts = {each.part for each in runs}
        name = run.way.label if len(parts) == 1 else f"{run.way.label}, {run.part}"
        table.add_column(name, justify="right")
    for what in ("counters", "vmstat", "facts"):
        having = [getattr(run.first, what) for run in runs]
        for name in dict.fromkeys(name for each in having for name in each):
            table.add_row(name, *(f"{each[name]:,}" if name in each else "" for each in having))
    out.print(table)


def _print_fits(out: Console, results: Results) -> None:
    found = fits(results)
    if not found:
        return
    table = Table("series", "part", "cost", "grows as ptes to the power", "points")
    table.box, table.pad_edge = None, False
    for label, part, of, fit in found:
        table.add_row(label, part, "time" if of == "ns" else of, str(fit), str(fit.points))
    out.print(table)
