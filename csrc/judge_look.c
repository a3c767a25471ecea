/* SPDX-License-Identifier: MIT */
/* The judge's last look at a machine: contents of pages that nobody touches for it, and counts. */
#include <stdio.h>

#include "face.h"
#include "judge.h"
#include "ksm_internal.h"

/* ---- what is at an address ---- */
enum look { LOOK_CONTENT, LOOK_HOLE, LOOK_UNREADABLE, LOOK_STRANGE };

static enum look look_at_swap(struct pyksm_judge *j, struct pyksm *m, pte_t pte,
			      const unsigned char **bytes)
{
	swp_entry_t entry = pte_to_swp_entry(m, pte);
	const struct swap_info_struct *si;
	uint64_t pfn;

	if (is_swapin_error_entry(m, entry))
		return LOOK_UNREADABLE;
	si = non_swap_entry(m, entry) ? NULL : swap_info_get(m, entry);
	if (!si)
		return LOOK_STRANGE;
	pfn = swap_cache_pfn(si, swp_offset(entry));
	if (pfn && pfn_to_page(m, pfn)->flags & PG_uptodate)
		*bytes = page_content(m, pfn_to_page(m, pfn));
	else
		*bytes = slot_content(m, si, swp_offset(entry), j->scratch);
	return *bytes ? LOOK_CONTENT : LOOK_STRANGE;
}

static enum look look_at(struct pyksm_judge *j, struct pyksm *m, const struct mm_struct *mm,
			 uint64_t addr, const unsigned char **bytes)
{
	const struct vm_area_struct *vma = find_vma(mm, addr);
	const pte_t *pte = pte_lookup(mm, addr);

	if (!vma || vma->vm_start > addr)
		return LOOK_HOLE;
	if (!pte || pte_none(*pte)) {
		*bytes = j->contents.bytes;
		return LOOK_CONTENT;
	}
	if (!pte_present(*pte))
		return look_at_swap(j, m, *pte, bytes);
	*bytes = page_content(m, pfn_to_page(m, pte_pfn(*pte)));
	return LOOK_CONTENT;
}

static void check_content(struct pyksm_judge *j, const struct judge_cell *cell,
			  const unsigned char *bytes)
{
	char got[64], expected[256] = "";

	if (j->now.unsure || set_has(&cell->set, find_content(j, bytes)))
		return;
	describe_content(j, bytes, got, sizeof(got));
	describe_set(j, &cell->set, expected, sizeof(expected));
	judge_wrong(j, 1, 0, "content", "in the end process %d has %s at 0x%llx, not %s",
		    cell->process, got, (unsigned long long)cell->vpn << PAGE_SHIFT, expected);
}

/* clear_refs has come by a migration entry for a page that may be written: docs/findings.md. */
static bool untracked(const struct pyksm_judge *j, const struct pyksm *m)
{
	return m->entries_cleared && !(j->flags & PYKSM_JUDGE_CLEARED_ENTRY);
}

/* Soft-dirty: written and never cleared. Merging forgets it, and until 5.19 swapoff does. */
static void check_soft(struct pyksm_judge *j, const struct pyksm *m, const struct mm_struct *mm,
		       const struct judge_cell *cell)
{
	uint64_t addr = cell->vpn << PAGE_SHIFT;
	const struct vm_area_struct *vma = find_vma(mm, addr);
	const pte_t *pte = pte_lookup(mm, addr);
	bool soft;

	if (!has(m, FEAT_SWAPOFF_SOFT_DIRTY) || !cell->soft || j->now.scanned || !pte ||
	    pte_none(*pte) || !vma || vma->vm_flags & VM_SOFTDIRTY || untracked(j, m))
		return;
	soft = *pte & (pte_present(*pte) ? _PAGE_SOFT_DIRTY : swp_soft_dirty(m));
	if (!soft && !is_swapin_error_entry(m, pte_to_swp_entry(m, *pte)))
		judge_wrong(j, 8, 0, "soft-dirty",
			    "process %d wrote to 0x%llx, which is not soft-dirty", cell->process,
			    (unsigned long long)addr);
}

