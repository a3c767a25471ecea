/* SPDX-License-Identifier: MIT */
/* What an exploration has found, and the schedule that shows it again, as short as it can be told. */
#include "explore.h"

/* ---- a schedule in pieces ---- */
/* After the last choice that somebody made things take their course. */
static uint64_t last_deviation(const struct worker *w, uint64_t steps)
{
	uint64_t last = 0;

	for (uint64_t i = 0; i < steps; i++)
		if (w->trace[i].deviates)
			last = i + 1;
	return last;
}

/* The piece from choice `from` on: its task goes on up to, and without, choice `to`. */
static struct pyksm_segment piece(const struct worker *w, uint64_t from, uint64_t to)
{
	const struct choice *next = &w->trace[to];
	struct pyksm_segment piece = { w->trace[from].task, -1, 0, 0 };

	if (!next->can)
		return piece; /* it had ended, or had to wait */
	piece.point = next->left_at;
	for (uint64_t i = from + 1; i < to; i++)
		piece.count += w->trace[i].point == piece.point;
	piece.count++;
	return piece;
}

/* NULL and *nr 0: as it comes by itself; NULL and *nr not 0: no memory. */
static struct pyksm_segment *pieces(const struct worker *w, uint32_t *nr)
{
	uint64_t steps = w->out.steps < MAX_TRACE ? w->out.steps : MAX_TRACE;
	uint64_t last = last_deviation(w, steps);
	struct pyksm_segment *ret;

	*nr = last ? 1 : 0;
	ret = last ? calloc(last + 1, sizeof(*ret)) : NULL;
	if (!ret)
		return NULL;
	*nr = 0;
	for (uint64_t from = 0, to; from < last && *nr < MAX_PIECES; from = to) {
		for (to = from + 1; to < steps && w->trace[to].task == w->trace[from].task;)
			to++;
		if (to < last)
			ret[(*nr)++] = piece(w, from, to);
		else
			ret[(*nr)++] = (struct pyksm_segment){ w->trace[from].task, -1, 0, 0 };
	}
	return ret;
}

/* ---- findings ---- */
static struct pyksm_finding *same_kind(struct pyksm_explore *x, const struct pyksm_wrong *wrong)
{
	for (uint32_t i = 0; i < x->nr_findings; i++)
		if (x->finding[i].wrong.invariant == wrong->invariant &&
		    !strcmp(x->finding[i].wrong.code, wrong->code))
			return &x->finding[i];
	return x->nr_findings < MAX_FINDINGS ? &x->finding[x->nr_findings++] : NULL;
}

static bool simpler(const struct pyksm_finding *a, const struct pyksm_finding *b)
{
	if (a->preemptions != b->preemptions)
		return a->preemptions < b->preemptions;
	if (a->nr_segments != b->nr_segments)
		return a->nr_segments < b->nr_segments;
	return a->steps < b->steps;
}

static void note_one(struct worker *w, const struct pyksm_wrong *wrong)
{
	struct pyksm_explore *x = w->x;
	struct pyksm_finding *had = same_kind(x, wrong);
	struct pyksm_finding f = {
		.wrong = *wrong,
		.end = w->out.end,
		.preemptions = (uint32_t)w->out.preemptions,
		.steps = w->out.steps,
		.schedules = x->counts.schedules + w->counts.schedules,
	};

	f.schedule = pieces(w, &f.nr_segments);
	if (!had || (f.nr_segments && !f.schedule) || (had->wrong.invariant && !simpler(&f, had))) {
		free(f.schedule);
		return;
	}
	free(had->schedule);
	*had = f;
}

void note_findings(struct worker *w)
{
	struct pyksm_explore *x = w->x;

	pthread_mutex_lock(&x->lock);
	for (uint32_t i = 0; i < w->judge->now.nr_wrong; i++)
		note_one(w, &w->judge->now.wrong[i]);
	if (x->config.stop)
		atomic_store(&x->stop, true);
	pthread_mutex_unlock(&x->lock);
}

void free_findings(struct pyksm_explore *x)
{
	for (uint32_t i = 0; i < x->nr_findings; i++)
		free(x->finding[i].schedule);
}
