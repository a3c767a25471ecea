/* SPDX-License-Identifier: MIT */
/* The files of /sys/kernel/mm/ksm (kernel: the CONFIG_SYSFS half of mm/ksm.c). */
#include "ksm_internal.h"

static int run_store(struct pyksm *m, uint64_t flags)
{
	struct ksm *ksm = &m->ksm;
	int err = 0;

	if (flags > KSM_RUN_UNMERGE)
		return -EINVAL;
	if (ksm->run == flags)
		return 0; /* 2 again does not unmerge again */
	ksm->run = (uint32_t)flags;
	if (flags == KSM_RUN_UNMERGE) {
		err = unmerge_and_remove_all_rmap_items(m);
		if (err)
			ksm->run = KSM_RUN_STOP;
	}
	return err;
}

/* Trees per node need room of their own the first time; the model has it, but it may be made to fail. */
static int alloc_trees(struct pyksm *m)
{
	if (m->ksm.trees_allocated)
		return 0;
	COUNT(m, kmem_alloc);
	if (should_fail(m, PYKSM_FAIL_KMEM))
		return -ENOMEM;
	m->ksm.trees_allocated = true;
	return 0;
}

static int merge_across_nodes_store(struct pyksm *m, uint64_t knob)
{
	struct ksm *ksm = &m->ksm;
	int err;

	if (knob > 1)
		return -EINVAL;
	if (ksm->merge_across_nodes == knob)
		return 0;
	if (ksm->pages_shared || remove_all_stable_nodes(m))
		return -EBUSY; /* a tree may hold pages of other nodes: first run=2 */
	err = alloc_trees(m);
	if (err)
		return err;
	ksm->merge_across_nodes = (uint32_t)knob;
	ksm->nr_node_ids = knob ? 1 : m->nodes;
	return 0;
}

static int max_page_sharing_store(struct pyksm *m, uint64_t knob)
{
	if (m->ksm.max_page_sharing == knob)
		return 0;
	if (m->ksm.pages_shared || remove_all_stable_nodes(m))
		return -EBUSY; /* there may be nodes with more sharers */
	m->ksm.max_page_sharing = (uint32_t)knob;
	return 0;
}

static int64_t pages_volatile(const struct ksm *ksm)
{
	int64_t n = ksm->rmap_items - ksm->pages_shared - ksm->pages_sharing - ksm->pages_unshared;

	return n > 0 ? n : 0; /* the counts are not read at one instant */
}

#define SIZEOF_RMAP_ITEM 64 /* the kernel's */

static int64_t profit(int64_t pages_saved, int64_t rmap_items)
{
	return pages_saved * (int64_t)PAGE_SIZE - rmap_items * SIZEOF_RMAP_ITEM;
}

static int64_t general_profit(const struct ksm *ksm)
{
	return profit(ksm->pages_sharing + ksm->zero_pages, ksm->rmap_items);
}

static bool ksm_process_mergeable(const struct mm_struct *mm)
{
	const struct vm_area_struct *vma = mm->mmap;

	while (vma && !(vma->vm_flags & VM_MERGEABLE))
		vma = vma->vm_next;
	return vma;
}

/* A line of /proc/PID/ksm_stat (kernel: fs/proc/base.c). */
int ksm_stat_show(const struct pyksm *m, const struct mm_struct *mm, const char *key, int64_t *ret)
{
	const struct {
		const char *key;
		enum feature since;
		int64_t value;
	} lines[] = {
		{ "ksm_rmap_items", FEAT_KSM_RMAP_ITEMS, mm->ksm_rmap_items },
		{ "ksm_zero_pages", FEAT_KSM_STAT_PROFIT, mm->ksm_zero_pages },
		{ "ksm_merging_pages", FEAT_KSM_MERGING_PAGES, mm->ksm_merging_pages },
		{ "ksm_process_profit", FEAT_KSM_STAT_PROFIT,
		  profit(mm->ksm_merging_pages + mm->ksm_zero_pages, mm->ksm_rmap_items) },
		{ "ksm_merge_any", FEAT_KSM_STAT_MERGE_ANY, mm->merge_any },
		{ "ksm_mergeable", FEAT_KSM_STAT_MERGE_ANY, ksm_process_mergeable(mm) },
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (strcmp(lines[i].key, key) || !has(m, lines[i].since))
			continue;
		*ret = lines[i].value;
		return 0;
	}
	return -ENOENT;
}

/* How a file takes a number; COUNT_FILE: not at all. The last three wait for ksm_thread_mutex. */
enum store {
	COUNT_FILE,
	STORE_UINT,
	STORE_PAGES_TO_SCAN,
	STORE_BOOL,
	STORE_ULONG,
	STORE_LOW_HALF, /* taken for an unsigned long, kept as an int */
	STORE_AT_LEAST_ONE,
	STORE_ADVISOR,
	STORE_RUN,
	STORE_ACROSS_NODES,
	STORE_MAX_SHARING,
};

struct ksm_file {
	const char *key;
	enum store store;
	int since; /* enum feature, or -1: always there */
	int64_t value;
	void *knob; /* of what is simply kept, by its kind: uint32_t, bool or uint64_t */
};

