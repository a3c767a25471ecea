/* SPDX-License-Identifier: MIT */
/* The invariants: recount everything from the page tables up and compare (bug catalogue, I3-I9). */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"
#include "ksm_internal.h"

struct av_count {
	int refs, children, vmas;
	const struct vm_area_struct *last; /* that uses it */
};

enum { FRAME_WRITABLE = 1, FRAME_DIRTY = 2, FRAME_LOCKED = 4 }; /* by a pte, or its vma */
#define SLOT_EXCLUSIVE (1ULL << 63) /* one of its swap ptes says that it is the only one */

struct census {
	struct pyksm *m;
	bool strict;
	uint32_t *ptes; /* of each frame */
	uint32_t *pins; /* of each frame */
	struct av_count *av; /* of each anon_vma, by id */
	unsigned char *marks; /* of each frame */
	uint64_t unevictable[MAX_NODES]; /* frames that are on that list */
	int64_t mlocked; /* frames with the mark */
	unsigned char *scratch; /* a page */
	uint64_t *swap_ptes[MAX_SWAPFILES]; /* of each slot, and SLOT_EXCLUSIVE */
	uint32_t *buffer_refs; /* of each buffer, where contents are moved by reference */
	uint32_t *first_of_id; /* the first frame of each content_id */
	char *buf;
	size_t len, used;
	int found;
};

__attribute__((format(printf, 3, 4))) static void wrong(struct census *c, const char *code,
							const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	c->found++;
	n = snprintf(line, sizeof(line), "%s: ", code);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(line) - 1)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (c->used + (size_t)n < c->len) { /* whole lines only */
		memcpy(c->buf + c->used, line, (size_t)n);
		c->used += (size_t)n;
		c->buf[c->used] = '\0';
	}
}

/* ---- pins ---- */
static void count_pins(struct census *c)
{
	for (size_t i = 0; i < c->m->nr_procs; i++)
		for (size_t k = 0; k < c->m->procs[i].nr_pins; k++)
			c->pins[c->m->procs[i].pins[k].pfn] += c->m->procs[i].pins[k].refs;
}

/* What I/O brings to the page is to be seen where its owner looks, in mm or not yet in memory. */
static void check_own_pins(struct census *c, const struct process *p)
{
	for (size_t k = 0; k < p->nr_pins; k++) {
		const struct pin *pin = &p->pins[k];
		const pte_t *pte = pte_lookup(p->mm, pin->vpn << PAGE_SHIFT);

		if (!pin->write || pin->gone || !pte || !pte_present(*pte) ||
		    pte_pfn(*pte) == pin->pfn)
			continue;
		wrong(c, "pin", "pid %d 0x%llx maps page %llu, page %llu is pinned for I/O", p->pid,
		      (unsigned long long)pin->vpn << PAGE_SHIFT, (unsigned long long)pte_pfn(*pte),
		      (unsigned long long)pin->pfn);
	}
}

/* Nobody writes to a page that somebody else, who once shared it, still reads by a pin. */
static void check_foreign_pins(struct census *c, const struct vm_area_struct *vma, uint64_t addr,
			       uint64_t pfn)
{
	for (size_t i = 0; i < c->m->nr_procs; i++) {
		const struct process *p = &c->m->procs[i];

		for (size_t k = 0; k < p->nr_pins && p->mm != vma->vm_mm; k++)
			if (p->pins[k].pfn == pfn)
				wrong(c, "pin",
				      "pid %d 0x%llx is writable, pid %d has its page %llu pinned",
				      vma->vm_mm->pid, (unsigned long long)addr, p->pid,
				      (unsigned long long)pfn);
	}
}

/* ---- page tables ---- */
static void check_ksm_pte(struct census *c, const struct vm_area_struct *vma, uint64_t addr,
			  pte_t pte)
{
	const struct page *page = pfn_to_page(c->m, pte_pfn(pte));

	if (!PageKsm(page))
		return;
	if (pte & _PAGE_RW)
		wrong(c, "ksm-writable", "pid %d 0x%llx may write to KSM page %llu",
		      vma->vm_mm->pid, (unsigned long long)addr, (unsigned long long)pte_pfn(pte));
	if (page_stable_node(page))
		return;
	if (!(page->flags & PG_uptodate))
		return; /* not read: ksm_might_need_to_copy() leaves it to do_swap_page(), swapoff maps it */
	if (has(c->m, FEAT_BREAK_SKIPS_PROT_NONE))
		return; /* it may have been PROT_NONE when unmerging did not see it */
	if ((vma->vm_flags & VM_MERGEABLE) && c->m->ksm.run == KSM_RUN_UNMERGE)
		wrong(c, "ksm-unmerged", "pid %d 0x%llx maps KSM page %llu although run is 2",
		      vma->vm_mm->pid, (unsigned long long)addr,
		      (unsigned long long)page_to_pfn(c->m, page));
}

