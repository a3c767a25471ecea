/* SPDX-License-Identifier: MIT */
/* The machine as embedders see it: arguments are checked here, and nowhere below. */
#include <sys/mman.h>

#include "internal.h"
#include "ksm_internal.h"

/* ---- life ---- */
static bool config_valid(const struct pyksm_config *c)
{
	uint32_t size = c->page_size;

	return c->nodes <= MAX_NODES &&
	       (!size || (size >= 8 && size <= PAGE_SIZE && !(size & (size - 1)))) &&
	       c->frames < UINT32_MAX && (!c->frames || c->frames >= c->nodes) &&
	       c->policy <= PYKSM_POLICY_MEMCPY && !(c->switches >> PYKSM_NR_SWITCHES) &&
	       c->agent_pages <= MAX_AGENT_PAGES && c->walk <= PYKSM_WALK_COMPUTED &&
	       c->transfer <= PYKSM_TRANSFER_REFERENCE && c->threads <= MAX_THREADS;
}

static struct pyksm *fail_new(struct pyksm *m, int *err, int code)
{
	pyksm_free(m);
	if (err)
		*err = code;
	return NULL;
}

struct pyksm *pyksm_new(const struct pyksm_config *config, int *err)
{
	struct pyksm *m;

	if (!config || !config_valid(config))
		return fail_new(NULL, err, -EINVAL);
	m = calloc(1, sizeof(*m));
	if (!m)
		return fail_new(NULL, err, -ENOMEM);
	m->nodes = config->nodes ? config->nodes : 1;
	m->page_size = config->page_size ? config->page_size : PAGE_SIZE;
	m->policy = config->policy;
	m->switches = config->switches;
	m->agent_pages = config->agent_pages;
	m->walk = config->walk;
	m->transfer = config->transfer;
	m->threads = config->threads ? config->threads : 1;
	if (features_of(config, &m->features))
		return fail_new(m, err, -EINVAL);
	m->max_swapfiles = nr_swap_types(m);
	m->next_pid = 1;
	INIT_LIST_HEAD(&m->anon_vmas);
	swap_init(m);
	if (page_alloc_init(m, config->frames ? config->frames : 65536))
		return fail_new(m, err, -ENOMEM);
	ksm_init(m);
	if (err)
		*err = 0;
	return m;
}

