"""What we change on a live machine, and the way back from it.

Before anything is changed, how to undo it is written to a journal, and a second process (this file
run by itself: it needs nothing but the standard library) waits at the other end of a pipe. When the
pipe closes, because we are done or because we died of whatever it was, that process undoes what the
journal says and removes it. Should even that one be killed, the journal is still there for
:func:`restore`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

#: Where the journal is unless told otherwise: gone after a reboot, as the changes are.
JOURNAL = "/run/pyksm-live.journal"

_SECONDS = 10.0  #: for processes to die and groups to become empty

Entry = dict[str, Any]


class StateError(Exception):
    """What was changed cannot be guarded, or is not as it was. One line for the user."""


# ------------------------------------------------------------------------------------- undoing


def undo(entries: list[Entry]) -> list[str]:
    """Undo everything, latest first; what could not be undone, one text each.

    Every entry may be undone twice, and undone where it never came to be done.
    """
    steps = [e for e in reversed(entries) if "do" in e]
    if _boot_of(entries) != _boot():
        steps = [e for e in steps if e["do"] == "unlink"]  # the rest went with the reboot
    for entry in steps:
        if entry["do"] == "kill":
            _end_session(int(entry["pid"]), int(entry["started"]))
    problems: list[str] = []
    # A knob may refuse its value because of another one (EBUSY, EINVAL): once more, then.
    for _ in range(3):
        problems, steps = _undo_once(steps)
        if not steps:
            break
    return problems + _unlike(entries)


def _undo_once(steps: list[Entry]) -> tuple[list[str], list[Entry]]:
    """Problems, and the steps that failed."""
    problems, failed = [], []
    for entry in steps:
        try:
            _UNDO[entry["do"]](entry)
        except OSError as exc:
            what = f"{entry['do']} {entry.get('path', '')}"
            problems.append(f"{what}: {exc.strerror or exc}")
            failed.append(entry)
    return problems, failed


def _unlike(entries: list[Entry]) -> list[str]:
    """Knobs whose value is not what it was."""
    if _boot_of(entries) != _boot():
        return []
    wanted: dict[str, str] = {}
    for entry in entries:
        if entry.get("do") == "write" and entry.get("check"):
            wanted.setdefault(entry["path"], entry["value"])
    found = []
    for path, value in wanted.items():
        with contextlib.suppress(OSError):
            if (now := read_knob(path)) != value:
                found.append(f"{path}: is {now}, was {value}")
    return found


def _undo_write(entry: Entry) -> None:
    if "while" not in entry or os.path.exists(entry["while"]):
        with contextlib.suppress(FileNotFoundError):
            write_knob(entry["path"], entry["value"])


def _undo_swapoff(entry: Entry) -> None:
    path = os.path.realpath(entry["path"])
    libc = ctypes.CDLL(None, use_errno=True)
    while path in active_swaps():
        if libc.swapoff(os.fsencode(path)):
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), path)


def _undo_unlink(entry: Entry) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entry["path"])


def _undo_rmdir(entry: Entry) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            os.rmdir(entry["path"])
        except FileNotFoundError:
            return
        except OSError as exc:
            # A group is busy until the last of its processes is reaped.
            if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _undo_command(entry: Entry) -> None:
    done = subprocess.run(entry["command"], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode and os.path.exists(entry["path"]):
        text = done.stderr.decode(errors="replace").strip()
        raise OSError(errno.EIO, f"{entry['command'][0]}: {text or done.returncode}")


def _undo_nothing(_: Entry) -> None:
    pass


_UNDO = {
    "write": _undo_write,
    "swapoff": _undo_swapoff,
    "unlink": _undo_unlink,
    "rmdir": _undo_rmdir,
    "command": _undo_command,
    "kill": _undo_nothing,  # all of them, before anything else
}


def _end_session(pid: int, started: int) -> None:
    """SIGKILL the processes of the session that ``pid`` began, and wait until they are gone."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        leader = _stat(pid)
        if leader is not None and int(leader[19]) != started:
            return  # its number is another's by now
        members = [p for p, words in _processes() if int(words[3]) == pid and words[0] not in "ZX"]
        if not members:
            return
        for member in members:
            with contextlib.suppress(OSError):
                os.kill(member, signal.SIGKILL)
        time.sleep(0.005)


