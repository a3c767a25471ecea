/* SPDX-License-Identifier: MIT */
/*
 * The other end of -fsanitize=thread: the compiler has put a call before each access of the core to memory, and here
 * is what is called. ThreadSanitizer's own library is not there.
 *
 * Each access is looked at before it happens: a NULL pointer, or an object that was freed, is the end of the machine
 * and not of the process. While a run is recorded, each step (from one schedule point of a task to its next) leaves
 * its footprint, from which follows which steps had to come before which.
 */
#include <sys/mman.h>

#include "arena.h"
#include "internal.h"
#include "pyksm_tasks.h"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp

#define NULL_BYTES                                                                                 \
	65536 /* addresses that far from 0 are a member of what is at NULL, or what NULL is a member of */

_Thread_local struct pyksm *current_machine NEAR_TLS;
static _Thread_local struct arena *current_arena NEAR_TLS;

void trace_enter(struct pyksm *m)
{
	current_machine = m;
	current_arena = m ? m->arena : NULL;
}

void call_begin(struct call *call, struct pyksm *m)
{
	call->m = m;
	call->before = current_machine;
	call->outer = m->call;
	call->points = 0;
	m->call = call;
	trace_enter(m);
}

void call_end(struct call *call)
{
	if (!call->m)
		return;
	call->m->call = call->outer;
	trace_enter(call->before);
}

/* ---- what must not be touched ---- */
static const char *const pool_names[NR_POOLS] = {
	[POOL_MM] = "mm_struct",
	[POOL_VMA] = "vm_area_struct",
	[POOL_AVC] = "anon_vma_chain",
	[POOL_ANON_VMA] = "anon_vma",
	[POOL_RMAP_ITEM] = "rmap_item",
	[POOL_STABLE_NODE] = "stable_node",
	[POOL_KSM] = "mm_slot or stable_node",
	[POOL_PGTABLE] = "page table",
	[POOL_BLOCK] = "swap table",
};

static __attribute__((noinline, cold)) void null_pointer(uintptr_t p)
{
	oops(current_machine, "NULL pointer dereference, address 0x%llx", (unsigned long long)p);
}

static __attribute__((noinline, cold)) void use_after_free(unsigned int freed)
{
	oops(current_machine, "use after free of a %s", pool_names[freed - 1]);
}

/* ---- footprints ---- */
#define READ 1u
#define WROTE 2u

/* What lies in 8 bytes, or is one thing for another reason. */
struct granule {
	uint64_t writer; /* the step that wrote it last; 0: none of this run */
	uint64_t readers; /* the sum of those that have read it since */
	uint64_t
		seen; /* the last step that touched it << 2 | how; UINT64_MAX: it is of no interest */
};

/* A lock, or what is not in the arena. */
struct other {
	struct lock_id id;
	uint64_t run; /* in which it was met */
	struct granule granule;
};
#define NR_OTHERS 4096

struct trace {
	struct granule *granules;
	size_t bytes;
	struct granule **touched; /* by the step under way */
	size_t nr_touched, max_touched;
	uint64_t now; /* the step under way << 2 */
	uint64_t begin; /* the first step of this run << 2 */
	uint64_t last[PYKSM_MAX_TASKS]; /* each task's last step */
	uint64_t fingerprint, nr;
	bool short_of_memory;
	struct other others[NR_OTHERS];
	unsigned int nr_others;
	struct granule counts[NR_COUNTERS]; /* of those that decide */
};

static __attribute__((noinline)) void touch(struct trace *t, struct granule *g, unsigned int how)
{
	if (g->seen < t->begin)
		g->writer = g->readers = 0;
	if (g->seen > t->now) {
		g->seen |= how;
		return;
	}
	g->seen = t->now | how;
	if (t->nr_touched == t->max_touched) {
		size_t max = t->max_touched * 2;
		struct granule **more = realloc(t->touched, max * sizeof(*more));

		if (!more) {
			t->short_of_memory = true;
			return;
		}
		t->touched = more;
		t->max_touched = max;
	}
	t->touched[t->nr_touched++] = g;
}

static inline void look(struct trace *t, struct granule *g, unsigned int how)
{
	if (g->seen < t->now + how) /* it has been touched like that, or written to, in this step */
		touch(t, g, how);
}

