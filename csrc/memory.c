/* SPDX-License-Identifier: MIT */
/* Faults (kernel: mm/memory.c, of which the rest is in memory_range.c). */
#include "internal.h"

/* The present page at addr, the zero page included; NULL: none. */
struct page *present_page(const struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	pte_t *pte = pte_lookup(mm, addr);

	return pte && pte_present(*pte) ? pfn_to_page(m, pte_pfn(*pte)) : NULL;
}

/* The same, but for a while PROT_NONE pages were passed over (6.1, 474098edac26). */
struct page *follow_page(const struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	const pte_t *pte = pte_lookup(mm, addr);

	if (pte && !(*pte & _PAGE_PRESENT) && has(m, FEAT_BREAK_SKIPS_PROT_NONE))
		return NULL;
	return present_page(m, mm, addr);
}

/* The same with a reference, which is taken before the pte can change. mmap_sem is held. */
struct page *follow_page_get(struct pyksm *m, struct mm_struct *mm, uint64_t addr,
			     enum sched_point point)
{
	struct page *page;

	if (in_task(m) && !pte_lookup(mm, addr))
		return NULL;
	pte_lock(m, mm, addr, point);
	page = follow_page(m, mm, addr);
	if (page)
		get_page(page);
	pte_unlock(m, mm, addr);
	return page;
}

/* Has another task changed it since it was read? (kernel: !pte_same()) */
static inline bool pte_raced(const struct pyksm *m, const pte_t *pte, pte_t orig)
{
	return in_task(m) && *pte != orig;
}

/* ---- faults ---- */
/* Frame 0, the zero page. */
static int map_zero_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte)
{
	pte_lock(m, vma->vm_mm, addr, PT_ANONYMOUS_PTL);
	if (!pte_raced(m, pte, 0))
		*pte = vm_page_prot(vma) | _PAGE_SPECIAL;
	pte_unlock(m, vma->vm_mm, addr);
	return 0;
}

static int do_anonymous_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			     bool write)
{
	struct page *page;
	pte_t entry;

	COUNT(m, do_anonymous_page);
	if (!write)
		return map_zero_page(m, vma, addr, pte);
	if (anon_vma_prepare(m, vma))
		return VM_FAULT_OOM;
	page = alloc_page_vma(m, vma);
	if (!page)
		return VM_FAULT_OOM;
	clear_highpage(m, page);
	page->flags |= PG_uptodate;
	entry = mk_pte(m, page, vma);
	if (vma->vm_flags & VM_WRITE)
		entry = pte_mkdirty(m, entry) | _PAGE_RW;
	pte_lock(m, vma->vm_mm, addr, PT_ANONYMOUS_PTL);
	if (pte_raced(m, pte, 0)) {
		pte_unlock(m, vma->vm_mm, addr);
		put_page(m, page);
		return 0;
	}
	vma->vm_mm->anon_rss++;
	page_add_new_anon_rmap(m, page, vma, addr);
	*pte = entry;
	pte_unlock(m, vma->vm_mm, addr);
	return 0;
}

/* The copy that a write gets: of the old page, or zeros where the zero page was mapped. */
struct page *wp_new_page(struct pyksm *m, struct vm_area_struct *vma, const struct page *old)
{
	struct page *page = alloc_page_vma(m, vma);

	if (!page)
		return NULL;
	if (old)
		copy_user_highpage(m, page, old);
	else
		clear_highpage(m, page);
	page->flags |= PG_uptodate;
	return page;
}

/* The copy is made, and orig still stands: it comes in the place of the old page. */
static EXPANDED void wp_install(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
				pte_t *pte, struct page *page, bool unshare)
{
	struct page *old = vm_normal_page(m, *pte);
	pte_t entry = mk_pte(m, page, vma);

	if (!old) {
		vma->vm_mm->anon_rss++;
		ksm_might_unmap_zero_page(m, vma->vm_mm, *pte);
	}
	if (unshare)
		entry |= *pte & _PAGE_SOFT_DIRTY;
	else
		entry = maybe_mkwrite(pte_mkdirty(m, entry), vma);
	page_add_new_anon_rmap(m, page, vma, addr);
	*pte = entry;
	if (old) /* not before its pte has gone: others take a page that is mapped once for theirs */
		page_remove_rmap(m, old, vma);
}

