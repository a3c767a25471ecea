"""Kernel profiles: which kernel a machine behaves like, by name.

A profile is a set of named features (architecture law 3). There is one so far; the names that
mean the same kernel are aliases of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyksm.errors import InputError


@dataclass(frozen=True)
class Profile:
    """One kernel as the engines model it. ``features`` names what it has beyond the plain model."""

    name: str
    aliases: tuple[str, ...]
    recorded: str  #: the real kernel whose recordings this profile answers like
    summary: str
    features: frozenset[str] = frozenset()


DEFAULT = "3.9"

PROFILES: dict[str, Profile] = {
    "3.9": Profile(
        name="3.9",
        aliases=("3.10",),
        recorded="3.10.65",
        summary="KSM trees per node, KSM page migration, swapoff entry by entry",
        features=frozenset({"ksm-node-trees", "ksm-migration", "swapoff-per-entry"}),
    ),
}


def find(name: str) -> Profile:
    """The profile of that name or alias; :class:`InputError` names what is known."""
    for profile in PROFILES.values():
        if name == profile.name or name in profile.aliases:
            return profile
    raise InputError(f"profile {name!r} is not known, expected {' or '.join(names())}")


def names() -> list[str]:
    """Every name that :func:`find` takes, aliases included."""
    return [known for profile in PROFILES.values() for known in (profile.name, *profile.aliases)]
