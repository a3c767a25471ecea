/* SPDX-License-Identifier: MIT */
/* Kernel samepage merging: scan, trees, merge, break (kernel: mm/ksm.c as of 3.9/3.10). */
#include "internal.h"
#include "jhash.h"
#include "ksm_internal.h"

void ksm_init(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;

	INIT_LIST_HEAD(&ksm->migrate_nodes);
	INIT_LIST_HEAD(&ksm->ksm_mm_head.mm_list);
	ksm->scan.mm_slot = &ksm->ksm_mm_head;
	ksm->merge_across_nodes = 1;
	ksm->nr_node_ids = 1;
	ksm->pages_to_scan = 100;
	ksm->sleep_millisecs = 20;
}

/* ---- registration of address spaces ---- */
static struct mm_slot *slot_of(struct list_head *pos)
{
	return container_of(pos, struct mm_slot, mm_list);
}

static int __ksm_enter(struct pyksm *m, struct mm_struct *mm)
{
	struct mm_slot *slot = kmem_alloc(m, POOL_KSM);

	if (!slot)
		return -ENOMEM;
	slot->mm = mm;
	mm->mm_slot = slot;
	/* Behind the cursor: to be scanned last. But an unmerge under way must still come to it. */
	list_add_tail(&slot->mm_list, m->ksm.run & KSM_RUN_UNMERGE ? &m->ksm.ksm_mm_head.mm_list
								   : &m->ksm.scan.mm_slot->mm_list);
	mm->mergeable = true;
	mm->mm_count++;
	return 0;
}

static void forget_mm(struct pyksm *m, struct mm_slot *slot)
{
	struct mm_struct *mm = slot->mm;

	list_del_init(&slot->mm_list);
	kmem_free(m, POOL_KSM, slot);
	mm->mm_slot = NULL;
	mm->mergeable = false;
	mmdrop(m, mm);
}

int ksm_fork(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm)
{
	return oldmm->mergeable ? __ksm_enter(m, mm) : 0;
}

/* mm has no users left. Its slot goes now if that is simple, else ksmd finds it next. */
void ksm_exit(struct pyksm *m, struct mm_struct *mm)
{
	struct mm_slot *slot = mm->mm_slot, *cursor = m->ksm.scan.mm_slot;

	if (!mm->mergeable || !slot || slot == cursor)
		return;
	if (!slot->rmap_list)
		forget_mm(m, slot);
	else
		list_move(&slot->mm_list, &cursor->mm_list);
}

static bool ksm_test_exit(const struct mm_struct *mm)
{
	return mm->mm_users == 0;
}

/* ---- breaking sharing ---- */
static int break_ksm(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr)
{
	struct page *page;
	int ret = 0;

	COUNT(m, break_ksm);
	do {
		page = follow_page(m, vma->vm_mm, addr);
		if (!page || !PageKsm(page))
			break; /* not there (swapped out, perhaps), or its own page already */
		ret = handle_mm_fault(m, vma, addr, true);
	} while (!(ret & (VM_FAULT_WRITE | VM_FAULT_SIGBUS | VM_FAULT_OOM)));
	return ret & VM_FAULT_OOM ? -ENOMEM : 0;
}

static struct vm_area_struct *find_mergeable_vma(const struct mm_struct *mm, uint64_t addr)
{
	struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : find_vma(mm, addr);

