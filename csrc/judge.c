/* SPDX-License-Identifier: MIT */
/*
 * Says what is wrong: operations that answer what they may not, contents that nobody wrote, what must hold after an
 * operation and does not, and at the end whatever a census and a look at each page find. Invariants are those of the
 * bug catalogue, I1 to I10.
 */
#include <stdarg.h>
#include <stdio.h>

#include "judge.h"
#include "ksm_internal.h"

#ifndef EHWPOISON
#define EHWPOISON 133
#endif

/* ---- findings ---- */
void judge_wrong(struct pyksm_judge *j, int invariant, uint32_t line, const char *code,
		 const char *fmt, ...)
{
	struct judge_state *s = &j->now;
	struct pyksm_wrong *w = &s->wrong[s->nr_wrong];
	va_list args;

	for (uint32_t i = 0; i < s->nr_wrong; i++)
		if (s->wrong[i].invariant == invariant && !strcmp(s->wrong[i].code, code))
			return; /* one of a kind will do */
	if (s->nr_wrong == JUDGE_WRONGS)
		return;
	s->nr_wrong++;
	w->invariant = invariant;
	w->line = line;
	snprintf(w->code, sizeof(w->code), "%s", code);
	va_start(args, fmt);
	vsnprintf(w->text, sizeof(w->text), fmt, args);
	va_end(args);
}

/* ---- may it fail like that? ---- */
static bool has_fired(struct pyksm_judge *j, const struct pyksm *m, struct judge_flight *f,
		      enum pyksm_fault_kind kind)
{
	bool now = f->failed[kind] != m->failed[kind];

	j->now.fired[kind] = m->failed[kind] != 0; /* this operation's, or one's before it */
	f->fired[kind] = now;
	return now;
}

static const char *kind_name(int32_t kind)
{
	static const char *const names[PYKSM_NR_OPS] = {
		"spawn",  "mmap",    "write",	"poke",	    "read",    "fork",	"exit",
		"munmap", "mremap",  "madvise", "mprotect", "migrate", "pin",	"unpin",
		"swapon", "swapoff", "swapout", "ksm",	    "scan",    "prctl", "clear_refs",
		"sleep",  "inject",  "mlock",	"munlock"
	};

	return kind >= 0 && kind < PYKSM_NR_OPS ? names[kind] : "?";
}

static bool may_be_busy(const struct pyksm *m, const struct judge_flight *f)
{
	if (f->op->kind != PYKSM_OP_KSM)
		return f->op->kind != PYKSM_OP_SWAPOFF;
	if (strcmp(f->op->key, "merge_across_nodes") && strcmp(f->op->key, "max_page_sharing"))
		return false;
	/* The trees cannot be emptied while somebody maps a page of theirs, or did a moment ago. */
	return f->overlapped || m->ksm.run != KSM_RUN_UNMERGE || m->ksm.pages_shared ||
	       any_ksm_pte(m);
}

/* For madvise, mprotect and both of mlock's ENOMEM is a hole in the range; for mlock, what cannot be had there too. */
static bool may_have_hole(struct pyksm_judge *j, const struct pyksm_op *op)
{
	bool mlock = op->kind == PYKSM_OP_MLOCK;

	if (mlock && (j->now.fired[PYKSM_FAIL_READ] || j->now.fired[PYKSM_FAIL_USERFAULT]))
		return true;
	if (!mlock && op->kind != PYKSM_OP_MUNLOCK && op->kind != PYKSM_OP_MADVISE &&
	    op->kind != PYKSM_OP_MPROTECT)
		return false;
	for (uint64_t i = 0; i < op->npages; i++) {
		const struct judge_cell *cell =
			find_cell(&j->now, op->process, (op->addr >> PAGE_SHIFT) + i);

		if (!cell || !cell->there || cell->going || cell->unsure ||
		    (mlock && cell->guarded))
			return true;
	}
	return false;
}

static bool may_lack_memory(struct pyksm_judge *j, const struct pyksm *m,
			    const struct judge_flight *f, bool ordered)
{
	if (ordered || f->memory_denied != m->memory_denied || may_have_hole(j, f->op))
		return true;
	if (f->oom_leaked != m->oom_leaked && !(j->flags & PYKSM_JUDGE_LEAKED_OOM))
		return true;
	return f->op->kind == PYKSM_OP_SWAPOFF && (f->shortage || f->overlapped);
}

