/* SPDX-License-Identifier: MIT */
/* The scheduler as those see it who drive it: ops.c and explore.c. Only with PYKSM_TASKS. */
#ifndef PYKSM_SCHED_INTERNAL_H
#define PYKSM_SCHED_INTERNAL_H

#include "context.h"
#include "internal.h"
#include "pyksm_tasks.h"

#define MAX_TASKS PYKSM_MAX_TASKS
#define MAX_LOCKS 64
#define STACK_BYTES ((size_t)128 * 1024)
#define NO_TASK (-1)

typedef void (*task_fn)(struct pyksm *m, int task, void *arg);

struct task {
	struct context context;
	void *stack;
	task_fn fn;
	void *arg;
	struct lock_id wants; /* class LOCK_NONE: nothing, it can go on */
	bool write; /* wants it alone */
	bool done;
	bool yields; /* until another one has made a step */
	enum sched_point point; /* what it is about to pass */
};

/* A lock that somebody has. A page's is in its flags as well, which decide. */
struct held_lock {
	struct lock_id id;
	int writer; /* a task, or NO_TASK */
	uint32_t readers; /* bit k: task k */
};

/* Which of the tasks (bit k: task k can go on) passes its point next. */
typedef int (*choose_fn)(void *arg, struct sched *s, uint32_t enabled);

struct sched {
	struct pyksm *m;
	struct context main;
	struct task task[MAX_TASKS];
	int nr_tasks, current;
	struct held_lock lock[MAX_LOCKS];
	int nr_locks;
	uint64_t steps, max_steps;
	int preemptions; /* switches away from a task that could have gone on */
	enum pyksm_end end;
	char *text; /* why it ended like that, PYKSM_TEXT bytes */
	choose_fn choose;
	void *choose_arg;
	/* told of each step's end: task has run from its last point to this one */
	void (*stepped)(void *arg, struct sched *s, int task);
};

struct sched *sched_new(struct pyksm *m);
void sched_free(struct sched *s);
/* Add a task. -ENOMEM, or -E2BIG where there are MAX_TASKS. */
int sched_add(struct sched *s, task_fn fn, void *arg);
/* Run until all are done, or none can go on, or max_steps; s->end says which. */
void sched_run(struct sched *s);
bool sched_obtainable(const struct sched *s, int task);
const char *point_name(enum sched_point point);
const char *lock_class_name(enum lock_class class);
/* "page lock of frame 5": len bytes at most. */
void sched_describe(const struct sched *s, struct lock_id id, char *buf, size_t len);

/* ops.c */
int draw(uint64_t *state, uint32_t enabled);
void fill_pattern(unsigned char *page, size_t page_size, uint64_t value);
void op_run(struct pyksm *m, struct pyksm_program *p, struct pyksm_op *op);

/* record.c: what is left of a run to be looked at. op: what the chosen task is in. */
void record_begin(struct pyksm_outcome *out, struct pyksm *m, const struct pyksm_program *program);
void record_choice(struct pyksm_outcome *out, const struct sched *s, int next, uint32_t enabled,
		   uint32_t op);
void record_step(struct pyksm_outcome *out, const struct sched *s,
		 const struct pyksm_program *program);
void record_end(struct pyksm_outcome *out, const struct sched *s);

#endif
