"""The job on memories made by hand: every number is known beforehand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import memories
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hs
from memories import histories
from rich.console import Console

from pyksm.engine import Config, Engine
from pyksm.errors import InputError
from pyksm.jobs import report
from pyksm.jobs.swapoff import (
    Merged,
    Options,
    PolicyResult,
    ProcessResult,
    Result,
    estimate,
    swapoff,
)
from pyksm.scenario import engines
from pyksm.targets.memory import Memory, Vma


def both(memory: Memory, engine: str, **options: Any) -> tuple[Result, PolicyResult, PolicyResult]:
    """The two policies of the mail's kernel side by side."""
    result = swapoff(memory, engines.factory(engine), Options(profile="3.9", **options))
    reread, memcpy = result.policies
    assert (reread.policy, memcpy.policy) == ("reread", "memcpy")
    return result, reread, memcpy


def today(memory: Memory, engine: str, **options: Any) -> list[PolicyResult]:
    """Swapoff mm by mm and, on the same kernel otherwise, the two that go entry by entry."""
    policies = swapoff(memory, engines.factory(engine), Options(**options)).policies
    assert [each.policy for each in policies] == ["per-mm", "reread", "memcpy"]
    return policies


def strangers(count: int, alike: int) -> Memory:
    """Processes with ``alike`` pages that all have, and one page each has alone."""
    memory = Memory()
    for k in range(count):
        pages = {16 + page: 1 + page for page in range(alike)}
        memories.process(memory, pages | {5000 + k: 5000 + k})
    return memory


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_one_read_for_each_stranger_or_one_and_copies(engine: str, count: int) -> None:
    alike = 5
    result, reread, memcpy = both(strangers(count, alike), engine)
    merges = count > 1
    merged = result.merged
    assert merged.pages_shared == (alike if merges else 0)
    assert merged.pages_sharing == alike * (count - 1)
    assert merged.pages_unshared == (count if merges else 1 + alike)
    assert merged.pages_volatile == 0
    assert merged.settled
    assert merged.rmap_items == count * (alike + 1)
    assert merged.frames_before == count * (alike + 1)
    assert merged.frames_after == alike + count
    assert merged.bytes_saved == alike * (count - 1) * 4096
    assert merged.general_profit == merged.bytes_saved - merged.rmap_items * 64
    for one in (reread, memcpy):
        assert (one.errno, one.unchanged) == (None, True)
        assert (one.processes, one.ptes, one.slots) == (count, count * (alike + 1), alike + count)
        # Every pte has a frame of its own afterwards: swapoff undid the merging.
        assert (one.shared_frames_after, one.ksm_frames_after, one.swapped_ptes_after) == (0, 0, 0)
        assert one.frames_peak == count * (alike + 1)
        assert one.pages_verified == count * (alike + 1)
    assert reread.page_reads == count * (alike + 1)
    assert reread.page_rereads == alike * (count - 1)
    assert reread.copies == 0
    assert memcpy.page_reads == alike + count
    assert memcpy.page_rereads == 0
    assert memcpy.copies == memcpy.calls["unuse_copy"] == alike * (count - 1)
    assert result.fine


def test_a_family_needs_one_read(engine: str) -> None:
    memory = Memory()
    parent = memories.process(memory, {16: 1, 17: 2}, {16: 0, 17: 1})
    for _ in range(3):
        memories.process(memory, {16: 1, 17: 2}, {16: 0, 17: 1}, ppid=parent.pid)
    result, reread, memcpy = both(memory, engine)
    assert asdict(result.sharing) == {"frames": 2, "ptes": 8, "ptes_rebuilt": 8}
    for one in (reread, memcpy):
        assert (one.ptes, one.slots, one.page_reads, one.copies) == (8, 2, 2, 0)
        assert (one.shared_frames_after, one.shared_ptes_after) == (2, 8)
        assert one.frames_peak == 2


