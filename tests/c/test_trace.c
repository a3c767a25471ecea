/* SPDX-License-Identifier: MIT */
/*
 * Arenas and footprints, on random small programs of tasks: a machine that is put back is what it was, byte for
 * byte; the same choices lead to the same state; and orders of steps with the same fingerprint do too.
 */
#include "arena.h"
#include "check.h"
#include "sched_internal.h"

#define NR_PROGRAMS 60
#define NR_RUNS 120
#define NR_OPS 3
#define NPAGES 4
#define PAGE_BYTES 64
#define FRAMES 24
#define AREA ((uint64_t)1 << 30)

static uint64_t seed;

static uint64_t below(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

/* ---- a program ---- */
struct play {
	struct pyksm_program program;
	int32_t pids[8], areas[2];
	struct pyksm_op ops[3][NR_OPS];
	int32_t status[3][NR_OPS][NPAGES];
	unsigned char data[3][NR_OPS][NPAGES * PAGE_BYTES];
	int nr_tasks;
	uint64_t choices; /* seed of them */
	int sticky; /* how often, in 8, the current task goes on */
};

static void random_op(struct play *p, int task, int i)
{
	static const int kinds[] = { PYKSM_OP_WRITE,	PYKSM_OP_WRITE,	  PYKSM_OP_READ,
				     PYKSM_OP_POKE,	PYKSM_OP_FORK,	  PYKSM_OP_EXIT,
				     PYKSM_OP_MUNMAP,	PYKSM_OP_MREMAP,  PYKSM_OP_MADVISE,
				     PYKSM_OP_MPROTECT, PYKSM_OP_MIGRATE, PYKSM_OP_SWAPON,
				     PYKSM_OP_SWAPOFF,	PYKSM_OP_SWAPOUT, PYKSM_OP_KSM,
				     PYKSM_OP_SCAN,	PYKSM_OP_PIN,	  PYKSM_OP_UNPIN };
	static const int advice[] = { PYKSM_MADV_DONTNEED, PYKSM_MADV_MERGEABLE,
				      PYKSM_MADV_UNMERGEABLE };
	struct pyksm_op *op = &p->ops[task][i];

	memset(op, 0, sizeof(*op));
	op->kind = kinds[below(sizeof(kinds) / sizeof(*kinds))];
	op->process = (int32_t)below(3);
	op->child = 3 + task * NR_OPS % 4 + (int32_t)below(2);
	op->area = (int32_t)below(2);
	op->addr = AREA + (below(NPAGES) << PAGE_SHIFT);
	op->npages = 1 + below(NPAGES - (op->addr - AREA) / PAGE_SIZE);
	op->to = op->kind == PYKSM_OP_POKE ? below(PAGE_BYTES) : AREA * 2;
	op->value = below(3);
	op->arg = op->kind == PYKSM_OP_MADVISE ? advice[below(3)] : (int32_t)below(2);
	if (op->kind == PYKSM_OP_SWAPON)
		op->npages = 8;
	if (op->kind == PYKSM_OP_KSM)
		strcpy(op->key, "run");
	op->status = p->status[task][i];
	op->data = p->data[task][i];
}

static void random_program(struct play *p)
{
	memset(p, 0, sizeof(*p));
	p->nr_tasks = 2 + (int)below(2);
	for (int task = 0; task < p->nr_tasks; task++)
		for (int i = 0; i < NR_OPS; i++)
			random_op(p, task, i);
}

static void set_the_scene(struct pyksm *m)
{
	unsigned char page[PAGE_BYTES];

	for (int i = 0; i < 2; i++) {
		EXPECT(pyksm_spawn(m), i + 1);
		EXPECT(pyksm_mmap(m, i + 1, AREA, NPAGES, -1), AREA);
		EXPECT(pyksm_madvise(m, i + 1, AREA, NPAGES, PYKSM_MADV_MERGEABLE), 0);
	}
	for (uint64_t k = 0; k < NPAGES; k++) {
		fill_pattern(page, PAGE_BYTES, k / 2 + 1);
		EXPECT(pyksm_write_pages(m, 1 + (int)(k & 1), AREA + (k << PAGE_SHIFT), 1, page,
					 NULL),
		       0);
	}
	EXPECT(pyksm_fork(m, 1), 3);
	EXPECT(pyksm_swapon(m, 16, -1, NULL), 0);
	pyksm_ksm_scan(m, 2);
	pyksm_swapout(m, NULL, 0);
	EXPECT(pyksm_touch(m, 2, AREA, NPAGES, 0, NULL), 0);
}

/* ---- a run ---- */
static int choose(void *arg, struct sched *s, uint32_t enabled)
{
	struct play *p = arg;
	uint64_t keep = seed;
	int next = s->current;

	seed = p->choices;
	if (next == NO_TASK || !(enabled >> next & 1) || below(8) >= (uint64_t)p->sticky)
		do
			next = (int)below((uint64_t)s->nr_tasks);
		while (!(enabled >> next & 1));
	p->choices = seed;
	seed = keep;
	return next;
}

static void stepped(void *arg, struct sched *s, int task)
{
	(void)arg;
	trace_step(s->m, task);
}

static void run_ops(struct pyksm *m, int task, void *arg)
{
	struct play *p = arg;

	for (int i = 0; i < NR_OPS; i++) {
		if (i)
			sched_point(m, PT_TASK_NEXT_OP);
		op_run(m, &p->program, &p->ops[task][i]);
	}
}

/* How it ended. */
static enum pyksm_end run(struct pyksm *m, struct play *p, bool recorded)
{
	struct sched *s = sched_new(m);
	enum pyksm_end end;

	memset(p->status, 0, sizeof(p->status));
	memset(p->data, 0, sizeof(p->data));
	for (int i = 0; i < 8; i++)
		p->pids[i] = i < 3 ? i + 1 : 0;
	p->areas[0] = 0;
	p->areas[1] = -1;
	p->program = (struct pyksm_program){ p->pids, p->areas, 8, 2, NULL };
	s->choose = choose;
	s->choose_arg = p;
	s->stepped = recorded ? stepped : NULL;
	s->max_steps = 20000;
	for (int i = 0; i < p->nr_tasks; i++)
		EXPECT(sched_add(s, run_ops, p), 0);
	if (recorded)
		EXPECT(trace_begin(m), 0);
	sched_run(s);
	trace_end(m);
	end = s->end;
	if (end != PYKSM_END_DONE)
		m->dead = true;
	sched_free(s);
	return end;
}

/* ---- what is to see of a machine ---- */
static uint64_t state;

static void see(const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		state = (state ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
}

static void see_number(int64_t number)
{
	see(&number, sizeof(number));
}

static void see_process(struct pyksm *m, int pid)
{
	struct pyksm_page pages[2 * NPAGES];
	struct pyksm_vma vma;

	memset(pages, 0, sizeof(pages));
	see_number(pid);
	for (int i = 0; !pyksm_vma_at(m, pid, i, &vma); i++)
		see(&vma, sizeof(vma));
	for (uint64_t at = AREA; at <= 2 * AREA; at += AREA) {
		pyksm_pagemap(m, pid, at, 2 * NPAGES, pages);
		see(pages, sizeof(pages));
		for (int i = 0; i < 2 * NPAGES; i++)
			if (pages[i].pfn >= 0)
				see(pyksm_frame(m, pages[i].pfn), PAGE_BYTES);
	}
}

static uint64_t state_of(struct pyksm *m, const struct play *p)
{
	struct pyksm_area area;
	char lines[2048] = "";
	int64_t count;

	state = 0xcbf29ce484222325;
	for (int i = 0; i < pyksm_process_count(m); i++)
		see_process(m, pyksm_process_at(m, i));
	for (int i = 0; !pyksm_area_at(m, i, &area); i++) {
		see(&area, sizeof(area));
		for (uint64_t slot = 0; slot < area.max; slot++)
			see_number(pyksm_swap_map(m, area.type, slot));
	}
	for (int i = 0; pyksm_ksm_count_name(m, i); i++) {
		pyksm_ksm_read(m, pyksm_ksm_count_name(m, i), &count);
		see_number(count);
	}
	for (int i = 0; i < pyksm_nr_counters(); i++)
		see_number((int64_t)pyksm_counter(m, i));
	see_number(pyksm_free_frames(m, -1));
	see_number(pyksm_swapcached(m));
	pyksm_census(m, 1, lines, sizeof(lines));
	see(lines, strlen(lines));
	for (int task = 0; task < p->nr_tasks; task++)
		for (int i = 0; i < NR_OPS; i++)
			see_number(p->ops[task][i].err);
	see(p->status, sizeof(p->status));
	see(p->data, sizeof(p->data));
	see(p->pids, sizeof(p->pids));
	return state;
}

/* ---- the tests ---- */
struct found {
	uint64_t fingerprint, state;
};

static int nr_equal, nr_runs, nr_odd_ends;

/* Each state by its fingerprint: one that was there before leads to the same. */
static void note(struct found *found, size_t *nr, struct found one, uint64_t program)
{
	for (size_t i = 0; i < *nr; i++) {
		if (found[i].fingerprint != one.fingerprint)
			continue;
		nr_equal++;
		if (found[i].state != one.state)
			fprintf(stderr, "program %" PRIu64 ":\n", program);
		EXPECT(found[i].state == one.state, 1);
		return;
	}
	found[(*nr)++] = one;
}

static void expect_as_marked(struct arena *a, const unsigned char *before, size_t used,
			     uint64_t program)
{
	size_t wrong = 0;

	for (size_t i = 0; i < used; i++)
		wrong += before[i] != ((const unsigned char *)a->base)[i];
	for (size_t i = used; i < used + ((size_t)1 << 20); i++)
		wrong += ((const unsigned char *)a->base)[i] != 0;
	if (wrong)
		fprintf(stderr, "program %" PRIu64 ": not put back\n", program);
	EXPECT(wrong, 0);
}

static struct pyksm *new_machine(struct arena **a)
{
	const struct pyksm_config config = { .nodes = 2,
					     .page_size = PAGE_BYTES,
					     .frames = FRAMES,
					     .profile = seed & 1 ? "3.10.65" : NULL };
	struct pyksm *m;
	int err;

	*a = arena_new((size_t)64 << 20);
	m = arena_machine(*a, &config, &err);
	EXPECT(err, 0);
	set_the_scene(m);
	EXPECT(arena_mark(*a), 0);
	return m;
}

static void try_program(uint64_t number, bool traced)
{
	static struct found found[NR_RUNS];
	size_t nr = 0, used;
	struct arena *a;
	struct play p;
	struct pyksm *m;
	unsigned char *before;

	seed = number * 0x9E3779B97F4A7C15u + 1;
	m = new_machine(&a);
	used = a->used;
	before = malloc(used);
	memcpy(before, (const void *)a->base, used);
	random_program(&p);
	for (int i = 0; i < NR_RUNS; i++) {
		uint64_t choices = seed + (uint64_t)i / 2 * 0x1234567;
		struct found one;

		p.sticky = i / 2 % 8;
		p.choices = choices; /* each twice, and then all others */
		if (run(m, &p, traced) != PYKSM_END_DONE)
			nr_odd_ends++;
		one.fingerprint = traced ? trace_fingerprint(m) : choices;
		one.state = state_of(m, &p);
		note(found, &nr, one, number);
		nr_runs++;
		arena_restore(a);
		if (i < 4)
			expect_as_marked(a, before, used, number);
	}
	free(before);
	pyksm_free(m);
	arena_free(a);
}

int main(void)
{
#ifdef PYKSM_TRACED
	bool traced = true;
#else
	bool traced = false;
#endif
	for (uint64_t i = 0; i < NR_PROGRAMS; i++)
		try_program(i, traced);
	printf("%d runs, %d of them equal to one before, %d did not end well\n", nr_runs, nr_equal,
	       nr_odd_ends);
	EXPECT(nr_equal > nr_runs / 2, 1);
	return report();
}
