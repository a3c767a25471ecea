/* SPDX-License-Identifier: MIT */
/*
 * swapoff since 5.1 (b56a2d8af914): each mm's page tables are walked once for all entries of the area, then
 * what only the swap cache still holds is let go, and as long as slots are in use it begins again. Kernel:
 * try_to_unuse and unuse_* of mm/swapfile.c. How it was before is in swapoff.c.
 */
#include "internal.h"
#include "simd.h"

/* The area being emptied. */
struct unuse {
	struct swap_info_struct *si;
	bool signalled; /* a pending signal stays pending */
	bool alone; /* nobody looks or interferes, nothing is ordered to fail: see unuse_sole_pte() */
};

static bool unuse_goes_on(struct pyksm *m, struct unuse *u)
{
	if (!u->si->inuse_pages && !bugged(m, BUG_SWAPOFF_SIGNAL_AND_LATE_STOP))
		return false;
	if (!u->signalled)
		u->signalled = signal_pending(m);
	return !u->signalled;
}

/* Nothing could be read: not to map garbage, a pte that says so (9f186f9e5fa9, 5.19). */
static RARELY void unuse_pte_error(struct pyksm *m, struct vm_area_struct *vma, pte_t *pte,
				   swp_entry_t entry, const struct page *page)
{
	vma->vm_mm->swapents--;
	*pte = swp_entry_to_pte(m, make_swapin_error_entry(m, page));
	swap_free(m, entry);
}

static void unuse_pte_map(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			  swp_entry_t entry, struct page *page, bool copied)
{
	pte_t old = *pte;
	bool charge = try_charge_swapin(m, page);

	vma->vm_mm->swapents--;
	vma->vm_mm->anon_rss++;
	get_page(page);
	if (copied)
		page_add_new_anon_rmap(m, page, vma, addr);
	else
		do_page_add_anon_rmap(m, page, vma, addr,
				      has(m, FEAT_ANON_EXCLUSIVE) && (old & swp_exclusive(m)));
	commit_charge_swapin(m, page, charge);
	*pte = mk_pte(m, page, vma) & ~_PAGE_ACCESSED;
	if (has(m, FEAT_SWAPOFF_SOFT_DIRTY) && (old & swp_soft_dirty(m)) &&
	    !bugged(m, BUG_SWAPOFF_LOSES_PTE_BITS))
		*pte |= _PAGE_SOFT_DIRTY;
	swap_free(m, entry);
}

/*
 * Map the page where the swap pte was; a copy where the page may not be mapped: that is how all but the
 * first of the unrelated processes get theirs.
 */
static int unuse_pte(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
		     swp_entry_t entry, struct page *swapcache, bool fresh)
{
	struct page *page = swapcache;
	bool copied, same;

	COUNT(m, unuse_pte);
	if (!switched(m, PYKSM_SW_UNUSE_PTE_NO_COPY) &&
	    !bugged(m, BUG_KSM_SWAPOFF_RESURRECTS_KSM_PAGE))
		page = ksm_might_need_to_copy(m, swapcache, vma, addr);
	if (!page)
		return -ENOMEM;
	copied = page != swapcache;
	pte_lock(m, vma->vm_mm, addr, PT_UNUSE_PTE_PTL);
	same = pte_same_as_swp(*pte, swp_entry_to_pte(m, entry), swp_marks(m)) ||
	       bugged(m, BUG_UNUSE_PTE_NO_PTE_SAME);
	if (same && !(page->flags & PG_uptodate) && has(m, FEAT_SWAPOFF_ERROR_ENTRIES) &&
	    !bugged(m, BUG_SWAPOFF_UNUSE_EIO_GARBAGE)) {
		unuse_pte_error(m, vma, pte, entry, page);
	} else if (same) {
		unuse_pte_map(m, vma, addr, pte, entry, page, copied);
		/* as in swapoff.c, until new pages began their life inactive (5.9) */
		if (!has(m, FEAT_KEEP_YOUNG_ONCE) && (copied || !fresh || lru_has_batches(m)))
			activate_page(m, page);
	}
	pte_unlock(m, vma->vm_mm, addr);
	if (copied) {
		unlock_page(m, page);
		put_page(m, page);
	}
	return 0;
}

/* For a write under way it is waited with the lock. */
static void lock_unuse_page(struct pyksm *m, struct page *page)
{
	lock_page(m, page, PT_UNUSE_LOCK_PAGE);
	if (page->flags & PG_writeback) {
		sched_point(m, PT_UNUSE_WRITEBACK);
		end_all_writeback(m);
	}
}

