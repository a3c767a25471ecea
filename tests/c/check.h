/* SPDX-License-Identifier: MIT */
/* The least that a C test needs: a count of what was expected and of what came otherwise. */
#ifndef PYKSM_TESTS_CHECK_H
#define PYKSM_TESTS_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int nr_passed, nr_failed;

static inline void expect_at(const char *file, int line, const char *what, int64_t got,
			     int64_t wanted)
{
	if (got == wanted) {
		nr_passed++;
		return;
	}
	nr_failed++;
	fprintf(stderr, "%s:%d: %s gave %" PRId64 ", expected %" PRId64 "\n", file, line, what, got,
		wanted);
}

/* What an expression gives, exactly. */
#define EXPECT(expression, wanted)                                                                 \
	expect_at(__FILE__, __LINE__, #expression, (int64_t)(expression), (int64_t)(wanted))

/* A refusal, whichever; what matters is that the machine lives on. */
#define REFUSED(expression) EXPECT((expression) < 0, 1)

static inline int report(void)
{
	printf("%d passed, %d failed\n", nr_passed, nr_failed);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
