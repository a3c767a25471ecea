"""The seed's rows, S1 to S14: every claim of the mail, counted, on both engines.

Each row is a scenario file in ``tests/scenarios``; numbers that the recordings of 3.10.65 have are
theirs (shared/recordings, "swapoff of KSM pages, in numbers").
"""

from __future__ import annotations

from typing import Any

import pytest
from scn import Answer, codes, load

from pyksm.hunt import find_schedule
from pyksm.hunt.races import schedules
from pyksm.scenario import Setting
from pyksm.scenario import statements as st
from pyksm.scenario.contents import crc, pattern

NO_COPY, NO_CHECK, BRUTE = "unuse_pte-no-copy", "no-unmerge-check", "unuse_vma-brute-force"
WARNING = "WARN_ON_ONCE remove_stable_node page_mapped"
BAD_ROOT = "BUG_ON __page_check_anon_rmap root"
BAD_INDEX = "BUG_ON __page_check_anon_rmap index"
ONE = {"fd2fb650"}  # the CRC of pattern(7)


def swapoff_calls(answer: Answer) -> dict[str, int]:
    calls: dict[str, int] = answer.only("swapoff")["calls"]
    return calls


def test_S1_unuse_pte_copies_where_do_swap_page_would(engine: str) -> None:
    answer = Answer(load("S01-unuse-pte-copies"), engine, work=True)
    assert answer.errors() == []
    assert answer.frames("merged") == 1
    assert answer.region("merged", "A")["mapcount"] == [3]
    assert answer.states("out") == {"A": "S", "B": "S", "C": "S"}
    assert answer.seen("out")["swapcached"] == 1
    # The fault: nothing read, one copy.
    fault = answer.ops("read")[0]["work"]
    assert fault.get("swap_readpage", 0) == 0
    assert (fault["ksm_might_need_to_copy"], fault["copy_page"]) == (1, 1)
    # swapoff: the same for each of its two ptes.
    work = answer.only("swapoff")["work"]
    assert work.get("swap_readpage", 0) == 0
    assert (work["unuse_pte"], work["ksm_might_need_to_copy"], work["copy_page"]) == (2, 2, 2)
    assert answer.frames("off") == 3
    assert answer.ksm_bits("off") == {"A": "0", "B": "0", "C": "0"}
    assert answer.crcs() == ONE
    assert answer.only("census")["violations"] == []


def test_S1_without_the_copy(engine: str) -> None:
    answer = Answer(load("S01-unuse-pte-copies").on(bugs=(NO_COPY,)), engine, work=True)
    assert "copy_page" not in answer.only("swapoff")["work"]
    assert answer.ksm_bits("off") == {"A": "0", "B": "1", "C": "1"}
    assert answer.frames("off") == 2
    assert codes(answer.only("census")["violations"])["ksm-no-node"] == 1


def test_S2_no_ksm_page_comes_back_while_run_is_2(engine: str) -> None:
    answer = Answer(load("S02-run-unmerge"), engine)
    assert answer.errors() == []
    assert answer.seen("out")["swapcached"] == 1
    assert answer.ksm_bits("off") == {"A": "0", "B": "0", "C": "0"}
    assert answer.frames("off") == 3
    assert swapoff_calls(answer)["ksm_might_need_to_copy"] == 3
    assert "swap_readpage" not in swapoff_calls(answer)
    assert answer.only("census")["violations"] == []
    assert answer.crcs() == ONE


@pytest.mark.parametrize(("switch", "asked"), [(NO_COPY, 0), (NO_CHECK, 3)])
def test_S2_without_check_or_call_it_does(engine: str, switch: str, asked: int) -> None:
    answer = Answer(load("S02-run-unmerge").on(bugs=(switch,)), engine)
    assert answer.ksm_bits("off") == {"A": "1", "B": "1", "C": "1"}
    assert answer.region("off", "A")["mapcount"] == [3]
    assert answer.frames("off") == 1
    assert swapoff_calls(answer).get("ksm_might_need_to_copy", 0) == asked
    assert codes(answer.only("census")["violations"])["ksm-unmerged"] >= 1
    assert answer.crcs() == ONE


