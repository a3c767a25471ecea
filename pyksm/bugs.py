"""The museum: bugs that Linux really had, each a switch of the core that is off unless asked for.

One row a bug. The core's ``kernel_bugs.h`` is generated from this table when it is built
(``csrc/gen_bugs.py`` runs this file by itself, so it imports nothing of the package), and the
switch is at the place of the real mistake: ``bugged(m, BUG_…)``. Only the build of the core that
runs tasks (``pyksm._tasks``) has them; in the plain one they are compiled away.

``commits`` are those of the fix, ``introduced`` and ``fixed`` the releases between which kernels
had the bug, as far as is known. ``needs`` are features (:mod:`pyksm.features`) without which the
switch has nothing to break, ``lacks`` those with which it has none left. ``corrected`` says what
was wrong about the bug in the catalogue that this museum was furnished from.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("sequential", "sequential+fault", "interleaving", "interleaving+fault")


@dataclass(frozen=True)
class Bug:
    """One bug. ``place``: kernel file and function; ``invariants``: what it breaks, I1 to I10."""

    name: str
    kind: str
    place: str
    commits: tuple[str, ...]
    introduced: str
    fixed: str
    invariants: tuple[str, ...]
    summary: str
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    corrected: str = ""


BUGS: tuple[Bug, ...] = (
    # ---- mm/swapfile.c ----
    Bug(
        "ksm-swapoff-resurrects-ksm-page", "sequential", "mm/swapfile.c: unuse_pte",
        ("9e16b7fb1d06",), "2.6.33", "3.9", ("I7", "I4"),
        "swapoff maps the page of the swap cache as it is, a KSM page too, whatever ksm/run says",
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(each.name for each in BUGS)

_BY_NAME = {each.name: each for each in BUGS}


def find(name: str) -> Bug:
    """The bug of that name; KeyError where there is none."""
    return _BY_NAME[name]


def exists_in(bug: Bug, features: frozenset[str]) -> bool:
    """Whether a kernel with these features has the place that the bug breaks."""
    return features >= set(bug.needs) and not features & set(bug.lacks)
