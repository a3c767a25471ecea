/* SPDX-License-Identifier: MIT */
/* Reclaim of anonymous pages (kernel: mm/vmscan.c). The LRU lists are in lru.c. */
#include "internal.h"

#define SWAP_CLUSTER_MAX 32
#define DEF_PRIORITY 12
#define IDLE_TURNS 16
#define IDLE_TURNS_OF_TASK 2

static struct page *page_of_lru(struct list_head *pos)
{
	return container_of(pos, struct page, lru);
}

/* From 4.6 on, until 5.8 weighed costs instead. */
static bool scans_by_fraction(const struct pyksm *m)
{
	return has(m, FEAT_SCAN_ANON_BY_FRACTION) && !has(m, FEAT_KEEP_YOUNG_ONCE);
}

/* ---- one page ---- */
enum verdict { ACTIVATE, KEEP, RECLAIM, FREED, CULLED, UNEVICTABLE };

/* Write the page if it is dirty and only reclaim and the swap cache hold it. true: it is clean. */
static bool pageout(struct pyksm *m, struct page *page, bool *locked)
{
	sched_point(m, PT_PAGEOUT);
	if (page_count(page) != 2)
		return false; /* somebody is using it */
	page->flags &= ~(uint32_t)PG_dirty;
	page->flags |= PG_reclaim;
	swap_writepage(m, page);
	*locked = false;
	if (page->flags & PG_writeback)
		return false; /* it is for another turn to see the end of that */
	page->flags &= ~(uint32_t)PG_reclaim;
	if (page->flags & PG_dirty)
		return false; /* no longer in the cache: nothing was written */
	*locked = trylock_page(m, page, PT_PAGEOUT_TRYLOCK_PAGE); /* zeros, which need no writing */
	return *locked && !(page->flags & (PG_dirty | PG_writeback));
}

/* Take the page from the swap cache if nobody else holds it and nothing is left to write. */
static bool __remove_mapping(struct pyksm *m, struct page *page)
{
	sched_point(m, PT_REMOVE_MAPPING);
	if (page_count(page) != 2 || (page->flags & PG_dirty))
		return false;
	swap_cache_remove_frozen(m, page, workingset_eviction(m, page));
	return true;
}

/*
 * Does the page's being written put it off? A group of cgroup v1 has nothing else to slow down those who fill
 * it: a page that this reclaim itself is writing is waited for.
 */
static bool writeback_puts_off(struct pyksm *m, struct page *page)
{
	bool waits = (scans_by_fraction(m) || has(m, FEAT_KEEP_YOUNG_ONCE)) &&
		     !has(m, FEAT_RECLAIM_SKIPS_WRITEBACK);

	if (!(page->flags & PG_writeback))
		return false;
	if (!waits || !(page->flags & PG_reclaim)) {
		page->flags |= PG_reclaim;
		return true;
	}
	wait_on_page_writeback(m, page, PT_RECLAIM_WRITEBACK);
	return false;
}

/* What its ptes' having used it earns a page; they forget it. RECLAIM: nothing. */
static enum verdict page_check_references(struct pyksm *m, struct page *page)
{
	int ptes = page_referenced(m, page, true);
	bool before = page->flags & PG_referenced;

	page->flags &= ~(uint32_t)PG_referenced;
	if (!ptes)
		return RECLAIM;
	/* At first to have try_to_unmap() find that out; since 5.18 the page has its mark back by now. */
	if (ptes & REFERENCED_LOCKED && has(m, FEAT_MLOCK_COUNT))
		return page->flags & PG_mlocked ? UNEVICTABLE : ACTIVATE;
	if (ptes & REFERENCED_LOCKED)
		return RECLAIM;
	if (!has(m, FEAT_KEEP_YOUNG_ONCE))
		return ACTIVATE;
	/* Since 5.9 (b518154e59aa) once is not enough. */
	page->flags |= PG_referenced;
	return before || ptes > 1 ? ACTIVATE : KEEP;
}