	if (!vma || vma->vm_start > addr || !(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
		return NULL;
	return vma;
}

/* Undo a merge just made, in the item's own address space only: a forked sharer keeps the page. */
static void break_cow(struct pyksm *m, struct rmap_item *item)
{
	struct vm_area_struct *vma;

	put_anon_vma(m, item->anon_vma);
	vma = find_mergeable_vma(item->mm, item->address);
	if (vma)
		break_ksm(m, vma, item->address);
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

int ksm_madvise(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end,
		int advice, uint32_t *vm_flags)
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
	if (!err)
		*vm_flags &= ~VM_MERGEABLE;
	return err;
}

/* ---- items and nodes leave their trees ---- */
/* Which tree a frame belongs in. */
int get_kpfn_nid(const struct pyksm *m, uint64_t kpfn)
{
	return m->ksm.merge_across_nodes ? 0 : m->mem_map[kpfn].nid;
}

static bool on_migrate_list(const struct pyksm *m, const struct stable_node *node)
{
	return node->head == &m->ksm.migrate_nodes;
}

static void remove_node_from_stable_tree(struct pyksm *m, struct stable_node *node)
{
	struct ksm *ksm = &m->ksm;
	struct hlist_node *pos;

	for (pos = node->hlist.first; pos; pos = pos->next) {
		struct rmap_item *item = container_of(pos, struct rmap_item, hlist);

		if (pos->next)
			ksm->pages_sharing--;
		else
			ksm->pages_shared--;
		put_anon_vma(m, item->anon_vma);
		item->address &= PAGE_MASK;
	}
	if (on_migrate_list(m, node))
		list_del_init(&node->list);
	else
		rb_erase(&node->node, &ksm->root_stable_tree[node->nid]);
	kmem_free(m, POOL_KSM, node);
}

/*
 * The page of a node with a reference, although the node holds none: the page's mapping says whether it
 * is still that one. If it is not the node is stale, goes, and NULL is returned.
 */
struct page *get_ksm_page(struct pyksm *m, struct stable_node *node)
{
	struct page *page = pfn_to_page(m, node->kpfn);

	if (page_stable_node(page) == node && page_count(page) > 0) {
		get_page(page);
		return page;
	}
	remove_node_from_stable_tree(m, node);
	return NULL;
}

static void remove_rmap_item_from_tree(struct pyksm *m, struct rmap_item *item)
{
	struct ksm *ksm = &m->ksm;

	COUNT(m, remove_rmap_item_from_tree);
	if (item->address & STABLE_FLAG) {
		struct stable_node *node = item->head;
		struct page *page = get_ksm_page(m, node);

		if (!page)
			return; /* the node went, and this item's flag with it */
		hlist_del(&item->hlist);
		put_page(m, page);
		if (node->hlist.first)
			ksm->pages_sharing--;
		else
			ksm->pages_shared--;
		put_anon_vma(m, item->anon_vma);
		item->address &= PAGE_MASK; /* head stays as it is: 5.13 (c89a384e2551) clears it */
	} else if (item->address & UNSTABLE_FLAG) {
		/* An item of the last scan is in no tree any more: the trees were dropped whole. */
		if ((unsigned char)(ksm->scan.seqnr - item->address) == 0)
			rb_erase(&item->node, &ksm->root_unstable_tree[item->nid]);
		ksm->pages_unshared--;
		item->address &= PAGE_MASK;
	}
}

static void free_rmap_item(struct pyksm *m, struct rmap_item *item)
{
	m->ksm.rmap_items--;
	kmem_free(m, POOL_RMAP_ITEM, item);
}

static void remove_trailing_rmap_items(struct pyksm *m, struct rmap_item **list)
{
	while (*list) {
		struct rmap_item *item = *list;

		*list = item->rmap_list;
		remove_rmap_item_from_tree(m, item);
		free_rmap_item(m, item);
	}
}

/* ---- comparing and merging ---- */
static uint32_t calc_checksum(struct pyksm *m, const struct page *page)
{
	COUNT(m, calc_checksum);
	return jhash2(page_content(m, page), m->page_size / 4, 17);
}

static int memcmp_pages(struct pyksm *m, const struct page *a, const struct page *b)
{
	COUNT(m, memcmp_pages);
	return memcmp(page_content(m, a), page_content(m, b), m->page_size);
}

/* Make sure that nobody writes to page from now on; -EFAULT where someone might already be at it. */
static int write_protect_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
			      pte_t *orig_pte)
{
	uint64_t addr;
	pte_t *pte;

	COUNT(m, write_protect_page);
	addr = page_address_in_vma(m, page, vma);
	pte = addr == BAD_ADDRESS ? NULL : page_check_address(m, page, vma->vm_mm, addr);
	if (!pte)
		return -EFAULT;
	if (*pte & (_PAGE_RW | _PAGE_DIRTY)) {
		int swapped = page->flags & PG_swapcache ? 1 : 0;

		/* More references than ptes, cache and ours: direct I/O may be under way. */
		if (page_mapcount(page) + 1 + swapped != page_count(page))
			return -EFAULT;
		if (*pte & _PAGE_DIRTY)
			page->flags |= PG_dirty;
		*pte &= ~(_PAGE_RW | _PAGE_DIRTY);
	}
	*orig_pte = *pte;
	return 0;
}

static int replace_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
			struct page *kpage, pte_t orig_pte)
{
	uint64_t addr;
	pte_t *pte;

