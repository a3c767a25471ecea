"""Recordings of real kernels, and how engines do against them.

    recordings.py [KERNEL ...] [--engine core|oracle] [--like PATTERN] [--show N]
    recordings.py --update

lists for each kernel how many scenarios an engine answers as the kernel did, and groups the others
by where they first differ. ``--update`` writes data/unmatched.txt: those that do not match yet.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pyksm.scenario import parse, run
from pyksm.scenario.compare import Difference, recording_differences

#: Scenarios that do not match yet, ``kernel engine scenario`` a line: to be empty in the end.
UNMATCHED = Path(__file__).parent / "data" / "unmatched.txt"

PACKED = Path(__file__).parent / "data" / "recordings.json.xz"


@dataclass(frozen=True)
class Exempt:
    """A path prefix at which engines need not answer a scenario as a kernel did, and why."""

    kernel: str
    scenario: str
    path: str
    reason: str


#: Everything that does not match, by name. One that no longer differs fails the tests.
EXCEPTIONS: tuple[Exempt, ...] = ()


@cache
def packed() -> dict[str, Any]:
    """Everything that tests/data/pack.py has packed."""
    everything: dict[str, Any] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return everything


def kernels() -> list[str]:
    """Kernels that were recorded; each is the name or an alias of a profile."""
    return list(packed()["kernels"])


def names(kernel: str) -> list[str]:
    """Scenarios that were recorded on a kernel."""
    scenarios = packed()["scenarios"]
    return [name for name, had in scenarios.items() if kernel in had["answers"]]


def recording(kernel: str, name: str) -> dict[str, Any]:
    """What the kernel answered."""
    answer: dict[str, Any] = packed()["scenarios"][name]["answers"][kernel]
    return answer


def held_against(
    kernel: str, name: str, answer: dict[str, Any], *, strict: bool = False
) -> list[Difference]:
    """Differences from the recording, excusing what its folder says was noise and, unless
    ``strict``, the named exceptions."""
    notes = packed()["kernels"][kernel]
    excused = [*notes["unstable"].get(name, ())]
    if not strict:
        excused += [
            each.path for each in EXCEPTIONS if (each.kernel, each.scenario) == (kernel, name)
        ]
    return recording_differences(
        answer,
        recording(kernel, name),
        unstable=excused,
        lingering=notes["lingering"].get(name),
    )


def answer_of(kernel: str, name: str, engine: Any) -> dict[str, Any]:
    """What an engine answers under the kernel's profile."""
    return run(parse(packed()["scenarios"][name]["text"], name), engine, profile=kernel)


Found = list[Difference] | str  #: differences, or how an engine crashed


def examined(kernel: str, engine: str, like: str = "*") -> Iterator[tuple[str, Found]]:
    """Each scenario of a kernel with what was found."""
    for name in fnmatch.filter(names(kernel), like):
        try:
            yield name, held_against(kernel, name, answer_of(kernel, name, engine))
        except Exception as error:
            yield name, f"{type(error).__name__}: {error}"


def _kind(found: Found, kernel: str, name: str) -> str:
    """Where it first differs, in words that scenarios share."""
    if isinstance(found, str):
        return found
    path = found[0].path.split("/")
    op = recording(kernel, name)["results"][int(path[2])]["op"]
    rest = [part for part in path[3:] if not re.fullmatch(r"\d+|[A-Z]\w*|r\w?", part)]
    return f"{op} {'/'.join(rest)}"


def unmatched() -> set[tuple[str, ...]]:
    """What data/unmatched.txt lists."""
    return {tuple(line.split()) for line in UNMATCHED.read_text("utf-8").splitlines()}


def update() -> None:
    """List what does not match yet."""
    lines = [
        f"{kernel} {engine} {name}\n"
        for kernel in kernels()
        for engine in ("core", "oracle")
        for name, found in examined(kernel, engine)
        if found
    ]
    UNMATCHED.write_text("".join(lines), "utf-8")
    print(f"{UNMATCHED.name}: {len(lines)} do not match yet")


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel", nargs="*", metavar="KERNEL")
    parser.add_argument("--engine", default="core")
    parser.add_argument("--like", default="*", help="scenarios, as a shell pattern")
    parser.add_argument("--show", type=int, default=5, help="scenarios to name for each kind")
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    if args.update:
        update()
        return
    for kernel in args.kernel or kernels():
        kinds: dict[str, list[str]] = defaultdict(list)
        tried = 0
        for name, found in examined(kernel, args.engine, args.like):
            tried += 1
            if found:
                first = found if isinstance(found, str) else found[0]
                kinds[_kind(found, kernel, name)].append(f"{name} {first}")
        missed = sum(map(len, kinds.values()))
        print(f"{kernel} {args.engine}: {tried - missed} of {tried} match")
        for kind, where in sorted(kinds.items(), key=lambda item: -len(item[1])):
            print(f"  {len(where):4} {kind}")
            for each in where[: args.show]:
                print(f"         {each}")


if __name__ == "__main__":
    main()
