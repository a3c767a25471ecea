/* SPDX-License-Identifier: MIT */
/*
 * The other end of -fsanitize=thread: the compiler has put a call before each access of the core to memory, and here
 * is what is called. ThreadSanitizer's own library is not there.
 */
#include "internal.h"

_Thread_local struct pyksm *current_machine;

#define PYKSM_ACCESS(name)                                                                         \
	void __tsan_##name(void *p);                                                               \
	void __tsan_##name(void *p)                                                                \
	{                                                                                          \
		(void)p;                                                                           \
	}
PYKSM_ACCESS(read1)
PYKSM_ACCESS(read2)
PYKSM_ACCESS(read4)
PYKSM_ACCESS(read8)
PYKSM_ACCESS(read16)
PYKSM_ACCESS(write1)
PYKSM_ACCESS(write2)
PYKSM_ACCESS(write4)
PYKSM_ACCESS(write8)
PYKSM_ACCESS(write16)
PYKSM_ACCESS(unaligned_read2)
PYKSM_ACCESS(unaligned_read4)
PYKSM_ACCESS(unaligned_read8)
PYKSM_ACCESS(unaligned_read16)
PYKSM_ACCESS(unaligned_write2)
PYKSM_ACCESS(unaligned_write4)
PYKSM_ACCESS(unaligned_write8)
PYKSM_ACCESS(unaligned_write16)
PYKSM_ACCESS(func_entry)
PYKSM_ACCESS(vptr_read)
#undef PYKSM_ACCESS

void __tsan_read_range(void *p, unsigned long n);
void __tsan_read_range(void *p, unsigned long n)
{
	(void)p, (void)n;
}
void __tsan_write_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n)
{
	(void)p, (void)n;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
void __tsan_init(void);
void __tsan_init(void)
{
}
/* simd.h's choice is the one thing that is read like this. */
uint64_t __tsan_atomic64_load(const volatile void *p, int order);
uint64_t __tsan_atomic64_load(const volatile void *p, int order)
{
	(void)order;
	return __atomic_load_n((const volatile uint64_t *)p, __ATOMIC_SEQ_CST);
}