def test_S3_eviction_and_migration_miss_a_pte(engine: str) -> None:
    """Plain 3.9: two of the three ptes have their rmap_item, one has not."""
    answer = Answer(load("S03-missed-pte"), engine)
    assert answer.errors() == []
    assert answer.ksm_bits("off") == {"A": "1", "B": "1", "C": "1"}
    assert answer.frames("off") == 1
    assert codes(answer.only("census")["violations"]) == {"ksm-rmap": 1}
    # Migration unmaps A and B, sees the page still mapped, and puts them back.
    assert answer.only("migrate")["status"] != [1]
    assert answer.states("migrated") == {"A": "P", "B": "P", "C": "P"}
    assert {answer.region("migrated", name)["node"][0] for name in "ABC"} == {0}
    # Eviction gets two and never the third: the page stays.
    assert answer.states("evicted") == {"A": "S", "B": "S", "C": "P"}
    assert answer.region("evicted", "C")["mapcount"] == [1]
    assert answer.crcs() == ONE


@pytest.mark.parametrize("switch", [NO_COPY, NO_CHECK])
def test_S3_without_node_no_pte_is_found(engine: str, switch: str) -> None:
    answer = Answer(load("S03-no-node").on(bugs=(switch,)), engine)
    assert answer.ksm_bits("off") == {"A": "1", "B": "1", "C": "1"}
    assert codes(answer.only("census")["violations"]) == {"ksm-no-node": 1, "ksm-rmap": 1}
    assert answer.states("evicted") == {"A": "P", "B": "P", "C": "P"}
    assert {answer.region("migrated", name)["node"][0] for name in "ABC"} == {0}
    assert answer.seen("evicted")["swap"] == {"T": {"used": 1}}


def test_S3_with_the_check_all_can_move_and_go(engine: str) -> None:
    answer = Answer(load("S03-no-node"), engine)
    assert answer.errors() == []
    assert answer.frames("off") == 3
    assert answer.only("migrate")["status"] == [1]
    nodes = [answer.region("migrated", name)["node"] for name in "ABC"]
    assert nodes == [[1], [0], [0]]
    assert answer.states("evicted") == {"A": "S", "B": "S", "C": "S"}
    assert answer.only("census")["violations"] == []


def test_S4_the_lookup_keeps_the_debug_check_quiet(engine: str) -> None:
    answer = Answer(load("S04-check-anon-rmap"), engine)
    assert answer.errors() == []
    assert answer.events() == []
    assert swapoff_calls(answer)["swap_readpage"] == 4  # two owners, two indexes
    assert answer.frames("off") == 4
    assert answer.only("census")["violations"] == []


def test_S4_the_copy_alone_keeps_it_quiet_too(engine: str) -> None:
    answer = Answer(load("S04-check-anon-rmap").on(bugs=(BRUTE,)), engine, work=True)
    assert answer.events() == []
    work = answer.only("swapoff")["work"]
    assert answer.frames("off") == 4
    assert work["copy_page"] + work["swap_readpage"] == 4
    assert work["copy_page"] >= 1
    assert answer.only("census")["violations"] == []


def test_S4_page_check_anon_rmap(engine: str) -> None:
    """Lookup and copy both gone: what the check is there for happens, and it says so."""
    answer = Answer(load("S04-check-anon-rmap").on(bugs=(BRUTE, NO_COPY)), engine)
    assert BAD_ROOT in answer.only("swapoff")["events"]
    assert answer.region("off", "A")["mapcount"] == [2]
    assert answer.region("off", "A")["page"] == answer.region("off", "B")["page"]
    assert codes(answer.only("census")["violations"])["rmap"] >= 1


