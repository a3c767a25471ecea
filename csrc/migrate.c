/* SPDX-License-Identifier: MIT */
/* Moving pages to another node (kernel: mm/migrate.c, move_pages(2) with MPOL_MF_MOVE_ALL). */
#include "internal.h"

#define MIGRATE_PASSES 10
#define FORCE_AFTER_PASS 2 /* from then on wait for writeback */
#define MOVE_CHUNK (4096 / 24 - 1) /* as many page_to_node records as one kernel page takes */

/* The page whose migration a pte waits for, NULL where that is no such pte. */
struct page *migration_entry_page(const struct pyksm *m, pte_t pte)
{
	swp_entry_t entry = pte_to_swp_entry(m, pte);
	enum migration_kind kind;

	if (pte_none(pte) || pte_present(pte) || !is_migration_entry(m, entry, &kind))
		return NULL;
	return pfn_to_page(m, migration_entry_pfn(entry));
}

/* Who meets such an entry relies on it that its page is locked as long as it stands (BUG_ON(!PageLocked)). */
struct page *migration_entry_to_page(struct pyksm *m, swp_entry_t entry)
{
	struct page *page = pfn_to_page(m, migration_entry_pfn(entry));

#ifdef PYKSM_TASKS
	if (!(page->flags & PG_locked))
		oops(m, "a migration entry stands for frame %llu, which is not locked",
		     (unsigned long long)migration_entry_pfn(entry));
#endif
	return page;
}

/*
 * Until the page that was at addr can be seen where it has gone: it is locked as long. Until 5.17 (ffa65753c431)
 * whoever waited had a reference to it, of which its migration might fail. mmap_sem is held, so the table stays.
 */
void migration_entry_wait(struct pyksm *m, struct mm_struct *mm, uint64_t addr)
{
	const pte_t *pte = pte_lookup(mm, addr);
	bool hold = !has(m, FEAT_ANON_EXCLUSIVE); /* of the releases that there are: before 5.17 */
	struct page *page;

	if (!pte)
		return;
	pte_lock(m, mm, addr, PT_MIGRATION_WAIT_PTL);
	page = migration_entry_page(m, *pte) ? migration_entry_to_page(m, pte_to_swp_entry(m, *pte))
					     : NULL;
	if (page && !page_count(page))
		page = NULL;
	if (page && hold)
		get_page(page);
	pte_unlock(m, mm, addr);
	if (!page)
		return;
	sched_wait(m, PT_MIGRATION_WAIT, page_lock(page));
	if (hold)
		put_page(m, page);
}

struct restore {
	const struct page *old;
};

/* Under its lock: a pte for page where a migration entry for the old page stands. */
static void restore_pte(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			uint64_t addr, pte_t *ptep, const struct page *old)
{
	enum migration_kind kind;
	swp_entry_t entry;
	pte_t pte;

	if (migration_entry_page(m, *ptep) != old)
		return;
	entry = pte_to_swp_entry(m, *ptep);
	is_migration_entry(m, entry, &kind);
	get_page(page);
	pte = mk_pte(m, page, vma);
	if (!(swp_offset(entry) & SWP_MIG_YOUNG))
		pte &= ~_PAGE_ACCESSED;
	if (kind == MIGRATION_WRITE)
		pte |= _PAGE_RW;
	if ((swp_offset(entry) & SWP_MIG_DIRTY) && (page->flags & PG_dirty))
		pte = has(m, FEAT_MIGRATION_EXACT_SOFT_DIRTY) ? pte | _PAGE_DIRTY
							      : pte_mkdirty(m, pte);
	if (has(m, FEAT_SOFT_DIRTY) && (*ptep & swp_soft_dirty(m)))
		pte |= _PAGE_SOFT_DIRTY;
	*ptep = pte;
	do_page_add_anon_rmap(m, page, vma, addr, kind != MIGRATION_READ);
	/* With the last mapping the mark had gone; from 4.4 on it is found again (51afb12ba809), since 5.18 by the rmap. */
	if (vma->vm_flags & VM_LOCKED && has(m, FEAT_MIGRATION_KEEPS_MLOCK) &&
	    !has(m, FEAT_MLOCK_COUNT))
		mlock_vma_page(m, page);
	migrated_mlock(m, vma);
}

