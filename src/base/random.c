/* Randomness from the kernel, and the names made of it. */
#include "base/values.h"

#include <pthread.h>
#include <sys/random.h>

static const char suffix_alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
#define SUFFIX_LETTERS (sizeof(suffix_alphabet) - 1)

void random_bytes(void *p, size_t n)
{
	char *at = p;

	while (n) {
		ssize_t r = getrandom(at, n, 0);

		if (r < 0 && errno != EINTR)
			abort();
		if (r > 0) {
			at += r;
			n -= (size_t)r;
		}
	}
}

/* Names are made often: each thread asks the kernel for many at once. Never for secrets: what is read ahead stays in memory. */
static __thread struct {
	unsigned char bytes[256];
	size_t left;
} ahead;

/* A child must not make the same names as its parent. */
static void forget(void)
{
	ahead.left = 0;
}

__attribute__((constructor)) static void at_fork(void)
{
	pthread_atfork(NULL, NULL, forget);
}

static void name_bytes(void *p, size_t n)
{
	if (ahead.left < n) {
		random_bytes(ahead.bytes, sizeof(ahead.bytes));
		ahead.left = sizeof(ahead.bytes);
	}
	ahead.left -= n;
	memcpy(p, ahead.bytes + ahead.left, n);
}

void uuid_v4(char out[UUID_TEXT])
{
	unsigned char b[16];
	size_t n = 0;

	name_bytes(b, sizeof(b));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	for (size_t i = 0; i < sizeof(b); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			out[n++] = '-';
		out[n++] = "0123456789abcdef"[b[i] >> 4];
		out[n++] = "0123456789abcdef"[b[i] & 15];
	}
	out[n] = '\0';
}

void random_suffix(char *out, size_t n)
{
	/* Bytes of 243 and above would make the first letters likelier. */
	const unsigned char bound = 256 / SUFFIX_LETTERS * SUFFIX_LETTERS;
	size_t have = 0;

	while (have < n) {
		unsigned char b[16];

		name_bytes(b, sizeof(b));
		for (size_t i = 0; i < sizeof(b) && have < n; i++)
			if (b[i] < bound)
				out[have++] = suffix_alphabet[b[i] % SUFFIX_LETTERS];
	}
	out[n] = '\0';
}

void safe_encode_suffix(char *inout)
{
	for (unsigned char *p = (unsigned char *)inout; *p; p++)
		*p = (unsigned char)suffix_alphabet[*p % SUFFIX_LETTERS];
}
