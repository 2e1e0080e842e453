/* Resource amounts. The value is kept as an exact count of 10^-9, so that comparing and adding is integer arithmetic.
 * Upstream's rules kept here: what is finer than 10^-9 is rounded away from zero; what is written with a binary suffix,
 * or with more than 18 digits, is capped at 2^63-1; a binary amount below 1 turns decimal.
 * Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
#include "base/values.h"

#include <stdio.h>

typedef unsigned __int128 u128;

#define NANO ((__int128)1000000000)
#define MANTISSA_MAX ((u128)1 << 96)
#define FAST_DIGITS 18

/* clang-format off */
static const struct suffix { const char *text; char format; int exponent; } suffixes[] = {
	{ "n",  'D', -9 }, { "u",  'D', -6 }, { "m",  'D', -3 }, { "",   'D', 0 },  { "k",  'D', 3 },
	{ "M",  'D', 6 },  { "G",  'D', 9 },  { "T",  'D', 12 }, { "P",  'D', 15 }, { "E",  'D', 18 },
	{ "Ki", 'B', 10 }, { "Mi", 'B', 20 }, { "Gi", 'B', 30 }, { "Ti", 'B', 40 }, { "Pi", 'B', 50 },
	{ "Ei", 'B', 60 },
};
/* clang-format on */

struct number {
	u128 mantissa;
	int scale;    /* the value is mantissa * 10^scale */
	int digits;   /* written, without leading zeros */
	bool inexact; /* digits were dropped off the end, and one of them was not zero */
};

static int read_suffix(struct str s, char *ret_format, int *ret_exponent)
{
	int64_t exponent;

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		if (!str_eqz(s, suffixes[i].text))
			continue;
		*ret_format = suffixes[i].format;
		*ret_exponent = suffixes[i].exponent;
		return 0;
	}
	if (s.len < 2 || (s.p[0] != 'e' && s.p[0] != 'E') ||
		str_to_i64(str_from(s, 1), &exponent) < 0)
		return -EINVAL;
	if (exponent < -100000 || exponent > 100000)
		return -EINVAL;
	*ret_format = 'E';
	*ret_exponent = (int)exponent;
	return 0;
}

static void number_add_digit(struct number *n, int digit, bool fraction)
{
	if (n->digits || digit || fraction)
		n->digits++;
	if (n->mantissa >= MANTISSA_MAX) {
		n->inexact = n->inexact || digit;
		n->scale += !fraction;
		return;
	}
	n->mantissa = n->mantissa * 10 + (unsigned)digit;
	n->scale -= fraction;
}

static int read_number(struct str *s, struct number *n)
{
	bool fraction = false, any = false;
	size_t i = 0;

	for (; i < s->len; i++) {
		char c = s->p[i];

		if (c == '.' && !fraction) {
			fraction = true;
			continue;
		}
		if (c < '0' || c > '9')
			break;
		any = true;
		number_add_digit(n, c - '0', fraction);
	}
	*s = str_from(*s, i);
	return any ? 0 : -EINVAL;
}

/* The number in units of 10^-9, rounded up; false: it does not fit. */
static bool to_nano(struct number n, int binary_exponent, u128 *ret)
{
	u128 v = n.mantissa, limit = (u128)1 << 126;

	if (binary_exponent) {
		/* Room for the shift: drop what is far below 10^-9 of the outcome. */
		while (v >> (126 - binary_exponent)) {
			if (n.scale >= 0)
				return false;
			n.inexact = n.inexact || v % 10;
			v /= 10;
			n.scale++;
		}
		v <<= binary_exponent;
	}
	for (n.scale += 9; n.scale > 0 && v; n.scale--) {
		if (v > limit / 10)
			return false;
		v *= 10;
	}
	for (; n.scale < 0 && v; n.scale++) {
		n.inexact = n.inexact || v % 10;
		v /= 10;
	}
	*ret = v + n.inexact;
	return true;
}

