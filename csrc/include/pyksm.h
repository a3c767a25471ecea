/* SPDX-License-Identifier: MIT */
/*
 * pyksm: an executable reference model of Linux anonymous memory, KSM, swap and swapoff.
 *
 * One opaque machine holds everything: memory nodes, processes, swap areas, KSM.  Machines share
 * nothing, so each may live on a thread of its own; one machine must not be used by two threads
 * at a time.  Every call that returns int gives 0 (or a count, an id) on success and a negative
 * errno value on failure; after a failure the machine is as it was, unless the call's text says
 * that the part before the failing page stays done, as the system call does.  No input aborts.
 *
 * Addresses are user virtual addresses in bytes, page aligned where a page range is meant;
 * sizes of ranges are in pages of machine-defined size (pyksm_config.page_size).
 */
#ifndef PYKSM_H
#define PYKSM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#error "pyksm needs a POSIX host"
#endif
#ifndef PYKSM_API
#define PYKSM_API __attribute__((visibility("default")))
#endif

#define PYKSM_VERSION "0.1.0"

/* CDEF-BEGIN: from here to CDEF-END the text is also what the Python binding declares. */

struct pyksm; /* a machine */

/* Advice values are those of madvise(2) on Linux. */
enum pyksm_advice {
	PYKSM_MADV_WILLNEED = 3,
	PYKSM_MADV_DONTNEED = 4,
	PYKSM_MADV_MERGEABLE = 12,
	PYKSM_MADV_UNMERGEABLE = 13,
	PYKSM_MADV_PAGEOUT = 21,
};

/* What is written to /proc/PID/clear_refs: all accessed bits, all soft-dirty bits. */
enum pyksm_clear_refs {
	PYKSM_CLEAR_REFS_ALL = 1,
	PYKSM_CLEAR_REFS_SOFT_DIRTY = 4,
};

/* Protection values are those of mprotect(2). */
enum pyksm_prot {
	PYKSM_PROT_NONE = 0,
	PYKSM_PROT_READ = 1,
	PYKSM_PROT_WRITE = 2,
	PYKSM_PROT_SEAL = 0x10000, /* by itself: mseal(2) instead */
};

/* What swapoff does with an entry that other anon_vmas still need. */
enum pyksm_policy {
	/* as Linux 3.9: drop it from the swap cache, read it again next cycle */
	PYKSM_POLICY_REREAD = 0,
	PYKSM_POLICY_MEMCPY = 1, /* the mail's "obvious" way: copy from the page in hand */
};

/*
 * How the core does what it does: time differs, no result and no counter does.
 * walk: how swapoff that goes entry by entry finds its ptes; transfer: how contents get from frame
 * to frame and between frames and slots of a memory backend.
 */
enum pyksm_walk {
	PYKSM_WALK_LITERAL = 0, /* look at every pte, as the kernel does */
	PYKSM_WALK_COMPUTED = 1, /* look where the pte is, and count what looking would have cost */
};
enum pyksm_transfer {
	PYKSM_TRANSFER_COPY = 0, /* bytes are copied, as the kernel does */
	PYKSM_TRANSFER_REFERENCE = 1, /* shared until somebody writes */
};

/* Switches that take one check or shortcut away; see pyksm_switch_name(). */
enum pyksm_switch {
	PYKSM_SW_UNUSE_PTE_NO_COPY = 0, /* unuse_pte() without ksm_might_need_to_copy() */
	/* ksm_might_need_to_copy() without the KSM_RUN_UNMERGE test */
	PYKSM_SW_NO_UNMERGE_CHECK = 1,
	PYKSM_SW_UNUSE_VMA_BRUTE_FORCE = 2, /* unuse_vma() without the page_anon_vma() shortcut */
	/* ksm-rmap-by-index with the page number of the item's address for the page's index */
	PYKSM_SW_RMAP_BY_ADDRESS = 3,
	PYKSM_NR_SWITCHES = 4,
};

/* Allocations, reads, writes and signal checks that pyksm_inject() can make fail. */
enum pyksm_fault_kind {
	PYKSM_FAIL_PAGE = 0, /* alloc_page(): page frames */
	PYKSM_FAIL_KMEM = 1, /* kmem_cache_alloc() and kmalloc(): vmas, anon_vmas, rmap_items ... */
	PYKSM_FAIL_READ = 2, /* a page read from a swap area */
	PYKSM_FAIL_WRITE = 3, /* a page written to a swap area */
	PYKSM_FAIL_SIGNAL = 4, /* signal_pending() becomes true */
	PYKSM_FAIL_USERFAULT = 5, /* a userfaultfd wants to hear of a write-protect fault: SIGBUS */
	PYKSM_NR_FAULT_KINDS = 6,
};

