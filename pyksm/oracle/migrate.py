"""mm/migrate.c: moving pages to another memory node, as move_pages(2) with MPOL_MF_MOVE_ALL."""

from __future__ import annotations

from dataclasses import dataclass
from errno import EAGAIN, EBUSY, EFAULT, ENODEV, ENOENT, ENOMEM

from pyksm.oracle import ksm_nodes, memory, mlock, mmap, page_io, rmap
from pyksm.oracle.page_alloc import (
    alloc_page,
    copy_page,
    get_page,
    lock_page,
    put_page,
    unlock_page,
)
from pyksm.oracle.pgtable import (
    ACCESSED,
    DIRTY,
    RW,
    SOFT_DIRTY,
    get_pte,
    mk_pte,
    pte_present,
    pte_to_swp_entry,
    set_pte,
    swp_soft_dirty_of,
    vm_page_prot,
)
from pyksm.oracle.structs import PAGE_SIZE, Machine, Mm, Page, Vma
from pyksm.oracle.swap import isolate_lru_page, lru_add_drain, lru_cache_add, putback_lru_page

#: page_to_node records that fit one kernel page, the end marker not counted.
CHUNK = 4096 // 24 - 1


@dataclass(eq=False, slots=True)
class PageToNode:
    """One address of a call, with the answer for it."""

    address: int
    page: Page | None = None
    status: int = 0


def do_pages_move(m: Machine, mm: Mm, start: int, npages: int, node: int) -> tuple[int, list[int]]:
    """0 or -errno for the whole call, and a node or -errno for each page."""
    if not 0 <= node < len(m.nodes):
        return -ENODEV, []
    lru_add_drain(m)  # migrate_prep()
    if m.has("move-pages-runs"):
        return _move_runs(m, mm, [start + i * PAGE_SIZE for i in range(npages)], node)
    status: list[int] = []
    for at in range(0, npages, CHUNK):
        chunk = [PageToNode(start + i * PAGE_SIZE) for i in range(at, min(at + CHUNK, npages))]
        if do_move_page_to_node_array(m, mm, chunk, node):
            return -ENOMEM, []
        status += [record.status for record in chunk]
    return 0, status


def _move_runs(m: Machine, mm: Mm, addresses: list[int], node: int) -> tuple[int, list[int]]:
    """Whatever interrupts a run of isolated pages has it moved (since a49bd4d71637)."""
    status = [-ENOENT] * len(addresses)
    run: list[PageToNode] = []
    pagelist: list[Page] = []
    for i, address in enumerate(addresses):
        record = PageToNode(address)
        queued = len(pagelist)
        record.status = _isolate(m, mm, record, node, pagelist)
        if len(pagelist) > queued or (
            record.status == node and not m.has("move-pages-node-ends-run")
        ):
            run.append(record)
            continue
        status[i] = record.status
        err = _move_run(m, run, pagelist, node)
        if err:
            return (err, []) if err < 0 else (0, status)
        status[i - len(run) : i] = [node] * len(run)
        run, pagelist = [], []
    err = _move_run(m, run, pagelist, node)
    if err < 0:
        return err, []
    if not err:
        status[len(status) - len(run) :] = [node] * len(run)
    return 0, status


def _move_run(m: Machine, run: list[PageToNode], pagelist: list[Page], node: int) -> int:
    """How many pages did not move, or -ENOMEM. They go back on the LRU."""
    err = migrate_pages(m, pagelist, run, node)
    for page in pagelist:
        putback_lru_page(m, page)
    return err or len(pagelist)


def do_move_page_to_node_array(m: Machine, mm: Mm, chunk: list[PageToNode], node: int) -> int:
    """Isolate all pages of the chunk, then migrate them. -ENOMEM: the target node is full."""
    pagelist: list[Page] = []
    for record in chunk:
        record.status = _isolate(m, mm, record, node, pagelist)
    err = migrate_pages(m, pagelist, chunk, node)
    for page in pagelist:
        putback_lru_page(m, page)
    return err


