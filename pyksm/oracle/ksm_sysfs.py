"""mm/ksm.c: the files in /sys/kernel/mm/ksm, and what /proc/PID/ksm_stat says."""

from __future__ import annotations

from errno import EACCES, EBUSY, EDEADLK, EINVAL, ENOENT, ENOMEM, ERANGE

from pyksm.oracle import ksm
from pyksm.oracle.ksm_advisor import set_advisor_defaults
from pyksm.oracle.ksm_nodes import remove_all_stable_nodes
from pyksm.oracle.structs import PAGE_SIZE, Machine, Mm, kmem_alloc

INT_MAX = (1 << 31) - 1
UINT_MAX = (1 << 32) - 1
ULONG_MAX = (1 << 64) - 1

#: sizeof(struct rmap_item), which the profits count with.
RMAP_ITEM_SIZE = 64

#: Files that can be written: the feature that brought them ("" for those of 3.9).
KNOBS = {
    "run": "",
    "pages_to_scan": "",
    "sleep_millisecs": "",
    "merge_across_nodes": "",
    "max_page_sharing": "max-page-sharing",
    "stable_node_chains_prune_millisecs": "max-page-sharing",
    "use_zero_pages": "zero-pages",
    "smart_scan": "smart-scan",
    "advisor_mode": "advisor",
    "advisor_max_cpu": "advisor",
    "advisor_min_pages_to_scan": "advisor",
    "advisor_max_pages_to_scan": "advisor",
    "advisor_target_scan_time": "advisor",
}


def _has_knob(m: Machine, key: str) -> bool:
    return key in KNOBS and (not KNOBS[key] or m.has(KNOBS[key]))


# --- writing


def ksm_store(m: Machine, key: str, value: int) -> int:
    """Write a number to a file: 0 or -errno."""
    if not _has_knob(m, key):
        return -EACCES if key in ksm_counts(m) else -ENOENT
    if key == "run":
        return run_store(m, value)
    if key == "merge_across_nodes":
        return merge_across_nodes_store(m, value)
    if key == "max_page_sharing":
        return max_page_sharing_store(m, value)
    if key in ("use_zero_pages", "smart_scan"):
        return _bool_store(m, key, value)
    if key.startswith("advisor_"):
        return _advisor_store(m, key.removeprefix("advisor_"), value)
    if key == "pages_to_scan" and m.ksm.advisor.mode:
        return -EINVAL
    if not 0 <= value <= UINT_MAX:
        return -EINVAL
    setattr(m.ksm, key, value)
    return 0


def run_store(m: Machine, value: int) -> int:
    if not 0 <= value <= ksm.KSM_RUN_UNMERGE:
        return -EINVAL
    if m.ksm.mutex_held:
        return -EDEADLK
    if m.ksm.run == value:
        return 0
    m.ksm.run = value
    if value != ksm.KSM_RUN_UNMERGE:
        return 0
    m.ksm.mutex_held = True
    try:
        err = ksm.unmerge_and_remove_all_rmap_items(m)
    finally:
        m.ksm.mutex_held = False
    if err:
        m.ksm.run = 0
    return err


def _nothing_merged(m: Machine) -> int:
    """What two knobs ask for before they change: 0, or -EBUSY while something is merged, if only
    as far as the counters know."""
    m.ksm.mutex_held = True
    try:
        return -EBUSY if m.ksm.pages_shared or remove_all_stable_nodes(m) else 0
    finally:
        m.ksm.mutex_held = False


def merge_across_nodes_store(m: Machine, value: int) -> int:
    if value not in (0, 1):
        return -EINVAL
    if m.ksm.mutex_held:
        return -EDEADLK
    if m.ksm.merge_across_nodes == value:
        return 0
    err = _nothing_merged(m)
    if err:
        return err
    if not m.ksm.roots_allocated:
        if not kmem_alloc(m):
            return -ENOMEM
        m.ksm.roots_allocated = True
    m.ksm.merge_across_nodes = value
    m.ksm.nr_node_ids = 1 if value else len(m.nodes)
    return 0


