"""Corner cases: scenarios that random programs hardly ever come to, each for some kernel line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scn import policies

from pyksm.scenario import parse, run
from pyksm.scenario.contents import crc, pattern
from pyksm.testing import examine

CORNERS = Path(__file__).parent / "scenarios" / "corners"
NAMES = sorted(path.stem for path in CORNERS.glob("*.ksm"))


def scenario(name: str) -> Any:
    return parse((CORNERS / f"{name}.ksm").read_text(encoding="utf-8"), name)


@pytest.mark.parametrize(
    ("name", "policy"), [(name, policy) for name in NAMES for policy in policies(scenario(name))]
)
def test_engines_agree(name: str, policy: str) -> None:
    assert examine(scenario(name).on(policy=policy)) == []


class Answer:
    """Results of a run, by op and by label."""

    def __init__(self, name: str) -> None:
        self.results = run(scenario(name), "core")["results"]

    def errnos(self, op: str) -> list[str | None]:
        return [result["errno"] for result in self.results if result["op"] == op]

    def seen(self, label: str) -> Any:
        return next(r for r in self.results if r.get("label") == label)["observation"]

    def state(self, label: str, process: str = "A", region: str = "r") -> str:
        return str(self.seen(label)["processes"][process][region]["state"])


def test_a_free_slot_is_not_found() -> None:
    answer = Answer("swap-map-wrap")
    assert answer.seen("low")["swap"]["S"]["used"] == 4
    assert answer.state("stuck")[7] == "P"
    assert answer.seen("stuck")["swap"]["S"]["used"] == 4


def test_a_cached_slot_is_taken_where_swap_is_full() -> None:
    answer = Answer("swap-full-cached-slot")
    cached = [answer.seen(at)["processes"]["A"]["r"]["swapcache"][3] for at in ("full", "taken")]
    assert cached == ["1", "0"]


def test_counts_go_beyond_one_byte() -> None:
    answer = Answer("swap-count-continued")
    assert answer.seen("forked")["swap"]["S"]["used"] == 1
    assert answer.seen("none")["swap"]["S"]["used"] == 0


def test_swapoff_wants_room() -> None:
    assert Answer("swapoff-just-enough").errnos("swapoff") == ["ENOMEM", None]


def test_bound_memory_stays_on_its_node() -> None:
    answer = Answer("bound-node-full")
    assert answer.errnos("write") == ["ENOMEM", None]
    assert answer.seen("full")["processes"]["A"]["r"]["node"][:10] == [1] * 10


def test_trees_of_two_nodes_do_not_merge() -> None:
    answer = Answer("unstable-other-node")
    assert answer.seen("one")["ksm"]["pages_shared"] == 0
    more = answer.seen("more")["ksm"]
    assert (more["pages_shared"], more["pages_sharing"], more["pages_unshared"]) == (1, 2, 1)


def test_a_node_in_use_forbids_the_change() -> None:
    answer = Answer("half-ksm-across-nodes")
    assert answer.seen("unmerged")["ksm"]["pages_shared"] == 0
    assert answer.errnos("ksm") == ["EBUSY", None]


def test_nothing_is_lost_when_a_write_fails() -> None:
    answer = Answer("write-fails")
    assert answer.state("out") == "SSSS"
    crcs = next(result["crc"] for result in answer.results if result["op"] == "read")
    assert len(set(crcs)) == 4


def test_a_slot_that_could_not_be_written_has_what_was_there_before() -> None:
    answer = Answer("write-fails-stale-slot")
    (read,) = [result["crc"] for result in answer.results if result["op"] == "read"]
    assert read == [crc(pattern(9)), crc(pattern(7))]


def test_swapoff_maps_what_it_could_not_read() -> None:
    answer = Answer("read-fails")
    assert answer.errnos("read") == ["EIO", None]
    assert answer.errnos("swapoff") == [None]


def test_prot_none_is_passed_over() -> None:
    """As real 6.1 does: seed selftest-func-prot-none of its recordings, and move_pages."""
    answer = Answer("migrate-prot-none")
    moved = answer.seen("moved")["processes"]["A"]["r"]["node"]
    assert moved == [0, 0, 1, 1]


def test_what_could_not_be_read_faults() -> None:
    answer = Answer("read-fails-today")
    assert answer.errnos("swapoff") == [None]
    assert sum(state == "S" for state in answer.state("off")) == 1
    assert answer.errnos("read") == ["EHWPOISON", "EHWPOISON"]
    assert answer.errnos("write")[-1] == "EHWPOISON"


def test_areas_take_turns() -> None:
    """swap_avail_head (18ab4d4ced08), as a booted 6.1 answered a random scenario like it."""
    answer = Answer("areas-take-turns")

    def used(label: str) -> list[int]:
        return [area["used"] for area in answer.seen(label)["swap"].values()]

    assert used("out") == [2, 1, 0]
    assert used("more") == [2, 2, 0]
    assert used("full") == [2, 2, 0, 1, 2]
    assert used("again") == [2, 2, 0, 1, 3]


def test_an_endless_swapoff_is_ended_and_reported() -> None:
    answer = Answer("swapoff-for-ever")
    assert answer.errnos("swapoff") == ["ETIMEDOUT", None]
    (told,) = [each["events"] for each in answer.results if "events" in each]
    assert told == ["try_to_unuse makes no progress"]
    assert answer.seen("stuck")["swap"]["S"]["used"] > 0
    assert answer.seen("off")["swap"] == {}


def test_full_area_is_available_once() -> None:
    """A failed swapoff puts a full area back where areas with room are; real kernels warn of it."""
    answer = Answer("full-area-again")
    assert answer.errnos("swapoff") == ["EINTR"]
    used = [area["used"] for area in answer.seen("two")["swap"].values()]
    assert used == [1, 1, 0]


def test_active_pages_go_though_pinned_ones_are_in_the_way() -> None:
    """Reclaim that frees nothing deactivates in any case (b91ac374346b)."""
    answer = Answer("pinned-and-active")
    assert answer.seen("out")["processes"]["B"]["r"]["state"] == "SSSS"
    assert answer.seen("out")["swapcached"] == 4
    assert answer.seen("unpinned")["swapcached"] == 0


def test_move_pages_ends_where_a_page_does_not_move() -> None:
    """Run by run (a49bd4d71637); booted kernels, 6.1 and 6.12, gave this answer."""
    answer = Answer("migrate-runs")

    def nodes(label: str) -> list[int | None]:
        seen: list[int | None] = answer.seen(label)["processes"]["A"]["r"]["node"]
        return seen

    assert nodes("first") == [1, 0, 1, 1, 1, 1]
    assert nodes("hole") == [1, 0, 1, None, 0, 0]
    assert nodes("again") == [1, 0, 1, None, 1, 0]


def test_a_merged_vma_counts_for_the_anon_vma_it_takes_over() -> None:
    """Else fork takes it for idle and lets the child have it."""
    answer = Answer("merged-vma-counts")
    assert answer.errnos("fork") == [None]


def test_a_page_that_was_paged_out_and_read_goes_last() -> None:
    """It waits in the batch while it is written, so it is not the next in line afterwards."""
    answer = Answer("pageout-goes-last")
    assert answer.seen("end")["processes"]["A"]["r"]["state"] == "SSP"


def test_rmap_by_index_finds_what_mremap_has_moved() -> None:
    """By address it does not, and the page cannot go: 'ksm: optimize rmap_walk_ksm', v3."""
    moved = scenario("rmap-by-index-after-mremap")
    naive = moved.on(bugs=("rmap-by-address",))
    for text, ptes, state in ((moved, [8, 8], "SS"), (naive, [6, 6], "PP")):
        results = run(text, "core")["results"]
        assert [each["ptes"] for each in results if each["op"] == "rmap"][2] == ptes
        assert results[-1]["observation"]["processes"]["A"]["moved"]["state"] == state
        found = next(each["violations"] for each in results if each["op"] == "census")
        assert [line.partition(":")[0] for line in found] == ["ksm-rmap"] * (text is naive)
        assert examine(text) == []
