"""mm/ksm.c, the trees: stable nodes sorted by the content of their pages, unstable rmap_items.

Nodes and chains of nodes are in ksm_nodes.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyksm.oracle import memory, mmap, rmap
from pyksm.oracle.ksm_nodes import (
    Found,
    alloc_stable_node,
    alloc_stable_node_chain,
    free_stable_node,
    get_kpfn_nid,
    get_ksm_page,
    is_page_sharing_candidate,
    leave_migrate_nodes,
    move_to_migrate_nodes,
    page_stable_node,
    set_page_stable_node,
    stable_node_chain,
    stable_node_chain_add_dup,
    stable_node_dup_del,
)
from pyksm.oracle.page_alloc import get_page, put_page, unlock_page
from pyksm.oracle.rbtree import RbNode, RbRoot
from pyksm.oracle.structs import (
    Machine,
    Mm,
    MmSlot,
    Page,
    RmapItem,
    StableNode,
    Vma,
    kmem_alloc,
)


def memcmp_pages(m: Machine, one: Page, two: Page) -> int:
    m.counters["memcmp_pages"] += 1
    return (one.data > two.data) - (one.data < two.data)


def find_mergeable_vma(mm: Mm, address: int) -> Vma | None:
    vma = mmap.vma_at(mm, address) if mm.users else None
    return vma if vma is not None and vma.mergeable and vma.anon_vma is not None else None


def get_mergeable_page(m: Machine, item: RmapItem) -> Page | None:
    """The page that is at the item's address now, with a reference."""
    vma = find_mergeable_vma(item.mm, item.address)
    if vma is None:
        return None
    page = memory.follow_page(m, vma, item.address)
    if page is not None and not page.anon:
        put_page(m, page)
        return None
    return page


# --- the stable tree


@dataclass(eq=False, slots=True)
class Place:
    """Where a descent ended: at what has equal content, or at a leaf of ``parent``."""

    found: Found | None
    parent: RbNode[StableNode] | None
    left: bool


def _descend(m: Machine, root: RbRoot[StableNode], page: Page, prune: bool = False) -> Place | None:
    """Look for the page's content. None: gave up at a stale node, which the walk has removed (the
    tree may look different now); from 4.4 on it starts again instead."""
    while True:
        place = _walk(m, root, page, prune)
        if place is not None or not m.has("stable-tree-restart"):
            return place


def _walk(m: Machine, root: RbRoot[StableNode], page: Page, prune: bool) -> Place | None:
    parent, left, at = None, False, root.rb_node
    while at is not None:
        found = stable_node_chain(m, at.item, root, prune)
        if found is None:
            return None
        order = memcmp_pages(m, page, found.page)
        put_page(m, found.page)
        if order == 0:
            return Place(found, None, False)
        parent, left = found.node.node, order < 0
        assert parent is not None
        at = parent.left if left else parent.right
    return Place(None, parent, left)


def stable_tree_search(m: Machine, page: Page) -> Page | None:
    """A KSM page of the same content, with a reference; the page itself when it is one in place.

    A page whose node waits on migrate_nodes gets its node into the tree of the memory node it is
    on. (From 5.1 on a page that is locked is not waited for; here it never is.)"""
    m.counters["stable_tree_search"] += 1
    page_node = page_stable_node(page)
    if page_node is not None and not page_node.migrating:
        get_page(page)
        return page
    nid = get_kpfn_nid(m, page.pfn)
    root = m.ksm.stable[nid]
    while True:
        place = _descend(m, root, page, prune=True)
        if place is None:
            return None
        found = place.found
        if found is None:
            return _place_page_node(m, root, page, page_node, nid, place)
        if page_node is not None and page.mapcount > 1 and m.has("max-page-sharing"):
            return _chain_append(m, root, found, page, page_node, nid)
        if found.dup is None:
            return None
        tree_page = get_ksm_page(m, found.dup, lock_it=True)
        if tree_page is not None:
            unlock_page(tree_page)
            if get_kpfn_nid(m, found.dup.kpfn) == found.dup.nid:
                return tree_page
            put_page(m, tree_page)
            return _replace_stable_node(m, root, found, page, page_node, nid)
        if page_node is None and not m.has("stable-tree-restart"):
            return None


def _if_candidate(m: Machine, page: Page, node: StableNode) -> Page | None:
    """The page, with a reference, where its node has room."""
    if not is_page_sharing_candidate(m, node):
        return None
    get_page(page)
    return page


def _place_page_node(
    m: Machine,
    root: RbRoot[StableNode],
    page: Page,
    page_node: StableNode | None,
    nid: int,
    place: Place,
) -> Page | None:
    """Nothing equal: the page's own node, if it has one, goes to that leaf."""
    if page_node is None:
        return None
    leave_migrate_nodes(m, page_node, nid)
    page_node.node = root.insert(page_node, place.parent, place.left)
    return _if_candidate(m, page, page_node)


def _chain_append(
    m: Machine, root: RbRoot[StableNode], found: Found, page: Page, page_node: StableNode, nid: int
) -> Page | None:
    """The page is mapped more than once, so it cannot be merged: its node becomes a dup."""
    chain: StableNode | None = found.node
    if found.node is found.any:
        chain = alloc_stable_node_chain(m, found.any, root)
    if chain is None:
        return None
    leave_migrate_nodes(m, page_node, nid)
    stable_node_chain_add_dup(m, page_node, chain)
    return _if_candidate(m, page, page_node)


