"""One suite, both engines: whatever takes ``engine`` runs once on each."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["core", "oracle"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine."""
    return str(request.param)
