/* SPDX-License-Identifier: MIT */
/* jhash2 of eight keys side by side, as each choice of simd.c has it, against one key at a time. */
#include "check.h"
#include "jhash.h"
#include "pyksm.h"
#include "simd.h"

#define MAX_WORDS 1024

int main(void)
{
	static unsigned char bytes[JHASH_LANES][4 * MAX_WORDS];
	const unsigned char *key[JHASH_LANES];
	uint64_t state = 1;

	for (int k = 0; k < JHASH_LANES; k++) {
		key[k] = bytes[k];
		for (size_t i = 0; i < sizeof(bytes[k]); i++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			bytes[k][i] = (unsigned char)(state >> 56);
		}
	}
	for (int choice = 0; choice < 2; choice++) {
		pyksm_simd(choice ? "auto" : "portable");
		for (size_t words = 1; words <= MAX_WORDS; words += words < 60 ? 1 : 241) {
			uint32_t ret[JHASH_LANES];

			simd()->jhash2_lanes(key, words, 17, ret);
			for (int k = 0; k < JHASH_LANES; k++)
				EXPECT(ret[k], jhash2(key[k], words, 17));
		}
	}
	return report();
}
