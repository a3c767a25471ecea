/* SPDX-License-Identifier: MIT */
/*
 * swapoff entry by entry without its walk (walk = PYKSM_WALK_COMPUTED): where unuse_mm() of swapoff.c would
 * find an entry, and what it would have counted on the way, is looked up. As long as no hook can run,
 * nothing but swapoff itself changes ptes, vmas and the list of mms, so that one look at all of them, in
 * the order of the walk, is enough.
 */
#include "internal.h"
#include "simd.h"

/* What one unuse_pte_range() looks at: the piece of a vma that a table of ptes covers. */
struct stretch {
	struct vm_area_struct *vma;
	pte_t *ptes;
	uint64_t addr;
	uint64_t before; /* ptes that the walk looks at before these */
	uint64_t vmas; /* vmas that it has looked at when it is here */
};

/* A vma among those of its family, by the part of the family's pages that it has. */
struct relative {
	struct vm_area_struct *vma;
	const struct anon_vma *root;
	uint64_t first, last; /* page indexes */
	uint64_t reach; /* the highest last of the family's up to here */
	uint64_t vmas;
};

/* The walk through an mm. */
struct unuse_walk {
	struct mm_struct *mm;
	struct stretch *segments;
	struct relative *relatives; /* by root and first index */
	size_t nr_segments, max_segments, nr_vmas, max_vmas;
	uint64_t nr_ptes;
};

/*
 * A swap pte is a place: its mm, and the how many-eth pte of that mm's walk it is. The places of a slot
 * stand together in the order of mms and walks. What has been brought back is skipped by a mark in an
 * mm's first place, which then says how many of its places are behind us.
 */
#define PLACE_BITS 35 /* of all ptes that a process can have */
#define PLACE_MASK ((1ULL << PLACE_BITS) - 1)
#define PLACE_SKIP (1ULL << PLACE_BITS)
#define PLACE_MM_SHIFT (PLACE_BITS + 1)
#define NOWHERE UINT64_MAX

struct unuse_index {
	unsigned int type;
	struct unuse_walk *walks;
	size_t nr_walks;
	uint64_t nr_slots;
	uint32_t *ends; /* of each slot's places, which begin where the slot's before it end */
	uint64_t *places;
};

/* ---- the look at everything ---- */
static bool add_vma(struct pyksm *m, struct unuse_walk *walk, struct vm_area_struct *vma)
{
	struct relative *all =
		grow(m, walk->relatives, &walk->max_vmas, walk->nr_vmas + 1, sizeof(*all));
	uint64_t npages = (vma->vm_end - vma->vm_start) >> PAGE_SHIFT;

	if (!all)
		return false;
	walk->relatives = all;
	all[walk->nr_vmas] = (struct relative){
		.vma = vma,
		.root = vma->anon_vma->root,
		.first = vma->vm_pgoff,
		.last = vma->vm_pgoff + npages - 1,
		.vmas = walk->nr_vmas + 1,
	};
	walk->nr_vmas++;
	return true;
}

static bool add_segments(struct pyksm *m, struct unuse_walk *walk, struct vm_area_struct *vma)
{
	uint64_t addr = vma->vm_start, end = vma->vm_end, next;

	while ((addr = next_table(walk->mm, addr, end)) < end) {
		struct stretch *all = grow(m, walk->segments, &walk->max_segments,
					   walk->nr_segments + 1, sizeof(*all));

		if (!all)
			return false;
		walk->segments = all;
		all[walk->nr_segments++] = (struct stretch){
			.vma = vma,
			.ptes = pte_lookup(walk->mm, addr),
			.addr = addr,
			.before = walk->nr_ptes,
			.vmas = walk->nr_vmas,
		};
		next = (addr & ~(PMD_SIZE - 1)) + PMD_SIZE;
		next = next < end ? next : end;
		walk->nr_ptes += (next - addr) >> PAGE_SHIFT;
		addr = next;
	}
	return true;
}

