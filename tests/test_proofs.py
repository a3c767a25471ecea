"""The races of tests/scenarios/proof: nothing goes wrong within the bound, and why it does not."""

from __future__ import annotations

import proofs
import pytest

from pyksm.features import PROFILES

NAMES = list(proofs.REMOVED)


def test_each_race_has_its_checks() -> None:
    assert {path.stem for path in proofs.HERE.glob("*.ksm")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_schedule_goes_wrong(name: str) -> None:
    """Of all with at most three preemptions, in the kernel of the mail."""
    proof = proofs.prove(name, proofs.PREEMPTIONS)
    assert proof.complete
    assert proof.found == ()
    assert proof.schedules > 50
    print(f"{name}: {proof.schedules} schedules, {proof.pruned} more are equivalent")


@pytest.mark.parametrize("profile", [each for each in PROFILES if each != "3.9"])
@pytest.mark.parametrize("name", NAMES)
def test_nor_in_other_kernels(name: str, profile: str) -> None:
    proof = proofs.prove(name, 2, profile)
    assert proof.complete
    assert proof.found == ()


@pytest.mark.parametrize("name", NAMES)
def test_without_its_check_one_does(name: str) -> None:
    found = proofs.shortest(name)
    assert found.found, "the check is not what keeps it from going wrong"
    first = found.found[0]
    assert first.preemptions <= 2
    assert len(first.schedule) <= 4
