/* SPDX-License-Identifier: MIT */
/* Where a machine's objects live: pools of fixed-size records that it owns, and orders to fail. */
#include "internal.h"

#define CHUNK_BYTES (64 * 1024)
#define RECORD_ALIGN 64 /* a record of a cache line, as many are, lies in one */

static const size_t pool_size[NR_POOLS] = {
	[POOL_MM] = sizeof(struct mm_struct),
	[POOL_VMA] = sizeof(struct vm_area_struct),
	[POOL_AVC] = sizeof(struct anon_vma_chain),
	[POOL_ANON_VMA] = sizeof(struct anon_vma),
	[POOL_RMAP_ITEM] = sizeof(struct rmap_item),
	[POOL_STABLE_NODE] = sizeof(struct stable_node),
	[POOL_KSM] = sizeof(struct stable_node), /* the larger of the two */
	[POOL_PGTABLE] = PTRS_PER_PTE * sizeof(pte_t),
};

/* Room for need elements in a growing array. NULL: no memory, the array is as it was. */
void *grow(void *array, size_t *max, size_t need, size_t size)
{
	size_t want = *max ? *max : 8;
	void *bigger;

	if (need <= *max)
		return array;
	while (want < need)
		want *= 2;
	bigger = realloc(array, want * size);
	if (bigger)
		*max = want;
	return bigger;
}

static bool add_chunk(struct pool *pool, size_t size)
{
	size_t n = CHUNK_BYTES / size;
	void **chunks = grow(pool->chunks, &pool->max_chunks, pool->nr_chunks + 1, sizeof(*chunks));
	void *chunk;

	if (!chunks)
		return false;
	pool->chunks = chunks;
	if (posix_memalign(&chunk, RECORD_ALIGN, n * size))
		return false;
	chunks[pool->nr_chunks++] = chunk;
	for (size_t i = 0; i < n; i++) {
		void **obj = (void **)(void *)((char *)chunk + i * size);

		*obj = pool->free;
		pool->free = obj;
	}
	return true;
}

void *pool_get(struct pyksm *m, enum pool_id id)
{
	struct pool *pool = &m->pool[id];
	void *obj;

	if (!pool->free && !add_chunk(pool, pool_size[id]))
		return NULL;
	obj = pool->free;
	pool->free = *(void **)obj;
	memset(obj, 0, pool_size[id]);
	return obj;
}

void *kmem_alloc(struct pyksm *m, enum pool_id id)
{
	COUNT(m, kmem_alloc);
	return should_fail(m, PYKSM_FAIL_KMEM) ? NULL : pool_get(m, id);
}

void kmem_free(struct pyksm *m, enum pool_id id, void *obj)
{
	*(void **)obj = m->pool[id].free;
	m->pool[id].free = obj;
}

void pools_release(struct pyksm *m)
{
	for (int id = 0; id < NR_POOLS; id++) {
		for (size_t i = 0; i < m->pool[id].nr_chunks; i++)
			free(m->pool[id].chunks[i]);
		free(m->pool[id].chunks);
	}
}

/* Has the time come for an ordered failure? Each is for one event only. */
bool should_fail(struct pyksm *m, enum pyksm_fault_kind kind)
{
	return __builtin_expect(m->inject[kind] != 0, 0) && --m->inject[kind] == 0;
}

/* Up to n events at once, those before the one that was ordered to fail. How many they are. */
uint64_t events_before_failure(struct pyksm *m, enum pyksm_fault_kind kind, uint64_t n)
{
	uint64_t *nth = &m->inject[kind];

	if (!*nth)
		return n;
	if (n >= *nth)
		n = *nth - 1;
	*nth -= n;
	return n;
}

/* A line that the kernel would have logged. Without host memory for it, it is lost. */
void event(struct pyksm *m, const char *name)
{
	const char **events = grow(m->events, &m->max_events, m->nr_events + 1, sizeof(*events));

	if (!events)
		return;
	m->events = events;
	events[m->nr_events++] = name;
}

static const struct {
	const char *name;
	size_t bytes;
} object_sizes[] = {
	{ "page", sizeof(struct page) },
	{ "pte", sizeof(pte_t) },
	{ "page_table", PTRS_PER_PTE * sizeof(pte_t) },
	{ "slot", 1 },
	{ "swap_entry", 21 },
	{ "rmap_item", sizeof(struct rmap_item) },
	{ "stable_node", sizeof(struct stable_node) },
	{ "mm", sizeof(struct mm_struct) },
	{ "vma", sizeof(struct vm_area_struct) },
	{ "anon_vma", sizeof(struct anon_vma) },
	{ "anon_vma_chain", sizeof(struct anon_vma_chain) },
};

int64_t pyksm_object_size(const char *name)
{
	for (size_t i = 0; name && i < sizeof(object_sizes) / sizeof(*object_sizes); i++)
		if (!strcmp(name, object_sizes[i].name))
			return (int64_t)object_sizes[i].bytes;
	return -EINVAL;
}
