/* SPDX-License-Identifier: MIT */
/*
 * What ksmd has learned of contents; no kernel has this. Frames with the same content_id, other than 0, have the
 * same bytes, and the id's class knows their checksum. So a page is read once for as long as nobody writes to it,
 * and nothing is counted otherwise for that: see calc_checksum() and memcmp_pages(). Different ids say nothing.
 *
 * Classes are found by a sample of the bytes, in a table that may forget: then equal contents have two ids. What
 * has the sample is compared in full. Without host memory frames just get no ids. A class takes 12 bytes, and 11 to
 * 43 in the table; there are no more of them than 5/4 of the frames.
 */
#include "ksm_internal.h"

/* Shorter contents are read as fast as an id's class is found. */
#define MIN_CONTENT 128
#define WAYS 8
#define FIRST_BUCKETS 64

struct content_class {
	uint32_t checksum, sample;
	uint32_t
		pfn; /* of a frame that had the id when last seen, or the next of the free classes */
};

struct content_bucket { /* a cache line */
	uint32_t sample[WAYS];
	uint32_t id[WAYS]; /* 0: empty */
};

bool content_ids_wanted(const struct pyksm *m)
{
	return m->page_size >= MIN_CONTENT && !m->content_ids.off;
}

static void unmap_table(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;

	if (ids->bucket)
		host_unmap(m, ids->bucket, ((size_t)ids->mask + 1) * sizeof(*ids->bucket));
	ids->bucket = NULL;
}

void content_ids_exit(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;

	if (ids->class)
		host_unmap(m, ids->class, (size_t)ids->max * sizeof(*ids->class));
	unmap_table(m);
}

/* ---- the table ---- */
/* Where all ways are taken one is forgotten. */
static void table_add(struct content_ids *ids, uint32_t id)
{
	uint32_t sample = ids->class[id].sample;
	struct content_bucket *bucket = &ids->bucket[sample & ids->mask];
	uint32_t way = 0;

	while (way < WAYS && bucket->id[way])
		way++;
	way = way < WAYS ? way : id % WAYS;
	bucket->sample[way] = sample;
	bucket->id[way] = id;
}

/* A table four times as large, or the first one. */
static bool table_grow(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;
	size_t n = ids->bucket ? ((size_t)ids->mask + 1) * 4 : FIRST_BUCKETS;
	struct content_bucket *bucket = host_map(m, n * sizeof(*bucket));

	if (!bucket)
		return false;
	unmap_table(m);
	ids->bucket = bucket;
	ids->mask = (uint32_t)(n - 1);
	for (uint32_t id = 1; id < ids->nr; id++)
		table_add(ids, id);
	return true;
}

/* ---- classes ---- */
static bool first_class(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;
	uint64_t max = m->max_pfn + m->max_pfn / 4 + 64;

	ids->max = max < UINT32_MAX ? (uint32_t)max : UINT32_MAX;
	ids->class = host_map(m, (size_t)ids->max * sizeof(*ids->class));
	ids->nr = 1;
	return ids->class;
}

static void mark_used(const struct pyksm *m, uint8_t *used)
{
	for (uint32_t nid = 0; nid < m->nodes; nid++)
		for (uint64_t pfn = m->node[nid].first; pfn < m->node[nid].fresh; pfn++) {
			uint32_t id = pfn_to_page(m, pfn)->content_id;

			used[id / 8] |= (uint8_t)(1 << id % 8);
		}
	used[0] |= (uint8_t)(1 << zero_page(m)->content_id % 8);
}

/* Classes that no frame has any more are free again, the table forgets them: at least a fifth. */
static bool free_unused(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;
	uint8_t *used = host_temp(m, (size_t)ids->max / 8 + 1, 1);

	if (!used)
		return false;
	mark_used(m, used);
	memset(ids->bucket, 0, ((size_t)ids->mask + 1) * sizeof(*ids->bucket));
	for (uint32_t id = 1; id < ids->nr; id++) {
		if (used[id / 8] & (1 << id % 8)) {
			table_add(ids, id);
		} else {
			ids->class[id].pfn = ids->free;
			ids->free = id;
		}
	}
	host_free(m, used);
	return ids->free;
}

/* 0: no more ids, now or ever. */
static uint32_t take_id(struct pyksm *m)
{
	struct content_ids *ids = &m->content_ids;
	uint32_t id;

	if (!ids->class && !first_class(m))
		return 0;
	if (ids->nr < ids->max) {
		if ((!ids->bucket || ids->nr / 6 > ids->mask) && !table_grow(m))
			return 0;
		return ids->nr++;
	}
	if (!ids->free && !free_unused(m))
		return 0;
	id = ids->free;
	ids->free = ids->class[id].pfn;
	return id;
}

static void new_class(struct pyksm *m, const struct content_look *look)
{
	struct content_ids *ids = &m->content_ids;
	uint32_t id = take_id(m);

	if (!id) {
		ids->off = true;
		return;
	}
	ids->class[id] = (struct content_class){ look->checksum, look->sample,
						 (uint32_t)page_to_pfn(m, look->page) };
	table_add(ids, id);
	look->page->content_id = id;
}

