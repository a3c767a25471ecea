/* SPDX-License-Identifier: MIT */
/*
 * Stable nodes of one content side by side (kernel: mm/ksm.c since 4.13, 2c653d0ee2ae).  A page takes at
 * most max_page_sharing sharers, so that rmap walks stay short; the next page of that content is a
 * "dup", and a "chain" holds the dups in the place of the tree that one node had.
 */
#include "ksm_internal.h"

/* Since they are larger than mm_slots they have a slab of their own: see item_is_on(). */
static enum pool_id stable_node_pool(const struct pyksm *m)
{
	return has(m, FEAT_MAX_PAGE_SHARING) ? POOL_STABLE_NODE : POOL_KSM;
}

struct stable_node *alloc_stable_node(struct pyksm *m)
{
	return kmem_alloc(m, stable_node_pool(m));
}

void free_stable_node(struct pyksm *m, struct stable_node *node)
{
	kmem_free(m, stable_node_pool(m), node);
}

static bool is_stable_node_dup(struct pyksm *m, const struct stable_node *node)
{
	return node->head == stable_node_dup_head(m);
}

/* Has it a mapping left, and room for offset pages more than the one at hand? */
bool __is_page_sharing_candidate(const struct pyksm *m, const struct stable_node *node, int offset)
{
	if (!has(m, FEAT_MAX_PAGE_SHARING))
		return true;
	return node->rmap_hlist_len &&
	       (int64_t)node->rmap_hlist_len + offset < m->ksm.max_page_sharing;
}

bool is_page_sharing_candidate(const struct pyksm *m, const struct stable_node *node)
{
	return __is_page_sharing_candidate(m, node, 0);
}

void stable_node_chain_add_dup(struct pyksm *m, struct stable_node *dup, struct stable_node *chain)
{
	dup->head = stable_node_dup_head(m);
	hlist_add_head(&dup->hlist_dup, &chain->hlist);
	m->ksm.stable_node_dups++;
}

/* Out of its chain, or of its tree. */
void stable_node_dup_del(struct pyksm *m, struct stable_node *node)
{
	if (is_stable_node_dup(m, node)) {
		hlist_del(&node->hlist_dup);
		m->ksm.stable_node_dups--;
	} else {
		rb_erase(&node->node, &m->ksm.root_stable_tree[node->nid]);
	}
}

/* In the place of victim, which has the same content. */
void replace_tree_node(struct stable_node *victim, struct stable_node *fresh, struct rb_root *root)
{
	rb_replace_node(&victim->node, &fresh->node, root);
	fresh->key = victim->key;
}

/* A chain in the place of dup, which becomes the first on it. */
struct stable_node *alloc_stable_node_chain(struct pyksm *m, struct stable_node *dup,
					    struct rb_root *root)
{
	struct stable_node *chain = alloc_stable_node(m);

	if (!chain)
		return NULL;
	chain->chain_prune_time = m->clock;
	chain->rmap_hlist_len = STABLE_NODE_CHAIN;
	chain->nid = dup->nid;
	m->ksm.stable_node_chains++;
	replace_tree_node(dup, chain, root);
	stable_node_chain_add_dup(m, dup, chain);
	return chain;
}

void free_stable_node_chain(struct pyksm *m, struct stable_node *chain, struct rb_root *root)
{
	rb_erase(&chain->node, root);
	free_stable_node(m, chain);
	m->ksm.stable_node_chains--;
}

/* The only dup takes its chain's place in the tree. */
static void collapse_chain(struct pyksm *m, struct chain_place *place, struct rb_root *root)
{
	replace_tree_node(place->node, place->dup, root);
	free_stable_node(m, place->node);
	m->ksm.stable_node_chains--;
	m->ksm.stable_node_dups--;
	if (!bugged(m, BUG_KSM_CHAIN_COLLAPSE_UAF))
		place->node = place->dup;
}

static bool time_to_prune(struct pyksm *m, struct stable_node *chain)
{
	if (m->clock < chain->chain_prune_time + m->ksm.stable_node_chains_prune_millisecs)
		return false;
	chain->chain_prune_time = m->clock;
	return true;
}

/* Is dup a better choice than best? Until 6.11 (a0b856b617c5) only candidates were ever chosen. */
static bool better_dup(const struct pyksm *m, const struct stable_node *dup,
		       const struct stable_node *best)
{
	bool longer = best && dup->rmap_hlist_len > best->rmap_hlist_len;

	if (!is_page_sharing_candidate(m, dup))
		return !best && has(m, FEAT_CHAIN_COLLAPSE_ANY);
	return !best || !is_page_sharing_candidate(m, best) || longer;
}

/* The dup to share with; *nr: how many live ones were seen, all of them if prune. Stale ones go. */
static struct stable_node *choose_dup(struct pyksm *m, struct stable_node *chain, bool prune,
				      int *nr)
{
	struct stable_node *found = NULL;
	struct hlist_node *pos, *next;

	for (pos = chain->hlist.first; pos; pos = next) {
		struct stable_node *dup = dup_of(pos);
		struct page *page;

		next = pos->next;
		page = get_ksm_page(m, dup, KSM_PAGE_NOLOCK);
		if (!page)
			continue;
		put_page(m, page);
		++*nr;
		if (!better_dup(m, dup, found))
			continue;
		found = dup;
		if (!prune && is_page_sharing_candidate(m, found))
			break;
	}
	return found;
}

/* The first dup stands for a chain in which there is no room; an empty chain goes. */
static struct stable_node *stable_node_dup_any(struct pyksm *m, struct stable_node *chain,
					       struct rb_root *root)
{
	if (!chain->hlist.first) {
		free_stable_node_chain(m, chain, root);
		return NULL;
	}
	return dup_of(chain->hlist.first);
}

/*
 * Who stands for the chain at place->node: a dup with room if there is one. NULL where the chain has gone.
 * place->node changes where the chain is dissolved.
 */
void stable_node_dup(struct pyksm *m, struct rb_root *root, struct chain_place *place, bool prune)
{
	struct stable_node *chain = place->node;
	bool single;
	int nr = 0;

	prune = prune && time_to_prune(m, chain);
	place->dup = choose_dup(m, chain, prune, &nr);
	if (!place->dup) {
		place->dup = stable_node_dup_any(m, chain, root);
		return;
	}
	if (has(m, FEAT_CHAIN_COLLAPSE_ANY))
		single = chain->hlist.first == &place->dup->hlist_dup && !chain->hlist.first->next;
	else
		single = prune && nr == 1;
	if (single) {
		collapse_chain(m, place, root);
	} else if (chain->hlist.first != &place->dup->hlist_dup &&
		   __is_page_sharing_candidate(m, place->dup, 1)) {
		hlist_del(&place->dup->hlist_dup); /* the next search will find it sooner */
		hlist_add_head(&place->dup->hlist_dup, &chain->hlist);
	}
}