static int by_family(const void *left, const void *right)
{
	const struct relative *a = left, *b = right;

	if (a->root != b->root)
		return (uintptr_t)a->root < (uintptr_t)b->root ? -1 : 1;
	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return a->vmas < b->vmas ? -1 : 1;
}

static void sort_relatives(struct unuse_walk *walk)
{
	struct relative *all = walk->relatives;

	qsort(all, walk->nr_vmas, sizeof(*all), by_family);
	for (size_t i = 0; i < walk->nr_vmas; i++) {
		all[i].reach = all[i].last;
		if (i && all[i - 1].root == all[i].root && all[i - 1].reach > all[i].reach)
			all[i].reach = all[i - 1].reach;
	}
}

static bool add_mm(struct pyksm *m, struct unuse_walk *walk, struct mm_struct *mm)
{
	walk->mm = mm;
	for (struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next)
		if (vma->anon_vma && (!add_vma(m, walk, vma) || !add_segments(m, walk, vma)))
			return false;
	if (walk->nr_vmas)
		sort_relatives(walk);
	return true;
}

static bool add_mms(struct pyksm *m, struct unuse_index *index)
{
	struct list_head *pos;
	size_t n = 0;

	list_for_each (pos, &m->swap.init_mm.mmlist)
		n++;
	if (n >> (64 - PLACE_MM_SHIFT))
		return false;
	index->walks = host_calloc(m, n + 1, sizeof(*index->walks));
	if (!index->walks)
		return false;
	list_for_each (pos, &m->swap.init_mm.mmlist) {
		struct mm_struct *mm = container_of(pos, struct mm_struct, mmlist);

		/* One on its way out is asked by nobody. */
		if (mm->mm_users && !add_mm(m, &index->walks[index->nr_walks++], mm))
			return false;
	}
	return true;
}

/* ---- the places of each slot ---- */
static uint64_t segment_end(const struct unuse_walk *walk, size_t i)
{
	return i + 1 < walk->nr_segments ? walk->segments[i + 1].before : walk->nr_ptes;
}

/* The slot of our area that a pte is a swap pte of; 0: of none. */
static uint64_t slot_of_pte(const struct pyksm *m, const struct unuse_index *index, pte_t pte,
			    pte_t marks)
{
	swp_entry_t entry;

	if (pte_none(pte) || pte_present(pte))
		return 0;
	entry = pte_to_swp_entry(m, pte & ~marks);
	if (swp_type(entry) != index->type || swp_offset(entry) >= index->nr_slots)
		return 0;
	return pte_same_as_swp(pte, swp_entry_to_pte(m, entry), marks) ? swp_offset(entry) : 0;
}

/* Every place of an mm in turn: its number is counted for its slot, or it is put down. */
static uint64_t each_place(const struct pyksm *m, struct unuse_index *index, size_t number,
			   bool put)
{
	const struct unuse_walk *walk = &index->walks[number];
	const pte_t marks = swp_marks(m);
	uint64_t found = 0;

	for (size_t s = 0; s < walk->nr_segments; s++) {
		const struct stretch *segment = &walk->segments[s];
		uint64_t n = segment_end(walk, s) - segment->before;

		for (uint64_t i = 0; i < n; i++) {
			uint64_t slot = slot_of_pte(m, index, segment->ptes[i], marks);

			if (!slot)
				continue;
			found++;
			if (put)
				index->places[index->ends[slot]++] =
					(uint64_t)number << PLACE_MM_SHIFT | (segment->before + i);
			else
				index->ends[slot]++;
		}
	}
	return found;
}

