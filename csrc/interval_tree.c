/* SPDX-License-Identifier: MIT */
/*
 * The vmas of an anon_vma by the page offsets they cover (kernel: mm/interval_tree.c).
 * A red-black tree ordered by first offset, each node knowing the last offset under it.
 */
#include "internal.h"

static uint64_t avc_start(const struct anon_vma_chain *avc)
{
	return avc->vma->vm_pgoff;
}

static uint64_t avc_last(const struct anon_vma_chain *avc)
{
	return avc->vma->vm_pgoff + ((avc->vma->vm_end - avc->vma->vm_start) >> PAGE_SHIFT) - 1;
}

static struct anon_vma_chain *avc_of(struct rb_node *n)
{
	return n ? container_of(n, struct anon_vma_chain, rb) : NULL;
}

static void update_subtree_last(struct rb_node *n)
{
	struct anon_vma_chain *avc = avc_of(n), *child;
	uint64_t last = avc_last(avc);

	child = avc_of(n->left);
	if (child && child->subtree_last > last)
		last = child->subtree_last;
	child = avc_of(n->right);
	if (child && child->subtree_last > last)
		last = child->subtree_last;
	avc->subtree_last = last;
}

void anon_vma_tree_init(struct anon_vma *av)
{
	av->rb_root.node = NULL;
	av->rb_root.augment = update_subtree_last;
}

void anon_vma_interval_tree_insert(struct anon_vma_chain *avc, struct anon_vma *av)
{
	struct rb_node **link = &av->rb_root.node, *parent = NULL;
	uint64_t start = avc_start(avc);

	while (*link) {
		parent = *link;
		link = start < avc_start(avc_of(parent)) ? &parent->left : &parent->right;
	}
	rb_link_node(&avc->rb, parent, link);
	rb_insert_color(&avc->rb, &av->rb_root);
}

void anon_vma_interval_tree_remove(struct anon_vma_chain *avc, struct anon_vma *av)
{
	rb_erase(&avc->rb, &av->rb_root);
}

/* Leftmost under n that overlaps [first, last]; n's subtree is known to reach first. */
static struct anon_vma_chain *leftmost_overlap(struct rb_node *n, uint64_t first, uint64_t last)
{
	while (n) {
		struct anon_vma_chain *avc = avc_of(n), *left = avc_of(n->left);

		__builtin_prefetch(avc->vma); /* half of the time it is needed; left always is */
		if (left && left->subtree_last >= first) {
			n = n->left; /* the answer, if there is one, starts there */
			continue;
		}
		if (avc_start(avc) > last)
			return NULL;
		if (avc_last(avc) >= first)
			return avc;
		n = n->right;
		if (n && avc_of(n)->subtree_last < first)
			return NULL;
	}
	return NULL;
}

static struct anon_vma_chain *visited(struct pyksm *m, struct anon_vma_chain *avc)
{
	if (avc)
		COUNT(m, avc_visited);
	return avc;
}

struct anon_vma_chain *anon_vma_interval_tree_first(struct pyksm *m, struct anon_vma *av,
						    uint64_t first, uint64_t last)
{
	struct rb_node *top = av->rb_root.node;

	if (!top || avc_of(top)->subtree_last < first)
		return NULL;
	return visited(m, leftmost_overlap(top, first, last));
}

struct anon_vma_chain *anon_vma_interval_tree_next(struct pyksm *m, struct anon_vma_chain *avc,
						   uint64_t first, uint64_t last)
{
	struct rb_node *n = &avc->rb, *parent;

	for (;;) {
		if (n->right && avc_of(n->right)->subtree_last >= first)
			return visited(m, leftmost_overlap(n->right, first, last));
		for (; (parent = rb_parent(n)) && n == parent->right;)
			n = parent;
		if (!parent || avc_start(avc_of(parent)) > last)
			return NULL;
		n = parent;
		if (avc_last(avc_of(n)) >= first)
			return visited(m, avc_of(n));
	}
}
