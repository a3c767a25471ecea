/* SPDX-License-Identifier: MIT */
/* Tasks and the locks between them; see ksched.h. Which task goes next is the choice of whoever runs them. */
#include <stdarg.h>
#include <stdio.h>

#include "sched_internal.h"

#define POINT_NAME(id, name) name,
static const char *const names[] = { PYKSM_HOOK_POINTS(POINT_NAME) PYKSM_TASK_POINTS(POINT_NAME) };
#undef POINT_NAME

const char *point_name(enum sched_point point)
{
	return names[point];
}

const char *lock_class_name(enum lock_class class)
{
	static const char *const of[] = { "nothing",	   "ksm_thread_mutex", "swapon_mutex",
					  "mmap_sem",	   "swap device",      "page lock",
					  "anon_vma lock", "pte lock",	       "memory" };

	return of[class];
}

/* ---- locks ---- */
static bool same_lock(struct lock_id a, struct lock_id b)
{
	return a.class == b.class && a.obj == b.obj && a.part == b.part;
}

static struct held_lock *find_lock(struct sched *s, struct lock_id id)
{
	for (int i = 0; i < s->nr_locks; i++)
		if (same_lock(s->lock[i].id, id))
			return &s->lock[i];
	return NULL;
}

static bool any_free_frame(const struct pyksm *m)
{
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		if (m->node[nid].nr_free)
			return true;
	return false;
}

static bool obtainable(const struct sched *s, struct lock_id id, bool write)
{
	const struct held_lock *lock = find_lock((struct sched *)s, id);

	if (id.class == LOCK_PAGE)
		return !(((const struct page *)id.obj)->flags & PG_locked);
	if (id.class == LOCK_MEMORY)
		return any_free_frame(s->m);
	return !lock || (lock->writer == NO_TASK && !(write && lock->readers));
}

bool sched_locked(const struct pyksm *m, struct lock_id id)
{
	if (!in_task(m))
		return false;
	trace_lock((struct pyksm *)m, id, true); /* after all that have it, readers too */
	return find_lock(m->sched, id);
}

bool sched_mine(const struct pyksm *m, struct lock_id id)
{
	const struct held_lock *lock = in_task(m) ? find_lock(m->sched, id) : NULL;

	return lock &&
	       (lock->writer == m->sched->current || lock->readers >> m->sched->current & 1);
}

bool sched_obtainable(const struct sched *s, int task)
{
	const struct task *t = &s->task[task];

	return t->wants.class == LOCK_NONE || obtainable(s, t->wants, t->write);
}

void sched_describe(const struct sched *s, struct lock_id id, char *buf, size_t len)
{
	const char *what = lock_class_name(id.class);

	if (id.class == LOCK_PAGE)
		snprintf(buf, len, "%s of frame %llu", what,
			 (unsigned long long)page_to_pfn(s->m, id.obj));
	else if (id.class == LOCK_MMAP_SEM)
		snprintf(buf, len, "%s of pid %d", what, ((const struct mm_struct *)id.obj)->pid);
	else if (id.class == LOCK_PTE)
		snprintf(buf, len, "%s of pid %d at 0x%llx", what,
			 ((const struct mm_struct *)id.obj)->pid,
			 (unsigned long long)id.part << 21);
	else if (id.class == LOCK_ANON_VMA)
		snprintf(buf, len, "%s of anon_vma %u", what,
			 ((const struct anon_vma *)id.obj)->id);
	else
		snprintf(buf, len, "%s", what);
}

static void note_taken(struct sched *s, struct lock_id id, bool write)
{
	struct held_lock *lock = find_lock(s, id);

	if (!lock) {
		if (s->nr_locks == MAX_LOCKS)
			oops(s->m, "more than %d locks held", MAX_LOCKS);
		lock = &s->lock[s->nr_locks++];
		*lock = (struct held_lock){ id, NO_TASK, 0 };
	}
	if (write)
		lock->writer = s->current;
	else
		lock->readers |= 1u << s->current;
	trace_lock(s->m, id, write);
}

/* Whoever takes locks in an order of his own will one day wait for somebody who waits for him. */
static void check_order(struct sched *s, struct lock_id id)
{
	char a[96], b[96];

	for (int i = 0; i < s->nr_locks; i++) {
		const struct held_lock *lock = &s->lock[i];

		if (lock->writer != s->current && !(lock->readers >> s->current & 1))
			continue;
		if (lock->id.class <= id.class)
			continue;
		/* Swapoff's mmput() may be the last with a page locked, until 5.1: who waits for both is found out. */
		if (id.class == LOCK_MMAP_SEM && !((const struct mm_struct *)id.obj)->mm_users)
			continue;
		sched_describe(s, id, a, sizeof(a));
		sched_describe(s, lock->id, b, sizeof(b));
		oops(s->m, "lock order: %s is waited for with %s held", a, b);
	}
}

