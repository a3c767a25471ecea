"""mm/rmap.c: anon_vmas, and finding the ptes that map an anonymous page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EFAULT, ENOMEM

from pyksm.oracle import interval_tree, ksm_rmap, memcontrol, mlock, mmap, swapfile
from pyksm.oracle.page_alloc import put_page
from pyksm.oracle.pgtable import (
    ACCESSED,
    DIRTY,
    RW,
    SOFT_DIRTY,
    get_pte,
    pte_pfn,
    pte_present,
    set_pte,
    swp_entry_to_pte,
    swp_exclusive,
    swp_soft_dirty,
)
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    AnonVma,
    AnonVmaChain,
    Machine,
    Page,
    SwapEntry,
    Vma,
    event,
    kmem_alloc,
    linear_page_index,
)
from pyksm.oracle.swap import lru_cache_add

SWAP_SUCCESS, SWAP_AGAIN, SWAP_FAIL, SWAP_MLOCK = 0, 1, 2, 3

#: Migration ignores the accessed bit and locks; munlock only looks for locks.
TTU_UNMAP, TTU_MIGRATION, TTU_MUNLOCK = 0, 1, 2

GUP_PIN_COUNTING_BIAS = 1 << 10

SWP_MIG_YOUNG, SWP_MIG_DIRTY = 1 << 40, 1 << 41  #: in the offset of a migration entry

RmapOne = Callable[[Page, Vma, int], int]


# --- life of an anon_vma


def get_anon_vma(anon_vma: AnonVma) -> None:
    anon_vma.refcount += 1


def put_anon_vma(anon_vma: AnonVma) -> None:
    """The last reference frees it, and with it its hold on the root."""
    anon_vma.refcount -= 1
    if anon_vma.refcount == 0 and anon_vma.root is not anon_vma:
        put_anon_vma(anon_vma.root)


def anon_vma_chain_link(vma: Vma, anon_vma: AnonVma) -> None:
    avc = AnonVmaChain(vma, anon_vma)
    vma.chain.insert(0, avc)
    interval_tree.insert(avc)


def anon_vma_prepare(m: Machine, vma: Vma) -> int:
    """Give the vma an anon_vma: a neighbour's where that can be shared, else a new one."""
    m.counters["anon_vma_prepare"] += 1
    if vma.anon_vma is not None:
        return 0
    if not kmem_alloc(m):  # the avc
        return -ENOMEM
    anon_vma = mmap.find_mergeable_anon_vma(vma)
    if anon_vma is None:
        if not kmem_alloc(m):
            return -ENOMEM
        anon_vma = AnonVma(num_children=1)
    vma.anon_vma = anon_vma
    vma.written = True
    anon_vma.num_active_vmas += 1
    anon_vma_chain_link(vma, anon_vma)
    return 0


def anon_vma_clone(m: Machine, dst: Vma, src: Vma) -> int:
    """Chain dst to all that src is chained to, oldest first so that the order stays.

    A dst without an anon_vma (fork's) takes an idle one of these, if there is one."""
    m.counters["anon_vma_clone"] += 1
    for pavc in reversed(src.chain):
        if not kmem_alloc(m) and not kmem_alloc(m):  # GFP_NOWAIT, then GFP_KERNEL
            dst.anon_vma = None
            unlink_anon_vmas(m, dst)
            return -ENOMEM
        anon_vma_chain_link(dst, pavc.anon_vma)
        if dst.anon_vma is None and _is_idle(m, pavc.anon_vma, src):
            dst.anon_vma = pavc.anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.num_active_vmas += 1
    return 0


def _is_idle(m: Machine, anon_vma: AnonVma, src: Vma) -> bool:
    """May a child have it: nobody's pages and at most one child's are in it. Never a root."""
    if m.has("anon-vma-active-vmas"):
        return anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0
    degree = anon_vma.num_children + anon_vma.num_active_vmas
    return m.has("anon-vma-reuse") and anon_vma is not src.anon_vma and degree < 2


