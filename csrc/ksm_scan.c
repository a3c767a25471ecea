/* SPDX-License-Identifier: MIT */
/* ksmd's way through the address spaces (kernel: mm/ksm.c). */
#include "ksm_internal.h"

/* The item of addr, made if need be; those before it on the list are of pages gone and go too. */
static struct rmap_item *get_next_rmap_item(struct pyksm *m, struct mm_slot *slot,
					    struct rmap_item **list, uint64_t addr)
{
	struct rmap_item *item;

	while ((item = *list)) {
		if ((item->address & PAGE_MASK) == addr)
			return item;
		if (item->address > addr)
			break;
		*list = item->rmap_list;
		remove_rmap_item_from_tree(m, item);
		free_rmap_item(m, item);
	}
	item = kmem_alloc(m, POOL_RMAP_ITEM);
	if (!item)
		return NULL;
	m->ksm.rmap_items++;
	slot->mm->ksm_rmap_items++;
	item->mm = slot->mm;
	item->address = addr;
	item->rmap_list = *list;
	*list = item;
	return item;
}

static void begin_scan(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	struct list_head *pos, *next;

	advisor_start_scan(m);
	lru_add_drain(m);
	/* Nodes in the trees are pruned by searches; those that wait for a place only here. */
	if (!ksm->merge_across_nodes) {
		list_for_each_safe (pos, next, &ksm->migrate_nodes) {
			struct page *page = get_ksm_page(
				m, container_of(pos, struct stable_node, list), KSM_PAGE_NOLOCK);

			if (page)
				put_page(m, page);
		}
	}
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		ksm->root_unstable_tree[nid].node = NULL;
	/* Begun once more, after a broken unmerge: the erasing of items may bring the last trees back. */
	ksm->unstable_sure = !m->hook && !in_task(m) && ksm->unstable_seqnr != ksm->scan.seqnr;
	ksm->unstable_seqnr = ksm->scan.seqnr;
	sched_point(m, PT_SCAN_BEGIN);
	ksm->scan.mm_slot = slot_of(ksm->ksm_mm_head.mm_list.next);
}

static void begin_slot(struct pyksm *m)
{
	m->ksm.scan.address = 0;
	m->ksm.scan.rmap_list = &m->ksm.scan.mm_slot->rmap_list;
}

/* ---- smart scan ---- */
/* How often a page may be passed over that ksmd has seen age times. */
static uint8_t skip_age(uint8_t age)
{
	if (age <= 3)
		return 1;
	if (age <= 5)
		return 2;
	return age <= 8 ? 4 : 8;
}

/* Since 6.7 (5e924ff54d08): what has not merged so far is looked at less and less. */
static bool should_skip_rmap_item(struct pyksm *m, const struct page *page, struct rmap_item *item)
{
	uint8_t age = item->age;

	if (!m->ksm.smart_scan || PageKsm(page))
		return false;
	if (has(m, FEAT_KSM_RMAP_BY_INDEX) && item->address & STABLE_FLAG)
		return false; /* it has an index in the place of its age */
	if (age != UINT8_MAX)
		item->age++;
	if (age < 3) /* it takes two visits to merge */
		return false;
	if (!item->remaining_skips) {
		item->remaining_skips = skip_age(age);
		return false;
	}
	m->ksm.pages_skipped++;
	item->remaining_skips--;
	remove_rmap_item_from_tree(m, item);
	return true;
}

/* ---- the next page ---- */
static struct page *anon_page_of(const struct pyksm *m, pte_t pte)
{
	struct page *page = pte_present(pte) ? pfn_to_page(m, pte_pfn(pte)) : NULL;

	return page && PageAnon(page) ? page : NULL;
}

/* The anonymous page at addr with a reference, NULL: none. Only for one that seems to be there is the lock taken. */
static struct page *get_anon_page(struct pyksm *m, struct mm_struct *mm, uint64_t addr,
				  const pte_t *pte)
{
	struct page *page = anon_page_of(m, *pte);

	if (!page)
		return NULL;
	pte_lock(m, mm, addr, PT_SCAN_PTL);
	page = anon_page_of(m, *pte);
	if (page)
		get_page(page);
	pte_unlock(m, mm, addr);
	return page;
}

/*
 * The next anonymous page of a vma at or after the cursor, with a reference if there is an item. *item NULL with a
 * page: no memory for it.
 */
static struct page *next_page_in_vma(struct pyksm *m, struct vm_area_struct *vma,
				     struct rmap_item **item)
{
	struct ksm_scan *scan = &m->ksm.scan;

