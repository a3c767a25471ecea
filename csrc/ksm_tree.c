/* SPDX-License-Identifier: MIT */
/* The stable and the unstable tree, and how items and nodes come and go (kernel: mm/ksm.c). */
#include "ksm_internal.h"

/* ---- items and nodes leave their trees ---- */
/* Which tree a frame belongs in. */
int get_kpfn_nid(const struct pyksm *m, uint64_t kpfn)
{
	return m->ksm.merge_across_nodes ? 0 : m->mem_map[kpfn].nid;
}

/* The items keep their heads, stale as these are now: nothing of 5.13's c89a384e2551 here. */
void remove_node_from_stable_tree(struct pyksm *m, struct stable_node *node)
{
	struct ksm *ksm = &m->ksm;
	struct hlist_node *pos;

	for (pos = node->hlist.first; pos; pos = pos->next) {
		struct rmap_item *item = container_of(pos, struct rmap_item, hlist);

		if (pos->next)
			ksm->pages_sharing--;
		else
			ksm->pages_shared--;
		item->mm->ksm_merging_pages--;
		put_anon_vma(m, item->anon_vma);
		forget_index(m, item);
		item->address &= PAGE_MASK;
	}
	if (on_migrate_list(m, node))
		list_del_init(&node->list);
	else
		stable_node_dup_del(m, node);
	free_stable_node(m, node);
}

/* The lock that is asked for; false: the page, which has a reference, is no longer node's. */
static bool lock_page_of_node(struct pyksm *m, struct page **page, const struct stable_node *node,
			      enum ksm_page_lock lock)
{
	if (lock == KSM_PAGE_NOLOCK || !in_task(m))
		return true;
	if (lock == KSM_PAGE_LOCK) {
		lock_page(m, *page, PT_GET_KSM_PAGE_LOCK);
	} else if (!trylock_page(m, *page, PT_GET_KSM_PAGE_TRYLOCK)) {
		put_page(m, *page);
		*page = KSM_PAGE_BUSY;
		return true;
	}
	if (page_stable_node(*page) == node)
		return true;
	unlock_page(m, *page);
	return false;
}

/* A reference to what was node's page when its frame was read; NULL: it is not, or no longer. */
static struct page *get_page_of_node(struct pyksm *m, struct page *page,
				     const struct stable_node *node, enum ksm_page_lock lock)
{
	if (page_stable_node(page) != node)
		return NULL;
	sched_point(m, PT_GET_KSM_PAGE);
	if (page_count(page) <= 0)
		return NULL;
	get_page(page);
	/* Before there was a reference it may have been freed, and be anybody's by now. */
	if ((!in_task(m) || page_stable_node(page) == node) &&
	    lock_page_of_node(m, &page, node, lock))
		return page;
	put_page(m, page);
	return NULL;
}

/*
 * The page of a node with a reference, although the node holds none: the page's mapping says whether it
 * is still that one. If it is not the node is stale, goes, and NULL is returned; unless the page has migrated
 * meanwhile, of which the node is told before the page's mapping changes.
 */
struct page *get_ksm_page(struct pyksm *m, struct stable_node *node, enum ksm_page_lock lock)
{
	uint64_t kpfn;

	do {
		struct page *page;

		kpfn = node->kpfn;
		page = get_page_of_node(m, pfn_to_page(m, kpfn), node, lock);
		if (page)
			return page;
	} while (in_task(m) && node->kpfn != kpfn);
	m->ksm.stale_nodes--;
	remove_node_from_stable_tree(m, node);
	return NULL;
}

