/* SPDX-License-Identifier: MIT */
/* What the files of the core offer each other, file by file. */
#ifndef PYKSM_INTERNAL_H
#define PYKSM_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "kernel_bugs.h"
#include "kernel_features.h"
#include "mm_types.h"
#include "ksched.h"
#include "trace.h"

#define COUNT(m, name) COUNT_N(m, name, 1)
#define COUNT_N(m, name, n) (trace_count(m, CNT_##name, false), (m)->count[CNT_##name] += (n))
/* Of those that decide how things go on, which count_decides() knows. */
#define COUNTED(m, name) (trace_count(m, CNT_##name, true), (m)->count[CNT_##name])

/* Off the way that is taken a million times: its registers need not be saved there. */
#define RARELY __attribute__((noinline, cold))
/* Small, or smaller by far once its arguments are known. */
#define EXPANDED inline __attribute__((always_inline))

#ifndef PYKSM_TASKS
static inline void sched_point(struct pyksm *m, enum sched_point point)
{
	if (point >= NR_HOOK_POINTS || __builtin_expect(!m->hook || m->in_hook, 1))
		return; /* what a hook does is not interrupted in turn */
	m->in_hook = true;
	m->hook(m->hook_arg, (int)point);
	m->in_hook = false;
}
#endif

/* May other work come in between, at some schedule point? */
static inline bool may_be_disturbed(const struct pyksm *m)
{
	return (m->hook && !m->in_hook) || in_task(m);
}

/* Is that bug of the museum switched in? Only the build with tasks has them. */
static inline bool bugged(const struct pyksm *m, enum bug bug)
{
#ifdef PYKSM_TASKS
	return (m->bugs.word[bug / 64] >> bug % 64) & 1;
#else
	(void)m, (void)bug;
	return false;
#endif
}

/* Is any? Then what always comes to an end may not. */
static inline bool any_bug(const struct pyksm *m)
{
#ifdef PYKSM_TASKS
	return m->bugs.word[0] | m->bugs.word[1];
#else
	(void)m;
	return false;
#endif
}

static inline bool switched(const struct pyksm *m, enum pyksm_switch sw)
{
	return __builtin_expect((m->switches >> sw) & 1, 0);
}

/* Does this machine's kernel have it? pyksm/features.py has them all, with their commits. */
static inline bool has(const struct pyksm *m, enum feature feature)
{
	return (m->features.word[feature / 64] >> feature % 64) & 1;
}

/* features.c */
int features_of(const struct pyksm_config *config, struct pyksm_feature_set *features);

/* pool.c */
void pools_release(struct pyksm *m);
int order_failure(struct pyksm *m, enum pyksm_fault_kind kind, uint64_t nth);
bool failure_is_due(struct pyksm *m, enum pyksm_fault_kind kind);
/* Has the time come for an ordered failure? Each is for one event only. */
static inline bool should_fail(struct pyksm *m, enum pyksm_fault_kind kind)
{
	return __builtin_expect(m->inject[kind][0] != 0, 0) && failure_is_due(m, kind);
}
uint64_t events_before_failure(struct pyksm *m, enum pyksm_fault_kind kind, uint64_t n);
void event(struct pyksm *m, const char *name);
void *kmem_alloc(struct pyksm *m, enum pool_id id); /* zeroed, a site of PYKSM_FAIL_KMEM */
void kmem_free(struct pyksm *m, enum pool_id id, void *obj);
void *pool_get(struct pyksm *m, enum pool_id id); /* the same without being such a site */
void *grow(struct pyksm *m, void *array, size_t *max, size_t need, size_t size);
/* machine.c */
struct process *find_process(struct pyksm *m, int pid);

static inline bool signal_pending(struct pyksm *m)
{
	return should_fail(m, PYKSM_FAIL_SIGNAL);
}

