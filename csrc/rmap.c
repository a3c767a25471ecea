/* SPDX-License-Identifier: MIT */
/* anon_vmas, and finding the ptes of a page through them (kernel: mm/rmap.c). */
#include "internal.h"

/* ---- anon_vma life ---- */
static struct anon_vma *anon_vma_alloc(struct pyksm *m)
{
	struct anon_vma *av = kmem_alloc(m, POOL_ANON_VMA);

	if (!av)
		return NULL;
	av->refcount = 1;
	av->root = av;
	av->parent = av;
	av->id = ++m->anon_id;
	anon_vma_tree_init(av);
	list_add_tail(&av->all, &m->anon_vmas);
	return av;
}

void put_anon_vma(struct pyksm *m, struct anon_vma *av)
{
	struct anon_vma *root = av->root;

	assert(av->refcount > 0);
	if (--av->refcount)
		return;
	/* Who has come here by a page and has the lock may still be looking at the tree. */
	if (sched_locked(m, anon_vma_rwsem(root)))
		sched_wait(m, PT_ANON_VMA_FREE, anon_vma_rwsem(root));
	list_del_init(&av->all);
	av->id = 0; /* pages that still point here must not take a successor for it */
	kmem_free(m, POOL_ANON_VMA, av);
	if (root != av)
		put_anon_vma(m, root);
}

/* For a series of anon_vmas, as a rule of one root: its lock is taken once. Which root's is had is returned. */
static struct anon_vma *lock_anon_vma_root(struct pyksm *m, struct anon_vma *root,
					   struct anon_vma *av, enum sched_point point)
{
	if (!in_task(m) || av->root == root)
		return root;
	if (root)
		anon_vma_unlock(m, root);
	anon_vma_lock_write(m, av, point);
	return av->root;
}

static void unlock_anon_vma_root(struct pyksm *m, struct anon_vma *root)
{
	if (root)
		anon_vma_unlock(m, root);
}

static void anon_vma_chain_link(struct vm_area_struct *vma, struct anon_vma_chain *avc,
				struct anon_vma *av)
{
	avc->vma = vma;
	avc->anon_vma = av;
	list_add(&avc->same_vma, &vma->anon_vma_chain);
	anon_vma_interval_tree_insert(avc, av);
}

/* Give vma an anon_vma: a neighbour's if it is willing, else a new one. */
int anon_vma_prepare(struct pyksm *m, struct vm_area_struct *vma)
{
	struct anon_vma_chain *avc;
	struct anon_vma *av;
	bool fresh = false, raced;

	COUNT(m, anon_vma_prepare);
	if (vma->anon_vma)
		return 0;
	avc = kmem_alloc(m, POOL_AVC);
	if (!avc)
		return -ENOMEM;
	av = find_mergeable_anon_vma(vma);
	if (!av) {
		av = anon_vma_alloc(m);
		if (!av) {
			kmem_free(m, POOL_AVC, avc);
			return -ENOMEM;
		}
		av->num_children++;
		fresh = true;
	}
	anon_vma_lock_write(m, av, PT_ANON_VMA_PREPARE);
	raced = vma->anon_vma; /* others fault in this vma too */
	if (!raced) {
		vma->anon_vma = av;
		vma->written = true;
		av->num_active_vmas++;
		anon_vma_chain_link(vma, avc, av);
	}
	anon_vma_unlock(m, av);
	if (raced)
		kmem_free(m, POOL_AVC, avc);
	if (raced && fresh)
		put_anon_vma(m, av);
	return 0;
}

/*
 * Would a child's pages be as well off with this anon_vma of its parent's as with one of its own? With chains
 * of forks whose ancestors have exited this keeps their number down (7a3ef208e662, 3.19). The degree that was
 * asked at first could be low with vmas still using it: 2555283eb40d (6.0).
 */
