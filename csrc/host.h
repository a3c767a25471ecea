/* SPDX-License-Identifier: MIT */
/*
 * Where a machine's memory comes from. In the plain build it is libc's, and this is nothing but its calls. In the
 * build with tasks a machine may be in an arena (arena.h), and what it has from libc is known, because a machine
 * that died is given back without a look at its own structures.
 */
#ifndef PYKSM_HOST_H
#define PYKSM_HOST_H

#include <stddef.h>
#include <stdlib.h>

struct arena;
struct pyksm;

void *map_lazily(size_t bytes); /* zeros that take memory when they are touched; NULL */
/* The same, of a machine. */
void *host_map(struct pyksm *m, size_t bytes);
void host_unmap(struct pyksm *m, void *p, size_t bytes);
void advise_huge_pages(void *memory, size_t bytes);

#ifndef PYKSM_TASKS
static inline void *host_calloc(struct pyksm *m, size_t n, size_t size)
{
	(void)m;
	return calloc(n, size);
}
static inline void *host_malloc(struct pyksm *m, size_t bytes)
{
	(void)m;
	return malloc(bytes);
}
/* Of old bytes until now. */
static inline void *host_realloc(struct pyksm *m, void *p, size_t old, size_t bytes)
{
	(void)m, (void)old;
	return realloc(p, bytes);
}
static inline void *host_memalign(struct pyksm *m, size_t align, size_t bytes)
{
	void *p;

	(void)m;
	return posix_memalign(&p, align, bytes) ? NULL : p;
}
static inline void host_free(struct pyksm *m, void *p)
{
	(void)m;
	free(p);
}
/* What is given back before the call ends: never in the arena. */
static inline void *host_temp(struct pyksm *m, size_t n, size_t size)
{
	(void)m;
	return calloc(n, size);
}
#else
void *host_calloc(struct pyksm *m, size_t n, size_t size);
void *host_malloc(struct pyksm *m, size_t bytes);
void *host_realloc(struct pyksm *m, void *p, size_t old, size_t bytes);
void *host_memalign(struct pyksm *m, size_t align, size_t bytes);
void host_free(struct pyksm *m, void *p);
void *host_temp(struct pyksm *m, size_t n, size_t size);
/* For the time that tasks run: stacks, the scheduler. In an arena they are behind what a mark keeps. */
void *host_scratch(struct pyksm *m, size_t bytes);
void host_scratch_free(struct pyksm *m, void *p);
/* Memory for a pool. */
void *host_chunk(struct pyksm *m, size_t align, size_t bytes);
/* A zeroed struct pyksm, and everything that a machine has. */
struct pyksm *host_new(void);
struct pyksm *host_new_in(struct arena *a, size_t page_size);
void host_delete(struct pyksm *m);
#endif

#endif