void pyksm_free(struct pyksm *m)
{
	if (!m)
		return;
	helper_exit(m);
	for (struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		free(mm->agent_pages);
	swap_exit(m);
	pools_release(m);
	if (m->mem_map)
		munmap(m->mem_map, (size_t)(m->max_pfn + 1) * sizeof(struct page));
	content_exit(m);
	content_ids_exit(m);
	for (size_t i = 0; i < m->nr_procs; i++)
		free(m->procs[i].pins);
	free(m->procs);
	free(m->events);
	free(m);
}

const char *pyksm_version(void)
{
	return PYKSM_VERSION;
}

/* ---- processes ---- */
struct process *find_process(struct pyksm *m, int pid)
{
	size_t low = 0, high = m->nr_procs;

	while (low < high) { /* pids only go up, and the order stays */
		size_t mid = low + (high - low) / 2;

		if (m->procs[mid].pid == pid)
			return &m->procs[mid];
		if (m->procs[mid].pid < pid)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* mmap_sem is held for reading by a fault that a hook has interrupted: a writer would wait for ever. */
static int find_for_write(struct pyksm *m, int pid, struct process **p)
{
	*p = m ? find_process(m, pid) : NULL;
	if (!m)
		return -EINVAL;
	if (!*p)
		return -ESRCH;
	return (*p)->mm->readers ? -EDEADLK : 0;
}

static int find_for_read(struct pyksm *m, int pid, struct process **p)
{
	*p = m ? find_process(m, pid) : NULL;
	return !m ? -EINVAL : *p ? 0 : -ESRCH;
}

static int check_range(uint64_t addr, uint64_t npages)
{
	if (addr & ~PAGE_MASK || !npages || npages > TASK_SIZE >> PAGE_SHIFT ||
	    addr > TASK_SIZE - (npages << PAGE_SHIFT))
		return -EINVAL;
	return 0;
}

static int add_process(struct pyksm *m, struct mm_struct *mm)
{
	struct process *procs = grow(m->procs, &m->max_procs, m->nr_procs + 1, sizeof(*procs));

	if (!procs)
		return -ENOMEM;
	m->procs = procs;
	memset(&procs[m->nr_procs], 0, sizeof(*procs));
	procs[m->nr_procs].pid = mm->pid;
	procs[m->nr_procs].mm = mm;
	m->nr_procs++;
	return mm->pid;
}

int pyksm_spawn(struct pyksm *m)
{
	struct mm_struct *mm;
	int pid;

	if (!m)
		return -EINVAL;
	mm = mm_alloc(m, m->next_pid);
	if (!mm)
		return -ENOMEM;
	pid = add_process(m, mm);
	if (pid < 0)
		mmput(m, mm);
	else
		m->next_pid++;
	mlock_spawn(m);
	lru_add_drain(m); /* an agent begins by locking its memory, which does that */
	return pid;
}

int pyksm_fork(struct pyksm *m, int pid)
{
	struct process *parent;
	struct mm_struct *mm;
	int err = find_for_write(m, pid, &parent);

	if (err)
		return err;
	mm = mm_alloc(m, m->next_pid);
	if (!mm)
		return -ENOMEM;
	err = dup_mmap(m, mm, parent->mm);
	if (!err)
		err = add_process(m, mm);
	if (err < 0)
		mmput(m, mm);
	else
		m->next_pid++;
	lru_add_drain(m);
	return err;
}

int pyksm_exit(struct pyksm *m, int pid)
{
	struct process *p, gone;
	int err = find_for_write(m, pid, &p);

	if (err)
		return err;
	gone = *p;
	m->nr_procs--;
	memmove(p, p + 1, (size_t)(&m->procs[m->nr_procs] - p) * sizeof(*p));
	mmput(m, gone.mm);
	for (size_t i = 0; i < gone.nr_pins; i++) /* memory goes first, then the pipes */
		put_page(m, pfn_to_page(m, gone.pins[i].pfn));
	free(gone.pins);
	return 0;
}

int pyksm_process_count(struct pyksm *m)
{
	return m ? (int)m->nr_procs : -EINVAL;
}

int pyksm_process_at(struct pyksm *m, int index)
{
	return m && index >= 0 && (size_t)index < m->nr_procs ? m->procs[index].pid : -EINVAL;
}

/* ---- address space ---- */
int64_t pyksm_mmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	if (err)
		return err;
	if (addr & ~PAGE_MASK || !npages || node < -1 || node >= (int)m->nodes)
		return -EINVAL;
	if (npages > TASK_SIZE >> PAGE_SHIFT)
		return -ENOMEM;
	return do_mmap(m, p->mm, addr, npages << PAGE_SHIFT, node);
}

int pyksm_munmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	return err ? err : do_munmap(m, p->mm, addr, npages << PAGE_SHIFT);
}

int pyksm_mprotect(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int prot)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	if (!err && prot & ~(PYKSM_PROT_READ | PYKSM_PROT_WRITE))
		err = -EINVAL;
	if (err)
		return err;
	return do_mprotect(m, p->mm, addr, npages << PAGE_SHIFT,
			   (prot & PYKSM_PROT_READ ? VM_READ : 0) |
				   (prot & PYKSM_PROT_WRITE ? VM_WRITE : 0));
}

int pyksm_mremap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, uint64_t new_addr)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	if (!err)
		err = check_range(new_addr, npages);
	return err ? err : do_mremap(m, p->mm, addr, npages << PAGE_SHIFT, new_addr);
}

int pyksm_madvise(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int advice)
{
	struct process *p;
	bool write = advice == PYKSM_MADV_MERGEABLE || advice == PYKSM_MADV_UNMERGEABLE;
	int err = write ? find_for_write(m, pid, &p) : find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	return err ? err : do_madvise(m, p->mm, addr, npages << PAGE_SHIFT, advice);
}

