/* SPDX-License-Identifier: MIT */
/*
 * The nth allocation, read, write or signal check fails, for every n that a program reaches: the
 * census must pass after every step, whatever the step answered, and contents that a step did not
 * lose must still be there.  Machines of all kernels at a time, each on a thread, must not see each other.
 */
#include <errno.h>
#include <pthread.h>

#include "check.h"
#include "pyksm.h"

#define NPAGES 8
#define PAGE 4096
#define REGION(k) ((4ULL + (k)) << 30)
#define NTH_MAX 4000

enum step_kind {
	SPAWN,
	FORK,
	EXIT,
	MMAP,
	MUNMAP,
	WRITE,
	READ,
	MADVISE,
	MPROTECT,
	MLOCK,
	MUNLOCK,
	MREMAP,
	MIGRATE,
	SWAPON,
	SWAPOFF,
	SWAPOUT,
	SCAN,
	KSM_RUN,
	NODES,
	KNOB, /* region: which */
	MERGE_ANY,
};

struct step {
	enum step_kind kind;
	int pid, region, first, npages, arg;
};

/* Everything that allocates, in an order in which much is shared when it does. */
static const struct step program[] = {
	{ SPAWN, 1, 0, 0, 0, 0 },
	{ SPAWN, 2, 0, 0, 0, 0 },
	{ MMAP, 1, 0, 0, NPAGES, -1 },
	{ MMAP, 2, 0, 0, NPAGES, 1 },
	{ MADVISE, 1, 0, 0, NPAGES, PYKSM_MADV_MERGEABLE },
	{ MADVISE, 2, 0, 0, NPAGES, PYKSM_MADV_MERGEABLE },
	{ NODES, 0, 0, 0, 0, 0 },
	{ NODES, 0, 0, 0, 0, 1 },
	{ KNOB, 0, 0, 0, 0, 2 },
	{ KNOB, 0, 1, 0, 0, 1 },
	{ WRITE, 1, 0, 0, NPAGES, 7 },
	{ WRITE, 2, 0, 0, NPAGES, 7 },
	{ WRITE, 1, 0, 0, 2, 9 },
	{ WRITE, 2, 0, 6, 2, 0 },
	{ FORK, 1, 0, 0, 0, 3 },
	{ MPROTECT, 1, 0, 2, 2, PYKSM_PROT_READ },
	{ MLOCK, 2, 0, 5, 3, 0 },
	{ SCAN, 0, 0, 0, 0, 2 },
	{ WRITE, 3, 0, 0, 1, 5 },
	{ MREMAP, 3, 0, 4, 2, 1 },
	{ MIGRATE, 1, 0, 0, NPAGES, 1 },
	{ SWAPON, 0, 0, 0, 64, 0 },
	{ SWAPOUT, 0, 0, 0, 0, 0 },
	{ FORK, 3, 0, 0, 0, 4 },
	{ READ, 2, 0, 0, 3, 0 },
	{ MERGE_ANY, 2, 0, 0, 0, 1 },
	{ MMAP, 2, 2, 0, 2, -1 },
	{ WRITE, 2, 2, 0, 2, 0 },
	{ MUNMAP, 4, 0, 1, 2, 0 },
	{ MADVISE, 4, 1, 0, 1, PYKSM_MADV_DONTNEED },
	{ MADVISE, 1, 0, 4, 2, PYKSM_MADV_WILLNEED },
	{ MLOCK, 3, 0, 1, 2, 0 },
	{ MUNLOCK, 2, 0, 6, 1, 0 },
	{ SWAPOFF, 0, 0, 0, 0, 0 },
	{ SCAN, 0, 0, 0, 0, 3 },
	{ MADVISE, 2, 0, 0, 3, PYKSM_MADV_UNMERGEABLE },
	{ MPROTECT, 1, 0, 2, 2, PYKSM_PROT_READ | PYKSM_PROT_WRITE },
	{ KNOB, 0, 2, 0, 0, 1 },
	{ SCAN, 0, 0, 0, 0, 6 },
	{ FORK, 2, 0, 0, 0, 5 },
	{ MERGE_ANY, 2, 0, 0, 0, 0 },
	{ EXIT, 3, 0, 0, 0, 0 },
	{ KSM_RUN, 0, 0, 0, 0, 2 },
	{ KSM_RUN, 0, 0, 0, 0, 0 },
	{ SWAPON, 0, 0, 0, 32, 5 },
	{ SWAPOUT, 0, 0, 0, 0, 0 },
	{ SWAPOFF, 0, 0, 0, 0, 0 },
	{ EXIT, 1, 0, 0, 0, 0 },
};

static int64_t madvise_pages(struct pyksm *m, const struct step *s)
{
	return pyksm_madvise(m, s->pid, REGION(s->region) + (uint64_t)s->first * PAGE,
			     (uint64_t)s->npages, s->arg);
}

static int64_t write_value(struct pyksm *m, const struct step *s)
{
	static _Thread_local unsigned char data[NPAGES * PAGE];

	for (int page = 0; page < s->npages; page++)
		memset(data + page * PAGE, s->arg ? s->arg + page % 2 : 0, PAGE);
	return pyksm_write_pages(m, s->pid, REGION(s->region) + (uint64_t)s->first * PAGE,
				 (uint64_t)s->npages, data, NULL);
}

/* What this kernel does not have is no failure. */
static int64_t later_than_3_9(struct pyksm *m, const struct step *s)
{
	static const char *const knobs[] = { "max_page_sharing", "use_zero_pages", "smart_scan" };
	int64_t ret;

	if (s->kind == KNOB) {
		ret = pyksm_ksm_write(m, knobs[s->region], s->arg);
		return ret == -ENOENT ? 0 : ret;
	}
	ret = pyksm_prctl_memory_merge(m, s->pid, s->arg);
	return ret == -EINVAL ? 0 : ret;
}

