/* SPDX-License-Identifier: MIT */
/* The scans of simd.h in C for any host, and with AVX2 where the host turns out to have it. */
#include <stdbool.h>
#include <string.h>

#include "pyksm.h"
#include "simd.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#include <immintrin.h>
#endif

/* ---- what a hit is ---- */
static inline bool is_pte(uint64_t pte, uint64_t marks, uint64_t want)
{
	return (pte & ~marks) == want;
}

static inline bool is_swp_pte(uint64_t pte, uint64_t present, uint64_t unused)
{
	(void)unused;
	return pte && !(pte & present);
}

static inline bool is_present_pte(uint64_t pte, uint64_t present, uint64_t unused)
{
	(void)unused;
	return pte & present;
}

static inline bool is_byte(unsigned char byte, unsigned char a, unsigned char b)
{
	return byte == a || byte == b;
}

static inline bool is_used(unsigned char byte, unsigned char flag, unsigned char bad)
{
	return byte && (byte & ~flag) != bad;
}

/* ---- any host ---- */
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define EACH_BYTE 0x0101010101010101ULL
#define TOP_BITS 0x8080808080808080ULL

typedef bool (*is_hit_pte)(uint64_t pte, uint64_t x, uint64_t y);
typedef bool (*is_hit_byte)(unsigned char byte, unsigned char x, unsigned char y);

/* From index i on; i is there for those who have looked at a part in larger steps. */
ALWAYS_INLINE size_t scan_ptes(const uint64_t *pte, size_t i, size_t n, is_hit_pte hit, uint64_t x,
			       uint64_t y)
{
	while (i < n && !hit(pte[i], x, y))
		i++;
	return i;
}

ALWAYS_INLINE size_t scan_bytes(const unsigned char *map, size_t i, size_t n, is_hit_byte hit,
				unsigned char x, unsigned char y)
{
	while (i < n && !hit(map[i], x, y))
		i++;
	return i;
}

static uint64_t load_word(const unsigned char *map)
{
	uint64_t word;

	memcpy(&word, map, sizeof(word));
	return word;
}

static bool has_zero_byte(uint64_t word)
{
	return (word - EACH_BYTE) & ~word & TOP_BITS;
}

static size_t portable_find_pte(const uint64_t *pte, size_t n, uint64_t marks, uint64_t want)
{
	return scan_ptes(pte, 0, n, is_pte, marks, want);
}

static size_t portable_find_swp_pte(const uint64_t *pte, size_t n, uint64_t present)
{
	return scan_ptes(pte, 0, n, is_swp_pte, present, 0);
}

static size_t portable_find_present_pte(const uint64_t *pte, size_t n, uint64_t present)
{
	return scan_ptes(pte, 0, n, is_present_pte, present, 0);
}

static size_t portable_find_byte(const unsigned char *map, size_t n, unsigned char a,
				 unsigned char b)
{
	size_t i = 0;

	while (i + 8 <= n && !has_zero_byte(load_word(map + i) ^ a * EACH_BYTE) &&
	       !has_zero_byte(load_word(map + i) ^ b * EACH_BYTE))
		i += 8;
	return scan_bytes(map, i, n, is_byte, a, b);
}

static size_t portable_find_used(const unsigned char *map, size_t n, unsigned char flag,
				 unsigned char bad)
{
	size_t i = 0;

	while (i + 8 <= n && !load_word(map + i))
		i += 8;
	return scan_bytes(map, i, n, is_used, flag, bad);
}

static size_t portable_find_last_used(const unsigned char *map, size_t n)
{
	size_t i = n;

	while (i >= 8 && !load_word(map + i - 8))
		i -= 8;
	while (i && !map[i - 1])
		i--;
	return i ? i - 1 : n;
}

static const struct simd_ops portable = {
	"portable",	    portable_find_pte,	portable_find_swp_pte,	 portable_find_present_pte,
	portable_find_byte, portable_find_used, portable_find_last_used, portable_jhash2_lanes,
	portable_xxh64,
};