/* page_alloc.c */
int page_alloc_init(struct pyksm *m, uint64_t frames);
struct page *alloc_pages_node(struct pyksm *m, int nid, bool bound);
struct page *alloc_page_vma(struct pyksm *m, const struct vm_area_struct *vma);
void free_page(struct pyksm *m, struct page *page);
/* Whoever uses a free frame has found it by a pointer that he had no right to. */
static inline void check_not_free(const struct page *page)
{
#ifdef PYKSM_TASKS
	if (__builtin_expect(page->flags & PG_buddy, 0))
		oops_free_page(page);
#else
	(void)page;
#endif
}
static inline void put_page(struct pyksm *m, struct page *page)
{
	check_not_free(page);
	assert(page->_count > 0);
	if (--page->_count == 0)
		free_page(m, page);
}
static inline uint64_t page_to_pfn(const struct pyksm *m, const struct page *page)
{
	return (uint64_t)(page - m->mem_map);
}
static inline struct page *pfn_to_page(const struct pyksm *m, uint64_t pfn)
{
	return &m->mem_map[pfn];
}
static inline struct page *zero_page(const struct pyksm *m)
{
	return pfn_to_page(m, 0);
}
/* content.c */
#define BUFFER_SHIFT 14
#define SEGMENT_BUFFERS (1u << BUFFER_SHIFT) /* 64 MiB of whole pages */
static inline unsigned char *buffer_content(const struct pyksm *m, uint32_t id)
{
	return m->buffers.segments[id >> BUFFER_SHIFT].bytes + id % SEGMENT_BUFFERS * m->page_size;
}
static inline uint32_t *buffer_refs(const struct pyksm *m, uint32_t id)
{
	return &m->buffers.segments[id >> BUFFER_SHIFT].refs[id % SEGMENT_BUFFERS];
}
static inline const unsigned char *page_content(const struct pyksm *m, const struct page *page)
{
	if (__builtin_expect(m->transfer == PYKSM_TRANSFER_REFERENCE, 0))
		return buffer_content(m, page->buffer);
	return m->content + page_to_pfn(m, page) * m->page_size;
}
unsigned char *page_content_write(struct pyksm *m, struct page *page); /* to change some of it */
unsigned char *page_content_overwrite(struct pyksm *m, struct page *page); /* to change all of it */
void clear_highpage(struct pyksm *m, struct page *page);
void copy_user_highpage(struct pyksm *m, struct page *to, const struct page *from);
int content_init(struct pyksm *m, uint64_t frames);
void content_exit(struct pyksm *m);
int buffers_reserve(struct pyksm *m, uint64_t more);
void buffers_unreserve(struct pyksm *m, uint64_t fewer);
void share_buffer(struct pyksm *m, uint32_t *holder, uint32_t id);
void page_share_buffer(struct pyksm *m, struct page *page, uint32_t id);
/* What a free frame holds is nobody's: by reference it is let go at once. */
static inline void page_content_free(struct pyksm *m, struct page *page)
{
	if (page->buffer)
		share_buffer(m, &page->buffer, 0);
}
#define MANY_FRAMES (1 << 18) /* or slots: then huge pages are no waste */
static inline void get_page(struct page *page)
{
	check_not_free(page);
	page->_count++;
}
static inline int page_count(const struct page *page)
{
	return page->_count;
}
static inline int page_mapcount(const struct page *page)
{
	return page->_mapcount + 1;
}
static inline bool page_mapped(const struct page *page)
{
	return page->_mapcount >= 0;
}
static inline bool PageAnon(const struct page *page)
{
	return page->mapping & PAGE_MAPPING_ANON;
}
static inline bool PageKsm(const struct page *page)
{
	return (page->mapping & PAGE_MAPPING_FLAGS) == (PAGE_MAPPING_ANON | PAGE_MAPPING_KSM);
}
static inline struct lock_id page_lock(const struct page *page)
{
	return (struct lock_id){ LOCK_PAGE, page, 0 };
}
/* A page that nobody can have locked: it is new, or the reader of its content will unlock it. */
static inline void __set_page_locked(struct pyksm *m, struct page *page)
{
	sched_own(m, page_lock(page));
	page->flags |= PG_locked;
}
/* Without a point before it: under a leaf spinlock. */
static inline bool __trylock_page(struct pyksm *m, struct page *page)
{
	if (page->flags & PG_locked)
		return false;
	__set_page_locked(m, page);
	return true;
}
static inline bool trylock_page(struct pyksm *m, struct page *page, enum sched_point point)
{
	sched_point(m, point);
	return __trylock_page(m, page);
}
static inline void lock_page(struct pyksm *m, struct page *page, enum sched_point point)
{
#ifdef PYKSM_TASKS
	sched_lock(m, point, page_lock(page), true);
#else
	sched_point(m, point);
#endif
	assert(!(page->flags & PG_locked));
	page->flags |= PG_locked;
}
static inline void unlock_page(struct pyksm *m, struct page *page)
{
	page->flags &= ~(uint32_t)PG_locked;
	sched_unlock(m, page_lock(page));
}

/* threads.c */
#define MAX_PARTS 65535
typedef void (*part_fn)(void *arg, unsigned int part);
void for_each_part(struct pyksm *m, part_fn fn, void *arg, unsigned int parts);
void helper_exit(struct pyksm *m);

/* content_id.c */
void content_ids_exit(struct pyksm *m);

/* pgtable.c */
#define _PAGE_PRESENT (1ULL << 0)
#define _PAGE_RW (1ULL << 1)
#define _PAGE_USER (1ULL << 2)
#define _PAGE_ACCESSED (1ULL << 5)
#define _PAGE_DIRTY (1ULL << 6)
#define _PAGE_PROTNONE (1ULL << 8)
#define _PAGE_SPECIAL (1ULL << 9)
#define _PAGE_SOFT_DIRTY (1ULL << 11)
#define _PAGE_NX (1ULL << 63)
#define PTE_PFN_MASK 0x000ffffffffff000ULL
typedef struct {
	uint64_t val; /* type << 57 | offset */
} swp_entry_t;
static inline bool pte_present(pte_t pte)
{
	return pte & (_PAGE_PRESENT | _PAGE_PROTNONE);
}
static inline bool pte_none(pte_t pte)
{
	return pte == 0;
}
static inline uint64_t pte_pfn(pte_t pte)
{
	return (pte & PTE_PFN_MASK) >> PAGE_SHIFT;
}
static inline swp_entry_t swp_entry(unsigned int type, uint64_t offset)
{
	return (swp_entry_t){ (uint64_t)type << 57 | offset };
}
static inline unsigned int swp_type(swp_entry_t e)
{
	return (unsigned int)(e.val >> 57);
}
static inline uint64_t swp_offset(swp_entry_t e)
{
	return e.val & ((1ULL << 57) - 1);
}
/* From here on a type is no area but something that is no swap at all. */
static inline unsigned int max_swapfiles(const struct pyksm *m)
{
	return m->max_swapfiles;
}
static inline bool non_swap_entry(const struct pyksm *m, swp_entry_t e)
{
	return swp_type(e) >= max_swapfiles(m);
}
/*
 * x86-64. First: type in bits 1-5, offset from bit 9, as it is. Against L1TF (bcd11afa7ada, 4.19):
 * type in bits 59-63, offset inverted in bits 9-58, so that a small offset is no address of memory.
 */