void remove_rmap_item_from_tree(struct pyksm *m, struct rmap_item *item)
{
	struct ksm *ksm = &m->ksm;

	COUNT(m, remove_rmap_item_from_tree);
	if (item->address & STABLE_FLAG) {
		struct stable_node *node = item->head;
		struct page *page = get_ksm_page(m, node, KSM_PAGE_LOCK);

		if (!page)
			return; /* the node went, and this item's flag with it */
		hlist_del(&item->hlist); /* walks over the items hold the page's lock */
		unlock_ksm_page(m, page);
		put_page(m, page);
		if (node->hlist.first)
			ksm->pages_sharing--;
		else
			ksm->pages_shared--;
		item->mm->ksm_merging_pages--;
		node->rmap_hlist_len--;
		put_anon_vma(m, item->anon_vma);
		forget_index(m, item);
		if (has(m, FEAT_STABLE_HEAD_CLEARED) && /* c89a384e2551 */
		    !bugged(m, BUG_KSM_MIGRATE_MISSING_RMAP_ITEM))
			item->head = NULL;
		item->address &= PAGE_MASK;
	} else if (item->address & UNSTABLE_FLAG) {
		/* An item of the last scan is in no tree any more: the trees were dropped whole. */
		unsigned char age = (unsigned char)(ksm->scan.seqnr - item->address);

#ifdef PYKSM_TASKS
		assert(age <= 1); /* older ones would have been met, and taken off, meanwhile */
#endif
		if (age == 0)
			rb_erase(&item->node, &ksm->root_unstable_tree[item->nid]);
		ksm->pages_unshared--;
		item->address &= PAGE_MASK;
	}
}

void free_rmap_item(struct pyksm *m, struct rmap_item *item)
{
	m->ksm.rmap_items--;
	item->mm->ksm_rmap_items--;
	kmem_free(m, POOL_RMAP_ITEM, item);
}

void remove_trailing_rmap_items(struct pyksm *m, struct rmap_item **list)
{
	while (*list) {
		struct rmap_item *item = *list;

		*list = item->rmap_list;
		remove_rmap_item_from_tree(m, item);
		free_rmap_item(m, item);
	}
}

static int remove_stable_node(struct pyksm *m, struct stable_node *node)
{
	struct page *page = get_ksm_page(m, node, KSM_PAGE_LOCK);
	int err = 0;

	if (!page)
		return 0; /* it was stale and is gone */
	if (page_mapped(page)) {
		if (!has(m, FEAT_STABLE_NODE_BUSY_QUIET) || /* 9a63236f1ad8 */
		    bugged(m, BUG_KSM_UNMERGE_VS_EXIT_WARN))
			event(m, "WARN_ON_ONCE remove_stable_node page_mapped");
		err = -EBUSY;
	} else {
		/* In swap cache, say: from now on a page without a node, only to be copied. */
		set_page_stable_node(page, NULL);
		remove_node_from_stable_tree(m, node);
	}
	unlock_ksm_page(m, page);
	put_page(m, page);
	return err;
}

static int remove_stable_node_chain(struct pyksm *m, struct stable_node *node, struct rb_root *root)
{
	struct hlist_node *pos, *next;

	if (!is_stable_node_chain(node))
		return remove_stable_node(m, node);
	for (pos = node->hlist.first; pos; pos = next) {
		next = pos->next;
		if (remove_stable_node(m, dup_of(pos)))
			return -EBUSY;
	}
	free_stable_node_chain(m, node, root);
	return 0;
}

