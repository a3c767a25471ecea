"""A real kernel, booted under qemu without KVM: the proof is live.

Wants qemu and a kernel package, ``PYKSM_TEST_KERNEL``: that of Debian 12's linux-image-cloud-amd64
(6.1), of which the expectations are. ``PYKSM_MUST_BOOT``, set in CI, makes a failure of what would
else be skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import PEERS, Peer
from races.boot import console
from recordings import held_against, packed
from scn import SCENARIOS, Answer

from pyksm.profiles import PROFILES
from pyksm.recorder import check
from pyksm.recorder.guest import QEMU, Guest, Options
from pyksm.scenario import parse

KERNEL = "6.1"
SAMPLE = (
    "ltp-swapoff01",
    "rand-010",
    "seed-chain-2",
    "seed-errors",
    "seed-family-fork-then-merge",
    "seed-migrate-swapcache",
    "seed-mremap-swapped",
    "seed-nodes-0",
    "seed-pageout",
    "seed-share-4",
    "seed-zero-1",
    "selftest-func-fork",
)

#: Of docs/findings.md, what one process after the other can bring about, and this kernel has.
FINDINGS = ("moved-page-without-a-place", "no-access-and-passed-over")

#: What only shows by what waits in a batch: mlock's has references, the LRU's is on no list yet.
BATCHED = {
    "pressure-on-what-waits": """
        spawn P1
        mmap P1 r0 5
        write P1 r0 3
        swapout P1 r0
        swapon S1 73
        swapout P1 r0[2:5]
        observe
    """,
    "replaced-and-referred-to": """
        spawn P1
        mmap P1 r0 2
        madvise P1 r0 mergeable
        mlock P1 r0
        fork P1 P2
        scan 2
        observe passed-over
        scan 1
        observe merged
    """,
    "locked-by-both-and-moved": """
        machine nodes=2
        swapon S1 150
        spawn P1
        mmap P1 r0 24
        write P1 r0 7
        madvise P1 r0 mergeable
        mlock P1 r0
        fork P1 P2
        mlock P2 r0[0:20]
        scan 2
        observe half
        write P2 r0[0:18] 9
        migrate P1 r0[4:12] 1
        munlock P1 r0[2:9]
        swapout P1 r0
        observe stays
        munlock P2 r0
        scan 2
        swapout P2 r0
        observe out
    """,
}

#: The order of pages hangs on what reclaim has seen: of this scenario alone, not of one before it.
BALANCED = {
    "costs-begin-anew": """
        machine nodes=2
        spawn P1
        mmap P1 r0 5 node=1
        write P1 r0 1
        fork P1 P3
        swapon S4 49 priority=5
        migrate P3 r0[0] 0
        swapon S6 48 priority=5
        swapout *
        swapoff S6
        observe end
    """,
}

#: Other people's tests that this kernel has the features and the guest the memory nodes for.
APPLY = {
    peer.name: peer
    for peer in PEERS
    if peer.needs <= PROFILES[KERNEL].features and peer.name != "ltp-ksm06-3nodes"
}

# One worker boots: the machine has few cores and an emulated one takes a whole.
pytestmark = pytest.mark.xdist_group("boot")


@pytest.fixture(scope="module")
def image() -> str:
    found = os.environ.get("PYKSM_TEST_KERNEL", "")
    why = None
    if shutil.which(QEMU) is None:
        why = f"{QEMU} is not installed"
    elif not os.path.exists(found):
        why = "PYKSM_TEST_KERNEL names no kernel package"
    if why is not None:
        (pytest.fail if os.environ.get("PYKSM_MUST_BOOT") else pytest.skip)(why)
    return found


@pytest.fixture(scope="module")
def answers(image: str) -> dict[str, dict[str, Any]]:
    with Guest(Options([image])) as guest:
        assert guest.recorder.kernel.startswith(KERNEL)
        texts = {name: packed()["scenarios"][name]["text"] for name in SAMPLE}
        texts |= {f"peers/{name}": peer_text(name) for name in APPLY}
        texts |= {f"findings/{name}": finding_text(name) for name in FINDINGS}
        texts |= {f"batched/{name}": text for name, text in BATCHED.items()}
        texts |= {f"balanced/{k}/{name}": text for k in "12" for name, text in BALANCED.items()}
        return {name: guest.recorder.record(parse(text, name)) for name, text in texts.items()}


def peer_text(name: str) -> str:
    return (SCENARIOS / "peers" / f"{name}.ksm").read_text("utf-8")


def finding_text(name: str) -> str:
    return (Path(__file__).parent / "findings" / f"{name}.ksm").read_text("utf-8")


@pytest.mark.parametrize("peer", APPLY.values(), ids=list(APPLY))
def test_peers_expectations_hold(peer: Peer, answers: dict[str, dict[str, Any]]) -> None:
    """LTP's, the selftests' and the half-KSM page's: on the kernel itself, as on the engines."""
    scenario = parse(peer_text(peer.name), peer.name)
    peer.check(Answer.given(scenario, answers[f"peers/{peer.name}"]), PROFILES[KERNEL].features)


