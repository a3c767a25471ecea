"""How much work the hot loops are, counted, as closed formulas: exact, on the core however it works
and on the oracle. A counter that a formula does not name did not move.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyksm.engine import MADV_MERGEABLE, Config, Engine
from pyksm.scenario import engines

Work = dict[str, int]

WAYS = ["core", "core+computed", "core+reference", "core+threads", "core+all", "oracle"]
#: Pages of a process: one page table, exactly one, and more than one.
SIZES = [1, 2, 100, 512, 700]
SPARE_SLOTS = 64


def sized(*more: int) -> pytest.MarkDecorator:
    """Every way with every size, the oracle with the small ones only; and a number beside."""
    cases = [
        (way, npages, *rest)
        for way in WAYS
        for npages in SIZES
        for rest in ([(each,) for each in more] or [()])
        if way != "oracle" or npages <= 100
    ]
    return pytest.mark.parametrize(
        ("way", "npages", "procs")[: 3 if more else 2],
        cases,
    )


def machine(way: str, profile: str, pages: int) -> Engine:
    return engines.factory(way)(Config(frames=3 * pages + 64, page_size=8, profile=profile))


def words(first: int, count: int) -> bytes:
    """Pages of 8 bytes, no two alike and none of zeros."""
    return b"".join(number.to_bytes(8, "little") for number in range(first, first + count))


def process(m: Engine, contents: bytes, mergeable: bool = False) -> tuple[int, int, int]:
    """A process with those pages: its pid, their address, how many."""
    npages = len(contents) // 8
    pid = m.spawn()
    addr = m.mmap(pid, npages)
    assert not any(m.write_pages(pid, addr, contents))
    if mergeable:
        m.madvise(pid, addr, npages, MADV_MERGEABLE)
    return pid, addr, npages


def out(m: Engine, slots: int) -> int:
    """An area that holds them, and everything in it."""
    area = m.swapon(slots + SPARE_SLOTS)
    m.swapout()
    assert m.areas()[0].used == slots
    return area


def work(m: Engine, operation: Callable[[], object]) -> Work:
    """What the operation counted."""
    before = dict(m.counters()) | dict(m.vmstat())
    operation()
    now = dict(m.counters()) | dict(m.vmstat())
    return {name: now[name] - was for name, was in before.items() if now[name] != was}


def each(count: int, names: str) -> Work:
    """The same count for each of the names; none of them where it is 0."""
    return dict.fromkeys(names.split(), count) if count else {}


def tables(npages: int) -> int:
    """Last-level page tables of so many pages."""
    return -(-npages // 512)


# swapoff mm by mm: every pte is looked at once, every slot read once


def by_mm(procs: int, npages: int, slots: int, copies: int) -> Work:
    """Each of the processes has all of its pages in swap; some get a copy."""
    ptes = procs * npages
    return (
        each(ptes, "unuse_pte unuse_pte_compared swap_free try_to_free_swap ksm_might_need_to_copy")
        | each(slots, "swap_readpage read_swap_cache_async swapin_readahead pswpin")
        | each(slots, "delete_from_swap_cache")
        | each(slots + copies, "alloc_page")
        | each(copies, "copy_page ksm_swpin_copy")
        | each(procs, "unuse_mm unuse_vma")
        | each(procs * tables(npages), "unuse_pte_range")
        | {"try_to_unuse": 1}
    )


@sized(1, 3)
def test_swapoff_by_mm_distinct(way: str, npages: int, procs: int) -> None:
    m = machine(way, "6.18", procs * npages)
    for k in range(procs):
        process(m, words(1 + k * npages, npages))
    area = out(m, procs * npages)
    assert work(m, lambda: m.swapoff(area)) == by_mm(procs, npages, procs * npages, 0)


@sized(1, 3)
def test_swapoff_by_mm_forked(way: str, npages: int, procs: int) -> None:
    """``procs`` children: a slot is read for the first that needs it."""
    m = machine(way, "6.18", npages)
    pid, _, _ = process(m, words(1, npages))
    for _ in range(procs):
        m.fork(pid)
    area = out(m, npages)
    assert work(m, lambda: m.swapoff(area)) == by_mm(procs + 1, npages, npages, 0)


@sized(2, 4)
def test_swapoff_by_mm_ksm(way: str, npages: int, procs: int) -> None:
    """One of those who share gets the page, each other one a copy."""
    m = machine(way, "6.18", procs * npages)
    for _ in range(procs):
        process(m, words(1, npages), mergeable=True)
    m.ksm_scan(3)
    area = out(m, npages)
    copies = (procs - 1) * npages
    assert work(m, lambda: m.swapoff(area)) == by_mm(procs, npages, npages, copies)


# swapoff entry by entry: each entry is looked for from the beginning


def by_entry(slots: int, ptes: int, calls: int, ranges: int, compared: int) -> Work:
    return (
        each(slots, "swap_readpage read_swap_cache_async pswpin alloc_page delete_from_swap_cache")
        | each(ptes, "unuse_pte swap_free ksm_might_need_to_copy")
        | each(calls, "unuse_mm unuse_vma")
        | {"unuse_pte_range": ranges, "unuse_pte_compared": compared, "try_to_unuse": 1}
        # Slot after slot; then through the rest of the area, and around, for nothing.
        | {"find_next_to_unuse_slots": 2 * slots + SPARE_SLOTS - 1}
    )


@pytest.mark.parametrize("profile", ["3.9", "4.19"])
@sized(1, 3)
def test_swapoff_by_entry_distinct(way: str, npages: int, procs: int, profile: str) -> None:
    """The i-th page of a process is found behind i - 1 others; and when it is another process's
    turn, those before it in the list are searched in vain."""
    m = machine(way, profile, procs * npages)
    for k in range(procs):
        process(m, words(1 + k * npages, npages))
    area = out(m, procs * npages)
    slots, in_vain = procs * npages, procs * (procs - 1)
    expected = by_entry(
        slots,
        ptes=slots,
        calls=slots + in_vain,
        ranges=procs * sum(tables(i) for i in range(1, npages + 1)) + in_vain * tables(npages),
        compared=procs * npages * (npages + 1) // 2 + in_vain * npages,
    )
    assert work(m, lambda: m.swapoff(area)) == expected


@pytest.mark.parametrize("profile", ["3.9", "4.19"])
@sized(1, 3)
def test_swapoff_by_entry_forked(way: str, npages: int, procs: int, profile: str) -> None:
    """Who comes second knows the page's anon_vma, so where to look."""
    m = machine(way, profile, npages)
    pid, _, _ = process(m, words(1, npages))
    for _ in range(procs):
        m.fork(pid)
    area = out(m, npages)
    children = procs * npages
    expected = by_entry(
        npages,
        ptes=npages + children,
        calls=npages + children,
        ranges=sum(tables(i) for i in range(1, npages + 1)) + children,
        compared=npages * (npages + 1) // 2 + children,
    ) | each(children, "page_address_in_vma")
    assert work(m, lambda: m.swapoff(area)) == expected


