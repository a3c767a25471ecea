/* SPDX-License-Identifier: MIT */
/* Moving a range of pages to another address (kernel: mm/mremap.c, MREMAP_FIXED). */
#include "internal.h"

/* Whoever saves what has changed since the last time must save it at its new place. */
static pte_t move_soft_dirty_pte(const struct pyksm *m, pte_t pte)
{
	if (!has(m, FEAT_SOFT_DIRTY))
		return pte;
	return pte | (pte_present(pte) ? _PAGE_SOFT_DIRTY : swp_soft_dirty(m));
}

/*
 * An rmap walk that comes to the destination before the source would find the pte in neither, so it is kept out.
 * (The kernel asks first whether it would come in that order.)
 */
static void take_rmap_locks(struct pyksm *m, const struct vm_area_struct *vma)
{
	if (vma->anon_vma && !bugged(m, BUG_MREMAP_RMAP_WALK_ORDER))
		anon_vma_lock_write(m, vma->anon_vma, PT_MOVE_PTES_RMAP);
}

static void drop_rmap_locks(struct pyksm *m, const struct vm_area_struct *vma)
{
	if (vma->anon_vma && !bugged(m, BUG_MREMAP_RMAP_WALK_ORDER))
		anon_vma_unlock(m, vma->anon_vma);
}

/* Both may be in one table, which has one lock. */
static void lock_ptes(struct pyksm *m, const struct mm_struct *mm, uint64_t from, uint64_t to)
{
	pte_lock(m, mm, from, PT_MOVE_PTES_PTL);
	if (from / PMD_SIZE != to / PMD_SIZE)
		pte_lock(m, mm, to, PT_MOVE_PTES_PTL);
}

static void unlock_ptes(struct pyksm *m, const struct mm_struct *mm, uint64_t from, uint64_t to)
{
	if (from / PMD_SIZE != to / PMD_SIZE)
		pte_unlock(m, mm, to);
	pte_unlock(m, mm, from);
}

/* Where break_ksm() has passed a page over, see follow_page(), nothing finds the entry any more. */
static void note_entry_astray(struct pyksm *m, pte_t pte)
{
	const struct page *page = migration_entry_page(m, pte);

	m->entries_astray += page && PageKsm(page);
}

/* ptes move as they are, swap entries too: no count changes, and page->index stays right. */
static int move_page_tables(struct pyksm *m, struct vm_area_struct *vma, uint64_t from, uint64_t to,
			    uint64_t len)
{
	struct mm_struct *mm = vma->vm_mm;
	uint64_t addr, end = from + len;

	for (addr = next_table(mm, from, end); addr < end;
	     addr = next_table(mm, addr + PAGE_SIZE, end)) {
		pte_t *src = pte_lookup(mm, addr), *dst;

		dst = pte_alloc_map(m, mm, to + (addr - from));
		if (!dst)
			return -ENOMEM;
		take_rmap_locks(m, vma);
		lock_ptes(m, mm, addr, to + (addr - from));
		if (!pte_none(*src)) {
			COUNT(m, move_pte);
			if (in_task(m))
				note_entry_astray(m, *src);
			*dst = move_soft_dirty_pte(m, *src);
			*src = 0;
		}
		unlock_ptes(m, mm, addr, to + (addr - from));
		drop_rmap_locks(m, vma);
	}
	return 0;
}

static int move_vma(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, uint64_t len,
		    uint64_t new_addr)
{
	struct mm_struct *mm = vma->vm_mm;
	uint64_t sampled = vma->vm_flags;
	struct vm_area_struct *new;
	int err;

	/* rmap_items know addresses: KSM pages are unshared before they move; the vma stays mergeable. */
	err = ksm_madvise(m, vma, addr, addr + len, PYKSM_MADV_UNMERGEABLE, &sampled);
	if (err)
		return err;
	new = copy_vma(m, &vma, new_addr, len, linear_page_index(vma, addr));
	if (!new)
		return -ENOMEM;
	err = move_page_tables(m, vma, addr, new_addr, len);
	if (err) {
		if (!move_page_tables(m, new, new_addr, addr, len))
			do_munmap(m, mm, new_addr, len);
		return err;
	}
	do_munmap(m, mm, addr, len); /* no memory for a split: then the old range stays, empty */
	return 0;
}

/*
 * Since 6.17 (d23cb648e365) a range may lie in several vmas and have gaps, which are kept: vma by vma, and
 * what has moved before an error stays moved.
 */
static int remap_move(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t len,
		      uint64_t new_addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);
	uint64_t at, stop, end = addr + len;
	int err = vma && vma->vm_start <= addr ? 0 : -EFAULT;

	for (at = addr; !err && at < end; at = stop) {
		vma = find_vma(mm, at);
		if (!vma || vma->vm_start >= end)
			break;
		if (at < vma->vm_start)
			at = vma->vm_start;
		stop = vma->vm_end < end ? vma->vm_end : end;
		if (vma->vm_flags & VM_SEALED)
			return -EPERM;
		err = do_munmap(m, mm, new_addr + (at - addr), stop - at);
		if (!err)
			err = move_vma(m, find_vma(mm, at), at, stop - at, new_addr + (at - addr));
	}
	return err;
}

int do_mremap(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t len, uint64_t new_addr)
{
	struct vm_area_struct *vma;
	int err;

	vma = find_vma(mm, addr);
	if (vma && vma->vm_start <= addr && vma->vm_flags & VM_SEALED &&
	    !has(m, FEAT_MREMAP_MANY_VMAS))
		return -EPERM;
	if (new_addr < addr + len && addr < new_addr + len)
		return -EINVAL;
	if (has(m, FEAT_MREMAP_MANY_VMAS))
		return remap_move(m, mm, addr, len, new_addr);
	err = do_munmap(m, mm, new_addr, len);
	if (err)
		return err;
	vma = find_vma(mm, addr);
	if (!vma || vma->vm_start > addr || len > vma->vm_end - addr)
		return -EFAULT;
	return move_vma(m, vma, addr, len, new_addr);
}
