/* SPDX-License-Identifier: MIT */
/*
 * KSM pages as the rest of the kernel meets them: swap-in, rmap walks, migration (kernel: the end of
 * mm/ksm.c, without what ksmd itself does).
 */
#include "internal.h"

/* ---- swap-in ---- */
/* Without a look whether the owner, whom only a mapping keeps, is still there. */
static bool roots_are_equal(const struct page *page, const struct vm_area_struct *vma)
{
	const struct anon_vma *owner = (struct anon_vma *)(page->mapping & ~PAGE_MAPPING_FLAGS);

	return owner->root == vma->anon_vma->root;
}

static bool may_be_mapped_here(struct pyksm *m, const struct page *page, struct vm_area_struct *vma,
			       uint64_t addr)
{
	if (PageKsm(page)) {
		if (switched(m, PYKSM_SW_NO_UNMERGE_CHECK) ||
		    bugged(m, BUG_KSM_FAULT_IN_DURING_UNMERGE))
			return true;
		return page_stable_node(page) && !(m->ksm.run & KSM_RUN_UNMERGE);
	}
	if (!page_has_anon_vma(page))
		return true; /* fresh: the first to map it will own it */
	if (bugged(m, BUG_KSM_COPY_CHECK_READS_FREED_ANON_VMA) && !roots_are_equal(page, vma))
		return false;
	return page_in_family(page, vma) && page->index == linear_page_index(vma, addr);
}

static __attribute__((noinline)) struct page *copy_for(struct pyksm *m, const struct page *page,
						       const struct vm_area_struct *vma)
{
	struct page *copy = alloc_page_vma(m, vma);

	if (!copy)
		return NULL;
	copy_user_highpage(m, copy, page);
	__set_page_locked(m, copy);
	copy->flags |= PG_dirty | PG_uptodate;
	m->vm[KSM_SWPIN_COPY]++;
	return copy;
}

/* What could not be read is left to the caller, who will say so. */
static bool may_be_copied(struct pyksm *m, const struct page *page)
{
	if (page->flags & PG_uptodate)
		return true;
	if (!bugged(m, BUG_KSM_COPY_NOT_UPTODATE))
		return false;
	event(m, "copy of a page that is not uptodate"); /* nobody will know it as that any more */
	return true;
}

/*
 * The page to map at addr for what is in swap cache: itself, a copy (locked, not in any list) where its
 * owner is of another family or unmerging forbids it, or NULL for want of memory.
 */
struct page *ksm_might_need_to_copy(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
				    uint64_t addr)
{
	COUNT(m, ksm_might_need_to_copy);
	if (may_be_mapped_here(m, page, vma, addr) || !may_be_copied(m, page))
		return page;
	return copy_for(m, page, vma);
}

/* ---- rmap walks ---- */
typedef int (*ksm_walk_fn)(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			   uint64_t addr, void *arg, bool search_new_forks);

#define WALK_ON 0
#define NEXT_ITEM 1
#define WALK_DONE 2

/* The page indices to look up: all, for want of better knowledge, until items know that of their page. */
static void indices_of(const struct pyksm *m, const struct rmap_item *item, uint64_t *first,
		       uint64_t *last)
{
	*first = 0;
	*last = UINT64_MAX;
	if (!has(m, FEAT_KSM_RMAP_BY_INDEX))
		return;
	*first = item->index;
	/* The patch's first versions took the address for it, and missed what mremap had moved. */
	if (switched(m, PYKSM_SW_RMAP_BY_ADDRESS) || bugged(m, BUG_KSM_RMAP_WALK_WRONG_PGOFF))
		*first = item->address >> PAGE_SHIFT;
	*last = *first;
}

/* Whoever looks up a pte does not see the flags, so that to mask them off was forgotten for years. */
static inline uint64_t walk_address(const struct pyksm *m, const struct rmap_item *item)
{
	return bugged(m, BUG_KSM_RMAP_WALK_FLAGGED_ADDRESS) ? item->address
							    : item->address & PAGE_MASK;
}