/* ---- looking for a class ---- */
static uint32_t take_sample(const unsigned char *bytes, size_t size)
{
	uint64_t hash = 0, word;

	for (size_t at = 0; at < size; at += size / 4 + 8) {
		memcpy(&word, bytes + at, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return (uint32_t)hash;
}

/* A frame that has the id, NULL if none is known any more. */
static const struct page *page_of_class(const struct pyksm *m, uint32_t id)
{
	const struct page *page = pfn_to_page(m, m->content_ids.class[id].pfn);

	return page->content_id == id ? page : NULL;
}

static bool is_of_class(const struct pyksm *m, const struct page *page, uint32_t id)
{
	const struct page *other = page_of_class(m, id);

	return other && !memcmp(page_content(m, page), page_content(m, other), m->page_size);
}

/* The first class of that sample; 0: none. */
static uint32_t first_of_sample(const struct content_ids *ids, uint32_t sample)
{
	const struct content_bucket *bucket = &ids->bucket[sample & ids->mask];

	for (int way = 0; way < WAYS; way++)
		if (bucket->id[way] && bucket->sample[way] == sample)
			return bucket->id[way];
	return 0;
}

/* The checksum has told apart those that are not worth comparing with. 0: none. */
static uint32_t class_of(const struct pyksm *m, const struct content_look *look)
{
	const struct content_ids *ids = &m->content_ids;
	const struct content_bucket *bucket;

	if (!ids->bucket)
		return 0;
	bucket = &ids->bucket[look->sample & ids->mask];
	for (int way = 0; way < WAYS; way++) {
		uint32_t id = bucket->id[way];

		if (id && bucket->sample[way] == look->sample &&
		    ids->class[id].checksum == look->checksum && is_of_class(m, look->page, id))
			return id;
	}
	return 0;
}

/* Step by step, so that the host fetches what the next step needs for all of them at once. */
static void fetch_candidates(const struct pyksm *m, struct content_look *look, size_t n)
{
	const struct content_ids *ids = &m->content_ids;

	for (size_t i = 0; i < n; i++) {
		const unsigned char *bytes = page_content(m, look[i].page);

		for (size_t at = 0; at < m->page_size; at += m->page_size / 4 + 8)
			__builtin_prefetch(bytes + at);
	}
	for (size_t i = 0; i < n; i++) {
		look[i].sample = take_sample(page_content(m, look[i].page), m->page_size);
		look[i].id = 0;
		if (ids->bucket)
			__builtin_prefetch(&ids->bucket[look[i].sample & ids->mask]);
	}
	for (size_t i = 0; i < n && ids->bucket; i++) {
		look[i].id = first_of_sample(ids, look[i].sample);
		__builtin_prefetch(&ids->class[look[i].id]);
	}
	for (size_t i = 0; i < n; i++)
		if (look[i].id)
			__builtin_prefetch(pfn_to_page(m, ids->class[look[i].id].pfn));
}

/*
 * What is in the pages: their ids if they have them, their checksums. Nothing of the machine is changed, so
 * that two threads can each do a part.
 */
void content_look(const struct pyksm *m, struct content_look *look, size_t n)
{
	struct content_look *rest[CONTENT_LOOKS];
	const unsigned char *bytes[CONTENT_LOOKS];
	uint32_t checksums[CONTENT_LOOKS];
	size_t nr_rest = 0;

	assert(n <= CONTENT_LOOKS);
	fetch_candidates(m, look, n);
	for (size_t i = 0; i < n; i++) {
		if (look[i].id && is_of_class(m, look[i].page, look[i].id)) {
			look[i].checksum = m->content_ids.class[look[i].id].checksum;
			continue;
		}
		look[i].id = 0;
		bytes[nr_rest] = page_content(m, look[i].page);
		rest[nr_rest++] = &look[i];
	}
	if (nr_rest)
		page_checksums(m, bytes, nr_rest, checksums);
	for (size_t i = 0; i < nr_rest; i++)
		rest[i]->checksum = checksums[i];
}

/* Give the pages that were looked at, and nothing has run since, their ids. */
void content_look_done(struct pyksm *m, struct content_look *look, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!look[i].id)
			look[i].id = class_of(m, &look[i]);
		if (look[i].id)
			look[i].page->content_id = look[i].id;
		else
			new_class(m, &look[i]);
	}
}

/* ---- what is known ---- */
uint32_t content_checksum(struct pyksm *m, struct page *page)
{
	struct content_look look = { .page = page };

	if (page->content_id)
		return m->content_ids.class[page->content_id].checksum;
	if (!content_ids_wanted(m))
		return page_checksum(m, page_content(m, page));
	content_look(m, &look, 1);
	content_look_done(m, &look, 1);
	return look.checksum;
}

/* The frame of a KSM page, which nobody writes to, is the best to compare others with. */
void content_id_settle(struct pyksm *m, const struct page *page)
{
	if (page->content_id)
		m->content_ids.class[page->content_id].pfn = (uint32_t)page_to_pfn(m, page);
}

/* They have turned out to be equal. */
void content_ids_join(struct page *a, struct page *b)
{
	if (a->content_id)
		b->content_id = a->content_id;
	else
		a->content_id = b->content_id;
}
