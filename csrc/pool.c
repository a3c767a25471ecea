/* SPDX-License-Identifier: MIT */
/* Where a machine's objects live: pools of fixed-size records that it owns, and orders to fail. */
#include <sys/mman.h>

#include "internal.h"
#ifdef PYKSM_TASKS
#include "arena.h"
#undef memset
#endif

#define RECORD_ALIGN 64 /* a record of a cache line, as many are, lies in one */
#define CHUNK_BYTES ((size_t)16 * 1024)
#define SMALL_CHUNKS 64
#define LARGE_CHUNK_BYTES ((size_t)8 << 20)
#define BLOCKS_KEPT 16
/* Do large chunks come as zeros, and blocks go back to the host? */
#ifdef PYKSM_TASKS
#define FRESH_ZEROS false
#else
#define FRESH_ZEROS true
#endif

static const size_t pool_size[NR_POOLS] = {
	[POOL_MM] = sizeof(struct mm_struct),
	[POOL_VMA] = sizeof(struct vm_area_struct),
	[POOL_AVC] = sizeof(struct anon_vma_chain),
	[POOL_ANON_VMA] = sizeof(struct anon_vma),
	[POOL_RMAP_ITEM] = sizeof(struct rmap_item),
	[POOL_STABLE_NODE] = sizeof(struct stable_node),
	[POOL_KSM] = sizeof(struct stable_node), /* the larger of the two */
	[POOL_PGTABLE] = PTRS_PER_PTE * sizeof(pte_t),
	[POOL_BLOCK] = BLOCK_BYTES,
};

/* Room for need elements in a growing array. NULL: no memory, the array is as it was. */
void *grow(struct pyksm *m, void *array, size_t *max, size_t need, size_t size)
{
	size_t want = *max ? *max : 8;
	void *bigger;

	if (need <= *max)
		return array;
	while (want < need)
		want *= 2;
	bigger = host_realloc(m, array, *max * size, want * size);
	if (bigger)
		*max = want;
	return bigger;
}

/*
 * A small machine lives off the heap, where pages are at hand. One that is not small gets its records from fresh
 * zeros, in huge pages where the host has them; blocks, which go back to the host, in small ones.
 */
static void *chunk_memory(struct pyksm *m, enum pool_id id, size_t bytes)
{
	size_t align = id == POOL_BLOCK ? BLOCK_BYTES : RECORD_ALIGN;
#ifdef PYKSM_TASKS
	return host_chunk(m, align, bytes);
#else
	void *memory;

	if (m->pool[id].nr_chunks < SMALL_CHUNKS)
		return host_memalign(m, align, bytes);
	memory = host_map(m, bytes);
	if (memory && id != POOL_BLOCK)
		advise_huge_pages(memory, bytes);
	return memory;
#endif
}

static bool add_chunk(struct pyksm *m, enum pool_id id)
{
	struct pool *pool = &m->pool[id];
	struct chunk *chunks =
		grow(m, pool->chunks, &pool->max_chunks, pool->nr_chunks + 1, sizeof(*chunks));
	size_t bytes = pool->nr_chunks < SMALL_CHUNKS ? CHUNK_BYTES : LARGE_CHUNK_BYTES;
	char *memory;

	if (!chunks)
		return false;
	pool->chunks = chunks;
	memory = chunk_memory(m, id, bytes);
	if (!memory)
		return false;
	trace_untraced(m, &chunks[pool->nr_chunks], sizeof(*chunks));
	chunks[pool->nr_chunks++] = (struct chunk){ memory, bytes };
	pool->fresh = memory;
	pool->fresh_end = memory + bytes;
	return true;
}

/* One that has not been handed out before, or whose memory went to the host. */
static void *get_fresh(struct pyksm *m, enum pool_id id)
{
	struct pool *pool = &m->pool[id];
	void *obj;

	if (pool->nr_emptied)
		return pool->emptied[--pool->nr_emptied];
	if ((size_t)(pool->fresh_end - pool->fresh) < pool_size[id] && !add_chunk(m, id))
		return NULL;
	obj = pool->fresh;
	pool->fresh += pool_size[id];
	return FRESH_ZEROS && pool->nr_chunks > SMALL_CHUNKS ? obj : memset(obj, 0, pool_size[id]);
}

static void *get_freed(struct pyksm *m, enum pool_id id)
{
	struct pool *pool = &m->pool[id];
	void *obj = pool->free;

	if (!obj)
		return NULL;
	pool->free = *(void **)obj;
	pool->nr_free--;
	memset(obj, 0, pool_size[id]);
	return obj;
}

