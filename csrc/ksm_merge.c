/* SPDX-License-Identifier: MIT */
/* Comparing and merging, and ksmd's look at one page (kernel: mm/ksm.c). */
#include "ksm_internal.h"

/* ---- comparing ---- */
static uint32_t calc_checksum(struct pyksm *m, struct page *page)
{
	COUNT(m, calc_checksum);
	return content_checksum(m, page);
}

int memcmp_pages(struct pyksm *m, struct page *a, struct page *b)
{
	int order;

	COUNT(m, memcmp_pages);
	if (a->content_id && a->content_id == b->content_id)
		return 0;
	order = memcmp(page_content(m, a), page_content(m, b), m->page_size);
	if (!order)
		content_ids_join(a, b);
	return order;
}

/* ---- merging ---- */
/* Under its lock; the page's is held too, so that it neither leaves nor enters the swap cache. */
static int write_protect_pte(const struct pyksm *m, struct page *page, pte_t *pte)
{
	pte_t moved = _PAGE_RW | _PAGE_DIRTY; /* away from the pte */

	if (bugged(m, BUG_KSM_LOST_DIRTY_ON_MERGE))
		moved = _PAGE_RW;
	if ((*pte & moved) || (page->flags & PG_anon_exclusive)) {
		int swapped = page->flags & PG_swapcache ? 1 : 0;

		/* More references than ptes, cache and ours: direct I/O may be under way. */
		if (page_mapcount(page) + 1 + swapped != page_count(page))
			return -EFAULT;
		if ((page->flags & PG_anon_exclusive) && !page_try_share_anon_rmap(page))
			return -EFAULT;
		if (*pte & moved & _PAGE_DIRTY)
			page->flags |= PG_dirty;
		*pte &= ~moved;
	}
	return 0;
}

/* Make sure that nobody writes to page from now on; -EFAULT where someone might already be at it. */
static int write_protect_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
			      pte_t *orig_pte)
{
	struct mm_struct *mm = vma->vm_mm;
	uint64_t addr;
	pte_t *pte;
	int err;

	COUNT(m, write_protect_page);
	addr = page_address_in_vma(m, page, vma);
	pte = addr == BAD_ADDRESS ? NULL
				  : page_check_address(m, page, mm, addr, PT_WRITE_PROTECT_PTL);
	if (!pte)
		return -EFAULT;
	err = write_protect_pte(m, page, pte);
	if (!err)
		*orig_pte = *pte;
	pte_unlock(m, mm, addr);
	return err;
}

/* The pte that comes in its place: KSM's zero pages are marked since 6.6 (79271476b336). */
static pte_t replacing_pte(struct pyksm *m, struct vm_area_struct *vma, struct page *kpage,
			   uint64_t addr)
{
	pte_t pte;

	if (kpage != zero_page(m)) {
		get_page(kpage);
		page_add_anon_rmap(m, kpage, vma, addr);
		return mk_pte(m, kpage, vma);
	}
	if (!bugged(m, BUG_KSM_ZERO_PAGE_RSS))
		vma->vm_mm->anon_rss--;
	pte = vm_page_prot(vma) | _PAGE_SPECIAL;
	if (has(m, FEAT_ZERO_PAGES_COUNTED)) {
		pte = pte_mkdirty(m, pte);
		ksm_map_zero_page(m, vma->vm_mm);
	}
	return pte;
}

/*
 * The bug is of kernels in which nobody else took the mark off a page with its last mapping (until 3.7,
 * e6c509f85455): there it was still on it when it was freed.
 */
static void unmap_replaced(struct pyksm *m, const struct vm_area_struct *vma, struct page *page)
{
	uint32_t mark = bugged(m, BUG_KSM_MLOCK_MERGE_ACCOUNTING) ? page->flags & PG_mlocked : 0;

	page->flags &= ~mark;
	page_remove_rmap(m, page, vma);
	page->flags |= mark;
}

static int replace_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
			struct page *kpage, pte_t orig_pte)
{
	uint64_t addr;
	pte_t *pte;

	COUNT(m, replace_page);
	addr = page_address_in_vma(m, page, vma);
	pte = addr == BAD_ADDRESS ? NULL : pte_lookup(vma->vm_mm, addr);
	if (!pte)
		return -EFAULT;
	pte_lock(m, vma->vm_mm, addr, PT_REPLACE_PAGE_PTL);
	if (*pte != orig_pte) {
		pte_unlock(m, vma->vm_mm, addr);
		return -EFAULT;
	}
	*pte = replacing_pte(m, vma, kpage, addr);
	unmap_replaced(m, vma, page);
	if (!page_mapped(page))
		try_to_free_swap(m, page);
	put_page(m, page);
	pte_unlock(m, vma->vm_mm, addr);
	return 0;
}

