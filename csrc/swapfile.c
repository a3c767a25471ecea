/* SPDX-License-Identifier: MIT */
/* Swap areas: slots, their counts, swapon and swapoff's frame (kernel: mm/swapfile.c). */
#include "internal.h"
#include "simd.h"

#define CONT_PIECE 4096 /* counts that share one list of continuation pages */

/* What is left without the cache's claim; COUNT_CONTINUED stays in it, so "1" means one. */
static unsigned char swap_count(unsigned char ent)
{
	return ent & (unsigned char)~SWAP_HAS_CACHE;
}

/* ---- slots ---- */
static bool __try_to_reclaim_swap(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	struct page *page = find_get_page(m, swp_entry((unsigned int)si->type, offset));
	bool freed = false;

	if (!page)
		return false;
	if (trylock_page(m, page, PT_RECLAIM_SWAP_TRYLOCK)) {
		freed = try_to_free_swap(m, page);
		unlock_page(m, page);
	}
	put_page(m, page);
	return freed;
}

/* The area is not locked meanwhile: that it does not go is seen to by counting who is at it. */
static bool reclaim_scanned(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	bool freed;

	si->scanning++;
	freed = __try_to_reclaim_swap(m, si, offset);
	si->scanning--;
	return freed;
}

/* The first run of 256 free slots in [*from, to]; false: none, and *from is where that is clear. */
static bool find_free_run(const struct swap_info_struct *si, uint64_t *from, uint64_t to)
{
	while (*from + SWAPFILE_CLUSTER - 1 <= to) {
		const unsigned char *run = &si->swap_map[*from];
		uint64_t used = simd()->find_last_used(run, SWAPFILE_CLUSTER), enough;

		if (used == SWAPFILE_CLUSTER)
			return true;
		/* Behind the first one that leaves less than a run above it nothing is looked at. */
		enough = to - (SWAPFILE_CLUSTER - 1) - *from;
		if (used > enough)
			used = enough +
			       simd()->find_used(&run[enough], SWAPFILE_CLUSTER - enough, 0, 0);
		*from += used + 1;
	}
	return false;
}

/*
 * Where the next 256 slots should come from: the first run of 256 free ones from the bottom, as seeking
 * is dear. (The kernel's second search, below the start, is for SSDs: here it has nothing to look at.)
 */
static uint64_t find_free_cluster(struct pyksm *m, struct swap_info_struct *si)
{
	uint64_t from = si->lowest_bit;

	if (!find_free_run(si, &from, si->highest_bit)) {
		COUNT_N(m, scan_swap_map_slots, from - si->lowest_bit);
		return si->lowest_bit;
	}
	COUNT_N(m, scan_swap_map_slots, from + SWAPFILE_CLUSTER - si->lowest_bit);
	si->cluster_next = from;
	return from;
}

/* The first slot in [offset, end) that is free, or may become so; if there is none, no less than end. */
static uint64_t find_candidate(struct pyksm *m, const struct swap_info_struct *si, uint64_t offset,
			       uint64_t end)
{
	unsigned char cached = vm_swap_full(m) ? SWAP_HAS_CACHE : 0;
	uint64_t i, n = end - offset;

	if (offset >= end)
		return offset;
	i = simd()->find_byte(&si->swap_map[offset], n, 0, cached);
	COUNT_N(m, scan_swap_map_slots, i < n ? i + 1 : n);
	return offset + i;
}

/* The next slot worth a closer look after offset: upwards, then from the bottom to base; 0: none. */
static uint64_t next_candidate(struct pyksm *m, const struct swap_info_struct *si, uint64_t offset,
			       uint64_t base)
{
	offset = find_candidate(m, si, offset + 1, si->highest_bit + 1);
	if (offset <= si->highest_bit)
		return offset;
	/* 3.10 steps over lowest_bit itself; mended later */
	offset = find_candidate(m, si, si->lowest_bit + 1, base);
	return offset < base ? offset : 0;
}

