/* SPDX-License-Identifier: MIT */
/* Bad input of every kind: each call answers with an errno and leaves the machine sound. */
#include <errno.h>
#include <unistd.h>

#include "check.h"
#include "pyksm.h"

#define NPAGES 16
#define PAGE 4096

static unsigned char data[NPAGES * PAGE];
static const int bad_pids[] = { 0, -1, 2, 1000000, 2147483647, -2147483647 - 1 };
static const uint64_t bad_addrs[] = {
	1, PAGE - 1, 1ULL << 47, (1ULL << 47) + PAGE, 1ULL << 63, UINT64_MAX, UINT64_MAX - PAGE + 1
};
static const uint64_t bad_counts[] = { 0, 1ULL << 35, 1ULL << 52, 1ULL << 63, UINT64_MAX };

#define EACH(i, array) for (size_t i = 0; i < sizeof(array) / sizeof((array)[0]); i++)

static struct pyksm *new_machine(void)
{
	struct pyksm_config config = { .nodes = 2, .frames = 256 };
	int err = 1;
	struct pyksm *m = pyksm_new(&config, &err);

	EXPECT(m != NULL, 1);
	EXPECT(err, 0);
	return m;
}

static void sound(struct pyksm *m)
{
	char buf[4096];

	EXPECT(pyksm_census(m, 0, buf, sizeof(buf)), 0);
}

static void refuse_config(struct pyksm_config config, int wanted)
{
	int err = 0;
	struct pyksm *m = pyksm_new(&config, &err);

	EXPECT(m == NULL, 1);
	EXPECT(err, wanted);
	pyksm_free(m);
}

static void test_new(void)
{
	struct pyksm *m = pyksm_new(NULL, NULL);

	pyksm_free(m);
	pyksm_free(NULL);
	refuse_config((struct pyksm_config){ .nodes = 65 }, -EINVAL);
	refuse_config((struct pyksm_config){ .page_size = 4 }, -EINVAL);
	refuse_config((struct pyksm_config){ .page_size = 24 }, -EINVAL);
	refuse_config((struct pyksm_config){ .page_size = 8192 }, -EINVAL);
	refuse_config((struct pyksm_config){ .policy = 2 }, -EINVAL);
	refuse_config((struct pyksm_config){ .switches = 1u << 31 }, -EINVAL);
	refuse_config((struct pyksm_config){ .nodes = 8, .frames = 4 }, -EINVAL);
	refuse_config((struct pyksm_config){ .frames = UINT64_MAX }, -EINVAL);
	refuse_config((struct pyksm_config){ .frames = 1ULL << 40 }, -EINVAL);
}

/* Every call with a pid, at a good address. */
static void calls_with_pid(struct pyksm *m, int pid, uint64_t addr)
{
	struct pyksm_range range = { .pid = pid, .addr = addr, .npages = 1 };
	struct pyksm_page page;
	struct pyksm_vma vma;
	int32_t status[1];

	EXPECT(pyksm_fork(m, pid), -ESRCH);
	EXPECT(pyksm_exit(m, pid), -ESRCH);
	EXPECT(pyksm_mmap(m, pid, 0, 1, -1), -ESRCH);
	EXPECT(pyksm_munmap(m, pid, addr, 1), -ESRCH);
	EXPECT(pyksm_mprotect(m, pid, addr, 1, PYKSM_PROT_READ), -ESRCH);
	EXPECT(pyksm_mlock(m, pid, addr, 1), -ESRCH);
	EXPECT(pyksm_munlock(m, pid, addr, 1), -ESRCH);
	EXPECT(pyksm_mremap(m, pid, addr, 1, addr + (1ULL << 30)), -ESRCH);
	EXPECT(pyksm_madvise(m, pid, addr, 1, PYKSM_MADV_DONTNEED), -ESRCH);
	EXPECT(pyksm_write_pages(m, pid, addr, 1, data, status), -ESRCH);
	EXPECT(pyksm_read_pages(m, pid, addr, 1, data, status), -ESRCH);
	EXPECT(pyksm_write(m, pid, addr, data, 1), -ESRCH);
	EXPECT(pyksm_read(m, pid, addr, data, 1), -ESRCH);
	EXPECT(pyksm_touch(m, pid, addr, 1, 1, status), -ESRCH);
	EXPECT(pyksm_pin(m, pid, addr, 1), -ESRCH);
	EXPECT(pyksm_unpin(m, pid, addr, 1), -ESRCH);
	EXPECT(pyksm_migrate(m, pid, addr, 1, 0, status), -ESRCH);
	EXPECT(pyksm_pagemap(m, pid, addr, 1, &page), -ESRCH);
	EXPECT(pyksm_vma_at(m, pid, 0, &vma), -ESRCH);
	EXPECT(pyksm_swapout(m, &range, 1), -ESRCH);
	EXPECT(pyksm_pte_table(m, pid, addr) == NULL, 1);
}