/* While no lock is held the old page is kept by a reference. */
static void wp_hold(const struct pyksm *m, struct page *old)
{
	if (in_task(m) && old)
		get_page(old);
}

static void wp_release(struct pyksm *m, struct page *old)
{
	if (in_task(m) && old)
		put_page(m, old);
}

/* Who may still have the old page need not have it locked. Since 5.18 the rmap has seen to that. */
static RARELY void wp_munlock(struct pyksm *m, struct page *old)
{
	if (has(m, FEAT_MLOCK_COUNT))
		return;
	lock_page(m, old, PT_WP_MUNLOCK_LOCK_PAGE);
	munlock_vma_page(m, old);
	unlock_page(m, old);
}

/*
 * A page of our own in place of the one that is mapped; read-only and clean if that is all unsharing asks. The
 * pte lock is let go.
 */
static EXPANDED int wp_page_copy(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
				 pte_t *pte, bool unshare)
{
	pte_t orig = *pte;
	struct page *old = vm_normal_page(m, orig), *page = NULL;
	bool raced;

	wp_hold(m, old);
	pte_unlock(m, vma->vm_mm, addr);
	if (!anon_vma_prepare(m, vma))
		page = wp_new_page(m, vma, old);
	if (!page) {
		wp_release(m, old);
		return VM_FAULT_OOM;
	}
	pte_lock(m, vma->vm_mm, addr, PT_WP_COPY_PTL);
	raced = pte_raced(m, pte, orig);
	if (!raced)
		wp_install(m, vma, addr, pte, page, unshare);
	pte_unlock(m, vma->vm_mm, addr);
	if (raced) {
		put_page(m, page);
	} else if (old) {
		if (__builtin_expect(vma->vm_flags & VM_LOCKED, 0))
			wp_munlock(m, old);
		if (has(m, FEAT_COW_FREES_SWAP_CACHE))
			free_swap_cache(m, old);
		put_page(m, old);
	}
	wp_release(m, old);
	return unshare || raced ? 0 : VM_FAULT_WRITE;
}

/* Under the pte lock a page lock can only be tried for; who waits looks at the pte again. false: it has changed. */
static bool wp_lock_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			 struct page *page)
{
	pte_t orig = *pte;

	if (trylock_page(m, page, PT_WP_TRYLOCK_PAGE))
		return true;
	get_page(page);
	pte_unlock(m, vma->vm_mm, addr);
	lock_page(m, page, PT_WP_LOCK_PAGE);
	pte_lock(m, vma->vm_mm, addr, PT_WP_PTL);
	put_page(m, page);
	if (!pte_raced(m, pte, orig))
		return true;
	unlock_page(m, page);
	return false;
}

/* What a write comes to; RACED: the pte is no longer what it was, so that there is nothing to be done here. */
enum wp_verdict { WP_COPY, WP_REUSE, WP_RACED };

/* At first: a page that is mapped here alone, and by no swap pte either. */
static enum wp_verdict reuse_by_mapcount(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
					 pte_t *pte, struct page *page)
{
	bool reuse;

	/* A KSM page is copied always: its other users may not even be mapping it now. */
	if (PageKsm(page))
		return WP_COPY;
	if (!wp_lock_page(m, vma, addr, pte, page))
		return WP_RACED;
	reuse = reuse_swap_page(m, page);
	if (reuse)
		page_move_anon_rmap(m, page, vma);
	unlock_page(m, page);
	return reuse ? WP_REUSE : WP_COPY;
}

/* From 5.9 (09854ba94c6a): a page that nothing else refers to, which the swap cache does too. */
static bool reuse_by_refcount(const struct page *page)
{
	return !PageKsm(page) && page_count(page) == 1;
}