/* The first slot of [from, end) that swapoff has to empty; end if there is none. */
uint64_t next_slot_in_use(struct pyksm *m, const struct swap_info_struct *si, uint64_t from,
			  uint64_t end)
{
	uint64_t i, n = end - from;

	if (from >= end)
		return end;
	i = simd()->find_used(&si->swap_map[from], n, SWAP_HAS_CACHE, SWAP_MAP_BAD);
	COUNT_N(m, find_next_to_unuse_slots, i < n ? i + 1 : n);
	return from + i;
}

static void take_slot(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	if (offset == si->lowest_bit)
		si->lowest_bit++;
	if (offset == si->highest_bit)
		si->highest_bit--;
	if (++si->inuse_pages == si->pages) {
		si->lowest_bit = si->max;
		si->highest_bit = 0;
		del_from_avail_list(m, si);
	}
	si->swap_map[offset] = SWAP_HAS_CACHE;
	si->cluster_next = offset + 1;
}

/* A free slot, claimed for the swap cache; 0: none. */
uint64_t scan_swap_map(struct pyksm *m, struct swap_info_struct *si)
{
	uint64_t offset = si->cluster_next, base = offset;

	if (!si->cluster_nr--) {
		if (si->pages - si->inuse_pages >= SWAPFILE_CLUSTER) {
			offset = find_free_cluster(m, si);
			base = si->lowest_bit;
		}
		si->cluster_nr = SWAPFILE_CLUSTER - 1;
	}
	while (offset) {
		if (!(si->flags & SWP_WRITEOK) || !si->highest_bit)
			return 0;
		if (offset > si->highest_bit)
			base = offset = si->lowest_bit;
		if (vm_swap_full(m) && si->swap_map[offset] == SWAP_HAS_CACHE) {
			/* Only the cache holds it: perhaps that can be let go. */
			if (reclaim_scanned(m, si, offset))
				continue;
		} else {
			COUNT(m, scan_swap_map_slots);
			if (!si->swap_map[offset]) {
				take_slot(m, si, offset);
				return offset;
			}
		}
		offset = next_candidate(m, si, offset, base);
	}
	return 0;
}

static bool area_has_room(const struct swap_info_struct *si)
{
	return si->highest_bit && (si->flags & SWP_WRITEOK);
}

/* Before 3.16: round the list of areas, from where the last call left off. */
static swp_entry_t next_in_swap_list(struct pyksm *m)
{
	struct swap *swap = &m->swap;
	int type, next, wrapped = 0;

	for (type = swap->next; type >= 0 && wrapped < 2; type = next) {
		int hp = swap->highest_priority_index;
		struct swap_info_struct *si;
		uint64_t offset;

		/* An area that freed a slot since: better than this one? */
		swap->highest_priority_index = -1;
		if (hp != -1 && hp != type && swap->info[type].prio < swap->info[hp].prio &&
		    (swap->info[hp].flags & SWP_WRITEOK))
			swap->next = type = hp;
		si = &swap->info[type];
		next = si->next;
		if (next < 0 || (!wrapped && si->prio != swap->info[next].prio)) {
			next = swap->head;
			wrapped++;
		}
		if (!area_has_room(si))
			continue;
		swap->next = next;
		offset = scan_swap_map(m, si);
		if (offset)
			return swp_entry((unsigned int)type, offset);
		next = swap->next;
	}
	return (swp_entry_t){ 0 };
}

/* /proc/meminfo shows it. Only an area that is being swapped off counts its slots that are in use as less than none. */
static void look_at_nr_swap_pages(struct pyksm *m)
{
	if (!in_task(m) || m->swap.nr_swap_pages >= 0)
		return;
	for (int type = 0; type < MAX_SWAPFILES; type++)
		if ((m->swap.info[type].flags & (SWP_USED | SWP_WRITEOK)) == SWP_USED)
			return;
	event(m, "nr_swap_pages is negative");
}

