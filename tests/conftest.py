"""One suite, both engines: whatever takes ``engine`` runs once on each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import pyksm

# A shell starts background jobs deaf to Ctrl-C and their children inherit that; tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Python processes that tests start import the package that the tests do.

    Run from the repository they would find the source tree first, which has no extension.
    """
    os.environ["PYTHONPATH"] = str(Path(pyksm.__file__).parent.parent)
    os.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(params=["core", "oracle"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine."""
    return str(request.param)
