/* SPDX-License-Identifier: MIT */
/* How fast this host is at what a machine does most: copy, read, chase. No machine takes part. */
#include <sys/mman.h>
#include <time.h>

#include "internal.h"

#define PASSES 5
#define MAX_STEPS (1ULL << 20) /* in one pass, where a step is not a page of this host */
#define LINE 64
#define HOST_PAGE 4096

struct limit {
	unsigned char *a, *b; /* b only for copies */
	uint64_t bytes; /* of each: a power of two */
	uint32_t page_size;
	uint64_t pass;
	uint64_t seen; /* so that no read is for nothing */
};

/* One pass; returns how many units it was. */
typedef uint64_t (*limit_fn)(struct limit *l);

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The i-th of n numbers below n, a power of two, in an order without pattern: each step can be undone. */
static uint64_t shuffled(uint64_t i, uint64_t n, uint64_t odd)
{
	int half = n > 1 ? (64 - __builtin_clzll(n - 1)) / 2 : 0;

	for (int round = 0; round < 3 && half; round++) {
		i = (i * odd + round + 1) & (n - 1);
		i ^= i >> half;
	}
	return i;
}

static uint64_t steps_of(uint64_t n)
{
	return n < MAX_STEPS ? n : MAX_STEPS;
}

static uint64_t copy_anywhere(struct limit *l)
{
	uint64_t n = l->bytes / l->page_size, steps = steps_of(n), at = l->pass * steps;

	for (uint64_t i = at; i < at + steps; i++)
		memcpy(l->b + shuffled(i, n, 0x9e3779b97f4a7c15ULL) * l->page_size,
		       l->a + shuffled(i, n, 0xd1342543de82ef95ULL) * l->page_size, l->page_size);
	return steps;
}

static uint64_t copy_in_order(struct limit *l)
{
	uint64_t n = l->bytes / l->page_size;

	for (uint64_t i = 0; i < n; i++)
		memcpy(l->b + i * l->page_size, l->a + i * l->page_size, l->page_size);
	return n;
}

typedef uint64_t words __attribute__((vector_size(32)));

/* Four sums of four words, so that none waits for another. */
static uint64_t read_words(struct limit *l)
{
	const words *word = (const words *)(const void *)l->a;
	words sum[4] = { 0 };

	for (uint64_t i = 0; i < l->bytes / sizeof(*word); i += 4)
		for (int k = 0; k < 4; k++)
			sum[k] += word[i + k];
	for (int k = 0; k < 4; k++)
		l->seen += sum[k][0] + sum[k][1] + sum[k][2] + sum[k][3];
	return l->bytes;
}

static uint64_t read_bytes(struct limit *l)
{
	l->seen += memchr(l->a, 0xff, l->bytes) != NULL; /* it is not there */
	return l->bytes;
}

/* Every line says which is next, all of them in one circle. */
static void tie_lines(struct limit *l)
{
	uint64_t n = l->bytes / LINE;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t from = shuffled(i, n, 0x9e3779b97f4a7c15ULL);
		uint64_t to = shuffled((i + 1) & (n - 1), n, 0x9e3779b97f4a7c15ULL);

		memcpy(l->a + from * LINE, &to, sizeof(to));
	}
}

static uint64_t chase(struct limit *l)
{
	uint64_t steps = steps_of(l->bytes / LINE), at = l->seen % (l->bytes / LINE);

	for (uint64_t i = 0; i < steps; i++)
		memcpy(&at, l->a + at * LINE, sizeof(at));
	l->seen = at;
	return steps;
}

/* Another part each time: what was touched once is not touched for the first time again. */
static uint64_t touch_first(struct limit *l)
{
	uint64_t part = l->bytes / 8;

	for (uint64_t i = 0; i < part; i += HOST_PAGE)
		l->a[l->pass * part + i] = 1;
	return part / HOST_PAGE;
}

static const limit_fn limits[PYKSM_NR_LIMITS] = {
	[PYKSM_LIMIT_COPY] = copy_anywhere, [PYKSM_LIMIT_COPY_IN_ORDER] = copy_in_order,
	[PYKSM_LIMIT_READ] = read_words,    [PYKSM_LIMIT_READ_BYTES] = read_bytes,
	[PYKSM_LIMIT_CHASE] = chase,	    [PYKSM_LIMIT_FIRST_TOUCH] = touch_first,
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median_of_passes(struct limit *l, limit_fn fn)
{
	double ns[PASSES];

	for (l->pass = 0; l->pass < PASSES; l->pass++) {
		double begin = now_ns();
		uint64_t units = fn(l);

		ns[l->pass] = (now_ns() - begin) / (double)units;
	}
	qsort(ns, PASSES, sizeof(*ns), by_value);
	return ns[PASSES / 2];
}

static uint64_t power_of_two_below(uint64_t n)
{
	return 1ULL << (63 - __builtin_clzll(n));
}

int pyksm_limit(int kind, uint32_t page_size, uint64_t bytes, double *ns)
{
	struct limit l = { .page_size = page_size ? page_size : PAGE_SIZE };
	bool copies = kind == PYKSM_LIMIT_COPY || kind == PYKSM_LIMIT_COPY_IN_ORDER;

	if (kind < 0 || kind >= PYKSM_NR_LIMITS || !ns || l.page_size < 8 ||
	    l.page_size > PAGE_SIZE || l.page_size & (l.page_size - 1) ||
	    bytes < PYKSM_LIMIT_MIN_BYTES || bytes > PYKSM_LIMIT_MAX_BYTES)
		return -EINVAL;
	l.bytes = power_of_two_below(bytes);
	l.a = map_lazily(l.bytes);
	l.b = copies ? map_lazily(l.bytes) : l.a;
	if (l.a && l.b) {
		if (kind != PYKSM_LIMIT_FIRST_TOUCH)
			memset(l.a, 1, l.bytes);
		if (copies)
			memset(l.b, 1, l.bytes);
		if (kind == PYKSM_LIMIT_CHASE)
			tie_lines(&l);
		*ns = median_of_passes(&l, limits[kind]);
		/* Never so, but the compiler cannot know that nobody looks at what was read. */
		if (l.seen == UINT64_MAX)
			*ns = 0;
	}
	if (copies && l.b)
		munmap(l.b, l.bytes);
	if (l.a)
		munmap(l.a, l.bytes);
	return l.a && l.b ? 0 : -ENOMEM;
}
