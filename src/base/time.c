/* Times: the proleptic Gregorian calendar in UTC, as text by RFC 3339. */
#include "base/values.h"

#include <stdio.h>
#include <time.h>

#define NS_PER_S 1000000000

static struct timestamp real_wall(const struct clock *c)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct timestamp){ ts.tv_sec, (int32_t)ts.tv_nsec };
}

static uint64_t real_mono_ns(const struct clock *c)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

const struct clock clock_real = { .wall = real_wall, .mono_ns = real_mono_ns };

struct timestamp time_now(void)
{
	return real_wall(&clock_real);
}

uint64_t mono_now_ns(void)
{
	return real_mono_ns(&clock_real);
}

bool time_is_zero(struct timestamp t)
{
	return t.sec == 0 && t.nsec == 0;
}

int time_cmp(struct timestamp a, struct timestamp b)
{
	if (a.sec != b.sec)
		return a.sec < b.sec ? -1 : 1;
	return (a.nsec > b.nsec) - (a.nsec < b.nsec);
}

double time_diff_s(struct timestamp a, struct timestamp b)
{
	return (double)(a.sec - b.sec) + (double)(a.nsec - b.nsec) / NS_PER_S;
}

struct timestamp time_add_ns(struct timestamp t, int64_t ns)
{
	int64_t nsec = t.nsec + ns % NS_PER_S;

	t.sec += ns / NS_PER_S;
	if (nsec < 0) {
		nsec += NS_PER_S;
		t.sec--;
	} else if (nsec >= NS_PER_S) {
		nsec -= NS_PER_S;
		t.sec++;
	}
	t.nsec = (int32_t)nsec;
	return t;
}

/* Days since 1970-01-01. The year is taken to begin in March, so that the leap day comes last. */
static int64_t days_of(int64_t year, int month, int day)
{
	int64_t y = year - (month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
		day_of_year - 719468;
}

static void date_of(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t day_of_era = z - era * 146097;
	int64_t year =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
	int64_t shifted_month = (5 * day_of_year + 2) / 153;

	*ret_day = (int)(day_of_year - (153 * shifted_month + 2) / 5 + 1);
	*ret_month = (int)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
	*ret_year = year + era * 400 + (*ret_month <= 2);
}

static void put2(char *at, int v)
{
	at[0] = (char)('0' + v / 10);
	at[1] = (char)('0' + v % 10);
}

/* Date and time without a fraction and a zone; 19 characters for the years that RFC 3339 knows. */
static size_t format_seconds(struct timestamp t, char *out)
{
	int64_t days = t.sec / 86400, rest = t.sec % 86400, year;
	int month, day;

	if (rest < 0) {
		rest += 86400;
		days--;
	}
	date_of(days, &year, &month, &day);
	if (year < 0 || year > 9999)
		return (size_t)snprintf(out, 32, "%04lld-%02d-%02dT%02d:%02d:%02d",
			(long long)(year % 1000000), month, day, (int)(rest / 3600),
			(int)(rest / 60 % 60), (int)(rest % 60));
	memcpy(out, "0000-00-00T00:00:00", 20);
	put2(out, (int)(year / 100));
	put2(out + 2, (int)(year % 100));
	put2(out + 5, month);
	put2(out + 8, day);
	put2(out + 11, (int)(rest / 3600));
	put2(out + 14, (int)(rest / 60 % 60));
	put2(out + 17, (int)(rest % 60));
	return 19;
}

size_t time_format(struct timestamp t, char out[TIME_TEXT_MAX])
{
	size_t n = format_seconds(t, out);

	out[n++] = 'Z';
	out[n] = '\0';
	return n;
}

size_t time_format_micro(struct timestamp t, char out[TIME_TEXT_MAX])
{
	size_t n = format_seconds(t, out);

	out[n++] = '.';
	for (int i = 0, v = t.nsec / 1000; i < 6; i++, v /= 10)
		out[n + 5 - (size_t)i] = (char)('0' + v % 10);
	n += 6;
	out[n++] = 'Z';
	out[n] = '\0';
	return n;
}

size_t time_format_nano(struct timestamp t, char out[TIME_TEXT_MAX])
{
	size_t n = format_seconds(t, out);

	if (t.nsec) {
		out[n++] = '.';
		for (int i = 0, v = t.nsec; i < 9; i++, v /= 10)
			out[n + 8 - (size_t)i] = (char)('0' + v % 10);
		n += 9;
		while (out[n - 1] == '0')
			n--;
	}
	out[n++] = 'Z';
	out[n] = '\0';
	return n;
}

/* Takes `digits` digits off the front of s. */
static bool take_number(struct str *s, size_t digits, int *ret)
{
	int v = 0;

	if (s->len < digits)
		return false;
	for (size_t i = 0; i < digits; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return false;
		v = v * 10 + s->p[i] - '0';
	}
	*s = str_from(*s, digits);
	*ret = v;
	return true;
}

static bool take_char(struct str *s, char c)
{
	if (!s->len || s->p[0] != c)
		return false;
	*s = str_from(*s, 1);
	return true;
}

static bool take_fraction(struct str *s, int32_t *ret_nsec)
{
	int32_t v = 0, unit = NS_PER_S / 10;
	size_t n = 0;

	*ret_nsec = 0;
	if (!take_char(s, '.'))
		return true;
	for (; n < s->len && s->p[n] >= '0' && s->p[n] <= '9'; n++, unit /= 10)
		v += (s->p[n] - '0') * unit;
	*s = str_from(*s, n);
	*ret_nsec = v;
	return n > 0;
}

static bool take_zone(struct str *s, int *ret_seconds)
{
	int hours, minutes;
	bool west = s->len && s->p[0] == '-';

	*ret_seconds = 0;
	if (take_char(s, 'Z'))
		return true;
	if (!take_char(s, '+') && !take_char(s, '-'))
		return false;
	if (!take_number(s, 2, &hours) || !take_char(s, ':') || !take_number(s, 2, &minutes))
		return false;
	if (hours > 23 || minutes > 59)
		return false;
	*ret_seconds = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return true;
}

int time_parse(struct str s, struct timestamp *ret)
{
	static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int year, month, day, hour, minute, second, zone;
	int32_t nsec;

	if (!take_number(&s, 4, &year) || !take_char(&s, '-') || !take_number(&s, 2, &month) ||
		!take_char(&s, '-') || !take_number(&s, 2, &day) || !take_char(&s, 'T'))
		return -EINVAL;
	if (!take_number(&s, 2, &hour) || !take_char(&s, ':') || !take_number(&s, 2, &minute) ||
		!take_char(&s, ':') || !take_number(&s, 2, &second))
		return -EINVAL;
	if (!take_fraction(&s, &nsec) || !take_zone(&s, &zone) || s.len)
		return -EINVAL;
	if (month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59)
		return -EINVAL;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (day < 1 || day > month_days[month - 1] + (month == 2 && leap))
		return -EINVAL;
	ret->sec = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone;
	ret->nsec = nsec;
	return 0;
}
