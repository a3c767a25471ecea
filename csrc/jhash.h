/* SPDX-License-Identifier: MIT */
/* Bob Jenkins' lookup3 over 32-bit words: KSM's checksum until 5.0 (kernel: jhash2). */
#ifndef PYKSM_JHASH_H
#define PYKSM_JHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of words, or of vectors of them. */
#define JHASH_ROL(v, n) ((v) << (n) | (v) >> (32 - (n)))
#define JHASH_MIX(a, b, c)                                                                         \
	do {                                                                                       \
		a = (a - c) ^ JHASH_ROL(c, 4), c += b;                                             \
		b = (b - a) ^ JHASH_ROL(a, 6), a += c;                                             \
		c = (c - b) ^ JHASH_ROL(b, 8), b += a;                                             \
		a = (a - c) ^ JHASH_ROL(c, 16), c += b;                                            \
		b = (b - a) ^ JHASH_ROL(a, 19), a += c;                                            \
		c = (c - b) ^ JHASH_ROL(b, 4), b += a;                                             \
	} while (0)
#define JHASH_FINAL(a, b, c)                                                                       \
	do {                                                                                       \
		c = (c ^ b) - JHASH_ROL(b, 14);                                                    \
		a = (a ^ c) - JHASH_ROL(c, 11);                                                    \
		b = (b ^ a) - JHASH_ROL(a, 25);                                                    \
		c = (c ^ b) - JHASH_ROL(b, 16);                                                    \
		a = (a ^ c) - JHASH_ROL(c, 4);                                                     \
		b = (b ^ a) - JHASH_ROL(a, 14);                                                    \
		c = (c ^ b) - JHASH_ROL(b, 24);                                                    \
	} while (0)

static inline uint32_t word_at(const unsigned char *p, size_t i)
{
	uint32_t w;

	memcpy(&w, p + 4 * i, sizeof(w));
	return w;
}

static inline uint32_t jhash2(const unsigned char *key, size_t words, uint32_t initval)
{
	uint32_t a, b, c;
	size_t i = 0;

	a = b = c = 0xdeadbeefU + (uint32_t)(words << 2) + initval;
	for (; words > 3; words -= 3, i += 3) {
		a += word_at(key, i);
		b += word_at(key, i + 1);
		c += word_at(key, i + 2);
		JHASH_MIX(a, b, c);
	}
	if (!words)
		return c;
	c += words > 2 ? word_at(key, i + 2) : 0;
	b += words > 1 ? word_at(key, i + 1) : 0;
	a += word_at(key, i);
	JHASH_FINAL(a, b, c);
	return c;
}

#endif
