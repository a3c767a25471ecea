"""Scenarios on a real kernel: the same files, the same JSON as the engines answer.

The work in the kernel is done by a small static C program (``agent/``, compiled by :mod:`.agent`
on first use). :mod:`.recorder` drives it over a :class:`.link.Link`, one request after the other,
and makes an answer of what it says. Where the agent runs is nobody else's business:

- :mod:`.guest` boots a kernel under qemu with the agent as init: no root, no network, no residue;
- :mod:`.live` starts it as a child process (``agent serve``, standard input and output) on the
  kernel at hand, puts up swap areas, a memory cgroup and the settings that a recording needs, and
  puts everything back, whatever ends it (:mod:`.livestate`).
"""

from pyksm.recorder.link import Link, RecorderError
from pyksm.recorder.recorder import Recorder

__all__ = ["Link", "Recorder", "RecorderError"]