static enum verdict shrink_locked_page(struct pyksm *m, struct page *page, bool *locked)
{
	enum verdict verdict;

	if (page->flags & PG_mlocked)
		return UNEVICTABLE;
	if (writeback_puts_off(m, page))
		return has(m, FEAT_RECLAIM_SKIPS_WRITEBACK) ? ACTIVATE : KEEP;
	if (page->flags & PG_agent)
		return cull_agent_page(m, page) ? CULLED : ACTIVATE;
	verdict = page_check_references(m, page);
	if (verdict != RECLAIM)
		return verdict;
	if (PageAnon(page) && !(page->flags & PG_swapcache)) {
		if (has(m, FEAT_PINS_COUNTED) && page_maybe_dma_pinned(page) &&
		    !bugged(m, BUG_COW_PINNED_PAGE_SWAPCACHE))
			return KEEP;
		if (!add_to_swap(m, page))
			return ACTIVATE;
	}
	if (page_mapped(page) && (page->flags & PG_swapcache)) {
		int ret = try_to_unmap(m, page, TTU_UNMAP);

		if (ret == SWAP_MLOCK)
			return page->flags & PG_mlocked ? UNEVICTABLE : ACTIVATE;
		if (ret != SWAP_SUCCESS)
			return ret == SWAP_FAIL || has(m, FEAT_UNMAP_FAILURE_ACTIVATES) ? ACTIVATE
											: KEEP;
	}
	if ((page->flags & PG_dirty) && !pageout(m, page, locked))
		return KEEP;
	if (!(page->flags & PG_swapcache) || !__remove_mapping(m, page))
		return KEEP;
	return FREED;
}

/* A locked page that reclaim has come by goes where it will not, and needs no slot. */
static void cull_mlocked(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_swapcache)
		try_to_free_swap(m, page);
	unlock_page(m, page);
	putback_lru_page(m, page);
}

static enum verdict shrink_page(struct pyksm *m, struct page *page)
{
	enum verdict verdict;
	bool locked = true;

	if (!trylock_page(m, page, PT_SHRINK_TRYLOCK_PAGE))
		return KEEP;
	verdict = shrink_locked_page(m, page, &locked);
	if (verdict == FREED || verdict == CULLED) {
		unlock_page(m, page);
		page->flags &= ~(uint32_t)PG_active;
		put_page(m, page);
		return verdict;
	}
	if (verdict == UNEVICTABLE) {
		cull_mlocked(m, page);
		return verdict;
	}
	if (verdict == ACTIVATE) {
		if ((page->flags & PG_swapcache) && vm_swap_full(m))
			try_to_free_swap(m, page);
		page->flags |= PG_active;
	}
	if (locked)
		unlock_page(m, page);
	return verdict;
}

/* Straight to its list, but for one that has been locked meanwhile: that goes by the batch. */
static void putback_page(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_mlocked) {
		putback_lru_page(m, page);
		return;
	}
	lru_putback(m, page);
	put_page(m, page);
}

/* What is left of a list of isolated pages goes back on the LRU, first ones first. */
static void putback_pages(struct pyksm *m, struct list_head *pages)
{
	struct list_head *pos, *next;

	list_for_each_safe (pos, next, pages) {
		list_del_init(pos);
		putback_page(m, page_of_lru(pos));
	}
}

/* Shrink isolated pages, first ones first; those that stay are left on the list. How many were freed. */
static uint64_t shrink_page_list(struct pyksm *m, struct list_head *pages)
{
	struct list_head kept, *pos, *next;
	uint64_t reclaimed = 0;

	INIT_LIST_HEAD(&kept);
	list_for_each_safe (pos, next, pages) {
		enum verdict verdict;

		list_del_init(pos);
		verdict = shrink_page(m, page_of_lru(pos));
		if (verdict == KEEP || verdict == ACTIVATE)
			list_add_tail(pos, &kept);
		reclaimed += verdict == FREED;
	}
	list_for_each_safe (pos, next, &kept)
		list_move_tail(pos, pages);
	return reclaimed;
}