static void count_swap_pte(struct census *c, swp_entry_t entry, pte_t pte)
{
	uint64_t *slot = &c->swap_ptes[swp_type(entry)][swp_offset(entry)];

	++*slot;
	if (has(c->m, FEAT_ANON_EXCLUSIVE) && (pte & swp_exclusive(c->m)))
		*slot |= SLOT_EXCLUSIVE;
}

static void count_pte(struct census *c, const struct vm_area_struct *vma, uint64_t addr, pte_t pte,
		      int64_t *anon, int64_t *swapents, int64_t *zero)
{
	swp_entry_t entry;

	if (pte_present(pte)) {
		*zero += is_ksm_zero_pte(c->m, pte);
		if (pte & _PAGE_SPECIAL)
			return;
		(*anon)++;
		c->ptes[pte_pfn(pte)]++;
		c->marks[pte_pfn(pte)] |= (pte & _PAGE_RW ? FRAME_WRITABLE : 0) |
					  (pte & _PAGE_DIRTY ? FRAME_DIRTY : 0) |
					  (vma->vm_flags & VM_LOCKED ? FRAME_LOCKED : 0);
		check_ksm_pte(c, vma, addr, pte);
		if (pte & _PAGE_RW && c->pins[pte_pfn(pte)] && has(c->m, FEAT_REUSE_BY_REFCOUNT))
			check_foreign_pins(c, vma, addr, pte_pfn(pte));
		return;
	}
	entry = pte_to_swp_entry(c->m, pte);
	if (is_swapin_error_entry(c->m, entry))
		return; /* what was there could not be read: it is counted nowhere any more */
	(*swapents)++;
	if (non_swap_entry(c->m, entry) || !swap_info_get(c->m, entry))
		wrong(c, "swap-count", "pid %d 0x%llx refers to a slot that is not in use",
		      vma->vm_mm->pid, (unsigned long long)addr);
	else
		count_swap_pte(c, entry, pte);
}

static void count_vma(struct census *c, const struct vm_area_struct *vma, int64_t *anon,
		      int64_t *swapents, int64_t *zero)
{
	uint64_t addr, end = vma->vm_end;

	for (addr = next_table(vma->vm_mm, vma->vm_start, end); addr < end;
	     addr = next_table(vma->vm_mm, addr + PAGE_SIZE, end)) {
		pte_t pte = *pte_lookup(vma->vm_mm, addr);

		if (!pte_none(pte))
			count_pte(c, vma, addr, pte, anon, swapents, zero);
	}
}

static const struct anon_vma *of_link(const struct list_head *pos)
{
	return container_of(pos, struct anon_vma_chain, same_vma)->anon_vma;
}

/*
 * vmas of an mm that use one anon_vma are on the same anon_vmas: they may be merged. (While reuse went by a degree
 * alone, that was hoped: 2555283eb40d.)
 */
static void check_chain(struct census *c, const struct vm_area_struct *vma)
{
	const struct vm_area_struct *other = c->av[vma->anon_vma->id].last;
	const struct list_head *one = &vma->anon_vma_chain, *two;

	c->av[vma->anon_vma->id].last = vma;
	c->av[vma->anon_vma->id].vmas++;
	if (!other || other->vm_mm != vma->vm_mm ||
	    (has(c->m, FEAT_ANON_VMA_REUSE) && !has(c->m, FEAT_ANON_VMA_ACTIVE_VMAS)))
		return;
	for (two = other->anon_vma_chain.next, one = one->next;
	     one != &vma->anon_vma_chain && two != &other->anon_vma_chain;
	     one = one->next, two = two->next)
		if (of_link(one) != of_link(two))
			break;
	if (one != &vma->anon_vma_chain || two != &other->anon_vma_chain)
		wrong(c, "anon-vma", "pid %d 0x%llx and 0x%llx: one anon_vma, different chains",
		      vma->vm_mm->pid, (unsigned long long)other->vm_start,
		      (unsigned long long)vma->vm_start);
}