/* ---- AVX2 ---- */
#ifdef HAVE_AVX2
#define AVX2 __attribute__((target("avx2")))
#define PTES 4 /* in a vector */
#define BYTES 32

typedef __m256i (*hits_in)(__m256i v, __m256i x, __m256i y); /* all ones where there is one */

AVX2 ALWAYS_INLINE __m256i load(const void *p)
{
	return _mm256_loadu_si256(p);
}

AVX2 ALWAYS_INLINE __m256i invert(__m256i v)
{
	return _mm256_xor_si256(v, _mm256_set1_epi8(-1));
}

AVX2 ALWAYS_INLINE __m256i no_bits(__m256i v, __m256i bits)
{
	return _mm256_cmpeq_epi64(_mm256_and_si256(v, bits), _mm256_setzero_si256());
}

AVX2 ALWAYS_INLINE __m256i are_pte(__m256i v, __m256i marks, __m256i want)
{
	return _mm256_cmpeq_epi64(_mm256_andnot_si256(marks, v), want);
}

AVX2 ALWAYS_INLINE __m256i are_swp_pte(__m256i v, __m256i present, __m256i unused)
{
	(void)unused;
	return _mm256_andnot_si256(_mm256_cmpeq_epi64(v, _mm256_setzero_si256()),
				   no_bits(v, present));
}

AVX2 ALWAYS_INLINE __m256i are_present_pte(__m256i v, __m256i present, __m256i unused)
{
	(void)unused;
	return invert(no_bits(v, present));
}

AVX2 ALWAYS_INLINE __m256i are_byte(__m256i v, __m256i a, __m256i b)
{
	return _mm256_or_si256(_mm256_cmpeq_epi8(v, a), _mm256_cmpeq_epi8(v, b));
}

AVX2 ALWAYS_INLINE __m256i are_used(__m256i v, __m256i flag, __m256i bad)
{
	return invert(_mm256_or_si256(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()),
				      _mm256_cmpeq_epi8(_mm256_andnot_si256(flag, v), bad)));
}

/* How far there is nothing in steps of four vectors, n elements of the given size in all. */
AVX2 ALWAYS_INLINE size_t skip(const void *array, size_t n, size_t size, hits_in hits, __m256i x,
			       __m256i y)
{
	const char *p = array;
	size_t step = 4 * BYTES / size, i = 0;

	for (; i + step <= n; i += step, p += 4 * BYTES) {
		__m256i low = _mm256_or_si256(hits(load(p), x, y), hits(load(p + BYTES), x, y));
		__m256i high = _mm256_or_si256(hits(load(p + 2 * BYTES), x, y),
					       hits(load(p + 3 * BYTES), x, y));

		if (_mm256_movemask_epi8(_mm256_or_si256(low, high)))
			break;
	}
	return i;
}

AVX2 ALWAYS_INLINE size_t avx2_scan_ptes(const uint64_t *pte, size_t n, hits_in hits,
					 is_hit_pte hit, uint64_t x, uint64_t y)
{
	__m256i vx = _mm256_set1_epi64x((long long)x), vy = _mm256_set1_epi64x((long long)y);
	size_t i = skip(pte, n, sizeof(*pte), hits, vx, vy);

	for (; i + PTES <= n; i += PTES) {
		__m256i found = hits(load(&pte[i]), vx, vy);
		int mask = _mm256_movemask_pd(_mm256_castsi256_pd(found));

		if (mask)
			return i + (size_t)__builtin_ctz((unsigned int)mask);
	}
	return scan_ptes(pte, i, n, hit, x, y);
}

AVX2 ALWAYS_INLINE size_t avx2_scan_bytes(const unsigned char *map, size_t n, hits_in hits,
					  is_hit_byte hit, unsigned char x, unsigned char y)
{
	__m256i vx = _mm256_set1_epi8((char)x), vy = _mm256_set1_epi8((char)y);
	size_t i = skip(map, n, 1, hits, vx, vy);

	for (; i + BYTES <= n; i += BYTES) {
		int mask = _mm256_movemask_epi8(hits(load(&map[i]), vx, vy));

		if (mask)
			return i + (size_t)__builtin_ctz((unsigned int)mask);
	}
	return scan_bytes(map, i, n, hit, x, y);
}

