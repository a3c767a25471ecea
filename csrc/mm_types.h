/* SPDX-License-Identifier: MIT */
/* The objects of a machine: frames, address spaces, anon_vmas, KSM's items and nodes, swap areas. */
#ifndef PYKSM_MM_TYPES_H
#define PYKSM_MM_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#include "counters.h"
#include "list.h"
#include "pyksm.h"
#include "rbtree.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE                                                                                  \
	(1ULL << PAGE_SHIFT) /* of address space; contents may be shorter, see page_size */
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PTRS_PER_PTE 512
#define PMD_SIZE (PAGE_SIZE * PTRS_PER_PTE)
#define TASK_SIZE (1ULL << 47)
#define MAX_NODES 64
#define MAX_AGENT_PAGES 65536
#define MAX_THREADS 2
#define MAX_ORDERS 8 /* of failures, of a kind at a time */

typedef uint64_t pte_t;

/* ---- frames ---- */
enum page_flag {
	PG_locked = 1 << 0,
	PG_error = 1 << 1,
	PG_referenced = 1 << 2,
	PG_uptodate = 1 << 3,
	PG_dirty = 1 << 4,
	PG_lru = 1 << 5,
	PG_active = 1 << 6,
	PG_swapcache = 1 << 7,
	PG_swapbacked = 1 << 8,
	PG_writeback = 1 << 9,
	PG_reclaim = 1 << 10,
	PG_buddy = 1 << 11, /* free */
	PG_charged = 1 << 12, /* PageCgroupUsed, see memcontrol.c */
	PG_memcg =
		1 << 13, /* it was charged when it was put on the LRU, so pressure can reach it */
	PG_mlocked = 1 << 14, /* mapped by a VM_LOCKED vma, as far as is known: see mlock.c */
	PG_workingset = 1 << 17, /* it was active once */
	PG_batched = 1 << 16, /* in a batch of lru.c */
	PG_anon_exclusive = 1 << 15, /* one process's for certain: 6c287605fd56, 5.19 */
	PG_agent = 1 << 18, /* an agent's own, see mlock.c: in no frame, mapped by no pte of ours */
	PG_unevictable = 1 << 19, /* on LRU_UNEVICTABLE; mlock_count says how often */
};

/* Low bits of page->mapping, as on Linux: 01 anonymous, 11 KSM (the rest may be NULL then). */
#define PAGE_MAPPING_ANON 1UL
#define PAGE_MAPPING_KSM 2UL
#define PAGE_MAPPING_FLAGS 3UL

struct page {
	uint32_t flags;
	int32_t _count;
	int32_t _mapcount; /* ptes - 1 */
	uint32_t
		anon_id; /* serial of the anon_vma in mapping: tells a dead one from its successor in memory */
	uintptr_t mapping;
	uint64_t index : 48;
	uint64_t nid : 8;
	uint64_t private; /* swp_entry while in swap cache */
	union {
		struct list_head lru;
		uint64_t
			mlock_count; /* while PG_unevictable: how many mappings lock it, or fewer */
	};
	uint32_t content_id; /* equal ids other than 0: equal contents, see content.c */
	uint32_t buffer; /* that the bytes are in, where they are moved by reference */
};
_Static_assert(sizeof(struct page) == 64, "a frame's record is a cache line");

/*
 * The third is the root cgroup's: what was nobody's when it was put there. It is not scanned. The last is no list:
 * who is on it is counted, and has something else in the place of the links.
 */
enum { LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_ROOT, LRU_UNEVICTABLE, NR_LRU_LISTS };

struct node {
	uint64_t first, last; /* pfns, last inclusive; first > last: none */
	uint64_t
		fresh; /* from here on no frame has ever been handed out: nothing of it is touched */
	struct page *free; /* stack of those that came back, linked by lru.next */
	int64_t nr_free;
	struct list_head lru[NR_LRU_LISTS]; /* head.next is the newest */
	uint64_t nr_lru[NR_LRU_LISTS];
	uint64_t anon_cost, nonresident_age; /* see workingset.c */
	uint64_t workingset_activated, refaults; /* now, and when reclaim last ended */
	uint64_t recent_scanned, recent_rotated; /* kernel: zone_reclaim_stat, of anonymous pages */
};