static void check_vma(struct census *c, const struct vm_area_struct *vma)
{
	const struct list_head *pos;
	bool own = false;

	if (vma->vm_start >= vma->vm_end ||
	    (vma->vm_prev && vma->vm_prev->vm_end > vma->vm_start) ||
	    (vma->vm_next && vma->vm_next->vm_prev != vma) ||
	    find_vma(vma->vm_mm, vma->vm_start) != vma)
		wrong(c, "vma", "pid %d 0x%llx-0x%llx", vma->vm_mm->pid,
		      (unsigned long long)vma->vm_start, (unsigned long long)vma->vm_end);
	list_for_each (pos, &vma->anon_vma_chain) {
		const struct anon_vma_chain *avc =
			container_of(pos, struct anon_vma_chain, same_vma);

		own |= avc->anon_vma == vma->anon_vma;
		if (avc->vma != vma || !avc->anon_vma->id)
			wrong(c, "anon-vma", "chain of pid %d 0x%llx", vma->vm_mm->pid,
			      (unsigned long long)vma->vm_start);
	}
	if (vma->anon_vma)
		check_chain(c, vma);
	if (!!vma->anon_vma != vma->written)
		wrong(c, "anon-vma", "pid %d 0x%llx was %swritten to and is on %s anon_vma",
		      vma->vm_mm->pid, (unsigned long long)vma->vm_start,
		      vma->written ? "" : "never ", vma->written ? "no" : "an");
	if (own != !!vma->anon_vma)
		wrong(c, "anon-vma", "pid %d 0x%llx is not on its own anon_vma", vma->vm_mm->pid,
		      (unsigned long long)vma->vm_start);
}

/* What a process counts for itself; copies of its parent's at first, until 6.18 (4d6fc29f3634). */
static void check_ksm_mm(struct census *c, const struct mm_struct *mm, int64_t zero)
{
	const struct rmap_item *item = mm->mm_slot ? mm->mm_slot->rmap_list : NULL;
	int64_t items = 0, merging = 0;

	for (; item; item = item->rmap_list) {
		items++;
		merging += !!(item->address & STABLE_FLAG);
	}
	if (zero != mm->ksm_zero_pages)
		wrong(c, "ksm-counts", "pid %d has %lld zero pages, counted %lld", mm->pid,
		      (long long)mm->ksm_zero_pages, (long long)zero);
	if (has(c->m, FEAT_KSM_COUNTS_START_AT_ZERO) &&
	    (items != mm->ksm_rmap_items || merging != mm->ksm_merging_pages))
		wrong(c, "ksm-counts", "pid %d has %lld items and %lld merged, counted %lld, %lld",
		      mm->pid, (long long)mm->ksm_rmap_items, (long long)mm->ksm_merging_pages,
		      (long long)items, (long long)merging);
}

static bool is_on_mmlist(const struct pyksm *m, const struct mm_struct *mm)
{
	const struct list_head *pos;

	list_for_each (pos, &m->swap.init_mm.mmlist)
		if (pos == &mm->mmlist)
			return true;
	return false;
}

static void count_mm(struct census *c, const struct mm_struct *mm)
{
	int64_t anon = 0, swapents = 0, zero = 0;

	for (const struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next) {
		check_vma(c, vma);
		count_vma(c, vma, &anon, &swapents, &zero);
	}
	if (anon != mm->anon_rss || swapents != mm->swapents)
		wrong(c, "mm-counter", "pid %d anon %lld swap %lld, counted %lld and %lld", mm->pid,
		      (long long)mm->anon_rss, (long long)mm->swapents, (long long)anon,
		      (long long)swapents);
	if (swapents && !is_on_mmlist(c->m, mm))
		wrong(c, "mmlist", "pid %d has swap ptes and is not on the list", mm->pid);
	check_ksm_mm(c, mm, zero);
}

/* ---- frames ---- */
/* A walk may come to a pte twice (by the items of two forked sharers): this bit, unused, tells. */
#define _PAGE_SEEN (1ULL << 10)

static int count_reached(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			 uint64_t addr, void *arg)
{
	pte_t *pte = pte_lookup(vma->vm_mm, addr);

	if (pte && pte_maps(m, *pte, page) && !(*pte & _PAGE_SEEN)) {
		*pte |= _PAGE_SEEN;
		++*(uint32_t *)arg;
	}
	return SWAP_AGAIN;
}

static int forget_seen(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
		       uint64_t addr, void *arg)
{
	pte_t *pte = pte_lookup(vma->vm_mm, addr);

	(void)arg;
	if (pte && pte_maps(m, *pte, page))
		*pte &= ~_PAGE_SEEN;
	return SWAP_AGAIN;
}

static void check_rmap(struct census *c, struct page *page, uint64_t pfn)
{
	uint64_t saved[NR_COUNTERS];
	uint32_t reached = 0;

	if (!page_mapped(page) || (PageKsm(page) && !c->strict))
		return;
	memcpy(saved, c->m->count, sizeof(saved)); /* looking is not work */
	rmap_walk(c->m, page, count_reached, &reached);
	rmap_walk(c->m, page, forget_seen, NULL);
	memcpy(c->m->count, saved, sizeof(saved));
	if (reached < c->ptes[pfn])
		wrong(c, PageKsm(page) ? "ksm-rmap" : "rmap",
		      "page %llu: a walk reaches %u of %u ptes", (unsigned long long)pfn, reached,
		      c->ptes[pfn]);
	if (PageKsm(page) && !page_stable_node(page))
		wrong(c, "ksm-no-node", "page %llu is mapped and has no stable node",
		      (unsigned long long)pfn);
}

