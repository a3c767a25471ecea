/* SPDX-License-Identifier: MIT */
/* The vmas of an address space: look up, split, merge, map, unmap (kernel: mm/mmap.c). */
#include "internal.h"

static struct vm_area_struct *vma_of(struct rb_node *n)
{
	return container_of(n, struct vm_area_struct, vm_rb);
}

static uint64_t vma_pages(const struct vm_area_struct *vma)
{
	return (vma->vm_end - vma->vm_start) >> PAGE_SHIFT;
}

/* The first vma that ends above addr; it may start above it too. */
struct vm_area_struct *find_vma(const struct mm_struct *mm, uint64_t addr)
{
	struct rb_node *n = mm->mm_rb.node;
	struct vm_area_struct *found = NULL;

	while (n) {
		struct vm_area_struct *vma = vma_of(n);

		if (vma->vm_end > addr) {
			found = vma;
			if (vma->vm_start <= addr)
				break;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return found;
}

/* The last vma that starts below addr, if it is not the one that find_vma() gives. */
static struct vm_area_struct *vma_before(const struct mm_struct *mm, uint64_t addr)
{
	struct rb_node *n = mm->mm_rb.node;
	struct vm_area_struct *found = NULL;

	while (n) {
		struct vm_area_struct *vma = vma_of(n);

		if (vma->vm_end <= addr) {
			found = vma;
			n = n->right;
		} else {
			n = n->left;
		}
	}
	return found;
}

struct vm_area_struct *find_vma_prev(const struct mm_struct *mm, uint64_t addr,
				     struct vm_area_struct **prev)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	*prev = vma ? vma->vm_prev : vma_before(mm, addr);
	return vma;
}

static void vma_rb_insert(struct mm_struct *mm, struct vm_area_struct *vma)
{
	struct rb_node **link = &mm->mm_rb.node, *parent = NULL;

	while (*link) {
		parent = *link;
		link = vma->vm_start < vma_of(parent)->vm_start ? &parent->left : &parent->right;
	}
	rb_link_node(&vma->vm_rb, parent, link);
	rb_insert_color(&vma->vm_rb, &mm->mm_rb);
}

void vma_link(struct mm_struct *mm, struct vm_area_struct *vma)
{
	struct vm_area_struct *prev = vma_before(mm, vma->vm_end);

	vma->vm_prev = prev;
	vma->vm_next = prev ? prev->vm_next : mm->mmap;
	if (prev)
		prev->vm_next = vma;
	else
		mm->mmap = vma;
	if (vma->vm_next)
		vma->vm_next->vm_prev = vma;
	vma_rb_insert(mm, vma);
}

static void vma_unlink(struct mm_struct *mm, struct vm_area_struct *vma)
{
	if (vma->vm_prev)
		vma->vm_prev->vm_next = vma->vm_next;
	else
		mm->mmap = vma->vm_next;
	if (vma->vm_next)
		vma->vm_next->vm_prev = vma->vm_prev;
	rb_erase(&vma->vm_rb, &mm->mm_rb);
}

/* ---- which anon_vma may be shared ---- */
static bool chain_is_singular(const struct vm_area_struct *vma)
{
	const struct list_head *head = &vma->anon_vma_chain;

	return !list_empty(head) && head->next == head->prev;
}

static bool anon_vma_compatible(const struct vm_area_struct *a, const struct vm_area_struct *b)
{
	return a->vm_end == b->vm_start && a->node == b->node &&
	       !((a->vm_flags ^ b->vm_flags) & ~(VM_READ | VM_WRITE | VM_SOFTDIRTY)) &&
	       b->vm_pgoff == a->vm_pgoff + vma_pages(a);
}

static struct anon_vma *reusable_anon_vma(const struct vm_area_struct *old,
					  const struct vm_area_struct *a,
					  const struct vm_area_struct *b)
{
	return anon_vma_compatible(a, b) && chain_is_singular(old) ? old->anon_vma : NULL;
}

/* A neighbour's anon_vma that vma may use, so that the two can be merged one day. */
struct anon_vma *find_mergeable_anon_vma(struct vm_area_struct *vma)
{
	struct anon_vma *av = NULL;