#define MAX_LRU_BATCH 31
struct lru_batch {
	struct page *pages[MAX_LRU_BATCH]; /* NULL: has gone */
	uint32_t nr;
};

/* What is to be done to pages for being locked or not, see mlock.c. Each entry has a reference of its own. */
enum mlock_kind { MLOCK_LISTED, MLOCK_NEW, MLOCK_UNLOCK };
struct mlock_batch {
	struct {
		struct page *page;
		enum mlock_kind kind;
	} entry[MAX_LRU_BATCH];
	uint32_t nr;
};

/* ---- address spaces ---- */
#define VM_READ 0x1ULL
#define VM_WRITE 0x2ULL
#define VM_LOCKED 0x2000ULL
#define VM_IO                                                                                      \
	0x4000ULL /* with VM_LOCKED: mlock is about to count this vma's pages, nobody else is to */
#define VM_SOFTDIRTY 0x08000000ULL /* all of it counts as soft-dirty, as a new mapping does */
#define VM_MERGEABLE 0x80000000ULL
#define VM_SEALED (1ULL << 63) /* mseal(2) */

struct anon_vma;

/* What searches through trees look at is the first cache line. */
struct vm_area_struct {
	_Alignas(64) struct mm_struct *vm_mm;
	uint64_t vm_start, vm_end;
	uint64_t vm_pgoff;
	uint64_t vm_flags;
	struct rb_node vm_rb;
	struct vm_area_struct *vm_next, *vm_prev;
	struct list_head anon_vma_chain;
	struct anon_vma *anon_vma;
	int32_t node; /* MPOL_BIND to it, or -1 */
	bool written; /* something was, here or where its pages come from: then it has an anon_vma */
};

struct mm_struct {
	int mm_users, mm_count;
	int pid;
	bool mergeable; /* MMF_VM_MERGEABLE */
	bool merge_any; /* MMF_VM_MERGE_ANY */
	struct mm_slot *mm_slot; /* KSM's, NULL where it has none */
	int64_t ksm_merging_pages, ksm_rmap_items, ksm_zero_pages;
	int readers; /* holds mmap_sem for reading across a schedule point */
	bool writer; /* a call holds it for writing */
	struct vm_area_struct *mmap;
	struct rb_root mm_rb;
	struct list_head mmlist; /* swapoff's list */
	const struct unuse_walk *unuse_walk; /* of the swapoff under way that computes its walk */
	int64_t anon_rss, swapents;
	pte_t *pgd;
	bool forked;
	bool has_pinned; /* MMF_HAS_PINNED: it has once had a page pinned for I/O */
	struct page *agent_pages; /* see mlock.c; NULL until they first show */
	uint32_t agent_listed; /* how many of them are on the LRU */
	struct mm_struct *all_next, *all_prev; /* every mm that still has memory, for the census */
};

struct anon_vma {
	struct anon_vma *root, *parent;
	int num_children; /* whose parent it is; a root counts itself */
	int num_active_vmas; /* whose anon_vma it is; both together were the degree before 6.0 */
	int refcount;
	uint32_t id;
	struct rb_root rb_root;
	struct list_head all; /* of all living, for the census */
};

struct anon_vma_chain {
	struct vm_area_struct *vma;
	struct anon_vma *anon_vma;
	struct list_head same_vma;
	struct rb_node rb;
	uint64_t subtree_last;
};

struct pin {
	uint64_t vpn, pfn;
	uint32_t refs;
	bool write; /* for I/O to the page: what its owner sees there has to stay that page */
	bool gone; /* its owner has unmapped or moved what was there */
};