/* Frames of one content_id are equal, and their checksum is what it is remembered to be. */
static void check_content_id(struct census *c, struct page *page, uint64_t pfn)
{
	uint32_t id = page->content_id, first = c->first_of_id[id];

	if (!id)
		return;
	if (first && memcmp(page_content(c->m, page), page_content(c->m, pfn_to_page(c->m, first)),
			    c->m->page_size))
		wrong(c, "content-id", "pages %u and %llu are not equal", first,
		      (unsigned long long)pfn);
	if (!first && content_checksum(c->m, page) != page_checksum(c->m, page_content(c->m, page)))
		wrong(c, "content-id", "page %llu has another checksum", (unsigned long long)pfn);
	if (!first)
		c->first_of_id[id] = (uint32_t)pfn;
}

static uint64_t swap_ptes_of(const struct census *c, const struct page *page)
{
	swp_entry_t entry = { page->private };

	return page->flags & PG_swapcache && c->swap_ptes[swp_type(entry)]
		       ? c->swap_ptes[swp_type(entry)][swp_offset(entry)]
		       : 0;
}

/* What one may write to, or has for itself by what is noted, nobody else maps or would find in its slot. */
static void check_exclusive(struct census *c, const struct page *page, uint64_t pfn)
{
	uint64_t swapped = swap_ptes_of(c, page);
	bool shared = c->ptes[pfn] > 1 || (swapped & ~SLOT_EXCLUSIVE);

	if (!c->ptes[pfn])
		return;
	if (c->marks[pfn] & FRAME_WRITABLE && shared)
		wrong(c, "exclusive", "page %llu may be written to, and others see it",
		      (unsigned long long)pfn);
	if (page->flags & PG_anon_exclusive && (shared || PageKsm(page)))
		wrong(c, "exclusive", "page %llu is called exclusive, and is not",
		      (unsigned long long)pfn);
	if (swapped & SLOT_EXCLUSIVE)
		wrong(c, "exclusive", "page %llu is mapped, and a swap pte has its slot for itself",
		      (unsigned long long)pfn);
}

/* A page that reclaim would drop without writing it is as its slot has it, as long as anybody wants it. */
static void check_saved(struct census *c, struct page *page, uint64_t pfn)
{
	swp_entry_t entry = { page->private };
	const unsigned char *slot;

	if (!(page->flags & PG_swapcache) || !(page->flags & PG_uptodate) ||
	    page->flags & (PG_dirty | PG_writeback | PG_error) || c->marks[pfn] & FRAME_DIRTY)
		return;
	if (!c->ptes[pfn] && !(swap_ptes_of(c, page) & ~SLOT_EXCLUSIVE))
		return;
	slot = slot_content(c->m, &c->m->swap.info[swp_type(entry)], swp_offset(entry), c->scratch);
	if (slot && memcmp(slot, page_content(c->m, page), c->m->page_size))
		wrong(c, "swap-stale", "page %llu is clean, and its slot holds something else",
		      (unsigned long long)pfn);
}

/* How often it is in mlock's batch. */
static uint32_t batched_mlocks(const struct census *c, const struct page *page)
{
	const struct mlock_batch *batch = &c->m->mlock_batch;
	uint32_t n = 0;

	for (uint32_t i = 0; i < batch->nr; i++)
		n += batch->entry[i].page == page;
	return n;
}

/*
 * Not every page of a locked vma is marked, which reclaim will see to; but what is marked is in one, and where it
 * belongs, unless it still waits for that.
 */
static void check_mlocked(struct census *c, const struct page *page, uint64_t pfn, bool waits)
{
	bool mlocked = page->flags & PG_mlocked, unevictable = page->flags & PG_unevictable;

	c->mlocked += mlocked;
	c->unevictable[page->nid] += unevictable && page->flags & PG_lru;
	if (waits)
		return;
	if (mlocked && !(c->marks[pfn] & FRAME_LOCKED))
		wrong(c, "mlock", "page %llu is marked as locked, and no vma that maps it is",
		      (unsigned long long)pfn);
	if (page->flags & PG_lru && mlocked != unevictable)
		wrong(c, "lru", "page %llu is %slocked and on the wrong list",
		      (unsigned long long)pfn, mlocked ? "" : "not ");
}

