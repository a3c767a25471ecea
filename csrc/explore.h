/* SPDX-License-Identifier: MIT */
/* What the explorer's files share; see explore.c. Only with PYKSM_TASKS. */
#ifndef PYKSM_EXPLORE_H
#define PYKSM_EXPLORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "judge.h"

#define MAX_FINDINGS 16
#define MAX_PREEMPTIONS PYKSM_MAX_PREEMPTIONS
#define MAX_TRACE 65536
#define MAX_PIECES 400 /* of a schedule that is kept: then things take their course */

/* One choice of a schedule that has run. */
struct choice {
	uint16_t point; /* that the task passed */
	uint16_t left_at; /* the point of the one that was current */
	uint8_t task;
	uint8_t left; /* who was current, NO_TASK as 0xff */
	uint8_t can; /* it could have gone on */
	uint8_t deviates; /* from what happens where nobody chooses */
};

/* Where a schedule deviates from that: step << 8 | task. */
struct item {
	struct item *next;
	uint32_t nr;
	uint32_t used; /* preemptions */
	uint32_t deviation[];
};

struct worker {
	struct pyksm_explore *x;
	struct arena *arena;
	struct pyksm *m;
	struct pyksm_judge *judge;
	struct pyksm_program program, kept; /* with tables of their own */
	struct pyksm_op *setup, *after;
	struct pyksm_task tasks[PYKSM_MAX_TASKS];
	struct pyksm_outcome out;
	/* of the schedule under way */
	const struct item *item;
	uint32_t at; /* the next deviation */
	uint32_t used;
	uint64_t ran_at[PYKSM_MAX_TASKS]; /* the last step of each */
	bool pruned;
	uint64_t random;
	int64_t priority[PYKSM_MAX_TASKS];
	uint64_t change[MAX_PREEMPTIONS + 1]; /* steps */
	struct choice *trace;
	bool recorded; /* so its fingerprint is known */
	uint64_t fingerprint; /* of all of it */
	/* added to the exploration's own now and then */
	struct pyksm_explored counts;
	bool busy;
};

struct pyksm_explore {
	struct pyksm_explore_config config;
	struct worker worker[PYKSM_MAX_WORKERS];
	pthread_mutex_t lock; /* of all that follows but seen */
	struct item *queue[MAX_PREEMPTIONS + 1]; /* by preemptions used */
	uint64_t next; /* PCT, random: the number of the next schedule */
	bool started, out_of_memory;
	atomic_bool stop;
	int busy;
	struct pyksm_explored counts;
	struct pyksm_finding finding[MAX_FINDINGS];
	uint32_t nr_findings;
	_Atomic uint64_t *seen; /* fingerprint << 8 | most preemptions left + 1 */
	uint32_t seen_mask;
	_Atomic uint64_t nr_seen;
};

/* explore_stage.c: the machine that a worker runs on, put back for each schedule. */
int stage_new(struct worker *w);
void stage_free(struct worker *w);
int stage_restore(struct worker *w);
void stage_record(struct worker *w, bool on);
/* Of the steps since the start, and of what had to come before what; 0: it is not known. */
uint64_t stage_fingerprint(struct worker *w);
void stage_step(struct worker *w, int task);

/* explore_found.c */
void note_findings(struct worker *w);
void free_findings(struct pyksm_explore *x);

#endif
