/* SPDX-License-Identifier: MIT */
/*
 * Red-black trees with parent pointers.  The shape after every operation is the textbook's, which is
 * also that of Linux' lib/rbtree.c: KSM's unstable tree makes the shape visible.
 */
#ifndef PYKSM_RBTREE_H
#define PYKSM_RBTREE_H

#include <stdbool.h>
#include <stdint.h>

struct rb_node {
	uintptr_t parent_color; /* parent pointer; bit 0: black */
	union {
		struct {
			struct rb_node *left, *right;
		};
		struct rb_node *child[2]; /* the same, for a search that does not guess which way */
	};
};

struct rb_root {
	struct rb_node *node;
	void (*augment)(
		struct rb_node *n); /* recompute n from its children; NULL for a plain tree */
};

static inline struct rb_node *rb_parent(const struct rb_node *n)
{
	return (struct rb_node *)(n->parent_color & ~(uintptr_t)1);
}

/* Hang n, red, under parent at *link; rb_insert_color() then restores the balance. */
static inline void rb_link_node(struct rb_node *n, struct rb_node *parent, struct rb_node **link)
{
	n->parent_color = (uintptr_t)parent;
	n->left = n->right = NULL;
	*link = n;
}

void rb_insert_color(struct rb_node *n, struct rb_root *root);
void rb_erase(struct rb_node *n, struct rb_root *root);
void rb_replace_node(struct rb_node *victim, struct rb_node *fresh, struct rb_root *root);
struct rb_node *rb_first(const struct rb_root *root);
struct rb_node *rb_next(const struct rb_node *n);

#endif
