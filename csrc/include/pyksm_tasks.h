/* SPDX-License-Identifier: MIT */
/*
 * pyksm with tasks: operations that run at the same time, interleaved at every lock, and the museum's bugs.
 *
 * For the build of the core that has them (-DPYKSM_TASKS, the Python extension pyksm._tasks). In it
 * everything of pyksm.h holds too; what would crash a kernel (a NULL pointer followed, memory used after it
 * was freed, an assertion that does not hold) is an event that begins with "BUG", after which the machine is
 * dead: each further call is -EIO.
 */
#ifndef PYKSM_TASKS_H
#define PYKSM_TASKS_H

#include "pyksm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CDEF-BEGIN: from here to CDEF-END the text is also what the Python binding declares. */

enum pyksm_task_limits {
	PYKSM_MAX_TASKS = 8,
	PYKSM_TEXT = 1024, /* bytes of an explanation */
	PYKSM_OP_KEY = 48,
};

enum pyksm_op_kind {
	PYKSM_OP_SPAWN = 0,
	PYKSM_OP_MMAP = 1,
	PYKSM_OP_WRITE = 2,
	PYKSM_OP_POKE = 3,
	PYKSM_OP_READ = 4,
	PYKSM_OP_FORK = 5,
	PYKSM_OP_EXIT = 6,
	PYKSM_OP_MUNMAP = 7,
	PYKSM_OP_MREMAP = 8,
	PYKSM_OP_MADVISE = 9,
	PYKSM_OP_MPROTECT = 10,
	PYKSM_OP_MIGRATE = 11,
	PYKSM_OP_PIN = 12,
	PYKSM_OP_UNPIN = 13,
	PYKSM_OP_SWAPON = 14,
	PYKSM_OP_SWAPOFF = 15,
	PYKSM_OP_SWAPOUT = 16,
	PYKSM_OP_KSM = 17,
	PYKSM_OP_SCAN = 18,
	PYKSM_OP_PRCTL = 19,
	PYKSM_OP_CLEAR_REFS = 20,
	PYKSM_OP_SLEEP = 21,
	PYKSM_OP_INJECT = 22,
	PYKSM_OP_MLOCK = 23,
	PYKSM_OP_MUNLOCK = 24,
	PYKSM_NR_OPS = 25,
};

/*
 * One statement. Processes and swap areas are indices into the program's tables, because what a fork in one
 * task makes another one may use; -1: none.
 */
struct pyksm_op {
	int32_t kind; /* enum pyksm_op_kind */
	int32_t process;
	int32_t child; /* FORK: which process it becomes */
	int32_t area;
	/* MMAP, MIGRATE: node; MADVISE: advice; MPROTECT: prot; SWAPON: priority; PRCTL: on;
	 * CLEAR_REFS: what; INJECT: enum pyksm_fault_kind; WRITE: 1 where page k gets value + k;
	 * PIN: 1 for I/O */
	int32_t arg;
	uint32_t line; /* the caller's */
	uint64_t addr,
		npages; /* a range of the process; SWAPON: npages; SWAPOUT: npages 0 is all */
	uint64_t to; /* MREMAP: the new address; POKE: offset in the page */
	uint64_t value; /* WRITE: pattern; POKE: byte; KSM: value; SCAN, INJECT: n; SLEEP: ms */
	char key[PYKSM_OP_KEY]; /* KSM: which file */
	/* what it came to */
	int32_t err; /* 0, -errno, or 1: it has not ended */
	int32_t ret; /* what the call returned where that is more than 0 */
	int32_t *status; /* a page each as the call gives them, or NULL */
	unsigned char *data; /* READ: what was read, page_size bytes a page, or NULL */
	uint64_t begin, end; /* steps at which it began and ended */
};

struct pyksm_judge;

/* What ops refer to, and what runs them: nr of each, pids 0 and areas -1 where there is none (yet). */
struct pyksm_program {
	int32_t *pids;
	int32_t *areas;
	uint32_t nr_pids, nr_areas;
	struct pyksm_judge *judge; /* told of each operation; NULL: nobody is */
};

struct pyksm_task {
	struct pyksm_op *ops;
	uint32_t nr;
	uint32_t pad;
};

/*
 * One piece of a schedule: task runs until it is about to pass point for the count-th time in this piece.
 * point -1: any point; count 0: until it ends or has to wait.
 */
struct pyksm_segment {
	int32_t task;
	int32_t point;
	uint32_t count;
	uint32_t pad;
};

enum pyksm_end {
	PYKSM_END_DONE = 0, /* all tasks came to their end */
	PYKSM_END_DEADLOCK = 1, /* they wait for each other */
	PYKSM_END_LIVELOCK = 2, /* more steps than allowed */
	PYKSM_END_OOPS = 3, /* what would crash a kernel; the machine is dead */
	PYKSM_END_MISFIT = 4, /* the schedule does not fit: text says where */
};

