/* SPDX-License-Identifier: MIT */
/* /proc/PID/clear_refs: who wants to know what is used, or written, from now on (kernel: fs/proc/task_mmu.c). */
#include "internal.h"

/* A migration entry stays one for a page that may be written: no write will fault (docs/findings.md). */
static void note_entry_cleared(struct pyksm *m, pte_t pte)
{
	enum migration_kind kind;

	m->entries_cleared += is_migration_entry(m, pte_to_swp_entry(m, pte), &kind) &&
			      kind == MIGRATION_WRITE;
}

static void clear_soft_dirty(struct pyksm *m, pte_t *pte)
{
	if (pte_present(*pte)) {
		*pte &= ~(_PAGE_RW | _PAGE_SOFT_DIRTY); /* the next write has to fault */
	} else if (!pte_none(*pte)) {
		if (in_task(m))
			note_entry_cleared(m, *pte);
		*pte &= ~swp_soft_dirty(m);
	}
}

static void clear_young(const struct pyksm *m, pte_t *pte)
{
	if (!pte_present(*pte) || *pte & _PAGE_SPECIAL)
		return;
	*pte &= ~_PAGE_ACCESSED;
	pfn_to_page(m, pte_pfn(*pte))->flags &= ~(uint32_t)PG_referenced;
}

/* Those of one table, up to end. Where the next one begins. */
static uint64_t clear_refs_pte_range(struct pyksm *m, struct mm_struct *mm, uint64_t addr,
				     uint64_t end, bool soft_dirty)
{
	uint64_t stop = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
	pte_t *pte = pte_lookup(mm, addr);

	pte_lock(m, mm, addr, PT_CLEAR_REFS_PTL);
	for (; addr < stop && addr < end; addr += PAGE_SIZE, pte++) {
		if (soft_dirty)
			clear_soft_dirty(m, pte);
		else
			clear_young(m, pte);
	}
	pte_unlock(m, mm, addr - PAGE_SIZE);
	return addr;
}

int do_clear_refs(struct pyksm *m, struct mm_struct *mm, int what)
{
	bool soft_dirty = what == PYKSM_CLEAR_REFS_SOFT_DIRTY;

	if (what != PYKSM_CLEAR_REFS_ALL && !(soft_dirty && has(m, FEAT_SOFT_DIRTY)))
		return -EINVAL;
	for (struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next) {
		uint64_t addr, end = vma->vm_end;

		if (soft_dirty)
			vma->vm_flags &= ~VM_SOFTDIRTY;
		for (addr = next_table(mm, vma->vm_start, end); addr < end;
		     addr = next_table(mm, addr, end))
			addr = clear_refs_pte_range(m, mm, addr, end, soft_dirty);
	}
	return 0;
}
