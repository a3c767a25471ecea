"""Knobs, files, groups and processes are put back, whatever ends who changed them.

On a tree made for the purpose; nothing here turns a knob of this machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyksm.errors import InputError
from pyksm.recorder import livehost, livestate
from pyksm.recorder.livehost import Host
from pyksm.recorder.livestate import Guard, StateError, restore

KNOBS = {
    "advisor_mode": "[none] scan-time",
    "max_page_sharing": "256",
    "merge_across_nodes": "1",
    "pages_to_scan": "100",
    "run": "0",
    "sleep_millisecs": "20",
    "smart_scan": "1",
    "use_zero_pages": "0",
}
COUNTS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans")


def make_tree(root: Path) -> Host:
    ksm = root / "sys/kernel/mm/ksm"
    ksm.mkdir(parents=True)
    for name, value in KNOBS.items():
        (ksm / name).write_text(value + "\n")
    for name in COUNTS:
        (ksm / name).write_text("0\n")
        (ksm / name).chmod(0o444)
    (root / "proc/sys/vm").mkdir(parents=True)
    (root / "proc/sys/vm/swappiness").write_text("60\n")
    (root / "proc/swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
    (root / "cgroup").mkdir()
    return Host(str(root))


def state(root: Path) -> dict[str, str]:
    """Every file below, by content; a knob by its value; directories too."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = livestate.read_knob(str(path)) if path.is_file() else "/"
    return found


# What a live recording does to a machine, on such a tree, with a word after each step.
PROGRAM = r"""
import os, signal, subprocess, sys
from pyksm.recorder.livehost import Host, keep_ksm
from pyksm.recorder.livestate import Guard
from pyksm.targets.signals import tidied
root, journal = sys.argv[1:]
host = Host(root)
def did(what):
    os.write(1, what.encode() + b"\n")
try:
    with tidied(), Guard(journal) as guard:
        did("guarded")
        keep_ksm(guard, host)
        did("kept")
        # Ends with its input, as the agent does: nobody else knows of it for a moment.
        child = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        guard.session(child.pid)
        did(f"child {child.pid}")
        for name in sorted(os.listdir(host.ksm)):
            if os.stat(f"{host.ksm}/{name}").st_mode & 0o200:
                guard.set(f"{host.ksm}/{name}", "7")
                did(name)
        guard.set(f"{root}/proc/sys/vm/swappiness", "100")
        did("swappiness")
        for k in range(4):
            guard.file(f"{root}/area{k}")
            guard.swap(f"{root}/area{k}")
            with open(f"{root}/area{k}", "w") as file:
                file.write("x" * 1000)
            did(f"area {k}")
        guard.directory(f"{root}/cgroup/ours")
        os.mkdir(f"{root}/cgroup/ours")
        did("group")
        if os.path.exists(f"{root}/raise"):
            raise RuntimeError("as a bug would")
    did("done")
except KeyboardInterrupt:
    sys.exit(130)
"""
STEPS = 1 + 1 + 1 + len(KNOBS) + 1 + 4 + 1 + 1


def start(root: Path, journal: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(root), str(journal)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def await_gone(journal: Path) -> None:
    deadline = time.monotonic() + 20
    while journal.exists():
        assert time.monotonic() < deadline, "still not put back"
        time.sleep(0.005)


def await_end(pid: int | None) -> None:
    deadline = time.monotonic() + 20
    while pid is not None and lives(pid):
        assert time.monotonic() < deadline, f"{pid} still lives"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    make_tree(tree)
    return tree


def test_a_whole_recording(root: Path, tmp_path: Path) -> None:
    before, journal = state(root), tmp_path / "journal"
    done = start(root, journal)
    out, err = done.communicate()
    assert (done.returncode, err) == (0, b"")
    assert len(out.splitlines()) == STEPS
    assert state(root) == before  # at once: it has waited for the watchdog
    assert not journal.exists()


def test_an_exception(root: Path, tmp_path: Path) -> None:
    (root / "raise").touch()
    before, journal = state(root), tmp_path / "journal"
    done = start(root, journal)
    _, err = done.communicate()
    assert done.returncode == 1
    assert b"as a bug would" in err
    assert state(root) == before
    assert not journal.exists()


def kill_after(
    root: Path, journal: Path, number: signal.Signals, steps: int, pause: float
) -> tuple[int, int | None]:
    """Kill it that long after that step; its exit status and its child."""
    with start(root, journal) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(steps)]
        time.sleep(pause)
        process.send_signal(number)
        lines += process.stdout.readlines()
    children = [int(line.split()[1]) for line in lines if line.startswith(b"child ")]
    return process.wait(), children[0] if children else None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 11, 12, 14, 16])