#define SWP_OFFSET_INVERTED ((1ULL << 50) - 1)
static inline pte_t swp_entry_to_pte(const struct pyksm *m, swp_entry_t e)
{
	if (!has(m, FEAT_INVERTED_OFFSET))
		return (pte_t)swp_type(e) << 1 | swp_offset(e) << 9;
	return (pte_t)swp_type(e) << 59 | (~swp_offset(e) & SWP_OFFSET_INVERTED) << 9;
}
static inline swp_entry_t pte_to_swp_entry(const struct pyksm *m, pte_t pte)
{
	if (!has(m, FEAT_INVERTED_OFFSET))
		return swp_entry((unsigned int)(pte >> 1) & 31, pte >> 9);
	return swp_entry((unsigned int)(pte >> 59), ~(pte >> 9) & SWP_OFFSET_INVERTED);
}
/* Marks beside type and offset. In the old layout, where the type has bits 1-5, they are elsewhere: soft-dirty as
 * 3.11 had it, exclusive where no kernel did, for none had both. */
static inline pte_t swp_soft_dirty(const struct pyksm *m)
{
	return has(m, FEAT_INVERTED_OFFSET) ? 1ULL << 1 : 1ULL << 7;
}
static inline pte_t swp_exclusive(const struct pyksm *m)
{
	return has(m, FEAT_INVERTED_OFFSET) ? 1ULL << 3 : 1ULL << 6;
}
/* Is that pte the entry, whatever its marks? (kernel: pte_same_as_swp) Loops fetch the marks once. */
static inline pte_t swp_marks(const struct pyksm *m)
{
	return swp_soft_dirty(m) | swp_exclusive(m);
}
static inline bool pte_same_as_swp(pte_t pte, pte_t swp, pte_t marks)
{
	return (pte & ~marks) == swp;
}
/* Entries that are no swap: beyond the areas' types, in the kernel's order. */
enum migration_kind { MIGRATION_READ, MIGRATION_READ_EXCLUSIVE, MIGRATION_WRITE };
swp_entry_t make_migration_entry(const struct pyksm *m, enum migration_kind kind, uint64_t pfn);
/* Above the pfn: what the pte had been (2e3468778dbe, 6.1). */
#define SWP_MIG_YOUNG (1ULL << 40)
#define SWP_MIG_DIRTY (1ULL << 41)
static inline uint64_t migration_entry_pfn(swp_entry_t e)
{
	return swp_offset(e) & (SWP_MIG_YOUNG - 1);
}
bool is_migration_entry(const struct pyksm *m, swp_entry_t e, enum migration_kind *kind);
/* What swapoff leaves where it could not read (9f186f9e5fa9, a marker since af19487f00f3). */
swp_entry_t make_swapin_error_entry(const struct pyksm *m, const struct page *page);
bool is_swapin_error_entry(const struct pyksm *m, swp_entry_t e);
/* Private anonymous memory: never W here, so that a write has to fault. */
static inline uint64_t vm_page_prot(const struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & (VM_READ | VM_WRITE)))
		return _PAGE_PROTNONE | _PAGE_ACCESSED;
	return _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED | _PAGE_NX;
}
static inline pte_t mk_pte(const struct pyksm *m, const struct page *page,
			   const struct vm_area_struct *vma)
{
	return page_to_pfn(m, page) << PAGE_SHIFT | vm_page_prot(vma);
}
pte_t maybe_mkwrite(pte_t pte, const struct vm_area_struct *vma);
static inline pte_t pte_mkdirty(const struct pyksm *m, pte_t pte)
{
	return pte | _PAGE_DIRTY | (has(m, FEAT_SOFT_DIRTY) ? _PAGE_SOFT_DIRTY : 0);
}
/* Do writes have to fault so that clear_refs' reader learns of them? */
static inline bool pte_needs_soft_dirty_wp(const struct pyksm *m, const struct vm_area_struct *vma,
					   pte_t pte)
{
	return has(m, FEAT_SOFT_DIRTY) && !(vma->vm_flags & VM_SOFTDIRTY) &&
	       !(pte & _PAGE_SOFT_DIRTY);
}
pte_t *pgd_alloc(struct pyksm *m);
pte_t *pte_lookup(const struct mm_struct *mm, uint64_t addr); /* NULL: no table */
pte_t *pte_alloc_map(struct pyksm *m, struct mm_struct *mm,
		     uint64_t addr); /* NULL: no host memory */
pte_t *next_pte(const struct mm_struct *mm, uint64_t *addr, uint64_t end);
uint64_t next_table(const struct mm_struct *mm, uint64_t addr,
		    uint64_t end); /* skips absent ones */
void free_pgtables_range(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t end);
void free_pgd(struct pyksm *m, struct mm_struct *mm);