static void check_frame(struct census *c, uint64_t pfn)
{
	struct page *page = pfn_to_page(c->m, pfn);
	bool cached = page->flags & PG_swapcache;
	uint32_t mlocks = batched_mlocks(c, page);
	int64_t refs = (int64_t)c->ptes[pfn] + cached + c->pins[pfn] + mlocks;

	check_content_id(c, page, pfn);
	if (page->flags & PG_buddy) {
		if (refs || page->mapping || page->_count || page->content_id)
			wrong(c, "page-free", "free page %llu is in use", (unsigned long long)pfn);
		return;
	}
	if (page_mapcount(page) != (int)c->ptes[pfn])
		wrong(c, "page-mapcount", "page %llu has %d, counted %u", (unsigned long long)pfn,
		      page_mapcount(page), c->ptes[pfn]);
	if (page_count(page) != refs)
		wrong(c, "page-refcount", "page %llu has %d, counted %lld", (unsigned long long)pfn,
		      page_count(page), (long long)refs);
	if ((!(page->flags & (PG_lru | PG_batched)) && !mlocks) || (page->flags & PG_locked))
		wrong(c, "lru", "page %llu is %s", (unsigned long long)pfn,
		      page->flags & PG_locked ? "locked" : "on no list");
	/* Up to 5.7 one could end up mapped and nobody's: see memcontrol.c. */
	if (page_mapped(page) && !(page->flags & PG_charged) &&
	    has(c->m, FEAT_SWAPIN_CHARGED_AT_READ))
		wrong(c, "charge", "page %llu is mapped and nobody pays for it",
		      (unsigned long long)pfn);
	if (cached && swap_cache_pfn(&c->m->swap.info[page->private >> 57],
				     page->private & ((1ULL << 57) - 1)) != pfn)
		wrong(c, "swap-cache", "page %llu is not where it says", (unsigned long long)pfn);
	check_mlocked(c, page, pfn, mlocks);
	check_exclusive(c, page, pfn);
	check_saved(c, page, pfn);
	check_rmap(c, page, pfn);
}

static void check_node(struct census *c, uint32_t nid)
{
	const struct node *node = &c->m->node[nid];
	int64_t nr_free = (int64_t)(node->last - node->fresh + 1);

	for (const struct page *page = node->free; page;
	     page = (struct page *)(void *)page->lru.next)
		nr_free++;
	if (nr_free != node->nr_free)
		wrong(c, "page-free", "free list has %lld, counted %lld", (long long)node->nr_free,
		      (long long)nr_free);
	for (int lru = 0; lru < NR_LRU_LISTS; lru++) {
		const struct list_head *pos;
		uint64_t n = lru == LRU_UNEVICTABLE ? c->unevictable[nid] : 0;

		list_for_each (pos, &node->lru[lru])
			n++;
		if (n != node->nr_lru[lru])
			wrong(c, "lru", "list %d has %llu, counted %llu", lru,
			      (unsigned long long)node->nr_lru[lru], (unsigned long long)n);
	}
}

/* ---- swap ---- */
static void check_slot(struct census *c, const struct swap_info_struct *si, uint64_t offset,
		       uint64_t *used)
{
	unsigned char ent = si->swap_map[offset];
	uint64_t ptes = c->swap_ptes[si->type][offset] & ~SLOT_EXCLUSIVE;
	uint64_t count = swp_swapcount(si, offset);
	uint64_t pfn = swap_cache_pfn(si, offset);

	if ((ent & ~SWAP_HAS_CACHE) == SWAP_MAP_BAD)
		return;
	*used += ent != 0;
	if (ptes > 1 && c->swap_ptes[si->type][offset] & SLOT_EXCLUSIVE)
		wrong(c, "exclusive", "slot %d:%llu is one pte's for itself, and %llu have it",
		      si->type, (unsigned long long)offset, (unsigned long long)ptes);
	if (count != ptes)
		wrong(c, "swap-count", "slot %d:%llu has %llu, counted %llu", si->type,
		      (unsigned long long)offset, (unsigned long long)count,
		      (unsigned long long)ptes);
	if (!!(ent & SWAP_HAS_CACHE) != !!pfn ||
	    (pfn &&
	     pfn_to_page(c->m, pfn)->private != swp_entry((unsigned int)si->type, offset).val))
		wrong(c, "swap-cache", "slot %d:%llu", si->type, (unsigned long long)offset);
}

/* Those that have room, and nobody else, are asked for a slot; each once. */
static void check_avail(struct census *c)
{
	const struct swap *swap = &c->m->swap;
	int on[NR_SWAP_TYPES] = { 0 };

	for (int i = 0; i < swap->nr_avail; i++)
		on[swap->avail[i]]++;
	for (int type = 0; type < MAX_SWAPFILES; type++) {
		const struct swap_info_struct *si = &swap->info[type];

		if (on[type] != (si->flags & SWP_WRITEOK && si->highest_bit))
			wrong(c, "swap-avail", "area %d is %d times on the list", type, on[type]);
	}
}

