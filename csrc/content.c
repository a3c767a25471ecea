/* SPDX-License-Identifier: MIT */
/*
 * What is in the frames: every byte of them is read, written and copied by way of this file. So a frame's
 * content_id, which ksmd gives it (content_id.c), is taken away here when the bytes may change.
 */
#include <sys/mman.h>

#include "internal.h"

void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Fewer TLB misses, and far fewer page faults on first touch; whether the host follows is its business. */
void advise_huge_pages(void *memory, size_t bytes)
{
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
}

int content_init(struct pyksm *m, uint64_t frames)
{
	if (frames >= SIZE_MAX / m->page_size)
		return -ENOMEM;
	m->content = map_lazily(((size_t)frames + 1) * m->page_size);
	if (m->content && frames >= MANY_FRAMES)
		advise_huge_pages(m->content, ((size_t)frames + 1) * m->page_size);
	return m->content ? 0 : -ENOMEM;
}

void content_exit(struct pyksm *m)
{
	if (m->content)
		munmap(m->content, (size_t)(m->max_pfn + 1) * m->page_size);
}

unsigned char *page_content_write(struct pyksm *m, struct page *page)
{
	page->content_id = 0;
	return m->content + page_to_pfn(m, page) * m->page_size;
}

unsigned char *page_content_overwrite(struct pyksm *m, struct page *page)
{
	page->content_id = 0;
	return m->content + page_to_pfn(m, page) * m->page_size;
}

void clear_highpage(struct pyksm *m, struct page *page)
{
	memset(page_content_overwrite(m, page), 0, m->page_size);
}

void copy_user_highpage(struct pyksm *m, struct page *to, const struct page *from)
{
	memcpy(page_content_overwrite(m, to), page_content(m, from), m->page_size);
	to->content_id = from->content_id;
	COUNT(m, copy_page);
}
