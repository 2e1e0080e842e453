/* Quantities, durations, times and base64: what is read is written and read again to the same value. */
#include "base/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_quantity(struct str s)
{
	char text[QUANTITY_TEXT_MAX];
	struct quantity q, again;

	if (quantity_parse(s, &q) != 0)
		return;
	size_t n = quantity_format(q, text);

	if (n >= sizeof(text) || quantity_parse(str_n(text, n), &again) != 0 ||
		quantity_cmp(q, again))
		abort();
	quantity_value(q);
	quantity_milli_value(q);
}

static void check_duration(struct str s)
{
	char text[DURATION_TEXT_MAX];
	int64_t ns, again;

	if (duration_parse(s, &ns) != 0)
		return;
	size_t n = duration_format(ns, text);

	if (n >= sizeof(text) || duration_parse(str_n(text, n), &again) != 0 || ns != again)
		abort();
	duration_human(ns, text);
}

static void check_time(struct str s)
{
	char text[TIME_TEXT_MAX];
	struct timestamp t, again;

	if (time_parse(s, &t) != 0)
		return;
	size_t n = time_format_nano(t, text);

	/* An offset may lead out of the years that have four digits. */
	if (n >= sizeof(text) ||
		(t.sec >= -62135596800 && t.sec < 253402300800 &&
			(time_parse(str_n(text, n), &again) != 0 || time_cmp(t, again))))
		abort();
}

static void check_base64(struct str s)
{
	struct buf bytes = { 0 }, text = { 0 }, again = { 0 };

	if (base64_decode(&bytes, s) == 0) {
		base64_encode(&text, bytes.p, bytes.len);
		if (base64_decode(&again, buf_str(&text)) != 0 ||
			!str_eq(buf_str(&bytes), buf_str(&again)))
			abort();
	}
	buf_clear(&bytes);
	base64url_decode(&bytes, s);
	buf_deinit(&bytes);
	buf_deinit(&text);
	buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = str_n((const char *)data, size);

	check_quantity(s);
	check_duration(s);
	check_time(s);
	check_base64(s);
	return 0;
}
