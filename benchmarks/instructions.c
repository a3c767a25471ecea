/* SPDX-License-Identifier: MIT */
/*
 * The core's hot loops, one a call, for callgrind: `instructions NAME` builds what the loop wants, then runs
 * it in measured().  Prints how many ptes that was.  Without a name it prints the names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyksm.h"

#define PAGE 4096ULL
#define NPAGES 4096ULL /* of a population */
#define FEW 1024ULL /* where every entry looks at every pte */
#define PROCS 8
#define CONTENT 8 /* bytes: what moves them is libc's and not looked at here */

static struct pyksm *m;
static uint64_t region[PROCS]; /* process k + 1's */

static int64_t must(int64_t ret)
{
	if (ret < 0) {
		fprintf(stderr, "errno %d\n", (int)-ret);
		exit(1);
	}
	return ret;
}

/* ---- populations ---- */
static uint32_t transfer = PYKSM_TRANSFER_COPY;

static void machine(const char *profile, uint32_t walk)
{
	struct pyksm_config config = { .profile = profile, .page_size = CONTENT, .walk = walk };
	int err;

	config.transfer = transfer;
	config.frames = 4 * NPAGES;
	m = pyksm_new(&config, &err);
	must(m ? 0 : err);
}

/* One process with n pages whose contents are the words first, first + 1, ... */
static void process(int k, uint64_t n, uint64_t first)
{
	uint64_t *words = malloc(n * CONTENT);
	int pid = (int)must(pyksm_spawn(m));

	for (uint64_t i = 0; i < n; i++)
		words[i] = (first + i) * 0x9E3779B97F4A7C15ULL;
	region[k] = (uint64_t)must(pyksm_mmap(m, pid, 0, n, -1));
	must(pyksm_write_pages(m, pid, region[k], n, words, NULL));
	free(words);
}

/* The same contents in each of PROCS processes, ready to be merged. */
static void likes(void)
{
	for (int k = 0; k < PROCS; k++) {
		process(k, NPAGES / PROCS, 1);
		must(pyksm_madvise(m, k + 1, region[k], NPAGES / PROCS, PYKSM_MADV_MERGEABLE));
	}
}

static void swapped_out(void)
{
	must(pyksm_swapon(m, NPAGES + 64, -1, NULL));
	must(pyksm_swapout(m, NULL, 0));
}

/* ---- what is measured ---- */
static void swapoff(void)
{
	must(pyksm_swapoff(m, 0));
}

static void swapout(void)
{
	must(pyksm_swapout(m, NULL, 0));
}

static void scan(void)
{
	must(pyksm_ksm_scan(m, 1));
}

static void merge(void)
{
	must(pyksm_ksm_scan(m, 3));
}

static void fork_first(void)
{
	must(pyksm_fork(m, 1));
}

static void exit_first(void)
{
	must(pyksm_exit(m, 1));
}

static void write_first(void)
{
	must(pyksm_touch(m, 1, region[0], NPAGES, 1, NULL));
}

static void walk_each(void)
{
	for (uint64_t i = 0; i < NPAGES; i++)
		must(pyksm_rmap_walk(m, 1, region[0] + i * PAGE));
}

static void walk_last(void)
{
	must(pyksm_rmap_walk(m, 1, region[0]));
}

static void observe(void)
{
	struct pyksm_page *pages = malloc(NPAGES * sizeof(*pages));

	must(pyksm_pagemap(m, 1, region[0], NPAGES, pages));
	free(pages);
}

/* ---- what it wants to find ---- */
static void distinct(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	process(0, NPAGES, 1);
}

static void distinct_in_swap(void)
{
	distinct();
	swapped_out();
}

static void distinct_in_swap_by_reference(void)
{
	transfer = PYKSM_TRANSFER_REFERENCE;
	distinct_in_swap();
}

static void ksm_in_swap(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	likes();
	merge();
	swapped_out();
}

static void forked_in_swap(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	process(0, NPAGES / 2, 1);
	must(pyksm_fork(m, 1));
	swapped_out();
}

static void few_in_swap_of(uint32_t walk)
{
	machine("3.9", walk);
	process(0, FEW, 1);
	swapped_out();
}

static void few_in_swap(void)
{
	few_in_swap_of(PYKSM_WALK_LITERAL);
}