struct process {
	int pid;
	struct mm_struct *mm;
	struct pin *pins;
	size_t nr_pins, max_pins;
};

/* ---- KSM ---- */
#define STABLE_NODE_CHAIN (-1024)

struct stable_node {
	union {
		struct {
			struct rb_node node;
			uint64_t key; /* content_key() of what it stands for */
		};
		struct {
			/* &migrate_nodes: waits there for its place; STABLE_NODE_DUP_HEAD: is a dup */
			struct list_head *head;
			struct hlist_node hlist_dup; /* among its chain's dups */
			struct list_head list;
		};
	};
	struct hlist_head hlist; /* its items, or a chain's dups */
	union {
		uint64_t kpfn;
		uint64_t chain_prune_time;
	};
	int32_t rmap_hlist_len; /* items, or STABLE_NODE_CHAIN */
	int32_t nid;
};

struct rmap_item {
	struct rmap_item *rmap_list;
	union {
		struct anon_vma *anon_vma; /* when stable */
		uint64_t key; /* when unstable: content_key() of its page when it was put there */
	};
	struct mm_struct *mm;
	uint64_t address; /* and flags in the low bits */
	union {
		struct {
			uint32_t oldchecksum;
			uint8_t age, remaining_skips; /* smart scan's */
			uint8_t nid; /* of its unstable tree */
		};
		uint64_t index; /* the page's, when stable, with ksm-rmap-by-index */
	};
	union {
		struct rb_node node;
		struct {
			struct stable_node *head;
			struct hlist_node hlist;
		};
	};
};

_Static_assert(sizeof(struct stable_node) == 64 && sizeof(struct rmap_item) == 64,
	       "a level of a tree is a cache line");

#define SEQNR_MASK 0x0ffU
#define UNSTABLE_FLAG 0x100U
#define STABLE_FLAG 0x200U

struct mm_slot {
	struct list_head mm_list;
	struct rmap_item *rmap_list;
	struct mm_struct *mm;
	uint64_t ahead; /* how far look_at_others() has come before ksmd itself does */
};

enum { KSM_RUN_STOP = 0, KSM_RUN_MERGE = 1, KSM_RUN_UNMERGE = 2 };

struct ksm_scan {
	struct mm_slot *mm_slot; /* &ksm_mm_head: between scans */
	uint64_t address;
	struct rmap_item **rmap_list;
	uint64_t seqnr;
};

/* What scan-time remembers from scan to scan. */
struct advisor_ctx {
	uint64_t start_scan; /* ms */
	uint64_t scan_time; /* s */
	uint64_t change; /* percent */
};

struct ksm {
	struct rb_root root_stable_tree[MAX_NODES], root_unstable_tree[MAX_NODES];
	struct list_head migrate_nodes;
	int64_t stale_nodes; /* stable nodes whose pages have gone */
	uint64_t unstable_seqnr; /* of the scan that began last; UINT64_MAX: none has */
	bool unstable_sure; /* all that is in the unstable trees is as when it was put there */
	struct mm_slot ksm_mm_head;
	struct ksm_scan scan;
	int64_t pages_shared, pages_sharing, pages_unshared, rmap_items;
	int64_t zero_pages, pages_scanned, pages_skipped, stable_node_chains, stable_node_dups;
	uint32_t run, merge_across_nodes, nr_node_ids;
	uint32_t pages_to_scan, sleep_millisecs;
	uint32_t max_page_sharing, stable_node_chains_prune_millisecs;
	uint32_t zero_checksum;
	bool use_zero_pages, smart_scan;
	uint32_t advisor; /* 0 none, 1 scan-time */
	uint32_t advisor_max_cpu;
	uint64_t advisor_min_pages_to_scan, advisor_max_pages_to_scan;
	uint64_t advisor_target_scan_time; /* s */
	struct advisor_ctx advisor_ctx;
	bool mutex; /* ksm_thread_mutex */
	bool trees_allocated; /* those per node, on the first change of merge_across_nodes */
};

