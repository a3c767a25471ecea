/* SPDX-License-Identifier: MIT */
/*
 * Locked memory (kernel: mm/mlock.c): mlock(2), munlock(2), and the mark of a page that keeps it from reclaim.
 *
 * A vma is locked or not; a page can only be marked as being in one that is. Until 5.18 the mark was put on by
 * whoever faulted the page in for mlock(2) and taken off by munlock(2) or munmap(2), after a look at the page's other
 * mappings; what slipped through was for reclaim to find. Since (cea86fe246b6, 07ca76067308) each mapping in a
 * locked vma counts itself in when it comes and out when it goes, as long as the page is on the list of those that
 * are not evictable, which therefore has no links.
 *
 * All but the setting of the mark has since then waited in a batch of the processor (2fbb0c10d1e8), with a reference
 * to the page: to whoever counts references the page is in use until then, and who goes meanwhile is freed then.
 */
#include "internal.h"

/* ---- the mark ---- */
static void set_mlocked(struct pyksm *m, struct page *page)
{
	if (!(page->flags & PG_mlocked))
		m->nr_mlock++;
	page->flags |= PG_mlocked;
}

/* Whether it was marked. */
static bool clear_mlocked(struct pyksm *m, struct page *page)
{
	if (!(page->flags & PG_mlocked))
		return false;
	page->flags &= ~(uint32_t)PG_mlocked;
	m->nr_mlock--;
	return true;
}

/* ---- until 5.18: the mark alone ---- */
/* The page is locked. One that is on no list is seen to by whoever puts it back. */
void mlock_vma_page(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_mlocked)
		return;
	set_mlocked(m, page);
	if (isolate_lru_page(m, page))
		putback_lru_page(m, page);
}

/* The same, after a look at who else has locked it: with one mapping left that is not asked, whosever it is. */
void munlock_vma_page(struct pyksm *m, struct page *page)
{
	if (!clear_mlocked(m, page) || !isolate_lru_page(m, page))
		return;
	if (page_mapcount(page) > 1)
		try_to_munlock(m, page);
	putback_lru_page(m, page);
}

/* One that is mapped once and on a list changes lists at once, others by the batch (since 3.12). */
static void munlock_page_of_range(struct pyksm *m, struct page *page)
{
	if (page_mapcount(page) > 1 || !(page->flags & PG_lru)) {
		munlock_vma_page(m, page);
	} else if (clear_mlocked(m, page) && isolate_lru_page(m, page)) {
		__lru_add(m, page);
		put_page(m, page);
	}
}

/* The last mapping has gone (e6c509f85455, 3.7). */
static void clear_page_mlock(struct pyksm *m, struct page *page)
{
	clear_mlocked(m, page);
	if (isolate_lru_page(m, page))
		putback_lru_page(m, page);
}

/* ---- from 5.18: how many ---- */
static void change_list(struct pyksm *m, struct page *page)
{
	lru_del(m, page);
	lru_putback(m, page);
}

/* Of a page that is off the LRU nobody can count; nor of one that has lost its mark meanwhile. */
static void __mlock_page(struct pyksm *m, struct page *page)
{
	bool mlocked = page->flags & PG_mlocked, unevictable = page->flags & PG_unevictable;

	if (!(page->flags & PG_lru))
		return;
	if (mlocked != unevictable)
		change_list(m, page);
	if (mlocked)
		page->mlock_count++;
}

static void __mlock_new_page(struct pyksm *m, struct page *page)
{
	lru_putback(m, page);
	if (page->flags & PG_unevictable)
		page->mlock_count = 1;
}

/* If the count is of fewer than there are, reclaim will put that right. */
static void __munlock_page(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_unevictable && page->mlock_count && --page->mlock_count)
		return;
	clear_mlocked(m, page);
	if (page->flags & PG_unevictable)
		change_list(m, page);
}

/* All references go when everything has been done. */
void mlock_batch_run(struct pyksm *m)
{
	static void (*const run[])(struct pyksm *m, struct page *page) = {
		[MLOCK_LISTED] = __mlock_page,
		[MLOCK_NEW] = __mlock_new_page,
		[MLOCK_UNLOCK] = __munlock_page,
	};
	struct mlock_batch *batch = &m->mlock_batch;
	uint32_t n = batch->nr;

	batch->nr = 0;
	for (uint32_t i = 0; i < n; i++)
		run[batch->entry[i].kind](m, batch->entry[i].page);
	for (uint32_t i = 0; i < n; i++)
		put_page(m, batch->entry[i].page);
}

