/* SPDX-License-Identifier: MIT */
/*
 * What is known of each slot beside its count: the page in the swap cache, or when reclaim took it (kernel:
 * mm/swap_table.h of 6.18; before that an xarray with the same entries). 512 neighbours have a table
 * as long as there is anything to know of one of them.
 *
 * Once all of them remember pages and none has one cached the table is packed: reclaim takes pages in the
 * order in which they got their slots, or just the other way round, so a few runs say all of it.
 * It is for memory alone, and where it does not help the table stays as it is.
 */
#include "internal.h"

#define SLOTS SWAP_TABLE_SLOTS
#define MAX_RUNS 40 /* of 8 bytes for 512 slots: below a byte each, with what comes on top */
#define SHADOW_LOW ((1ULL << SHADOW_AGE_SHIFT) - 1)

static struct swap_cluster *cluster_of(const struct swap_info_struct *si, uint64_t offset)
{
	return &si->clusters[offset / SLOTS];
}

int swap_table_init(struct pyksm *m, struct swap_info_struct *si)
{
	si->clusters = host_calloc(m, si->max / SLOTS + 1, sizeof(*si->clusters));
	return si->clusters ? 0 : -ENOMEM;
}

static RARELY void release_table(struct pyksm *m, struct swap_cluster *c)
{
	if (c->packed)
		host_free(m, c->shadows);
	else if (c->table)
		kmem_free(m, POOL_BLOCK, c->table);
	c->table = NULL;
	c->packed = false;
}

void swap_table_exit(struct pyksm *m, struct swap_info_struct *si)
{
	for (uint64_t i = 0; si->clusters && i <= si->max / SLOTS; i++)
		release_table(m, &si->clusters[i]);
	host_free(m, si->clusters);
	si->clusters = NULL;
}

/* ---- packing ---- */
/* Does the age go on a run of which the last slot was before it? */
static bool run_goes_on(struct shadow_run *run, uint64_t slot, int64_t age)
{
	int64_t n = (int64_t)(slot - run->first);

	if (!run->step && (age == run->age + n || age == run->age - n))
		run->step = age > run->age ? 1 : -1;
	return run->step && age == run->age + run->step * n;
}

/* The runs of a table, in room for MAX_RUNS, or 0: there are too many, or not all shadows are alike. */
static unsigned int find_runs(const uint64_t *table, unsigned int from, struct shadow_run *runs)
{
	uint64_t base = table[from] >> SHADOW_AGE_SHIFT;
	unsigned int n = 0;

	for (unsigned int i = from; i < SLOTS; i++) {
		int64_t age = (int64_t)((table[i] >> SHADOW_AGE_SHIFT) - base);

		if (!table[i])
			continue;
		if ((table[i] ^ table[from]) & SHADOW_LOW || age != (int32_t)age)
			return 0;
		if (n && run_goes_on(&runs[n - 1], i, age))
			continue;
		if (n == MAX_RUNS)
			return 0;
		runs[n++] = (struct shadow_run){ (int32_t)age, (uint16_t)i, 0 };
	}
	return n;
}

/* Without host memory for less the table stays. */
static RARELY void pack(struct pyksm *m, struct swap_cluster *c)
{
	struct shadow_run runs[MAX_RUNS];
	const uint64_t *table = c->table;
	unsigned int from = table[0] ? 0 : 1, n = find_runs(table, from, runs);
	struct packed_shadows *p = n ? host_malloc(m, sizeof(*p) + n * sizeof(*runs)) : NULL;

	if (!p)
		return;
	*p = (struct packed_shadows){ .base = table[from] >> SHADOW_AGE_SHIFT,
				      .low = table[from] & SHADOW_LOW,
				      .nr_runs = (uint16_t)n };
	memcpy(p->runs, runs, n * sizeof(*runs));
	for (unsigned int i = 0; i < SLOTS; i++)
		p->present[i / 64] |= (uint64_t)!!table[i] << i % 64;
	release_table(m, c);
	c->shadows = p;
	c->packed = true;
}

static void unpack_run(const struct packed_shadows *p, const struct shadow_run *run,
		       unsigned int end, uint64_t *table)
{
	for (unsigned int i = run->first; i < end; i++) {
		uint64_t age = p->base + (uint64_t)(run->age + run->step * (int)(i - run->first));

		if (is_packed(p, i))
			table[i] = age << SHADOW_AGE_SHIFT | p->low;
	}
}