/* No look at the pte without its lock: mremap may be moving an entry here. */
static int remove_migration_pte(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
				uint64_t addr, void *arg)
{
	const struct restore *r = arg;
	pte_t *pte = pte_lookup(vma->vm_mm, addr);

	if (!pte)
		return SWAP_AGAIN;
	pte_lock(m, vma->vm_mm, addr, PT_REMOVE_MIGRATION_PTL);
	restore_pte(m, page, vma, addr, pte, r->old);
	pte_unlock(m, vma->vm_mm, addr);
	return SWAP_AGAIN;
}

void remove_migration_ptes(struct pyksm *m, struct page *old, struct page *new)
{
	struct restore r = { old };

	assert(!page_has_anon_vma(new) || page_anon_vma(new)); /* the caller has pinned it */
	rmap_walk(m, new, remove_migration_pte, &r);
}

/* The swap cache, if the page is in it, learns of the new page; nobody else may hold the old one. */
static bool migrate_page_move_mapping(struct pyksm *m, struct page *newpage, struct page *page)
{
	swp_entry_t entry = { page->private };

	sched_point(m, PT_MIGRATE_MOVE_MAPPING);
	if (page_count(page) != (page->flags & PG_swapcache ? 2 : 1))
		return false;
	if (!(page->flags & PG_swapcache))
		return true;
	get_page(newpage);
	newpage->private = page->private;
	newpage->flags |= PG_swapcache;
	swap_table_replace(&m->swap.info[swp_type(entry)], swp_offset(entry),
			   page_to_pfn(m, newpage));
	page->_count--;
	return true;
}

static void migrate_page_copy(struct pyksm *m, struct page *newpage, struct page *page)
{
	const uint32_t carried = PG_error | PG_referenced | PG_uptodate | PG_active | PG_dirty |
				 PG_charged;

	copy_user_highpage(m, newpage, page);
	newpage->flags |= page->flags & carried;
	page->flags &= ~(uint32_t)(PG_active | PG_dirty);
	/* Before the old page stops being in swap cache: get_ksm_page() goes by that. */
	ksm_migrate_page(m, newpage, page);
	page->flags &= ~(uint32_t)PG_swapcache;
	page->private = 0;
}

/* Since 5.18 (c3096e6782b7) on the LRU before its ptes come, for those that lock it to be counted there. */
static void push_to_lru(struct pyksm *m, struct page *newpage, bool mapped)
{
	if (!has(m, FEAT_MLOCK_COUNT))
		return;
	lru_add(m, newpage);
	if (mapped)
		lru_add_drain(m);
}

/* remap: ptes of it may stand as migration entries; mapped: some do. */
static int move_to_new_page(struct pyksm *m, struct page *newpage, struct page *page, bool remap,
			    bool mapped)
{
	newpage->index = page->index;
	newpage->mapping = page->mapping;
	newpage->anon_id = page->anon_id;
	__set_page_locked(m, newpage);
	newpage->flags |= page->flags & PG_swapbacked;
	if (!migrate_page_move_mapping(m, newpage, page)) {
		newpage->mapping = 0;
		unlock_page(m, newpage);
		return -EAGAIN;
	}
	sched_point(m,
		    PT_MIGRATE_COPY); /* who looks into the swap cache finds the new page, locked */
	migrate_page_copy(m, newpage, page);
	push_to_lru(m, newpage, mapped);
	if (remap)
		remove_migration_ptes(m, page, newpage);
	page->mapping = 0;
	unlock_page(m, newpage);
	return 0;
}