/* MADV_PAGEOUT's (1a4e58cce84e, 5.4): pages that the caller has isolated, node by node. */
void reclaim_pages(struct pyksm *m, struct list_head *pages)
{
	while (!list_empty(pages)) {
		struct list_head of_node, *pos, *next;
		uint8_t nid = page_of_lru(pages->next)->nid;

		INIT_LIST_HEAD(&of_node);
		list_for_each_safe (pos, next, pages) {
			if (page_of_lru(pos)->nid != nid)
				break;
			page_of_lru(pos)->flags &= ~(uint32_t)PG_active;
			list_move_tail(pos, &of_node);
		}
		shrink_page_list(m, &of_node);
		/* By the batch: not on the LRU when its write ends, it is not the next in line then. */
		list_for_each_safe (pos, next, &of_node) {
			list_del_init(pos);
			putback_lru_page(m, page_of_lru(pos));
		}
	}
}

/* ---- the lists of a node ---- */
/* Take the k oldest off a list, oldest first on the new one, with a reference each. How many those were. */
static uint64_t isolate_lru_pages(struct pyksm *m, struct node *node, int lru, uint64_t k,
				  struct list_head *pages)
{
	uint64_t taken = 0;

	INIT_LIST_HEAD(pages);
	if (k && !list_empty(&node->lru[lru]))
		sched_point(m, PT_ISOLATE_LRU_PAGES);
	while (k-- && !list_empty(&node->lru[lru])) {
		struct page *page = page_of_lru(node->lru[lru].prev);

		if (in_task(m) && (page->flags & PG_agent)) {
			/* Its agent may exit meanwhile, and it go with him: let it be as if it had been seen. */
			list_move(&page->lru, &node->lru[lru]);
			continue;
		}
		lru_del(m, page);
		get_page(page);
		list_add_tail(&page->lru, pages);
		node->recent_scanned++;
		taken++;
	}
	return taken;
}

/* Those of the list that stay because they are in use. */
static uint64_t count_active(const struct list_head *pages)
{
	const struct list_head *pos;
	uint64_t n = 0;

	list_for_each (pos, pages)
		n += !!(container_of(pos, const struct page, lru)->flags & PG_active);
	return n;
}

/* How many of the k oldest could be freed. */
static uint64_t shrink_inactive_list(struct pyksm *m, struct node *node, uint64_t k)
{
	uint64_t taken, written, reclaimed, active;
	struct list_head pages;

	lru_add_drain(m);
	taken = isolate_lru_pages(m, node, LRU_INACTIVE_ANON, k, &pages);
	written = COUNTED(m, swap_writepage);
	reclaimed = shrink_page_list(m, &pages);
	active = count_active(&pages);
	node->recent_rotated += active;
	node->nonresident_age += active;
	putback_pages(m, &pages);
	written = COUNTED(m, swap_writepage) - written;
	assert(reclaimed <= taken);
	lru_note_cost(m, node, written, taken - reclaimed);
	return reclaimed;
}

/* Anonymous pages are never kept active for being used: they get a second look on the inactive list. */
static void shrink_active_list(struct pyksm *m, struct node *node, uint64_t k)
{
	struct list_head pages, *pos, *next;

	lru_add_drain(m);
	isolate_lru_pages(m, node, LRU_ACTIVE_ANON, k, &pages);
	list_for_each_safe (pos, next, &pages) {
		struct page *page = page_of_lru(pos);

		list_del_init(pos);
		if (page->flags & PG_mlocked) {
			putback_lru_page(m, page);
			continue;
		}
		if (page_referenced(m, page, false) & ~REFERENCED_LOCKED)
			node->recent_rotated++;
		page->flags &= ~(uint32_t)PG_active;
		page->flags |= PG_workingset;
		putback_page(m, page);
	}
}

