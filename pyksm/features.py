"""What differs between kernels: one row a behaviour, the one source of truth for both engines.

A profile (:mod:`pyksm.profiles`) is a set of these features; each can also be switched by itself.
The C core's ``kernel_features.h`` is generated from this table when it is built
(``csrc/gen_features.py`` runs this file by itself, so it imports nothing of the package).

``since`` is the first release with the behaviour and ``until`` the first without it; ``commits``
are the upstream commits that made the change (12 hex digits), the first one decisive; none where
it was not traced. A feature later than every profile is in none until it is switched on. A museum
piece (``museum``) is a bug that a released kernel had.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """One behaviour. ``area``: ksm, swapoff, fault, rmap, swap, reclaim or pte."""

    name: str
    area: str
    since: str
    commits: tuple[str, ...]
    summary: str
    until: str | None = None
    needs: tuple[str, ...] = ()  #: features without which this one has no meaning
    museum: bool = False
    asked: bool = False  #: of a machine's equipment: in no profile, only where it is asked for


FEATURES: tuple[Feature, ...] = (
    # ---- swapoff ----
    Feature(
        "swapoff-per-mm", "swapoff", "5.1", ("b56a2d8af914",),
        "swapoff walks each mm's page tables once instead of every mm for each entry; what is left "
        "in the swap cache is dropped afterwards, then it looks again; a signal matters only while "
        "slots are in use; pages come in on the vma's node",
    ),
    Feature(
        "swapoff-error-entries", "swapoff", "5.19", ("9f186f9e5fa9",),
        "a page that swapoff cannot read leaves an entry that faults with SIGBUS instead of a page "
        "of garbage",
        needs=("swapoff-per-mm",),
    ),
    Feature(
        "swapin-poison-marker", "swapoff", "6.6", ("af19487f00f3",),
        "the entry that a failed read leaves is a POISONED pte marker, which faults as hardware "
        "poison does (EHWPOISON), not a swap type of its own",
        needs=("swapoff-error-entries",),
    ),
    Feature(
        "swapoff-keeps-shared-cache", "swapoff", "4.14", ("e07098294adf", "7af7a8e19f0c"),
        "swapoff leaves an entry that others need in the swap cache: with KSM it never ends",
        until="5.0", museum=True,
    ),
    # ---- faults ----
    Feature(
        "reuse-by-refcount", "fault", "5.9", ("09854ba94c6a",),
        "a write fault keeps the page if nobody else refers to it (page_count), not if nobody else "
        "maps it (mapcount and swap count)",
    ),
    Feature(
        "anon-exclusive", "fault", "5.19", ("6c287605fd56", "1493a1913e34"),
        "PG_anon_exclusive: a page known to be one process's is kept on a write fault whatever its "
        "references, and its swap pte says so",
        needs=("reuse-by-refcount",),
    ),
    Feature(
        "swapin-maps-writable", "fault", "6.11", ("c18160dba5ff",),
        "a read fault on an exclusive page in a writable vma maps it writable (and clean) at once",
        needs=("anon-exclusive",),
    ),
    Feature(
        "zero-page-last-node", "fault", "6.1", (),
        "the zero page, part of the kernel's image, lies on the last memory node: where that "
        "kernel was loaded in the recorded machine",
        until="6.2",
    ),
    Feature(
        "mprotect-gives-writable", "fault", "6.0", ("64fe24a3e05e",),
        "mprotect makes dirty ptes of exclusive pages writable at once",
        needs=("anon-exclusive",),
    ),
    Feature(
        "mprotect-clean-writable", "fault", "6.2", ("d84887739d5c",),
        "mprotect makes clean ptes of exclusive pages writable at once too",
        needs=("mprotect-gives-writable",),
    ),
    Feature(
        "cow-frees-swap-cache", "fault", "5.14", ("f4c4a3f48480",),
        "a page left behind by a copy is taken out of the swap cache if nobody maps it any more",
    ),
    Feature(
        "swapin-activates", "fault", "4.8", (),
        "a page found in the swap cache by a fault is activated when it is mapped",
        until="5.9",
    ),
    Feature(
        "fault-oom-retried", "fault", "5.16", ("60e2793d440a",),
        "an access whose fault comes to VM_FAULT_OOM is tried again, the OOM killer is not called: "
        "of use to a fault that has lost its slot to another (seen with tasks only)",
    ),
    Feature(
        "uffd-wp", "fault", "5.7", ("529b930b87d9",),
        "a write-protect fault may be a userfaultfd's (inject userfault): SIGBUS",
    ),
    Feature(
        "ksm-event-counts", "fault", "5.19", ("94bfe85bde18", "4d45c3aff5eb"),
        "vmstat counts cow_ksm and (already 5.18) ksm_swpin_copy",
    ),
    Feature(
        "pins-counted", "fault", "5.11", ("3faa52c03f44", "70e806e4e645", "feb889fb40fa"),
        "a pin for I/O counts 1024 references (5.7), so that a page so pinned can be told: fork "
        "copies it at once (5.9), reclaim leaves it alone (5.11)",
    ),
    # ---- anon_vma ----
    Feature(
        "anon-vma-reuse", "rmap", "3.19", ("7a3ef208e662",),
        "fork may take an ancestor's anon_vma that has fewer than two children and no vma",
    ),
    Feature(
        "anon-vma-active-vmas", "rmap", "6.0", ("2555283eb40d",),
        "reuse of anon_vmas counts children and active vmas apart instead of one degree",
        needs=("anon-vma-reuse",),
    ),
    Feature(
        "merge-hands-flags-over", "rmap", "4.9", ("e86f15ee64d8",),
        "a range that becomes part of the vma behind it has that one's flags before an rmap walk "
        "can see it",
    ),
    Feature(
        "migrate-swapcache-entries", "rmap", "4.4", (),
        "migrating a page that is in the swap cache leaves migration entries, not swap entries",
    ),
    Feature(
        "mremap-many-vmas", "rmap", "6.17", ("d23cb648e365",),
        "mremap moves a range that lies in several vmas, gaps included",
    ),
    Feature(
        "maple-tree", "rmap", "6.1", ("d4af56c5c7c6",),
        "a merge of vmas takes memory for the tree that they are in, when the anon_vma has been "
        "passed on; where there is none they stay apart",
    ),
    Feature(
        "merge-with-unfaulted", "rmap", "6.16", ("879bca0a2c4f", "61f67c230a5e", "3b617fd3d317"),
        "a vma that was written may be merged with one that never was, unless it was forked; "
        "mremap makes the one that it merges with known to the pages' anon_vma (6.18.8)",
    ),
    Feature(
        "unmap-ignores-young", "rmap", "5.11", ("013339df116c",),
        "try_to_unmap takes pages out whose accessed bit is set; only page_referenced looks at it",
    ),
    Feature(
        "unmap-failure-activates", "rmap", "4.12", (),
        "reclaim activates a page that some pte still maps after try_to_unmap, for whatever reason",
    ),
    Feature(
        "move-pages-runs", "rmap", "4.17", ("a49bd4d71637",),
        "move_pages moves each run of pages that it could isolate by itself, and ends where one "
        "of a run does not move",
    ),
    Feature(
        "move-pages-node-ends-run", "rmap", "5.5", ("e0153fc2c760",),
        "a page that is on the node already ends a run of move_pages",
        needs=("move-pages-runs",),
    ),
    Feature(
        "migration-keeps-young", "rmap", "6.1", ("2e3468778dbe",),
        "a migrated page's ptes are young and dirty where they were before",
    ),
    Feature(
        "migration-exact-soft-dirty", "rmap", "6.12", (),
        "a dirty pte does not become soft-dirty by migration",
        needs=("migration-keeps-young",),
    ),
    Feature(
        "mseal", "rmap", "6.10", ("8be7258aad44",),
        "mseal: mappings that cannot be unmapped, moved or protected otherwise",
    ),
    # ---- KSM ----
    Feature(
        "stable-tree-restart", "ksm", "4.4", (),
        "a stale stable node met on the way makes the search start again instead of giving up",
    ),
    Feature(
        "stable-page-dirty", "ksm", "4.5", (),
        "a page that becomes a KSM page is marked dirty",
    ),
    Feature(
        "max-page-sharing", "ksm", "4.13", ("2c653d0ee2ae",),
        "max_page_sharing: full stable nodes, chains of dups, pruning; equal content at insertion "
        "becomes a dup instead of being refused",
        needs=("stable-tree-restart",),
    ),
    Feature(
        "chain-collapse-any", "ksm", "6.11", ("a0b856b617c5",),
        "a chain with one dup left is dissolved whenever it is looked at, not only when pruned",
        needs=("max-page-sharing",),
    ),
    Feature(
        "zero-pages", "ksm", "4.11", ("e86c59b1b12d",),
        "use_zero_pages: pages of zeros are merged with the zero page",
    ),
    Feature(
        "zero-pages-counted", "ksm", "6.6", ("79271476b336", "e2942062e01d"),
        "ptes merged with the zero page are marked (dirty), counted in ksm_zero_pages and unshared "
        "by unmerging",
        needs=("zero-pages",),
    ),
    Feature(
        "xxhash", "ksm", "5.0", ("59e1a2f4bf83",),
        "the checksum is xxhash64 (its low half), not jhash2",
    ),
    Feature(
        "stable-head-cleared", "ksm", "5.13", ("c89a384e2551",),
        "an rmap_item that leaves a stable node forgets it",
    ),
    Feature(
        "checksum-first", "ksm", "6.11", ("d58a361b0350",),
        "a page's checksum must be unchanged before the stable tree is searched: a newcomer merges "
        "on the second visit",
    ),
    Feature(
        "smart-scan", "ksm", "6.7", ("5e924ff54d08", "e5a689912689"),
        "smart_scan: pages that never merge are skipped more and more; pages_skipped",
    ),
    Feature(
        "advisor", "ksm", "6.8", ("4e5fa4f5eff6",),
        "advisor_mode scan-time sets pages_to_scan after each scan",
        needs=("smart-scan",),
    ),
    Feature(
        "pages-scanned", "ksm", "6.6", ("b348b5fe2b5f",),
        "pages_scanned counts pages that ksmd looked at",
    ),
    Feature(
        "general-profit", "ksm", "6.4", ("d21077fbc2fc",),
        "general_profit: bytes saved less the bytes of rmap_items",
    ),
    Feature(
        "merge-any", "ksm", "6.4", ("d7597f59d1d3",),
        "prctl(PR_SET_MEMORY_MERGE): every vma of a process, inherited by fork",
    ),
    Feature(
        "ksm-merging-pages", "ksm", "5.19", ("7609385337a4",),
        "each process counts its merged pages (ksm_merging_pages)",
    ),
    Feature(
        "ksm-rmap-items", "ksm", "6.1", ("cb4df4cae4f2",),
        "each process counts its rmap_items (ksm_stat)",
        needs=("ksm-merging-pages",),
    ),
    Feature(
        "ksm-counts-start-at-zero", "ksm", "6.18", ("4d6fc29f3634",),
        "a forked child's ksm counts start at 0 instead of as copies of its parent's; its zero "
        "pages are counted (stable 6.12.117 has it too)",
        needs=("ksm-rmap-items",),
    ),
    Feature(
        "ksm-fork-late", "ksm", "6.12", ("985da552a98e",),
        "fork hands the child to KSM at its very end, and does not fail where that fails",
    ),
    Feature(
        "merge-any-joins-vmas", "ksm", "6.17", ("cf7e7a3503df",),
        "a new vma of a merge-any process is mergeable before it may merge with its neighbours",
        needs=("merge-any",),
    ),
    Feature(
        "stable-node-busy-quiet", "ksm", "5.4", ("9a63236f1ad8",),
        "removing a stable node whose page is still mapped is refused without a warning",
    ),
    Feature(
        "ksm-stat-profit", "ksm", "6.6", ("d21077fbc2fc", "6080d19f0704"),
        "ksm_stat has ksm_zero_pages, ksm_merging_pages and ksm_process_profit too",
        needs=("ksm-rmap-items",),
    ),
    Feature(
        "ksm-stat-merge-any", "ksm", "6.14", ("3ab76c767bc7",),
        "ksm_stat says ksm_merge_any and ksm_mergeable",
        needs=("ksm-stat-profit", "merge-any"),
    ),
    Feature(
        "smaps-ksm", "ksm", "6.6", ("8b47933544a6",),
        "smaps counts the KSM pages of each vma",
    ),
    Feature(
        "ksm-rmap-by-index", "ksm", "7.3", (),
        "rmap walks of KSM pages look up the vmas that span the page's index, which the rmap_item "
        "keeps while it is in the stable tree (where its checksum and age were), instead of all "
        "vmas of the anon_vma; posted in its final form on 2026-06-09, its release not traced",
    ),
    Feature(
        "unshare-break", "ksm", "6.2", ("6cce3314b928", "d7c0e68dab98"),
        "unmerging breaks with an UNSHARE fault: the page is private, but read-only and clean",
        needs=("anon-exclusive",),
    ),
    Feature(
        "break-skips-prot-none", "ksm", "6.1", ("474098edac26",),
        "unmerging a PROT_NONE range finds no pages and leaves them merged",
        until="6.2",
    ),
    # ---- swap and reclaim ----
    Feature(
        "inverted-offset", "pte", "4.19", ("bcd11afa7ada",),
        "swap ptes hold type and inverted offset in their high bits, against L1TF",
    ),
    Feature(
        "swap-types-device", "pte", "4.14", ("5042db43cc26",),
        "two swap types are device memory's: fewer swap areas",
    ),
    Feature(
        "swap-types-device-exclusive", "pte", "5.14", ("b756a3b5e7ea",),
        "two more are device-exclusive entries'",
        needs=("swap-types-device",),
    ),
    Feature(
        "swap-types-one-exclusive", "pte", "6.15", (),
        "device-exclusive entries are of one type",
        needs=("swap-types-device-exclusive",),
    ),
    Feature(
        "soft-dirty", "pte", "3.11", ("0f8975ec4db2", "179ef71cbc08"),
        "ptes carry a soft-dirty bit, through swap too",
    ),
    Feature(
        "swapoff-soft-dirty", "pte", "5.19", ("14a762dd1977",),
        "swapoff keeps the soft-dirty bit of a swap pte",
        needs=("soft-dirty", "swapoff-per-mm"),
    ),
    Feature(
        "readahead-once", "swap", "3.14", ("579f82901f6f",),
        "a swap-in without readahead asks for its page once, not as its readahead's and again for "
        "itself",
    ),
    Feature(
        "swap-zeromap", "swap", "6.12", ("0ca0c24e3211", "e7ac4daeed91"),
        "pages of zeros get a slot but no I/O (swpout_zero, swpin_zero)",
    ),
    Feature(
        "swap-synchronous", "swap", "4.15", ("0bcac06f27d7", "aa8d22a11da9"),
        "areas in memory are like zram: a fault reads a slot that it alone refers to past the swap "
        "cache, and a slot that is free holds zeros",
        asked=True,
    ),
    Feature(
        "swapin-claims", "swap", "6.8", ("13ddaf26be32",),
        "a fault that reads past the swap cache claims the slot as if it were for it (stable 6.1 "
        "has it too)",
    ),
    Feature(
        "swap-device-pinned", "swap", "5.14", ("eb085574a752", "2799e77529c2"),
        "who looks at a slot of an area holds on to the area: swapoff waits for that",
    ),
    Feature(
        "swap-avail-plist", "swap", "3.16", ("18ab4d4ced08",),
        "areas of one priority take turns strictly: the one that is asked for a slot goes behind "
        "its equals, and so does one that has room again",
    ),
    Feature(
        "swap-numa-priority", "swap", "4.14", ("a2468cc9bfdf",),
        "automatic priorities count down from -2, not -1",
    ),
    Feature(
        "overcommit-guess-total", "swapoff", "5.2", ("8c7829b04c52",),
        "swapoff is refused up front only if the area is larger than all memory and swap, not by "
        "an estimate of what is free",
    ),
    Feature(
        "kpageflags-ksm-wrong", "ksm", "6.10", ("dee3d0bef2b0", "81401cebfc15"),
        "/proc/kpageflags says KSM for every anonymous page, so observations leave it out (stable "
        "6.18.44 has the mending too, 6.12.117 has not)",
        until="7.2",
    ),
    Feature(
        "mlock-count", "reclaim", "5.18", ("07ca76067308", "2fbb0c10d1e8", "cea86fe246b6"),
        "a page remembers how many mappings lock it, by the rmap: a child's copy on write no "
        "longer leaves its parent's locked page on the LRU, and KSM need not hand a lock over",
    ),
    Feature(
        "mlock-under-pte-lock", "reclaim", "4.4", ("b87537d9e2fe",),
        "a walk that meets a locked vma marks the page whoever has that process's mmap_sem; "
        "before, munlock of one of two places that a process has a KSM page at left it unmarked",
    ),
    Feature(
        "migration-keeps-mlock", "reclaim", "4.4", ("51afb12ba809",),
        "a page that is migrated stays marked as locked instead of being left for reclaim to find",
    ),
    Feature(
        "mprotect-populates-locked", "fault", "4.2", ("36f881883c57",),
        "locked memory that mprotect makes writable gets pages of its own at once",
    ),
    Feature(
        "swapin-misses-mlock", "reclaim", "6.11", ("9ae2feacedde",),
        "a page that a fault or swapoff has read from its slot is not marked as locked where it is "
        "first mapped; reclaim finds out",
        needs=("mlock-count",),
    ),
    Feature(
        "scan-anon-by-fraction", "reclaim", "4.6", (),
        "with no file pages around reclaim scans anonymous ones at every priority, by the fraction "
        "of them that was found in use lately",
    ),
    Feature(
        "zap-leaves-batches", "reclaim", "6.14", ("1aa43598c03b",),
        "munmap, exit and MADV_DONTNEED leave pages in the LRU's batches where they are",
    ),
    Feature(
        "lru-batch-31", "reclaim", "6.9", (),
        "31 pages wait for the LRU together, not 15",
    ),
    Feature(
        "rotations-cost", "reclaim", "6.4", ("0538a82c39e9",),
        "the balance of reclaim counts pages that it looked at in vain, and I/O 32 times",
        needs=("keep-young-once",),
    ),
    Feature(
        "reclaim-skips-writeback", "reclaim", "6.1", (),
        "reclaim activates pages under writeback instead of waiting for them, as it does in a "
        "cgroup v2: such was the machine on which these kernels were recorded",
        until="6.18",
        needs=("keep-young-once",),
    ),
    Feature(
        "uncharge-at-free", "reclaim", "3.17", ("0a31bc97c80c",),
        "a page is charged to its memory cgroup until it is freed, mapped or not",
    ),
    Feature(
        "swapin-charged-at-read", "reclaim", "5.8", ("4c6355b25e8b",),
        "a page read from swap is charged at once, to whom the slot was charged: MADV_WILLNEED's "
        "too",
        needs=("uncharge-at-free",),
    ),
    Feature(
        "madvise-pageout", "reclaim", "5.4", ("1a4e58cce84e",),
        "MADV_PAGEOUT reclaims pages that are mapped once",
    ),
    Feature(
        "keep-young-once", "reclaim", "5.9", ("b518154e59aa",),
        "reclaim keeps an anonymous page that one pte has used on the inactive list for a round "
        "instead of activating it; new pages start inactive",
        needs=("scan-anon-by-fraction",),
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(each.name for each in FEATURES)

_BY_NAME = {each.name: each for each in FEATURES}


def find(name: str) -> Feature:
    """The feature of that name; KeyError where there is none."""
    return _BY_NAME[name]


def release(text: str) -> tuple[int, ...]:
    """``"4.19.0"`` as numbers that compare as releases do."""
    return tuple(int(part) for part in text.split("."))


def of_release(text: str) -> frozenset[str]:
    """What a release has; museum pieces left out."""
    at = release(text)
    return frozenset(
        each.name
        for each in FEATURES
        if not (each.museum or each.asked)
        and release(each.since) <= at
        and (each.until is None or at < release(each.until))
    )


def switch(
    features: frozenset[str], on: frozenset[str] = frozenset(), off: frozenset[str] = frozenset()
) -> frozenset[str]:
    """A set with some features switched: on with what they need, off with what needs them.

    Where both ask for the same feature it is off.
    """
    ret = set(features)
    waiting = list(on)
    while waiting:
        name = waiting.pop()
        ret.add(name)
        waiting += [each for each in find(name).needs if each not in ret]
    waiting = list(off)
    while waiting:
        name = waiting.pop()
        ret.discard(name)
        waiting += [each for each in ret if name in find(each).needs]
    return frozenset(ret)


@dataclass(frozen=True)
class Profile:
    """One kernel as the engines model it."""

    name: str
    aliases: tuple[str, ...]
    recorded: str  #: the real kernel whose recordings this profile answers like
    summary: str
    features: frozenset[str]  #: those of the release, and what its recorded stable version mends


DEFAULT = "6.18"

PROFILES: dict[str, Profile] = {
    each.name: each
    for each in (
        Profile(
            "3.9", ("3.10", "3.10.65"), "3.10.65",
            "KSM trees per node, KSM page migration, swapoff entry by entry", of_release("3.9"),
        ),
        Profile(
            "4.19", ("4.19.0",), "4.19.0 with 7af7a8e19f0c",
            "max_page_sharing and zero pages, swapoff entry by entry", of_release("4.19"),
        ),
        Profile(
            "4.19.0-unfixed", (), "4.19.0 as released",
            "4.19 with the bug by which swapoff of KSM pages never ends",
            switch(of_release("4.19"), on=frozenset({"swapoff-keeps-shared-cache"})),
        ),
        Profile(
            "6.1", (), "Debian 12's 6.1.192",
            "swapoff mm by mm, exclusive anonymous pages",
            switch(of_release("6.1"), on=frozenset({"swapin-claims"})),
        ),
        Profile(
            "6.12", (), "Debian 12's 6.12.117",
            "smart scan, advisor, checksum first, zero pages counted and never written",
            switch(of_release("6.12"), on=frozenset({"ksm-counts-start-at-zero"})),
        ),
        Profile(
            "6.18", (), "6.18.44", "today's",
            switch(of_release("6.18"), off=frozenset({"kpageflags-ksm-wrong"})),
        ),
    )
}  # fmt: skip
