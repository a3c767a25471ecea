/* SPDX-License-Identifier: MIT */
/* Kernel samepage merging: who takes part, and the breaking of sharing (kernel: mm/ksm.c). */
#include "ksm_internal.h"

void ksm_init(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;

	INIT_LIST_HEAD(&ksm->migrate_nodes);
	INIT_LIST_HEAD(&ksm->ksm_mm_head.mm_list);
	ksm->scan.mm_slot = &ksm->ksm_mm_head;
	ksm->unstable_seqnr = UINT64_MAX;
	ksm->merge_across_nodes = 1;
	ksm->nr_node_ids = 1;
	ksm->pages_to_scan = 100;
	ksm->sleep_millisecs = 20;
	ksm->max_page_sharing = 256;
	ksm->stable_node_chains_prune_millisecs = 2000;
	ksm->zero_checksum = page_checksum(m, page_content(m, zero_page(m)));
	ksm->advisor_max_cpu = 70;
	ksm->advisor_min_pages_to_scan = 500;
	ksm->advisor_max_pages_to_scan = 30000;
	ksm->advisor_target_scan_time = 200;
}

/* ---- registration of address spaces ---- */
int __ksm_enter(struct pyksm *m, struct mm_struct *mm)
{
	struct mm_slot *slot = kmem_alloc(m, POOL_KSM);
	bool to_end;

	if (!slot)
		return -ENOMEM;
	sched_point(m, PT_KSM_ENTER);
	slot->mm = mm;
	mm->mm_slot = slot;
	/* Behind the cursor: to be scanned last. But an unmerge under way must still come to it. */
	to_end = m->ksm.run & KSM_RUN_UNMERGE && !bugged(m, BUG_KSM_ENTER_BEHIND_UNMERGE_CURSOR);
	list_add_tail(&slot->mm_list,
		      to_end ? &m->ksm.ksm_mm_head.mm_list : &m->ksm.scan.mm_slot->mm_list);
	mm->mergeable = true;
	mm->mm_count++;
	return 0;
}

void forget_mm(struct pyksm *m, struct mm_slot *slot)
{
	struct mm_struct *mm = slot->mm;

	list_del_init(&slot->mm_list);
	kmem_free(m, POOL_KSM, slot);
	mm->mm_slot = NULL;
	mm->mergeable = false;
	mmdrop(m, mm);
}

/* What a child has of its parent before anything else: fork copies the struct. */
void ksm_mm_init(struct mm_struct *mm, const struct mm_struct *oldmm)
{
	mm->merge_any = oldmm->merge_any;
	mm->ksm_merging_pages = oldmm->ksm_merging_pages;
	mm->ksm_rmap_items = oldmm->ksm_rmap_items;
	mm->ksm_zero_pages = oldmm->ksm_zero_pages;
}

int ksm_fork(struct pyksm *m, struct mm_struct *mm, const struct mm_struct *oldmm)
{
	if (!oldmm->mergeable)
		return 0;
	if (has(m, FEAT_KSM_COUNTS_START_AT_ZERO) && /* 4d6fc29f3634 */
	    !bugged(m, BUG_KSM_FORK_INHERITS_COUNTERS)) {
		mm->ksm_merging_pages = 0;
		mm->ksm_rmap_items = 0;
		m->ksm.zero_pages += mm->ksm_zero_pages;
	}
	return __ksm_enter(m, mm);
}

/*
 * mm has no users left. Its slot goes now if that is simple, else ksmd finds it next; ksmd may have found it already.
 * Whoever is at work in mm for KSM has mmap_sem: no page table goes before he has seen that nobody uses it.
 */
void ksm_exit(struct pyksm *m, struct mm_struct *mm)
{
	struct mm_slot *slot, *cursor;

	if (!mm->mergeable)
		return;
	if (bugged(m, BUG_KSM_OOM_DEADLOCK)) { /* whomever it is at work for */
		mutex_lock(m, LOCK_KSM_THREAD, PT_KSM_EXIT_MUTEX);
		mutex_unlock(m, LOCK_KSM_THREAD);
	}
	sched_point(m, PT_KSM_EXIT);
	slot = mm->mm_slot;
	cursor = m->ksm.scan.mm_slot;
	if (!slot)
		return;
	if (slot != cursor && !slot->rmap_list) {
		forget_mm(m, slot);
		return;
	}
	if (slot != cursor)
		list_move(&slot->mm_list, &cursor->mm_list);
	down_write(m, mm, PT_KSM_EXIT_MMAP_SEM);
	up_write(m, mm);
}

/* ---- breaking sharing ---- */
struct vm_area_struct *find_mergeable_vma(const struct mm_struct *mm, uint64_t addr)
{
	struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : find_vma(mm, addr);