static uint64_t batch(uint64_t *left)
{
	uint64_t k = *left < SWAP_CLUSTER_MAX ? *left : SWAP_CLUSTER_MAX;

	*left -= k;
	return k;
}

/* What a call of try_to_free_mem_cgroup_pages() knows from round to round. */
struct scan_control {
	bool force_deactivate, skipped_deactivate;
};

static bool inactive_anon_is_low(const struct pyksm *m, const struct node *node)
{
	return m->swap.total_swap_pages &&
	       node->nr_lru[LRU_INACTIVE_ANON] < node->nr_lru[LRU_ACTIVE_ANON];
}

/* So much of both lists, or until 32 pages have been freed. */
static uint64_t shrink_lists(struct pyksm *m, struct scan_control *sc, struct node *node,
			     uint64_t inactive, uint64_t active)
{
	bool may_deactivate = sc->force_deactivate || inactive_anon_is_low(m, node) ||
			      node->workingset_activated != node->refaults;
	uint64_t reclaimed = 0;

	while (inactive && reclaimed < SWAP_CLUSTER_MAX) {
		uint64_t k;

		reclaimed += shrink_inactive_list(m, node, batch(&inactive));
		k = batch(&active);
		/* Since 5.8 that is settled when the round begins. */
		if (!has(m, FEAT_KEEP_YOUNG_ONCE))
			may_deactivate = inactive_anon_is_low(m, node);
		if (k && may_deactivate)
			shrink_active_list(m, node, k);
		else if (k)
			sc->skipped_deactivate = true;
	}
	return reclaimed;
}

#define ANON_PRIO 100 /* swappiness, which the recordings set to this */
#define FILE_PRIO 100

/* How much of size is looked at: less the more of what was seen lately was in use. File pages there are none. */
static uint64_t scan_fraction(const struct node *node, uint64_t size, int priority)
{
	uint64_t ap = ANON_PRIO * (node->recent_scanned + 1) / (node->recent_rotated + 1);

	return (size >> priority) * ap / (ap + FILE_PRIO + 1);
}

/* The same by what reclaiming them has cost lately, since 5.8 (1431d4d11abb): that of files is 0 here. */
static uint64_t scan_cost_fraction(const struct node *node, uint64_t size, int priority)
{
	uint64_t cost = node->anon_cost;
	uint64_t ap = ANON_PRIO * (3 * cost + 1) / (2 * cost + 1);
	uint64_t fp = FILE_PRIO * (3 * cost + 1) / (cost + 1);

	return (size >> priority) * ap / (ap + fp);
}

/* How many of either list this round looks at; the last one looks at all. */
static void get_scan_count(const struct pyksm *m, struct node *node, int priority,
			   uint64_t *inactive, uint64_t *active)
{
	*inactive = node->nr_lru[LRU_INACTIVE_ANON];
	*active = node->nr_lru[LRU_ACTIVE_ANON];
	if (!priority)
		return;
	if (has(m, FEAT_KEEP_YOUNG_ONCE)) {
		*inactive = scan_cost_fraction(node, *inactive, priority);
		*active = scan_cost_fraction(node, *active, priority);
		return;
	}
	if (!scans_by_fraction(m)) {
		/* There being no file pages, there are by 3.10's reckoning enough inactive ones of them. */
		*inactive = *active = 0;
		return;
	}
	if (node->recent_scanned > (*inactive + *active) / 4) {
		node->recent_scanned /= 2;
		node->recent_rotated /= 2;
	}
	*inactive = scan_fraction(node, *inactive, priority);
	*active = scan_fraction(node, *active, priority);
}