/* Features by number, 64 a word: k is bit k % 64 of word k / 64. */
struct pyksm_feature_set {
	uint64_t word[2];
};

/* Bugs of the museum by number, 64 a word; see pyksm_tasks.h. */
struct pyksm_bug_set {
	uint64_t word[2];
};

struct pyksm_config {
	uint32_t nodes; /* memory nodes, 1..64; 0 means 1 */
	/* bytes of content a page has: a power of two, 8..4096; 0 means 4096 */
	uint32_t page_size;
	/* page frames of all nodes together, the zero page not counted; 0 means 65536 */
	uint64_t frames;
	uint32_t policy; /* enum pyksm_policy */
	uint32_t switches; /* bit k set: enum pyksm_switch k is on */
	/* locked pages that each process has beside its mappings, see RULES.md; 0: none */
	uint32_t agent_pages;
	/* the kernel to behave like, see pyksm_profile_features(); NULL: the newest */
	const char *profile;
	/* features switched on beside the profile's, with what they need, and then off, with what
	 * needs them; k is pyksm_feature_name(k). exact_features != 0: these and no others */
	struct pyksm_feature_set features, features_off;
	uint32_t exact_features;
	uint32_t walk; /* enum pyksm_walk */
	uint32_t transfer; /* enum pyksm_transfer */
	uint32_t threads; /* that may read contents at a time: 1, 2; 0 means 1 */
	/* bugs switched in; all 0 but in the build that runs tasks (-EOPNOTSUPP) */
	struct pyksm_bug_set bugs;
};

/* One page of a process, observed without touching it. */
struct pyksm_page {
	uint64_t pte; /* the raw x86-64 pte; 0 where nothing is mapped or there is no table */
	int64_t pfn; /* frame of a present page, -1 otherwise; the zero page is frame 0 */
	int32_t swp_type; /* swap area of a swap pte, -1 otherwise */
	int32_t node; /* memory node of a present page, -1 otherwise */
	int64_t swp_offset; /* slot of a swap pte, -1 otherwise */
	int64_t mapcount; /* ptes that map a present page; -1 otherwise, 0 for the zero page */
	uint8_t state; /* '.', 'P', 'Z', 'S' or '-' as the scenario contract has it */
	uint8_t ksm; /* PageKsm */
	uint8_t swapcache; /* PageSwapCache */
	uint8_t mlocked; /* PageMlocked */
	uint8_t pad[4];
};

struct pyksm_vma {
	uint64_t start, end; /* bytes, end exclusive */
	uint64_t pgoff; /* pages */
	uint32_t prot; /* enum pyksm_prot bits */
	int32_t node; /* node it is bound to, -1 for none */
	uint16_t mergeable; /* VM_MERGEABLE */
	uint16_t locked; /* VM_LOCKED */
	uint32_t chain; /* anon_vma_chains on it; 0: never written */
};

struct pyksm_area {
	int32_t type;
	int32_t priority;
	uint64_t pages; /* usable slots: header and bad pages not counted */
	uint64_t used;
	uint64_t max; /* slots, header included */
};

/* Life. NULL and -errno through *err where the machine cannot be made. */
PYKSM_API struct pyksm *pyksm_new(const struct pyksm_config *config, int *err);
PYKSM_API void pyksm_free(struct pyksm *m);
PYKSM_API const char *pyksm_version(void);
/* How arrays are searched and checksums made: "portable", or "avx2" or "avx512" where the host has it;
 * "auto" is the best there is, and what a process begins with. No result and no counter differs. This is
 * the one thing that belongs to the process and not to a machine: it holds for all machines, from their
 * next call on. NULL asks what is in use; the answer is its name, NULL for one that this host does not
 * have. */
PYKSM_API const char *pyksm_simd(const char *want);

/* Processes. Ids count up from 1 and are not used again. */
PYKSM_API int pyksm_spawn(struct pyksm *m);
PYKSM_API int pyksm_fork(struct pyksm *m, int pid);
PYKSM_API int pyksm_exit(struct pyksm *m, int pid);
PYKSM_API int pyksm_process_count(struct pyksm *m);
PYKSM_API int pyksm_process_at(struct pyksm *m, int index);

/* Address space. addr 0 lets pyksm_mmap choose: 1 GiB aligned, above all others. */
PYKSM_API int64_t pyksm_mmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node);
PYKSM_API int pyksm_munmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
PYKSM_API int pyksm_mprotect(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int prot);
/* Faults in what is not there, for writing where that is allowed. -ENOMEM: a hole (what came before is locked, and
 * nothing faulted in), no access at all, or a page that cannot be had; -EAGAIN: no memory for one. */
