/* SPDX-License-Identifier: MIT */
/*
 * The host runs out of memory at the n-th allocation, for every n that one long program has: each call
 * answers -ENOMEM or goes on without, the census passes after each, and nothing leaks (under ASan).
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pyksm.h"

#define NPAGES 64
#define PAGE 4096

static long countdown = -1; /* allocations until the one that fails; below 0: none does */
static bool failed;
static long nth;
static int wrong;

static bool out_of_memory(void)
{
	if (countdown < 0 || countdown-- > 0)
		return false;
	failed = true;
	return true;
}

void *fail_malloc(size_t size)
{
	return out_of_memory() ? NULL : malloc(size);
}

void *fail_calloc(size_t n, size_t size)
{
	return out_of_memory() ? NULL : calloc(n, size);
}

void *fail_realloc(void *old, size_t size)
{
	return out_of_memory() ? NULL : realloc(old, size);
}

int fail_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return out_of_memory() ? EAGAIN : pthread_create(ret, attr, fn, arg);
}

void *fail_mmap(void *addr, size_t len, int prot, int flags, int fd, long offset)
{
	return out_of_memory() ? MAP_FAILED : mmap(addr, len, prot, flags, fd, offset);
}

/* What a call may answer once an earlier one has failed and left out what this one relies on. */
static bool is_expected(int64_t ret)
{
	return ret >= 0 || ret == -ENOMEM || ret == -EAGAIN || ret == -ESRCH || ret == -EINVAL ||
	       ret == -EFAULT || ret == -EBUSY;
}

static int64_t checked(struct pyksm *m, const char *call, int64_t ret)
{
	char lines[1024];
	long left = countdown;

	countdown = -1; /* the census itself needs memory */
	if (!is_expected(ret)) {
		printf("n = %ld: %s answers %lld\n", nth, call, (long long)ret);
		wrong++;
	}
	if (pyksm_census(m, 0, lines, sizeof(lines))) {
		printf("n = %ld: after %s:\n%s", nth, call, lines);
		wrong++;
	}
	countdown = left;
	return ret;
}

#define CALL(expr) checked(m, #expr, expr)

static void merge_and_swap_out(struct pyksm *m, int a, int b, int64_t at_a, int64_t at_b)
{
	static unsigned char contents[NPAGES * PAGE];

	for (int i = 0; i < NPAGES; i++)
		memset(contents + i * PAGE, i / 8, PAGE);
	CALL(pyksm_write_pages(m, a, at_a, NPAGES, contents, NULL));
	CALL(pyksm_write_pages(m, b, at_b, NPAGES, contents, NULL));
	CALL(pyksm_madvise(m, a, at_a, NPAGES, PYKSM_MADV_MERGEABLE));
	CALL(pyksm_madvise(m, b, at_b + 3 * PAGE, NPAGES / 2, PYKSM_MADV_MERGEABLE));
	CALL(pyksm_ksm_scan(m, 3));
	CALL(pyksm_pin(m, a, at_a, 4));
	CALL(pyksm_unpin(m, a, at_a, 2));
	CALL(pyksm_swapon(m, 50, -1, NULL));
	CALL(pyksm_swapon(m, 80, 3, NULL));
	CALL(pyksm_swapout(m, NULL, 0));
}

static void change(struct pyksm *m, int a, int b, int64_t at_a)
{
	int status[NPAGES];
	int child = (int)CALL(pyksm_fork(m, a)), grandchild = (int)CALL(pyksm_fork(m, child));

	CALL(pyksm_touch(m, child, at_a, 20, 1, NULL));
	CALL(pyksm_mprotect(m, child, at_a + 5 * PAGE, 5, PYKSM_PROT_READ));
	CALL(pyksm_munmap(m, child, at_a + 7 * PAGE, 6));
	CALL(pyksm_mremap(m, a, at_a + 10 * PAGE, 10, at_a + (1 << 22)));
	CALL(pyksm_migrate(m, a, at_a, 20, 1, status));
	for (int i = 0; i < 70; i++) { /* more sharers of a slot than one byte counts */
		int sharer = (int)CALL(pyksm_fork(m, b));

		if (i % 2)
			CALL(pyksm_exit(m, sharer));
	}
	CALL(pyksm_exit(m, grandchild));
}

static void program(struct pyksm *m)
{
	static unsigned char contents[NPAGES * PAGE];
	int a = (int)CALL(pyksm_spawn(m)), b = (int)CALL(pyksm_spawn(m));
	int64_t at_a = CALL(pyksm_mmap(m, a, 1 << 30, NPAGES, -1));
	int64_t at_b = CALL(pyksm_mmap(m, b, 1 << 30, NPAGES, 1));

	at_a = at_a < 0 ? 1 << 30 : at_a;
	at_b = at_b < 0 ? 1 << 30 : at_b;
	merge_and_swap_out(m, a, b, at_a, at_b);
	change(m, a, b, at_a);
	CALL(pyksm_ksm_scan(m, 2));
	CALL(pyksm_madvise(m, b, at_b, NPAGES / 4, PYKSM_MADV_DONTNEED));
	CALL(pyksm_ksm_write(m, "run", 2));
	CALL(pyksm_ksm_write(m, "merge_across_nodes", 0));
	CALL(pyksm_swapoff(m, 0));
	CALL(pyksm_swapoff(m, 1));
	CALL(pyksm_exit(m, a));
	CALL(pyksm_read_pages(m, b, at_b, NPAGES, contents, NULL));
}

/* The program with each allocation failing in turn, on machines that move contents in that way. */
static int all_failures(struct pyksm_config config)
{
	int made = 0;

	config.nodes = 2;
	config.frames = 6000;
	config.agent_pages = 5;

	nth = 0;
	do {
		int err;
		struct pyksm *m;

		failed = false;
		countdown = nth;
		config.policy = nth & 1;
		m = pyksm_new(&config, &err);
		if (m) {
			made++;
			program(m);
		} else if (err != -ENOMEM) {
			printf("n = %ld: pyksm_new answers %d\n", nth, err);
			wrong++;
		}
		countdown = -1;
		pyksm_free(m);
		nth++;
	} while (failed);
	printf("%ld runs, %d of them with a machine, %d wrong\n", nth, made, wrong);
	return made;
}

int main(void)
{
	static const struct pyksm_config ways[] = {
		{ .transfer = PYKSM_TRANSFER_COPY },
		{ .transfer = PYKSM_TRANSFER_REFERENCE },
		{ .profile = "3.9", .walk = PYKSM_WALK_COMPUTED },
	};

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (all_failures(ways[i]) < 10)
			wrong++;
	return wrong != 0;
}
