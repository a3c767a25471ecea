/* SPDX-License-Identifier: MIT */
/* Work counters, schedule points, vmstat and switches, each in one list: X(identifier, "name"). */
#ifndef PYKSM_COUNTERS_H
#define PYKSM_COUNTERS_H

#define PYKSM_COUNTERS(X)                                                                          \
	X(__swap_writepage)                                                                        \
	X(break_ksm)                                                                               \
	X(cmp_and_merge_page)                                                                      \
	X(delete_from_swap_cache)                                                                  \
	X(do_swap_page)                                                                            \
	X(ksm_might_need_to_copy)                                                                  \
	X(ksm_migrate_page)                                                                        \
	X(memcmp_pages)                                                                            \
	X(page_address_in_vma)                                                                     \
	X(page_referenced_ksm)                                                                     \
	X(read_swap_cache_async)                                                                   \
	X(remove_rmap_item_from_tree)                                                              \
	X(replace_page)                                                                            \
	X(rmap_walk_ksm)                                                                           \
	X(stable_tree_insert)                                                                      \
	X(stable_tree_search)                                                                      \
	X(swap_readpage)                                                                           \
	X(swap_writepage)                                                                          \
	X(swapin_readahead)                                                                        \
	X(try_to_free_swap)                                                                        \
	X(try_to_merge_one_page)                                                                   \
	X(try_to_unmap)                                                                            \
	X(try_to_unmap_ksm)                                                                        \
	X(try_to_unuse)                                                                            \
	X(unstable_tree_search_insert)                                                             \
	X(unuse_mm)                                                                                \
	X(unuse_pte)                                                                               \
	X(unuse_pte_range)                                                                         \
	X(unuse_vma)                                                                               \
	X(write_protect_page)                                                                      \
	/* those above are in the recordings of real kernels, those below are ours */              \
	X(handle_mm_fault)                                                                         \
	X(do_anonymous_page)                                                                       \
	X(do_wp_page)                                                                              \
	X(reuse_swap_page)                                                                         \
	X(copy_one_pte)                                                                            \
	X(zap_pte)                                                                                 \
	X(move_pte)                                                                                \
	X(anon_vma_prepare)                                                                        \
	X(anon_vma_clone)                                                                          \
	X(anon_vma_fork)                                                                           \
	X(unlink_anon_vmas)                                                                        \
	X(try_to_unmap_one)                                                                        \
	X(page_referenced_one)                                                                     \
	X(add_to_swap)                                                                             \
	X(get_swap_page)                                                                           \
	X(swap_duplicate)                                                                          \
	X(swap_free)                                                                               \
	X(free_swap_and_cache)                                                                     \
	X(calc_checksum)                                                                           \
	X(copy_page)                                                                               \
	X(alloc_page)                                                                              \
	X(free_page)                                                                               \
	X(migrate_page)                                                                            \
	X(unuse_copy)                                                                              \
	X(unuse_pte_compared)                                                                      \
	X(find_next_to_unuse_slots)                                                                \
	X(scan_swap_map_slots)                                                                     \
	X(avc_visited)                                                                             \
	X(kmem_alloc)

#define PYKSM_COUNTER_ENUM(name) CNT_##name,
enum pyksm_counter_id { PYKSM_COUNTERS(PYKSM_COUNTER_ENUM) NR_COUNTERS };
#undef PYKSM_COUNTER_ENUM

/* Those by which reclaim and swapoff tell whether they get anywhere: the others decide nothing. */
static inline bool count_decides(enum pyksm_counter_id counter)
{
	return counter == CNT_swap_free || counter == CNT_free_swap_and_cache ||
	       counter == CNT_delete_from_swap_cache || counter == CNT_unuse_pte ||
	       counter == CNT_swap_writepage || counter == CNT___swap_writepage ||
	       counter == CNT_free_page;
}

enum vmstat_item {
	PSWPIN,
	PSWPOUT,
	PGMIGRATE_SUCCESS,
	KSM_SWPIN_COPY,
	COW_KSM,
	SWPIN_ZERO,
	SWPOUT_ZERO,
	NR_VMSTAT
};

/* Where the kernel could lose the processor: X(identifier, "function:what comes next"). The first ones are
 * those at which a hook runs (pyksm_set_hook); the others are for tasks alone. */
#define PYKSM_HOOK_POINTS(X)                                                                       \
	X(UNUSE_NEXT_ENTRY, "try_to_unuse:next_entry")                                             \
	X(UNUSE_LOCK_PAGE, "try_to_unuse:lock_page")                                               \
	X(SWAP_PAGE_LOCK_PAGE, "do_swap_page:lock_page")                                           \
	X(UNMERGE_BEGIN, "unmerge_and_remove_all_rmap_items:begin")                                \
	X(UNMERGE_NEXT_MM, "unmerge_and_remove_all_rmap_items:next_mm")                            \
	X(REMOVE_STABLE_BEGIN, "remove_all_stable_nodes:begin")                                    \
	X(SCAN_NEXT_ITEM, "ksm_do_scan:next_item")                                                 \
	X(SHRINK_ZONE, "shrink_zone:begin")

#include "points.h"

#define PYKSM_POINT_ENUM(id, name) PT_##id,
enum sched_point {
	PYKSM_HOOK_POINTS(PYKSM_POINT_ENUM) NR_HOOK_POINTS,
	PT_HOOK_POINTS_END = NR_HOOK_POINTS - 1,
	PYKSM_TASK_POINTS(PYKSM_POINT_ENUM) NR_POINTS
};
#undef PYKSM_POINT_ENUM

#endif