	if (!vma || vma->vm_start > addr || !(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
		return NULL;
	return vma;
}

#define WATCHDOG_TRIES 1000

/* What a fault may come to that ends the breaking of a page. Without OOM among it, it is tried for ever. */
static int breaking_ends(struct pyksm *m, unsigned int *tries)
{
	if (!bugged(m, BUG_KSM_BREAK_COW_IGNORES_OOM))
		return VM_FAULT_WRITE | VM_FAULT_SIGBUS | VM_FAULT_OOM;
#ifdef PYKSM_TASKS
	if (++*tries == WATCHDOG_TRIES)
		oops(m, "soft lockup - break_ksm");
#else
	(void)tries;
#endif
	return VM_FAULT_WRITE | VM_FAULT_SIGBUS;
}

/* Only while a task runs can a page be on its way. */
static bool sees_migration(const struct pyksm *m)
{
	return in_task(m) && !bugged(m, BUG_KSM_MIGRATION_HIDES_PAGE_FROM_UNMERGE);
}

/* The present page at addr with a reference. One that is on its way to another frame is waited for (5117b3b835f2). */
static struct page *follow_page_migrated(struct pyksm *m, struct mm_struct *mm, uint64_t addr)
{
	for (;;) {
		struct page *page = follow_page_get(m, mm, addr, PT_BREAK_KSM_PTL);
		const pte_t *pte = sees_migration(m) && !page ? pte_lookup(mm, addr) : NULL;

		if (!pte || !migration_entry_page(m, *pte))
			return page;
		migration_entry_wait(m, mm, addr);
	}
}

/* Until 6.2: a write fault, which makes the page our own whether the vma may be written or not. */
static int break_by_writing(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr)
{
	unsigned int tries = 0;
	int ret = 0;

	do {
		struct page *page = follow_page_migrated(m, vma->vm_mm, addr);

		if (!page)
			break; /* not there (swapped out, perhaps) */
		ret = VM_FAULT_WRITE; /* its own page already */
		if (PageKsm(page))
			ret = handle_mm_fault(m, vma, addr, FAULT_FLAG_WRITE);
		put_page(m, page);
	} while (!(ret & breaking_ends(m, &tries)));
	return ret;
}

/*
 * Is there a KSM page, or a zero page that KSM has put there? One on its way to another frame is one too: the fault
 * will wait for it. (kernel: break_ksm_pmd_entry)
 */
static bool maps_ksm(struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	const pte_t *pte = pte_lookup(mm, addr);
	const struct page *page = NULL;
	bool ret;

	if (!pte)
		return false;
	pte_lock(m, mm, addr, PT_BREAK_KSM_PTL);
	if (pte_present(*pte))
		page = pfn_to_page(m, pte_pfn(*pte));
	else if (sees_migration(m))
		page = migration_entry_page(m, *pte);
	ret = page && (is_ksm_zero_pte(m, *pte) || PageKsm(page));
	pte_unlock(m, mm, addr);
	return ret;
}

/* Since 6.2 (6cce3314b928, d7c0e68dab98): the page becomes our own, but not written. */
static int break_by_unsharing(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr)
{
	unsigned int tries = 0;
	int ret = 0;

	while (!(ret & breaking_ends(m, &tries)) && maps_ksm(m, vma->vm_mm, addr))
		ret = handle_mm_fault(m, vma, addr, FAULT_FLAG_UNSHARE);
	return ret;
}

/* While whom the OOM killer has chosen is on its way out, there is but to wait. */
static bool waits_for_victim(struct pyksm *m, const struct mm_struct *mm, int ret)
{
	if (!(ret & VM_FAULT_OOM) || !in_task(m) || !ksm_test_exit(mm) ||
	    !bugged(m, BUG_KSM_OOM_DEADLOCK))
		return false;
	sched_wait(m, PT_BREAK_KSM_MEMORY, (struct lock_id){ LOCK_MEMORY, m, 0 });
	return true;
}

static bool unshares(const struct pyksm *m)
{
	return has(m, FEAT_UNSHARE_BREAK) && !bugged(m, BUG_KSM_UFFD_WP_UNMERGE_NOOP);
}

static int break_ksm(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr)
{
	int ret;

	COUNT(m, break_ksm);
	do {
		ret = unshares(m) ? break_by_unsharing(m, vma, addr)
				  : break_by_writing(m, vma, addr);
	} while (waits_for_victim(m, vma->vm_mm, ret));
	return ret & VM_FAULT_OOM ? -ENOMEM : 0;
}

/* Undo a merge just made, in the item's own address space only: a forked sharer keeps the page. */
void break_cow(struct pyksm *m, struct rmap_item *item)
{
	struct vm_area_struct *vma;

	put_anon_vma(m, item->anon_vma);
	forget_index(m, item);
	down_read(m, item->mm, PT_BREAK_COW_MMAP_SEM);
	vma = find_mergeable_vma(item->mm, item->address);
	if (vma)
		break_ksm(m, vma, item->address);
	up_read(m, item->mm);
}

int unmerge_ksm_pages(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end)
{
	uint64_t addr;
	int err = 0;

	for (addr = start; addr < end && !err && !ksm_test_exit(vma->vm_mm); addr += PAGE_SIZE) {
		/* Without a page table nothing but the work is counted, be it terabytes. */
		uint64_t there = next_table(vma->vm_mm, addr, end);
		uint64_t absent =
			events_before_failure(m, PYKSM_FAIL_SIGNAL, (there - addr) >> PAGE_SHIFT);

		if (absent) {
			COUNT_N(m, break_ksm, absent);
			addr += (absent - 1) << PAGE_SHIFT;
			continue;
		}
		err = signal_pending(m) ? -EINTR : break_ksm(m, vma, addr);
	}
	return err;
}

static int unmerge_mm(struct pyksm *m, struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	int err = 0;

	if (ksm_test_exit(mm) && !bugged(m, BUG_KSM_ITERATE_TORN_MM))
		return 0;
#ifdef PYKSM_TASKS
	assert(mm->pgd); /* of an mm that exit_mmap() has torn down nothing may be looked up: lockdep sees to that */
#endif
	for (vma = mm->mmap; vma && !err && !ksm_test_exit(mm); vma = vma->vm_next)
		if ((vma->vm_flags & VM_MERGEABLE) && vma->anon_vma)
			err = unmerge_ksm_pages(m, vma, vma->vm_start, vma->vm_end);
	return err;
}

/* All that is KSM's in the address space at the cursor, which keeps its slot, and so its mm. On to the next one. */
static int unmerge_slot(struct pyksm *m, struct mm_slot *slot)
{
	struct ksm *ksm = &m->ksm;
	struct mm_struct *mm = slot->mm;
	int err;

	down_read(m, mm, PT_UNMERGE_MMAP_SEM);
	err = unmerge_mm(m, mm);
	if (err) {
		up_read(m, mm);
		sched_point(m, PT_UNMERGE_MMLIST);
		ksm->scan.mm_slot = &ksm->ksm_mm_head;
		return err;
	}
	remove_trailing_rmap_items(m, &slot->rmap_list);
	sched_point(m, PT_UNMERGE_MMLIST);
	ksm->scan.mm_slot = slot_of(slot->mm_list.next);
	up_read(m, mm); /* while the list cannot change: else slot and mm could go first */
	if (ksm_test_exit(mm))
		forget_mm(m, slot);
	return 0;
}

int unmerge_and_remove_all_rmap_items(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	int err = 0;

	sched_point(m, PT_UNMERGE_BEGIN);
	ksm->scan.mm_slot = slot_of(ksm->ksm_mm_head.mm_list.next);
	while (!err && ksm->scan.mm_slot != &ksm->ksm_mm_head) {
		sched_point(m, PT_UNMERGE_NEXT_MM);
		err = unmerge_slot(m, ksm->scan.mm_slot);
	}
	if (err)
		return err;
	remove_all_stable_nodes(m); /* some may be in use still: never mind */
	ksm->scan.seqnr = 0;
	return 0;
}

/* ---- which vmas ---- */
int ksm_madvise(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end,
		int advice, uint64_t *vm_flags)
{
	int err = 0;

	if (advice == PYKSM_MADV_MERGEABLE) {
		if (*vm_flags & VM_MERGEABLE)
			return 0;
		if (!vma->vm_mm->mergeable)
			err = __ksm_enter(m, vma->vm_mm);
		if (!err)
			*vm_flags |= VM_MERGEABLE;
		return err;
	}
	if (!(*vm_flags & VM_MERGEABLE))
		return 0;
	if (vma->anon_vma)
		err = unmerge_ksm_pages(m, vma, start, end);
	if (!err && bugged(m, BUG_KSM_MADVISE_DROPS_HIGH_FLAGS))
		*vm_flags &= ~(uint32_t)VM_MERGEABLE; /* which is widened with zeros */
	else if (!err)
		*vm_flags &= ~VM_MERGEABLE;
	return err;
}

/* A new vma of a process that has asked for all to be merged. ksmd may have dropped it from its list. */
uint64_t ksm_vma_flags(struct pyksm *m, struct mm_struct *mm, uint64_t vm_flags)
{
	if (!mm->merge_any)
		return vm_flags;
	if (!mm->mergeable)
		__ksm_enter(m, mm);
	return vm_flags | VM_MERGEABLE;
}

static void ksm_add_vmas(struct mm_struct *mm)
{
	for (struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next)
		vma->vm_flags |= VM_MERGEABLE;
}

/* prctl(PR_SET_MEMORY_MERGE, 1): 6.4, d7597f59d1d3. */
int ksm_enable_merge_any(struct pyksm *m, struct mm_struct *mm)
{
	int err = mm->merge_any || mm->mergeable ? 0 : __ksm_enter(m, mm);

	if (err || mm->merge_any)
		return err;
	mm->merge_any = true;
	ksm_add_vmas(mm);
	return 0;
}

int ksm_disable_merge_any(struct pyksm *m, struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	int err = 0;

	if (!mm->merge_any)
		return 0;
	for (vma = mm->mmap; vma && !err; vma = vma->vm_next) {
		if ((vma->vm_flags & VM_MERGEABLE) && vma->anon_vma)
			err = unmerge_ksm_pages(m, vma, vma->vm_start, vma->vm_end);
		if (!err)
			vma->vm_flags &= ~VM_MERGEABLE;
	}
	if (err) {
		ksm_add_vmas(mm);
		return err;
	}
	mm->merge_any = false;
	return 0;
}