AVX2 static size_t avx2_find_pte(const uint64_t *pte, size_t n, uint64_t marks, uint64_t want)
{
	return avx2_scan_ptes(pte, n, are_pte, is_pte, marks, want);
}

AVX2 static size_t avx2_find_swp_pte(const uint64_t *pte, size_t n, uint64_t present)
{
	return avx2_scan_ptes(pte, n, are_swp_pte, is_swp_pte, present, 0);
}

AVX2 static size_t avx2_find_present_pte(const uint64_t *pte, size_t n, uint64_t present)
{
	return avx2_scan_ptes(pte, n, are_present_pte, is_present_pte, present, 0);
}

AVX2 static size_t avx2_find_byte(const unsigned char *map, size_t n, unsigned char a,
				  unsigned char b)
{
	return avx2_scan_bytes(map, n, are_byte, is_byte, a, b);
}

AVX2 static size_t avx2_find_used(const unsigned char *map, size_t n, unsigned char flag,
				  unsigned char bad)
{
	return avx2_scan_bytes(map, n, are_used, is_used, flag, bad);
}

AVX2 static size_t avx2_find_last_used(const unsigned char *map, size_t n)
{
	const __m256i zero = _mm256_setzero_si256();
	size_t i = n, tail;

	for (; i >= BYTES; i -= BYTES) {
		unsigned int zeros = (unsigned int)_mm256_movemask_epi8(
			_mm256_cmpeq_epi8(load(&map[i - BYTES]), zero));

		if (~zeros)
			return i - 1 - (size_t)__builtin_clz(~zeros);
	}
	tail = portable_find_last_used(map, i);
	return tail < i ? tail : n;
}

static const struct simd_ops avx2 = {
	"avx2",		avx2_find_pte,	avx2_find_swp_pte,   avx2_find_present_pte,
	avx2_find_byte, avx2_find_used, avx2_find_last_used, avx2_jhash2_lanes,
	portable_xxh64,
};

/* Searches wait for memory as it is: only what multiplies and rotates gains. */
static const struct simd_ops avx512 = {
	"avx512",	avx2_find_pte,	avx2_find_swp_pte,   avx2_find_present_pte,
	avx2_find_byte, avx2_find_used, avx2_find_last_used, avx512_jhash2_lanes,
	avx512_xxh64,
};
#endif

/* ---- the choice ---- */
_Atomic(const struct simd_ops *) simd_in_use = &portable;

static bool host_has(const struct simd_ops *ops)
{
#ifdef HAVE_AVX2
	bool has_avx2;

	__builtin_cpu_init();
	has_avx2 = __builtin_cpu_supports("avx2");
	if (ops == &avx2)
		return has_avx2;
	if (ops == &avx512)
		return has_avx2 && __builtin_cpu_supports("avx512dq") &&
		       __builtin_cpu_supports("avx512vl");
#endif
	return ops == &portable;
}

/* The best there is, or the one of that name. NULL: the host has none such. */
static const struct simd_ops *find_ops(const char *name)
{
	static const struct simd_ops *const all[] = {
#ifdef HAVE_AVX2
		&avx512,
		&avx2,
#endif
		&portable,
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if ((!strcmp(name, "auto") || !strcmp(name, all[i]->name)) && host_has(all[i]))
			return all[i];
	return NULL;
}

/* When the library is loaded: before any thread of the program can ask. */
__attribute__((constructor)) static void choose(void)
{
	atomic_store(&simd_in_use, find_ops("auto"));
}

const char *pyksm_simd(const char *want)
{
	const struct simd_ops *ops = want ? find_ops(want) : simd();

	if (!ops)
		return NULL;
	atomic_store(&simd_in_use, ops);
	return ops->name;
}