	COUNT(m, replace_page);
	addr = page_address_in_vma(m, page, vma);
	pte = addr == BAD_ADDRESS ? NULL : pte_lookup(vma->vm_mm, addr);
	if (!pte || *pte != orig_pte)
		return -EFAULT;
	get_page(kpage);
	page_add_anon_rmap(m, kpage, vma, addr);
	*pte = mk_pte(m, kpage, vma);
	page_remove_rmap(page);
	if (!page_mapped(page))
		try_to_free_swap(m, page);
	put_page(m, page);
	return 0;
}

/* Make page a KSM page (kpage NULL), or put kpage in its place. */
static int try_to_merge_one_page(struct pyksm *m, struct vm_area_struct *vma, struct page *page,
				 struct page *kpage)
{
	pte_t orig_pte = 0;
	int err = -EFAULT;

	COUNT(m, try_to_merge_one_page);
	if (page == kpage) /* a forked KSM page */
		return 0;
	if (!(vma->vm_flags & VM_MERGEABLE) || !PageAnon(page) || !trylock_page(page))
		return -EFAULT;
	if (write_protect_page(m, vma, page, &orig_pte) == 0) {
		if (!kpage) {
			set_page_stable_node(page, NULL); /* stable_tree_insert() will fill it in */
			mark_page_accessed(m, page);
			err = 0;
		} else if (!memcmp_pages(m, page, kpage)) {
			err = replace_page(m, vma, page, kpage, orig_pte);
		}
	}
	unlock_page(page);
	return err;
}

static int try_to_merge_with_ksm_page(struct pyksm *m, struct rmap_item *item, struct page *page,
				      struct page *kpage)
{
	struct mm_struct *mm = item->mm;
	struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : find_vma(mm, item->address);
	int err;

	if (!vma || vma->vm_start > item->address)
		return -EFAULT;
	err = try_to_merge_one_page(m, vma, page, kpage);
	if (err)
		return err;
	remove_rmap_item_from_tree(m, item); /* before anon_vma, which shares its place with nid */
	item->anon_vma = vma->anon_vma;
	get_anon_vma(vma->anon_vma);
	return 0;
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

/* ---- trees ---- */
struct tree_place {
	struct rb_root *root;
	struct rb_node *parent, **link;
};

static void move_to_migrate_nodes(struct pyksm *m, struct stable_node *node)
{
	node->head = &m->ksm.migrate_nodes;
	list_add(&node->list, node->head);
}

/* Put page_node in its place of the tree: where there was room, or instead of another node. */
static void place_migrated_node(struct stable_node *page_node, int nid, struct tree_place *at,
				struct stable_node *instead)
{
	list_del_init(&page_node->list);
	page_node->nid = nid;
	if (instead) {
		rb_replace_node(&instead->node, &page_node->node, at->root);
	} else {
		rb_link_node(&page_node->node, at->parent, at->link);
		rb_insert_color(&page_node->node, at->root);
	}
}

enum found { FOUND_NONE, FOUND_EQUAL, FOUND_STALE };

/* Descend by content to an equal node or to a free place. A stale node on the way ends the search. */
static enum found descend_stable_tree(struct pyksm *m, const struct page *page,
				      struct tree_place *at, struct stable_node **equal)
{
	at->link = &at->root->node;
	at->parent = NULL;
	while (*at->link) {
		struct stable_node *node = container_of(*at->link, struct stable_node, node);
		struct page *tree_page = get_ksm_page(m, node);
		int order;

		if (!tree_page)
			return FOUND_STALE; /* the tree has changed under us; the next scan will do */
		order = memcmp_pages(m, page, tree_page);
		put_page(m, tree_page);
		at->parent = *at->link;
		if (!order) {
			*equal = node;
			return FOUND_EQUAL;
		}
		at->link = order < 0 ? &at->parent->left : &at->parent->right;
	}
	return FOUND_NONE;
}

/* The found node's page now lives on a node with another tree: it has to leave this one. */
static struct page *replace_misplaced(struct pyksm *m, struct page *page,
				      struct stable_node *page_node, struct stable_node *node,
				      int nid, struct tree_place *at)
{
	if (page_node) {
		place_migrated_node(page_node, nid, at, node);
		get_page(page);
	} else {
		rb_erase(&node->node, at->root);
		page = NULL;
	}
	move_to_migrate_nodes(m, node);
	return page;
}

/* The KSM page of page's content, with a reference; page itself where it is one. NULL: none. */
static struct page *stable_tree_search(struct pyksm *m, struct page *page)
{
	struct stable_node *page_node = page_stable_node(page), *node;
	int nid = get_kpfn_nid(m, page_to_pfn(m, page));
	struct tree_place at = { &m->ksm.root_stable_tree[nid], NULL, NULL };
	struct page *tree_page;

