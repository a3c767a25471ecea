/* SPDX-License-Identifier: MIT */
/*
 * What is in the frames: every byte of them is read, written and copied by way of this file. So a frame's
 * content_id, which ksmd gives it (content_id.c), is taken away here when the bytes may change.
 */
#include "internal.h"

/* ---- by reference: buffers, which frames and slots of memory backends refer to ---- */
/* Room for n more segments, mapped at once: pointers into the others stay as they are. */
static int map_segments(struct pyksm *m, size_t n)
{
	struct buffers *b = &m->buffers;
	size_t page_size = m->page_size;
	size_t each = SEGMENT_BUFFERS * (page_size + sizeof(uint32_t));
	struct segment *segments;
	struct extent *extents;
	unsigned char *memory;
	uint32_t *refs;

	segments = grow(m, b->segments, &b->max_segments, b->nr_segments + n, sizeof(*segments));
	if (segments)
		b->segments = segments;
	extents = grow(m, b->extents, &b->max_extents, b->nr_extents + 1, sizeof(*extents));
	if (extents)
		b->extents = extents;
	memory = segments && extents && n <= SIZE_MAX / each ? host_map(m, n * each) : NULL;
	if (!memory)
		return -ENOMEM;
	if (n * SEGMENT_BUFFERS >= MANY_FRAMES)
		advise_huge_pages(memory, n * each);
	extents[b->nr_extents++] = (struct extent){ memory, n * each };
	refs = (uint32_t *)(void *)(memory + n * SEGMENT_BUFFERS * page_size);
	for (size_t i = 0; i < n; i++)
		segments[b->nr_segments++] =
			(struct segment){ memory + i * SEGMENT_BUFFERS * page_size,
					  refs + i * SEGMENT_BUFFERS };
	return 0;
}

/*
 * As many more buffers as there will be more frames or slots. A frame or a slot refers to one at most, so
 * with as many as there are of both, and the zeros, taking one never fails. -ENOMEM: nothing has changed.
 */
int buffers_reserve(struct pyksm *m, uint64_t more)
{
	struct buffers *b = &m->buffers;
	uint64_t have = (uint64_t)b->nr_segments << BUFFER_SHIFT, want = b->reserved + more;
	int err = 0;

	if (want > UINT32_MAX)
		return -ENOMEM;
	if (want > have)
		err = map_segments(m, (want - have + SEGMENT_BUFFERS - 1) >> BUFFER_SHIFT);
	if (!err)
		b->reserved = want;
	return err;
}

/* The mapped room stays, for the next area. */
void buffers_unreserve(struct pyksm *m, uint64_t fewer)
{
	m->buffers.reserved -= fewer;
}

/* One that nobody refers to: the free ones are linked by their counts. */
static uint32_t take_buffer(struct pyksm *m)
{
	struct buffers *b = &m->buffers;
	uint32_t id = b->free;

	if (id)
		b->free = *buffer_refs(m, id);
	else
		id = b->fresh++;
	*buffer_refs(m, id) = 1;
	return id;
}

static void put_buffer(struct pyksm *m, uint32_t id)
{
	uint32_t *refs = id ? buffer_refs(m, id) : NULL;

	if (!refs || --*refs)
		return;
	*refs = m->buffers.free;
	m->buffers.free = id;
}

/* Whoever referred to another one refers to this one now. The zeros, 0, are not counted. */
void share_buffer(struct pyksm *m, uint32_t *holder, uint32_t id)
{
	if (id)
		++*buffer_refs(m, id);
	if (*holder)
		put_buffer(m, *holder);
	*holder = id;
}

void page_share_buffer(struct pyksm *m, struct page *page, uint32_t id)
{
	page->content_id = 0;
	share_buffer(m, &page->buffer, id);
}

/* Nobody else sees what is written to the page's buffer from here on. */
static unsigned char *own_buffer(struct pyksm *m, struct page *page, bool keep)
{
	uint32_t old = page->buffer;

	if (!old || *buffer_refs(m, old) > 1) {
		page->buffer = take_buffer(m);
		if (keep)
			memcpy(buffer_content(m, page->buffer), buffer_content(m, old),
			       m->page_size);
		put_buffer(m, old);
	}
	return buffer_content(m, page->buffer);
}

/* ---- frames ---- */
int content_init(struct pyksm *m, uint64_t frames)
{
	if (m->transfer == PYKSM_TRANSFER_REFERENCE) {
		m->buffers.fresh = 1;
		return buffers_reserve(m, frames + 1);
	}
	if (frames >= SIZE_MAX / m->page_size)
		return -ENOMEM;
	m->content = host_map(m, ((size_t)frames + 1) * m->page_size);
	if (m->content && frames >= MANY_FRAMES)
		advise_huge_pages(m->content, ((size_t)frames + 1) * m->page_size);
	return m->content ? 0 : -ENOMEM;
}

void content_exit(struct pyksm *m)
{
	if (m->content)
		host_unmap(m, m->content, (size_t)(m->max_pfn + 1) * m->page_size);
	for (size_t i = 0; i < m->buffers.nr_extents; i++)
		host_unmap(m, m->buffers.extents[i].memory, m->buffers.extents[i].bytes);
	host_free(m, m->buffers.extents);
	host_free(m, m->buffers.segments);
}

unsigned char *page_content_write(struct pyksm *m, struct page *page)
{
	page->content_id = 0;
	if (m->transfer == PYKSM_TRANSFER_REFERENCE)
		return own_buffer(m, page, true);
	return m->content + page_to_pfn(m, page) * m->page_size;
}

unsigned char *page_content_overwrite(struct pyksm *m, struct page *page)
{
	page->content_id = 0;
	if (m->transfer == PYKSM_TRANSFER_REFERENCE)
		return own_buffer(m, page, false);
	return m->content + page_to_pfn(m, page) * m->page_size;
}

void clear_highpage(struct pyksm *m, struct page *page)
{
	if (m->transfer == PYKSM_TRANSFER_REFERENCE)
		page_share_buffer(m, page, 0);
	else
		memset(page_content_overwrite(m, page), 0, m->page_size);
}

void copy_user_highpage(struct pyksm *m, struct page *to, const struct page *from)
{
	if (m->transfer == PYKSM_TRANSFER_REFERENCE)
		share_buffer(m, &to->buffer, from->buffer);
	else
		memcpy(page_content_overwrite(m, to), page_content(m, from), m->page_size);
	to->content_id = from->content_id;
	COUNT(m, copy_page);
}