static bool may_reuse(const struct pyksm *m, const struct anon_vma *av,
		      const struct vm_area_struct *src)
{
	if (has(m, FEAT_ANON_VMA_ACTIVE_VMAS) && !bugged(m, BUG_ANONVMA_DOUBLE_REUSE))
		return src->anon_vma && av->num_children < 2 && !av->num_active_vmas;
	return has(m, FEAT_ANON_VMA_REUSE) && av != src->anon_vma &&
	       av->num_children + av->num_active_vmas < 2;
}

/* Attach dst to every anon_vma of src, in the same order; one of them becomes its own where it has none. */
int anon_vma_clone(struct pyksm *m, struct vm_area_struct *dst, struct vm_area_struct *src)
{
	struct anon_vma *root = NULL;
	struct list_head *pos;

	COUNT(m, anon_vma_clone);
	for (pos = src->anon_vma_chain.prev; pos != &src->anon_vma_chain; pos = pos->prev) {
		struct anon_vma_chain *old = container_of(pos, struct anon_vma_chain, same_vma);
		struct anon_vma_chain *avc = kmem_alloc(m, POOL_AVC);

		if (!avc) { /* the first try must not sleep, the second may */
			unlock_anon_vma_root(m, root);
			root = NULL;
			avc = kmem_alloc(m, POOL_AVC);
		}
		if (!avc) {
			if (!bugged(m, BUG_ANONVMA_DEGREE_UNDERFLOW_ENOMEM))
				dst->anon_vma = NULL; /* it has not been counted yet */
			unlink_anon_vmas(m, dst);
			return -ENOMEM;
		}
		root = lock_anon_vma_root(m, root, old->anon_vma, PT_ANON_VMA_CLONE);
		anon_vma_chain_link(dst, avc, old->anon_vma);
		if (!dst->anon_vma && may_reuse(m, old->anon_vma, src))
			dst->anon_vma = old->anon_vma;
	}
	if (dst->anon_vma)
		dst->anon_vma->num_active_vmas++;
	unlock_anon_vma_root(m, root);
	return 0;
}

/* The child joins all of the parent's anon_vmas and gets one of its own for the pages it will make. */
int anon_vma_fork(struct pyksm *m, struct vm_area_struct *vma, struct vm_area_struct *pvma)
{
	struct anon_vma_chain *avc;
	struct anon_vma *av;

	COUNT(m, anon_vma_fork);
	if (!pvma->anon_vma)
		return 0;
	vma->anon_vma = NULL;
	if (anon_vma_clone(m, vma, pvma))
		return -ENOMEM;
	if (vma->anon_vma)
		return 0;
	av = anon_vma_alloc(m);
	avc = av ? kmem_alloc(m, POOL_AVC) : NULL;
	if (!avc) {
		if (av)
			put_anon_vma(m, av);
		unlink_anon_vmas(m, vma);
		return -ENOMEM;
	}
	av->root = pvma->anon_vma->root;
	av->parent = pvma->anon_vma;
	av->num_active_vmas++;
	get_anon_vma(av->root);
	vma->anon_vma = av;
	anon_vma_lock_write(m, av, PT_ANON_VMA_FORK);
	av->parent->num_children++;
	anon_vma_chain_link(vma, avc, av);
	anon_vma_unlock(m, av);
	return 0;
}

void unlink_anon_vmas(struct pyksm *m, struct vm_area_struct *vma)
{
	struct anon_vma *root = NULL;
	struct list_head *pos, *next;

	COUNT(m, unlink_anon_vmas);
	list_for_each_safe (pos, next, &vma->anon_vma_chain) {
		struct anon_vma_chain *avc = container_of(pos, struct anon_vma_chain, same_vma);

		root = lock_anon_vma_root(m, root, avc->anon_vma, PT_UNLINK_ANON_VMAS);
		anon_vma_interval_tree_remove(avc, avc->anon_vma);
		if (!avc->anon_vma->rb_root.node) {
			avc->anon_vma->parent->num_children--;
			continue; /* the last one: the anon_vma goes below, children before root */
		}
		list_del_init(&avc->same_vma);
		kmem_free(m, POOL_AVC, avc);
	}
	if (vma->anon_vma)
		vma->anon_vma->num_active_vmas--;
	unlock_anon_vma_root(m, root);
	list_for_each_safe (pos, next, &vma->anon_vma_chain) {
		struct anon_vma_chain *avc = container_of(pos, struct anon_vma_chain, same_vma);

		put_anon_vma(m, avc->anon_vma);
		list_del_init(&avc->same_vma);
		kmem_free(m, POOL_AVC, avc);
	}
}