/* A table as it was before it was packed; -ENOMEM: the cluster stays packed. */
static int unpack(struct pyksm *m, struct swap_cluster *c)
{
	struct packed_shadows *p = c->shadows;
	uint64_t *table = pool_get(m, POOL_BLOCK);

	if (!table)
		return -ENOMEM;
	for (unsigned int k = 0; k < p->nr_runs; k++)
		unpack_run(p, &p->runs[k], k + 1 < p->nr_runs ? p->runs[k + 1].first : SLOTS,
			   table);
	host_free(m, p);
	c->table = table;
	c->packed = false;
	return 0;
}

static RARELY int provide_table(struct pyksm *m, struct swap_cluster *c)
{
	if (c->packed)
		return unpack(m, c);
	c->table = pool_get(m, POOL_BLOCK);
	return c->table ? 0 : -ENOMEM;
}

/* How many slots of the table there are: the header has no page, and the area may end before. */
static uint64_t slots_of(const struct swap_info_struct *si, uint64_t first)
{
	uint64_t end = si->max - first < SLOTS ? si->max - first : SLOTS;

	return first ? end : end - 1;
}

/* ---- entries ---- */
/* The page is the slot's from now on; *shadow is what was remembered until then. */
int swap_table_store(struct pyksm *m, struct swap_info_struct *si, uint64_t offset, uint64_t pfn,
		     uint64_t *shadow)
{
	struct swap_cluster *c = cluster_of(si, offset);
	uint64_t *entry;

	if ((c->packed || !c->table) && provide_table(m, c))
		return -ENOMEM;
	entry = &c->table[offset % SLOTS];
	assert(!swap_entry_pfn(*entry));
	*shadow = *entry;
	c->nr_shadows = (uint16_t)(c->nr_shadows - !!*entry);
	c->nr_cached++;
	*entry = pfn << 1 | 1;
	return 0;
}

/* Another page in the place of the one that is cached. */
void swap_table_replace(struct swap_info_struct *si, uint64_t offset, uint64_t pfn)
{
	cluster_of(si, offset)->table[offset % SLOTS] = pfn << 1 | 1;
}

/* The page leaves; shadow, if any, is what the slot is to remember of it. */
void swap_table_erase(struct pyksm *m, struct swap_info_struct *si, uint64_t offset,
		      uint64_t shadow)
{
	struct swap_cluster *c = cluster_of(si, offset);

	c->table[offset % SLOTS] = shadow;
	c->nr_shadows = (uint16_t)(c->nr_shadows + !!shadow);
	if (--c->nr_cached)
		return;
	if (!c->nr_shadows)
		release_table(m, c);
	else if (shadow && c->nr_shadows == slots_of(si, offset & ~(uint64_t)(SLOTS - 1)))
		pack(m, c);
}

static uint64_t packed_shadow(const struct packed_shadows *p, unsigned int slot)
{
	const struct shadow_run *run = p->runs;
	int64_t age;

	if (!is_packed(p, slot))
		return 0;
	for (unsigned int k = 1; k < p->nr_runs && p->runs[k].first <= slot; k++)
		run = &p->runs[k];
	age = run->age + (int64_t)run->step * (int64_t)(slot - run->first);
	return (p->base + (uint64_t)age) << SHADOW_AGE_SHIFT | p->low;
}

/* The slot remembers something, and forgets it. */
void __swap_table_forget(struct pyksm *m, struct swap_cluster *c, uint64_t slot)
{
	if (c->packed)
		c->shadows->present[slot / 64] &= ~(1ULL << slot % 64);
	else
		c->table[slot] = 0;
	if (!--c->nr_shadows && !c->nr_cached)
		release_table(m, c);
}

/* What the slot remembers, which it forgets; no page of it is cached. */
uint64_t swap_table_take(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	struct swap_cluster *c = cluster_of(si, offset);
	unsigned int slot = offset % SLOTS;
	uint64_t shadow;

	if (!c->nr_shadows)
		return 0;
	shadow = c->packed ? packed_shadow(c->shadows, slot) : c->table[slot];
	if (shadow)
		__swap_table_forget(m, c, slot);
	return shadow;
}
