"""mm/ksm.c, stable nodes: from a node to its page, a node's end, and chains of nodes.

A stable node holds no reference to its page. It looks whether the page's mapping still points
back to it (get_ksm_page), and where not, it goes away with all that hangs on it.

A node takes at most max_page_sharing items (4.13, 2c653d0ee2ae). Further pages of the same content
get nodes of their own, and in the tree a chain stands for all of them, its dups.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EBUSY

from pyksm.oracle import rmap
from pyksm.oracle.page_alloc import (
    get_page,
    lock_page,
    pfn_to_page,
    put_page,
    unlock_page,
)
from pyksm.oracle.rbtree import RbRoot
from pyksm.oracle.structs import Machine, Page, StableNode, event, kmem_alloc, schedule_point


def get_kpfn_nid(m: Machine, pfn: int) -> int:
    """Which tree a page belongs to."""
    return 0 if m.ksm.merge_across_nodes else pfn_to_page(m, pfn).node


def page_stable_node(page: Page) -> StableNode | None:
    return page.stable_node if page.ksm else None


def set_page_stable_node(page: Page, node: StableNode | None) -> None:
    """Make it a KSM page, which it stays for good."""
    page.ksm, page.anon_vma, page.stable_node = True, None, node


# --- memory of nodes


def slab_alloc(m: Machine) -> int:
    """Memory for a stable_node, as an address: a slab cache hands out first what was freed last.

    It shows, for a rmap_item may still have the address of its old node in ``head`` when a new
    node comes to lie there. Until 4.13 a node has 48 bytes, like an mm_slot, and they share a
    cache; with hlist_dup and rmap_hlist_len it has 64.
    """
    if m.ksm.slab_free:
        return m.ksm.slab_free.pop()
    m.ksm.slab_made += 1
    return m.ksm.slab_made


def slab_free(m: Machine, address: int) -> None:
    if address >= 0:
        m.ksm.slab_free.append(address)


def mm_slot_alloc(m: Machine) -> int:
    return -1 if m.has("max-page-sharing") else slab_alloc(m)


def alloc_stable_node(m: Machine, kpfn: int, nid: int) -> StableNode | None:
    return StableNode(slab_alloc(m), kpfn, nid) if kmem_alloc(m) else None


def free_stable_node(m: Machine, node: StableNode) -> None:
    slab_free(m, node.address)


# --- where a node is


def stable_node_dup_del(m: Machine, node: StableNode) -> None:
    """Out of its tree, or out of the chain whose dup it is."""
    if node.chain is not None:
        node.chain.dups.remove(node)
        node.chain = None
        m.ksm.stable_node_dups -= 1
        return
    assert node.node is not None
    m.ksm.stable[node.nid].erase(node.node)
    node.node = None


def move_to_migrate_nodes(m: Machine, node: StableNode) -> None:
    node.migrating = True
    m.ksm.migrate_nodes.insert(0, node)


def leave_migrate_nodes(m: Machine, node: StableNode, nid: int) -> None:
    node.migrating = False
    m.ksm.migrate_nodes.remove(node)
    node.nid = nid


def stable_node_chain_add_dup(m: Machine, dup: StableNode, chain: StableNode) -> None:
    dup.chain = chain
    chain.dups.insert(0, dup)
    m.ksm.stable_node_dups += 1


def alloc_stable_node_chain(
    m: Machine, dup: StableNode, root: RbRoot[StableNode]
) -> StableNode | None:
    """A chain in the tree in place of a node, which becomes its first dup. None: no memory."""
    chain = alloc_stable_node(m, -1, dup.nid)
    if chain is None:
        return None
    assert dup.node is not None
    chain.is_chain, chain.chain_prune_time = True, m.clock
    m.ksm.stable_node_chains += 1
    chain.node = root.replace(dup.node, chain)
    dup.node = None
    stable_node_chain_add_dup(m, dup, chain)
    return chain


def free_stable_node_chain(m: Machine, chain: StableNode, root: RbRoot[StableNode]) -> None:
    assert chain.node is not None
    root.erase(chain.node)
    chain.node = None
    free_stable_node(m, chain)
    m.ksm.stable_node_chains -= 1


def _collapse(m: Machine, chain: StableNode, dup: StableNode, root: RbRoot[StableNode]) -> None:
    """The only dup takes its chain's place in the tree."""
    assert chain.node is not None
    dup.node = root.replace(chain.node, dup)
    dup.chain = chain.node = None
    chain.dups.clear()
    free_stable_node(m, chain)
    m.ksm.stable_node_chains -= 1
    m.ksm.stable_node_dups -= 1