/* While the page is locked: from now on it is a KSM page, as yet without a node. */
static void upgrade_to_ksm_page(struct pyksm *m, struct page *page)
{
	set_page_stable_node(page, NULL); /* stable_tree_insert() will fill it in */
	mark_page_accessed(m, page);
	/* Else reclaim would just drop a page whose ptes have all been made clean (4.5). */
	if (has(m, FEAT_STABLE_PAGE_DIRTY))
		page->flags |= PG_dirty;
}

/*
 * kpage is locked in the place of page, which must be marked so before it can be freed; the rmap has done that since
 * 5.18 (cea86fe246b6). The one of the two that is left with its page lock held.
 */
static struct page *hand_lock_over(struct pyksm *m, struct page *page, struct page *kpage)
{
	if (has(m, FEAT_MLOCK_COUNT) || bugged(m, BUG_KSM_MLOCK_MERGE_ACCOUNTING))
		return page;
	munlock_vma_page(m, page);
	if (kpage == zero_page(m) || kpage->flags & PG_mlocked)
		return page; /* who has the zero page marked will not see it */
	unlock_page(m, page);
	lock_page(m, kpage, PT_MERGE_LOCK_KPAGE);
	mlock_vma_page(m, kpage);
	return kpage;
}

/* Make page a KSM page (kpage NULL), or put kpage, which may be the zero page, in its place. */
static int try_to_merge_one_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
				 struct page *kpage)
{
	pte_t orig_pte = 0;
	int err = -EFAULT;

	COUNT(m, try_to_merge_one_page);
	if (page == kpage) /* a forked KSM page */
		return 0;
	if (!(vma->vm_flags & VM_MERGEABLE) || !PageAnon(page) ||
	    !trylock_page(m, page, PT_MERGE_TRYLOCK_PAGE))
		return -EFAULT;
	if (bugged(m, BUG_KSM_WRITE_PROTECT_FAILURE_IGNORED))
		err = 0; /* as the splitting of a huge page leaves it, here of every page */
	if (write_protect_page(m, vma, page, &orig_pte) == 0) {
		if (!kpage) {
			upgrade_to_ksm_page(m, page);
			err = 0;
		} else if (!memcmp_pages(m, page, kpage)) {
			err = replace_page(m, vma, page, kpage, orig_pte);
		}
	}
	if (!err && kpage && vma->vm_flags & VM_LOCKED)
		page = hand_lock_over(m, page, kpage);
	unlock_page(m, page);
	return err;
}

static struct vm_area_struct *vma_of_item(const struct pyksm *m, const struct rmap_item *item)
{
	struct vm_area_struct *vma;

	if (has(m, FEAT_STABLE_TREE_RESTART)) /* of the same series in 4.4 */
		return find_mergeable_vma(item->mm, item->address);
	vma = ksm_test_exit(item->mm) ? NULL : find_vma(item->mm, item->address);
	return vma && vma->vm_start <= item->address ? vma : NULL;
}

static int try_to_merge_with_ksm_page(struct pyksm *m, struct rmap_item *item, struct page *page,
				      struct page *kpage)
{
	struct vm_area_struct *vma;
	int err = -EFAULT;

	down_read(m, item->mm, PT_MERGE_MMAP_SEM);
	vma = vma_of_item(m, item);
	if (vma)
		err = try_to_merge_one_page(m, vma, page, kpage);
	if (!err) {
		/* First, as anon_vma shares its place with what that looks at; mmap_sem keeps it until then. */
		remove_rmap_item_from_tree(m, item);
		item->anon_vma = vma->anon_vma;
		get_anon_vma(vma->anon_vma);
		keep_index(m, item, vma);
	}
	up_read(m, item->mm);
	return err;
}

/* The page under scan becomes the KSM page, the one found in the tree goes. */
static struct page *try_to_merge_two_pages(struct pyksm *m, struct rmap_item *item,
					   struct page *page, struct rmap_item *tree_item,
					   struct page *tree_page)
{
	if (try_to_merge_with_ksm_page(m, item, page, NULL))
		return NULL;
	if (try_to_merge_with_ksm_page(m, tree_item, tree_page, page)) {
		break_cow(m, item); /* a KSM page with one pte: but see half-KSM pages */
		return NULL;
	}
	return page;
}

/* Since 4.12 (e86c59b1b12d), if use_zero_pages says so. Whether page is dealt with. */
static bool try_to_merge_with_zero_page(struct pyksm *m, const struct rmap_item *item,
					struct page *page)
{
	struct vm_area_struct *vma;
	bool done;

