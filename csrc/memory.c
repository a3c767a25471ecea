/* SPDX-License-Identifier: MIT */
/* Faults, fork's copy of the page tables, and zapping them (kernel: mm/memory.c). */
#include "internal.h"

/* The page a pte maps, NULL for the zero page: that has no owner and no count. */
static struct page *vm_normal_page(const struct pyksm *m, pte_t pte)
{
	return pte & _PAGE_SPECIAL ? NULL : pfn_to_page(m, pte_pfn(pte));
}

/* The present page at addr, the zero page included; NULL: none. */
struct page *follow_page(const struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	pte_t *pte = pte_lookup(mm, addr);

	return pte && pte_present(*pte) ? pfn_to_page(m, pte_pfn(*pte)) : NULL;
}

/* ---- faults ---- */
static int do_anonymous_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			     bool write)
{
	struct page *page;
	pte_t entry;

	COUNT(m, do_anonymous_page);
	if (!write) {
		*pte = vm_page_prot(vma) | _PAGE_SPECIAL; /* frame 0, the zero page */
		return 0;
	}
	if (anon_vma_prepare(m, vma))
		return VM_FAULT_OOM;
	page = alloc_page_vma(m, vma);
	if (!page)
		return VM_FAULT_OOM;
	memset(page_content(m, page), 0, m->page_size);
	page->flags |= PG_uptodate;
	entry = mk_pte(m, page, vma);
	if (vma->vm_flags & VM_WRITE)
		entry |= _PAGE_DIRTY | _PAGE_RW;
	vma->vm_mm->anon_rss++;
	page_add_new_anon_rmap(m, page, vma, addr);
	*pte = entry;
	return 0;
}

/* The copy that a write gets: of the old page, or zeros where the zero page was mapped. */
static struct page *wp_new_page(struct pyksm *m, struct vm_area_struct *vma, const struct page *old)
{
	struct page *page = alloc_page_vma(m, vma);

	if (!page)
		return NULL;
	if (old)
		copy_user_highpage(m, page, old);
	else
		memset(page_content(m, page), 0, m->page_size);
	page->flags |= PG_uptodate;
	return page;
}

/* A write to a page that is present but not writable: take it over if we are its only user, else copy. */
static int do_wp_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte)
{
	struct page *old = vm_normal_page(m, *pte), *page;

	COUNT(m, do_wp_page);
	/* A KSM page is copied always: its other users may not even be mapping it now. */
	if (old && !PageKsm(old)) {
		lock_page(old);
		if (reuse_swap_page(m, old)) {
			page_move_anon_rmap(old, vma);
			unlock_page(old);
			*pte = maybe_mkwrite(*pte | _PAGE_ACCESSED | _PAGE_DIRTY, vma);
			return VM_FAULT_WRITE;
		}
		unlock_page(old);
	}
	if (anon_vma_prepare(m, vma))
		return VM_FAULT_OOM;
	page = wp_new_page(m, vma, old);
	if (!page)
		return VM_FAULT_OOM;
	if (!old) {
		vma->vm_mm->anon_rss++;
		ksm_might_unmap_zero_page(m, vma->vm_mm, *pte);
	}
	page_add_new_anon_rmap(m, page, vma, addr);
	*pte = maybe_mkwrite(mk_pte(m, page, vma) | _PAGE_DIRTY, vma);
	if (old) {
		page_remove_rmap(old);
		put_page(m, old);
	}
	return VM_FAULT_WRITE;
}

/* The swapped page, referenced; *major where it had to be read. NULL: no memory for it. */
static struct page *swapin_page(struct pyksm *m, struct vm_area_struct *vma, swp_entry_t entry,
				int *ret)
{
	struct page *page = find_get_page(m, entry);

	if (page)
		return page;
	page = swapin_readahead(m, entry, vma);
	if (page)
		*ret = VM_FAULT_MAJOR;
	return page;
}

static void put_copied(struct pyksm *m, struct page *page, struct page *swapcache)
{
	if (page == swapcache)
		return;
	unlock_page(swapcache);
	put_page(m, swapcache);
}

static void abandon_swapin(struct pyksm *m, struct page *page, struct page *swapcache)
{
	unlock_page(page);
	put_page(m, page);
	put_copied(m, page, swapcache);
}

