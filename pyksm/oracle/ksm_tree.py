"""mm/ksm.c, the trees: stable nodes sorted by the content of their pages, unstable rmap_items.

A stable node holds no reference to its page. It looks whether the page's mapping still points
back to it (get_ksm_page), and where not, it goes away with all that hangs on it.
"""

from __future__ import annotations

from errno import EBUSY

from pyksm.oracle import memory, mmap, rmap
from pyksm.oracle.page_alloc import (
    get_page,
    lock_page,
    pfn_to_page,
    put_page,
    unlock_page,
)
from pyksm.oracle.rbtree import RbNode, RbRoot
from pyksm.oracle.structs import (
    Machine,
    Mm,
    MmSlot,
    Page,
    RmapItem,
    StableNode,
    Vma,
    event,
    kmem_alloc,
    schedule_point,
)


def memcmp_pages(m: Machine, one: Page, two: Page) -> int:
    m.counters["memcmp_pages"] += 1
    return (one.data > two.data) - (one.data < two.data)


def get_kpfn_nid(m: Machine, pfn: int) -> int:
    """Which tree a page belongs to."""
    return 0 if m.ksm.merge_across_nodes else pfn_to_page(m, pfn).node


def page_stable_node(page: Page) -> StableNode | None:
    return page.stable_node if page.ksm else None


def set_page_stable_node(page: Page, node: StableNode | None) -> None:
    """Make it a KSM page, which it stays for good."""
    page.ksm, page.anon_vma, page.stable_node = True, None, node


def slab_alloc(m: Machine) -> int:
    """Memory for a stable_node or an mm_slot: both have 48 bytes, so they share a slab cache, which
    hands out first what was freed last. It shows, for a rmap_item may still have the address of
    its old node in ``head`` when a new node comes to lie there."""
    if m.ksm.slab_free:
        return m.ksm.slab_free.pop()
    m.ksm.slab_made += 1
    return m.ksm.slab_made


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


# --- stable nodes


def get_ksm_page(m: Machine, node: StableNode, lock_it: bool) -> Page | None:
    """The node's page with a reference; where it is gone, so is the node, and None comes back."""
    page = pfn_to_page(m, node.kpfn)
    if page_stable_node(page) is not node:
        remove_node_from_stable_tree(m, node)
        return None
    get_page(page)
    if lock_it:
        lock_page(page)
    return page


def erase_stable_node(m: Machine, node: StableNode) -> None:
    """rb_erase() of a node that is in its tree."""
    assert node.node is not None
    m.ksm.stable[node.nid].erase(node.node)
    node.node = None


def move_to_migrate_nodes(m: Machine, node: StableNode) -> None:
    m.ksm.migrate_nodes.insert(0, node)


def remove_node_from_stable_tree(m: Machine, node: StableNode) -> None:
    """Let go of its rmap_items, which know nothing of it until they are visited."""
    last = next(iter(node.hlist), None)
    for item in reversed(node.hlist):
        if item is last:
            m.ksm.pages_shared -= 1
        else:
            m.ksm.pages_sharing -= 1
        assert item.anon_vma is not None
        rmap.put_anon_vma(item.anon_vma)
        item.stable = False
    if node.node is None:
        m.ksm.migrate_nodes.remove(node)
    else:
        erase_stable_node(m, node)
    m.ksm.slab_free.append(node.address)


def remove_stable_node(m: Machine, node: StableNode) -> int:
    """Detach the node from its page, if nobody maps that any more."""
    page = get_ksm_page(m, node, lock_it=True)
    if page is None:
        return 0
    err = 0
    if page.mapcount:
        event(m, "WARN_ON_ONCE remove_stable_node page_mapped")
        err = -EBUSY
    else:
        set_page_stable_node(page, None)
        remove_node_from_stable_tree(m, node)
    unlock_page(page)
    put_page(m, page)
    return err