int pyksm_clear_refs(struct pyksm *m, int pid, int what)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	return err ? err : do_clear_refs(m, p->mm, what);
}

/* ---- access ---- */
typedef void (*access_fn)(struct pyksm *m, struct page *page, uint64_t i, void *arg);

/*
 * One page after another. Looked up each time where a hook in the last fault may have let the process exit;
 * else only where the vma ends.
 */
static int access_next(struct pyksm *m, int pid, struct vm_area_struct **vma, uint64_t addr,
		       bool write, struct page **page)
{
	struct process *p;

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
	struct buffer b = { .out = data };
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_pages(m, pid, addr, npages, false, errs, copy_out, &b);
}

int pyksm_touch(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int write, int32_t *errs)
{
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
		err = p ? access_page(m, p->mm, addr & PAGE_MASK, in != NULL, &page) : -ESRCH;
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
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_bytes(m, pid, addr, NULL, data, len);
}

int pyksm_read(struct pyksm *m, int pid, uint64_t addr, void *data, size_t len)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !data)
		return err ? err : -EINVAL;
	return access_bytes(m, pid, addr, data, NULL, len);
}

/* ---- pins ---- */
static int pin_page(struct pyksm *m, int pid, uint64_t addr)
{
	struct process *p = find_process(m, pid);
	struct page *page;
	struct pin *pins;
	int err = p ? access_page(m, p->mm, addr, false, &page) : -ESRCH;

	if (err)
		return err;
	p = find_process(m, pid);
	if (!p)
		return -ESRCH;
	pins = grow(p->pins, &p->max_pins, p->nr_pins + 1, sizeof(*pins));
	if (!pins)
		return -ENOMEM;
	p->pins = pins;
	pins[p->nr_pins++] = (struct pin){ addr >> PAGE_SHIFT, page_to_pfn(m, page) };
	get_page(page);
	return 0;
}

/* The latest pin of that page. */
static int unpin_page(struct pyksm *m, struct process *p, uint64_t addr)
{
	for (size_t i = p->nr_pins; i-- > 0;) {
		uint64_t pfn = p->pins[i].pfn;

		if (p->pins[i].vpn != addr >> PAGE_SHIFT)
			continue;
		p->nr_pins--;
		memmove(&p->pins[i], &p->pins[i + 1], (p->nr_pins - i) * sizeof(*p->pins));
		put_page(m, pfn_to_page(m, pfn));
		return 0;
	}
	return -EINVAL;
}

#define PINS_MAX (1u << 28) /* of one call: a terabyte of zero pages is a wrong number */

/* All or nothing: as vmsplice() would leave no half of a request in the pipe here. */
int pyksm_pin(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);
	uint64_t i;

	if (!err)
		err = check_range(addr, npages);
	if (!err && npages > PINS_MAX)
		err = -ENOMEM;
	for (i = 0; !err && i < npages; i++)
		err = pin_page(m, pid, addr + (i << PAGE_SHIFT));
	if (!err || !i)
		return err;
	p = find_process(m, pid);
	for (i--; p && i-- > 0;)
		unpin_page(m, p, addr + (i << PAGE_SHIFT));
	return err;
}

/* latest[i]: 1 + the index of the latest pin of the range's page i, 0 where it has none. */
static size_t *latest_pins(const struct process *p, uint64_t addr, uint64_t npages)
{
	size_t *latest = calloc(npages, sizeof(*latest));

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
	struct process *p;
	size_t *latest, kept = 0;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	if (err || npages > p->nr_pins)
		return err ? err : -EINVAL;
	latest = latest_pins(p, addr, npages);
	if (!latest)
		return -ENOMEM;
	for (uint64_t i = 0; i < npages; i++)
		if (!latest[i])
			err = -EINVAL;
	for (uint64_t i = 0; !err && i < npages; i++) {
		struct pin *pin = &p->pins[latest[i] - 1];

		put_page(m, pfn_to_page(m, pin->pfn));
		pin->pfn = UINT64_MAX;
	}
	free(latest);
	for (size_t i = 0; !err && i < p->nr_pins; i++)
		if (p->pins[i].pfn != UINT64_MAX)
			p->pins[kept++] = p->pins[i];
	if (!err)
		p->nr_pins = kept;
	return err;
}

