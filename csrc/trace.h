/* SPDX-License-Identifier: MIT */
/*
 * What the build with PYKSM_TASKS sees of each access to memory, and how it dies: see trace.c. In the plain build an
 * assertion that does not hold is abort(), as ever.
 */
#ifndef PYKSM_TRACE_H
#define PYKSM_TRACE_H

#ifdef PYKSM_TASKS
struct pyksm;
/* The machine that this thread is in a call of; NULL: none, and nothing is looked at. */
extern _Thread_local struct pyksm *current_machine;
/* The end of the machine, with a reason. */
_Noreturn void oops(struct pyksm *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void oops_assert(const char *what);
#undef assert
#define assert(condition) ((condition) ? (void)0 : oops_assert(#condition))
#endif

#endif
