/* SPDX-License-Identifier: MIT */
/* What there is to see of a machine, its counters, events and schedule points, as embedders see it. */
#include "face.h"

/* ---- observation ---- */
static void observe_present(struct pyksm *m, pte_t pte, struct pyksm_page *ret)
{
	const struct page *page = pfn_to_page(m, pte_pfn(pte));

	ret->state = pte & _PAGE_SPECIAL ? 'Z' : 'P';
	ret->pfn = (int64_t)pte_pfn(pte);
	ret->node = page->nid;
	ret->ksm = PageKsm(page);
	ret->swapcache = !!(page->flags & PG_swapcache);
	ret->mlocked = !!(page->flags & PG_mlocked);
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
	ENTER(m);
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
	ENTER(m);
	struct process *p;
	int err = find_for_read(m, pid, &p);

	if (!err)
		err = check_range(addr, 1);
	return err ? err : count_rmap(m, p->mm, addr);
}

int pyksm_vma_at(struct pyksm *m, int pid, int index, struct pyksm_vma *ret)
{
	ENTER(m);
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
	*ret = (struct pyksm_vma){
		vma->vm_start, vma->vm_end, vma->vm_pgoff, 0, vma->node, 0, 0, 0
	};
	ret->prot = (vma->vm_flags & VM_READ ? PYKSM_PROT_READ : 0) |
		    (vma->vm_flags & VM_WRITE ? PYKSM_PROT_WRITE : 0);
	ret->mergeable = !!(vma->vm_flags & VM_MERGEABLE);
	ret->locked = !!(vma->vm_flags & VM_LOCKED);
	list_for_each (pos, &vma->anon_vma_chain)
		ret->chain++;
	return 0;
}

int64_t pyksm_free_frames(struct pyksm *m, int node)
{
	ENTER(m);
	int64_t n = 0;

	if (!m || node < -1 || node >= (int)m->nodes)
		return -EINVAL;
	for (int nid = 0; nid < (int)m->nodes; nid++)
		n += node < 0 || node == nid ? m->node[nid].nr_free : 0;
	return n;
}

int64_t pyksm_peak_frames(struct pyksm *m, int reset)
{
	ENTER(m);
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
	ENTER_OR(m, NULL);
	if (!m || pfn < 0 || (uint64_t)pfn > m->max_pfn)
		return NULL;
	return page_content(m, pfn_to_page(m, (uint64_t)pfn));
}

const uint64_t *pyksm_pte_table(struct pyksm *m, int pid, uint64_t addr)
{
	ENTER_OR(m, NULL);
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
#define POINT_NAME(id, name) name,
static const char *const point_names[] = { PYKSM_HOOK_POINTS(POINT_NAME) };
#undef POINT_NAME
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
	ENTER(m);
	return m && (buf || !len) ? census(m, strict, buf, len) : -EINVAL;
}

int pyksm_inject(struct pyksm *m, int kind, uint64_t nth)
{
	ENTER(m);
	if (!m || kind < 0 || kind >= PYKSM_NR_FAULT_KINDS)
		return -EINVAL;
	if (nth)
		return order_failure(m, (enum pyksm_fault_kind)kind, nth);
	memset(m->inject[kind], 0, sizeof(m->inject[kind]));
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
	return NR_HOOK_POINTS;
}

const char *pyksm_point_name(int index)
{
	return name_at(point_names, NR_HOOK_POINTS, index);
}

const char *pyksm_switch_name(int index)
{
	return name_at(switch_names, PYKSM_NR_SWITCHES, index);
}
