"""The scenario language: text or objects in, the contract's JSON answer out."""

from pyksm.scenario.engines import NAMES as ENGINES
from pyksm.scenario.kinds import Pages, Setting, Value
from pyksm.scenario.parser import parse
from pyksm.scenario.runner import Run, run
from pyksm.scenario.statements import STATEMENTS, Scenario, Statement

__all__ = [
    "ENGINES",
    "STATEMENTS",
    "Pages",
    "Run",
    "Scenario",
    "Setting",
    "Statement",
    "Value",
    "parse",
    "run",
]
