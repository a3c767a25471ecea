/* SPDX-License-Identifier: MIT */
/* Doubly linked lists with a head, and singly headed hash-style lists, as the kernel names them. */
#ifndef PYKSM_LIST_H
#define PYKSM_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

struct list_head {
	struct list_head *next, *prev;
};

static inline void INIT_LIST_HEAD(struct list_head *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}

static inline void list_between(struct list_head *e, struct list_head *before,
				struct list_head *after)
{
	e->prev = before;
	e->next = after;
	before->next = e;
	after->prev = e;
}

static inline void list_add(struct list_head *e, struct list_head *head)
{
	list_between(e, head, head->next);
}

static inline void list_add_tail(struct list_head *e, struct list_head *head)
{
	list_between(e, head->prev, head);
}

/* The entry is left as an empty list of its own, so that list_empty() tells. */
static inline void list_del_init(struct list_head *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	INIT_LIST_HEAD(e);
}

static inline void list_move(struct list_head *e, struct list_head *head)
{
	list_del_init(e);
	list_add(e, head);
}

static inline void list_move_tail(struct list_head *e, struct list_head *head)
{
	list_del_init(e);
	list_add_tail(e, head);
}

#define list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
#define list_for_each_safe(pos, nxt, head)                                                         \
	for ((pos) = (head)->next, (nxt) = (pos)->next; (pos) != (head);                           \
	     (pos) = (nxt), (nxt) = (pos)->next)

struct hlist_node {
	struct hlist_node *next, **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

static inline void hlist_add_head(struct hlist_node *n, struct hlist_head *h)
{
	n->next = h->first;
	n->pprev = &h->first;
	if (n->next)
		n->next->pprev = &n->next;
	h->first = n;
}

static inline void hlist_del(struct hlist_node *n)
{
	*n->pprev = n->next;
	if (n->next)
		n->next->pprev = n->pprev;
}

#endif