static int walk_item(struct pyksm *m, struct page *page, const struct rmap_item *item,
		     bool new_forks, ksm_walk_fn fn, void *arg)
{
	uint64_t first, last;
	struct anon_vma_chain *avc;

	indices_of(m, item, &first, &last);
	anon_vma_lock_read(m, item->anon_vma, PT_RMAP_WALK_KSM);
	avc = anon_vma_interval_tree_first(m, item->anon_vma, first, last);
	for (; avc; avc = anon_vma_interval_tree_next(m, avc, first, last)) {
		struct vm_area_struct *vma = avc->vma;
		int ret;

		if (item->address < vma->vm_start || item->address >= vma->vm_end)
			continue;
		/* First the item's own mm; then others, that were forked since ksmd came by. */
		if ((item->mm == vma->vm_mm) == new_forks)
			continue;
		ret = fn(m, page, vma, walk_address(m, item), arg, new_forks);
		if (ret != WALK_ON) {
			anon_vma_unlock(m, item->anon_vma);
			return ret;
		}
	}
	anon_vma_unlock(m, item->anon_vma);
	return WALK_ON;
}

/* Every vma in which the page may be mapped, as far as ksmd has items for it. */
static void walk_ksm_page(struct pyksm *m, struct page *page, ksm_walk_fn fn, void *arg)
{
	struct stable_node *node = page_stable_node(page);
	int pass;

	for (pass = 0; node && pass < 2; pass++) {
		struct hlist_node *pos;

		for (pos = node->hlist.first; pos; pos = pos->next)
			if (walk_item(m, page, container_of(pos, struct rmap_item, hlist), pass, fn,
				      arg) == WALK_DONE)
				return;
	}
}

struct referenced {
	int mapcount, referenced;
};

static int referenced_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			  uint64_t addr, void *arg, bool new_forks)
{
	struct referenced *r = arg;

	r->referenced += page_referenced_one(m, page, vma, addr, &r->mapcount);
	if (!r->mapcount)
		return WALK_DONE;
	return new_forks ? WALK_ON : NEXT_ITEM;
}

int page_referenced_ksm(struct pyksm *m, struct page *page)
{
	struct referenced r = { page_mapcount(page), 0 };

	COUNT(m, page_referenced_ksm);
	walk_ksm_page(m, page, referenced_one, &r);
	return r.referenced;
}

struct unmap {
	enum ttu_flags flags;
	int ret;
};

static int unmap_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma, uint64_t addr,
		     void *arg, bool new_forks)
{
	struct unmap *u = arg;

	(void)new_forks;
	u->ret = try_to_unmap_one(m, page, vma, addr, u->flags);
	return u->ret != SWAP_AGAIN || !page_mapped(page) ? WALK_DONE : WALK_ON;
}

int try_to_unmap_ksm(struct pyksm *m, struct page *page, enum ttu_flags flags)
{
	struct unmap u = { flags, SWAP_AGAIN };

	COUNT(m, try_to_unmap_ksm);
	if (!page_stable_node(page))
		return SWAP_FAIL; /* nothing leads to its ptes */
	walk_ksm_page(m, page, unmap_one, &u);
	return u.ret;
}

struct rmap_one {
	rmap_one_fn one;
	void *arg;
	int ret;
};

static int walk_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma, uint64_t addr,
		    void *arg, bool new_forks)
{
	struct rmap_one *w = arg;

	(void)new_forks;
	w->ret = w->one(m, page, vma, addr, w->arg);
	return w->ret != SWAP_AGAIN ? WALK_DONE : WALK_ON;
}

int rmap_walk_ksm(struct pyksm *m, struct page *page, rmap_one_fn one, void *arg)
{
	struct rmap_one w = { one, arg, SWAP_AGAIN };

	COUNT(m, rmap_walk_ksm);
	walk_ksm_page(m, page, walk_one, &w);
	return w.ret;
}

/* The node follows its page; the old page is left a KSM page without one. */
void ksm_migrate_page(struct pyksm *m, struct page *newpage, struct page *oldpage)
{
	struct stable_node *node = page_stable_node(newpage);

	COUNT(m, ksm_migrate_page);
	if (!node)
		return;
	assert(node->kpfn == page_to_pfn(m, oldpage));
	node->kpfn = page_to_pfn(m, newpage);
	set_page_stable_node(oldpage, NULL);
}
