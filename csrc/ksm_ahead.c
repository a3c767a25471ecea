/* SPDX-License-Identifier: MIT */
/*
 * ksmd looks ahead; no kernel does this. What the next pages hold is found out for many at once, before each is
 * dealt with as ever. The walk changes nothing that shows: it gives frames content_ids, and warms the host's caches.
 */
#include "ksm_internal.h"

#define AHEAD 1024 /* pages at a time at most */
#define WINDOW 256 /* of where ksmd is */
#define AHEAD_OF_EACH 64 /* pages that stay in a core's caches */
#define OTHERS 32
#define ABREAST 32 /* searches at a time */
#define SMALL_TREE 16384 /* it stays in the host's caches by itself */

struct ahead {
	uint32_t n;
	struct page *page[AHEAD];
	const struct rmap_item *item[AHEAD]; /* NULL: has none yet */
};

/* ---- which pages ---- */
/* Where the walk is: the items of the address space from here on go along with it. */
struct walk {
	uint64_t addr;
	const struct rmap_item *item;
};

static const struct rmap_item *item_at(struct walk *at)
{
	while (at->item && (at->item->address & PAGE_MASK) < at->addr)
		at->item = at->item->rmap_list;
	return at->item && (at->item->address & PAGE_MASK) == at->addr ? at->item : NULL;
}

static void gather_vma(const struct pyksm *m, const struct vm_area_struct *vma, struct walk *at,
		       struct ahead *ahead, uint32_t want)
{
	while (ahead->n < want && at->addr < vma->vm_end) {
		const pte_t *pte = next_pte(vma->vm_mm, &at->addr, vma->vm_end);
		uint64_t end;

		if (!pte)
			return;
		end = (at->addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
		end = end < vma->vm_end ? end : vma->vm_end;
		for (; ahead->n < want && at->addr < end; at->addr += PAGE_SIZE, pte++) {
			struct page *page;

			if (!pte_present(*pte) || (*pte & _PAGE_SPECIAL))
				continue;
			page = pfn_to_page(m, pte_pfn(*pte));
			__builtin_prefetch(page);
			ahead->item[ahead->n] = item_at(at);
			ahead->page[ahead->n++] = page;
		}
	}
}

static void gather_mm(const struct pyksm *m, const struct mm_struct *mm, struct walk *at,
		      struct ahead *ahead, uint32_t want)
{
	const struct vm_area_struct *vma = ksm_test_exit(mm) ? NULL : find_vma(mm, at->addr);

