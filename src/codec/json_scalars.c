/* Single values from JSON. */
#include "codec/json_decode.h"

#include <stdio.h>

const char *value_word(char c)
{
	switch (c) {
	case '"':
		return "string";
	case '{':
		return "object";
	case '[':
		return "array";
	case 't':
	case 'f':
		return "bool";
	}
	return c == '-' || (c >= '0' && c <= '9') ? "number" : NULL;
}

int mismatch(struct dec *d, const struct field *f, bool item)
{
	d->bad = d->p < d->end ? value_word(*d->p) : NULL;
	d->bad_field = f;
	d->bad_item = item;
	return -EBADMSG;
}

static int bad_number(struct dec *d, const struct field *f, bool item, struct str literal)
{
	mismatch(d, f, item);
	snprintf(d->bad_number, sizeof(d->bad_number), "number %.*s",
		(int)MIN(literal.len, (size_t)40), literal.p);
	d->bad = d->bad_number;
	return -EBADMSG;
}

static int tell(struct dec *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int tell(struct dec *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (d->err)
		vsnprintf(d->err->text, sizeof(d->err->text), fmt, ap);
	va_end(ap);
	d->told = true;
	return -EBADMSG;
}

int decode_text(struct dec *d, struct str *ret)
{
	const char *start = d->p + 1, *stop = scan_plain(start, d->end);
	bool plain;
	size_t invalid;

	if (stop < d->end && *stop == '"') {
		size_t n = (size_t)(stop - start);
		char *to = pool_take(&d->pool, n + 1, (size_t)(d->end - d->p));

		memcpy(to, start, n);
		to[n] = '\0';
		*ret = str_n(to, n);
		d->p = stop + 1;
		return 0;
	}
	stop = json_string_end(start, d->end, &plain, &invalid);
	if (!stop)
		return -EBADMSG;
	char *to =
		pool_take(&d->pool, (size_t)(stop - start) + 2 * invalid, (size_t)(d->end - d->p));
	char *end = json_unescape(start, stop - 1, to);

	*end = '\0';
	*ret = str_n(to, (size_t)(end - to));
	d->p = stop;
	return 0;
}

/* A view of a string that needs no unescaping, else a copy. */
static int peek_text(struct dec *d, struct str *ret)
{
	const char *start = d->p + 1, *stop = scan_plain(start, d->end);

	if (stop == d->end || *stop != '"')
		return decode_text(d, ret);
	*ret = str_n(start, (size_t)(stop - start));
	d->p = stop + 1;
	return 0;
}

static int decode_int(
	struct dec *d, const struct field *f, int64_t min, int64_t max, int64_t *ret, bool item)
{
	const char *start = d->p;
	bool integer;

	if (*start != '-' && (*start < '0' || *start > '9'))
		return mismatch(d, f, item);
	const char *stop = json_skip_number(start, d->end, &integer);

	if (!stop)
		return -EBADMSG;
	struct str literal = str_n(start, (size_t)(stop - start));
	int64_t v;

	if (!integer || parse_int(literal, &v) < 0 || v < min || v > max)
		return bad_number(d, f, item, literal);
	*ret = v;
	d->p = stop;
	return 0;
}

static int decode_double(struct dec *d, const struct field *f, double *ret, bool item)
{
	bool integer;
	char text[64];

	if (*d->p != '-' && (*d->p < '0' || *d->p > '9'))
		return mismatch(d, f, item);
	const char *stop = json_skip_number(d->p, d->end, &integer);

	if (!stop)
		return -EBADMSG;
	struct str literal = str_n(d->p, (size_t)(stop - d->p));

	if (literal.len >= sizeof(text))
		return bad_number(d, f, item, literal);
	memcpy(text, literal.p, literal.len);
	text[literal.len] = '\0';
	double v = strtod(text, NULL);

	if (v > 1.7976931348623157e308 || v < -1.7976931348623157e308)
		return bad_number(d, f, item, literal);
	*ret = v;
	d->p = stop;
	return 0;
}

static int decode_bool(struct dec *d, const struct field *f, bool *ret, bool item)
{
	if (d->end - d->p >= 4 && !memcmp(d->p, "true", 4)) {
		*ret = true;
		d->p += 4;
		return 0;
	}
	if (d->end - d->p >= 5 && !memcmp(d->p, "false", 5)) {
		*ret = false;
		d->p += 5;
		return 0;
	}
	return mismatch(d, f, item);
}

/* A quoted text of the kinds that parse it themselves. */
static int quoted(struct dec *d, const struct field *f, struct str *ret, bool item)
{
	return *d->p == '"' ? peek_text(d, ret) : mismatch(d, f, item);
}

static int decode_time(struct dec *d, const struct field *f, struct timestamp *ret, bool item)
{
	struct str s;
	int r = quoted(d, f, &s, item);

	if (r < 0)
		return r;
	const char *layout = f->kind == KIND_TIME ? "2006-01-02T15:04:05Z07:00"
						  : "2006-01-02T15:04:05.000000Z07:00";

	if (time_parse(s, ret) < 0)
		return tell(d,
			"parsing time \"" STR_FMT "\" as \"%s\": cannot parse \"" STR_FMT
			"\" as a time",
			STR_ARG(s), layout, STR_ARG(s));
	if (f->kind == KIND_TIME)
		ret->nsec = 0;
	else
		ret->nsec -= ret->nsec % 1000;
	return 0;
}

static int decode_duration(struct dec *d, const struct field *f, int64_t *ret, bool item)
{
	struct str s;
	int r = quoted(d, f, &s, item);

	if (r < 0)
		return r;
	return duration_parse(s, ret) < 0
		? tell(d, "time: invalid duration \"" STR_FMT "\"", STR_ARG(s))
		: 0;
}

/* A text, or a bare number as upstream takes it. */
static int decode_quantity(struct dec *d, const struct field *f, struct str *ret, bool item)
{
	struct str s;
	bool integer;
	int r = 0;

	if (*d->p == '"') {
		r = peek_text(d, &s);
	} else if (*d->p == '-' || (*d->p >= '0' && *d->p <= '9')) {
		const char *stop = json_skip_number(d->p, d->end, &integer);

		if (!stop)
			return -EBADMSG;
		s = str_n(d->p, (size_t)(stop - d->p));
		d->p = stop;
	} else {
		return mismatch(d, f, item);
	}
	if (r < 0)
		return r;
	if (quantity_canonical(str_trim(s), d->arena, ret) < 0)
		return tell(d,
			"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
	return 0;
}

static int decode_bytes(struct dec *d, const struct field *f, struct str *ret, bool item)
{
	struct buf out = { 0 };
	struct str s;
	int r = quoted(d, f, &s, item);

	if (r < 0)
		return r;
	r = base64_decode(&out, s);
	if (!r)
		*ret = out.len ? arena_str(d->arena, buf_str(&out)) : STR("");
	buf_deinit(&out);
	if (r < 0)
		return tell(d, "illegal base64 data in \"%.*s\"", (int)MIN(s.len, (size_t)64), s.p);
	return 0;
}

static int decode_int_or_str(
	struct dec *d, const struct field *f, struct int_or_str *ret, bool item)
{
	int64_t v = 0;
	int r;

	*ret = (struct int_or_str){ 0 };
	if (*d->p == '"') {
		ret->kind = IOS_STR;
		return decode_text(d, &ret->text);
	}
	r = decode_int(d, f, INT32_MIN, INT32_MAX, &v, item);
	ret->kind = IOS_INT;
	ret->num = (int32_t)v;
	return r;
}

/* The value itself, without blanks. */
static int decode_raw(struct dec *d, struct str *ret)
{
	const char *start = d->p, *stop = json_skip(start, d->end, CODEC_MAX_DEPTH - d->depth);

	if (!stop)
		return -EBADMSG;
	char *text = arena_alloc(d->arena, (size_t)(stop - start) + 1), *to = text;

	json_compact(start, stop, CODEC_MAX_DEPTH, &to);
	*ret = utf8_repair(str_n(text, (size_t)(to - text)), d->arena);
	d->p = stop;
	return 0;
}

int decode_scalar(struct dec *d, const struct field *f, void *to, bool item)
{
	int64_t v = 0;
	int r;

	if (d->p == d->end)
		return -EBADMSG;
	switch (f->kind) {
	case KIND_STRING:
		return *d->p == '"' ? decode_text(d, to) : mismatch(d, f, item);
	case KIND_BOOL:
		return decode_bool(d, f, to, item);
	case KIND_INT32:
		r = decode_int(d, f, INT32_MIN, INT32_MAX, &v, item);
		if (!r)
			*(int32_t *)to = (int32_t)v;
		return r;
	case KIND_INT64:
		return decode_int(d, f, INT64_MIN, INT64_MAX, to, item);
	case KIND_DOUBLE:
		return decode_double(d, f, to, item);
	case KIND_TIME:
	case KIND_MICROTIME:
		return decode_time(d, f, to, item);
	case KIND_DURATION:
		return decode_duration(d, f, to, item);
	case KIND_QUANTITY:
		return decode_quantity(d, f, to, item);
	case KIND_BYTES:
		return decode_bytes(d, f, to, item);
	case KIND_INT_OR_STRING:
		return decode_int_or_str(d, f, to, item);
	default:
		return decode_raw(d, to);
	}
}
