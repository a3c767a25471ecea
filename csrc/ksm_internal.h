/* SPDX-License-Identifier: MIT */
/* What the files of KSM, the census and the public face share, file by file. */
#ifndef PYKSM_KSM_INTERNAL_H
#define PYKSM_KSM_INTERNAL_H

#include "internal.h"

static inline struct mm_slot *slot_of(struct list_head *pos)
{
	return container_of(pos, struct mm_slot, mm_list);
}
static inline bool ksm_test_exit(const struct mm_struct *mm)
{
	return mm->mm_users == 0;
}
static inline bool on_migrate_list(const struct pyksm *m, const struct stable_node *node)
{
	return node->head == &m->ksm.migrate_nodes;
}

/*
 * With ksm-rmap-by-index an item knows its page's index from the merge on until it leaves the stable
 * tree: an mremap since the vma was made may have left address and index apart.  As in the patch it
 * lies where checksum and age are, which begin at 0 again afterwards.
 */
static inline void keep_index(const struct pyksm *m, struct rmap_item *item,
			      const struct vm_area_struct *vma)
{
	if (has(m, FEAT_KSM_RMAP_BY_INDEX))
		item->index = linear_page_index(vma, item->address & PAGE_MASK);
}
static inline void forget_index(const struct pyksm *m, struct rmap_item *item)
{
	if (has(m, FEAT_KSM_RMAP_BY_INDEX))
		item->index = 0;
}

/* Ordered as memcmp() orders contents, as far as it goes: all of them are 8 bytes or more. */
static inline uint64_t content_key(const struct pyksm *m, const struct page *page)
{
	const unsigned char *bytes = page_content(m, page);
	uint64_t key = 0;

	for (int i = 0; i < 8; i++)
		key = key << 8 | bytes[i];
	return key;
}

/* ksm.c */
int __ksm_enter(struct pyksm *m, struct mm_struct *mm);
void forget_mm(struct pyksm *m, struct mm_slot *slot);
struct vm_area_struct *find_mergeable_vma(const struct mm_struct *mm, uint64_t addr);
void break_cow(struct pyksm *m, struct rmap_item *item);
int unmerge_and_remove_all_rmap_items(struct pyksm *m);

/* ksm_chain.c */
/* What marks a dup: no list has its head there, and no tree node lies there. */
static inline struct list_head *stable_node_dup_head(struct pyksm *m)
{
	return (struct list_head *)(void *)&m->ksm.migrate_nodes.prev;
}
static inline bool is_stable_node_chain(const struct stable_node *node)
{
	return node->rmap_hlist_len == STABLE_NODE_CHAIN;
}
static inline struct stable_node *dup_of(struct hlist_node *pos)
{
	return container_of(pos, struct stable_node, hlist_dup);
}
struct stable_node *alloc_stable_node(struct pyksm *m);
void free_stable_node(struct pyksm *m, struct stable_node *node);
bool __is_page_sharing_candidate(const struct pyksm *m, const struct stable_node *node, int offset);
bool is_page_sharing_candidate(const struct pyksm *m, const struct stable_node *node);
void stable_node_chain_add_dup(struct pyksm *m, struct stable_node *dup, struct stable_node *chain);
void stable_node_dup_del(struct pyksm *m, struct stable_node *node);
void replace_tree_node(struct stable_node *victim, struct stable_node *fresh, struct rb_root *root);
struct stable_node *alloc_stable_node_chain(struct pyksm *m, struct stable_node *dup,
					    struct rb_root *root);
void free_stable_node_chain(struct pyksm *m, struct stable_node *chain, struct rb_root *root);
/* A node of a stable tree and the one that stands for it: itself, or one of a chain's dups. */
struct chain_place {
	struct stable_node *node, *dup;
};
void stable_node_dup(struct pyksm *m, struct rb_root *root, struct chain_place *place, bool prune);

/* ksm_tree.c */
int get_kpfn_nid(const struct pyksm *m, uint64_t kpfn);
/* What of its lock get_ksm_page() takes; without tasks nobody has it, and none is taken. */
enum ksm_page_lock { KSM_PAGE_NOLOCK, KSM_PAGE_LOCK, KSM_PAGE_TRYLOCK };
#define KSM_PAGE_BUSY ((struct page *)-1) /* somebody else has it; for KSM_PAGE_TRYLOCK alone */
struct page *get_ksm_page(struct pyksm *m, struct stable_node *node, enum ksm_page_lock lock);
static inline void lock_ksm_page(struct pyksm *m, struct page *page, enum sched_point point)
{
	if (in_task(m))
		lock_page(m, page, point);
}
static inline void unlock_ksm_page(struct pyksm *m, struct page *page)
{
	if (in_task(m))
		unlock_page(m, page);
}
void move_to_migrate_nodes(struct pyksm *m, struct stable_node *node);
void remove_node_from_stable_tree(struct pyksm *m, struct stable_node *node);
void remove_rmap_item_from_tree(struct pyksm *m, struct rmap_item *item);
void remove_trailing_rmap_items(struct pyksm *m, struct rmap_item **list);
void free_rmap_item(struct pyksm *m, struct rmap_item *item);
int remove_all_stable_nodes(struct pyksm *m);
struct page *stable_tree_search(struct pyksm *m, struct page *page);
struct stable_node *stable_tree_insert(struct pyksm *m, struct page *kpage);
void stable_tree_append(struct pyksm *m, struct rmap_item *item, struct stable_node *node);
struct rmap_item *unstable_tree_search_insert(struct pyksm *m, struct rmap_item *item,
					      struct page *page, struct page **tree_pagep);

/* checksum.c */
uint32_t page_checksum(const struct pyksm *m, const void *content);
void page_checksums(const struct pyksm *m, const unsigned char *const *contents, size_t n,
		    uint32_t *ret);

/* content_id.c */
#define CONTENT_LOOKS 16 /* at a time */
struct content_look {
	struct page *page;
	uint32_t sample, id, checksum; /* id 0: of no class that was found */
};
bool content_ids_wanted(const struct pyksm *m);
void content_look(const struct pyksm *m, struct content_look *look, size_t n);
void content_look_done(struct pyksm *m, struct content_look *look, size_t n);
uint32_t content_checksum(struct pyksm *m, struct page *page);
void content_id_settle(struct pyksm *m, const struct page *page);
void content_ids_join(struct page *a, struct page *b);

/* ksm_ahead.c */
uint64_t ksm_look_ahead(struct pyksm *m, uint64_t npages);

/* ksm_merge.c */
int memcmp_pages(struct pyksm *m, struct page *a, struct page *b);
void cmp_and_merge_page(struct pyksm *m, struct page *page, struct rmap_item *item);

/* ksm_scan.c, ksm_advisor.c */
uint64_t ksm_do_scan(struct pyksm *m, uint64_t npages);
void advisor_start_scan(struct pyksm *m);
void advisor_stop_scan(struct pyksm *m);
void set_advisor_defaults(struct pyksm *m);

/* ksm_sysfs.c */
int ksm_show(struct pyksm *m, const char *key, int64_t *ret);
int ksm_store(struct pyksm *m, const char *key, int64_t value);
const char *ksm_count_name(struct pyksm *m, int i);
int ksm_stat_show(const struct pyksm *m, const struct mm_struct *mm, const char *key, int64_t *ret);
int ksm_scan_batch(struct pyksm *m, uint64_t npages);
int ksm_full_scans(struct pyksm *m, uint32_t n);

#endif