	if (scan->address < vma->vm_start)
		scan->address = vma->vm_start;
	if (!vma->anon_vma)
		scan->address = vma->vm_end;
	for (; scan->address < vma->vm_end; scan->address += PAGE_SIZE) {
		const pte_t *pte = next_pte(vma->vm_mm, &scan->address, vma->vm_end);
		struct page *page;

		if (!pte)
			break;
		if (in_task(m) && ksm_test_exit(vma->vm_mm))
			return NULL;
		page = get_anon_page(m, vma->vm_mm, scan->address, pte);
		if (!page)
			continue;
		*item = get_next_rmap_item(m, scan->mm_slot, scan->rmap_list, scan->address);
		if (!*item) {
			put_page(m, page);
			return page;
		}
		scan->rmap_list = &(*item)->rmap_list;
		if (should_skip_rmap_item(m, page, *item)) {
			put_page(m, page);
			continue;
		}
		scan->address += PAGE_SIZE;
		return page;
	}
	scan->address = vma->vm_end;
	return NULL;
}

/* The first that ends behind the cursor. In a broken mm what stands for the rest is found like any vma. */
static struct vm_area_struct *vma_at_cursor(struct pyksm *m, const struct mm_struct *mm)
{
	struct vm_area_struct *vma = mm->mmap;

	if (!bugged(m, BUG_KSM_FORK_FAILURE_REGISTERS_BROKEN_MM))
		return find_vma(mm, m->ksm.scan.address);
	while (vma && vma->vm_end <= m->ksm.scan.address)
		vma = vma->vm_next;
	return vma;
}

static struct page *next_page_in_mm(struct pyksm *m, struct mm_struct *mm, struct rmap_item **item)
{
	struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : vma_at_cursor(m, mm);

	for (; vma; vma = vma->vm_next) {
		struct page *page;

		if (!(vma->vm_flags & VM_MERGEABLE))
			continue;
		page = next_page_in_vma(m, vma, item);
		if (page)
			return page;
	}
	return NULL;
}

/*
 * An address space is through: drop what is behind the cursor, and itself if nothing was mergeable, which mmap_sem
 * has kept so. That is let go while the list cannot change: a slot that is no longer at the cursor goes with its
 * process, and so does the mm (4.7, 7496fea9a6bf).
 */
static void end_slot(struct pyksm *m, struct mm_slot *slot)
{
	struct mm_struct *mm = slot->mm;

	if (ksm_test_exit(mm))
		begin_slot(m);
	remove_trailing_rmap_items(m, m->ksm.scan.rmap_list);
	sched_point(m, PT_SCAN_END_SLOT);
	m->ksm.scan.mm_slot = slot_of(slot->mm_list.next);
	if (m->ksm.scan.address && bugged(m, BUG_KSM_MM_FREED_AFTER_CURSOR_ADVANCE))
		sched_point(m, PT_SCAN_END_MMAP_SEM);
	assert(mm->mm_count > 0); /* mmap_sem is in it */
	up_read(m, mm);
	if (m->ksm.scan.address == 0) {
		if (bugged(m, BUG_KSM_EXEC_FORK_FLAG_LOST))
			mm->merge_any = false;
		forget_mm(m, slot);
	}
}

/* The next page to look at, with a reference, and its item. NULL: the end of the scan, or no memory. */
static struct rmap_item *scan_get_next_rmap_item(struct pyksm *m, struct page **page)
{
	struct ksm *ksm = &m->ksm;
	struct rmap_item *item = NULL;

	if (list_empty(&ksm->ksm_mm_head.mm_list))
		return NULL;
	if (ksm->scan.mm_slot == &ksm->ksm_mm_head) {
		begin_scan(m);
		if (ksm->scan.mm_slot == &ksm->ksm_mm_head && !bugged(m, BUG_KSM_SCAN_NULL_MM))
			return NULL; /* the last process has exited meanwhile */
		begin_slot(m);
	}
	for (;;) {
		struct mm_slot *slot = ksm->scan.mm_slot;

		down_read(m, slot->mm, PT_SCAN_MMAP_SEM);
		*page = next_page_in_mm(m, slot->mm, &item);
		if (*page) {
			up_read(m, slot->mm);
			return item;
		}
		end_slot(m, slot);
		if (ksm->scan.mm_slot == &ksm->ksm_mm_head)
			break;
		begin_slot(m);
	}
	advisor_stop_scan(m);
	ksm->scan.seqnr++;
	return NULL;
}

/* How many pages it looked at. */
uint64_t ksm_do_scan(struct pyksm *m, uint64_t npages)
{
	uint64_t done, ahead = 0;

	m->ksm.unstable_sure = false; /* who knows what has happened since the last batch */
	for (done = 0; done < npages; done++) {
		struct rmap_item *item;
		struct page *page;

		if (!ahead && !in_task(m))
			ahead = ksm_look_ahead(m, npages - done);
		ahead -= ahead ? 1 : 0;
		sched_point(m, PT_SCAN_NEXT_ITEM);
		item = scan_get_next_rmap_item(m, &page);
		if (!item)
			break;
		cmp_and_merge_page(m, page, item);
		put_page(m, page);
		m->ksm.pages_scanned++;
	}
	return done;
}
