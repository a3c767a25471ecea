"""Real memory, real answer: `pyksm estimate` against the ksmd of the kernel that runs here.

Starts Python interpreters whose memory is advised mergeable, stops them, captures them with `pyksm
capture`, lets ksmd and `pyksm estimate` each do the same number of full scans, and compares what is
shared. For root, on a machine where nobody else uses KSM; every knob is put back, whatever happens.
Nothing runs this by itself:

    python benchmarks/live_estimate.py --yes

Exit status 1: pages_shared or pages_sharing differ by half a percent or more.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import click

from pyksm import profiles
from pyksm.errors import InputError, PyksmError
from pyksm.recorder import livehost
from pyksm.recorder.livehost import Host
from pyksm.recorder.livestate import JOURNAL, Guard, StateError, read_knob
from pyksm.targets.live import frozen
from pyksm.targets.own import MAX_COUNT, interpreters
from pyksm.targets.signals import tidied

LIMIT_PERCENT = 0.5
COMPARED = ("pages_shared", "pages_sharing")
SHOWN = (
    *COMPARED,
    "pages_unshared",
    "pages_volatile",
    "ksm_zero_pages",
    "stable_node_chains",
    "stable_node_dups",
    "full_scans",
)

_NAP_MS = 1000  #: ksmd's between two scans, in which we stop it
_SCAN_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    """What one side says: counts of the machine, and pages on KSM pages of each process."""

    counts: dict[str, int]
    merging: dict[int, int]


@click.command()
@click.option("--procs", type=click.IntRange(1, MAX_COUNT), default=8, show_default=True)
@click.option("--scans", type=click.IntRange(1, 1000), default=2, show_default=True)
@click.option("--profile", default=None, help="Of the model. Default: that of this kernel.")
@click.option("--engine", default="core", show_default=True)
@click.option("--use-zero-pages", type=click.Choice(["0", "1", "both"]), default="both")
@click.option("--smart-scan", type=click.IntRange(0, 1), default=0, show_default=True)
@click.option("--max-page-sharing", type=click.IntRange(2), default=256, show_default=True)
@click.option("--journal", default=JOURNAL, show_default=True, help="What has to be put back.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def main(
    procs: int,
    scans: int,
    profile: str | None,
    engine: str,
    use_zero_pages: str,
    smart_scan: int,
    max_page_sharing: int,
    journal: str,
    yes: bool,
) -> None:
    """Compare `pyksm estimate` with this kernel's ksmd on the memory of Python interpreters."""
    try:
        host = Host()
        livehost.require_root()
        livehost.require_idle_ksm(host)
        release = os.uname().release
        model = profiles.find(profile) if profile else profiles.for_release(release)
        if model is None:
            raise InputError(f"no profile for Linux {release}; expected --profile")
        if not yes:
            click.echo(
                f"Starts ksmd on this machine and turns the knobs of {host.ksm}; all of them are "
                "put back at the end."
            )
            click.confirm("Go on?", abort=True)
        fine = True
        for zero in ("0", "1") if use_zero_pages == "both" else (use_zero_pages,):
            ksm = {
                "max_page_sharing": max_page_sharing,
                "use_zero_pages": int(zero),
                "smart_scan": smart_scan,
            }
            ksm = {key: n for key, n in ksm.items() if os.path.exists(f"{host.ksm}/{key}")}
            settings = ", ".join(f"{key}={n}" for key, n in ksm.items())
            click.echo(f"Linux {release}, profile {model.name}, {scans} full scans, {settings}")
            with tidied(), tempfile.TemporaryDirectory(prefix="pyksm-") as folder:
                image = os.path.join(folder, "image")
                kernel = ask_kernel(host, journal, procs, scans, ksm, image)
                estimate = ask_pyksm(image, model.name, engine, scans, ksm)
            fine = report(kernel, estimate) and fine
    except (PyksmError, StateError) as error:
        print(f"live_estimate: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if fine else 1)


def ask_kernel(
    host: Host, journal: str, procs: int, scans: int, ksm: dict[str, int], image: str
) -> Answer:
    """Capture fresh interpreters into ``image``; what ksmd then makes of them."""
    run = f"{host.ksm}/run"
    with Guard(journal) as guard:
        livehost.keep_ksm(guard, host)
        # Forgets what it knows of anybody, and counts full scans from 0 again.
        guard.set(run, "2")
        guard.set(run, "0")
        settings = {"sleep_millisecs": _NAP_MS, "pages_to_scan": 1 << 30, **ksm}
        for key, value in settings.items():
            guard.set(f"{host.ksm}/{key}", str(value))
        with interpreters(procs, mergeable=True) as pids, frozen(pids):
            pyksm("capture", *(str(pid) for pid in pids), "--stop", "-o", image)
            guard.set(run, "1")
            await_scans(host, scans)
            guard.set(run, "0")
            strangers = [pid for pid, _ in livehost.mergeable(host) if pid not in pids]
            if strangers:
                raise InputError(f"PID {strangers[0]} has become mergeable meanwhile; try again")
            counts = {name: int(read_knob(f"{host.ksm}/{name}")) for name in existing(host)}
            merging = {}
            for pid in pids:
                with contextlib.suppress(FileNotFoundError):  # it came with 5.18
                    merging[pid] = int(read_knob(f"/proc/{pid}/ksm_merging_pages"))
    return Answer(counts, merging)


def existing(host: Host) -> list[str]:
    """Those of the counts that this kernel has."""
    return [name for name in SHOWN if os.path.exists(f"{host.ksm}/{name}")]


def await_scans(host: Host, scans: int) -> None:
    """Until ksmd has done so many full scans. One scan is one turn; then it naps."""
    deadline = time.monotonic() + _SCAN_SECONDS
    while int(read_knob(f"{host.ksm}/full_scans")) < scans:
        if time.monotonic() > deadline:
            raise InputError(f"ksmd has not done {scans} full scans in {_SCAN_SECONDS:.0f} s")
        time.sleep(0.001)


def ask_pyksm(image: str, profile: str, engine: str, scans: int, ksm: dict[str, int]) -> Answer:
    """What `pyksm estimate` says of the image."""
    words = ["--profile", profile, "--engine", engine, "--scans", str(scans)]
    for key, value in ksm.items():
        words += ["--ksm", f"{key}={value}"]
    told = json.loads(pyksm("estimate", image, "--mergeable", "advised", "--json", *words))
    merging = {each["pid"]: each["ksm_ptes"] for each in told["ksm"]["processes"]}
    return Answer(told["ksm"]["counts"], merging)


def pyksm(*words: str) -> str:
    """The output of a pyksm command, which is shown."""
    click.echo(f"$ pyksm {' '.join(words)}", err=True)
    done = subprocess.run([sys.executable, "-m", "pyksm", *words], stdout=subprocess.PIPE)
    if done.returncode:
        raise InputError(f"pyksm {words[0]} failed with exit status {done.returncode}")
    return done.stdout.decode()


def report(kernel: Answer, estimate: Answer) -> bool:
    """Print both; whether the compared counts are near enough."""
    fine = kernel.counts["full_scans"] == estimate.counts["full_scans"]
    rows: list[tuple[str, Any, Any, str]] = [("", "ksmd", "estimate", "differ by")]
    for name in SHOWN:
        if name in kernel.counts:
            real, ours = kernel.counts[name], estimate.counts.get(name, 0)
            percent = 100 * abs(ours - real) / real if real else 100.0 * (ours != 0)
            rows.append((name, f"{real:,}", f"{ours:,}", f"{percent:.2f} %"))
            fine = fine and (percent < LIMIT_PERCENT or name not in COMPARED)
    alike = sum(estimate.merging.get(pid) == count for pid, count in kernel.merging.items())
    for row in rows:
        click.echo("{:<20}{:>12}{:>12}{:>12}".format(*row))
    click.echo(f"processes with as many pages merged: {alike} of {len(kernel.merging)}\n")
    return fine


if __name__ == "__main__":
    main()
