/* SPDX-License-Identifier: MIT */
/*
 * A plain map of what each page of each process may hold. A write under way adds its content; when it has ended it
 * is the only one, but for those of writes that ran at the same time. Nothing here looks at the machine.
 */
#include <stdio.h>

#include "judge.h"

/* ---- contents by number ---- */
static uint64_t hash_bytes(const unsigned char *bytes, size_t n)
{
	uint64_t h = 0x9E3779B97F4A7C15u;

	for (size_t i = 0; i + 8 <= n; i += 8) {
		uint64_t word;

		memcpy(&word, bytes + i, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return h;
}

static uint32_t *bucket_of(const struct pyksm_judge *j, const unsigned char *bytes)
{
	const struct judge_contents *c = &j->contents;
	uint32_t at = (uint32_t)hash_bytes(bytes, j->page_size) & c->mask;

	while (c->bucket[at] &&
	       memcmp(c->bytes + (size_t)(c->bucket[at] - 1) * j->page_size, bytes, j->page_size))
		at = (at + 1) & c->mask;
	return &c->bucket[at];
}

uint32_t find_content(const struct pyksm_judge *j, const unsigned char *bytes)
{
	return *bucket_of(j, bytes) - 1; /* 0: NO_CONTENT */
}

static bool grow_contents(struct pyksm_judge *j)
{
	struct judge_contents *c = &j->contents;
	uint32_t max = c->max ? c->max * 2 : 32;
	unsigned char *bytes = realloc(c->bytes, max * j->page_size);
	uint64_t *pattern = realloc(c->pattern, max * sizeof(*pattern));
	uint32_t *bucket = calloc((size_t)max * 4, sizeof(*bucket));

	c->bytes = bytes ? bytes : c->bytes;
	c->pattern = pattern ? pattern : c->pattern;
	if (!bytes || !pattern || !bucket) {
		free(bucket);
		return false;
	}
	free(c->bucket);
	c->bucket = bucket;
	c->mask = max * 4 - 1;
	c->max = max;
	for (uint32_t i = 0; i < c->nr; i++)
		*bucket_of(j, bytes + i * j->page_size) = i + 1;
	return true;
}

/* NO_CONTENT where there is no memory. */
static uint32_t add_content(struct pyksm_judge *j, const unsigned char *bytes, uint64_t pattern)
{
	struct judge_contents *c = &j->contents;
	uint32_t *bucket;

	if (c->nr == c->max && !grow_contents(j))
		return NO_CONTENT;
	bucket = bucket_of(j, bytes);
	if (*bucket)
		return *bucket - 1;
	memcpy(c->bytes + (size_t)c->nr * j->page_size, bytes, j->page_size);
	c->pattern[c->nr] = pattern;
	*bucket = ++c->nr;
	return c->nr - 1;
}

bool judge_contents_init(struct pyksm_judge *j)
{
	memset(j->scratch, 0, j->page_size);
	return !add_content(j, j->scratch, 0);
}

static uint32_t pattern_content(struct pyksm_judge *j, uint64_t value)
{
	fill_pattern(j->scratch, j->page_size, value);
	return add_content(j, j->scratch, value);
}

static void describe_one(const struct pyksm_judge *j, uint32_t content, char *buf, size_t len)
{
	uint64_t pattern = content < j->contents.nr ? j->contents.pattern[content] : NO_PATTERN;

	if (pattern == NO_PATTERN)
		snprintf(buf, len, content < j->contents.nr ? "poked bytes" : "other bytes");
	else if (!pattern)
		snprintf(buf, len, "zeros");
	else
		snprintf(buf, len, "%llu", (unsigned long long)pattern);
}

void describe_content(const struct pyksm_judge *j, const unsigned char *bytes, char *buf,
		      size_t len)
{
	describe_one(j, find_content(j, bytes), buf, len);
}

void describe_set(const struct pyksm_judge *j, const struct judge_set *set, char *buf, size_t len)
{
	size_t at = 0;
	char one[32];

	if (set->any)
		snprintf(buf, len, "anything");
	for (uint32_t i = 0; i < set->nr && !set->any && at < len; i++) {
		describe_one(j, set->value[i].content, one, sizeof(one));
		at += (size_t)snprintf(buf + at, len - at, "%s%s", i ? " or " : "", one);
	}
}

/* ---- sets ---- */
bool set_has(const struct judge_set *set, uint32_t content)
{
	for (uint32_t i = 0; i < set->nr; i++)
		if (set->value[i].content == content)
			return true;
	return set->any;
}

/* Whether that is new. */
static bool set_add(struct judge_set *set, struct judge_value value)
{
	bool any = set->any;

	if (value.content == NO_CONTENT)
		set->any = true;
	if (set->any)
		return !any;
	for (uint32_t i = 0; i < set->nr; i++) {
		struct judge_value *had = &set->value[i];

		if (had->content != value.content || had->tag != value.tag)
			continue;
		if (value.ended > had->ended)
			had->ended = value.ended;
		return false;
	}
	if (set->nr == JUDGE_VALUES)
		set->any = true;
	else
		set->value[set->nr++] = value;
	return true;
}

/* ---- cells ---- */
static int compare(const struct judge_cell *cell, int32_t process, uint64_t vpn)
{
	if (cell->process != process)
		return cell->process < process ? -1 : 1;
	return cell->vpn == vpn ? 0 : cell->vpn < vpn ? -1 : 1;
}

/* The first cell that is not before it. */
static uint32_t place_of(const struct judge_state *s, int32_t process, uint64_t vpn)
{
	uint32_t low = 0, high = s->nr;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (compare(&s->cell[mid], process, vpn) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct judge_cell *find_cell(struct judge_state *s, int32_t process, uint64_t vpn)
{
	uint32_t at = place_of(s, process, vpn);

	return at < s->nr && !compare(&s->cell[at], process, vpn) ? &s->cell[at] : NULL;
}

/* Room for n cells before the one at that place; false: no memory, and the map knows less. */
static bool make_room(struct judge_state *s, uint32_t at, uint32_t n)
{
	if (s->nr + n > s->max) {
		uint32_t max = (s->nr + n) * 2;
		struct judge_cell *cell = realloc(s->cell, max * sizeof(*cell));

		if (!cell)
			return false;
		s->cell = cell;
		s->max = max;
	}
	memmove(&s->cell[at + n], &s->cell[at], (s->nr - at) * sizeof(*s->cell));
	s->nr += n;
	return true;
}

/* The page's cell, made where there is none: with nothing in it yet. */
static struct judge_cell *make_cell(struct pyksm_judge *j, int32_t process, uint64_t vpn,
				    uint32_t maker)
{
	struct judge_state *s = &j->now;
	uint32_t at = place_of(s, process, vpn);

	if (at < s->nr && !compare(&s->cell[at], process, vpn))
		return &s->cell[at];
	if (!make_room(s, at, 1))
		return NULL;
	s->cell[at] = (struct judge_cell){ .process = process, .vpn = vpn, .maker = maker };
	return &s->cell[at];
}

static void remove_cells(struct judge_state *s, int32_t process, uint64_t vpn, uint64_t npages)
{
	uint32_t from = place_of(s, process, vpn);
	uint32_t to = from;

	while (to < s->nr && s->cell[to].process == process && s->cell[to].vpn - vpn < npages)
		to++;
	memmove(&s->cell[from], &s->cell[to], (s->nr - to) * sizeof(*s->cell));
	s->nr -= to - from;
}

/* Each cell of a range, with the page's number in it. */
#define for_each_cell(s, cell, proc, first, npages)                                                \
	for (struct judge_cell *cell = &(s)->cell[place_of(s, proc, first)];                       \
	     cell < &(s)->cell[(s)->nr] && cell->process == (proc) &&                              \
	     cell->vpn - (first) < (npages);                                                       \
	     cell++)

/* ---- what one operation adds shows in what others see ---- */
static uint64_t first_page(const struct pyksm_op *op)
{
	return op->addr >> PAGE_SHIFT;
}

static uint64_t range_of(const struct pyksm_op *op)
{
	return op->kind == PYKSM_OP_POKE ? 1 : op->npages;
}

static bool covers(const struct pyksm_op *op, const struct judge_cell *cell)
{
	return op->process == cell->process && cell->vpn - first_page(op) < range_of(op);
}

static uint32_t poked(struct pyksm_judge *j, uint32_t content, const struct pyksm_op *op)
{
	if (content == NO_CONTENT || op->to >= j->page_size)
		return content;
	memcpy(j->scratch, j->contents.bytes + (size_t)content * j->page_size, j->page_size);
	j->scratch[op->to] = (unsigned char)op->value;
	return add_content(j, j->scratch, NO_PATTERN);
}

static void add_value(struct pyksm_judge *j, int32_t process, uint64_t vpn,
		      struct judge_value value);

/* A fork's child, a moved page: they may get what comes in the meantime. */
static void pass_on(struct pyksm_judge *j, const struct judge_flight *f, int32_t process,
		    uint64_t vpn, struct judge_value value)
{
	const struct pyksm_op *op = f->op;

	if (op->kind == PYKSM_OP_READ) {
		set_add(&f->seen[vpn - first_page(op)], value);
	} else if (op->kind == PYKSM_OP_FORK) {
		add_value(j, op->child, vpn,
			  (struct judge_value){ value.content, 0, j->now.clock });
	} else if (op->kind == PYKSM_OP_POKE) {
		value = (struct judge_value){ poked(j, value.content, op), f->tag, IN_FLIGHT };
		add_value(j, process, vpn, value);
	} else if (op->kind == PYKSM_OP_MREMAP) {
		vpn += (op->to >> PAGE_SHIFT) - first_page(op);
		add_value(j, process, vpn, (struct judge_value){ value.content, 0, j->now.clock });
	}
}

static uint32_t written(struct pyksm_judge *j, const struct pyksm_op *op, uint64_t vpn)
{
	return pattern_content(j, op->value + (op->arg ? vpn - first_page(op) : 0));
}

static void add_value(struct pyksm_judge *j, int32_t process, uint64_t vpn,
		      struct judge_value value)
{
	struct judge_cell *cell = find_cell(&j->now, process, vpn);
	bool news;

	if (!cell)
		return;
	news = set_add(&cell->set, value);
	if (!news && !cell->set.any)
		return;
	if (cell->set.any)
		value.content = NO_CONTENT;
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct judge_flight *f = &j->flight[i];
		bool whole = f->op->kind == PYKSM_OP_FORK && f->op->process == process;
		bool read = f->op->kind == PYKSM_OP_READ;

		cell = find_cell(&j->now, process, vpn);
		/* That it may hold anything is no news here, but may be to who has begun before that. */
		if (cell && (whole || ((news || read) && covers(f->op, cell))))
			pass_on(j, f, process, vpn, value);
	}
}

/* That operation's content is there for good, and what was there before it began is not. */
static void settle(struct judge_set *set, const struct judge_flight *f, uint64_t now)
{
	struct judge_set before = *set;

	set->nr = 0;
	for (uint32_t i = 0; i < before.nr; i++) {
		struct judge_value value = before.value[i];

		if (value.tag == f->tag)
			value = (struct judge_value){ value.content, 0, now };
		else if (value.ended < f->clock)
			continue;
		set_add(set, value);
	}
}

/* It has failed: either it never came, or (unsure) who knows. */
static void unsettle(struct judge_set *set, uint32_t tag, uint64_t now, bool unsure)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < set->nr; i++) {
		struct judge_value value = set->value[i];

		if (value.tag == tag && !unsure)
			continue;
		if (value.tag == tag)
			value = (struct judge_value){ value.content, 0, now };
		set->value[kept++] = value;
	}
	set->nr = kept;
}

/* ---- operations ---- */
static void write_begins(struct pyksm_judge *j, struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	for (uint64_t i = 0; i < op->npages; i++) {
		uint64_t vpn = first_page(op) + i;

		add_value(j, op->process, vpn,
			  (struct judge_value){ written(j, op, vpn), f->tag, IN_FLIGHT });
	}
}

static void poke_begins(struct pyksm_judge *j, struct judge_flight *f)
{
	struct judge_cell *cell = find_cell(&j->now, f->op->process, first_page(f->op));
	struct judge_set before;

	if (!cell)
		return;
	before = cell->set;
	for (uint32_t i = 0; i < before.nr; i++)
		pass_on(j, f, f->op->process, first_page(f->op), before.value[i]);
}

static void zap_begins(struct pyksm_judge *j, struct judge_flight *f)
{
	for (uint64_t i = 0; i < f->op->npages; i++)
		add_value(j, f->op->process, first_page(f->op) + i,
			  (struct judge_value){ 0, f->tag, IN_FLIGHT });
}

/* WRITE, POKE, DONTNEED: of each page by what became of it. */
static void contents_end(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	uint64_t first = first_page(op);

	for_each_cell (&j->now, cell, op->process, first, range_of(op)) {
		int err = op->kind == PYKSM_OP_WRITE ? op->status[cell->vpn - first] : op->err;

		if (err)
			unsettle(&cell->set, f->tag, j->now.clock, op->kind == PYKSM_OP_MADVISE);
		else
			settle(&cell->set, f, j->now.clock);
		if (op->kind == PYKSM_OP_MADVISE)
			cell->soft = false;
		else if (!err)
			cell->soft = !f->overlapped;
	}
}

static void read_begins(struct pyksm_judge *j, struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	for_each_cell (&j->now, cell, op->process, first_page(op), op->npages)
		f->seen[cell->vpn - first_page(op)] = cell->set;
}

static uint64_t process_bit(int32_t process)
{
	return process >= 0 && process < 64 ? 1ULL << process : 0;
}

static void fork_begins(struct pyksm_judge *j, const struct pyksm_op *op)
{
	struct judge_state *s = &j->now;
	uint32_t from = place_of(s, op->process, 0), n = 0, at;

	remove_cells(s, op->child, 0, UINT64_MAX);
	from = place_of(s, op->process, 0);
	while (from + n < s->nr && s->cell[from + n].process == op->process)
		n++;
	at = place_of(s, op->child, 0);
	if (!n || !make_room(s, at, n))
		return;
	from += at <= from ? n : 0;
	for (uint32_t i = 0; i < n; i++) {
		struct judge_cell *cell = &s->cell[at + i];

		*cell = s->cell[from + i];
		cell->process = op->child;
		cell->unsure |= cell->going != 0 || !cell->there;
		cell->guarded |= cell->unsure;
		cell->going = 0;
		for (uint32_t k = 0; k < cell->set.nr; k++)
			cell->set.value[k].tag = 0;
	}
	if (s->tainted & process_bit(op->process))
		s->tainted |= process_bit(op->child);
	if (s->veiled & process_bit(op->process))
		s->veiled |= process_bit(op->child);
}

/* Values of writes under way when it began are the child's by now, or never. */
static void fork_ends(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	if (op->err) {
		remove_cells(&j->now, op->child, 0, UINT64_MAX);
		return;
	}
	for_each_cell (&j->now, cell, op->child, (uint64_t)0, UINT64_MAX) {
		cell->soft &= !f->overlapped;
		for (uint32_t k = 0; k < cell->set.nr; k++)
			cell->set.value[k].ended = j->now.clock;
	}
}

static void going(struct pyksm_judge *j, const struct pyksm_op *op, int by)
{
	for_each_cell (&j->now, cell, op->process, first_page(op), op->npages)
		cell->going += by > 0 || cell->going ? (uint32_t)by
						     : 0; /* it may have come since */
}

/* All of a process: it exits. */
static void all_going(struct pyksm_judge *j, const struct pyksm_op *op, int by)
{
	for_each_cell (&j->now, cell, op->process, (uint64_t)0, UINT64_MAX)
		cell->going += by > 0 || cell->going ? (uint32_t)by : 0;
}

/* Children that are being made may or may not have what is going. */
static void guard_children(struct pyksm_judge *j, const struct pyksm_op *op)
{
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct pyksm_op *fork = j->flight[i].op;

		if (fork->kind != PYKSM_OP_FORK || fork->process != op->process)
			continue;
		for_each_cell (&j->now, cell, fork->child, first_page(op), op->npages)
			cell->guarded = cell->unsure = true;
	}
}

