/* SPDX-License-Identifier: MIT */
/*
 * What would crash a kernel ends the machine and not the process. Objects are freed behind the model's back, and
 * words of them cleared; then the model goes on with them.
 */
#include <unistd.h>

#include "play.h"

static struct pyksm *a_machine(bool in_arena, struct arena **a)
{
	const struct pyksm_config config = { .nodes = 2,
					     .page_size = PAGE_BYTES,
					     .frames = FRAMES };
	struct pyksm *m;
	int err;

	*a = in_arena ? arena_new((size_t)64 << 20) : NULL;
	m = in_arena ? arena_machine(*a, &config, &err) : pyksm_new(&config, &err);
	EXPECT(err, 0);
	set_the_scene(m);
	return m;
}

static void drop(struct pyksm *m, struct arena *a)
{
	pyksm_free(m);
	arena_free(a);
}

static void expect_dead(struct pyksm *m, const char *why)
{
	struct pyksm_page page;
	char lines[64];
	const char *event, *last = "";

	while ((event = pyksm_next_event(m)))
		last = event;
	EXPECT(strncmp(last, why, strlen(why)), 0);
	if (strncmp(last, why, strlen(why)))
		fprintf(stderr, "'%s', not '%s'\n", last, why);
	EXPECT(pyksm_census(m, 1, lines, sizeof(lines)), -EIO);
	EXPECT(pyksm_spawn(m), -EIO);
	EXPECT(pyksm_touch(m, 1, AREA, 1, 1, NULL), -EIO);
	EXPECT(pyksm_pagemap(m, 1, AREA, 1, &page), -EIO);
	EXPECT(pyksm_ksm_scan(m, 1), -EIO);
	EXPECT(pyksm_swapoff(m, 0), -EIO);
	EXPECT(pyksm_frame(m, 1) == NULL, 1);
	EXPECT(pyksm_next_event(m) == NULL, 1);
	EXPECT(current_machine == NULL, 1);
}

static struct mm_struct *first_mm(struct pyksm *m)
{
	return m->procs[0].mm;
}

/* ---- each kind of object ---- */
static void free_a_vma(struct pyksm *m)
{
	kmem_free(m, POOL_VMA, first_mm(m)->mmap);
}

static void free_an_mm(struct pyksm *m)
{
	kmem_free(m, POOL_MM, first_mm(m));
}

static void free_a_page_table(struct pyksm *m)
{
	kmem_free(m, POOL_PGTABLE, pte_lookup(first_mm(m), AREA));
}

static void free_an_anon_vma(struct pyksm *m)
{
	kmem_free(m, POOL_ANON_VMA, first_mm(m)->mmap->anon_vma);
}

static void lose_the_page_tables(struct pyksm *m)
{
	first_mm(m)->pgd = NULL;
}

static void lose_the_mm(struct pyksm *m)
{
	m->procs[0].mm = NULL;
}

static const struct {
	void (*harm)(struct pyksm *m);
	const char *why;
} harms[] = {
	{ free_a_vma, "BUG: use after free of a vm_area_struct" },
	{ free_an_mm, "BUG: use after free of a mm_struct" },
	{ free_a_page_table, "BUG: use after free of a page table" },
	{ free_an_anon_vma, "BUG: use after free of a anon_vma" },
	{ lose_the_page_tables, "BUG: " },
	{ lose_the_mm, "BUG: NULL pointer dereference" },
};

static void test_calls(bool in_arena)
{
	for (size_t i = 0; i < sizeof(harms) / sizeof(*harms); i++) {
		struct arena *a;
		struct pyksm *m = a_machine(in_arena, &a);

		harms[i].harm(m);
		EXPECT(pyksm_touch(m, 1, AREA, NPAGES, 1, NULL), -EIO);
		expect_dead(m, harms[i].why);
		drop(m, a);
	}
}

/* ---- in a hook: the call that it is in ends too, and only then its own caller's ---- */
static int in_hook_answer, nr_hooks;

static void harmful_hook(void *arg, int point)
{
	struct pyksm *m = arg;

	(void)point;
	nr_hooks++;
	if (nr_hooks > 1)
		return;
	free_a_vma(m);
	in_hook_answer = pyksm_touch(m, 1, AREA, 1, 1, NULL);
}