def test_S4_early_return(engine: str) -> None:
    """The same mistake as a first mapping: __page_set_anon_rmap() returns early, nobody is told."""
    scenario = load("S04-early-return")
    right = Answer(scenario, engine)
    assert right.seen("dropped")["swapcached"] == 1
    assert right.only("census")["violations"] == []
    assert right.events() == []
    wrong = Answer(scenario.on(bugs=(BRUTE, NO_COPY)), engine)
    assert wrong.events() == []
    assert codes(wrong.only("census")["violations"]) == {"rmap": 1}
    assert right.crcs() == wrong.crcs() == ONE


def test_S5_one_address_test_instead_of_a_walk(engine: str) -> None:
    scenario = load("S05-shortcut")
    quick = Answer(scenario, engine, work=True)
    brute = Answer(scenario.on(bugs=(BRUTE,)), engine, work=True)
    assert quick.seen("off") == brute.seen("off")
    assert quick.crcs() == brute.crcs()
    fast, slow = (each.only("swapoff")["work"] for each in (quick, brute))
    for work in (fast, slow):
        assert (work["unuse_pte"], work["swap_readpage"]) == (4 * 64, 64)
    # A page is found by brute force once (slot k is page k: k + 1 ptes compared), then one
    # comparison and one address test for each of the three relatives.
    walked = sum(range(1, 65))
    assert fast["page_address_in_vma"] == 3 * 64
    assert fast["unuse_pte_compared"] == walked + 3 * 64
    assert "page_address_in_vma" not in slow
    assert slow["unuse_pte_compared"] == 4 * walked


def test_S6_a_lingering_ksm_page_is_mapped_back(engine: str) -> None:
    """As seed-cached-exact on 3.10.65: no read, no copy, four frames for twelve ptes."""
    answer = Answer(load("S06-lingering"), engine, work=True)
    assert answer.errors() == []
    assert answer.seen("out")["swapcached"] == 4
    work = answer.only("swapoff")["work"]
    assert "swap_readpage" not in work
    assert "copy_page" not in work
    assert "page_address_in_vma" not in work  # page_anon_vma() of a KSM page is NULL
    assert (work["unuse_pte"], work["unuse_mm"], work["ksm_might_need_to_copy"]) == (12, 12, 12)
    assert answer.frames("off") == 4
    assert answer.ksm_bits("off") == {"A": "1111", "B": "1111", "C": "1111"}
    assert answer.region("off", "A")["mapcount"] == [3, 3, 3, 3]
    assert answer.only("census")["violations"] == []


#: Unrelated processes: ptes, reads, unuse_mm calls, as 3.10.65 made them (share-1, 2, 4, 8).
UNRELATED = {1: (2, 2, 2), 2: (2, 2, 4), 4: (4, 4, 14), 8: (8, 8, 58)}


@pytest.mark.parametrize("processes", UNRELATED)
def test_S7_a_read_for_each_unrelated_process(engine: str, processes: int) -> None:
    ptes, reads, mms = UNRELATED[processes]
    answer = Answer(load(f"S07-unrelated-{processes}"), engine)
    assert answer.errors() == []
    assert answer.frames("merged") == 1
    assert answer.seen("out")["swap"] == {"S": {"used": 1}}
    calls = swapoff_calls(answer)
    assert calls["unuse_pte"] == ptes
    assert calls["swap_readpage"] == calls["delete_from_swap_cache"] == reads
    assert answer.frames("off") == reads
    assert answer.seen("off")["vmstat"]["pswpin"] == reads
    assert answer.frames("again") == 1
    assert answer.crcs() == ONE
    assert calls["unuse_mm"] == mms


def test_S7_a_read_for_each_family(engine: str) -> None:
    answer = Answer(load("S07-families"), engine)
    calls = swapoff_calls(answer)
    assert (calls["unuse_pte"], calls["swap_readpage"]) == (9, 3)
    assert answer.frames("off") == 3
    for name in "ABC":
        family = [answer.region("off", each)["page"] for each in (name, f"{name}1", f"{name}11")]
        assert family == [family[0]] * 3
        assert answer.region("off", name)["mapcount"] == [3]