static void check_errno(struct pyksm_judge *j, const struct pyksm *m, struct judge_flight *f,
			int err)
{
	bool page = has_fired(j, m, f, PYKSM_FAIL_PAGE), kmem = has_fired(j, m, f, PYKSM_FAIL_KMEM);
	bool signal = has_fired(j, m, f, PYKSM_FAIL_SIGNAL), fine = true;

	if (m->dead)
		return; /* and all that follows fails */
	switch (err) {
	case -EIO:
	case -EHWPOISON:
		fine = j->now.fired[PYKSM_FAIL_READ] || j->now.fired[PYKSM_FAIL_USERFAULT];
		break;
	case -ENOMEM:
		fine = may_lack_memory(j, m, f, page || kmem);
		break;
	case -EINTR:
		fine = signal;
		break;
	case -EBUSY:
		fine = may_be_busy(m, f);
		break;
	case -ETIMEDOUT:
		fine = has(m, FEAT_SWAPOFF_KEEPS_SHARED_CACHE);
		break;
	case -EDEADLK:
		fine = false;
		break;
	default: /* of bad arguments, which the scenario answers for */
		break;
	}
	if (!fine)
		judge_wrong(j,
			    err == -EIO || err == -EHWPOISON ? 1
			    : err == -EBUSY		     ? 7
							     : 9,
			    f->op->line, "errno", "%s fails with errno %d, for no reason",
			    kind_name(f->op->kind), -err);
}

/* ---- reads and writes, page by page ---- */
static void check_read_page(struct pyksm_judge *j, const struct judge_flight *f, uint64_t i)
{
	const unsigned char *bytes = f->op->data + i * j->page_size;
	char got[64], expected[256] = "";

	if (!f->seen[i].nr && !f->seen[i].any)
		return; /* of a page that the map does not know */
	if (j->now.unsure || set_has(&f->seen[i], find_content(j, bytes)))
		return;
	describe_content(j, bytes, got, sizeof(got));
	describe_set(j, &f->seen[i], expected, sizeof(expected));
	judge_wrong(j, 1, f->op->line, "content", "process %d reads %s at 0x%llx, not %s",
		    f->op->process, got, (unsigned long long)(f->op->addr + (i << PAGE_SHIFT)),
		    expected);
}

static void check_access(struct pyksm_judge *j, const struct pyksm *m, struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	uint64_t first = op->addr >> PAGE_SHIFT;

	for (uint64_t i = 0; i < op->npages; i++) {
		bool sure = f->sure[i] && cell_sure(find_cell(&j->now, op->process, first + i));
		int err = op->status[i];

		if (err)
			check_errno(j, m, f, err);
		else if (op->kind == PYKSM_OP_READ)
			check_read_page(j, f, i);
		if (err == -EFAULT && sure)
			judge_wrong(j, 1, op->line, "fault", "process %d: no access to 0x%llx",
				    op->process,
				    (unsigned long long)(op->addr + (i << PAGE_SHIFT)));
	}
}

/* ---- what must hold after an operation that has succeeded ---- */
static void check_trees_empty(struct pyksm_judge *j, const struct pyksm *m,
			      const struct pyksm_op *op)
{
	bool empty = list_empty(&m->ksm.migrate_nodes) && !m->ksm.pages_shared;

	for (uint32_t nid = 0; nid < m->nodes; nid++)
		empty &= !m->ksm.root_stable_tree[nid].node;
	if (!empty)
		judge_wrong(j, 7, op->line, "trees", "%s was changed with stable nodes left",
			    op->key);
}

static void check_ksm(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
		      const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	bool mode = !strcmp(op->key, "merge_across_nodes") || !strcmp(op->key, "max_page_sharing");

	if (mode && f->knob != (int64_t)op->value && !f->rivalled)
		check_trees_empty(j, m, op);
	if (!strcmp(op->key, "run") && op->value == KSM_RUN_UNMERGE && f->knob != KSM_RUN_UNMERGE &&
	    !f->rivalled && /* once more does nothing more */
	    (!f->raced || j->flags & PYKSM_JUDGE_SWAPIN_RACE)) {
		j->now.unmerged = true;
		look_for_ksm_ptes(j, m, p, op->line);
	}
}