/* interval_tree.c */
void anon_vma_interval_tree_insert(struct anon_vma_chain *avc, struct anon_vma *av);
void anon_vma_interval_tree_remove(struct anon_vma_chain *avc, struct anon_vma *av);
struct anon_vma_chain *anon_vma_interval_tree_first(struct pyksm *m, struct anon_vma *av,
						    uint64_t first, uint64_t last);
struct anon_vma_chain *anon_vma_interval_tree_next(struct pyksm *m, struct anon_vma_chain *avc,
						   uint64_t first, uint64_t last);
void anon_vma_tree_init(struct anon_vma *av);

/* rmap.c */
enum ttu_flags { TTU_UNMAP, TTU_MIGRATION, TTU_MUNLOCK };
enum { SWAP_SUCCESS, SWAP_AGAIN, SWAP_FAIL, SWAP_MLOCK };
/* Beside the number of ptes: a VM_LOCKED vma maps the page. */
#define REFERENCED_LOCKED (1 << 30)
typedef int (*rmap_one_fn)(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			   uint64_t addr, void *arg);
int anon_vma_prepare(struct pyksm *m, struct vm_area_struct *vma);
int anon_vma_clone(struct pyksm *m, struct vm_area_struct *dst, struct vm_area_struct *src);
int anon_vma_fork(struct pyksm *m, struct vm_area_struct *vma, struct vm_area_struct *pvma);
void unlink_anon_vmas(struct pyksm *m, struct vm_area_struct *vma);
void put_anon_vma(struct pyksm *m, struct anon_vma *av);
static inline void get_anon_vma(struct anon_vma *av)
{
	av->refcount++;
}
/* What the kernel's page_anon_vma() != NULL asks: a KSM page has none, a dead owner still counts. */
static inline bool page_has_anon_vma(const struct page *page)
{
	return (page->mapping & PAGE_MAPPING_FLAGS) == PAGE_MAPPING_ANON;
}
/* ---- page to anon_vma, page to address ---- */
static inline struct anon_vma *page_anon_vma(const struct page *page)
{
	struct anon_vma *av = (struct anon_vma *)(page->mapping & ~PAGE_MAPPING_FLAGS);

	return page_has_anon_vma(page) && read_type_stable(&av->id) == page->anon_id ? av : NULL;
}
bool page_in_family(const struct page *page, const struct vm_area_struct *vma);
static inline uint64_t linear_page_index(const struct vm_area_struct *vma, uint64_t addr)
{
	return ((addr - vma->vm_start) >> PAGE_SHIFT) + vma->vm_pgoff;
}
struct anon_vma *page_get_anon_vma(struct pyksm *m, struct page *page);
uint64_t page_address_in_vma(struct pyksm *m, const struct page *page,
			     const struct vm_area_struct *vma); /* BAD_ADDRESS: not there */
#define BAD_ADDRESS UINT64_MAX
static inline bool pte_maps(const struct pyksm *m, pte_t pte, const struct page *page)
{
	return pte_present(pte) && pte_pfn(pte) == page_to_pfn(m, page);
}
pte_t *page_check_address(struct pyksm *m, const struct page *page, struct mm_struct *mm,
			  uint64_t addr, enum sched_point point);
void page_add_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			uint64_t addr);
/* exclusive: no other process can have a claim on the page */
void do_page_add_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			   uint64_t addr, bool exclusive);
void page_add_new_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			    uint64_t addr);
void page_move_anon_rmap(struct pyksm *m, struct page *page, struct vm_area_struct *vma);
void page_remove_rmap(struct pyksm *m, struct page *page, const struct vm_area_struct *vma);
/* FOLL_PIN counts this many references at once, so that such a page can be told, more or less. */
#define GUP_PIN_COUNTING_BIAS 1024
bool page_maybe_dma_pinned(const struct page *page);
bool page_try_share_anon_rmap(struct page *page);
int page_referenced(struct pyksm *m, struct page *page, bool locked);
int page_referenced_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
			uint64_t addr, int *mapcount);
int try_to_unmap(struct pyksm *m, struct page *page, enum ttu_flags flags);
int try_to_unmap_one(struct pyksm *m, struct page *page, struct vm_area_struct *vma, uint64_t addr,
		     enum ttu_flags flags);
void try_to_munlock(struct pyksm *m, struct page *page);
int rmap_walk(struct pyksm *m, struct page *page, rmap_one_fn one, void *arg);
int count_rmap(struct pyksm *m, const struct mm_struct *mm, uint64_t addr);

/* memory.c */
#define VM_FAULT_OOM 1
#define VM_FAULT_SIGBUS 2
#define VM_FAULT_MAJOR 4
#define VM_FAULT_WRITE 8
#define VM_FAULT_HWPOISON 16
#define VM_FAULT_LEAKED 32 /* with OOM: memory had no part in it */
#define FAULT_FLAG_WRITE 1U
/* make it our own, but neither writable nor dirty: c89357e27f20, 5.19 */
#define FAULT_FLAG_UNSHARE 2U
int handle_mm_fault(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, unsigned int flags);
/* The page a pte maps, NULL for the zero page: that has no owner and no count. */
static inline struct page *vm_normal_page(const struct pyksm *m, pte_t pte)
{
	return pte & _PAGE_SPECIAL ? NULL : pfn_to_page(m, pte_pfn(pte));
}
/* The copy that a write gets: of the old page, or zeros where the zero page was mapped. */
struct page *wp_new_page(struct pyksm *m, struct vm_area_struct *vma, const struct page *old);
struct page *present_page(const struct pyksm *m, const struct mm_struct *mm, uint64_t addr);
struct page *follow_page(const struct pyksm *m, const struct mm_struct *mm, uint64_t addr);
struct page *follow_page_get(struct pyksm *m, struct mm_struct *mm, uint64_t addr,
			     enum sched_point point);