	for (; vma && ahead->n < want; vma = vma->vm_next) {
		if (!(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
			continue;
		if (at->addr < vma->vm_start)
			at->addr = vma->vm_start;
		gather_vma(m, vma, at, ahead, want);
	}
}

static const struct mm_slot *first_slot(const struct ksm *ksm)
{
	const struct mm_slot *slot = ksm->scan.mm_slot;

	return slot == &ksm->ksm_mm_head ? slot_of(slot->mm_list.next) : slot;
}

/* The pages that scan_get_next_rmap_item() will come to, as far as this scan goes. */
static void gather(const struct pyksm *m, struct ahead *ahead, uint32_t want)
{
	const struct ksm *ksm = &m->ksm;
	const struct mm_slot *slot = first_slot(ksm);
	struct walk at;

	ahead->n = 0;
	if (ksm->scan.mm_slot == &ksm->ksm_mm_head) {
		at = (struct walk){ 0, slot->rmap_list };
	} else {
		at = (struct walk){ ksm->scan.address, *ksm->scan.rmap_list };
	}
	while (slot != &ksm->ksm_mm_head && ahead->n < want) {
		gather_mm(m, slot->mm, &at, ahead, want);
		slot = slot_of(slot->mm_list.next);
		at = (struct walk){ 0, slot->rmap_list };
	}
}

/* ---- what is in them ---- */
/* Will ksmd ask for the checksum, which it does not know? */
static bool will_be_read(const struct pyksm *m, const struct page *page,
			 const struct rmap_item *item)
{
	if (page->content_id || page_stable_node(page))
		return false;
	return !item || !m->ksm.smart_scan || item->age < 3 || !item->remaining_skips;
}

struct looks {
	const struct pyksm *m;
	size_t n;
	struct content_look look[AHEAD];
};

static void look_at_part(void *arg, unsigned int part)
{
	struct looks *looks = arg;
	size_t first = (size_t)part * CONTENT_LOOKS, n = looks->n - first;

	content_look(looks->m, &looks->look[first], n < CONTENT_LOOKS ? n : CONTENT_LOOKS);
}

static void look_at_contents(struct pyksm *m, const struct ahead *ahead)
{
	struct looks looks;

	looks.m = m;
	looks.n = 0;
	for (uint32_t i = 0; i < ahead->n; i++)
		if (will_be_read(m, ahead->page[i], ahead->item[i]))
			looks.look[looks.n++].page = ahead->page[i];
	for_each_part(m, look_at_part, &looks,
		      (unsigned int)((looks.n + CONTENT_LOOKS - 1) / CONTENT_LOOKS));
	content_look_done(m, looks.look, looks.n);
}

/*
 * Processes of one kind have the same contents at the same places: what those that ksmd has never come to have
 * where it is now is looked at while that is in the host's caches.
 */
static void look_at_others(struct pyksm *m)
{
	const struct list_head *pos = first_slot(&m->ksm)->mm_list.next;
	struct ahead ahead;

	ahead.n = 0;
	for (int k = 0; k < OTHERS && pos != &m->ksm.ksm_mm_head.mm_list; k++, pos = pos->next) {
		struct mm_slot *slot = container_of(pos, struct mm_slot, mm_list);
		struct walk at = { slot->ahead, NULL };

		if (slot->rmap_list)
			continue;
		gather_mm(m, slot->mm, &at, &ahead, ahead.n + AHEAD_OF_EACH);
		slot->ahead = at.addr;
		if (ahead.n + AHEAD_OF_EACH > AHEAD) {
			look_at_contents(m, &ahead);
			ahead.n = 0;
		}
	}
	look_at_contents(m, &ahead);
}

/* Will ksmd in this scan come to more processes, and to the next for the first time? */
static bool others_wanted(const struct pyksm *m, uint64_t npages)
{
	const struct mm_slot *next = slot_of(first_slot(&m->ksm)->mm_list.next);

	return npages > UINT32_MAX && content_ids_wanted(m) && next != &m->ksm.ksm_mm_head &&
	       !next->rmap_list;
}

/* ---- where they will be searched ---- */
/* Will ksmd get as far as the trees? Until 6.11 (d58a361b0350) it begins with them. */
static bool will_be_searched(struct pyksm *m, struct page *page, const struct rmap_item *item)
{
	if (page_stable_node(page))
		return false;
	if (!has(m, FEAT_CHECKSUM_FIRST))
		return true;
	return item && (!page->content_id || content_checksum(m, page) == item->oldchecksum);
}

struct search {
	uint64_t key;
	const struct rb_node *at;
	const struct page *page;
};

static inline uint64_t key_at(const struct rb_node *node, ptrdiff_t to_key)
{
	uint64_t key;

	memcpy(&key, (const char *)node + to_key, sizeof(key));
	return key;
}

/*
 * All of them a level down at a time, so that they wait for memory together. Each ends where it leaves the
 * tree, NULL, or where the key is found.
 */
static inline void descend_abreast(struct search *search, uint32_t n, ptrdiff_t to_key)
{
	for (bool moving = true; moving;) {
		moving = false;
		for (uint32_t i = 0; i < n; i++) {
			const struct rb_node *at = search[i].at;
			uint64_t key = at ? key_at(at, to_key) : 0;

			if (!at || key == search[i].key)
				continue;
			search[i].at = at->child[search[i].key > key];
			__builtin_prefetch(search[i].at);
			moving = true;
		}
	}
}

/* What merging with the node's page will touch. */
static void fetch_node(const struct pyksm *m, const struct stable_node *node)
{
	if (is_stable_node_chain(node))
		return;
	__builtin_prefetch(pfn_to_page(m, node->kpfn));
	__builtin_prefetch(node->hlist.first);
}

static void search_abreast(struct pyksm *m, struct search *search, uint32_t n)
{
	uint32_t missed = 0;

	for (uint32_t i = 0; i < n; i++) {
		int nid = get_kpfn_nid(m, page_to_pfn(m, search[i].page));

		search[i].key = content_key(m, search[i].page);
		search[i].at = m->ksm.root_stable_tree[nid].node;
	}
	descend_abreast(search, n,
			(ptrdiff_t)offsetof(struct stable_node, key) -
				(ptrdiff_t)offsetof(struct stable_node, node));
	for (uint32_t i = 0; i < n; i++) {
		int nid = get_kpfn_nid(m, page_to_pfn(m, search[i].page));

		if (search[i].at) {
			fetch_node(m, container_of(search[i].at, struct stable_node, node));
			continue;
		}
		search[missed] = search[i];
		search[missed++].at = m->ksm.root_unstable_tree[nid].node;
	}
	if (m->ksm.unstable_sure)
		descend_abreast(search, missed,
				(ptrdiff_t)offsetof(struct rmap_item, key) -
					(ptrdiff_t)offsetof(struct rmap_item, node));
}

static void look_at_trees(struct pyksm *m, const struct ahead *ahead)
{
	struct search search[ABREAST];
	uint32_t n = 0;

	for (uint32_t i = 0; i < ahead->n; i++) {
		if (will_be_searched(m, ahead->page[i], ahead->item[i]))
			search[n++].page = ahead->page[i];
		if (n == ABREAST || (n && i + 1 == ahead->n)) {
			search_abreast(m, search, n);
			n = 0;
		}
	}
}

/* Before ksmd goes on for npages at most: how many pages have been looked at, 0 if there are none. */
uint64_t ksm_look_ahead(struct pyksm *m, uint64_t npages)
{
	bool others = others_wanted(m, npages);
	uint32_t want = others ? AHEAD_OF_EACH : WINDOW;
	struct ahead ahead;

	gather(m, &ahead, npages < want ? (uint32_t)npages : want);
	if (content_ids_wanted(m))
		look_at_contents(m, &ahead);
	if (others)
		look_at_others(m);
	if (m->ksm.pages_shared + m->ksm.pages_unshared > SMALL_TREE)
		look_at_trees(m, &ahead);
	return ahead.n;
}
