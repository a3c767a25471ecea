"""Scenarios on a real kernel: the same files, the same JSON as the engines answer.

The work in the kernel is done by a small static C program (``agent/``, compiled by :mod:`.agent`
on first use). :mod:`.recorder` drives it over a :class:`.link.Link`, one request after the other,
and makes an answer of what it says. Where the agent runs is nobody else's business:

- :mod:`.guest` boots a kernel under qemu with the agent as init: no root, no network, no residue;
- a live recorder starts it as a child process (``agent serve``, standard input and output) on the
  kernel at hand. It has to supply, over the same link and before the first scenario: swap areas
  (``area PATH`` for each, any block device or swap file), a memory cgroup (``group DIRECTORY``) and
  the settings of :data:`.recorder.MACHINE_SETTINGS`, which it reads (``get``) and puts back.
"""

from pyksm.recorder.link import Link, RecorderError
from pyksm.recorder.recorder import Recorder

__all__ = ["Link", "Recorder", "RecorderError"]
