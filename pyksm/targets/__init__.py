"""Real memory as input: running processes, ELF core files, saved images, own interpreters.

Every reader answers with a :class:`~pyksm.targets.memory.Memory`: the private anonymous memory
of some processes, each distinct page kept once. :func:`~pyksm.targets.choose.read_targets` picks
the reader that fits what the user named.
"""

from __future__ import annotations

from pyksm.targets.memory import Memory, PageStore, ProcessMemory, Vma

__all__ = ["Memory", "PageStore", "ProcessMemory", "Vma"]
