/* SPDX-License-Identifier: MIT */
/* The scheduler alone, with tasks that do nothing but take locks: who waits for whom, and what is said of it. */
#include "check.h"
#include "sched_internal.h"

static struct mm_struct mm[2] = { { .pid = 1, .mm_users = 1 }, { .pid = 2, .mm_users = 1 } };

/* What a run did, a letter each: who took (a, b) or gave back (A, B) the lock of which task's own mm. */
static char done[64];

static void note(char what)
{
	size_t n = strlen(done);

	if (n + 1 < sizeof(done))
		done[n] = what;
}

/* In turn: whoever can go on and was not the last. */
static int in_turn(void *arg, struct sched *s, uint32_t enabled)
{
	uint32_t others = s->current == NO_TASK ? enabled : enabled & ~(1u << s->current);

	(void)arg;
	return __builtin_ctz(others ? others : enabled);
}

static enum pyksm_end run(struct pyksm *m, int nr, task_fn fn, uint64_t max_steps, char *text)
{
	struct sched *s = sched_new(m);
	enum pyksm_end end;

	memset(done, 0, sizeof(done));
	s->choose = in_turn;
	s->max_steps = max_steps;
	for (int i = 0; i < nr; i++)
		EXPECT(sched_add(s, fn, NULL), 0);
	current_machine = NULL;
	sched_run(s);
	end = s->end;
	memcpy(text, s->text, PYKSM_TEXT);
	if (end == PYKSM_END_DONE)
		EXPECT(s->nr_locks, 0);
	sched_free(s);
	return end;
}

/* Each his own first, then the other's. */
static void crosswise(struct pyksm *m, int task, void *arg)
{
	(void)arg;
	down_write(m, &mm[task], PT_OP_MMAP_SEM);
	note((char)('a' + task));
	down_write(m, &mm[!task], PT_UNUSE_MMAP_SEM);
	note((char)('b' - task));
	up_write(m, &mm[!task]);
	up_write(m, &mm[task]);
}

/* Two read the same at a time, the third wants it alone. */
static void two_read(struct pyksm *m, int task, void *arg)
{
	(void)arg;
	if (task == 2) {
		down_write(m, &mm[0], PT_OP_MMAP_SEM);
		note('w');
		up_write(m, &mm[0]);
		return;
	}
	down_read(m, &mm[0], PT_FAULT_MMAP_SEM);
	note((char)('a' + task));
	sched_point(m, PT_TASK_NEXT_OP);
	EXPECT(down_read_trylock(m, &mm[0], PT_UNUSE_MMAP_SEM_TRYLOCK), 1);
	note((char)('A' + task));
	up_read(m, &mm[0]);
}

static void for_ever(struct pyksm *m, int task, void *arg)
{
	(void)arg, (void)task;
	for (;;)
		sched_point(m, PT_TASK_NEXT_OP);
}

/* mm/rmap.c has mmap_sem outside of pte locks. */
static void wrong_way_round(struct pyksm *m, int task, void *arg)
{
	(void)arg;
	pte_lock(m, &mm[task], 4096, PT_ZAP_PTL);
	down_read(m, &mm[task], PT_OP_MMAP_SEM);
}

static void text_is(const char *got, const char *wanted)
{
	if (strcmp(got, wanted))
		fprintf(stderr, "text: %s\n", got);
	EXPECT(strcmp(got, wanted), 0);
}

int main(void)
{
	struct pyksm_config config = { .nodes = 1, .frames = 64 };
	char text[PYKSM_TEXT];
	int err;
	struct pyksm *m = pyksm_new(&config, &err);

	EXPECT(run(m, 2, crosswise, 100, text), PYKSM_END_DEADLOCK);
	text_is(done, "ab");
	text_is(text, "task 0 waits at unuse_mm:mmap_sem for mmap_sem of pid 2, which task 1 has; "
		      "task 1 waits at unuse_mm:mmap_sem for mmap_sem of pid 1, which task 0 has");
	EXPECT(run(m, 1, crosswise, 100, text), PYKSM_END_DONE);
	text_is(done, "ab");
	EXPECT(run(m, 3, two_read, 100, text), PYKSM_END_DONE);
	text_is(done, "abABw");
	EXPECT(run(m, 2, for_ever, 7, text), PYKSM_END_LIVELOCK);
	text_is(text, "no end after 7 steps");
	EXPECT(run(m, 2, wrong_way_round, 100, text), PYKSM_END_OOPS);
	text_is(text, "BUG: lock order: mmap_sem of pid 1 is waited for with pte lock of pid 1 at "
		      "0x0 held");
	EXPECT(pyksm_spawn(m), -EIO);
	pyksm_free(m);
	return report();
}