	if (vma->vm_next)
		av = reusable_anon_vma(vma->vm_next, vma, vma->vm_next);
	if (!av && vma->vm_prev)
		av = reusable_anon_vma(vma->vm_prev, vma->vm_prev, vma);
	return av;
}

/* Was it forked, so that pages of ancestors may be in it? Such a vma is not to grow over others' pages. */
static bool is_fork_child(const struct vm_area_struct *vma)
{
	return vma && vma->anon_vma && !chain_is_singular(vma);
}

/*
 * May pages of src (NULL: there are none yet) become vma's? Until 6.16 (879bca0a2c4f) a vma without an anon_vma
 * was taken for a fork's child, whose chain is not singular either.
 */
static bool is_mergeable_anon_vma(const struct pyksm *m, const struct vm_area_struct *vma,
				  const struct vm_area_struct *src)
{
	const struct anon_vma *av = src ? src->anon_vma : NULL;

	if (av && vma->anon_vma)
		return av == vma->anon_vma;
	if (has(m, FEAT_MERGE_WITH_UNFAULTED))
		return !is_fork_child(av ? src : vma);
	return (!av && !vma->anon_vma) || chain_is_singular(vma);
}

/* Of two vmas around a range that each of them may take. */
static bool are_anon_vmas_compatible(const struct vm_area_struct *a, const struct vm_area_struct *b)
{
	return !a->anon_vma || !b->anon_vma || a->anon_vma == b->anon_vma;
}

static bool can_vma_merge(const struct pyksm *m, const struct vm_area_struct *vma, uint64_t flags,
			  const struct vm_area_struct *src, int node)
{
	return !((vma->vm_flags ^ flags) & ~VM_SOFTDIRTY) && vma->node == node &&
	       is_mergeable_anon_vma(m, vma, src);
}

/* ---- changing the bounds ---- */
static void take_from_trees(struct vm_area_struct *vma)
{
	struct list_head *pos;

	list_for_each (pos, &vma->anon_vma_chain) {
		struct anon_vma_chain *avc = container_of(pos, struct anon_vma_chain, same_vma);

		anon_vma_interval_tree_remove(avc, avc->anon_vma);
	}
}

static void put_in_trees(struct vm_area_struct *vma)
{
	struct list_head *pos;

	list_for_each (pos, &vma->anon_vma_chain) {
		struct anon_vma_chain *avc = container_of(pos, struct anon_vma_chain, same_vma);

		anon_vma_interval_tree_insert(avc, avc->anon_vma);
	}
}

/* The family whose trees change: both vmas', as far as they have one. Walks stay out meanwhile. */
static const struct anon_vma *family_of(const struct vm_area_struct *vma,
					const struct vm_area_struct *next)
{
	if (vma->anon_vma)
		return vma->anon_vma;
	return next ? next->anon_vma : NULL;
}

static void lock_trees(struct pyksm *m, const struct vm_area_struct *vma,
		       const struct vm_area_struct *next)
{
	if (family_of(vma, next))
		anon_vma_lock_write(m, family_of(vma, next), PT_VMA_ADJUST_RMAP);
}

static void unlock_trees(struct pyksm *m, const struct vm_area_struct *vma,
			 const struct vm_area_struct *next)
{
	if (family_of(vma, next))
		anon_vma_unlock(m, family_of(vma, next));
}

/* Pages change hands between neighbours: the one that gets them must know their anon_vmas. */
static int share_anon_vma(struct pyksm *m, struct vm_area_struct *importer,
			  struct vm_area_struct *exporter)
{
	int err;

