/* SPDX-License-Identifier: MIT */
/*
 * Who pays for a page (kernel: mm/memcontrol.c), as far as it decides which pages pressure on the
 * processes' memory cgroup can reach: all processes are in one. A page is charged when it is mapped, and
 * no longer when it has neither a mapping nor a place in the swap cache.
 */
#include "internal.h"

/* A page in swap cache may have kept its charge, or got it when it was read: then there is none to commit. */
bool try_charge_swapin(const struct pyksm *m, const struct page *page)
{
	return !(page->flags & PG_charged) && !has(m, FEAT_SWAPIN_CHARGED_AT_READ);
}

/*
 * Commit what was tried before the page was mapped. In between a write fault may have taken the page out
 * of the swap cache, unmapped as it still was, which uncharged it: so it ends up mapped and nobody's.
 */
void commit_charge_swapin(struct pyksm *m, struct page *page, bool charge)
{
	if (!charge)
		return;
	page->flags |= PG_charged;
	if (page->flags & PG_lru) {
		lru_del(m, page);
		lru_putback(m, page);
	}
}

/*
 * After the last mapping or the swap cache has gone. The page stays on its list until it is put back.
 * Since 3.17 (0a31bc97c80c) a charge ends with the page alone.
 */
void uncharge_page(struct pyksm *m, struct page *page)
{
	if (has(m, FEAT_UNCHARGE_AT_FREE))
		return;
	if (!page_mapped(page) && !(page->flags & PG_swapcache))
		page->flags &= ~(uint32_t)PG_charged;
}
