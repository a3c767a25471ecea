"""Kernel profiles: which kernel a machine behaves like, by name.

A profile is a set of named features (:mod:`pyksm.features` has the table of both); the names that
mean the same kernel are aliases of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyksm import features
from pyksm.errors import InputError
from pyksm.features import DEFAULT, PROFILES, Profile

__all__ = [
    "DEFAULT",
    "PROFILES",
    "Profile",
    "effective",
    "find",
    "for_release",
    "names",
    "release_of",
]


def find(name: str) -> Profile:
    """The profile of that name or alias; :class:`InputError` names what is known."""
    for profile in PROFILES.values():
        if name == profile.name or name in profile.aliases:
            return profile
    raise InputError(f"profile {name!r} is not known, expected {' or '.join(names())}")


def names() -> list[str]:
    """Every name that :func:`find` takes, aliases included."""
    return [known for profile in PROFILES.values() for known in (profile.name, *profile.aliases)]


def effective(
    name: str, on: Iterable[str] = frozenset(), off: Iterable[str] = frozenset()
) -> frozenset[str]:
    """The features of a profile with some switched; :class:`InputError` for unknown names."""
    on, off = frozenset(on), frozenset(off)
    for each in sorted(on | off):
        if each not in features.NAMES:
            raise InputError(
                f"feature {each!r} is not known, expected one of {', '.join(features.NAMES)}"
            )
    return features.switch(find(name).features, on, off)


def release_of(profile: Profile) -> tuple[int, ...]:
    """The release that a profile is of, as numbers that compare as releases do."""
    return features.release(profile.name.partition("-")[0])


def for_release(release: str) -> Profile | None:
    """The profile of a kernel's release (``uname -r``): the newest that is not newer than it."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        return None
    at = (int(found[1]), int(found[2]))
    best = None
    for profile in PROFILES.values():
        if "-" not in profile.name and features.release(profile.name) <= at:
            best = profile
    return best
