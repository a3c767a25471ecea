"""One operation through Python costs little more than the call of C that it comes down to."""

from __future__ import annotations

from calls import measured

#: Times a bare cffi call, and on top of that what may be made of its answer: the factor is three to
#: five where nothing disturbs, and was fifteen to thirty when each call made arrays.
FACTOR = 10


def test_one_operation() -> None:
    took = measured(40)
    wrong = {
        name: (round(ns), round(bare))
        for name, (ns, bare) in took.items()
        if bare is not None and ns > FACTOR * bare
    }
    assert not wrong, took
    # The objects of machine.py add less than as much again.
    for name in ("touch", "read", "write"):
        assert took[f"Region.{name}"][0] < 4 * took[name][0]
