/* See zone.h. A file holds transitions, mostly up to 2037, and behind them a rule in the form of POSIX' TZ variable for all years
 * after; the rule is unrolled up to LAST_YEAR when the file is read, so that looking up is one search. */
#include "base/zone.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/values.h"

#define FOLDER "/usr/share/zoneinfo"
#define FILE_MAX ((size_t)64 * 1024)
#define HEADER 44
#define DAY_S 86400
#define LAST_YEAR 2200

struct zone {
	size_t n;
	int64_t *
		at; /* ascending; offsets[i] holds from at[i] on, before the first one it is `first` */
	int32_t *offsets, first;
};
struct text { /* what is left of it */
	const char *p, *end;
};
struct rule { /* the day of a year on which clocks change, and the second of that day by the clock before */
	char kind; /* 'M': month, week, day; 'J': 1 to 365 without leap days; 'n': 0 to 365 */
	int month, week, day;
	int32_t second;
};
struct posix {
	int32_t standard, summer;
	bool has_summer;
	struct rule start, end;
};

/* ---- the rule ---- */

static bool take(struct text *t, char c)
{
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

static bool take_number(struct text *t, int max, int *ret)
{
	int n = 0;
	const char *p = t->p;

	while (p < t->end && *p >= '0' && *p <= '9' && n <= max)
		n = n * 10 + (*p++ - '0');
	if (p == t->p || n > max)
		return false;
	t->p = p;
	*ret = n;
	return true;
}

static bool take_name(struct text *t)
{
	const char *p = t->p;

	if (take(t, '<')) {
		while (t->p < t->end && *t->p != '>')
			t->p++;
		return take(t, '>');
	}
	while (t->p < t->end && ((*t->p >= 'A' && *t->p <= 'Z') || (*t->p >= 'a' && *t->p <= 'z')))
		t->p++;
	return t->p - p >= 3;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct text *t, int32_t *ret)
{
	int h, m = 0, s = 0;
	bool minus = take(t, '-');

	if (!minus)
		take(t, '+');
	if (!take_number(t, 167, &h) || (take(t, ':') && !take_number(t, 59, &m)) ||
		(take(t, ':') && !take_number(t, 59, &s)))
		return false;
	*ret = (h * 3600 + m * 60 + s) * (minus ? -1 : 1);
	return true;
}

static bool take_rule(struct text *t, struct rule *r)
{
	bool ok;

	*r = (struct rule){ .kind = 'n', .second = 7200 };
	if (take(t, 'M')) {
		r->kind = 'M';
		ok = take_number(t, 12, &r->month) && r->month > 0 && take(t, '.') &&
			take_number(t, 5, &r->week) && r->week > 0 && take(t, '.') &&
			take_number(t, 6, &r->day);
	} else {
		if (take(t, 'J'))
			r->kind = 'J';
		ok = take_number(t, 365, &r->day) && (r->kind != 'J' || r->day > 0);
	}
	return ok && (!take(t, '/') || take_time(t, &r->second));
}

static bool parse_posix(struct text t, struct posix *r)
{
	*r = (struct posix){ 0 };
	if (!take_name(&t) || !take_time(&t, &r->standard))
		return false;
	r->standard = -r->standard; /* it is written the other way round: hours west */
	if (t.p == t.end)
		return true;
	if (!take_name(&t))
		return false;
	r->has_summer = true;
	r->summer = r->standard + 3600;
	if (t.p < t.end && *t.p != ',') {
		if (!take_time(&t, &r->summer))
			return false;
		r->summer = -r->summer;
	}
	return take(&t, ',') && take_rule(&t, &r->start) && take(&t, ',') &&
		take_rule(&t, &r->end) && t.p == t.end;
}

static bool leap(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_before(int year, int month) /* since 1970 */
{
	static const int before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	int64_t y = year - 1;

	return y * 365 + y / 4 - y / 100 + y / 400 - 719162 + before[month - 1] +
		(month > 2 && leap(year));
}

/* The moment at which a rule has its turn, when clocks are offset ahead of UTC until then. */
static int64_t turn(const struct rule *r, int year, int32_t offset)
{
	int64_t day = days_before(year, 1) + r->day;

	if (r->kind == 'J') {
		day += leap(year) && r->day >= 60 ? 0 : -1;
	} else if (r->kind == 'M') {
		int64_t first = days_before(year, r->month),
			next = r->month == 12 ? days_before(year + 1, 1)
					      : days_before(year, r->month + 1);

		day = first + ((r->day - (first + 4)) % 7 + 7) % 7 + (r->week - 1) * (int64_t)7;
		while (day >= next)
			day -= 7;
	}
	return day * DAY_S + r->second - offset;
}

static void add(struct zone *z, int64_t at, int32_t offset)
{
	if (z->n && at <= z->at[z->n - 1])
		return;
	z->at[z->n] = at;
	z->offsets[z->n++] = offset;
}

static int year_of(int64_t t)
{
	int year = (int)(t / (365 * (int64_t)DAY_S + DAY_S / 4)) + 1970;

	return MAX(year - 1, 1970); /* it may be one too many about new year */
}

static void unroll(struct zone *z, const struct posix *r)
{
	if (!r->has_summer)
		return;
	for (int year = z->n ? year_of(z->at[z->n - 1]) : 1970; year <= LAST_YEAR; year++) {
		int64_t start = turn(&r->start, year, r->standard),
			end = turn(&r->end, year, r->summer);

		if (start > end) /* the southern half */
			add(z, end, r->standard);
		add(z, start, r->summer);
		if (start < end)
			add(z, end, r->standard);
	}
}

/* ---- the file ---- */

static int64_t big(const char *p, int bytes)
{
	uint64_t v = 0;

	for (int i = 0; i < bytes; i++)
		v = v << 8 | (uint8_t)p[i];
	return bytes == 4 ? (int32_t)v : (int64_t)v;
}

struct counts {
	size_t isut, isstd, leaps, times, types, chars;
};

/* Counts of the block at p, and its size when times take `width` bytes; 0: it does not fit. */
static size_t block(const char *p, size_t left, size_t width, struct counts *c)
{
	size_t *const fields[] = { &c->isut, &c->isstd, &c->leaps, &c->times, &c->types,
		&c->chars };

	if (left < HEADER || memcmp(p, "TZif", 4) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		int64_t v = big(p + 20 + i * 4, 4);

		if (v < 0 || v > (int64_t)FILE_MAX)
			return 0;
		*fields[i] = (size_t)v;
	}
	size_t size = HEADER + c->times * (width + 1) + c->types * 6 + c->chars +
		c->leaps * (width + 4) + c->isstd + c->isut;

	return size <= left && c->types ? size : 0;
}

int zone_parse(struct str bytes, struct arena *a, const struct zone **ret)
{
	struct counts c;
	struct posix rule = { 0 };
	size_t first = block(bytes.p, bytes.len, 4, &c);

	if (!first || bytes.p[4] < '2')
		return -EBADMSG;
	const char *p = bytes.p + first;
	size_t second = block(p, bytes.len - first, 8, &c);
	if (!second)
		return -EBADMSG;
	struct text footer = { p + second, bytes.p + bytes.len };
	if (!take(&footer, '\n') || footer.p == footer.end || footer.end[-1] != '\n')
		return -EBADMSG;
	footer.end--;
	if (footer.p < footer.end && !parse_posix(footer, &rule))
		return -EBADMSG;
	struct zone *z = arena_alloc(a, sizeof(*z));
	size_t room = c.times + 2 * (LAST_YEAR - 1970 + 1);
	z->at = arena_alloc(a, room * sizeof(*z->at));
	z->offsets = arena_alloc(a, room * sizeof(*z->offsets));
	const char *times = p + HEADER, *index = times + c.times * 8, *types = index + c.times;
	z->first = (int32_t)big(types, 4);
	for (size_t i = 0; i < c.times; i++) {
		size_t type = (uint8_t)index[i];

		if (type >= c.types)
			return -EBADMSG;
		add(z, big(times + i * 8, 8), (int32_t)big(types + type * 6, 4));
	}
	unroll(z, &rule);
	*ret = z;
	return 0;
}

struct zone_span zone_at(const struct zone *z, int64_t t)
{
	size_t low = 0, high = z->n;

	while (low < high) { /* the first that begins later */
		size_t mid = low + (high - low) / 2;

		if (z->at[mid] <= t)
			low = mid + 1;
		else
			high = mid;
	}
	return (struct zone_span){ .from = low ? z->at[low - 1] : INT64_MIN,
		.until = low < z->n ? z->at[low] : INT64_MAX,
		.offset = low ? z->offsets[low - 1] : z->first };
}

/* Nothing that leads out of the folder, nor what Go's time package would not take. */
static bool name_ok(struct str name)
{
	struct str part, rest = name;
	bool more;

	do {
		more = str_cut(rest, '/', &part, &rest);
		if (!part.len || part.len > 14 || part.p[0] == '.' || part.p[0] == '-')
			return false;
		for (size_t i = 0; i < part.len; i++) {
			char c = part.p[i];

			if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') &&
				!(c >= '0' && c <= '9') && !memchr("._-+", c, 4))
				return false;
		}
	} while (more);
	return true;
}

int zone_load(struct str name, struct arena *a, const struct zone **ret, struct err *err)
{
	char path[256];

	if (str_eqz(name, "UTC") || str_eqz(name, "Etc/UTC")) {
		*ret = arena_alloc(a, sizeof(struct zone));
		return 0;
	}
	if (!name_ok(name) || name.len > 100)
		return err_set(err, -ENOENT, "unknown time zone " STR_FMT, STR_ARG(name));
	snprintf(path, sizeof(path), FOLDER "/" STR_FMT, STR_ARG(name));
	CLEAN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *bytes = arena_alloc(a, FILE_MAX);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, FILE_MAX);
	if (n < 0)
		return err_set(err, -ENOENT, "unknown time zone " STR_FMT "%s", STR_ARG(name),
			access(FOLDER, F_OK) ? ": the server has no time zones in " FOLDER
					       ", they come with the package tzdata"
					     : "");
	int r = zone_parse(str_n(bytes, (size_t)n), a, ret);
	return r < 0 ? err_set(err, r, "%s is damaged", path) : 0;
}