	if (!m->ksm.use_zero_pages || item->oldchecksum != m->ksm.zero_checksum)
		return false;
	down_read(m, item->mm, PT_MERGE_ZERO_MMAP_SEM);
	vma = find_mergeable_vma(item->mm, item->address);
	if (!vma && !bugged(m, BUG_KSM_ZERO_PAGE_NULL_VMA))
		done = true;
	else
		done = !try_to_merge_one_page(m, vma, page, zero_page(m));
	up_read(m, item->mm);
	return done;
}

/* ---- ksmd's look at one page ---- */
/*
 * Does item hang on node? By address alone: an item that has left a node still has its address (until
 * 5.13, c89a384e2551), and a new node may lie there since: the slab cache gives out first what was freed
 * last. Until 4.13 it serves mm_slots too. Real 3.10 and 4.19 show it: sharers count as volatile.
 */
static bool item_is_on(const struct rmap_item *item, const struct stable_node *node)
{
	return item->head == node;
}

static void merge_with_tree_item(struct pyksm *m, struct page *page, struct rmap_item *item)
{
	struct page *tree_page = NULL, *kpage;
	struct rmap_item *tree_item;
	struct stable_node *node;

	tree_item = unstable_tree_search_insert(m, item, page, &tree_page);
	if (!tree_item)
		return;
	kpage = try_to_merge_two_pages(m, item, page, tree_item, tree_page);
	put_page(m, tree_page);
	if (!kpage)
		return;
	lock_ksm_page(m, kpage, PT_MERGED_LOCK_PAGE);
	node = stable_tree_insert(m, kpage);
	if (node) {
		stable_tree_append(m, tree_item, node);
		stable_tree_append(m, item, node);
	}
	unlock_ksm_page(m, kpage);
	if (!node) {
		break_cow(m, tree_item);
		break_cow(m, item);
	}
}

static void merge_with_stable_page(struct pyksm *m, struct page *page, struct rmap_item *item,
				   struct page *kpage)
{
	if (try_to_merge_with_ksm_page(m, item, page, kpage))
		return;
	lock_ksm_page(m, kpage, PT_STABLE_LOCK_PAGE);
	stable_tree_append(m, item, page_stable_node(kpage));
	unlock_ksm_page(m, kpage);
}

/* Returns whether page is where it belongs and item with it. */
static bool already_merged(struct pyksm *m, const struct rmap_item *item, struct stable_node *node)
{
	if (!node)
		return false;
	if (!on_migrate_list(m, node) && get_kpfn_nid(m, node->kpfn) != node->nid &&
	    !bugged(m, BUG_KSM_MISPLACED_NODE_AFTER_MIGRATION)) {
		stable_node_dup_del(m, node);
		move_to_migrate_nodes(m, node);
	}
	return !on_migrate_list(m, node) && item_is_on(item, node);
}

/* Is the page as it was when it was last looked at? It changes: not worth looking for its like yet. */
static bool checksum_unchanged(struct pyksm *m, struct page *page, struct rmap_item *item)
{
	uint32_t checksum = calc_checksum(m, page);
	bool same = item->oldchecksum == checksum;

	item->oldchecksum = checksum;
	return same;
}

void cmp_and_merge_page(struct pyksm *m, struct page *page, struct rmap_item *item)
{
	bool checksum_first = has(m, FEAT_CHECKSUM_FIRST); /* d58a361b0350 */
	struct stable_node *node = page_stable_node(page);
	struct page *kpage;

	COUNT(m, cmp_and_merge_page);
	if (already_merged(m, item, node))
		return;
	if (checksum_first && !node) {
		remove_rmap_item_from_tree(m, item);
		if (!checksum_unchanged(m, page, item) ||
		    try_to_merge_with_zero_page(m, item, page))
			return;
	}
	kpage = stable_tree_search(m, page);
	if (kpage == page && item_is_on(item, node)) {
		put_page(m, kpage);
		return;
	}
	if (kpage == KSM_PAGE_BUSY && bugged(m, BUG_KSM_EBUSY_PATH_KEEPS_UNSTABLE_ITEM))
		return;
	remove_rmap_item_from_tree(m, item);
	if (kpage == KSM_PAGE_BUSY)
		return;
	if (kpage) {
		merge_with_stable_page(m, page, item, kpage);
		put_page(m, kpage);
		return;
	}
	if (!checksum_first &&
	    (!checksum_unchanged(m, page, item) || try_to_merge_with_zero_page(m, item, page)))
		return;
	merge_with_tree_item(m, page, item);
}
