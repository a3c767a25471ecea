/* SPDX-License-Identifier: MIT */
/*
 * The LRU lists of anonymous pages, and the processor's batches of pages on their way there (kernel: mm/swap.c).
 *
 * A batch shows in two ways: a page in it is not on the LRU, so nothing activates it, and pages that were added
 * come to their list before those that were activated meanwhile. The kernel's batches hold references, ours do
 * not: who goes while he waits leaves his place empty. 3.9's rules do without batches. The batch of mlock.c, of
 * which references show, is drained with these.
 */
#include "internal.h"

bool lru_has_batches(const struct pyksm *m)
{
	return has(m, FEAT_SWAPIN_ACTIVATES) || has(m, FEAT_KEEP_YOUNG_ONCE);
}

/* ---- the lists ---- */
/* Of one that is not unevictable. */
static int page_lru(const struct page *page)
{
	if (!(page->flags & PG_memcg))
		return LRU_ROOT;
	return page->flags & PG_active ? LRU_ACTIVE_ANON : LRU_INACTIVE_ANON;
}

static void add_page_to_lru_list(struct pyksm *m, struct page *page)
{
	struct node *node = &m->node[page->nid];
	int lru = page_lru(page);

	page->flags |= PG_lru;
	list_add(&page->lru, &node->lru[lru]);
	node->nr_lru[lru]++;
}

/* What has come by, and what of it was in use: reclaim weighs them, see scan_fraction(). */
static void update_page_reclaim_stat(struct pyksm *m, const struct page *page)
{
	struct node *node = &m->node[page->nid];

	if (!(page->flags & PG_memcg))
		return;
	node->recent_scanned++;
	if (page->flags & PG_active)
		node->recent_rotated++;
}

/* A page that is locked is not scanned. What its count was is lost. */
static RARELY void add_unevictable(struct pyksm *m, struct page *page)
{
	page->mlock_count = 0;
	page->flags |= PG_unevictable | PG_lru;
	page->flags &= ~(uint32_t)(PG_active | PG_memcg);
	m->node[page->nid].nr_lru[LRU_UNEVICTABLE]++;
}

static RARELY void del_unevictable(struct pyksm *m, struct page *page)
{
	m->node[page->nid].nr_lru[LRU_UNEVICTABLE]--;
	INIT_LIST_HEAD(&page->lru);
	page->flags &= ~(uint32_t)(PG_lru | PG_unevictable);
}

/* Back on its list, as the newest; now it is decided whose list that is. */
void lru_putback(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_charged)
		page->flags |= PG_memcg;
	else
		page->flags &= ~(uint32_t)PG_memcg;
	if (__builtin_expect(page->flags & PG_mlocked, 0))
		add_unevictable(m, page);
	else
		add_page_to_lru_list(m, page);
}

void lru_del(struct pyksm *m, struct page *page)
{
	if (__builtin_expect(page->flags & PG_unevictable, 0)) {
		del_unevictable(m, page);
		return;
	}
	m->node[page->nid].nr_lru[page_lru(page)]--;
	list_del_init(&page->lru);
	page->flags &= ~(uint32_t)PG_lru; /* PG_active says where it came from */
}

static void __activate_page(struct pyksm *m, struct page *page)
{
	if ((page->flags & (PG_lru | PG_active | PG_unevictable)) != PG_lru)
		return;
	lru_del(m, page);
	page->flags |= PG_active;
	add_page_to_lru_list(m, page);
	update_page_reclaim_stat(m, page);
}

void __lru_add(struct pyksm *m, struct page *page)
{
	lru_putback(m, page);
	update_page_reclaim_stat(m, page);
}

/* ---- the batches ---- */
typedef void (*lru_fn)(struct pyksm *m, struct page *page);

static __attribute__((noinline)) void batch_drain(struct pyksm *m, struct lru_batch *batch,
						  lru_fn fn)
{
	uint32_t n = batch->nr;

	batch->nr = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct page *page = batch->pages[i];

		if (!page)
			continue;
		page->flags &= ~(uint32_t)PG_batched;
		fn(m, page);
	}
}

/* The one that fills it takes all others along. */
static EXPANDED void batch_add(struct pyksm *m, struct lru_batch *batch, struct page *page,
			       lru_fn fn)
{
	page->flags |= PG_batched;
	batch->pages[batch->nr++] = page;
	if (batch->nr == lru_batch_size(m))
		batch_drain(m, batch, fn);
}

/* On its way to the LRU, and not in the hands of somebody who has taken it off? */
bool lru_add_pending(const struct pyksm *m, const struct page *page)
{
	for (uint32_t i = 0; page->flags & PG_batched && i < m->lru_add.nr; i++)
		if (m->lru_add.pages[i] == page)
			return true;
	return false;
}

static void batch_forget(struct lru_batch *batch, const struct page *page)
{
	for (uint32_t i = 0; i < batch->nr; i++)
		if (batch->pages[i] == page)
			batch->pages[i] = NULL;
}

/* The page is freed, or moved to another list by someone else. */
void lru_batches_forget(struct pyksm *m, struct page *page)
{
	batch_forget(&m->lru_add, page);
	batch_forget(&m->lru_activate, page);
	page->flags &= ~(uint32_t)PG_batched;
}

void lru_add_drain(struct pyksm *m)
{
	batch_drain(m, &m->lru_add, __lru_add);
	batch_drain(m, &m->lru_activate, __activate_page);
	mlock_drain(m);
}

/* ---- what others ask for ---- */
void lru_add(struct pyksm *m, struct page *page)
{
	if (lru_has_batches(m))
		batch_add(m, &m->lru_add, page, __lru_add);
	else
		__lru_add(m, page);
}

void activate_page(struct pyksm *m, struct page *page)
{
	if ((page->flags & (PG_lru | PG_active | PG_unevictable)) != PG_lru)
		return;
	if (lru_has_batches(m))
		batch_add(m, &m->lru_activate, page, __activate_page);
	else
		__activate_page(m, page);
}

void mark_page_accessed(struct pyksm *m, struct page *page)
{
	bool waits = lru_has_batches(m) && !(page->flags & PG_lru);

	if ((page->flags & (PG_active | PG_unevictable)) || !(page->flags & PG_referenced) ||
	    !(page->flags & PG_lru || waits)) {
		page->flags |= PG_referenced;
		return;
	}
	if (waits)
		page->flags |= PG_active; /* where it will come to */
	else
		activate_page(m, page);
	page->flags &= ~(uint32_t)PG_referenced;
}

bool isolate_lru_page(struct pyksm *m, struct page *page)
{
	if (!(page->flags & PG_lru))
		return false;
	if (page->flags & PG_batched)
		lru_batches_forget(m, page);
	lru_del(m, page);
	get_page(page);
	return true;
}

void putback_lru_page(struct pyksm *m, struct page *page)
{
	lru_add(m, page);
	put_page(m, page);
}