static inline struct granule *granule_of(const struct arena *a, uintptr_t at)
{
	if (at < a->bulk)
		return &a->granules[at >> 3];
	return &a->granules[(a->bulk >> 3) + ((at - a->bulk) >> a->bulk_shift)];
}

static inline void looked_at(uintptr_t p, unsigned int how, bool check)
{
	struct arena *a = current_arena;
	uintptr_t at;

	if (!a)
		return;
	at = p - a->base;
	if (at >= a->size) {
		if (p + NULL_BYTES < 2 * (uintptr_t)NULL_BYTES)
			null_pointer(p);
		return;
	}
	if (how == WROTE)
		a->dirty[at >> ARENA_BLOCK_SHIFT] = 1;
	if (check && at < a->bulk && a->freed[at >> 3])
		use_after_free(a->freed[at >> 3]);
	if (a->granules)
		look(a->trace, granule_of(a, at), how);
}

void trace_range(const void *p, size_t n, bool write)
{
	uintptr_t from = (uintptr_t)p, last = from + n - 1;
	unsigned int how = write ? WROTE : READ;

	if (!n)
		return;
	looked_at(from, how, true);
	for (uintptr_t at = (from | 7) + 1; at <= last; at += 8)
		looked_at(at, how, true);
}

#define PYKSM_ACCESS(name, how)                                                                    \
	void __tsan_##name(void *p);                                                               \
	void __tsan_##name(void *p)                                                                \
	{                                                                                          \
		looked_at((uintptr_t)p, how, true);                                                \
	}
PYKSM_ACCESS(read1, READ)
PYKSM_ACCESS(read2, READ)
PYKSM_ACCESS(read4, READ)
PYKSM_ACCESS(read8, READ)
PYKSM_ACCESS(write1, WROTE)
PYKSM_ACCESS(write2, WROTE)
PYKSM_ACCESS(write4, WROTE)
PYKSM_ACCESS(write8, WROTE)
#undef PYKSM_ACCESS

/* Those that may lie in more than one granule. */
#define PYKSM_ACCESS(name, bytes, write)                                                           \
	void __tsan_##name(void *p);                                                               \
	void __tsan_##name(void *p)                                                                \
	{                                                                                          \
		trace_range(p, bytes, write);                                                      \
	}
PYKSM_ACCESS(read16, 16, false)
PYKSM_ACCESS(write16, 16, true)
PYKSM_ACCESS(unaligned_read2, 2, false)
PYKSM_ACCESS(unaligned_read4, 4, false)
PYKSM_ACCESS(unaligned_read8, 8, false)
PYKSM_ACCESS(unaligned_read16, 16, false)
PYKSM_ACCESS(unaligned_write2, 2, true)
PYKSM_ACCESS(unaligned_write4, 4, true)
PYKSM_ACCESS(unaligned_write8, 8, true)
PYKSM_ACCESS(unaligned_write16, 16, true)
#undef PYKSM_ACCESS