PYKSM_API int pyksm_mlock(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
PYKSM_API int pyksm_munlock(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
PYKSM_API int pyksm_mremap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages,
			   uint64_t new_addr);
PYKSM_API int pyksm_madvise(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int advice);
/* enum pyksm_clear_refs; -EINVAL for another one, and for one that the kernel does not have. */
PYKSM_API int pyksm_clear_refs(struct pyksm *m, int pid, int what);
/* errs: one 0 or -errno a page, may be NULL. All pages are tried; the return value is the first error. */
PYKSM_API int pyksm_write_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages,
				const void *data, int32_t *errs);
PYKSM_API int pyksm_read_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, void *data,
			       int32_t *errs);
/* Any range of bytes; stops at the first page that cannot be accessed. */
PYKSM_API int pyksm_write(struct pyksm *m, int pid, uint64_t addr, const void *data, size_t len);
PYKSM_API int pyksm_read(struct pyksm *m, int pid, uint64_t addr, void *data, size_t len);
/* Fault the pages in without looking at them: write != 0 as a write. */
PYKSM_API int pyksm_touch(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int write,
			  int32_t *errs);
/* A reference to each page: as vmsplice(2) takes them. */
PYKSM_API int pyksm_pin(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
/* For I/O to them: pages are made the process's own first. pyksm_unpin drops the latest of either kind. */
PYKSM_API int pyksm_pin_user_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
PYKSM_API int pyksm_unpin(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);
/* status: a page each, the node afterwards or -errno; may be NULL. */
PYKSM_API int pyksm_migrate(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node,
			    int32_t *status);

/* Swap. An area of npages slots in all, slot 0 its header. priority -1: automatic.
 * path NULL: a memory backend; else a file in mkswap's format, whose header says what it holds
 * (npages 0: all of it). Returns the type. */
PYKSM_API int pyksm_swapon(struct pyksm *m, uint64_t npages, int priority, const char *path);
PYKSM_API int pyksm_swapoff(struct pyksm *m, int type);
PYKSM_API int pyksm_mkswap(const char *path, uint64_t npages, uint32_t page_size);
PYKSM_API int pyksm_area_at(struct pyksm *m, int index, struct pyksm_area *ret);
/* Ptes, not the raw byte. */
PYKSM_API int pyksm_swap_count(struct pyksm *m, int type, uint64_t offset);
PYKSM_API int pyksm_swap_map(struct pyksm *m, int type, uint64_t offset); /* the raw byte */
PYKSM_API int64_t pyksm_swapcached(struct pyksm *m);
/* Reclaim until none of the ranges' pages (n = 0: nobody's) is resident or nothing more can go. */
struct pyksm_range {
	int32_t pid;
	int32_t pad;
	uint64_t addr;
	uint64_t npages;
};
PYKSM_API int pyksm_swapout(struct pyksm *m, const struct pyksm_range *ranges, int n);

/* KSM. Keys are the names of the files in /sys/kernel/mm/ksm. */
PYKSM_API int pyksm_ksm_write(struct pyksm *m, const char *key, int64_t value);
PYKSM_API int pyksm_ksm_read(struct pyksm *m, const char *key, int64_t *ret);
/* The files that are counts, by index; NULL: there are no more. */
PYKSM_API const char *pyksm_ksm_count_name(struct pyksm *m, int index);
/* A line of /proc/PID/ksm_stat (or its ksm_merging_pages); -ENOENT where this kernel has none. */
PYKSM_API int pyksm_ksm_stat(struct pyksm *m, int pid, const char *key, int64_t *ret);
/* prctl(PR_SET_MEMORY_MERGE) and PR_GET_MEMORY_MERGE; -EINVAL where this kernel has none. */
PYKSM_API int pyksm_prctl_memory_merge(struct pyksm *m, int pid, int on);
PYKSM_API int pyksm_memory_merge(struct pyksm *m, int pid);
/* N full scans; returns how many happened. */
PYKSM_API int pyksm_ksm_scan(struct pyksm *m, uint32_t n);
PYKSM_API int pyksm_ksm_do_scan(struct pyksm *m, uint32_t npages); /* one batch of ksmd */

/* The machine's clock, which nothing else moves, goes on: chain pruning and the advisor look at it. */
PYKSM_API int pyksm_sleep(struct pyksm *m, int64_t ms); /* 0..2^31-1 */

/* How fast this host is at best, to compare with: no machine takes part. */
enum pyksm_limit_kind {
	PYKSM_LIMIT_COPY = 0, /* one page copied, from anywhere to anywhere */
	PYKSM_LIMIT_COPY_IN_ORDER = 1, /* one page copied, the next one after it */
	PYKSM_LIMIT_READ = 2, /* one byte, read in words, in order */
	PYKSM_LIMIT_READ_BYTES = 3, /* one byte, looked at for what it is (memchr), in order */
	PYKSM_LIMIT_CHASE = 4, /* one cache line that says which is next, anywhere */
	PYKSM_LIMIT_FIRST_TOUCH = 5, /* 4096 bytes of host memory touched for the first time */
	PYKSM_NR_LIMITS = 6,
	PYKSM_LIMIT_MIN_BYTES = 65536,
	PYKSM_LIMIT_MAX_BYTES = 1073741824,
};
/*
 * Nanoseconds that one unit of that kind takes, the median of some passes over so many bytes (down
 * to a power of two; as much again for copies), which are mapped and, but for FIRST_TOUCH, touched
 * before. More than the last-level cache holds, or it is the cache that is measured. page_size: of
 * copies, as in the configuration.
 */
PYKSM_API int pyksm_limit(int kind, uint32_t page_size, uint64_t bytes, double *ns);

/* What is there. */
PYKSM_API int pyksm_pagemap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages,
			    struct pyksm_page *ret);
