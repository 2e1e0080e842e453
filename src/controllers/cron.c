/* See cron.h. The syntax is that of github.com/robfig/cron's standard parser, as CronJob documents it. */
#include "controllers/cron.h"

#include <time.h>

#include "base/values.h"

#define DAY_S 86400
#define HORIZON_DAYS (5 * 366)

static const char *const month_names[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug",
	"sep", "oct", "nov", "dec", NULL };
static const char *const weekday_names[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat",
	NULL };

static const struct field {
	const char *name;
	int min, max;
	const char *const *names;
} fields[] = {
	{ "minute", 0, 59, NULL },
	{ "hour", 0, 23, NULL },
	{ "day of month", 1, 31, NULL },
	{ "month", 1, 12, month_names },
	{ "day of week", 0, 6, weekday_names },
};

static const struct {
	const char *name, *fields;
} shorthands[] = {
	{ "@yearly", "0 0 1 1 *" },
	{ "@annually", "0 0 1 1 *" },
	{ "@monthly", "0 0 1 * *" },
	{ "@weekly", "0 0 * * 0" },
	{ "@daily", "0 0 * * *" },
	{ "@midnight", "0 0 * * *" },
	{ "@hourly", "0 * * * *" },
};

static bool parse_number(const struct field *f, struct str s, int *ret)
{
	int64_t n;

	for (int i = 0; f->names && f->names[i]; i++)
		if (s.len == 3 && !strncasecmp(s.p, f->names[i], 3)) {
			*ret = i + f->min;
			return true;
		}
	if (str_to_i64(s, &n) || n < f->min || n > f->max + (f->max == 6)) /* 7 is Sunday too */
		return false;
	*ret = (int)n;
	return true;
}

/* One part of a list: *, a, a-b, with /step. */
static bool parse_part(const struct field *f, struct str part, uint64_t *set, bool *ret_any)
{
	struct str range, step_text, a, b;
	int from, to, step = 1;
	int64_t n;
	bool stepped = str_cut(part, '/', &range, &step_text);

	if (stepped) {
		if (str_to_i64(step_text, &n) || n < 1 || n > 1000)
			return false;
		step = (int)n;
	}
	if (str_eqz(range, "*") || str_eqz(range, "?")) {
		from = f->min;
		to = f->max;
		*ret_any |= step == 1;
	} else {
		bool has_end = str_cut(range, '-', &a, &b);

		if (!parse_number(f, a, &from))
			return false;
		to = stepped ? f->max : from;
		if (has_end && !parse_number(f, b, &to))
			return false;
	}
	if (from > to)
		return false;
	for (int i = from; i <= to; i += step)
		*set |= 1ull << (f->max == 6 && i == 7 ? 0 : i);
	return true;
}

static bool parse_field(const struct field *f, struct str text, uint64_t *set, bool *ret_any)
{
	struct str part;
	bool more;

	*set = 0;
	*ret_any = false;
	do {
		more = str_cut(text, ',', &part, &text);
		if (!part.len || !parse_part(f, part, set, ret_any))
			return false;
	} while (more);
	return true;
}

static struct str next_word(struct str *s)
{
	struct str t = str_trim(*s), head;
	size_t n = 0;

	while (n < t.len && t.p[n] != ' ' && t.p[n] != '\t')
		n++;
	head = str_n(t.p, n);
	*s = str_from(t, n);
	return head;
}

static int parse_every(struct str text, struct cron *ret, struct err *err)
{
	int64_t ns;

	if (duration_parse(str_trim(text), &ns) || ns < 1000000000)
		return err_set(err, -EINVAL,
			"schedule \"@every " STR_FMT "\": a duration of at least 1s is needed",
			STR_ARG(text));
	*ret = (struct cron){ .every_s = ns / 1000000000 };
	return 0;
}