/* What is known of contents, see content_id.c. */
struct content_ids {
	struct content_class *class; /* by id */
	struct content_bucket *bucket; /* by sample */
	uint32_t nr, max; /* ids below nr have been given out */
	uint32_t free; /* of those, the first that is free; 0: none */
	uint32_t mask; /* buckets - 1 */
	bool off; /* no host memory: no more ids */
};

/* ---- swap ---- */
#define NR_SWAP_TYPES 32 /* that a pte can say */
#define MAX_SWAPFILES 29 /* at most; see max_swapfiles() */
#define SWAP_MAP_MAX 0x3e
#define SWAP_MAP_BAD 0x3f
#define SWAP_HAS_CACHE 0x40
#define SWAP_CONT_MAX 0x7f
#define COUNT_CONTINUED 0x80
#define SWAPFILE_CLUSTER 256
#define SWP_USED 1U
#define SWP_WRITEOK 2U
#define SWP_DYING 4U /* nobody may begin to look at it any more */

/* Digits above the first of 4096 neighbouring swap_map counts. */
struct swap_cont {
	unsigned char **maps;
	int nr;
};

#define SWAP_TABLE_SLOTS 512

/* From this slot on, until the next run, ages go up or down by one from slot to slot. */
struct shadow_run {
	int32_t age; /* the first one's, relative */
	uint16_t first;
	int8_t step; /* 0: nothing has followed yet */
};

struct packed_shadows {
	uint64_t base; /* age of the first */
	uint64_t present[SWAP_TABLE_SLOTS / 64];
	uint16_t low; /* what all shadows have below the age: they are of one node and alike */
	uint16_t nr_runs;
	struct shadow_run runs[];
};

/* See swap_table.c. An entry is 0, or a cached page's frame << 1 | 1, or a shadow of workingset.c's. */
struct swap_cluster {
	union {
		uint64_t *table; /* NULL: nothing is known of any slot */
		struct packed_shadows *shadows; /* if packed: no page is cached */
	};
	uint16_t nr_cached, nr_shadows;
	bool packed;
};

struct swap_info_struct {
	uint32_t flags;
	int prio, type, next;
	uint64_t max, pages, inuse_pages;
	uint64_t lowest_bit, highest_bit, cluster_next;
	uint32_t cluster_nr;
	uint32_t
		scanning; /* who looks for a slot there and has let go of the lock (kernel: SWP_SCANNING) */
	unsigned char *swap_map;
	unsigned char
		*zeromap; /* a bit each, set: the slot holds zeros, whatever is in the backend */
	struct swap_cluster *clusters;
	struct swap_cont *cont;
	unsigned char *mem; /* memory backend */
	uint32_t *buffers; /* or what each slot of it refers to, by reference; see content.c */
	int fd; /* or a file, -1 for none */
	uint64_t dev, ino;
};

struct swap {
	struct swap_info_struct info[NR_SWAP_TYPES]; /* what is no area has no slots */
	int head, next; /* swap_list */
	int avail[MAX_SWAPFILES], nr_avail; /* swap_avail_heads: types, the next to ask first */
	int highest_priority_index;
	int least_priority;
	int64_t nr_swap_pages, total_swap_pages;
	uint64_t nr_cached;
	struct mm_struct init_mm; /* only its mmlist and mm_users are used */
};

/* ---- contents by reference, see content.c ---- */
struct segment {
	unsigned char *bytes; /* of its buffers */
	uint32_t *refs; /* how many frames and slots refer to each; of a free one, the next free */
};

struct extent {
	void *memory;
	size_t bytes;
};

struct buffers {
	struct segment *segments;
	size_t nr_segments, max_segments;
	struct extent *extents; /* the mappings that the segments are in */
	size_t nr_extents, max_extents;
	uint64_t reserved; /* most that can be in use at a time */
	uint32_t free; /* the first of those that came back; 0, which holds the zeros: none */
	uint32_t fresh; /* from here on none has ever been in use */
};