static pte_t pte_at(const struct mm_struct *mm, uint64_t addr)
{
	const pte_t *pte = pte_lookup(mm, addr);

	return pte ? *pte : 0;
}

/* MADV_UNMERGEABLE: what was out may have come back since as the KSM page that it was. */
static void check_unmerged(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
			   const struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	const struct process *process = find_process(m, p->pids[op->process]);

	if (userfault_excuses(j, m))
		return;
	for (uint64_t i = 0; process && f->unmerges && i < op->npages; i++) {
		uint64_t addr = op->addr + (i << PAGE_SHIFT);
		pte_t pte = pte_at(process->mm, addr);

		if (!pte_present(pte) || pte & _PAGE_SPECIAL ||
		    !PageKsm(pfn_to_page(m, pte_pfn(pte))))
			continue;
		if (pte & _PAGE_PROTNONE && passes_over(j, m))
			continue;
		judge_wrong(j, 7, op->line, "unmergeable",
			    "process %d maps KSM page %llu at 0x%llx after MADV_UNMERGEABLE",
			    op->process, (unsigned long long)pte_pfn(pte),
			    (unsigned long long)addr);
	}
}

/* The type may be another area's by now where a swapon ran at the same time. */
static void check_swapoff(struct pyksm_judge *j, struct pyksm *m, const struct judge_flight *f,
			  int type)
{
	const struct swap_info_struct *si = &m->swap.info[type];

	if (f->op->err) {
		if (!(si->flags & SWP_WRITEOK) && !f->overlapped)
			judge_wrong(j, 9, f->op->line, "swapoff",
				    "a swapoff that failed leaves area %d unusable", type);
		return;
	}
	if (si->flags & SWP_USED) {
		if (!f->overlapped)
			judge_wrong(j, 9, f->op->line, "swapoff", "area %d is still there", type);
		return;
	}
	for (uint64_t pfn = 1; pfn <= m->max_pfn; pfn++) {
		const struct page *page = pfn_to_page(m, pfn);

		if (page->flags & PG_swapcache &&
		    swp_type((swp_entry_t){ page->private }) == (unsigned int)type)
			judge_wrong(j, 9, f->op->line, "swapoff",
				    "page %llu is cached for area %d, which is gone",
				    (unsigned long long)pfn, type);
	}
}

/* ---- before an operation ---- */
/* Will unmerging find all of them there? What is out comes back as it was, and it passes by what is not mergeable. */
static bool all_to_unmerge(const struct pyksm *m, const struct pyksm_program *p,
			   const struct pyksm_op *op)
{
	const struct process *process = find_process((struct pyksm *)m, p->pids[op->process]);

	for (uint64_t i = 0; process && i < op->npages; i++) {
		uint64_t addr = op->addr + (i << PAGE_SHIFT);
		const struct vm_area_struct *vma = find_vma(process->mm, addr);
		pte_t pte = pte_at(process->mm, addr);

		if (!vma || vma->vm_start > addr || !(vma->vm_flags & VM_MERGEABLE))
			return false;
		if (!pte_none(pte) && !pte_present(pte))
			return false;
	}
	return process != NULL;
}

static bool known_process(const struct pyksm_program *p, int32_t process)
{
	return process >= 0 && (uint32_t)process < p->nr_pids;
}

static int area_type(const struct pyksm_program *p, int32_t area)
{
	return area >= 0 && (uint32_t)area < p->nr_areas ? p->areas[area] : -1;
}

/*
 * Who may have a page be no KSM page where unmerging passes by, and then be one: what is out comes back as it was, and a
 * page shared by fork is made one for whoever else maps it.
 */
static bool changes_merging(const struct pyksm_op *op)
{
	return op->kind == PYKSM_OP_SWAPOUT || op->kind == PYKSM_OP_SCAN ||
	       (op->kind == PYKSM_OP_MADVISE && op->arg == PYKSM_MADV_PAGEOUT);
}