static void check_cell(struct pyksm_judge *j, struct pyksm *m, const struct mm_struct *mm,
		       const struct judge_cell *cell)
{
	const unsigned char *bytes = NULL;
	unsigned long long addr = cell->vpn << PAGE_SHIFT;

	switch (look_at(j, m, mm, cell->vpn << PAGE_SHIFT, &bytes)) {
	case LOOK_CONTENT:
		check_content(j, cell, bytes);
		check_soft(j, m, mm, cell);
		break;
	case LOOK_HOLE:
		if (cell_sure(cell))
			judge_wrong(j, 1, 0, "hole", "process %d has nothing mapped at 0x%llx",
				    cell->process, addr);
		break;
	case LOOK_UNREADABLE:
		if (!j->now.fired[PYKSM_FAIL_READ])
			judge_wrong(j, 1, 0, "unreadable", "process %d has lost what was at 0x%llx",
				    cell->process, addr);
		break;
	case LOOK_STRANGE:
		if (!entry_is_astray(j, m))
			judge_wrong(j, 4, 0, "strange-pte",
				    "process %d: the pte at 0x%llx is no page and no slot",
				    cell->process, addr);
		break;
	}
}

void look_at_contents(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p)
{
	for (uint32_t i = 0; i < j->now.nr; i++) {
		const struct judge_cell *cell = &j->now.cell[i];
		const struct process *process = NULL;

		if (cell->process >= 0 && (uint32_t)cell->process < p->nr_pids)
			process = find_process(m, p->pids[cell->process]);
		if (process)
			check_cell(j, m, process->mm, cell);
	}
}

/* ---- ptes of KSM pages ---- */
/* fn of each present pte that maps a frame; false ends it. */
typedef bool (*pte_fn)(struct pyksm_judge *j, const struct pyksm *m,
		       const struct vm_area_struct *vma, uint64_t addr, pte_t pte, uint32_t line);

