/* SPDX-License-Identifier: MIT */
/* swapoff: bring every slot of an area back (kernel: try_to_unuse and unuse_* of mm/swapfile.c, 3.9). */
#include "internal.h"
#include "simd.h"

/* The slot being emptied. */
struct unuse {
	swp_entry_t entry;
	struct page *page;
	bool fresh; /* read in this visit: still in a per-CPU batch, where activate_page() finds nothing */
	struct unuse_index *index; /* of swapoff_computed.c; NULL: walk */
};

static unsigned char in_use(const unsigned char *map)
{
	return *map & (unsigned char)~SWAP_HAS_CACHE;
}

static void unuse_pte_done(struct pyksm *m, const struct vm_area_struct *vma, uint64_t addr,
			   const struct page *swapcache, struct page *page)
{
	pte_unlock(m, vma->vm_mm, addr);
	if (page == swapcache)
		return;
	unlock_page(m, page);
	put_page(m, page);
}

/* A fault, or whoever unmaps, was there first. */
static int unuse_pte_lost(struct pyksm *m, const struct vm_area_struct *vma, uint64_t addr,
			  const struct page *swapcache, struct page *page)
{
	unuse_pte_done(m, vma, addr, swapcache, page);
	return 0;
}

/*
 * Map the page where the swap pte was, or a copy where the page may not be mapped (9e16b7fb1d06, 3.9).
 * 1: done, -ENOMEM.
 */
static int unuse_pte(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, pte_t *pte,
		     struct unuse *u)
{
	struct page *swapcache = u->page, *page = swapcache;
	pte_t orig = *pte;
	bool charge;

	COUNT(m, unuse_pte);
	if (!switched(m, PYKSM_SW_UNUSE_PTE_NO_COPY) &&
	    !bugged(m, BUG_KSM_SWAPOFF_RESURRECTS_KSM_PAGE))
		page = ksm_might_need_to_copy(m, swapcache, vma, addr);
	if (!page)
		return -ENOMEM;
	pte_lock(m, vma->vm_mm, addr, PT_UNUSE_PTE_PTL);
	if (in_task(m) && *pte != orig && !bugged(m, BUG_UNUSE_PTE_NO_PTE_SAME))
		return unuse_pte_lost(m, vma, addr, swapcache, page);
	vma->vm_mm->swapents--;
	vma->vm_mm->anon_rss++;
	get_page(page);
	*pte = mk_pte(m, page, vma) & ~_PAGE_ACCESSED;
	charge = try_charge_swapin(m, page);
	if (page == swapcache)
		page_add_anon_rmap(m, page, vma, addr);
	else
		page_add_new_anon_rmap(m, page, vma, addr);
	commit_charge_swapin(m, page, charge);
	swap_free(m, u->entry);
	/* 3.9 has no batches here: what was just read must not be activated all the same. */
	if (page != swapcache || !u->fresh || lru_has_batches(m))
		activate_page(m, page);
	unuse_pte_done(m, vma, addr, swapcache, page);
	return 1;
}

/* swapoff spends its time here. At most one pte of a visit is the entry: one that is comes to an end. */
static int unuse_pte_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, uint64_t end,
			   struct unuse *u)
{
	pte_t *first = pte_lookup(vma->vm_mm, addr);
	uint64_t i, n = (end - addr) >> PAGE_SHIFT;

	COUNT(m, unuse_pte_range);
	i = simd()->find_pte(first, n, swp_marks(m), swp_entry_to_pte(m, u->entry));
	COUNT_N(m, unuse_pte_compared, i < n ? i + 1 : n);
	return i < n ? unuse_pte(m, vma, addr + (i << PAGE_SHIFT), &first[i], u) : 0;
}

static int unuse_vma(struct pyksm *m, struct vm_area_struct *vma, struct unuse *u)
{
	uint64_t addr = vma->vm_start, end = vma->vm_end, next;
	int ret = 0;

	COUNT(m, unuse_vma);
	/*
	 * The 2004 shortcut: once one pte has been found the page has an owner, and in each other vma
	 * there is one address to look at. A KSM page has none, a fresh page not yet: look everywhere.
	 */
	if (page_has_anon_vma(u->page) && !switched(m, PYKSM_SW_UNUSE_VMA_BRUTE_FORCE)) {
		addr = page_address_in_vma(m, u->page, vma);
		if (addr == BAD_ADDRESS)
			return 0;
		end = addr + PAGE_SIZE;
	}
	for (addr = next_table(vma->vm_mm, addr, end); addr < end && !ret;
	     addr = next_table(vma->vm_mm, next, end)) {
		next = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
		ret = unuse_pte_range(m, vma, addr, next < end ? next : end, u);
	}
	return ret;
}