/* half: it may be gone for good, and not only out of reach. */
static void guard(struct pyksm_judge *j, const struct pyksm_op *op, bool half)
{
	for_each_cell (&j->now, cell, op->process, first_page(op), op->npages) {
		cell->guarded = cell->met = true;
		cell->unsure |= half;
	}
	guard_children(j, op);
}

/* Even one that fails has cleared the place that it was to go to. */
static bool goes_to(const struct pyksm_op *op, const struct judge_cell *cell)
{
	return op->kind == PYKSM_OP_MREMAP && op->process == cell->process &&
	       cell->vpn - (op->to >> PAGE_SHIFT) < op->npages;
}

/* A page that comes to be meets what is under way at its address. */
static void meet_others(struct pyksm_judge *j, const struct pyksm_op *by, int32_t process,
			uint64_t vpn)
{
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct judge_flight *f = &j->flight[i];
		const struct pyksm_op *op = f->op;
		struct judge_cell *cell = find_cell(&j->now, process, vpn);
		struct judge_value value = { 0, f->tag, IN_FLIGHT };

		if (cell && op != by && goes_to(op, cell))
			cell->met = true;
		if (!cell || !covers(op, cell))
			continue;
		if (op->kind == PYKSM_OP_WRITE)
			value.content = written(j, op, vpn);
		if (op->kind == PYKSM_OP_WRITE ||
		    (op->kind == PYKSM_OP_MADVISE && op->arg == PYKSM_MADV_DONTNEED))
			add_value(j, process, vpn, value);
		else if (op->kind == PYKSM_OP_MPROTECT || op->kind == PYKSM_OP_MUNMAP ||
			 op->kind == PYKSM_OP_MREMAP)
			cell->met = true;
	}
}