/* The one that fills it takes all others along. */
static void batch_add(struct pyksm *m, struct page *page, enum mlock_kind kind)
{
	struct mlock_batch *batch = &m->mlock_batch;

	get_page(page);
	batch->entry[batch->nr].page = page;
	batch->entry[batch->nr++].kind = kind;
	if (batch->nr == lru_batch_size(m))
		mlock_batch_run(m);
}

static void mlock_page(struct pyksm *m, struct page *page)
{
	set_mlocked(m, page);
	batch_add(m, page, MLOCK_LISTED);
}

/* Whether the mark goes will be seen when its turn comes. */
static void munlock_page(struct pyksm *m, struct page *page)
{
	batch_add(m, page, MLOCK_UNLOCK);
}

/* ---- for the rmap ---- */
/* A new page of a locked vma: it never is on a list that is scanned. */
RARELY void mlock_new_page(struct pyksm *m, struct page *page)
{
	set_mlocked(m, page);
	if (has(m, FEAT_MLOCK_COUNT))
		batch_add(m, page, MLOCK_NEW);
	else
		lru_add(m, page);
}

/* While mlock is at the vma's pages itself, another mapping or a walk is not to count them once more. */
RARELY void rmap_mlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma)
{
	if (has(m, FEAT_MLOCK_COUNT) && (vma->vm_flags & (VM_LOCKED | VM_IO)) == VM_LOCKED)
		mlock_page(m, page);
}

/* Reclaim has come upon a page that is not marked as it should be. */
void restore_mlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma)
{
	if (has(m, FEAT_MLOCK_COUNT))
		rmap_mlock(m, page, vma);
	else
		mlock_vma_page(m, page);
}

/* A mapping has gone, of a marked page or from a locked vma, and with it perhaps its charge. */
RARELY void rmap_munlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma)
{
	uncharge_page(m, page);
	if (!has(m, FEAT_MLOCK_COUNT)) {
		if (page->flags & PG_mlocked && !page_mapped(page))
			clear_page_mlock(m, page);
	} else if (vma->vm_flags & VM_LOCKED) {
		munlock_page(m, page);
	}
}

/* Migration cannot have references left over from its walks. */
void migrated_mlock(struct pyksm *m, const struct vm_area_struct *vma)
{
	if (has(m, FEAT_MLOCK_COUNT) && vma->vm_flags & VM_LOCKED)
		mlock_drain(m);
}

/* ---- ranges ---- */
/* With a reference; the zero page is nobody's to lock. */
static struct page *page_to_munlock(struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	struct page *page;

	pte_lock(m, mm, addr, PT_MUNLOCK_PTL);
	page = present_page(m, mm, addr);
	if (page == zero_page(m))
		page = NULL;
	if (page)
		get_page(page);
	pte_unlock(m, mm, addr);
	return page;
}

/* Until 5.18. */
static void munlock_vma_pages_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
				    uint64_t end)
{
	uint64_t addr;

	vma->vm_flags &= ~VM_LOCKED;
	for (addr = next_table(vma->vm_mm, start, end); addr < end;
	     addr = next_table(vma->vm_mm, addr + PAGE_SIZE, end)) {
		struct page *page = page_to_munlock(m, vma->vm_mm, addr);

		if (!page)
			continue;
		lock_page(m, page, PT_MUNLOCK_LOCK_PAGE);
		munlock_page_of_range(m, page);
		unlock_page(m, page);
		put_page(m, page);
	}
}

/* Before vmas go, until 5.18: from first up to end. */
void munlock_vmas(struct pyksm *m, struct vm_area_struct *vma, uint64_t end)
{
	for (; vma && vma->vm_start < end && !has(m, FEAT_MLOCK_COUNT); vma = vma->vm_next)
		if (vma->vm_flags & VM_LOCKED)
			munlock_vma_pages_range(m, vma, vma->vm_start, vma->vm_end);
}