int access_vma(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool write,
	       struct page **ret);
int user_access(struct pyksm *m, struct mm_struct *mm, uint64_t addr, bool write,
		struct page **ret);
int access_page(struct pyksm *m, struct mm_struct *mm, uint64_t addr, bool write,
		struct page **ret);
int copy_page_range(struct pyksm *m, struct mm_struct *dst, struct mm_struct *src,
		    struct vm_area_struct *vma);
struct mmu_gather {
	struct page **pages;
	size_t nr, max;
};
void unmap_single_vma(struct pyksm *m, struct mmu_gather *tlb, struct vm_area_struct *vma,
		      uint64_t start, uint64_t end);
void lru_add_drain_before_zap(struct pyksm *m);
void tlb_finish_mmu(struct pyksm *m, struct mmu_gather *tlb);

/* mmap.c */
struct vm_area_struct *find_vma(const struct mm_struct *mm, uint64_t addr);
struct vm_area_struct *find_vma_prev(const struct mm_struct *mm, uint64_t addr,
				     struct vm_area_struct **prev);
struct vm_area_struct *vma_merge(struct pyksm *m, struct mm_struct *mm, struct vm_area_struct *prev,
				 uint64_t addr, uint64_t end, uint64_t flags,
				 struct vm_area_struct *src, uint64_t pgoff, int node);
int split_vma(struct pyksm *m, struct vm_area_struct *vma, uint64_t addr, bool new_below);
int vma_modify(struct pyksm *m, struct vm_area_struct **vma, struct vm_area_struct *prev,
	       uint64_t start, uint64_t end, uint64_t flags);
typedef int (*vma_fixup_fn)(struct pyksm *m, struct vm_area_struct *vma,
			    struct vm_area_struct **prev, uint64_t start, uint64_t end,
			    uint64_t flags);
int fixup_range(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, uint64_t flags,
		vma_fixup_fn fixup);
int vma_modify_flags(struct pyksm *m, struct vm_area_struct **vma, struct vm_area_struct *prev,
		     uint64_t start, uint64_t end, uint64_t flags);
void vma_link(struct mm_struct *mm, struct vm_area_struct *vma);
int do_munmap(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len);
int64_t do_mmap(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t len, int node);
struct vm_area_struct *copy_vma(struct pyksm *m, struct vm_area_struct **vmap, uint64_t addr,
				uint64_t len, uint64_t pgoff);
struct anon_vma *find_mergeable_anon_vma(struct vm_area_struct *vma);
void exit_mmap(struct pyksm *m, struct mm_struct *mm);

/* access.c */
void put_pin(struct pyksm *m, const struct pin *pin);
void forget_pins(struct pyksm *m, int pid, uint64_t addr, uint64_t npages);

/* fork.c */
/* A user more, where another task may be the last one otherwise. */
static inline void mmget(const struct pyksm *m, struct mm_struct *mm)
{
	if (in_task(m))
		mm->mm_users++;
}
struct mm_struct *mm_alloc(struct pyksm *m, int pid);
int dup_mmap(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm);
void fork_failed(struct pyksm *m, struct mm_struct *mm);
void mmput(struct pyksm *m, struct mm_struct *mm);
static inline void mmput_task(struct pyksm *m, struct mm_struct *mm)
{
	if (in_task(m))
		mmput(m, mm);
}
void mmlist_add(struct pyksm *m, struct mm_struct *mm, struct list_head *behind);
void mmdrop(struct pyksm *m, struct mm_struct *mm);

/* mseal.c */
int do_mseal(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len);
/* Is any part of what lies between vma and end sealed? */
static inline bool is_sealed(const struct vm_area_struct *vma, uint64_t end)
{
	for (; vma && vma->vm_start < end; vma = vma->vm_next)
		if (vma->vm_flags & VM_SEALED)
			return true;
	return false;
}
/* mprotect.c, mremap.c, madvise.c */
int do_mprotect(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len,
		uint64_t flags);
int do_mremap(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t len,
	      uint64_t new_addr);
int do_madvise(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, int advice);

/* task_mmu.c */
int do_clear_refs(struct pyksm *m, struct mm_struct *mm, int what);

/* swapfile.c */
uint32_t nr_swap_types(const struct pyksm *m);
int swap_init(struct pyksm *m);
void swap_exit(struct pyksm *m);
swp_entry_t get_swap_page(struct pyksm *m);
static inline bool vm_swap_full(const struct pyksm *m)
{
	return m->swap.nr_swap_pages * 2 < m->swap.total_swap_pages;
}
int swap_duplicate(struct pyksm *m, swp_entry_t entry);
int add_swap_count_continuation(struct pyksm *m, swp_entry_t entry);
int swapcache_prepare(struct pyksm *m, swp_entry_t entry);
void swapcache_free(struct pyksm *m, swp_entry_t entry);
void swap_free(struct pyksm *m, swp_entry_t entry);
int free_swap_and_cache(struct pyksm *m, swp_entry_t entry);
bool reuse_swap_page(struct pyksm *m, struct page *page);
bool try_to_free_swap(struct pyksm *m, struct page *page);
uint64_t scan_swap_map(struct pyksm *m, struct swap_info_struct *si);
uint64_t next_slot_in_use(struct pyksm *m, const struct swap_info_struct *si, uint64_t from,
			  uint64_t end);
