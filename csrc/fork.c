/* SPDX-License-Identifier: MIT */
/* Address spaces come and go (kernel: kernel/fork.c, dup_mmap in it). */
#include "internal.h"

struct mm_struct *mm_alloc(struct pyksm *m, int pid)
{
	struct mm_struct *mm = kmem_alloc(m, POOL_MM);

	if (!mm)
		return NULL;
	mm->pgd = pgd_alloc(m);
	if (!mm->pgd) {
		kmem_free(m, POOL_MM, mm);
		return NULL;
	}
	mm->mm_users = 1;
	mm->mm_count = 1;
	mm->pid = pid;
	INIT_LIST_HEAD(&mm->mmlist);
	mm->all_next = m->all_mms;
	if (m->all_mms)
		m->all_mms->all_prev = mm;
	m->all_mms = mm;
	return mm;
}

/* Swapoff has to find whoever has a swap pte: before it is there, and under its lock. */
void mmlist_add(struct pyksm *m, struct mm_struct *mm, struct list_head *behind)
{
	if (!list_empty(&mm->mmlist))
		return;
	sched_point(m, PT_MMLIST_LOCK);
	if (list_empty(&mm->mmlist))
		list_add(&mm->mmlist, behind);
}

/* The struct itself goes with the last of those who only need that: the users as one, KSM's slot. */
void mmdrop(struct pyksm *m, struct mm_struct *mm)
{
	assert(mm->mm_count > 0);
	if (--mm->mm_count)
		return;
	if (mm->all_prev)
		mm->all_prev->all_next = mm->all_next;
	else
		m->all_mms = mm->all_next;
	if (mm->all_next)
		mm->all_next->all_prev = mm->all_prev;
	kmem_free(m, POOL_MM, mm);
}

void mmput(struct pyksm *m, struct mm_struct *mm)
{
	assert(mm->mm_users > 0);
	if (--mm->mm_users)
		return;
	ksm_exit(m, mm);
	exit_mmap(m, mm);
	mlock_exit(m, mm);
	if (!list_empty(&mm->mmlist)) {
		sched_point(m, PT_MMLIST_LOCK);
		list_del_init(&mm->mmlist);
	}
	mmdrop(m, mm);
}

static int dup_vma(struct pyksm *m, struct mm_struct *mm, struct vm_area_struct *old)
{
	struct vm_area_struct *vma = kmem_alloc(m, POOL_VMA);

	if (!vma)
		return -ENOMEM;
	*vma = *old;
	vma->vm_mm = mm;
	vma->vm_flags &= ~VM_LOCKED; /* locks are not inherited */
	vma->anon_vma = NULL;
	INIT_LIST_HEAD(&vma->anon_vma_chain);
	if (anon_vma_fork(m, vma, old)) {
		kmem_free(m, POOL_VMA, vma);
		return -ENOMEM;
	}
	vma_link(mm, vma);
	return copy_page_range(m, mm, old->vm_mm, old);
}

static int dup_vmas(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm)
{
	bool late = has(m, FEAT_KSM_FORK_LATE); /* and then it may fail: 985da552a98e */
	int err;

	if (bugged(m, BUG_KSM_FORK_FAILURE_REGISTERS_BROKEN_MM))
		late = false;
	ksm_mm_init(mm, oldmm);
	err = late ? 0 : ksm_fork(m, mm, oldmm);
	for (struct vm_area_struct *vma = oldmm->mmap; vma && !err; vma = vma->vm_next)
		err = dup_vma(m, mm, vma);
	if (late && !err)
		ksm_fork(m, mm, oldmm);
	return err;
}

/* Copy the parent's address space; on -ENOMEM the caller drops what the child has so far. */
int dup_mmap(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm)
{
	int err;

	/* Who comes to the child by KSM's list or swapoff's waits until it is whole. */
	down_write(m, mm, PT_DUP_MMAP_SEM);
	err = dup_vmas(m, mm, oldmm);
	if (!err)
		mlock_fork(m, mm, oldmm);
	up_write(m, mm);
	return err;
}

/*
 * What is in the tree of a child's vmas in the place of the first that could not be copied: since 6.8 (d24062914837)
 * the tree is copied whole beforehand. Here the list ends where it does, but for those who show what it can do.
 */
#define XA_ZERO_ENTRY ((struct vm_area_struct *)0x406)

/* The copying has failed, and nobody holds mmap_sem any more, the parent's and the child's: who can find it may. */
void fork_failed(struct pyksm *m, struct mm_struct *mm)
{
	struct vm_area_struct **end = &mm->mmap;

	while (*end)
		end = &(*end)->vm_next;
	if (bugged(m, BUG_KSM_FORK_FAILURE_REGISTERS_BROKEN_MM) ||
	    bugged(m, BUG_SWAPOFF_VS_FAILED_FORK))
		*end = XA_ZERO_ENTRY;
	sched_point(m, PT_FORK_FAILED);
	*end = NULL;
	mmput(m, mm);
}
