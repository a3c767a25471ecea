"""mm/page_alloc.c: frames of the nodes, handed out last freed first, and page references."""

from __future__ import annotations

from pyksm.oracle.structs import Machine, Page, Vma, event, fails


def alloc_page(m: Machine, node: int, bound: bool = False) -> Page | None:
    """A frame of ``node``, else (unless bound) of the others in ascending order. One reference."""
    if fails(m, "page"):
        return None
    choice = [node] if bound else [node, *(n for n in range(len(m.nodes)) if n != node)]
    for nid in choice:
        if m.nodes[nid].free:
            return _hand_out(m, nid, m.nodes[nid].free.pop())
    return None


def _hand_out(m: Machine, nid: int, pfn: int) -> Page:
    m.counters["alloc_page"] += 1
    m.in_use += 1
    m.peak = max(m.peak, m.in_use)
    page = m.pages.get(pfn)
    if page is None:
        page = m.pages[pfn] = Page(pfn, nid, m.zero_page.data)
    page.data = m.zero_page.data
    page.count = 1
    return page


def alloc_page_vma(m: Machine, vma: Vma | None) -> Page | None:
    """A frame where the vma's policy wants it; no vma: node 0 preferred."""
    if vma is None or vma.node < 0:
        return alloc_page(m, 0)
    return alloc_page(m, vma.node, bound=True)


def get_page(page: Page) -> None:
    page.count += 1


def put_page(m: Machine, page: Page) -> None:
    """put_page(), page_cache_release(): the last reference frees the frame."""
    page.count -= 1
    if page.count == 0:
        free_page(m, page)


def free_page(m: Machine, page: Page) -> None:
    """The end of a page: off the LRU, its flags and mapping forgotten (free_pages_prepare())."""
    node = m.nodes[page.node]
    if page.mlocked:
        if not m.has("mlock-count"):
            event(m, "Bad page state mlocked")
        m.nr_mlock -= 1
    for lru in (node.active, node.inactive, node.root, node.unevictable):
        lru.pop(page, None)
    page.anon_vma = page.stable_node = page.private = None
    page.ksm = page.locked = page.uptodate = page.error = page.dirty = page.writeback = False
    page.swapcache = page.reclaim = page.referenced = page.exclusive = False
    page.workingset = page.mlocked = page.unevictable = False
    for batch in (m.lru_add_batch, m.activate_batch):  # its place there stays taken
        for i, other in enumerate(batch):
            if other is page:
                batch[i] = None
    page.lru = page.active = page.charged = page.memcg = False
    page.index = page.count = page.mapcount = 0
    m.counters["free_page"] += 1
    m.in_use -= 1
    node.free.push(page.pfn)


def copy_page(m: Machine, to: Page, source: Page) -> None:
    """copy_user_highpage(), copy_highpage()."""
    m.counters["copy_page"] += 1
    to.data = source.data


def pfn_to_page(m: Machine, pfn: int) -> Page:
    return m.pages[pfn]


def lock_page(page: Page) -> None:
    """Nobody else runs while a page lock is held, so there is never anyone to wait for."""
    assert not page.locked
    page.locked = True


def trylock_page(page: Page) -> bool:
    if page.locked:
        return False
    page.locked = True
    return True


def unlock_page(page: Page) -> None:
    assert page.locked
    page.locked = False
