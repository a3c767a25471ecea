/* SPDX-License-Identifier: MIT */
/*
 * All schedules of a program, or many: each is run from the same machine, put back as it was, and judged.
 *
 * Exhaustive: a schedule is told by where it deviates from the one in which a task goes on for as long as it can.
 * One that has run leaves behind all that deviate from it once more, in the queue, as far as the number of
 * preemptions allows. Where a state is come to again (by steps of which the same had to come before the same, with
 * the same task current and no more preemptions left), the rest has been seen, or will be. Stateless: nothing is
 * kept of a state but its fingerprint. Unpruned: nothing is left out, to see that leaving out loses no finding.
 *
 * PCT: tasks have priorities by lot, and at some steps, by lot too, the current one's becomes the lowest. Random:
 * each next task is drawn. Both are repeatable: schedule k is that of the seed and k.
 */
#include <sys/mman.h>
#include <time.h>

#include "explore.h"

#define MAX_SEEN_BITS 22

static size_t seen_bytes(const struct pyksm_explore *x)
{
	return sizeof(*x->seen) * ((size_t)x->seen_mask + 1);
}

static uint64_t mix64(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53u;
	return x ^ x >> 33;
}

/* ---- states that were come to ---- */
/* Whether it was, with as many preemptions left or more; else it is noted. */
static bool seen_before(struct pyksm_explore *x, uint64_t key, uint32_t left)
{
	uint64_t tag = mix64(key) & ~0xffULL, mine = tag | (left + 1);

	for (uint32_t at = (uint32_t)(mix64(key) >> 40), looks = 0; looks < 64; at++, looks++) {
		_Atomic uint64_t *entry = &x->seen[at & x->seen_mask];
		uint64_t had = atomic_load(entry);

		if (!had && atomic_compare_exchange_strong(entry, &had, mine)) {
			atomic_fetch_add(&x->nr_seen, 1);
			return false;
		}
		if ((had & ~0xffULL) != tag)
			continue;
		while (had < mine)
			if (atomic_compare_exchange_weak(entry, &had, mine))
				return false;
		return true;
	}
	return false; /* too full here: what is not known to be old is taken for new */
}

/* What comes next depends on the state, on who is current, and on who has to wait for another's step. */
static uint64_t state_key(struct worker *w, const struct sched *s)
{
	uint64_t fingerprint = stage_fingerprint(w), yields = 0;

	for (int i = 0; i < s->nr_tasks; i++)
		yields |= (uint64_t)s->task[i].yields << i;
	return fingerprint ? mix64(fingerprint) + ((uint64_t)s->current << 8 | yields) : 0;
}

/* ---- the queue ---- */
static void push(struct worker *w, uint64_t step, int task, uint32_t used)
{
	struct pyksm_explore *x = w->x;
	uint32_t nr = w->item->nr;
	struct item *item = malloc(sizeof(*item) + (nr + 1) * sizeof(item->deviation[0]));

	pthread_mutex_lock(&x->lock);
	if (!item) {
		x->out_of_memory = true;
	} else {
		item->nr = nr + 1;
		item->used = used;
		memcpy(item->deviation, w->item->deviation, nr * sizeof(item->deviation[0]));
		item->deviation[nr] = (uint32_t)(step << 8) | (uint32_t)task;
		item->next = x->queue[used];
		x->queue[used] = item;
	}
	pthread_mutex_unlock(&x->lock);
}

/* Those with fewest preemptions first: so what is found first is found in the simplest way. */
static struct item *pop(struct pyksm_explore *x)
{
	for (uint32_t used = 0; used <= MAX_PREEMPTIONS; used++) {
		struct item *item = x->queue[used];

		if (!item)
			continue;
		x->queue[used] = item->next;
		return item;
	}
	return NULL;
}

/* ---- who goes next ---- */
static int by_default(const struct sched *s, uint32_t enabled)
{
	if (s->current != NO_TASK && enabled >> s->current & 1)
		return s->current;
	return __builtin_ctz(enabled);
}

/*
 * Who waits for another by going round and round must not keep that other from going on: one that could have gone on
 * for so long is next, whoever is to be. -1: there is none.
 */
#define STARVED 1000
static int starved(const struct worker *w, const struct sched *s, uint32_t enabled)
{
	for (int i = 0; i < s->nr_tasks; i++)
		if (i != s->current && enabled >> i & 1 && s->steps - w->ran_at[i] > STARVED)
			return i;
	return -1;
}