def _isolate(m: Machine, mm: Mm, record: PageToNode, node: int, pagelist: list[Page]) -> int:
    vma = mmap.vma_at(mm, record.address)
    if vma is None:
        return -EFAULT
    page = memory.follow_page(m, vma, record.address)
    if page is None:
        return -ENOENT
    err = -ENOENT
    if page is not m.zero_page:
        record.page = page
        err = page.node
        if err != node:
            err = 0 if isolate_lru_page(m, page) else -EBUSY
            if not err:
                pagelist.append(page)
    put_page(m, page)
    return err


def migrate_pages(m: Machine, pagelist: list[Page], chunk: list[PageToNode], node: int) -> int:
    """Up to ten passes over what is left. Pages done with are taken off the list."""
    for attempt in range(10):
        retry = False
        for page in list(pagelist):
            rc = unmap_and_move(m, page, pagelist, chunk, node, force=attempt > 2)
            if rc == -ENOMEM:
                return rc
            if rc == -EAGAIN:
                retry = True
            elif rc == 0:
                m.vmstat["pgmigrate_success"] += 1
        if not retry:
            break
    return 0


def unmap_and_move(
    m: Machine, page: Page, pagelist: list[Page], chunk: list[PageToNode], node: int, force: bool
) -> int:
    m.counters["migrate_page"] += 1
    newpage = alloc_page(m, node, bound=True)
    if newpage is None:
        return -ENOMEM
    record = next(record for record in chunk if record.page is page)
    rc, listed = 0, False
    if page.count > 1:  # else it was freed, but for the isolation's reference
        rc = __unmap_and_move(m, page, newpage, force)
        listed = rc == 0 and m.has("mlock-count")
    if rc != -EAGAIN:
        pagelist.remove(page)
        putback_lru_page(m, page)
    if listed:
        put_page(m, newpage)
    else:
        putback_lru_page(m, newpage)
    record.status = rc if rc else newpage.node
    return rc


def __unmap_and_move(m: Machine, page: Page, newpage: Page, force: bool) -> int:
    lock_page(page)
    rc = -EAGAIN
    if page.writeback and force:
        page_io.wait_on_page_writeback(m, page)
    if not page.writeback:
        rc = _unmap_and_move_locked(m, page, newpage)
    unlock_page(page)
    return rc


def _unmap_and_move_locked(m: Machine, page: Page, newpage: Page) -> int:
    rc = -EAGAIN
    remap_swapcache = True
    anon_vma = None
    if page.anon and not page.ksm:
        anon_vma = page.anon_vma if page.mapcount else None
        if anon_vma is not None:
            rmap.get_anon_vma(anon_vma)
        elif page.swapcache:
            remap_swapcache = False
        else:
            return rc
    mapped = page.mapcount > 0
    if page.ksm or page.anon_vma is not None:
        rmap.try_to_unmap(m, page, rmap.TTU_MIGRATION)
    if not page.mapcount:
        rc = move_to_new_page(m, newpage, page, remap_swapcache, mapped)
    if rc and remap_swapcache:
        remove_migration_ptes(m, page, page)
    if anon_vma is not None:
        rmap.put_anon_vma(anon_vma)
    return rc


def move_to_new_page(
    m: Machine, newpage: Page, page: Page, remap_swapcache: bool, mapped: bool
) -> int:
    """The page is locked and unmapped: newpage takes everything over."""
    lock_page(newpage)
    newpage.index = page.index
    newpage.anon_vma, newpage.ksm, newpage.stable_node = page.anon_vma, page.ksm, page.stable_node
    rc = migrate_page_move_mapping(m, newpage, page)
    if rc == 0:
        migrate_page_copy(m, newpage, page)
        if m.has("mlock-count"):  # on the LRU first, where its locks are counted (c3096e6782b7)
            lru_cache_add(m, newpage, newpage.active)
            if mapped:
                lru_add_drain(m)
        if remap_swapcache:
            remove_migration_ptes(m, page, newpage)
        page.anon_vma, page.ksm, page.stable_node = None, False, None
    else:
        newpage.anon_vma, newpage.ksm, newpage.stable_node = None, False, None
    unlock_page(newpage)
    return rc