/* Somebody has the lock: to wait for it the owner must be kept from going meanwhile. */
static struct anon_vma *page_pin_and_lock_anon_vma(struct pyksm *m, const struct page *page,
						   struct anon_vma *av)
{
	if (!page_mapped(page))
		return NULL;
	get_anon_vma(av);
	anon_vma_lock_read(m, av, PT_PAGE_LOCK_ANON_VMA_WAIT);
	if (av->refcount > 1) {
		av->refcount--; /* now the lock keeps it */
		return av;
	}
	anon_vma_unlock(m, av);
	put_anon_vma(m, av);
	return NULL;
}

/*
 * For a walk that starts from the page: only while something maps it is the owner sure to live. It is looked up
 * without a lock, so what it is known by must be asked again once its root is locked.
 */
static struct anon_vma *page_lock_anon_vma_read(struct pyksm *m, const struct page *page)
{
	struct anon_vma *av = page_mapped(page) ? page_anon_vma(page) : NULL;
	struct lock_id lock;

	if (!av || !in_task(m))
		return av;
	lock = anon_vma_rwsem(av);
	if (!sched_trylock(m, PT_PAGE_LOCK_ANON_VMA, lock, false))
		return page_pin_and_lock_anon_vma(m, page, av);
	if (page_mapped(page))
		return av;
	sched_unlock(m, lock);
	return NULL;
}

/* For one that goes on when nothing may map it any more. */
struct anon_vma *page_get_anon_vma(struct pyksm *m, struct page *page)
{
	struct anon_vma *av = page_mapped(page) ? page_anon_vma(page) : NULL;

	if (!av)
		return NULL;
	sched_point(m, PT_PAGE_GET_ANON_VMA);
	if (!page_mapped(page))
		return NULL;
	get_anon_vma(av);
	return av;
}

/* The root test: does vma belong to the family that owns the page? */
bool page_in_family(const struct page *page, const struct vm_area_struct *vma)
{
	const struct anon_vma *av = page_anon_vma(page);

	return av && vma->anon_vma && av->root == vma->anon_vma->root;
}

static uint64_t vma_address(const struct page *page, const struct vm_area_struct *vma)
{
	return vma->vm_start + ((page->index - vma->vm_pgoff) << PAGE_SHIFT);
}

/*
 * Where page would be in vma, were it there. The root test came in 2.6.36; it keeps swapoff from
 * re-reading for every anon_vma of one family.
 */
uint64_t page_address_in_vma(struct pyksm *m, const struct page *page,
			     const struct vm_area_struct *vma)
{
	uint64_t addr;

	COUNT(m, page_address_in_vma);
	if (bugged(m, BUG_KSM_HALF_PAGE_OOPS) && page_anon_vma(page)->root != vma->anon_vma->root)
		return BAD_ADDRESS;
	if (!page_in_family(page, vma))
		return BAD_ADDRESS;
	addr = vma_address(page, vma);
	return addr < vma->vm_start || addr >= vma->vm_end ? BAD_ADDRESS : addr;
}

/*
 * The pte at addr with its lock, if it maps page, else NULL. One that is not present is not waited for.
 */
static EXPANDED pte_t *__page_check_address(struct pyksm *m, const struct page *page,
					    struct mm_struct *mm, uint64_t addr,
					    enum sched_point point)
{
	pte_t *pte = pte_lookup(mm, addr);

	if (!pte || !pte_present(*pte))
		return NULL;
	pte_lock(m, mm, addr, point);
	if (pte_maps(m, *pte, page))
		return pte;
	pte_unlock(m, mm, addr);
	return NULL;
}

