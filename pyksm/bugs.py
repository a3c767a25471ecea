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
    # ---- mm/rmap.c ----
    Bug(
        "anonvma-not-oldest", "sequential", "mm/rmap.c: __page_set_anon_rmap",
        ("ea90002b0fa7",), "2.6.34-rc1", "2.6.34-rc4", ("I4", "I5"),
        "a page that comes in from swap belongs to the anon_vma of whoever touches it first, not "
        "to the oldest one, which all who share it are on",
    ),
    Bug(
        "anonvma-degree-merge", "sequential", "mm/mmap.c: vma_adjust",
        ("b800c91a0517",), "3.19-rc4", "3.19-rc4", ("I3",),
        "a vma that takes pages over is cloned onto its neighbour's anon_vmas before it is told "
        "which of them is its own, so its use of that one is not counted",
        needs=("anon-vma-reuse",),
        corrected="both commits came with 3.19-rc4; and no chain of forks is needed: the count is "
        "short wherever a vma without an anon_vma takes over a neighbour that has one",
    ),
    Bug(
        "anonvma-degree-underflow-enomem", "sequential+fault", "mm/rmap.c: anon_vma_clone",
        ("3fe89b3e2a7b",), "3.19", "4.0", ("I3",),
        "a clone that runs out of memory takes back a use of the anon_vma that it had not counted",
        needs=("anon-vma-reuse",),
        corrected="splitting a vma is enough, and always does it: the new half comes with its "
        "anon_vma set, a fork's vma only if it has found one to reuse",
    ),
    Bug(
        "anonvma-double-reuse", "sequential", "mm/rmap.c: anon_vma_clone",
        ("2555283eb40d",), "3.19", "6.0", ("I3", "I4", "I5"),
        "whether an anon_vma is idle is told by one number for children and users together, so one "
        "that is in use is given to a second vma, whose chain is another",
        needs=("anon-vma-active-vmas",),
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
