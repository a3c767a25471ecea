/* SPDX-License-Identifier: MIT */
/* What ksm.c, ksm_sysfs.c and the public face share. */
#ifndef PYKSM_KSM_INTERNAL_H
#define PYKSM_KSM_INTERNAL_H

#include "mm_types.h"

int get_kpfn_nid(const struct pyksm *m, uint64_t kpfn);
struct page *get_ksm_page(struct pyksm *m, struct stable_node *node);
uint64_t ksm_do_scan(struct pyksm *m, uint64_t npages);
int unmerge_and_remove_all_rmap_items(struct pyksm *m);
int remove_all_stable_nodes(struct pyksm *m);

/* ksm_sysfs.c */
int ksm_show(const struct pyksm *m, const char *key, int64_t *ret);
int ksm_store(struct pyksm *m, const char *key, int64_t value);
int ksm_scan_batch(struct pyksm *m, uint64_t npages);
int ksm_full_scans(struct pyksm *m, uint32_t n);

#endif
