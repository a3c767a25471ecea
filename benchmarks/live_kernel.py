"""The kernel that runs here against the model: the same population, its swapoff and its ksmd.

Builds the population of `pyksm bench` in processes of this machine (16 with the same contents,
which ksmd merges; or pages all different), swaps it out to zram by reclaim of a memory cgroup
(MADV_PAGEOUT where nothing is shared), and times ksmd's first merge and swapoff(2). Then the model
does the same in the same run, and both are printed with their ratio. For root, on a machine where
nobody else uses swap or KSM; knobs, swap areas and cgroups are put back, whatever happens. Nothing
runs this by itself:

    python benchmarks/live_kernel.py --yes --ptes 65536
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from pyksm import profiles
from pyksm.bench import memory, population, report
from pyksm.bench.run import Results, run
from pyksm.bench.settings import Settings, Shape, number, settings, ways
from pyksm.errors import InputError, PyksmError
from pyksm.jobs.watch import Nobody
from pyksm.recorder import live, livehost, liveswap
from pyksm.recorder.livehost import Host
from pyksm.recorder.livestate import JOURNAL, Guard, StateError, read_knob, write_knob
from pyksm.scenario import engines
from pyksm.targets.signals import tidied

MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_PAGEOUT = 12, 15, 21
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
SWAPS = ("zram", "brd", "loop", "file")
#: Merging is over when so much of what is expected is merged, or nothing more for so long.
_MERGED, _STILL_SECONDS = 0.9995, 5.0
_SECONDS = 900.0
_POLL = 0.002

_libc = ctypes.CDLL(None, use_errno=True)


# ------------------------------------------------------------------------------------ a process


def child(shape: Shape, process: int) -> None:
    """One process of the population: does what standard input says, a line each."""
    size = shape.per_proc * population.PAGE
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory_of_it:
        _lock_all_but(memory_of_it)
        memory_of_it.madvise(MADV_NOHUGEPAGE)
        if shape.kind == "ksm":
            memory_of_it.madvise(MADV_MERGEABLE)
        print("ready", flush=True)
        for line in sys.stdin:
            word = line.strip()
            answer = 0
            if word == "fill":
                for at, data in population.contents(shape, process):
                    start = at * population.PAGE
                    memory_of_it[start : start + len(data)] = data
            elif word == "pageout":
                memory_of_it.madvise(MADV_PAGEOUT)
            elif word == "check":
                answer = _different(memory_of_it, shape, process)
            print(answer, flush=True)


def _lock_all_but(memory_of_it: mmap.mmap) -> None:
    """What else this process has or gets is not to be reclaimed: the swap area is not for it."""
    where = ctypes.c_char.from_buffer(memory_of_it)
    if _libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or _libc.munlock(
        ctypes.byref(where), ctypes.c_size_t(len(memory_of_it))
    ):
        raise OSError(ctypes.get_errno(), "mlockall")
    del where


def _different(memory_of_it: mmap.mmap, shape: Shape, process: int) -> int:
    """Pieces of memory that are not what they were."""
    found = 0
    for at, data in population.contents(shape, process):
        start = at * population.PAGE
        found += memory_of_it[start : start + len(data)] != data
    return found


@dataclass
class Child:
    """The other end of one."""

    popen: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def say(self, word: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(word + "\n")
        self.popen.stdin.flush()

    def hear(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().strip()
        if not line:
            raise InputError(f"PID {self.pid}, a process of ours, has ended too early")
        return line

    def swapped(self) -> int:
        """Its ptes that are in swap."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("VmSwap:"):
                    return int(line.split()[1]) // 4
        return 0


@contextlib.contextmanager
def children(guard: Guard, group: str, shape: Shape) -> Iterator[list[Child]]:
    """The processes; of what they have only the population is in the cgroup, so that only that is
    reclaimed."""
    with contextlib.ExitStack() as stack:
        made = []
        for process in range(shape.procs):
            words = [json.dumps(asdict(shape)), str(process)]
            popen = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "child", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            guard.session(popen.pid)
            stack.callback(_end, popen)
            made.append(Child(popen))
        for each in made:
            each.hear()
            write_knob(f"{group}/cgroup.procs", str(each.pid))
        _all(made, "fill")
        yield made


def _end(popen: subprocess.Popen[str]) -> None:
    popen.kill()
    popen.communicate()


def _all(made: Sequence[Child], word: str) -> int:
    """All of them at a time; the sum of what they answer."""
    for each in made:
        each.say(word)
    return sum(int(each.hear()) for each in made)