static bool for_each_pte(struct pyksm_judge *j, const struct pyksm *m, pte_fn fn, uint32_t line)
{
	for (const struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		for (const struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next) {
			uint64_t end = vma->vm_end;

			for (uint64_t addr = next_table(mm, vma->vm_start, end); addr < end;
			     addr = next_table(mm, addr + PAGE_SIZE, end)) {
				pte_t pte = *pte_lookup(mm, addr);

				if (pte_present(pte) && !(pte & _PAGE_SPECIAL) &&
				    !fn(j, m, vma, addr, pte, line))
					return false;
			}
		}
	return true;
}

static bool is_no_ksm_pte(struct pyksm_judge *j, const struct pyksm *m,
			  const struct vm_area_struct *vma, uint64_t addr, pte_t pte, uint32_t line)
{
	(void)j, (void)vma, (void)addr, (void)line;
	return !PageKsm(pfn_to_page(m, pte_pfn(pte)));
}

bool any_ksm_pte(const struct pyksm *m)
{
	return !for_each_pte(NULL, m, is_no_ksm_pte, 0);
}

static int32_t process_of(const struct pyksm_program *p, int pid)
{
	for (uint32_t i = 0; i < p->nr_pids; i++)
		if (p->pids[i] == pid)
			return (int32_t)i;
	return -1;
}

/*
 * While run is 2, and after it has come back. A vma that is not mergeable is not looked at by unmerging, and so
 * may be a process whose pages became mergeable again, or had no access, since then.
 */
static void check_mm_unmerged(struct pyksm_judge *j, struct pyksm *m, const struct mm_struct *mm,
			      int32_t process, uint32_t line)
{
	/* fork goes on without memory to register the child (985da552a98e): docs/findings.md */
	if (!mm->mm_slot && has(m, FEAT_KSM_FORK_LATE) && j->now.fired[PYKSM_FAIL_KMEM] &&
	    !(j->flags & PYKSM_JUDGE_UNKNOWN_CHILD))
		return;
	for (const struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next) {
		uint64_t end = vma->vm_end;

		if (!(vma->vm_flags & VM_MERGEABLE))
			continue;
		for (uint64_t addr = next_table(mm, vma->vm_start, end); addr < end;
		     addr = next_table(mm, addr + PAGE_SIZE, end)) {
			pte_t pte = *pte_lookup(mm, addr);
			const struct page *page = pfn_to_page(m, pte_pfn(pte));

			if (!pte_present(pte) || pte & _PAGE_SPECIAL || !PageKsm(page) ||
			    !(page->flags & PG_uptodate))
				continue;
			judge_wrong(j, 7, line, "run-2",
				    "run is 2, and process %d maps KSM page %llu at 0x%llx",
				    process, (unsigned long long)pte_pfn(pte),
				    (unsigned long long)addr);
		}
	}
}

/* Until 6.2 (6cce3314b928) what a userfaultfd refuses stays shared, and nobody says so. */
bool userfault_excuses(const struct pyksm_judge *j, const struct pyksm *m)
{
	return j->now.fired[PYKSM_FAIL_USERFAULT] && !has(m, FEAT_UNSHARE_BREAK);
}

/* For want of access, and nothing is said of it: docs/findings.md. */
bool passes_over(const struct pyksm_judge *j, const struct pyksm *m)
{
	return has(m, FEAT_BREAK_SKIPS_PROT_NONE) && !(j->flags & PYKSM_JUDGE_PASSED_OVER);
}

/* Such a page was moved while it migrated: its pte waits for ever. */
bool entry_is_astray(const struct pyksm_judge *j, const struct pyksm *m)
{
	return m->entries_astray && passes_over(j, m);
}

/* Until 4.9 a walk may restore a pte with the protection of a vma that its own is part of by now: docs/findings.md. */
static bool known_livelock(const struct pyksm_judge *j, const struct pyksm *m, const char *text)
{
	return !(j->flags & PYKSM_JUDGE_LATE_FLAGS) && m->flags_late &&
	       strstr(text, "handle_pte_fault:pte_lock");
}

/* An event, or what the machine or a task has ended with. */
bool known_oops(const struct pyksm_judge *j, const struct pyksm *m, const char *text)
{
	return known_livelock(j, m, text) ||
	       (entry_is_astray(j, m) && !strncmp(text, "BUG: a migration entry", 22));
}

void look_for_ksm_ptes(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
		       uint32_t line)
{
	uint64_t excused = j->now.tainted;

	if (m->ksm.run != KSM_RUN_UNMERGE || userfault_excuses(j, m))
		return;
	if (passes_over(j, m))
		excused |= j->now.veiled;
	for (const struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next) {
		int32_t process = process_of(p, mm->pid);

		if (process >= 0 && process < 64 && !(excused >> process & 1) && mm->mm_users)
			check_mm_unmerged(j, m, mm, process, line);
	}
}

/* ---- frames ---- */
/* I10: writable, while somebody else can see the page; I2: as good as its slot, and it is not. */
static bool check_writable(struct pyksm_judge *j, const struct pyksm *m,
			   const struct vm_area_struct *vma, uint64_t addr, pte_t pte,
			   uint32_t line)
{
	const struct page *page = pfn_to_page(m, pte_pfn(pte));
	swp_entry_t entry = { page->private };
	uint64_t others = page->flags & PG_swapcache
				  ? swp_swapcount(&m->swap.info[swp_type(entry)], swp_offset(entry))
				  : 0;

	if (!(pte & _PAGE_RW))
		return true;
	others += (uint64_t)page_mapcount(page) - 1;
	if (PageKsm(page))
		judge_wrong(j, 6, line, "writable-ksm",
			    "pid %d can write to KSM page %llu at 0x%llx", vma->vm_mm->pid,
			    (unsigned long long)pte_pfn(pte), (unsigned long long)addr);
	else if (others)
		judge_wrong(j, 10, line, "writable",
			    "pid %d can write to page %llu at 0x%llx, which others see",
			    vma->vm_mm->pid, (unsigned long long)pte_pfn(pte),
			    (unsigned long long)addr);
	return true;
}

/* One that nobody maps and whose slot nobody refers to is nobody's: what it holds does not matter. */
static bool is_wanted(const struct pyksm *m, const struct page *page)
{
	swp_entry_t entry = { page->private };

	return page_mapped(page) ||
	       swp_swapcount(&m->swap.info[swp_type(entry)], swp_offset(entry));
}

static bool is_clean(const struct page *page)
{
	return page->flags & PG_swapcache && page->flags & PG_uptodate &&
	       !(page->flags & (PG_dirty | PG_writeback | PG_error));
}

static bool note_dirty(struct pyksm_judge *j, const struct pyksm *m,
		       const struct vm_area_struct *vma, uint64_t addr, pte_t pte, uint32_t line)
{
	(void)vma, (void)addr, (void)line, (void)m;
	if (pte & _PAGE_DIRTY)
		j->census[pte_pfn(pte) / 8] |= (char)(1 << pte_pfn(pte) % 8);
	return true;
}

/* The census' buffer, as a set of frames; machines of more than that have no such check. */
#define DIRTY_FRAMES (JUDGE_CENSUS_BYTES * 8)

static void check_clean(struct pyksm_judge *j, struct pyksm *m)
{
	if (m->max_pfn >= DIRTY_FRAMES || j->now.unsure)
		return;
	memset(j->census, 0, JUDGE_CENSUS_BYTES);
	for_each_pte(j, m, note_dirty, 0);
	for (uint64_t pfn = 1; pfn <= m->max_pfn; pfn++) {
		const struct page *page = pfn_to_page(m, pfn);
		swp_entry_t entry = { page->private };
		const unsigned char *slot;

		if (!is_clean(page) || !is_wanted(m, page) || j->census[pfn / 8] >> pfn % 8 & 1)
			continue;
		slot = slot_content(m, &m->swap.info[swp_type(entry)], swp_offset(entry),
				    j->scratch);
		if (slot && memcmp(slot, page_content(m, page), m->page_size))
			judge_wrong(j, 2, 0, "clean",
				    "page %llu is clean, and its slot holds something else",
				    (unsigned long long)pfn);
	}
}

void look_at_pages(struct pyksm_judge *j, struct pyksm *m)
{
	for_each_pte(j, m, check_writable, 0);
	check_clean(j, m);
}

/* ---- what processes have asked for ---- */
void look_at_merge_any(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p)
{
	for (uint32_t k = 0; k < p->nr_pids && k < 64; k++) {
		const struct process *process = p->pids[k] > 0 ? find_process(m, p->pids[k]) : NULL;

		if (process && j->now.merge_any & ~j->now.merge_any_unsure & 1ULL << k &&
		    !process->mm->merge_any)
			judge_wrong(j, 8, 0, "merge-any",
				    "process %u has asked for all to be merged, and nobody knows",
				    k);
	}
}

void look_at_seals(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p)
{
	for (uint32_t i = 0; i < j->now.nr; i++) {
		const struct judge_cell *cell = &j->now.cell[i];
		int pid = (uint32_t)cell->process < p->nr_pids ? p->pids[cell->process] : 0;
		const struct process *process = cell->sealed && pid > 0 ? find_process(m, pid)
									: NULL;
		uint64_t addr = cell->vpn << PAGE_SHIFT;
		const struct vm_area_struct *vma = process ? find_vma(process->mm, addr) : NULL;

		if (process && (!vma || vma->vm_start > addr || !(vma->vm_flags & VM_SEALED)))
			judge_wrong(j, 8, 0, "sealed", "process %d: 0x%llx is sealed no more",
				    cell->process, (unsigned long long)addr);
	}
}

/* A fork that fails half way leaves the count of all wrong to this day; until 6.18 every one did (4d6fc29f3634). */
void look_at_zero_pages(struct pyksm_judge *j, struct pyksm *m)
{
	int64_t n = 0;

	if (!has(m, FEAT_KSM_COUNTS_START_AT_ZERO) || j->now.fired[PYKSM_FAIL_KMEM] ||
	    j->now.fired[PYKSM_FAIL_PAGE])
		return;
	for (const struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		n += mm->ksm_zero_pages;
	if (n != m->ksm.zero_pages)
		judge_wrong(j, 8, 0, "zero-pages", "ksm_zero_pages says %lld, processes have %lld",
			    (long long)m->ksm.zero_pages, (long long)n);
}

/* ---- the census ---- */
static const struct {
	const char *code;
	int invariant;
} codes[] = {
	{ "swap-inuse", 8 },  { "mm-counter", 8 },    { "ksm-counts", 8 },   { "mmlist", 9 },
	{ "vma", 5 },	      { "rmap", 4 },	      { "ksm-rmap", 4 },     { "ksm-tree", 6 },
	{ "ksm-no-node", 6 }, { "ksm-rmap-item", 6 }, { "ksm-unmerged", 7 }, { "ksm-writable", 6 },
	{ "charge", 8 },      { "swap-stale", 2 },    { "exclusive", 10 },   { "pin", 10 },
	{ "mlock", 8 },
};

/* What is not in the table is a count: I3. */
static int invariant_of(const char *code)
{
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(codes[i].code, code))
			return codes[i].invariant;
	return 3;
}

/* Of a task's machine others may be in the middle of something: nobody is to go on meanwhile. */
static int quiet_census(struct pyksm_judge *j, struct pyksm *m, bool strict)
{
	struct sched *sched = m->sched;
	bool recording = trace_pause(m);
	struct call call;
	volatile int n = -1;

	m->sched = NULL;
	call_begin(&call, m);
	if (!setjmp(call.guard))
		n = census(m, strict, j->census, JUDGE_CENSUS_BYTES);
	call_end(&call);
	m->sched = sched;
	if (recording)
		trace_resume(m);
	return n;
}

static void each_line(struct pyksm_judge *j, uint32_t line, const char *when)
{
	char *next, *at = j->census;

	for (; *at; at = next) {
		char *end = strchr(at, '\n'), *colon = strchr(at, ':');

		next = end ? end + 1 : at + strlen(at);
		if (end)
			*end = '\0';
		if (!colon)
			continue;
		*colon = '\0';
		/* Who has become mergeable since is excused: look_for_ksm_ptes() knows which. */
		if (j->now.tainted && !strcmp(at, "ksm-unmerged"))
			continue;
		if (j->now.marks_raced && !strcmp(at, "mlock"))
			continue;
		judge_wrong(j, invariant_of(at), line, at, "%s%s", colon + 2, when);
	}
}

void look_at_census(struct pyksm_judge *j, struct pyksm *m, uint32_t line)
{
	int found = entry_is_astray(j, m) ? 0 : quiet_census(j, m, false);

	if (found < 0)
		judge_wrong(j, 5, line, "census", "counting what there is dies: %s", m->oops);
	else if (found)
		each_line(j, line, "");
}

/* Pages that have only half become KSM pages: in the catalogue, but no bug of one release. */
void look_for_half_ksm(struct pyksm_judge *j, struct pyksm *m)
{
	const char *line;

	if (quiet_census(j, m, true) <= 0)
		return;
	line = strstr(j->census, "ksm-no-node: ");
	if (line)
		judge_wrong(j, 6, 0, "ksm-no-node", "%.*s", (int)strcspn(line + 13, "\n"),
			    line + 13);
}

/* ---- afterwards: what a quiet machine comes to ---- */
/*
 * A page that became a KSM page late in a scan has no item yet for whoever ksmd had come to before; another scan may
 * merge what the first one met for the first time; and the last one finds all of that.
 */
#define QUIET_SCANS 3

/* ksmd finds a page again only where it looks: in mergeable memory of a process that it knows. */
static bool ksmd_looks(const struct pyksm *m, const struct page *page)
{
	for (const struct mm_struct *mm = m->all_mms; mm; mm = mm->all_next)
		for (const struct vm_area_struct *vma = mm->mmap; vma; vma = vma->vm_next) {
			uint64_t end = vma->vm_end;

			if (vma->vm_flags & VM_MERGEABLE && mm->mm_slot)
				continue;
			for (uint64_t addr = next_table(mm, vma->vm_start, end); addr < end;
			     addr = next_table(mm, addr + PAGE_SIZE, end)) {
				pte_t pte = *pte_lookup(mm, addr);

				if (pte_present(pte) && pfn_to_page(m, pte_pfn(pte)) == page)
					return false;
			}
		}
	return true;
}

/*
 * An item that left its node keeps the node's address, in all kernels where the page goes away under the node (and
 * until 5.13 always): where a new node comes to lie there ksmd takes the item for merged, and never lists it.
 */
static bool has_stale_head(const struct pyksm *m, const struct stable_node *node)
{
	struct list_head *pos, *slots = (struct list_head *)&m->ksm.ksm_mm_head.mm_list;

	list_for_each (pos, slots)
		for (const struct rmap_item *item = slot_of(pos)->rmap_list; item;
		     item = item->rmap_list)
			if (!(item->address & (STABLE_FLAG | UNSTABLE_FLAG)) && item->head == node)
				return true;
	return false;
}

/* Of a page of a stable node, all of whose ptes ksmd comes to. */
static bool should_be_found(const struct pyksm_judge *j, const struct pyksm *m, uint64_t pfn)
{
	const struct page *page = pfn <= m->max_pfn ? pfn_to_page(m, pfn) : NULL;
	const struct stable_node *node = page ? page_stable_node(page) : NULL;

	if (!node || !ksmd_looks(m, page))
		return false;
	/* Moved to another node, mapped once, and all of its like there are full: it waits for an equal, unlisted. */
	if (on_migrate_list(m, node) && !(j->flags & PYKSM_JUDGE_HALF_KSM))
		return false;
	return j->flags & PYKSM_JUDGE_STALE_HEAD || !has_stale_head(m, node);
}

static void check_ksm_rmap(struct pyksm_judge *j, struct pyksm *m)
{
	char *at = j->census, *end;

	if (quiet_census(j, m, true) <= 0)
		return;
	for (; (end = strchr(at, '\n')); at = end + 1) {
		unsigned long long pfn;

		*end = '\0';
		if (sscanf(at, "ksm-rmap: page %llu", &pfn) == 1 && should_be_found(j, m, pfn))
			judge_wrong(j, 4, 0, "ksm-rmap", "%s, after quiet scans", at + 10);
		if (!strncmp(at, "ksm-misplaced: ", 15))
			judge_wrong(j, 6, 0, "ksm-misplaced", "%s, after quiet scans", at + 15);
	}
}

static void forget_orders(struct pyksm *m)
{
	memset(m->inject, 0, sizeof(m->inject));
}

/* As an operation: whoever puts the machine back has to know of what it writes to. */
static int let_go_of_batches(struct pyksm *m)
{
	ENTER(m);
	lru_add_drain(m); /* mlock's batch has references */
	return 0;
}

#define SCARCE_FRAMES 32

/* All processes go, and then all that was theirs. */
static void check_all_gone(struct pyksm_judge *j, struct pyksm *m)
{
	while (m->nr_procs)
		if (pyksm_exit(m, m->procs[0].pid))
			break;
	pyksm_ksm_scan(m, 1);
	for (int type = 0; type < MAX_SWAPFILES && !m->dead; type++) {
		uint64_t denied = m->memory_denied;
		int err = m->swap.info[type].flags & SWP_USED ? pyksm_swapoff(m, type) : 0;

		/* Pages that only the swap cache has fill hardly any memory; until 5.2 swapoff asks for as much
		 * that is free as the area has slots. */
		if (err == -ENOMEM &&
		    (m->memory_denied != denied ||
		     (!has(m, FEAT_OVERCOMMIT_GUESS_TOTAL) && m->max_pfn < SCARCE_FRAMES)))
			return;
		if (err && err != -EIO)
			judge_wrong(j, 9, 0, "swapoff",
				    "with no process left swapoff fails with errno %d", -err);
	}
	let_go_of_batches(m);
	if (m->dead)
		return;
	if (quiet_census(j, m, false) > 0)
		each_line(j, 0, ", when all have exited");
	if (m->in_use)
		judge_wrong(j, 3, 0, "frames-left", "%lld frames are nobody's and in use",
			    (long long)m->in_use);
	if (!list_empty(&m->anon_vmas))
		judge_wrong(j, 3, 0, "anon-vma-left", "an anon_vma outlives all processes");
	if (m->ksm.rmap_items || m->ksm.pages_shared)
		judge_wrong(j, 3, 0, "ksm-left", "%lld rmap_items outlive all processes",
			    (long long)m->ksm.rmap_items);
	if (m->all_mms)
		judge_wrong(j, 3, 0, "mm-left", "an mm outlives all processes");
}

/*
 * The machine is used up by this: quiet scans, after which KSM pages can be found from their nodes, then the end
 * of all processes, after which nothing may be left.
 */
void look_at_rest(struct pyksm_judge *j, struct pyksm *m)
{
	forget_orders(m);
	if (has(m, FEAT_SMART_SCAN))
		pyksm_ksm_write(m, "smart_scan", 0);
	if (j->now.scanned && m->ksm.run != KSM_RUN_UNMERGE) {
		pyksm_ksm_scan(m, QUIET_SCANS);
		if (!m->dead)
			check_ksm_rmap(j, m);
	}
	if (!m->dead)
		check_all_gone(j, m);
	if (m->dead && !known_oops(j, m, m->oops))
		judge_wrong(j, 5, 0, "oops", "%s, when all is over", m->oops);
}
