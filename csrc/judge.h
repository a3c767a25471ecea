/* SPDX-License-Identifier: MIT */
/* What the judge knows while operations run; see judge.c, judge_map.c, judge_look.c. Only with PYKSM_TASKS. */
#ifndef PYKSM_JUDGE_H
#define PYKSM_JUDGE_H

#include "sched_internal.h"

#define JUDGE_VALUES 8 /* that a page may hold at a time; more: it may hold anything */
#define JUDGE_FLIGHTS (MAX_TASKS + 1)
#define JUDGE_WRONGS 16
#define JUDGE_CENSUS_BYTES 8192
#define IN_FLIGHT UINT64_MAX

/* One content that a page may hold, and when the write that put it there had ended. */
struct judge_value {
	uint32_t content; /* of judge_contents */
	uint32_t tag; /* of the operation that writes it, 0: it has ended */
	uint64_t ended; /* IN_FLIGHT: not yet */
};

struct judge_set {
	uint32_t nr;
	bool any;
	struct judge_value value[JUDGE_VALUES];
};

/* One page of a process. */
struct judge_cell {
	int32_t process;
	uint32_t going; /* operations under way that may take it away */
	uint64_t vpn;
	uint32_t maker; /* tag of the operation that made it */
	bool there; /* mapped for certain, but for those */
	bool guarded; /* an access may be EFAULT */
	bool met; /* by what may have put it out of reach, while it came to be or since */
	bool unsure; /* half of what failed may have taken it away */
	bool soft; /* written, and no clear_refs since */
	bool sealed; /* mseal: it stays as it is, and stays sealed */
	struct judge_set set;
};

/* An operation under way. */
struct judge_flight {
	struct pyksm_op *op;
	uint32_t tag;
	uint64_t clock;
	bool overlapped; /* another one was under way at the same time */
	bool unmerges; /* MADVISE: the range was mergeable and in memory, and stays so */
	bool raced; /* KSM: pages came in at the same time */
	bool rivalled; /* KSM: another call writes the same setting meanwhile */
	bool shortage; /* SWAPOFF: there is no room for what is out */
	int64_t knob; /* KSM: what the file held before */
	uint32_t failed[PYKSM_NR_FAULT_KINDS]; /* as the machine counted them before */
	uint64_t memory_denied, oom_leaked; /* as well */
	bool fired[PYKSM_NR_FAULT_KINDS]; /* one has, since then */
	struct judge_set *seen; /* READ: what each page held at any time */
	bool *sure; /* READ, WRITE: each page must be there */
	int32_t *status; /* ours, where the op had none */
	unsigned char *data;
};

/* Each content that was ever written: page_size bytes, by number. 0: zeros. */
struct judge_contents {
	unsigned char *bytes;
	uint64_t *pattern; /* the value that it was written as, or NO_PATTERN */
	uint32_t nr, max;
	uint32_t *bucket; /* number + 1 */
	uint32_t mask;
};
#define NO_PATTERN UINT64_MAX
#define NO_CONTENT UINT32_MAX

/* What changes from operation to operation, and is put back between schedules. */
struct judge_state {
	struct judge_cell *cell; /* sorted by process and page */
	uint32_t nr, max;
	uint32_t tag;
	uint64_t clock;
	bool fired[PYKSM_NR_FAULT_KINDS]; /* an ordered failure has come */
	bool unmerged; /* run=2 has succeeded, and nobody has written another mode */
	bool scanned; /* ksmd ran, so what it merges is not soft-dirty any more */
	bool met; /* by what may have put it out of reach, while it came to be or since */
	bool marks_raced; /* calls have overlapped where that may leave a lock's mark on a page, or off it */
	bool unsure; /* what could not be read or written was dropped, as kernels did: contents are anybody's */
	uint64_t tainted; /* bit k: process k has become mergeable since run=2 began */
	uint64_t veiled; /* bit k: process k had memory without access */
	uint64_t merge_any, merge_any_unsure; /* bit k: process k has asked for all to be merged */
	uint32_t nr_wrong;
	struct pyksm_wrong wrong[JUDGE_WRONGS];
};

struct pyksm_judge {
	uint32_t flags; /* enum pyksm_judge_flags */
	size_t page_size;
	struct judge_contents contents;
	struct judge_state now, kept;
	struct judge_flight flight[JUDGE_FLIGHTS];
	uint32_t nr_flights;
	unsigned char *scratch; /* a page */
	char *census;
};

/* ops.c tells of each operation: before and after it. */
void judge_begin(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
		 struct pyksm_op *op);
void judge_end(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
	       struct pyksm_op *op);
/* After judge_end() has been told of nothing yet: the type that a swapoff was about. */
void judge_swapoff_ended(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_op *op,
			 int type);
/* Remember what is, to go back to it: between the schedules of one exploration. */
int judge_keep(struct pyksm_judge *j);
int judge_restore(struct pyksm_judge *j);

__attribute__((format(printf, 5, 6))) void judge_wrong(struct pyksm_judge *j, int invariant,
						       uint32_t line, const char *code,
						       const char *fmt, ...);

/* judge_map.c */
bool judge_contents_init(struct pyksm_judge *j);
void map_begin(struct pyksm_judge *j, struct judge_flight *f);
void map_end(struct pyksm_judge *j, struct judge_flight *f);
void flight_release(struct judge_flight *f);
uint64_t family_bits(const struct pyksm_judge *j, int32_t process);
struct judge_cell *find_cell(struct judge_state *s, int32_t process, uint64_t vpn);
uint32_t find_content(const struct pyksm_judge *j, const unsigned char *bytes);
bool set_has(const struct judge_set *set, uint32_t content);
/* "7, 9 or zeros": len bytes at most. */
void describe_set(const struct pyksm_judge *j, const struct judge_set *set, char *buf, size_t len);
void describe_content(const struct pyksm_judge *j, const unsigned char *bytes, char *buf,
		      size_t len);
static inline bool cell_sure(const struct judge_cell *cell)
{
	return cell && cell->there && !cell->going && !cell->guarded;
}

/* judge_look.c */
void look_at_contents(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p);
void look_at_pages(struct pyksm_judge *j, struct pyksm *m);
void look_at_merge_any(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p);
void look_at_seals(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p);
void look_at_zero_pages(struct pyksm_judge *j, struct pyksm *m);
void look_for_ksm_ptes(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
		       uint32_t line);
void look_at_census(struct pyksm_judge *j, struct pyksm *m, uint32_t line);
void look_for_half_ksm(struct pyksm_judge *j, struct pyksm *m);
void look_at_rest(struct pyksm_judge *j, struct pyksm *m);
bool userfault_excuses(const struct pyksm_judge *j, const struct pyksm *m);
bool passes_over(const struct pyksm_judge *j, const struct pyksm *m);
bool entry_is_astray(const struct pyksm_judge *j, const struct pyksm *m);
bool known_oops(const struct pyksm_judge *j, const struct pyksm *m, const char *text);
bool any_ksm_pte(const struct pyksm *m);

#endif