# ----------------------------------------------------------------------------------- the kernel


@dataclass
class Kernel:
    """What the kernel did. Seconds of ksmd are None where nothing was merged."""

    swap: str
    ptes: int
    swapped: int
    slots: int
    swapoff_seconds: float
    merge_seconds: float | None = None
    full_scans: int | None = None
    ksm: dict[str, int] = field(default_factory=dict)
    vmstat: dict[str, int] = field(default_factory=dict)
    knobs: dict[str, str] = field(default_factory=dict)
    zram: dict[str, int] = field(default_factory=dict)


def ask_kernel(shape: Shape, swap: str, directory: str, journal: str) -> Kernel:
    """Build, merge, swap out, swap off, look at every byte."""
    host = Host()
    with Guard(journal) as guard, contextlib.ExitStack() as stack:
        livehost.keep_ksm(guard, host)
        group = live._make_group(guard)
        _want_swap(guard, group)
        kind, path = area(guard, stack, swap, directory, shape)
        with children(guard, group, shape) as made:
            merged: dict[str, Any] = {}
            if shape.kind == "ksm":
                say("ksmd merges")
                merged = merge(guard, host, shape)
            swap_on(guard, path)
            say("swap out")
            swap_out(made, group, shape)
            swapped = sum(each.swapped() for each in made)
            slots = used_slots(path)
            zram = zram_stat(path)
            say(f"swapoff of {slots:,} slots")
            before = vmstat()
            seconds = swap_off(path)
            grown = {k: n - before[k] for k, n in vmstat().items() if n != before[k]}
            say("compare all bytes")
            if different := _all(made, "check"):
                raise InputError(f"{different} pieces of memory are not what they were")
        knobs = {"page-cluster": read_knob("/proc/sys/vm/page-cluster")}
    found = Kernel(kind, shape.ptes, swapped, slots, seconds, **merged)
    found.vmstat, found.knobs, found.zram = grown, knobs, zram
    return found


def say(what: str) -> None:
    click.echo(f"live: {what}", err=True)


def _want_swap(guard: Guard, group: str) -> None:
    own = f"{group}/memory.swappiness"  # v1
    if os.path.exists(own):
        write_knob(own, "100")
    else:
        guard.set("/proc/sys/vm/swappiness", "100")


def area(
    guard: Guard, stack: contextlib.ExitStack, swap: str, directory: str, shape: Shape
) -> tuple[str, str]:
    """The first kind of area that can be had here: which, and its path."""
    pages = shape.contents + shape.contents // 8 + 4096
    problems = []
    for kind in SWAPS if swap == "auto" else (swap,):
        if kind == "zram" and not os.path.exists("/sys/class/zram-control"):
            with contextlib.suppress(OSError):
                subprocess.run(["modprobe", "zram"], capture_output=True, check=False)
        options = live.Options(swap=kind, directory=directory, areas=1, area_pages=pages)
        try:
            path = liveswap.make(guard, stack, options)[0]
        except InputError as error:
            problems.append(str(error))
            continue
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, population.swap_header(pages), 0)
        finally:
            os.close(fd)
        say(f"swap is on {liveswap.KINDS[kind]}: {path}, {pages:,} pages")
        return kind, path
    raise InputError("; ".join(problems))


def merge(guard: Guard, host: Host, shape: Shape) -> dict[str, Any]:
    """ksmd from its beginning until everything is merged."""
    run_knob = f"{host.ksm}/run"
    guard.set(run_knob, "2")  # forgets all, and counts full scans from 0
    guard.set(run_knob, "0")
    for name, value in (("sleep_millisecs", "0"), ("pages_to_scan", str(1 << 30))):
        guard.set(f"{host.ksm}/{name}", value)
    most = int(read_knob(f"{host.ksm}/max_page_sharing"))
    wanted = shape.ptes - shape.contents * -(-shape.sharing // most)
    begin = last = time.perf_counter()
    before = 0
    guard.set(run_knob, "1")
    while True:
        now, at = int(read_knob(f"{host.ksm}/pages_sharing")), time.perf_counter()
        if now > before:
            before, last = now, at
        if now >= wanted * _MERGED or at - last > _STILL_SECONDS + (at - begin) * (now == 0):
            break
        if at - begin > _SECONDS:
            raise InputError(f"ksmd has merged {now:,} of {wanted:,} in {_SECONDS:.0f} s")
        time.sleep(_POLL)
    scans = int(read_knob(f"{host.ksm}/full_scans"))
    time.sleep(0.5)
    guard.set(run_knob, "0")
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    counts = {name: int(read_knob(f"{host.ksm}/{name}")) for name in names}
    say(f"{counts} after {last - begin:.2f} s")
    return {"merge_seconds": last - begin, "full_scans": scans + 1, "ksm": counts}


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args):
        code = ctypes.get_errno()
        raise InputError(f"{name}: {os.strerror(code)}")


