/* SPDX-License-Identifier: MIT */
/*
 * Each scan of simd.h, as each implementation has it, against a loop that looks at one element after the
 * other: random arrays of all short lengths and alignments, with hits from none to everywhere. Arrays
 * end where their memory does, so that a sanitizer sees a read beyond.
 */
#include "check.h"
#include "pyksm.h"
#include "simd.h"

#define MAX_PTES 96
#define MAX_BYTES 300
#define PRESENT 0x101ULL
#define ROUNDS 3

static uint64_t state = 88172645463325252u;

static uint64_t random_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

/* Values near those that are looked for; rare: how seldom they are what most of the array is not. */
static uint64_t some_pte(uint64_t rare)
{
	static const uint64_t few[] = { 0x1001, 0x1003, 0x100b, 0x1100, 0x8000000000001001,
					0x1002, 0x1000, 8,	~0ULL };

	return random_below(rare) ? 0 : few[random_below(sizeof(few) / sizeof(few[0]))];
}

static unsigned char some_byte(uint64_t rare, unsigned char most)
{
	static const unsigned char few[] = { 0, 1, 0x3e, 0x3f, 0x40, 0x41, 0x7f, 0x80, 0xbf, 0xff };

	return random_below(rare) ? most : few[random_below(sizeof(few))];
}

static void check_ptes(const struct simd_ops *ops, const uint64_t *pte, size_t n)
{
	size_t same = 0, swp = 0, present = 0;

	while (same < n && (pte[same] & ~0xaULL) != 0x1001)
		same++;
	while (swp < n && (!pte[swp] || (pte[swp] & PRESENT)))
		swp++;
	while (present < n && !(pte[present] & PRESENT))
		present++;
	EXPECT(ops->find_pte(pte, n, 0xa, 0x1001), same);
	EXPECT(ops->find_swp_pte(pte, n, PRESENT), swp);
	EXPECT(ops->find_present_pte(pte, n, PRESENT), present);
}

static void check_bytes(const struct simd_ops *ops, const unsigned char *map, size_t n)
{
	size_t zero = 0, either = 0, used = 0, last = n;

	while (zero < n && map[zero])
		zero++;
	while (either < n && map[either] && map[either] != 0x40)
		either++;
	while (used < n && (!map[used] || (map[used] & ~0x40) == 0x3f))
		used++;
	for (size_t i = 0; i < n; i++)
		if (map[i])
			last = i;
	EXPECT(ops->find_byte(map, n, 0, 0), zero);
	EXPECT(ops->find_byte(map, n, 0, 0x40), either);
	EXPECT(ops->find_used(map, n, 0x40, 0x3f), used);
	EXPECT(ops->find_last_used(map, n), last);
}

static void check_pte_arrays(const struct simd_ops *ops, size_t n)
{
	for (size_t shift = 0; shift < 4; shift++) {
		uint64_t *pte = malloc((shift + n) * sizeof(*pte) + 1);

		for (int round = 0; pte && round < ROUNDS; round++) {
			uint64_t rare = 1 + random_below(2 * n + 1);

			for (size_t i = 0; i < n; i++)
				pte[shift + i] = some_pte(rare);
			check_ptes(ops, pte + shift, n);
		}
		free(pte);
	}
}

static void check_byte_arrays(const struct simd_ops *ops, size_t n)
{
	for (size_t shift = 0; shift < 32; shift++) {
		unsigned char *map = malloc(shift + n);

		for (int round = 0; map && round < ROUNDS; round++) {
			uint64_t rare = 1 + random_below(2 * n + 1);
			unsigned char most = random_below(2) ? 0 : some_byte(1, 0);

			for (size_t i = 0; i < n; i++)
				map[shift + i] = some_byte(rare, most);
			check_bytes(ops, map + shift, n);
		}
		free(map);
	}
}

static void check(const char *want)
{
	const struct simd_ops *ops;

	EXPECT(strcmp(pyksm_simd(want), want), 0);
	ops = simd();
	EXPECT(strcmp(ops->name, want), 0);
	for (size_t n = 0; n < MAX_PTES; n++)
		check_pte_arrays(ops, n);
	for (size_t n = 1; n < MAX_BYTES; n++)
		check_byte_arrays(ops, n);
}

int main(void)
{
	const char *first = pyksm_simd(NULL), *best = pyksm_simd("auto");

	EXPECT(strcmp(first, best), 0);
	EXPECT(!pyksm_simd("abacus"), 1);
	EXPECT(!pyksm_simd(""), 1);
	EXPECT(strcmp(pyksm_simd(NULL), best), 0); /* what cannot be had changes nothing */
	check("portable");
	if (pyksm_simd("avx2"))
		check("avx2");
	if (pyksm_simd("avx512"))
		check("avx512");
	EXPECT(strcmp(pyksm_simd("auto"), best), 0);
	return report();
}