/* Map page where the swap pte was; returns whether the write that was asked for is still to be done. */
static bool map_swapped_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
			     pte_t *ptep, struct page *page, struct page *swapcache, bool write)
{
	pte_t pte = mk_pte(m, page, vma);
	bool exclusive = false, charge = try_charge_swapin(page);

	vma->vm_mm->anon_rss++;
	vma->vm_mm->swapents--;
	if (write && reuse_swap_page(m, page)) {
		pte = maybe_mkwrite(pte | _PAGE_DIRTY, vma);
		exclusive = true;
	}
	*ptep = pte;
	if (page == swapcache)
		do_page_add_anon_rmap(m, page, vma, addr, exclusive);
	else
		page_add_new_anon_rmap(m, page, vma, addr);
	commit_charge_swapin(m, page, charge);
	return write && !exclusive;
}

static int do_swap_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool write)
{
	struct mm_struct *mm = vma->vm_mm;
	pte_t orig = *pte_lookup(mm, addr), *pte;
	swp_entry_t entry = pte_to_swp_entry(orig);
	struct page *page, *swapcache;
	int ret = 0;

	COUNT(m, do_swap_page);
	page = swapin_page(m, vma, entry, &ret);
	if (!page)
		return VM_FAULT_OOM;
	swapcache = page;
	mm->readers++; /* mmap_sem is held for reading while the page lock is waited for */
	sched_point(m, PT_SWAP_PAGE_LOCK_PAGE);
	mm->readers--;
	lock_page(page);
	/* While we waited the page may have left the swap cache, or come back for another slot. */
	if (!(page->flags & PG_swapcache) || page->private != entry.val) {
		unlock_page(page);
		put_page(m, page);
		return ret;
	}
	page = ksm_might_need_to_copy(m, page, vma, addr);
	if (!page) {
		unlock_page(swapcache);
		put_page(m, swapcache);
		return VM_FAULT_OOM;
	}
	pte = pte_lookup(mm, addr);
	if (*pte != orig || !(page->flags & PG_uptodate)) {
		ret = *pte != orig ? ret : VM_FAULT_SIGBUS;
		abandon_swapin(m, page, swapcache);
		return ret;
	}
	write = map_swapped_page(m, vma, addr, pte, page, swapcache, write);
	swap_free(m, entry);
	if (vm_swap_full(m))
		try_to_free_swap(m, page);
	unlock_page(page);
	put_copied(m, page, swapcache);
	if (write) {
		ret |= do_wp_page(m, vma, addr, pte);
		if (ret & VM_FAULT_OOM)
			ret = VM_FAULT_OOM;
	}
	return ret;
}

int handle_mm_fault(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool write)
{
	pte_t *pte;

	COUNT(m, handle_mm_fault);
	pte = pte_alloc_map(m, vma->vm_mm, addr);
	if (!pte)
		return VM_FAULT_OOM;
	if (pte_none(*pte))
		return do_anonymous_page(m, vma, addr, pte, write);
	if (!pte_present(*pte))
		return do_swap_page(m, vma, addr, write);
	if (write && !(*pte & _PAGE_RW))
		return do_wp_page(m, vma, addr, pte);
	*pte |= _PAGE_ACCESSED | (write ? _PAGE_DIRTY : 0);
	return 0;
}

static bool access_allowed(const struct vm_area_struct *vma, bool write)
{
	return write ? vma->vm_flags & VM_WRITE : vma->vm_flags & (VM_READ | VM_WRITE);
}

/* Could the processor itself do this access? Then it leaves its marks in the pte. */
static bool hardware_access(pte_t *pte, bool write)
{
	if (!pte || !(*pte & _PAGE_PRESENT) || (write && !(*pte & _PAGE_RW)))
		return false;
	*pte |= _PAGE_ACCESSED | (write ? _PAGE_DIRTY : 0);
	return true;
}

/* One access of a process to one page, with the faults it takes. 0 and the page, or -errno. */
int access_page(struct pyksm *m, struct mm_struct *mm, uint64_t addr, bool write, struct page **ret)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	if (!vma || vma->vm_start > addr || !access_allowed(vma, write))
		return -EFAULT;
	while (!hardware_access(pte_lookup(mm, addr), write)) {
		int fault = handle_mm_fault(m, vma, addr, write);

		if (fault & VM_FAULT_OOM)
			return -ENOMEM;
		if (fault & VM_FAULT_SIGBUS)
			return -EIO;
	}
	*ret = pfn_to_page(m, pte_pfn(*pte_lookup(mm, addr)));
	return 0;
}

