/* SPDX-License-Identifier: MIT */
/* 4-level x86-64 page tables (kernel: arch/x86/include/asm/pgtable*.h, mm/memory.c). */
#include "internal.h"

#define PTRS 512
#define LEVELS 4

/* Index of addr in a table of that level: 3 is the pgd, 0 a table of ptes. */
static unsigned int table_index(uint64_t addr, int level)
{
	return (unsigned int)(addr >> (PAGE_SHIFT + 9 * level)) & (PTRS - 1);
}

static pte_t *table_at(pte_t entry)
{
	return (pte_t *)(uintptr_t)
		entry; /* upper levels hold host pointers, ptes the real encoding */
}

pte_t maybe_mkwrite(pte_t pte, const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_WRITE ? pte | _PAGE_RW : pte;
}

/* ---- entries that are no swap ---- */
/* Types above the areas': hwpoison, migration read, read-exclusive (5.19 on), write, and what we have no use for. */
static unsigned int migration_type(const struct pyksm *m, enum migration_kind kind)
{
	unsigned int read = max_swapfiles(m) + 1;

	if (kind == MIGRATION_READ)
		return read;
	if (!has(m, FEAT_ANON_EXCLUSIVE))
		return read + 1; /* then an exclusive page is one that is writable */
	return kind == MIGRATION_READ_EXCLUSIVE ? read + 1 : read + 2;
}

swp_entry_t make_migration_entry(const struct pyksm *m, enum migration_kind kind, uint64_t pfn)
{
	return swp_entry(migration_type(m, kind), pfn);
}

bool is_migration_entry(const struct pyksm *m, swp_entry_t e, enum migration_kind *kind)
{
	for (int k = MIGRATION_WRITE; k >= MIGRATION_READ; k--)
		if (swp_type(e) == migration_type(m, (enum migration_kind)k)) {
			*kind = (enum migration_kind)k;
			return true;
		}
	return false;
}

#define SWP_LAST 31U /* swapin-error, then pte markers */
#define PTE_MARKER_POISONED 2U

swp_entry_t make_swapin_error_entry(const struct pyksm *m, const struct page *page)
{
	if (has(m, FEAT_SWAPIN_POISON_MARKER))
		return swp_entry(SWP_LAST, PTE_MARKER_POISONED);
	return swp_entry(SWP_LAST, page_to_pfn(m, page));
}

bool is_swapin_error_entry(const struct pyksm *m, swp_entry_t e)
{
	return has(m, FEAT_SWAPOFF_ERROR_ENTRIES) && swp_type(e) == SWP_LAST;
}

pte_t *pgd_alloc(struct pyksm *m)
{
	return pool_get(m, POOL_PGTABLE);
}

pte_t *pte_lookup(const struct mm_struct *mm, uint64_t addr)
{
	pte_t *table = mm->pgd;

	for (int level = LEVELS - 1; level > 0; level--) {
		table = table_at(table[table_index(addr, level)]);
		if (!table)
			return NULL;
	}
	return &table[table_index(addr, 0)];
}

pte_t *pte_alloc_map(struct pyksm *m, struct mm_struct *mm, uint64_t addr)
{
	pte_t *table = mm->pgd;

	for (int level = LEVELS - 1; level > 0; level--) {
		pte_t *entry = &table[table_index(addr, level)];

		if (!*entry) {
			*entry = (pte_t)(uintptr_t)pool_get(m, POOL_PGTABLE);
			if (!*entry)
				return NULL;
		}
		table = table_at(*entry);
	}
	return &table[table_index(addr, 0)];
}

/* The pte of the first address from *addr on that has a table of ptes; NULL, and *addr is end: none has. */
pte_t *next_pte(const struct mm_struct *mm, uint64_t *addr, uint64_t end)
{
	while (*addr < end) {
		pte_t *table = mm->pgd;
		int level;

		for (level = LEVELS - 1; level > 0; level--) {
			table = table_at(table[table_index(*addr, level)]);
			if (!table)
				break;
		}
		if (table)
			return &table[table_index(*addr, 0)];
		/* Nothing under this entry of that level: on to what the next one covers. */
		*addr = (*addr | ((1ULL << (PAGE_SHIFT + 9 * level)) - 1)) + 1;
	}
	*addr = end;
	return NULL;
}

/* The first address in [addr, end) that has a table of ptes; end if there is none. */
uint64_t next_table(const struct mm_struct *mm, uint64_t addr, uint64_t end)
{
	next_pte(mm, &addr, end);
	return addr;
}

static void free_table_at(struct pyksm *m, struct mm_struct *mm, uint64_t addr)
{
	pte_t *table = mm->pgd;

	for (int level = LEVELS - 1; level > 1; level--) {
		table = table_at(table[table_index(addr, level)]);
		if (!table)
			return;
	}
	if (table[table_index(addr, 1)]) {
		kmem_free(m, POOL_PGTABLE, table_at(table[table_index(addr, 1)]));
		table[table_index(addr, 1)] = 0;
	}
}

/* Free the tables of [start, end) that no vma reaches into any more (kernel: free_pgtables). */
void free_pgtables_range(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t end)
{
	uint64_t span = start & ~(PMD_SIZE - 1);

	for (span = next_table(mm, span, end); span < end; span = next_table(mm, span, end)) {
		const struct vm_area_struct *vma;

		span &= ~(PMD_SIZE - 1);
		vma = find_vma(mm, span);
		if (!vma || vma->vm_start >= span + PMD_SIZE)
			free_table_at(m, mm, span);
		span += PMD_SIZE;
	}
}

static void free_level(struct pyksm *m, pte_t *table, int level)
{
	for (int i = 0; level > 0 && i < PTRS; i++)
		if (table[i])
			free_level(m, table_at(table[i]), level - 1);
	kmem_free(m, POOL_PGTABLE, table);
}

void free_pgd(struct pyksm *m, struct mm_struct *mm)
{
	if (mm->pgd)
		free_level(m, mm->pgd, LEVELS - 1);
	mm->pgd = NULL;
}
