"""Errors. Each is an ``OSError`` whose ``errno`` is the kernel's own answer."""

from __future__ import annotations

import errno as _errno
import os


class PyksmError(Exception):
    """Root of everything that this package raises on purpose."""


class MachineError(PyksmError, OSError):
    """An operation that the machine refused or could not finish; ``errno`` says why."""

    def __init__(self, code: int, what: str) -> None:
        OSError.__init__(self, code, f"{what}: {os.strerror(code)}")
        self.name = "EHWPOISON" if code == 133 else _errno.errorcode.get(code, f"E{code}")


class InputError(PyksmError, ValueError):
    """Input from outside (scenario, image, core file, argument) that does not hold together.

    ``str()`` is one line: where (file, line, column), what is wrong, what was expected.
    """
