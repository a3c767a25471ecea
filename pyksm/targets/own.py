"""Python interpreters of our own, for when the user names no target: there is always real input.

They wait on their standard input, so they end when we close it. When we are killed while they are
stopped they would not see that, so the kernel kills them with us (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from pyksm.errors import InputError
from pyksm.targets.signals import deferred

#: Ordinary interpreters in a default run, the last of which also forks a child.
DEFAULT_COUNT = 5
MAX_COUNT = 1000

_GRACE_SECONDS = 5.0

# What each interpreter runs: a few modules of the standard library, as any program has them, a
# table that all load alike (their sources), a little data of its own, and then sleep. Parent and
# child write after the fork, so they share most pages and each has some that the other has not.
_PROGRAM = r"""
import ctypes, sys
seed, forks, advise = (int(each) for each in sys.argv[1:])
libc = ctypes.CDLL(None)
prctl = libc.prctl
prctl(1, 9)
if advise:
    prctl(41, 1, 0, 0, 0)
    by_hand = advise == 2 or prctl(67, 1, 0, 0, 0)
import argparse, collections, csv, email.message, json, logging, os, random, re
draw = random.Random(seed)
files = sorted(f for m in list(sys.modules.values()) if (f := getattr(m, "__file__", None)))
alike = b"".join(open(f, "rb").read() for f in files if f.endswith(".py"))
table = {i: [draw.random() for _ in range(16)] for i in range(2000)}
if forks and not os.fork():
    prctl(1, 9)
own = [str(draw.random() + os.getpid()) for _ in range(5000)]
if advise and by_hand:
    lines = open("/proc/self/maps").read().splitlines()
    for where, perms, *_ in map(str.split, lines):
        first, end = (int(each, 16) for each in where.split("-"))
        if perms == "rw-p": libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), 12)
os.write(1, b"%d\n" % os.getpid())
sys.stdin.buffer.read()
"""


@contextlib.contextmanager
def interpreters(count: int = DEFAULT_COUNT, mergeable: bool = False) -> Iterator[list[int]]:
    """Spawn ``count`` interpreters, the last with a forked child; their pids, once they wait.

    ``mergeable``: their memory is advised so, all of it (PR_SET_MEMORY_MERGE: Linux 6.4 on, root)
    or what is writable at the end; and in small pages (PR_SET_THP_DISABLE).
    They are ended when the block is left, however it is left. InputError where they cannot be
    started or ``count`` is not 1..1000.
    """
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"{count} interpreters; expected 1 to {MAX_COUNT}")
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            with deferred():  # no process may exist that nobody will end
                process = _start(number, number == count - 1, mergeable)
                stack.callback(_end, process)
            started.append(process)
        pids = [_await(process) for process in started]
        pids.append(_await(started[-1]))
        yield sorted(pids)


def _start(number: int, forks: bool, mergeable: bool) -> subprocess.Popen[bytes]:
    arguments = [str(number), str(int(forks)), str(int(mergeable))]
    command = [sys.executable, "-I", "-c", _PROGRAM, *arguments]
    try:
        # A session of its own: Ctrl-C at the terminal reaches us, and we end them in order.
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise InputError(f"{sys.executable}: cannot be started: {exc.strerror}") from None


def _await(process: subprocess.Popen[bytes]) -> int:
    # One line from each process that runs behind this pipe.
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.strip().isdigit():
        raise InputError(f"{sys.executable}: an interpreter ended before it was ready")
    return int(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Closing its input ends it and its child; the wait for end of file on its output, which the
    # child holds as well, makes sure of the child.
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.read()
    process.stdout.close()