/* What was said of a step. */
enum pyksm_step_flag {
	PYKSM_STEP_PREEMPTS = 1, /* the task of the step before could have gone on */
};

struct pyksm_step {
	uint8_t task;
	uint8_t flags; /* enum pyksm_step_flag */
	uint16_t point; /* the one that it passed */
	uint32_t op; /* of the task's ops */
	uint32_t locks; /* where in log it is said which are held when it has been made */
	uint32_t pad;
};

/* A pte to be looked at after each step, of a process of the program. */
struct pyksm_watch {
	uint64_t addr;
	int32_t process;
	uint32_t pad;
};

enum pyksm_seen_flag {
	PYKSM_SEEN_LOCKED = 1,
	PYKSM_SEEN_DIRTY = 2,
	PYKSM_SEEN_WRITEBACK = 4,
	PYKSM_SEEN_UPTODATE = 8,
	PYKSM_SEEN_NODE = 16, /* a KSM page that its stable node knows of */
};

struct pyksm_seen {
	struct pyksm_page page; /* state 0: there is no such process */
	uint64_t word; /* the first one of a present page's contents */
	uint64_t flags; /* enum pyksm_seen_flag, of a present page */
	int64_t slot; /* of the swap pte, or of the present page in the swap cache; or -1 */
	int32_t slot_type; /* its area, or -1 */
	int32_t slot_map; /* its byte of swap_map, or -1 */
	int32_t refs; /* of a present page, or -1 */
	int32_t pad;
};

struct pyksm_outcome {
	int32_t end; /* enum pyksm_end */
	int32_t preemptions;
	uint64_t steps;
	uint64_t max_steps; /* in: 0 means 1,000,000 */
	/* in: not 0, when the schedule is used up the next task is drawn by lot, with this for a seed */
	uint64_t seed;
	struct pyksm_step *trace; /* the first max_trace of them, or NULL */
	uint64_t max_trace;
	/* The schedule that replays it: the first max_taken pieces, or NULL; nr_taken is how many there were. */
	struct pyksm_segment *taken;
	uint32_t max_taken, nr_taken;
	/* With trace: nr_watch of seen before the first step, and as many again after each of max_trace; or NULL. */
	const struct pyksm_watch *watch;
	struct pyksm_seen *seen;
	uint32_t nr_watch, log_size;
	/* Texts that end in 0, as "0w page lock of frame 5; 1r ...": task, reading or writing, lock; or NULL. What
	 * does not fit is left out, from some step on: its locks are UINT32_MAX. */
	char *log;
	char text[PYKSM_TEXT];
};

/* One op, by itself: what the plain call of pyksm.h answers is in op->err and op->ret. */
PYKSM_API int pyksm_run_op(struct pyksm *m, struct pyksm_program *program, struct pyksm_op *op);
/*
 * All of them at the same time, as the schedule says; when it is used up each goes on until it ends or has to
 * wait, then the lowest that can. 0 (out->end says how it went), -EINVAL for what is no task or no point.
 */
PYKSM_API int pyksm_run_tasks(struct pyksm *m, struct pyksm_program *program,
			      struct pyksm_task *tasks, uint32_t nr,
			      const struct pyksm_segment *schedule, uint32_t nr_segments,
			      struct pyksm_outcome *out);

/*
 * A judge follows a program from its first operation on, keeps a plain map of what each page may hold, and says what
 * is wrong: contents, answers, what must hold after an operation, and at the end a census. See judge.c.
 */
enum pyksm_judge_flags {
	PYKSM_JUDGE_EACH =
		1, /* a census whenever no operation is under way, not at the end alone */
	/* at the end let ksmd scan once, and all processes exit: nothing may be left. Uses the machine up */
	PYKSM_JUDGE_QUIESCE = 2,
	/* a mapped KSM page without a stable node counts, or with one that waits for its place, which Linux allows */
	PYKSM_JUDGE_HALF_KSM = 4,
	/* so does an rmap_item that names a node which is gone, and is taken for another one's */
	PYKSM_JUDGE_STALE_HEAD = 8,
	/* so does a KSM page that comes back though run is 2, because it was looked at before that */
	PYKSM_JUDGE_SWAPIN_RACE = 16,
	/* so does what is lost because swapoff by entries trusts a write that has failed */
	PYKSM_JUDGE_FAILED_WRITE = 32,
	/* so does swapoff by entries that waits for ksmd with a page locked that ksmd waits for */
	PYKSM_JUDGE_LAST_USER = 64,
	/* so does a child that KSM could not be told of, and that unmerging does not come to */
	PYKSM_JUDGE_UNKNOWN_CHILD = 128,
	/* so does a fault that lays it on memory that its slot was free for a moment */
	PYKSM_JUDGE_LEAKED_OOM = 256,
	/* so does a KSM page that unmerging passes over for want of access, and what comes of moving it */
	PYKSM_JUDGE_PASSED_OVER = 512,
	/* so does a fault that has no end, on a pte which came back while its vma was being taken in */
	PYKSM_JUDGE_LATE_FLAGS = 1024,
	/* so does a write that is not tracked, because clear_refs found its page on its way to another frame */
	PYKSM_JUDGE_CLEARED_ENTRY = 2048,
};

