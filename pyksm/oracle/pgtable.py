"""arch/x86 page tables: pte bits, the 3.9 swap pte, and last-level tables as lists of 512 ptes."""

from __future__ import annotations

from collections.abc import Iterator

from pyksm.oracle.structs import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
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
NX = 1 << 63

PTRS_PER_PTE = 512
PFN_MASK = ((1 << 46) - 1) & ~(PAGE_SIZE - 1)
CHG_MASK = PFN_MASK | SPECIAL | ACCESSED | DIRTY  #: what pte_modify() keeps

MIGRATION_READ = 30
MIGRATION_WRITE = 31
MAX_SWAPFILES = 29


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


def swp_entry_to_pte(entry: SwapEntry) -> int:
    return entry[0] << 1 | entry[1] << 9


def pte_to_swp_entry(pte: int) -> SwapEntry:
    return (pte >> 1 & 31, pte >> 9)


def non_swap_entry(entry: SwapEntry) -> bool:
    return entry[0] >= MAX_SWAPFILES


def is_migration_entry(entry: SwapEntry) -> bool:
    return entry[0] in (MIGRATION_READ, MIGRATION_WRITE)


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
