/* SPDX-License-Identifier: MIT */
/* Slots to and from the backend: memory, or a file in mkswap's format (kernel: mm/page_io.c). */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "internal.h"

/* ---- the header page of an area, as mkswap(8) writes it ---- */
#define SWAP_MAGIC "SWAPSPACE2"
#define SWAP_VERSION_OFFSET 1024
#define SWAP_MAGIC_OFFSET (PAGE_SIZE - 10)
#define SWAP_BADPAGES_OFFSET 1536
#define MAX_SLOTS (1ULL << 32) /* a header says the last in 32 bits */
#define MAX_SWAP_BADPAGES ((SWAP_MAGIC_OFFSET - SWAP_BADPAGES_OFFSET) / 4)

struct swap_header {
	uint32_t version, last_page, nr_badpages;
};

static uint32_t swab32(uint32_t v)
{
	return v << 24 | (v & 0xff00) << 8 | (v >> 8 & 0xff00) | v >> 24;
}

static int full_pread(int fd, void *buf, size_t len, uint64_t pos)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(pos + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int full_pwrite(int fd, const void *buf, size_t len, uint64_t pos)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(pos + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

/* The number of slots that the header allows, 0 where it is not one or does not fit the file. */
static uint64_t read_swap_header(const unsigned char *head, uint64_t file_pages)
{
	struct swap_header h;

	if (memcmp(head + SWAP_MAGIC_OFFSET, SWAP_MAGIC, 10))
		return 0;
	memcpy(&h, head + SWAP_VERSION_OFFSET, sizeof(h));
	if (swab32(h.version) == 1) { /* made on a machine of the other byte order */
		h.version = 1;
		h.last_page = swab32(h.last_page);
		h.nr_badpages = swab32(h.nr_badpages);
	}
	if (h.version != 1 || !h.last_page || h.nr_badpages)
		return 0; /* a regular file may not have bad pages */
	return (uint64_t)h.last_page + 1 > file_pages ? 0 : (uint64_t)h.last_page + 1;
}

static int open_file(struct swap_info_struct *si, const char *path, uint64_t npages,
		     size_t page_size)
{
	unsigned char head[PAGE_SIZE];
	struct stat st;
	int err;

	si->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (si->fd < 0)
		return -errno;
	if (fstat(si->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || page_size != PAGE_SIZE)
		return -EINVAL;
	si->dev = st.st_dev;
	si->ino = st.st_ino;
	if ((uint64_t)st.st_size < PAGE_SIZE)
		return -EINVAL;
	err = full_pread(si->fd, head, sizeof(head), 0);
	if (err)
		return err;
	si->max = read_swap_header(head, (uint64_t)st.st_size >> PAGE_SHIFT);
	if (!si->max || (npages && npages > si->max))
		return -EINVAL;
	if (npages)
		si->max = npages;
	return si->max < 2 ? -EINVAL : 0;
}

/* By reference the bytes are where the pages' are, and a slot has the number of its buffer: 0, zeros. */
static int open_memory(struct pyksm *m, struct swap_info_struct *si, uint64_t npages)
{
	if (npages < 2)
		return -EINVAL;
	if (npages > MAX_SLOTS)
		return -ENOMEM;
	if (m->transfer == PYKSM_TRANSFER_REFERENCE) {
		si->buffers = host_map(m, npages * sizeof(*si->buffers));
		if (si->buffers && buffers_reserve(m, npages)) {
			host_unmap(m, si->buffers, npages * sizeof(*si->buffers));
			si->buffers = NULL;
		}
	} else {
		si->mem = host_map(m, npages * m->page_size);
	}
	if (!si->mem && !si->buffers)
		return -ENOMEM;
	if (si->mem && npages >= MANY_FRAMES)
		advise_huge_pages(si->mem, npages * m->page_size);
	si->max = npages;
	return 0;
}

/* Open the backend and set si->max. On failure the caller closes. */
int swap_backend_open(struct pyksm *m, struct swap_info_struct *si, const char *path,
		      uint64_t npages)
{
	si->fd = -1;
	si->mem = NULL;
#ifdef PYKSM_TASKS
	if (path && !m->arena->pools_only)
		return -EOPNOTSUPP; /* what is in a file cannot be put back */
#endif
	return path ? open_file(si, path, npages, m->page_size) : open_memory(m, si, npages);
}

static void close_buffers(struct pyksm *m, struct swap_info_struct *si)
{
	for (uint64_t i = 0; i < si->max; i++)
		if (si->buffers[i])
			share_buffer(m, &si->buffers[i], 0);
	host_unmap(m, si->buffers, si->max * sizeof(*si->buffers));
	buffers_unreserve(m, si->max);
}

void swap_backend_close(struct pyksm *m, struct swap_info_struct *si)
{
	if (si->mem)
		host_unmap(m, si->mem, si->max * m->page_size);
	if (si->buffers)
		close_buffers(m, si);
	if (si->fd >= 0)
		close(si->fd);
	si->mem = NULL;
	si->buffers = NULL;
	si->fd = -1;
}

/* zram's: zeros from now on. */
static void discard_slot(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	if (si->buffers)
		share_buffer(m, &si->buffers[offset], 0);
	else if (si->mem)
		memset(si->mem + offset * m->page_size, 0, m->page_size);
}

/*
 * The slot is free. By reference what it holds is let go, so that whoever has read it may write to it in
 * place; not where swapoff drops a page whose write has failed (until 5.1), as the next to use the slot
 * may then read what the last one left.
 */
void swap_slot_forget(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	if (has(m, FEAT_SWAP_SYNCHRONOUS)) {
		discard_slot(m, si, offset);
		return;
	}
	if (has(m, FEAT_SWAPOFF_PER_MM))
		share_buffer(m, &si->buffers[offset], 0);
}

/*
 * What a read once meant to a device in memory: the page is all that is needed now, so its copy goes. As long as the
 * slot had one reference, that was thought to do no harm.
 */
static void swap_slot_free_notify(struct pyksm *m, struct page *page)
{
	swp_entry_t entry = { page->private };
	struct swap_info_struct *si = &m->swap.info[swp_type(entry)];
	bool shared = bugged(m, BUG_SWAP_SLOT_FREED_WHILE_SHARED);

	if (!(shared || bugged(m, BUG_SWAP_CLONE_VM_ZEROED)) || !(page->flags & PG_swapcache) ||
	    !is_synchronous(m, si))
		return;
	if (!shared && __swap_count(si, swp_offset(entry)) != 1)
		return;
	page->flags |= PG_dirty;
	discard_slot(m, si, swp_offset(entry));
}

int pyksm_mkswap(const char *path, uint64_t npages, uint32_t page_size)
{
	unsigned char head[PAGE_SIZE] = { 0 };
	struct swap_header h = { 1, (uint32_t)(npages - 1), 0 };
	int fd, err;

	if (!path || npages < 2 || npages > UINT32_MAX || page_size != PAGE_SIZE)
		return -EINVAL;
	memcpy(head + SWAP_VERSION_OFFSET, &h, sizeof(h));
	memcpy(head + SWAP_MAGIC_OFFSET, SWAP_MAGIC, 10);
	/* 0600: what is swapped out is nobody else's to read. Blocks are made, swapon(8) wants no holes. */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = -posix_fallocate(fd, 0, (off_t)(npages * PAGE_SIZE));
	if (!err && ftruncate(fd, (off_t)(npages * PAGE_SIZE)))
		err = -errno;
	if (!err)
		err = full_pwrite(fd, head, sizeof(head), 0);
	if (close(fd) && !err)
		err = -errno;
	return err;
}

/* ---- I/O ---- */
static int backend_write(struct pyksm *m, const struct page *page)
{
	swp_entry_t entry = { page->private };
	struct swap_info_struct *si = &m->swap.info[swp_type(entry)];
	uint64_t pos = swp_offset(entry) * m->page_size;

	if (si->fd >= 0)
		return full_pwrite(si->fd, page_content(m, page), m->page_size, pos);
	if (si->buffers)
		share_buffer(m, &si->buffers[swp_offset(entry)], page->buffer);
	else
		memcpy(si->mem + pos, page_content(m, page), m->page_size);
	return 0;
}

static int backend_read(struct pyksm *m, struct page *page)
{
	swp_entry_t entry = { page->private };
	struct swap_info_struct *si = &m->swap.info[swp_type(entry)];
	uint64_t pos = swp_offset(entry) * m->page_size;

	assert(si->flags & SWP_USED); /* a device that is closed */
	if (si->mem)
		memcpy(page_content_overwrite(m, page), si->mem + pos, m->page_size);
	else if (si->buffers)
		page_share_buffer(m, page, si->buffers[swp_offset(entry)]);
	else
		return full_pread(si->fd, page_content_overwrite(m, page), m->page_size, pos);
	return 0;
}

/* What a slot is known to hold without a look: zeros, which have never been written (0ca0c24e3211, 6.12). */
static bool slot_holds_zeros(const struct pyksm *m, const struct page *page)
{
	swp_entry_t entry = { page->private };
	const struct swap_info_struct *si = &m->swap.info[swp_type(entry)];
	uint64_t offset = swp_offset(entry);

	return si->zeromap && si->zeromap[offset / 8] >> offset % 8 & 1;
}

/* For who only looks: the bytes that a slot holds, a file's read to scratch; NULL: they cannot be had. */
const unsigned char *slot_content(const struct pyksm *m, const struct swap_info_struct *si,
				  uint64_t offset, unsigned char *scratch)
{
	if (offset >= si->max)
		return NULL;
	if (si->zeromap && si->zeromap[offset / 8] >> offset % 8 & 1)
		return page_content(m, zero_page(m));
	if (si->mem)
		return si->mem + offset * m->page_size;
	if (si->buffers)
		return buffer_content(m, si->buffers[offset]);
	return full_pread(si->fd, scratch, m->page_size, offset * m->page_size) ? NULL : scratch;
}

void swap_zeromap_set(struct swap_info_struct *si, uint64_t offset, bool zeros)
{
	unsigned char *byte = si->zeromap ? &si->zeromap[offset / 8] : NULL;
	unsigned char bit = (unsigned char)(1 << offset % 8);

	if (byte)
		*byte = (unsigned char)(zeros ? *byte | bit : *byte & ~bit);
}

static bool is_zero_filled(const struct pyksm *m, const struct page *page)
{
	const unsigned char *content = page_content(m, page);

	return !content[0] && !memcmp(content, content + 1, m->page_size - 1);
}

static RARELY void end_failed_read(struct pyksm *m, struct page *page)
{
	clear_highpage(m, page);
	page->flags |= PG_error;
	page->flags &= ~(uint32_t)PG_uptodate;
	event(m, "Read-error on swap-device");
	unlock_page(m, page);
}

/*
 * The page is locked until the read has ended, and who asked for it waits for nothing else: others may find it
 * meanwhile. One that failed leaves the page not uptodate; 3.9's swapoff does not look.
 */
void swap_readpage(struct pyksm *m, struct page *page)
{
	COUNT(m, swap_readpage);
	if (slot_holds_zeros(m, page)) {
		clear_highpage(m, page);
		page->flags |= PG_uptodate;
		m->vm[SWPIN_ZERO]++;
		unlock_page(m, page);
		return;
	}
	m->vm[PSWPIN]++;
	sched_point(m, PT_SWAP_READ);
	if (should_fail(m, PYKSM_FAIL_READ) || backend_read(m, page)) {
		end_failed_read(m, page);
		return;
	}
	page->flags |= PG_uptodate;
	swap_slot_free_notify(m, page);
	unlock_page(m, page);
}

static void end_swap_bio_write(struct pyksm *m, struct page *page, bool failed)
{
	page->flags &= ~(uint32_t)PG_writeback;
	if (failed) {
		/* Dirty again, or the page would be dropped with nothing in its slot. */
		page->flags |= PG_error | PG_dirty;
		page->flags &= ~(uint32_t)PG_reclaim;
		event(m, "Write-error on swap-device");
		return;
	}
	if (!(page->flags & PG_reclaim))
		return;
	page->flags &= ~(uint32_t)PG_reclaim;
	if ((page->flags & (PG_lru | PG_memcg | PG_active | PG_dirty)) == (PG_lru | PG_memcg))
		list_move_tail(&page->lru, &m->node[page->nid].lru[LRU_INACTIVE_ANON]);
}

#define WRITE_FAILED ((uintptr_t)1)

/* Every write under way ends, in the order in which they began. */
void end_all_writeback(struct pyksm *m)
{
	struct write_block *block = m->writes, *next;

	m->writes = m->last_writes = NULL;
	for (; block; block = next) {
		for (size_t i = 0; i < block->nr; i++)
			end_swap_bio_write(m, (struct page *)(block->pages[i] & ~WRITE_FAILED),
					   block->pages[i] & WRITE_FAILED);
		next = block->next;
		kmem_free(m, POOL_BLOCK, block);
	}
}

/* Room for one more write, or NULL. */
static struct write_block *room_for_write(struct pyksm *m)
{
	struct write_block *last = m->last_writes, *block;

	if (last && last->nr < WRITES_IN_BLOCK)
		return last;
	block = pool_get(m, POOL_BLOCK);
	if (!block)
		return NULL;
	if (last)
		last->next = block;
	else
		m->writes = block;
	m->last_writes = block;
	return block;
}

static void __swap_writepage(struct pyksm *m, struct page *page)
{
	struct write_block *writes = room_for_write(m);
	bool failed;

	COUNT(m, __swap_writepage);
	m->vm[PSWPOUT]++;
	failed = should_fail(m, PYKSM_FAIL_WRITE) || backend_write(m, page);
	page->flags |= PG_writeback;
	unlock_page(m, page);
	if (!writes) { /* no host memory for the queue: it ends at once */
		end_swap_bio_write(m, page, failed);
		return;
	}
	writes->pages[writes->nr++] = (uintptr_t)page | (failed ? WRITE_FAILED : 0);
}

/* The page is locked on entry and unlocked on return; a slot nobody refers to is freed instead. */
void swap_writepage(struct pyksm *m, struct page *page)
{
	swp_entry_t entry = { page->private };
	struct swap_info_struct *si;

	COUNT(m, swap_writepage);
	if (try_to_free_swap(m, page)) {
		unlock_page(m, page);
		return;
	}
	si = &m->swap.info[swp_type(entry)];
	if (si->zeromap)
		swap_zeromap_set(si, swp_offset(entry), is_zero_filled(m, page));
	if (slot_holds_zeros(m, page)) {
		m->vm[SWPOUT_ZERO]++;
		unlock_page(m, page);
		return;
	}
	__swap_writepage(m, page);
}