/* From 5.18: what is mapped by now, as the vma's flags have it. */
static void mlock_pte_range(struct pyksm *m, const struct vm_area_struct *vma, uint64_t start,
			    uint64_t end)
{
	uint64_t addr;

	for (addr = next_table(vma->vm_mm, start, end); addr < end;
	     addr = next_table(vma->vm_mm, addr + PAGE_SIZE, end)) {
		struct page *page;

		pte_lock(m, vma->vm_mm, addr, PT_MLOCK_PTL);
		page = present_page(m, vma->vm_mm, addr);
		if (page && page != zero_page(m) && vma->vm_flags & VM_LOCKED)
			mlock_page(m, page);
		else if (page && page != zero_page(m))
			munlock_page(m, page);
		pte_unlock(m, vma->vm_mm, addr);
	}
}

static void mlock_vma_pages_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
				  uint64_t end, uint64_t flags)
{
	vma->vm_flags = flags | (flags & VM_LOCKED ? VM_IO : 0);
	lru_add_drain(m);
	mlock_pte_range(m, vma, start, end);
	lru_add_drain(m);
	vma->vm_flags = flags;
}

static int mlock_fixup(struct pyksm *m, struct vm_area_struct *vma, struct vm_area_struct **prev,
		       uint64_t start, uint64_t end, uint64_t locked)
{
	uint64_t flags = (vma->vm_flags & ~VM_LOCKED) | locked;
	int err = 0;

	if (flags != vma->vm_flags) {
		err = vma_modify(m, &vma, *prev, start, end, flags);
		if (!err && has(m, FEAT_MLOCK_COUNT))
			mlock_vma_pages_range(m, vma, start, end, flags);
		else if (!err && flags & VM_LOCKED)
			vma->vm_flags = flags;
		else if (!err)
			munlock_vma_pages_range(m, vma, start, end);
	}
	*prev = vma;
	return err;
}

/* -ENOMEM: a hole, or no memory to split a vma; what came before stays done. (kernel: apply_vma_lock_flags) */
int do_mlock(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, bool on)
{
	return fixup_range(m, mm, start, len, on ? VM_LOCKED : 0, mlock_fixup);
}

/* ---- faulting in (kernel: mm/gup.c) ---- */
/* With the pte lock. That mlock(2) was here at all is, until 5.18, only marked where no one has the page locked. */
static void touch_page(struct pyksm *m, const struct vm_area_struct *vma, pte_t pte, bool write)
{
	struct page *page = vm_normal_page(m, pte);

	if (!page)
		return;
	if (write && !(pte & _PAGE_DIRTY))
		page->flags |= PG_dirty;
	mark_page_accessed(m, page);
	if (has(m, FEAT_MLOCK_COUNT) || !(vma->vm_flags & VM_LOCKED) ||
	    !trylock_page(m, page, PT_POPULATE_TRYLOCK_PAGE))
		return;
	lru_add_drain(m);
	mlock_vma_page(m, page);
	unlock_page(m, page);
}

/* Is there what an access would find? */
static bool follow_populated(struct pyksm *m, const struct vm_area_struct *vma, uint64_t addr,
			     bool write)
{
	const struct mm_struct *mm = vma->vm_mm;
	const pte_t *pte = pte_lookup(mm, addr);
	bool there;

	if (!pte)
		return false;
	pte_lock(m, mm, addr, PT_POPULATE_PTL);
	there = pte_present(*pte) && (!write || *pte & _PAGE_RW);
	if (there)
		touch_page(m, vma, *pte, write);
	pte_unlock(m, mm, addr);
	return there;
}

static int populate_page(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool write)
{
	while (!follow_populated(m, vma, addr, write)) {
		int fault = handle_mm_fault(m, vma, addr, write ? FAULT_FLAG_WRITE : 0);

		if (fault & VM_FAULT_OOM)
			return -EAGAIN;
		if (fault & (VM_FAULT_SIGBUS | VM_FAULT_HWPOISON))
			return -ENOMEM;
	}
	return 0;
}

/* A page of its own for each address that may be written to. The errors are those of mlock(2). */
int populate_vma_page_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			    uint64_t end)
{
	bool write = vma->vm_flags & VM_WRITE;
	int err = vma->vm_flags & (VM_READ | VM_WRITE) ? 0 : -ENOMEM;

	for (uint64_t addr = start; addr < end && !err; addr += PAGE_SIZE)
		err = populate_page(m, vma, addr, write);
	if (has(m, FEAT_MLOCK_COUNT))
		lru_add_drain(m);
	return err;
}

