/* SPDX-License-Identifier: MIT */
/* Memory nodes and their frames (kernel: mm/page_alloc.c, the part that a model needs). */
#include "internal.h"

static void init_node(struct pyksm *m, uint32_t nid, uint64_t first, uint64_t last)
{
	struct node *node = &m->node[nid];

	node->first = first;
	node->last = last;
	for (int lru = 0; lru < NR_LRU_LISTS; lru++)
		INIT_LIST_HEAD(&node->lru[lru]);
	node->fresh = first;
	node->nr_free = (int64_t)(last - first + 1);
}

int page_alloc_init(struct pyksm *m, uint64_t frames)
{
	uint64_t share = frames / m->nodes;
	size_t pages = (size_t)frames + 1;

	if (pages > SIZE_MAX / sizeof(struct page))
		return -ENOMEM;
	m->max_pfn = frames;
	m->mem_map = host_map(m, pages * sizeof(struct page));
	if (m->mem_map && frames >= MANY_FRAMES)
		advise_huge_pages(m->mem_map, pages * sizeof(struct page));
	if (!m->mem_map || content_init(m, frames))
		return -ENOMEM;
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		init_node(m, nid, nid * share + 1,
			  nid + 1 == m->nodes ? frames : (nid + 1) * share);
	/* The zero page: never counted, never freed. */
	m->mem_map[0]._count = 1;
	m->mem_map[0]._mapcount = -1;
	m->mem_map[0].flags = PG_uptodate;
	if (has(m, FEAT_ZERO_PAGE_LAST_NODE))
		m->mem_map[0].nid = (uint8_t)(m->nodes - 1);
	return 0;
}

/* The frame that came back last, else the lowest of those never used: a stack filled from the top. */
static EXPANDED struct page *pop_free(struct pyksm *m, struct node *node, uint8_t nid)
{
	struct page *page = node->free;

	if (page) {
		node->free = (struct page *)(void *)page->lru.next;
	} else {
		page = pfn_to_page(m, node->fresh++);
		page->nid = nid;
	}
	node->nr_free--;
	return page;
}

static EXPANDED struct page *take_free(struct pyksm *m, uint32_t nid)
{
	struct page *page = pop_free(m, &m->node[nid], (uint8_t)nid);

	page->flags = 0;
	page->_count = 1;
	page->_mapcount = -1;
	page->mapping = 0;
	page->index = 0;
	page->private = 0;
	INIT_LIST_HEAD(&page->lru);
	COUNT(m, alloc_page);
	if (++m->in_use > m->peak)
		m->peak = m->in_use;
	return page;
}

static RARELY struct page *no_page(struct pyksm *m)
{
	m->memory_denied++;
	return NULL;
}

static RARELY struct page *take_other(struct pyksm *m)
{
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		if (m->node[nid].nr_free)
			return take_free(m, nid);
	return no_page(m);
}

/* A frame of node nid; of any other node too unless bound. NULL: there is none, nothing is reclaimed. */
struct page *alloc_pages_node(struct pyksm *m, int nid, bool bound)
{
	if (should_fail(m, PYKSM_FAIL_PAGE))
		return no_page(m);
	if (m->node[nid].nr_free)
		return take_free(m, (uint32_t)nid);
	return bound ? no_page(m) : take_other(m);
}

/* With a vma its policy decides; without one (swapoff) the caller's: node 0. */
struct page *alloc_page_vma(struct pyksm *m, const struct vm_area_struct *vma)
{
	bool bound = vma && vma->node >= 0;

	return alloc_pages_node(m, bound ? vma->node : 0, bound);
}

/* Whoever mapped a locked page last had to say that it is no more. Since 5.18 (b109b87050df) nobody minds. */
static RARELY void free_marked_page(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_batched)
		lru_batches_forget(m, page);
	if (!(page->flags & PG_mlocked))
		return;
	if (!has(m, FEAT_MLOCK_COUNT))
		event(m, "Bad page state mlocked");
	m->nr_mlock--;
}

void free_page(struct pyksm *m, struct page *page)
{
	struct node *node = &m->node[page->nid];

	if (__builtin_expect(page->flags & (PG_batched | PG_mlocked), 0))
		free_marked_page(m, page);
	if (page->flags & PG_lru)
		lru_del(m, page);
	page_content_free(m, page);
	if (page_stable_node(page))
		m->ksm.stale_nodes++;
	page->flags = PG_buddy;
	page->content_id = 0;
	page->mapping = 0; /* here and nowhere else: stale stable nodes are told by it */
	page->lru.next = (struct list_head *)(void *)node->free;
	node->free = page;
	node->nr_free++;
	m->in_use--;
	COUNT(m, free_page);
}