def swap_on(guard: Guard, path: str) -> None:
    guard.swap(path)
    _call("swapon", os.fsencode(path), 0)


def swap_off(path: str) -> float:
    begin = time.perf_counter()
    _call("swapoff", os.fsencode(path))
    return time.perf_counter() - begin


def swap_out(made: Sequence[Child], group: str, shape: Shape) -> None:
    """Until all of the population is in swap, or nothing more gets there."""
    if shape.sharing == 1:
        _all(made, "pageout")
    before, still = -1, 0
    while still < 20:
        now = sum(each.swapped() for each in made)
        if now >= shape.ptes:
            return
        still = still + 1 if now == before else 0
        before = now
        for each in made:  # what is in use goes last, and after writing it all of it is
            write_knob(f"/proc/{each.pid}/clear_refs", "1")
        reclaim(group, shape.ptes * population.PAGE)
        time.sleep(0.01 * still)
    if before < shape.ptes * 0.999:
        raise InputError(f"{before:,} of {shape.ptes:,} ptes could be swapped out, expected all")


def reclaim(group: str, size: int) -> None:
    """Pressure on the cgroup: memory.reclaim (5.19 on, v2), else its limit for a moment."""
    if os.path.exists(f"{group}/memory.reclaim"):
        with contextlib.suppress(OSError):  # EAGAIN: not all of that could be had
            write_knob(f"{group}/memory.reclaim", str(size))
        return
    name = "memory.high" if os.path.exists(f"{group}/memory.high") else "memory.limit_in_bytes"
    knob = f"{group}/{name}"
    with contextlib.suppress(OSError):  # EBUSY: it could not get there
        write_knob(knob, str(4 << 20))
    write_knob(knob, "max" if name == "memory.high" else "-1")


def used_slots(path: str) -> int:
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split()
            if words[0] == path:
                return int(words[3]) // 4
    return 0


def zram_stat(path: str) -> dict[str, int]:
    """What zram made of the pages: those that it could not compress it keeps as they are."""
    name = os.path.basename(path)
    try:
        with open(f"/sys/block/{name}/mm_stat", encoding="ascii") as file:
            words = [int(word) for word in file.read().split()]
    except OSError:
        return {}
    keys = ("orig_data_bytes", "compr_data_bytes", "mem_used_bytes")
    return {**dict(zip(keys, words, strict=False)), "huge_pages": words[7] if words[7:] else 0}


def vmstat() -> dict[str, int]:
    wanted = ("pswpin", "pswpout", "ksm_swpin_copy", "swpin_zero")
    with open("/proc/vmstat", encoding="ascii") as file:
        words = (line.split() for line in file)
        return {name: int(value) for name, value in words if name in wanted}


# ------------------------------------------------------------------------------------ the model


def ask_model(shape: Shape, profile: str, repeat: int) -> list[Results]:
    """swapoff, contents copied and moved by reference; and for KSM the first merge."""
    found = []
    for what in ("scan", "swapoff") if shape.kind == "ksm" else ("swapoff",):
        asked: Settings = settings(
            what,
            ptes=str(shape.ptes),
            procs=shape.procs,
            kind=shape.kind,
            sharing=shape.sharing,
            of=ways([profile], threads=(1, 2))
            if what == "scan"
            else ways([profile], transfers=("copy", "reference")),
            repeat=repeat,
        )
        results = Results(asked)
        say(f"the model: {what}")
        run(results, engines.factory("core"), Nobody())
        found.append(results)
    return found


def rows(kernel: Kernel, model: list[Results]) -> list[dict[str, Any]]:
    """The comparison: seconds of either, ns a pte, and how many times as fast the model is."""
    found = []
    for results in model:
        for each in results.runs:
            swapoff = each.part == "swapoff"
            seconds = kernel.swapoff_seconds if swapoff else kernel.merge_seconds
            assert seconds is not None
            found.append(
                {
                    "part": each.part,
                    "transfer": each.way.transfer,
                    "threads": each.way.threads,
                    "kernel_seconds": seconds,
                    "kernel_ns_per_pte": seconds * 1e9 / kernel.ptes,
                    "model_seconds": each.ns / 1e9,
                    "model_ns_per_pte": each.ns_per_unit,
                    "kernel_per_model": seconds * 1e9 / each.ns,
                    "times_limit": report.times_limit(each, results.limits)
                    if results.limits
                    else {},
                }
            )
    return found


