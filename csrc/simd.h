/* SPDX-License-Identifier: MIT */
/*
 * Loops that look for one thing in an array: what swapoff, ksmd and the slot allocator spend their time
 * with. They read nothing beyond n. Callers count what the kernel's loop would have looked at, which the
 * answer tells: up to the hit, or n.
 */
#ifndef PYKSM_SIMD_H
#define PYKSM_SIMD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Each gives the index of the first hit (find_last_used: of the last), n where there is none. */
struct simd_ops {
	const char *name;
	/* (pte & ~marks) == want */
	size_t (*find_pte)(const uint64_t *pte, size_t n, uint64_t marks, uint64_t want);
	/* pte != 0 and none of the bits of present */
	size_t (*find_swp_pte)(const uint64_t *pte, size_t n, uint64_t present);
	/* any of the bits of present */
	size_t (*find_present_pte)(const uint64_t *pte, size_t n, uint64_t present);
	/* byte == a or byte == b */
	size_t (*find_byte)(const unsigned char *map, size_t n, unsigned char a, unsigned char b);
	/* byte != 0 and (byte & ~flag) != bad */
	size_t (*find_used)(const unsigned char *map, size_t n, unsigned char flag,
			    unsigned char bad);
	/* byte != 0 */
	size_t (*find_last_used)(const unsigned char *map, size_t n);
	/* jhash2 of JHASH_LANES keys of that many words, not 0; see checksum.c */
	void (*jhash2_lanes)(const unsigned char *const *key, size_t words, uint32_t initval,
			     uint32_t *ret);
	/* of a multiple of 8 bytes */
	uint64_t (*xxh64)(const void *data, size_t len, uint64_t seed);
};

#define JHASH_LANES 8
void portable_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
			   uint32_t *ret);
void avx2_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
		       uint32_t *ret);
void avx512_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
			 uint32_t *ret);
uint64_t portable_xxh64(const void *data, size_t len, uint64_t seed);
uint64_t avx512_xxh64(const void *data, size_t len, uint64_t seed);

/* The one choice that all machines of a process share: it changes no result, only time. */
extern _Atomic(const struct simd_ops *) simd_in_use;

static inline const struct simd_ops *simd(void)
{
	return atomic_load_explicit(&simd_in_use, memory_order_relaxed);
}

#endif