/* Is a page coming to that address, from a call that has not ended? */
static bool is_coming(const struct pyksm_judge *j, const struct judge_cell *cell)
{
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct pyksm_op *op = j->flight[i].op;
		uint64_t to = op->kind == PYKSM_OP_MREMAP ? op->to >> PAGE_SHIFT : first_page(op);
		bool makes = op->kind == PYKSM_OP_MREMAP || op->kind == PYKSM_OP_MMAP;

		if (makes && op->process == cell->process && cell->vpn - to < op->npages)
			return true;
	}
	return false;
}

/* A child that is being made may or may not have what comes to its parent now. */
static void may_be_inherited(struct pyksm_judge *j, int32_t process, uint64_t vpn, uint32_t tag)
{
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct pyksm_op *fork = j->flight[i].op;
		struct judge_cell *cell = NULL;

		if (fork->kind == PYKSM_OP_FORK && fork->process == process)
			cell = make_cell(j, fork->child, vpn, tag);
		if (!cell)
			continue;
		cell->guarded = cell->unsure = true;
		add_value(j, fork->child, vpn, (struct judge_value){ NO_CONTENT, 0, j->now.clock });
	}
}

static void munmap_ends(struct pyksm_judge *j, const struct pyksm_op *op)
{
	going(j, op, -1);
	if (op->err) {
		guard(j, op, true);
		return;
	}
	for (uint64_t i = 0; i < op->npages; i++) {
		struct judge_cell *cell = find_cell(&j->now, op->process, first_page(op) + i);

		if (cell && is_coming(j, cell))
			cell->guarded = cell->unsure = true;
		else if (cell)
			remove_cells(&j->now, op->process, first_page(op) + i, 1);
	}
}

