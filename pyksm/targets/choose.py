"""From what the user names to memory: a PID, an ELF core file, a saved image, or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from pyksm.errors import InputError
from pyksm.targets import corefile, image
from pyksm.targets.live import Progress, capture
from pyksm.targets.memory import Memory
from pyksm.targets.own import DEFAULT_COUNT, interpreters


def read_targets(
    targets: Sequence[str],
    stop: bool = False,
    procs: int = DEFAULT_COUNT,
    progress: Progress | None = None,
) -> Memory:
    """The memory of all targets together; without any, of interpreters spawned for the purpose.

    A target of digits is a PID (write ``./123`` for a file of that name); anything else is a
    file, and its first bytes say whether it is a core or an image. InputError for the first that
    cannot be read.
    """
    memory = Memory()
    if not targets:
        with interpreters(procs) as pids:
            capture(pids, memory, stop=True, progress=progress)
        return memory
    pids = [int(t) for t in targets if _is_pid(t)]
    if pids:
        # Together, not one by one: sharing between them is only seen in one capture.
        capture(pids, memory, stop=stop, progress=progress)
    for target in targets:
        if not _is_pid(target):
            _read_file(target, memory, progress)
    return memory


def source_kind(targets: Sequence[str]) -> str:
    """What the targets are, for the report: own, pids, files or mixed."""
    if not targets:
        return "own"
    kinds = {_is_pid(target) for target in targets}
    return "mixed" if len(kinds) == 2 else "pids" if True in kinds else "files"


def _is_pid(target: str) -> bool:
    if not (target.isascii() and target.isdigit()):
        return False
    if not 0 < int(target) < 1 << 31:
        raise InputError(f"{target}: not a PID; expected 1 to {(1 << 31) - 1}")
    return True


def _read_file(path: str, memory: Memory, progress: Progress | None) -> None:
    if "\0" in path:
        raise InputError(f"{path!r}: not a file name")
    try:
        # Before it is opened: a FIFO would wait for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: not a regular file; expected a PID, core file or image")
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from None
    if head == image.MAGIC:
        image.load(path, memory)
    elif head.startswith(corefile.MAGIC):
        corefile.read_core(path, memory, progress)
    else:
        raise InputError(f"{path}: neither a pyksm image nor an ELF core file")
