/* SPDX-License-Identifier: MIT */
/* The host's memory for machines: see host.h, and arena.h for those that are in an arena. */
#include <sys/mman.h>

#include "internal.h"

void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Fewer TLB misses, and far fewer page faults on first touch; whether the host follows is its business. */
void advise_huge_pages(void *memory, size_t bytes)
{
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
}

#ifndef PYKSM_TASKS
void *host_map(struct pyksm *m, size_t bytes)
{
	(void)m;
	return map_lazily(bytes);
}

void host_unmap(struct pyksm *m, void *p, size_t bytes)
{
	(void)m;
	munmap(p, bytes);
}

#else
#include "arena.h"
#undef memcpy
#undef memset

/* ---- what libc has given ---- */
/* In front of each piece. */
struct host_block {
	_Alignas(16) struct host_block *next, *prev;
	void *raw;
};

struct host_mapping {
	struct host_mapping *next;
	void *memory;
	size_t bytes;
};

static void *host_track(struct arena *a, void *raw, size_t align)
{
	uintptr_t at = ((uintptr_t)raw + sizeof(struct host_block) + align - 1) & ~(align - 1);
	struct host_block *block = (struct host_block *)at - 1;

	if (!raw)
		return NULL;
	*block = (struct host_block){ .next = a->blocks, .raw = raw };
	if (a->blocks)
		a->blocks->prev = block;
	a->blocks = block;
	return (void *)at;
}

static void host_untrack(struct arena *a, void *p)
{
	struct host_block *block = (struct host_block *)p - 1;

	if (block->prev)
		block->prev->next = block->next;
	else
		a->blocks = block->next;
	if (block->next)
		block->next->prev = block->prev;
	free(block->raw);
}

static void host_release(struct arena *a)
{
	while (a->blocks)
		host_untrack(a, a->blocks + 1);
	while (a->mappings) {
		struct host_mapping *mapping = a->mappings;

		a->mappings = mapping->next;
		munmap(mapping->memory, mapping->bytes);
		free(mapping);
	}
}

static bool overflows(size_t bytes, size_t align)
{
	return bytes > SIZE_MAX / 2 - sizeof(struct host_block) - align;
}

void *host_temp(struct pyksm *m, size_t n, size_t size)
{
	if (size && n > SIZE_MAX / 4 / size)
		return NULL;
	return host_track(m->arena, calloc(1, n * size + sizeof(struct host_block) + 16), 16);
}

/* ---- what an arena gives: never the same twice until it is put back ---- */
static void *arena_get(struct arena *a, size_t align, size_t bytes)
{
	size_t at = (a->used + align - 1) & ~(align - 1);

	if (at > a->bulk || bytes > a->bulk - at)
		return NULL;
	a->used = at + bytes;
	return (void *)(a->base + at);
}

static void *arena_get_bulk(struct arena *a, size_t bytes)
{
	size_t at = (a->bulk_used + ARENA_BLOCK - 1) & ~(ARENA_BLOCK - 1);

	if (at > a->size - a->bulk || bytes > a->size - a->bulk - at)
		return NULL;
	a->bulk_used = at + bytes;
	return (void *)(a->base + a->bulk + at);
}

void *host_calloc(struct pyksm *m, size_t n, size_t size)
{
	if (size && n > SIZE_MAX / 4 / size)
		return NULL;
	return m->arena->pools_only ? host_temp(m, n, size) : arena_get(m->arena, 16, n * size);
}

void *host_memalign(struct pyksm *m, size_t align, size_t bytes)
{
	struct arena *a = m->arena;

	if (overflows(bytes, align))
		return NULL;
	if (!a->pools_only)
		return arena_get(a, align, bytes);
	return host_track(a, malloc(bytes + sizeof(struct host_block) + align), align);
}

void *host_malloc(struct pyksm *m, size_t bytes)
{
	return host_memalign(m, 16, bytes);
}

void host_free(struct pyksm *m, void *p)
{
	if (p && !arena_has(m->arena, p))
		host_untrack(m->arena, p);
}

void *host_realloc(struct pyksm *m, void *p, size_t old, size_t bytes)
{
	void *bigger = host_malloc(m, bytes);

	if (!bigger)
		return NULL;
	if (p) {
		trace_range(p, old, false);
		trace_range(bigger, old, true);
		memcpy(bigger, p, old);
		host_free(m, p);
	}
	return bigger;
}

/* Memory for a pool: in the arena for as long as there is room, because what lies there is looked after. */
void *host_chunk(struct pyksm *m, size_t align, size_t bytes)
{
	void *p = arena_get(m->arena, align, bytes);

	return p || !m->arena->pools_only ? p : host_memalign(m, align, bytes);
}