/* ---- who goes next ---- */
static _Noreturn void leave(struct sched *s, enum pyksm_end end)
{
	struct task *t = &s->task[s->current];

	s->end = end;
	context_switch(&t->context, &s->main);
	__builtin_unreachable(); /* a scheduler that has ended is not run again */
}

static void describe_deadlock(struct sched *s)
{
	size_t at = 0;
	char what[96];

	for (int i = 0; i < s->nr_tasks && at < PYKSM_TEXT; i++) {
		const struct task *t = &s->task[i];
		const struct held_lock *lock = find_lock(s, t->wants);

		if (t->done)
			continue;
		sched_describe(s, t->wants, what, sizeof(what));
		at += (size_t)snprintf(s->text + at, PYKSM_TEXT - at,
				       "%stask %d waits at %s for %s", at ? "; " : "", i,
				       point_name(t->point), what);
		if (at < PYKSM_TEXT && lock && lock->writer != NO_TASK)
			at += (size_t)snprintf(s->text + at, PYKSM_TEXT - at, ", which task %d has",
					       lock->writer);
		for (int k = 0; at < PYKSM_TEXT && lock && k < s->nr_tasks; k++)
			if (lock->readers >> k & 1)
				at += (size_t)snprintf(s->text + at, PYKSM_TEXT - at,
						       ", which task %d has for reading", k);
	}
}

/* Who yields waits for a step of another, if another can make one. */
static uint32_t enabled_tasks(const struct sched *s)
{
	uint32_t ret = 0, yield = 0;

	for (int i = 0; i < s->nr_tasks; i++) {
		if (s->task[i].done || !sched_obtainable(s, i))
			continue;
		if (s->task[i].yields)
			yield |= 1u << i;
		else
			ret |= 1u << i;
	}
	return ret ? ret : yield;
}

static void stop_yielding(struct sched *s, int stepped)
{
	for (int i = 0; i < s->nr_tasks; i++)
		if (i != stepped)
			s->task[i].yields = false;
}

/* The next task; the way back to whoever runs them where there is none. */
static int pick(struct sched *s)
{
	uint32_t enabled = enabled_tasks(s);
	bool all_done = true;
	int next;

	for (int i = 0; i < s->nr_tasks; i++)
		all_done &= s->task[i].done;
	if (all_done)
		leave(s, PYKSM_END_DONE);
	if (!enabled) {
		describe_deadlock(s);
		leave(s, PYKSM_END_DEADLOCK);
	}
	if (s->steps >= s->max_steps) {
		snprintf(s->text, PYKSM_TEXT, "no end after %llu steps",
			 (unsigned long long)s->max_steps);
		leave(s, PYKSM_END_LIVELOCK);
	}
	s->steps++;
	next = s->choose(s->choose_arg, s, enabled);
	if (next < 0)
		leave(s, PYKSM_END_MISFIT); /* and text says why */
	if (next != s->current && (enabled >> s->current & 1))
		s->preemptions++;
	return next;
}

static void go_on(struct sched *s)
{
	int from = s->current, to = pick(s);

	if (to == from)
		return;
	s->current = to;
	context_switch(&s->task[from].context, &s->task[to].context);
}

/* The current task has come to a point; when this returns it may pass. */
static void reach(struct sched *s, enum sched_point point, struct lock_id wants, bool write)
{
	struct task *t = &s->task[s->current];

	t->point = point;
	t->wants = wants;
	t->write = write;
	if (s->stepped)
		s->stepped(s->choose_arg, s, s->current);
	stop_yielding(s, s->current);
	go_on(s);
	t->wants.class = LOCK_NONE;
	t->yields = false;
}

/* ---- what the model calls ---- */
bool in_task(const struct pyksm *m)
{
	return m->sched && m->sched->current != NO_TASK;
}

/* No call of a machine that is whole comes by so many points: something goes round and round. */
#define POINTS_IN_CALL 20000000

static void hook_point(struct pyksm *m, enum sched_point point)
{
	if (m->call && ++m->call->points == POINTS_IN_CALL)
		oops(m, "soft lockup at %s", point_name(point));
	if (point >= NR_HOOK_POINTS || !m->hook || m->in_hook)
		return;
	m->in_hook = true;
	m->hook(m->hook_arg, (int)point);
	m->in_hook = false;
	if (m->dead) /* of a call that the hook made: so has this one to end */
		longjmp(m->call->guard, 1);
}

void sched_point(struct pyksm *m, enum sched_point point)
{
	if (in_task(m))
		reach(m->sched, point, (struct lock_id){ LOCK_NONE, NULL, 0 }, false);
	else
		hook_point(m, point);
}

void sched_yield_point(struct pyksm *m, enum sched_point point)
{
	if (!in_task(m))
		return;
	m->sched->task[m->sched->current].yields = true;
	sched_point(m, point);
}

void sched_lock(struct pyksm *m, enum sched_point point, struct lock_id id, bool write)
{
	if (!in_task(m)) {
		hook_point(m, point);
		return;
	}
	check_order(m->sched, id);
	reach(m->sched, point, id, write);
	note_taken(m->sched, id, write);
}