/* swap_avail.c */
void add_to_avail_list(struct pyksm *m, const struct swap_info_struct *si);
void del_from_avail_list(struct pyksm *m, const struct swap_info_struct *si);
swp_entry_t get_swap_pages(struct pyksm *m);
/* swapfile.c */
int sys_swapon(struct pyksm *m, uint64_t npages, int priority, const char *path);
int sys_swapoff(struct pyksm *m, int type);
uint64_t swp_swapcount(const struct swap_info_struct *si, uint64_t offset);
/* The first digit of the count, and whether there are more. */
static inline unsigned char __swap_count(const struct swap_info_struct *si, uint64_t offset)
{
	return si->swap_map[offset] & (unsigned char)~SWAP_HAS_CACHE;
}
/* Like zram (SWP_SYNCHRONOUS_IO)? */
static inline bool is_synchronous(const struct pyksm *m, const struct swap_info_struct *si)
{
	return has(m, FEAT_SWAP_SYNCHRONOUS) && si->fd < 0;
}
static inline bool devices_not_pinned(const struct pyksm *m)
{
	return bugged(m, BUG_SWAPOFF_VS_SWAP_READERS) || bugged(m, BUG_SWAPOFF_VS_SYNC_SWAPIN);
}
/* The area of a slot in use, NULL for what is no such thing: what is no area has no slots. */
static inline struct swap_info_struct *swap_info_get(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si = &m->swap.info[swp_type(entry) % NR_SWAP_TYPES];
	uint64_t offset = swp_offset(entry);

	return offset < si->max && si->swap_map[offset] && entry.val ? si : NULL;
}

/*
 * The entry's area, for as long as it is looked at: swapoff waits until it is put back. NULL: there is none any more.
 * (kernel: get_swap_device, a percpu_ref since 2799e77529c2.)
 */
static inline struct swap_info_struct *get_swap_device(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si = &m->swap.info[swp_type(entry) % NR_SWAP_TYPES];
	struct lock_id users = { LOCK_SWAP_DEVICE, si, 0 };

	if (!in_task(m) || !has(m, FEAT_SWAP_DEVICE_PINNED) || devices_not_pinned(m))
		return si;
	if (!sched_trylock(m, PT_GET_SWAP_DEVICE, users, false))
		return NULL;
	if ((si->flags & (SWP_USED | SWP_DYING)) == SWP_USED && swp_offset(entry) < si->max)
		return si;
	sched_unlock(m, users);
	return NULL;
}
static inline void put_swap_device(struct pyksm *m, const struct swap_info_struct *si)
{
	if (in_task(m) && has(m, FEAT_SWAP_DEVICE_PINNED) && !devices_not_pinned(m))
		sched_unlock(m, (struct lock_id){ LOCK_SWAP_DEVICE, si, 0 });
}

/* swapoff.c */
int try_to_unuse(struct pyksm *m, unsigned int type);
/* swapoff_computed.c */
struct unuse_index;
struct unuse_hit {
	struct vm_area_struct *vma;
	uint64_t addr;
	pte_t *pte;
};
struct unuse_index *unuse_index_new(struct pyksm *m, unsigned int type);
void unuse_index_free(struct pyksm *m, struct unuse_index *index);
bool unuse_index_find(struct pyksm *m, struct unuse_index *index, const struct mm_struct *mm,
		      const struct page *page, swp_entry_t entry, struct unuse_hit *hit);
/* swapoff_mm.c */
int try_to_unuse_per_mm(struct pyksm *m, unsigned int type);

/* swap_table.c */
#define SHADOW_AGE_SHIFT 9 /* the age is what is highest in a shadow: see workingset.c */
int swap_table_init(struct pyksm *m, struct swap_info_struct *si);
void swap_table_exit(struct pyksm *m, struct swap_info_struct *si);
int swap_table_store(struct pyksm *m, struct swap_info_struct *si, uint64_t offset, uint64_t pfn,
		     uint64_t *shadow);
void swap_table_replace(struct swap_info_struct *si, uint64_t offset, uint64_t pfn);
void swap_table_erase(struct pyksm *m, struct swap_info_struct *si, uint64_t offset,
		      uint64_t shadow);
uint64_t swap_table_take(struct pyksm *m, struct swap_info_struct *si, uint64_t offset);
static inline bool is_packed(const struct packed_shadows *p, uint64_t slot)
{
	return p->present[slot / 64] >> slot % 64 & 1;
}
void __swap_table_forget(struct pyksm *m, struct swap_cluster *c, uint64_t slot);
/* The slot is free: what it remembered is nobody's. */
static inline void swap_table_forget(struct pyksm *m, struct swap_info_struct *si, uint64_t offset)
{
	struct swap_cluster *c = &si->clusters[offset / SWAP_TABLE_SLOTS];
	uint64_t slot = offset % SWAP_TABLE_SLOTS;

	if (c->nr_shadows && (c->packed ? is_packed(c->shadows, slot) : c->table[slot] != 0))
		__swap_table_forget(m, c, slot);
}
static inline uint64_t swap_entry_pfn(uint64_t entry)
{
	return entry & 1 ? entry >> 1 : 0;
}
/* The frame of the slot's page in the swap cache; 0: there is none. */
static inline uint64_t swap_cache_pfn(const struct swap_info_struct *si, uint64_t offset)
{
	const struct swap_cluster *c = &si->clusters[offset / SWAP_TABLE_SLOTS];

	return c->nr_cached ? swap_entry_pfn(c->table[offset % SWAP_TABLE_SLOTS]) : 0;
}