# ksmd


@sized(2, 4)
def test_first_merge(way: str, npages: int, procs: int) -> None:
    """The same contents in each process. First the checksums, then all merge, then there is nothing
    left to do. How often pages are compared on the way through trees is the trees' affair."""
    m = machine(way, "6.18", procs * npages)
    for _ in range(procs):
        process(m, words(1, npages), mergeable=True)
    ptes, others = procs * npages, (procs - 1) * npages
    seen = each(ptes, "calc_checksum cmp_and_merge_page")
    assert work(m, lambda: m.ksm_scan(1)) == seen | each(
        ptes, "kmem_alloc remove_rmap_item_from_tree"
    )
    merged = work(m, lambda: m.ksm_scan(1))
    assert merged.pop("memcmp_pages") >= 2 * others
    assert merged == (
        seen
        | each(ptes, "stable_tree_search try_to_merge_one_page write_protect_page")
        | each(others, "replace_page free_page try_to_free_swap")
        | each(npages, "stable_tree_insert kmem_alloc")
        | each(2 * npages, "unstable_tree_search_insert")
        | each(3 * ptes, "remove_rmap_item_from_tree")
        | each(ptes + others, "page_address_in_vma")
    )
    assert work(m, lambda: m.ksm_scan(1)) == each(ptes, "cmp_and_merge_page")