void __tsan_read_range(void *p, unsigned long n);
void __tsan_read_range(void *p, unsigned long n)
{
	trace_range(p, n, false);
}
void __tsan_write_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n)
{
	trace_range(p, n, true);
}
void __tsan_func_entry(void *p);
void __tsan_func_entry(void *p)
{
	(void)p;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
void __tsan_init(void);
void __tsan_init(void)
{
}
/* simd.h's choice is the one thing that is read and written like this. */
void __tsan_atomic64_store(volatile void *p, uint64_t value, int order);
void __tsan_atomic64_store(volatile void *p, uint64_t value, int order)
{
	(void)order;
	__atomic_store_n((volatile uint64_t *)p, value, __ATOMIC_SEQ_CST);
}
uint64_t __tsan_atomic64_load(const volatile void *p, int order);
uint64_t __tsan_atomic64_load(const volatile void *p, int order)
{
	(void)order;
	return __atomic_load_n((const volatile uint64_t *)p, __ATOMIC_SEQ_CST);
}

void *traced_memcpy(void *to, const void *from, size_t n)
{
	trace_range(from, n, false);
	trace_range(to, n, true);
	return memcpy(to, from, n);
}

void *traced_memmove(void *to, const void *from, size_t n)
{
	trace_range(from, n, false);
	trace_range(to, n, true);
	return memmove(to, from, n);
}

void *traced_memset(void *to, int c, size_t n)
{
	trace_range(to, n, true);
	return memset(to, c, n);
}

int traced_memcmp(const void *a, const void *b, size_t n)
{
	trace_range(a, n, false);
	trace_range(b, n, false);
	return memcmp(a, b, n);
}

uint32_t read_type_stable(const uint32_t *p)
{
	looked_at((uintptr_t)p, READ, false);
	return *p;
}

/* ---- what is told ---- */
void trace_untraced(struct pyksm *m, const void *p, size_t bytes)
{
	struct arena *a = m->arena;
	uintptr_t at = (uintptr_t)p - a->base, first = at >> ARENA_BLOCK_SHIFT;

	if (at < a->size)
		memset(a->dirty + first, 1, ((at + bytes - 1) >> ARENA_BLOCK_SHIFT) - first + 1);
}

void trace_object(struct pyksm *m, void *obj, size_t bytes, unsigned int freed)
{
	struct arena *a = m->arena;
	uintptr_t at = (uintptr_t)obj - a->base;

	if (at >= a->size)
		return; /* there was no room for it in the arena */
	trace_untraced(m, obj, bytes);
	/* Whoever used it before this had to come before this. A new one is known to nobody yet. */
	if (freed && a->granules)
		for (size_t i = at >> 3; i <= (at + bytes - 1) >> 3; i++)
			look(a->trace, &a->granules[i], WROTE);
	memset(a->freed + (at >> 3), (int)freed, (bytes + 7) / 8);
}

void trace_inject(struct pyksm *m, unsigned int kind)
{
	const uint64_t *first = m->inject[kind];

	if (m->arena->granules)
		look(m->arena->trace, granule_of(m->arena, (uintptr_t)first - m->arena->base),
		     *first ? WROTE : READ);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* With too many of them some are taken for one: then more is ordered than need be. */
static struct granule *other_granule(struct trace *t, struct lock_id id)
{
	uint64_t hash = mix((uintptr_t)id.obj * 31 + id.part * 7 + (uint64_t)id.class);

	for (;; hash++) {
		struct other *o = &t->others[hash % NR_OTHERS];

		if (o->run != t->begin) {
			o->id = id;
			o->run = t->begin;
			o->granule = (struct granule){ 0, 0, 0 };
			t->nr_others++;
		}
		if ((o->id.class == id.class && o->id.obj == id.obj && o->id.part == id.part) ||
		    t->nr_others > NR_OTHERS / 2)
			return &o->granule;
	}
}

void trace_lock(struct pyksm *m, struct lock_id id, bool write)
{
	if (m->arena->granules)
		look(m->arena->trace, other_granule(m->arena->trace, id), write ? WROTE : READ);
}

/* Here the parts are changed: who reads it has all that count come before or after, as if it wrote. */
void trace_deciding_count(struct pyksm *m, enum pyksm_counter_id counter, bool read)
{
	if (m->arena->granules)
		look(m->arena->trace, &m->arena->trace->counts[counter], read ? WROTE : READ);
}

void trace_shared(struct pyksm *m, const void *p, bool write)
{
	trace_lock(m, (struct lock_id){ LOCK_NONE, p, 0 }, write);
}

int pyksm_tasks_traced(void)
{
#ifdef PYKSM_TRACED
	return 1;
#else
	return 0;
#endif
}

/* ---- a run ---- */
static void ignore(struct trace *t, const struct pyksm *m, const void *member, size_t bytes)
{
	size_t at = (size_t)((const char *)member - (const char *)m);

	for (size_t i = at / 8; i <= (at + bytes - 1) / 8; i++)
		t->granules[i].seen = UINT64_MAX;
}

/*
 * What counts, and what says where the next object goes, makes no difference to what happens. (Some counts do:
 * trace_deciding_count().)
 */
static void ignore_some(struct trace *t, const struct pyksm *m)
{
	ignore(t, m, m->count, sizeof(m->count));
	ignore(t, m, m->vm, sizeof(m->vm));
	ignore(t, m, &m->in_use, sizeof(m->in_use));
	ignore(t, m, &m->peak, sizeof(m->peak));
	ignore(t, m, m->pool, sizeof(m->pool));
	ignore(t, m, &m->events, sizeof(m->events));
	ignore(t, m, &m->nr_events, sizeof(m->nr_events));
	ignore(t, m, &m->max_events, sizeof(m->max_events));
	ignore(t, m, &m->sched, sizeof(m->sched));
}

static struct trace *trace_new(const struct arena *a)
{
	struct trace *t = calloc(1, sizeof(*t));
	size_t bulk = ((a->size - a->bulk) >> a->bulk_shift) + 1;

	if (!t)
		return NULL;
	t->max_touched = 4096;
	t->touched = malloc(t->max_touched * sizeof(*t->touched));
	t->bytes = ((a->bulk >> 3) + bulk) * sizeof(*t->granules);
	t->granules = map_lazily(t->bytes);
	if (!t->granules || !t->touched) {
		if (t->granules)
			munmap(t->granules, t->bytes);
		free(t->touched);
		free(t);
		return NULL;
	}
	return t;
}

void trace_free(struct arena *a)
{
	if (!a->trace)
		return;
	munmap(a->trace->granules, a->trace->bytes);
	free(a->trace->touched);
	free(a->trace);
	a->trace = NULL;
	a->granules = NULL;
}

int trace_begin(struct pyksm *m)
{
	struct arena *a = m->arena;

#ifndef PYKSM_TRACED
	return -EOPNOTSUPP;
#endif
	if (a->pools_only)
		return -EOPNOTSUPP;
	if (!a->trace) {
		a->trace = trace_new(a);
		if (!a->trace)
			return -ENOMEM;
		ignore_some(a->trace, m);
	}
	a->trace->now += 4;
	a->trace->begin = a->trace->now;
	memset(a->trace->last, 0, sizeof(a->trace->last));
	a->trace->fingerprint = a->trace->nr = 0;
	a->trace->nr_touched = a->trace->nr_others = 0;
	a->granules = a->trace->granules;
	return 0;
}

void trace_end(struct pyksm *m)
{
	m->arena->granules = NULL;
}

bool trace_pause(struct pyksm *m)
{
	bool recording = m->arena->granules;

	m->arena->granules = NULL;
	return recording;
}

void trace_resume(struct pyksm *m)
{
	m->arena->granules = m->arena->trace->granules;
}

/*
 * A step is told by the task, its step before, and for all that it touched the steps that it found there: what it
 * does follows from those. (Which of the things it touched was which does not matter: a step of the same past
 * touches the same ones.)
 */
static uint64_t past_of(const struct granule *g)
{
	if (!(g->seen & WROTE))
		return g->writer ? mix(g->writer + 0x9e3779b97f4a7c15) : 0;
	return g->writer | g->readers ? mix(g->writer * 3 + (g->readers << 17 | g->readers >> 47))
				      : 0;
}

void trace_step(struct pyksm *m, int task)
{
	struct trace *t = m->arena->granules ? m->arena->trace : NULL;
	uint64_t step;

	if (!t)
		return;
	step = mix(t->last[task] + (uint64_t)task * 0xa0761d6478bd642f + 1);
	for (size_t i = 0; i < t->nr_touched; i++)
		step += past_of(t->touched[i]);
	step = mix(step) | 1;
	for (size_t i = 0; i < t->nr_touched; i++) {
		struct granule *g = t->touched[i];

		if (g->seen & WROTE)
			g->writer = step;
		g->readers = g->seen & WROTE ? 0 : g->readers + step;
	}
	if (t->short_of_memory) /* then nothing is equal to this */
		step += mix(t->now);
	t->last[task] = step;
	t->fingerprint += mix(step);
	t->nr += t->nr_touched;
	t->nr_touched = 0;
	t->now += 4;
}

uint64_t trace_fingerprint(const struct pyksm *m)
{
	return m->arena->trace ? m->arena->trace->fingerprint : 0;
}

uint64_t trace_touched(const struct pyksm *m)
{
	return m->arena->trace ? m->arena->trace->nr : 0;
}
