/* SPDX-License-Identifier: MIT */
/*
 * docs/findings.md, "Pages that may not be accessed stay merged". One thread moves a KSM page from node to node, the
 * other one takes access to its mappings away and moves them, one after the other; then it reads them.
 */
#include <pthread.h>

#include "guest.h"

#define PAGES 200 /* below max_page_sharing: all are one page */
#define KSM "/sys/kernel/mm/ksm/"

static char *volatile area;
static volatile int go;
static unsigned long moved;

static void *mover(void *unused)
{
	for (int to = 1;;) {
		void *page =
			area + (PAGES - 1) * PAGE; /* which stays accessible, and in its place */
		int status = -1;

		if (go)
			syscall(SYS_move_pages, 0, 1UL, &page, &to, &status, MOVE_ALL);
		if (status == to) {
			moved++;
			to = !to;
		}
	}
	return unused;
}

static void merge(void)
{
	memset(area, 7, PAGES * PAGE);
	madvise(area, PAGES * PAGE, MADV_MERGEABLE);
	put(KSM "run", "1");
	for (int i = 0; i < 5000 && get(KSM "pages_sharing") < PAGES - 1; i++)
		usleep(1000);
	put(KSM "run", "0");
}

static unsigned int move_mappings(char *to)
{
	unsigned int sum = 0;

	go = 1;
	for (unsigned long at = 0; at < (PAGES - 1) * PAGE; at += PAGE) {
		mprotect(area + at, PAGE, PROT_NONE);
		mremap(area + at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + at);
	}
	go = 0;
	usleep(20000);
	mprotect(to, (PAGES - 1) * PAGE, PROT_READ);
	for (unsigned long at = 0; at < (PAGES - 1) * PAGE; at += PAGE)
		sum += (unsigned char)to[at];
	return sum;
}

int main(int argc, char **argv)
{
	unsigned long rounds = 0, wrong = 0;
	pthread_t thread;

	begin(argc, argv);
	put(KSM "sleep_millisecs", "1");
	put(KSM "pages_to_scan", "5000");
	for (; in_time(); rounds++) {
		char *to = map(PAGES), *from = map(PAGES);

		area = from;
		if (!rounds)
			pthread_create(&thread, NULL, mover, NULL);
		merge();
		wrong += move_mappings(to) != 7 * (PAGES - 1);
		munmap(to, PAGES * PAGE);
		munmap(from, (PAGES - 1) * PAGE); /* the mover may still look at the last one */
	}
	printf("race: %lu rounds, %lu pages moved, %lu wrong sums\n", rounds, moved, wrong);
	return end();
}
