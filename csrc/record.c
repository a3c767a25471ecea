/* SPDX-License-Identifier: MIT */
/* What a run of tasks leaves to be looked at: whose step each was, the locks then held, and some ptes. */
#include <stdio.h>

#include "sched_internal.h"

/* ---- the schedule that replays it ---- */
/* A task that could not have gone on needs no count: its piece ends there by itself. */
static void record_taken(struct pyksm_outcome *out, const struct sched *s, int next, bool preempts)
{
	struct pyksm_segment *last;

	if (!out->taken)
		return;
	if (out->nr_taken && out->nr_taken <= out->max_taken) {
		last = &out->taken[out->nr_taken - 1];
		if (next == s->current) {
			last->count++;
			return;
		}
		last->count = preempts ? last->count : 0;
	}
	if (next == s->current)
		return; /* of a piece that there was no room for */
	if (out->nr_taken < out->max_taken)
		out->taken[out->nr_taken] = (struct pyksm_segment){ next, -1, 1, 0 };
	out->nr_taken++;
}

void record_choice(struct pyksm_outcome *out, const struct sched *s, int next, uint32_t enabled,
		   uint32_t op)
{
	/* The first choice is made before it is counted. */
	uint64_t step = s->steps ? s->steps - 1 : 0;
	bool preempts = s->current != NO_TASK && next != s->current && (enabled >> s->current & 1);

	record_taken(out, s, next, preempts);
	if (out->trace && step < out->max_trace)
		out->trace[step] = (struct pyksm_step){ (uint8_t)next,
							preempts ? PYKSM_STEP_PREEMPTS : 0,
							(uint16_t)s->task[next].point,
							op,
							UINT32_MAX,
							0 };
}

/* ---- the locks that are held ---- */
/* Who is behind a bit of readers, or the writer, in the order of the locks. */
static size_t say_holder(const struct sched *s, int task, char how, struct lock_id id, char *buf,
			 size_t len)
{
	char what[96];
	int n;

	sched_describe(s, id, what, sizeof(what));
	n = snprintf(buf, len, "%d%c %s; ", task, how, what);
	return n < 0 ? len : (size_t)n;
}

static size_t say_locks(const struct sched *s, char *buf, size_t len)
{
	size_t at = 0;

	if (len)
		buf[0] = '\0';
	for (int i = 0; i < s->nr_locks && at < len; i++) {
		const struct held_lock *lock = &s->lock[i];

		if (lock->writer != NO_TASK)
			at += say_holder(s, lock->writer, 'w', lock->id, buf + at, len - at);
		for (int k = 0; k < s->nr_tasks && at < len; k++)
			if (lock->readers >> k & 1)
				at += say_holder(s, k, 'r', lock->id, buf + at, len - at);
	}
	return at;
}

/* Where the log says what is held now: the text before it, if that is the same. The log ends with two zeroes. */
static uint32_t record_locks(const struct pyksm_outcome *out, const struct sched *s, uint32_t last)
{
	const char *before = last == UINT32_MAX ? NULL : out->log + last;
	size_t at = before ? last + strlen(before) + 1 : 0;
	size_t len = out->log_size - at, need;

	if (at >= out->log_size)
		return UINT32_MAX;
	need = say_locks(s, out->log + at, len);
	if (need >= len) {
		out->log[at] = '\0';
		return UINT32_MAX;
	}
	return before && !strcmp(before, out->log + at) ? last : (uint32_t)at;
}

/* ---- ptes ---- */
static void see_slot(struct pyksm *m, swp_entry_t entry, struct pyksm_seen *ret)
{
	ret->slot_type = (int32_t)swp_type(entry);
	ret->slot = (int64_t)swp_offset(entry);
	ret->slot_map = pyksm_swap_map(m, ret->slot_type, (uint64_t)ret->slot);
}

static void see_frame(struct pyksm *m, const struct page *page, struct pyksm_seen *ret)
{
	const unsigned char *bytes = page_content(m, page);

	for (int i = 0; i < 8; i++)
		ret->word |= (uint64_t)bytes[i] << 8 * i;
	ret->flags = (page->flags & PG_locked ? PYKSM_SEEN_LOCKED : 0) |
		     (page->flags & PG_dirty ? PYKSM_SEEN_DIRTY : 0) |
		     (page->flags & PG_writeback ? PYKSM_SEEN_WRITEBACK : 0) |
		     (page->flags & PG_uptodate ? PYKSM_SEEN_UPTODATE : 0);
	if (PageKsm(page) && (page->mapping & ~PAGE_MAPPING_FLAGS))
		ret->flags |= PYKSM_SEEN_NODE;
	ret->refs = page->_count;
	if (page->flags & PG_swapcache)
		see_slot(m, (swp_entry_t){ page->private }, ret);
}

static void see(struct pyksm *m, int pid, uint64_t addr, struct pyksm_seen *ret)
{
	*ret = (struct pyksm_seen){ .slot = -1, .slot_type = -1, .slot_map = -1, .refs = -1 };
	if (pyksm_pagemap(m, pid, addr, 1, &ret->page)) {
		ret->page.state = 0;
		return;
	}
	if (ret->page.state == 'P')
		see_frame(m, pfn_to_page(m, (uint64_t)ret->page.pfn), ret);
	else if (ret->page.state == 'S' && ret->page.swp_type >= 0)
		see_slot(m, pte_to_swp_entry(m, ret->page.pte), ret);
}

static void record_ptes(struct pyksm_outcome *out, struct pyksm *m,
			const struct pyksm_program *program, uint64_t row)
{
	struct pyksm *looked_at = current_machine;

	if (!out->seen || row > out->max_trace)
		return;
	trace_enter(NULL); /* these accesses are not the model's */
	for (uint32_t i = 0; i < out->nr_watch; i++) {
		const struct pyksm_watch *w = &out->watch[i];
		bool known = w->process >= 0 && (uint32_t)w->process < program->nr_pids;

		see(m, known ? program->pids[w->process] : 0, w->addr,
		    &out->seen[row * out->nr_watch + i]);
	}
	trace_enter(looked_at);
}

/* ---- the whole of it ---- */
void record_begin(struct pyksm_outcome *out, struct pyksm *m, const struct pyksm_program *program)
{
	out->nr_taken = 0;
	if (out->trace)
		record_ptes(out, m, program, 0);
}

void record_step(struct pyksm_outcome *out, const struct sched *s,
		 const struct pyksm_program *program)
{
	uint64_t step = s->steps - 1;

	if (!out->trace || step >= out->max_trace)
		return;
	if (out->log && (!step || out->trace[step - 1].locks != UINT32_MAX))
		out->trace[step].locks =
			record_locks(out, s, step ? out->trace[step - 1].locks : UINT32_MAX);
	record_ptes(out, s->m, program, step + 1);
}

/* The last piece goes on to the end, whatever that is. What an oops has left behind is better not looked at. */
void record_end(struct pyksm_outcome *out, const struct sched *s)
{
	uint64_t step = s->steps - 1;

	if (out->taken && out->nr_taken && out->nr_taken <= out->max_taken)
		out->taken[out->nr_taken - 1].count = 0;
	if (s->end != PYKSM_END_OOPS || !out->trace || !step || step >= out->max_trace)
		return;
	out->trace[step].locks = out->trace[step - 1].locks;
	if (out->seen)
		memcpy(out->seen + (step + 1) * out->nr_watch, out->seen + step * out->nr_watch,
		       out->nr_watch * sizeof(*out->seen));
}