	COUNT(m, stable_tree_search);
	if (page_node && !on_migrate_list(m, page_node)) {
		get_page(page);
		return page;
	}
	switch (descend_stable_tree(m, page, &at, &node)) {
	case FOUND_STALE:
		return NULL;
	case FOUND_NONE:
		if (!page_node)
			return NULL;
		place_migrated_node(page_node, nid, &at, NULL);
		get_page(page);
		return page;
	case FOUND_EQUAL:
		break;
	}
	tree_page = get_ksm_page(m, node);
	assert(tree_page); /* nothing has run since it was compared */
	if (get_kpfn_nid(m, node->kpfn) == node->nid)
		return tree_page;
	put_page(m, tree_page);
	return replace_misplaced(m, page, page_node, node, nid, &at);
}

/* A node for a new KSM page. NULL: no memory, or its content is there already (3.13 on tolerates that). */
static struct stable_node *stable_tree_insert(struct pyksm *m, struct page *kpage)
{
	int nid = get_kpfn_nid(m, page_to_pfn(m, kpage));
	struct tree_place at = { &m->ksm.root_stable_tree[nid], NULL, NULL };
	struct stable_node *node;

	COUNT(m, stable_tree_insert);
	if (descend_stable_tree(m, kpage, &at, &node) != FOUND_NONE)
		return NULL;
	node = kmem_alloc(m, POOL_KSM);
	if (!node)
		return NULL;
	node->kpfn = page_to_pfn(m, kpage);
	node->nid = nid;
	set_page_stable_node(kpage, node);
	rb_link_node(&node->node, at.parent, at.link);
	rb_insert_color(&node->node, at.root);
	return node;
}

/* The page at an item's address if it is still there to be merged, with a reference. */
static struct page *get_mergeable_page(struct pyksm *m, const struct rmap_item *item)
{
	struct page *page;

	if (!find_mergeable_vma(item->mm, item->address))
		return NULL;
	page = follow_page(m, item->mm, item->address & PAGE_MASK);
	if (!page || !PageAnon(page))
		return NULL;
	get_page(page);
	return page;
}

/* An item of the unstable tree whose page equals this one, its page referenced; else item goes in. */
static struct rmap_item *unstable_tree_search_insert(struct pyksm *m, struct rmap_item *item,
						     const struct page *page,
						     struct page **tree_pagep)
{
	struct ksm *ksm = &m->ksm;
	int nid = get_kpfn_nid(m, page_to_pfn(m, page));
	struct rb_root *root = &ksm->root_unstable_tree[nid];
	struct rb_node **link = &root->node, *parent = NULL;

