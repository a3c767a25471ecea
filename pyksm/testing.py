"""For the tests of others: hypothesis strategies for scenarios, and the engines' comparison;
schedules of tasks, explored, and a judge of what a scenario does.

Needs hypothesis (``pip install pyksm[test]``).
"""

from pyksm.hunt.explore import Bounds, explore
from pyksm.hunt.fuzz import examine
from pyksm.hunt.generate import Names
from pyksm.hunt.judge import judge
from pyksm.hunt.strategies import openings, scenarios, small_scenarios, steps

__all__ = [
    "Bounds",
    "Names",
    "examine",
    "explore",
    "judge",
    "openings",
    "scenarios",
    "small_scenarios",
    "steps",
]
