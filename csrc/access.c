/* SPDX-License-Identifier: MIT */
/* What processes do with their memory, and pins, as embedders see it. */
#include "face.h"

/* ---- access ---- */
typedef void (*access_fn)(struct pyksm *m, struct page *page, uint64_t i, void *arg);

/* The process has exited while this task of it was at work: the task is the last to leave. */
static int killed(struct pyksm *m, struct mm_struct *mm)
{
	mmput(m, mm);
	return -ESRCH;
}

/* What it does with the page it does before the next point. */
static int task_access(struct pyksm *m, int pid, uint64_t addr, bool write, struct page **page)
{
	struct process *p = find_process(m, pid);
	struct mm_struct *mm = p ? p->mm : NULL;
	int err;

	if (!mm)
		return -ESRCH;
	mmget(m, mm);
	err = user_access(m, mm, addr, write, page);
	/* Not the last user, or the page would be gone; if it is, who exits meanwhile has seen to the rest. */
	if (mm->mm_users > 1)
		mm->mm_users--;
	else
		err = killed(m, mm);
	return err;
}

/*
 * One page after another. Looked up each time where a hook in the last fault may have let the process exit;
 * else only where the vma ends.
 */
static int access_next(struct pyksm *m, int pid, struct vm_area_struct **vma, uint64_t addr,
		       bool write, struct page **page)
{
	struct process *p;

	if (in_task(m))
		return task_access(m, pid, addr, write, page);
	if (!*vma || addr >= (*vma)->vm_end || may_be_disturbed(m)) {
		p = find_process(m, pid);
		*vma = p ? find_vma(p->mm, addr) : NULL;
		if (!*vma || (*vma)->vm_start > addr) {
			*vma = NULL;
			return p ? -EFAULT : -ESRCH;
		}
	}
	return access_vma(m, *vma, addr, write, page);
}

static int access_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, bool write,
			int32_t *errs, access_fn fn, void *arg)
{
	struct vm_area_struct *vma = NULL;
	int first = check_range(addr, npages);

	if (first)
		return first;
	for (uint64_t i = 0; i < npages; i++) {
		struct page *page;
		int err = access_next(m, pid, &vma, addr + (i << PAGE_SHIFT), write, &page);

		if (!err)
			fn(m, page, i, arg);
		if (errs)
			errs[i] = err;
		if (err && !first)
			first = err;
	}
	return first;
}

struct buffer {
	const unsigned char *in;
	unsigned char *out;
};

static void copy_in(struct pyksm *m, struct page *page, uint64_t i, void *arg)
{
	memcpy(page_content_overwrite(m, page), ((struct buffer *)arg)->in + i * m->page_size,
	       m->page_size);
}

static void copy_out(struct pyksm *m, struct page *page, uint64_t i, void *arg)
{
	memcpy(((struct buffer *)arg)->out + i * m->page_size, page_content(m, page), m->page_size);
}

static void only_touch(struct pyksm *m, struct page *page, uint64_t i, void *arg)
{
	(void)m, (void)page, (void)i, (void)arg;
}

int pyksm_write_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, const void *data,
		      int32_t *errs)
{
	ENTER(m);
	struct buffer b = { .in = data };
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_pages(m, pid, addr, npages, true, errs, copy_in, &b);
}

int pyksm_read_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, void *data,
		     int32_t *errs)
{
	ENTER(m);
	struct buffer b = { .out = data };
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_pages(m, pid, addr, npages, false, errs, copy_out, &b);
}

int pyksm_touch(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int write, int32_t *errs)
{
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	return err ? err : access_pages(m, pid, addr, npages, write, errs, only_touch, NULL);
}

/* A run of bytes, page by page; a page holds page_size of them. */
static int access_bytes(struct pyksm *m, int pid, uint64_t addr, unsigned char *out,
			const unsigned char *in, size_t len)
{
	if (addr >= TASK_SIZE || len > TASK_SIZE - addr)
		return -EINVAL;
	while (len) {
		struct process *p = find_process(m, pid);
		size_t offset = addr & ~PAGE_MASK, n = m->page_size - offset;
		struct page *page;
		int err;

		if (offset >= m->page_size)
			return -EINVAL;
		if (n > len)
			n = len;
		if (in_task(m))
			err = task_access(m, pid, addr & PAGE_MASK, in != NULL, &page);
		else
			err = p ? access_page(m, p->mm, addr & PAGE_MASK, in != NULL, &page)
				: -ESRCH;
		if (err)
			return err;
		if (in) {
			memcpy(page_content_write(m, page) + offset, in, n);
			in += n;
		} else {
			memcpy(out, page_content(m, page) + offset, n);
			out += n;
		}
		len -= n;
		addr = (addr & PAGE_MASK) + PAGE_SIZE;
	}
	return 0;
}

int pyksm_write(struct pyksm *m, int pid, uint64_t addr, const void *data, size_t len)
{
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_bytes(m, pid, addr, NULL, data, len);
}