def migrate_page_move_mapping(m: Machine, newpage: Page, page: Page) -> int:
    """Put newpage into the swap cache in the page's place. Any unexpected reference forbids."""
    if not page.swapcache:
        return 0 if page.count == 1 else -EAGAIN
    if page.count != 2:
        return -EAGAIN
    assert page.private is not None
    get_page(newpage)
    newpage.swapcache = True
    newpage.private = page.private
    m.swap_cache[page.private] = newpage
    page.count -= 1
    return 0


def migrate_page_copy(m: Machine, newpage: Page, page: Page) -> None:
    copy_page(m, newpage, page)
    newpage.error |= page.error
    newpage.referenced |= page.referenced
    newpage.uptodate |= page.uptodate
    newpage.active, page.active = page.active, False
    newpage.charged, page.charged = page.charged, False
    if page.dirty:
        page.dirty = False
        newpage.dirty = True
    ksm_migrate_page(m, newpage, page)
    page.swapcache = False
    page.private = None


def ksm_migrate_page(m: Machine, newpage: Page, oldpage: Page) -> None:
    """mm/ksm.c: the stable node follows its page; which tree it is in, ksmd will see to."""
    m.counters["ksm_migrate_page"] += 1
    node = ksm_nodes.page_stable_node(newpage)
    if node is not None:
        node.kpfn = newpage.pfn
        ksm_nodes.set_page_stable_node(oldpage, None)


def remove_migration_ptes(m: Machine, old: Page, new: Page) -> None:
    """Every migration entry for the old page becomes a pte of the new one."""

    def remove_migration_pte(page: Page, vma: Vma, address: int) -> int:
        pte = get_pte(vma.mm, address)
        if pte and not pte_present(pte):
            kind, offset = pte_to_swp_entry(m, pte)
            if kind in _migration_types(m) and offset & PFN_BITS == old.pfn:
                _map_again(m, page, vma, address, pte)
        return rmap.SWAP_AGAIN

    rmap.rmap_walk(m, new, remove_migration_pte)


#: The bits of a migration entry's offset that are the pfn.
PFN_BITS = rmap.SWP_MIG_YOUNG - 1


def _migration_types(m: Machine) -> list[int]:
    return [number for name, number in m.swp_types.items() if name.startswith("migration")]


def _map_again(m: Machine, page: Page, vma: Vma, address: int, swp_pte: int) -> None:
    kind, offset = pte_to_swp_entry(m, swp_pte)
    get_page(page)
    pte = mk_pte(page, vm_page_prot(vma)) | swp_soft_dirty_of(m, swp_pte)
    if not offset & rmap.SWP_MIG_YOUNG:
        pte &= ~ACCESSED
    if page.dirty and offset & rmap.SWP_MIG_DIRTY:
        pte |= DIRTY
        if m.has("soft-dirty") and not m.has("migration-exact-soft-dirty"):
            pte |= SOFT_DIRTY
    if kind == m.swp_types["migration-write"]:
        pte |= RW
    exclusive = not page.ksm and kind != m.swp_types["migration-read"]
    if not m.has("anon-exclusive"):
        exclusive = False
    set_pte(vma.mm, address, pte)
    rmap.do_page_add_anon_rmap(m, page, vma, address, exclusive)
    if vma.locked and m.has("migration-keeps-mlock") and not m.has("mlock-count"):
        mlock.mlock_vma_page(m, page)
    mlock.migrated_mlock(m, vma)