/* More than the pte, the swap cache and a batch have: it is not worth draining. The LRU's batch has none here. */
static inline bool has_many_references(const struct pyksm *m, const struct page *page)
{
	return page_count(page) >= 3 && page_count(page) + lru_add_pending(m, page) > 3;
}

/* From 5.19 (6c287605fd56): a page marked as ours; else it must be, once the swap cache has let go of it. */
static EXPANDED bool reuse_exclusive(struct pyksm *m, struct vm_area_struct *vma, struct page *page)
{
	bool reuse;

	if (page->flags & PG_anon_exclusive)
		return true;
	if (PageKsm(page) || has_many_references(m, page))
		return false;
	if (!(page->flags & PG_lru))
		lru_add_drain(m); /* the kernel's batch might hold the reference that is too many */
	if (page_count(page) > 1 + !!(page->flags & PG_swapcache) ||
	    !trylock_page(m, page, PT_WP_TRYLOCK_PAGE))
		return false;
	if (page->flags & PG_swapcache)
		try_to_free_swap(m, page);
	reuse = !PageKsm(page) && page_count(page) == 1;
	if (reuse)
		page_move_anon_rmap(m, page, vma);
	unlock_page(m, page);
	return reuse;
}

/* May the page that is mapped stay, written to or unshared as it is? */
static EXPANDED enum wp_verdict wp_can_reuse(struct pyksm *m, struct vm_area_struct *vma,
					     uint64_t addr, pte_t *pte, struct page *page)
{
	if (bugged(m, BUG_COW_GUP_WRONG_SIDE))
		return reuse_by_mapcount(m, vma, addr, pte, page);
	if (has(m, FEAT_ANON_EXCLUSIVE))
		return reuse_exclusive(m, vma, page) ? WP_REUSE : WP_COPY;
	if (has(m, FEAT_REUSE_BY_REFCOUNT))
		return reuse_by_refcount(page) ? WP_REUSE : WP_COPY;
	return reuse_by_mapcount(m, vma, addr, pte, page);
}

/*
 * Is the pte write-protected for a userfaultfd (5.7, 529b930b87d9)? There is none here, but an order that says so: one
 * with UFFD_FEATURE_SIGBUS, or a fault that may not wait for whoever listens.
 */
static RARELY bool userfaultfd_pte_wp(struct pyksm *m)
{
	return has(m, FEAT_UFFD_WP) && should_fail(m, PYKSM_FAIL_USERFAULT);
}

/*
 * A write to (or the unsharing of) a page that is present but not writable: take it over or copy it. With the pte
 * lock held, which is let go.
 */
static EXPANDED int do_wp_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
			       pte_t *pte, bool unshare)
{
	struct page *page = vm_normal_page(m, *pte);
	enum wp_verdict verdict;
	int ret = 0;

	COUNT(m, do_wp_page);
	if (__builtin_expect(m->inject[PYKSM_FAIL_USERFAULT][0] != 0, 0) && !unshare &&
	    userfaultfd_pte_wp(m)) {
		pte_unlock(m, vma->vm_mm, addr);
		return VM_FAULT_SIGBUS;
	}
	verdict = page ? wp_can_reuse(m, vma, addr, pte, page) : WP_COPY;
	/* Only with zero pages that KSM has put there does unsharing have to do with them (6.2). */
	if (!page && unshare && !has(m, FEAT_UNSHARE_BREAK))
		verdict = WP_RACED;
	if (verdict == WP_COPY) {
		if (page && PageKsm(page) && has(m, FEAT_KSM_EVENT_COUNTS))
			m->vm[COW_KSM]++;
		return wp_page_copy(m, vma, addr, pte, unshare);
	}
	if (verdict == WP_REUSE && !unshare) {
		*pte = maybe_mkwrite(pte_mkdirty(m, *pte) | _PAGE_ACCESSED, vma);
		ret = VM_FAULT_WRITE;
	}
	pte_unlock(m, vma->vm_mm, addr);
	return ret;
}

/* ---- swap-in ---- */
struct swapin {
	swp_entry_t entry;
	pte_t orig;
	struct page *page, *swapcache; /* two if it had to be copied; no swapcache: read past it */
	bool claimed; /* the slot, to read it past the swap cache */
	uint64_t denied; /* pages, when the fault began */
};