def test_todays_kernel_reads_once_and_copies(engine: str) -> None:
    per_mm, reread, memcpy = today(strangers(4, 10), engine)
    assert (per_mm.slots, per_mm.page_reads, per_mm.copies) == (14, 14, 30)
    assert (reread.slots, reread.page_reads, reread.copies) == (14, 44, 0)
    assert (memcpy.slots, memcpy.page_reads, memcpy.copies) == (14, 14, 30)
    for one in (per_mm, reread, memcpy):
        assert (one.errno, one.unchanged, one.pages_verified) == (None, True, 44)
    per_mm, reread, _ = today(strangers(2, 1), engine, profile="6.1")
    assert (per_mm.copies, reread.page_rereads) == (1, 1)


def test_policies_that_a_kernel_has(engine: str) -> None:
    memory, make = strangers(2, 1), engines.factory(engine)
    (only,) = swapoff(memory, make, Options(policies=("per-mm",))).policies
    assert only.policy == "per-mm"
    with pytest.raises(InputError, match=r"per-mm on profile 4\.19: expected reread or"):
        swapoff(memory, make, Options(policies=("per-mm",), profile="4.19"))


def test_two_addresses_in_one_process_are_strangers(engine: str) -> None:
    memory = Memory()
    memories.process(memory, {16: 1, 32: 1, 48: 1})
    _, reread, memcpy = both(memory, engine)
    assert (reread.slots, reread.page_reads, reread.page_rereads) == (1, 3, 2)
    assert (memcpy.page_reads, memcpy.copies) == (1, 2)


def test_without_room_swapoff_fails_and_says_so(engine: str) -> None:
    memory = strangers(8, 100)
    # 108 slots, 808 ptes. 300 frames pass the first test of swapoff, and run out under way.
    result, reread, memcpy = both(memory, engine, frames=300)
    for one in (reread, memcpy):
        assert one.errno == "ENOMEM"
        assert one.frames_free == one.frames_peak == 300
        assert 0 < one.swapped_ptes_after < 808
        assert one.unchanged
        assert one.pages_verified == 808
    assert not result.fine
    # 100 frames are refused before anything is read.
    _, reread, memcpy = both(memory, engine, frames=100)
    for one in (reread, memcpy):
        assert (one.errno, one.page_reads, one.swapped_ptes_after) == ("ENOMEM", 0, 808)
        assert one.unchanged


def test_exactly_enough_room_is_enough(engine: str) -> None:
    memory = strangers(4, 50)
    options = Options(profile="3.9")
    needed = swapoff(memory, engines.factory(engine), options).policies[0].frames_peak
    result, reread, memcpy = both(memory, engine, frames=needed)
    assert (reread.errno, memcpy.errno, result.fine) == (None, None, True)
    result, *policies = both(memory, engine, frames=needed - 1)
    assert [one.errno for one in policies] == ["ENOMEM", "ENOMEM"]


def test_more_frames_than_needed_are_had(engine: str) -> None:
    result, reread, _ = both(strangers(2, 1), engine, frames=5000)
    assert result.machine_frames == reread.frames_free == 5000


def test_only_what_was_advised(engine: str) -> None:
    memory = Memory()
    for k in range(3):
        advised = Vma(16 << 12, 20 << 12, mergeable=k < 2)
        plain = Vma(40 << 12, 44 << 12)
        memories.process(memory, {16: 1, 17: 2 + k, 40: 1}, vmas=[advised, plain])
    make = engines.factory(engine)
    some = estimate(memory, make, Options(advised_only=True)).merged
    assert (some.pages_shared, some.pages_sharing, some.rmap_items) == (1, 1, 4)
    assert [p.mergeable_ptes for p in some.processes] == [2, 2, 0]
    everything = estimate(memory, make, Options()).merged
    assert (everything.pages_shared, everything.pages_sharing) == (1, 5)
    nothing = Memory()
    memories.process(nothing, {16: 1, 40: 1})
    none = estimate(nothing, make, Options(advised_only=True)).merged
    assert (none.pages_shared, none.rmap_items, none.settled) == (0, 0, True)