static void check_swap(struct census *c)
{
	int64_t room = 0;

	for (int type = 0; type < MAX_SWAPFILES; type++) {
		const struct swap_info_struct *si = &c->m->swap.info[type];
		uint64_t used = 0;

		if (!(si->flags & SWP_USED))
			continue;
		for (uint64_t offset = 1; offset < si->max; offset++)
			check_slot(c, si, offset, &used);
		if (used != si->inuse_pages)
			wrong(c, "swap-inuse", "area %d has %llu, counted %llu", type,
			      (unsigned long long)si->inuse_pages, (unsigned long long)used);
		room += (int64_t)(si->flags & SWP_WRITEOK ? si->pages : 0) - (int64_t)used;
	}
	check_avail(c);
	if (room != c->m->swap.nr_swap_pages)
		wrong(c, "swap-inuse", "nr_swap_pages is %lld, counted %lld",
		      (long long)c->m->swap.nr_swap_pages, (long long)room);
}

/* ---- anon_vmas ---- */
static void count_anon_vma_refs(struct census *c)
{
	struct list_head *pos, *slots = &c->m->ksm.ksm_mm_head.mm_list;

	list_for_each (pos, &c->m->anon_vmas) {
		const struct anon_vma *av = container_of(pos, struct anon_vma, all);

		c->av[av->id].refs += av->rb_root.node ? 1 : 0;
		if (av->root != av)
			c->av[av->root->id].refs++;
		if (av->rb_root.node) /* a root is its own */
			c->av[av->parent->id].children++;
	}
	list_for_each (pos, slots) {
		const struct rmap_item *item =
			container_of(pos, struct mm_slot, mm_list)->rmap_list;

		for (; item; item = item->rmap_list)
			if (item->address & STABLE_FLAG)
				c->av[item->anon_vma->id].refs++;
	}
}

static void check_anon_vma(struct census *c, struct anon_vma *av)
{
	for (struct rb_node *n = rb_first(&av->rb_root); n; n = rb_next(n))
		if (container_of(n, struct anon_vma_chain, rb)->anon_vma != av)
			wrong(c, "anon-vma", "anon_vma %u has a stranger in its tree", av->id);
	if (c->av[av->id].refs != av->refcount)
		wrong(c, "anon-vma", "anon_vma %u has %d references, counted %d", av->id,
		      av->refcount, c->av[av->id].refs);
	if (c->av[av->id].children != av->num_children || c->av[av->id].vmas != av->num_active_vmas)
		wrong(c, "anon-vma", "anon_vma %u has %d children and %d vmas, counted %d and %d",
		      av->id, av->num_children, av->num_active_vmas, c->av[av->id].children,
		      c->av[av->id].vmas);
}

/* ---- KSM ---- */
struct ksm_recount {
	int64_t items, stable, unstable, shared, chains, dups, stale;
};

static void count_slot(struct census *c, const struct mm_slot *slot, struct ksm_recount *r)
{
	const struct rmap_item *item, *prev = NULL;

	for (item = slot->rmap_list; item; prev = item, item = item->rmap_list) {
		bool stable = item->address & STABLE_FLAG, unstable = item->address & UNSTABLE_FLAG;

		r->items++;
		r->stable += stable;
		r->unstable += unstable;
		if (item->mm != slot->mm || (stable && unstable) ||
		    (prev && (prev->address & PAGE_MASK) >= (item->address & PAGE_MASK)))
			wrong(c, "ksm-rmap-item", "pid %d 0x%llx", item->mm->pid,
			      (unsigned long long)item->address);
	}
	if (slot->mm->mm_slot != slot)
		wrong(c, "ksm-rmap-item", "slot of pid %d", slot->mm->pid);
}

/* ksmd will come to item, and so to its page, with each scan. */
static bool will_be_scanned(const struct census *c, const struct rmap_item *item,
			    const struct page *page)
{
	const struct vm_area_struct *vma = find_mergeable_vma(item->mm, item->address & PAGE_MASK);
	const pte_t *pte = vma ? pte_lookup(item->mm, item->address & PAGE_MASK) : NULL;

	return pte && pte_present(*pte) && pte_pfn(*pte) == page_to_pfn(c->m, page);
}

/* A page of a node of the tree may have moved to another node, until ksmd comes by. */
static void check_place(struct census *c, const struct stable_node *node)
{
	const struct page *page = pfn_to_page(c->m, node->kpfn);
	const struct hlist_node *pos;

	if (!c->strict || page_stable_node(page) != node ||
	    get_kpfn_nid(c->m, node->kpfn) == node->nid)
		return;
	for (pos = node->hlist.first; pos; pos = pos->next)
		if (will_be_scanned(c, container_of(pos, struct rmap_item, hlist), page)) {
			wrong(c, "ksm-misplaced", "page %llu is in the tree of node %d",
			      (unsigned long long)node->kpfn, node->nid);
			return;
		}
}