void *host_map(struct pyksm *m, size_t bytes)
{
	struct arena *a = m->arena;
	struct host_mapping *mapping;

	if (!a->pools_only)
		return arena_get_bulk(a, bytes);
	mapping = malloc(sizeof(*mapping));
	if (!mapping)
		return NULL;
	*mapping = (struct host_mapping){ a->mappings, map_lazily(bytes), bytes };
	if (!mapping->memory) {
		free(mapping);
		return NULL;
	}
	a->mappings = mapping;
	return mapping->memory;
}

void host_unmap(struct pyksm *m, void *p, size_t bytes)
{
	struct arena *a = m->arena;

	if (arena_has(a, p))
		return;
	for (struct host_mapping **at = &a->mappings; *at; at = &(*at)->next) {
		struct host_mapping *mapping = *at;

		if (mapping->memory != p)
			continue;
		*at = mapping->next;
		munmap(p, bytes);
		free(mapping);
		return;
	}
}

/* ---- scratch ---- */
#define SCRATCH_BYTES ((size_t)4 << 20)

void *host_scratch(struct pyksm *m, size_t bytes)
{
	struct arena *a = m->arena;
	size_t at = (a->scratch_used + 63) & ~(size_t)63;

	if (a->pools_only)
		return host_temp(m, 1, bytes);
	if (at > SCRATCH_BYTES || bytes > SCRATCH_BYTES - at)
		return NULL;
	a->scratch_used = at + bytes;
	a->scratch_live++;
	return a->scratch + at;
}

void host_scratch_free(struct pyksm *m, void *p)
{
	struct arena *a = m->arena;

	if (a->pools_only)
		host_free(m, p);
	else if (p && !--a->scratch_live)
		a->scratch_used = 0;
}

/* ---- life ---- */
static size_t mapped_bytes(size_t size)
{
	return size + size / 8 + size / ARENA_BLOCK + SCRATCH_BYTES;
}

/* In this order: the arena, freed, scratch, dirty. */
static struct arena *arena_make(size_t size, bool pools_only)
{
	struct arena *a = calloc(1, sizeof(*a));
	char *memory = a ? map_lazily(mapped_bytes(size)) : NULL;

	if (!memory) {
		free(a);
		return NULL;
	}
	a->base = (uintptr_t)memory;
	a->size = size;
	a->bulk = pools_only ? size : size / 2;
	a->bulk_shift = PAGE_SHIFT;
	a->freed = (uint8_t *)memory + size;
	a->scratch = memory + size + size / 8;
	a->dirty = (uint8_t *)a->scratch + SCRATCH_BYTES;
	a->pools_only = pools_only;
	return a;
}

struct arena *arena_new(size_t bytes)
{
	size_t unit = 16 * ARENA_BLOCK; /* eight blocks at a time, in either half */
	size_t size = bytes < SIZE_MAX / 8 ? (bytes + unit - 1) & ~(unit - 1) : 0;

	return size ? arena_make(size, false) : NULL;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	host_release(a);
	trace_free(a);
	munmap((void *)a->base, mapped_bytes(a->size));
	free(a->saved);
	free(a->saved_at);
	free(a);
}

#define POOL_ARENA_BYTES ((size_t)256 << 20)

/* One that is libc's but for its pools. */
struct pyksm *host_new(void)
{
	struct pyksm *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->arena = arena_make(POOL_ARENA_BYTES, true);
	if (!m->arena) {
		free(m);
		return NULL;
	}
	return m;
}

struct pyksm *host_new_in(struct arena *a, size_t page_size)
{
	struct pyksm *m = arena_get(a, 64, sizeof(*m));

	if (!m)
		return NULL;
	m->arena = a;
	a->machine_bytes = sizeof(*m);
	while (page_size >= 8 && page_size < (size_t)1 << a->bulk_shift)
		a->bulk_shift--;
	return m;
}

void host_delete(struct pyksm *m)
{
	struct arena *a = m->arena;

	if (!a->pools_only)
		return; /* it is its arena's owner's */
	free(m);
	arena_free(a);
}

/* ---- marks ---- */
struct saved_block {
	unsigned char bytes[ARENA_BLOCK];
	uint8_t freed[ARENA_BLOCK / 8];
};

static size_t nr_blocks(const struct arena *a)
{
	return a->size >> ARENA_BLOCK_SHIFT;
}

/* What nobody has told of: struct pyksm, which the scheduler writes to; all, where accesses are not traced. */
static void note_untold(struct arena *a)
{
	memset(a->dirty, 1, (a->machine_bytes >> ARENA_BLOCK_SHIFT) + 1);
#ifndef PYKSM_TRACED
	memset(a->dirty, 1, (a->used >> ARENA_BLOCK_SHIFT) + 1);
	memset(a->dirty + (a->bulk >> ARENA_BLOCK_SHIFT), 1,
	       (a->bulk_used + ARENA_BLOCK - 1) >> ARENA_BLOCK_SHIFT);
#endif
}

