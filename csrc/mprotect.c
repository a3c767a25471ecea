/* SPDX-License-Identifier: MIT */
/* Changing the protection of a range (kernel: mm/mprotect.c). */
#include "internal.h"

/*
 * May the pte of a writable mapping be writable at once, as a write fault would make it without a copy?
 * 64fe24a3e05e (6.0); a clean one too since d84887739d5c (6.2).
 */
static bool can_change_pte_writable(const struct pyksm *m, const struct vm_area_struct *vma,
				    pte_t pte)
{
	if (!has(m, FEAT_MPROTECT_GIVES_WRITABLE) || !(vma->vm_flags & VM_WRITE) ||
	    (!(pte & _PAGE_DIRTY) && !has(m, FEAT_MPROTECT_CLEAN_WRITABLE)))
		return false;
	return !pte_needs_soft_dirty_wp(m, vma, pte) && !(pte & _PAGE_SPECIAL) &&
	       (pfn_to_page(m, pte_pfn(pte))->flags & PG_anon_exclusive);
}

/* Private ptes do not come out writable else: a write has to fault and ask who else uses the page. */
static void change_protection(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			      uint64_t end)
{
	const uint64_t keep = PTE_PFN_MASK | _PAGE_SPECIAL | _PAGE_ACCESSED | _PAGE_DIRTY |
			      _PAGE_SOFT_DIRTY;
	uint64_t addr;

	for (addr = next_table(vma->vm_mm, start, end); addr < end;
	     addr = next_table(vma->vm_mm, addr + PAGE_SIZE, end)) {
		pte_t *pte = pte_lookup(vma->vm_mm, addr);

		pte_lock(m, vma->vm_mm, addr, PT_CHANGE_PTE_PTL);
		if (pte_present(*pte)) {
			*pte = (*pte & keep) | (vm_page_prot(vma) & ~keep);
			if (can_change_pte_writable(m, vma, *pte))
				*pte |= _PAGE_RW;
		}
		pte_unlock(m, vma->vm_mm, addr);
	}
}

static int mprotect_fixup(struct pyksm *m, struct vm_area_struct *vma,
			  struct vm_area_struct **pprev, uint64_t start, uint64_t end,
			  uint64_t prot)
{
	uint64_t flags = (vma->vm_flags & ~(VM_READ | VM_WRITE)) | prot, old = vma->vm_flags;
	int err;

	if (vma->vm_flags & VM_SEALED)
		return -EPERM;
	if (flags == vma->vm_flags) {
		*pprev = vma;
		return 0;
	}
	err = vma_modify_flags(m, &vma, *pprev, start, end, flags);
	if (err)
		return err;
	*pprev = vma;
	change_protection(m, vma, start, end);
	/* Pages of its own at once, so that no access has to wait for them (36f881883c57); no matter if there are none. */
	if ((old & (VM_LOCKED | VM_WRITE)) == VM_LOCKED && prot & VM_WRITE &&
	    has(m, FEAT_MPROTECT_POPULATES_LOCKED))
		populate_vma_page_range(m, vma, start, end);
	return 0;
}

int do_mprotect(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, uint64_t flags)
{
	return fixup_range(m, mm, start, len, flags, mprotect_fixup);
}
