/* SPDX-License-Identifier: MIT */
/*
 * A second thread for loops whose parts change nothing but what is theirs (pyksm_config.threads). It is made when
 * there is first something to do, and takes parts while the caller takes others: so one that is late, or cannot be
 * made, costs nothing. After a fork(2) of the host process the child has the machine but not the thread: it gets
 * one of its own.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "internal.h"

#define SPINS 4000 /* some ten microseconds, until the next window of ksmd's at best */

struct helper {
	pthread_t thread;
	pid_t pid; /* of the process that it runs in */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool quit; /* under the lock */
	atomic_bool asleep;
	/* turn << 32 | parts << 16 | next part: taking one and its being of this turn are one step */
	atomic_ullong ticket;
	atomic_uint completed;
	part_fn fn; /* both stay while a part that was taken is not completed */
	void *arg;
};

#define TICKET(turn, parts) ((uint64_t)(turn) << 32 | (uint64_t)(parts) << 16)
#define PARTS(ticket) ((ticket) >> 16 & 0xffff)
#define NEXT(ticket) ((ticket) & 0xffff)

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static bool all_taken(uint64_t ticket)
{
	return NEXT(ticket) >= PARTS(ticket);
}

/* Take parts until there are none left. */
static void take_parts(struct helper *helper)
{
	unsigned long long ticket = atomic_load(&helper->ticket);

	while (!all_taken(ticket)) {
		if (!atomic_compare_exchange_weak(&helper->ticket, &ticket, ticket + 1))
			continue;
		helper->fn(helper->arg, (unsigned int)NEXT(ticket));
		atomic_fetch_add(&helper->completed, 1);
		ticket = atomic_load(&helper->ticket);
	}
}

/* false: it shall end. */
static bool wait_for_work(struct helper *helper)
{
	bool quit;

	for (int i = 0; i < SPINS; i++) {
		if (!all_taken(atomic_load(&helper->ticket)))
			return true;
		relax();
	}
	pthread_mutex_lock(&helper->lock);
	atomic_store(&helper->asleep, true);
	while (!helper->quit && all_taken(atomic_load(&helper->ticket)))
		pthread_cond_wait(&helper->wake, &helper->lock);
	atomic_store(&helper->asleep, false);
	quit = helper->quit;
	pthread_mutex_unlock(&helper->lock);
	return !quit;
}

static void *helper_main(void *arg)
{
	while (wait_for_work(arg))
		take_parts(arg);
	return NULL;
}

/* Signals are the host program's threads' business. */
static int start_thread(struct helper *helper)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&helper->thread, NULL, helper_main, helper);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

static struct helper *new_helper(pid_t pid)
{
	struct helper *helper = calloc(1, sizeof(*helper));

	if (!helper)
		return NULL;
	pthread_mutex_init(&helper->lock, NULL);
	pthread_cond_init(&helper->wake, NULL);
	helper->pid = pid;
	if (start_thread(helper)) {
		free(helper);
		return NULL;
	}
	return helper;
}

void helper_exit(struct pyksm *m)
{
	struct helper *helper = m->helper;

	m->helper = NULL;
	if (helper && helper->pid == getpid()) {
		pthread_mutex_lock(&helper->lock);
		helper->quit = true;
		pthread_cond_signal(&helper->wake);
		pthread_mutex_unlock(&helper->lock);
		pthread_join(helper->thread, NULL);
	}
	free(helper);
}

/* The machine's, of this process. NULL: there is to be none, or there cannot be. */
static struct helper *helper_of(struct pyksm *m)
{
	pid_t pid;

	if (m->threads < 2)
		return NULL;
	pid = getpid();
	if (m->helper && m->helper->pid != pid)
		helper_exit(m);
	if (!m->helper)
		m->helper = new_helper(pid);
	if (!m->helper)
		m->threads = 1;
	return m->helper;
}

static void post(struct helper *helper, part_fn fn, void *arg, unsigned int parts)
{
	uint64_t turn = (atomic_load(&helper->ticket) >> 32) + 1;

	helper->fn = fn;
	helper->arg = arg;
	atomic_store(&helper->completed, 0);
	atomic_store(&helper->ticket, TICKET(turn, parts));
	if (!atomic_load(&helper->asleep))
		return;
	pthread_mutex_lock(&helper->lock);
	pthread_cond_signal(&helper->wake);
	pthread_mutex_unlock(&helper->lock);
}

/* fn(arg, k) for all k below parts, which are at most MAX_PARTS, in any order and some at the same time. */
void for_each_part(struct pyksm *m, part_fn fn, void *arg, unsigned int parts)
{
	struct helper *helper = parts > 1 ? helper_of(m) : NULL;

	if (!helper) {
		for (unsigned int k = 0; k < parts; k++)
			fn(arg, k);
		return;
	}
	post(helper, fn, arg, parts);
	take_parts(helper);
	for (int i = 0; atomic_load(&helper->completed) < parts; i++) {
		if (i < SPINS)
			relax();
		else
			sched_yield();
	}
}
