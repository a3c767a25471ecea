/* SPDX-License-Identifier: MIT */
/* What the files that embedders meet share: arguments are checked in these files, and nowhere below. */
#ifndef PYKSM_FACE_H
#define PYKSM_FACE_H

#include "internal.h"

/* machine.c: 0 and the process, or -EINVAL, -ESRCH, and for a writer -EDEADLK. */
int find_for_write(struct pyksm *m, int pid, struct process **p);
int find_for_read(struct pyksm *m, int pid, struct process **p);
int check_range(uint64_t addr, uint64_t npages);

#endif