#ifndef PYKSM_TASKS
void *pool_get(struct pyksm *m, enum pool_id id)
{
	return m->pool[id].free ? get_freed(m, id) : get_fresh(m, id);
}
#else
/*
 * Where somebody may still hold a pointer to what was freed, by a bug or because tasks race, nothing lies there
 * again: the access shows. Else what was freed last goes out first, as ever: see item_is_on().
 */
void *pool_get(struct pyksm *m, enum pool_id id)
{
	bool quarantine = in_task(m) || (m->bugs.word[0] | m->bugs.word[1]);
	void *obj = quarantine ? get_fresh(m, id) : get_freed(m, id);

	if (!obj)
		obj = quarantine ? get_freed(m, id) : get_fresh(m, id);
	if (obj)
		trace_object(m, obj, pool_size[id], 0);
	return obj;
}
#endif

void *kmem_alloc(struct pyksm *m, enum pool_id id)
{
	COUNT(m, kmem_alloc);
	trace_inject(m, PYKSM_FAIL_KMEM);
	return should_fail(m, PYKSM_FAIL_KMEM) ? NULL : pool_get(m, id);
}

/* Blocks come in crowds, when all memory goes out at once: most go back to the host. false: it is kept. */
static bool empty(struct pyksm *m, struct pool *pool, void *obj, size_t bytes)
{
	void **emptied =
		grow(m, pool->emptied, &pool->max_emptied, pool->nr_emptied + 1, sizeof(*emptied));

	if (!emptied)
		return false;
	pool->emptied = emptied;
	if (madvise(obj, bytes, MADV_DONTNEED))
		return false;
	emptied[pool->nr_emptied++] = obj;
	return true;
}

void kmem_free(struct pyksm *m, enum pool_id id, void *obj)
{
	struct pool *pool = &m->pool[id];

	if (FRESH_ZEROS && id == POOL_BLOCK && pool->nr_free >= BLOCKS_KEPT &&
	    empty(m, pool, obj, pool_size[id]))
		return;
	trace_object(m, obj, pool_size[id], id + 1);
	*(void **)obj = pool->free;
	pool->free = obj;
	pool->nr_free++;
}

#ifndef PYKSM_TASKS
void pools_release(struct pyksm *m)
{
	for (int id = 0; id < NR_POOLS; id++) {
		struct pool *pool = &m->pool[id];

		for (size_t i = 0; i < pool->nr_chunks; i++)
			if (i < SMALL_CHUNKS)
				host_free(m, pool->chunks[i].memory);
			else
				host_unmap(m, pool->chunks[i].memory, pool->chunks[i].bytes);
		host_free(m, pool->chunks);
		host_free(m, pool->emptied);
	}
}
#endif

/* The nth event from now on is to fail, beside those that are to already. */
int order_failure(struct pyksm *m, enum pyksm_fault_kind kind, uint64_t nth)
{
	uint64_t *order = m->inject[kind], *end = order + MAX_ORDERS;

	trace_inject(m, kind);
	while (order < end && *order && nth > *order)
		nth -= *order++;
	if (order < end && *order == nth)
		return 0;
	if (end[-1])
		return -ENOSPC;
	memmove(order + 1, order, (size_t)(end - order - 1) * sizeof(*order));
	*order = nth;
	if (order + 1 < end && order[1])
		order[1] -= nth;
	trace_inject(m, kind); /* there is a first one now: this was no mere look */
	return 0;
}

RARELY bool failure_is_due(struct pyksm *m, enum pyksm_fault_kind kind)
{
	uint64_t *order = m->inject[kind];

	trace_inject(m, kind);
	if (--*order)
		return false;
	m->failed[kind]++;
	memmove(order, order + 1, (MAX_ORDERS - 1) * sizeof(*order));
	order[MAX_ORDERS - 1] = 0;
	return true;
}

/* Up to n events at once, those before the one that was ordered to fail. How many they are. */
uint64_t events_before_failure(struct pyksm *m, enum pyksm_fault_kind kind, uint64_t n)
{
	uint64_t *nth = m->inject[kind];

	trace_inject(m, kind);
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
	const char **events = grow(m, m->events, &m->max_events, m->nr_events + 1, sizeof(*events));

	if (!events)
		return;
	m->events = events;
	trace_untraced(m, &events[m->nr_events], sizeof(*events));
	events[m->nr_events++] = name;
}

static const struct {
	const char *name;
	size_t bytes;
} object_sizes[] = {
	{ "page", sizeof(struct page) },
	{ "pte", sizeof(pte_t) },
	{ "page_table", PTRS_PER_PTE * sizeof(pte_t) },
	{ "slot", 2 },
	{ "swap_entry", sizeof(uint64_t) },
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