	if (!exporter || !exporter->anon_vma || importer->anon_vma)
		return 0;
	if (bugged(m, BUG_ANONVMA_DEGREE_MERGE)) {
		err = anon_vma_clone(m, importer, exporter);
		importer->anon_vma = err ? NULL : exporter->anon_vma;
		return err;
	}
	importer->anon_vma = exporter->anon_vma;
	return anon_vma_clone(m, importer, exporter); /* which takes it back if it fails */
}

/*
 * Who gets pages must be on their anon_vmas: exporter's, those of one behind it that goes as well, those that mremap
 * copies from a vma that is no neighbour. Since 6.1 (d4af56c5c7c6) the tree of vmas takes memory; where there is none
 * all is as before.
 */
static int prepare_merge(struct pyksm *m, struct vm_area_struct *importer,
			 struct vm_area_struct *exporter, struct vm_area_struct *behind,
			 struct vm_area_struct *copied)
{
	bool had = importer->anon_vma;
	int err = share_anon_vma(m, importer, exporter);

	if (!err && !bugged(m, BUG_MREMAP_UNFAULTED_MERGE_UAF))
		err = share_anon_vma(m, importer, copied);
	/* Before anything goes, or it could not be undone: 734537c9cb72 (4.8). */
	if (!err && !bugged(m, BUG_VMA_ADJUST_ENOMEM_UAF))
		err = share_anon_vma(m, importer, behind);
	if (err || !has(m, FEAT_MAPLE_TREE))
		return err;
	COUNT(m, kmem_alloc);
	if (!should_fail(m, PYKSM_FAIL_KMEM))
		return 0;
	if (!had && importer->anon_vma && !bugged(m, BUG_ANONVMA_DUP_ERROR_LEAK)) {
		unlink_anon_vmas(m, importer);
		importer->anon_vma = NULL;
	}
	return -ENOMEM;
}

static void pages_change_hands(struct vm_area_struct *importer,
			       const struct vm_area_struct *exporter)
{
	importer->written |= exporter && exporter->written;
}

static void swallow(struct pyksm *m, struct vm_area_struct *vma)
{
	if (vma->anon_vma)
		unlink_anon_vmas(m, vma);
	kmem_free(m, POOL_VMA, vma);
}

/*
 * Move the border between vma and its successor, or let vma swallow successors that end by end. copied: the vma that
 * what comes in is from, where that is neither. flags: what vma is to have then.
 */
static int vma_move_end(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end,
			uint64_t pgoff, struct vm_area_struct *copied, uint64_t flags)
{
	struct mm_struct *mm = vma->vm_mm;
	struct vm_area_struct *next = vma->vm_next;
	struct vm_area_struct *exporter = NULL, *importer = vma;
	uint64_t want = end, border = end;
	bool remove = false, adjust = false, again, first = true;
	int err;

	do {
		again = false;
		next = vma->vm_next;
		if (next && want >= next->vm_end) {
			remove = true;
			again = want > next->vm_end;
			border = next->vm_end;
			exporter = next;
		} else if (next && want > next->vm_start) {
			adjust = true;
			exporter = next;
		} else if (next && want < vma->vm_end && next->vm_start == vma->vm_end) {
			adjust = true;
			exporter = vma;
			importer = next;
		}
		err = first ? prepare_merge(m, importer, exporter, again ? next->vm_next : NULL,
					    copied)
			    : share_anon_vma(m, importer, exporter);
		if (err)
			return err;
		pages_change_hands(importer, exporter);
		pages_change_hands(importer, first ? copied : NULL);
		first = false;
		lock_trees(m, vma, next);
		take_from_trees(vma);
		if (adjust) {
			take_from_trees(next);
			/* the border may move down as well as up */
			next->vm_pgoff = next->vm_pgoff + (border >> PAGE_SHIFT) -
					 (next->vm_start >> PAGE_SHIFT);
			next->vm_start = border;
		}
		vma->vm_start = start;
		vma->vm_end = border;
		vma->vm_pgoff = pgoff;
		/* Until 4.9 the caller alone sets them: walks come to the new pages before that (e86f15ee64d8). */
		if (has(m, FEAT_MERGE_HANDS_FLAGS_OVER))
			vma->vm_flags = flags;
		else
			m->flags_late += vma->vm_flags != flags;
		if (remove)
			vma_unlink(mm, next);
		put_in_trees(vma);
		if (adjust)
			put_in_trees(next);
		unlock_trees(m, vma, next);
		if (remove)
			swallow(m, next);
		remove = false;
		exporter = NULL;
		border = want;
	} while (again);
	return 0;
}

/*
 * Can [addr, end) with these flags be part of a neighbour? prev is the vma before addr, or the one that
 * addr lies in. The range may lie in a vma of its own whose flags are about to change; src is that one, or the one
 * that mremap moves pages from. NULL: no (or no memory for it), else the vma that holds the range now. Kernel:
 * vma_merge with its eight cases.
 */
struct vm_area_struct *vma_merge(struct pyksm *m, struct mm_struct *mm, struct vm_area_struct *prev,
				 uint64_t addr, uint64_t end, uint64_t flags,
				 struct vm_area_struct *src, uint64_t pgoff, int node)
{
	uint64_t pglen = (end - addr) >> PAGE_SHIFT;
	struct vm_area_struct *area = prev ? prev->vm_next : mm->mmap, *next = area;
	struct vm_area_struct *copied = src && (addr < src->vm_start || addr >= src->vm_end) ? src
											     : NULL;
	bool before;
	int err;

