/* SPDX-License-Identifier: MIT */
/*
 * docs/findings.md, "clear_refs does not stop writes to a page on its way". One thread moves pages from node to node,
 * the other one clears their soft-dirty bits, writes to each, and looks whether its bit has come back. With a second
 * argument the moves keep out of clear_refs' way, and nothing may be lost.
 */
#include <pthread.h>

#include "guest.h"

#define PAGES 1500

static char *area;
static unsigned long moved;
static int apart;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void *mover(void *unused)
{
	static void *pages[PAGES];
	static int nodes[PAGES], status[PAGES];

	for (int i = 0; i < PAGES; i++)
		pages[i] = area + (unsigned long)i * PAGE;
	for (int to = 1;; to = !to) {
		for (int i = 0; i < PAGES; i++)
			nodes[i] = to;
		if (apart)
			pthread_mutex_lock(&turn);
		syscall(SYS_move_pages, 0, (unsigned long)PAGES, pages, nodes, status, MOVE);
		if (apart)
			pthread_mutex_unlock(&turn);
		for (int i = 0; i < PAGES; i++)
			moved += status[i] == to;
		usleep(50);
	}
	return unused;
}

static unsigned int lost_pages(int pagemap)
{
	static uint64_t entry[PAGES];
	unsigned int lost = 0;

	if (pread(pagemap, entry, sizeof(entry), (off_t)((uintptr_t)area / PAGE * 8)) !=
	    sizeof(entry))
		perror("pagemap");
	for (int i = 0; i < PAGES; i++)
		lost += !(entry[i] >> 55 & 1);
	return lost;
}

int main(int argc, char **argv)
{
	unsigned long rounds = 0, lost = 0;
	pthread_t thread;
	int pagemap;

	begin(argc, argv);
	apart = argc > 2;
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	area = map(PAGES);
	memset(area, 1, PAGES * PAGE);
	pthread_create(&thread, NULL, mover, NULL);
	for (; in_time() && !lost; rounds++) {
		if (apart)
			pthread_mutex_lock(&turn);
		put("/proc/self/clear_refs", "4");
		if (apart)
			pthread_mutex_unlock(&turn);
		for (int i = 0; i < PAGES; i++)
			area[(unsigned long)i * PAGE]++;
		lost = lost_pages(pagemap);
	}
	printf("race: %lu rounds, %lu pages moved, %lu written pages not soft-dirty\n", rounds,
	       moved, lost);
	return end();
}