int pyksm_migrate(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node,
		  int32_t *status)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, npages);
	if (err)
		return err;
	if (node < 0 || node >= (int)m->nodes) {
		for (uint64_t i = 0; status && i < npages; i++)
			status[i] = -ENOENT;
		return -ENODEV;
	}
	return do_move_pages(m, p->mm, addr, npages, node, status);
}

/* ---- swap ---- */
int pyksm_swapon(struct pyksm *m, uint64_t npages, int priority, const char *path)
{
	return m ? sys_swapon(m, npages, priority, path) : -EINVAL;
}

int pyksm_swapoff(struct pyksm *m, int type)
{
	return m ? sys_swapoff(m, type) : -EINVAL;
}

int pyksm_area_at(struct pyksm *m, int index, struct pyksm_area *ret)
{
	if (!m || !ret || index < 0)
		return -EINVAL;
	for (int type = 0; type < MAX_SWAPFILES; type++) {
		const struct swap_info_struct *si = &m->swap.info[type];

		if (!(si->flags & SWP_USED) || index--)
			continue;
		*ret = (struct pyksm_area){ type, si->prio, si->pages, si->inuse_pages, si->max };
		return 0;
	}
	return -ENOENT;
}

static const struct swap_info_struct *area_of_slot(const struct pyksm *m, int type, uint64_t offset)
{
	if (!m || type < 0 || type >= MAX_SWAPFILES || !(m->swap.info[type].flags & SWP_USED) ||
	    offset >= m->swap.info[type].max)
		return NULL;
	return &m->swap.info[type];
}

int pyksm_swap_count(struct pyksm *m, int type, uint64_t offset)
{
	const struct swap_info_struct *si = area_of_slot(m, type, offset);

	return si ? (int)swp_swapcount(si, offset) : -EINVAL;
}

int pyksm_swap_map(struct pyksm *m, int type, uint64_t offset)
{
	const struct swap_info_struct *si = area_of_slot(m, type, offset);

	return si ? si->swap_map[offset] : -EINVAL;
}

int64_t pyksm_swapcached(struct pyksm *m)
{
	return m ? (int64_t)m->swap.nr_cached : -EINVAL;
}

int pyksm_swapout(struct pyksm *m, const struct pyksm_range *ranges, int n)
{
	struct process *p;

	if (!m || n < 0 || (n && !ranges))
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		int err = find_for_read(m, ranges[i].pid, &p);

		if (!err)
			err = check_range(ranges[i].addr, ranges[i].npages);
		if (err)
			return err;
	}
	swapout(m, ranges, n);
	return 0;
}

/* ---- KSM ---- */
int pyksm_ksm_write(struct pyksm *m, const char *key, int64_t value)
{
	return m && key ? ksm_store(m, key, value) : -EINVAL;
}

int pyksm_ksm_read(struct pyksm *m, const char *key, int64_t *ret)
{
	return m && key && ret ? ksm_show(m, key, ret) : -EINVAL;
}

const char *pyksm_ksm_count_name(struct pyksm *m, int index)
{
	return m && index >= 0 ? ksm_count_name(m, index) : NULL;
}

int pyksm_ksm_stat(struct pyksm *m, int pid, const char *key, int64_t *ret)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !key || !ret)
		return err ? err : -EINVAL;
	return ksm_stat_show(m, p->mm, key, ret);
}

int pyksm_prctl_memory_merge(struct pyksm *m, int pid, int on)
{
	struct process *p;
	int err = find_for_write(m, pid, &p);

	if (!err && !has(m, FEAT_MERGE_ANY))
		err = -EINVAL;
	if (err)
		return err;
	return on ? ksm_enable_merge_any(m, p->mm) : ksm_disable_merge_any(m, p->mm);
}