/* One round on a node. Never while no slot is free. */
static uint64_t shrink_zone(struct pyksm *m, struct scan_control *sc, struct node *node,
			    int priority)
{
	uint64_t reclaimed = 0, inactive, active;

	if (!in_task(m)) /* for tasks there is a point where pages are isolated */
		sched_point(m, PT_SHRINK_ZONE);
	if (m->swap.nr_swap_pages > 0) {
		get_scan_count(m, node, priority, &inactive, &active);
		reclaimed = shrink_lists(m, sc, node, inactive, active);
	}
	if (inactive_anon_is_low(m, node))
		shrink_active_list(m, node, SWAP_CLUSTER_MAX);
	/* What was written in this round has left the plug; the emulated machines' disks are faster than they. */
	if (scans_by_fraction(m) || has(m, FEAT_RECLAIM_SKIPS_WRITEBACK))
		end_writes(m);
	return reclaimed;
}

/* Up to 13 rounds over the nodes, until 32 pages have been freed. */
static uint64_t do_try_to_free_pages(struct pyksm *m, struct scan_control *sc)
{
	uint64_t reclaimed = 0;

	for (int priority = DEF_PRIORITY; priority >= 0 && reclaimed < SWAP_CLUSTER_MAX; priority--)
		for (uint32_t nid = 0; nid < m->nodes; nid++)
			reclaimed += shrink_zone(m, sc, &m->node[nid], priority);
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		m->node[nid].refaults = m->node[nid].workingset_activated;
	return reclaimed;
}

/*
 * Nothing freed, and there were active pages that had to be left alone: once more, and now they are not (5.5,
 * b91ac374346b). Pinned pages that fill the inactive list would else keep them safe for ever.
 */
static uint64_t try_to_free_mem_cgroup_pages(struct pyksm *m)
{
	struct scan_control sc = { false, false };
	uint64_t reclaimed = do_try_to_free_pages(m, &sc);

	if (reclaimed || !sc.skipped_deactivate || !has(m, FEAT_KEEP_YOUNG_ONCE))
		return reclaimed;
	sc.force_deactivate = true;
	return do_try_to_free_pages(m, &sc);
}

static bool nothing_to_scan(const struct pyksm *m)
{
	uint64_t length = 0;

	for (uint32_t nid = 0; nid < m->nodes; nid++)
		length += m->node[nid].nr_lru[LRU_INACTIVE_ANON] +
			  m->node[nid].nr_lru[LRU_ACTIVE_ANON];
	return !length;
}

/*
 * Reclaim drains the batches when it takes pages off a list, and has looked at the lists' lengths by then. A
 * call that finds nothing there is in vain, and then its caller drains: memory.reclaim before its last try. On
 * the recorded 4.19.0 they are empty when a turn begins (two recordings hang on it): its cgroup is a v1 one, and
 * writing to memory.force_empty would drain them; whether that was done is not known.
 */
static void turn(struct pyksm *m)
{
	if (nothing_to_scan(m) || !has(m, FEAT_KEEP_YOUNG_ONCE))
		lru_add_drain(m);
	if (!try_to_free_mem_cgroup_pages(m))
		lru_add_drain(m);
}

/* ---- swapout: pressure until what was asked for is out ---- */
/*
 * What is to be out: all processes (no ranges), or these ranges. Whatever is before the cursor is out
 * already, and nothing but a hook brings a page back or uses one between two turns: without one no pte is
 * looked at twice.
 */
struct pressure {
	const struct pyksm_range *ranges;
	int n;
	size_t at; /* the process, or range */
	uint64_t done; /* and how many of the range's pages */
	bool young_cleared;
};

static void clear_young(struct mm_struct *mm, uint64_t start, uint64_t end)
{
	uint64_t addr;

	for (addr = next_table(mm, start, end); addr < end; addr = next_table(mm, addr, end)) {
		pte_t *pte = pte_lookup(mm, addr);
		uint64_t stop = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;

		for (; addr < stop && addr < end; addr += PAGE_SIZE, pte++)
			if (pte_present(*pte))
				*pte &= ~_PAGE_ACCESSED;
	}
}

