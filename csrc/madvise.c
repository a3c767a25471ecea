/* SPDX-License-Identifier: MIT */
/* Advice about a range (kernel: mm/madvise.c). */
#include "internal.h"

static int madvise_behavior(struct pyksm *m, struct vm_area_struct *vma,
			    struct vm_area_struct **prev, uint64_t start, uint64_t end, int advice)
{
	uint64_t flags = vma->vm_flags;
	int err = ksm_madvise(m, vma, start, end, advice, &flags);

	if (!err && flags != vma->vm_flags)
		err = vma_modify_flags(m, &vma, *prev, start, end, flags);
	if (!err)
		*prev = vma;
	return err == -ENOMEM ? -EAGAIN : err;
}

static bool is_swapped(const struct pyksm *m, pte_t pte)
{
	return !pte_present(pte) && !pte_none(pte) && !non_swap_entry(m, pte_to_swp_entry(m, pte));
}

/* Since 3.9 (1998cc048901): read what is swapped into the swap cache, map nothing. */
static void madvise_willneed(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			     uint64_t end)
{
	uint64_t addr;

	for (addr = next_table(vma->vm_mm, start, end); addr < end;
	     addr = next_table(vma->vm_mm, addr + PAGE_SIZE, end)) {
		struct swap_info_struct *si;
		struct page *page;
		pte_t pte;

		pte_lock(m, vma->vm_mm, addr, PT_WILLNEED_PTL);
		pte = *pte_lookup(vma->vm_mm, addr);
		pte_unlock(m, vma->vm_mm, addr);
		if (!is_swapped(m, pte))
			continue;
		si = get_swap_device(m, pte_to_swp_entry(m, pte));
		if (!si)
			continue;
		page = read_swap_cache_async(m, pte_to_swp_entry(m, pte), vma, NULL);
		if (page)
			put_page(m, page);
		put_swap_device(m, si);
	}
	lru_add_drain(m);
}

static void madvise_dontneed(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			     uint64_t end)
{
	struct mmu_gather tlb = { NULL, 0, 0 };

	lru_add_drain_before_zap(m);
	unmap_single_vma(m, &tlb, vma, start, end);
	tlb_finish_mmu(m, &tlb);
}

static void isolate_for_pageout(struct pyksm *m, pte_t *pte, struct list_head *pages)
{
	struct page *page;

	if (!pte_present(*pte) || *pte & _PAGE_SPECIAL)
		return;
	page = pfn_to_page(m, pte_pfn(*pte));
	/* Others who map it are not to be disturbed. */
	if (!(page->flags & PG_lru) || page_mapcount(page) != 1)
		return;
	*pte &= ~_PAGE_ACCESSED;
	page->flags &= ~(uint32_t)PG_referenced;
	if (isolate_lru_page(m, page))
		list_add_tail(&page->lru, pages);
}

/* Since 5.4 (1a4e58cce84e): reclaim what nobody else maps, a page table at a time. The writes end with the call. */
static void madvise_pageout(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			    uint64_t end)
{
	uint64_t addr = next_table(vma->vm_mm, start, end);

	lru_add_drain(m);
	while (addr < end) {
		uint64_t stop = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
		pte_t *pte = pte_lookup(vma->vm_mm, addr);
		struct list_head pages;

		INIT_LIST_HEAD(&pages);
		pte_lock(m, vma->vm_mm, addr, PT_PAGEOUT_PTL);
		for (; addr < stop && addr < end; addr += PAGE_SIZE, pte++)
			isolate_for_pageout(m, pte, &pages);
		pte_unlock(m, vma->vm_mm, addr - PAGE_SIZE);
		reclaim_pages(m, &pages);
		addr = next_table(vma->vm_mm, addr, end);
	}
	end_writes(m);
}

static int madvise_vma(struct pyksm *m, struct vm_area_struct *vma, struct vm_area_struct **prev,
		       uint64_t start, uint64_t end, int advice)
{
	if (advice == PYKSM_MADV_MERGEABLE || advice == PYKSM_MADV_UNMERGEABLE)
		return madvise_behavior(m, vma, prev, start, end, advice);
	/* What can be written to can be emptied by hand. */
	if (advice == PYKSM_MADV_DONTNEED && vma->vm_flags & VM_SEALED &&
	    !(vma->vm_flags & VM_WRITE))
		return -EPERM;
	*prev = vma;
	if (advice != PYKSM_MADV_WILLNEED && vma->vm_flags & VM_LOCKED)
		return -EINVAL;
	if (advice == PYKSM_MADV_WILLNEED)
		madvise_willneed(m, vma, start, end);
	else if (advice == PYKSM_MADV_PAGEOUT)
		madvise_pageout(m, vma, start, end);
	else
		madvise_dontneed(m, vma, start, end);
	return 0;
}

/* Holes are stepped over: the rest is done, and the answer is -ENOMEM. */
int do_madvise(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, int advice)
{
	struct vm_area_struct *prev, *vma = find_vma_prev(mm, start, &prev);
	uint64_t end = start + len, stop;
	int unmapped = 0, err;

	if (advice != PYKSM_MADV_MERGEABLE && advice != PYKSM_MADV_UNMERGEABLE &&
	    advice != PYKSM_MADV_WILLNEED && advice != PYKSM_MADV_DONTNEED &&
	    (advice != PYKSM_MADV_PAGEOUT || !has(m, FEAT_MADVISE_PAGEOUT)))
		return -EINVAL;
	if (vma && start > vma->vm_start)
		prev = vma;
	for (;;) {
		if (!vma)
			return -ENOMEM;
		if (start < vma->vm_start) {
			unmapped = -ENOMEM;
			start = vma->vm_start;
			if (start >= end)
				return -ENOMEM;
		}
		stop = vma->vm_end < end ? vma->vm_end : end;
		err = madvise_vma(m, vma, &prev, start, stop, advice);
		if (err)
			return err;
		start = stop > prev->vm_end ? stop : prev->vm_end;
		if (start >= end)
			return unmapped;
		vma = prev->vm_next;
	}
}
