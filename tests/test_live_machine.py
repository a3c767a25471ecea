"""On the kernel that runs here, as root: real swap, real KSM, everything put back.

Only where asked for: PYKSM_LIVE=1. Turns knobs of this machine, for seconds at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from memories import page

from pyksm.recorder import live, livehost, liveswap
from pyksm.recorder.livehost import Host
from pyksm.recorder.livestate import Guard, active_swaps, read_knob, restore, write_knob
from pyksm.targets.live import capture
from pyksm.targets.memory import Memory

pytestmark = pytest.mark.skipif(
    os.environ.get("PYKSM_LIVE") != "1", reason="turns knobs of this machine: PYKSM_LIVE=1"
)

HERE = Path(__file__).parent
KSM = Path("/sys/kernel/mm/ksm")
#: Counts, which scans of anybody move.
COUNTS = ("full_scans", "general_profit", "pages_", "stable_node_chains", "stable_node_dups")


def machine() -> dict[str, object]:
    """All that a recording may have changed."""
    knobs = {
        str(path): read_knob(str(path))
        for path in [*KSM.iterdir(), *(Path(path) for path, _ in live.MACHINE_SETTINGS)]
        if path.exists() and (path.name == "pages_to_scan" or not path.name.startswith(COUNTS))
    }
    group = os.path.dirname(live._group_directory())
    return {
        **knobs,
        "swaps": active_swaps(),
        "groups": sorted(name for name in os.listdir(group) if name.startswith("pyksm")),
        "files": sorted(name for name in os.listdir("/var/tmp") if name.startswith("pyksm")),
        "loops": sorted(str(path) for path in Path("/sys/block").glob("loop*/loop")),
        "zrams": sorted(str(path) for path in Path("/sys/block").glob("zram*")),
        "journal": os.path.exists(live.JOURNAL),
    }


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = machine()
    yield
    assert machine() == before


# ------------------------------------------------------------------- capture of swapped memory

# In the memory cgroup named: a region of 64 pages, half of them rewritten by a child after a fork.
SWAPPED = r"""
import mmap, os, sys
from ctypes import addressof, c_char
def page(number): return number.to_bytes(8, "little") * 512
with open(sys.argv[1] + "/cgroup.procs", "w") as file: file.write("0")
region = mmap.mmap(-1, 64 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for k in range(64): region[k * 4096 : (k + 1) * 4096] = page(k + 1)
where = addressof(c_char.from_buffer(region))
if (child := os.fork()) == 0:
    for k in range(32): region[k * 4096 : (k + 1) * 4096] = page(1000 + k)
    os.write(1, b"\n")
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), child, where, flush=True)
sys.stdin.read()
"""


def make_swap(path: str, pages: int) -> None:
    """What mkswap does, and swapon."""
    head = bytearray(4096)
    struct.pack_into("<III", head, 1024, 1, pages - 1, 0)
    head[4086:4096] = b"SWAPSPACE2"
    with open(path, "r+b") as file:
        file.write(head)
        os.fsync(file.fileno())
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.swapon(path.encode(), 0) == 0, os.strerror(ctypes.get_errno())


def push_out(group: str, pids: list[int], vpn: int, count: int) -> None:
    """Pressure on the group until none of the pages is resident."""
    for _ in range(50):
        for pid in pids:
            write_knob(f"/proc/{pid}/clear_refs", "1")
        if os.path.exists(f"{group}/memory.reclaim"):
            with contextlib.suppress(OSError):
                write_knob(f"{group}/memory.reclaim", str(64 << 20))
        else:
            with contextlib.suppress(OSError):
                write_knob(f"{group}/memory.limit_in_bytes", "4096")
            write_knob(f"{group}/memory.limit_in_bytes", "-1")
        if not any(resident(pid, vpn, count) for pid in pids):
            return
        time.sleep(0.1)  # the group's statistics lag behind
    raise AssertionError("still resident")


def resident(pid: int, vpn: int, count: int) -> int:
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(vpn * 8)
        entries = struct.unpack(f"<{count}Q", file.read(count * 8))
    return sum(entry >> 63 for entry in entries)


@pytest.mark.parametrize("swap", ["file", "loop", "zram"])
def test_capture_of_memory_in_swap(swap: str, tmp_path: Path) -> None:
    options = live.Options(swap=swap, areas=1)
    with contextlib.ExitStack() as stack:
        guard = stack.enter_context(Guard(str(tmp_path / "journal")))
        group = live._make_group(guard)
        (area,) = liveswap.make(guard, stack, options)
        make_swap(area, options.area_pages)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SWAPPED, group],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        guard.session(process.pid)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        parent, child, where = map(int, b" ".join(lines).split())
        for pid in (parent, child):
            os.kill(pid, signal.SIGSTOP)
        push_out(group, [parent, child], where >> 12, 64)
        memory = Memory()
        capture([parent, child], memory)
        for number, wanted in enumerate(
            (
                [page(k + 1) for k in range(64)],
                [*(page(1000 + k) for k in range(32)), *(page(k + 1) for k in range(32, 64))],
            )
        ):
            got = memory.processes[number]
            assert got.swapped >= 64
            assert "vanished" not in got.excluded
            at = {int(vpn): index for index, vpn in enumerate(got.vpn.tolist())}
            places = [at[(where >> 12) + k] for k in range(64)]
            assert [memory.store[int(got.content[place])] for place in places] == wanted
            shared = [int(got.frame[place]) for place in places]
            assert all(frame == -1 for frame in shared[:32])
            assert all(frame >= 0 for frame in shared[32:])  # one slot, two processes
            assert len(set(shared[32:])) == 32


# --------------------------------------------------------------------------------- record --live


def pyksm(*words: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pyksm", *words]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


SHARE = """machine agents=0
spawn A
spawn B
mmap A r 4
mmap B r 4
write A r 7
write B r 7
madvise A r mergeable
madvise B r mergeable
scan 3
swapon S 64
swapout *
observe out
swapoff S
observe end
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "share.ksm"
    path.write_text(SHARE.partition("\n")[2])
    return str(path)


