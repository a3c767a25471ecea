/* SPDX-License-Identifier: MIT */
/* The machine as embedders see it: its life, its processes, what is asked of swap and KSM. */
#include "face.h"
#include "ksm_internal.h"
#ifdef PYKSM_TASKS
#include <unistd.h>

#include "arena.h"
#endif

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

static struct pyksm *machine_init(struct pyksm *m, const struct pyksm_config *config, int *err)
{
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
#ifdef PYKSM_TASKS
	m->bugs = config->bugs;
#endif
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

#ifndef PYKSM_TASKS
struct pyksm *pyksm_new(const struct pyksm_config *config, int *err)
{
	if (!config || !config_valid(config))
		return fail_new(NULL, err, -EINVAL);
	if (config->bugs.word[0] | config->bugs.word[1])
		return fail_new(NULL, err, -EOPNOTSUPP);
	return machine_init(calloc(1, sizeof(struct pyksm)), config, err);
}

void pyksm_free(struct pyksm *m)
{
	if (!m)
		return;
	helper_exit(m);
	for (struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		host_free(m, mm->agent_pages);
	swap_exit(m);
	pools_release(m);
	if (m->mem_map)
		host_unmap(m, m->mem_map, (size_t)(m->max_pfn + 1) * sizeof(struct page));
	content_exit(m);
	content_ids_exit(m);
	for (size_t i = 0; i < m->nr_procs; i++)
		host_free(m, m->procs[i].pins);
	host_free(m, m->procs);
	host_free(m, m->events);
	free(m);
}
#else
struct pyksm *pyksm_new(const struct pyksm_config *config, int *err)
{
	if (!config || !config_valid(config))
		return fail_new(NULL, err, -EINVAL);
	return machine_init(host_new(), config, err);
}

struct pyksm *arena_machine(struct arena *a, const struct pyksm_config *config, int *err)
{
	struct pyksm *m;

	if (!a || a->machine_bytes || !config || !config_valid(config))
		return fail_new(NULL, err, -EINVAL);
	m = host_new_in(a, config->page_size);
	trace_enter(m);
	m = machine_init(m, config, err);
	trace_enter(NULL);
	if (m)
		m->threads = 1; /* what another one does is not seen */
	return m;
}

/* It may have died of anything: its own structures are not looked at. */
void pyksm_free(struct pyksm *m)
{
	if (!m)
		return;
	trace_enter(NULL);
	helper_exit(m);
	for (int type = 0; type < MAX_SWAPFILES; type++)
		if (m->swap.info[type].flags & SWP_USED && m->swap.info[type].fd >= 0)
			close(m->swap.info[type].fd);
	host_delete(m);
}
#endif

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

/* mmap_sem is held for reading by a fault that a hook has interrupted: a writer would wait for ever. (A task waits.) */
int find_for_write(struct pyksm *m, int pid, struct process **p)
{
	*p = m ? find_process(m, pid) : NULL;
	if (!m)
		return -EINVAL;
	if (!*p)
		return -ESRCH;
	return (*p)->mm->readers && !in_task(m) ? -EDEADLK : 0;
}

int find_for_read(struct pyksm *m, int pid, struct process **p)
{
	*p = m ? find_process(m, pid) : NULL;
	return !m ? -EINVAL : *p ? 0 : -ESRCH;
}

/*
 * The address space of a process for an operation of its own, or on it: with a user more, so that an exit beside it
 * is not the last, and with mmap_sem. Both for tasks alone.
 */
int enter_mm(struct pyksm *m, int pid, bool write, struct mm_struct **mm)
{
	struct process *p;
	int err = write ? find_for_write(m, pid, &p) : find_for_read(m, pid, &p);

	if (err)
		return err;
	*mm = p->mm;
	mmget(m, *mm);
	if (write)
		down_write(m, *mm, PT_OP_MMAP_SEM);
	else
		down_read(m, *mm, PT_OP_MMAP_SEM);
	(*mm)->writer = write;
	return 0;
}

/* err, for the caller to return. */
int leave_mm(struct pyksm *m, struct mm_struct *mm, int err)
{
	mm->writer = false;
	sched_unlock(m, mmap_sem(mm));
	mmput_task(m, mm);
	return err;
}

int check_range(uint64_t addr, uint64_t npages)
{
	if (addr & ~PAGE_MASK || !npages || npages > TASK_SIZE >> PAGE_SHIFT ||
	    addr > TASK_SIZE - (npages << PAGE_SHIFT))
		return -EINVAL;
	return 0;
}

static int add_process(struct pyksm *m, struct mm_struct *mm)
{
	struct process *procs = grow(m, m->procs, &m->max_procs, m->nr_procs + 1, sizeof(*procs));
	size_t at;

	if (!procs)
		return -ENOMEM;
	m->procs = procs;
	/* By pid: of two forks at a time the second may be done first. */
	for (at = m->nr_procs; at && procs[at - 1].pid > mm->pid; at--)
		procs[at] = procs[at - 1];
	procs[at] = (struct process){ .pid = mm->pid, .mm = mm };
	m->nr_procs++;
	return mm->pid;
}

/* The id of a process to be; a task keeps it even if there will be none, or another could get it too. */
static int take_pid(struct pyksm *m)
{
	return in_task(m) ? m->next_pid++ : m->next_pid;
}

static void pid_is_taken(struct pyksm *m)
{
	if (!in_task(m))
		m->next_pid++;
}

int pyksm_spawn(struct pyksm *m)
{
	ENTER(m);
	struct mm_struct *mm;
	int pid;

	if (!m)
		return -EINVAL;
	mm = mm_alloc(m, take_pid(m));
	if (!mm)
		return -ENOMEM;
	pid = add_process(m, mm);
	if (pid < 0)
		mmput(m, mm);
	else
		pid_is_taken(m);
	mlock_spawn(m);
	if (pid > 0)
		lru_add_drain(m); /* an agent begins by locking its memory, which does that */
	return pid;
}

static int fork_into(struct pyksm *m, struct mm_struct *mm, struct mm_struct *parent)
{
	int err = dup_mmap(m, mm, parent);

	if (!err)
		err = add_process(m, mm);
	leave_mm(m, parent, 0);
	if (err < 0)
		fork_failed(m, mm);
	else
		pid_is_taken(m);
	return err;
}

int pyksm_fork(struct pyksm *m, int pid)
{
	ENTER(m);
	struct mm_struct *parent, *mm;
	int err = enter_mm(m, pid, true, &parent);

	if (err)
		return err;
	mm = mm_alloc(m, take_pid(m));
	if (!mm)
		return leave_mm(m, parent, -ENOMEM);
	err = fork_into(m, mm, parent);
	if (err > 0)
		lru_add_drain(m);
	return err;
}

int pyksm_exit(struct pyksm *m, int pid)
{
	ENTER(m);
	struct process *p, gone;
	int err = find_for_write(m, pid, &p);

	if (err)
		return err;
	gone = *p;
	m->nr_procs--;
	memmove(p, p + 1, (size_t)(&m->procs[m->nr_procs] - p) * sizeof(*p));
	mmput(m, gone.mm);
	for (size_t i = 0; i < gone.nr_pins; i++) /* memory goes first, then the pipes */
		put_pin(m, &gone.pins[i]);
	host_free(m, gone.pins);
	return 0;
}

int pyksm_process_count(struct pyksm *m)
{
	ENTER(m);
	return m ? (int)m->nr_procs : -EINVAL;
}

int pyksm_process_at(struct pyksm *m, int index)
{
	ENTER(m);
	return m && index >= 0 && (size_t)index < m->nr_procs ? m->procs[index].pid : -EINVAL;
}

/* ---- address space ---- */
int64_t pyksm_mmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node)
{
	ENTER(m);
	struct mm_struct *mm;
	int64_t ret;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	if (addr & ~PAGE_MASK || !npages || node < -1 || node >= (int)m->nodes)
		ret = -EINVAL;
	else if (npages > TASK_SIZE >> PAGE_SHIFT)
		ret = -ENOMEM;
	else
		ret = do_mmap(m, mm, addr, npages << PAGE_SHIFT, node);
	leave_mm(m, mm, 0);
	return ret;
}

int pyksm_munmap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	err = check_range(addr, npages);
	if (!err)
		forget_pins(m, pid, addr, npages);
	if (!err)
		err = do_munmap(m, mm, addr, npages << PAGE_SHIFT);
	return leave_mm(m, mm, err);
}

