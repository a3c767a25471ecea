/* SPDX-License-Identifier: MIT */
/*
 * XXH64 against values that its author publishes, and against the oracle's, which is held to all of
 * those, on the buffer that the reference implementation checks itself with.
 */
#include "check.h"
#include "xxhash.h"

static unsigned char buffer[4096];

static void fill_sanity_buffer(void)
{
	uint64_t state = 2654435761u;

	for (size_t i = 0; i < sizeof(buffer); i++) {
		buffer[i] = (unsigned char)(state >> 56);
		state *= 11400714785074694797u;
	}
}

int main(void)
{
	static const struct {
		size_t len;
		uint64_t seed, hash;
	} wanted[] = {
		{ 8, 0u, 0xcdbcf538e71d1348 },	  { 8, 2654435761u, 0xfe0c047a5353cdac },
		{ 24, 0u, 0xf75a6dea42dc5bf4 },	  { 24, 2654435761u, 0x8b7c67eb59778e22 },
		{ 32, 0u, 0x18b216492bb44b70 },	  { 32, 2654435761u, 0xb3f33bdf93ade409 },
		{ 40, 0u, 0x23b3810d7d8b1731 },	  { 40, 2654435761u, 0x5a57f246772bc540 },
		{ 64, 0u, 0xef558f8acac2b5cd },	  { 64, 2654435761u, 0xb5eeba99264cc44f },
		{ 104, 0u, 0x23ed252f132dfa0f },  { 104, 2654435761u, 0x1683c40fe4f3ec6e },
		{ 4096, 0u, 0xab77f4af85f4e70b }, { 4096, 2654435761u, 0xcb8b60cba513125d },
	};

	EXPECT(xxh64(buffer, 4096, 0), 0xac869b6f32d8bbdb);
	fill_sanity_buffer();
	EXPECT(xxh64(buffer, 0, 0), 0xef46db3751d8e999);
	EXPECT(xxh64(buffer, 0, 1), 0xd5afba1336a3be4b);
	EXPECT(xxh64(buffer, 0, 2654435761u), 0xac75fda2929b17ef);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		EXPECT(xxh64(buffer, wanted[i].len, wanted[i].seed), wanted[i].hash);
	return report();
}