/* swap_state.c */
int add_to_swap_cache(struct pyksm *m, struct page *page, swp_entry_t entry, uint64_t *shadow);
void delete_from_swap_cache(struct pyksm *m, struct page *page);
bool add_to_swap(struct pyksm *m, struct page *page);
void free_swap_cache(struct pyksm *m, struct page *page);
/* The cached page of a slot with a reference, or NULL. */
static inline struct page *__find_get_page(struct pyksm *m, swp_entry_t entry)
{
	struct swap_info_struct *si = swap_info_get(m, entry);
	uint64_t pfn = si ? swap_cache_pfn(si, swp_offset(entry)) : 0;
	struct page *page = pfn ? pfn_to_page(m, pfn) : NULL;

	if (page)
		get_page(page);
	return page;
}
static inline struct page *find_get_page(struct pyksm *m, swp_entry_t entry)
{
	sched_point(m, PT_FIND_GET_PAGE);
	return __find_get_page(m, entry);
}
struct page *read_swap_cache_async(struct pyksm *m, swp_entry_t entry, struct vm_area_struct *vma,
				   bool *read);
struct page *swapin_readahead(struct pyksm *m, swp_entry_t entry, struct vm_area_struct *vma);
struct page *swap_cache_copy(struct pyksm *m, swp_entry_t entry, const struct page *from);
void swap_cache_remove_frozen(struct pyksm *m, struct page *page, uint64_t shadow);

/* page_io.c */
int swap_backend_open(struct pyksm *m, struct swap_info_struct *si, const char *path,
		      uint64_t npages);
void swap_backend_close(struct pyksm *m, struct swap_info_struct *si);
const unsigned char *slot_content(const struct pyksm *m, const struct swap_info_struct *si,
				  uint64_t offset, unsigned char *scratch);
void swap_slot_forget(struct pyksm *m, struct swap_info_struct *si, uint64_t offset);
void swap_zeromap_set(struct swap_info_struct *si, uint64_t offset, bool zeros);
void swap_readpage(struct pyksm *m, struct page *page);
void swap_writepage(struct pyksm *m, struct page *page);
void end_all_writeback(struct pyksm *m);
/* Reclaim's writes end when it is through; until then others may meet the pages. */
static inline void end_writes(struct pyksm *m)
{
	if (in_task(m) && m->writes)
		sched_point(m, PT_END_WRITES);
	end_all_writeback(m);
}
/* That others, too, were waiting for ends with it: it is in nobody's hands. */
static inline void wait_on_page_writeback(struct pyksm *m, const struct page *page,
					  enum sched_point point)
{
	if (!(page->flags & PG_writeback))
		return;
	sched_point(m, point);
	if (!in_task(m) || (page->flags & PG_writeback))
		end_all_writeback(m);
}

/* A new page for a slot, read or copied: what it is marked with. */
static inline uint32_t swapin_flags(const struct pyksm *m)
{
	return PG_swapbacked | (has(m, FEAT_SWAPIN_CHARGED_AT_READ) ? PG_charged : 0);
}

/* lru.c */
bool lru_has_batches(const struct pyksm *m);
void lru_add(struct pyksm *m, struct page *page); /* a page that comes from outside of reclaim */
void __lru_add(struct pyksm *m, struct page *page); /* the same past the batch */
bool lru_add_pending(const struct pyksm *m, const struct page *page);
static inline uint32_t lru_batch_size(const struct pyksm *m)
{
	return has(m, FEAT_LRU_BATCH_31) ? 31 : 15;
}
void lru_putback(struct pyksm *m, struct page *page);
void lru_del(struct pyksm *m, struct page *page);
void lru_add_drain(struct pyksm *m);
void lru_batches_forget(struct pyksm *m, struct page *page);
void activate_page(struct pyksm *m, struct page *page);
void mark_page_accessed(struct pyksm *m, struct page *page);
bool isolate_lru_page(struct pyksm *m, struct page *page);
void putback_lru_page(struct pyksm *m, struct page *page);

/* vmscan.c */
void reclaim_pages(struct pyksm *m, struct list_head *pages);
void swapout(struct pyksm *m, const struct pyksm_range *ranges, int n);

/* workingset.c */
uint64_t workingset_eviction(struct pyksm *m, const struct page *page);
void workingset_refault(struct pyksm *m, struct page *page, uint64_t shadow);
void lru_note_cost(struct pyksm *m, struct node *node, uint64_t nr_io, uint64_t nr_rotated);

/* What the slot remembered is weighed, and its page comes, locked, until it is read. */
static inline void swapin_new_page(struct pyksm *m, struct page *page, uint64_t shadow)
{
	page->flags |= swapin_flags(m);
	if (shadow)
		workingset_refault(m, page, shadow);
	lru_add(m, page);
	swap_readpage(m, page);
}