def anon_vma_fork(m: Machine, vma: Vma, pvma: Vma) -> int:
    """The child's vma, without one so far: all of the parent's anon_vmas, and for new pages one of
    its own or an idle ancestor's."""
    m.counters["anon_vma_fork"] += 1
    if pvma.anon_vma is None:
        return 0
    if anon_vma_clone(m, vma, pvma):
        return -ENOMEM
    if vma.anon_vma is not None:
        return 0
    if not kmem_alloc(m) or not kmem_alloc(m):  # anon_vma, avc
        unlink_anon_vmas(m, vma)
        return -ENOMEM
    anon_vma = AnonVma(num_active_vmas=1)
    anon_vma.root, anon_vma.parent = pvma.anon_vma.root, pvma.anon_vma
    anon_vma.parent.num_children += 1
    get_anon_vma(anon_vma.root)
    vma.anon_vma = anon_vma
    anon_vma_chain_link(vma, anon_vma)
    return 0


def unlink_anon_vmas(m: Machine, vma: Vma) -> None:
    """Leave all trees first, then let go of the anon_vmas whose trees became empty."""
    m.counters["unlink_anon_vmas"] += 1
    for avc in vma.chain:
        interval_tree.remove(avc)
        if not avc.anon_vma.tree:
            avc.anon_vma.parent.num_children -= 1
    if vma.anon_vma is not None:
        vma.anon_vma.num_active_vmas -= 1
    for avc in vma.chain:
        if not avc.anon_vma.tree:
            put_anon_vma(avc.anon_vma)
    vma.chain.clear()


# --- adding and removing a mapping


def page_move_anon_rmap(m: Machine, page: Page, vma: Vma) -> None:
    """A page that only this process has belongs to its own anon_vma; the index stays."""
    page.anon_vma = vma.anon_vma
    page.exclusive = m.has("anon-exclusive")


def __page_set_anon_rmap(page: Page, vma: Vma, address: int, exclusive: bool) -> None:
    """First mapping: owner and index, unless the page still has an owner from before."""
    assert vma.anon_vma is not None
    if page.anon:
        return
    page.anon_vma = vma.anon_vma if exclusive else vma.anon_vma.root
    page.index = linear_page_index(vma, address)


def __page_check_anon_rmap(m: Machine, page: Page, vma: Vma, address: int) -> None:
    """What CONFIG_DEBUG_VM would stop at; here it is reported and things go on."""
    owner, anon_vma = page.anon_vma, vma.anon_vma
    if owner is None or anon_vma is None or owner.root is not anon_vma.root:
        event(m, "BUG_ON __page_check_anon_rmap root")
    if page.index != linear_page_index(vma, address):
        event(m, "BUG_ON __page_check_anon_rmap index")


def page_add_anon_rmap(m: Machine, page: Page, vma: Vma, address: int) -> None:
    do_page_add_anon_rmap(m, page, vma, address, exclusive=False)


def do_page_add_anon_rmap(m: Machine, page: Page, vma: Vma, address: int, exclusive: bool) -> None:
    page.mapcount += 1
    if vma.locked and (page.anon or not m.has("swapin-misses-mlock")):
        mlock.rmap_mlock(m, page)
    if page.ksm:
        return
    if exclusive:
        page.exclusive = m.has("anon-exclusive")
    if page.mapcount == 1:
        __page_set_anon_rmap(page, vma, address, exclusive)
    else:
        __page_check_anon_rmap(m, page, vma, address)


def page_add_new_anon_rmap(m: Machine, page: Page, vma: Vma, address: int) -> None:
    """A page that is nobody's yet; with it onto the LRU, which later kernels do beside it."""
    page.mapcount = 1
    page.exclusive = m.has("anon-exclusive")
    memcontrol.newpage_charge(page)
    __page_set_anon_rmap(page, vma, address, exclusive=True)
    if vma.locked:
        mlock.mlock_new_page(m, page)
        return
    lru_cache_add(m, page, active=not m.has("keep-young-once"))


def page_dup_rmap(page: Page) -> None:
    """For a child: from now on the page is not known to be one process's."""
    page.mapcount += 1
    page.exclusive = False


def page_maybe_dma_pinned(page: Page) -> bool:
    """Pins count 1024 references each; whoever has as many plain ones (pin() takes such) is taken
    for pinned."""
    return page.count >= GUP_PIN_COUNTING_BIAS


def page_try_share_anon_rmap(page: Page) -> bool:
    """Before an exclusive page loses its pte, or its writability to KSM: not any more, unless
    somebody may have it pinned."""
    if page_maybe_dma_pinned(page):
        return False
    page.exclusive = False
    return True