static uint64_t step_of(const struct sched *s)
{
	return s->current == NO_TASK ? 0 : s->steps - 1; /* the first choice is not counted yet */
}

static void branch(struct worker *w, const struct sched *s, uint32_t enabled, int chosen)
{
	bool can = s->current != NO_TASK && enabled >> s->current & 1;
	uint32_t used = w->used + can;

	if (used > w->x->config.preemptions || step_of(s) >= 1u << 24)
		return;
	for (int i = 0; i < s->nr_tasks; i++)
		if (i != chosen && enabled >> i & 1)
			push(w, step_of(s), i, used);
}

/* -1: the rest of this one has been seen. */
static int choose_next(struct worker *w, const struct sched *s, uint32_t enabled)
{
	const struct item *item = w->item;
	bool can = s->current != NO_TASK && enabled >> s->current & 1;
	uint64_t key;
	int next = by_default(s, enabled);

	if (atomic_load_explicit(&w->x->stop, memory_order_relaxed)) {
		w->pruned = true; /* another worker has found something */
		return -1;
	}
	if (w->at < item->nr) {
		if (item->deviation[w->at] >> 8 == step_of(s)) {
			next = (int)(item->deviation[w->at++] & 0xff);
			w->used += can;
		}
		return next;
	}
	key = w->x->config.unpruned ? 0 : state_key(w, s);
	if (key && seen_before(w->x, key, w->x->config.preemptions - w->used)) {
		w->pruned = true;
		return -1;
	}
	branch(w, s, enabled, next);
	return next;
}

static int choose_pct(struct worker *w, const struct sched *s, uint32_t enabled)
{
	int best = -1;

	for (uint32_t i = 0; i < w->x->config.depth && s->current != NO_TASK; i++)
		if (w->change[i] == step_of(s))
			w->priority[s->current] = -(int64_t)i - 1;
	for (int i = 0; i < s->nr_tasks; i++)
		if (enabled >> i & 1 && (best < 0 || w->priority[i] > w->priority[best]))
			best = i;
	return best;
}

static void note_choice(struct worker *w, const struct sched *s, uint32_t enabled, int next)
{
	uint64_t step = step_of(s);
	struct choice *c = &w->trace[step];

	if (step >= MAX_TRACE)
		return;
	*c = (struct choice){ .task = (uint8_t)next, .left = 0xff };
	c->point = (uint16_t)s->task[next].point;
	c->deviates = next != by_default(s, enabled);
	if (s->current == NO_TASK)
		return;
	c->left = (uint8_t)s->current;
	c->left_at = (uint16_t)s->task[s->current].point;
	c->can = enabled >> s->current & 1;
}

static int choose(void *arg, struct sched *s, uint32_t enabled)
{
	struct worker *w = arg;
	int next = starved(w, s, enabled);

	if (next >= 0)
		;
	else if (w->x->config.strategy == PYKSM_EXPLORE_PCT)
		next = choose_pct(w, s, enabled);
	else if (w->x->config.strategy == PYKSM_EXPLORE_RANDOM)
		next = draw(&w->random, enabled);
	else
		next = choose_next(w, s, enabled);
	if (next >= 0)
		note_choice(w, s, enabled, next);
	if (next >= 0)
		w->ran_at[next] = s->steps;
	return next;
}

static void stepped(void *arg, struct sched *s, int task)
{
	(void)s;
	stage_step(arg, task);
}

/* ---- one schedule ---- */
static void run_ops(struct pyksm *m, int task, void *arg)
{
	struct worker *w = arg;

	for (uint32_t i = 0; i < w->tasks[task].nr; i++) {
		if (i)
			sched_point(m, PT_TASK_NEXT_OP);
		op_run(m, &w->program, &w->tasks[task].ops[i]);
	}
}

static void run_sequence(struct worker *w, struct pyksm_op *ops, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		op_run(w->m, &w->program, &ops[i]);
}

static int run_tasks(struct worker *w)
{
	struct sched *s = sched_new(w->m);
	int err = s ? 0 : -ENOMEM;

	for (uint32_t i = 0; !err && i < w->x->config.nr_tasks; i++)
		err = sched_add(s, run_ops, w);
	if (err) {
		sched_free(s);
		return err;
	}
	s->choose = choose;
	s->choose_arg = w;
	s->stepped = stepped;
	s->max_steps = w->x->config.max_steps;
	stage_record(w, true);
	sched_run(s);
	stage_record(w, false);
	w->out.end = (int32_t)s->end;
	w->out.steps = s->steps;
	w->out.preemptions = s->preemptions;
	memcpy(w->out.text, s->text, PYKSM_TEXT);
	if (s->end != PYKSM_END_DONE)
		w->m->dead = true; /* what tasks that did not end have, nobody gives back */
	sched_free(s);
	return 0;
}

