/* SPDX-License-Identifier: MIT */
/* The swap cache: the page, if any, that holds a slot's content (kernel: mm/swap_state.c). */
#include "internal.h"

static struct swap_info_struct *swap_area(struct pyksm *m, swp_entry_t entry)
{
	return &m->swap.info[swp_type(entry)];
}

/*
 * The slot's SWAP_HAS_CACHE is the caller's claim, so nobody else can be there. *shadow is what the slot
 * remembered. Without host memory for the table it is -ENOMEM, and the claim is given back.
 */
int add_to_swap_cache(struct pyksm *m, struct page *page, swp_entry_t entry, uint64_t *shadow)
{
	sched_point(m, PT_ADD_TO_SWAP_CACHE);
	if (swap_table_store(m, swap_area(m, entry), swp_offset(entry), page_to_pfn(m, page),
			     shadow)) {
		m->memory_denied++;
		swapcache_free(m, entry);
		return -ENOMEM;
	}
	get_page(page);
	page->flags |= PG_swapcache;
	page->private = entry.val;
	m->swap.nr_cached++;
	return 0;
}

static void __delete_from_swap_cache(struct pyksm *m, struct page *page, uint64_t shadow)
{
	swp_entry_t entry = { page->private };

	swap_table_erase(m, swap_area(m, entry), swp_offset(entry), shadow);
	page->private = 0;
	page->flags &= ~(uint32_t)PG_swapcache;
	m->swap.nr_cached--;
}

void delete_from_swap_cache(struct pyksm *m, struct page *page)
{
	swp_entry_t entry = { page->private };

	COUNT(m, delete_from_swap_cache);
	sched_point(m, PT_DELETE_FROM_SWAP_CACHE);
	assert(page->flags & PG_swapcache);
	__delete_from_swap_cache(m, page, 0);
	uncharge_page(m, page);
	swapcache_free(m, entry);
	put_page(m, page);
}

/* Give the page a slot, so that it can be written; dirty, so that it will be. */
bool add_to_swap(struct pyksm *m, struct page *page)
{
	swp_entry_t entry;
	uint64_t shadow;

	COUNT(m, add_to_swap);
	entry = get_swap_page(m);
	if (!entry.val || add_to_swap_cache(m, page, entry, &shadow))
		return false;
	page->flags |= PG_dirty;
	return true;
}

/* Before the last reference goes: a page that nothing maps need not stay for its slot's sake. */
void free_swap_cache(struct pyksm *m, struct page *page)
{
	if ((page->flags & PG_swapcache) && !page_mapped(page) &&
	    trylock_page(m, page, PT_FREE_SWAP_CACHE_TRYLOCK)) {
		try_to_free_swap(m, page);
		unlock_page(m, page);
	}
}

#define WATCHDOG_TRIES 1000

/* The bug: to look again at once. Who has claimed the slot cannot go on as long as this one has the processor. */
static void spin_on_claim(struct pyksm *m, swp_entry_t entry)
{
#ifdef PYKSM_TASKS
	unsigned int tries = 0;

	while (bugged(m, BUG_SWAP_CACHE_PREPARE_BUSY_WAIT) &&
	       swap_area(m, entry)->swap_map[swp_offset(entry)] & SWAP_HAS_CACHE)
		if (++tries == WATCHDOG_TRIES)
			oops(m, "soft lockup - read_swap_cache_async");
#else
	(void)m, (void)entry;
#endif
}

/*
 * SWAP_HAS_CACHE is somebody else's: who has claimed it puts a page there, or takes one away, in a moment. (What
 * the kernel does meanwhile is cond_resched() and look again.)
 */
static bool claimed_by_other(struct pyksm *m, swp_entry_t entry, int err)
{
	if (!in_task(m) || err != -EEXIST)
		return false;
	spin_on_claim(m, entry);
	sched_yield_point(m, PT_SWAPCACHE_RETRY);
	return true;
}

/*
 * A new page for a slot that has none in the cache: in the cache now, its content read, with a reference; or the
 * one that another task has put there meanwhile. NULL: the slot is free by now, or there is no memory.
 */
static struct page *__read_swap_cache_async(struct pyksm *m, swp_entry_t entry,
					    struct vm_area_struct *vma)
{
	struct page *page = alloc_page_vma(m, vma), *found;
	uint64_t shadow;
	int err;

	if (!page)
		return NULL;
	while ((err = swapcache_prepare(m, entry))) {
		found = claimed_by_other(m, entry, err) ? find_get_page(m, entry) : NULL;
		if (!found && err == -EEXIST && in_task(m))
			continue;
		put_page(m, page);
		return found;
	}
	__set_page_locked(m, page); /* before others can find it: it is not read yet */
	if (add_to_swap_cache(m, page, entry, &shadow)) {
		unlock_page(m, page);
		put_page(m, page);
		return NULL;
	}
	swapin_new_page(m, page, shadow);
	return page;
}

/* The page of a slot, with a reference: from the cache, else read. *read, if asked for, tells which. */
struct page *read_swap_cache_async(struct pyksm *m, swp_entry_t entry, struct vm_area_struct *vma,
				   bool *read)
{
	struct page *page = find_get_page(m, entry);

	COUNT(m, read_swap_cache_async);
	if (read)
		*read = false;
	if (page)
		return page;
	page = __read_swap_cache_async(m, entry, vma);
	if (read)
		*read = page;
	return page;
}

/*
 * The caller has found nothing in the cache. page-cluster is 0: the block to read ahead is the slot itself, and
 * then the cache has it.
 */
struct page *swapin_readahead(struct pyksm *m, swp_entry_t entry, struct vm_area_struct *vma)
{
	struct page *page;

	COUNT(m, swapin_readahead);
	COUNT(m, read_swap_cache_async);
	page = __read_swap_cache_async(m, entry, vma);
	if (has(m, FEAT_READAHEAD_ONCE))
		return page;
	if (page)
		put_page(m, page);
	return read_swap_cache_async(m, entry, vma, NULL);
}

/* swapoff's memcpy policy: put a copy of the page in hand where a page freshly read would be. */
struct page *swap_cache_copy(struct pyksm *m, swp_entry_t entry, const struct page *from)
{
	struct page *page = alloc_page_vma(m, NULL);
	uint64_t shadow;

	if (!page)
		return NULL;
	if (swapcache_prepare(m, entry) || add_to_swap_cache(m, page, entry, &shadow)) {
		put_page(m, page);
		return NULL;
	}
	page->flags |= swapin_flags(m) | (from->flags & (PG_uptodate | PG_error));
	lru_add(m, page);
	copy_user_highpage(m, page, from);
	COUNT(m, unuse_copy);
	return page;
}

/*
 * Only the reference of reclaim and that of the cache are left. Until both are given up the count is frozen at 0, for
 * nobody to get another one: a stable node knows the page to the last.
 */
void swap_cache_remove_frozen(struct pyksm *m, struct page *page, uint64_t shadow)
{
	swp_entry_t entry = { page->private };

	page->_count = 0;
	__delete_from_swap_cache(m, page, shadow);
	swapcache_free(m, entry);
	page->_count = 1;
}
