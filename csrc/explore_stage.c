/* SPDX-License-Identifier: MIT */
/* The machine on which a worker runs schedules: set up once, and put back for each. */
#include "arena.h"
#include "arena.h"
#include "explore.h"

static struct pyksm_op *copy_ops(const struct pyksm_op *ops, uint32_t nr)
{
	struct pyksm_op *copy = calloc(nr ? nr : 1, sizeof(*copy));

	for (uint32_t i = 0; copy && i < nr; i++) {
		copy[i] = ops[i];
		copy[i].status = NULL; /* the judge has arrays of its own */
		copy[i].data = NULL;
	}
	return copy;
}

static int make_tables(struct pyksm_program *p, uint32_t nr_pids, uint32_t nr_areas)
{
	p->pids = calloc(nr_pids + 1, sizeof(*p->pids));
	p->areas = calloc(nr_areas + 1, sizeof(*p->areas));
	p->nr_pids = nr_pids;
	p->nr_areas = nr_areas;
	return p->pids && p->areas ? 0 : -ENOMEM;
}

static void copy_tables(struct pyksm_program *to, const struct pyksm_program *from)
{
	memcpy(to->pids, from->pids, from->nr_pids * sizeof(*to->pids));
	memcpy(to->areas, from->areas, from->nr_areas * sizeof(*to->areas));
}

static int copy_program(struct worker *w)
{
	const struct pyksm_explore_config *c = &w->x->config;

	w->setup = copy_ops(c->setup, c->nr_setup);
	w->after = copy_ops(c->after, c->nr_after);
	w->trace = malloc(MAX_TRACE * sizeof(*w->trace));
	for (uint32_t i = 0; i < c->nr_tasks; i++) {
		w->tasks[i].nr = c->tasks[i].nr;
		w->tasks[i].ops = copy_ops(c->tasks[i].ops, c->tasks[i].nr);
		if (!w->tasks[i].ops)
			return -ENOMEM;
	}
	if (!w->setup || !w->after || !w->trace)
		return -ENOMEM;
	if (make_tables(&w->program, c->nr_pids, c->nr_areas))
		return -ENOMEM;
	return make_tables(&w->kept, c->nr_pids, c->nr_areas);
}

/* Of addresses; what is not touched takes no memory. */
static size_t arena_bytes(const struct pyksm_config *c)
{
	uint64_t frames = c->frames ? c->frames : 65536;

	return frames <= 4096 && c->page_size && c->page_size <= 64 ? ARENA_BYTES / 16
								    : ARENA_BYTES;
}

/* From nothing to where the tasks begin. */
static int set_up(struct worker *w)
{
	const struct pyksm_explore_config *c = &w->x->config;
	int err = -ENOMEM;

	w->arena = arena_new(arena_bytes(c->machine));
	w->m = w->arena ? arena_machine(w->arena, c->machine, &err) : NULL;
	if (!w->m)
		return err;
	for (uint32_t i = 0; i < c->nr_areas; i++)
		w->program.areas[i] = -1;
	w->judge = pyksm_judge_new(w->m, c->judge);
	if (!w->judge)
		return -ENOMEM;
	w->program.judge = w->judge;
	for (uint32_t i = 0; i < c->nr_setup; i++)
		op_run(w->m, &w->program, &w->setup[i]);
	return arena_mark(w->arena);
}

int stage_new(struct worker *w)
{
	int err = copy_program(w);

	if (!err)
		err = set_up(w);
	if (!err)
		copy_tables(&w->kept, &w->program);
	if (!err)
		err = judge_keep(w->judge);
	if (!err)
		err = arena_mark(w->arena);
	if (err)
		stage_free(w);
	return err;
}

void stage_free(struct worker *w)
{
	pyksm_judge_free(w->judge);
	pyksm_free(w->m);
	arena_free(w->arena);
	for (uint32_t i = 0; i < PYKSM_MAX_TASKS; i++)
		free(w->tasks[i].ops);
	free(w->setup);
	free(w->after);
	free(w->trace);
	free(w->program.pids);
	free(w->program.areas);
	free(w->kept.pids);
	free(w->kept.areas);
	*w = (struct worker){ .x = w->x };
}

int stage_restore(struct worker *w)
{
	arena_restore(w->arena);
	copy_tables(&w->program, &w->kept);
	return judge_restore(w->judge);
}

/* Without memory for it nothing is recorded, and no two schedules are known to be alike. */
void stage_record(struct worker *w, bool on)
{
	if (on) {
		trace_enter(w->m);
		w->recorded = !trace_begin(w->m);
		return;
	}
	w->fingerprint = w->recorded ? trace_fingerprint(w->m) : 0;
	trace_end(w->m);
	trace_enter(NULL);
}

uint64_t stage_fingerprint(struct worker *w)
{
	return w->recorded ? trace_fingerprint(w->m) : 0;
}

void stage_step(struct worker *w, int task)
{
	trace_step(w->m, task);
}