int pyksm_memory_merge(struct pyksm *m, int pid)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err && !has(m, FEAT_MERGE_ANY))
		err = -EINVAL;
	return err ? err : p->mm->merge_any;
}

int pyksm_ksm_scan(struct pyksm *m, uint32_t n)
{
	return m && n <= INT32_MAX ? ksm_full_scans(m, n) : -EINVAL;
}

int pyksm_ksm_do_scan(struct pyksm *m, uint32_t npages)
{
	return m ? ksm_scan_batch(m, npages) : -EINVAL;
}

int pyksm_sleep(struct pyksm *m, int64_t ms)
{
	if (!m || ms < 0 || ms > INT32_MAX)
		return -EINVAL;
	m->clock += (uint64_t)ms;
	return 0;
}

/* ---- observation ---- */
static void observe_present(struct pyksm *m, pte_t pte, struct pyksm_page *ret)
{
	const struct page *page = pfn_to_page(m, pte_pfn(pte));

	ret->state = pte & _PAGE_SPECIAL ? 'Z' : 'P';
	ret->pfn = (int64_t)pte_pfn(pte);
	ret->node = page->nid;
	ret->ksm = PageKsm(page);
	ret->swapcache = !!(page->flags & PG_swapcache);
	ret->mapcount = page_mapcount(page);
}

static void observe_page(struct pyksm *m, const struct mm_struct *mm, uint64_t addr,
			 struct pyksm_page *ret)
{
	const struct vm_area_struct *vma = find_vma(mm, addr);
	pte_t *pte = pte_lookup(mm, addr);

	*ret = (struct pyksm_page){
		.pfn = -1, .swp_type = -1, .node = -1, .swp_offset = -1, .mapcount = -1
	};
	ret->state = vma && vma->vm_start <= addr ? '.' : '-';
	if (ret->state == '-' || !pte || pte_none(*pte))
		return;
	ret->pte = *pte;
	if (pte_present(*pte)) {
		observe_present(m, *pte, ret);
	} else {
		ret->state = 'S';
		if (non_swap_entry(m, pte_to_swp_entry(m, *pte)))
			return; /* of no area: a page that could not be read */
		ret->swp_type = (int32_t)swp_type(pte_to_swp_entry(m, *pte));
		ret->swp_offset = (int64_t)swp_offset(pte_to_swp_entry(m, *pte));
	}
}

int pyksm_pagemap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, struct pyksm_page *ret)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = ret ? check_range(addr, npages) : -EINVAL;
	for (uint64_t i = 0; !err && i < npages; i++)
		observe_page(m, p->mm, addr + (i << PAGE_SHIFT), &ret[i]);
	return err;
}

int pyksm_rmap_walk(struct pyksm *m, int pid, uint64_t addr)
{
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, 1);
	return err ? err : count_rmap(m, p->mm, addr);
}

int pyksm_vma_at(struct pyksm *m, int pid, int index, struct pyksm_vma *ret)
{
	struct process *p;
	const struct vm_area_struct *vma;
	const struct list_head *pos;
	int err = find_for_read(m, pid, &p);

	if (err || !ret || index < 0)
		return err ? err : -EINVAL;
	for (vma = p->mm->mmap; vma && index; vma = vma->vm_next)
		index--;
	if (!vma)
		return -ENOENT;
	*ret = (struct pyksm_vma){ vma->vm_start, vma->vm_end, vma->vm_pgoff, 0, vma->node, 0, 0 };
	ret->prot = (vma->vm_flags & VM_READ ? PYKSM_PROT_READ : 0) |
		    (vma->vm_flags & VM_WRITE ? PYKSM_PROT_WRITE : 0);
	ret->mergeable = !!(vma->vm_flags & VM_MERGEABLE);
	list_for_each (pos, &vma->anon_vma_chain)
		ret->chain++;
	return 0;
}

int64_t pyksm_free_frames(struct pyksm *m, int node)
{
	int64_t n = 0;

	if (!m || node < -1 || node >= (int)m->nodes)
		return -EINVAL;
	for (int nid = 0; nid < (int)m->nodes; nid++)
		n += node < 0 || node == nid ? m->node[nid].nr_free : 0;
	return n;
}