static void clear_young_of_all(struct pyksm *m, struct pressure *out)
{
	if (out->young_cleared && !may_be_disturbed(m))
		return;
	out->young_cleared = true;
	for (size_t i = 0; i < m->nr_procs; i++) {
		struct mm_struct *mm = m->procs[i].mm;

		for (const struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next)
			clear_young(mm, vma->vm_start, vma->vm_end);
	}
}

/* The first page of [addr, end) that is in memory, the zero page aside; end if there is none. */
static uint64_t next_resident(const struct mm_struct *mm, uint64_t addr, uint64_t end)
{
	for (addr = next_table(mm, addr, end); addr < end; addr = next_table(mm, addr, end)) {
		const pte_t *pte = pte_lookup(mm, addr);
		uint64_t stop = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;

		for (; addr < stop && addr < end; addr += PAGE_SIZE, pte++)
			if (pte_present(*pte) && !(*pte & _PAGE_SPECIAL))
				return addr;
	}
	return end;
}

static bool all_processes_out(const struct pyksm *m, struct pressure *out)
{
	while (out->at < m->nr_procs && !m->procs[out->at].mm->anon_rss)
		out->at++;
	return out->at == m->nr_procs;
}

static bool all_ranges_out(struct pyksm *m, struct pressure *out)
{
	for (; out->at < (size_t)out->n; out->at++, out->done = 0) {
		const struct pyksm_range *r = &out->ranges[out->at];
		struct process *p = find_process(m, r->pid);
		uint64_t end = r->addr + (r->npages << PAGE_SHIFT), addr;

		if (!p)
			continue;
		addr = next_resident(p->mm, r->addr + (out->done << PAGE_SHIFT), end);
		if (addr < end) {
			out->done = (addr - r->addr) >> PAGE_SHIFT;
			return false;
		}
	}
	return true;
}

static bool swapout_done(struct pyksm *m, struct pressure *out)
{
	if (m->swap.nr_cached)
		return false; /* what is out is to be read back from its slot, so the cache goes too */
	if (may_be_disturbed(m))
		out->at = out->done = 0;
	return out->n ? all_ranges_out(m, out) : all_processes_out(m, out);
}

struct progress {
	int64_t rss; /* of all */
	uint64_t done;
};

/* What shows that a turn has brought something: ptes unmapped, pages written, frames freed. */
static struct progress progress(struct pyksm *m)
{
	struct progress ret = { 0, COUNTED(m, __swap_writepage) + COUNTED(m, free_page) };

	for (size_t i = 0; i < m->nr_procs; i++)
		ret.rss += m->procs[i].mm->anon_rss;
	return ret;
}

static void pageout_range(struct pyksm *m, const struct pyksm_range *range)
{
	struct process *p = find_process(m, range->pid);
	struct mm_struct *mm = p ? p->mm : NULL;

	if (!mm)
		return;
	mmget(m, mm);
	down_read(m, mm, PT_OP_MMAP_SEM);
	do_madvise(m, mm, range->addr, range->npages << PAGE_SHIFT, PYKSM_MADV_PAGEOUT);
	up_read(m, mm);
	mmput_task(m, mm);
}

/* Other tasks may keep pages in, or bring them back: then a few turns that do nothing end it. */
void swapout(struct pyksm *m, const struct pyksm_range *ranges, int n)
{
	struct pressure out = { .ranges = ranges, .n = n };
	int idle = 0, idle_turns = in_task(m) ? IDLE_TURNS_OF_TASK : IDLE_TURNS;

	for (int i = 0; has(m, FEAT_MADVISE_PAGEOUT) && i < n; i++)
		pageout_range(m, &ranges[i]);
	while (idle < idle_turns && !swapout_done(m, &out)) {
		struct progress before = progress(m), after;

		clear_young_of_all(m, &out);
		turn(m);
		end_writes(m);
		after = progress(m);
		idle = before.rss == after.rss && before.done == after.done ? idle + 1 : 0;
	}
}
