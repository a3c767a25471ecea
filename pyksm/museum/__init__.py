"""The museum's scenarios: ``NAME.ksm`` shows the bug ``NAME`` of :mod:`pyksm.bugs`.

A scenario says the profile in which the bug can be, but not ``bug=``: with the switch it goes
wrong, without it nothing does. The comment at its head tells the story.
"""

from __future__ import annotations

from pathlib import Path

from pyksm.scenario import Scenario, parse

HERE = Path(__file__).parent


def path(name: str) -> Path:
    """Where the scenario of that bug is, or would be."""
    return HERE / f"{name}.ksm"


def scenario(name: str) -> Scenario:
    """The scenario of that bug."""
    return parse(path(name).read_bytes(), f"{name}.ksm")