static void check_items(struct census *c, const struct stable_node *node, struct ksm_recount *r)
{
	const struct hlist_node *pos;
	int32_t n = 0;

	r->stale += page_stable_node(pfn_to_page(c->m, node->kpfn)) != node;
	r->shared += node->hlist.first != NULL;
	for (pos = node->hlist.first; pos; pos = pos->next, n++) {
		const struct rmap_item *item = container_of(pos, struct rmap_item, hlist);

		if (!(item->address & STABLE_FLAG) || item->head != node)
			wrong(c, "ksm-rmap-item", "0x%llx is listed by another node",
			      (unsigned long long)item->address);
	}
	if (n != node->rmap_hlist_len)
		wrong(c, "ksm-tree", "the node of page %llu counts %d items, there are %d",
		      (unsigned long long)node->kpfn, node->rmap_hlist_len, n);
}

/*
 * The page that a node of the tree stands for, NULL where it cannot be told: a node whose page has gone
 * is stale, which is legal. A chain stands for what its first live dup has; the others must be equal.
 */
static const struct page *page_of_node(struct census *c, const struct stable_node *node,
				       struct ksm_recount *r)
{
	const struct page *page = NULL;

	if (!is_stable_node_chain(node)) {
		check_items(c, node, r);
		check_place(c, node);
		page = pfn_to_page(c->m, node->kpfn);
		return page_stable_node(page) == node ? page : NULL;
	}
	r->chains++;
	for (struct hlist_node *pos = node->hlist.first; pos; pos = pos->next) {
		const struct stable_node *dup = dup_of(pos);
		const struct page *of_dup = pfn_to_page(c->m, dup->kpfn);

		r->dups++;
		check_items(c, dup, r);
		check_place(c, dup);
		if (page_stable_node(of_dup) != dup)
			continue;
		if (page &&
		    memcmp(page_content(c->m, page), page_content(c->m, of_dup), c->m->page_size))
			wrong(c, "ksm-tree", "page %llu is no dup of its chain's others",
			      (unsigned long long)dup->kpfn);
		page = of_dup;
	}
	return page;
}

static void check_stable_tree(struct census *c, uint32_t nid, struct ksm_recount *r)
{
	const struct rb_root *root = &c->m->ksm.root_stable_tree[nid];
	const struct page *before = NULL;

	if (root->node && nid >= c->m->ksm.nr_node_ids)
		wrong(c, "ksm-tree", "the tree of node %u is out of use, and not empty", nid);

	for (struct rb_node *n = rb_first(root); n; n = rb_next(n)) {
		const struct stable_node *node = container_of(n, struct stable_node, node);
		const struct page *page = page_of_node(c, node, r);

		if (page && node->key != content_key(c->m, page))
			wrong(c, "ksm-tree", "page %llu has another key",
			      (unsigned long long)page_to_pfn(c->m, page));
		if (page && before &&
		    memcmp(page_content(c->m, before), page_content(c->m, page), c->m->page_size) >=
			    0)
			wrong(c, "ksm-tree", "page %llu is out of order",
			      (unsigned long long)page_to_pfn(c->m, page));
		before = page;
	}
}

static void check_ksm(struct census *c)
{
	struct ksm *ksm = &c->m->ksm;
	struct ksm_recount r = { 0 };
	struct list_head *pos;

	list_for_each (pos, &ksm->ksm_mm_head.mm_list)
		count_slot(c, container_of(pos, struct mm_slot, mm_list), &r);
	for (uint32_t nid = 0; nid < c->m->nodes; nid++)
		check_stable_tree(c, nid, &r);
	list_for_each (pos, &ksm->migrate_nodes)
		check_items(c, container_of(pos, struct stable_node, list), &r);
	if (r.chains != ksm->stable_node_chains || r.dups != ksm->stable_node_dups)
		wrong(c, "ksm-counts", "chains %lld dups %lld, counted %lld %lld",
		      (long long)ksm->stable_node_chains, (long long)ksm->stable_node_dups,
		      (long long)r.chains, (long long)r.dups);
	if (r.stale != ksm->stale_nodes)
		wrong(c, "ksm-counts", "stale nodes %lld, counted %lld",
		      (long long)ksm->stale_nodes, (long long)r.stale);
	if (r.items != ksm->rmap_items || r.shared != ksm->pages_shared ||
	    r.stable - r.shared != ksm->pages_sharing || r.unstable != ksm->pages_unshared)
		wrong(c, "ksm-counts",
		      "shared %lld sharing %lld unshared %lld items %lld, counted %lld %lld %lld %lld",
		      (long long)ksm->pages_shared, (long long)ksm->pages_sharing,
		      (long long)ksm->pages_unshared, (long long)ksm->rmap_items,
		      (long long)r.shared, (long long)(r.stable - r.shared), (long long)r.unstable,
		      (long long)r.items);
}