static int each_dirty_of(struct arena *a, size_t first, size_t bytes,
			 int (*fn)(struct arena *a, size_t block))
{
	size_t end = first + ((bytes + ARENA_BLOCK - 1) >> ARENA_BLOCK_SHIFT);
	int err = 0;

	for (size_t i = first; i < end && !err; i += 8) { /* there is room for eight at the end */
		uint64_t eight;

		memcpy(&eight, a->dirty + i, 8);
		for (size_t k = i; eight && k < i + 8 && !err; k++)
			if (a->dirty[k])
				err = fn(a, k);
		if (eight && !err)
			memset(a->dirty + i, 0, 8);
	}
	return err;
}

/* fn for each block that was written to, which then counts as clean. */
static int each_dirty(struct arena *a, int (*fn)(struct arena *a, size_t block))
{
	size_t bulk = a->bulk >> ARENA_BLOCK_SHIFT;
	int err;

	note_untold(a);
	err = each_dirty_of(a, 0, a->used, fn);
	return err ? err : each_dirty_of(a, bulk, a->bulk_used, fn);
}

static bool all_zeros(const void *p, size_t bytes)
{
	const uint64_t *words = p;

	for (size_t i = 0; i < bytes / 8; i++)
		if (words[i])
			return false;
	return true;
}

static void *block_bytes(const struct arena *a, size_t block)
{
	return (void *)(a->base + (block << ARENA_BLOCK_SHIFT));
}

/* Nothing of the bulk is in a pool. */
static uint8_t *block_freed(const struct arena *a, size_t block)
{
	return block < a->bulk >> ARENA_BLOCK_SHIFT ? a->freed + block * (ARENA_BLOCK / 8) : NULL;
}

static int save_block(struct arena *a, size_t block)
{
	const uint8_t *freed = block_freed(a, block);
	struct saved_block *saved;

	if (!a->saved_at[block]) {
		if (all_zeros(block_bytes(a, block), ARENA_BLOCK) &&
		    (!freed || all_zeros(freed, ARENA_BLOCK / 8)))
			return 0;
		if (a->nr_saved == a->max_saved) {
			size_t max = a->max_saved ? a->max_saved * 2 : 64;

			saved = realloc(a->saved, max * sizeof(*saved));
			if (!saved)
				return -ENOMEM;
			a->saved = saved;
			a->max_saved = max;
		}
		a->saved_at[block] = (uint32_t)++a->nr_saved;
	}
	saved = &a->saved[a->saved_at[block] - 1];
	memcpy(saved->bytes, block_bytes(a, block), ARENA_BLOCK);
	if (freed)
		memcpy(saved->freed, freed, ARENA_BLOCK / 8);
	return 0;
}

static int restore_block(struct arena *a, size_t block)
{
	uint8_t *freed = block_freed(a, block);
	uint32_t at = a->saved_at[block];

	if (at)
		memcpy(block_bytes(a, block), a->saved[at - 1].bytes, ARENA_BLOCK);
	else
		memset(block_bytes(a, block), 0, ARENA_BLOCK);
	if (freed && at)
		memcpy(freed, a->saved[at - 1].freed, ARENA_BLOCK / 8);
	else if (freed)
		memset(freed, 0, ARENA_BLOCK / 8);
	return 0;
}

int arena_mark(struct arena *a)
{
	if (!a->saved_at)
		a->saved_at = calloc(nr_blocks(a), sizeof(*a->saved_at));
	a->marked = a->saved_at && !each_dirty(a, save_block);
	a->marked_used = a->used;
	a->marked_bulk_used = a->bulk_used;
	return a->marked ? 0 : -ENOMEM;
}

#ifndef NDEBUG
static bool is_as_saved(const struct arena *a, size_t block)
{
	static const unsigned char zeros[ARENA_BLOCK];
	uint32_t at = a->saved_at[block];

	return !memcmp(block_bytes(a, block), at ? a->saved[at - 1].bytes : zeros, ARENA_BLOCK);
}

/* Has somebody written to it of whom nobody has told? */
static bool is_as_marked(const struct arena *a)
{
	size_t bulk = a->bulk >> ARENA_BLOCK_SHIFT, end = a->marked_used >> ARENA_BLOCK_SHIFT;
	bool same = true;

	for (size_t i = 0; i < end && same; i++)
		same = is_as_saved(a, i);
	for (size_t i = bulk; i < bulk + (a->marked_bulk_used >> ARENA_BLOCK_SHIFT) && same; i++)
		same = is_as_saved(a, i);
	return same;
}
#endif

void arena_restore(struct arena *a)
{
	if (!a->marked)
		return;
	trace_enter(NULL);
	a->granules = NULL;
	host_release(a);
	each_dirty(a, restore_block);
#ifndef NDEBUG
	if (!is_as_marked(a))
		abort(); /* ours, no kernel's: nothing that is found from now on means anything */
#endif
	a->used = a->marked_used;
	a->bulk_used = a->marked_bulk_used;
	a->scratch_used = 0;
	a->scratch_live = 0;
}
#endif