def page_remove_rmap(m: Machine, page: Page, vma: Vma) -> None:
    """The owner stays known after the last mapping: swapoff and swap-in look at it."""
    page.mapcount -= 1
    memcontrol.uncharge_page(m, page)
    if page.mlocked or vma.locked:
        mlock.rmap_munlock(m, page, vma)


# --- from a page to an address


def page_address_in_vma(m: Machine, page: Page, vma: Vma) -> int:
    """Where the vma would map the page, or -EFAULT; never for a KSM page."""
    m.counters["page_address_in_vma"] += 1
    if vma.anon_vma is None or page.anon_vma is None or page.anon_vma.root is not vma.anon_vma.root:
        return -EFAULT
    address = vma_address(page, vma)
    if not vma.start <= address < vma.end:
        return -EFAULT
    return address


def vma_address(page: Page, vma: Vma) -> int:
    return vma.start + ((page.index - vma.pgoff) << PAGE_SHIFT)


def page_check_address(page: Page, vma: Vma, address: int) -> int | None:
    """The pte at address when it maps the page."""
    pte = get_pte(vma.mm, address)
    return pte if pte_present(pte) and pte_pfn(pte) == page.pfn else None


def page_lock_anon_vma_read(page: Page) -> AnonVma | None:
    """The owner, which is only sure to exist while the page is mapped."""
    return page.anon_vma if page.mapcount else None


# --- page_referenced


@dataclass(slots=True)
class Referenced:
    """page_referenced_arg: what a walk has seen, and how many ptes are still to come."""

    mapcount: int
    young: int = 0
    vm_locked: bool = False


def page_referenced(m: Machine, page: Page) -> tuple[int, bool]:
    """How many ptes of the page were young; they no longer are. A KSM page without node: none.
    And whether a locked vma was met, which ends the walk."""
    if not page.mapcount or (page.ksm and page.stable_node is None):
        return 0, False
    seen = Referenced(page.mapcount)
    if page.ksm:
        ksm_rmap.page_referenced_ksm(m, page, seen)
    elif page_lock_anon_vma_read(page) is not None:

        def look(page: Page, vma: Vma, address: int) -> int:
            page_referenced_one(m, page, vma, address, seen)
            return SWAP_AGAIN if seen.mapcount else SWAP_SUCCESS

        rmap_walk(m, page, look)
    return seen.young, seen.vm_locked


def page_referenced_one(m: Machine, page: Page, vma: Vma, address: int, seen: Referenced) -> None:
    """Where the page is mapped: one to come the less. A lock that was missed is noted (5.18)."""
    m.counters["page_referenced_one"] += 1
    pte = page_check_address(page, vma, address)
    if pte is None:
        return
    if vma.locked:
        mlock.rmap_mlock(m, page)
        seen.mapcount, seen.vm_locked = 0, True
        return
    seen.young += ptep_clear_flush_young(vma, address, pte)
    seen.mapcount -= 1


def ptep_clear_flush_young(vma: Vma, address: int, pte: int) -> bool:
    set_pte(vma.mm, address, pte & ~ACCESSED)
    return bool(pte & ACCESSED)


# --- try_to_unmap


def try_to_unmap(m: Machine, page: Page, action: int) -> int:
    """try_to_migrate() too, which became a function of its own."""
    m.counters["try_to_unmap"] += 1
    if page.ksm:
        ret = ksm_rmap.try_to_unmap_ksm(m, page, action)
    elif not page.ksm and page_lock_anon_vma_read(page) is None:
        ret = SWAP_AGAIN
    else:
        ret = _unmap_walk(m, page, action)
    return ret if page.mapcount else SWAP_SUCCESS


def _unmap_walk(m: Machine, page: Page, action: int) -> int:
    ret = SWAP_AGAIN

    def unmap_one(page: Page, vma: Vma, address: int) -> int:
        nonlocal ret
        ret = try_to_unmap_one(m, page, vma, address, action)
        return ret if page.mapcount else SWAP_SUCCESS

    rmap_walk(m, page, unmap_one)
    return ret


