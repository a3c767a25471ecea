"""mm/workingset.c, from 5.9 on for anonymous pages too (aae466b0052e): did a page come back so soon
that it would have stayed, had active pages made room for it?

And lru_note_cost() of mm/swap.c (5.8, 1431d4d11abb): what reclaim of a node's pages has cost.
"""

from __future__ import annotations

from pyksm.oracle.structs import Machine, Node, Page, SwapEntry

SWAP_CLUSTER_MAX = 32


def lru_note_cost(m: Machine, node: Node, nr_io: int, nr_rotated: int = 0) -> None:
    """Decays once it exceeds a quarter of the pages there are."""
    if m.has("rotations-cost"):
        node.anon_cost += nr_io * SWAP_CLUSTER_MAX + nr_rotated
    else:
        node.anon_cost += nr_io
    if node.anon_cost > (len(node.inactive) + len(node.active)) // 4:
        node.anon_cost //= 2


def workingset_eviction(m: Machine, page: Page, entry: SwapEntry) -> None:
    """Leave a shadow in the swap cache where the page was."""
    if not m.has("keep-young-once"):
        return
    node = m.nodes[page.node]
    m.shadows[entry] = (node.nid, node.nonresident_age, page.workingset)
    node.nonresident_age += 1


def workingset_refault(m: Machine, page: Page, entry: SwapEntry) -> None:
    """A page is being read: active from the start if it was away for a short time only."""
    shadow = m.shadows.pop(entry, None)
    if shadow is None:
        return
    nid, age, workingset = shadow
    evicted_from = m.nodes[nid]
    size = len(evicted_from.active) if m.nr_swap_pages > 0 else 0
    if evicted_from.nonresident_age - age > size:
        return
    node = m.nodes[page.node]
    page.active = True
    node.nonresident_age += 1
    node.activations += 1
    if workingset:
        page.workingset = True
        lru_note_cost(m, node, 1, 0)