/* ---- the machine ---- */
#define WRITES_IN_BLOCK 510
struct write_block {
	struct write_block *next;
	uint64_t nr;
	uintptr_t pages[WRITES_IN_BLOCK]; /* bit 0: the write has failed */
};
struct chunk {
	void *memory;
	size_t bytes;
};

struct pool {
	void *free; /* came back, each linked by its first word */
	size_t nr_free;
	void **emptied; /* came back, and their memory went to the host */
	size_t nr_emptied, max_emptied;
	char *fresh, *fresh_end; /* of the last chunk: never handed out */
	struct chunk *chunks;
	size_t nr_chunks, max_chunks;
};

#define BLOCK_BYTES 4096
_Static_assert(sizeof(struct write_block) == BLOCK_BYTES &&
		       SWAP_TABLE_SLOTS * sizeof(uint64_t) == BLOCK_BYTES,
	       "blocks are pages of the host");

enum pool_id {
	POOL_MM,
	POOL_VMA,
	POOL_AVC,
	POOL_ANON_VMA,
	POOL_RMAP_ITEM,
	POOL_STABLE_NODE,
	POOL_KSM, /* mm_slots, and until 4.13 (2c653d0ee2ae) stable_nodes, which were no larger */
	POOL_PGTABLE,
	POOL_BLOCK, /* swap tables, and writes under way */
	NR_POOLS,
};

struct pyksm {
	uint32_t nodes;
	size_t page_size;
	uint32_t policy, switches, agent_pages;
	uint32_t walk, transfer, threads;
	struct helper *helper; /* the second thread, see threads.c; NULL: not yet */
	struct pyksm_feature_set features; /* of enum feature */
	uint64_t clock; /* ms */
	struct lru_batch lru_add, lru_activate;
	struct mlock_batch mlock_batch;
	uint32_t max_swapfiles;
	struct node node[MAX_NODES];
	struct page *mem_map;
	unsigned char *content; /* of frame after frame; NULL by reference */
	struct buffers buffers;
	uint64_t max_pfn;
	int64_t in_use, peak;
	uint64_t memory_denied; /* how often there was no page, or no place in the swap cache */
	uint64_t flags_late; /* vmas taken in by one of other flags: walks see those for a moment */
	uint64_t oom_leaked; /* faults that came to VM_FAULT_OOM with memory enough */
	uint64_t entries_cleared; /* migration entries for writable pages that clear_refs came by */
	uint64_t entries_astray; /* migration entries for KSM pages, moved where no item says */
	int64_t nr_mlock; /* NR_MLOCK: frames with PG_mlocked */
	struct pool pool[NR_POOLS];
	struct process *procs;
	size_t nr_procs, max_procs;
	int next_pid;
	uint32_t anon_id;
	struct list_head anon_vmas;
	struct mm_struct *all_mms;
	struct ksm ksm;
	struct content_ids content_ids;
	struct swap swap;
	struct write_block *writes, *last_writes; /* under writeback, in order of submission */
	uint64_t count[NR_COUNTERS], vm[NR_VMSTAT];
	/* how many events until the next one that is to fail, from that to the one after it, ...; 0: none */
	uint64_t inject[PYKSM_NR_FAULT_KINDS][MAX_ORDERS];
	uint32_t failed[PYKSM_NR_FAULT_KINDS]; /* how many have */
	const char **events;
	size_t nr_events, first_event, max_events;
	pyksm_hook hook;
	void *hook_arg;
	bool in_hook;
#ifdef PYKSM_TASKS
	struct sched *sched; /* NULL: no tasks */
	struct pyksm_bug_set bugs; /* of enum bug */
	bool dead; /* since an oops */
	char oops[256];
	struct call *call; /* where an oops outside of tasks goes: see ENTER() */
	struct arena *arena; /* what its memory is known by, and it may lie in: see arena.h */
#endif
};

#endif
