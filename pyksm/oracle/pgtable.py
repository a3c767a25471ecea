"""arch/x86 page tables: pte bits, swap ptes, and last-level tables as lists of 512 ptes."""

from __future__ import annotations

from collections.abc import Iterator

from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    Machine,
    Mm,
    Page,
    SwapEntry,
    Vma,
)

PRESENT = 1 << 0
RW = 1 << 1
USER = 1 << 2
ACCESSED = 1 << 5
DIRTY = 1 << 6
PROTNONE = 1 << 8
SPECIAL = 1 << 9
SOFT_DIRTY = 1 << 11
NX = 1 << 63

PTRS_PER_PTE = 512
PFN_MASK = ((1 << 46) - 1) & ~(PAGE_SIZE - 1)
CHG_MASK = PFN_MASK | SPECIAL | ACCESSED | DIRTY | SOFT_DIRTY  #: what pte_modify() keeps

SWP_TYPES = 32  #: of swap ptes; the last ones are no areas

PTE_MARKER_POISONED = 2


def vm_page_prot(vma: Vma) -> int:
    """protection_map[] for private mappings: never RW, whatever the vma allows."""
    if not vma.prot:
        return PROTNONE | ACCESSED
    return PRESENT | USER | ACCESSED | NX


def pte_present(pte: int) -> bool:
    return bool(pte & (PRESENT | PROTNONE))


def pte_pfn(pte: int) -> int:
    return (pte & PFN_MASK) >> PAGE_SHIFT


def mk_pte(page: Page, prot: int) -> int:
    return page.pfn << PAGE_SHIFT | prot


def pte_modify(pte: int, prot: int) -> int:
    return pte & CHG_MASK | prot & ~CHG_MASK


def maybe_mkwrite(pte: int, vma: Vma) -> int:
    return pte | RW if vma.prot & 2 else pte


def pte_mkdirty(m: Machine, pte: int) -> int:
    """Soft-dirty too, which hardware knows nothing of."""
    return pte | DIRTY | (SOFT_DIRTY if m.has("soft-dirty") else 0)


# --- swap ptes

OFFSET_MASK = (1 << 50) - 1  #: of the inverted form


def swp_entry_to_pte(m: Machine, entry: SwapEntry) -> int:
    """The entry alone. Against L1TF (bcd11afa7ada) the offset is stored inverted, in high bits."""
    if m.has("inverted-offset"):
        return entry[0] << 59 | (~entry[1] & OFFSET_MASK) << 9
    return entry[0] << 1 | entry[1] << 9


def pte_to_swp_entry(m: Machine, pte: int) -> SwapEntry:
    if m.has("inverted-offset"):
        return (pte >> 59, ~(pte >> 9) & OFFSET_MASK)
    return (pte >> 1 & 31, pte >> 9)


def swp_soft_dirty(m: Machine) -> int:
    """The bit of a swap pte; bits 1 to 5 are the type in the old form."""
    return 1 << 1 if m.has("inverted-offset") else 1 << 7


def swp_exclusive(m: Machine) -> int:
    return 1 << 3 if m.has("inverted-offset") else 1 << 6


def swp_soft_dirty_of(m: Machine, pte: int) -> int:
    """For a present pte, what a swap pte says of soft-dirty."""
    return SOFT_DIRTY if pte & swp_soft_dirty(m) else 0


def pte_swp_clear_flags(m: Machine, pte: int) -> int:
    return pte & ~(swp_soft_dirty(m) | swp_exclusive(m))


def special_types(m: Machine) -> dict[str, int]:
    """The types behind those of swap areas, by name (include/linux/swap.h)."""
    names = ["hwpoison", "migration-read"]
    if m.has("anon-exclusive"):
        names.append("migration-read-exclusive")
    names.append("migration-write")
    if m.has("swap-types-device"):
        names += ["device-write", "device-read"]
    if m.has("swap-types-device-exclusive"):
        names.append("device-exclusive")
        if not m.has("swap-types-one-exclusive"):
            names.append("device-exclusive-read")
    if m.has("swapoff-error-entries"):  # pte markers are of the same release, 5.19
        names.append("marker")
        if not m.has("swapin-poison-marker"):
            names.append("swapin-error")
    return {name: SWP_TYPES - len(names) + i for i, name in enumerate(names)}


def max_swapfiles(m: Machine) -> int:
    return m.swp_types["hwpoison"]


def non_swap_entry(m: Machine, entry: SwapEntry) -> bool:
    return entry[0] >= m.swp_types["hwpoison"]


def is_error_entry(m: Machine, entry: SwapEntry) -> bool:
    """What swapoff leaves of a page that could not be read."""
    name = "marker" if m.has("swapin-poison-marker") else "swapin-error"
    return entry[0] == m.swp_types.get(name)


def get_pte(mm: Mm, address: int) -> int:
    """The pte at address, 0 also where there is no table."""
    table = mm.tables.get(address >> PMD_SHIFT)
    return table[address >> PAGE_SHIFT & 511] if table else 0


def has_table(mm: Mm, address: int) -> bool:
    return (address >> PMD_SHIFT) in mm.tables


def pte_alloc(mm: Mm, address: int) -> list[int]:
    """The last-level table that covers address, made when it is not there."""
    return mm.tables.setdefault(address >> PMD_SHIFT, [0] * PTRS_PER_PTE)


def set_pte(mm: Mm, address: int, pte: int) -> None:
    mm.tables[address >> PMD_SHIFT][address >> PAGE_SHIFT & 511] = pte


def pmd_addr_end(address: int, end: int) -> int:
    return min((address + PMD_SIZE) & ~(PMD_SIZE - 1), end)


def next_table(mm: Mm, address: int, end: int) -> int:
    """address if a table covers it, else where the next table begins, at most end."""
    index = address >> PMD_SHIFT
    if index in mm.tables:
        return address
    # Not step by step: a mapping may be terabytes with a few pages in it.
    return min([end, *(i << PMD_SHIFT for i in mm.tables if i > index)])


def table_ranges(mm: Mm, start: int, end: int) -> Iterator[tuple[list[int], int, int]]:
    """(table, from, to) for each last-level table there is in the range, ascending."""
    while (start := next_table(mm, start, end)) < end:
        upto = pmd_addr_end(start, end)
        yield mm.tables[start >> PMD_SHIFT], start, upto
        start = upto


def free_pgtables(mm: Mm, start: int, end: int) -> None:
    """Drop the tables in whose 2 MiB no vma is left; the vmas of the range are off the list."""
    for index in [i for i in mm.tables if start >> PMD_SHIFT <= i <= (end - 1) >> PMD_SHIFT]:
        low, high = index << PMD_SHIFT, (index + 1) << PMD_SHIFT
        if not any(vma.start < high and vma.end > low for vma in mm.vmas):
            del mm.tables[index]
