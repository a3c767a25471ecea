"""What LTP and the kernel's selftests publish about KSM and swapoff, as expectations of scenarios.

LTP: testcases/kernel/mem/ksm and swapoff/swapon. Selftests: tools/testing/selftests/mm with
ksm_tests.c, ksm_functional_tests.c and rmap.c. The scenarios are in scenarios/peers; sizes are
scaled, numbers scale with them. An expectation looks at an answer alone, whoever gave it.

Not here, as this model has nothing that they would test: userfaultfd write protection
(test_unmerge_uffd_wp), exec (test_prctl_fork_exec), huge pages and the cases that only print times
(ksm_tests -P -H -D -C). merge.c and swapon02/03 need adjoining mappings and files: test_peers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scn import Answer

from pyksm.scenario.contents import crc, pattern

Features = frozenset[str]
Check = Callable[[Answer, Features], None]


@dataclass(frozen=True)
class Peer:
    """A scenario file's name, the features without which it says nothing, and what must hold."""

    name: str
    check: Check
    needs: Features = frozenset()


def counts(answer: Answer, label: str) -> tuple[int, int, int, int]:
    """Shared, sharing, volatile, unshared: LTP's order."""
    ksm = answer.seen(label)["ksm"]
    names = ("pages_shared", "pages_sharing", "pages_volatile", "pages_unshared")
    return tuple(ksm[name] for name in names)  # type: ignore[return-value]


def merged_pages(region: dict[str, Any]) -> int:
    """Mappings of KSM pages, by whichever of its two witnesses the kernel has."""
    return region["ksm"].count("1") if "ksm" in region else int(region["ksm_pages"])


def no_duplicates(answer: Answer, label: str, process: str = "A", region: str = "r") -> None:
    """No frame twice: what the functional tests look for in pagemap."""
    pages = [page for page in answer.region(label, process, region)["page"] if page is not None]
    assert len(set(pages)) == len(pages)


def reads(answer: Answer, *values: int) -> None:
    """Every page read has one of these contents, and each was read."""
    assert answer.crcs() == {crc(pattern(value)) for value in values}


def same_memory(npages: int) -> Check:
    """The four steps of create_same_memory, P pages in all."""
    total = 3 * npages

    def check(answer: Answer, features: Features) -> None:
        assert counts(answer, "step1") == (2, total - 2, 0, 0)
        assert counts(answer, "step2") == (3, total - 3, 0, 0)
        assert counts(answer, "step3") == (1, total - 1, 0, 0)
        assert counts(answer, "step4") == (1, total - 2, 0, 1)
        assert counts(answer, "unmerged") == counts(answer, "stopped") == (0, 0, 0, 0)
        got = [each["crc"] for each in answer.ops("read")]
        wanted = [99, 97, 97, 99, 98, 97, 100, 100, 100, 100, 100, 100]
        for crcs, value in zip(got[:-1], wanted, strict=False):
            assert crcs == [crc(pattern(value))] * npages
        last = pattern(100)[:-1] + bytes([101])
        assert got[-1] == [crc(pattern(100))] * (npages - 1) + [crc(last)]

    return check


def across_nodes(npages: int, nodes: int) -> Check:
    """ksm06: one page for all nodes, or one a node."""

    def check(answer: Answer, features: Features) -> None:
        assert counts(answer, "across") == (1, nodes * npages - 1, 0, 0)
        assert counts(answer, "within") == (nodes, nodes * npages - nodes, 0, 0)

    return check