@pytest.mark.parametrize("name", SAMPLE)
def test_as_recorded(name: str, answers: dict[str, dict[str, Any]]) -> None:
    found = held_against(KERNEL, name, answers[name], strict=True)
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("name", SAMPLE)
def test_as_the_core_answers(name: str, answers: dict[str, dict[str, Any]]) -> None:
    scenario = parse(packed()["scenarios"][name]["text"], name)
    found = check.against(scenario, "core", answers[name])
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_are_the_kernels(name: str, answers: dict[str, dict[str, Any]]) -> None:
    """What the judge calls wrong in the model is so in the kernel."""
    found = check.against(parse(finding_text(name), name), "core", answers[f"findings/{name}"])
    assert not found, "\n".join(map(str, found[:10]))


def back_as_ksm_pages(said: str) -> int:
    found = re.search(r"race: (\d+) rounds, (\d+) pages out, (\d+) back as KSM pages", said)
    assert found, said[-2000:]
    rounds, out, back = map(int, found.groups())
    assert "not merged" not in said
    assert out == 2 * rounds > 0
    return back


def test_no_ksm_page_comes_back_after_run_2(image: str) -> None:
    assert back_as_ksm_pages(console(image, "swapin-while-run-becomes-2", 5, "apart")) == 0


def test_a_ksm_page_comes_back_while_run_becomes_2(image: str) -> None:
    """What exploring found in the model: the fault does not wait for the write. A race as well."""
    if not back_as_ksm_pages(console(image, "swapin-while-run-becomes-2", 60)):
        pytest.skip("60 seconds were not enough for this race")


def test_a_migration_entry_goes_astray(image: str) -> None:
    """What hunting found in the model stops this kernel. It is a race, though: it may miss."""
    said = console(image, "migration-entry-astray", 60)
    if "kernel BUG" not in said:
        assert "race: " in said, said[-2000:]
        pytest.skip("60 seconds were not enough for this race")
    assert "migration_entry" in said


def test_clear_refs_beside_migration(image: str) -> None:
    """No write is lost here: migration makes the pte of a dirty page soft-dirty, until 6.12."""
    said = console(image, "cleared-while-it-moves", 5)
    assert re.search(r"race: \d+ rounds, [1-9]\d+ pages moved, 0 written pages not", said), said


@pytest.mark.parametrize("name", BALANCED)
@pytest.mark.parametrize("again", "12")
def test_what_reclaim_has_seen_before_does_not_count(
    name: str, again: str, answers: dict[str, dict[str, Any]]
) -> None:
    answer = answers[f"balanced/{again}/{name}"]
    found = check.against(parse(BALANCED[name], name), "core", answer)
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("name", BATCHED)
def test_batches_are_the_kernels(name: str, answers: dict[str, dict[str, Any]]) -> None:
    found = check.against(parse(BATCHED[name], name), "core", answers[f"batched/{name}"])
    assert not found, "\n".join(map(str, found[:10]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_recorder_that_was_killed(
    how: signal.Signals, image: str, tmp_path: Path
) -> None:
    scenario = tmp_path / "long.ksm"
    scenario.write_text("spawn A\n" + "sleep 60000\n" * 9)
    command = [sys.executable, "-m", "pyksm", "record", str(scenario), "--kernel", image]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    ) as recorder:
        _wait_for(lambda: bool(_children(recorder.pid)))
        guests = _children(recorder.pid)
        time.sleep(0.5)
        recorder.send_signal(how)
        recorder.wait(30)
    _wait_for(lambda: not any(map(_alive, guests)))
    assert [each.name for each in tmp_path.iterdir()] == ["long.ksm"]


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [child for child in map(int, text.split()) if b"qemu" in _command_line(child)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    return b"qemu" in _command_line(pid)