int64_t pyksm_peak_frames(struct pyksm *m, int reset)
{
	int64_t peak;

	if (!m)
		return -EINVAL;
	peak = m->peak;
	if (reset)
		m->peak = m->in_use;
	return peak;
}

const void *pyksm_frame(struct pyksm *m, int64_t pfn)
{
	if (!m || pfn < 0 || (uint64_t)pfn > m->max_pfn)
		return NULL;
	return page_content(m, pfn_to_page(m, (uint64_t)pfn));
}

const uint64_t *pyksm_pte_table(struct pyksm *m, int pid, uint64_t addr)
{
	struct process *p;

	if (find_for_read(m, pid, &p) || addr >= TASK_SIZE)
		return NULL;
	return pte_lookup(p->mm, addr & ~(PMD_SIZE - 1));
}

/* ---- counters, events, census, orders ---- */
#define COUNTER_NAME(name) #name,
static const char *const counter_names[] = { PYKSM_COUNTERS(COUNTER_NAME) };
static const char *const vmstat_names[] = { "pswpin",	      "pswpout", "pgmigrate_success",
					    "ksm_swpin_copy", "cow_ksm", "swpin_zero",
					    "swpout_zero" };
static const char *const point_names[] = {
	"try_to_unuse:next_entry",
	"try_to_unuse:lock_page",
	"do_swap_page:lock_page",
	"unmerge_and_remove_all_rmap_items:begin",
	"unmerge_and_remove_all_rmap_items:next_mm",
	"remove_all_stable_nodes:begin",
	"ksm_do_scan:next_item",
	"shrink_zone:begin",
};
static const char *const switch_names[] = {
	"unuse_pte-no-copy",
	"no-unmerge-check",
	"unuse_vma-brute-force",
	"rmap-by-address",
};

static const char *name_at(const char *const *names, int n, int index)
{
	return index >= 0 && index < n ? names[index] : NULL;
}

int pyksm_nr_counters(void)
{
	return NR_COUNTERS;
}

const char *pyksm_counter_name(int index)
{
	return name_at(counter_names, NR_COUNTERS, index);
}

uint64_t pyksm_counter(struct pyksm *m, int index)
{
	return m && index >= 0 && index < NR_COUNTERS ? m->count[index] : 0;
}

int pyksm_nr_vmstat(void)
{
	return NR_VMSTAT;
}

const char *pyksm_vmstat_name(int index)
{
	return name_at(vmstat_names, NR_VMSTAT, index);
}

uint64_t pyksm_vmstat(struct pyksm *m, int index)
{
	return m && index >= 0 && index < NR_VMSTAT ? m->vm[index] : 0;
}

const char *pyksm_next_event(struct pyksm *m)
{
	if (!m || m->first_event == m->nr_events)
		return NULL;
	if (m->first_event + 1 == m->nr_events) {
		const char *last = m->events[m->first_event];

		m->first_event = m->nr_events = 0;
		return last;
	}
	return m->events[m->first_event++];
}

int pyksm_census(struct pyksm *m, int strict, char *buf, size_t len)
{
	return m && (buf || !len) ? census(m, strict, buf, len) : -EINVAL;
}

int pyksm_inject(struct pyksm *m, int kind, uint64_t nth)
{
	if (!m || kind < 0 || kind >= PYKSM_NR_FAULT_KINDS)
		return -EINVAL;
	m->inject[kind] = nth;
	return 0;
}

int pyksm_set_hook(struct pyksm *m, pyksm_hook hook, void *arg)
{
	if (!m)
		return -EINVAL;
	m->hook = hook;
	m->hook_arg = arg;
	return 0;
}

int pyksm_nr_points(void)
{
	return NR_POINTS;
}

const char *pyksm_point_name(int index)
{
	return name_at(point_names, NR_POINTS, index);
}

const char *pyksm_switch_name(int index)
{
	return name_at(switch_names, PYKSM_NR_SWITCHES, index);
}