bool sched_trylock(struct pyksm *m, enum sched_point point, struct lock_id id, bool write)
{
	if (!in_task(m)) {
		hook_point(m, point);
		return true;
	}
	reach(m->sched, point, (struct lock_id){ LOCK_NONE, NULL, 0 }, false);
	if (!obtainable(m->sched, id, write)) {
		trace_lock(m, id, write);
		return false;
	}
	note_taken(m->sched, id, write);
	return true;
}

void sched_own(struct pyksm *m, struct lock_id id)
{
	if (in_task(m))
		note_taken(m->sched, id, true);
}

void sched_wait(struct pyksm *m, enum sched_point point, struct lock_id id)
{
	if (!in_task(m)) {
		hook_point(m, point);
		return;
	}
	reach(m->sched, point, id, true);
	trace_lock(m, id, true);
}

void sched_unlock(struct pyksm *m, struct lock_id id)
{
	struct sched *s = m->sched;
	struct held_lock *lock;

	if (!in_task(m))
		return;
	lock = find_lock(s, id);
	if (!lock)
		return; /* a page that was locked before there were tasks */
	trace_lock(m, id, !(lock->readers >> s->current & 1));
	if (lock->readers >> s->current & 1)
		lock->readers &= ~(1u << s->current);
	else
		lock->writer = NO_TASK; /* whoever had it: a page may be unlocked by another one */
	if (lock->writer == NO_TASK && !lock->readers)
		*lock = s->lock[--s->nr_locks];
}

/* What a kernel would die of. The machine is dead, the way back is to whoever called it. */
void oops(struct pyksm *m, const char *format, ...)
{
	va_list args;
	int n = snprintf(m->oops, sizeof(m->oops), "BUG: ");

	va_start(args, format);
	vsnprintf(m->oops + n, sizeof(m->oops) - (size_t)n, format, args);
	va_end(args);
	m->dead = true;
	trace_enter(NULL);
	event(m, m->oops);
	if (in_task(m)) {
		snprintf(m->sched->text, PYKSM_TEXT, "%s", m->oops);
		leave(m->sched, PYKSM_END_OOPS);
	}
	longjmp(m->call->guard, 1);
}

void oops_assert(const char *what)
{
	struct pyksm *m = current_machine;

	if (!m)
		abort(); /* not within a call: the census of a dead machine, say */
	oops(m, "assertion: %s", what);
}

void oops_free_page(const struct page *page)
{
	struct pyksm *m = current_machine;

	if (!m)
		abort();
	oops(m, "frame %llu is used after it was freed", (unsigned long long)page_to_pfn(m, page));
}

/* ---- life ---- */
struct sched *sched_new(struct pyksm *m)
{
	struct sched *s = host_scratch(m, sizeof(*s));

	if (!s)
		return NULL;
	memset(s, 0, sizeof(*s));
	s->m = m;
	s->current = NO_TASK;
	s->max_steps = 1000000;
	s->text = host_scratch(m, PYKSM_TEXT);
	if (!s->text) {
		host_scratch_free(m, s);
		return NULL;
	}
	s->text[0] = '\0';
	return s;
}

void sched_free(struct sched *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->nr_tasks; i++)
		host_scratch_free(s->m, s->task[i].stack);
	host_scratch_free(s->m, s->text);
	host_scratch_free(s->m, s);
}

static void run_task(void *arg)
{
	struct sched *s = arg;
	struct task *t = &s->task[s->current];

	t->fn(s->m, s->current, t->arg);
	t->done = true;
	t->wants.class = LOCK_NONE;
	if (s->stepped)
		s->stepped(s->choose_arg, s, s->current);
	stop_yielding(s, s->current);
	go_on(s);
	__builtin_unreachable(); /* a task that is done is never chosen */
}

int sched_add(struct sched *s, task_fn fn, void *arg)
{
	struct task *t = &s->task[s->nr_tasks];

	if (s->nr_tasks == MAX_TASKS)
		return -E2BIG;
	*t = (struct task){ .fn = fn, .arg = arg, .point = PT_TASK_BEGIN };
	t->stack = host_scratch(s->m, STACK_BYTES);
	if (!t->stack)
		return -ENOMEM;
	context_make(&t->context, t->stack, STACK_BYTES, run_task, s);
	s->nr_tasks++;
	return 0;
}

void sched_run(struct sched *s)
{
	struct pyksm *before = current_machine;
	int first;

	trace_enter(s->m);
	s->end = PYKSM_END_DONE;
	s->m->sched = s;
	s->current = NO_TASK;
	first = s->nr_tasks ? s->choose(s->choose_arg, s, (1u << s->nr_tasks) - 1) : -1;
	if (first >= 0) {
		s->steps = 1;
		s->current = first;
		context_switch(&s->main, &s->task[first].context);
	} else if (s->nr_tasks) {
		s->end = PYKSM_END_MISFIT;
	}
	s->current = NO_TASK;
	s->m->sched = NULL;
	trace_enter(before);
}