static void count_schedule(struct worker *w)
{
	struct pyksm_explored *c = &w->counts;

	c->steps += w->out.steps;
	if (w->pruned) {
		c->pruned++;
		return;
	}
	c->schedules++;
	c->deadlocks += w->out.end == PYKSM_END_DEADLOCK;
	if (w->out.steps > c->longest)
		c->longest = w->out.steps;
}

/* Where the same has happened before the same the end is the same, and has been judged. */
static bool ended_before(struct worker *w)
{
	uint64_t fingerprint = w->out.end == PYKSM_END_DONE ? w->fingerprint : 0;

	if (!fingerprint)
		return false;
	if (seen_before(w->x, fingerprint ^ 0x5bd1e9955bd1e995u, 0))
		return true;
	w->counts.ends++;
	return false;
}

/* A schedule to its end, or to where it is known. */
static int run_schedule(struct worker *w)
{
	const struct pyksm_explore_config *c = &w->x->config;
	bool known;
	int err = 0;

	w->at = w->used = 0;
	memset(w->ran_at, 0, sizeof(w->ran_at));
	w->pruned = false;
	memset(&w->out, 0, sizeof(w->out));
	if (c->nr_tasks)
		err = run_tasks(w);
	if (err)
		return err;
	count_schedule(w);
	known = w->pruned || (ended_before(w) && !c->unpruned);
	if (!known) {
		if (w->out.end == PYKSM_END_DONE)
			run_sequence(w, w->after, c->nr_after);
		if (pyksm_judge_finish(w->judge, w->m, &w->program, &w->out) > 0)
			note_findings(w);
	}
	return stage_restore(w);
}

/* ---- work ---- */
static void prepare_random(struct worker *w, uint64_t number)
{
	const struct pyksm_explore_config *c = &w->x->config;
	uint64_t longest = w->x->counts.longest ? w->x->counts.longest : 64;

	w->random = mix64(c->seed + 1) ^ mix64(number + 0x9e3779b97f4a7c15u);
	w->random += !w->random;
	for (uint32_t i = 0; i < c->nr_tasks; i++)
		w->priority[i] = (int64_t)i;
	for (uint32_t i = c->nr_tasks; i-- > 1;) {
		int k = draw(&w->random, (2u << i) - 1);
		int64_t had = w->priority[i];

		w->priority[i] = w->priority[k];
		w->priority[k] = had;
	}
	for (uint32_t i = 0; i < c->depth; i++) {
		draw(&w->random, 1);
		w->change[i] = mix64(w->random) % longest;
	}
}

/* Their results go to the exploration's, where all workers' are. */
static void flush(struct worker *w)
{
	struct pyksm_explored *to = &w->x->counts;

	to->schedules += w->counts.schedules;
	to->pruned += w->counts.pruned;
	to->steps += w->counts.steps;
	to->ends += w->counts.ends;
	to->deadlocks += w->counts.deadlocks;
	if (w->counts.longest > to->longest)
		to->longest = w->counts.longest;
	memset(&w->counts, 0, sizeof(w->counts));
}

/* The next one to run; NULL and *idle: none at the moment; NULL: none at all. */
static struct item *take(struct worker *w, bool *idle)
{
	struct pyksm_explore *x = w->x;
	struct item *item = NULL;