static bool add_places(struct pyksm *m, struct unuse_index *index)
{
	const struct swap_info_struct *si = &m->swap.info[index->type];
	uint64_t total = 0, begin = 0;

	/* An area may be vast, and most of it never used. */
	index->nr_slots = simd()->find_last_used(si->swap_map, si->max) + 1;
	index->ends = host_calloc(m, index->nr_slots, sizeof(*index->ends));
	if (!index->ends)
		return false;
	for (size_t i = 0; i < index->nr_walks; i++)
		total += each_place(m, index, i, false);
	if (total > UINT32_MAX)
		return false;
	index->places = host_malloc(m, (total + 1) * sizeof(*index->places));
	if (!index->places)
		return false;
	for (uint64_t slot = 0; slot < index->nr_slots; slot++) {
		uint32_t n = index->ends[slot];

		index->ends[slot] = (uint32_t)begin;
		begin += n;
	}
	for (size_t i = 0; i < index->nr_walks; i++)
		each_place(m, index, i, true);
	return true;
}

/* ---- life ---- */
/* NULL: a hook may change everything meanwhile, or there is no memory. Then the walk must be done. */
struct unuse_index *unuse_index_new(struct pyksm *m, unsigned int type)
{
	struct unuse_index *index;

	if (m->walk != PYKSM_WALK_COMPUTED || (m->hook && !m->in_hook))
		return NULL;
	index = host_calloc(m, 1, sizeof(*index));
	if (!index)
		return NULL;
	index->type = type;
	if (!add_mms(m, index) || !add_places(m, index)) {
		unuse_index_free(m, index);
		return NULL;
	}
	for (size_t i = 0; i < index->nr_walks; i++)
		index->walks[i].mm->unuse_walk = &index->walks[i];
	return index;
}

void unuse_index_free(struct pyksm *m, struct unuse_index *index)
{
	if (!index)
		return;
	for (size_t i = 0; i < index->nr_walks; i++) {
		host_free(m, index->walks[i].segments);
		host_free(m, index->walks[i].relatives);
	}
	host_free(m, index->walks);
	host_free(m, index->ends);
	host_free(m, index->places);
	host_free(m, index);
}

/* ---- lookup ---- */
static uint64_t address_of_index(const struct vm_area_struct *vma, uint64_t index)
{
	return vma->vm_start + ((index - vma->vm_pgoff) << PAGE_SHIFT);
}

static const struct stretch *segment_of(const struct unuse_walk *walk, uint64_t ordinal)
{
	size_t low = 0, high = walk->nr_segments;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (walk->segments[mid].before <= ordinal)
			low = mid;
		else
			high = mid;
	}
	return &walk->segments[low];
}