def max_page_sharing_store(m: Machine, value: int) -> int:
    """An int; a KSM page is shared by two at least when it is made."""
    if not -INT_MAX - 1 <= value <= INT_MAX:
        return -ERANGE
    if value < 2:
        return -EINVAL
    if m.ksm.max_page_sharing == value:
        return 0
    if m.ksm.mutex_held:
        return -EDEADLK
    err = _nothing_merged(m)
    if not err:
        m.ksm.max_page_sharing = value
    return err


def _bool_store(m: Machine, key: str, value: int) -> int:
    """kstrtobool(): the first character of what is written decides."""
    if str(value)[0] not in "01":
        return -EINVAL
    setattr(m.ksm, key, int(str(value)[0]))
    return 0


def _advisor_store(m: Machine, key: str, value: int) -> int:
    advisor = m.ksm.advisor
    if key == "mode":
        if value not in (0, 1):
            return -EINVAL
        if advisor.mode != value:
            advisor.mode = value
            set_advisor_defaults(m)
        return 0
    if not (key == "target_scan_time") <= value <= ULONG_MAX:
        return -EINVAL
    setattr(advisor, key, value & UINT_MAX if key == "max_cpu" else value)
    return 0


# --- reading


def ksm_counts(m: Machine) -> dict[str, int]:
    """The files that are counts."""
    k = m.ksm
    volatile = k.rmap_items - k.pages_shared - k.pages_sharing - k.pages_unshared
    counts = {
        "full_scans": k.seqnr,
        "pages_shared": k.pages_shared,
        "pages_sharing": k.pages_sharing,
        "pages_unshared": k.pages_unshared,
        "pages_volatile": max(volatile, 0),
    }
    if m.has("max-page-sharing"):
        counts["stable_node_chains"] = k.stable_node_chains
        counts["stable_node_dups"] = k.stable_node_dups
    if m.has("zero-pages-counted"):
        counts["ksm_zero_pages"] = k.ksm_zero_pages
    if m.has("general-profit"):
        counts["general_profit"] = _profit(m, k.pages_sharing, k.ksm_zero_pages, k.rmap_items)
    if m.has("pages-scanned"):
        counts["pages_scanned"] = k.pages_scanned
    if m.has("smart-scan"):
        counts["pages_skipped"] = k.pages_skipped
    return counts


def _profit(m: Machine, pages: int, zero_pages: int, items: int) -> int:
    """Bytes; pages of zeros count as far as they are counted."""
    if m.has("zero-pages-counted"):
        pages += zero_pages
    return pages * PAGE_SIZE - items * RMAP_ITEM_SIZE


def ksm_show(m: Machine, key: str) -> int | None:
    """The value of a file, None where there is none."""
    if not _has_knob(m, key):
        return ksm_counts(m).get(key)
    if key.startswith("advisor_"):
        value: int = getattr(m.ksm.advisor, key.removeprefix("advisor_"))
    else:
        value = getattr(m.ksm, key)
    return value


def ksm_stat(m: Machine, mm: Mm) -> dict[str, int]:
    """/proc/PID/ksm_stat, with ksm_merging_pages, which has a file of its own from 5.18 on."""
    stat: dict[str, int] = {}
    if m.has("ksm-merging-pages"):
        stat["ksm_merging_pages"] = mm.ksm_merging_pages
    if m.has("ksm-rmap-items"):
        stat["ksm_rmap_items"] = mm.ksm_rmap_items
    if m.has("ksm-stat-profit"):
        stat["ksm_zero_pages"] = mm.ksm_zero_pages
        stat["ksm_process_profit"] = _profit(
            m, mm.ksm_merging_pages, mm.ksm_zero_pages, mm.ksm_rmap_items
        )
    if m.has("ksm-stat-merge-any"):
        stat["ksm_merge_any"] = int(mm.merge_any)
        stat["ksm_mergeable"] = int(any(vma.mergeable for vma in mm.vmas))
    return stat