pte_t *page_check_address(struct pyksm *m, const struct page *page, struct mm_struct *mm,
			  uint64_t addr, enum sched_point point)
{
	return __page_check_address(m, page, mm, addr, point);
}

/* ---- mapping counts and owners ---- */
/*
 * Debug check: a page mapped once more must be in its owner's family, at its owner's index.
 * The kernel would stop here; the model reports and goes on.
 */
static RARELY void __page_check_anon_rmap(struct pyksm *m, struct page *page,
					  struct vm_area_struct *vma, uint64_t addr)
{
	if (!page_in_family(page, vma))
		event(m, "BUG_ON __page_check_anon_rmap root");
	if (page->index != linear_page_index(vma, addr))
		event(m, "BUG_ON __page_check_anon_rmap index");
}

static void set_page_anon_vma(struct page *page, struct anon_vma *av)
{
	page->mapping = (uintptr_t)av | PAGE_MAPPING_ANON;
	page->anon_id = av->id;
}

/* Early return: a page that has an owner keeps it, unmapped in between or not, and nothing is checked. */
static void __page_set_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
				 uint64_t addr, bool exclusive)
{
	if (PageAnon(page))
		return;
	/* Not exclusive: any ancestor or descendant may share it, and only the root's tree has them all. */
	exclusive |= bugged(m, BUG_ANONVMA_NOT_OLDEST);
	set_page_anon_vma(page, exclusive ? vma->anon_vma : vma->anon_vma->root);
	page->index = linear_page_index(vma, addr);
}

void do_page_add_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			   uint64_t addr, bool exclusive)
{
	bool first = ++page->_mapcount == 0;

	if (__builtin_expect(vma->vm_flags & VM_LOCKED, 0) &&
	    (PageAnon(page) || !has(m, FEAT_SWAPIN_MISSES_MLOCK)))
		rmap_mlock(m, page, vma);
	if (PageKsm(page))
		return;
	if (first)
		__page_set_anon_rmap(m, page, vma, addr, exclusive);
	else
		__page_check_anon_rmap(m, page, vma, addr);
	if (exclusive && has(m, FEAT_ANON_EXCLUSIVE))
		page->flags |= PG_anon_exclusive;
}

void page_add_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			uint64_t addr)
{
	do_page_add_anon_rmap(m, page, vma, addr, false);
}

void page_add_new_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			    uint64_t addr)
{
	page->flags |= PG_swapbacked;
	/* Of all new pages only ksm_might_need_to_copy()'s are locked. */
	if (!(page->flags & PG_locked) || !bugged(m, BUG_KSM_COPIED_PAGE_UNCHARGED))
		page->flags |= PG_charged;
	if (has(m, FEAT_ANON_EXCLUSIVE))
		page->flags |= PG_anon_exclusive;
	page->_mapcount = 0;
	__page_set_anon_rmap(m, page, vma, addr, true);
	if (__builtin_expect(vma->vm_flags & VM_LOCKED, 0)) {
		mlock_new_page(m, page);
		return;
	}
	if (!has(m, FEAT_KEEP_YOUNG_ONCE))
		page->flags |= PG_active;
	lru_add(m, page);
}

/* A write by the only user makes the page this vma's own. */
void page_move_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma)
{
	set_page_anon_vma(page, vma->anon_vma);
	if (has(m, FEAT_ANON_EXCLUSIVE))
		page->flags |= PG_anon_exclusive;
}

void page_remove_rmap(struct pyksm *m, struct page *page, const struct vm_area_struct *vma)
{
	assert(page->_mapcount >= 0);
	page->_mapcount--; /* mapping stays: swap cache pages are looked up by it */
	if (__builtin_expect(page->flags & PG_mlocked || vma->vm_flags & VM_LOCKED, 0))
		rmap_munlock(m, page, vma);
	else
		uncharge_page(m, page);
}

bool page_maybe_dma_pinned(const struct page *page)
{
	return page_count(page) >= GUP_PIN_COUNTING_BIAS;
}