/* Every call with a range that cannot be: misaligned, empty, or beyond user addresses. */
static void calls_with_range(struct pyksm *m, int pid, uint64_t addr, uint64_t npages,
			     uint64_t good)
{
	struct pyksm_range range = { .pid = pid, .addr = addr, .npages = npages };

	REFUSED(pyksm_munmap(m, pid, addr, npages));
	REFUSED(pyksm_mprotect(m, pid, addr, npages, PYKSM_PROT_READ));
	REFUSED(pyksm_mlock(m, pid, addr, npages));
	REFUSED(pyksm_munlock(m, pid, addr, npages));
	REFUSED(pyksm_mremap(m, pid, addr, npages, good + (1ULL << 30)));
	REFUSED(pyksm_madvise(m, pid, addr, npages, PYKSM_MADV_MERGEABLE));
	REFUSED(pyksm_write_pages(m, pid, addr, npages, data, NULL));
	REFUSED(pyksm_read_pages(m, pid, addr, npages, data, NULL));
	REFUSED(pyksm_touch(m, pid, addr, npages, 1, NULL));
	REFUSED(pyksm_pin(m, pid, addr, npages));
	REFUSED(pyksm_unpin(m, pid, addr, npages));
	REFUSED(pyksm_migrate(m, pid, addr, npages, 0, NULL));
	REFUSED(pyksm_pagemap(m, pid, addr, npages, NULL));
	REFUSED(pyksm_swapout(m, &range, 1));
	if (npages)
		REFUSED(pyksm_mmap(m, pid, addr ? addr : 1, npages, -1));
}

static void test_ranges(struct pyksm *m, int pid, uint64_t addr)
{
	EACH (i, bad_pids)
		calls_with_pid(m, bad_pids[i], addr);
	EACH (i, bad_addrs)
		calls_with_range(m, pid, bad_addrs[i], 1, addr);
	EACH (i, bad_counts)
		calls_with_range(m, pid, addr, bad_counts[i], addr);
	EXPECT(pyksm_mmap(m, pid, addr, 1, -1), -EEXIST);
	EXPECT(pyksm_mmap(m, pid, 0, 1, 2), -EINVAL);
	EXPECT(pyksm_mmap(m, pid, 0, 1, -2), -EINVAL);
	EXPECT(pyksm_mremap(m, pid, addr, 2, addr + PAGE), -EINVAL);
	EXPECT(pyksm_mremap(m, pid, addr, 1, 1), -EINVAL);
	EXPECT(pyksm_mprotect(m, pid, addr, 1, 4096), -EINVAL);
	EXPECT(pyksm_madvise(m, pid, addr, 1, 99), -EINVAL);
	EXPECT(pyksm_madvise(m, pid, addr, 1, -1), -EINVAL);
	EXPECT(pyksm_migrate(m, pid, addr, 1, 64, NULL) < 0, 1);
	EXPECT(pyksm_write(m, pid, UINT64_MAX, data, 2) < 0, 1);
	EXPECT(pyksm_read(m, pid, addr, data, 0), 0);
	sound(m);
}

static void test_nulls(struct pyksm *m, int pid, uint64_t addr)
{
	EXPECT(pyksm_write_pages(m, pid, addr, 1, NULL, NULL), -EINVAL);
	EXPECT(pyksm_read_pages(m, pid, addr, 1, NULL, NULL), -EINVAL);
	EXPECT(pyksm_write(m, pid, addr, NULL, 1), -EINVAL);
	EXPECT(pyksm_read(m, pid, addr, NULL, 1), -EINVAL);
	EXPECT(pyksm_pagemap(m, pid, addr, 1, NULL), -EINVAL);
	EXPECT(pyksm_area_at(m, 0, NULL) < 0, 1);
	EXPECT(pyksm_vma_at(m, pid, 0, NULL), -EINVAL);
	EXPECT(pyksm_swapout(m, NULL, 1), -EINVAL);
	EXPECT(pyksm_swapout(m, NULL, -1), -EINVAL);
	EXPECT(pyksm_ksm_write(m, NULL, 1) < 0, 1);
	EXPECT(pyksm_ksm_read(m, NULL, NULL) < 0, 1);
	EXPECT(pyksm_ksm_read(m, "run", NULL), -EINVAL);
	EXPECT(pyksm_mkswap(NULL, 16, PAGE), -EINVAL);
	EXPECT(pyksm_census(m, 0, NULL, 0), 0);
	EXPECT(pyksm_set_hook(m, NULL, NULL), 0);
	sound(m);
}

