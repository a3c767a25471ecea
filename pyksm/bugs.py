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

KINDS = ("sequential", "sequential+fault", "interleaving", "interleaving+fault", "check")


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
    Bug(
        "swapoff-unuse-eio-garbage", "sequential+fault", "mm/swapfile.c: unuse_pte",
        ("9f186f9e5fa9",), "2.4", "5.19", ("I1",),
        "swapoff maps a page that it could not read as if it had been",
        needs=("swapoff-error-entries",),
        corrected="its content is zeros here, where a real one has whatever was in the frame",
    ),
    Bug(
        "swapoff-loses-pte-bits", "sequential", "mm/swapfile.c: unuse_pte",
        ("14a762dd1977",), "3.11", "5.19", ("I8",),
        "swapoff makes the pte from the vma's protection alone: the soft-dirty bit is lost",
        needs=("swapoff-soft-dirty",),
    ),
    Bug(
        "swapoff-signal-and-late-stop", "sequential+fault", "mm/swapfile.c: try_to_unuse",
        (), "5.1-rc1", "5.1-rc5", ("I9",),
        "a signal ends the walk over the mms and is forgotten where swapoff tries again, for ever",
        needs=("swapoff-per-mm",),
        corrected="the commit was not traced, its patch was "
        "(alpine.LSU.2.11.1904081258200.1523@eggly.anvils); the signal need not come between two "
        "mms, one that is pending from the start will do. With the limit of three tries, which the "
        "same series took away, it ended as EBUSY",
    ),
)  # fmt: skip

#: No bugs that Linux had, but its checks, each taken away to prove what it is good for.
CHECKS: tuple[Bug, ...] = (
    Bug(
        "unuse_pte-no-pte_same", "check", "mm/swapfile.c: unuse_pte", (), "never", "never",
        ("I3", "I8", "I9"),
        "swapoff does not look again, with the pte locked, whether it is still the swap entry",
    ),
    Bug(
        "copy_pte-no-mmlist", "check", "mm/memory.c: copy_one_pte", (), "never", "never", ("I9",),
        "fork does not put a child with swap entries on swapoff's list",
    ),
    Bug(
        "try_to_unuse-no-mm_users", "check", "mm/swapfile.c: try_to_unuse", (), "never", "never",
        ("I3", "I5"),
        "swapoff takes a reference to an mm that has no users any more",
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(each.name for each in (*BUGS, *CHECKS))

_BY_NAME = {each.name: each for each in (*BUGS, *CHECKS)}


def find(name: str) -> Bug:
    """The bug of that name; KeyError where there is none."""
    return _BY_NAME[name]


def exists_in(bug: Bug, features: frozenset[str]) -> bool:
    """Whether a kernel with these features has the place that the bug breaks."""
    return features >= set(bug.needs) and not features & set(bug.lacks)