static int unmap_and_move_locked(struct pyksm *m, struct page *newpage, struct page *page,
				 bool force)
{
	struct anon_vma *av = NULL;
	bool remap = true, mapped;
	int err = -EAGAIN;

	if ((page->flags & PG_writeback) && !force)
		return -EAGAIN;
	wait_on_page_writeback(m, page, PT_MIGRATE_WRITEBACK);
	/* The walk that restores the ptes needs the owner; a KSM page's rmap_items pin theirs. */
	if (PageAnon(page) && !PageKsm(page)) {
		av = page_get_anon_vma(m, page);
		if (!av && !(page->flags & PG_swapcache))
			return -EAGAIN;
		remap = av;
		if (av && bugged(m, BUG_MIGRATE_ANONVMA_NOT_PINNED)) {
			put_anon_vma(m, av);
			av = NULL;
		}
	}
	mapped = page_mapped(page);
	if (page->mapping)
		try_to_unmap(m, page, TTU_MIGRATION);
	if (!page_mapped(page))
		err = move_to_new_page(m, newpage, page, remap, mapped);
	if (err && remap)
		remove_migration_ptes(m, page, page);
	if (av)
		put_anon_vma(m, av);
	return err;
}

/* Who has the page is waited for when nothing else has helped. */
static bool lock_for_move(struct pyksm *m, struct page *page, bool force)
{
	if (trylock_page(m, page, PT_MIGRATE_TRYLOCK_PAGE))
		return true;
	if (!force || !in_task(m))
		return false;
	lock_page(m, page, PT_MIGRATE_LOCK_PAGE);
	return true;
}

/* 0: the page now lives on node; -EAGAIN: try again; -ENOMEM: no frame there. */
static int unmap_and_move(struct pyksm *m, struct page *page, int node, bool force)
{
	struct page *newpage = alloc_pages_node(m, node, true);
	bool listed = false;
	int err = -EAGAIN;

	COUNT(m, migrate_page);
	if (!newpage)
		return -ENOMEM;
	if (page_count(page) == 1) {
		err = 0; /* freed under our hands: nothing to move */
	} else if (lock_for_move(m, page, force)) {
		err = unmap_and_move_locked(m, newpage, page, force);
		listed = !err && has(m, FEAT_MLOCK_COUNT);
		unlock_page(m, page);
	}
	if (err != -EAGAIN)
		putback_lru_page(m, page);
	if (listed)
		put_page(m, newpage);
	else
		putback_lru_page(m, newpage);
	return err;
}

struct page_to_node {
	struct page *page; /* isolated, NULL once dealt with or not to be */
	int32_t status;
};

/* With mmap_sem. */
static void isolate_for_move(struct pyksm *m, struct mm_struct *mm, uint64_t addr, int node,
			     struct page_to_node *pp)
{
	const struct vm_area_struct *vma = find_vma(mm, addr);
	struct page *page = NULL;

	if (vma && vma->vm_start <= addr)
		page = follow_page_get(m, mm, addr, PT_MOVE_PAGES_PTL);
	if (!vma || vma->vm_start > addr)
		pp->status = -EFAULT;
	else if (!page || !page_to_pfn(m, page))
		pp->status = -ENOENT; /* the zero page stays where it is */
	else if (page->nid == node)
		pp->status = node;
	else if (!isolate_lru_page(m, page))
		pp->status = -EBUSY;
	else
		pp->page = page;
	if (page)
		put_page(m, page); /* isolated it has another reference */
}

/* One pass over what is left; how many want another. */
static uint64_t migrate_pass(struct pyksm *m, struct page_to_node *pp, uint64_t n, int node,
			     int pass, int *err)
{
	uint64_t retry = 0;

	for (uint64_t i = 0; i < n && !*err; i++) {
		int ret;

		if (!pp[i].page)
			continue;
		ret = unmap_and_move(m, pp[i].page, node, pass > FORCE_AFTER_PASS);
		pp[i].status = ret ? ret : node;
		if (ret == -EAGAIN) {
			retry++;
		} else if (ret) {
			*err = ret; /* the end: this page too is still to be put back */
		} else {
			pp[i].page = NULL;
			m->vm[PGMIGRATE_SUCCESS]++;
		}
	}
	return retry;
}

