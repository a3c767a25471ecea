"""mm/swap.c: which pages are on the LRU lists, and where. A list's newest page is its last."""

from __future__ import annotations

from collections import OrderedDict

from pyksm.oracle.page_alloc import get_page, put_page
from pyksm.oracle.structs import Machine, Page

PAGEVEC_SIZE = 15


def lru_list(m: Machine, page: Page) -> OrderedDict[Page, None]:
    node = m.nodes[page.node]
    if not page.memcg:
        return node.root
    return node.active if page.active else node.inactive


def lru_cache_add_lru(m: Machine, page: Page, active: bool) -> None:
    """Onto the head of a list, at once: per-CPU batches are not modelled."""
    page.lru, page.active, page.memcg = True, active, page.charged
    lru_list(m, page)[page] = None


def del_page_from_lru_list(m: Machine, page: Page) -> None:
    """Off its list; page.active still tells which one that was."""
    del lru_list(m, page)[page]
    page.lru = False


def lru_cache_add(m: Machine, page: Page, active: bool) -> None:
    """The same for a page that comes from elsewhere than reclaim, which keeps count of both.

    On a real kernel it waits in a per-CPU batch. Where a page waits shows in activate_page(), so
    the batches of those kernels are kept count of whose swap-ins activate."""
    lru_cache_add_lru(m, page, active)
    update_page_reclaim_stat(m, page, active)
    if m.has("swapin-activates"):
        m.lru_batch.append(page)
        if len(m.lru_batch) == PAGEVEC_SIZE:
            lru_add_drain(m)


def lru_add_drain(m: Machine) -> None:
    m.lru_batch.clear()


def update_page_reclaim_stat(m: Machine, page: Page, rotated: bool) -> None:
    if page.memcg:
        m.nodes[page.node].recent_scanned += 1
        m.nodes[page.node].recent_rotated += rotated


def activate_page(m: Machine, page: Page) -> None:
    if page.lru and not page.active:
        del lru_list(m, page)[page]
        page.active = True
        lru_list(m, page)[page] = None
        update_page_reclaim_stat(m, page, rotated=True)


def activate_swapped_in(m: Machine, page: Page) -> None:
    """activate_page() for a page that comes from swap: none that is still in a batch."""
    if page not in m.lru_batch:
        activate_page(m, page)


def mark_page_accessed(m: Machine, page: Page) -> None:
    if not page.active and page.referenced and page.lru:
        activate_page(m, page)
        page.referenced = False
    else:
        page.referenced = True


def rotate_reclaimable_page(m: Machine, page: Page) -> None:
    """To the oldest end of the inactive list, now that its write has ended."""
    if not page.locked and not page.dirty and not page.active and page.lru:
        lru_list(m, page).move_to_end(page, last=False)


def isolate_lru_page(m: Machine, page: Page) -> bool:
    """Off the LRU with a reference (mm/vmscan.c)."""
    if not page.lru:
        return False
    get_page(page)
    del_page_from_lru_list(m, page)
    return True


def putback_lru_page(m: Machine, page: Page) -> None:
    """Back to the head of the list it came from, and drop the isolation's reference."""
    lru_cache_add(m, page, page.active)
    put_page(m, page)