/* The first place of the slot that is the mm's or a later one's. */
static uint32_t first_of_mm(const struct unuse_index *index, uint64_t slot, uint64_t number)
{
	uint32_t low = index->ends[slot - 1], high = index->ends[slot];

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (index->places[mid] >> PLACE_MM_SHIFT < number)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The first pte in the walk through the mm that is the entry, and in which segment; NOWHERE. */
static uint64_t first_place(const struct pyksm *m, struct unuse_index *index,
			    const struct unuse_walk *walk, swp_entry_t entry,
			    const struct stretch **segment)
{
	const pte_t swp_pte = swp_entry_to_pte(m, entry), marks = swp_marks(m);
	uint64_t slot = swp_offset(entry), number = (uint64_t)(walk - index->walks), *places;
	uint32_t first = first_of_mm(index, slot, number), n = index->ends[slot] - first, i = 0;

	places = &index->places[first];
	if (n && places[0] >> PLACE_MM_SHIFT == number && (places[0] & PLACE_SKIP))
		i = (uint32_t)(places[0] & PLACE_MASK);
	for (; i < n && places[i] >> PLACE_MM_SHIFT == number; i++) {
		uint64_t ordinal = places[i] & PLACE_MASK;

		*segment = segment_of(walk, ordinal);
		if (pte_same_as_swp((*segment)->ptes[ordinal - (*segment)->before], swp_pte, marks))
			return ordinal;
		/* It was brought back, as were those before it. */
		places[0] = number << PLACE_MM_SHIFT | PLACE_SKIP | (uint64_t)(i + 1);
	}
	return NOWHERE;
}

/* A page without owner: the walk looks at every pte. */
static bool find_anywhere(struct pyksm *m, struct unuse_index *index, const struct unuse_walk *walk,
			  swp_entry_t entry, struct unuse_hit *hit)
{
	const struct stretch *segment;
	uint64_t ordinal = first_place(m, index, walk, entry, &segment), i;

	if (ordinal == NOWHERE) {
		COUNT_N(m, unuse_vma, walk->nr_vmas);
		COUNT_N(m, unuse_pte_range, walk->nr_segments);
		COUNT_N(m, unuse_pte_compared, walk->nr_ptes);
		return false;
	}
	i = ordinal - segment->before;
	COUNT_N(m, unuse_vma, segment->vmas);
	COUNT_N(m, unuse_pte_range, (uint64_t)(segment - walk->segments) + 1);
	COUNT_N(m, unuse_pte_compared, ordinal + 1);
	*hit = (struct unuse_hit){ segment->vma, segment->addr + (i << PAGE_SHIFT),
				   &segment->ptes[i] };
	return true;
}

/* How many relatives are of families and pages up to these. */
static size_t relatives_up_to(const struct unuse_walk *walk, const struct anon_vma *root,
			      uint64_t index)
{
	size_t low = 0, high = walk->nr_vmas;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct relative *r = &walk->relatives[mid];

		if (r->root == root ? r->first <= index : (uintptr_t)r->root < (uintptr_t)root)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * A page with an owner: the walk works out one address in each vma, and only in vmas of the family that have
 * that page there is a pte to look at. *looked: in how many of the first vmas.
 */
static const struct relative *find_relative(const struct pyksm *m, const struct unuse_walk *walk,
					    const struct page *page, swp_entry_t entry,
					    uint64_t vmas, uint64_t *looked)
{
	const struct anon_vma *owner = page_anon_vma(page);
	const struct relative *found = NULL;
	size_t i = owner ? relatives_up_to(walk, owner->root, page->index) : 0;

	*looked = 0;
	while (i-- && walk->relatives[i].root == owner->root &&
	       walk->relatives[i].reach >= page->index) {
		const struct relative *r = &walk->relatives[i];
		const pte_t *pte;

		if (r->last < page->index || r->vmas > vmas)
			continue;
		pte = pte_lookup(walk->mm, address_of_index(r->vma, page->index));
		if (!pte)
			continue;
		++*looked;
		if (pte_same_as_swp(*pte, swp_entry_to_pte(m, entry), swp_marks(m)) &&
		    (!found || r->vmas < found->vmas))
			found = r;
	}
	return found;
}

static bool find_at_owners(struct pyksm *m, const struct unuse_walk *walk, const struct page *page,
			   swp_entry_t entry, struct unuse_hit *hit)
{
	uint64_t looked, vmas = walk->nr_vmas;
	const struct relative *found = find_relative(m, walk, page, entry, vmas, &looked);

	if (found) {
		/* The walk ends there: what it would have come to later does not count. */
		vmas = found->vmas;
		find_relative(m, walk, page, entry, vmas, &looked);
		hit->vma = found->vma;
		hit->addr = address_of_index(found->vma, page->index);
		hit->pte = pte_lookup(walk->mm, hit->addr);
	}
	COUNT_N(m, unuse_vma, vmas);
	COUNT_N(m, page_address_in_vma, vmas);
	COUNT_N(m, unuse_pte_range, looked);
	COUNT_N(m, unuse_pte_compared, looked);
	return found;
}

/* What unuse_mm() would find in the mm, everything counted; false: nothing. */
bool unuse_index_find(struct pyksm *m, struct unuse_index *index, const struct mm_struct *mm,
		      const struct page *page, swp_entry_t entry, struct unuse_hit *hit)
{
	const struct unuse_walk *walk = mm->unuse_walk;

	if (page_has_anon_vma(page) && !switched(m, PYKSM_SW_UNUSE_VMA_BRUTE_FORCE))
		return find_at_owners(m, walk, page, entry, hit);
	return find_anywhere(m, index, walk, entry, hit);
}
