"""mm/interval_tree.c: the avcs of an anon_vma by the page indices that their vmas span.

The kernel's tree goes to the right on equal starts, so its in-order is a list sorted by start,
newcomers after their equals: that list is all that a walk can tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from pyksm.oracle.structs import AnonVma, AnonVmaChain, Machine, Vma, vma_pages


def insert(avc: AnonVmaChain) -> None:
    tree = avc.anon_vma.tree
    tree.insert(bisect_right(tree, avc.vma.pgoff, key=lambda other: other.vma.pgoff), avc)


def remove(avc: AnonVmaChain) -> None:
    avc.anon_vma.tree.remove(avc)


def foreach(m: Machine, anon_vma: AnonVma, first: int, last: int) -> Iterator[AnonVmaChain]:
    """anon_vma_interval_tree_foreach(): avcs whose vma meets [first, last]."""
    for avc in anon_vma.tree:
        start = avc.vma.pgoff
        if start > last:
            return
        if start + vma_pages(avc.vma) > first:
            m.counters["avc_visited"] += 1
            yield avc


def foreach_all(m: Machine, anon_vma: AnonVma) -> Iterator[AnonVmaChain]:
    for avc in anon_vma.tree:
        m.counters["avc_visited"] += 1
        yield avc


def pre_update_vma(vma: Vma) -> None:
    """Take the vma's avcs out of their trees while its bounds change."""
    for avc in vma.chain:
        remove(avc)


def post_update_vma(vma: Vma) -> None:
    for avc in vma.chain:
        insert(avc)