def remove_all_stable_nodes(m: Machine) -> int:
    schedule_point(m, "remove_all_stable_nodes:begin")
    err = 0
    for root in m.ksm.stable[: m.ksm.nr_node_ids]:
        while root.rb_node is not None:
            if remove_stable_node(m, root.rb_node.item):
                err = -EBUSY
                break
    for node in list(m.ksm.migrate_nodes):
        if remove_stable_node(m, node):
            err = -EBUSY
    return err


def _descend(
    m: Machine, root: RbRoot[StableNode], page: Page
) -> tuple[bool, RbNode[StableNode] | None, RbNode[StableNode] | None, bool]:
    """(nothing stale met, node of equal content, else the parent and side of a leaf)"""
    parent, left, at = None, False, root.rb_node
    while at is not None:
        tree_page = get_ksm_page(m, at.item, lock_it=False)
        if tree_page is None:
            return False, None, None, False
        order = memcmp_pages(m, page, tree_page)
        put_page(m, tree_page)
        if order == 0:
            return True, at, None, False
        parent, left = at, order < 0
        at = at.left if left else at.right
    return True, None, parent, left


def stable_tree_search(m: Machine, page: Page) -> Page | None:
    """A KSM page of the same content, with a reference; the page itself when it is one in place.

    A page whose node waits on migrate_nodes gets its node into the tree of the node it is on."""
    m.counters["stable_tree_search"] += 1
    page_node = page_stable_node(page)
    if page_node is not None and page_node.node is not None:
        get_page(page)
        return page
    nid = get_kpfn_nid(m, page.pfn)
    root = m.ksm.stable[nid]
    while True:
        fresh, equal, parent, left = _descend(m, root, page)
        if not fresh:
            return None
        if equal is None:
            break
        tree_page = get_ksm_page(m, equal.item, lock_it=True)
        if tree_page is not None:
            unlock_page(tree_page)
            if get_kpfn_nid(m, equal.item.kpfn) != equal.item.nid:
                put_page(m, tree_page)
                return _replace_stable_node(m, root, equal.item, page, page_node, nid)
            return tree_page
        if page_node is None:
            return None
    if page_node is None:
        return None
    m.ksm.migrate_nodes.remove(page_node)
    page_node.nid = nid
    page_node.node = root.insert(page_node, parent, left)
    get_page(page)
    return page


def _replace_stable_node(
    m: Machine,
    root: RbRoot[StableNode],
    found: StableNode,
    page: Page,
    page_node: StableNode | None,
    nid: int,
) -> Page | None:
    """The node found has its page on another memory node: it makes way."""
    assert found.node is not None
    if page_node is not None:
        m.ksm.migrate_nodes.remove(page_node)
        page_node.nid = nid
        page_node.node = root.replace(found.node, page_node)
        get_page(page)
    else:
        root.erase(found.node)
    found.node = None
    move_to_migrate_nodes(m, found)
    return page if page_node is not None else None


def stable_tree_insert(m: Machine, kpage: Page) -> StableNode | None:
    """A node for a new KSM page; None when there is an equal one or a stale one in the way."""
    m.counters["stable_tree_insert"] += 1
    nid = get_kpfn_nid(m, kpage.pfn)
    root = m.ksm.stable[nid]
    fresh, equal, parent, left = _descend(m, root, kpage)
    if not fresh or equal is not None or not kmem_alloc(m):
        return None
    node = StableNode(slab_alloc(m), kpage.pfn, nid)
    set_page_stable_node(kpage, node)
    node.node = root.insert(node, parent, left)
    return node


def stable_tree_append(m: Machine, item: RmapItem, node: StableNode) -> None:
    item.head, item.head_address = node, node.address
    item.stable = True
    if node.hlist:
        m.ksm.pages_sharing += 1
    else:
        m.ksm.pages_shared += 1
    node.hlist[item] = None


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
        assert item.anon_vma is not None
        rmap.put_anon_vma(item.anon_vma)
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
        m.ksm.rmap_items -= 1
