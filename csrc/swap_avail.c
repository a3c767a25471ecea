/* SPDX-License-Identifier: MIT */
/*
 * Which area gives the next slot, from 3.16 on (18ab4d4ced08): a list of the areas that have room,
 * best priority first; an area that is asked goes behind the others of its priority.  Before
 * that see get_swap_page() in swapfile.c.
 */
#include "internal.h"

static int avail_index(const struct swap *swap, int type)
{
	for (int i = 0; i < swap->nr_avail; i++)
		if (swap->avail[i] == type)
			return i;
	return -1;
}

/* Behind all that are at least as good. */
void add_to_avail_list(struct pyksm *m, const struct swap_info_struct *si)
{
	struct swap *swap = &m->swap;
	int at = swap->nr_avail++;

	assert(at < MAX_SWAPFILES); /* each is on it once */
	for (; at > 0 && swap->info[swap->avail[at - 1]].prio < si->prio; at--)
		swap->avail[at] = swap->avail[at - 1];
	swap->avail[at] = si->type;
}

void del_from_avail_list(struct pyksm *m, const struct swap_info_struct *si)
{
	struct swap *swap = &m->swap;
	int at = avail_index(swap, si->type);

	if (at < 0)
		return; /* it was full */
	swap->nr_avail--;
	for (; at < swap->nr_avail; at++)
		swap->avail[at] = swap->avail[at + 1];
}

static void plist_requeue(struct pyksm *m, const struct swap_info_struct *si)
{
	del_from_avail_list(m, si);
	add_to_avail_list(m, si);
}

/* Each area is asked once, in the order in which they were at the beginning. */
swp_entry_t get_swap_pages(struct pyksm *m)
{
	struct swap *swap = &m->swap;
	int order[MAX_SWAPFILES], n = swap->nr_avail;

	memcpy(order, swap->avail, sizeof(order));
	for (int i = 0; i < n; i++) {
		struct swap_info_struct *si = &swap->info[order[i]];
		uint64_t offset;

		if (avail_index(swap, order[i]) < 0)
			continue;
		plist_requeue(m, si);
		offset = scan_swap_map(m, si);
		if (offset)
			return swp_entry((unsigned int)si->type, offset);
	}
	return (swp_entry_t){ 0 };
}