static int64_t carry_out(struct pyksm *m, const struct step *s)
{
	static _Thread_local unsigned char data[NPAGES * PAGE];
	uint64_t addr = REGION(s->region) + (uint64_t)s->first * PAGE, n = (uint64_t)s->npages;

	switch (s->kind) {
	case SPAWN:
		return pyksm_spawn(m);
	case FORK:
		return pyksm_fork(m, s->pid);
	case EXIT:
		return pyksm_exit(m, s->pid);
	case MMAP:
		return pyksm_mmap(m, s->pid, addr, n, s->arg);
	case MUNMAP:
		return pyksm_munmap(m, s->pid, addr, n);
	case WRITE:
		return write_value(m, s);
	case READ:
		return pyksm_read_pages(m, s->pid, addr, n, data, NULL);
	case MADVISE:
		return madvise_pages(m, s);
	case MPROTECT:
		return pyksm_mprotect(m, s->pid, addr, n, s->arg);
	case MLOCK:
		return pyksm_mlock(m, s->pid, addr, n);
	case MUNLOCK:
		return pyksm_munlock(m, s->pid, addr, n);
	case MREMAP:
		return pyksm_mremap(m, s->pid, addr, n, REGION(s->arg));
	case MIGRATE:
		return pyksm_migrate(m, s->pid, addr, n, s->arg, NULL);
	case SWAPON:
		return pyksm_swapon(m, n, s->arg, NULL);
	case SWAPOFF:
		return pyksm_swapoff(m, 0);
	case SWAPOUT:
		return pyksm_swapout(m, NULL, 0);
	case SCAN:
		return pyksm_ksm_scan(m, (uint32_t)s->arg);
	case KSM_RUN:
		return pyksm_ksm_write(m, "run", s->arg);
	case NODES:
		return pyksm_ksm_write(m, "merge_across_nodes", s->arg);
	case KNOB:
	case MERGE_ANY:
		return later_than_3_9(m, s);
	}
	return -ENOSYS;
}

struct sweep {
	const char *profile;
	uint32_t policy;
	int wrong, reached[PYKSM_NR_FAULT_KINDS];
};

static struct sweep sweeps[] = {
	{ .profile = "3.9", .policy = PYKSM_POLICY_REREAD },
	{ .profile = "3.9", .policy = PYKSM_POLICY_MEMCPY },
	{ .profile = "4.19" },
	{ .profile = "6.1" },
	{ .profile = "6.12" },
	{ .profile = "6.18" },
};

#define NR_SWEEPS (sizeof(sweeps) / sizeof(sweeps[0]))

/* Runs the program; *first is the first errno of a step, 0 where all went well. */
static int run(int kind, uint64_t nth, const struct sweep *s, int *first)
{
	struct pyksm_config config = {
		.nodes = 2, .frames = 512, .policy = s->policy, .profile = s->profile
	};
	int err, found = 0;
	struct pyksm *m = pyksm_new(&config, &err);
	char wrong[4096];

	*first = 0;
	if (!m)
		return 1;
	if (nth)
		found = pyksm_inject(m, kind, nth) != 0;
	for (size_t i = 0; i < sizeof(program) / sizeof(program[0]) && !found; i++) {
		int64_t ret = carry_out(m, &program[i]);

		if (ret < 0 && !*first)
			*first = (int)ret;
		found = pyksm_census(m, 0, wrong, sizeof(wrong));
		if (found)
			fprintf(stderr, "%s kind %d nth %d step %d gave %d: %s\n", s->profile, kind,
				(int)nth, (int)i, (int)ret, wrong);
	}
	while (pyksm_next_event(m))
		;
	pyksm_free(m);
	return found;
}

/*
 * A failure may be swallowed (a merge that is not tried, a write that is tried again later), so
 * one run without an errno does not say that nothing was left to fail; 64 in a row do.
 */
static void *sweep(void *arg)
{
	struct sweep *s = arg;
	int first;

	for (int kind = 0; kind < PYKSM_NR_FAULT_KINDS; kind++) {
		int quiet = 0;

		for (uint64_t nth = 1; nth < NTH_MAX && quiet < 64; nth++) {
			s->wrong += run(kind, nth, s, &first) != 0;
			quiet = first ? 0 : quiet + 1;
			s->reached[kind] += first != 0;
		}
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[NR_SWEEPS];
	int first;

	for (size_t i = 0; i < NR_SWEEPS; i++) {
		EXPECT(run(0, 0, &sweeps[i], &first), 0);
		EXPECT(first, 0);
	}
	for (size_t i = 0; i < NR_SWEEPS; i++)
		EXPECT(pthread_create(&threads[i], NULL, sweep, &sweeps[i]), 0);
	for (size_t i = 0; i < NR_SWEEPS; i++) {
		EXPECT(pthread_join(threads[i], NULL), 0);
		EXPECT(sweeps[i].wrong, 0);
		for (int kind = 0; kind < PYKSM_NR_FAULT_KINDS; kind++)
			printf("%s policy %d kind %d: %d failures reported\n", sweeps[i].profile,
			       (int)sweeps[i].policy, kind, sweeps[i].reached[kind]);
		EXPECT(sweeps[i].reached[PYKSM_FAIL_PAGE] > 0, 1);
		EXPECT(sweeps[i].reached[PYKSM_FAIL_KMEM] > 0, 1);
		EXPECT(sweeps[i].reached[PYKSM_FAIL_SIGNAL] > 0, 1);
	}
	return report();
}