static void test_indexes(struct pyksm *m, int pid)
{
	static const int bad[] = { -1, 1000, 2147483647, -2147483647 - 1 };
	struct pyksm_area area;
	struct pyksm_vma vma;

	EACH (i, bad) {
		REFUSED(pyksm_process_at(m, bad[i]));
		REFUSED(pyksm_area_at(m, bad[i], &area));
		REFUSED(pyksm_vma_at(m, pid, bad[i], &vma));
		REFUSED(pyksm_swapoff(m, bad[i]));
		REFUSED(pyksm_swap_count(m, bad[i], 1));
		REFUSED(pyksm_swap_map(m, bad[i], 1));
		EXPECT(pyksm_counter(m, bad[i]), 0);
		EXPECT(pyksm_vmstat(m, bad[i]), 0);
		EXPECT(pyksm_counter_name(bad[i]) == NULL, 1);
		EXPECT(pyksm_vmstat_name(bad[i]) == NULL, 1);
		EXPECT(pyksm_point_name(bad[i]) == NULL, 1);
		EXPECT(pyksm_switch_name(bad[i]) == NULL, 1);
		EXPECT(pyksm_frame(m, bad[i] == 1000 ? 257 : bad[i]) == NULL, 1);
		EXPECT(pyksm_inject(m, bad[i], 1), -EINVAL);
		if (bad[i] != -1)
			REFUSED(pyksm_free_frames(m, bad[i]));
	}
	EXPECT(pyksm_frame(m, INT64_MAX) == NULL, 1);
	EXPECT(pyksm_frame(m, INT64_MIN) == NULL, 1);
	EXPECT(pyksm_frame(m, 256) != NULL, 1);
	sound(m);
}

static void test_ksm(struct pyksm *m)
{
	int64_t value;

	EXPECT(pyksm_ksm_write(m, "no such file", 1), -ENOENT);
	EXPECT(pyksm_ksm_read(m, "", &value), -ENOENT);
	EXPECT(pyksm_ksm_write(m, "pages_shared", 1), -EACCES);
	EXPECT(pyksm_ksm_write(m, "run", 3), -EINVAL);
	EXPECT(pyksm_ksm_write(m, "run", -1), -EINVAL);
	EXPECT(pyksm_ksm_write(m, "run", INT64_MAX), -EINVAL);
	EXPECT(pyksm_ksm_write(m, "merge_across_nodes", 2), -EINVAL);
	EXPECT(pyksm_ksm_write(m, "run", 2), 0);
	EXPECT(pyksm_ksm_do_scan(m, 10), -EBUSY);
	EXPECT(pyksm_ksm_write(m, "run", 0), 0);
	EXPECT(pyksm_ksm_scan(m, 0), 0);
	sound(m);
}

static void test_swap(struct pyksm *m)
{
	char path[] = "/tmp/pyksm-misuse-XXXXXX";
	int fd = mkstemp(path), type;

	EXPECT(fd >= 0, 1);
	EXPECT(pyksm_swapon(m, 1, -1, NULL), -EINVAL);
	EXPECT(pyksm_swapon(m, 16, -2, NULL), -EINVAL);
	EXPECT(pyksm_swapon(m, 16, 32768, NULL), -EINVAL);
	REFUSED(pyksm_swapon(m, UINT64_MAX, -1, NULL));
	REFUSED(pyksm_swapon(m, 0, -1, "/no/such/file"));
	REFUSED(pyksm_swapon(m, 0, -1, path)); /* empty */
	EXPECT(write(fd, data, 100), 100);
	REFUSED(pyksm_swapon(m, 0, -1, path)); /* short, no header */
	EXPECT(write(fd, data, sizeof(data)), (int64_t)sizeof(data));
	REFUSED(pyksm_swapon(m, 0, -1, path)); /* long enough, no header */
	REFUSED(pyksm_mkswap(path, 1, PAGE));
	REFUSED(pyksm_mkswap("/no/such/dir/file", 16, PAGE));
	EXPECT(pyksm_mkswap(path, 16, PAGE), 0);
	type = pyksm_swapon(m, 0, -1, path);
	EXPECT(type >= 0, 1);
	REFUSED(pyksm_swap_map(m, type, 16));
	REFUSED(pyksm_swap_map(m, type, UINT64_MAX));
	REFUSED(pyksm_swap_count(m, type, UINT64_MAX));
	EXPECT(pyksm_swapoff(m, type), 0);
	EXPECT(pyksm_swapoff(m, type), -EINVAL);
	close(fd);
	unlink(path);
	sound(m);
}