static void mmap_begins(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	for (uint64_t i = 0; i < op->npages; i++) {
		uint64_t vpn = first_page(op) + i;

		may_be_inherited(j, op->process, vpn, f->tag);
		if (!make_cell(j, op->process, vpn, f->tag))
			return;
		add_value(j, op->process, vpn, (struct judge_value){ 0, f->tag, IN_FLIGHT });
		meet_others(j, op, op->process, vpn);
	}
}

/* Where it has failed there is what was there before. */
static void mmap_ends(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	for (uint64_t i = 0; i < op->npages; i++) {
		uint64_t vpn = first_page(op) + i;
		struct judge_cell *cell = find_cell(&j->now, op->process, vpn);

		if (!cell)
			continue;
		if (op->err && cell->maker == f->tag) {
			remove_cells(&j->now, op->process, vpn, 1);
		} else if (op->err) {
			unsettle(&cell->set, f->tag, j->now.clock, false);
		} else {
			settle(&cell->set, f, j->now.clock);
			cell->there = true;
			cell->guarded = cell->unsure = cell->met;
			cell->soft = false;
		}
	}
}

static void mremap_begins(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	uint64_t to = op->to >> PAGE_SHIFT;

	for (uint64_t i = 0; i < op->npages; i++) {
		struct judge_cell *new, *old;
		struct judge_set set;

		may_be_inherited(j, op->process, to + i, f->tag);
		new = make_cell(j, op->process, to + i, f->tag);
		if (!new)
			return;
		new->guarded = new->unsure = true;
		meet_others(j, op, op->process, to + i);
		old = find_cell(&j->now, op->process, first_page(op) + i);
		if (!old) { /* nobody knows what comes from there, if anything does */
			add_value(j, op->process, to + i,
				  (struct judge_value){ NO_CONTENT, 0, j->now.clock });
			continue;
		}
		old->going++;
		set = old->set;
		if (set.any)
			add_value(j, op->process, to + i,
				  (struct judge_value){ NO_CONTENT, 0, j->now.clock });
		for (uint32_t k = 0; k < set.nr; k++)
			add_value(j, op->process, to + i,
				  (struct judge_value){ set.value[k].content, 0, j->now.clock });
	}
	guard_children(j, op);
}

