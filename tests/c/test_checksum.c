/* SPDX-License-Identifier: MIT */
/* jhash2 of eight keys side by side and xxh64, as each choice of simd.c has them, against the plain ones. */
#include "check.h"
#include "jhash.h"
#include "pyksm.h"
#include "simd.h"
#include "xxhash.h"

#define MAX_WORDS 1024

int main(void)
{
	static unsigned char bytes[JHASH_LANES][4 * MAX_WORDS];
	const unsigned char *key[JHASH_LANES];
	static const char *const choices[] = { "portable", "avx2", "avx512" };
	uint64_t state = 1;

	for (int k = 0; k < JHASH_LANES; k++) {
		key[k] = bytes[k];
		for (size_t i = 0; i < sizeof(bytes[k]); i++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			bytes[k][i] = (unsigned char)(state >> 56);
		}
	}
	for (size_t choice = 0; choice < sizeof(choices) / sizeof(choices[0]); choice++) {
		if (!pyksm_simd(choices[choice]))
			continue;
		for (size_t words = 1; words <= MAX_WORDS; words += words < 60 ? 1 : 241) {
			uint32_t ret[JHASH_LANES];

			simd()->jhash2_lanes(key, words, 17, ret);
			for (int k = 0; k < JHASH_LANES; k++)
				EXPECT(ret[k], jhash2(key[k], words, 17));
			EXPECT(simd()->xxh64(key[0], words / 2 * 8, 7),
			       xxh64(key[0], words / 2 * 8, 7));
		}
	}
	return report();
}
