"""mm/mlock.c, and cull_mlocked in mm/vmscan.c: locked pages, as far as they disturb reclaim.

Processes of a recorded scenario are agents that lock their own memory. When one that was forked
forks again, the new agent breaks copy on write on ``Config.agent_pages`` of those pages, and
do_wp_page() takes the old page's mark away although the parent still has it locked. It is on the
LRU then, until reclaim comes by, gives it a slot, finds it locked and takes the slot back.
"""

from __future__ import annotations

from pyksm.oracle import swapfile
from pyksm.oracle.structs import Machine, Mm, Page
from pyksm.oracle.swap import del_page_from_lru_list, lru_cache_add

#: Pages that a new agent had on the active list before it locked them.
ACTIVE_BEFORE = 28


def agent_spawn(m: Machine) -> None:
    """What it had on the active list counts in the balance of reclaim (RULES.md)."""
    if m.config.agent_pages:
        m.nodes[0].recent_scanned += ACTIVE_BEFORE
        m.nodes[0].recent_rotated += ACTIVE_BEFORE


def agent_fork(m: Machine, mm: Mm, oldmm: Mm) -> None:
    mm.forked = True
    if not oldmm.forked or oldmm.agent_pages or m.has("mlock-count"):
        return
    for _ in range(m.config.agent_pages):
        page = Page(-1, 0, b"", count=1, uptodate=True, charged=True, agent=oldmm)
        lru_cache_add(m, page, active=False)
        oldmm.agent_pages.append(page)


def agent_exit(m: Machine, mm: Mm) -> None:
    for page in mm.agent_pages:
        del_page_from_lru_list(m, page)
    mm.agent_pages.clear()


def cull_mlocked(m: Machine, page: Page) -> bool:
    """False where there was no slot to try it with."""
    m.counters["add_to_swap"] += 1
    entry = swapfile.get_swap_page(m)
    if entry is None:
        return False
    for function in ("try_to_unmap", "try_to_free_swap", "delete_from_swap_cache"):
        m.counters[function] += 1
    swapfile.swapcache_free(m, entry)
    assert page.agent is not None
    page.agent.agent_pages.remove(page)
    return True
