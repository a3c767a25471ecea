/* SPDX-License-Identifier: MIT */
/*
 * Who pays for a page (kernel: mm/memcontrol.c), as far as it decides which pages pressure on the
 * processes' memory cgroup can reach: all processes are in one. A page is charged when it is mapped, and
 * no longer when it has neither a mapping nor a place in the swap cache.
 */
#include "internal.h"

/*
 * Commit what was tried before the page was mapped. In between a write fault may have taken the page out
 * of the swap cache, unmapped as it still was, which uncharged it: so it ends up mapped and nobody's.
 */
void __commit_charge_swapin(struct pyksm *m, struct page *page)
{
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