/* ---- fork ---- */
/* Copy one pte; the entry where its slot's count could not be raised, else 0. */
static uint64_t copy_one_pte(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
			     pte_t *dst_pte, pte_t *src_pte)
{
	struct page *page;

	if (!pte_present(*src_pte)) {
		swp_entry_t entry = pte_to_swp_entry(*src_pte);

		if (swap_duplicate(m, entry) < 0)
			return entry.val;
		if (list_empty(
			    &dst->mmlist)) /* behind the parent, where a swapoff under way will come */
			list_add(&dst->mmlist, &src->mmlist);
		dst->swapents++;
		*dst_pte = *src_pte;
		COUNT(m, copy_one_pte);
		return 0;
	}
	COUNT(m, copy_one_pte);
	*src_pte &= ~_PAGE_RW;
	*dst_pte = *src_pte & ~_PAGE_ACCESSED;
	page = vm_normal_page(m, *src_pte);
	if (page) {
		get_page(page);
		page->_mapcount++;
		dst->anon_rss++;
	}
	return 0;
}

static int copy_pte_range(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
			  uint64_t addr, uint64_t end)
{
	pte_t *src_pte = pte_lookup(src, addr), *dst_pte = pte_alloc_map(m, dst, addr);

	if (!dst_pte)
		return -ENOMEM;
	while (addr < end) {
		swp_entry_t entry = { pte_none(*src_pte)
					      ? 0
					      : copy_one_pte(m, dst, src, dst_pte, src_pte) };

		if (entry.val) {
			/* The locks are dropped for an allocation that may sleep, then the same pte again. */
			if (add_swap_count_continuation(m, entry) < 0)
				return -ENOMEM;
			continue;
		}
		addr += PAGE_SIZE;
		src_pte++;
		dst_pte++;
	}
	return 0;
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

	if (!vma->anon_vma)
		return 0;
	for (addr = next_table(src, vma->vm_start, end); addr < end;
	     addr = next_table(src, next, end)) {
		next = table_end(addr, end);
		if (copy_pte_range(m, dst, src, addr, next))
			return -ENOMEM;
	}
	return 0;
}

/* ---- zap ---- */
static void gather(struct pyksm *m, struct mmu_gather *tlb, struct page *page)
{
	struct page **pages = grow(tlb->pages, &tlb->max, tlb->nr + 1, sizeof(*pages));

	if (!pages) { /* no host memory for the batch: give it back at once */
		free_swap_cache(m, page);
		put_page(m, page);
		return;
	}
	tlb->pages = pages;
	pages[tlb->nr++] = page;
}

static void zap_pte(struct pyksm *m, struct mmu_gather *tlb, struct mm_struct *mm, pte_t *ptep)
{
	pte_t pte = *ptep;
	struct page *page;

	COUNT(m, zap_pte);
	*ptep = 0;
	if (!pte_present(pte)) {
		mm->swapents--;
		free_swap_and_cache(m, pte_to_swp_entry(pte));
		return;
	}
	page = vm_normal_page(m, pte);
	if (!page) {
		ksm_might_unmap_zero_page(m, mm, pte);
		return;
	}
	mm->anon_rss--;
	page_remove_rmap(page);
	gather(m, tlb, page);
}

void unmap_single_vma(struct pyksm *m, struct mmu_gather *tlb, struct vm_area_struct *vma,
		      uint64_t start, uint64_t end)
{
	struct mm_struct *mm = vma->vm_mm;
	uint64_t addr, next;

	for (addr = next_table(mm, start, end); addr < end; addr = next_table(mm, next, end)) {
		pte_t *pte = pte_lookup(mm, addr);

		for (next = table_end(addr, end); addr < next; addr += PAGE_SIZE, pte++)
			if (!pte_none(*pte))
				zap_pte(m, tlb, mm, pte);
	}
}

/* No processor can reach the zapped pages any more: now they may go. */
void tlb_finish_mmu(struct pyksm *m, struct mmu_gather *tlb)
{
	for (size_t i = 0; i < tlb->nr; i++) {
		free_swap_cache(m, tlb->pages[i]);
		put_page(m, tlb->pages[i]);
	}
	free(tlb->pages);
}