/* rmap_walk() of the page at addr, which changes nothing: how often it comes upon a pte that maps the page.
 * -EFAULT in a hole, -ENOENT where there is no page, or the zero page. */
PYKSM_API int pyksm_rmap_walk(struct pyksm *m, int pid, uint64_t addr);
PYKSM_API int pyksm_vma_at(struct pyksm *m, int pid, int index, struct pyksm_vma *ret);
PYKSM_API int64_t pyksm_free_frames(struct pyksm *m, int node); /* node -1: all */
/* Most frames in use since start or reset. */
PYKSM_API int64_t pyksm_peak_frames(struct pyksm *m, int reset);
/* Content of a frame, page_size bytes; valid until pyksm_free. NULL: no such frame. By reference it
 * is where the content is now: a write may put it elsewhere, and a free frame shows zeros. */
PYKSM_API const void *pyksm_frame(struct pyksm *m, int64_t pfn);
/* The 512 ptes of the last-level table that covers addr; NULL: no such table. Memory stays until pyksm_free. */
PYKSM_API const uint64_t *pyksm_pte_table(struct pyksm *m, int pid, uint64_t addr);

/* Work. Counters only go up. Names are kernel functions where there is one. */
PYKSM_API int pyksm_nr_counters(void);
PYKSM_API const char *pyksm_counter_name(int index);
PYKSM_API uint64_t pyksm_counter(struct pyksm *m, int index);
PYKSM_API int pyksm_nr_vmstat(void);
PYKSM_API const char *pyksm_vmstat_name(int index);
PYKSM_API uint64_t pyksm_vmstat(struct pyksm *m, int index);

/* The oldest event (a warning the kernel would have logged), NULL when there is none left. */
PYKSM_API const char *pyksm_next_event(struct pyksm *m);
/* Recount everything; one line for each thing that is wrong, at most len bytes. Returns how many.
 * strict: also what is legal but worth knowing, such as a KSM page that an rmap walk misses. */
PYKSM_API int pyksm_census(struct pyksm *m, int strict, char *buf, size_t len);

/* The nth (from 1) event of that kind from now on fails, once. Orders add up; more than 8 of a kind at a time:
 * -ENOSPC. nth 0 takes all of that kind back. */
PYKSM_API int pyksm_inject(struct pyksm *m, int kind, uint64_t nth);

/* Schedule points. The hook runs where the kernel could lose the processor; it may call anything
 * on the machine but pyksm_free. point is an index for pyksm_point_name(). */
typedef void (*pyksm_hook)(void *arg, int point);
PYKSM_API int pyksm_set_hook(struct pyksm *m, pyksm_hook hook, void *arg);
PYKSM_API int pyksm_nr_points(void);
PYKSM_API const char *pyksm_point_name(int index);
PYKSM_API const char *pyksm_switch_name(int index);
/* Profiles (aliases too) and features by name. */
PYKSM_API int pyksm_nr_features(void);
PYKSM_API const char *pyksm_feature_name(int index);
PYKSM_API const char *pyksm_profile_name(int index);
PYKSM_API int pyksm_profile_features(const char *name, struct pyksm_feature_set *ret);
/* What the machine has. */
PYKSM_API int pyksm_features(const struct pyksm *m, struct pyksm_feature_set *ret);

/* Host memory: bytes of one "page" (a frame's record, not its content), "pte", "page_table" (512 ptes, or a
 * level above), "slot" (always), "swap_entry" (more for a slot whose page is cached or remembered,
 * at most), "rmap_item", "stable_node", "mm", "vma", "anon_vma", "anon_vma_chain". -EINVAL: no such name. */
PYKSM_API int64_t pyksm_object_size(const char *name);

/* CDEF-END */

#ifdef __cplusplus
}
#endif
#endif /* PYKSM_H */