	if (next && next->vm_end == end)
		next = next->vm_next; /* area itself goes */
	before = next && next->vm_start == end && next->vm_pgoff == pgoff + pglen &&
		 can_vma_merge(m, next, flags, src, node);
	if (prev && prev->vm_end == addr && prev->vm_pgoff + vma_pages(prev) == pgoff &&
	    can_vma_merge(m, prev, flags, src, node)) {
		if (before && are_anon_vmas_compatible(prev, next))
			end = next->vm_end;
		err = vma_move_end(m, prev, prev->vm_start, end, prev->vm_pgoff, copied,
				   prev->vm_flags);
		return err ? NULL : prev;
	}
	if (!before)
		return NULL;
	if (prev && addr < prev->vm_end)
		err = vma_move_end(m, prev, prev->vm_start, addr, prev->vm_pgoff, NULL,
				   prev->vm_flags);
	else
		err = vma_move_end(m, area, addr, next->vm_end, next->vm_pgoff - pglen, copied,
				   next->vm_flags);
	return err ? NULL : area;
}

/*
 * Each vma's part of a range in turn, as mprotect(2) and mlock(2) go. fixup leaves in *prev the vma that holds what it
 * has done. -ENOMEM: a hole, what came before it stays changed; or fixup's error.
 */
int fixup_range(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, uint64_t flags,
		vma_fixup_fn fixup)
{
	uint64_t end = start + len, stop;
	struct vm_area_struct *vma = find_vma(mm, start), *prev;
	int err;

	if (!vma || vma->vm_start > start)
		return -ENOMEM;
	prev = start > vma->vm_start ? vma : vma->vm_prev;
	for (;;) {
		stop = vma->vm_end < end ? vma->vm_end : end;
		err = fixup(m, vma, &prev, start, stop, flags);
		if (err)
			return err;
		start = stop > prev->vm_end ? stop : prev->vm_end;
		if (start >= end)
			return 0;
		vma = prev->vm_next;
		if (!vma || vma->vm_start != start)
			return -ENOMEM;
	}
}

/* Split vma at addr; the new one is the lower part (new_below) or the upper. */
int split_vma(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool new_below)
{
	struct vm_area_struct *new = kmem_alloc(m, POOL_VMA);
	uint64_t pages = (addr - vma->vm_start) >> PAGE_SHIFT;

	if (!new)
		return -ENOMEM;
	*new = *vma;
	INIT_LIST_HEAD(&new->anon_vma_chain);
	if (new_below) {
		new->vm_end = addr;
	} else {
		new->vm_start = addr;
		new->vm_pgoff += pages;
	}
	if (anon_vma_clone(m, new, vma)) {
		kmem_free(m, POOL_VMA, new);
		return -ENOMEM;
	}
	lock_trees(m, vma, NULL);
	take_from_trees(vma);
	if (new_below) {
		vma->vm_start = addr;
		vma->vm_pgoff += pages;
	} else {
		vma->vm_end = addr;
	}
	vma_link(vma->vm_mm, new);
	put_in_trees(vma);
	unlock_trees(m, vma, NULL);
	return 0;
}

/*
 * Let [start, end) of *vma be one that may be given these flags: part of a neighbour, or split off. *vma is the
 * one that holds the range afterwards. prev as vma_merge() wants it. (Kernel: in mprotect_fixup, mlock_fixup and
 * madvise_behavior, until vma_modify made it one.)
 */
int vma_modify(struct pyksm *m, struct vm_area_struct **vma, struct vm_area_struct *prev,
	       uint64_t start, uint64_t end, uint64_t flags)
{
	struct vm_area_struct *old = *vma, *merged;
	int err = 0;

	merged = vma_merge(m, old->vm_mm, prev, start, end, flags, old,
			   linear_page_index(old, start), old->node);
	if (!merged && start != old->vm_start)
		err = split_vma(m, old, start, true);
	if (!merged && !err && end != old->vm_end)
		err = split_vma(m, old, end, false);
	if (err)
		return err;
	*vma = merged ? merged : old;
	return 0;
}

int vma_modify_flags(struct pyksm *m, struct vm_area_struct **vma, struct vm_area_struct *prev,
		     uint64_t start, uint64_t end, uint64_t flags)
{
	int err = vma_modify(m, vma, prev, start, end, flags);

	if (!err)
		(*vma)->vm_flags = flags;
	return err;
}

/* ---- map and unmap ---- */
#define GIB (1ULL << 30)

static uint64_t get_unmapped_area(const struct mm_struct *mm, uint64_t len)
{
	uint64_t addr = 4 * GIB;
	const struct vm_area_struct *vma;

	for (vma = mm->mmap; vma; vma = vma->vm_next)
		if (vma->vm_end > addr)
			addr = (vma->vm_end + GIB - 1) & ~(GIB - 1);
	return len > TASK_SIZE || addr > TASK_SIZE - len ? 0 : addr;
}

static int check_free(const struct mm_struct *mm, uint64_t addr, uint64_t len)
{
	const struct vm_area_struct *vma;

	if (len > TASK_SIZE || addr > TASK_SIZE - len)
		return -ENOMEM;
	vma = find_vma(mm, addr);
	return vma && vma->vm_start < addr + len ? -EEXIST : 0;
}

int64_t do_mmap(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t len, int node)
{
	uint64_t flags = VM_READ | VM_WRITE, dirty = has(m, FEAT_SOFT_DIRTY) ? VM_SOFTDIRTY : 0;
	struct vm_area_struct *vma, *prev;
	int err;

	if (!addr)
		addr = get_unmapped_area(mm, len);
	if (!addr)
		return -ENOMEM;
	err = check_free(mm, addr, len);
	if (err)
		return err;
	prev = vma_before(mm, addr);
	if (has(m, FEAT_MERGE_ANY_JOINS_VMAS)) /* cf7e7a3503df */
		flags = ksm_vma_flags(m, mm, flags);
	vma = vma_merge(m, mm, prev, addr, addr + len, flags, NULL, addr >> PAGE_SHIFT, node);
	if (vma) {
		vma->vm_flags |= dirty;
		return (int64_t)addr;
	}
	vma = kmem_alloc(m, POOL_VMA);
	if (!vma)
		return -ENOMEM;
	vma->vm_mm = mm;
	vma->vm_start = addr;
	vma->vm_end = addr + len;
	vma->vm_pgoff = addr >> PAGE_SHIFT;
	if (!has(m, FEAT_MERGE_ANY_JOINS_VMAS))
		flags = ksm_vma_flags(m, mm, flags);
	vma->vm_flags = flags | dirty;
	vma->node = node;
	INIT_LIST_HEAD(&vma->anon_vma_chain);
	vma_link(mm, vma);
	return (int64_t)addr;
}

/* mremap's destination: part of a neighbour or a vma of its own with the same anon_vmas. */
struct vm_area_struct *copy_vma(struct pyksm *m, struct vm_area_struct **vmap, uint64_t addr,
				uint64_t len, uint64_t pgoff)
{
	struct vm_area_struct *vma = *vmap, *new;
	struct mm_struct *mm = vma->vm_mm;
	uint64_t start = vma->vm_start;

	if (!vma->anon_vma)
		pgoff = addr >> PAGE_SHIFT; /* never faulted: no page has an index in it */
	new = vma_merge(m, mm, vma_before(mm, addr), addr, addr + len, vma->vm_flags, vma, pgoff,
			vma->node);
	if (new) {
		if (start >= new->vm_start && start < new->vm_end)
			*vmap = new; /* the source itself was merged into */
		return new;
	}
	new = kmem_alloc(m, POOL_VMA);
	if (!new)
		return NULL;
	*new = *vma;
	new->vm_start = addr;
	new->vm_end = addr + len;
	new->vm_pgoff = pgoff;
	INIT_LIST_HEAD(&new->anon_vma_chain);
	if (anon_vma_clone(m, new, vma)) {
		kmem_free(m, POOL_VMA, new);
		return NULL;
	}
	vma_link(mm, new);
	return new;
}

/* Cut the border vmas so that [start, end) is whole vmas; *first is the first of them. */
static int isolate_range(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t end,
			 struct vm_area_struct **first)
{
	struct vm_area_struct *vma = find_vma(mm, start), *last;
	int err;