def test_killed_after_a_step(
    root: Path, tmp_path: Path, number: signal.Signals, steps: int
) -> None:
    before, journal = state(root), tmp_path / "journal"
    status, child = kill_after(root, journal, number, steps, 0.0)
    assert status != 0 or number != signal.SIGKILL or steps > 14
    await_gone(journal)
    assert state(root) == before
    await_end(child)


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_moment(root: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    before, journal = state(root), tmp_path / "journal"
    number = draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    steps = draw.randrange(0, STEPS)
    _, child = kill_after(root, journal, number, steps, draw.random() * 0.003)
    await_gone(journal)
    assert state(root) == before
    await_end(child)


def watchdog_of(pid: int) -> int:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                command = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if int(words[1]) == pid and b"livestate" in command:
                return int(name)
    raise AssertionError("no watchdog")


def test_the_watchdog_is_killed_first(root: Path, tmp_path: Path) -> None:
    before, journal = state(root), tmp_path / "journal"
    with Guard(str(journal)) as guard:
        guard.set(f"{root}/proc/sys/vm/swappiness", "100")
        os.kill(watchdog_of(os.getpid()), signal.SIGKILL)
        guard.set(f"{root}/sys/kernel/mm/ksm/smart_scan", "0")
        assert state(root) != before
    assert state(root) == before
    assert not journal.exists()


def test_both_are_killed(root: Path, tmp_path: Path) -> None:
    before, journal = state(root), tmp_path / "journal"
    with start(root, journal) as process:
        assert process.stdout is not None
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StateError, match="in use"):
            restore(str(journal))
        dog = watchdog_of(process.pid)
        os.kill(dog, signal.SIGKILL)
        await_end(dog)
        process.kill()
    assert state(root) != before
    with pytest.raises(StateError, match=r"is there.*--restore"), Guard(str(journal)):
        pass
    assert restore(str(journal))
    assert state(root) == before
    assert not restore(str(journal))  # nothing to do


