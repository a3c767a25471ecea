/* SPDX-License-Identifier: MIT */
/*
 * Arenas and footprints, on random small programs of tasks: a machine that is put back is what it was, byte for
 * byte; the same choices lead to the same state; so do orders of steps with the same fingerprint; and whoever
 * leaves out what comes after a state that was there before finds the same ends.
 */
#include "play.h"

#define NR_PROGRAMS 60
#define NR_RUNS 120
#define NR_SEARCHES 60

/* ---- the same before the same ---- */
/* How many of the choices are to be made again, the last two of them the other way round. */
static size_t swap_neighbours(struct play *p)
{
	size_t i = p->nr_made > 1 ? below(p->nr_made - 1) : 0, n = p->nr_made;

	while (i + 2 < n && p->made[i] == p->made[i + 1])
		i++;
	if (i + 2 >= n)
		return n;
	p->made[i] ^= p->made[i + 1];
	p->made[i + 1] ^= p->made[i];
	p->made[i] ^= p->made[i + 1];
	return i + 2;
}

struct found {
	uint64_t fingerprint, state;
};

static int nr_equal, nr_runs, nr_odd_ends;

/* Each state by its fingerprint: one that was there before leads to the same. */
static void note(struct found *found, size_t *nr, struct found one, uint64_t program)
{
	for (size_t i = 0; i < *nr; i++) {
		if (found[i].fingerprint != one.fingerprint)
			continue;
		nr_equal++;
		if (found[i].state != one.state)
			fprintf(stderr, "program %" PRIu64 ":\n", program);
		EXPECT(found[i].state == one.state, 1);
		return;
	}
	found[(*nr)++] = one;
}

static void expect_as_marked(struct arena *a, const unsigned char *before, size_t used,
			     uint64_t program)
{
	size_t wrong = 0;

	for (size_t i = 0; i < used; i++)
		wrong += before[i] != ((const unsigned char *)a->base)[i];
	for (size_t i = used; i < used + ((size_t)1 << 20); i++)
		wrong += ((const unsigned char *)a->base)[i] != 0;
	if (wrong)
		fprintf(stderr, "program %" PRIu64 ": not put back\n", program);
	EXPECT(wrong, 0);
}

static void try_program(uint64_t number, bool traced)
{
	static struct found found[NR_RUNS];
	size_t nr = 0, used;
	struct arena *a;
	struct play p;
	struct pyksm *m;
	unsigned char *before;

	seed = number * 0x9E3779B97F4A7C15u + 1;
	m = new_machine(&a);
	used = a->used;
	before = malloc(used);
	memcpy(before, (const void *)a->base, used);
	random_program(&p, 2 + (int)below(2), MAX_OPS);
	p.choose = by_lot;
	for (int i = 0; i < NR_RUNS; i++) {
		uint64_t choices = seed + (uint64_t)i / 4 * 0x1234567;
		struct found one;

		p.sticky = i / 4 % 8;
		p.choices = choices; /* each twice, and then with two of them the other way round */
		p.nr_forced = i % 4 < 2 ? 0 : swap_neighbours(&p);
		if (run(m, &p, traced) != PYKSM_END_DONE)
			nr_odd_ends++;
		one.fingerprint = traced ? trace_fingerprint(m)
					 : choices + (uint64_t)i % 4 / 2 * (uint64_t)i;
		one.state = state_of(m, &p);
		note(found, &nr, one, number);
		nr_runs++;
		arena_restore(a);
		if (i < 4)
			expect_as_marked(a, before, used, number);
	}
	free(before);
	pyksm_free(m);
	arena_free(a);
}

/* ---- leaving out what was seen ---- */
#define MAX_WAITING 4096
#define MAX_SEEN 65536
#define MOST_PREEMPTIONS 2
#define LONGEST 120

struct waiting {
	uint16_t step[MOST_PREEMPTIONS], nr, used;
	uint8_t task[MOST_PREEMPTIONS];
};

struct search {
	struct play play; /* first: it is what choose() is given */
	bool prune, too_much;
	struct waiting waiting[MAX_WAITING], now;
	size_t nr_waiting, at, used;
	uint64_t seen[MAX_SEEN], ends[MAX_WAITING];
	unsigned char seen_used[MAX_SEEN];
	size_t nr_ends, nr_runs, nr_steps;
};

/* The state has been come to with as many preemptions left, or more. */
static bool is_old(struct search *x, const struct sched *s)
{
	uint64_t key = trace_fingerprint(s->m) * 31 + (uint64_t)s->current, at;

	for (int i = 0; i < s->nr_tasks; i++)
		key = key * 3 + s->task[i].yields;
	for (at = key % MAX_SEEN; x->seen[at] && x->seen[at] != key; at = (at + 1) % MAX_SEEN)
		;
	if (x->seen[at] && x->seen_used[at] <= x->used)
		return true;
	x->seen[at] = key;
	x->seen_used[at] = (unsigned char)x->used;
	return false;
}

