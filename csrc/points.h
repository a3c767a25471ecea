/* SPDX-License-Identifier: MIT */
/* The schedule points of tasks, file by file, beside those at which a hook runs (counters.h). */
#ifndef PYKSM_POINTS_H
#define PYKSM_POINTS_H

#define PYKSM_TASK_POINTS(X)                                                                       \
	/* ops.c */                                                                                \
	X(TASK_BEGIN, "task:begin")                                                                \
	X(TASK_NEXT_OP, "task:next_op")                                                            \
	/* memory.c */                                                                             \
	X(USER_ACCESS, "user:access")                                                              \
	X(FAULT_MMAP_SEM, "do_page_fault:mmap_sem")                                                \
	X(HANDLE_PTE_FAULT, "handle_pte_fault:read_pte")                                           \
	X(HANDLE_PTE_PTL, "handle_pte_fault:pte_lock")                                             \
	X(ANONYMOUS_PTL, "do_anonymous_page:pte_lock")                                             \
	X(WP_TRYLOCK_PAGE, "do_wp_page:trylock_page")                                              \
	X(WP_LOCK_PAGE, "do_wp_page:lock_page")                                                    \
	X(WP_PTL, "do_wp_page:pte_lock")                                                           \
	X(WP_MUNLOCK_LOCK_PAGE, "do_wp_page:lock_old_page")                                        \
	X(WP_COPY_PTL, "wp_page_copy:pte_lock")                                                    \
	X(SWAP_PAGE_PTL, "do_swap_page:pte_lock")                                                  \
	X(COPY_PTE_PTL, "copy_pte_range:pte_lock")                                                 \
	X(ZAP_PTL, "zap_pte_range:pte_lock")                                                       \
	/* fork.c, machine.c */                                                                    \
	X(MMLIST_LOCK, "mmlist_lock")                                                              \
	X(OP_MMAP_SEM, "syscall:mmap_sem")                                                         \
	X(DUP_MMAP_SEM, "dup_mmap:mmap_sem")                                                       \
	X(FORK_FAILED, "copy_process:fork_failed")                                                 \
	/* swapfile.c, swap_state.c */                                                             \
	X(GET_SWAP_PAGE, "get_swap_page:swap_lock")                                                \
	X(GET_SWAP_PAGES, "get_swap_pages:subtract")                                               \
	X(CONT_APPEND, "add_swap_count_continuation:list_add_tail")                                \
	X(RECLAIM_SWAP_TRYLOCK, "__try_to_reclaim_swap:trylock_page")                              \
	X(SWAP_CONTINUATION, "add_swap_count_continuation:alloc_page")                             \
	X(SWAPCACHE_PREPARE, "swapcache_prepare:swap_lock")                                        \
	X(SWAP_DUPLICATE, "swap_duplicate:swap_lock")                                              \
	X(SWAP_FREE, "swap_free:swap_lock")                                                        \
	X(SWAPCACHE_FREE, "swapcache_free:swap_lock")                                              \
	X(PAGE_SWAPCOUNT, "page_swapcount:swap_lock")                                              \
	X(FREE_SWAP_AND_CACHE, "free_swap_and_cache:swap_lock")                                    \
	X(FREE_SWAP_RECLAIM, "free_swap_and_cache:reclaim")                                        \
	X(FREE_SWAP_CACHE_TRYLOCK, "free_swap_cache:trylock_page")                                 \
	X(SWAPON_MUTEX, "swapon_mutex")                                                            \
	X(SWAPOFF_SWAP_LOCK, "swapoff:swap_lock")                                                  \
	X(SWAPOFF_SI_LOCK, "swapoff:si_lock")                                                      \
	X(ADD_TO_SWAP_CACHE, "add_to_swap_cache:tree_lock")                                        \
	X(DELETE_FROM_SWAP_CACHE, "delete_from_swap_cache:tree_lock")                              \
	X(SWAPCACHE_RETRY, "read_swap_cache_async:retry")                                          \
	X(GET_SWAP_DEVICE, "get_swap_device")                                                      \
	X(SWAPOFF_KILL_REF, "swapoff:wait_for_users")                                              \
	X(SWAPOFF_SCANNING, "swapoff:wait_for_scanning")                                           \
	X(SWAPIN_COUNT, "do_swap_page:swap_count")                                                 \
	X(SWAPIN_READ, "do_swap_page:swap_readpage")                                               \
	X(SWAPIN_CLAIMED, "do_swap_page:wait_for_claim")                                           \
	X(FIND_GET_PAGE, "find_get_page")                                                          \
	/* swapoff.c, swapoff_mm.c */                                                              \
	X(UNUSE_PTE_PTL, "unuse_pte:pte_lock")                                                     \
	X(UNUSE_MMAP_SEM, "unuse_mm:mmap_sem")                                                     \
	X(UNUSE_MMAP_SEM_TRYLOCK, "unuse_mm:mmap_sem_trylock")                                     \
	X(UNUSE_RELOCK_PAGE, "try_to_unuse:relock_page")                                           \
	X(UNUSE_WRITEBACK, "try_to_unuse:wait_on_page_writeback")                                  \
	X(UNUSE_RETRY, "try_to_unuse:retry")                                                       \
	/* migrate.c */                                                                            \
	X(MIGRATION_WAIT_PTL, "migration_entry_wait:pte_lock")                                     \
	X(MIGRATION_WAIT, "migration_entry_wait:wait_on_page_locked")                              \
	X(REMOVE_MIGRATION_PTL, "remove_migration_pte:pte_lock")                                   \
	X(MIGRATE_MOVE_MAPPING, "migrate_page_move_mapping:tree_lock")                             \
	X(MIGRATE_COPY, "migrate_page_copy:begin")                                                 \
	X(MIGRATE_WRITEBACK, "unmap_and_move:wait_on_page_writeback")                              \
	X(MIGRATE_TRYLOCK_PAGE, "unmap_and_move:trylock_page")                                     \
	X(MIGRATE_LOCK_PAGE, "unmap_and_move:lock_page")                                           \
	X(MOVE_PAGES_MMAP_SEM, "move_pages:mmap_sem")                                              \
	X(MOVE_PAGES_PTL, "move_pages:pte_lock")                                                   \
	/* page_io.c, task_mmu.c */                                                                \
	X(SWAP_READ, "swap_readpage:end_io")                                                       \
	X(END_WRITES, "swap_writepage:end_io")                                                     \
	X(CLEAR_REFS_PTL, "clear_refs_pte_range:pte_lock")                                         \
	/* vmscan.c */                                                                             \
	X(ISOLATE_LRU_PAGES, "isolate_lru_pages:lru_lock")                                         \
	X(SHRINK_TRYLOCK_PAGE, "shrink_page_list:trylock_page")                                    \
	X(RECLAIM_WRITEBACK, "shrink_page_list:wait_on_page_writeback")                            \
	X(PAGEOUT, "pageout:page_count")                                                           \
	X(PAGEOUT_TRYLOCK_PAGE, "shrink_page_list:trylock_written_page")                           \
	X(REMOVE_MAPPING, "__remove_mapping:tree_lock")                                            \
	/* madvise.c, mprotect.c, mremap.c, mmap.c */                                              \
	X(PAGEOUT_PTL, "madvise_pageout:pte_lock")                                                 \
	X(WILLNEED_PTL, "madvise_willneed:pte_lock")                                               \
	X(CHANGE_PTE_PTL, "change_pte_range:pte_lock")                                             \
	X(MOVE_PTES_RMAP, "move_ptes:anon_vma_lock")                                               \
	X(MOVE_PTES_PTL, "move_ptes:pte_lock")                                                     \
	X(VMA_ADJUST_RMAP, "vma_adjust:anon_vma_lock")                                             \
	/* mlock.c */                                                                              \
	X(POPULATE_MMAP_SEM, "__mm_populate:mmap_sem")                                             \
	X(POPULATE_PTL, "follow_page:pte_lock")                                                    \
	X(POPULATE_TRYLOCK_PAGE, "follow_page:trylock_page")                                       \
	X(MLOCK_PTL, "mlock_pte_range:pte_lock")                                                   \
	X(MUNLOCK_PTL, "munlock_vma_pages_range:pte_lock")                                         \
	X(MUNLOCK_LOCK_PAGE, "munlock_vma_pages_range:lock_page")                                  \
	/* rmap.c */                                                                               \
	X(ANON_VMA_FREE, "anon_vma_free:anon_vma_lock")                                            \
	X(ANON_VMA_PREPARE, "anon_vma_prepare:anon_vma_lock")                                      \
	X(ANON_VMA_CLONE, "anon_vma_clone:anon_vma_lock")                                          \
	X(ANON_VMA_FORK, "anon_vma_fork:anon_vma_lock")                                            \
	X(UNLINK_ANON_VMAS, "unlink_anon_vmas:anon_vma_lock")                                      \
	X(PAGE_LOCK_ANON_VMA, "page_lock_anon_vma_read:trylock")                                   \
	X(PAGE_LOCK_ANON_VMA_WAIT, "page_lock_anon_vma_read:anon_vma_lock")                        \
	X(PAGE_GET_ANON_VMA, "page_get_anon_vma:get")                                              \
	X(RMAP_WALK_ANON, "rmap_walk_anon:anon_vma_lock")                                          \
	X(REFERENCED_TRYLOCK, "page_referenced:trylock_page")                                      \
	X(REFERENCED_PTL, "page_referenced_one:pte_lock")                                          \
	X(UNMAP_PTL, "try_to_unmap_one:pte_lock")                                                  \
	X(UNMAP_MMAP_SEM_TRYLOCK, "try_to_unmap_one:mmap_sem_trylock")                             \
	/* ksm.c, ksm_scan.c, ksm_sysfs.c */                                                       \
	X(KSM_ENTER, "__ksm_enter:mmlist_lock")                                                    \
	X(KSM_EXIT, "__ksm_exit:mmlist_lock")                                                      \
	X(KSM_EXIT_MUTEX, "__ksm_exit:ksm_thread_mutex")                                           \
	X(BREAK_KSM_MEMORY, "break_ksm:out_of_memory")                                             \
	X(KSM_EXIT_MMAP_SEM, "__ksm_exit:mmap_sem")                                                \
	X(BREAK_KSM_PTL, "break_ksm:pte_lock")                                                     \
	X(BREAK_COW_MMAP_SEM, "break_cow:mmap_sem")                                                \
	X(UNMERGE_MMAP_SEM, "unmerge_and_remove_all_rmap_items:mmap_sem")                          \
	X(UNMERGE_MMLIST, "unmerge_and_remove_all_rmap_items:mmlist_lock")                         \
	X(SCAN_BEGIN, "scan_get_next_rmap_item:first_slot")                                        \
	X(SCAN_MMAP_SEM, "scan_get_next_rmap_item:mmap_sem")                                       \
	X(SCAN_PTL, "scan_get_next_rmap_item:pte_lock")                                            \
	X(SCAN_END_SLOT, "scan_get_next_rmap_item:mmlist_lock")                                    \
	X(STORE_THREAD_MUTEX, "run_store:ksm_thread_mutex")                                        \
	X(KSMD_THREAD_MUTEX, "ksm_scan_thread:ksm_thread_mutex")                                   \
	/* ksm_merge.c, ksm_tree.c, ksm_rmap.c */                                                  \
	X(WRITE_PROTECT_PTL, "write_protect_page:pte_lock")                                        \
	X(REPLACE_PAGE_PTL, "replace_page:pte_lock")                                               \
	X(MERGE_TRYLOCK_PAGE, "try_to_merge_one_page:trylock_page")                                \
	X(MERGE_LOCK_KPAGE, "try_to_merge_one_page:lock_kpage")                                    \
	X(MERGE_MMAP_SEM, "try_to_merge_with_ksm_page:mmap_sem")                                   \
	X(MERGE_ZERO_MMAP_SEM, "try_to_merge_with_zero_page:mmap_sem")                             \
	X(MERGED_LOCK_PAGE, "cmp_and_merge_page:lock_new_kpage")                                   \
	X(STABLE_LOCK_PAGE, "cmp_and_merge_page:lock_kpage")                                       \
	X(GET_KSM_PAGE, "get_ksm_page:get_page")                                                   \
	X(GET_KSM_PAGE_LOCK, "get_ksm_page:lock_page")                                             \
	X(GET_KSM_PAGE_TRYLOCK, "get_ksm_page:trylock_page")                                       \
	X(SCAN_END_MMAP_SEM, "scan_get_next_rmap_item:up_read")                                    \
	X(ZERO_PAGES_ADD, "ksm_zero_pages:add")                                                    \
	X(GET_MERGEABLE_MMAP_SEM, "get_mergeable_page:mmap_sem")                                   \
	X(GET_MERGEABLE_PTL, "get_mergeable_page:pte_lock")                                        \
	X(RMAP_WALK_KSM, "rmap_walk_ksm:anon_vma_lock")

#endif