/* As many areas as swap types are left over from what the kernel uses some for (6.18: 8 of 32). */
static void test_areas(struct pyksm *m)
{
	int n = 0;

	while (pyksm_swapon(m, 8, -1, NULL) >= 0)
		n++;
	EXPECT(n, 24);
	EXPECT(pyksm_swapon(m, 8, -1, NULL), -EPERM);
	while (n--)
		EXPECT(pyksm_swapoff(m, n), 0);
	sound(m);
}

/* More than the machine has: the frames that are there stay usable. */
static void test_exhausted(struct pyksm *m, int pid)
{
	int64_t addr = pyksm_mmap(m, pid, 0, 512, -1);

	EXPECT(addr > 0, 1);
	EXPECT(pyksm_touch(m, pid, (uint64_t)addr, 512, 1, NULL), -ENOMEM);
	EXPECT(pyksm_free_frames(m, -1), 0);
	sound(m);
	EXPECT(pyksm_munmap(m, pid, (uint64_t)addr, 512), 0);
	EXPECT(pyksm_touch(m, pid, (uint64_t)addr, 1, 0, NULL), -EFAULT);
	sound(m);
}

/* No machine, but wild arguments as everywhere. */
static void test_limits(void)
{
	static const uint64_t sizes[] = { 0, PYKSM_LIMIT_MIN_BYTES - 1, PYKSM_LIMIT_MAX_BYTES + 1,
					  1ULL << 63, UINT64_MAX };
	static const uint32_t pages[] = { 1, 4, 12, 8192, UINT32_MAX };
	double ns = -1;

	for (int kind = 0; kind < PYKSM_NR_LIMITS; kind++) {
		EACH (i, sizes)
			EXPECT(pyksm_limit(kind, PAGE, sizes[i], &ns), -EINVAL);
		EACH (i, pages)
			EXPECT(pyksm_limit(kind, pages[i], PYKSM_LIMIT_MIN_BYTES, &ns), -EINVAL);
		EXPECT(pyksm_limit(kind, PAGE, PYKSM_LIMIT_MIN_BYTES, NULL), -EINVAL);
		EXPECT(ns == -1, 1);
		EXPECT(pyksm_limit(kind, 0, PYKSM_LIMIT_MIN_BYTES, &ns), 0);
		EXPECT(ns > 0, 1);
		ns = -1;
	}
	EXPECT(pyksm_limit(-1, PAGE, PYKSM_LIMIT_MIN_BYTES, &ns), -EINVAL);
	EXPECT(pyksm_limit(PYKSM_NR_LIMITS, PAGE, PYKSM_LIMIT_MIN_BYTES, &ns), -EINVAL);
}

int main(void)
{
	struct pyksm *m;
	int64_t addr;
	int pid;

	test_new();
	test_limits();
	m = new_machine();
	pid = pyksm_spawn(m);
	EXPECT(pid, 1);
	addr = pyksm_mmap(m, pid, 0, NPAGES, -1);
	EXPECT(addr > 0, 1);
	EXPECT(pyksm_write_pages(m, pid, (uint64_t)addr, NPAGES, data, NULL), 0);
	test_ranges(m, pid, (uint64_t)addr);
	test_nulls(m, pid, (uint64_t)addr);
	test_indexes(m, pid);
	test_ksm(m);
	test_swap(m);
	test_areas(m);
	test_exhausted(m, pid);
	EXPECT(pyksm_exit(m, pid), 0);
	sound(m);
	EXPECT(pyksm_free_frames(m, -1), 256);
	pyksm_free(m);
	return report();
}
