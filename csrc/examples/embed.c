/* SPDX-License-Identifier: MIT */
/*
 * An embedder: two processes with the same pages, merged by KSM, pushed out, faulted back in part,
 * and the rest brought back by swapoff under both policies.
 *
 *	cc embed.c $(pkg-config --cflags --libs pyksm) -o embed && ./embed
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pyksm.h>

#define NPAGES 64
#define PAGE 4096

/* Every int of the library is a count or an id, or a negative errno. */
#define TRY(call)                                                                                  \
	do {                                                                                       \
		int64_t ret_ = (call);                                                             \
		if (ret_ < 0) {                                                                    \
			fprintf(stderr, "%s: %s\n", #call, strerror((int)-ret_));                  \
			return -1;                                                                 \
		}                                                                                  \
	} while (0)

struct guest {
	int pid;
	int64_t addr;
};

/* A guest with NPAGES pages: the first half zero, the other half the same in every guest. */
static int guest_start(struct pyksm *m, struct guest *ret)
{
	static unsigned char data[NPAGES * PAGE];

	for (int page = NPAGES / 2; page < NPAGES; page++)
		memset(data + page * PAGE, page, PAGE);
	TRY(ret->pid = pyksm_spawn(m));
	TRY(ret->addr = pyksm_mmap(m, ret->pid, 0, NPAGES, -1));
	TRY(pyksm_write_pages(m, ret->pid, (uint64_t)ret->addr, NPAGES, data, NULL));
	TRY(pyksm_madvise(m, ret->pid, (uint64_t)ret->addr, NPAGES, PYKSM_MADV_MERGEABLE));
	return 0;
}

static int guest_check(struct pyksm *m, const struct guest *guest)
{
	unsigned char data[PAGE];

	for (int page = 0; page < NPAGES; page++) {
		unsigned char expected = (unsigned char)(page < NPAGES / 2 ? 0 : page);

		TRY(pyksm_read(m, guest->pid, (uint64_t)guest->addr + (uint64_t)page * PAGE, data,
			       PAGE));
		if (data[0] != expected || memcmp(data, data + 1, PAGE - 1)) {
			fprintf(stderr, "page %d of process %d changed\n", page, guest->pid);
			return -1;
		}
	}
	return 0;
}

static int ksm_count(struct pyksm *m, const char *key)
{
	int64_t value;

	TRY(pyksm_ksm_read(m, key, &value));
	printf("  %-16s %" PRId64 "\n", key, value);
	return 0;
}

static void print_counters(struct pyksm *m, const char *const *names)
{
	for (; *names; names++)
		for (int i = 0; i < pyksm_nr_counters(); i++)
			if (!strcmp(pyksm_counter_name(i), *names))
				printf("  %-24s %" PRIu64 "\n", *names, pyksm_counter(m, i));
}

static int simulate(struct pyksm *m)
{
	static const char *const work[] = { "swap_readpage", "unuse_pte", "ksm_might_need_to_copy",
					    "copy_page", NULL };
	struct guest guests[2];
	struct pyksm_area area;
	char report[4096];
	int type;

	TRY(guest_start(m, &guests[0]));
	TRY(guest_start(m, &guests[1]));
	TRY(pyksm_ksm_scan(m, 2));
	puts("merged:");
	TRY(ksm_count(m, "pages_shared"));
	TRY(ksm_count(m, "pages_sharing"));

	TRY(type = pyksm_swapon(m, 1024, -1, NULL));
	TRY(pyksm_swapout(m, NULL, 0));
	TRY(pyksm_area_at(m, 0, &area));
	printf("swapped out to %" PRIu64 " slots\n", area.used);

	/* The first guest looks at one page; all the others come back by swapoff. */
	TRY(pyksm_touch(m, guests[0].pid, (uint64_t)guests[0].addr, 1, 0, NULL));
	TRY(pyksm_swapoff(m, type));
	puts("work:");
	print_counters(m, work);
	puts("after swapoff:");
	TRY(ksm_count(m, "pages_shared"));
	TRY(ksm_count(m, "pages_sharing"));

	TRY(guest_check(m, &guests[0]));
	TRY(guest_check(m, &guests[1]));
	if (pyksm_census(m, 0, report, sizeof(report)) != 0) {
		fputs(report, stderr);
		return -1;
	}
	return 0;
}

int main(void)
{
	static const char *const name[] = { "read again", "copy" };

	printf("pyksm %s\n", pyksm_version());
	for (uint32_t policy = PYKSM_POLICY_REREAD; policy <= PYKSM_POLICY_MEMCPY; policy++) {
		struct pyksm_config config = { .frames = 4096, .policy = policy };
		int err;
		struct pyksm *m = pyksm_new(&config, &err);

		if (!m) {
			fprintf(stderr, "pyksm_new: %s\n", strerror(-err));
			return EXIT_FAILURE;
		}
		printf("\npolicy: %s\n", name[policy]);
		err = simulate(m);
		pyksm_free(m);
		if (err)
			return EXIT_FAILURE;
	}
	puts("\nnot one byte changed");
	return EXIT_SUCCESS;
}
