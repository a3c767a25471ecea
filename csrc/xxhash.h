/* SPDX-License-Identifier: MIT */
/* XXH64, Yann Collet's public hash, from its published description: KSM's checksum since 5.0. */
#ifndef PYKSM_XXHASH_H
#define PYKSM_XXHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define XXH_PRIME_1 0x9e3779b185ebca87ULL
#define XXH_PRIME_2 0xc2b2ae3d27d4eb4fULL
#define XXH_PRIME_3 0x165667b19e3779f9ULL
#define XXH_PRIME_4 0x85ebca77c2b2ae63ULL
#define XXH_PRIME_5 0x27d4eb2f165667c5ULL

static inline uint64_t xxh_rol64(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static inline uint64_t xxh_read64(const unsigned char *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof(x));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	x = __builtin_bswap64(x);
#endif
	return x;
}

static inline uint64_t xxh64_round(uint64_t acc, uint64_t input)
{
	return xxh_rol64(acc + input * XXH_PRIME_2, 31) * XXH_PRIME_1;
}

static inline uint64_t xxh64_merge_round(uint64_t hash, uint64_t acc)
{
	return (hash ^ xxh64_round(0, acc)) * XXH_PRIME_1 + XXH_PRIME_4;
}

static inline uint64_t xxh64_avalanche(uint64_t hash)
{
	hash = (hash ^ hash >> 33) * XXH_PRIME_2;
	hash = (hash ^ hash >> 29) * XXH_PRIME_3;
	return hash ^ hash >> 32;
}

static inline uint64_t xxh64_converge(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t hash = xxh_rol64(a, 1) + xxh_rol64(b, 7) + xxh_rol64(c, 12) + xxh_rol64(d, 18);

	hash = xxh64_merge_round(hash, a);
	hash = xxh64_merge_round(hash, b);
	hash = xxh64_merge_round(hash, c);
	return xxh64_merge_round(hash, d);
}

/* With what is left from p on, of len in all. */
static inline uint64_t xxh64_finish(uint64_t hash, const unsigned char *p, const unsigned char *end,
				    size_t len)
{
	hash += len;
	for (; p < end; p += 8)
		hash = xxh_rol64(hash ^ xxh64_round(0, xxh_read64(p)), 27) * XXH_PRIME_1 +
		       XXH_PRIME_4;
	return xxh64_avalanche(hash);
}

/* Of a length that is a multiple of 8, as pages' are: the rules for odd bytes are left out. */
static inline uint64_t xxh64(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data, *end = p + len;
	uint64_t a = seed + XXH_PRIME_1 + XXH_PRIME_2, b = seed + XXH_PRIME_2;
	uint64_t c = seed, d = seed - XXH_PRIME_1;

	if (len < 32)
		return xxh64_finish(seed + XXH_PRIME_5, p, end, len);
	for (; end - p >= 32; p += 32) {
		a = xxh64_round(a, xxh_read64(p));
		b = xxh64_round(b, xxh_read64(p + 8));
		c = xxh64_round(c, xxh_read64(p + 16));
		d = xxh64_round(d, xxh_read64(p + 24));
	}
	return xxh64_finish(xxh64_converge(a, b, c, d), p, end, len);
}

#endif