/* The file of that name and what is in it; false where this kernel has none. */
static bool find_file(struct pyksm *m, const char *key, struct ksm_file *ret)
{
	struct ksm *ksm = &m->ksm;
	const int sharing = FEAT_MAX_PAGE_SHARING, advisor = FEAT_ADVISOR;
	const struct ksm_file files[] = {
		{ "run", STORE_RUN, -1, ksm->run, NULL },
		{ "pages_to_scan", STORE_PAGES_TO_SCAN, -1, ksm->pages_to_scan,
		  &ksm->pages_to_scan },
		{ "sleep_millisecs", STORE_UINT, -1, ksm->sleep_millisecs, &ksm->sleep_millisecs },
		{ "merge_across_nodes", STORE_ACROSS_NODES, -1, ksm->merge_across_nodes, NULL },
		{ "pages_shared", COUNT_FILE, -1, ksm->pages_shared, NULL },
		{ "pages_sharing", COUNT_FILE, -1, ksm->pages_sharing, NULL },
		{ "pages_unshared", COUNT_FILE, -1, ksm->pages_unshared, NULL },
		{ "pages_volatile", COUNT_FILE, -1, pages_volatile(ksm), NULL },
		{ "full_scans", COUNT_FILE, -1, (int64_t)ksm->scan.seqnr, NULL },
		{ "max_page_sharing", STORE_MAX_SHARING, sharing, ksm->max_page_sharing, NULL },
		{ "stable_node_chains", COUNT_FILE, sharing, ksm->stable_node_chains, NULL },
		{ "stable_node_dups", COUNT_FILE, sharing, ksm->stable_node_dups, NULL },
		{ "stable_node_chains_prune_millisecs", STORE_UINT, sharing,
		  ksm->stable_node_chains_prune_millisecs,
		  &ksm->stable_node_chains_prune_millisecs },
		{ "use_zero_pages", STORE_BOOL, FEAT_ZERO_PAGES, ksm->use_zero_pages,
		  &ksm->use_zero_pages },
		{ "ksm_zero_pages", COUNT_FILE, FEAT_ZERO_PAGES_COUNTED, ksm->zero_pages, NULL },
		{ "general_profit", COUNT_FILE, FEAT_GENERAL_PROFIT, general_profit(ksm), NULL },
		{ "pages_scanned", COUNT_FILE, FEAT_PAGES_SCANNED, ksm->pages_scanned, NULL },
		{ "pages_skipped", COUNT_FILE, FEAT_SMART_SCAN, ksm->pages_skipped, NULL },
		{ "smart_scan", STORE_BOOL, FEAT_SMART_SCAN, ksm->smart_scan, &ksm->smart_scan },
		{ "advisor_mode", STORE_ADVISOR, advisor, ksm->advisor, NULL },
		{ "advisor_max_cpu", STORE_LOW_HALF, advisor, ksm->advisor_max_cpu,
		  &ksm->advisor_max_cpu },
		{ "advisor_min_pages_to_scan", STORE_ULONG, advisor,
		  (int64_t)ksm->advisor_min_pages_to_scan, &ksm->advisor_min_pages_to_scan },
		{ "advisor_max_pages_to_scan", STORE_ULONG, advisor,
		  (int64_t)ksm->advisor_max_pages_to_scan, &ksm->advisor_max_pages_to_scan },
		{ "advisor_target_scan_time", STORE_AT_LEAST_ONE, advisor,
		  (int64_t)ksm->advisor_target_scan_time, &ksm->advisor_target_scan_time },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		*ret = files[i];
		if (!strcmp(ret->key, key))
			return ret->since < 0 || has(m, (enum feature)ret->since);
	}
	return false;
}

int ksm_show(struct pyksm *m, const char *key, int64_t *ret)
{
	struct ksm_file file;

	if (!find_file(m, key, &file))
		return -ENOENT;
	*ret = file.value;
	return 0;
}

/* The name of the i-th file that is a count; NULL: there are no more. */
const char *ksm_count_name(struct pyksm *m, int i)
{
	static const char *const counts[] = {
		"pages_shared",	  "pages_sharing",	"pages_unshared",   "pages_volatile",
		"full_scans",	  "stable_node_chains", "stable_node_dups", "ksm_zero_pages",
		"general_profit", "pages_scanned",	"pages_skipped",
	};
	struct ksm_file file;

	for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++)
		if (find_file(m, counts[k], &file) && i-- == 0)
			return counts[k];
	return NULL;
}

/* kstrtobool() looks at the first character alone. */
static int bool_store(bool *knob, int64_t value)
{
	while (value >= 10)
		value /= 10;
	if (value < 0 || value > 1)
		return -EINVAL;
	*knob = value;
	return 0;
}

static int advisor_mode_store(struct pyksm *m, int64_t value)
{
	if (value < 0 || value > 1)
		return -EINVAL;
	if (m->ksm.advisor != value) {
		m->ksm.advisor = (uint32_t)value;
		set_advisor_defaults(m);
	}
	return 0;
}