/* It holds what came while it moved, and nothing of what was there before. */
static void arrive(struct pyksm_judge *j, struct judge_cell *cell, const struct judge_cell *old,
		   const struct judge_flight *f)
{
	settle(&cell->set, f, j->now.clock);
	cell->there = old && old->there;
	cell->guarded = !old || old->guarded || cell->met;
	cell->unsure = !old || old->unsure || cell->met;
	cell->soft = old && old->soft;
	if (f->overlapped) /* a write may have gone to what was there before */
		add_value(j, cell->process, cell->vpn,
			  (struct judge_value){ NO_CONTENT, 0, j->now.clock });
}

/* What mremap could not unmap is there, and empty; and so it is in a child that is being made. */
static void may_be_empty(struct pyksm_judge *j, const struct pyksm_op *op)
{
	struct judge_value zeros = { 0, 0, j->now.clock };

	for (uint64_t i = 0; i < op->npages; i++)
		add_value(j, op->process, first_page(op) + i, zeros);
	for (uint32_t i = 0; i < j->nr_flights; i++) {
		const struct pyksm_op *fork = j->flight[i].op;

		if (fork->kind != PYKSM_OP_FORK || fork->process != op->process)
			continue;
		for_each_cell (&j->now, cell, fork->child, first_page(op), op->npages)
			set_add(&cell->set, zeros);
	}
}

