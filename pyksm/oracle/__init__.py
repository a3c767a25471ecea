"""The oracle: pyksm's machine in plain Python, written to be read.

One file for each kernel file, functions under their kernel names, taking the machine as their
first argument. It shares nothing with the C core, so that each can prove the other wrong.
"""

from pyksm.oracle.machine import Oracle

__all__ = ["Oracle"]
