/* SPDX-License-Identifier: MIT */
/*
 * Tasks, locks and the points at which one task may be switched for another. (libc has a sched.h.)
 *
 * Only the build with PYKSM_TASKS has them. In the other one a lock is nothing but the flag that a page has, and
 * whatever is asked for is free, because one operation runs at a time.
 *
 * Between two points a task runs undisturbed. There is one before each lock is taken (where it is not free, the
 * task waits), before what a leaf spinlock protects (swap_lock, mmlist_lock, lru_lock: nothing in such a section
 * waits, so that no lock has to be kept), before each look at something that no lock protects and that is looked at
 * again because of that, and around I/O. Letting go of a lock needs none: what could happen there can happen at the
 * next point as well.
 */
#ifndef PYKSM_KSCHED_H
#define PYKSM_KSCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "mm_types.h"

/* In the order in which they may be taken: mm/rmap.c has the kernel's list. */
enum lock_class {
	LOCK_NONE,
	LOCK_KSM_THREAD, /* ksm_thread_mutex */
	LOCK_SWAPON, /* swapon_mutex */
	LOCK_MMAP_SEM,
	LOCK_SWAP_DEVICE, /* no lock but a count, of those who look at an area: swap_info_struct's users */
	LOCK_PAGE,
	LOCK_ANON_VMA, /* the root's rwsem */
	LOCK_PTE,
	LOCK_MEMORY, /* none: a free frame is waited for */
	NR_LOCK_CLASSES
};

/* What is locked: an object, or a part of one. */
struct lock_id {
	enum lock_class class;
	const void *obj;
	uint64_t part;
};

#ifdef PYKSM_TASKS
/* A place where others may go first. Nothing where no task runs. */
void sched_point(struct pyksm *m, enum sched_point point);
/* Wait until the lock is free, and take it: alone (write) or beside other readers. */
void sched_lock(struct pyksm *m, enum sched_point point, struct lock_id id, bool write);
bool sched_trylock(struct pyksm *m, enum sched_point point, struct lock_id id, bool write);
void sched_unlock(struct pyksm *m, struct lock_id id);
/* The current task has it now, nobody can have had it before. */
void sched_own(struct pyksm *m, struct lock_id id);
/* Wait until nobody has it, and leave it alone. */
void sched_wait(struct pyksm *m, enum sched_point point, struct lock_id id);
/* Somebody else has to do something first: others go before, whoever can. */
void sched_yield_point(struct pyksm *m, enum sched_point point);
/* Has anybody got it? */
bool sched_locked(const struct pyksm *m, struct lock_id id);
/* Has the current task got it? */
bool sched_mine(const struct pyksm *m, struct lock_id id);
/* Does a task run now (and not only the code that sets the scene)? */
bool in_task(const struct pyksm *m);
#else
static inline void sched_lock(struct pyksm *m, enum sched_point point, struct lock_id id,
			      bool write)
{
	(void)m, (void)point, (void)id, (void)write;
}
static inline bool sched_trylock(struct pyksm *m, enum sched_point point, struct lock_id id,
				 bool write)
{
	(void)m, (void)point, (void)id, (void)write;
	return true;
}
static inline void sched_unlock(struct pyksm *m, struct lock_id id)
{
	(void)m, (void)id;
}
static inline void sched_own(struct pyksm *m, struct lock_id id)
{
	(void)m, (void)id;
}
static inline void sched_wait(struct pyksm *m, enum sched_point point, struct lock_id id)
{
	(void)m, (void)point, (void)id;
}
static inline void sched_yield_point(struct pyksm *m, enum sched_point point)
{
	(void)m, (void)point;
}
static inline bool sched_locked(const struct pyksm *m, struct lock_id id)
{
	(void)m, (void)id;
	return false;
}
static inline bool sched_mine(const struct pyksm *m, struct lock_id id)
{
	(void)m, (void)id;
	return false;
}
static inline bool in_task(const struct pyksm *m)
{
	(void)m;
	return false;
}
#endif

/* ---- the locks by their kernel names ---- */
static inline struct lock_id mmap_sem(const struct mm_struct *mm)
{
	return (struct lock_id){ LOCK_MMAP_SEM, mm, 0 };
}
static inline void down_read(struct pyksm *m, const struct mm_struct *mm, enum sched_point point)
{
	sched_lock(m, point, mmap_sem(mm), false);
}
static inline bool down_read_trylock(struct pyksm *m, const struct mm_struct *mm,
				     enum sched_point point)
{
	return sched_trylock(m, point, mmap_sem(mm), false);
}
static inline void down_write(struct pyksm *m, const struct mm_struct *mm, enum sched_point point)
{
	sched_lock(m, point, mmap_sem(mm), true);
}
static inline void up_read(struct pyksm *m, const struct mm_struct *mm)
{
	sched_unlock(m, mmap_sem(mm));
}
static inline void up_write(struct pyksm *m, const struct mm_struct *mm)
{
	sched_unlock(m, mmap_sem(mm));
}
static inline void mutex_lock(struct pyksm *m, enum lock_class class, enum sched_point point)
{
	sched_lock(m, point, (struct lock_id){ class, m, 0 }, true);
}
static inline void mutex_unlock(struct pyksm *m, enum lock_class class)
{
	sched_unlock(m, (struct lock_id){ class, m, 0 });
}
/* One for a family: the root's. */
static inline struct lock_id anon_vma_rwsem(const struct anon_vma *av)
{
	return (struct lock_id){ LOCK_ANON_VMA, av->root, 0 };
}
static inline void anon_vma_lock_read(struct pyksm *m, const struct anon_vma *av,
				      enum sched_point point)
{
	sched_lock(m, point, anon_vma_rwsem(av), false);
}
static inline void anon_vma_lock_write(struct pyksm *m, const struct anon_vma *av,
				       enum sched_point point)
{
	sched_lock(m, point, anon_vma_rwsem(av), true);
}
static inline void anon_vma_unlock(struct pyksm *m, const struct anon_vma *av)
{
	sched_unlock(m, anon_vma_rwsem(av));
}
/* The lock of the page table that has addr's pte. */
static inline struct lock_id ptl(const struct mm_struct *mm, uint64_t addr)
{
	return (struct lock_id){ LOCK_PTE, mm, addr >> 21 };
}
static inline void pte_lock(struct pyksm *m, const struct mm_struct *mm, uint64_t addr,
			    enum sched_point point)
{
	sched_lock(m, point, ptl(mm, addr), true);
}
static inline void pte_unlock(struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	sched_unlock(m, ptl(mm, addr));
}

#endif