def ltp_ksm05(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert answer.seen("alive")["processes"] == {}
    assert counts(answer, "alive") == (0, 0, 0, 0)


def ltp_ksm07(answer: Answer, features: Features) -> None:
    before, after = (answer.seen(label)["ksm"] for label in ("before", "after"))
    skipped = after["pages_skipped"] - before["pages_skipped"]
    assert skipped >= (after["full_scans"] - before["full_scans"]) / 2 > 0


def ltp_swapoff01(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert answer.seen("on")["swap"] == {"S": {"used": 0}}
    assert answer.seen("off")["swap"] == {}


def ltp_swapoff02(answer: Answer, features: Features) -> None:
    assert [each["errno"] for each in answer.ops("swapoff")] == ["EINVAL", None, "EINVAL"]


def ltp_swapon01(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert answer.states("out") == {"A": "S" * 150}
    assert answer.states("off") == {"A": "P" * 150}
    reads(answer, *range(1, 151))


def pages_count(total: int, sharing_limit: int = 256, label: str = "merged") -> Check:
    """assert_ksm_pages_count of ksm_tests.c."""

    def check(answer: Answer, features: Features) -> None:
        shared, sharing, _, _ = counts(answer, label)
        assert answer.errors() == []
        if total == 0:
            assert (shared, sharing) == (0, 0)
        elif total % sharing_limit in (0, 1):
            assert shared == total // sharing_limit
            assert sharing == shared * (sharing_limit - 1)
        else:
            assert shared == total // sharing_limit + 1
            assert sharing == total - shared

    return check


def ksm_tests_unmerge(answer: Answer, features: Features) -> None:
    pages_count(2)(answer, features)
    pages_count(0, label="unmerged")(answer, features)


def func_unmerge(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert counts(answer, "merged")[0] > 0
    no_duplicates(answer, "unmerged")
    reads(answer, 0xCF)


def func_unmerge_zero(answer: Answer, features: Features) -> None:
    zero = [answer.seen(each)["ksm_stat"]["A"]["ksm_zero_pages"] for each in ("merged", "half")]
    assert zero == [64, 32]
    assert answer.seen("written")["ksm_stat"]["A"]["ksm_zero_pages"] == 0
    no_duplicates(answer, "written")
    reads(answer, 0)


def func_unmerge_discarded(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    no_duplicates(answer, "unmerged")
    reads(answer, 0, 0xCF)


def func_prot_none(answer: Answer, features: Features) -> None:
    """What 474098edac26 broke for 6.1 and d7c0e68dab98 mended in 6.2."""
    assert answer.errors() == []
    half = answer.region("unmerged", "A")["page"][:32]
    assert len(set(half)) == (1 if "break-skips-prot-none" in features else 32)
    reads(answer, 0xCF)


def func_prctl(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert counts(answer, "merged")[:2] == (1, 31)
    no_duplicates(answer, "unmerged")
    no_duplicates(answer, "stays")
    assert counts(answer, "stays") == (0, 0, 0, 0)
    reads(answer, 0xCF)


def func_prctl_fork(answer: Answer, features: Features) -> None:
    assert answer.errors() == []
    assert counts(answer, "merged")[:2] == (1, 31)
    assert merged_pages(answer.region("merged", "B")) == 32
    no_duplicates(answer, "unmerged", "B")
    # The child's switch is the child's own: the parent still merges.
    assert counts(answer, "parent")[:2] == (1, 3)


def func_fork_count(answer: Answer, features: Features) -> None:
    """4d6fc29f3634: until then the child began with copies of its parent's counts."""
    key = "ksm_merging_pages" if "ksm-stat-profit" in features else "ksm_rmap_items"
    merged, forked, scanned = (
        answer.seen(label)["ksm_stat"] for label in ("merged", "forked", "scanned")
    )
    assert merged["A"][key] == forked["A"][key] == 32
    start = 0 if "ksm-counts-start-at-zero" in features else 32
    assert forked["B"][key] == start
    assert scanned["B"][key] == start + 32


def _all_on(answer: Answer, label: str, where: dict[str, str], node: int | None) -> None:
    """All these regions' pages are one frame, on that node if one is named."""
    regions = [answer.region(label, process, region) for process, region in where.items()]
    assert len({page for each in regions for page in each["page"]}) == 1
    if node is not None:
        assert {each for region in regions for each in region["node"]} == {node}


def rmap_migrate(answer: Answer, features: Features) -> None:
    family = dict.fromkeys("ABCDE", "r")
    _all_on(answer, "plain", family, 1)
    _all_on(answer, "merged", family | {"X": "x"}, None)
    _all_on(answer, "there", family | {"X": "x"}, 1)
    _all_on(answer, "back", family | {"X": "x"}, 0)
    reads(answer, 42)


def rmap_mremap(answer: Answer, features: Features) -> None:
    def pages(label: str) -> list[int]:
        processes = answer.seen(label)["processes"]
        found = [
            page for had in processes.values() for each in had.values() for page in each["page"]
        ]
        return [page for page in found if page is not None]

    assert answer.errors() == []
    for label in ("merged", "moved", "there"):
        assert len(pages(label)) == 8
        assert len(set(pages(label))) == 1
    assert set(answer.region("there", "B")["node"]) == {1, None}
    assert pages("out") == []
    reads(answer, 42)


def half_ksm(answer: Answer, features: Features) -> None:
    assert counts(answer, "half")[:2] == (0, 0)
    left, undone = answer.region("half", "B", "p"), answer.region("half", "A", "p")
    assert (merged_pages(left), left["mapcount"]) == (1, [1])
    assert merged_pages(undone) == 0
    assert left["page"] != undone["page"]
    # Reclaim takes A's copy and cannot take B's page; run=2 does not reach it; a write ends it.
    assert answer.states("out", "p") == {"A": "S", "B": "P"}
    assert merged_pages(answer.region("unmerged", "B", "p")) == 1
    assert merged_pages(answer.region("ended", "B", "p")) == 0
    assert answer.errors() == []


def half_ksm_control(answer: Answer, features: Features) -> None:
    assert counts(answer, "half")[:2] == (1, 1)
    assert answer.region("half", "A", "p")["mapcount"] == [3]
    assert counts(answer, "unmerged") == (0, 0, 0, 0)
    unmerged = {who: answer.region("unmerged", who, what) for who, what in OWNERS}
    assert {who: merged_pages(region) for who, region in unmerged.items()} == {
        "A": 0,
        "B": 1,
        "C": 0,
    }
    assert all(region["mapcount"] == [1] for region in unmerged.values())
    assert answer.errors() == []
    if answer.answer["engine"] != "kernel":
        warned = "WARN_ON_ONCE remove_stable_node page_mapped" in answer.events()
        assert warned == ("stable-node-busy-quiet" not in features)


OWNERS = (("A", "p"), ("B", "p"), ("C", "q"))
_SHARING_LIMIT = frozenset({"max-page-sharing"})
_ZERO = frozenset({"zero-pages"})
_PRCTL = frozenset({"merge-any"})

PEERS: tuple[Peer, ...] = (
    Peer("ltp-ksm01", same_memory(40)),
    Peer("ltp-ksm02", same_memory(32)),
    Peer("ltp-ksm03", same_memory(24)),
    Peer("ltp-ksm04", same_memory(16)),
    Peer("ltp-ksm05", ltp_ksm05),
    Peer("ltp-ksm06-10", across_nodes(10, 2)),
    Peer("ltp-ksm06-100", across_nodes(100, 2)),
    Peer("ltp-ksm06-3nodes", across_nodes(10, 3)),
    Peer("ltp-ksm07", ltp_ksm07, frozenset({"smart-scan"})),
    Peer("ltp-swapoff01", ltp_swapoff01),
    Peer("ltp-swapoff02", ltp_swapoff02),
    Peer("ltp-swapon01", ltp_swapon01),
    Peer("selftest-merge", pages_count(10)),
    Peer("selftest-merge-prctl", pages_count(10), _PRCTL),
    Peer("selftest-merge-mps2", pages_count(10, 2), _SHARING_LIMIT),
    Peer("selftest-merge-mps3", pages_count(10, 3), _SHARING_LIMIT),
    Peer("selftest-merge-mps5", pages_count(10, 5), _SHARING_LIMIT),
    Peer("selftest-merge-mps9", pages_count(10, 9), _SHARING_LIMIT),
    Peer("selftest-merge-mps10", pages_count(10, 10), _SHARING_LIMIT),
    Peer("selftest-unmerge", ksm_tests_unmerge),
    Peer("selftest-zero-0", pages_count(10), _ZERO),
    Peer("selftest-zero-1", pages_count(0), _ZERO),
    Peer("selftest-numa-0", pages_count(0)),
    Peer("selftest-numa-1", pages_count(2)),
    Peer("selftest-func-unmerge", func_unmerge),
    Peer("selftest-func-unmerge-zero", func_unmerge_zero, frozenset({"zero-pages-counted"})),
    Peer("selftest-func-unmerge-discarded", func_unmerge_discarded),
    Peer("selftest-func-prot-none", func_prot_none),
    Peer("selftest-func-prctl", func_prctl, _PRCTL),
    Peer("selftest-func-prctl-fork", func_prctl_fork, _PRCTL),
    Peer("selftest-func-fork-count", func_fork_count, frozenset({"ksm-rmap-items"})),
    Peer("selftest-rmap-migrate", rmap_migrate),
    Peer("selftest-rmap-mremap", rmap_mremap),
    Peer("half-ksm", half_ksm),
    Peer("half-ksm-control", half_ksm_control),
)