/*
 * A page lock is not to be held while mmap_sem is waited for: it is let go, and whatever else happens to the page
 * meanwhile each later step has to find out.
 */
static void down_read_unlocked(struct pyksm *m, struct mm_struct *mm, struct page *page)
{
	if (down_read_trylock(m, mm, PT_UNUSE_MMAP_SEM_TRYLOCK))
		return;
	activate_page(m, page);
	unlock_page(m, page);
	down_read(m, mm, PT_UNUSE_MMAP_SEM);
	lock_page(m, page, PT_UNUSE_RELOCK_PAGE);
}

/* At most one pte of an mm is brought back in a visit. */
static int unuse_mm(struct pyksm *m, struct mm_struct *mm, struct unuse *u)
{
	struct vm_area_struct *vma;
	struct unuse_hit hit;
	int ret = 0;

	COUNT(m, unuse_mm);
	if (u->index) {
		if (unuse_index_find(m, u->index, mm, u->page, u->entry, &hit))
			ret = unuse_pte(m, hit.vma, hit.addr, hit.pte, u);
		return ret < 0 ? ret : 0;
	}
	down_read_unlocked(m, mm, u->page);
	for (vma = mm->mmap; vma && !ret; vma = vma->vm_next)
		if (vma->anon_vma)
			ret = unuse_vma(m, vma, u);
	up_read(m, mm);
	return ret < 0 ? ret : 0;
}

/* The next slot in use after prev, once around the end; 0: none left. */
static uint64_t find_next_to_unuse(struct pyksm *m, const struct swap_info_struct *si,
				   uint64_t prev)
{
	uint64_t i = next_slot_in_use(m, si, prev + 1, si->max);

	if (i < si->max)
		return i;
	i = next_slot_in_use(m, si, 1, prev + 1);
	return i <= prev ? i : 0;
}

static struct mm_struct *swap_list_mm(struct list_head *pos)
{
	return container_of(pos, struct mm_struct, mmlist);
}

/* init_mm heads the list and is nobody's: it only takes part in the counting of users. */
static void mm_unpin(struct pyksm *m, struct mm_struct *mm)
{
	if (mm == &m->swap.init_mm)
		mm->mm_users--;
	else
		mmput(m, mm);
}

static void ring_unpin(struct pyksm *m, struct mm_struct *mm)
{
	if (in_task(m))
		mm_unpin(m, mm);
}

/*
 * Ask every mm on the list for its pte of the entry, from start_mm's successor around to it. The first
 * that helped where start_mm did not is where the search for the next entry will start.
 */
static int unuse_ring(struct pyksm *m, struct mm_struct **start_mm, const unsigned char *map,
		      unsigned char swcount, struct unuse *u)
{
	struct mm_struct *start = *start_mm, *new_start = start, *init = &m->swap.init_mm;
	struct mm_struct *prev = start; /* held, or a place on the list might go with it */
	bool set_start_mm = *map >= swcount;
	struct list_head *pos = &start->mmlist;
	int ret = 0;

	new_start->mm_users++;
	mmget(m, prev);
	sched_point(m, PT_MMLIST_LOCK);
	while (in_use(map) && !ret && (pos = pos->next) != &start->mmlist) {
		struct mm_struct *mm = swap_list_mm(pos);

		if (!mm->mm_users && !bugged(m, BUG_TRY_TO_UNUSE_NO_MM_USERS))
			continue; /* on its way out: it will free its slots itself */
		mmget(m, mm);
		ring_unpin(m, prev);
		prev = mm;
		swcount = *map;
		if (mm == init)
			set_start_mm = true;
		else if (in_use(map))
			ret = unuse_mm(m, mm, u);
		if (set_start_mm && *map < swcount) {
			mm_unpin(m, new_start);
			mm->mm_users++;
			new_start = mm;
			set_start_mm = false;
		}
		sched_point(m, PT_MMLIST_LOCK);
	}
	ring_unpin(m, prev);
	mm_unpin(m, start);
	*start_mm = new_start;
	return ret;
}

static void wait_on_unuse_writeback(struct pyksm *m, const struct page *page)
{
	if (!(page->flags & PG_writeback))
		return;
	sched_point(m, PT_UNUSE_WRITEBACK);
	end_all_writeback(m);
}

static bool keeps_shared_cache(const struct pyksm *m)
{
	return has(m, FEAT_SWAPOFF_KEEPS_SHARED_CACHE) || bugged(m, BUG_KSM_SWAPOFF_LOOP_4_19_0);
}

/*
 * Whoever still needs the entry will find it in its slot: write what is only in the page, then let go
 * of the page, or two owners would have to share it. Kernel: the end of try_to_unuse's loop.
 */
