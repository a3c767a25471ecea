/* SPDX-License-Identifier: MIT */
/*
 * What reclaim remembers of pages that it has taken (kernel: mm/workingset.c, mm/swap.c; for anonymous pages since
 * 5.9, aae466b0052e). A page that is wanted back before as many others have gone as are active was taken too
 * early: it begins again among the active ones.
 */
#include "internal.h"

#define SWAP_CLUSTER_MAX 32

static bool remembers(const struct pyksm *m)
{
	return has(m, FEAT_KEEP_YOUNG_ONCE);
}

/* A shadow: the age of the page's node when it was taken, the node, a mark, and what tells it from a cached page. */
#define SHADOW 2ULL
#define SHADOW_WORKINGSET 4ULL
#define SHADOW_NID_SHIFT 3
#define SHADOW_NID_MASK 63

/* The page leaves the swap cache and memory: what its slot is to know of that. */
uint64_t workingset_eviction(struct pyksm *m, const struct page *page)
{
	struct node *node = &m->node[page->nid];

	if (!remembers(m))
		return 0;
	return node->nonresident_age++ << SHADOW_AGE_SHIFT |
	       (uint64_t)page->nid << SHADOW_NID_SHIFT |
	       (page->flags & PG_workingset ? SHADOW_WORKINGSET : 0) | SHADOW;
}

/* The price of reclaim: I/O most of all. The share of anonymous pages to look at follows from it. */
void lru_note_cost(struct pyksm *m, struct node *node, uint64_t nr_io, uint64_t nr_rotated)
{
	if (has(m, FEAT_ROTATIONS_COST)) /* 0538a82c39e9, 6.4 */
		node->anon_cost += nr_io * SWAP_CLUSTER_MAX + nr_rotated;
	else
		node->anon_cost += nr_io;
	if (node->anon_cost > (node->nr_lru[LRU_INACTIVE_ANON] + node->nr_lru[LRU_ACTIVE_ANON]) / 4)
		node->anon_cost /= 2;
}

/* A page is read for a slot that remembers that: is it one that should have stayed? */
void workingset_refault(struct pyksm *m, struct page *page, uint64_t shadow)
{
	struct node *node = &m->node[page->nid], *from;
	uint64_t active;

	from = &m->node[shadow >> SHADOW_NID_SHIFT & SHADOW_NID_MASK];
	active = m->swap.nr_swap_pages > 0 ? from->nr_lru[LRU_ACTIVE_ANON] : 0;
	if (from->nonresident_age - (shadow >> SHADOW_AGE_SHIFT) > active)
		return;
	page->flags |= PG_active;
	node->nonresident_age++;
	node->workingset_activated++;
	if (shadow & SHADOW_WORKINGSET) {
		page->flags |= PG_workingset;
		lru_note_cost(m, node, 1, 0);
	}
}