struct pyksm_wrong {
	int32_t invariant; /* 1 to 10: those of the bug catalogue */
	uint32_t line; /* of the operation, 0: it was seen at the end */
	char code[32];
	char text[256];
};

PYKSM_API struct pyksm_judge *pyksm_judge_new(struct pyksm *m, uint32_t flags); /* or NULL */
PYKSM_API void pyksm_judge_free(struct pyksm_judge *j);
/* When all has run; out may be NULL where no tasks did. How many findings there are, or -EINVAL. */
PYKSM_API int pyksm_judge_finish(struct pyksm_judge *j, struct pyksm *m,
				 struct pyksm_program *program, const struct pyksm_outcome *out);
PYKSM_API const struct pyksm_wrong *pyksm_judge_wrong(const struct pyksm_judge *j, uint32_t index);

/*
 * The schedules of a program, run and judged one after the other: see explore.c. What config points to stays the
 * caller's and has to last for as long as the exploration.
 */
enum pyksm_strategy {
	PYKSM_EXPLORE_EXHAUSTIVE = 0, /* all that differ, up to so many preemptions */
	PYKSM_EXPLORE_PCT = 1, /* priorities by lot, and depth steps at which they change */
	PYKSM_EXPLORE_RANDOM = 2,
};

enum pyksm_explore_limits {
	PYKSM_MAX_WORKERS = 8,
	PYKSM_MAX_PREEMPTIONS = 15,
};

struct pyksm_explore_config {
	const struct pyksm_config *machine;
	const struct pyksm_op *setup, *after; /* one after the other, before and after the tasks */
	const struct pyksm_task *tasks;
	uint32_t nr_setup, nr_after, nr_tasks;
	uint32_t nr_pids, nr_areas;
	uint32_t judge; /* enum pyksm_judge_flags */
	uint32_t strategy; /* enum pyksm_strategy */
	uint32_t preemptions, depth; /* 0..PYKSM_MAX_PREEMPTIONS */
	uint32_t stop; /* not 0: with the first schedule that is wrong */
	uint32_t
		unpruned; /* not 0: each schedule is run to its end and judged, even where all is as it was */
	uint32_t states; /* that there will hardly be more of; 0: nobody knows */
	uint64_t seed;
	uint64_t max_steps; /* of one schedule; 0: 20,000 */
};

struct pyksm_explored {
	uint64_t schedules; /* run to their end */
	uint64_t pruned; /* left where the rest had been seen */
	uint64_t steps; /* of all */
	uint64_t longest; /* steps */
	uint64_t ends; /* that differ: what had to come before what, 0 where that is not known */
	uint64_t states; /* the same of all that tasks came to */
	uint64_t deadlocks;
	uint64_t waiting; /* schedules that are yet to be run */
	uint32_t complete; /* there are no others within the bound */
	uint32_t pad;
};

struct pyksm_finding {
	struct pyksm_wrong wrong;
	int32_t end; /* enum pyksm_end */
	uint32_t preemptions;
	uint64_t steps;
	uint64_t schedules; /* run before it */
	struct pyksm_segment *schedule; /* that shows it again */
	uint32_t nr_segments;
	uint32_t pad;
};

struct pyksm_explore;
PYKSM_API struct pyksm_explore *pyksm_explore_new(const struct pyksm_explore_config *config,
						  int *err);
PYKSM_API void pyksm_explore_free(struct pyksm_explore *x);
/*
 * Go on for so many milliseconds and so many schedules at most. Workers (0..PYKSM_MAX_WORKERS - 1) share one
 * exploration, each on a thread of its own. 0, or -errno.
 */
PYKSM_API int pyksm_explore_run(struct pyksm_explore *x, uint32_t worker, uint64_t ms,
				uint64_t schedules);
/* While no worker runs. */
PYKSM_API void pyksm_explore_result(struct pyksm_explore *x, struct pyksm_explored *ret);
/* One of each kind, the simplest that was found; NULL: there are no more. */
PYKSM_API const struct pyksm_finding *pyksm_explore_finding(struct pyksm_explore *x,
							    uint32_t index);

/* Is each access to memory looked at (NULL, what was freed), and is it known which orders of steps are alike? 0: not
 * in this build, because the compiler cannot do it or another sanitizer is in the way. */
PYKSM_API int pyksm_tasks_traced(void);
PYKSM_API int pyksm_nr_task_points(void);
PYKSM_API const char *pyksm_task_point_name(int index);
PYKSM_API int pyksm_nr_bugs(void);
PYKSM_API const char *pyksm_bug_name(int index);

/* CDEF-END */

#ifdef __cplusplus
}
#endif
#endif