/* Who brings a page in looks at run when it has locked the page, and maps it some steps later; unmerging, which finds
 * nothing mapped, does not wait for it. So it is in Linux. */
static bool brings_in(const struct pyksm_op *op)
{
	return op->kind == PYKSM_OP_SWAPOFF || op->kind == PYKSM_OP_READ ||
	       op->kind == PYKSM_OP_WRITE || op->kind == PYKSM_OP_POKE ||
	       op->kind == PYKSM_OP_PIN || op->kind == PYKSM_OP_MLOCK;
}

/* What it changes it may find as it wants it, and do nothing. */
static bool same_setting(const struct pyksm_op *one, const struct pyksm_op *other)
{
	return one->kind == PYKSM_OP_KSM && other->kind == PYKSM_OP_KSM &&
	       !strcmp(one->key, other->key);
}

static void note_company(struct pyksm_judge *j)
{
	for (uint32_t i = 0; j->nr_flights > 1 && i < j->nr_flights; i++) {
		struct judge_flight *f = &j->flight[i];

		f->overlapped = true;
		for (uint32_t k = 0; k < j->nr_flights; k++) {
			f->unmerges &= !changes_merging(j->flight[k].op);
			f->raced |= brings_in(j->flight[k].op);
			f->rivalled |= k != i && same_setting(f->op, j->flight[k].op);
		}
	}
}

/* What is on its way out, or may be, an access under way need not find, even if it is back before that ends. */
static void unsettle_accesses(struct pyksm_judge *j, const struct pyksm_op *op, uint64_t addr)
{
	for (uint32_t k = 0; k < j->nr_flights; k++) {
		struct judge_flight *f = &j->flight[k];
		uint64_t vpn = f->op->addr >> PAGE_SHIFT;

		if (!f->sure || f->op->process != op->process)
			continue;
		for (uint64_t i = 0; i < f->op->npages; i++)
			if (vpn + i - (addr >> PAGE_SHIFT) < op->npages)
				f->sure[i] = false;
	}
}

/* Who is on the way to be mergeable when run becomes 2: unmerging may come by too early for them. */
static uint64_t becoming_mergeable(const struct pyksm_judge *j)
{
	uint64_t who = 0;

	for (uint32_t k = 0; k < j->nr_flights; k++) {
		const struct pyksm_op *op = j->flight[k].op;

		if ((op->kind == PYKSM_OP_MADVISE && op->arg == PYKSM_MADV_MERGEABLE) ||
		    (op->kind == PYKSM_OP_PRCTL && op->arg))
			who |= family_bits(j, op->process);
	}
	return who;
}

static void note_before(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
			struct judge_flight *f)
{
	const struct pyksm_op *op = f->op;
	int type = area_type(p, op->area);

	memcpy(f->failed, m->failed, sizeof(f->failed));
	f->memory_denied = m->memory_denied;
	f->oom_leaked = m->oom_leaked;
	if (op->kind == PYKSM_OP_SWAPOFF && type >= 0) {
		int64_t room = m->swap.nr_swap_pages;

		for (uint32_t nid = 0; nid < m->nodes; nid++)
			room += m->node[nid].nr_free;
		f->shortage = room <= (int64_t)m->swap.info[type].pages;
	} else if (op->kind == PYKSM_OP_KSM) {
		ksm_show(m, op->key, &f->knob);
		if (!strcmp(op->key, "run")) {
			j->now.unmerged &= op->value == KSM_RUN_UNMERGE;
			if (m->ksm.run != KSM_RUN_UNMERGE)
				j->now.tainted = becoming_mergeable(j);
		}
	} else if (op->kind == PYKSM_OP_SCAN) {
		j->now.unmerged = false;
		j->now.scanned = true;
	} else if (op->kind == PYKSM_OP_MADVISE && known_process(p, op->process)) {
		f->unmerges = all_to_unmerge(m, p, op);
	}
}

