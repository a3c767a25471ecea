/* SPDX-License-Identifier: MIT */
/*
 * The swap table, packed or not, against a plain array: areas are filled with shadows as reclaim makes them, and as
 * it never does, and each must come back as it was.
 */
#include "check.h"
#include "internal.h"

#define MAX 1100 /* slots: two clusters and a part of a third */

static uint64_t model[MAX]; /* what is remembered, or pfn << 1 | 1 */
static struct pyksm *m;
static struct swap_info_struct *si;
static uint64_t seen_packed, seen_full;

static uint64_t random_below(uint64_t n)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static void store(uint64_t slot, uint64_t pfn)
{
	uint64_t shadow;

	EXPECT(swap_cache_pfn(si, slot), 0);
	EXPECT(swap_table_store(m, si, slot, pfn, &shadow), 0);
	EXPECT(shadow, model[slot]);
	EXPECT(swap_cache_pfn(si, slot), pfn);
	model[slot] = pfn << 1 | 1;
}

static void erase(uint64_t slot, uint64_t shadow)
{
	const struct swap_cluster *c = &si->clusters[slot / SWAP_TABLE_SLOTS];

	EXPECT(swap_cache_pfn(si, slot), model[slot] >> 1);
	swap_table_erase(m, si, slot, shadow);
	EXPECT(swap_cache_pfn(si, slot), 0);
	model[slot] = shadow;
	seen_packed += c->packed;
	seen_full += !c->packed && c->nr_shadows >= SWAP_TABLE_SLOTS - 1;
}

static uint64_t shadow_of(uint64_t age, uint64_t low)
{
	return age << SHADOW_AGE_SHIFT | 2 | low << 2;
}

enum order { UP, DOWN, BATCHES, JUMPS, SCATTERED, OF_TWO_NODES, NR_ORDERS };

static uint64_t age_of(enum order order, uint64_t base, uint64_t slot)
{
	switch (order) {
	case UP:
	case OF_TWO_NODES:
		return base + slot;
	case DOWN:
		return base + MAX - slot;
	case BATCHES: /* each of 32, its last one first */
		return base + (slot | 31) - slot % 32;
	case JUMPS: /* farther than a run can say */
		return base + slot + (slot % 512 > 300 ? 1ULL << 33 : 0);
	default:
		return base + random_below(1 << 20);
	}
}

/* All slots cached, then all remembered, in the order of ages where they have one. */
static void fill(enum order order)
{
	uint64_t base = random_below(1ULL << 40);

	for (uint64_t slot = 1; slot < MAX; slot++)
		if (!(model[slot] & 1))
			store(slot, slot + 7);
	for (uint64_t slot = 1; slot < MAX; slot++)
		erase(slot,
		      shadow_of(age_of(order, base, slot), order == OF_TWO_NODES ? slot % 3 : 5));
}

static void disturb(int times)
{
	while (times--) {
		uint64_t slot = 1 + random_below(MAX - 1);

		if (model[slot] & 1) {
			erase(slot, random_below(2) ? shadow_of(random_below(1000), 1) : 0);
		} else if (random_below(2)) {
			store(slot, 1 + random_below(1 << 30));
		} else if (random_below(2)) {
			EXPECT(swap_table_take(m, si, slot), model[slot]);
			model[slot] = 0;
		} else {
			swap_table_forget(m, si, slot);
			model[slot] = 0;
		}
	}
}

static void empty(void)
{
	for (uint64_t slot = 1; slot < MAX; slot++)
		if (model[slot] & 1) {
			swap_table_replace(si, slot, 12345);
			model[slot] = 12345 << 1 | 1;
			erase(slot, 0);
		} else {
			swap_table_forget(m, si, slot);
			model[slot] = 0;
		}
	for (uint64_t slot = 0; slot < MAX; slot += SWAP_TABLE_SLOTS)
		EXPECT(!si->clusters[slot / SWAP_TABLE_SLOTS].table, true);
}

int main(void)
{
	struct pyksm_config config = { .frames = 64 };
	int area;

	m = pyksm_new(&config, NULL);
	area = pyksm_swapon(m, MAX, -1, NULL);
	EXPECT(area, 0);
	si = &m->swap.info[area];
	for (int round = 0; round < 40; round++) {
		enum order order = (enum order)(round % NR_ORDERS);
		uint64_t before = seen_packed;

		fill(order);
		/* Of what reclaim makes each cluster is packed with its last shadow; no jump in the third. */
		EXPECT(seen_packed - before, order <= BATCHES ? 3 : order == JUMPS);
		for (int i = 0; i < 30; i++)
			disturb((int)random_below(20));
		if (round % 3 == 0)
			empty();
	}
	EXPECT(seen_packed && seen_full, true);
	pyksm_free(m);
	return report();
}