/*
 * ksm_thread_mutex: false where a hook asks for what whoever called it has. Only tasks can wait for it.
 */
static bool lock_thread_mutex(struct pyksm *m, enum sched_point point)
{
	if (in_task(m)) {
		mutex_lock(m, LOCK_KSM_THREAD, point);
		return true;
	}
	if (m->ksm.mutex)
		return false;
	m->ksm.mutex = true;
	return true;
}

static void unlock_thread_mutex(struct pyksm *m)
{
	if (in_task(m))
		mutex_unlock(m, LOCK_KSM_THREAD);
	else
		m->ksm.mutex = false;
}

static int mutex_store(struct pyksm *m, enum store store, int64_t value)
{
	int err;

	if (store == STORE_MAX_SHARING && (value < INT32_MIN || value > INT32_MAX))
		return -ERANGE;
	if (value < (store == STORE_MAX_SHARING ? 2 : 0) || value > UINT32_MAX)
		return -EINVAL;
	if (store == STORE_MAX_SHARING && m->ksm.max_page_sharing == value)
		return 0;
	if (!lock_thread_mutex(m, PT_STORE_THREAD_MUTEX))
		return -EDEADLK;
	if (store == STORE_RUN)
		err = run_store(m, (uint64_t)value);
	else if (store == STORE_ACROSS_NODES)
		err = merge_across_nodes_store(m, (uint64_t)value);
	else
		err = max_page_sharing_store(m, (uint64_t)value);
	unlock_thread_mutex(m);
	return err;
}

int ksm_store(struct pyksm *m, const char *key, int64_t value)
{
	struct ksm_file file;

	if (!find_file(m, key, &file))
		return -ENOENT;
	switch (file.store) {
	case COUNT_FILE:
		return -EACCES;
	case STORE_PAGES_TO_SCAN:
		if (m->ksm.advisor)
			return -EINVAL;
		/* fall through */
	case STORE_UINT:
		if (value < 0 || value > UINT32_MAX)
			return -EINVAL;
		*(uint32_t *)file.knob = (uint32_t)value;
		return 0;
	case STORE_BOOL:
		return bool_store(file.knob, value);
	case STORE_LOW_HALF:
		if (value < 0)
			return -EINVAL;
		*(uint32_t *)file.knob = (uint32_t)value;
		return 0;
	case STORE_ULONG:
	case STORE_AT_LEAST_ONE:
		if (value < (file.store == STORE_AT_LEAST_ONE))
			return -EINVAL;
		*(uint64_t *)file.knob = (uint64_t)value;
		return 0;
	case STORE_ADVISOR:
		return advisor_mode_store(m, value);
	default:
		return mutex_store(m, file.store, value);
	}
}

/* ksmd's batch. Its run=1 is implied; while unmerged pages must stay so it does nothing. */
int ksm_scan_batch(struct pyksm *m, uint64_t npages)
{
	int err = 0;

	if (!lock_thread_mutex(m, PT_KSMD_THREAD_MUTEX))
		return -EDEADLK;
	if (m->ksm.run & KSM_RUN_UNMERGE)
		err = -EBUSY;
	else
		ksm_do_scan(m, npages);
	unlock_thread_mutex(m);
	return err;
}

/* ksmd as it is when run is 1. A task is ksmd in batches, and others may have their turn with the mutex between. */
static uint64_t scan_once(struct pyksm *m)
{
	uint64_t done = 0;

	if (!lock_thread_mutex(m, PT_KSMD_THREAD_MUTEX))
		return 0;
	if (m->ksm.run & KSM_RUN_MERGE)
		done = ksm_do_scan(m, in_task(m) ? m->ksm.pages_to_scan : UINT64_MAX);
	unlock_thread_mutex(m);
	return done;
}

static int begin_full_scans(struct pyksm *m)
{
	if (!lock_thread_mutex(m, PT_STORE_THREAD_MUTEX))
		return -EDEADLK;
	m->ksm.run = KSM_RUN_MERGE;
	unlock_thread_mutex(m);
	return 0;
}

static void end_full_scans(struct pyksm *m)
{
	if (!lock_thread_mutex(m, PT_STORE_THREAD_MUTEX))
		return;
	/* What another task has written meanwhile stays. */
	if (m->ksm.run == KSM_RUN_MERGE)
		m->ksm.run = KSM_RUN_STOP;
	unlock_thread_mutex(m);
}

/* run=1, n full scans as far as there is anything to walk, run=0. How many really ended. */
int ksm_full_scans(struct pyksm *m, uint32_t n)
{
	struct ksm *ksm = &m->ksm;
	uint32_t scans = 0;
	int idle = 0, err = begin_full_scans(m);

	if (err)
		return err;
	while (scans < n && idle < 2 && !list_empty(&ksm->ksm_mm_head.mm_list)) {
		uint64_t seqnr = ksm->scan.seqnr, done = scan_once(m);

		if (ksm->scan.seqnr != seqnr) {
			scans++;
			idle = 0;
		} else {
			/* No memory for an item: once more, then it is no use. */
			idle = done ? 0 : idle + 1;
		}
	}
	end_full_scans(m);
	return (int)scans;
}