/* Arrays that this operation needs to be judged; without memory it is not. */
static bool make_flight(struct pyksm_judge *j, struct judge_flight *f)
{
	struct pyksm_op *op = f->op;
	uint64_t n = op->npages;
	bool reads = op->kind == PYKSM_OP_READ;

	if (!reads && op->kind != PYKSM_OP_WRITE)
		return true;
	if (n > 1 << 20)
		return false;
	f->seen = calloc(n + 1, sizeof(*f->seen));
	f->sure = calloc(n + 1, sizeof(*f->sure));
	if (!op->status)
		op->status = f->status = calloc(n + 1, sizeof(*f->status));
	if (reads && !op->data)
		op->data = f->data = calloc(n + 1, j->page_size);
	for (uint64_t i = 0; f->sure && i < n; i++)
		f->sure[i] =
			cell_sure(find_cell(&j->now, op->process, (op->addr >> PAGE_SHIFT) + i));
	return f->seen && f->sure && op->status && (!reads || op->data);
}

static bool is_known(const struct pyksm_op *op)
{
	uint64_t pages = op->kind == PYKSM_OP_POKE ? 1 : op->npages;

	return op->kind >= 0 && op->kind < PYKSM_NR_OPS && !(op->addr & ~PAGE_MASK) &&
	       op->addr < TASK_SIZE && pages <= TASK_SIZE >> PAGE_SHIFT;
}

static void note_begin(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
		       struct pyksm_op *op)
{
	struct judge_flight *f = &j->flight[j->nr_flights];

	if (j->nr_flights == JUDGE_FLIGHTS || !is_known(op))
		return;
	*f = (struct judge_flight){ .op = op, .tag = ++j->now.tag, .clock = ++j->now.clock };
	if (!make_flight(j, f)) {
		flight_release(f);
		return;
	}
	note_before(j, m, p, f);
	j->nr_flights++;
	note_company(j);
	if (op->kind == PYKSM_OP_MUNMAP || op->kind == PYKSM_OP_MREMAP ||
	    op->kind == PYKSM_OP_MPROTECT)
		unsettle_accesses(j, op, op->addr);
	if (op->kind == PYKSM_OP_MREMAP)
		unsettle_accesses(j, op, op->to);
	/* Until 5.18 whoever puts a mark on a page, as ksmd does, does not look whether it still should be there.
	 * Since then munlock first changes the vma and then comes by: who unmaps a page before that leaves the mark. */
	j->now.marks_raced |= j->nr_flights > 1;
	map_begin(j, f);
}

/* ---- after it ---- */
static struct judge_flight *flight_of(struct pyksm_judge *j, const struct pyksm_op *op)
{
	for (uint32_t i = 0; i < j->nr_flights; i++)
		if (j->flight[i].op == op)
			return &j->flight[i];
	return NULL;
}

static void check_success(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_program *p,
			  const struct judge_flight *f)
{
	if (f->op->kind == PYKSM_OP_KSM)
		check_ksm(j, m, p, f);
	else if (f->op->kind == PYKSM_OP_MADVISE && f->op->arg == PYKSM_MADV_UNMERGEABLE &&
		 known_process(p, f->op->process))
		check_unmerged(j, m, p, f);
}

static void note_failures(struct pyksm_judge *j, const struct pyksm *m, struct judge_flight *f)
{
	for (int kind = 0; kind < PYKSM_NR_FAULT_KINDS; kind++)
		has_fired(j, m, f, (enum pyksm_fault_kind)kind);
	/* Until 5.1 a page whose write fails may be dropped all the same (RULES.md): who gets the slot
	 * next reads what was there before. And what could not be read was mapped as it was, until 5.19. */
	if (j->now.fired[PYKSM_FAIL_WRITE] && !has(m, FEAT_SWAPOFF_PER_MM) &&
	    !(j->flags & PYKSM_JUDGE_FAILED_WRITE))
		j->now.unsure = true;
	if (j->now.fired[PYKSM_FAIL_READ] && !has(m, FEAT_SWAPOFF_ERROR_ENTRIES))
		j->now.unsure = true;
}

static void note_end(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
		     struct pyksm_op *op)
{
	struct judge_flight *f = flight_of(j, op), done;