/* ---- contents by reference ---- */
static void count_buffer_refs(struct census *c)
{
	const struct pyksm *m = c->m;

	for (uint32_t nid = 0; nid < m->nodes; nid++)
		for (uint64_t pfn = m->node[nid].first; pfn < m->node[nid].fresh; pfn++)
			c->buffer_refs[m->mem_map[pfn].buffer]++;
	for (int type = 0; type < MAX_SWAPFILES; type++)
		for (uint64_t i = 0; m->swap.info[type].buffers && i < m->swap.info[type].max; i++)
			c->buffer_refs[m->swap.info[type].buffers[i]]++;
}

/* Each buffer is as many frames' and slots' as it says, or is on the free list. */
static void check_buffers(struct census *c)
{
	uint32_t nr_free = 0, fresh = c->m->buffers.fresh;

	count_buffer_refs(c);
	for (uint32_t id = c->m->buffers.free; id && nr_free < fresh; nr_free++) {
		if (c->buffer_refs[id])
			wrong(c, "buffer-count", "buffer %u is free and in use", id);
		id = *buffer_refs(c->m, id);
	}
	for (uint32_t id = 1; id < fresh; id++) {
		if (!c->buffer_refs[id])
			nr_free--;
		else if (c->buffer_refs[id] != *buffer_refs(c->m, id))
			wrong(c, "buffer-count", "buffer %u counts %u, is referred to by %u", id,
			      *buffer_refs(c->m, id), c->buffer_refs[id]);
	}
	if (nr_free)
		wrong(c, "buffer-count", "%d buffers too many are free", (int)nr_free);
}

/* ---- all of it ---- */
static bool allocate(struct census *c)
{
	c->ptes = host_temp(c->m, (size_t)c->m->max_pfn + 1, sizeof(*c->ptes));
	c->pins = host_temp(c->m, (size_t)c->m->max_pfn + 1, sizeof(*c->pins));
	c->marks = host_temp(c->m, (size_t)c->m->max_pfn + 1, sizeof(*c->marks));
	c->scratch = host_temp(c->m, 1, c->m->page_size);
	for (int type = 0; type < MAX_SWAPFILES; type++) {
		if (!(c->m->swap.info[type].flags & SWP_USED))
			continue;
		c->swap_ptes[type] = host_temp(c->m, c->m->swap.info[type].max, sizeof(uint64_t));
		if (!c->swap_ptes[type])
			return false;
	}
	if (c->m->buffers.fresh) {
		c->buffer_refs = host_temp(c->m, c->m->buffers.fresh, sizeof(*c->buffer_refs));
		if (!c->buffer_refs)
			return false;
	}
	c->av = host_temp(c->m, (size_t)c->m->anon_id + 1, sizeof(*c->av));
	c->first_of_id = host_temp(c->m, (size_t)c->m->content_ids.nr + 1, sizeof(*c->first_of_id));
	return c->ptes && c->pins && c->marks && c->scratch && c->av && c->first_of_id;
}

static void release(struct census *c)
{
	for (int type = 0; type < MAX_SWAPFILES; type++)
		host_free(c->m, c->swap_ptes[type]);
	host_free(c->m, c->buffer_refs);
	host_free(c->m, c->first_of_id);
	host_free(c->m, c->av);
	host_free(c->m, c->ptes);
	host_free(c->m, c->pins);
	host_free(c->m, c->marks);
	host_free(c->m, c->scratch);
}

int census(struct pyksm *m, bool strict, char *buf, size_t len)
{
	struct census c = { .m = m, .strict = strict, .buf = buf, .len = len };
	struct list_head *pos;

	if (len)
		buf[0] = '\0';
	if (!allocate(&c)) {
		release(&c);
		return -ENOMEM;
	}
	count_pins(&c);
	for (size_t i = 0; i < m->nr_procs && has(m, FEAT_PINS_COUNTED); i++)
		check_own_pins(&c, &m->procs[i]);
	for (const struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		count_mm(&c, mm);
	for (uint32_t nid = 0; nid < m->nodes; nid++) {
		for (uint64_t pfn = m->node[nid].first; pfn < m->node[nid].fresh; pfn++)
			check_frame(&c, pfn);
		check_node(&c, nid);
	}
	if (c.mlocked != m->nr_mlock)
		wrong(&c, "mlock", "%lld pages are marked as locked, not %lld",
		      (long long)c.mlocked, (long long)m->nr_mlock);
	check_swap(&c);
	count_anon_vma_refs(&c);
	list_for_each (pos, &m->anon_vmas)
		check_anon_vma(&c, container_of(pos, struct anon_vma, all));
	check_ksm(&c);
	if (c.buffer_refs)
		check_buffers(&c);
	release(&c);
	return c.found;
}