static bool is_copy(const struct swapin *in)
{
	return in->swapcache && in->page != in->swapcache;
}

/*
 * Of a kernel that holds on to areas it is an oops to find one gone. One that does not would do the same; what it does
 * here is to look again.
 */
static bool area_is_gone(const struct pyksm *m, const struct swap_info_struct *si,
			 swp_entry_t entry)
{
	bool gone = in_task(m) && swp_offset(entry) >= si->max;

	assert(!gone || !has(m, FEAT_SWAP_DEVICE_PINNED)); /* what is known of its slots is freed */
	return gone;
}

/*
 * Since 4.15 a device that answers at once is read without the swap cache where nobody else wants the slot (that
 * it is claimed all the same: 13ddaf26be32, 6.8). NULL, *again: not now, who has claimed it comes first.
 */
static RARELY struct page *swapin_direct(struct pyksm *m, struct vm_area_struct *vma,
					 struct swap_info_struct *si, struct swapin *in,
					 bool *again)
{
	bool claims = has(m, FEAT_SWAPIN_CLAIMS) && !bugged(m, BUG_SWAP_SKIP_CACHE_ABA);
	struct page *page = alloc_page_vma(m, vma);
	uint64_t shadow;

	if (!page)
		return NULL;
	if (claims && swapcache_prepare(m, in->entry)) {
		put_page(m, page);
		sched_yield_point(m, PT_SWAPIN_CLAIMED);
		*again = true;
		return NULL;
	}
	in->claimed = claims;
	sched_point(m, PT_SWAPIN_READ);
	if (area_is_gone(m, si, in->entry)) {
		put_page(m, page);
		*again = true;
		return NULL;
	}
	shadow = swap_table_take(m, si, swp_offset(in->entry));
	page->private = in->entry.val;
	__set_page_locked(m, page);
	swapin_new_page(m, page, shadow);
	page->private = 0;
	return page;
}

static bool goes_direct(struct pyksm *m, const struct swap_info_struct *si, swp_entry_t entry)
{
	if (!is_synchronous(m, si))
		return false;
	sched_point(m, PT_SWAPIN_COUNT);
	if (area_is_gone(m, si, entry))
		return false;
	return __swap_count(si, swp_offset(entry)) == 1;
}

/* The swapped page, referenced; *ret says where it had to be read. NULL: no memory for it, or *again. */
static struct page *swapin_page(struct pyksm *m, struct vm_area_struct *vma,
				struct swap_info_struct *si, struct swapin *in, bool *again,
				int *ret)
{
	struct page *page = find_get_page(m, in->entry);

	in->swapcache = page;
	if (page)
		return page;
	if (goes_direct(m, si, in->entry))
		page = swapin_direct(m, vma, si, in, again);
	else
		page = in->swapcache = swapin_readahead(m, in->entry, vma);
	if (page)
		*ret = VM_FAULT_MAJOR;
	return page;
}

static void put_copied(struct pyksm *m, const struct swapin *in)
{
	if (!is_copy(in))
		return;
	unlock_page(m, in->swapcache);
	put_page(m, in->swapcache);
}

static void abandon_swapin(struct pyksm *m, const struct swapin *in)
{
	unlock_page(m, in->page);
	put_page(m, in->page);
	put_copied(m, in);
}

static pte_t swapped_soft_dirty(const struct pyksm *m, pte_t swp)
{
	return has(m, FEAT_SOFT_DIRTY) && (swp & swp_soft_dirty(m)) ? _PAGE_SOFT_DIRTY : 0;
}

/* Slots are short, or the page will not be swapped out again so soon. */
static bool slot_not_worth_keeping(const struct pyksm *m, const struct vm_area_struct *vma,
				   const struct page *page)
{
	return vm_swap_full(m) || vma->vm_flags & VM_LOCKED || page->flags & PG_mlocked;
}

/*
 * Map page where the swap pte was; whether the write that was asked for is still to be done is returned.
 * Up to 5.18: mapped first, then the slot is let go.
 */
