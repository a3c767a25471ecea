"""mm/swap.c: which pages are on the LRU lists, and where. A list's newest page is its last."""

from __future__ import annotations

from collections import OrderedDict

from pyksm.oracle.page_alloc import get_page, put_page
from pyksm.oracle.structs import Machine, Page


def pagevec_size(m: Machine) -> int:
    """How many pages a batch of the LRU holds before it is drained."""
    return 31 if m.has("lru-batch-31") else 15


def lru_list(m: Machine, page: Page) -> OrderedDict[Page, None]:
    node = m.nodes[page.node]
    if page.unevictable:
        return node.unevictable
    if not page.memcg:
        return node.root
    return node.active if page.active else node.inactive


def lru_cache_add_lru(m: Machine, page: Page, active: bool) -> None:
    """Onto the head of a list, at once. A page that is locked is none of those that are scanned;
    who has it off a list forgets its count."""
    page.lru, page.active, page.memcg = True, active, page.charged
    if page.mlocked:
        page.active = False
        page.unevictable, page.mlock_count = True, 0
    lru_list(m, page)[page] = None


def del_page_from_lru_list(m: Machine, page: Page) -> None:
    """Off its list; page.active still tells which one that was."""
    del lru_list(m, page)[page]
    page.lru = page.unevictable = False


def has_batches(m: Machine) -> bool:
    """Whether the per-CPU batches are modelled: from 4.8 on what is in them shows."""
    return m.has("swapin-activates") or m.has("keep-young-once")


def lru_cache_add(m: Machine, page: Page, active: bool) -> None:
    """The same for a page that comes from elsewhere than reclaim: with the next batch."""
    if not has_batches(m):
        lru_cache_add_lru(m, page, active)
        update_page_reclaim_stat(m, page, active)
        return
    page.active = active
    m.lru_add_batch.append(page)
    if len(m.lru_add_batch) == pagevec_size(m):
        _drain_added(m)


def _drain_added(m: Machine) -> None:
    for page in m.lru_add_batch:
        if page is not None:
            lru_cache_add_lru(m, page, page.active)
            update_page_reclaim_stat(m, page, page.active)
    m.lru_add_batch.clear()


def _drain_activated(m: Machine) -> None:
    for page in m.activate_batch:
        if page is not None and page.lru and not page.active and not page.unevictable:
            _activate(m, page)
    m.activate_batch.clear()


def lru_add_drain(m: Machine) -> None:
    _drain_added(m)
    _drain_activated(m)
    mlock_page_drain(m)


# --- mlock's batch: since 5.18 (2fbb0c10d1e8) with a reference for each entry


def mlock_batch_add(m: Machine, kind: str, page: Page) -> None:
    get_page(page)
    m.mlock_batch.append((kind, page))
    if len(m.mlock_batch) == pagevec_size(m):
        mlock_page_drain(m)


def mlock_page_drain(m: Machine) -> None:
    """Do what has been put off. Only then do the references go, and with them who has gone."""
    batch, m.mlock_batch = m.mlock_batch, []
    for kind, page in batch:
        _PUT_OFF[kind](m, page)
    for _, page in batch:
        put_page(m, page)


def _change_list(m: Machine, page: Page) -> None:
    active = page.active
    del_page_from_lru_list(m, page)
    lru_cache_add_lru(m, page, active)


def _mlock_page(m: Machine, page: Page) -> None:
    """One more mapping locks it. Who has it off the LRU has nothing to count on."""
    if not page.lru:
        return
    if page.mlocked != page.unevictable:
        _change_list(m, page)
    if page.mlocked:
        page.mlock_count += 1


def _mlock_new_page(m: Machine, page: Page) -> None:
    lru_cache_add_lru(m, page, active=False)
    if page.unevictable:
        page.mlock_count = 1


def _munlock_page(m: Machine, page: Page) -> None:
    """One less. If that was the last that is known of, it is not locked: see what reclaim says."""
    if page.unevictable and page.mlock_count:
        page.mlock_count -= 1
        if page.mlock_count:
            return
    m.nr_mlock -= page.mlocked
    page.mlocked = False
    if page.unevictable:
        _change_list(m, page)


_PUT_OFF = {"mlock": _mlock_page, "new": _mlock_new_page, "munlock": _munlock_page}


def leave_activate_batch(m: Machine, page: Page) -> None:
    """A page that is isolated leaves its place empty."""
    for i, other in enumerate(m.activate_batch):
        if other is page:
            m.activate_batch[i] = None


def update_page_reclaim_stat(m: Machine, page: Page, rotated: bool) -> None:
    if page.memcg and not page.unevictable:
        m.nodes[page.node].recent_scanned += 1
        m.nodes[page.node].recent_rotated += rotated


def _activate(m: Machine, page: Page) -> None:
    del lru_list(m, page)[page]
    page.active = True
    lru_list(m, page)[page] = None
    update_page_reclaim_stat(m, page, rotated=True)


def activate_page(m: Machine, page: Page) -> None:
    """Only of a page on the LRU, so not of one that is still in a batch."""
    if not page.lru or page.active or page.unevictable:
        return
    if not has_batches(m):
        _activate(m, page)
        return
    m.activate_batch.append(page)
    if len(m.activate_batch) == pagevec_size(m):
        _drain_activated(m)


def mark_page_accessed(m: Machine, page: Page) -> None:
    if page.unevictable:
        page.referenced = True
    elif not page.active and page.referenced and page.lru:
        activate_page(m, page)
        page.referenced = False
    elif not page.active and page.referenced and page in m.lru_add_batch:
        page.active = True  # __lru_cache_activate_page()
        page.referenced = False
    elif not page.active and page.referenced and ("new", page) in m.mlock_batch:
        page.referenced = False  # that function looks for it in the LRU's batch, in vain
    else:
        page.referenced = True


def rotate_reclaimable_page(m: Machine, page: Page) -> None:
    """To the oldest end of the inactive list, now that its write has ended."""
    if page.unevictable:
        return
    if not page.locked and not page.dirty and not page.active and page.lru:
        lru_list(m, page).move_to_end(page, last=False)


def isolate_lru_page(m: Machine, page: Page) -> bool:
    """Off the LRU with a reference (mm/vmscan.c)."""
    if not page.lru:
        return False
    get_page(page)
    del_page_from_lru_list(m, page)
    leave_activate_batch(m, page)
    return True


def putback_lru_page(m: Machine, page: Page) -> None:
    """Back to the head of the list it came from, and drop the isolation's reference."""
    lru_cache_add(m, page, page.active)
    put_page(m, page)