def test_S8_both_policies_side_by_side(engine: str) -> None:
    """Same end, fewer reads: 6 processes x 4 slots and a process with 8 pages on one slot."""
    reread, memcpy = (
        Answer(load(f"S08-{policy}"), engine, work=True) for policy in ("reread", "memcpy")
    )
    assert reread.scenario.body == memcpy.scenario.body
    for label in ("merged", "out", "off", "again"):
        one, two = ({**each.seen(label), "vmstat": None} for each in (reread, memcpy))
        assert one == two
    assert reread.crcs() == memcpy.crcs()
    old, new = (each.only("swapoff")["work"] for each in (reread, memcpy))
    assert old["unuse_pte"] == new["unuse_pte"] == 6 * 4 + 2 * 8
    slots = 4 + 1
    owners = 6 * 4 + 8  # anon_vma roots and indexes, summed over slots
    assert (old["swap_readpage"], old.get("unuse_copy", 0)) == (owners, 0)
    assert (new["swap_readpage"], new["unuse_copy"]) == (slots, owners - slots)
    assert new["copy_page"] == owners - slots
    assert reread.seen("off")["vmstat"]["pswpin"] == owners
    assert memcpy.seen("off")["vmstat"]["pswpin"] == slots
    for each in (reread, memcpy):
        assert each.errors() == []
        assert each.only("census")["violations"] == []


def test_S9_chains_need_no_reread(engine: str) -> None:
    answer = Answer(load("S09-family"), engine)
    assert answer.errors() == []
    first, second = (each["calls"] for each in answer.ops("swapoff"))
    # Four pages of A's; A1 and A11 wrote one each anew: six slots, six reads, 20 ptes.
    assert answer.seen("out")["swap"] == {"S": {"used": 6}}
    assert (first["swap_readpage"], first["unuse_pte"]) == (6, 20)
    assert answer.frames("off") == 6
    # One slot more has a stranger on it: one read more, for the stranger alone.
    assert answer.region("merged", "B")["ksm"] == "1"
    assert answer.region("merged", "B")["page"] == [answer.region("merged", "A111")["page"][0]]
    assert answer.seen("out2")["swap"] == {"T": {"used": 6}}
    assert (second["swap_readpage"], second["unuse_pte"]) == (7, 21)
    assert answer.frames("off2") == 7
    family = {tuple(answer.region("off2", name)["page"][:1]) for name in ("A", "A1", "A2", "A11")}
    assert len(family) == 1
    assert answer.only("census")["violations"] == []


def test_S10_warning_by_fork_before_madvise(engine: str) -> None:
    answer = Answer(load("S10-fork"), engine)
    assert answer.errors() == []
    ksm = answer.seen("merged")["ksm"]
    assert (ksm["pages_shared"], ksm["pages_sharing"]) == (1, 1)
    assert answer.region("merged", "B", "p")["mapcount"] == [3]
    first, second = answer.ops("ksm")
    assert first["events"] == [WARNING]
    assert second["events"] == [WARNING]  # each time
    for label in ("unmerged", "still"):
        assert answer.region(label, "B", "p")["ksm"] == "1"
        assert answer.region(label, "B", "p")["mapcount"] == [1]
        assert answer.region(label, "A", "p")["ksm"] == "0"
        assert answer.region(label, "C", "q")["ksm"] == "0"
    assert answer.crcs() == ONE