@pytest.mark.parametrize("swap", ["file", "loop", "zram"])
def test_record(swap: str, scenario: str) -> None:
    with pyksm("record", "--live", "--yes", "--swap", swap, scenario) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    answer = json.loads(out)
    assert answer["kernel"] == os.uname().release.partition("-")[0]
    seen = {each["label"]: each["observation"] for each in answer["results"] if "label" in each}
    assert seen["out"]["processes"]["A"]["r"]["state"] == "SSSS"
    assert seen["end"]["processes"]["B"]["r"]["state"] == "PPPP"
    assert seen["out"]["ksm"]["pages_shared"] == 1
    assert seen["out"]["ksm"]["pages_sharing"] == 7


def test_does_not_go_on_unasked(scenario: str) -> None:
    with pyksm("record", "--live", scenario, stdin=subprocess.DEVNULL) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"expected --yes" in err


def test_two_at_a_time(scenario: str, tmp_path: Path) -> None:
    with Guard():
        with pyksm("record", "--live", "--yes", scenario) as process:
            _, err = process.communicate()
        assert process.returncode == 2
        assert b"another live recording is at work" in err
        with pyksm("record", "--restore") as process:
            _, err = process.communicate()
        assert process.returncode == 2
        assert b"in use" in err


def test_not_where_swap_is_in_use(scenario: str, tmp_path: Path) -> None:
    options = live.Options(areas=1)
    with contextlib.ExitStack() as stack:
        guard = stack.enter_context(Guard(str(tmp_path / "journal")))
        (area,) = liveswap.make(guard, stack, options)
        make_swap(area, 100)
        with pyksm("record", "--live", "--yes", scenario) as process:
            _, err = process.communicate()
    assert process.returncode == 2
    assert b"in use by others" in err