static bool map_then_free(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *ptep,
			  const struct swapin *in, bool write)
{
	struct page *page = in->page;
	pte_t pte = mk_pte(m, page, vma) | swapped_soft_dirty(m, in->orig);
	bool exclusive = false, charge = try_charge_swapin(m, page);

	if (write && reuse_swap_page(m, page)) {
		pte = maybe_mkwrite(pte_mkdirty(m, pte), vma);
		exclusive = true;
	}
	*ptep = pte;
	if (!is_copy(in))
		do_page_add_anon_rmap(m, page, vma, addr, exclusive);
	else
		page_add_new_anon_rmap(m, page, vma, addr);
	commit_charge_swapin(m, page, charge);
	if (!is_copy(in) && has(m, FEAT_SWAPIN_ACTIVATES))
		activate_page(m, page);
	swap_free(m, in->entry);
	if (slot_not_worth_keeping(m, vma, page))
		try_to_free_swap(m, page);
	return write && !exclusive;
}

/* From 5.19: the slot first, so that a page nobody else can want is known by its references. */
static bool free_then_map(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *ptep,
			  const struct swapin *in, bool write)
{
	struct page *page = in->page;
	bool exclusive = !PageKsm(page) && (page != in->swapcache || (in->orig & swp_exclusive(m)));
	pte_t pte;

	swap_free(m, in->entry);
	if ((page->flags & PG_swapcache) && (slot_not_worth_keeping(m, vma, page) ||
					     (write && !PageKsm(page) && page_count(page) == 2)))
		try_to_free_swap(m, page);
	pte = mk_pte(m, page, vma) | swapped_soft_dirty(m, in->orig);
	if (!PageKsm(page) && page_count(page) == 1)
		exclusive = true;
	if (exclusive && write)
		pte = maybe_mkwrite(pte_mkdirty(m, pte), vma);
	else if (exclusive && has(m, FEAT_SWAPIN_MAPS_WRITABLE) &&
		 !pte_needs_soft_dirty_wp(m, vma, pte))
		pte = maybe_mkwrite(pte, vma);
	if (!is_copy(in))
		do_page_add_anon_rmap(m, page, vma, addr, exclusive);
	else
		page_add_new_anon_rmap(m, page, vma, addr);
	*ptep = pte;
	return write && !exclusive;
}

static int non_swap_fault(struct pyksm *m, struct mm_struct *mm, uint64_t addr, swp_entry_t entry)
{
	enum migration_kind kind;

	if (is_migration_entry(m, entry, &kind)) {
		migration_entry_wait(m, mm, addr);
		return 0;
	}
	assert(is_swapin_error_entry(m, entry));
	return has(m, FEAT_SWAPIN_POISON_MARKER) ? VM_FAULT_HWPOISON : VM_FAULT_SIGBUS;
}

/* While its lock was waited for the page may have left the swap cache, or come back for another slot. */
static bool is_still_of_entry(const struct pyksm *m, const struct page *page, swp_entry_t entry)
{
	if (bugged(m, BUG_SWAPIN_CACHE_PAGE_REMOVED_ABA))
		return true;
	if (bugged(m, BUG_SWAPIN_CACHE_PAGE_MOVED_ABA))
		return page->flags & PG_swapcache;
	return (page->flags & PG_swapcache) && page->private == entry.val;
}

/* The page locked, and known to be the entry's; false: *ret has what the fault comes to. */
static bool lock_swapped_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr,
			      struct swapin *in, int *ret)
{
	struct page *page = in->page;
	struct mm_struct *mm = vma->vm_mm;

	mm->readers++; /* mmap_sem is held for reading while the page lock is waited for */
	lock_page(m, page, PT_SWAP_PAGE_LOCK_PAGE);
	mm->readers--;
	if (!in->swapcache)
		return true; /* nobody else knows of it */
	if (!is_still_of_entry(m, page, in->entry)) {
		unlock_page(m, page);
		put_page(m, page);
		return false;
	}
	in->page = ksm_might_need_to_copy(m, page, vma, addr);
	if (in->page)
		return true;
	unlock_page(m, page);
	put_page(m, page);
	*ret = VM_FAULT_OOM;
	return false;
}

