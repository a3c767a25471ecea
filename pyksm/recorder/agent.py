"""The agent's program: C source of this package, compiled when it is first needed."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from pyksm.recorder.link import RecorderError

SOURCES = Path(__file__).parent / "agent"
_FLAGS = ("-static", "-O2", "-std=gnu11", "-D_GNU_SOURCE")
_COMPILE_SECONDS = 120


def program() -> Path:
    """The compiled agent in the user's cache; compiled now if it is not there.

    ``CC`` names another compiler than cc, ``XDG_CACHE_HOME`` another cache than ~/.cache.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    digest = hashlib.sha256(repr((compiler, _FLAGS)).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    cached = _cache() / f"agent-{digest.hexdigest()[:24]}"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        _compile(compiler, [each for each in sources if each.suffix == ".c"], cached)
    return cached


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "pyksm"


def _compile(compiler: list[str], sources: list[Path], to: Path) -> None:
    """Under another name first: somebody else may be at it, too."""
    with tempfile.TemporaryDirectory(dir=to.parent, prefix="compile-") as scratch:
        made = Path(scratch) / "agent"
        command = [*compiler, *_FLAGS, *map(str, sources), "-o", str(made)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RecorderError(f"the agent cannot be compiled: {error}; {_WANTED}") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RecorderError(f"the agent cannot be compiled: {said}; {_WANTED}")
        made.rename(to)


_WANTED = "expected a C compiler that links statically (Debian: gcc, libc6-dev)"