	if (!f)
		return;
	j->now.clock++;
	note_failures(j, m, f);
	if (op->kind == PYKSM_OP_READ || op->kind == PYKSM_OP_WRITE)
		check_access(j, m, f);
	else if (op->err)
		check_errno(j, m, f, op->err);
	if (!op->err)
		check_success(j, m, p, f);
	map_end(j, f);
	done = *f;
	*f = j->flight[--j->nr_flights];
	flight_release(&done);
	if (j->flags & PYKSM_JUDGE_EACH && !j->nr_flights)
		look_at_census(j, m, op->line);
}

/*
 * What the judge looks at is no part of what the tasks do; but that one operation had ended before another began is:
 * the judge draws conclusions from it.
 */
void judge_begin(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
		 struct pyksm_op *op)
{
	bool recording = trace_pause(m);

	note_begin(j, m, p, op);
	if (recording)
		trace_resume(m);
	trace_shared(m, j, false);
}

void judge_end(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p, struct pyksm_op *op)
{
	bool recording = trace_pause(m);

	note_end(j, m, p, op);
	if (recording)
		trace_resume(m);
	trace_shared(m, j, true);
}

/* What ops.c knows and nobody else: the type that the area had before it went. */
void judge_swapoff_ended(struct pyksm_judge *j, struct pyksm *m, const struct pyksm_op *op,
			 int type)
{
	struct judge_flight *f = flight_of(j, op);

	if (f && type >= 0 && type < MAX_SWAPFILES && op->err != -EINVAL)
		check_swapoff(j, m, f, type);
}

/* ---- the end ---- */
static void check_event(struct pyksm_judge *j, const struct pyksm *m, const char *event)
{
	if (known_oops(j, m, event))
		return;
	if (!strncmp(event, "BUG: lock order", 15))
		judge_wrong(j, 9, 0, "lock-order", "%s", event);
	else if (!strncmp(event, "BUG: soft lockup", 16))
		judge_wrong(j, 9, 0, "livelock", "%s", event);
	else if (!strncmp(event, "BUG: ", 5))
		judge_wrong(j, 5, 0, "oops", "%s", event);
	else if (!strncmp(event, "nr_swap_pages", 13))
		judge_wrong(j, 8, 0, "counter", "%s", event);
	else if (!strncmp(event, "kvm_age_hva_handler", 19))
		judge_wrong(j, 4, 0, "mmu-notifier", "%s", event);
	else if (!strncmp(event, "Bad page state", 14)) {
		if (!j->now.marks_raced)
			judge_wrong(j, 8, 0, "bad-page", "%s", event);
	} else if (!strcmp(event, "copy of a page that is not uptodate"))
		judge_wrong(j, 1, 0, "not-uptodate", "%s", event);
	else if (!strncmp(event, "BUG_ON", 6))
		judge_wrong(j, 4, 0, "bug-on", "%s", event);
	else if (!strncmp(event, "WARN_ON_ONCE remove_stable_node", 31)) {
		/* Until 5.4 a process that exits, or a page of no mergeable vma, was enough for it. */
		if (has(m, FEAT_STABLE_NODE_BUSY_QUIET))
			judge_wrong(j, 7, 0, "warn", "%s", event);
	} else if (!strncmp(event, "try_to_unuse makes", 18)) {
		if (!has(m, FEAT_SWAPOFF_KEEPS_SHARED_CACHE))
			judge_wrong(j, 9, 0, "swapoff-loop", "%s", event);
	} else if (!strncmp(event, "Read-error", 10)) {
		if (!j->now.fired[PYKSM_FAIL_READ])
			judge_wrong(j, 2, 0, "read-error", "%s", event);
	} else if (!strncmp(event, "Write-error", 11)) {
		if (!j->now.fired[PYKSM_FAIL_WRITE])
			judge_wrong(j, 2, 0, "write-error", "%s", event);
	} else {
		judge_wrong(j, 5, 0, "event", "%s", event);
	}
}

