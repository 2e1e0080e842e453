/* Durations as Go writes and reads them, and ages as kubectl shows them. */
#include "base/values.h"

#include <stdio.h>

#define NS_PER_S 1000000000ull

/* v / 10^digits without trailing zeros. */
static size_t put_fraction(char *out, uint64_t v, int digits)
{
	char text[32];
	uint64_t unit = 1;

	for (int i = 0; i < digits; i++)
		unit *= 10;
	size_t n = (size_t)snprintf(out, 24, "%llu", (unsigned long long)(v / unit));

	if (v % unit == 0)
		return n;
	size_t m = (size_t)snprintf(
		text, sizeof(text), ".%0*llu", digits, (unsigned long long)(v % unit));

	while (text[m - 1] == '0')
		m--;
	memcpy(out + n, text, m);
	return n + m;
}

size_t duration_format(int64_t ns, char out[DURATION_TEXT_MAX])
{
	static const struct {
		uint64_t below;
		int digits;
		const char *unit;
	} small[] = { { 1000, 0, "ns" }, { 1000000, 3, "\xc2\xb5s" }, { NS_PER_S, 6, "ms" } };
	uint64_t v = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	size_t n = 0;

	if (ns == 0)
		return (size_t)snprintf(out, DURATION_TEXT_MAX, "0s");
	if (ns < 0)
		out[n++] = '-';
	for (size_t i = 0; i < ARRAY_LEN(small); i++) {
		if (v >= small[i].below)
			continue;
		n += put_fraction(out + n, v, small[i].digits);
		return n + (size_t)snprintf(out + n, 4, "%s", small[i].unit);
	}
	uint64_t minutes = v / (60 * NS_PER_S), hours = minutes / 60;

	if (hours)
		n += (size_t)snprintf(out + n, 12, "%lluh", (unsigned long long)hours);
	if (minutes)
		n += (size_t)snprintf(out + n, 4, "%lum", (unsigned long)(minutes % 60));
	n += put_fraction(out + n, v % (60 * NS_PER_S), 9);
	out[n++] = 's';
	out[n] = '\0';
	return n;
}

/* Takes a unit's name off the front of s; 0: there is none. */
static uint64_t take_unit(struct str *s)
{
	/* clang-format off */
	static const struct { const char *name; uint64_t ns; } units[] = {
		{ "ns", 1 }, { "us", 1000 }, { "\xc2\xb5s", 1000 }, { "\xce\xbcs", 1000 }, { "ms", 1000000 },
		{ "s", NS_PER_S }, { "m", 60 * NS_PER_S }, { "h", 3600 * NS_PER_S },
	};
	/* clang-format on */
	size_t n = 0;

	while (n < s->len && s->p[n] != '.' && (s->p[n] < '0' || s->p[n] > '9'))
		n++;
	struct str name = str_n(s->p, n);

	*s = str_from(*s, n);
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (str_eqz(name, units[i].name))
			return units[i].ns;
	return 0;
}

/* Takes "1.5h" off the front and adds it to *total, which stays at most 2^63. */
static int take_part(struct str *s, uint64_t *total)
{
	uint64_t whole = 0, fraction = 0, scale = 1, part;
	size_t i = 0, digits = 0;
	bool overflow = false;

	for (; i < s->len && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++)
		overflow = overflow || __builtin_mul_overflow(whole, 10, &whole) ||
			__builtin_add_overflow(whole, (uint64_t)(s->p[i] - '0'), &whole);
	if (i < s->len && s->p[i] == '.') {
		for (i++; i < s->len && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++) {
			if (scale >= 100000000000000000ull)
				continue;
			fraction = fraction * 10 + (uint64_t)(s->p[i] - '0');
			scale *= 10;
		}
	}
	if (!digits)
		return -EINVAL;
	*s = str_from(*s, i);
	uint64_t unit = take_unit(s);

	if (!unit)
		return -EINVAL;
	if (overflow || __builtin_mul_overflow(whole, unit, &part))
		return -ERANGE;
	part += (uint64_t)((unsigned __int128)fraction * unit / scale);
	if (__builtin_add_overflow(*total, part, total) || *total > 1ull << 63)
		return -ERANGE;
	return 0;
}

int duration_parse(struct str s, int64_t *ret_ns)
{
	bool negative = s.len && s.p[0] == '-';
	uint64_t total = 0;

	if (s.len && (s.p[0] == '-' || s.p[0] == '+'))
		s = str_from(s, 1);
	if (!s.len)
		return -EINVAL;
	if (str_eqz(s, "0"))
		s = str_from(s, 1);
	while (s.len) {
		int r = take_part(&s, &total);

		if (r < 0)
			return r;
	}
	if (!negative && total > INT64_MAX)
		return -ERANGE;
	*ret_ns = (int64_t)(negative ? 0 - total : total);
	return 0;
}

size_t duration_human(int64_t seconds, char out[DURATION_TEXT_MAX])
{
	/* First row whose bound is above: so many whole units, then the rest in the smaller unit when it has one. */
	/* clang-format off */
	static const struct { int64_t below; int32_t unit; char name; int32_t rest; char rest_name; } rows[] = {
		{ 120,              1,        's', 0,     0   },
		{ 600,              60,       'm', 1,     's' },
		{ 3 * 3600,         60,       'm', 0,     0   },
		{ 8 * 3600,         3600,     'h', 60,    'm' },
		{ 48 * 3600,        3600,     'h', 0,     0   },
		{ 8 * 86400,        86400,    'd', 3600,  'h' },
		{ 2 * 365 * 86400,  86400,    'd', 0,     0   },
		{ 8LL * 365 * 86400, 365 * 86400, 'y', 86400, 'd' },
		{ INT64_MAX,        365 * 86400, 'y', 0,  0   },
	};
	/* clang-format on */
	size_t i = 0;

	if (seconds < -1)
		return (size_t)snprintf(out, DURATION_TEXT_MAX, "<invalid>");
	seconds = MAX(seconds, 0);
	while (i < ARRAY_LEN(rows) - 1 && seconds >= rows[i].below)
		i++;
	long long whole = seconds / rows[i].unit;
	long long rest = rows[i].rest ? seconds % rows[i].unit / rows[i].rest : 0;

	if (!rest)
		return (size_t)snprintf(out, DURATION_TEXT_MAX, "%lld%c", whole, rows[i].name);
	return (size_t)snprintf(out, DURATION_TEXT_MAX, "%lld%c%lld%c", whole, rows[i].name, rest,
		rows[i].rest_name);
}