int cron_parse(struct str text, struct cron *ret, struct err *err)
{
	uint64_t sets[ARRAY_LEN(fields)];
	bool any[ARRAY_LEN(fields)];
	struct str rest = str_trim(text);

	if (str_has_prefix(rest, STR("@every ")))
		return parse_every(str_from(rest, 7), ret, err);
	for (size_t i = 0; i < ARRAY_LEN(shorthands); i++)
		if (str_eqz(rest, shorthands[i].name))
			rest = str_of(shorthands[i].fields);
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		struct str word = next_word(&rest);

		if (!word.len || !parse_field(&fields[i], word, &sets[i], &any[i]))
			return err_set(err, -EINVAL,
				"schedule \"" STR_FMT "\": \"" STR_FMT "\" is no %s", STR_ARG(text),
				STR_ARG(word), fields[i].name);
	}
	if (str_trim(rest).len)
		return err_set(err, -EINVAL, "schedule \"" STR_FMT "\": more than five fields",
			STR_ARG(text));
	*ret = (struct cron){ .minutes = sets[0],
		.hours = (uint32_t)sets[1],
		.days = (uint32_t)sets[2],
		.months = (uint32_t)sets[3],
		.weekdays = (uint32_t)sets[4],
		.any_day = any[2],
		.any_weekday = any[4] };
	return 0;
}

static bool day_matches(const struct cron *c, int64_t day_start)
{
	struct tm tm;
	time_t t = (time_t)day_start;

	gmtime_r(&t, &tm);
	if (!(c->months >> (tm.tm_mon + 1) & 1))
		return false;
	bool by_day = c->days >> tm.tm_mday & 1, by_weekday = c->weekdays >> tm.tm_wday & 1;

	/* Both restricted: either is enough, as cron has always done it. */
	return c->any_day || c->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

static bool minute_matches(const struct cron *c, int64_t second_of_day)
{
	return (c->hours >> (second_of_day / 3600) & 1) &&
		(c->minutes >> (second_of_day / 60 % 60) & 1);
}

/* The two below know one clock: that of a zone while its offset stays the same, as if it were UTC. */
static int64_t next_by_clock(const struct cron *c, int64_t after)
{
	int64_t day = after / DAY_S * DAY_S;

	for (int i = 0; i < HORIZON_DAYS; i++, day += DAY_S) {
		if (!day_matches(c, day))
			continue;
		for (int64_t s = 0; s < DAY_S; s += 60)
			if (day + s > after && minute_matches(c, s))
				return day + s;
	}
	return 0;
}

static int64_t last_by_clock(const struct cron *c, int64_t after, int64_t until)
{
	int64_t day = until / DAY_S * DAY_S;

	for (int i = 0; i < HORIZON_DAYS && day + DAY_S > after; i++, day -= DAY_S) {
		if (!day_matches(c, day))
			continue;
		for (int64_t s = DAY_S - 60; s >= 0; s -= 60)
			if (day + s <= until && day + s > after && minute_matches(c, s))
				return day + s;
	}
	return 0;
}

int64_t cron_next(const struct cron *c, int64_t after)
{
	int64_t horizon = after + (int64_t)HORIZON_DAYS * DAY_S;

	if (c->every_s)
		return after + c->every_s;
	if (!c->zone)
		return next_by_clock(c, after);
	while (after < horizon) {
		struct zone_span span = zone_at(c->zone, after + 1);
		int64_t next = next_by_clock(c, after + span.offset);

		if (next && next - span.offset < span.until)
			return next - span.offset;
		if (span.until > horizon)
			break;
		after = span.until - 1;
	}
	return 0;
}

int64_t cron_last(const struct cron *c, int64_t after, int64_t until)
{
	if (c->every_s)
		return until - after >= c->every_s
			? after + (until - after) / c->every_s * c->every_s
			: 0;
	if (!c->zone)
		return last_by_clock(c, after, until);
	while (until > after) {
		struct zone_span span = zone_at(c->zone, until);
		int64_t from = MAX(after, span.from > 0 ? span.from - 1 : 0),
			last = last_by_clock(c, from + span.offset, until + span.offset);

		if (last)
			return last - span.offset;
		until = from;
	}
	return 0;
}