static void drop_from_cache(struct pyksm *m, const unsigned char *map, struct unuse *u)
{
	struct page *page = u->page;

	if (in_use(map) && (page->flags & PG_dirty) && (page->flags & PG_swapcache)) {
		swap_writepage(m, page);
		lock_page(m, page, PT_UNUSE_RELOCK_PAGE);
		wait_on_unuse_writeback(m, page);
	}
	if ((page->flags & PG_swapcache) && page->private == u->entry.val &&
	    !(in_use(map) && keeps_shared_cache(m)))
		delete_from_swap_cache(m, page);
	page->flags |= PG_dirty; /* no pte was marked so: reclaim must not take it for clean */
}

/* All that one visit does for an entry. */
static int unuse_entry(struct pyksm *m, struct mm_struct **start_mm, const unsigned char *map,
		       struct unuse *u)
{
	unsigned char swcount = *map;
	int ret = 0;

	if (in_use(map) && *start_mm != &m->swap.init_mm)
		ret = unuse_mm(m, *start_mm, u);
	if (in_use(map) && !ret)
		ret = unuse_ring(m, start_mm, map, swcount, u);
	return ret;
}

/* The memcpy policy: a second page for the entry from the page in hand, instead of a read to come. */
static int copy_in_hand(struct pyksm *m, struct unuse *u)
{
	struct page *old = u->page, *copy = swap_cache_copy(m, u->entry, old);

	unlock_page(m, old);
	put_page(m, old);
	if (!copy)
		return -ENOMEM;
	u->page = copy;
	u->fresh = true;
	return 0;
}

/* start_mm's process has exited and only swapoff keeps its memory: let it go. */
static void forget_dying_start_mm(struct pyksm *m, struct mm_struct **start_mm)
{
	if ((*start_mm)->mm_users != 1 || *start_mm == &m->swap.init_mm)
		return;
	mm_unpin(m, *start_mm);
	*start_mm = &m->swap.init_mm;
	(*start_mm)->mm_users++;
}

static int visit_entry(struct pyksm *m, struct swap_info_struct *si, uint64_t i,
		       struct mm_struct **start_mm, struct unuse_index *index)
{
	struct unuse u = { swp_entry((unsigned int)si->type, i), NULL, false, index };
	const unsigned char *map = &si->swap_map[i];
	int err;

	u.page = read_swap_cache_async(m, u.entry, NULL, &u.fresh);
	if (!u.page)
		return *map ? -ENOMEM : 0;
	for (;;) {
		forget_dying_start_mm(m, start_mm);
		lock_page(m, u.page, PT_UNUSE_LOCK_PAGE); /* a racing fault goes first here */
		wait_on_unuse_writeback(m, u.page);
		err = unuse_entry(m, start_mm, map, &u);
		if (err)
			break;
		drop_from_cache(m, map, &u);
		if (!in_use(map) || m->policy != PYKSM_POLICY_MEMCPY)
			break;
		err = copy_in_hand(m, &u);
		if (err)
			return err;
	}
	unlock_page(m, u.page);
	put_page(m, u.page);
	return err;
}

/*
 * 4.14 to 4.20 (e07098294adf, mended by 7af7a8e19f0c): the page stays in the cache as the first family's, so no
 * other ever matches, and the visits go on. The kernel's loop ends by a signal, ours by itself.
 */
static bool goes_for_ever(struct pyksm *m, const struct swap_info_struct *si, uint64_t idle)
{
	bool may = keeps_shared_cache(m) || (any_bug(m) && !in_task(m));

	if (!may || idle <= si->inuse_pages)
		return false;
	event(m, "try_to_unuse makes no progress");
	return true;
}

int try_to_unuse(struct pyksm *m, unsigned int type)
{
	struct swap_info_struct *si = &m->swap.info[type];
	struct mm_struct *start_mm = &m->swap.init_mm;
	struct unuse_index *index = unuse_index_new(m, type);
	uint64_t i = 0, idle = 0, before;
	int err = 0;

	COUNT(m, try_to_unuse);
	start_mm->mm_users++;
	while (!err && (i = find_next_to_unuse(m, si, i))) {
		before = COUNTED(m, unuse_pte) - si->inuse_pages;
		sched_point(m, PT_UNUSE_NEXT_ENTRY);
		err = signal_pending(m) ? -EINTR : visit_entry(m, si, i, &start_mm, index);
		idle = before == COUNTED(m, unuse_pte) - si->inuse_pages ? idle + 1 : 0;
		if (!err && goes_for_ever(m, si, idle))
			err = -ETIMEDOUT;
		if (idle >
		    si->inuse_pages) /* a round for nothing: who has the entries has to go on */
			sched_yield_point(m, PT_UNUSE_RETRY);
	}
	mm_unpin(m, start_mm);
	unuse_index_free(m, index);
	return err;
}
