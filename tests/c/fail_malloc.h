/* SPDX-License-Identifier: MIT */
/* Put in front of every file of the core by test_malloc: its host allocations can be made to fail. */
#ifndef PYKSM_FAIL_MALLOC_H
#define PYKSM_FAIL_MALLOC_H

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

void *fail_malloc(size_t size);
void *fail_calloc(size_t n, size_t size);
void *fail_realloc(void *old, size_t size);
int fail_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
void *fail_mmap(void *addr, size_t len, int prot, int flags, int fd, long offset);

#define malloc fail_malloc
#define calloc fail_calloc
#define realloc fail_realloc
#define pthread_create fail_pthread_create
#define mmap(addr, len, prot, flags, fd, offset) fail_mmap(addr, len, prot, flags, fd, offset)

#endif