/* One swap pte of the area. The page in hand stays in the cache until the last pte has come for it. */
static int unuse_swap_pte(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			  swp_entry_t entry, struct unuse *u)
{
	struct page *page;
	bool fresh;
	int err;

	page = find_get_page(m, entry);
	fresh = !page;
	if (!page)
		page = swapin_readahead(m, entry, vma);
	if (!page) /* gone by itself meanwhile, or no memory for it */
		return u->si->swap_map[swp_offset(entry)] ? -ENOMEM : 0;
	vma->vm_mm->readers++; /* mmap_sem is held for reading while the page lock is waited for */
	lock_unuse_page(m, page);
	vma->vm_mm->readers--;
	/* Since 6.18 it is looked whether the page is still this entry's; before, the pte alone had to say. */
	err = unuse_pte(m, vma, addr, pte, entry, page, fresh);
	if (!err)
		try_to_free_swap(m, page);
	unlock_page(m, page);
	put_page(m, page);
	return err;
}

/*
 * A slot that is not cached and that this pte alone refers to: what it comes to that the page is put in the
 * swap cache, read, mapped, and taken out again with the slot.
 */
static int unuse_sole_pte(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
			  swp_entry_t entry, struct unuse *u)
{
	struct page *page;
	uint64_t shadow;

	COUNT(m, swapin_readahead);
	COUNT(m, read_swap_cache_async);
	page = alloc_page_vma(m, vma);
	if (!page)
		return -ENOMEM;
	shadow = swap_table_take(m, u->si, swp_offset(entry));
	page->private = entry.val;
	__set_page_locked(m, page);
	swapin_new_page(m, page, shadow);
	COUNT(m, unuse_pte);
	COUNT_N(m, ksm_might_need_to_copy, !switched(m, PYKSM_SW_UNUSE_PTE_NO_COPY));
	unuse_pte_map(m, vma, addr, pte, entry, page, false);
	COUNT(m, try_to_free_swap);
	COUNT(m, delete_from_swap_cache);
	page->private = 0;
	page->flags |= PG_dirty;
	put_page(m, page);
	return 0;
}

/* The long way goes by the swap cache, where others may find the page meanwhile. */
static bool goes_alone(const struct pyksm *m, const struct swap_info_struct *si)
{
	bool orders = false;

	for (int kind = 0; kind < PYKSM_NR_FAULT_KINDS; kind++)
		orders |= m->inject[kind][0] != 0;
	return !orders && !may_be_disturbed(m) && si->fd < 0 && has(m, FEAT_READAHEAD_ONCE) &&
	       has(m, FEAT_KEEP_YOUNG_ONCE);
}

/* The table stays where it is: who would free it is kept out while the page lock is waited for. */
static int unuse_pte_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, uint64_t end,
			   struct unuse *u)
{
	pte_t *ptes = pte_lookup(vma->vm_mm, addr);
	const pte_t present = _PAGE_PRESENT | _PAGE_PROTNONE;
	uint64_t i = 0, n = (end - addr) >> PAGE_SHIFT;
	int ret = 0;

	COUNT(m, unuse_pte_range);
	while (i < n && !ret) {
		uint64_t next = ptes[i] && !(ptes[i] & present)
					? i
					: i + simd()->find_swp_pte(&ptes[i], n - i, present);
		swp_entry_t entry;

		COUNT_N(m, unuse_pte_compared, next - i + (next < n));
		if (next == n)
			break;
		i = next + 1;
		entry = pte_to_swp_entry(m, ptes[next]);
		if (swp_type(entry) != (unsigned int)u->si->type)
			continue;
		if (u->alone && u->si->swap_map[swp_offset(entry)] == 1)
			ret = unuse_sole_pte(m, vma, addr + (next << PAGE_SHIFT), &ptes[next],
					     entry, u);
		else
			ret = unuse_swap_pte(m, vma, addr + (next << PAGE_SHIFT), &ptes[next],
					     entry, u);
	}
	return ret;
}

static int unuse_vma(struct pyksm *m, struct vm_area_struct *vma, struct unuse *u)
{
	uint64_t addr, next, end = vma->vm_end;
	int ret = 0;

	COUNT(m, unuse_vma);
	for (addr = next_table(vma->vm_mm, vma->vm_start, end); addr < end && !ret;
	     addr = next_table(vma->vm_mm, next, end)) {
		next = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
		ret = unuse_pte_range(m, vma, addr, next < end ? next : end, u);
	}
	return ret;
}