def _processes() -> Iterator[tuple[int, list[str]]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (words := _stat(int(name))) is not None:
            yield int(name), words


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


# --------------------------------------------------------------------------------------- knobs


def read_knob(path: str) -> str:
    """The value of a small file; of ``a [b] c`` the one in brackets."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read().strip()
    for word in text.split():
        if word.startswith("[") and word.endswith("]"):
            return word[1:-1]
    return text


def write_knob(path: str, value: str) -> None:
    """Write a small file with one system call, as sysfs wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def active_swaps(table: str = "/proc/swaps") -> list[str]:
    """The paths in /proc/swaps."""
    with open(table, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()[1:]
    names = [line.rsplit(None, 4)[0].rstrip() for line in lines]
    octal = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}
    for code, char in octal.items():
        names = [name.replace(code, char) for name in names]
    return names


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _boot_of(entries: list[Entry]) -> str:
    return str(entries[0].get("boot", "")) if entries else ""


def _load(path: str, fd: int) -> list[Entry]:
    """The entries of a journal; a last line that was cut off is none."""
    lines = os.pread(fd, os.fstat(fd).st_size, 0).split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise StateError(f"{path}: not a journal of pyksm record") from None


def restore(path: str = JOURNAL) -> bool:
    """Undo what a journal says whose owner is gone; False where there is none.

    StateError where its owner still lives, or something could not be undone.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StateError(f"{path}: {exc.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{path}: in use, a live recording is at work") from None
        problems = _finish(path, fd)
    finally:
        os.close(fd)
    if problems:
        raise StateError(f"not put back: {'; '.join(problems)} (see {path})")
    return True


def _finish(path: str, fd: int) -> list[str]:
    """Undo a journal and remove it; with a problem it stays, for another try."""
    problems = undo(_load(path, fd))
    if not problems:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(fd)):  # not another's
                os.unlink(path)
    return problems


def _new_journal(path: str) -> int:
    """A file with no name yet; where there can be none, one that has its name at once."""
    mode = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(os.path.dirname(path) or ".", mode | os.O_TMPFILE, 0o600)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        return os.open(path, mode | os.O_CREAT | os.O_EXCL, 0o600)


def _name_journal(path: str, fd: int) -> None:
    if not os.fstat(fd).st_nlink:
        # With a directory named (and ignored: the path is absolute) Python calls linkat, which
        # alone can follow that link.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


# ------------------------------------------------------------------------------------ the guard


class Guard:
    """A ``with`` block after which the machine is as it was, whatever ends the block.

    Whatever is changed in the block is said here first.
    """

    def __init__(self, journal: str = JOURNAL) -> None:
        self.journal = journal
        self._kept: set[str] = set()
        self._fd = -1
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guard:
        with _deferred():
            return self._enter()

    def _enter(self) -> Guard:
        # Named only when it is locked and watched over: whoever finds it finds it in use, or with
        # something to undo in it.
        try:
            self._fd = _new_journal(self.journal)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._note(boot=_boot(), pid=os.getpid())
            self._start_watchdog()
            _name_journal(self.journal, self._fd)
        except FileExistsError:
            self._close()
            raise StateError(
                f"{self.journal} is there: another live recording is at work, or one could not "
                "put things back (pyksm record --restore)"
            ) from None
        except OSError as exc:
            self._close()
            raise StateError(f"{self.journal}: {exc.strerror}") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with _deferred():
            problems = self._close()
        if problems:
            raise StateError(f"not put back: {'; '.join(problems)} (see {self.journal})")

    def _start_watchdog(self) -> None:
        # -S, -I: nothing of the user's environment; a session of its own: no Ctrl-C either.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), self.journal, str(self._fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._fd],  # the lock, which it keeps when we are gone
            start_new_session=True,
            cwd="/",
        )
        assert self._watchdog.stdout is not None
        if self._watchdog.stdout.readline() != b"ready\n":
            raise StateError(f"{sys.executable}: the watchdog did not start")

    def _close(self) -> list[str]:
        """End the watchdog, which undoes everything; or undo it here if it is gone."""
        told = b""
        if (dog := self._watchdog) is not None:
            assert dog.stdin is not None
            assert dog.stdout is not None
            with contextlib.suppress(OSError):
                dog.stdin.close()
            told = dog.stdout.read()
            dog.stdout.close()
            dog.wait()
            self._watchdog = None
        try:
            problems = json.loads(told)
        except ValueError:
            problems = _finish(self.journal, self._fd) if self._fd >= 0 else []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return [str(problem) for problem in problems]

    def _note(self, **entry: Any) -> None:
        os.write(self._fd, json.dumps(entry).encode() + b"\n")

    # ---- what is about to be changed

    def keep(self, path: str) -> str:
        """This file's value is to be what it is now; that value. OSError if it cannot be read."""
        value = read_knob(path)
        if path not in self._kept:
            self._kept.add(path)
            self._note(do="write", path=path, value=value, check=True)
        return value

    def set(self, path: str, value: str) -> None:
        """Write a file that is put back later. OSError where either is refused."""
        if self.keep(path) != value:
            write_knob(path, value)

    def on_the_way(self, path: str, value: str, only_while: str | None = None) -> None:
        """Write this too when things are put back, before all that was said earlier.

        ``only_while``: but not if that path is gone by then.
        """
        condition = {} if only_while is None else {"while": only_while}
        self._note(do="write", path=path, value=value, **condition)

    def swap(self, path: str) -> None:
        """This will become a swap area."""
        self._note(do="swapoff", path=path)

    def file(self, path: str) -> None:
        """This file will be made."""
        self._note(do="unlink", path=path)

    def directory(self, path: str) -> None:
        """This directory (a cgroup, say) will be made."""
        self._note(do="rmdir", path=path)

    def command(self, command: list[str], path: str) -> None:
        """This command takes away what will be at ``path``."""
        self._note(do="command", command=command, path=path)

    def session(self, pid: int) -> None:
        """The processes of the session that ``pid`` leads end with us."""
        if (words := _stat(pid)) is not None:
            self._note(do="kill", pid=pid, started=int(words[19]))


def _deferred() -> contextlib.AbstractContextManager[None]:
    # Imported here: the watchdog has no package around it.
    from pyksm.targets.signals import deferred

    return deferred()


def _watch(journal: str, fd: int) -> None:
    """The watchdog: wait until the pipe closes, then undo, then say what could not be."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        write_knob("/proc/self/oom_score_adj", "-1000")
    os.write(1, b"ready\n")
    while os.read(0, 4096):
        pass
    problems = _finish(journal, fd)
    with contextlib.suppress(OSError):  # there may be nobody to hear it
        os.write(1, json.dumps(problems).encode())
        return
    for problem in problems:
        print(f"pyksm: not put back: {problem}", file=sys.stderr)


if __name__ == "__main__":
    _watch(sys.argv[1], int(sys.argv[2]))
