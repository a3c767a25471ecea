/* SPDX-License-Identifier: MIT */
/*
 * A stretch of addresses that a machine, all of it, lies in. It can be marked and put back as it was when it was
 * marked, at the price of what has been written since; and who drops a machine drops its arena. Only with
 * PYKSM_TASKS.
 *
 *	const struct pyksm_config config = ...;
 *	struct arena *arena = arena_new(ARENA_BYTES);
 *	struct pyksm *m = arena_machine(arena, &config, &err);
 *	... set the scene ...
 *	arena_mark(arena);
 *	for (...) {
 *		... sched_new(m), sched_add() ..., sched_run(), look at m; sched_free() may be left out ...
 *		arena_restore(arena);
 *	}
 *	arena_free(arena);
 *
 * There are no areas on files in it (-EOPNOTSUPP), no second thread, and no machine survives arena_free().
 */
#ifndef PYKSM_ARENA_H
#define PYKSM_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyksm.h"

#define ARENA_BYTES                                                                                \
	((size_t)1 << 30) /* of addresses: for 65536 frames of 4096 bytes and as many slots */
#define ARENA_BLOCK_SHIFT 12
#define ARENA_BLOCK ((size_t)1 << ARENA_BLOCK_SHIFT)

struct granule;
struct saved_block;
struct host_block;
struct host_mapping;

/*
 * Objects lie from base on; from bulk on what comes in pages: contents of frames and slots. Whatever is above
 * what is used of either is zero.
 */
struct arena {
	uintptr_t base;
	size_t size, bulk; /* offsets */
	uint8_t *
		freed; /* of each 8 bytes below bulk: 0, or 1 + the pool that a freed object is of */
	uint8_t *dirty; /* of each block: it was written to since it was last marked or put back */
	struct granule *granules; /* see trace.c; NULL: nothing is recorded */
	unsigned int bulk_shift; /* what lies in one such page of the bulk is one thing */
	bool pools_only; /* the rest of the machine is libc's */
	bool marked;
	size_t used, bulk_used, marked_used, marked_bulk_used;
	char *scratch;
	size_t scratch_used;
	unsigned int scratch_live;
	struct saved_block *saved; /* as they were */
	uint32_t *saved_at; /* of each block: 1 + which of them it is, 0: zeros */
	size_t nr_saved, max_saved;
	struct host_block *blocks; /* that libc has given */
	struct host_mapping *mappings;
	size_t machine_bytes; /* of struct pyksm, which lies first */
	struct trace *trace;
};

/* NULL: no memory, or no such stretch of addresses. */
struct arena *arena_new(size_t bytes);
void arena_free(struct arena *a);
/* A machine in an arena that has none yet; pyksm_free() leaves it there. */
struct pyksm *arena_machine(struct arena *a, const struct pyksm_config *config, int *err);
/* What a later arena_restore() brings back. -ENOMEM: the mark before, if any, is gone. */
int arena_mark(struct arena *a);
void arena_restore(struct arena *a);

static inline bool arena_has(const struct arena *a, const void *p)
{
	return a && (uintptr_t)p - a->base < a->size;
}

#endif
