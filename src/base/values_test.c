/* Text forms of values against what upstream writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "base/values.h"

static void quantity_canonical(void **state)
{
	/* clang-format off */
	static const struct { const char *in, *out; } rows[] = {
		{ "0", "0" }, { "0Ki", "0" }, { "-0", "0" }, { "1000m", "1" }, { "1024Ki", "1Mi" }, { "0.5", "500m" },
		{ "1e3", "1e3" }, { "1E3", "1e3" }, { "1000e0", "1e3" }, { "500e0", "500" }, { "5e-3", "5e-3" }, { "12e1", "120" },
		{ "1.5Gi", "1536Mi" }, { "-1.5Gi", "-1536Mi" }, { "-500m", "-500m" }, { "+3", "3" }, { "100m", "100m" },
		{ "0.0000000001", "1n" }, { "-0.0000000001", "-1n" }, { "1.0000000001", "1000000001n" },
		{ "0.5Ki", "512" }, { "0.0001Ki", "102400u" }, { "1.25Ki", "1280" }, { "1023Ki", "1023Ki" }, { "1500k", "1500k" },
		{ "1000k", "1M" }, { "12345678", "12345678" }, { "100E", "100E" }, { ".5", "500m" }, { "5.", "5" }, { "007", "7" },
		{ "1Ei", "1Ei" }, { "100Ei", "9223372036854775807" }, { "99999999999999999999", "9223372036854775807" },
		{ "1025", "1025" }, { "2048Mi", "2Gi" }, { "0.1Gi", "107374182400m" }, { "1u", "1u" }, { "1500n", "1500n" },
		{ "0.1234567891", "123456790n" },
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct quantity q, again;
		char text[QUANTITY_TEXT_MAX];

		if (quantity_parse(str_of(rows[i].in), &q) != 0)
			fail_msg("%s: not parsed", rows[i].in);
		assert_int_equal(quantity_format(q, text), strlen(rows[i].out));
		assert_string_equal(text, rows[i].out);
		assert_int_equal(quantity_parse(str_of(text), &again), 0);
		assert_int_equal(quantity_cmp(q, again), 0);
	}
}

static void quantity_refused(void **state)
{
	static const char *const bad[] = { "", " 1", "1 ", "+", "-", ".", "m", "1K", "1kk", "1e",
		"1e1.5", "1.2.3", "--1", "1mi", "0x10", "1Zi" };
	struct quantity q;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (quantity_parse(str_of(bad[i]), &q) != -EINVAL)
			fail_msg("%s: taken", bad[i]);
	assert_int_equal(quantity_parse(str_of("999999999999999999E"), &q), -ERANGE);
	assert_int_equal(quantity_parse(str_of("1e90"), &q), -ERANGE);
	assert_int_equal(quantity_parse(str_of("1e-90"), &q), 0);
	assert_true(q.nano == 1);
}

static struct quantity quantity_of(const char *text)
{
	struct quantity q = { 0 };

	assert_int_equal(quantity_parse(str_of(text), &q), 0);
	return q;
}

static void quantity_arithmetic(void **state)
{
	char text[QUANTITY_TEXT_MAX];

	quantity_format(quantity_add(quantity_of("1Gi"), quantity_of("512Mi")), text);
	assert_string_equal(text, "1536Mi");
	quantity_format(quantity_sub(quantity_of("1"), quantity_of("250m")), text);
	assert_string_equal(text, "750m");
	quantity_format(quantity_add(quantity_of("0"), quantity_of("1Mi")), text);
	assert_string_equal(text, "1Mi");
	assert_int_equal(quantity_value(quantity_of("100m")), 1);
	assert_int_equal(quantity_value(quantity_of("-100m")), -1);
	assert_int_equal(quantity_milli_value(quantity_of("1.5")), 1500);
	assert_int_equal(quantity_milli_value(quantity_of("1n")), 1);
	assert_true(quantity_value(quantity_of("100E")) == INT64_MAX);
	assert_true(quantity_cmp(quantity_of("1Ki"), quantity_of("1k")) > 0);
}