	pthread_mutex_lock(&x->lock);
	flush(w);
	x->busy -= w->busy;
	w->busy = false;
	if (x->config.strategy == PYKSM_EXPLORE_EXHAUSTIVE)
		item = pop(x);
	else if ((item = calloc(1, sizeof(*item))))
		prepare_random(w, x->next++);
	*idle = !item && x->busy;
	if (item) {
		w->busy = true;
		x->busy++;
	}
	pthread_mutex_unlock(&x->lock);
	return item;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void yield_for_a_moment(void)
{
	const struct timespec t = { 0, 20000 };

	nanosleep(&t, NULL);
}

/* A program without tasks has one schedule, and so has one that goes wrong before they begin. */
static bool has_choices(const struct worker *w)
{
	return w->x->config.nr_tasks && !w->m->dead && !w->judge->kept.nr_wrong;
}

static void judge_at_once(struct worker *w)
{
	const struct pyksm_explore_config *c = &w->x->config;

	w->counts.schedules++;
	if (!w->m->dead && !c->nr_tasks)
		run_sequence(w, w->after, c->nr_after);
	if (pyksm_judge_finish(w->judge, w->m, &w->program, NULL) > 0)
		note_findings(w);
}

/* The first worker to come has the one schedule from which all others deviate. */
static int begin(struct worker *w)
{
	struct pyksm_explore *x = w->x;
	struct item *first = calloc(1, sizeof(*first));
	bool mine;

	if (!first)
		return -ENOMEM;
	pthread_mutex_lock(&x->lock);
	mine = !x->started;
	x->started = true;
	if (mine && has_choices(w)) {
		x->queue[0] = first;
		first = NULL;
	}
	pthread_mutex_unlock(&x->lock);
	free(first);
	if (mine && !has_choices(w))
		judge_at_once(w);
	return 0;
}

int pyksm_explore_run(struct pyksm_explore *x, uint32_t worker, uint64_t ms, uint64_t schedules)
{
	struct worker *w = x && worker < PYKSM_MAX_WORKERS ? &x->worker[worker] : NULL;
	uint64_t end = now_ms() + ms;
	bool idle = true;
	int err = w ? 0 : -EINVAL;

	if (!err && !w->m)
		err = stage_new(w);
	if (!err)
		err = begin(w);
	if (err)
		return err;
	if (!has_choices(w))
		schedules = 0;
	for (uint64_t n = 0; n < schedules && !err && !atomic_load(&x->stop); n++) {
		struct item *item = n % 16 || now_ms() < end ? take(w, &idle) : NULL;

		if (!item && !idle)
			break;
		if (item) {
			w->item = item;
			err = run_schedule(w);
		} else if (now_ms() < end) {
			yield_for_a_moment();
		}
		free(item);
	}
	pthread_mutex_lock(&x->lock);
	flush(w);
	x->busy -= w->busy;
	w->busy = false;
	pthread_mutex_unlock(&x->lock);
	return err;
}

/* ---- life ---- */
static bool config_valid(const struct pyksm_explore_config *c)
{
	return c->machine && c->nr_tasks <= PYKSM_MAX_TASKS && c->preemptions <= MAX_PREEMPTIONS &&
	       c->depth <= MAX_PREEMPTIONS && c->strategy <= PYKSM_EXPLORE_RANDOM;
}

struct pyksm_explore *pyksm_explore_new(const struct pyksm_explore_config *config, int *err)
{
	struct pyksm_explore *x = config && config_valid(config) ? calloc(1, sizeof(*x)) : NULL;

	*err = config && config_valid(config) ? 0 : -EINVAL;
	if (x) {
		x->config = *config;
		x->seen_mask = (1u << MAX_SEEN_BITS) - 1;
		if (config->states && config->states < x->seen_mask)
			x->seen_mask = (2u << (31 - __builtin_clz(config->states | 1))) - 1;
		x->config.max_steps = config->max_steps ? config->max_steps : 20000;
		x->seen = map_lazily(seen_bytes(x));
		pthread_mutex_init(&x->lock, NULL);
		for (int i = 0; i < PYKSM_MAX_WORKERS; i++)
			x->worker[i].x = x;
	}
	if (!*err && (!x || !x->seen))
		*err = -ENOMEM;
	if (*err) {
		pyksm_explore_free(x);
		return NULL;
	}
	return x;
}

void pyksm_explore_free(struct pyksm_explore *x)
{
	struct item *item;

	if (!x)
		return;
	for (int i = 0; i < PYKSM_MAX_WORKERS; i++)
		stage_free(&x->worker[i]);
	while ((item = pop(x)))
		free(item);
	free_findings(x);
	if (x->seen)
		munmap((void *)x->seen, seen_bytes(x));
	pthread_mutex_destroy(&x->lock);
	free(x);
}

void pyksm_explore_result(struct pyksm_explore *x, struct pyksm_explored *ret)
{
	*ret = x->counts;
	for (int used = 0; used <= MAX_PREEMPTIONS; used++)
		for (const struct item *item = x->queue[used]; item; item = item->next)
			ret->waiting++;
	ret->states = atomic_load(&x->nr_seen) - ret->ends;
	ret->complete = x->started && !ret->waiting && !x->out_of_memory &&
			!atomic_load(&x->stop) && x->config.strategy == PYKSM_EXPLORE_EXHAUSTIVE;
}

const struct pyksm_finding *pyksm_explore_finding(struct pyksm_explore *x, uint32_t index)
{
	return x && index < x->nr_findings ? &x->finding[index] : NULL;
}