/* A slot of the best area; areas of one priority take turns. val 0: there is none. */
swp_entry_t get_swap_page(struct pyksm *m)
{
	swp_entry_t entry;

	COUNT(m, get_swap_page);
	sched_point(m, PT_GET_SWAP_PAGE);
	if (m->swap.nr_swap_pages <= 0)
		return (swp_entry_t){ 0 };
	if (bugged(m, BUG_NR_SWAP_PAGES_RACE))
		sched_point(m, PT_GET_SWAP_PAGES);
	m->swap.nr_swap_pages--;
	look_at_nr_swap_pages(m);
	entry = has(m, FEAT_SWAP_AVAIL_PLIST) ? get_swap_pages(m) : next_in_swap_list(m);
	if (!entry.val)
		m->swap.nr_swap_pages++;
	return entry;
}

/* ---- counts ---- */
static unsigned char *cont_digit(const struct swap_cont *cont, int i, uint64_t offset)
{
	return &cont->maps[i][offset % CONT_PIECE];
}

/* Carry into the higher digits; false: another continuation page is needed first. */
static bool count_carry(const struct swap_cont *cont, uint64_t offset, bool first)
{
	int i = 0;

	if (first) {
		*cont_digit(cont, 0, offset) = 0; /* whatever a former user of the slot left */
	} else {
		while (*cont_digit(cont, i, offset) == (SWAP_CONT_MAX | COUNT_CONTINUED))
			i++;
		if (*cont_digit(cont, i, offset) == SWAP_CONT_MAX) {
			if (++i == cont->nr)
				return false;
			*cont_digit(cont, i, offset) = 0;
		}
	}
	++*cont_digit(cont, i, offset);
	while (i-- > 0)
		*cont_digit(cont, i, offset) = COUNT_CONTINUED;
	return true;
}

/* Borrow from the higher digits; true: something is left in them. */
static bool count_borrow(const struct swap_cont *cont, uint64_t offset)
{
	unsigned char more = COUNT_CONTINUED;
	int i = 0;

	while (*cont_digit(cont, i, offset) == COUNT_CONTINUED)
		i++;
	if (--*cont_digit(cont, i, offset) == 0)
		more = 0;
	while (i-- > 0) {
		*cont_digit(cont, i, offset) = SWAP_CONT_MAX | more;
		more = COUNT_CONTINUED;
	}
	return more;
}

/* One more or one less than the first digit of a count can say. */
static RARELY bool swap_count_continued(struct swap_info_struct *si, uint64_t offset,
					unsigned char count)
{
	const struct swap_cont *cont = &si->cont[offset / CONT_PIECE];

	if (!cont->nr)
		return false;
	if ((count & ~COUNT_CONTINUED) == SWAP_MAP_MAX)
		return count_carry(cont, offset, count == SWAP_MAP_MAX);
	return count_borrow(cont, offset);
}

uint64_t swp_swapcount(const struct swap_info_struct *si, uint64_t offset)
{
	const struct swap_cont *cont = &si->cont[offset / CONT_PIECE];
	unsigned char digit = swap_count(si->swap_map[offset]);
	uint64_t count = digit & ~COUNT_CONTINUED, unit = SWAP_MAP_MAX + 1;

	if (digit == SWAP_MAP_BAD)
		return 0;
	for (int i = 0; (digit & COUNT_CONTINUED) && i < cont->nr; i++) {
		digit = *cont_digit(cont, i, offset);
		count += unit * (digit & SWAP_CONT_MAX);
		unit *= SWAP_CONT_MAX + 1;
	}
	return count;
}

/* Is there room in the pages that are there? Then someone else has added one meanwhile. */
static bool cont_has_room(const struct swap_cont *cont, uint64_t offset, unsigned char count)
{
	for (int i = 0; i < cont->nr; i++) {
		if (!(count & COUNT_CONTINUED))
			return true;
		count = *cont_digit(cont, i, offset);
		if ((count & ~COUNT_CONTINUED) != SWAP_CONT_MAX)
			return true;
	}
	return false;
}