# --- from a node to its page


def get_ksm_page(m: Machine, node: StableNode, lock_it: bool = False) -> Page | None:
    """The node's page with a reference; where it is gone, so is the node, and None comes back."""
    page = pfn_to_page(m, node.kpfn)
    if page_stable_node(page) is not node:
        remove_node_from_stable_tree(m, node)
        return None
    get_page(page)
    if lock_it:
        lock_page(page)
    return page


# --- the end of a node


def remove_node_from_stable_tree(m: Machine, node: StableNode) -> None:
    """Let go of its rmap_items, which know nothing of it until they are visited."""
    last = next(iter(node.hlist), None)
    for item in reversed(node.hlist):
        if item is last:
            m.ksm.pages_shared -= 1
        else:
            m.ksm.pages_sharing -= 1
        item.mm.ksm_merging_pages -= 1
        assert item.anon_vma is not None
        rmap.put_anon_vma(item.anon_vma)
        if m.has("ksm-rmap-by-index"):
            item.forget_index()
        item.stable = False
    if node.migrating:
        m.ksm.migrate_nodes.remove(node)
    else:
        stable_node_dup_del(m, node)
    free_stable_node(m, node)


def remove_stable_node(m: Machine, node: StableNode) -> int:
    """Detach the node from its page, if nobody maps that any more."""
    page = get_ksm_page(m, node, lock_it=True)
    if page is None:
        return 0
    err = 0
    if page.mapcount:
        if not m.has("stable-node-busy-quiet"):
            event(m, "WARN_ON_ONCE remove_stable_node page_mapped")
        err = -EBUSY
    else:
        set_page_stable_node(page, None)
        remove_node_from_stable_tree(m, node)
    unlock_page(page)
    put_page(m, page)
    return err


def remove_stable_node_chain(m: Machine, node: StableNode, root: RbRoot[StableNode]) -> int:
    """The same for what is in a tree, which may be a chain: then up to the first that stays."""
    if not node.is_chain:
        return remove_stable_node(m, node)
    for dup in list(node.dups):
        err = remove_stable_node(m, dup)
        if err:
            return err
    free_stable_node_chain(m, node, root)
    return 0


def remove_all_stable_nodes(m: Machine) -> int:
    schedule_point(m, "remove_all_stable_nodes:begin")
    err = 0
    for root in m.ksm.stable[: m.ksm.nr_node_ids]:
        while root.rb_node is not None:
            if remove_stable_node_chain(m, root.rb_node.item, root):
                err = -EBUSY
                break
    for node in list(m.ksm.migrate_nodes):
        if remove_stable_node(m, node):
            err = -EBUSY
    return err


# --- choosing a node


def is_page_sharing_candidate(m: Machine, node: StableNode, offset: int = 0) -> bool:
    """Whether one more item than ``offset`` more would still be let in.

    One without items is none: its page is about to be freed. Without max_page_sharing all are."""
    if not m.has("max-page-sharing"):
        return True
    return bool(node.hlist) and len(node.hlist) + offset < m.ksm.max_page_sharing


@dataclass(eq=False, slots=True)
class Found:
    """What stands at a place of the stable tree: a node, plain or a chain, and its dup to merge
    with (a plain node is its own; None: all are full), and the page to compare, with a reference.
    """

    node: StableNode
    dup: StableNode | None
    page: Page
    any: StableNode  #: the dup, or where that is None another one


