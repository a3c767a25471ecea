/* SPDX-License-Identifier: MIT */
/* The schedule points of tasks, file by file, beside those at which a hook runs (counters.h). */
#ifndef PYKSM_POINTS_H
#define PYKSM_POINTS_H

#define PYKSM_TASK_POINTS(X)                                                                       \
	/* ops.c */                                                                                \
	X(TASK_BEGIN, "task:begin")                                                                \
	X(TASK_NEXT_OP, "task:next_op")                                                            \
	/* elsewhere */                                                                            \
	X(TRYLOCK_PAGE, "trylock_page")                                                            \
	X(LOCK_PAGE, "lock_page")

#endif