@pytest.mark.parametrize("most", [1 << 30, 50])
@sized()
def test_first_merge_of_one_content(way: str, npages: int, most: int) -> None:
    """Two pages of a content make a KSM page, of which there is one for every ``most`` ptes."""
    m = machine(way, "6.18", npages)
    process(m, words(7, 1) * npages, mergeable=True)
    m.ksm_write("max_page_sharing", most)
    m.ksm_scan(1)
    full, rest = divmod(npages, most)
    kpages = full + (rest > 1)  # the last page alone stays in the unstable tree
    alone = rest == 1
    merged = npages - alone
    found = merged - kpages
    # In a tree of one content: with the KSM page, when found and again before it is replaced. Where
    # all KSM pages are full two of a new one find that out, and so does it, and one left alone.
    compared = 2 * found + 3 * max(kpages - 1, 0) + (alone and kpages > 0)
    assert work(m, lambda: m.ksm_scan(1)) == (
        each(npages, "calc_checksum cmp_and_merge_page stable_tree_search")
        | each(merged, "try_to_merge_one_page write_protect_page")
        | each(found, "replace_page free_page try_to_free_swap")
        | each(kpages, "stable_tree_insert")
        | each(2 * kpages + alone, "unstable_tree_search_insert")
        | each(2 * npages + merged, "remove_rmap_item_from_tree")
        | each(merged + found, "page_address_in_vma")
        | each(kpages + (kpages > 1), "kmem_alloc")  # and one for the chain
        | each(compared, "memcmp_pages")
    )


# faults and fork


@pytest.mark.parametrize("profile", ["3.9", "6.18"])
@sized()
def test_first_touches(way: str, npages: int, profile: str) -> None:
    m = machine(way, profile, npages)
    pid = m.spawn()
    addr = m.mmap(pid, npages)
    read = work(m, lambda: m.touch(pid, addr, npages))
    assert read == each(npages, "handle_mm_fault do_anonymous_page")
    written = work(m, lambda: m.touch(pid, addr, npages, True))
    assert written == each(npages, "handle_mm_fault do_wp_page alloc_page anon_vma_prepare") | {
        "kmem_alloc": 2  # an anon_vma and its chain
    }
    assert work(m, lambda: m.touch(pid, addr, npages, True)) == {}


@pytest.mark.parametrize("profile", ["3.9", "6.18"])
@sized()
def test_fork_and_copy_on_write(way: str, npages: int, profile: str) -> None:
    m = machine(way, profile, npages)
    pid, addr, _ = process(m, words(1, npages))
    forked = work(m, lambda: m.fork(pid))
    assert forked == each(npages, "copy_one_pte") | {
        "anon_vma_fork": 1,
        "anon_vma_clone": 1,
        "kmem_alloc": 5,  # mm, vma, anon_vma and two chains
    }
    (child,) = set(m.processes()) - {pid}
    reuse = each(npages if profile == "3.9" else 0, "reuse_swap_page")
    faults = each(npages, "handle_mm_fault do_wp_page") | reuse
    copied = work(m, lambda: m.touch(child, addr, npages, True))
    assert copied == faults | each(npages, "alloc_page copy_page anon_vma_prepare")
    assert work(m, lambda: m.touch(pid, addr, npages, True)) == faults
    assert work(m, lambda: m.exit(child)) == each(npages, "zap_pte free_page") | {
        "unlink_anon_vmas": 1
    }


@sized()
def test_swap_in(way: str, npages: int) -> None:
    m = machine(way, "6.18", npages)
    pid, addr, _ = process(m, words(1, npages))
    out(m, npages)
    faults = work(m, lambda: m.touch(pid, addr, npages, True))
    assert faults == each(
        npages,
        "handle_mm_fault do_swap_page swapin_readahead read_swap_cache_async swap_readpage pswpin"
        " alloc_page ksm_might_need_to_copy swap_free try_to_free_swap delete_from_swap_cache",
    )


@sized(2, 4)
def test_copy_of_ksm_pages(way: str, npages: int, procs: int) -> None:
    m = machine(way, "6.18", procs * npages)
    members = [process(m, words(1, npages), mergeable=True) for _ in range(procs)]
    m.ksm_scan(3)
    pid, addr, _ = members[-1]
    assert work(m, lambda: m.touch(pid, addr, npages, True)) == each(
        npages, "handle_mm_fault do_wp_page alloc_page copy_page anon_vma_prepare cow_ksm"
    )
