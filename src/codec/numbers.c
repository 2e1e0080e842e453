/* Numbers and quantities as text. */
#include "codec/internal.h"

#include <math.h>
#include <stdio.h>

static const char two_digits[] =
	"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354"
	"5556575859606162636465666768697071727374757677787980818283848586878889909192939495969798"
	"99";

size_t format_int(int64_t v, char *out)
{
	char digits[20], *p = digits + sizeof(digits);
	uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
	size_t n = 0;

	while (u >= 100) {
		p -= 2;
		memcpy(p, &two_digits[u % 100 * 2], 2);
		u /= 100;
	}
	if (u >= 10) {
		p -= 2;
		memcpy(p, &two_digits[u * 2], 2);
	} else {
		*--p = (char)('0' + u);
	}
	if (v < 0)
		out[n++] = '-';
	size_t len = (size_t)(digits + sizeof(digits) - p);

	memcpy(out + n, p, len);
	return n + len;
}

/* The shortest text that reads back as v: fixed for 1e-6 <= |v| < 1e21, else with an exponent. */
size_t format_double(double v, char out[32])
{
	char text[32];
	int precision = 1;

	if (!isfinite(v))
		return (size_t)snprintf(
			out, 32, "0"); /* JSON has no such number; decoding never makes one */
	if (v == 0)
		return (size_t)snprintf(out, 32, signbit(v) ? "-0" : "0");
	do
		snprintf(text, sizeof(text), "%.*e", precision - 1, v);
	while (strtod(text, NULL) != v && precision++ < 17);

	int exponent = atoi(strchr(text, 'e') + 1);

	if (exponent >= precision && exponent < 21) { /* digits, then zeros up to the point */
		size_t len = (size_t)snprintf(out, 32, "%.*f", 0, v);
		size_t keep = (size_t)precision + (*out == '-');

		for (const char *d = text, *e = strchr(text, 'e'); d < e; d++)
			if (*d != '.')
				*out++ = *d;
		memset(out, '0', len - keep);
		out[len - keep] = '\0';
		return len;
	}
	if (exponent >= -6 && exponent < 21)
		return (size_t)snprintf(out, 32, "%.*f", MAX(0, precision - 1 - exponent), v);
	size_t mantissa = (size_t)(strchr(text, 'e') - text);

	return (size_t)snprintf(out, 32, "%.*se%c%0*d", (int)mantissa, text,
		exponent < 0 ? '-' : '+', exponent < 0 ? 1 : 2, abs(exponent));
}

int parse_int(struct str s, int64_t *ret)
{
	bool negative = s.len && *s.p == '-';
	size_t i = negative;
	uint64_t v = 0;

	if (s.len - i > 19)
		return -ERANGE;
	for (; i < s.len; i++)
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	if (v > (uint64_t)INT64_MAX + negative)
		return -ERANGE;
	*ret = negative ? (int64_t)(0 - v) : (int64_t)v;
	return 0;
}

/* Whether s is canonical as it stands, told without parsing: an integer without leading zero whose unit cannot be made
 * larger. False negatives are fine. */
static bool surely_canonical(struct str s)
{
	size_t n = 0;
	uint32_t v = 0;

	while (n < s.len && n < 9 && s.p[n] >= '0' && s.p[n] <= '9')
		v = v * 10 + (uint32_t)(s.p[n++] - '0');
	if (!n || s.p[0] == '0')
		return s.len == 1 && n == 1;
	if (n == s.len)
		return v % 1000;
	if (n + 1 == s.len)
		return v % 1000 && strchr("mkMG", s.p[n]);
	return n + 2 == s.len && v % 1024 && s.p[n + 1] == 'i' && strchr("KMGT", s.p[n]);
}

int quantity_canonical(struct str s, struct arena *a, struct str *ret)
{
	struct quantity q;
	char text[QUANTITY_TEXT_MAX];

	if (s.len && surely_canonical(s)) {
		*ret = arena_str(a, s);
		return 0;
	}
	int r = quantity_parse(s, &q);

	if (r < 0)
		return r;
	size_t n = quantity_format(q, text);

	*ret = arena_str(a, str_n(text, n));
	return 0;
}