/* memcontrol.c */
/* A page in swap cache may have kept its charge, or got it when it was read: then there is none to commit. */
static inline bool try_charge_swapin(const struct pyksm *m, const struct page *page)
{
	return !(page->flags & PG_charged) && !has(m, FEAT_SWAPIN_CHARGED_AT_READ);
}
void __commit_charge_swapin(struct pyksm *m, struct page *page);
static inline void commit_charge_swapin(struct pyksm *m, struct page *page, bool charge)
{
	if (charge)
		__commit_charge_swapin(m, page);
}
void uncharge_page(struct pyksm *m, struct page *page);

/* mlock.c */
void mlock_spawn(struct pyksm *m);
void mlock_fork(struct pyksm *m, struct mm_struct *mm, struct mm_struct *oldmm);
void mlock_exit(struct pyksm *m, struct mm_struct *mm);
bool cull_agent_page(struct pyksm *m, struct page *page);
void mlock_vma_page(struct pyksm *m, struct page *page);
void munlock_vma_page(struct pyksm *m, struct page *page);
void mlock_new_page(struct pyksm *m, struct page *page);
void mlock_batch_run(struct pyksm *m);
static inline void mlock_drain(struct pyksm *m)
{
	if (__builtin_expect(m->mlock_batch.nr != 0, 0))
		mlock_batch_run(m);
}
void restore_mlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma);
void rmap_mlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma);
void rmap_munlock(struct pyksm *m, struct page *page, const struct vm_area_struct *vma);
void migrated_mlock(struct pyksm *m, const struct vm_area_struct *vma);
void munlock_vmas(struct pyksm *m, struct vm_area_struct *vma, uint64_t end);
int do_mlock(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len, bool on);
int populate_vma_page_range(struct pyksm *m, struct vm_area_struct *vma, uint64_t start,
			    uint64_t end);
int mm_populate(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len);

/* migrate.c */
struct page *migration_entry_page(const struct pyksm *m, pte_t pte);
struct page *migration_entry_to_page(struct pyksm *m, swp_entry_t entry);
void migration_entry_wait(struct pyksm *m, struct mm_struct *mm, uint64_t addr);
void remove_migration_ptes(struct pyksm *m, struct page *old, struct page *new);
int do_move_pages(struct pyksm *m, struct mm_struct *mm, uint64_t addr, uint64_t npages, int node,
		  int32_t *status);

/* ksm.c */
void ksm_init(struct pyksm *m);
void ksm_mm_init(struct mm_struct *mm, const struct mm_struct *oldmm);
int ksm_fork(struct pyksm *m, struct mm_struct *mm, const struct mm_struct *oldmm);
uint64_t ksm_vma_flags(struct pyksm *m, struct mm_struct *mm, uint64_t vm_flags);
int ksm_enable_merge_any(struct pyksm *m, struct mm_struct *mm);
int ksm_disable_merge_any(struct pyksm *m, struct mm_struct *mm);
void ksm_exit(struct pyksm *m, struct mm_struct *mm);
int ksm_madvise(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end,
		int advice, uint64_t *vm_flags);
struct page *ksm_might_need_to_copy(struct pyksm *m, struct page *page, struct vm_area_struct *vma,
				    uint64_t addr);
int page_referenced_ksm(struct pyksm *m, struct page *page);
int try_to_unmap_ksm(struct pyksm *m, struct page *page, enum ttu_flags flags);
int rmap_walk_ksm(struct pyksm *m, struct page *page, rmap_one_fn one, void *arg);
void ksm_migrate_page(struct pyksm *m, struct page *newpage, struct page *oldpage);
int unmerge_ksm_pages(struct pyksm *m, struct vm_area_struct *vma, uint64_t start, uint64_t end);

/* census.c */
int census(struct pyksm *m, bool strict, char *buf, size_t len);

/* Zero pages that KSM has put in the place of others (6.6, 79271476b336): no read fault makes them dirty. */
static inline bool is_ksm_zero_pte(const struct pyksm *m, pte_t pte)
{
	return has(m, FEAT_ZERO_PAGES_COUNTED) && pte_present(pte) && (pte & _PAGE_SPECIAL) &&
	       (pte & _PAGE_DIRTY);
}
static inline void add_zero_pages(struct pyksm *m, int64_t n)
{
	int64_t before = m->ksm.zero_pages;

	if (bugged(m, BUG_KSM_ZERO_PAGES_NONATOMIC))
		sched_point(m, PT_ZERO_PAGES_ADD);
	m->ksm.zero_pages = before + n;
}
static inline void ksm_map_zero_page(struct pyksm *m, struct mm_struct *mm)
{
	add_zero_pages(m, 1);
	mm->ksm_zero_pages++;
}
static inline void ksm_might_unmap_zero_page(struct pyksm *m, struct mm_struct *mm, pte_t pte)
{
	if (!is_ksm_zero_pte(m, pte))
		return;
	add_zero_pages(m, -1);
	mm->ksm_zero_pages--;
}

static inline struct stable_node *page_stable_node(const struct page *page)
{
	return PageKsm(page) ? (struct stable_node *)(page->mapping & ~PAGE_MAPPING_FLAGS) : NULL;
}
static inline void set_page_stable_node(struct page *page, struct stable_node *node)
{
	page->mapping = (uintptr_t)node | PAGE_MAPPING_ANON | PAGE_MAPPING_KSM;
}

#endif
