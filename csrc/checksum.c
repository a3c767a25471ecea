/* SPDX-License-Identifier: MIT */
/*
 * The checksums of pages. jhash2 is a chain of steps that each wait for the one before: eight pages go side by side
 * in the lanes of vectors, which the compiler makes of what the host has; simd.c chooses what else there is.
 */
#include "jhash.h"
#include "ksm_internal.h"
#include "simd.h"
#include "xxhash.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef uint32_t lanes_t __attribute__((vector_size(4 * JHASH_LANES)));

/* ---- jhash2, eight at a time ---- */
/* A word of each key. */
ALWAYS_INLINE void load_word(const unsigned char *const *key, size_t i, lanes_t *word)
{
#pragma GCC unroll 8
	for (int k = 0; k < JHASH_LANES; k++)
		(*word)[k] = word_at(key[k], i);
}

#ifdef __clang__
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define PICK(x, y, ...) __builtin_shuffle(x, y, (lanes_t){ __VA_ARGS__ })
#endif

/* Eight words of each key: pairs of keys, then fours, then all, as vectors are put together cheaply. */
ALWAYS_INLINE void load_words(const unsigned char *const *key, size_t i, lanes_t *word)
{
	lanes_t row[8], two[8], four[8];

#pragma GCC unroll 8
	for (int k = 0; k < 8; k++)
		memcpy(&row[k], key[k] + 4 * i, sizeof(row[k]));
#pragma GCC unroll 8
	for (int k = 0; k < 8; k += 2) {
		two[k] = PICK(row[k], row[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
		two[k + 1] = PICK(row[k], row[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
	}
#pragma GCC unroll 8
	for (int k = 0; k < 8; k += 4) {
		four[k] = PICK(two[k], two[k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
		four[k + 1] = PICK(two[k], two[k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
		four[k + 2] = PICK(two[k + 1], two[k + 3], 0, 1, 8, 9, 4, 5, 12, 13);
		four[k + 3] = PICK(two[k + 1], two[k + 3], 2, 3, 10, 11, 6, 7, 14, 15);
	}
#pragma GCC unroll 8
	for (int k = 0; k < 4; k++) {
		word[k] = PICK(four[k], four[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
		word[k + 4] = PICK(four[k], four[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
	}
}

struct jhash_state {
	lanes_t a, b, c;
};

ALWAYS_INLINE void mix(struct jhash_state *s, const lanes_t *word)
{
	lanes_t a = s->a + word[0], b = s->b + word[1], c = s->c + word[2];

	JHASH_MIX(a, b, c);
	*s = (struct jhash_state){ a, b, c };
}

/* With the last one, two or three words. */
ALWAYS_INLINE void mix_last(struct jhash_state *s, const lanes_t *word, size_t n)
{
	lanes_t a = s->a + word[0], b = s->b, c = s->c;

	if (n > 1)
		b += word[1];
	if (n > 2)
		c += word[2];
	JHASH_FINAL(a, b, c);
	s->c = c;
}

/* words: not 0. A round takes three words, vectors bring eight: 24 is the least that both go into. */
ALWAYS_INLINE void jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
				uint32_t *ret)
{
	struct jhash_state s;
	lanes_t word[24];
	size_t i = 0;

	s.a = s.b = s.c = (lanes_t){ 0 } + (0xdeadbeefU + (uint32_t)(words << 2) + initval);
	for (; words - i > 24; i += 24) {
#pragma GCC unroll 8
		for (int k = 0; k < 24; k += 8)
			load_words(key, i + (size_t)k, &word[k]);
#pragma GCC unroll 8
		for (int k = 0; k < 24; k += 3)
			mix(&s, &word[k]);
	}
	for (; words - i > 3; i += 3) {
#pragma GCC unroll 8
		for (int k = 0; k < 3; k++)
			load_word(key, i + (size_t)k, &word[k]);
		mix(&s, word);
	}
	for (size_t k = 0; k < words - i; k++)
		load_word(key, i + k, &word[k]);
	mix_last(&s, word, words - i);
	memcpy(ret, &s.c, sizeof(s.c));
}

void portable_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
			   uint32_t *ret)
{
	jhash2_lanes(key, words, initval, ret);
}

/* ---- xxh64 ---- */
uint64_t portable_xxh64(const void *data, size_t len, uint64_t seed)
{
	return xxh64(data, len, seed);
}

/* ---- the same with what x86-64 may have ---- */
#if defined(__x86_64__) && defined(__GNUC__)
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512dq,avx512vl")))

AVX2 void avx2_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
			    uint32_t *ret)
{
	jhash2_lanes(key, words, initval, ret);
}

/* It rotates in one step. */
AVX512 void avx512_jhash2_lanes(const unsigned char *const *key, size_t words, uint32_t initval,
				uint32_t *ret)
{
	jhash2_lanes(key, words, initval, ret);
}

typedef uint64_t sums_t __attribute__((vector_size(32)));

/* It multiplies 64 bits in one step: the four sums of xxh64 side by side. */
AVX512 uint64_t avx512_xxh64(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data, *end = p + len;
	sums_t acc = { seed + XXH_PRIME_1 + XXH_PRIME_2, seed + XXH_PRIME_2, seed,
		       seed - XXH_PRIME_1 };

	if (len < 32)
		return xxh64(data, len, seed);
	for (; end - p >= 32; p += 32) {
		sums_t word;

		memcpy(&word, p, sizeof(word));
		acc += word * XXH_PRIME_2;
		acc = (acc << 31 | acc >> 33) * XXH_PRIME_1;
	}
	return xxh64_finish(xxh64_converge(acc[0], acc[1], acc[2], acc[3]), p, end, len);
}
#endif

/* ---- of pages ---- */
/* xxhash since 5.0 (59e1a2f4bf83), of whose 64 bits the kernel keeps the low half. */
uint32_t page_checksum(const struct pyksm *m, const void *content)
{
	if (has(m, FEAT_XXHASH))
		return (uint32_t)simd()->xxh64(content, m->page_size, 0);
	return jhash2(content, m->page_size / 4, 17);
}

void page_checksums(const struct pyksm *m, const unsigned char *const *contents, size_t n,
		    uint32_t *ret)
{
	size_t i = 0;

	if (!has(m, FEAT_XXHASH))
		for (; n - i >= JHASH_LANES; i += JHASH_LANES)
			simd()->jhash2_lanes(&contents[i], m->page_size / 4, 17, &ret[i]);
	for (; i < n; i++)
		ret[i] = page_checksum(m, contents[i]);
}
