/* SPDX-License-Identifier: MIT */
/* Mappings that stay as they are (kernel: mm/mseal.c, since 6.10, 8be7258aad44). */
#include "internal.h"

static bool has_hole(const struct vm_area_struct *vma, uint64_t start, uint64_t end)
{
	while (vma && vma->vm_start <= start) {
		if (vma->vm_end >= end)
			return false;
		start = vma->vm_end;
		vma = vma->vm_next;
	}
	return true;
}

/* From now on nobody unmaps the range, moves it, or changes its protection. There is no way back but exit. */
int do_mseal(struct pyksm *m, struct mm_struct *mm, uint64_t start, uint64_t len)
{
	struct vm_area_struct *vma = find_vma(mm, start), *prev;
	uint64_t end = start + len;
	int err = 0;

	if (has_hole(vma, start, end))
		return -ENOMEM;
	prev = start > vma->vm_start ? vma : vma->vm_prev;
	while (!err && start < end) {
		uint64_t stop = vma->vm_end < end ? vma->vm_end : end;

		if (!(vma->vm_flags & VM_SEALED))
			err = vma_modify_flags(m, &vma, prev, start, stop,
					       vma->vm_flags | VM_SEALED);
		prev = vma;
		start = vma->vm_end;
		vma = vma->vm_next;
	}
	return err;
}
