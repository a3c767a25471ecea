/* SPDX-License-Identifier: MIT */
/* The files of /sys/kernel/mm/ksm (kernel: the CONFIG_SYSFS half of mm/ksm.c). */
#include "internal.h"
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

static int64_t pages_volatile(const struct ksm *ksm)
{
	int64_t n = ksm->rmap_items - ksm->pages_shared - ksm->pages_sharing - ksm->pages_unshared;

	return n > 0 ? n : 0; /* the counts are not read at one instant */
}

int ksm_show(const struct pyksm *m, const char *key, int64_t *ret)
{
	const struct ksm *ksm = &m->ksm;
	const struct {
		const char *key;
		int64_t value;
	} files[] = {
		{ "run", ksm->run },
		{ "pages_to_scan", ksm->pages_to_scan },
		{ "sleep_millisecs", ksm->sleep_millisecs },
		{ "merge_across_nodes", ksm->merge_across_nodes },
		{ "pages_shared", ksm->pages_shared },
		{ "pages_sharing", ksm->pages_sharing },
		{ "pages_unshared", ksm->pages_unshared },
		{ "pages_volatile", pages_volatile(ksm) },
		{ "full_scans", (int64_t)ksm->scan.seqnr },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (!strcmp(files[i].key, key)) {
			*ret = files[i].value;
			return 0;
		}
	}
	return -ENOENT;
}

static int u32_store(uint32_t *knob, int64_t value)
{
	if (value < 0 || value > UINT32_MAX)
		return -EINVAL;
	*knob = (uint32_t)value;
	return 0;
}

int ksm_store(struct pyksm *m, const char *key, int64_t value)
{
	bool run = !strcmp(key, "run"), across = !strcmp(key, "merge_across_nodes");
	int64_t old;
	int err;

	if (ksm_show(m, key, &old))
		return -ENOENT;
	if (!strcmp(key, "pages_to_scan"))
		return u32_store(&m->ksm.pages_to_scan, value);
	if (!strcmp(key, "sleep_millisecs"))
		return u32_store(&m->ksm.sleep_millisecs, value);
	if (!run && !across)
		return -EACCES; /* a count */
	if (value < 0 || value > UINT32_MAX)
		return -EINVAL;
	if (m->ksm.mutex)
		return -EDEADLK;
	m->ksm.mutex = true;
	err = run ? run_store(m, (uint64_t)value) : merge_across_nodes_store(m, (uint64_t)value);
	m->ksm.mutex = false;
	return err;
}

static uint64_t scan_batch(struct pyksm *m, uint64_t npages)
{
	uint64_t done;

	m->ksm.mutex = true;
	done = ksm_do_scan(m, npages);
	m->ksm.mutex = false;
	return done;
}

/* ksmd's batch. Its run=1 is implied; while unmerged pages must stay so it does nothing. */
int ksm_scan_batch(struct pyksm *m, uint64_t npages)
{
	if (m->ksm.mutex)
		return -EDEADLK;
	if (m->ksm.run & KSM_RUN_UNMERGE)
		return -EBUSY;
	scan_batch(m, npages);
	return 0;
}

/* run=1, n full scans as far as there is anything to walk, run=0. How many really ended. */
int ksm_full_scans(struct pyksm *m, uint32_t n)
{
	struct ksm *ksm = &m->ksm;
	uint32_t scans = 0;
	int idle = 0;

	if (ksm->mutex)
		return -EDEADLK;
	ksm->run = KSM_RUN_MERGE;
	while (scans < n && idle < 2 && !list_empty(&ksm->ksm_mm_head.mm_list)) {
		uint64_t seqnr = ksm->scan.seqnr;
		uint64_t done = scan_batch(m, UINT64_MAX);

		if (ksm->scan.seqnr != seqnr) {
			scans++;
			idle = 0;
		} else {
			/* No memory for an item: once more, then it is no use. */
			idle = done ? 0 : idle + 1;
		}
	}
	ksm->run = KSM_RUN_STOP;
	return (int)scans;
}