def show(kernel: Kernel, compared: list[dict[str, Any]], shape: Shape, profile: str) -> None:
    """For people."""
    here = report.machine()
    click.echo(
        f"{here['date']}: {here['cpu']}, {here['cores']} cores, {here['os']}, Linux "
        f"{here['kernel']} (profile {profile}), Python {here['python']}, pyksm {here['pyksm']}"
    )
    click.echo(
        f"{shape.procs} processes, {shape.ptes:,} ptes, {shape.kind}; swap on {kernel.swap}, "
        f"{kernel.swapped:,} ptes in {kernel.slots:,} slots; {kernel.ksm} {kernel.vmstat} "
        f"{kernel.zram} page-cluster {kernel.knobs['page-cluster']}"
    )
    titles = ("", "transfer", "threads", "kernel", "model", "ratio")
    click.echo("{:<12}{:<11}{:<7}{:>12}{:>12}{:>14}".format(*titles))
    for row in compared:
        kernel_ns, model_ns = row["kernel_ns_per_pte"], row["model_ns_per_pte"]
        click.echo(
            f"{row['part']:<12}{row['transfer']:<11}{row['threads']:<7}"
            f"{kernel_ns:>9,.0f} ns{model_ns:>9,.0f} ns{row['kernel_per_model']:>14.1f}"
        )


@click.command()
@click.option("--ptes", default="65536", show_default=True, help="In all; 1e6, 1Mi ...")
@click.option("--procs", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--kind", type=click.Choice(["ksm", "distinct", "both"]), default="both")
@click.option("--swap", type=click.Choice(["auto", *SWAPS]), default="auto", show_default=True)
@click.option("--directory", default="/var/tmp", show_default=True, help="Of swap files.")
@click.option("--repeat", type=click.IntRange(1, 100), default=5, help="Of the model.")
@click.option("--journal", default=JOURNAL, show_default=True, help="What has to be put back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def main(
    ptes: str,
    procs: int,
    kind: str,
    swap: str,
    directory: str,
    repeat: int,
    journal: str,
    as_json: bool,
    yes: bool,
) -> None:
    """Compare this kernel's swapoff and ksmd with the model's on the same population."""
    try:
        shapes = [
            settings(
                "swapoff",
                ptes=str(number(ptes, "--ptes")),
                kind=each,
                procs=procs if each == "ksm" else 1,
            ).shapes[0]
            for each in (("distinct", "ksm") if kind == "both" else (kind,))
        ]
        profile = check(shapes)
        if not yes:
            click.echo(
                "Makes a swap area and a memory cgroup on this machine, starts ksmd and turns the "
                "knobs of /sys/kernel/mm/ksm; all of it is put back at the end."
            )
            click.confirm("Go on?", abort=True)
        told = []
        with tidied():
            for shape in shapes:
                kernel = ask_kernel(shape, swap, directory, journal)
                model = ask_model(shape, profile, repeat)
                compared = rows(kernel, model)
                told.append(
                    {
                        "population": asdict(shape),
                        "kernel": asdict(kernel),
                        "compared": compared,
                        "model": [report.result_json(each) for each in model],
                    }
                )
                if not as_json:
                    show(kernel, compared, shape, profile)
        if as_json:
            click.echo(json.dumps({"version": 1, "machine": report.machine(), "runs": told}))
    except (PyksmError, StateError, OSError) as error:
        print(f"live_kernel: {error}", file=sys.stderr)
        sys.exit(2)


def check(shapes: Sequence[Shape]) -> str:
    """The profile of this kernel; InputError where this cannot be done here."""
    host = Host()
    livehost.require_root()
    livehost.require_no_swap(host)
    livehost.require_idle_ksm(host)
    model = profiles.for_release(os.uname().release)
    if model is None:
        raise InputError(f"no profile for Linux {os.uname().release}")
    for shape in shapes:
        # In the kernel: the pages, and zram with as many at worst.
        wanted, room = shape.ptes * population.PAGE * 22 // 10, memory.available()
        if wanted > room:
            raise InputError(
                f"--ptes {shape.ptes:,} needs about {memory.gib(wanted)}, {memory.gib(room)} are "
                f"available; --ptes {room * 10 // 22 // population.PAGE:,} would fit"
            )
    return model.name


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(Shape(**json.loads(sys.argv[2])), int(sys.argv[3]))
    else:
        main()