	COUNT(m, unstable_tree_search_insert);
	while (*link) {
		struct rmap_item *tree_item = container_of(*link, struct rmap_item, node);
		struct page *tree_page = get_mergeable_page(m, tree_item);
		int order;

		if (!tree_page)
			return NULL;
		if (tree_page == page) { /* forked: not to be merged with itself */
			put_page(m, tree_page);
			return NULL;
		}
		order = memcmp_pages(m, page, tree_page);
		if (!order && (ksm->merge_across_nodes || tree_page->nid == nid)) {
			*tree_pagep = tree_page;
			return tree_item;
		}
		put_page(m, tree_page);
		if (!order)
			return NULL; /* it has migrated away since it was put here */
		parent = *link;
		link = order < 0 ? &parent->left : &parent->right;
	}
	item->address |= UNSTABLE_FLAG | (ksm->scan.seqnr & SEQNR_MASK);
	item->nid = nid;
	rb_link_node(&item->node, parent, link);
	rb_insert_color(&item->node, root);
	ksm->pages_unshared++;
	return NULL;
}

static void stable_tree_append(struct pyksm *m, struct rmap_item *item, struct stable_node *node)
{
	item->head = node;
	item->address |= STABLE_FLAG;
	hlist_add_head(&item->hlist, &node->hlist);
	if (item->hlist.next)
		m->ksm.pages_sharing++;
	else
		m->ksm.pages_shared++;
}

/* ---- ksmd's look at one page ---- */
/*
 * Does item hang on node? By address alone: an item that has left a node still has its address (until
 * 5.13, c89a384e2551), and a new node may lie there since. stable_nodes and mm_slots are of one size, so
 * one slab cache serves both and gives out first what was freed last. Real 3.10 shows it: sharers count as
 * volatile.
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
	node = stable_tree_insert(m, kpage);
	if (node) {
		stable_tree_append(m, tree_item, node);
		stable_tree_append(m, item, node);
	} else {
		break_cow(m, tree_item);
		break_cow(m, item);
	}
}

/* Returns whether page is where it belongs and item with it. */
static bool already_merged(struct pyksm *m, const struct page *page, const struct rmap_item *item)
{
	struct stable_node *node = page_stable_node(page);

	if (!node)
		return false;
	if (!on_migrate_list(m, node) && get_kpfn_nid(m, node->kpfn) != node->nid) {
		rb_erase(&node->node, &m->ksm.root_stable_tree[node->nid]);
		move_to_migrate_nodes(m, node);
	}
	return !on_migrate_list(m, node) && item_is_on(item, node);
}

static void cmp_and_merge_page(struct pyksm *m, struct page *page, struct rmap_item *item)
{
	struct stable_node *node = page_stable_node(page);
	struct page *kpage;
	uint32_t checksum;

	COUNT(m, cmp_and_merge_page);
	if (already_merged(m, page, item))
		return;
	kpage = stable_tree_search(m, page);
	if (kpage == page && item_is_on(item, node)) {
		put_page(m, kpage);
		return;
	}
	remove_rmap_item_from_tree(m, item);
	if (kpage) {
		if (!try_to_merge_with_ksm_page(m, item, page, kpage))
			stable_tree_append(m, item, page_stable_node(kpage));
		put_page(m, kpage);
		return;
	}
	checksum = calc_checksum(m, page);
	if (item->oldchecksum != checksum) {
		item->oldchecksum = checksum; /* it changes: not worth looking for its like yet */
		return;
	}
	merge_with_tree_item(m, page, item);
}

/* ---- the scan ---- */
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

	/* Nodes in the trees are pruned by searches; those that wait for a place only here. */
	if (!ksm->merge_across_nodes) {
		list_for_each_safe (pos, next, &ksm->migrate_nodes) {
			struct page *page =
				get_ksm_page(m, container_of(pos, struct stable_node, list));

			if (page)
				put_page(m, page);
		}
	}
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		ksm->root_unstable_tree[nid].node = NULL;
	ksm->scan.mm_slot = slot_of(ksm->ksm_mm_head.mm_list.next);
}

static void begin_slot(struct pyksm *m)
{
	m->ksm.scan.address = 0;
	m->ksm.scan.rmap_list = &m->ksm.scan.mm_slot->rmap_list;
}

/* The next anonymous page of a vma at or after the cursor. *item NULL with a page: no memory for it. */
static struct page *next_page_in_vma(struct pyksm *m, struct vm_area_struct *vma,
				     struct rmap_item **item)
{
	struct ksm_scan *scan = &m->ksm.scan;

	if (scan->address < vma->vm_start)
		scan->address = vma->vm_start;
	if (!vma->anon_vma)
		scan->address = vma->vm_end;
	for (; scan->address < vma->vm_end; scan->address += PAGE_SIZE) {
		struct page *page;

		scan->address = next_table(vma->vm_mm, scan->address, vma->vm_end);
		if (scan->address >= vma->vm_end)
			break;
		page = follow_page(m, vma->vm_mm, scan->address);
		if (!page || !PageAnon(page))
			continue;
		*item = get_next_rmap_item(m, scan->mm_slot, scan->rmap_list, scan->address);
		if (*item) {
			scan->rmap_list = &(*item)->rmap_list;
			scan->address += PAGE_SIZE;
		}
		return page;
	}
	scan->address = vma->vm_end;
	return NULL;
}