static void durations(void **state)
{
	/* clang-format off */
	static const struct { int64_t ns; const char *text; } rows[] = {
		{ 0, "0s" }, { 1, "1ns" }, { 1100, "1.1\xc2\xb5s" }, { 2200000, "2.2ms" }, { 100000000, "100ms" },
		{ 1500000000, "1.5s" }, { 300000000000, "5m0s" }, { 3605000000000, "1h0m5s" }, { -1500000000, "-1.5s" },
		{ INT64_MAX, "2562047h47m16.854775807s" }, { INT64_MIN, "-2562047h47m16.854775808s" },
		{ 86400000000000, "24h0m0s" }, { 3600000000001, "1h0m0.000000001s" },
	};
	static const struct { const char *text; int64_t ns; } reads[] = {
		{ "0", 0 }, { "+5s", 5000000000 }, { "1.5h", 5400000000000 }, { "1h15m30.918273645s", 4530918273645 },
		{ ".5m", 30000000000 }, { "5us", 5000 }, { "5\xce\xbcs", 5000 }, { "0.3333333333333333333h", 1200000000000 - 1 },
	};
	/* clang-format on */
	char text[DURATION_TEXT_MAX];
	int64_t ns;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(duration_format(rows[i].ns, text), strlen(rows[i].text));
		assert_string_equal(text, rows[i].text);
		assert_int_equal(duration_parse(str_of(text), &ns), 0);
		assert_true(ns == rows[i].ns);
	}
	for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
		assert_int_equal(duration_parse(str_of(reads[i].text), &ns), 0);
		assert_true(ns == reads[i].ns);
	}
	static const char *const bad[] = { "", "-", "1", "s", ".s", "1x", "1s ", "1.2.3s", "- 1s" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(duration_parse(str_of(bad[i]), &ns), -EINVAL);
	assert_int_equal(duration_parse(str_of("2562048h"), &ns), -ERANGE);
	assert_int_equal(duration_parse(str_of("99999999999999999999s"), &ns), -ERANGE);
}

static void ages(void **state)
{
	/* clang-format off */
	static const struct { int64_t s; const char *text; } rows[] = {
		{ -5, "<invalid>" }, { -1, "0s" }, { 0, "0s" }, { 119, "119s" }, { 120, "2m" }, { 130, "2m10s" }, { 599, "9m59s" },
		{ 600, "10m" }, { 10799, "179m" }, { 10800, "3h" }, { 11100, "3h5m" }, { 28800, "8h" }, { 172799, "47h" },
		{ 172800, "2d" }, { 4 * 86400 + 7200, "4d2h" }, { 8 * 86400 + 7200, "8d" }, { 729 * 86400, "729d" },
		{ 730 * 86400, "2y" }, { 731 * 86400, "2y1d" }, { 8LL * 365 * 86400 + 86400, "8y" },
	};
	/* clang-format on */
	char text[DURATION_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		duration_human(rows[i].s, text);
		assert_string_equal(text, rows[i].text);
	}
}

static void times(void **state)
{
	/* clang-format off */
	static const struct { const char *in, *seconds, *micro, *nano; } rows[] = {
		{ "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00Z" },
		{ "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05Z" },
		{ "2024-02-29T23:59:59.1204+01:30", "2024-02-29T22:29:59Z", "2024-02-29T22:29:59.120400Z",
			"2024-02-29T22:29:59.1204Z" },
		{ "1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z",
			"1969-12-31T23:59:59.999999999Z" },
		{ "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z", "0001-01-01T00:00:00Z" },
		{ "9999-12-31T20:00:00-03:00", "9999-12-31T23:00:00Z", "9999-12-31T23:00:00.000000Z", "9999-12-31T23:00:00Z" },
	};
	static const char *const bad[] = { "", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "2023-02-29T00:00:00Z",
		"2026-01-02T24:00:00Z", "2026-01-02T03:04:60Z", "2026-01-02T03:04:05.Z", "2026-01-02 03:04:05Z",
		"2026-01-02T03:04:05+0100", "2026-01-02T03:04:05Zx", "2026-1-02T03:04:05Z" };
	/* clang-format on */
	char text[TIME_TEXT_MAX];
	struct timestamp t;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(time_parse(str_of(rows[i].in), &t), 0);
		assert_int_equal(time_format(t, text), strlen(rows[i].seconds));
		assert_string_equal(text, rows[i].seconds);
		assert_int_equal(time_format_micro(t, text), strlen(rows[i].micro));
		assert_string_equal(text, rows[i].micro);
		assert_int_equal(time_format_nano(t, text), strlen(rows[i].nano));
		assert_string_equal(text, rows[i].nano);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (time_parse(str_of(bad[i]), &t) != -EINVAL)
			fail_msg("%s: taken", bad[i]);
	t = time_add_ns((struct timestamp){ 10, 500000000 }, -700000000);
	assert_int_equal(t.sec, 9);
	assert_int_equal(t.nsec, 800000000);
	t = time_add_ns(t, 3200000000);
	assert_int_equal(t.sec, 13);
	assert_int_equal(t.nsec, 0);
	assert_true(time_diff_s(t, (struct timestamp){ 10, 500000000 }) == 2.5);
	assert_true(time_cmp(time_now(), t) > 0);
}