/* Before an exclusive page's pte goes: from now on it may be shared. false: somebody may have it pinned. */
bool page_try_share_anon_rmap(struct page *page)
{
	if (page_maybe_dma_pinned(page))
		return false;
	page->flags &= ~(uint32_t)PG_anon_exclusive;
	return true;
}

/* ---- walks ---- */
/* KVM has tables of its own and hears of each pte that is looked at; in whole pages, it insists on ARM. */
static inline void mmu_notifier(struct pyksm *m, uint64_t addr)
{
#ifdef PYKSM_TASKS
	if (addr & ~PAGE_MASK)
		event(m, "kvm_age_hva_handler WARN_ON size");
#else
	(void)m, (void)addr;
#endif
}

#define for_each_vma_of_page(m, avc, av, page)                                                     \
	for ((avc) = anon_vma_interval_tree_first(m, av, (page)->index, (page)->index); (avc);     \
	     (avc) = anon_vma_interval_tree_next(m, avc, (page)->index, (page)->index))

/* Was its pte used? (*mapcount)--: there is one. A locked vma that maps it ends the walk: that is all there is to know. */
int page_referenced_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			uint64_t addr, int *mapcount)
{
	pte_t *pte;
	int young;

	COUNT(m, page_referenced_one);
	pte = __page_check_address(m, page, vma->vm_mm, addr, PT_REFERENCED_PTL);
	if (!pte)
		return 0;
	if (vma->vm_flags & VM_LOCKED) {
		rmap_mlock(m, page, vma); /* a lock that was missed */
		pte_unlock(m, vma->vm_mm, addr);
		*mapcount = 0;
		return REFERENCED_LOCKED;
	}
	mmu_notifier(m, addr);
	young = !!(*pte & _PAGE_ACCESSED);
	*pte &= ~_PAGE_ACCESSED;
	pte_unlock(m, vma->vm_mm, addr);
	(*mapcount)--;
	return young;
}

static int page_referenced_anon(struct pyksm *m, struct page *page)
{
	struct anon_vma *av = page_lock_anon_vma_read(m, page);
	struct anon_vma_chain *avc;
	int mapcount = page_mapcount(page), referenced = 0;

	if (!av)
		return 0;
	for_each_vma_of_page(m, avc, av, page)
	{
		referenced += page_referenced_one(m, page, avc->vma, vma_address(page, avc->vma),
						  &mapcount);
		if (!mapcount)
			break;
	}
	anon_vma_unlock(m, av);
	return referenced;
}

/*
 * How many ptes have used the page since they were last asked; they forget it now. A KSM page's items can only be
 * walked with the page locked: one that somebody else has locked counts as used. And REFERENCED_LOCKED if a locked vma
 * was met.
 */
int page_referenced(struct pyksm *m, struct page *page, bool locked)
{
	int referenced;

	if (!page_mapped(page) || !(page->mapping & ~PAGE_MAPPING_FLAGS))
		return 0;
	if (!PageKsm(page))
		return page_referenced_anon(m, page);
	if (!locked && !trylock_page(m, page, PT_REFERENCED_TRYLOCK))
		return 1;
	referenced = page_referenced_ksm(m, page);
	if (!locked)
		unlock_page(m, page);
	return referenced;
}

static pte_t swp_pte_of(const struct pyksm *m, swp_entry_t entry, pte_t old)
{
	pte_t pte = swp_entry_to_pte(m, entry);

	return has(m, FEAT_SOFT_DIRTY) && (old & _PAGE_SOFT_DIRTY) ? pte | swp_soft_dirty(m) : pte;
}

