/* SPDX-License-Identifier: MIT */
/*
 * docs/findings.md, "A KSM page comes back while run becomes 2". KSM pages are out, and stay in the swap cache as a pipe
 * has them too. One thread reads them back, the other one writes 2 to run. Who maps the same frame as before after that
 * maps a KSM page. With a second argument the reads wait for the write, and nobody may.
 */
#include <pthread.h>

#include "guest.h"

#define PAGES 2
#define KSM "/sys/kernel/mm/ksm/"

static char *area;
static int apart, pagemap;
static unsigned long out, back;
static pthread_barrier_t both;

static void *reader(void *unused)
{
	for (;;) {
		pthread_barrier_wait(&both);
		if (apart)
			pthread_barrier_wait(&both);
		for (int i = 0; i < PAGES; i++)
			*(volatile char *)(area + i * PAGE);
		pthread_barrier_wait(&both);
	}
	return unused;
}

static void frames_of(uint64_t *frame)
{
	if (pread(pagemap, frame, PAGES * 8, (off_t)((uintptr_t)area / PAGE * 8)) != PAGES * 8)
		perror("pagemap");
}

/* Each page has its like in the second half until they are one. */
static void merge(void)
{
	for (int i = 0; i < 2 * PAGES; i++)
		memset(area + i * PAGE, 1 + i % PAGES, PAGE);
	madvise(area, 2 * PAGES * PAGE, MADV_MERGEABLE);
	put(KSM "run", "1");
	for (int i = 0; i < 5000 && get(KSM "pages_sharing") < PAGES; i++)
		usleep(200);
	if (get(KSM "pages_sharing") != PAGES)
		printf("race: the pages are not merged\n");
	put(KSM "run", "0");
	madvise(area + PAGES * PAGE, PAGES * PAGE, MADV_DONTNEED);
}

/* As long as the pipe has the pages, they stay in the swap cache. */
static void pin_and_page_out(int *ends)
{
	struct iovec pages = { area, PAGES * PAGE };
	uint64_t pte[PAGES];

	if (pipe(ends) || vmsplice(ends[1], &pages, 1, 0) != PAGES * PAGE)
		perror("vmsplice");
	madvise(area, PAGES * PAGE, MADV_PAGEOUT);
	frames_of(pte);
	for (int i = 0; i < PAGES; i++)
		out += pte[i] >> 62 & 1;
}

static void unmerge_beside_the_reader(void)
{
	static unsigned int random = 1;
	unsigned int delay;

	random = random * 1103515245 + 12345;
	delay = (random >> 16) % 300;
	pthread_barrier_wait(&both); /* the reader begins */
	for (volatile unsigned int i = 0; i < delay; i++)
		;
	put(KSM "run", "2");
	if (apart)
		pthread_barrier_wait(&both);
	pthread_barrier_wait(&both);
}

static void one_round(void)
{
	uint64_t before[PAGES], after[PAGES];
	int ends[2];

	merge();
	frames_of(before);
	pin_and_page_out(ends);
	unmerge_beside_the_reader();
	frames_of(after);
	for (int i = 0; i < PAGES; i++)
		back += after[i] >> 63 && after[i] == before[i];
	close(ends[0]);
	close(ends[1]);
}

int main(int argc, char **argv)
{
	unsigned long rounds = 0;
	pthread_t thread;

	begin(argc, argv);
	apart = argc > 2;
	swap_on();
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	put(KSM "sleep_millisecs", "0");
	put(KSM "pages_to_scan", "100");
	pthread_barrier_init(&both, NULL, 2);
	area = map(2 * PAGES);
	pthread_create(&thread, NULL, reader, NULL);
	for (; in_time() && !back; rounds++) {
		one_round();
		if (rounds % 256 == 255) /* the cache keeps slots that nobody needs any more */
			empty_swap();
	}
	printf("race: %lu rounds, %lu pages out, %lu back as KSM pages\n", rounds, out, back);
	return end();
}