int pyksm_mprotect(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int prot)
{
	ENTER(m);
	uint64_t flags = (prot & PYKSM_PROT_READ ? VM_READ : 0) |
			 (prot & PYKSM_PROT_WRITE ? VM_WRITE : 0);
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	err = check_range(addr, npages);
	if (!err && prot == PYKSM_PROT_SEAL && has(m, FEAT_MSEAL))
		return leave_mm(m, mm, do_mseal(m, mm, addr, npages << PAGE_SHIFT));
	if (!err && prot & ~(PYKSM_PROT_READ | PYKSM_PROT_WRITE))
		err = -EINVAL;
	if (!err)
		err = do_mprotect(m, mm, addr, npages << PAGE_SHIFT, flags);
	return leave_mm(m, mm, err);
}

static int mlock_or_munlock(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, bool on)
{
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	err = check_range(addr, npages);
	if (!err)
		err = do_mlock(m, mm, addr, npages << PAGE_SHIFT, on);
	if (err || !on)
		return leave_mm(m, mm, err);
	mm->writer = false;
	up_write(m, mm);
	down_read(m, mm, PT_POPULATE_MMAP_SEM);
	return leave_mm(m, mm, mm_populate(m, mm, addr, npages << PAGE_SHIFT));
}

int pyksm_mlock(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	return mlock_or_munlock(m, pid, addr, npages, true);
}

int pyksm_munlock(struct pyksm *m, int pid, uint64_t addr, uint64_t npages)
{
	ENTER(m);
	return mlock_or_munlock(m, pid, addr, npages, false);
}

