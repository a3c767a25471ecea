"""The scenario language: text or objects in, the contract's JSON answer out.

``parse(text)`` gives a :class:`Scenario`, ``run(scenario, "core")`` its answer. Beyond the
statements that a recorder on a real kernel knows, models take:

- ``machine ... policy=reread|memcpy bug=SWITCH``: swapoff's policy; a check or shortcut taken away
  (:data:`pyksm.engine.SWITCHES`; more than one ``bug=`` may be given);
- ``inject KIND N``: the N-th such event from now on fails, once (:data:`pyksm.engine.FAULT_KINDS`);
  more than one may be waiting;
- ``census [strict]``: a full recount; the result's ``violations`` lists what is wrong;
- ``rmap P R[i:j]``: an rmap walk of each page, which changes nothing; the result's ``ptes`` says
  how often it came upon a pte that maps the page (null: there is no page to walk);
- ``at POINT N STATEMENT``: STATEMENT runs inside the next statement when that reaches the schedule
  point (:data:`pyksm.engine.SCHEDULE_POINTS`) for the N-th time. Its result is then in ``nested``
  of that statement's; ``reached`` is false there where the point was not reached so often.

- ``task NAME:`` blocks, ``join`` and ``schedule``: what runs at the same time, see docs/tasks.md
  and :mod:`pyksm.tasks`. :func:`pyksm.scenario.statements.parts` tells groups of tasks from
  statements, ``Scenario.answered`` what each result belongs to.

A result's ``events`` are what the kernel would have said in its log. The ``machine`` statement has
no result of its own.
"""

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
