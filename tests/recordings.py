"""Recordings of real kernels, and how engines do against them.

    recordings.py [KERNEL ...] [--engine core|oracle|DIR] [--like PATTERN] [--show N]

lists for each kernel how many scenarios an engine answers as the kernel did, and groups the others
by where they first differ. Named exceptions are looked at like all others. Where the engine is a
directory its NAME.json are the answers, as ``pyksm record --out DIR`` writes them of the texts that

    recordings.py KERNEL --write DIR

unpacks: so a kernel of one's own is held against those recorded here.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import lzma
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pyksm.scenario import parse, run
from pyksm.scenario.compare import Difference, recording_differences

PACKED = Path(__file__).parent / "data" / "recordings.json.xz"


@dataclass(frozen=True)
class Exempt:
    """The line of a scenario from which on engines need not see what a kernel saw, and why.

    What cannot hang on timing must still be the same: errnos, contents read, scans made.
    """

    kernel: str
    scenario: str
    line: int
    reason: str

    def excuses(self, difference: Difference) -> bool:
        """Whether it is one of an observation or of calls, from that line on."""
        _, _, index, *rest = difference.path.split("/")
        line = recording(self.kernel, self.scenario)["results"][int(index)]["line"]
        return line >= self.line and rest[0] in ("observation", "calls")


_CACHED = (
    "an area fills up during a swapout: how many pages stay in the swap cache then hangs on how "
    "fast the device was, and from there what is read again and shared"
)
_ORDER = (
    "an area fills up during a swapout: which page gets the last slot is the order of batches "
    "between reclaim and what else runs"
)

#: Everything that does not match, by name. One that no longer differs fails the tests.
EXCEPTIONS: tuple[Exempt, ...] = (
    Exempt("4.19.0", "rand-003", 54, _ORDER),
    Exempt("4.19.0", "rand-023", 45, _ORDER),
    Exempt("4.19.0", "rand-098", 53, _CACHED),
    Exempt("4.19.0", "rand-115", 32, _CACHED),
    Exempt("4.19.0", "rand-145", 47, _CACHED),
    Exempt("6.1", "rand-105", 43, _CACHED),
    Exempt("6.1", "rand-145", 53, _CACHED),
    Exempt("6.12", "rand-132", 50, _ORDER),
    Exempt("6.12", "rand-145", 53, _CACHED),
    Exempt("6.18", "rand-115", 37, _CACHED),
    Exempt("6.18", "rand-132", 50, _ORDER),
    Exempt("6.18", "rand-145", 53, _CACHED),
)


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
    found = recording_differences(
        answer,
        recording(kernel, name),
        unstable=notes["unstable"].get(name, ()),
        lingering=notes["lingering"].get(name),
    )
    known = [each for each in EXCEPTIONS if (each.kernel, each.scenario) == (kernel, name)]
    if strict or not known:
        return found
    return [each for each in found if not any(exempt.excuses(each) for exempt in known)]


def answer_of(kernel: str, name: str, engine: str) -> dict[str, Any]:
    """What an engine answers under the kernel's profile, or what DIR/NAME.json has."""
    if os.path.isdir(engine):
        recorded: dict[str, Any] = json.loads(Path(engine, f"{name}.json").read_bytes())
        return recorded
    return run(parse(packed()["scenarios"][name]["text"], name), engine, profile=kernel)


Found = list[Difference] | str  #: differences, or how an engine crashed


def examined(kernel: str, engine: str, like: str = "*") -> Iterator[tuple[str, Found]]:
    """Each scenario of a kernel with what was found."""
    for name in fnmatch.filter(names(kernel), like):
        try:
            answer = answer_of(kernel, name, engine)
            yield name, held_against(kernel, name, answer, strict=True)
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


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel", nargs="*", metavar="KERNEL")
    parser.add_argument("--engine", default="core")
    parser.add_argument("--like", default="*", help="scenarios, as a shell pattern")
    parser.add_argument("--show", type=int, default=5, help="scenarios to name for each kind")
    parser.add_argument("--write", type=Path, metavar="DIR", help="unpack the scenarios' texts")
    args = parser.parse_args()
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        for name in {name for kernel in args.kernel or kernels() for name in names(kernel)}:
            text = packed()["scenarios"][name]["text"]
            (args.write / f"{name}.ksm").write_text(text, encoding="utf-8")
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