static struct page *next_page_in_mm(struct pyksm *m, struct mm_struct *mm, struct rmap_item **item)
{
	struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : find_vma(mm, m->ksm.scan.address);

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

/* An address space is through: drop what is behind the cursor, and itself if nothing was mergeable. */
static void end_slot(struct pyksm *m, struct mm_slot *slot)
{
	if (ksm_test_exit(slot->mm))
		begin_slot(m);
	remove_trailing_rmap_items(m, m->ksm.scan.rmap_list);
	m->ksm.scan.mm_slot = slot_of(slot->mm_list.next);
	if (m->ksm.scan.address == 0)
		forget_mm(m, slot);
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
		begin_slot(m);
	}
	for (;;) {
		struct mm_slot *slot = ksm->scan.mm_slot;

		*page = next_page_in_mm(m, slot->mm, &item);
		if (*page) {
			if (item)
				get_page(*page);
			return item;
		}
		end_slot(m, slot);
		if (ksm->scan.mm_slot == &ksm->ksm_mm_head)
			break;
		begin_slot(m);
	}
	ksm->scan.seqnr++;
	return NULL;
}

/* How many pages it looked at. */
uint64_t ksm_do_scan(struct pyksm *m, uint64_t npages)
{
	uint64_t done;

	for (done = 0; done < npages; done++) {
		struct rmap_item *item;
		struct page *page;

		sched_point(m, PT_SCAN_NEXT_ITEM);
		item = scan_get_next_rmap_item(m, &page);
		if (!item)
			break;
		cmp_and_merge_page(m, page, item);
		put_page(m, page);
	}
	return done;
}

/* ---- unmerge everything ---- */
static int remove_stable_node(struct pyksm *m, struct stable_node *node)
{
	struct page *page = get_ksm_page(m, node);
	int err = 0;

	if (!page)
		return 0; /* it was stale and is gone */
	if (page_mapped(page)) {
		event(m, "WARN_ON_ONCE remove_stable_node page_mapped");
		err = -EBUSY;
	} else {
		/* In swap cache, say: from now on a page without a node, only to be copied. */
		set_page_stable_node(page, NULL);
		remove_node_from_stable_tree(m, node);
	}
	put_page(m, page);
	return err;
}

int remove_all_stable_nodes(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	struct list_head *pos, *next;
	int err = 0;

	sched_point(m, PT_REMOVE_STABLE_BEGIN);
	for (uint32_t nid = 0; nid < ksm->nr_node_ids; nid++) {
		struct rb_root *root = &ksm->root_stable_tree[nid];

		while (root->node) {
			if (remove_stable_node(
				    m, container_of(root->node, struct stable_node, node))) {
				err = -EBUSY;
				break; /* on to the next tree */
			}
		}
	}
	list_for_each_safe (pos, next, &ksm->migrate_nodes)
		if (remove_stable_node(m, container_of(pos, struct stable_node, list)))
			err = -EBUSY;
	return err;
}

static int unmerge_mm(struct pyksm *m, struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	int err = 0;

	for (vma = mm->mmap; vma && !err && !ksm_test_exit(mm); vma = vma->vm_next)
		if ((vma->vm_flags & VM_MERGEABLE) && vma->anon_vma)
			err = unmerge_ksm_pages(m, vma, vma->vm_start, vma->vm_end);
	return err;
}

int unmerge_and_remove_all_rmap_items(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	int err;

	sched_point(m, PT_UNMERGE_BEGIN);
	ksm->scan.mm_slot = slot_of(ksm->ksm_mm_head.mm_list.next);
	while (ksm->scan.mm_slot != &ksm->ksm_mm_head) {
		struct mm_slot *slot;

		sched_point(m, PT_UNMERGE_NEXT_MM);
		slot = ksm->scan.mm_slot;
		err = unmerge_mm(m, slot->mm);
		if (err) {
			ksm->scan.mm_slot = &ksm->ksm_mm_head;
			return err;
		}
		remove_trailing_rmap_items(m, &slot->rmap_list);
		ksm->scan.mm_slot = slot_of(slot->mm_list.next);
		if (ksm_test_exit(slot->mm))
			forget_mm(m, slot);
	}
	remove_all_stable_nodes(m); /* some may be in use still: never mind */
	ksm->scan.seqnr = 0;
	return 0;
}