int quantity_parse(struct str s, struct quantity *ret)
{
	const u128 cap = (u128)INT64_MAX * (u128)NANO;
	bool negative = s.len && s.p[0] == '-';
	struct number n = { 0 };
	char format;
	int exponent;
	u128 nano = 0;

	if (s.len && (s.p[0] == '-' || s.p[0] == '+'))
		s = str_from(s, 1);
	if (read_number(&s, &n) < 0 || read_suffix(s, &format, &exponent) < 0)
		return -EINVAL;
	bool capped = format == 'B' || n.digits > FAST_DIGITS;

	if (format != 'B')
		n.scale += exponent;
	bool fits = to_nano(n, format == 'B' ? exponent : 0, &nano);

	if (!fits && !capped)
		return -ERANGE;
	if (capped && (!fits || nano > cap))
		nano = cap;
	if (format == 'B' && !negative && nano > 0 && nano < (u128)NANO)
		format = 'D';
	ret->nano = negative ? -(__int128)nano : (__int128)nano;
	ret->format = format;
	return 0;
}

static size_t put_u128(char *out, u128 v)
{
	char digits[40];
	size_t n = 0;

	do
		digits[n++] = (char)('0' + (int)(v % 10));
	while (v /= 10);
	for (size_t i = 0; i < n; i++)
		out[i] = digits[n - 1 - i];
	out[n] = '\0';
	return n;
}

static const char *suffix_text(char format, int exponent)
{
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++)
		if (suffixes[i].format == format && suffixes[i].exponent == exponent)
			return suffixes[i].text;
	return "";
}

static size_t format_binary(u128 units, char *out)
{
	int exponent = 0;

	while (units % 1024 == 0 && exponent < 60) {
		units /= 1024;
		exponent += 10;
	}
	size_t n = put_u128(out, units);

	return n + (size_t)snprintf(out + n, 4, "%s", suffix_text('B', exponent));
}

static size_t format_decimal(u128 nano, char format, char *out)
{
	int exponent = -9;

	while (nano % 1000 == 0 && (exponent < 18 || format == 'E')) {
		nano /= 1000;
		exponent += 3;
	}
	size_t n = put_u128(out, nano);

	if (format == 'E' && exponent)
		return n + (size_t)snprintf(out + n, 12, "e%d", exponent);
	return n + (size_t)snprintf(out + n, 4, "%s", suffix_text('D', exponent));
}

size_t quantity_format(struct quantity q, char out[QUANTITY_TEXT_MAX])
{
	u128 v = q.nano < 0 ? -(u128)q.nano : (u128)q.nano;
	size_t n = 0;

	if (!v) {
		memcpy(out, "0", 2);
		return 1;
	}
	if (q.nano < 0)
		out[n++] = '-';
	if (q.format == 'B' && v >= 1024 * (u128)NANO && v % (u128)NANO == 0)
		return n + format_binary(v / (u128)NANO, out + n);
	return n + format_decimal(v, q.format == 'E' ? 'E' : 'D', out + n);
}

int quantity_cmp(struct quantity a, struct quantity b)
{
	return (a.nano > b.nano) - (a.nano < b.nano);
}

/* As upstream: a sum keeps the format of its first part unless that is zero. */
static char sum_format(struct quantity a, struct quantity b)
{
	return a.nano == 0 && b.format ? b.format : a.format;
}

struct quantity quantity_add(struct quantity a, struct quantity b)
{
	return (struct quantity){ a.nano + b.nano, sum_format(a, b) };
}

struct quantity quantity_sub(struct quantity a, struct quantity b)
{
	return (struct quantity){ a.nano - b.nano, sum_format(a, b) };
}

static int64_t round_up_to(__int128 nano, __int128 unit)
{
	__int128 v = nano / unit;

	if (nano % unit > 0)
		v++;
	else if (nano % unit < 0)
		v--;
	if (v > INT64_MAX)
		return INT64_MAX;
	return v < INT64_MIN ? INT64_MIN : (int64_t)v;
}

int64_t quantity_value(struct quantity q)
{
	return round_up_to(q.nano, NANO);
}

int64_t quantity_milli_value(struct quantity q)
{
	return round_up_to(q.nano, NANO / 1000);
}