static void mremap_ends(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	bool half = op->err || f->fired[PYKSM_FAIL_KMEM];
	uint64_t to = op->to >> PAGE_SHIFT;

	for_each_cell (&j->now, cell, op->process, to, op->npages)
		if (!half)
			arrive(j, cell,
			       find_cell(&j->now, op->process, cell->vpn - to + first_page(op)), f);
	going(j, op, -1);
	if (!half) {
		remove_cells(&j->now, op->process, first_page(op), op->npages);
		return;
	}
	/* Moved or not, moved back, or left behind empty: whatever it was, an access may be EFAULT. */
	guard(j, op, true);
	may_be_empty(j, op);
	for_each_cell (&j->now, cell, op->process, to, op->npages) {
		cell->guarded = cell->unsure = true;
		set_add(&cell->set, (struct judge_value){ 0, 0, j->now.clock });
	}
}

/* The process, and who is being forked from it: what comes now may be for them too. */
uint64_t family_bits(const struct pyksm_judge *j, int32_t process)
{
	uint64_t bits = process_bit(process);

	for (uint32_t k = 0; k < j->nr_flights; k++) {
		const struct pyksm_op *op = j->flight[k].op;

		if (op->kind == PYKSM_OP_FORK && op->process == process)
			bits |= process_bit(op->child);
	}
	return bits;
}

/* It becomes mergeable with what it has: unmerging may have passed by. */
static void taint(struct pyksm_judge *j, const struct pyksm_op *op)
{
	j->now.tainted |= family_bits(j, op->process);
}

