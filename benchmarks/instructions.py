"""Instructions a pte of the core's hot loops, by callgrind, against a committed baseline.

``instructions.py [--build DIR] [--update] [--only WORD]``. Each loop of ``instructions.c`` runs
under valgrind; only the core's own instructions count, not those of libc, whose memcpy depends on
the host, and the core's portable search of arrays is used. So the numbers depend on the compiler
alone, by which ``instructions.json`` has them. Exit 0: within 3 % of the baseline; 1: a loop takes
more, or so many less that the baseline is to be lowered (``--update`` writes it anew); 3: there is
no baseline for this compiler. DIR is a meson build directory with ``-Dctests=true``; one is made
where none is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASELINE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
NO_BASELINE = 3

Counts = dict[str, float]  #: instructions a pte, by the loop's name


def build(directory: Path) -> None:
    """The driver, with the core as ``meson setup`` builds it by default."""
    setup = ["meson", "setup", str(directory), str(ROOT), "-Dctests=true", "-Dlibrary=false"]
    subprocess.run(setup, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(directory), "benchmarks/instructions"], check=True)


def compiler() -> str:
    """The compiler, as far as its code may differ: name, version, machine."""
    cc = os.environ.get("CC", "cc").split()
    said = subprocess.run([*cc, "--version"], check=True, capture_output=True, text=True).stdout
    name = "clang" if "clang" in said else "gcc"
    version = re.search(r"\d+\.\d+\.\d+", said.splitlines()[0])
    return f"{name} {version[0] if version else '?'} {platform.machine()}"


def own_instructions(profile: str, binary: str) -> int:
    """The instructions in a callgrind profile that are of that object file.

    Names of objects are given once, with a number that stands for them afterwards; the line after
    ``calls=`` is what a call cost, which its callee's lines say as well.
    """
    objects: dict[str, str] = {}
    current, total, skip = "", 0, False
    for line in profile.splitlines():
        if line.startswith(("ob=", "cob=")):
            number, _, name = line.partition("=")[2].partition(" ")
            objects.setdefault(number, name)
            if line.startswith("ob="):
                current = objects[number]
        elif line.startswith("calls="):
            skip = True
        elif re.match(r"[+\-*\d]", line):
            if not skip and current == binary:
                total += int(line.split()[1])
            skip = False
    return total


def count(driver: Path, loop: str, directory: Path) -> float:
    """One loop's instructions a pte."""
    out = directory / f"{re.sub('[^a-z]+', '-', loop)}.callgrind"
    valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--toggle-collect=measured",
        f"--callgrind-out-file={out}",
    ]
    ran = subprocess.run([*valgrind, str(driver), loop], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{loop}: {ran.stderr[-2000:]}")
    total = own_instructions(out.read_text(encoding="utf-8"), str(driver))
    if not total:
        raise SystemExit(f"{loop}: nothing was counted in {out}")
    return total / int(ran.stdout)


def measure(driver: Path, only: str) -> Counts:
    """Every loop with that word in its name."""
    names = subprocess.run([driver], check=True, capture_output=True, text=True).stdout.splitlines()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        names = [name for name in names if only in name]
        counts = pool.map(lambda name: count(driver, name, Path(scratch)), names)
        return {name: round(value, 3) for name, value in zip(names, counts, strict=True)}


def verdicts(counts: Counts, baseline: Counts) -> Iterator[tuple[str, str]]:
    """What is wrong with each loop: '' where nothing is."""
    for name, now in counts.items():
        had = baseline.get(name)
        if had is None:
            yield name, "not in the baseline: --update"
        elif now > had * (1 + TOLERANCE):
            yield name, f"{now / had - 1:+.1%}: slower"
        elif now < had * (1 - TOLERANCE):
            yield name, f"{now / had - 1:+.1%}: lower the baseline (--update)"
        else:
            yield name, ""


def report(counts: Counts, baseline: Counts) -> int:
    """Print the table; 1 where something is wrong."""
    print(f"{'instructions a pte':36}{'baseline':>10}{'now':>10}")
    wrong = 0
    for name, verdict in verdicts(counts, baseline):
        had = f"{baseline[name]:.2f}" if name in baseline else "-"
        print(f"{name:36}{had:>10}{counts[name]:>10.2f}  {verdict}".rstrip())
        wrong |= bool(verdict)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--build", type=Path, metavar="DIR")
    parser.add_argument("--update", action="store_true", help="write the baseline anew")
    parser.add_argument("--only", default="", metavar="WORD", help="loops with this in their name")
    options = parser.parse_args(arguments)
    every = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    key = compiler()
    if key not in every and not options.update:
        known = ", ".join(every) or "none"
        print(f"no baseline for {key}, only for {known}: --update makes one", file=sys.stderr)
        return NO_BASELINE
    with tempfile.TemporaryDirectory() as made:
        directory = options.build or Path(made)
        if not options.build:
            build(directory)
        counts = measure((directory / "benchmarks" / "instructions").resolve(), options.only)
    if not options.update:
        return report(counts, every[key])
    every[key] = counts | {k: v for k, v in every.get(key, {}).items() if k not in counts}
    BASELINE.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return report(counts, every[key])


if __name__ == "__main__":
    sys.exit(main())