def test_not_where_ksm_is_in_use(scenario: str, tmp_path: Path) -> None:
    with Guard(str(tmp_path / "journal")) as guard:
        livehost.keep_ksm(guard, Host())
        guard.set(str(KSM / "run"), "1")
        with pyksm("record", "--live", "--yes", scenario) as process:
            _, err = process.communicate()
    assert process.returncode == 2
    assert b"KSM is at work here" in err


@pytest.mark.parametrize("seed", range(int(os.environ.get("PYKSM_LIVE_KILLS", "12"))))
def test_killed_at_a_random_moment(seed: int, scenario: str) -> None:
    draw = random.Random(seed)
    number = draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    words = ("record", "--live", "--yes", "--swap", draw.choice(["file", "loop"]))
    with pyksm(*words, *[scenario] * 1, start_new_session=True) as process:
        time.sleep(draw.uniform(0.2, 1.2))
        process.send_signal(number)
        process.communicate()
    deadline = time.monotonic() + 30
    while os.path.exists(live.JOURNAL):
        assert time.monotonic() < deadline, "still not put back"
        time.sleep(0.01)
    assert not restore()


# ---------------------------------------------------------------------------- ksmd and estimate


@pytest.mark.parametrize("words", [[], ["--smart-scan", "1"], ["--max-page-sharing", "4"]])
def test_estimate_is_what_ksmd_does(words: list[str]) -> None:
    script = str(HERE.parent / "benchmarks" / "live_estimate.py")
    command = [sys.executable, script, "--yes", "--procs", "6", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pages_sharing") == 2  # with and without use_zero_pages


def test_live_estimate_killed() -> None:
    script = str(HERE.parent / "benchmarks" / "live_estimate.py")
    with subprocess.Popen(
        [sys.executable, script, "--yes", "--procs", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 20
        while read_knob(str(KSM / "run")) != "1" and time.monotonic() < deadline:
            time.sleep(0.01)
        pids = [pid for pid, _ in livehost.mergeable(Host())]
        assert pids
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 30
    while os.path.exists(live.JOURNAL) or set(pids) & {p for p, _ in livehost.mergeable(Host())}:
        assert time.monotonic() < deadline, "still not put back"
        time.sleep(0.01)


# ---------------------------------------------------------------------- the kernel and the model

LIVE_KERNEL = str(HERE.parent / "benchmarks" / "live_kernel.py")


def test_kernel_and_model_on_one_population() -> None:
    command = [sys.executable, LIVE_KERNEL, "--yes", "--ptes", "16384", "--repeat", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    distinct, ksm = json.loads(done.stdout)["runs"]
    assert distinct["kernel"]["swapped"] == distinct["kernel"]["slots"] == 16384
    assert distinct["kernel"]["vmstat"]["pswpin"] == 16384
    assert ksm["kernel"]["swapped"] >= 16384 * 0.999
    # Whoever needs its own copy got it in both.
    model = ksm["model"][1]["runs"][0]
    assert model["vmstat"]["ksm_swpin_copy"] == 15 * 1024
    assert abs(ksm["kernel"]["vmstat"]["ksm_swpin_copy"] - 15 * 1024) < 16
    assert {row["part"] for row in ksm["compared"]} == {"first merge", "swapoff"}
    assert all(row["kernel_per_model"] > 0 for row in ksm["compared"])


@pytest.mark.parametrize("seconds", [2.5, 4.0, 5.5])
def test_live_kernel_killed(seconds: float) -> None:
    words = ["--yes", "--ptes", "131072", "--kind", "ksm", "--repeat", "1"]
    with subprocess.Popen(
        [sys.executable, LIVE_KERNEL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(seconds)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 60
    while os.path.exists(live.JOURNAL):
        assert time.monotonic() < deadline, "still not put back"
        time.sleep(0.05)
