"""Profiles and features: one table, understood alike by Python and C."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hs

import pyksm
from pyksm import features, profiles
from pyksm._core import ffi, lib
from pyksm.core import Core
from pyksm.engine import Config
from pyksm.errors import InputError
from pyksm.features import FEATURES, NAMES, PROFILES, find, of_release, release, switch

SOME = hs.frozensets(hs.sampled_from(NAMES), max_size=4)


def masked(names: frozenset[str]) -> int:
    return sum(1 << NAMES.index(name) for name in names)


def closed(having: frozenset[str]) -> bool:
    return all(need in having for name in having for need in find(name).needs)


@pytest.mark.parametrize("feature", FEATURES, ids=NAMES)
def test_feature(feature: features.Feature) -> None:
    """A row says a kernel's release, real commits or none, in words, and is of some use."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", feature.name)
    assert feature.area in {"ksm", "swapoff", "fault", "rmap", "swap", "reclaim", "pte"}
    assert release(feature.since) > release("3.10")
    assert feature.until is None or release(feature.since) < release(feature.until)
    assert all(re.fullmatch("[0-9a-f]{12}", each) and int(each, 16) for each in feature.commits)
    assert len(feature.summary) > 20
    newest = max(profiles.release_of(each) for each in PROFILES.values())
    to_come = release(feature.since) > newest or feature.asked
    assert to_come != any(feature.name in profile.features for profile in PROFILES.values())


def test_names_are_unique_and_few_enough_for_a_mask() -> None:
    assert len(set(NAMES)) == len(NAMES) <= 128


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_profile(profile: features.Profile) -> None:
    assert closed(profile.features)
    assert all(profiles.find(name) is profile for name in (profile.name, *profile.aliases))
    museum = {name for name in profile.features if find(name).museum}
    assert bool(museum) == ("unfixed" in profile.name)


def test_profiles_are_in_order_of_their_releases() -> None:
    assert list(PROFILES)[:: len(PROFILES) - 1] == ["3.9", "6.18"]
    numbers = [profiles.release_of(each) for each in PROFILES.values()]
    assert all(older <= newer for older, newer in pairwise(numbers))
    assert of_release("3.9") == frozenset()


@given(hs.sampled_from(list(PROFILES)), SOME, SOME)
def test_switching_keeps_what_is_needed(name: str, on: frozenset[str], off: frozenset[str]) -> None:
    had = PROFILES[name].features
    got = switch(had, on, off)
    assert closed(got)
    assert not got & off
    gone = {each for each in had - got if each not in off}
    assert all(any(need not in got for need in find(each).needs) for each in gone)
    assert all(each in got or not closed(got | {each}) or each in off for each in on)


def words(number: int) -> dict[str, list[int]]:
    """``struct pyksm_feature_set`` of a mask."""
    return {"word": [number & (1 << 64) - 1, number >> 64]}


def number(features: Any) -> int:
    """The mask that a ``struct pyksm_feature_set *`` holds."""
    mask: int = features.word[0] | features.word[1] << 64
    return mask


def features_of(config: dict[str, Any]) -> int:
    """What a machine has that C makes of a config (features, features_off, exact_features)."""
    profile = ffi.new("char[]", config["profile"].encode())
    err = ffi.new("int *")
    machine = lib.pyksm_new(ffi.new("struct pyksm_config *", config | {"profile": profile}), err)
    assert machine != ffi.NULL
    had = ffi.new("struct pyksm_feature_set *")
    assert lib.pyksm_features(machine, had) == 0
    lib.pyksm_free(machine)
    return number(had)


@given(hs.sampled_from(profiles.names()), SOME, SOME)
def test_c_understands_profiles_and_switches_alike(
    name: str, on: frozenset[str], off: frozenset[str]
) -> None:
    had = profiles.find(name).features
    of_profile = ffi.new("struct pyksm_feature_set *")
    assert lib.pyksm_profile_features(name.encode(), of_profile) == 0
    assert number(of_profile) == masked(had)
    asked = {
        "frames": 4,
        "profile": name,
        "features": words(masked(on)),
        "features_off": words(masked(off)),
    }
    assert features_of(asked) == masked(switch(had, on, off))
    # An exact set is taken as it is, but for what has no meaning by itself.
    exact = features_of(asked | {"exact_features": 1})
    assert exact & ~masked(on - off) == 0
    assert features_of(asked | {"features": words(exact), "exact_features": 1}) == exact


@given(hs.sampled_from(profiles.names()), SOME, SOME)
def test_a_machine_has_what_its_config_says(
    name: str, on: frozenset[str], off: frozenset[str]
) -> None:
    config = Config(frames=4, profile=name, on=on, off=off)
    core = Core(config)
    had = ffi.new("struct pyksm_feature_set *")
    core._call("features", lib.pyksm_features, had)
    assert number(had) == masked(config.features)
    core.close()


def test_c_lists_the_same_names() -> None:
    count = lib.pyksm_nr_features()
    assert tuple(ffi.string(lib.pyksm_feature_name(k)).decode() for k in range(count)) == NAMES
    assert lib.pyksm_feature_name(count) == lib.pyksm_feature_name(-1) == ffi.NULL
    known = []
    while (name := lib.pyksm_profile_name(len(known))) != ffi.NULL:
        known.append(ffi.string(name).decode())
    assert known == profiles.names()
    assert lib.pyksm_profile_name(-1) == ffi.NULL


def test_c_refuses_what_nobody_knows() -> None:
    mask = ffi.new("struct pyksm_feature_set *")
    assert lib.pyksm_profile_features(b"2.6", mask) == -22
    assert lib.pyksm_profile_features(ffi.NULL, mask) == -22
    assert lib.pyksm_profile_features(b"3.9", ffi.NULL) == -22
    err = ffi.new("int *")
    assert lib.pyksm_features(ffi.NULL, mask) == -22
    for wrong in (
        {"profile": b"2.6"},
        {"features": words(1 << 127)},
        {"features_off": words(1 << len(NAMES))},
    ):
        kept = {key: ffi.new("char[]", value) for key, value in wrong.items() if key == "profile"}
        config = ffi.new("struct pyksm_config *", wrong | kept)
        assert lib.pyksm_new(config, err) == ffi.NULL
        assert err[0] == -22


def test_machines_by_name() -> None:
    assert pyksm.PROFILES is PROFILES
    assert pyksm.FEATURES is FEATURES
    with pyksm.Machine(profile="6.1", on="advisor", off=["xxhash"]) as m:
        having = m.config.features
    assert {"advisor", "smart-scan"} <= having
    assert "xxhash" not in having
    with pytest.raises(InputError, match=r"profile '2\.6' is not known, expected"):
        pyksm.Machine(profile="2.6")
    for wrong in ({"on": "magic"}, {"off": ["magic"]}):
        with pytest.raises(InputError, match="feature 'magic' is not known, expected one of"):
            pyksm.Machine(**wrong)


@pytest.mark.parametrize(
    ("uname", "name"),
    [
        ("3.9.0", "3.9"),
        ("4.18.0-553.el8", "3.9"),
        ("4.19.0-27-amd64", "4.19"),
        ("6.1.0-56-cloud-amd64", "6.1"),
        ("6.8.0-45-generic", "6.1"),
        ("6.12.117+deb12", "6.12"),
        ("7.1.3", "6.18"),
    ],
)
def test_profile_for_a_kernel(uname: str, name: str) -> None:
    assert profiles.for_release(uname) is PROFILES[name]


def test_no_profile_for_what_is_none() -> None:
    assert profiles.for_release("2.6.32") is None
    assert profiles.for_release("unknown") is None
