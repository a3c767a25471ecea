"""Small-scope proofs: races of which each schedule within a bound is tried, and the checks behind.

``tests/scenarios/proof/NAME.ksm`` is a race. With all checks in place no schedule within the bound
of preemptions goes wrong, in any profile; with those of :data:`REMOVED` taken away one does.
``python tests/proofs.py [--preemptions K] [--write]`` prints the table of docs/proofs.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from pyksm import __version__
from pyksm.features import PROFILES
from pyksm.hunt.explore import Bounds, Explored, explore
from pyksm.scenario import Scenario, parse

HERE = Path(__file__).parent / "scenarios" / "proof"
PREEMPTIONS = 3

#: What of the kernel's checks each race needs: bugs of the museum, or checks (pyksm.bugs).
REMOVED: dict[str, tuple[str, ...]] = {
    "swapoff-unmerge": ("ksm-swapoff-resurrects-ksm-page",),
    # Either of the two is enough.
    "swapoff-fault": ("swapin-cache-page-removed-aba", "do_swap_page-no-pte_same"),
    "swapoff-fork": ("copy_pte-no-mmlist",),
    "swapoff-exit": ("try_to_unuse-no-mm_users",),
    "swapoff-dontneed": ("unuse_pte-no-pte_same",),
    "scan-reclaim": ("ksm-write-protect-failure-ignored",),
    "migrate-unmerge": ("ksm-migration-hides-page-from-unmerge",),
}


def scenario(name: str) -> Scenario:
    path = HERE / f"{name}.ksm"
    return parse(path.read_bytes(), path.name)


def prove(name: str, preemptions: int, profile: str | None = None, jobs: int = 2) -> Explored:
    """All schedules within the bound, whatever it takes."""
    return explore(scenario(name), Bounds(preemptions=preemptions, jobs=jobs), profile=profile)


def shortest(name: str, most: int = PREEMPTIONS, jobs: int = 2) -> Explored:
    """The checks taken away: the first that goes wrong with as few preemptions as that takes."""
    for preemptions in range(most + 1):
        bounds = Bounds(preemptions=preemptions, jobs=jobs, max_steps=3000)
        found = explore(scenario(name), bounds, bugs=REMOVED[name])
        if found.found:
            break
    return found


def rows(preemptions: int) -> Iterable[str]:
    yield "| race | profile | schedules | equivalent | steps | wrong | without | shortest wrong |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in REMOVED:
        bad = shortest(name)
        first = bad.found[0]
        words = " ".join(str(piece) for piece in first.schedule)
        for profile in PROFILES:
            proof = prove(name, preemptions, profile)
            assert proof.complete
            told = (
                f"{', '.join(REMOVED[name])} | `{words}`: {first.wrong}"
                if profile == scenario(name).machine.profile
                else " | "
            )
            yield (
                f"| {name} | {profile} | {proof.schedules:,} | {proof.pruned:,} | {proof.steps:,} "
                f"| {len(proof.found)} | {told} |"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preemptions", type=int, default=PREEMPTIONS)
    parser.add_argument("--write", action="store_true", help="docs/proofs.md between its marks")
    args = parser.parse_args()
    began = time.monotonic()
    table = list(rows(args.preemptions))
    table += [
        "",
        f"All schedules with at most {args.preemptions} preemptions, by `python tests/proofs.py` "
        f"in {time.monotonic() - began:.0f} s on {platform.machine()}, two threads, "
        f"{date.today().isoformat()}, pyksm {__version__}.",
    ]
    if args.write:
        path = Path(__file__).parents[1] / "docs" / "proofs.md"
        text = path.read_text(encoding="utf-8")
        head, rest = text.split("<!-- proofs -->\n", 1)
        tail = rest.split("<!-- end -->\n", 1)[1]
        inside = "\n".join(table)
        path.write_text(f"{head}<!-- proofs -->\n{inside}\n<!-- end -->\n{tail}", encoding="utf-8")
    else:
        print("\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