/* Behind the last one. The list is that of many slots: under the locks of their clusters two may come at a time. */
static int cont_append(struct pyksm *m, struct swap_cont *cont, unsigned char *page)
{
	unsigned char **maps;
	size_t bytes;
	int nr = cont->nr;

	if (bugged(m, BUG_SWAP_CONTINUATION_RACE))
		sched_point(m, PT_CONT_APPEND);
	bytes = (size_t)cont->nr * sizeof(*maps);
	maps = cont->maps;
	if (cont->nr == nr)
		maps = host_realloc(m, maps, bytes, bytes + sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	cont->maps = maps;
	maps[nr] = page;
	cont->nr = nr + 1;
	return 0;
}

int add_swap_count_continuation(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si;
	unsigned char *page, count;
	uint64_t offset = swp_offset(entry);
	int err = 0;

	COUNT(m, kmem_alloc);
	page = should_fail(m, PYKSM_FAIL_KMEM) ? NULL : host_calloc(m, 1, CONT_PIECE);
	sched_point(m, PT_SWAP_CONTINUATION);
	si = swap_info_get(m, entry);
	if (!si)
		goto surplus;
	count = swap_count(si->swap_map[offset]);
	if ((count & ~COUNT_CONTINUED) != SWAP_MAP_MAX)
		goto surplus;
	if (!page)
		return -ENOMEM;
	if (cont_has_room(&si->cont[offset / CONT_PIECE], offset, count))
		goto surplus;
	err = cont_append(m, &si->cont[offset / CONT_PIECE], page);
	if (!err)
		return 0;
surplus:
	host_free(m, page);
	return err;
}

/*
 * What is to be locked is looked at before it is: whoever keeps the area from going must have begun with that. Up to
 * then it was one lock for all.
 */
static EXPANDED struct swap_info_struct *swap_info_before_lock(struct pyksm *m, swp_entry_t entry,
							       unsigned char usage)
{
	struct swap_info_struct *si = swap_info_get(m, entry);

	sched_point(m, usage == SWAP_HAS_CACHE ? PT_SWAPCACHE_PREPARE : PT_SWAP_DUPLICATE);
	if (!in_task(m))
		return si;
	if (!has(m, FEAT_SWAP_DEVICE_PINNED))
		return swap_info_get(m, entry);
	assert(!si || swp_offset(entry) < si->max); /* its swap_map has been freed */
	return si && si->swap_map[swp_offset(entry)] ? si : NULL;
}

static EXPANDED int __swap_duplicate(struct pyksm *m, swp_entry_t entry, unsigned char usage)
{
	struct swap_info_struct *si;
	unsigned char count, has_cache, *map;

	si = swap_info_before_lock(m, entry, usage);
	if (!si)
		return -ENOENT;
	map = &si->swap_map[swp_offset(entry)];
	count = swap_count(*map);
	has_cache = *map & SWAP_HAS_CACHE;
	if (usage == SWAP_HAS_CACHE) {
		if (has_cache)
			return -EEXIST;
		if (!count)
			return -ENOENT;
		has_cache = SWAP_HAS_CACHE;
	} else if (__builtin_expect((count & ~COUNT_CONTINUED) < SWAP_MAP_MAX, 1)) {
		count = (unsigned char)(count + usage);
	} else if ((count & ~COUNT_CONTINUED) > SWAP_MAP_MAX) {
		return -EINVAL;
	} else if (swap_count_continued(si, swp_offset(entry), count)) {
		count = COUNT_CONTINUED;
	} else {
		return -ENOMEM;
	}
	*map = count | has_cache;
	return 0;
}

/* One more pte refers to the slot. -ENOMEM: a continuation page could not be had. */
int swap_duplicate(struct pyksm *m, swp_entry_t entry)
{
	int err = 0;

	COUNT(m, swap_duplicate);
	while (!err && __swap_duplicate(m, entry, 1) == -ENOMEM)
		err = add_swap_count_continuation(m, entry);
	return err;
}

int swapcache_prepare(struct pyksm *m, swp_entry_t entry)
{
	return __swap_duplicate(m, entry, SWAP_HAS_CACHE);
}

static void set_highest_priority_index(struct pyksm *m, int type)
{
	int old = m->swap.highest_priority_index;

	if (old == -1 || m->swap.info[old].prio < m->swap.info[type].prio)
		m->swap.highest_priority_index = type;
}

static __attribute__((noinline)) void slot_is_free(struct pyksm *m, struct swap_info_struct *si,
						   uint64_t offset)
{
	bool was_full = !si->highest_bit;

	if (offset < si->lowest_bit)
		si->lowest_bit = offset;
	if (offset > si->highest_bit)
		si->highest_bit = offset;
	if (was_full && (si->flags & SWP_WRITEOK))
		add_to_avail_list(m, si);
	set_highest_priority_index(m, si->type);
	m->swap.nr_swap_pages++;
	si->inuse_pages--;
	if (si->zeromap)
		si->zeromap[offset / 8] &= (unsigned char)~(1 << offset % 8);
	if (si->buffers || has(m, FEAT_SWAP_SYNCHRONOUS))
		swap_slot_forget(m, si, offset);
	swap_table_forget(m, si, offset);
}

/* Drop one reference, or the cache's claim; what is left in the byte is returned. */
static EXPANDED unsigned char swap_entry_free(struct pyksm *m, struct swap_info_struct *si,
					      uint64_t offset, unsigned char usage)
{
	unsigned char count = swap_count(si->swap_map[offset]);
	unsigned char has_cache = si->swap_map[offset] & SWAP_HAS_CACHE;

	if (usage == SWAP_HAS_CACHE)
		has_cache = 0;
	else if (count == COUNT_CONTINUED)
		count = swap_count_continued(si, offset, count) ? SWAP_MAP_MAX | COUNT_CONTINUED
								: SWAP_MAP_MAX;
	else
		count--;
	si->swap_map[offset] = count | has_cache;
	if (!si->swap_map[offset])
		slot_is_free(m, si, offset);
	return count | has_cache;
}

void swap_free(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si;

	COUNT(m, swap_free);
	sched_point(m, PT_SWAP_FREE);
	si = swap_info_get(m, entry);
	if (si)
		swap_entry_free(m, si, swp_offset(entry), 1);
}

void swapcache_free(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si;

	sched_point(m, PT_SWAPCACHE_FREE);
	si = swap_info_get(m, entry);
	if (si)
		swap_entry_free(m, si, swp_offset(entry), SWAP_HAS_CACHE);
}

static unsigned char page_swapcount(struct pyksm *m, const struct page *page)
{
	swp_entry_t entry = { page->private };
	const struct swap_info_struct *si;

	sched_point(m, PT_PAGE_SWAPCOUNT);
	si = swap_info_get(m, entry);
	return si ? swap_count(si->swap_map[swp_offset(entry)]) : 0;
}

/* May a write go to the page itself? If so and only the cache had a claim beside us, it goes. */
bool reuse_swap_page(struct pyksm *m, struct page *page)
{
	int count = page_mapcount(page);

	COUNT(m, reuse_swap_page);
	if (PageKsm(page))
		return false;
	if (count <= 1 && (page->flags & PG_swapcache)) {
		count += page_swapcount(m, page);
		if (count == 1 && !(page->flags & PG_writeback)) {
			delete_from_swap_cache(m, page);
			page->flags |= PG_dirty;
		}
	}
	return count <= 1;
}

/* Take the page out of the swap cache if no pte refers to its slot. */
bool try_to_free_swap(struct pyksm *m, struct page *page)
{
	COUNT(m, try_to_free_swap);
	if (!(page->flags & PG_swapcache) || (page->flags & PG_writeback) ||
	    page_swapcount(m, page))
		return false;
	delete_from_swap_cache(m, page);
	page->flags |= PG_dirty;
	return true;
}

/* The cached page of a slot that no pte refers to any more goes too, if nobody needs it. */
static void drop_unused_page(struct pyksm *m, swp_entry_t entry, struct page *page)
{
	const struct swap_info_struct *si = swap_info_get(m, entry);

	if (!__trylock_page(m, page))
		return;
	if ((page->flags & PG_swapcache) && page->private == entry.val &&
	    !(page->flags & PG_writeback) && (!page_mapped(page) || vm_swap_full(m)) && si &&
	    !__swap_count(si, swp_offset(entry))) {
		delete_from_swap_cache(m, page);
		page->flags |= PG_dirty;
	}
	unlock_page(m, page);
}

/* A swap pte goes. */
static int __free_swap_and_cache(struct pyksm *m, swp_entry_t entry,
				 const struct swap_info_struct *area)
{
	struct swap_info_struct *si;
	struct page *page;

	(void)area; /* which the assertion below is about */
	sched_point(m, PT_FREE_SWAP_AND_CACHE);
	si = swap_info_get(m, entry);
	if (!si)
		return 0;
	if (swap_entry_free(m, si, swp_offset(entry), 1) != SWAP_HAS_CACHE)
		return 1;
	if (in_task(m) && has(m, FEAT_SWAP_DEVICE_PINNED)) {
		/* That was under the lock of its cluster. Up to then it was the lock of all areas, and kept. */
		sched_point(m, PT_FREE_SWAP_RECLAIM);
		assert(swp_offset(entry) <
		       area->max); /* what is known of its slots has been freed */
	}
	page = __find_get_page(m, entry);
	if (!page)
		return 1;
	drop_unused_page(m, entry, page);
	put_page(m, page);
	return 1;
}

int free_swap_and_cache(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si;
	int ret;

	COUNT(m, free_swap_and_cache);
	if (non_swap_entry(m, entry))
		return 1;
	if (bugged(m, BUG_SWAPOFF_VS_FREE_SWAP))
		return __free_swap_and_cache(m, entry, &m->swap.info[swp_type(entry)]);
	si = get_swap_device(m, entry);
	if (!si)
		return 0;
	ret = __free_swap_and_cache(m, entry, si);
	put_swap_device(m, si);
	return ret;
}

/* ---- swapon ---- */
/* Of 32 types the areas have those that nothing else is: see pgtable.c. */
uint32_t nr_swap_types(const struct pyksm *m)
{
	uint32_t n = 32 - 1 - 2; /* hwpoison, migration */

	if (has(m, FEAT_ANON_EXCLUSIVE))
		n--; /* read-exclusive migration */
	if (has(m, FEAT_SWAP_TYPES_DEVICE))
		n -= 2;
	if (has(m, FEAT_SWAP_TYPES_DEVICE_EXCLUSIVE))
		n -= has(m, FEAT_SWAP_TYPES_ONE_EXCLUSIVE) ? 1 : 2;
	if (has(m, FEAT_SWAPOFF_ERROR_ENTRIES))
		n -= has(m, FEAT_SWAPIN_POISON_MARKER) ? 1 : 2; /* marker, swapin-error */
	return n;
}

int swap_init(struct pyksm *m)
{
	m->swap.head = m->swap.next = -1;
	m->swap.highest_priority_index = -1;
	/* The preferred area of its node would be -1: a2468cc9bfdf (4.14). */
	m->swap.least_priority = has(m, FEAT_SWAP_NUMA_PRIORITY) ? -1 : 0;
	for (int type = 0; type < MAX_SWAPFILES; type++) {
		m->swap.info[type].type = type;
		m->swap.info[type].fd = -1;
	}
	INIT_LIST_HEAD(&m->swap.init_mm.mmlist);
	m->swap.init_mm.mm_users = 1;
	return 0;
}

static void release_area(struct pyksm *m, struct swap_info_struct *si)
{
	int type = si->type;

	for (uint64_t i = 0; si->cont && i * CONT_PIECE < si->max; i++) {
		for (int k = 0; k < si->cont[i].nr; k++)
			host_free(m, si->cont[i].maps[k]);
		host_free(m, si->cont[i].maps);
	}
	host_free(m, si->cont);
	host_free(m, si->swap_map);
	host_free(m, si->zeromap);
	swap_table_exit(m, si);
	swap_backend_close(m, si);
	memset(si, 0, sizeof(*si));
	si->type = type;
	si->fd = -1;
}

void swap_exit(struct pyksm *m)
{
	for (int type = 0; type < MAX_SWAPFILES; type++)
		if (m->swap.info[type].flags & SWP_USED)
			release_area(m, &m->swap.info[type]);
}

static void _enable_swap_info(struct pyksm *m, struct swap_info_struct *si, int prio)
{
	struct swap *swap = &m->swap;
	int i, prev = -1;

	si->prio = prio >= 0 ? prio : --swap->least_priority;
	si->flags |= SWP_WRITEOK;
	swap->nr_swap_pages += (int64_t)si->pages;
	swap->total_swap_pages += (int64_t)si->pages;
	for (i = swap->head; i >= 0 && si->prio < swap->info[i].prio; i = swap->info[i].next)
		prev = i;
	si->next = i;
	if (prev < 0)
		swap->head = swap->next = si->type;
	else
		swap->info[prev].next = si->type;
	if (si->highest_bit) /* a swapoff that failed leaves a full one as it may be */
		add_to_avail_list(m, si);
}

static struct swap_info_struct *alloc_swap_info(struct pyksm *m, int *err)
{
	COUNT(m, kmem_alloc);
	*err = -ENOMEM;
	if (should_fail(m, PYKSM_FAIL_KMEM))
		return NULL;
	for (int type = 0; type < (int)max_swapfiles(m); type++)
		if (!(m->swap.info[type].flags & SWP_USED)) {
			*err = 0;
			return &m->swap.info[type];
		}
	*err = -EPERM;
	return NULL;
}

static bool file_is_active(const struct pyksm *m, const struct swap_info_struct *si)
{
	for (int type = 0; type < MAX_SWAPFILES; type++) {
		const struct swap_info_struct *q = &m->swap.info[type];

		if (q != si && (q->flags & SWP_USED) && q->fd >= 0 && q->dev == si->dev &&
		    q->ino == si->ino)
			return true;
	}
	return false;
}

/* What not every kernel has costs nothing where it is not: an area may have 2^32 slots. */
static int setup_slot_marks(struct pyksm *m, struct swap_info_struct *si)
{
	if (has(m, FEAT_SWAP_ZEROMAP)) {
		si->zeromap = host_calloc(m, si->max / 8 + 1, 1);
		if (!si->zeromap)
			return -ENOMEM;
	}
	return swap_table_init(m, si);
}

static int setup_swap_map(struct pyksm *m, struct swap_info_struct *si)
{
	si->swap_map = host_calloc(m, si->max, 1);
	si->cont = host_calloc(m, si->max / CONT_PIECE + 1, sizeof(*si->cont));
	if (!si->swap_map || !si->cont || setup_slot_marks(m, si))
		return -ENOMEM;
	si->swap_map[0] = SWAP_MAP_BAD; /* the header */
	si->pages = si->max - 1;
	si->lowest_bit = si->cluster_next = 1;
	si->highest_bit = si->max - 1;
	return 0;
}

int sys_swapon(struct pyksm *m, uint64_t npages, int priority, const char *path)
{
	struct swap_info_struct *si;
	int err;

	if (priority < -1 || priority > 32767)
		return -EINVAL;
	si = alloc_swap_info(m, &err);
	if (!si)
		return err;
	si->flags = SWP_USED;
	err = swap_backend_open(m, si, path, npages);
	if (si->fd >= 0 && file_is_active(m, si))
		err = -EBUSY; /* whatever its header says */
	if (!err)
		err = setup_swap_map(m, si);
	if (err) {
		release_area(m, si);
		return err;
	}
	mutex_lock(m, LOCK_SWAPON, PT_SWAPON_MUTEX);
	_enable_swap_info(m, si, priority);
	mutex_unlock(m, LOCK_SWAPON);
	lru_add_drain(m);
	return si->type;
}

/* ---- swapoff ---- */
/*
 * GUESS mode: what is free, swap included (this area's own, even), must be more than what is asked. Since
 * 5.2 (8c7829b04c52) only what could never be is refused: more than all memory and swap there is.
 */
static bool vm_enough_memory(const struct pyksm *m, uint64_t pages)
{
	int64_t free_pages = m->swap.nr_swap_pages;

	if (has(m, FEAT_OVERCOMMIT_GUESS_TOTAL))
		return pages <= m->max_pfn + (uint64_t)m->swap.total_swap_pages;
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		free_pages += m->node[nid].nr_free;
	return free_pages > (int64_t)pages;
}

static void del_from_swap_list(struct pyksm *m, struct swap_info_struct *si)
{
	struct swap *swap = &m->swap;
	int i, prev = -1;

	for (i = swap->head; i != si->type; i = swap->info[i].next)
		prev = i;
	if (prev < 0)
		swap->head = si->next;
	else
		swap->info[prev].next = si->next;
	if (swap->next == si->type)
		swap->next = swap->head;
	if (si->prio < 0) { /* the automatic ones below move up */
		for (i = si->next; i >= 0; i = swap->info[i].next)
			swap->info[i].prio = si->prio--;
		swap->least_priority++;
	}
	swap->nr_swap_pages -= (int64_t)si->pages;
	swap->total_swap_pages -= (int64_t)si->pages;
	si->flags &= ~SWP_WRITEOK;
	if (!bugged(m, BUG_SWAPOFF_AVAIL_LIST_READD))
		del_from_avail_list(m, si);
}

/* The bug: before it has the lock that a slot is freed with. false: another swapoff has taken the area away. */
static bool del_from_avail_list_early(struct pyksm *m, struct swap_info_struct *si)
{
	if (!bugged(m, BUG_SWAPOFF_AVAIL_LIST_READD))
		return true;
	del_from_avail_list(m, si);
	sched_point(m, PT_SWAPOFF_SI_LOCK);
	return si->flags & SWP_WRITEOK;
}

/* No slot in use anywhere: no mm has to be looked for. */
static void drain_mmlist(struct pyksm *m)
{
	struct list_head *pos, *next;

	for (int type = 0; type < MAX_SWAPFILES; type++)
		if (m->swap.info[type].inuse_pages)
			return;
	list_for_each_safe (pos, next, &m->swap.init_mm.mmlist)
		list_del_init(pos);
}

/* Until nobody looks at the area any more who has begun to, and nobody does any more. */
static void wait_for_users(struct pyksm *m, struct swap_info_struct *si)
{
	if (!in_task(m) || !has(m, FEAT_SWAP_DEVICE_PINNED) || devices_not_pinned(m))
		return;
	si->flags |= SWP_DYING;
	sched_wait(m, PT_SWAPOFF_KILL_REF, (struct lock_id){ LOCK_SWAP_DEVICE, si, 0 });
}

/*
 * Whoever is looking for a slot is let finish; by now it will find none. (A flag of the area until 6.13; then they
 * are users as above, and locks of clusters.)
 */
static void wait_for_scanning(struct pyksm *m, const struct swap_info_struct *si)
{
	while (in_task(m) && si->scanning)
		sched_yield_point(m, PT_SWAPOFF_SCANNING);
}

int sys_swapoff(struct pyksm *m, int type)
{
	struct swap_info_struct *si;
	int err;

	sched_point(m, PT_SWAPOFF_SWAP_LOCK);
	if (type < 0 || type >= MAX_SWAPFILES || !(m->swap.info[type].flags & SWP_WRITEOK))
		return -EINVAL;
	si = &m->swap.info[type];
	if (!vm_enough_memory(m, si->pages))
		return -ENOMEM;
	if (!del_from_avail_list_early(m, si))
		return -EINVAL;
	del_from_swap_list(m, si);
	if (has(m, FEAT_SWAPOFF_PER_MM))
		err = try_to_unuse_per_mm(m, (unsigned int)type);
	else
		err = try_to_unuse(m, (unsigned int)type);
	if (err) {
		sched_point(m, PT_SWAPOFF_SWAP_LOCK);
		_enable_swap_info(m, si, si->prio);
		return err;
	}
	wait_for_users(m, si);
	mutex_lock(m, LOCK_SWAPON, PT_SWAPON_MUTEX);
	sched_point(m, PT_MMLIST_LOCK);
	drain_mmlist(m);
	wait_for_scanning(m, si);
	lru_add_drain(m); /* the header page leaves the page cache */
	release_area(m, si);
	mutex_unlock(m, LOCK_SWAPON);
	return 0;
}