static int unuse_mm(struct pyksm *m, struct mm_struct *mm, struct unuse *u)
{
	int ret = 0;

	COUNT(m, unuse_mm);
	down_read(m, mm, PT_UNUSE_MMAP_SEM);
	for (struct vm_area_struct *vma = mm->mmap; vma && !ret; vma = vma->vm_next)
		if (vma->anon_vma)
			ret = unuse_vma(m, vma, u);
	up_read(m, mm);
	return ret;
}

static void unpin(struct pyksm *m, struct mm_struct *mm)
{
	if (mm == &m->swap.init_mm)
		mm->mm_users--;
	else
		mmput(m, mm);
}

/* Every mm on the list, each held until the next one is: the list must not be lost. */
static int unuse_mms(struct pyksm *m, struct unuse *u)
{
	struct mm_struct *prev = &m->swap.init_mm;
	struct list_head *head = &prev->mmlist, *pos = head;
	int ret = 0;

	prev->mm_users++;
	sched_point(m, PT_MMLIST_LOCK);
	while (!ret && unuse_goes_on(m, u) && (pos = pos->next) != head) {
		struct mm_struct *mm = container_of(pos, struct mm_struct, mmlist);

		if (in_task(m) && !mm->mm_users && !bugged(m, BUG_TRY_TO_UNUSE_NO_MM_USERS))
			continue; /* on its way out: it frees its slots itself */
		mm->mm_users++;
		unpin(m, prev);
		prev = mm;
		sched_point(m, PT_UNUSE_NEXT_ENTRY);
		ret = unuse_mm(m, mm, u);
		sched_point(m, PT_MMLIST_LOCK);
	}
	unpin(m, prev);
	return ret;
}

static uint64_t find_next_to_unuse(struct pyksm *m, const struct swap_info_struct *si,
				   uint64_t prev)
{
	uint64_t i = next_slot_in_use(m, si, prev + 1, si->max);

	return i < si->max ? i : 0;
}

/* Slots that no pte refers to any more, only a page in the cache does. */
static void unuse_leftovers(struct pyksm *m, struct unuse *u)
{
	uint64_t i = 0;

	while ((bugged(m, BUG_SWAPOFF_SIGNAL_AND_LATE_STOP) || unuse_goes_on(m, u)) &&
	       (i = find_next_to_unuse(m, u->si, i))) {
		struct page *page;

		sched_point(m, PT_UNUSE_NEXT_ENTRY);
		page = find_get_page(m, swp_entry((unsigned int)u->si->type, i));
		if (!page)
			continue;
		lock_unuse_page(m, page);
		try_to_free_swap(m, page);
		unlock_page(m, page);
		put_page(m, page);
	}
}

#define SWAP_UNUSE_MAX_TRIES 3 /* only with swapoff-spurious-ebusy */
#define IDLE_ROUNDS                                                                                \
	16 /* The kernel would try for ever. A model in which nothing happens any more need not. */

static uint64_t unuse_progress(struct pyksm *m, const struct unuse *u)
{
	return COUNTED(m, swap_free) + COUNTED(m, free_swap_and_cache) +
	       COUNTED(m, delete_from_swap_cache) - u->si->inuse_pages;
}

int try_to_unuse_per_mm(struct pyksm *m, unsigned int type)
{
	struct unuse u = { &m->swap.info[type], false, goes_alone(m, &m->swap.info[type]) };
	int idle = 0, tries = 0;

	COUNT(m, try_to_unuse);
	while (u.si->inuse_pages) {
		uint64_t before = unuse_progress(m, &u);
		int err = unuse_mms(m, &u);

		if (err)
			return err;
		unuse_leftovers(m, &u);
		/* A signal counts only where there is something left to be interrupted. */
		if (u.si->inuse_pages && !bugged(m, BUG_SWAPOFF_SIGNAL_AND_LATE_STOP) &&
		    !unuse_goes_on(m, &u))
			return -EINTR;
		if (bugged(m, BUG_SWAPOFF_SPURIOUS_EBUSY) && ++tries == SWAP_UNUSE_MAX_TRIES)
			return -EBUSY;
		idle = before == unuse_progress(m, &u) ? idle + 1 : 0;
		if (idle && in_task(m)) {
			/* Another one has what is left in hand; for one that never lets go of it there is a bound of steps. */
			sched_yield_point(m, PT_UNUSE_RETRY);
			idle = 0;
		}
		if (u.si->inuse_pages && idle == IDLE_ROUNDS) {
			event(m, "try_to_unuse makes no progress");
			return -ETIMEDOUT;
		}
	}
	return 0;
}