/* Until 5.1 swapoff lets go of processes with the page locked: docs/findings.md. */
static bool known_deadlock(const struct pyksm_judge *j, const struct pyksm *m,
			   const struct pyksm_outcome *out)
{
	return !(j->flags & PYKSM_JUDGE_LAST_USER) && !has(m, FEAT_SWAPOFF_PER_MM) &&
	       (strstr(out->text, "__ksm_exit:mmap_sem") ||
		strstr(out->text, "munlock_vma_pages_range:lock_page")) &&
	       strstr(out->text, "page lock of frame");
}

static void check_outcome(struct pyksm_judge *j, const struct pyksm *m,
			  const struct pyksm_outcome *out)
{
	if (out->end == PYKSM_END_DEADLOCK && !known_deadlock(j, m, out))
		judge_wrong(j, 9, 0, "deadlock", "%s", out->text);
	else if (out->end == PYKSM_END_LIVELOCK && !known_oops(j, m, out->text))
		judge_wrong(j, 9, 0, "livelock", "%s", out->text);
}

int pyksm_judge_finish(struct pyksm_judge *j, struct pyksm *m, struct pyksm_program *p,
		       const struct pyksm_outcome *out)
{
	if (!j || !m || !p)
		return -EINVAL;
	for (size_t i = m->first_event; i < m->nr_events; i++)
		check_event(j, m, m->events[i]);
	if (out)
		check_outcome(j, m, out);
	if (m->dead && (!out || out->end == PYKSM_END_DONE) && !j->now.nr_wrong &&
	    !known_oops(j, m, m->oops))
		judge_wrong(j, 5, 0, "oops", "%s", m->oops);
	if (!m->dead && !j->nr_flights) {
		look_at_contents(j, m, p);
		if (j->now.unmerged)
			look_for_ksm_ptes(j, m, p, 0);
		look_at_pages(j, m);
		look_at_merge_any(j, m, p);
		look_at_seals(j, m, p);
		look_at_zero_pages(j, m);
		look_at_census(j, m, 0);
		if (j->flags & PYKSM_JUDGE_HALF_KSM)
			look_for_half_ksm(j, m);
		if (j->flags & PYKSM_JUDGE_QUIESCE && !j->now.nr_wrong)
			look_at_rest(j, m);
	}
	return (int)j->now.nr_wrong;
}

/* ---- life ---- */
struct pyksm_judge *pyksm_judge_new(struct pyksm *m, uint32_t flags)
{
	struct pyksm_judge *j = m ? calloc(1, sizeof(*j)) : NULL;

	if (!j)
		return NULL;
	j->flags = flags;
	j->page_size = m->page_size;
	j->scratch = calloc(1, PAGE_SIZE);
	j->census = malloc(JUDGE_CENSUS_BYTES);
	if (!j->scratch || !j->census || !judge_contents_init(j)) {
		pyksm_judge_free(j);
		return NULL;
	}
	return j;
}

void pyksm_judge_free(struct pyksm_judge *j)
{
	if (!j)
		return;
	for (uint32_t i = 0; i < j->nr_flights; i++)
		flight_release(&j->flight[i]);
	free(j->contents.bytes);
	free(j->contents.pattern);
	free(j->contents.bucket);
	free(j->now.cell);
	free(j->kept.cell);
	free(j->scratch);
	free(j->census);
	free(j);
}

static int copy_state(struct judge_state *to, const struct judge_state *from)
{
	struct judge_cell *cell = to->cell;
	uint32_t max = to->max;

	if (max < from->nr) {
		max = from->nr;
		cell = realloc(cell, max * sizeof(*cell));
		if (!cell)
			return -ENOMEM;
	}
	if (from->nr)
		memcpy(cell, from->cell, from->nr * sizeof(*cell));
	*to = *from;
	to->cell = cell;
	to->max = max;
	return 0;
}

int judge_keep(struct pyksm_judge *j)
{
	return copy_state(&j->kept, &j->now);
}

int judge_restore(struct pyksm_judge *j)
{
	for (uint32_t i = 0; i < j->nr_flights; i++)
		flight_release(&j->flight[i]);
	j->nr_flights = 0;
	return copy_state(&j->now, &j->kept);
}

const struct pyksm_wrong *pyksm_judge_wrong(const struct pyksm_judge *j, uint32_t index)
{
	return j && index < j->now.nr_wrong ? &j->now.wrong[index] : NULL;
}