def test_zero_pages_stay_zero_pages(engine: str) -> None:
    memory = Memory()
    memories.process(memory, {16: 1}, zero=(17, 18, 30))
    result, reread, _ = both(memory, engine)
    assert result.merged.frames_before == 1
    assert (reread.ptes, reread.slots, reread.pages_verified) == (1, 1, 4)


def test_per_process_numbers(engine: str) -> None:
    result = estimate(strangers(2, 3), engines.factory(engine), Options())
    assert result.policies == []
    assert result.merged.processes == [
        ProcessResult(1000 + k, f"p{k}", 4, 0, 4, 3, 3 * 4096 - 4 * 64) for k in range(2)
    ]


def test_two_scans_of_today(engine: str) -> None:
    """What ksmd of 6.18 says after exactly two scans, pages of zeros among them."""
    memory = Memory()
    for k in range(3):
        memories.process(memory, {16: 0, 17: 0, 18: 1, 19: 100 + k}, zero=(20,))
    make = engines.factory(engine)
    told = {}
    for zero in (0, 1):
        options = Options(profile="6.18", scans=2, ksm={"use_zero_pages": zero})
        told[zero] = estimate(memory, make, options).merged
    off, on = told[0], told[1]
    assert (off.pages_shared, off.pages_sharing, off.pages_unshared) == (2, 7, 3)
    assert (off.counts["ksm_zero_pages"], off.pages_volatile) == (0, 0)
    assert (on.pages_shared, on.pages_sharing, on.pages_unshared) == (1, 2, 3)
    # Their rmap_items are there until the third scan comes by.
    assert (on.counts["ksm_zero_pages"], on.pages_volatile) == (6, 6)
    for p in off.processes:
        assert (p.ksm_ptes, p.ksm_zero_ptes, p.profit) == (3, 0, 3 * 4096 - 4 * 64)
    for p in on.processes:
        assert (p.ksm_ptes, p.ksm_zero_ptes, p.profit) == (1, 2, 3 * 4096 - 4 * 64)
    third = Options(profile="6.18", scans=3, ksm={"use_zero_pages": 1})
    assert estimate(memory, make, third).merged.pages_volatile == 0


def test_a_full_page_gets_a_dup(engine: str) -> None:
    options = Options(profile="6.18", scans=2, ksm={"max_page_sharing": 4})
    merged = estimate(strangers(10, 1), engines.factory(engine), options).merged
    assert (merged.pages_shared, merged.pages_sharing) == (3, 7)
    assert (merged.counts["stable_node_chains"], merged.counts["stable_node_dups"]) == (1, 3)


def test_nothing_to_do_is_said(engine: str) -> None:
    with pytest.raises(InputError, match="no private anonymous page"):
        estimate(Memory(), engines.factory(engine), Options())


class Tampering:
    """An engine that loses a bit in swapoff."""

    def __init__(self, inner: Engine, vpn: int) -> None:
        self._inner = inner
        self._vpn = vpn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def swapoff(self, area: int) -> None:
        self._inner.swapoff(area)
        pid = self._inner.processes()[0]
        old = self._inner.read(pid, self._vpn * 4096 + 77, 1)[0]
        self._inner.write(pid, self._vpn * 4096 + 77, bytes([old ^ 4]))


@pytest.mark.parametrize("vpn", [16, 30])
def test_one_changed_bit_is_noticed(engine: str, vpn: int) -> None:
    memory = Memory()
    memories.process(memory, {16: 1, 17: 2}, zero=(30,))

    def make(config: Config) -> Any:
        return Tampering(engines.factory(engine)(config), vpn)

    result = swapoff(memory, make, Options())
    for one in result.policies:
        assert (one.pages_different, one.pages_verified, one.unchanged) == (1, 2, False)
    assert not result.fine