def test_S10_migration_of_a_ksm_page(engine: str) -> None:
    answer = Answer(load("S10-migration"), engine)
    assert answer.errors() == []
    everyone = (("C", "q"), ("A", "p"), ("B", "p"), ("A1", "p"))
    assert answer.only("migrate")["status"] == [1]
    assert answer.only("migrate")["calls"]["ksm_migrate_page"] == 1
    for label, node in (("merged", 0), ("migrated", 1)):
        for process, region in everyone:
            seen = answer.region(label, process, region)
            assert (seen["page"], seen["node"], seen["mapcount"]) == ([0], [node], [4])
            assert seen["ksm"] == "1"
    assert answer.seen("migrated")["vmstat"]["pgmigrate_success"] == 1
    assert answer.only("ksm")["events"] == [WARNING]
    ksm = {who: answer.region("unmerged", *who)["ksm"] for who in everyone}
    assert ksm == {("C", "q"): "0", ("A", "p"): "0", ("B", "p"): "1", ("A1", "p"): "0"}
    assert answer.crcs() == ONE


def test_S11_do_swap_page(engine: str) -> None:
    answer = Answer(load("S11-do-swap-page"), engine, work=True)
    assert answer.errors() == []
    first, second = (each["work"] for each in answer.ops("read")[:2])
    assert (first["swap_readpage"], first.get("copy_page", 0)) == (1, 0)
    assert (second.get("swap_readpage", 0), second["copy_page"]) == (0, 1)
    assert (first["do_swap_page"], second["do_swap_page"]) == (1, 1)
    assert answer.region("first", "A")["swapcache"] == "1"
    assert answer.region("second", "B")["swapcache"] == "0"
    third = answer.ops("write")[-1]["work"]
    assert (third["do_swap_page"], third["copy_page"], third.get("do_wp_page", 0)) == (1, 1, 0)
    assert answer.frames("third") == 3
    read = [each["crc"] for each in answer.ops("read")[-3:]]
    assert read == [["fd2fb650"], ["fd2fb650"], [crc(pattern(9))]]
    assert answer.only("census")["violations"] == []


def test_S11_recheck(engine: str) -> None:
    answer = Answer(load("S11-recheck"), engine)
    fault = answer.ops("read")[0]
    assert [each["errno"] for each in fault["nested"]] == [None]
    assert fault["nested"][0]["calls"]["unuse_pte"] == 3
    assert fault["crc"] == ["fd2fb650"]
    assert answer.seen("off")["swap"] == {}
    assert answer.seen("off")["swapcached"] == 0
    assert answer.states("off") == {"A": "P", "B": "P", "C": "P"}
    assert answer.crcs() == ONE
    assert answer.only("census")["violations"] == []


def test_S12_trees_per_node(engine: str) -> None:
    answer = Answer(load("S12-trees"), engine)
    assert [each["errno"] for each in answer.ops("ksm")] == [
        "EBUSY", None, None, "EBUSY", None, None
    ]  # fmt: skip
    counts = {
        label: (ksm["pages_shared"], ksm["pages_sharing"])
        for label in ("across", "within", "back")
        for ksm in [answer.seen(label)["ksm"]]
    }
    assert counts == {"across": (1, 7), "within": (2, 6), "back": (1, 7)}
    assert {answer.frames(label) for label in ("across", "back")} == {1}
    pages = {name: answer.region("within", name)["page"] for name in "ABCD"}
    assert pages == {"A": [0, 0], "B": [0, 0], "C": [1, 1], "D": [1, 1]}
    assert answer.region("within", "D")["node"] == [1, 1]


def test_S13_the_half_ksm_page(engine: str) -> None:
    answer = Answer(load("S13-half-ksm"), engine)
    assert answer.errors() == []
    ksm = answer.seen("half")["ksm"]
    assert (ksm["pages_shared"], ksm["pages_sharing"]) == (0, 0)
    half = answer.region("half", "B", "p")
    assert (half["ksm"], half["mapcount"]) == ("1", [1])
    assert answer.region("half", "A", "p")["ksm"] == "0"
    assert answer.region("half", "A", "p")["page"] != half["page"]
    # Reclaim takes everything else, A's own copy too; C's page is pinned, its pte went.
    assert answer.region("out", "A", "own")["state"] == "S" * 16
    assert answer.region("out", "B", "own")["state"] == "S" * 16
    assert answer.region("out", "A", "p")["state"] == "S"
    assert answer.region("out", "B", "p")["state"] == "P"
    assert answer.region("unmerged", "B", "p")["ksm"] == "1"
    before, after = answer.ops("census")
    assert codes(before["violations"]) == {"ksm-no-node": 1, "ksm-rmap": 1}
    assert after["violations"] == []
    assert answer.region("ended", "B", "p")["ksm"] == "0"
    assert answer.ops("read")[0]["crc"] == ["fd2fb650"]