/* Ten passes, then those that did not move go back; how many they were. */
static uint64_t migrate_pages(struct pyksm *m, struct page_to_node *pp, uint64_t n, int node,
			      int *err)
{
	uint64_t left = 0;

	for (int pass = 0; pass < MIGRATE_PASSES && !*err; pass++)
		if (!migrate_pass(m, pp, n, node, pass, err))
			break;
	for (uint64_t i = 0; i < n; i++) {
		if (!pp[i].page)
			continue;
		putback_lru_page(m, pp[i].page);
		pp[i].status = *err ? *err : -EAGAIN;
		left++;
	}
	return left;
}

static int move_chunk(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t npages,
		      int node, int32_t *status)
{
	struct page_to_node pp[MOVE_CHUNK] = { { NULL, 0 } };
	int err = 0;

	down_read(m, mm, PT_MOVE_PAGES_MMAP_SEM);
	for (uint64_t i = 0; i < npages; i++)
		isolate_for_move(m, mm, addr + (i << PAGE_SHIFT), node, &pp[i]);
	migrate_pages(m, pp, npages, node, &err);
	up_read(m, mm);
	for (uint64_t i = 0; status && i < npages; i++)
		status[i] = pp[i].status;
	return err;
}

/* Before 4.17: so many addresses at a time, all of them tried, and mmap_sem held all the while. */
static int move_chunks(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t npages,
		       int node, int32_t *status)
{
	int err = 0;

	for (uint64_t done = 0; done < npages && !err; done += MOVE_CHUNK) {
		uint64_t n = npages - done < MOVE_CHUNK ? npages - done : MOVE_CHUNK;

		err = move_chunk(m, mm, addr + (done << PAGE_SHIFT), n, node,
				 status ? status + done : NULL);
	}
	return err;
}

/* Pages isolated one after the other, which are then moved together. */
struct run {
	struct page_to_node *pp;
	size_t n, max;
	int32_t *status; /* of its first address, or NULL */
};

/* *ends: one of them did not move, and with that the call is over. What moved stays. */
static int move_run(struct pyksm *m, struct run *run, int node, bool *ends)
{
	int err = 0;

	*ends = migrate_pages(m, run->pp, run->n, node, &err);
	for (size_t i = 0; run->status && i < run->n && !*ends; i++)
		run->status[i] = run->pp[i].status;
	run->n = 0;
	return err;
}

/* Since 4.17 (a49bd4d71637): an address that adds nothing to the run ends it. */
static int do_pages_move(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t npages,
			 int node, int32_t *status)
{
	struct run run = { NULL, 0, 0, status };
	bool ends = false;
	int err = 0;

	for (uint64_t i = 0; status && i < npages; i++)
		status[i] = -ENOENT;
	for (uint64_t i = 0; i < npages && !ends && !err; i++) {
		struct page_to_node one = { NULL, 0 };
		struct page_to_node *bigger = grow(m, run.pp, &run.max, run.n + 1, sizeof(one));

		if (!bigger) {
			err = -ENOMEM;
			break;
		}
		run.pp = bigger;
		down_read(m, mm, PT_MOVE_PAGES_MMAP_SEM);
		isolate_for_move(m, mm, addr + (i << PAGE_SHIFT), node, &one);
		up_read(m, mm);
		if (one.page || (one.status == node && !has(m, FEAT_MOVE_PAGES_NODE_ENDS_RUN))) {
			run.pp[run.n++] = one;
			continue;
		}
		if (status)
			status[i] = one.status;
		err = move_run(m, &run, node, &ends);
		run.status = status ? status + i + 1 : NULL;
	}
	if (!ends && !err)
		err = move_run(m, &run, node, &ends);
	for (size_t i = 0; i < run.n; i++) /* the host had no memory for the list */
		if (run.pp[i].page)
			putback_lru_page(m, run.pp[i].page);
	host_free(m, run.pp);
	return err;
}

/* -ENOMEM: the node is full; what was moved before stays there. */
int do_move_pages(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t npages, int node,
		  int32_t *status)
{
	lru_add_drain(m);
	if (has(m, FEAT_MOVE_PAGES_RUNS))
		return do_pages_move(m, mm, addr, npages, node, status);
	return move_chunks(m, mm, addr, npages, node, status);
}