class Checked:
    """An engine whose census is looked at when it is closed."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self) -> None:
        assert self._inner.census() == []
        self._inner.close()


def checked(engine: str) -> Callable[[Config], Any]:
    return lambda config: Checked(engines.factory(engine)(config))


def without_time(result: Result) -> dict[str, Any]:
    plain = asdict(result)
    for policy in plain["policies"]:
        del policy["seconds"]
    return plain


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories(), hs.sampled_from(["3.9", "3.9", "4.19", "6.18"]))
def test_engines_agree_on_any_memory(case: tuple[Memory, bool], profile: str) -> None:
    memory, orphans = case
    if not memory.ptes:
        return
    options = Options(profile=profile)
    results = [swapoff(memory, checked(name), options) for name in ("core", "oracle")]
    assert without_time(results[0]) == without_time(results[1])
    result = results[0]
    assert result.fine
    assert result.sharing.ptes_rebuilt <= result.sharing.ptes
    if not orphans:
        assert result.sharing.ptes_rebuilt == result.sharing.ptes
    reread, memcpy = result.policies[-2:]
    assert memcpy.page_reads <= memcpy.slots
    assert reread.page_reads == memcpy.page_reads + memcpy.calls["unuse_copy"]
    assert reread.shared_ptes_after == memcpy.shared_ptes_after


# ----------------------------------------------------------------------------------- reports


def test_json_has_the_documented_keys(engine: str) -> None:
    memory = strangers(2, 1)
    result = swapoff(memory, engines.factory(engine), Options())
    source = report.source_json(memory, "files", ["x"])
    answer = json.loads(json.dumps(report.result_json("swapoff", source, engine, result)))
    assert list(answer) == [
        "version",
        "command",
        "source",
        "machine",
        "sharing",
        "ksm",
        "policies",
        "fine",
    ]
    assert set(answer["ksm"]) == {field.name for field in fields(Merged)}
    assert set(answer["policies"]["reread"]) == {field.name for field in fields(PolicyResult)}
    assert answer["policies"]["memcpy"]["copies"] == 1
    assert set(answer["source"]) == {
        "kind",
        "targets",
        "processes",
        "ptes",
        "distinct_pages",
        "notes",
    }
    assert set(answer["source"]["processes"][0]) == {
        "pid",
        "name",
        "ppid",
        "ptes",
        "zero_ptes",
        "swapped",
        "vmas",
        "excluded",
    }
    estimated = report.result_json("estimate", source, engine, result)
    assert "policies" not in estimated


def test_tables_hold_the_numbers_and_no_markup_from_outside(engine: str) -> None:
    memory = strangers(3, 350)
    memory.processes[0].name = "[red]\x1b[31mx[/red]"
    memory.processes[0].exclude("file", 12)
    memory.note("[bold]careful")
    result = swapoff(memory, engines.factory(engine), Options())
    result.policies[-1].unchanged = False
    result.policies[-1].errno = "ENOMEM"
    out = Console(file=io.StringIO(), width=120)
    report.print_source(out, memory)
    report.print_sharing(out, result)
    report.print_merged(out, result.merged)
    report.print_policies(out, result.policies)
    assert isinstance(out.file, io.StringIO)
    text = out.file.getvalue()
    assert "[red]?[31mx[/red]" in text
    assert "note: [bold]careful" in text
    assert "\x1b" not in text
    assert "left out: 12 clean pages of private file mappings" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["page", "reads", "353", "1,053", "353"] in lines
    assert ["copies", "700", "0", "700"] in lines
    assert ["result", "done", "done", "failed:", "ENOMEM"] in lines
    assert any("NO: 0 differ, 0 unread" in line for line in text.splitlines())


def test_sizes_for_people() -> None:
    sizes = [0, 1023, 1024, -2048, 5 << 20, 7 << 30, 1 << 50]
    assert [report.size_of(s) for s in sizes] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "-2.0 KiB",
        "5.0 MiB",
        "7.0 GiB",
        "1048576.0 GiB",
    ]