	*first = NULL;
	if (!vma || vma->vm_start >= end)
		return 0;
	if (vma->vm_flags & VM_SEALED)
		return -EPERM;
	if (start > vma->vm_start) {
		err = split_vma(m, vma, start, false);
		if (err)
			return err;
		vma = vma->vm_next;
	}
	if (is_sealed(vma, end))
		return -EPERM;
	last = find_vma(mm, end);
	if (last && end > last->vm_start) {
		err = split_vma(m, last, end, true);
		if (err)
			return err;
		if (last == vma)
			vma = last->vm_prev;
	}
	*first = vma;
	return 0;
}

/* Zap and free the vmas from first up to end; they leave the mm first, as nobody may find them now. */
static void unmap_region(struct pyksm *m, struct mm_struct *mm, struct vm_area_struct *first,
			 uint64_t end)
{
	struct mmu_gather tlb = { NULL, 0, 0 };
	uint64_t start = first->vm_start;
	struct vm_area_struct *vma, *next, *last = first;

	for (vma = first; vma && vma->vm_start < end; vma = next) {
		next = vma->vm_next;
		rb_erase(&vma->vm_rb, &mm->mm_rb);
		last = vma;
	}
	if (first->vm_prev)
		first->vm_prev->vm_next = last->vm_next;
	else
		mm->mmap = last->vm_next;
	if (last->vm_next)
		last->vm_next->vm_prev = first->vm_prev;
	last->vm_next = NULL;
	lru_add_drain_before_zap(m);
	for (vma = first; vma; vma = vma->vm_next)
		unmap_single_vma(m, &tlb, vma, vma->vm_start, vma->vm_end);
	for (vma = first; vma; vma = vma->vm_next)
		unlink_anon_vmas(m, vma);
	free_pgtables_range(m, mm, start, end);
	tlb_finish_mmu(m, &tlb);
	for (vma = first; vma; vma = next) {
		next = vma->vm_next;
		kmem_free(m, POOL_VMA, vma);
	}
}

int do_munmap(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len)
{
	struct vm_area_struct *first;
	int err = isolate_range(m, mm, start, start + len, &first);

	if (!err && first) {
		munlock_vmas(m, first, start + len);
		unmap_region(m, mm, first, start + len);
	}
	return err;
}

void exit_mmap(struct pyksm *m, struct mm_struct *mm)
{
	munlock_vmas(m, mm->mmap, TASK_SIZE);
	lru_add_drain_before_zap(m);
	if (mm->mmap)
		unmap_region(m, mm, mm->mmap, TASK_SIZE);
	free_pgd(m, mm);
}
