"""The part of the census that is about KSM: counters, trees, items, what is left when unmerged."""

from __future__ import annotations

from collections.abc import Iterator

from pyksm.oracle.ksm import is_ksm_zero_pte
from pyksm.oracle.ksm_nodes import get_kpfn_nid, page_stable_node
from pyksm.oracle.ksm_tree import find_mergeable_vma
from pyksm.oracle.pgtable import RW, SPECIAL, get_pte, pte_pfn, pte_present, table_ranges
from pyksm.oracle.structs import PAGE_SHIFT, Machine, Mm, Page, RmapItem, StableNode, Vma


def census(m: Machine, mms: list[Mm]) -> Iterator[str]:
    """Lines "code: detail", as those of census.py; ``mms`` are all that have page tables."""
    items = [item for slot in m.ksm.mm_slots for item in slot.rmap_list]
    in_trees = [node for root in m.ksm.stable for node in root]
    chains = [node for node in in_trees if node.is_chain]
    dups = [dup for chain in chains for dup in chain.dups]
    plain = [node for node in in_trees if not node.is_chain]
    nodes = [*plain, *dups, *m.ksm.migrate_nodes]
    k = m.ksm
    for name, said, there in (
        ("shared", k.pages_shared, sum(1 for node in nodes if node.hlist)),
        ("sharing", k.pages_sharing, sum(len(node.hlist) - 1 for node in nodes if node.hlist)),
        ("unshared", k.pages_unshared, sum(1 for item in items if item.unstable)),
        ("rmap_items", k.rmap_items, len(items)),
        ("chains", k.stable_node_chains, len(chains)),
        ("dups", k.stable_node_dups, len(dups)),
    ):
        if said != there:
            yield f"ksm-counts: {name} says {said}, {there} are there"
    yield from _ksm_zero_pages(m, mms)
    yield from _ksm_nodes(m)
    yield from _ksm_items(m, items, nodes)
    yield from _ksm_writable(m, mms)
    yield from _ksm_unmerged(m, mms)


def _ksm_zero_pages(m: Machine, mms: list[Mm]) -> Iterator[str]:
    """Each process's own counts. The sum of all may be wrong, by what fork does until 4d6fc29f3634
    and by a fork that fails half way ever since."""
    own = {slot.mm: slot.rmap_list for slot in m.ksm.mm_slots}
    for mm in mms:
        items = own.get(mm, [])
        counted = (len(items), sum(item.stable for item in items))
        if m.has("ksm-counts-start-at-zero") and counted != (
            mm.ksm_rmap_items,
            mm.ksm_merging_pages,
        ):
            yield f"ksm-counts: mm {mm.pid} against its items"
        ptes = (pte for table in mm.tables.values() for pte in table)
        there = sum(pte_present(pte) and is_ksm_zero_pte(m, pte) for pte in ptes)
        if mm.ksm_zero_pages != there:
            yield f"ksm-counts: mm {mm.pid} says {mm.ksm_zero_pages} zero pages, {there} are there"


def _ksm_nodes(m: Machine) -> Iterator[str]:
    """A node that is not stale is where its page's content wants it; dups are of one content."""
    for nid, root in enumerate(m.ksm.stable):
        if nid >= m.ksm.nr_node_ids and any(True for _ in root):
            yield f"ksm-tree: node {nid} has a tree that is out of use"
        last: bytes | None = None
        for node in root:
            dups = node.dups if node.is_chain else [node]
            fresh = [dup for dup in dups if page_stable_node(m.pages[dup.kpfn]) is dup]
            for dup in fresh:
                data = m.pages[dup.kpfn].data
                misplaced = dup.migrating or dup.chain is not (node if node.is_chain else None)
                if dup.nid != nid or misplaced or (last is not None and last >= data):
                    yield f"ksm-tree: the node of frame {dup.kpfn} is out of order"
            contents = {m.pages[dup.kpfn].data for dup in fresh}
            if len(contents) > 1:
                yield f"ksm-tree: the dups of frame {fresh[0].kpfn} have several contents"
            last = max(contents, default=last)
    for node in m.ksm.migrate_nodes:
        if node.node is not None or node.chain is not None or not node.migrating:
            yield f"ksm-tree: the node of frame {node.kpfn} is on migrate_nodes and in a tree"


def _ksm_items(m: Machine, items: list[RmapItem], nodes: list[StableNode]) -> Iterator[str]:
    listed = {item: node for node in nodes for item in node.hlist}
    for item in items:
        node = listed.pop(item, None)
        if item.stable != (node is not None) or (node is not None and item.head is not node):
            yield f"ksm-rmap-item: {item.address:#x} of mm {item.mm.pid} against its node"
        if item.unstable != (item.node is not None) or (item.stable and item.unstable):
            yield f"ksm-rmap-item: {item.address:#x} of mm {item.mm.pid} against its flags"
    for item in listed:
        yield f"ksm-rmap-item: {item.address:#x} of mm {item.mm.pid} is on no mm_slot"
    for slot in m.ksm.mm_slots:
        addresses = [item.address for item in slot.rmap_list]
        if addresses != sorted(set(addresses)):
            yield f"ksm-rmap-item: the items of mm {slot.mm.pid} are out of order"


def misplaced(m: Machine) -> Iterator[str]:
    """For a strict census: what ksmd would have put right on its way."""
    for root in m.ksm.stable:
        for node in root:
            for dup in node.dups if node.is_chain else [node]:
                page = m.pages[dup.kpfn]
                if page_stable_node(page) is not dup or get_kpfn_nid(m, dup.kpfn) == dup.nid:
                    continue
                if any(_will_be_scanned(item, page) for item in dup.hlist):
                    yield f"ksm-misplaced: frame {dup.kpfn} is in the tree of node {dup.nid}"


def _will_be_scanned(item: RmapItem, page: Page) -> bool:
    if find_mergeable_vma(item.mm, item.address) is None:
        return False
    pte = get_pte(item.mm, item.address)
    return pte_present(pte) and pte_pfn(pte) == page.pfn


def _mapped(mm: Mm, vma: Vma) -> Iterator[int]:
    """The addresses of a vma that have a page table."""
    for _, low, high in table_ranges(mm, vma.start, vma.end):
        yield from range(low, high, 1 << PAGE_SHIFT)


def _ksm_writable(m: Machine, mms: list[Mm]) -> Iterator[str]:
    for mm in mms:
        for table in mm.tables.values():
            for pte in table:
                if pte_present(pte) and pte & RW and m.pages[pte_pfn(pte)].ksm:
                    yield f"ksm-writable: mm {mm.pid} may write to frame {pte_pfn(pte)}"


def _ksm_unmerged(m: Machine, mms: list[Mm]) -> Iterator[str]:
    if m.ksm.run != 2 or m.has("break-skips-prot-none"):
        return  # a page may have been PROT_NONE when unmerging did not see it
    for mm in mms:
        for vma in mm.vmas:
            if not vma.mergeable:
                continue
            for address in _mapped(mm, vma):
                pte = get_pte(mm, address)
                if pte_present(pte) and not pte & SPECIAL:
                    page = m.pages[pte_pfn(pte)]
                    # One that could not be read is mapped by swapoff as it is, copied by nobody.
                    if page.ksm and page.stable_node is None and page.uptodate:
                        yield f"ksm-unmerged: mm {mm.pid} maps frame {page.pfn} at {address:#x}"
