"""The census: recount everything, and say what does not add up. A line is "code: detail"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pyksm.oracle import census_ksm, interval_tree, ksm_rmap, rmap
from pyksm.oracle.page_io import slot_content
from pyksm.oracle.pgtable import (
    DIRTY,
    RW,
    SPECIAL,
    get_pte,
    non_swap_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    swp_exclusive,
)
from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PMD_SHIFT,
    TASK_SIZE,
    AnonVma,
    Machine,
    Mm,
    Page,
    SwapEntry,
    Vma,
)
from pyksm.oracle.swap_map import SWAP_HAS_CACHE, SWAP_MAP_BAD, swp_swapcount


class _Tally:
    """One walk over all page tables: who maps what."""

    def __init__(self, m: Machine) -> None:
        self.mms = _all_mms(m)
        self.mapped: Counter[Page] = Counter()
        self.writable: set[Page] = set()
        self.locked: set[Page] = set()  #: by a vma
        self.dirty: set[Page] = set()  #: by a pte
        self.swapped: Counter[SwapEntry] = Counter()
        self.owned: set[SwapEntry] = set()  #: of which a swap pte says that it is the only one
        self.anonpages: Counter[Mm] = Counter()
        self.swapents: Counter[Mm] = Counter()
        for mm in self.mms:
            for table in mm.tables.values():
                for pte in table:
                    if pte:
                        self._count(m, mm, pte)
            for vma in mm.vmas:
                if vma.locked:
                    self.locked.update(_pages_of(m, vma))

    def _count(self, m: Machine, mm: Mm, pte: int) -> None:
        if not pte_present(pte):
            entry = pte_to_swp_entry(m, pte)
            if not non_swap_entry(m, entry):
                self.swapped[entry] += 1
                self.swapents[mm] += 1
                if m.has("anon-exclusive") and pte & swp_exclusive(m):
                    self.owned.add(entry)
        elif not pte & SPECIAL:
            page = m.pages[pte_pfn(pte)]
            self.mapped[page] += 1
            self.anonpages[mm] += 1
            if pte & RW:
                self.writable.add(page)
            if pte & DIRTY:
                self.dirty.add(page)


def _pages_of(m: Machine, vma: Vma) -> Iterator[Page]:
    for address in range(vma.start, vma.end, 1 << PAGE_SHIFT):
        pte = get_pte(vma.mm, address)
        if pte_present(pte) and not pte & SPECIAL:
            yield m.pages[pte_pfn(pte)]


def _all_mms(m: Machine) -> list[Mm]:
    """Live ones, and those that only swapoff still holds."""
    held = [mm for mm in m.mmlist[1:] if mm not in m.mms.values()]
    return [*m.mms.values(), *held]


def census(m: Machine, strict: bool) -> list[str]:
    """Does not count as work: counters are as before."""
    before = m.counters.copy()
    tally = _Tally(m)
    lines: list[str] = []
    for check in _CHECKS:
        lines += check(m, tally)
    lines += census_ksm.census(m, tally.mms)
    if strict:
        lines += _strict(m, tally)
    m.counters = before
    return lines


def _pages(m: Machine, tally: _Tally) -> Iterator[str]:
    free = Counter(pfn for node in m.nodes for pfn in node.free.used_before())
    for pfn, page in m.pages.items():
        mapcount = tally.mapped[page]
        # Up to 5.7 one could end up mapped and nobody's: see memcontrol.py.
        if mapcount and not page.charged and m.has("swapin-charged-at-read"):
            yield f"charge: frame {pfn} is mapped and nobody pays for it"
        if page.mapcount != mapcount:
            yield f"page-mapcount: frame {pfn} says {page.mapcount}, {mapcount} ptes map it"
        wanted = mapcount + page.pins + (m.swap_cache.get(page.private or (-1, 0)) is page)
        wanted += sum(page is other for _, other in m.mlock_batch)
        if page.count != wanted:
            yield f"page-refcount: frame {pfn} has {page.count} references, not {wanted}"
        if free[pfn] != (0 if page.count else 1):
            yield f"page-free: frame {pfn} with {page.count} references is free {free[pfn]} times"


def _shared(m: Machine, tally: _Tally) -> Iterator[str]:
    """What one may write to, or has for itself by what is noted, nobody else maps or would find
    in its slot."""
    for page, ptes in tally.mapped.items():
        entry = page.private if page.swapcache and page.private is not None else (-1, 0)
        shared = ptes > 1 or tally.swapped[entry] > 0
        if page in tally.writable and shared:
            yield f"exclusive: frame {page.pfn} may be written to, and others see it"
        if page.exclusive and (shared or page.ksm):
            yield f"exclusive: frame {page.pfn} is called exclusive, and is not"
        if entry in tally.owned:
            yield f"exclusive: frame {page.pfn} is mapped, and a swap pte has {entry} for itself"
    for entry in tally.owned:
        if tally.swapped[entry] > 1:
            yield f"exclusive: {tally.swapped[entry]} swap ptes have {entry} for themselves"


def _saved(m: Machine, tally: _Tally) -> Iterator[str]:
    """A page that reclaim would drop unwritten is as its slot has it, if anybody wants it."""
    for entry, page in m.swap_cache.items():
        if not tally.mapped[page] and not tally.swapped[entry]:
            continue
        unsaved = page.dirty or page.writeback or page.error or page in tally.dirty
        held = slot_content(m, entry) if page.uptodate and not unsaved else None
        if held is not None and held != page.data:
            yield f"swap-stale: frame {page.pfn} is clean, and {entry} holds something else"


def _lru(m: Machine, tally: _Tally) -> Iterator[str]:
    listed: Counter[Page] = Counter()
    waiting = {page for _, page in m.mlock_batch}
    for node in m.nodes:
        for lru in (node.active, node.inactive, node.root, node.unevictable):
            for page in lru:
                listed[page] += 1
                locked = lru is node.unevictable
                right = page.node == node.nid and page.unevictable == locked
                right = right and (page.mlocked == locked or page in waiting)
                if not locked:
                    right = right and page.memcg == (lru is not node.root)
                if page.memcg and not locked:
                    right = right and page.active == (lru is node.active)
                if not right or not page.lru:
                    yield f"lru: frame {page.pfn} is on the wrong list"
    listed.update(page for page in m.lru_add_batch if page is not None)
    listed.update(page for kind, page in m.mlock_batch if kind == "new")
    for page in m.pages.values():
        if page.count and listed[page] != 1:
            yield f"lru: frame {page.pfn} is on {listed[page]} lists"


def _mlock(m: Machine, tally: _Tally) -> Iterator[str]:
    """What is marked as locked is in a locked vma, though not all that is in one is marked."""
    marked = [page for page in m.pages.values() if page.mlocked]
    waiting = {page for _, page in m.mlock_batch}
    for page in marked:
        if page not in tally.locked and page not in waiting:
            yield f"mlock: frame {page.pfn} is marked as locked, and no vma that maps it is"
    if len(marked) != m.nr_mlock:
        yield f"mlock: {len(marked)} pages are marked as locked, not {m.nr_mlock}"


def _swap(m: Machine, tally: _Tally) -> Iterator[str]:
    for area in m.swap_info:
        if area.swap_map is None:
            continue
        inuse = 0
        for offset, byte in enumerate(area.swap_map):
            if byte & ~SWAP_HAS_CACHE == SWAP_MAP_BAD:
                continue
            entry = (area.type, offset)
            inuse += byte != 0
            count = swp_swapcount(area, offset)
            if count != tally.swapped[entry]:
                yield f"swap-count: slot {entry} says {count}, {tally.swapped[entry]} ptes"
            if bool(byte & SWAP_HAS_CACHE) != (entry in m.swap_cache):
                yield f"swap-cache: slot {entry} byte {byte:#x} against the cache"
        if inuse != area.inuse_pages:
            yield f"swap-inuse: area {area.type} says {area.inuse_pages}, {inuse} are in use"
    for entry, page in m.swap_cache.items():
        if not page.swapcache or page.private != entry:
            yield f"swap-cache: frame {page.pfn} is not the page of {entry}"
    for entry in tally.swapped:
        area = m.swap_info[entry[0]]
        if area.swap_map is None or entry[1] >= area.max:
            yield f"swap-count: a pte refers to {entry}, which is not there"


def _mms(m: Machine, tally: _Tally) -> Iterator[str]:
    for mm in tally.mms:
        counted = (tally.anonpages[mm], tally.swapents[mm])
        if (mm.anonpages, mm.swapents) != counted:
            yield f"mm-counter: mm {mm.pid} says {mm.anonpages}, {mm.swapents}, not {counted}"
        if tally.swapents[mm] and mm not in m.mmlist:
            yield f"mmlist: mm {mm.pid} has swap ptes and is not on it"


def _anon_vmas(m: Machine, tally: _Tally) -> Iterator[str]:
    """Every anon_vma that can be reached: its tree against the chains, its references."""
    chained: Counter[AnonVma] = Counter()
    for mm in tally.mms:
        for vma in mm.vmas:
            for avc in vma.chain:
                chained[avc.anon_vma] += 1
                if avc.vma is not vma or avc not in avc.anon_vma.tree:
                    yield f"anon-vma: an avc of vma {vma.start:#x}, mm {mm.pid}, is not in its tree"
    known = set(chained) | {anon_vma.root for anon_vma in chained}
    items = [item for slot in m.ksm.mm_slots for item in slot.rmap_list if item.stable]
    known |= {item.anon_vma for item in items if item.anon_vma is not None}
    known |= {anon_vma.root for anon_vma in known}
    members = Counter(anon_vma.root for anon_vma in known if anon_vma.root is not anon_vma)
    children = Counter(anon_vma.parent for anon_vma in known if anon_vma.tree)  # a root is its own
    users = Counter(vma.anon_vma for mm in tally.mms for vma in mm.vmas)
    held = Counter(item.anon_vma for item in items)
    for anon_vma in known:
        starts = [avc.vma.pgoff for avc in anon_vma.tree]
        if len(starts) != chained[anon_vma] or starts != sorted(starts):
            yield "anon-vma: a tree has the wrong vmas or the wrong order"
        wanted = bool(anon_vma.tree) + members[anon_vma] + held[anon_vma]
        if anon_vma.refcount != wanted:
            yield f"anon-vma: {anon_vma.refcount} references, not {wanted}"
        counted = (children[anon_vma], users[anon_vma])
        if (anon_vma.num_children, anon_vma.num_active_vmas) != counted:
            yield f"anon-vma: {anon_vma.num_children}, {anon_vma.num_active_vmas}, not {counted}"
    if m.has("anon-vma-active-vmas") or not m.has("anon-vma-reuse"):
        for mm in tally.mms:
            yield from _chains(mm)


def _chains(mm: Mm) -> Iterator[str]:
    """Vmas that use one anon_vma are on the same anon_vmas: they may be merged."""
    others: dict[AnonVma, Vma] = {}
    for vma in mm.vmas:
        if vma.anon_vma is None:
            continue
        other = others.get(vma.anon_vma, vma)
        others[vma.anon_vma] = vma
        if [avc.anon_vma for avc in vma.chain] != [avc.anon_vma for avc in other.chain]:
            yield f"anon-vma: {other.start:#x} and {vma.start:#x} of mm {mm.pid} differ in chains"


def _vmas(m: Machine, tally: _Tally) -> Iterator[str]:
    for mm in tally.mms:
        end = 0
        for vma in mm.vmas:
            if vma.start < end or not vma.start < vma.end <= TASK_SIZE or vma.mm is not mm:
                yield f"vma: {vma.start:#x}-{vma.end:#x} of mm {mm.pid} is out of order"
            if (vma.anon_vma is not None) != vma.written:
                yield f"anon-vma: {vma.start:#x} of mm {mm.pid} was written to: {vma.written}"
            if (vma.anon_vma is None) != (not vma.chain):
                yield f"vma: {vma.start:#x} of mm {mm.pid} has an anon_vma or a chain alone"
            end = vma.end
        for index, table in mm.tables.items():
            yield from _strays(mm, index, table)


def _strays(mm: Mm, index: int, table: list[int]) -> Iterator[str]:
    """Ptes that no vma covers."""
    covered: set[int] = set()
    for vma in mm.vmas:
        low = max(vma.start, index << PMD_SHIFT)
        high = min(vma.end, (index + 1) << PMD_SHIFT)
        covered.update(range((low >> PAGE_SHIFT), (high >> PAGE_SHIFT)))
    first = index << (PMD_SHIFT - PAGE_SHIFT)
    for i, pte in enumerate(table):
        if pte and first + i not in covered:
            yield f"vma: mm {mm.pid} has a pte at {(first + i) << PAGE_SHIFT:#x} and no vma"


def _reached(m: Machine, page: Page) -> int:
    """How many ptes of the page an rmap walk finds."""
    found: set[tuple[int, int]] = set()

    def look(page: Page, vma: Vma, address: int) -> int:
        pte = get_pte(vma.mm, address)
        if pte_present(pte) and pte_pfn(pte) == page.pfn and vma.start <= address < vma.end:
            found.add((id(vma.mm), address & ~((1 << PAGE_SHIFT) - 1)))
        return rmap.SWAP_AGAIN

    if page.ksm:
        ksm_rmap.rmap_walk_ksm(m, page, look)
    elif page.anon_vma is not None:
        for avc in interval_tree.foreach(m, page.anon_vma, page.index, page.index):
            look(page, avc.vma, rmap.vma_address(page, avc.vma))
    return len(found)


def _rmap(m: Machine, tally: _Tally) -> Iterator[str]:
    for page, mapcount in tally.mapped.items():
        if not page.ksm and not page.locked:
            reached = _reached(m, page)
            if reached < mapcount:
                yield f"rmap: {reached} of {mapcount} ptes of frame {page.pfn} are found"


def _pins(m: Machine, tally: _Tally) -> Iterator[str]:
    """Their owners still see the pages that are pinned for I/O, and nobody else writes to any."""
    writers: dict[int, set[int]] = {}
    for mm in tally.mms if m.pins else ():
        for table in mm.tables.values():
            for pte in table:
                if pte_present(pte) and pte & RW:
                    writers.setdefault(pte_pfn(pte), set()).add(mm.pid)
    for (pid, address), pins in m.pins.items():
        pte = get_pte(m.mms[pid], address)
        for pin in pins:
            pfn, told = pin.page.pfn, pin.write and m.has("pins-counted")
            if told and not pin.gone and pte_present(pte) and pte_pfn(pte) != pfn:
                yield f"pin: {address:#x} of mm {pid} maps another page than frame {pfn}"
            if m.has("reuse-by-refcount") and writers.get(pfn, set()) - {pid}:
                yield f"pin: frame {pfn}, which mm {pid} has pinned, is writable elsewhere"


def _strict(m: Machine, tally: _Tally) -> Iterator[str]:
    """Legal, but worth knowing: KSM pages that reclaim cannot unmap, or in another node's tree."""
    yield from census_ksm.misplaced(m)
    for page, mapcount in tally.mapped.items():
        if not page.ksm:
            continue
        if page.stable_node is None:
            yield f"ksm-no-node: frame {page.pfn} has no stable node"
        reached = _reached(m, page)
        if reached < mapcount:
            yield f"ksm-rmap: {reached} of {mapcount} ptes of frame {page.pfn} are found"


_CHECKS = (_pages, _shared, _saved, _lru, _mlock, _swap, _mms, _anon_vmas, _vmas, _rmap, _pins)
