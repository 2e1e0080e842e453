/* base64 and hexadecimal. */
#include "base/values.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(
	struct buf *out, const unsigned char *p, size_t n, const char *alphabet, bool pad)
{
	buf_reserve(out, (n + 2) / 3 * 4);
	char *at = out->p + out->len;

	for (size_t i = 0; i < n; i += 3) {
		size_t have = MIN(n - i, (size_t)3);
		uint32_t v = (uint32_t)p[i] << 16;

		v |= have > 1 ? (uint32_t)p[i + 1] << 8 : 0;
		v |= have > 2 ? p[i + 2] : 0;
		for (size_t j = 0; j < 4; j++) {
			if (j <= have)
				*at++ = alphabet[v >> (18 - 6 * j) & 63];
			else if (pad)
				*at++ = '=';
		}
	}
	*at = '\0';
	out->len = (size_t)(at - out->p);
}

/* Value of a character; -1: not of the alphabet. */
static int value_of(char c, const char *alphabet)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == alphabet[62])
		return 62;
	return c == alphabet[63] ? 63 : -1;
}

static int decode(struct buf *out, struct str s, const char *alphabet, bool pad)
{
	size_t start = out->len, chars = 0, pads = 0;
	uint32_t v = 0;

	buf_reserve(out, s.len / 4 * 3 + 3);
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		int value = value_of(c, alphabet);

		if (c == '\n' || c == '\r')
			continue;
		if (pad && c == '=') {
			pads++;
			continue;
		}
		if (value < 0 || pads)
			goto bad;
		v = v << 6 | (uint32_t)value;
		if (++chars % 4 == 0) {
			char three[3] = { (char)(v >> 16), (char)(v >> 8), (char)v };

			buf_add(out, three, 3);
		}
	}
	size_t rest = chars % 4;

	if (rest == 1 || (pad && pads != (4 - rest) % 4))
		goto bad;
	if (rest == 2)
		buf_addc(out, (char)(v >> 4));
	if (rest == 3) {
		buf_addc(out, (char)(v >> 10));
		buf_addc(out, (char)(v >> 2));
	}
	return 0;
bad:
	out->len = start;
	out->p[start] = '\0';
	return -EINVAL;
}

void base64_encode(struct buf *out, const void *p, size_t n)
{
	encode(out, p, n, standard, true);
}

int base64_decode(struct buf *out, struct str s)
{
	return decode(out, s, standard, true);
}

void base64url_encode(struct buf *out, const void *p, size_t n)
{
	encode(out, p, n, url_safe, false);
}

int base64url_decode(struct buf *out, struct str s)
{
	return decode(out, s, url_safe, false);
}

void hex_encode(struct buf *out, const void *p, size_t n)
{
	const unsigned char *at = p;

	buf_reserve(out, n * 2);
	for (size_t i = 0; i < n; i++) {
		buf_addc(out, "0123456789abcdef"[at[i] >> 4]);
		buf_addc(out, "0123456789abcdef"[at[i] & 15]);
	}
}