def try_to_unmap_one(m: Machine, page: Page, vma: Vma, address: int, action: int) -> int:
    """Replace one pte by a swap or a migration entry."""
    m.counters["try_to_unmap_one"] += 1
    pte = page_check_address(page, vma, address)
    if pte is None:
        return SWAP_AGAIN
    if vma.locked and action != TTU_MIGRATION:
        return _unmap_locked(m, page, vma)
    if action == TTU_MUNLOCK:
        return SWAP_AGAIN
    if action == TTU_UNMAP and _unmap_is_refused(m, vma, address, pte):
        return SWAP_FAIL
    if pte & DIRTY:
        page.dirty = True
    to_swap = page.swapcache and (action == TTU_UNMAP or not m.has("migrate-swapcache-entries"))
    new_pte = _swap_pte(m, vma, page) if to_swap else _migration_pte(m, page, pte)
    if new_pte is None:
        return SWAP_FAIL  # the pte was never taken out here, so it need not be put back
    if pte & SOFT_DIRTY:
        new_pte |= swp_soft_dirty(m)
    set_pte(vma.mm, address, new_pte)
    charged = page.charged
    page_remove_rmap(m, page, vma)
    if action == TTU_MIGRATION:
        page.charged = charged  # it is not gone, only on its way
        mlock.migrated_mlock(m, vma)
    put_page(m, page)
    return SWAP_AGAIN


def _unmap_locked(m: Machine, page: Page, vma: Vma) -> int:
    """A lock that was missed: now the page is marked. Before 4.4 (b87537d9e2fe) that took mmap_sem,
    which whoever is munlocking has."""
    if m.has("mlock-count"):
        mlock.rmap_mlock(m, page)
    elif m.has("mlock-under-pte-lock") or not vma.mm.writer:
        mlock.mlock_vma_page(m, page)
    else:
        return SWAP_AGAIN
    return SWAP_MLOCK


def try_to_munlock(m: Machine, page: Page) -> None:
    """Mark the page again if another locked vma maps it."""
    if page.ksm:
        ksm_rmap.try_to_unmap_ksm(m, page, TTU_MUNLOCK)
    elif page_lock_anon_vma_read(page) is not None:
        _unmap_walk(m, page, TTU_MUNLOCK)


def _unmap_is_refused(m: Machine, vma: Vma, address: int, pte: int) -> bool:
    """Used since it was looked at; later kernels look in page_referenced() alone."""
    return not m.has("unmap-ignores-young") and ptep_clear_flush_young(vma, address, pte)


def _swap_pte(m: Machine, vma: Vma, page: Page) -> int | None:
    assert page.private is not None
    entry: SwapEntry = page.private
    if swapfile.swap_duplicate(m, entry) < 0:
        return None
    exclusive = page.exclusive
    if exclusive and not page_try_share_anon_rmap(page):
        swapfile.swap_free(m, entry)
        return None
    if vma.mm not in m.mmlist:
        m.mmlist.insert(1, vma.mm)
    vma.mm.anonpages -= 1
    vma.mm.swapents += 1
    return swp_entry_to_pte(m, entry) | (swp_exclusive(m) if exclusive else 0)


def _migration_pte(m: Machine, page: Page, pte: int) -> int | None:
    """Whether the pte was young and dirty is in high bits of the offset (2e3468778dbe)."""
    exclusive = page.exclusive
    if exclusive and not page_try_share_anon_rmap(page):
        return None
    kind = "migration-read"
    if pte & RW:
        kind = "migration-write"
    elif exclusive:
        kind = "migration-read-exclusive"
    offset = page.pfn
    if m.has("migration-keeps-young"):
        offset |= (SWP_MIG_YOUNG if pte & ACCESSED else 0) | (SWP_MIG_DIRTY if pte & DIRTY else 0)
    return swp_entry_to_pte(m, (m.swp_types[kind], offset))


# --- rmap_walk


def rmap_walk(m: Machine, page: Page, rmap_one: RmapOne) -> None:
    if page.ksm:
        ksm_rmap.rmap_walk_ksm(m, page, rmap_one)
    elif page.anon_vma is not None:
        for avc in interval_tree.foreach(m, page.anon_vma, page.index, page.index):
            if rmap_one(page, avc.vma, vma_address(page, avc.vma)) != SWAP_AGAIN:
                break


def count_rmap(m: Machine, page: Page) -> int:
    """How often a walk comes upon a pte that maps the page."""
    found = 0

    def look(page: Page, vma: Vma, address: int) -> int:
        nonlocal found
        if page_check_address(page, vma, address) is not None:
            found += 1
        return SWAP_AGAIN

    rmap_walk(m, page, look)
    return found