static void veil(struct pyksm_judge *j, const struct pyksm_op *op)
{
	j->now.veiled |= family_bits(j, op->process);
}

void map_begin(struct pyksm_judge *j, struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	switch (op->kind) {
	case PYKSM_OP_MMAP:
		mmap_begins(j, f);
		break;
	case PYKSM_OP_WRITE:
		write_begins(j, f);
		break;
	case PYKSM_OP_POKE:
		poke_begins(j, f);
		break;
	case PYKSM_OP_READ:
		read_begins(j, f);
		break;
	case PYKSM_OP_FORK:
		fork_begins(j, op);
		break;
	case PYKSM_OP_EXIT:
		all_going(j, op, 1);
		break;
	case PYKSM_OP_MUNMAP:
		going(j, op, 1);
		guard_children(j, op);
		break;
	case PYKSM_OP_MREMAP:
		mremap_begins(j, f);
		break;
	case PYKSM_OP_MADVISE:
		if (op->arg == PYKSM_MADV_DONTNEED)
			zap_begins(j, f);
		if (op->arg == PYKSM_MADV_MERGEABLE)
			taint(j, op);
		break;
	case PYKSM_OP_MPROTECT:
		if (op->arg == PYKSM_PROT_SEAL)
			break;
		guard(j, op, false);
		if (!(op->arg & PYKSM_PROT_READ))
			veil(j, op);
		break;
	case PYKSM_OP_PRCTL:
		if (op->arg)
			taint(j, op);
		break;
	default:
		break;
	}
}

static void seal(struct pyksm_judge *j, const struct pyksm_op *op)
{
	for_each_cell (&j->now, cell, op->process, first_page(op), op->npages)
		cell->sealed = true;
}

static void clear_refs_ends(struct pyksm_judge *j, const struct pyksm_op *op)
{
	for_each_cell (&j->now, cell, op->process, (uint64_t)0, UINT64_MAX)
		cell->soft = false;
}

/* Whether the process has asked for all to be merged, or its child has that from it; unsure if both ran at once. */
static void merge_any_ends(struct pyksm_judge *j, const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	bool forks = op->kind == PYKSM_OP_FORK;
	uint64_t of = process_bit(op->process), to = forks ? process_bit(op->child) : of;
	bool on = forks ? (j->now.merge_any & of) != 0 : op->arg != 0;

	j->now.merge_any = on ? j->now.merge_any | to : j->now.merge_any & ~to;
	if (f->overlapped || (forks && j->now.merge_any_unsure & of))
		j->now.merge_any_unsure |= to;
	else
		j->now.merge_any_unsure &= ~to;
}

void map_end(struct pyksm_judge *j, struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;

	if (!op->err && (op->kind == PYKSM_OP_PRCTL || op->kind == PYKSM_OP_FORK))
		merge_any_ends(j, f);
	switch (op->kind) {
	case PYKSM_OP_MMAP:
		mmap_ends(j, f);
		break;
	case PYKSM_OP_WRITE:
	case PYKSM_OP_POKE:
		contents_end(j, f);
		break;
	case PYKSM_OP_MADVISE:
		if (op->arg == PYKSM_MADV_DONTNEED)
			contents_end(j, f);
		break;
	case PYKSM_OP_FORK:
		fork_ends(j, f);
		break;
	case PYKSM_OP_EXIT:
		all_going(j, op, -1);
		if (!op->err)
			remove_cells(&j->now, op->process, 0, UINT64_MAX);
		break;
	case PYKSM_OP_MUNMAP:
		munmap_ends(j, op);
		break;
	case PYKSM_OP_MREMAP:
		mremap_ends(j, f);
		break;
	case PYKSM_OP_CLEAR_REFS:
		clear_refs_ends(j, op);
		break;
	case PYKSM_OP_MPROTECT:
		if (op->arg == PYKSM_PROT_SEAL && !op->err)
			seal(j, op);
		break;
	default:
		break;
	}
}

void flight_release(struct judge_flight *f)
{
	if (f->status)
		f->op->status = NULL;
	if (f->data)
		f->op->data = NULL;
	free(f->status);
	free(f->data);
	free(f->seen);
	free(f->sure);
}
