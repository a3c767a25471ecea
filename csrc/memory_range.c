/* SPDX-License-Identifier: MIT */
/* Page tables range by range: fork's copy of them, and zapping them (kernel: the first half of mm/memory.c). */
#include "internal.h"

/* ---- fork ---- */
/* What comes back when the migration is over must be writable in neither, nor known to be one's alone. */
static RARELY void copy_non_swap_entry(struct pyksm *m, struct mm_struct *dst, swp_entry_t entry,
				       pte_t *src_pte)
{
	pte_t marks = has(m, FEAT_SOFT_DIRTY) ? *src_pte & swp_soft_dirty(m) : 0;
	enum migration_kind kind;
	swp_entry_t read;

	if (!is_migration_entry(m, entry, &kind))
		return;
	migration_entry_to_page(m, entry);
	if (!bugged(m, BUG_RSS_LEAK_ACROSS_MIGRATION))
		dst->anon_rss++; /* which it goes on to be: 9f9f1acd713d */
	if (kind == MIGRATION_READ)
		return;
	read = make_migration_entry(m, MIGRATION_READ, migration_entry_pfn(entry));
	read.val |= entry.val & (SWP_MIG_YOUNG | SWP_MIG_DIRTY);
	*src_pte = swp_entry_to_pte(m, read) | marks;
}

/* Copy a pte that maps no page; the entry where its slot's count could not be raised, else 0. */
static uint64_t copy_nonpresent_pte(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
				    pte_t *dst_pte, pte_t *src_pte)
{
	swp_entry_t entry = pte_to_swp_entry(m, *src_pte);

	if (non_swap_entry(m, entry)) {
		if (bugged(m, BUG_SWAPOFF_HANG_MMLIST_ORPHAN))
			mmlist_add(m, dst,
				   &src->mmlist); /* whether that one is on any list or not */
		copy_non_swap_entry(m, dst, entry, src_pte);
	} else {
		if (swap_duplicate(m, entry) < 0)
			return entry.val;
		if (!bugged(m, BUG_COPY_PTE_NO_MMLIST))
			mmlist_add(m, dst, &src->mmlist); /* where a swapoff under way will come */
		if (has(m, FEAT_ANON_EXCLUSIVE))
			*src_pte &= ~swp_exclusive(m); /* shared from now on, by both */
		dst->swapents++;
	}
	*dst_pte = *src_pte;
	return 0;
}

static void copy_present_pte(struct pyksm *m, struct mm_struct *dst, pte_t *dst_pte, pte_t *src_pte)
{
	struct page *page = vm_normal_page(m, *src_pte);

	*src_pte &= ~_PAGE_RW;
	*dst_pte = *src_pte & ~_PAGE_ACCESSED;
	if (!page)
		return;
	page->flags &= ~(uint32_t)PG_anon_exclusive;
	get_page(page);
	page->_mapcount++;
	dst->anon_rss++;
}

static uint64_t copy_one_pte(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
			     pte_t *dst_pte, pte_t *src_pte)
{
	uint64_t wants = 0;

	if (pte_present(*src_pte))
		copy_present_pte(m, dst, dst_pte, src_pte);
	else
		wants = copy_nonpresent_pte(m, dst, src, dst_pte, src_pte);
	if (!wants)
		COUNT(m, copy_one_pte);
	return wants;
}

static int copy_pte_range(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
			  uint64_t addr, uint64_t end)
{
	pte_t *src_pte = pte_lookup(src, addr), *dst_pte = pte_alloc_map(m, dst, addr);

	if (!dst_pte)
		return -ENOMEM;
	pte_lock(m, dst, addr, PT_COPY_PTE_PTL);
	pte_lock(m, src, addr, PT_COPY_PTE_PTL);
	while (addr < end) {
		swp_entry_t entry = { pte_none(*src_pte)
					      ? 0
					      : copy_one_pte(m, dst, src, dst_pte, src_pte) };

		if (entry.val) {
			/* The locks are dropped for an allocation that may sleep, then the same pte again. */
			pte_unlock(m, src, addr);
			pte_unlock(m, dst, addr);
			if (add_swap_count_continuation(m, entry) < 0)
				return -ENOMEM;
			pte_lock(m, dst, addr, PT_COPY_PTE_PTL);
			pte_lock(m, src, addr, PT_COPY_PTE_PTL);
			continue;
		}
		addr += PAGE_SIZE;
		src_pte++;
		dst_pte++;
	}
	pte_unlock(m, src, end - PAGE_SIZE);
	pte_unlock(m, dst, end - PAGE_SIZE);
	return 0;
}

/* Might the page be pinned for I/O by the parent? Then what the I/O brings has to stay in the parent's sight. */
static struct page *page_needs_cow_for_dma(const struct pyksm *m, pte_t pte)
{
	struct page *page = pte_present(pte) ? vm_normal_page(m, pte) : NULL;

	if (!page || !page_maybe_dma_pinned(page))
		return NULL;
	return page->flags & PG_anon_exclusive || !has(m, FEAT_ANON_EXCLUSIVE) ? page : NULL;
}