def test_killed_before_there_is_a_watchdog(root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for pause in range(0, 60, 6):
        with start(root, journal) as process:
            time.sleep(0.05 + pause / 1000)
            process.kill()
        await_gone(journal)
    with Guard(str(journal)):
        pass


def test_only_one_journal_of_a_name(root: Path, tmp_path: Path) -> None:
    journal, knob = tmp_path / "journal", f"{root}/proc/sys/vm/swappiness"
    with Guard(str(journal)) as guard:
        guard.set(knob, "100")
        with pytest.raises(StateError, match="is there"), Guard(str(journal)):
            pass
        assert livestate.read_knob(knob) == "100"  # the second one's watchdog left it alone
        assert journal.exists()
    assert livestate.read_knob(knob) == "60"


def test_where_files_must_have_names(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # as file systems without it answer
    journal, knob = tmp_path / "journal", f"{root}/proc/sys/vm/swappiness"
    with Guard(str(journal)) as guard:
        guard.set(knob, "100")
        with pytest.raises(StateError, match="is there"), Guard(str(journal)):
            pass
    assert livestate.read_knob(knob) == "60"
    assert not journal.exists()


def test_a_knob_that_is_gone_or_refuses(root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    swappiness = root / "proc/sys/vm/swappiness"
    other = root / "other"
    other.write_text("1\n")
    guard = Guard(str(journal))
    guard.__enter__()
    guard.set(str(swappiness), "100")
    guard.set(str(other), "2")
    swappiness.unlink()
    swappiness.mkdir()  # cannot be written
    with pytest.raises(StateError, match=r"not put back.*swappiness"):
        guard.__exit__()
    assert other.read_text() == "1"  # the rest is put back all the same
    swappiness.rmdir()
    swappiness.write_text("100")
    assert restore(str(journal))
    assert swappiness.read_text() == "60"


def test_after_a_reboot_only_files_are_removed(root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    (root / "area0").touch()
    knob = root / "proc/sys/vm/swappiness"
    entries = [
        {"boot": "another", "pid": 1},
        {"do": "unlink", "path": str(root / "area0")},
        {"do": "write", "path": str(knob), "value": "7", "check": True},
        {"do": "kill", "pid": os.getpid(), "started": 1},
    ]
    journal.write_text("".join(json.dumps(each) + "\n" for each in entries) + '{"do": "unl')
    assert restore(str(journal))
    assert not (root / "area0").exists()
    assert knob.read_text() == "60\n"


def test_not_a_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("something else\n")
    with pytest.raises(StateError, match="not a journal"):
        restore(str(journal))
    assert journal.read_text() == "something else\n"
    with pytest.raises(StateError, match="No such file"), Guard(str(tmp_path / "no/journal")):
        pass


def test_a_process_of_another_age_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        boot = {"boot": livestate._boot()}
        assert livestate.undo([boot, {"do": "kill", "pid": process.pid, "started": 1}]) == []
        assert lives(process.pid)
        process.kill()


def test_who_may_not(root: Path, tmp_path: Path) -> None:
    host = Host(str(root))
    livehost.require_idle_ksm(host)
    livehost.require_no_swap(host)
    ksm = root / "sys/kernel/mm/ksm"
    (ksm / "run").write_text("1\n")
    with pytest.raises(InputError, match="at work here"):
        livehost.require_idle_ksm(host)
    (ksm / "run").write_text("0\n")
    (ksm / "pages_sharing").chmod(0o644)
    (ksm / "pages_sharing").write_text("3\n")
    with pytest.raises(InputError, match="pages_sharing is 3"):
        livehost.require_idle_ksm(host)
    (root / "proc/swaps").write_text("Filename Type\n/dev/sda2   partition\t8 0 -2\n")
    with pytest.raises(InputError, match=r"in use by others \(/dev/sda2\)"):
        livehost.require_no_swap(host)
    (root / "proc/swaps").unlink()
    with pytest.raises(InputError, match="no swap"):
        livehost.require_no_swap(host)
    (ksm / "run").unlink()
    with pytest.raises(InputError, match="no KSM"):
        livehost.require_idle_ksm(host)


def test_mergeable_processes_of_old_and_new_kernels(root: Path) -> None:
    host = Host(str(root))
    for pid, files in {
        5: {"ksm_stat": "ksm_rmap_items 0\nksm_mergeable: yes\n"},
        6: {"ksm_stat": "ksm_rmap_items 0\nksm_mergeable: no\n"},
        7: {"smaps": "1-2 rw-p\nVmFlags: rd wr mr mw me ac sd mg\n"},
        8: {"ksm_stat": "ksm_rmap_items 0\n", "smaps": "1-2 rw-p\nVmFlags: rd wr mr mw\n"},
        9: {},
    }.items():
        (root / f"proc/{pid}").mkdir()
        for name, text in {"comm": f"p{pid}\n", **files}.items():
            (root / f"proc/{pid}" / name).write_text(text)
    assert list(livehost.mergeable(host)) == [(5, "p5"), (7, "p7")]
    with pytest.raises(InputError, match=r"PID 5 \(p5\)"):
        livehost.require_idle_ksm(host)


def test_swaps_with_spaces(root: Path) -> None:
    table = root / "proc/swaps"
    table.write_text(
        "Filename\t\t\t\tType\n/a\\040b/c                              file\t1\t0\t-2\n"
    )
    assert livestate.active_swaps(str(table)) == ["/a b/c"]