static int unmap_to_swap(struct pyksm *m, struct page *page, struct mm_struct *mm, pte_t *pte,
			 pte_t old)
{
	bool exclusive = page->flags & PG_anon_exclusive;
	swp_entry_t entry = { page->private };

	if (swap_duplicate(m, entry) < 0) {
		*pte = old;
		return SWAP_FAIL;
	}
	if (exclusive && !page_try_share_anon_rmap(page)) {
		if (!bugged(m, BUG_UNMAP_FAILURE_LEAKS_SWAP_COUNT))
			swap_free(m, entry);
		*pte = old;
		return SWAP_FAIL;
	}
	mmlist_add(m, mm, &m->swap.init_mm.mmlist);
	mm->anon_rss--;
	mm->swapents++;
	*pte = swp_pte_of(m, entry, old) | (exclusive ? swp_exclusive(m) : 0);
	return SWAP_AGAIN;
}

/* Kernel: in try_to_unmap_one, from 5.14 try_to_migrate_one. */
static int unmap_to_migration(struct pyksm *m, struct page *page, pte_t *pte, pte_t old)
{
	enum migration_kind kind = old & _PAGE_RW ? MIGRATION_WRITE : MIGRATION_READ;
	swp_entry_t entry;

	if (page->flags & PG_anon_exclusive) {
		if (!page_try_share_anon_rmap(page)) {
			*pte = old;
			return SWAP_FAIL;
		}
		if (kind == MIGRATION_READ)
			kind = MIGRATION_READ_EXCLUSIVE;
	}
	entry = make_migration_entry(m, kind, page_to_pfn(m, page));
	if (has(m, FEAT_MIGRATION_KEEPS_YOUNG))
		entry.val |= (old & _PAGE_ACCESSED ? SWP_MIG_YOUNG : 0) |
			     (old & _PAGE_DIRTY ? SWP_MIG_DIRTY : 0);
	*pte = swp_pte_of(m, entry, old);
	return SWAP_AGAIN;
}

/* Under its lock. */
static EXPANDED int unmap_pte(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			      pte_t *pte, enum ttu_flags flags)
{
	struct mm_struct *mm = vma->vm_mm;
	uint32_t charged;
	pte_t old;
	int ret;

	if (flags == TTU_UNMAP && (*pte & _PAGE_ACCESSED) && !has(m, FEAT_UNMAP_IGNORES_YOUNG)) {
		*pte &= ~_PAGE_ACCESSED;
		return SWAP_FAIL;
	}
	old = *pte;
	*pte = 0;
	if (old & _PAGE_DIRTY)
		page->flags |= PG_dirty;
	/* At first a page in swap cache went to swap entries even when it was migration that asked. */
	if ((page->flags & PG_swapcache) &&
	    (flags == TTU_UNMAP || !has(m, FEAT_MIGRATE_SWAPCACHE_ENTRIES)))
		ret = unmap_to_swap(m, page, mm, pte, old);
	else
		ret = unmap_to_migration(m, page, pte, old);
	if (ret == SWAP_FAIL)
		return ret;
	charged = page->flags & PG_charged;
	page_remove_rmap(m, page, vma);
	if (flags == TTU_MIGRATION) {
		page->flags |= charged; /* it is not gone, only on its way */
		migrated_mlock(m, vma);
	}
	put_page(m, page);
	return SWAP_AGAIN;
}

/*
 * Not here: the vma is locked. The mark has been missed, or taken away with another mapping. The pte lock, which is
 * let go, is enough to set it since 4.4 (b87537d9e2fe); before, whoever could not have mmap_sem left it.
 */
static RARELY int unmap_mlocked(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
				uint64_t addr)
{
	struct mm_struct *mm = vma->vm_mm;
	bool now = has(m, FEAT_MLOCK_UNDER_PTE_LOCK) || has(m, FEAT_MLOCK_COUNT), mine;
	int ret = SWAP_AGAIN;

	if (now)
		restore_mlock(m, page, vma);
	pte_unlock(m, mm, addr);
	if (now)
		return SWAP_MLOCK;
	mine = sched_mine(m, mmap_sem(mm));
	if (mm->writer || (!mine && !down_read_trylock(m, mm, PT_UNMAP_MMAP_SEM_TRYLOCK)))
		return ret;
	if (vma->vm_flags & VM_LOCKED) {
		mlock_vma_page(m, page);
		ret = SWAP_MLOCK;
	}
	if (!mine)
		up_read(m, mm);
	return ret;
}

