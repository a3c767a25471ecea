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

static struct shadow *slot_shadow(struct pyksm *m, swp_entry_t entry)
{
	return &m->swap.info[swp_type(entry)].shadows[swp_offset(entry)];
}

/* The page leaves the swap cache and memory: its slot gets to know when. */
void workingset_eviction(struct pyksm *m, struct page *page)
{
	struct node *node = &m->node[page->nid];

	if (!remembers(m))
		return;
	*slot_shadow(m, (swp_entry_t){ page->private }) =
		(struct shadow){ node->nonresident_age, page->nid, true,
				 page->flags & PG_workingset };
	node->nonresident_age++;
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

/* A page for the slot is read: is it one that should have stayed? */
void workingset_refault(struct pyksm *m, struct page *page, swp_entry_t entry)
{
	struct node *node = &m->node[page->nid], *from;
	struct shadow shadow;
	uint64_t active;

	if (!remembers(m))
		return;
	shadow = *slot_shadow(m, entry);
	workingset_forget(m, entry);
	from = &m->node[shadow.nid];
	active = m->swap.nr_swap_pages > 0 ? from->nr_lru[LRU_ACTIVE_ANON] : 0;
	if (!shadow.present || from->nonresident_age - shadow.age > active)
		return;
	page->flags |= PG_active;
	node->nonresident_age++;
	node->workingset_activated++;
	if (shadow.workingset) {
		page->flags |= PG_workingset;
		lru_note_cost(m, node, 1, 0);
	}
}

/* The slot is free: what it remembered is nobody's. */
void workingset_forget(struct pyksm *m, swp_entry_t entry)
{
	if (remembers(m))
		slot_shadow(m, entry)->present = false;
}
