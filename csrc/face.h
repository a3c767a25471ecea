/* SPDX-License-Identifier: MIT */
/* What the files that embedders meet share: arguments are checked in these files, and nowhere below. */
#ifndef PYKSM_FACE_H
#define PYKSM_FACE_H

#include "internal.h"

/*
 * The first thing in each call. With tasks what would crash a kernel ends the call with this answer, and each call
 * that follows; without them nothing is here.
 */
#ifdef PYKSM_TASKS
#define ENTER_OR(m, answer)                                                                        \
	__attribute__((cleanup(call_end))) struct call call_;                                      \
	call_.m = NULL;                                                                            \
	if ((m) && (m)->dead)                                                                      \
		return answer;                                                                     \
	if ((m) && !in_task(m)) {                                                                  \
		call_begin(&call_, (m));                                                           \
		if (setjmp(call_.guard))                                                           \
			return answer;                                                             \
	}                                                                                          \
	(void)0
#else
#define ENTER_OR(m, answer) (void)0
#endif
#define ENTER(m) ENTER_OR(m, -EIO)

/* machine.c: 0 and the process, or -EINVAL, -ESRCH, and for a writer -EDEADLK. */
int find_for_write(struct pyksm *m, int pid, struct process **p);
int find_for_read(struct pyksm *m, int pid, struct process **p);
int check_range(uint64_t addr, uint64_t npages);
/* The same and, in a task, mmap_sem; leave_mm() lets go of it and returns err. */
int enter_mm(struct pyksm *m, int pid, bool write, struct mm_struct **mm);
int leave_mm(struct pyksm *m, struct mm_struct *mm, int err);

#endif