RACE = load("S14-swapoff-unmerge")
PREFIX = RACE.body[: [each.op for each in RACE.body].index("at")]
SWAPOFF, UNMERGE = st.Swapoff("S"), st.Ksm((Setting("run", 2),))


def race(engine: str, bugs: tuple[str, ...], victim: Any, intruder: Any) -> list[Any]:
    return find_schedule(
        PREFIX,
        victim,
        intruder,
        (st.Observe("end"),),
        engine=engine,
        machine=st.Machine(profile="3.9", bugs=bugs),
    )


def test_S14_found(engine: str) -> None:
    """Without the check there are schedules at which it goes wrong, and the file's is one."""
    found = race(engine, (NO_CHECK,), UNMERGE, SWAPOFF)
    # Swapoff before the first mm is unmerged is harmless: everything it maps is unmerged.
    assert [(each.point, each.nth) for each in found] == [
        ("unmerge_and_remove_all_rmap_items:next_mm", 2),
        ("unmerge_and_remove_all_rmap_items:next_mm", 3),
        ("remove_all_stable_nodes:begin", 1),
    ]
    for each in found:
        assert WARNING in each.events
        assert "ksm-rmap" in codes(list(each.violations))
    # The other way round: the unmerge inside swapoff.
    other = race(engine, (NO_CHECK,), SWAPOFF, UNMERGE)
    assert [(each.point, each.nth) for each in other] == [
        ("try_to_unuse:next_entry", 1),
        ("try_to_unuse:lock_page", 1),
    ]
    assert all("ksm-unmerged" in codes(list(each.violations)) for each in other)


def test_S14_replayed_by_name(engine: str) -> None:
    answer = Answer(RACE, engine)
    assert answer.errors() == []
    assert answer.only("ksm")["events"] == [WARNING]
    assert [each["op"] for each in answer.only("ksm")["nested"]] == ["swapoff"]
    assert answer.ksm_bits("end")["A"] == "1"
    assert codes(answer.only("census")["violations"]) == {"ksm-rmap": 1}
    assert answer.crcs() == ONE
    (schedule,) = [
        each
        for each in race(engine, (NO_CHECK,), UNMERGE, SWAPOFF)
        if (each.point, each.nth) == ("unmerge_and_remove_all_rmap_items:next_mm", 2)
    ]
    again = Answer(schedule.scenario, engine)
    assert _unplaced(again.only("ksm")) == _unplaced(answer.only("ksm"))


def _unplaced(value: Any) -> Any:
    """A result without the lines in it: found schedules have none."""
    if isinstance(value, list):
        return [_unplaced(each) for each in value]
    if isinstance(value, dict):
        return {key: _unplaced(each) for key, each in value.items() if key != "line"}
    return value


@pytest.mark.parametrize(("victim", "intruder"), [(UNMERGE, SWAPOFF), (SWAPOFF, UNMERGE)])
def test_S14_with_the_check_every_schedule_is_fine(
    engine: str, victim: st.Statement, intruder: st.Statement
) -> None:
    machine = st.Machine(profile="3.9")
    tried = list(schedules(PREFIX, victim, intruder, engine=engine, machine=machine))
    assert len(tried) == (5 if victim is UNMERGE else 2)
    assert race(engine, (), victim, intruder) == []