/* The child's own copy at once; the parent's pte is left as it is. */
static int copy_present_page(struct pyksm *m, struct mm_struct *dst, uint64_t addr,
			     const struct page *old)
{
	struct vm_area_struct *vma = find_vma(dst, addr);
	pte_t *pte = pte_alloc_map(m, dst, addr);
	struct page *page = pte ? wp_new_page(m, vma, old) : NULL;

	if (!page)
		return -ENOMEM;
	pte_lock(m, dst, addr, PT_COPY_PTE_PTL);
	page_add_new_anon_rmap(m, page, vma, addr);
	dst->anon_rss++;
	*pte = maybe_mkwrite(pte_mkdirty(m, mk_pte(m, page, vma)), vma);
	COUNT(m, copy_one_pte);
	pte_unlock(m, dst, addr);
	return 0;
}

/* The same where the parent has had pages pinned for I/O, page by page. */
static RARELY int copy_pinned_range(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
				    uint64_t addr, uint64_t end)
{
	int err = 0;

	for (; addr < end && !err; addr += PAGE_SIZE) {
		const struct page *pinned = page_needs_cow_for_dma(m, *pte_lookup(src, addr));

		if (pinned)
			err = copy_present_page(m, dst, addr, pinned);
		else
			err = copy_pte_range(m, dst, src, addr, addr + PAGE_SIZE);
	}
	return err;
}

static uint64_t table_end(uint64_t addr, uint64_t end)
{
	uint64_t next = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;

	return next < end ? next : end;
}

/* A vma without anon_vma holds nothing but zero pages: the child will fault them in itself. */
int copy_page_range(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
		    struct vm_area_struct *vma)
{
	uint64_t addr, next, end = vma->vm_end;
	bool pinned = src->has_pinned && has(m, FEAT_PINS_COUNTED);

	if (!vma->anon_vma)
		return 0;
	for (addr = next_table(src, vma->vm_start, end); addr < end;
	     addr = next_table(src, next, end)) {
		next = table_end(addr, end);
		if (pinned ? copy_pinned_range(m, dst, src, addr, next)
			   : copy_pte_range(m, dst, src, addr, next))
			return -ENOMEM;
	}
	return 0;
}

/* ---- zap ---- */
static void gather(struct pyksm *m, struct mmu_gather *tlb, struct page *page)
{
	struct page **pages = grow(m, tlb->pages, &tlb->max, tlb->nr + 1, sizeof(*pages));

	if (!pages) { /* no host memory for the batch: give it back at once */
		free_swap_cache(m, page);
		put_page(m, page);
		return;
	}
	tlb->pages = pages;
	pages[tlb->nr++] = page;
}

/* A page on its way is the migration's, and counts here no more (9f9f1acd713d). Others are counted nowhere. */
static RARELY void zap_non_swap_entry(struct pyksm *m, struct mm_struct *mm, swp_entry_t entry)
{
	enum migration_kind kind;

	if (!is_migration_entry(m, entry, &kind))
		return;
	migration_entry_to_page(m, entry);
	if (!bugged(m, BUG_RSS_LEAK_ACROSS_MIGRATION))
		mm->anon_rss--;
}

static void zap_pte(struct pyksm *m, struct mmu_gather *tlb, const struct vm_area_struct *vma,
		    pte_t *ptep)
{
	struct mm_struct *mm = vma->vm_mm;
	pte_t pte = *ptep;
	struct page *page;

	COUNT(m, zap_pte);
	*ptep = 0;
	if (!pte_present(pte)) {
		swp_entry_t entry = pte_to_swp_entry(m, pte);

		if (non_swap_entry(m, entry)) {
			zap_non_swap_entry(m, mm, entry);
			return;
		}
		mm->swapents--;
		free_swap_and_cache(m, entry);
		return;
	}
	page = vm_normal_page(m, pte);
	if (!page) {
		ksm_might_unmap_zero_page(m, mm, pte);
		return;
	}
	mm->anon_rss--;
	page_remove_rmap(m, page, vma);
	gather(m, tlb, page);
}

void unmap_single_vma(struct pyksm *m, struct mmu_gather *tlb, struct vm_area_struct *vma,
		      uint64_t start, uint64_t end)
{
	struct mm_struct *mm = vma->vm_mm;
	uint64_t addr, next;

	for (addr = next_table(mm, start, end); addr < end; addr = next_table(mm, next, end)) {
		pte_t *pte = pte_lookup(mm, addr);

		pte_lock(m, mm, addr, PT_ZAP_PTL);
		for (next = table_end(addr, end); addr < next; addr += PAGE_SIZE, pte++)
			if (!pte_none(*pte))
				zap_pte(m, tlb, vma, pte);
		pte_unlock(m, mm, next - PAGE_SIZE);
	}
}

/* What is locked is to be known as that when its mappings go. Nobody else minds: it is done at the end again. */
void lru_add_drain_before_zap(struct pyksm *m)
{
	if (has(m, FEAT_MLOCK_COUNT) && !has(m, FEAT_ZAP_LEAVES_BATCHES))
		lru_add_drain(m);
}

/* No processor can reach the zapped pages any more: now they may go. */
void tlb_finish_mmu(struct pyksm *m, struct mmu_gather *tlb)
{
	if (!has(m, FEAT_ZAP_LEAVES_BATCHES))
		lru_add_drain(m);
	for (size_t i = 0; i < tlb->nr; i++) {
		free_swap_cache(m, tlb->pages[i]);
		put_page(m, tlb->pages[i]);
	}
	host_free(m, tlb->pages);
}
