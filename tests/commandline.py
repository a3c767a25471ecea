"""Helpers of the command line tests: one run, and how a refusal looks."""

from __future__ import annotations

import pytest

from pyksm import cli


class Ran:
    """What a command line printed and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str) -> None:
        capsys.readouterr()
        self.status = cli.status(list(args))
        self.out, self.err = capsys.readouterr()

    def refused(self, *said: str) -> None:
        """Exit status 2 and exactly one line on stderr, nothing on stdout."""
        assert self.status == 2
        assert self.out == ""
        assert self.err.startswith("pyksm: ")
        assert self.err.count("\n") == 1
        assert self.err.endswith("\n")
        assert "Traceback" not in self.err
        for each in said:
            assert each in self.err


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line of a run that is refused."""
    ran = Ran(capsys, *args)
    ran.refused()
    return ran.err