int pyksm_read(struct pyksm *m, int pid, uint64_t addr, void *data, size_t len)
{
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_bytes(m, pid, addr, data, NULL, len);
}

/* ---- pins ---- */
void put_pin(struct pyksm *m, const struct pin *pin)
{
	struct page *page = pfn_to_page(m, pin->pfn);

	page->_count -= (int32_t)(pin->refs - 1);
	put_page(m, page);
}

/* What they were taken of is there no more. Only the census wants to know. */
void forget_pins(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	struct process *p = find_process(m, pid);

	for (size_t i = 0; p && i < p->nr_pins; i++)
		if (p->pins[i].vpn - (addr >> PAGE_SHIFT) < npages)
			p->pins[i].gone = true;
}

/* So many references that the count might run over: there is no memory for that. */
static bool too_many_references(const struct page *page)
{
	return page_count(page) > INT32_MAX - 2 * GUP_PIN_COUNTING_BIAS;
}

static int pin_page(struct pyksm *m, int pid, uint64_t addr, bool write)
{
	struct process *p = find_process(m, pid);
	uint32_t refs = write && has(m, FEAT_PINS_COUNTED) ? GUP_PIN_COUNTING_BIAS : 1;
	struct page *page;
	struct pin *pins;
	int err;

	err = p ? access_page(m, p->mm, addr, write, &page) : -ESRCH;
	if (err)
		return err;
	p = find_process(m, pid);
	if (!p)
		return -ESRCH;
	if (too_many_references(page))
		return -ENOMEM;
	pins = grow(m, p->pins, &p->max_pins, p->nr_pins + 1, sizeof(*pins));
	if (!pins)
		return -ENOMEM;
	p->pins = pins;
	pins[p->nr_pins++] =
		(struct pin){ addr >> PAGE_SHIFT, page_to_pfn(m, page), refs, write, false };
	page->_count += (int32_t)refs;
	p->mm->has_pinned |= write;
	return 0;
}

/* The latest pin of that page. */
static int unpin_page(struct pyksm *m, struct process *p, uint64_t addr)
{
	for (size_t i = p->nr_pins; i-- > 0;) {
		struct pin pin = p->pins[i];

		if (pin.vpn != addr >> PAGE_SHIFT)
			continue;
		p->nr_pins--;
		memmove(&p->pins[i], &p->pins[i + 1], (p->nr_pins - i) * sizeof(*p->pins));
		put_pin(m, &pin);
		return 0;
	}
	return -EINVAL;
}

#define PINS_MAX (1u << 28) /* of one call: a terabyte of zero pages is a wrong number */

/* All or nothing: as vmsplice() would leave no half of a request in the pipe here. */
/* get_user_pages() holds mmap_sem: a fork under way could not tell what is pinned from what is not yet. */
static int pin_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, bool write)
{
	struct mm_struct *mm;
	struct process *p;
	int err = enter_mm(m, pid, false, &mm);
	uint64_t i;

	if (err)
		return err;
	err = check_range(addr, npages);
	if (!err && npages > PINS_MAX)
		err = -ENOMEM;
	for (i = 0; !err && i < npages; i++)
		err = pin_page(m, pid, addr + (i << PAGE_SHIFT), write);
	leave_mm(m, mm, 0);
	if (!err || !i)
		return err;
	p = find_process(m, pid);
	for (i--; p && i-- > 0;)
		unpin_page(m, p, addr + (i << PAGE_SHIFT));
	return err;
}

int pyksm_pin(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	return pin_pages(m, pid, addr, npages, false);
}

int pyksm_pin_user_pages(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	return pin_pages(m, pid, addr, npages, true);
}

/* latest[i]: 1 + the index of the latest pin of the range's page i, 0 where it has none. */
static size_t *latest_pins(struct pyksm *m, const struct process *p, uint64_t addr, uint64_t npages)
{
	size_t *latest = host_temp(m, npages, sizeof(*latest));

	for (size_t i = 0; latest && i < p->nr_pins; i++) {
		uint64_t at = p->pins[i].vpn - (addr >> PAGE_SHIFT);

		if (at < npages)
			latest[at] = i + 1;
	}
	return latest;
}

/* In time linear in the pins: whoever pins a gigabyte wants to get rid of it again. */
int pyksm_unpin(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	struct process *p;
	size_t *latest, kept = 0;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	if (err || npages > p->nr_pins)
		return err ? err : -EINVAL;
	latest = latest_pins(m, p, addr, npages);
	if (!latest)
		return -ENOMEM;
	for (uint64_t i = 0; i < npages; i++)
		if (!latest[i])
			err = -EINVAL;
	for (uint64_t i = 0; !err && i < npages; i++) {
		struct pin *pin = &p->pins[latest[i] - 1];

		put_pin(m, pin);
		pin->pfn = UINT64_MAX;
	}
	host_free(m, latest);
	for (size_t i = 0; !err && i < p->nr_pins; i++)
		if (p->pins[i].pfn != UINT64_MAX)
			p->pins[kept++] = p->pins[i];
	if (!err)
		p->nr_pins = kept;
	return err;
}
