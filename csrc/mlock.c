/* SPDX-License-Identifier: MIT */
/*
 * Locked pages, as far as they disturb reclaim (kernel: mm/mlock.c, cull_mlocked in mm/vmscan.c).
 *
 * The processes of a recorded scenario are agents: each locks the memory it has for itself. When a forked
 * agent forks, the new one breaks copy on write on 79 of those pages, and the kernel then takes the lock's
 * mark off the old page, which only the parent maps by now (munlock_vma_page in do_wp_page; with one
 * mapping left it does not ask whether that is locked too). So they are on the LRU again, though locked.
 * Reclaim gives each a slot before it finds out, takes the slot back and puts the page away until the next
 * fork. That shows in which slots the others get, and so in the order in which swapoff comes to them.
 *
 * Such a page is in no frame and mapped by no pte of the model: only its place on the LRU is there.
 */
#include "internal.h"

static struct page *alloc_agent_pages(struct pyksm *m)
{
	struct page *pages = host_calloc(m, m->agent_pages, sizeof(*pages));

	for (uint32_t i = 0; pages && i < m->agent_pages; i++) {
		pages[i].flags = PG_mlocked | PG_charged | PG_uptodate | PG_swapbacked;
		pages[i]._count = 1;
		pages[i]._mapcount = -1;
		INIT_LIST_HEAD(&pages[i].lru);
	}
	return pages;
}

#define AGENT_START_PAGES 28

/*
 * A new agent has pages of its own on the active list before it comes to lock them: reclaim has seen them come
 * by and in use. So much shows in how many pages it then looks at: two recordings of 4.19.0 hang on 26 to 32.
 */
void mlock_spawn(struct pyksm *m)
{
	if (!m->agent_pages)
		return;
	m->node[0].recent_scanned += AGENT_START_PAGES;
	m->node[0].recent_rotated += AGENT_START_PAGES;
}

/* oldmm has forked mm. Without host memory nothing shows, as if the agent had no such pages. */
void mlock_fork(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm)
{
	mm->forked = true;
	if (has(m, FEAT_MLOCK_COUNT) || !m->agent_pages || !oldmm->forked || oldmm->agent_listed)
		return;
	if (!oldmm->agent_pages)
		oldmm->agent_pages = alloc_agent_pages(m);
	for (uint32_t i = 0; oldmm->agent_pages && i < m->agent_pages; i++) {
		oldmm->agent_pages[i].private = (uintptr_t)oldmm;
		oldmm->agent_pages[i].flags &= ~(uint32_t)PG_active;
		lru_add(m, &oldmm->agent_pages[i]);
		oldmm->agent_listed++;
	}
}

void mlock_exit(struct pyksm *m, struct mm_struct *mm)
{
	for (uint32_t i = 0; mm->agent_listed && i < m->agent_pages; i++)
		if (mm->agent_pages[i].flags & PG_batched)
			lru_batches_forget(m, &mm->agent_pages[i]);
		else if (mm->agent_pages[i].flags & PG_lru)
			lru_del(m, &mm->agent_pages[i]);
	host_free(m, mm->agent_pages);
	mm->agent_pages = NULL;
	mm->agent_listed = 0;
}

/* Reclaim has come to an isolated one. false: there was no slot to try it with, it stays in sight. */
bool cull_mlocked(struct pyksm *m, struct page *page)
{
	swp_entry_t entry;

	COUNT(m, add_to_swap);
	entry = get_swap_page(m);
	if (!entry.val)
		return false;
	COUNT(m, try_to_unmap); /* which answers SWAP_MLOCK */
	COUNT(m, try_to_free_swap);
	COUNT(m, delete_from_swap_cache);
	swapcache_free(m, entry);
	((struct mm_struct *)(uintptr_t)page->private)->agent_listed--;
	return true;
}
