/* Time zones, held against libc's reading of the same files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/values.h"
#include "base/zone.h"

static int32_t libc_offset(int64_t t)
{
	struct tm tm;
	time_t time = (time_t)t;

	localtime_r(&time, &tm);
	return (int32_t)tm.tm_gmtoff;
}

static void as_libc(void **state)
{
	static const char *const names[] = { "Europe/Berlin", "America/New_York",
		"America/Argentina/Buenos_Aires", "Australia/Lord_Howe", "Asia/Kolkata",
		"Africa/Casablanca", "America/Santiago", "Pacific/Apia", "Europe/Dublin",
		"Etc/GMT+5", "UTC" };
	CLEAN_ARENA struct arena *a = arena_new(0);

	if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK))
		skip();
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct zone *z;
		struct err err;

		setenv("TZ", names[i], 1);
		tzset();
		assert_int_equal(zone_load(str_of(names[i]), a, &z, &err), 0);
		/* 1980 to 2150 in steps that meet all days and hours, and both sides of each change */
		for (int64_t t = 315532800; t < 5680281600; t += 1234567) {
			struct zone_span s = zone_at(z, t);

			assert_true(s.from <= t && t < s.until);
			assert_int_equal(s.offset, libc_offset(t));
			if (s.from > 315532800)
				assert_int_equal(s.offset, libc_offset(s.from));
			if (s.until < 5680281600) {
				assert_int_equal(s.offset, libc_offset(s.until - 1));
				assert_int_equal(zone_at(z, s.until).from, s.until);
			}
		}
	}
	unsetenv("TZ");
	tzset();
}

static void wrong_names(void **state)
{
	static const char *const names[] = { "bad-time-zone", "", "/etc/passwd",
		"../../../etc/passwd", "Europe", "Europe/", "Europe//Berlin", "./UTC",
		"Europe/Berlin ", "tzdata.zi" };
	CLEAN_ARENA struct arena *a = arena_new(0);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct zone *z;
		struct err err = { "" };

		assert_true(zone_load(str_of(names[i]), a, &z, &err) < 0);
		assert_true(err.text[0]);
	}
}

/* A file without transitions whose rule is for all years, cut and bent everywhere. */
static void damaged(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf b = { 0 };
	static const char block[] =
		"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\1\0\0\0\4\0\0\x0e\x10\0\0CET";
	const struct zone *z;

	buf_add(&b, block, sizeof(block));
	buf_add(&b, block, sizeof(block));
	buf_add_str(&b, STR("\nCET-1CEST,M3.5.0,M10.5.0/3\n"));
	assert_int_equal(zone_parse(buf_str(&b), a, &z), 0);
	assert_int_equal(zone_at(z, 1780000000).offset, 7200); /* 2026-05-28 */
	assert_int_equal(zone_at(z, 1767225600).offset, 3600); /* 2026-01-01 */
	for (size_t n = 0; n < b.len; n++) {
		char *copy =
			malloc(MAX(n, (size_t)1)); /* of its own, for sanitizers to see its end */

		memcpy(copy, b.p, n);
		assert_int_equal(zone_parse(str_n(copy, n), a, &z), -EBADMSG);
		free(copy);
	}
	for (size_t i = 0; i < b.len * 8; i++) {
		b.p[i / 8] ^= (char)(1 << i % 8);
		if (zone_parse(buf_str(&b), a, &z) == 0)
			zone_at(z, 1780000000);
		b.p[i / 8] ^= (char)(1 << i % 8);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(as_libc),
	cmocka_unit_test(wrong_names),
	cmocka_unit_test(damaged),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