def _replace_stable_node(
    m: Machine,
    root: RbRoot[StableNode],
    found: Found,
    page: Page,
    page_node: StableNode | None,
    nid: int,
) -> Page | None:
    """The node found has its page on another memory node: it makes way."""
    dup = found.dup
    assert dup is not None
    kept = None
    if page_node is None:
        stable_node_dup_del(m, dup)
    else:
        leave_migrate_nodes(m, page_node, nid)
        if dup is found.node:
            assert dup.node is not None
            page_node.node = root.replace(dup.node, page_node)
            dup.node = None
        else:
            stable_node_dup_del(m, dup)
            stable_node_chain_add_dup(m, page_node, found.node)
        kept = _if_candidate(m, page, page_node)
    move_to_migrate_nodes(m, dup)
    return kept


def stable_tree_insert(m: Machine, kpage: Page) -> StableNode | None:
    """A node for a new KSM page. None: no memory; and until 4.13 also when there is one of equal
    content, of which the new node becomes a dup from then on; and see :func:`_descend`."""
    m.counters["stable_tree_insert"] += 1
    nid = get_kpfn_nid(m, kpage.pfn)
    root = m.ksm.stable[nid]
    place = _descend(m, root, kpage)
    if place is None or (place.found is not None and not m.has("max-page-sharing")):
        return None
    node = alloc_stable_node(m, kpage.pfn, nid)
    if node is None:
        return None
    if place.found is None:
        node.node = root.insert(node, place.parent, place.left)
    else:
        chain: StableNode | None = place.found.node
        if not place.found.node.is_chain:
            chain = alloc_stable_node_chain(m, place.found.node, root)
        if chain is None:
            free_stable_node(m, node)
            return None
        stable_node_chain_add_dup(m, node, chain)
    set_page_stable_node(kpage, node)
    return node


def stable_tree_append(m: Machine, item: RmapItem, node: StableNode) -> None:
    item.head, item.head_address = node, node.address
    item.stable = True
    if node.hlist:
        m.ksm.pages_sharing += 1
    else:
        m.ksm.pages_shared += 1
    node.hlist[item] = None
    item.mm.ksm_merging_pages += 1


# --- rmap_items


def unstable_tree_search_insert(
    m: Machine, item: RmapItem, page: Page
) -> tuple[RmapItem, Page] | None:
    """An item whose page has the same content now, and that page; else insert this item."""
    m.counters["unstable_tree_search_insert"] += 1
    nid = get_kpfn_nid(m, page.pfn)
    root = m.ksm.unstable[nid]
    parent, left, at = None, False, root.rb_node
    while at is not None:
        tree_page = get_mergeable_page(m, at.item)
        if tree_page is None:
            return None
        if tree_page is page:
            put_page(m, tree_page)
            return None
        order = memcmp_pages(m, page, tree_page)
        if order == 0:
            if m.ksm.merge_across_nodes or tree_page.node == nid:
                return at.item, tree_page
            put_page(m, tree_page)
            return None
        put_page(m, tree_page)
        parent, left = at, order < 0
        at = at.left if left else at.right
    item.unstable = True
    item.seqnr = m.ksm.seqnr & 0xFF
    item.nid = nid
    item.head_address = -1  # its memory is the rb node's now
    item.node = root.insert(item, parent, left)
    m.ksm.pages_unshared += 1
    return None


def remove_rmap_item_from_tree(m: Machine, item: RmapItem) -> None:
    m.counters["remove_rmap_item_from_tree"] += 1
    if item.stable:
        node = item.head
        assert node is not None
        page = get_ksm_page(m, node, lock_it=True)
        if page is None:
            return  # the node's end took care of the item too
        del node.hlist[item]
        unlock_page(page)
        put_page(m, page)
        if node.hlist:
            m.ksm.pages_sharing -= 1
        else:
            m.ksm.pages_shared -= 1
        item.mm.ksm_merging_pages -= 1
        assert item.anon_vma is not None
        rmap.put_anon_vma(item.anon_vma)
        if m.has("ksm-rmap-by-index"):
            item.forget_index()
        if m.has("stable-head-cleared"):
            item.head_address = -1
        item.stable = False
    elif item.unstable:
        # The tree of an earlier scan is not there any more: only this scan's item is in one.
        if (m.ksm.seqnr - item.seqnr) & 0xFF == 0:
            assert item.node is not None
            m.ksm.unstable[item.nid].erase(item.node)
        item.node = None
        m.ksm.pages_unshared -= 1
        item.unstable = False


def remove_trailing_rmap_items(m: Machine, slot: MmSlot, position: int) -> None:
    """Free all of the slot's items from there on."""
    while len(slot.rmap_list) > position:
        item = slot.rmap_list[position]
        del slot.rmap_list[position]
        remove_rmap_item_from_tree(m, item)
        free_rmap_item(m, item)


def alloc_rmap_item(m: Machine, mm: Mm, address: int) -> RmapItem | None:
    if not kmem_alloc(m):
        return None
    m.ksm.rmap_items += 1
    mm.ksm_rmap_items += 1
    return RmapItem(mm, address)


def free_rmap_item(m: Machine, item: RmapItem) -> None:
    m.ksm.rmap_items -= 1
    item.mm.ksm_rmap_items -= 1