/* A batch's reference would look like another user's to a writer; even if the page turns out not to be read. */
static void drain_for_writer(struct pyksm *m, const struct swapin *in, bool write)
{
	if (write && has(m, FEAT_ANON_EXCLUSIVE) && in->page == in->swapcache &&
	    !PageKsm(in->page) && !(in->page->flags & PG_lru))
		lru_add_drain(m);
}

/*
 * No page for the entry: no memory, or its slot was free when it was looked at. The pte tells them apart, unless the
 * page has been brought in and swapped out again, to the same slot: then memory gets the blame.
 */
static int swapin_without_page(struct pyksm *m, struct mm_struct *mm, uint64_t addr,
			       const pte_t *pte, const struct swapin *in)
{
	bool raced;

	pte_lock(m, mm, addr, PT_SWAP_PAGE_PTL);
	raced = pte_raced(m, pte, in->orig);
	pte_unlock(m, mm, addr);
	if (raced)
		return 0;
	if (m->memory_denied != in->denied)
		return VM_FAULT_OOM;
	m->oom_leaked++;
	return VM_FAULT_OOM | VM_FAULT_LEAKED;
}

/* The page is locked and the pte lock held, which is let go: is the pte still the entry, and the page good? */
static bool swapin_settled(struct pyksm *m, struct mm_struct *mm, uint64_t addr, const pte_t *pte,
			   const struct swapin *in, int *ret)
{
	bool same = *pte == in->orig || bugged(m, BUG_DO_SWAP_PAGE_NO_PTE_SAME);

	if (same && (in->page->flags & PG_uptodate))
		return true;
	*ret = !same ? *ret : VM_FAULT_SIGBUS;
	pte_unlock(m, mm, addr);
	abandon_swapin(m, in);
	return false;
}

static int __do_swap_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			  struct swap_info_struct *si, struct swapin *in, bool write)
{
	struct mm_struct *mm = vma->vm_mm;
	bool again = false;
	int ret = 0;

	in->page = swapin_page(m, vma, si, in, &again, &ret);
	if (!in->page)
		return again ? 0 : swapin_without_page(m, mm, addr, pte, in);
	if (!lock_swapped_page(m, vma, addr, in, &ret))
		return ret;
	drain_for_writer(m, in, write);
	pte_lock(m, mm, addr, PT_SWAP_PAGE_PTL);
	pte = pte_lookup(mm, addr); /* a hook may have had the table go */
	if (!swapin_settled(m, mm, addr, pte, in, &ret))
		return ret;
	mm->anon_rss++;
	mm->swapents--;
	if (has(m, FEAT_ANON_EXCLUSIVE))
		write = free_then_map(m, vma, addr, pte, in, write);
	else
		write = map_then_free(m, vma, addr, pte, in, write);
	unlock_page(m, in->page);
	put_copied(m, in);
	if (!write) {
		pte_unlock(m, mm, addr);
		return ret;
	}
	ret |= do_wp_page(m, vma, addr, pte, false);
	return ret & VM_FAULT_OOM ? VM_FAULT_OOM : ret;
}

static int do_swap_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			pte_t orig, unsigned int flags)
{
	struct swapin in = { .entry = pte_to_swp_entry(m, orig),
			     .orig = orig,
			     .denied = m->memory_denied };
	struct swap_info_struct *si;
	int ret;

	COUNT(m, do_swap_page);
	if (non_swap_entry(m, in.entry))
		return non_swap_fault(m, vma->vm_mm, addr, in.entry);
	si = get_swap_device(m, in.entry);
	if (!si)
		return 0; /* swapoff is done with it: the pte has changed */
	ret = __do_swap_page(m, vma, addr, pte, si, &in, flags & FAULT_FLAG_WRITE);
	if (in.claimed)
		swapcache_free(m, in.entry);
	put_swap_device(m, si);
	return ret;
}