def stable_node_chain(
    m: Machine, node: StableNode, root: RbRoot[StableNode], prune: bool
) -> Found | None:
    """chain_prune() or chain(), and stable_node_dup_any(). None: the tree has changed."""
    if m.has("chain-collapse-any") or not m.has("max-page-sharing"):
        dup: StableNode | None = node
        if node.is_chain:
            node, dup = _best_dup(m, node, root, prune)
        page = get_ksm_page(m, dup) if dup is not None else None
        if dup is None or page is None:
            return None
        return Found(node, dup if is_page_sharing_candidate(m, dup) else None, page, dup)
    if node.is_chain:
        node, dup = _candidate_dup(m, node, root, prune)
    else:
        dup = node if is_page_sharing_candidate(m, node) else None
    known = dup or _stable_node_dup_any(m, node, root)
    page = get_ksm_page(m, known) if known is not None else None
    return Found(node, dup, page, known) if known is not None and page is not None else None


def _time_to_prune(m: Machine, chain: StableNode, prune: bool) -> bool:
    k = m.ksm
    due = chain.chain_prune_time + k.stable_node_chains_prune_millisecs
    if not prune or m.clock < due:
        return False
    chain.chain_prune_time = m.clock
    return True


def _candidate_dup(
    m: Machine, chain: StableNode, root: RbRoot[StableNode], prune: bool
) -> tuple[StableNode, StableNode | None]:
    """stable_node_dup() until 6.11: the first dup that is not full, or the fullest such one when
    pruning, which also dissolves a chain of one. What stands in the tree then, and that dup."""
    prune = _time_to_prune(m, chain, prune)
    found: StableNode | None = None
    alive = 0
    for dup in list(chain.dups):
        page = get_ksm_page(m, dup)
        if page is None:
            continue
        put_page(m, page)
        alive += 1
        fuller = found is None or len(dup.hlist) > len(found.hlist)
        if fuller and is_page_sharing_candidate(m, dup):
            found = dup
            if not prune:
                break
    if found is not None:
        if prune and alive == 1:
            _collapse(m, chain, found, root)
            return found, found
        _to_front(m, chain, found)
    return chain, found


def _stable_node_dup_any(
    m: Machine, node: StableNode, root: RbRoot[StableNode]
) -> StableNode | None:
    """Any dup of a chain whose dups are full, to compare with. None: it has none, and is gone."""
    if not node.is_chain:
        return node
    if not node.dups:
        free_stable_node_chain(m, node, root)
        return None
    return node.dups[0]


def _best_dup(
    m: Machine, chain: StableNode, root: RbRoot[StableNode], prune: bool
) -> tuple[StableNode, StableNode | None]:
    """stable_node_dup() from 6.11 on: a dup that is not full if there is one, else any; a chain of
    one is dissolved whenever that is seen, and one of none freed."""
    prune = _time_to_prune(m, chain, prune)
    found: StableNode | None = None
    for dup in list(chain.dups):
        page = get_ksm_page(m, dup)
        if page is None:
            continue
        put_page(m, page)
        if found is None or _better(m, dup, found):
            found = dup
            if not prune and is_page_sharing_candidate(m, found):
                break
    if found is None:
        free_stable_node_chain(m, chain, root)
    elif chain.dups == [found]:
        _collapse(m, chain, found, root)
        return found, found
    else:
        _to_front(m, chain, found)
    return chain, found


def _better(m: Machine, dup: StableNode, found: StableNode) -> bool:
    if not is_page_sharing_candidate(m, dup):
        return False
    return not is_page_sharing_candidate(m, found) or len(dup.hlist) > len(found.hlist)


def _to_front(m: Machine, chain: StableNode, dup: StableNode) -> None:
    """One that has room beyond the merge at hand is found first the next time."""
    if chain.dups[0] is not dup and is_page_sharing_candidate(m, dup, 1):
        chain.dups.remove(dup)
        chain.dups.insert(0, dup)