/* mmap_sem has been let go before: vmas may have gone, or come. */
int mm_populate(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len)
{
	struct vm_area_struct *vma = find_vma(mm, start);
	uint64_t end = start + len;
	int err = 0;

	for (; vma && vma->vm_start < end && !err; vma = vma->vm_next)
		err = populate_vma_page_range(m, vma, vma->vm_start > start ? vma->vm_start : start,
					      vma->vm_end < end ? vma->vm_end : end);
	return err;
}

/* ---- the agents ---- */
/*
 * The processes of a recorded scenario are agents: each locks the memory it has for itself. When a forked
 * agent forks, the new one breaks copy on write on 79 of those pages, and the kernel then takes the lock's
 * mark off the old page, which only the parent maps by now (munlock_vma_page in do_wp_page). So they are on the
 * LRU again, though locked. Reclaim gives each a slot before it finds out, takes the slot back and puts the page
 * away until the next fork. That shows in which slots the others get, and so in the order in which swapoff comes to
 * them.
 *
 * Such a page is in no frame and mapped by no pte of the model: only its place on the LRU is there.
 */
static struct page *alloc_agent_pages(struct pyksm *m)
{
	struct page *pages = host_calloc(m, m->agent_pages, sizeof(*pages));

	for (uint32_t i = 0; pages && i < m->agent_pages; i++) {
		pages[i].flags = PG_agent | PG_charged | PG_uptodate | PG_swapbacked;
		pages[i]._count = 1;
		pages[i]._mapcount = -1;
		INIT_LIST_HEAD(&pages[i].lru);
	}
	return pages;
}

#define AGENT_START_PAGES 28

/*
 * A new agent has pages of its own on the active list before it comes to lock them: reclaim has seen them come
 * by and in use. So much shows in how many pages it then looks at: two recordings of 4.19.0 hang on 26 to 32.
 */
void mlock_spawn(struct pyksm *m)
{
	if (!m->agent_pages)
		return;
	m->node[0].recent_scanned += AGENT_START_PAGES;
	m->node[0].recent_rotated += AGENT_START_PAGES;
}

/* oldmm has forked mm. Without host memory nothing shows, as if the agent had no such pages. */
void mlock_fork(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm)
{
	mm->forked = true;
	if (has(m, FEAT_MLOCK_COUNT) || !m->agent_pages || !oldmm->forked || oldmm->agent_listed)
		return;
	if (!oldmm->agent_pages)
		oldmm->agent_pages = alloc_agent_pages(m);
	for (uint32_t i = 0; oldmm->agent_pages && i < m->agent_pages; i++) {
		oldmm->agent_pages[i].private = (uintptr_t)oldmm;
		oldmm->agent_pages[i].flags &= ~(uint32_t)PG_active;
		lru_add(m, &oldmm->agent_pages[i]);
		oldmm->agent_listed++;
	}
}

void mlock_exit(struct pyksm *m, struct mm_struct *mm)
{
	for (uint32_t i = 0; mm->agent_listed && i < m->agent_pages; i++)
		if (mm->agent_pages[i].flags & PG_batched)
			lru_batches_forget(m, &mm->agent_pages[i]);
		else if (mm->agent_pages[i].flags & PG_lru)
			lru_del(m, &mm->agent_pages[i]);
	host_free(m, mm->agent_pages);
	mm->agent_pages = NULL;
	mm->agent_listed = 0;
}

/* Reclaim has come to an isolated one. false: there was no slot to try it with, it stays in sight. */
bool cull_agent_page(struct pyksm *m, struct page *page)
{
	swp_entry_t entry;

	COUNT(m, add_to_swap);
	entry = get_swap_page(m);
	if (!entry.val)
		return false;
	COUNT(m, try_to_unmap); /* which answers SWAP_MLOCK */
	COUNT(m, try_to_free_swap);
	COUNT(m, delete_from_swap_cache);
	swapcache_free(m, entry);
	((struct mm_struct *)(uintptr_t)page->private)->agent_listed--;
	return true;
}