int pyksm_mremap(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, uint64_t new_addr)
{
	ENTER(m);
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	err = check_range(addr, npages);
	if (!err)
		err = check_range(new_addr, npages);
	if (!err) {
		forget_pins(m, pid, addr, npages);
		forget_pins(m, pid, new_addr, npages);
	}
	if (!err)
		err = do_mremap(m, mm, addr, npages << PAGE_SHIFT, new_addr);
	return leave_mm(m, mm, err);
}

int pyksm_madvise(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int advice)
{
	ENTER(m);
	bool write = advice == PYKSM_MADV_MERGEABLE || advice == PYKSM_MADV_UNMERGEABLE, zaps;
	struct mm_struct *mm;
	int err = enter_mm(m, pid, write, &mm);

	if (err)
		return err;
	err = check_range(addr, npages);
	zaps = !err && advice == PYKSM_MADV_DONTNEED;
	if (zaps)
		forget_pins(m, pid, addr, npages);
	if (!err)
		err = do_madvise(m, mm, addr, npages << PAGE_SHIFT, advice);
	if (zaps && in_task(m)) /* what was pinned meanwhile: both have mmap_sem for reading */
		forget_pins(m, pid, addr, npages);
	return leave_mm(m, mm, err);
}

int pyksm_clear_refs(struct pyksm *m, int pid, int what)
{
	ENTER(m);
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	return err ? err : leave_mm(m, mm, do_clear_refs(m, mm, what));
}

int pyksm_migrate(struct pyksm *m, int pid, uint64_t addr, uint64_t npages, int node,
		  int32_t *status)
{
	ENTER(m);
	struct mm_struct *mm;
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
	mm = p->mm;
	mmget(m, mm);
	err = do_move_pages(m, mm, addr, npages, node, status);
	mmput_task(m, mm);
	return err;
}

/* ---- swap ---- */
int pyksm_swapon(struct pyksm *m, uint64_t npages, int priority, const char *path)
{
	ENTER(m);
	return m ? sys_swapon(m, npages, priority, path) : -EINVAL;
}

int pyksm_swapoff(struct pyksm *m, int type)
{
	ENTER(m);
	return m ? sys_swapoff(m, type) : -EINVAL;
}

int pyksm_area_at(struct pyksm *m, int index, struct pyksm_area *ret)
{
	ENTER(m);
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
	ENTER(m);
	const struct swap_info_struct *si = area_of_slot(m, type, offset);

	return si ? (int)swp_swapcount(si, offset) : -EINVAL;
}

int pyksm_swap_map(struct pyksm *m, int type, uint64_t offset)
{
	ENTER(m);
	const struct swap_info_struct *si = area_of_slot(m, type, offset);

	return si ? si->swap_map[offset] : -EINVAL;
}

int64_t pyksm_swapcached(struct pyksm *m)
{
	ENTER(m);
	return m ? (int64_t)m->swap.nr_cached : -EINVAL;
}

int pyksm_swapout(struct pyksm *m, const struct pyksm_range *ranges, int n)
{
	ENTER(m);
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
	ENTER(m);
	return m && key ? ksm_store(m, key, value) : -EINVAL;
}

int pyksm_ksm_read(struct pyksm *m, const char *key, int64_t *ret)
{
	ENTER(m);
	return m && key && ret ? ksm_show(m, key, ret) : -EINVAL;
}

const char *pyksm_ksm_count_name(struct pyksm *m, int index)
{
	ENTER_OR(m, NULL);
	return m && index >= 0 ? ksm_count_name(m, index) : NULL;
}

int pyksm_ksm_stat(struct pyksm *m, int pid, const char *key, int64_t *ret)
{
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (err || !key || !ret)
		return err ? err : -EINVAL;
	return ksm_stat_show(m, p->mm, key, ret);
}

int pyksm_prctl_memory_merge(struct pyksm *m, int pid, int on)
{
	ENTER(m);
	struct mm_struct *mm;
	int err = enter_mm(m, pid, true, &mm);

	if (err)
		return err;
	if (!has(m, FEAT_MERGE_ANY))
		err = -EINVAL;
	else
		err = on ? ksm_enable_merge_any(m, mm) : ksm_disable_merge_any(m, mm);
	return leave_mm(m, mm, err);
}

int pyksm_memory_merge(struct pyksm *m, int pid)
{
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err && !has(m, FEAT_MERGE_ANY))
		err = -EINVAL;
	return err ? err : p->mm->merge_any;
}

int pyksm_ksm_scan(struct pyksm *m, uint32_t n)
{
	ENTER(m);
	return m && n <= INT32_MAX ? ksm_full_scans(m, n) : -EINVAL;
}

int pyksm_ksm_do_scan(struct pyksm *m, uint32_t npages)
{
	ENTER(m);
	return m ? ksm_scan_batch(m, npages) : -EINVAL;
}

int pyksm_sleep(struct pyksm *m, int64_t ms)
{
	ENTER(m);
	if (!m || ms < 0 || ms > INT32_MAX)
		return -EINVAL;
	m->clock += (uint64_t)ms;
	return 0;
}
