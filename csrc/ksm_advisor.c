/* SPDX-License-Identifier: MIT */
/*
 * The advisor that sets pages_to_scan so that a scan takes as long as it should (kernel: mm/ksm.c since
 * 6.8, 4e5fa4f5eff6).  The machine's clock is the time; ksmd costs no processor time here.
 */
#include "ksm_internal.h"

#define DEFAULT_PAGES_TO_SCAN 100
#define KSM_ADVISOR_MIN_CPU 10
#define EWMA_WEIGHT 30

static uint64_t at_least_one(uint64_t n)
{
	return n ? n : 1;
}

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

void set_advisor_defaults(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;

	if (!ksm->advisor) {
		ksm->pages_to_scan = DEFAULT_PAGES_TO_SCAN;
	} else {
		ksm->advisor_ctx = (struct advisor_ctx){ 0, 0, 0 };
		ksm->pages_to_scan = (uint32_t)ksm->advisor_min_pages_to_scan;
	}
}

void advisor_start_scan(struct pyksm *m)
{
	if (m->ksm.advisor)
		m->ksm.advisor_ctx.start_scan = m->clock;
}

/* More pages a batch if the scan took longer than it should, moderated by how that has developed. */
static void scan_time_advisor(struct pyksm *m)
{
	struct ksm *ksm = &m->ksm;
	struct advisor_ctx *ctx = &ksm->advisor_ctx;
	uint64_t scan_time = at_least_one((m->clock - ctx->start_scan) / 1000);
	uint64_t last_scan_time = ctx->scan_time ? ctx->scan_time : scan_time;
	uint64_t factor = at_least_one(ksm->advisor_target_scan_time * 100 / scan_time);
	uint64_t change = at_least_one(scan_time * 100 / last_scan_time);
	uint64_t pages,
		per_page_cost = at_least_one(ksm->pages_to_scan); /* at 1 % of a processor */

	change = (ctx->change * (100 - EWMA_WEIGHT) + change * EWMA_WEIGHT) / 100;
	pages = ksm->pages_to_scan * 100 / factor; /* an unsigned int, as it is kept */
	pages = pages * change / 100;
	pages = min_of(pages, per_page_cost * ksm->advisor_max_cpu);
	pages = max_of(pages, per_page_cost * KSM_ADVISOR_MIN_CPU);
	pages = min_of(pages, ksm->advisor_max_pages_to_scan);
	ctx->change = change;
	ctx->scan_time = scan_time;
	ksm->pages_to_scan = (uint32_t)pages;
}

void advisor_stop_scan(struct pyksm *m)
{
	if (m->ksm.advisor)
		scan_time_advisor(m);
}