static void leave_for_later(struct search *x, size_t step, int task, bool preempts)
{
	struct waiting *w = &x->waiting[x->nr_waiting];

	if (x->used + preempts > MOST_PREEMPTIONS || x->now.nr == MOST_PREEMPTIONS)
		return;
	if (x->nr_waiting == MAX_WAITING) {
		x->too_much = true;
		return;
	}
	*w = x->now;
	w->step[w->nr] = (uint16_t)step;
	w->task[w->nr++] = (uint8_t)task;
	x->nr_waiting++;
}

/* The current one, unless this is where to deviate from that; what else there is waits. */
static int in_search(void *arg, struct sched *s, uint32_t enabled)
{
	struct search *x = arg;
	size_t step = s->current == NO_TASK ? 0 : s->steps - 1;
	bool can = s->current != NO_TASK && enabled >> s->current & 1;
	int next = can ? s->current : __builtin_ctz(enabled);

	if (step > LONGEST)
		x->too_much = true;
	if (x->too_much)
		return -1;
	if (x->at < x->now.nr) {
		if (x->now.step[x->at] == step) {
			next = x->now.task[x->at++];
			x->used += can;
		}
		return next;
	}
	if (x->prune && is_old(x, s))
		return -1;
	for (int i = 0; i < s->nr_tasks; i++)
		if (i != next && enabled >> i & 1)
			leave_for_later(x, step, i, can);
	return next;
}

static void note_end(struct search *x, uint64_t end)
{
	for (size_t i = 0; i < x->nr_ends; i++)
		if (x->ends[i] == end)
			return;
	x->ends[x->nr_ends++] = end;
}

/* All ends within the bounds, or x->too_much. */
static void search(struct search *x, struct pyksm *m, struct arena *a, bool prune)
{
	x->prune = prune;
	x->nr_ends = x->nr_runs = x->nr_steps = 0;
	x->nr_waiting = 1;
	x->waiting[0] = (struct waiting){ { 0 }, 0, 0, { 0 } };
	memset(x->seen, 0, sizeof(x->seen));
	while (x->nr_waiting && !x->too_much) {
		enum pyksm_end end;

		x->now = x->waiting[--x->nr_waiting];
		x->at = x->used = 0;
		x->nr_runs++;
		end = run(m, &x->play, true);
		x->nr_steps += x->play.steps;
		if (end != PYKSM_END_MISFIT)
			note_end(x, end == PYKSM_END_DONE ? state_of(m, &x->play) : end);
		arena_restore(a);
	}
}

static size_t nr_without, nr_with, nr_compared;

static void compare_ends(uint64_t number)
{
	static struct search x, y;
	struct arena *a;
	struct pyksm *m;

	seed = number * 0x9E3779B97F4A7C15u + 7;
	m = new_machine(&a);
	memset(&x, 0, sizeof(x));
	random_program(&x.play, 2, 1 + (int)(number & 1));
	x.play.choose = in_search;
	y = x;
	for (int i = 0; i < 2 * MAX_OPS; i++) {
		struct pyksm_op *op = &y.play.ops[i / MAX_OPS][i % MAX_OPS];

		op->status = y.play.status[i / MAX_OPS][i % MAX_OPS];
		op->data = y.play.data[i / MAX_OPS][i % MAX_OPS];
	}
	search(&x, m, a, false);
	search(&y, m, a, true);
	arena_free(a);
	if (x.too_much || y.too_much)
		return;
	nr_compared++;
	nr_without += x.nr_steps;
	nr_with += y.nr_steps;
	if (x.nr_ends != y.nr_ends)
		fprintf(stderr, "search %" PRIu64 ":\n", number);
	EXPECT(y.nr_ends, x.nr_ends);
	for (size_t i = 0; i < x.nr_ends; i++)
		note_end(&y, x.ends[i]);
	EXPECT(y.nr_ends, x.nr_ends);
}

int main(void)
{
#ifdef PYKSM_TRACED
	bool traced = true;
#else
	bool traced = false;
#endif
	for (uint64_t i = 0; i < NR_PROGRAMS; i++)
		try_program(i, traced);
	printf("%d runs, %d of them equal to one before, %d did not end well\n", nr_runs, nr_equal,
	       nr_odd_ends);
	EXPECT(nr_equal >= nr_runs / 4, 1);
	for (uint64_t i = 0; traced && i < NR_SEARCHES; i++)
		compare_ends(i);
	printf("%zu searches: %zu steps, %zu where what was seen is left out\n", nr_compared,
	       nr_without, nr_with);
	EXPECT(!traced || nr_compared > NR_SEARCHES / 2, 1);
	EXPECT(!traced || nr_with < nr_without / 4 * 3, 1);
	return report();
}