int remove_all_stable_nodes(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	struct list_head *pos, *next;
	int err = 0;

	sched_point(m, PT_REMOVE_STABLE_BEGIN);
	if (bugged(m, BUG_KSM_STALE_NODES_ON_MODE_SWITCH))
		return 0; /* who has no items left will be noticed to be stale one day */
	for (uint32_t nid = 0; nid < ksm->nr_node_ids; nid++) {
		struct rb_root *root = &ksm->root_stable_tree[nid];

		while (root->node) {
			if (remove_stable_node_chain(
				    m, container_of(root->node, struct stable_node, node), root)) {
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

/* ---- the stable tree ---- */
void move_to_migrate_nodes(struct pyksm *m, struct stable_node *node)
{
	node->head = &m->ksm.migrate_nodes;
	list_add(&node->list, node->head);
}

struct tree_place {
	struct rb_root *root;
	struct rb_node *parent, **link;
	struct chain_place found; /* where the content is equal */
};

enum found { FOUND_NONE, FOUND_EQUAL, FOUND_STALE };

static void at_root(struct tree_place *at)
{
	at->link = &at->root->node;
	at->parent = NULL;
}

/*
 * The page, with a reference, of place->node's content: chain() and chain_prune() of the kernel.  NULL:
 * the tree has changed.
 */
static struct page *chain_lookup(struct pyksm *m, struct rb_root *root, struct chain_place *place,
				 bool prune)
{
	place->dup = place->node;
	if (is_stable_node_chain(place->node))
		stable_node_dup(m, root, place, prune);
	return place->dup ? get_ksm_page(m, place->dup, KSM_PAGE_NOLOCK) : NULL;
}

/*
 * On from at as far as first bytes tell the way and there is nothing else to do for a node: it is no chain,
 * and no node is stale. Each counts as compared.
 */
static void descend_by_key(struct pyksm *m, struct tree_place *at, uint64_t key)
{
	struct rb_node **link = at->link, *parent = at->parent;
	uint64_t compared = 0;

	if (m->ksm.stale_nodes || in_task(m))
		return;
	for (; *link; compared++) {
		const struct stable_node *node = container_of(*link, struct stable_node, node);

		if (is_stable_node_chain(node) || key == node->key)
			break;
		parent = *link;
		link = &parent->child[key > node->key];
	}
	COUNT_N(m, memcmp_pages, compared);
	at->link = link;
	at->parent = parent;
}

/*
 * Descend by content to an equal node or to a free place.  A stale node on the way is a tree that has
 * changed under us: since 4.4 the search starts again, before that it ends.
 */
static enum found descend_stable_tree(struct pyksm *m, struct page *page, struct tree_place *at,
				      bool prune)
{
	uint64_t key = content_key(m, page);

	at_root(at);
	for (;;) {
		struct page *tree_page;
		int order;

		descend_by_key(m, at, key);
		if (!*at->link)
			return FOUND_NONE;
		at->found.node = container_of(*at->link, struct stable_node, node);
		tree_page = chain_lookup(m, at->root, &at->found, prune);
		if (!tree_page) {
			if (!has(m, FEAT_STABLE_TREE_RESTART))
				return FOUND_STALE;
			at_root(at);
			continue;
		}
		order = memcmp_pages(m, page, tree_page);
		put_page(m, tree_page);
		at->parent = *at->link;
		if (!order)
			return FOUND_EQUAL;
		at->link = &at->parent->child[order > 0];
	}
}

/* page if its node, which has just come into the tree, can take it once more, with a reference. */
static struct page *if_candidate(struct pyksm *m, struct page *page, const struct stable_node *node)
{
	if (!is_page_sharing_candidate(m, node))
		return NULL;
	get_page(page);
	return page;
}

static void insert_tree_node(struct pyksm *m, struct stable_node *node, struct tree_place *at)
{
	node->key = content_key(m, pfn_to_page(m, node->kpfn));
	rb_link_node(&node->node, at->parent, at->link);
	rb_insert_color(&node->node, at->root);
}

static void leave_migrate_nodes(struct stable_node *node, int nid)
{
	list_del_init(&node->list);
	node->nid = nid;
}

/* The found node's page now lives on a node with another tree: page's node, if any, takes its place. */
static struct page *replace_misplaced(struct pyksm *m, struct page *page,
				      struct stable_node *page_node, int nid, struct tree_place *at)
{
	struct stable_node *dup = at->found.dup;
	bool chained = dup != at->found.node;

	if (chained)
		stable_node_dup_del(m, dup);
	if (page_node) {
		leave_migrate_nodes(page_node, nid);
		if (chained)
			stable_node_chain_add_dup(m, page_node, at->found.node);
		else
			replace_tree_node(dup, page_node, at->root);
		page = if_candidate(m, page, page_node);
	} else {
		if (!chained)
			rb_erase(&dup->node, at->root);
		page = NULL;
	}
	move_to_migrate_nodes(m, dup);
	return page;
}

/* A page that has migrated meets its like in the tree of its new node: both stay, as dups. */
static struct page *chain_append(struct pyksm *m, struct page *page, struct stable_node *page_node,
				 int nid, struct tree_place *at)
{
	struct stable_node *chain = at->found.node;

	if (at->found.dup == chain)
		chain = alloc_stable_node_chain(m, at->found.dup, at->root);
	if (!chain)
		return NULL;
	leave_migrate_nodes(page_node, nid);
	stable_node_chain_add_dup(m, page_node, chain);
	return if_candidate(m, page, page_node);
}

/*
 * The page that was found, with a reference, of which its migration must know: its lock is taken and let go. Since 5.1
 * it is not waited for. NULL: meanwhile it has gone, and the tree has changed.
 */
static struct page *get_found_page(struct pyksm *m, struct stable_node *node)
{
	bool waits = !has(m, FEAT_SWAPOFF_PER_MM); /* which came with the same release */
	struct page *page = get_ksm_page(m, node, waits ? KSM_PAGE_LOCK : KSM_PAGE_TRYLOCK);

	if (page && page != KSM_PAGE_BUSY)
		unlock_ksm_page(m, page);
	return page;
}

/*
 * The KSM page of page's content, with a reference; page itself where it is one. NULL: none; KSM_PAGE_BUSY: it is
 * another time's work.
 */
struct page *stable_tree_search(struct pyksm *m, struct page *page)
{
	struct stable_node *page_node = page_stable_node(page);
	int nid = get_kpfn_nid(m, page_to_pfn(m, page));
	struct tree_place at = { .root = &m->ksm.root_stable_tree[nid] };
	struct page *tree_page;

	COUNT(m, stable_tree_search);
	if (page_node && !on_migrate_list(m, page_node)) {
		get_page(page);
		return page;
	}
	switch (descend_stable_tree(m, page, &at, true)) {
	case FOUND_STALE:
		return NULL;
	case FOUND_NONE:
		if (!page_node)
			return NULL;
		leave_migrate_nodes(page_node, nid);
		insert_tree_node(m, page_node, &at);
		return if_candidate(m, page, page_node);
	case FOUND_EQUAL:
		break;
	}
	/* One mapping can as well be given the other page, more could not follow. */
	if (page_node && page_mapcount(page) > 1 && has(m, FEAT_MAX_PAGE_SHARING))
		return chain_append(m, page, page_node, nid, &at);
	if (!is_page_sharing_candidate(m, at.found.dup))
		return NULL; /* its like will be found in the unstable tree, and become a dup */
	tree_page = get_found_page(m, at.found.dup);
	if (tree_page == KSM_PAGE_BUSY)
		return tree_page;
	if (!tree_page)
		return page_node || has(m, FEAT_MAX_PAGE_SHARING) ? stable_tree_search(m, page)
								  : NULL;
	if (get_kpfn_nid(m, at.found.dup->kpfn) == at.found.dup->nid ||
	    bugged(m, BUG_KSM_MISPLACED_NODE_AFTER_MIGRATION))
		return tree_page;
	put_page(m, tree_page);
	return replace_misplaced(m, page, page_node, nid, &at);
}

/*
 * A node for a new KSM page. NULL: no memory, or its content is there already and there are no chains
 * yet to hold both (before 4.13, 2c653d0ee2ae).
 */
struct stable_node *stable_tree_insert(struct pyksm *m, struct page *kpage)
{
	int nid = get_kpfn_nid(m, page_to_pfn(m, kpage));
	struct tree_place at = { .root = &m->ksm.root_stable_tree[nid] };
	enum found found = descend_stable_tree(m, kpage, &at, false);
	struct stable_node *node, *chain = at.found.node;

	COUNT(m, stable_tree_insert);
	if (found == FOUND_STALE || (found == FOUND_EQUAL && !has(m, FEAT_MAX_PAGE_SHARING)))
		return NULL;
	node = alloc_stable_node(m);
	if (!node)
		return NULL;
	node->kpfn = page_to_pfn(m, kpage);
	node->nid = nid;
	if (found == FOUND_NONE) {
		insert_tree_node(m, node, &at);
	} else {
		if (!is_stable_node_chain(chain))
			chain = alloc_stable_node_chain(m, chain, at.root);
		if (!chain) {
			free_stable_node(m, node);
			return NULL;
		}
		stable_node_chain_add_dup(m, node, chain);
	}
	set_page_stable_node(kpage, node);
	content_id_settle(m, kpage);
	return node;
}

void stable_tree_append(struct pyksm *m, struct rmap_item *item, struct stable_node *node)
{
	node->rmap_hlist_len++;
	item->head = node;
	item->address |= STABLE_FLAG;
	hlist_add_head(&item->hlist, &node->hlist);
	if (item->hlist.next)
		m->ksm.pages_sharing++;
	else
		m->ksm.pages_shared++;
	item->mm->ksm_merging_pages++;
}

/* ---- the unstable tree ---- */
/* The page at an item's address if it is still there to be merged, with a reference. */
static struct page *get_mergeable_page(struct pyksm *m, const struct rmap_item *item)
{
	struct page *page = NULL;

	down_read(m, item->mm, PT_GET_MERGEABLE_MMAP_SEM);
	if (find_mergeable_vma(item->mm, item->address))
		page = follow_page_get(m, item->mm, item->address & PAGE_MASK,
				       PT_GET_MERGEABLE_PTL);
	up_read(m, item->mm);
	if (!page || PageAnon(page))
		return page;
	put_page(m, page);
	return NULL;
}

/*
 * On from link as far as first bytes tell the way and pages are sure to be there still and as they were.
 * Each counts as compared.
 */
static struct rb_node **descend_items_by_key(struct pyksm *m, struct rb_node **link,
					     struct rb_node **parent, uint64_t key)
{
	uint64_t compared = 0;

	if (!m->ksm.unstable_sure)
		return link;
	for (; *link; compared++) {
		const struct rmap_item *item = container_of(*link, struct rmap_item, node);

		if (key == item->key)
			break;
		*parent = *link;
		link = &(*parent)->child[key > item->key];
	}
	COUNT_N(m, memcmp_pages, compared);
	return link;
}

/*
 * How page compares with that of an item of the tree, which is returned with a reference if it is its
 * equal. false: the search ends here.
 */
static bool compare_unstable(struct pyksm *m, const struct rmap_item *item, struct page *page,
			     int nid, int *order, struct page **tree_pagep)
{
	struct page *tree_page = get_mergeable_page(m, item);

	if (!tree_page)
		return false;
	if (tree_page == page) { /* forked: not to be merged with itself */
		put_page(m, tree_page);
		return false;
	}
	*order = memcmp_pages(m, page, tree_page);
	if (!*order && (m->ksm.merge_across_nodes || tree_page->nid == nid)) {
		*tree_pagep = tree_page;
		return true;
	}
	put_page(m, tree_page);
	return *order != 0; /* else it has migrated away since it was put here */
}

/* An item of the unstable tree whose page equals this one, its page referenced; else item goes in. */
struct rmap_item *unstable_tree_search_insert(struct pyksm *m, struct rmap_item *item,
					      struct page *page, struct page **tree_pagep)
{
	struct ksm *ksm = &m->ksm;
	int nid = get_kpfn_nid(m, page_to_pfn(m, page));
	struct rb_root *root = &ksm->root_unstable_tree[nid];
	struct rb_node **link = &root->node, *parent = NULL;
	uint64_t key = content_key(m, page);

	COUNT(m, unstable_tree_search_insert);
	for (;;) {
		struct rmap_item *tree_item;
		int order;

		link = descend_items_by_key(m, link, &parent, key);
		if (!*link)
			break;
		tree_item = container_of(*link, struct rmap_item, node);
		if (!compare_unstable(m, tree_item, page, nid, &order, tree_pagep))
			return NULL;
		if (!order)
			return tree_item;
		parent = *link;
		link = &parent->child[order > 0];
	}
	item->address |= UNSTABLE_FLAG | (ksm->scan.seqnr & SEQNR_MASK);
	item->nid = (uint8_t)nid;
	item->key = key;
	if (ksm->unstable_sure && follow_page(m, item->mm, item->address & PAGE_MASK) != page)
		ksm->unstable_sure = false; /* PROT_NONE: searches will end at it */
	rb_link_node(&item->node, parent, link);
	rb_insert_color(&item->node, root);
	ksm->pages_unshared++;
	return NULL;
}
