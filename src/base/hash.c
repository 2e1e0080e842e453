/* Hashes for tables and names. hash_bytes folds 128-bit products, eight bytes at a time. */
#include "base/map.h"

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
	const unsigned char *at = p;
	uint64_t h = fold(seed ^ 0x9e3779b97f4a7c15, n ^ 0xe7037ed1a0b428db), word;

	for (; n >= 8; n -= 8, at += 8) {
		memcpy(&word, at, 8);
		h = fold(h ^ word, 0xa0761d6478bd642f);
	}
	word = 0;
	if (n)
		memcpy(&word, at, n);
	return fold(h ^ word, 0x8ebc6af09c88c6e3) ^ h;
}

uint32_t hash_fnv32a(const void *p, size_t n)
{
	const unsigned char *at = p;
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ at[i]) * 16777619u;
	return h;
}