static int handle_pte_fault(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			    unsigned int flags)
{
	bool write = flags & FAULT_FLAG_WRITE, unshare = flags & FAULT_FLAG_UNSHARE;
	pte_t entry;

	sched_point(m, PT_HANDLE_PTE_FAULT);
	entry = *pte;
	if (pte_none(entry))
		return do_anonymous_page(m, vma, addr, pte, write);
	if (!pte_present(entry))
		return do_swap_page(m, vma, addr, pte, entry, flags);
	pte_lock(m, vma->vm_mm, addr, PT_HANDLE_PTE_PTL);
	if (!pte_raced(m, pte, entry)) {
		if ((write || unshare) && !(entry & _PAGE_RW))
			return do_wp_page(m, vma, addr, pte, unshare);
		*pte |= _PAGE_ACCESSED;
		if (write)
			*pte = pte_mkdirty(m, *pte);
	}
	pte_unlock(m, vma->vm_mm, addr);
	return 0;
}

int handle_mm_fault(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, unsigned int flags)
{
	pte_t *pte;

	COUNT(m, handle_mm_fault);
	pte = pte_alloc_map(m, vma->vm_mm, addr);
	return pte ? handle_pte_fault(m, vma, addr, pte, flags) : VM_FAULT_OOM;
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

/*
 * Since 60e2793d440a (5.16) a user's access that comes to VM_FAULT_OOM is tried again, before that the OOM killer was
 * called. Where there is no memory that would go on until somebody gives some back: here it is ENOMEM.
 */
static bool tried_again(const struct pyksm *m, int fault)
{
	return fault & VM_FAULT_LEAKED && has(m, FEAT_FAULT_OOM_RETRIED);
}

static int fault_errno(int fault)
{
	if (fault & VM_FAULT_OOM)
		return -ENOMEM;
	if (fault & VM_FAULT_HWPOISON)
		return -EHWPOISON;
	return fault & VM_FAULT_SIGBUS ? -EIO : 0;
}

/*
 * One access to one page of a vma, with the faults it takes. 0 and the page, or -errno. Once there, the table of
 * the pte stays: who would free it is kept out while a fault waits.
 */
int access_vma(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool write,
	       struct page **ret)
{
	pte_t *pte = pte_lookup(vma->vm_mm, addr);
	int err;

	if (!access_allowed(vma, write))
		return -EFAULT;
	while (!hardware_access(pte, write)) {
		COUNT(m, handle_mm_fault);
		pte = pte ? pte : pte_alloc_map(m, vma->vm_mm, addr);
		if (!pte)
			return -ENOMEM;
		err = fault_errno(
			handle_pte_fault(m, vma, addr, pte, write ? FAULT_FLAG_WRITE : 0));
		if (err)
			return err;
	}
	*ret = pfn_to_page(m, pte_pfn(*pte));
	return 0;
}

/*
 * One access of a user task: the processor tries by itself, and where that does not do there is a fault, under
 * mmap_sem; then it tries again. Whoever goes between may take away what the fault has given.
 */
int user_access(struct pyksm *m, struct mm_struct *mm, uint64_t addr, bool write, struct page **ret)
{
	for (;;) {
		struct vm_area_struct *vma;
		pte_t *pte;
		int fault = 0, err = 0;

		sched_point(m, PT_USER_ACCESS);
		pte = pte_lookup(mm, addr);
		if (hardware_access(pte, write)) {
			*ret = pfn_to_page(m, pte_pfn(*pte));
			return 0;
		}
		down_read(m, mm, PT_FAULT_MMAP_SEM);
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start > addr || !access_allowed(vma, write))
			err = -EFAULT;
		else
			fault = handle_mm_fault(m, vma, addr, write ? FAULT_FLAG_WRITE : 0);
		up_read(m, mm);
		err = err ? err : fault_errno(fault);
		if (err && !tried_again(m, fault))
			return err;
	}
}

int access_page(struct pyksm *m, struct mm_struct *mm, uint64_t addr, bool write, struct page **ret)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && vma->vm_start <= addr ? access_vma(m, vma, addr, write, ret) : -EFAULT;
}