static void base64(void **state)
{
	/* clang-format off */
	static const struct { const char *plain, *standard, *url; } rows[] = {
		{ "", "", "" }, { "f", "Zg==", "Zg" }, { "fo", "Zm8=", "Zm8" }, { "foo", "Zm9v", "Zm9v" },
		{ "foobar", "Zm9vYmFy", "Zm9vYmFy" }, { "\xff\xfe\xfd\xfb", "//79+w==", "__79-w" },
	};
	static const char *const bad[] = { "Z", "Zg", "Zg=", "Zg===", "Z===", "Zm9v=", "Zg==Zg==", "Zm9-", "Zm 9" };
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEAN_BUF struct buf a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };

		base64_encode(&a, rows[i].plain, strlen(rows[i].plain));
		assert_true(str_eqz(buf_str(&a), rows[i].standard));
		assert_int_equal(base64_decode(&b, buf_str(&a)), 0);
		assert_true(str_eqz(buf_str(&b), rows[i].plain));
		base64url_encode(&c, rows[i].plain, strlen(rows[i].plain));
		assert_true(str_eqz(buf_str(&c), rows[i].url));
		assert_int_equal(base64url_decode(&d, buf_str(&c)), 0);
		assert_true(str_eqz(buf_str(&d), rows[i].plain));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEAN_BUF struct buf out = { 0 };

		buf_addz(&out, "kept");
		assert_int_equal(base64_decode(&out, str_of(bad[i])), -EINVAL);
		assert_string_equal(out.p, "kept");
	}
	CLEAN_BUF struct buf out = { 0 };

	assert_int_equal(base64_decode(&out, STR("Zm9v\r\nYmFy\n")), 0);
	assert_string_equal(out.p, "foobar");
	buf_clear(&out);
	hex_encode(&out, "\x00\xaf\x10", 3);
	assert_string_equal(out.p, "00af10");
}

static void random_names(void **state)
{
	char a[UUID_TEXT], b[UUID_TEXT], suffix[6], safe[] = "5d8c";

	uuid_v4(a);
	uuid_v4(b);
	assert_int_equal(strlen(a), 36);
	assert_int_equal(a[14], '4');
	assert_non_null(strchr("89ab", a[19]));
	assert_string_not_equal(a, b);
	random_suffix(suffix, 5);
	assert_int_equal(strlen(suffix), 5);
	assert_int_equal(strspn(suffix, "bcdfghjklmnpqrstvwxz2456789"), 5);
	safe_encode_suffix(safe);
	assert_string_equal(safe, "9zdx");
}

/* Bytes are asked for ahead of need; a child must not use the same ones. */
static void a_child_makes_other_names(void **state)
{
	char a[UUID_TEXT], b[UUID_TEXT] = "";
	int fds[2], status;

	uuid_v4(a);
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		uuid_v4(a);
		_exit(write(fds[1], a, sizeof(a)) != sizeof(a));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(read(fds[0], b, sizeof(b)), sizeof(b));
	close(fds[0]);
	close(fds[1]);
	uuid_v4(a);
	assert_string_not_equal(a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantity_canonical),
		cmocka_unit_test(quantity_refused),
		cmocka_unit_test(quantity_arithmetic),
		cmocka_unit_test(durations),
		cmocka_unit_test(ages),
		cmocka_unit_test(times),
		cmocka_unit_test(base64),
		cmocka_unit_test(random_names),
		cmocka_unit_test(a_child_makes_other_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
