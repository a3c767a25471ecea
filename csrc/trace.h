/* SPDX-License-Identifier: MIT */
/*
 * What the build with PYKSM_TASKS sees of each access to memory, and how it dies: see trace.c. In the plain build
 * nothing is seen, and an assertion that does not hold is abort(), as ever.
 */
#ifndef PYKSM_TRACE_H
#define PYKSM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "counters.h"

#ifdef PYKSM_TASKS
#include <setjmp.h>

struct pyksm;
struct arena;
struct lock_id;

/* Of shared objects that glibc loads late this much has room beside the first ones' variables. */
#ifdef __GLIBC__
#define NEAR_TLS __attribute__((tls_model("initial-exec")))
#else
#define NEAR_TLS
#endif
/* The machine that this thread is in a call of; NULL: none, and nothing is looked at. */
extern _Thread_local struct pyksm *current_machine NEAR_TLS;
void trace_enter(struct pyksm *m);

/* A call of the face, the outermost or one that a hook has made in turn. */
struct call {
	jmp_buf guard; /* where an oops goes */
	struct call *outer;
	struct pyksm *m; /* NULL: it has not begun */
	struct pyksm *before; /* whose call this one is within */
	uint64_t points; /* that it has come by, outside of tasks */
};
void call_begin(struct call *call, struct pyksm *m);
void call_end(struct call *call);

/* The end of the machine, with a reason. */
_Noreturn void oops(struct pyksm *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void oops_assert(const char *what);
struct page;
_Noreturn void oops_free_page(const struct page *page);
#undef assert
#define assert(condition) ((condition) ? (void)0 : oops_assert(#condition))

/* ---- what the compiler does not tell of ---- */
void trace_range(const void *p, size_t n, bool write);
/* From here on these bytes are in use (freed 0), or a freed object of pool freed - 1. */
void trace_object(struct pyksm *m, void *obj, size_t bytes, unsigned int freed);
/* These bytes are written to by what is not traced, and leave no footprint. */
void trace_untraced(struct pyksm *m, const void *p, size_t bytes);
/* An order to fail has been looked at, which counts events down, or was given. */
void trace_inject(struct pyksm *m, unsigned int kind);
/*
 * A count goes up, or is read because it decides something. Who counts before whom makes no difference, but who does
 * so before it is read.
 */
void trace_deciding_count(struct pyksm *m, enum pyksm_counter_id counter, bool read);
static inline void trace_count(struct pyksm *m, enum pyksm_counter_id counter, bool read)
{
	assert(!read || count_decides(counter));
	if (count_decides(counter))
		trace_deciding_count(m, counter, read);
}
/* A lock was taken or let go. */
void trace_lock(struct pyksm *m, struct lock_id id, bool write);
/* Something that tasks share and that is in no machine. */
void trace_shared(struct pyksm *m, const void *p, bool write);
/* What may be read though the object is freed: its kind's memory stays of that kind until a grace period is over. */
uint32_t read_type_stable(const uint32_t *p);

void *traced_memcpy(void *to, const void *from, size_t n);
void *traced_memmove(void *to, const void *from, size_t n);
void *traced_memset(void *to, int c, size_t n);
int traced_memcmp(const void *a, const void *b, size_t n);
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define memcpy traced_memcpy
#define memmove traced_memmove
#define memset traced_memset
#define memcmp traced_memcmp
#endif

/* ---- what happened before what ---- */
/*
 * From here on each step's footprint is kept. Only of a machine in an arena, and in a build that is traced;
 * else -EOPNOTSUPP. -ENOMEM.
 */
int trace_begin(struct pyksm *m);
void trace_end(struct pyksm *m);
/* What is looked at meanwhile leaves no footprint. Whether there would have been one. */
bool trace_pause(struct pyksm *m);
void trace_resume(struct pyksm *m);
/* Task has run from its last point to this one. */
void trace_step(struct pyksm *m, int task);
/*
 * Of the steps since trace_begin(), and which of them had to come before which: in another order of the same
 * steps that keeps it, and so leads to the same state, it is the same. (Where memory was handed out may differ,
 * and the order of events.)
 */
uint64_t trace_fingerprint(const struct pyksm *m);
/* Granules that steps have touched since trace_begin(), each once a step. */
uint64_t trace_touched(const struct pyksm *m);
void trace_free(struct arena *a);
#else
#define trace_object(m, obj, bytes, freed) (void)0
#define trace_inject(m, kind) (void)0
#define trace_untraced(m, p, bytes) (void)0
#define trace_count(m, counter, read) (void)0
#define read_type_stable(p) (*(p))
#endif

#endif
