"""Hunting: programs made at random, held against each other, shrunk; and races found by name."""

from pyksm.hunt.fuzz import Finding, examine, fuzz
from pyksm.hunt.generate import program
from pyksm.hunt.races import Schedule, find_schedule
from pyksm.hunt.shrink import shrink

__all__ = ["Finding", "Schedule", "examine", "find_schedule", "fuzz", "program", "shrink"]
