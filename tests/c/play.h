/* SPDX-License-Identifier: MIT */
/* Random small programs of tasks on a machine in an arena, and what there is to see of it: for C tests. */
#ifndef PYKSM_TESTS_PLAY_H
#define PYKSM_TESTS_PLAY_H

#include "arena.h"
#include "check.h"
#include "sched_internal.h"

#define MAX_OPS 3
#define MAX_MADE 1024
#define NPAGES 4
#define PAGE_BYTES 64
#define FRAMES 24
#define AREA ((uint64_t)1 << 30)

static uint64_t seed;

static inline uint64_t below(uint64_t n)
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
	struct pyksm_op ops[3][MAX_OPS];
	int32_t status[3][MAX_OPS][NPAGES];
	unsigned char data[3][MAX_OPS][NPAGES * PAGE_BYTES];
	int nr_tasks, nr_ops;
	choose_fn choose;
	uint64_t choices; /* seed of them */
	int sticky; /* how often, in 8, the current task goes on */
	uint8_t made[MAX_MADE]; /* what was chosen, step by step */
	uint64_t steps; /* of the last run */
	size_t nr_made, nr_forced; /* the first nr_forced of them are to be made again */
};

static inline void random_op(struct play *p, int task, int i)
{
	static const int kinds[] = { PYKSM_OP_WRITE,	PYKSM_OP_WRITE,	  PYKSM_OP_READ,
				     PYKSM_OP_POKE,	PYKSM_OP_FORK,	  PYKSM_OP_EXIT,
				     PYKSM_OP_MUNMAP,	PYKSM_OP_MREMAP,  PYKSM_OP_MADVISE,
				     PYKSM_OP_MPROTECT, PYKSM_OP_MIGRATE, PYKSM_OP_SWAPON,
				     PYKSM_OP_SWAPOFF,	PYKSM_OP_SWAPOUT, PYKSM_OP_KSM,
				     PYKSM_OP_SCAN,	PYKSM_OP_PIN,	  PYKSM_OP_UNPIN,
				     PYKSM_OP_MLOCK,	PYKSM_OP_MUNLOCK };
	static const int advice[] = { PYKSM_MADV_DONTNEED, PYKSM_MADV_MERGEABLE,
				      PYKSM_MADV_UNMERGEABLE };
	struct pyksm_op *op = &p->ops[task][i];

	memset(op, 0, sizeof(*op));
	op->kind = kinds[below(sizeof(kinds) / sizeof(*kinds))];
	op->process = (int32_t)below(3);
	op->child = 3 + task * 3 % 4 + (int32_t)below(2);
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

static inline void random_program(struct play *p, int nr_tasks, int nr_ops)
{
	memset(p, 0, sizeof(*p));
	p->nr_tasks = nr_tasks;
	p->nr_ops = nr_ops;
	for (int task = 0; task < p->nr_tasks; task++)
		for (int i = 0; i < p->nr_ops; i++)
			random_op(p, task, i);
}

static inline void set_the_scene(struct pyksm *m)
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
/* Those of a run before, as far as they are to be made again and can be, then by lot. */
static inline int by_lot(void *arg, struct sched *s, uint32_t enabled)
{
	struct play *p = arg;
	uint64_t keep = seed;
	int next = s->current;

	seed = p->choices;
	if (p->nr_made < p->nr_forced && enabled >> p->made[p->nr_made] & 1)
		next = p->made[p->nr_made];
	else if (next == NO_TASK || !(enabled >> next & 1) || below(8) >= (uint64_t)p->sticky)
		next = draw(&seed, enabled);
	p->choices = seed;
	seed = keep;
	if (p->nr_made < MAX_MADE)
		p->made[p->nr_made++] = (uint8_t)next;
	return next;
}

static inline void stepped(void *arg, struct sched *s, int task)
{
	(void)arg;
	trace_step(s->m, task);
}

static inline void run_ops(struct pyksm *m, int task, void *arg)
{
	struct play *p = arg;

	for (int i = 0; i < p->nr_ops; i++) {
		if (i)
			sched_point(m, PT_TASK_NEXT_OP);
		op_run(m, &p->program, &p->ops[task][i]);
	}
}

/* How it ended. */
static inline enum pyksm_end run(struct pyksm *m, struct play *p, bool recorded)
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
	p->nr_made = 0;
	s->choose = p->choose;
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
	p->steps = s->steps;
	if (end != PYKSM_END_DONE)
		m->dead = true;
	sched_free(s);
	return end;
}

/* ---- what is to see of a machine ---- */
static uint64_t state;

static inline void see(const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		state = (state ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
}

static inline void see_number(int64_t number)
{
	see(&number, sizeof(number));
}

static inline void see_process(struct pyksm *m, int pid)
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

static inline uint64_t state_of(struct pyksm *m, const struct play *p)
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
		for (int i = 0; i < p->nr_ops; i++)
			see_number(p->ops[task][i].err);
	see(p->status, sizeof(p->status));
	see(p->data, sizeof(p->data));
	see(p->pids, sizeof(p->pids));
	return state;
}

/* ---- where it is played ---- */
static inline struct pyksm *new_machine(struct arena **a)
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

#endif
