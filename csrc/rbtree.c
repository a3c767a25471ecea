/* SPDX-License-Identifier: MIT */
/* Red-black trees: the textbook's insertion and deletion, with an optional augmented value. */
#include <stddef.h>

#include "rbtree.h"

static bool is_black(const struct rb_node *n)
{
	return !n || (n->parent_color & 1); /* a missing child counts as black */
}

static void set_color(struct rb_node *n, bool black)
{
	n->parent_color = (n->parent_color & ~(uintptr_t)1) | (black ? 1 : 0);
}

static void set_parent(struct rb_node *n, struct rb_node *parent)
{
	n->parent_color = (uintptr_t)parent | (n->parent_color & 1);
}

/* Put fresh, which may be NULL, where old hangs. */
static void replace_child(struct rb_root *root, struct rb_node *parent, struct rb_node *old,
			  struct rb_node *fresh)
{
	if (!parent)
		root->node = fresh;
	else if (parent->left == old)
		parent->left = fresh;
	else
		parent->right = fresh;
}

static void rotate(struct rb_root *root, struct rb_node *top, bool to_left)
{
	struct rb_node *pivot = to_left ? top->right : top->left;
	struct rb_node *inner = to_left ? pivot->left : pivot->right;
	struct rb_node *parent = rb_parent(top);

	if (to_left) {
		top->right = inner;
		pivot->left = top;
	} else {
		top->left = inner;
		pivot->right = top;
	}
	if (inner)
		set_parent(inner, top);
	set_parent(pivot, parent);
	set_parent(top, pivot);
	replace_child(root, parent, top, pivot);
	if (root->augment) {
		root->augment(top);
		root->augment(pivot);
	}
}

static void augment_up(struct rb_root *root, struct rb_node *n)
{
	if (!root->augment)
		return;
	for (; n; n = rb_parent(n))
		root->augment(n);
}

void rb_insert_color(struct rb_node *n, struct rb_root *root)
{
	augment_up(root, n);
	while (rb_parent(n) && !is_black(rb_parent(n))) {
		struct rb_node *parent = rb_parent(n), *grand = rb_parent(parent);
		bool left = grand->left == parent;
		struct rb_node *uncle = left ? grand->right : grand->left;

		if (!is_black(uncle)) {
			set_color(parent, true);
			set_color(uncle, true);
			set_color(grand, false);
			n = grand;
			continue;
		}
		if (n == (left ? parent->right : parent->left)) {
			rotate(root, parent, left);
			parent = n;
		}
		set_color(parent, true);
		set_color(grand, false);
		rotate(root, grand, !left);
		break;
	}
	set_color(root->node, true);
}

/*
 * x (maybe NULL), a child of parent, is one black short. The top is known by its lack of a parent, as in
 * the kernel, and not by root: after an unmerge that a signal broke off in mid-scan, ksmd erases items of
 * the unstable tree it had dropped through the root of the new one.
 */
static void erase_fixup(struct rb_root *root, struct rb_node *x, struct rb_node *parent)
{
	while (parent && is_black(x)) {
		bool left = parent->left == x;
		struct rb_node *s = left ? parent->right : parent->left;
		struct rb_node *near, *far;

		if (!is_black(s)) {
			set_color(s, true);
			set_color(parent, false);
			rotate(root, parent, left);
			s = left ? parent->right : parent->left;
		}
		near = left ? s->left : s->right;
		far = left ? s->right : s->left;
		if (is_black(near) && is_black(far)) {
			set_color(s, false);
			x = parent;
			parent = rb_parent(x);
			continue;
		}
		if (is_black(far)) {
			set_color(near, true);
			set_color(s, false);
			rotate(root, s, !left);
			s = near;
			far = left ? s->right : s->left;
		}
		set_color(s, is_black(parent));
		set_color(parent, true);
		set_color(far, true);
		rotate(root, parent, left);
		return;
	}
	if (x)
		set_color(x, true);
}

void rb_erase(struct rb_node *n, struct rb_root *root)
{
	struct rb_node *x, *x_parent, *succ;
	bool lost_black = is_black(n);

	if (!n->left || !n->right) {
		x = n->left ? n->left : n->right;
		x_parent = rb_parent(n);
		replace_child(root, x_parent, n, x);
		if (x)
			set_parent(x, x_parent);
	} else {
		for (succ = n->right; succ->left;)
			succ = succ->left;
		lost_black = is_black(succ);
		x = succ->right;
		if (rb_parent(succ) == n) {
			x_parent = succ;
		} else {
			x_parent = rb_parent(succ);
			x_parent->left = x;
			if (x)
				set_parent(x, x_parent);
			succ->right = n->right;
			set_parent(succ->right, succ);
		}
		succ->left = n->left;
		set_parent(succ->left, succ);
		replace_child(root, rb_parent(n), n, succ);
		succ->parent_color = n->parent_color;
	}
	augment_up(root, x_parent);
	if (lost_black)
		erase_fixup(root, x, x_parent);
}

void rb_replace_node(struct rb_node *victim, struct rb_node *fresh, struct rb_root *root)
{
	*fresh = *victim;
	replace_child(root, rb_parent(victim), victim, fresh);
	if (fresh->left)
		set_parent(fresh->left, fresh);
	if (fresh->right)
		set_parent(fresh->right, fresh);
	augment_up(root, fresh);
}

struct rb_node *rb_first(const struct rb_root *root)
{
	struct rb_node *n = root->node;

	while (n && n->left)
		n = n->left;
	return n;
}

struct rb_node *rb_next(const struct rb_node *n)
{
	struct rb_node *parent;

	if (n->right) {
		struct rb_node *next = n->right;

		while (next->left)
			next = next->left;
		return next;
	}
	for (; (parent = rb_parent(n)) && n == parent->right;)
		n = parent;
	return parent;
}
