"""For the tests of others: hypothesis strategies for scenarios, and the engines' comparison.

Needs hypothesis (``pip install pyksm[test]``).
"""

from pyksm.hunt.fuzz import examine
from pyksm.hunt.generate import Names
from pyksm.hunt.strategies import openings, scenarios, steps

__all__ = ["Names", "examine", "openings", "scenarios", "steps"]