int try_to_unmap_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma, uint64_t addr,
		     enum ttu_flags flags)
{
	struct mm_struct *mm = vma->vm_mm;
	pte_t *pte;
	int ret;

	COUNT(m, try_to_unmap_one);
	pte = __page_check_address(m, page, mm, addr, PT_UNMAP_PTL);
	if (!pte)
		return SWAP_AGAIN;
	if (vma->vm_flags & VM_LOCKED && flags != TTU_MIGRATION)
		return unmap_mlocked(m, page, vma, addr);
	ret = flags == TTU_MUNLOCK ? SWAP_AGAIN : unmap_pte(m, page, vma, pte, flags);
	pte_unlock(m, mm, addr);
	return ret;
}

static int try_to_unmap_anon(struct pyksm *m, struct page *page, enum ttu_flags flags)
{
	struct anon_vma *av = page_lock_anon_vma_read(m, page);
	struct anon_vma_chain *avc;
	int ret = SWAP_AGAIN;

	if (!av)
		return ret;
	for_each_vma_of_page(m, avc, av, page)
	{
		ret = try_to_unmap_one(m, page, avc->vma, vma_address(page, avc->vma), flags);
		if (ret != SWAP_AGAIN || !page_mapped(page))
			break;
	}
	anon_vma_unlock(m, av);
	return ret;
}

int try_to_unmap(struct pyksm *m, struct page *page, enum ttu_flags flags)
{
	int ret;

	COUNT(m, try_to_unmap);
	ret = PageKsm(page) ? try_to_unmap_ksm(m, page, flags) : try_to_unmap_anon(m, page, flags);
	return page_mapped(page) ? ret : SWAP_SUCCESS;
}

/* Does another vma lock the page? Then it is marked again. */
void try_to_munlock(struct pyksm *m, struct page *page)
{
	if (PageKsm(page))
		try_to_unmap_ksm(m, page, TTU_MUNLOCK);
	else
		try_to_unmap_anon(m, page, TTU_MUNLOCK);
}

/* Every place that a migration entry for the page may stand in. The caller has pinned the owner. */
static int rmap_walk_anon(struct pyksm *m, struct page *page, rmap_one_fn one, void *arg)
{
	struct anon_vma *av = page_anon_vma(page);
	struct anon_vma_chain *avc;
	int ret = SWAP_AGAIN;

	if (!av)
		return ret;
	anon_vma_lock_read(m, av, PT_RMAP_WALK_ANON);
	assert(av->id == page->anon_id);
	for_each_vma_of_page(m, avc, av, page)
	{
		ret = one(m, page, avc->vma, vma_address(page, avc->vma), arg);
		if (ret != SWAP_AGAIN)
			break;
	}
	anon_vma_unlock(m, av);
	return ret;
}

int rmap_walk(struct pyksm *m, struct page *page, rmap_one_fn one, void *arg)
{
	if (PageKsm(page))
		return rmap_walk_ksm(m, page, one, arg);
	return PageAnon(page) ? rmap_walk_anon(m, page, one, arg) : SWAP_AGAIN;
}

static int count_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma, uint64_t addr,
		     void *arg)
{
	const pte_t *pte = pte_lookup(vma->vm_mm, addr);

	*(int *)arg += pte && pte_maps(m, *pte, page);
	return SWAP_AGAIN;
}

/* A walk for its own sake: how often it comes upon a pte that maps the page at addr. */
int count_rmap(struct pyksm *m, const struct mm_struct *mm, uint64_t addr)
{
	const struct vm_area_struct *vma = find_vma(mm, addr);
	struct page *page;
	int n = 0;

	if (!vma || vma->vm_start > addr)
		return -EFAULT;
	page = present_page(m, mm, addr);
	if (!page || page == zero_page(m))
		return -ENOENT;
	rmap_walk(m, page, count_one, &n);
	return n;
}