static void few_in_swap_computed(void)
{
	few_in_swap_of(PYKSM_WALK_COMPUTED);
}

static void swap_on(void)
{
	distinct();
	must(pyksm_swapon(m, NPAGES + 64, -1, NULL));
}

static void ksm_swap_on(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	likes();
	merge();
	must(pyksm_swapon(m, NPAGES + 64, -1, NULL));
}

static void alike(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	likes();
}

static void merged(void)
{
	alike();
	merge();
}

static void unmergeable_twice_seen(void)
{
	distinct();
	must(pyksm_madvise(m, 1, region[0], NPAGES, PYKSM_MADV_MERGEABLE));
	must(pyksm_ksm_scan(m, 2));
}

static void mapped(void)
{
	machine("6.18", PYKSM_WALK_LITERAL);
	must(pyksm_spawn(m));
	region[0] = (uint64_t)must(pyksm_mmap(m, 1, 0, NPAGES, -1));
}

static void forked(void)
{
	distinct();
	must(pyksm_fork(m, 1));
}

static void split(void)
{
	distinct();
	for (uint64_t i = 0; i < NPAGES; i += 2)
		must(pyksm_mprotect(m, 1, region[0] + i * PAGE, 1, PYKSM_PROT_READ));
}

static void one_content(void)
{
	uint64_t *zeros = calloc(NPAGES, CONTENT);

	mapped();
	must(pyksm_ksm_write(m, "max_page_sharing", 1 << 30));
	must(pyksm_write_pages(m, 1, region[0], NPAGES, zeros, NULL));
	free(zeros);
	must(pyksm_madvise(m, 1, region[0], NPAGES, PYKSM_MADV_MERGEABLE));
	merge();
}

static const struct loop {
	const char *name;
	void (*prepare)(void), (*run)(void);
	uint64_t ptes;
} loops[] = {
	{ "swapoff mm by mm, distinct", distinct_in_swap, swapoff, NPAGES },
	{ "swapoff mm by mm, by reference", distinct_in_swap_by_reference, swapoff, NPAGES },
	{ "swapoff mm by mm, forked", forked_in_swap, swapoff, NPAGES },
	{ "swapoff mm by mm, ksm", ksm_in_swap, swapoff, NPAGES },
	/* Each of the entries looks at half of the ptes, on average. */
	{ "swapoff entry by entry, literal", few_in_swap, swapoff, FEW *FEW / 2 },
	{ "swapoff entry by entry, computed", few_in_swap_computed, swapoff, FEW },
	{ "swapout, distinct", swap_on, swapout, NPAGES },
	{ "swapout, ksm", ksm_swap_on, swapout, NPAGES },
	{ "first merge", alike, merge, NPAGES },
	{ "scan, merged", merged, scan, NPAGES },
	{ "scan, nothing to merge", unmergeable_twice_seen, scan, NPAGES },
	{ "fault, first write", mapped, write_first, NPAGES },
	{ "fault, copy on write", forked, write_first, NPAGES },
	{ "fault, swap-in", distinct_in_swap, write_first, NPAGES },
	{ "fork", distinct, fork_first, NPAGES },
	{ "exit", distinct, exit_first, NPAGES },
	{ "exit, swapped out", distinct_in_swap, exit_first, NPAGES },
	{ "rmap walk, a vma a page", split, walk_each, NPAGES },
	{ "rmap walk, one ksm page", one_content, walk_last, NPAGES },
	{ "page-table walk", distinct, observe, NPAGES },
};

/* The one function that callgrind collects in. */
__attribute__((noinline)) void measured(void (*run)(void))
{
	run();
}

int main(int argc, char **argv)
{
	size_t n = sizeof(loops) / sizeof(*loops);

	pyksm_simd("portable"); /* the same instructions on every host */
	for (size_t i = 0; i < n; i++) {
		if (argc < 2) {
			puts(loops[i].name);
			continue;
		}
		if (strcmp(argv[1], loops[i].name))
			continue;
		loops[i].prepare();
		measured(loops[i].run);
		printf("%llu\n", (unsigned long long)loops[i].ptes);
		pyksm_free(m);
		return 0;
	}
	return argc < 2 ? 0 : 2;
}