static void test_hook(void)
{
	struct arena *a;
	struct pyksm *other = a_machine(true, &a), *m = a_machine(false, &a);

	nr_hooks = 0;
	EXPECT(pyksm_set_hook(m, harmful_hook, m), 0);
	EXPECT(pyksm_ksm_scan(m, 1), -EIO);
	EXPECT(nr_hooks, 1);
	EXPECT(in_hook_answer, -EIO);
	expect_dead(m, "BUG: use after free of a vm_area_struct");
	pyksm_free(m);
	EXPECT(pyksm_touch(other, 2, AREA, 1, 1, NULL), 0);
	drop(other, other->arena);
}

/* ---- in a task, on a machine that is put back after it ---- */
static void harmful_task(struct pyksm *m, int task, void *arg)
{
	struct play *p = arg;

	if (task)
		free_a_page_table(m);
	sched_point(m, PT_TASK_NEXT_OP);
	p->status[task][0][0] = pyksm_touch(m, 1, AREA, 1, 1, NULL); /* which does not come back */
}

static void test_task(void)
{
	struct arena *a;
	struct pyksm *m = a_machine(true, &a);
	static struct play p;

	EXPECT(arena_mark(a), 0);
	p.nr_tasks = 2;
	for (int i = 0; i < 50; i++) {
		struct sched *s = sched_new(m);

		p.choices = (uint64_t)i * 77 + 1;
		p.nr_made = 0;
		s->choose = by_lot;
		s->choose_arg = &p;
		EXPECT(sched_add(s, harmful_task, &p), 0);
		EXPECT(sched_add(s, harmful_task, &p), 0);
		sched_run(s); /* and is not freed: what it had goes with the run */
		EXPECT(s->end, PYKSM_END_OOPS);
		EXPECT(strcmp(s->text, "BUG: use after free of a page table"), 0);
		expect_dead(m, "BUG: use after free of a page table");
		arena_restore(a);
		EXPECT(pyksm_process_count(m), 3);
	}
	EXPECT(pyksm_fork(m, 1), 4);
	drop(m, a);
}

/* ---- anything ---- */
/* One of the living objects loses a word, or its life. */
static void harm_something(struct pyksm *m)
{
	static const enum pool_id ids[] = { POOL_MM,	   POOL_VMA,	     POOL_AVC,
					    POOL_ANON_VMA, POOL_RMAP_ITEM,   POOL_STABLE_NODE,
					    POOL_KSM,	   POOL_STABLE_NODE, POOL_AVC };
	const struct pool *pool = &m->pool[ids[below(9)]];
	uint64_t *word;
	size_t bytes;

	if (!pool->nr_chunks)
		return;
	bytes = (size_t)(pool->fresh - (char *)pool->chunks[0].memory);
	word = (uint64_t *)pool->chunks[0].memory + below(bytes / 8);
	if (arena_has(m->arena, word) && m->arena->freed[((uintptr_t)word - m->arena->base) >> 3])
		return;
	if (*word > UINT32_MAX) /* a pointer: other words could send the model anywhere */
		*word = 0;
}

static void do_something(struct pyksm *m)
{
	struct pyksm_program program = { (int32_t[]){ 1, 2, 3, 0, 0, 0, 0, 0 }, (int32_t[]){ 0, 1 },
					 8, 2, NULL };
	static struct play p;

	p.nr_ops = 1;
	random_op(&p, 0, 0);
	op_run(m, &program, &p.ops[0][0]);
}

static void test_anything(void)
{
	int nr_dead = 0;

	for (uint64_t i = 0; i < 400; i++) {
		struct arena *a;
		struct pyksm *m = a_machine(i & 1, &a);
		char lines[512];

		seed = i * 0x9E3779B97F4A7C15u + 99;
		harm_something(m);
		for (int k = 0; k < 12; k++)
			do_something(m);
		pyksm_census(m, 1, lines, sizeof(lines));
		nr_dead += m->dead;
		drop(m, a);
	}
	printf("%d of 400 harmed machines died\n", nr_dead);
	EXPECT(nr_dead > 40, 1);
}

int main(void)
{
	alarm(120); /* a list whose end is lost would be walked for ever */
#ifdef PYKSM_TRACED
	test_calls(false);
	test_calls(true);
	test_hook();
	test_task();
	test_anything();
#else
	(void)test_calls, (void)test_hook, (void)test_task, (void)test_anything;
#endif
	return report();
}
