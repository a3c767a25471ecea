"""mm/memcontrol.c: whether a page is charged to a memory cgroup, as far as it decides which pages
pressure on the cgroup can reach: all processes are in one.

A page is charged when it is mapped and uncharged when it has neither a mapping nor the swap cache.
What is not charged when it is put on the LRU goes to a list that is not scanned: pages that
MADV_WILLNEED read, and those that slip through (see commit_charge_swapin).
"""

from __future__ import annotations

from pyksm.oracle.structs import Machine, Page
from pyksm.oracle.swap import del_page_from_lru_list, lru_cache_add_lru


def newpage_charge(page: Page) -> None:
    page.charged = True


def try_charge_swapin(page: Page) -> bool:
    """Whether there is a charge to commit: a page in the swap cache may have kept its own."""
    return not page.charged


def commit_charge_swapin(m: Machine, page: Page, charge: bool) -> None:
    """Put the charge that was tried on the page, and the page on its users' LRU list.

    do_swap_page() may take the page out of the swap cache in between, unmapped as it still is,
    which uncharges it: then it is mapped and nobody's."""
    if not charge:
        return
    page.charged = True
    if page.lru:
        del_page_from_lru_list(m, page)
        lru_cache_add_lru(m, page, page.active)


def uncharge_page(m: Machine, page: Page) -> None:
    """The last mapping went. From 3.17 on only the page's end uncharges (0a31bc97c80c)."""
    if not m.has("uncharge-at-free") and not page.mapcount and not page.swapcache:
        page.charged = False


def uncharge_swapcache(m: Machine, page: Page) -> None:
    """The page left the swap cache. Which list it is on does not change until it is put back."""
    if not m.has("uncharge-at-free") and not page.mapcount:
        page.charged = False
