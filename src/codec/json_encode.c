/* Structs into JSON as encoding/json writes it: members in declared order, maps sorted by key, <, > and & escaped. Each value
 * is followed by a comma; what closes takes the last one's place. */
#include "codec/internal.h"

#include <stdio.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static void encode_message(const struct type *t, const char *obj, struct buf *out);

static inline char *room(struct buf *out, size_t n)
{
	if (__builtin_expect(out->len + n + 1 > out->cap, 0))
		buf_reserve(out, MAX(n, (size_t)256));
	return out->p + out->len;
}

static inline void put(struct buf *out, const char *p, size_t n)
{
	memcpy(room(out, n), p, n);
	out->len += n;
}

static inline void put_char(struct buf *out, char c)
{
	*room(out, 1) = c;
	out->len++;
}
#define PUT(out, lit) put(out, lit, sizeof(lit) - 1)

static inline void close_with(struct buf *out, char open, char c)
{
	if (out->p[out->len - 1] == open)
		put_char(out, c);
	else
		out->p[out->len - 1] = c; /* the last comma */
}

/* ---- texts ---- */

/* The first byte that is not written as it stands. */
static const char *scan_safe(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'),
		      space = _mm_set1_epi8(0x20);
	const __m128i less = _mm_set1_epi8('<'), greater = _mm_set1_epi8('>'),
		      ampersand = _mm_set1_epi8('&');

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)p);
		__m128i a = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
		__m128i b = _mm_or_si128(_mm_cmpeq_epi8(v, less), _mm_cmpeq_epi8(v, greater));
		__m128i c = _mm_or_si128(_mm_cmpeq_epi8(v, ampersand), _mm_cmplt_epi8(v, space));
		unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(a, b), c));

		if (mask)
			return p + __builtin_ctz(mask);
		p += 16;
	}
#endif
	while (p < end && (signed char)*p >= 0x20 && *p != '"' && *p != '\\' && *p != '<' &&
		*p != '>' && *p != '&')
		p++;
	return p;
}

static void put_escape(struct buf *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	const char *short_form = c == '"' ? "\\\""
		: c == '\\'               ? "\\\\"
		: c == '\n'               ? "\\n"
		: c == '\r'               ? "\\r"
		: c == '\t'               ? "\\t"
		: c == '\b'               ? "\\b"
		: c == '\f'               ? "\\f"
					  : NULL;

	if (short_form) {
		put(out, short_form, 2);
		return;
	}
	char text[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

	put(out, text, 6);
}

/* Writes [p, end): quotes and backslashes too when it is a text, not when it is JSON already. */
static void put_escaped(struct buf *out, const char *p, const char *end, bool is_json)
{
	for (;;) {
		const char *stop = scan_safe(p, end);

		put(out, p, (size_t)(stop - p));
		p = stop;
		if (p == end)
			return;
		if (!(*p & 0x80)) {
			if (is_json && *p != '<' && *p != '>' && *p != '&')
				put_char(out, *p);
			else
				put_escape(out, (unsigned char)*p);
			p++;
			continue;
		}
		size_t n = utf8_sequence(p, end);

		if (!n) {
			PUT(out, "\\ufffd");
			n = 1;
		} else if (n == 3 && !memcmp(p, "\xe2\x80", 2) &&
			((unsigned char)p[2] & 0xfe) == 0xa8) {
			put(out, p[2] == (char)0xa8 ? "\\u2028" : "\\u2029", 6);
		} else {
			put(out, p, n);
		}
		p += n;
	}
}

static void write_text(struct str s, struct buf *out)
{
	char *p = room(out, s.len + 2);

	*p = '"';
	if (s.len && scan_safe(s.p, s.p + s.len) == s.p + s.len) {
		memcpy(p + 1, s.p, s.len);
		p[s.len + 1] = '"';
		out->len += s.len + 2;
		return;
	}
	out->len++;
	if (s.len)
		put_escaped(out, s.p, s.p + s.len, false);
	put_char(out, '"');
}

void json_write_text(struct str s, struct buf *out)
{
	write_text(s, out);
	out->p[out->len] = '\0';
}

/* An object in protobuf (k8s\0…) cannot be shown inside JSON. */
static void write_raw(struct str s, struct buf *out)
{
	if (s.len && *s.p != 'k')
		put_escaped(out, s.p, s.p + s.len, true);
	else
		PUT(out, "null");
}

/* ---- single values ---- */

static void write_int(struct buf *out, int64_t v)
{
	out->len += format_int(v, room(out, 20));
}

static void write_time(struct buf *out, unsigned kind, struct timestamp t)
{
	if (time_is_zero(t)) {
		PUT(out, "null");
		return;
	}
	char *p = room(out, TIME_TEXT_MAX + 2);
	size_t n = kind == KIND_TIME ? time_format(t, p + 1) : time_format_micro(t, p + 1);

	p[0] = p[n + 1] = '"';
	out->len += n + 2;
}

static void write_bytes(struct buf *out, struct str s)
{
	if (!s.p) {
		PUT(out, "null");
		return;
	}
	put_char(out, '"');
	base64_encode(out, s.p, s.len);
	put_char(out, '"');
}

static void write_int_or_str(struct buf *out, const struct int_or_str *v)
{
	if (v->kind == IOS_STR)
		write_text(v->text, out);
	else
		write_int(out, v->num);
}

static void encode_value(const struct field *f, const void *v, struct buf *out)
{
	switch (f->kind) {
	case KIND_STRING:
		write_text(*(const struct str *)v, out);
		break;
	case KIND_BOOL:
		*(const bool *)v ? PUT(out, "true") : PUT(out, "false");
		break;
	case KIND_INT32:
		write_int(out, *(const int32_t *)v);
		break;
	case KIND_INT64:
		write_int(out, *(const int64_t *)v);
		break;
	case KIND_DOUBLE:
		out->len += format_double(*(const double *)v, room(out, 32));
		break;
	case KIND_TIME:
	case KIND_MICROTIME:
		write_time(out, f->kind, *(const struct timestamp *)v);
		break;
	case KIND_DURATION: {
		char text[DURATION_TEXT_MAX];
		size_t n = duration_format(*(const int64_t *)v, text);

		write_text(str_n(text, n), out);
		break;
	}
	case KIND_QUANTITY:
		write_text(((const struct str *)v)->len ? *(const struct str *)v : STR("0"), out);
		break;
	case KIND_BYTES:
		write_bytes(out, *(const struct str *)v);
		break;
	case KIND_INT_OR_STRING:
		write_int_or_str(out, v);
		break;
	case KIND_MESSAGE:
		encode_message(f->type, v, out);
		break;
	default:
		write_raw(*(const struct str *)v, out);
	}
}

static void encode_pointer(const struct field *f, const void *v, struct buf *out)
{
	if (!codec_is_there(f, v)) {
		PUT(out, "null");
		return;
	}
	switch (f->kind) {
	case KIND_BOOL:
		encode_value(f, &((const struct opt_bool *)v)->value, out);
		break;
	case KIND_INT32:
		encode_value(f, &((const struct opt_int32 *)v)->value, out);
		break;
	case KIND_INT64:
	case KIND_DURATION:
		encode_value(f, &((const struct opt_int64 *)v)->value, out);
		break;
	case KIND_DOUBLE:
		encode_value(f, &((const struct opt_double *)v)->value, out);
		break;
	case KIND_MESSAGE:
		encode_message(f->type, *(void *const *)v, out);
		break;
	default:
		encode_value(f, v, out);
	}
}

/* ---- lists, maps, messages ---- */

static void encode_list(const struct field *f, const struct any_list *l, struct buf *out)
{
	if (!l->items) {
		PUT(out, "null");
		return;
	}
	size_t size = model_kind_size(f->kind, f->type);

	put_char(out, '[');
	for (size_t i = 0; i < l->len; i++) {
		encode_value(f, l->items + i * size, out);
		put_char(out, ',');
	}
	close_with(out, '[', ']');
}

static void encode_map(const struct field *f, const struct any_list *l, struct buf *out)
{
	if (!l->items) {
		PUT(out, "null");
		return;
	}
	size_t size = model_item_size(f);

	put_char(out, '{');
	for (size_t i = 0; i < l->len; i++) {
		const char *entry = l->items + i * size;

		write_text(*(const struct str *)entry, out);
		put_char(out, ':');
		if (f->shape == SHAPE_MAP_LIST)
			encode_list(f, (const struct any_list *)(entry + MAP_VALUE_OFFSET), out);
		else
			encode_value(f, entry + MAP_VALUE_OFFSET, out);
		put_char(out, ',');
	}
	close_with(out, '{', '}');
}

static void encode_member(const struct field *f, const void *v, struct buf *out)
{
	if (f->shape == SHAPE_ONE)
		encode_value(f, v, out);
	else if (f->shape == SHAPE_PTR)
		encode_pointer(f, v, out);
	else if (f->shape == SHAPE_LIST)
		encode_list(f, v, out);
	else
		encode_map(f, v, out);
}

/* The list when it has items, else the message, else the bool. */
static void encode_either(const struct type *t, const char *obj, struct buf *out)
{
	const struct field *best = NULL;
	int best_rank = 0;

	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		bool there = f->kind == KIND_BOOL || codec_is_there(f, obj + f->offset);
		int rank = !there ? 0 : f->shape == SHAPE_LIST ? 3 : f->kind == KIND_BOOL ? 1 : 2;

		if (rank > best_rank) {
			best_rank = rank;
			best = f;
		}
	}
	if (best)
		encode_member(best, obj + best->offset, out);
	else
		PUT(out, "null");
}

static bool leave_out(const struct field *f, const void *v)
{
	if (!(f->flags & FIELD_OMIT_ZERO) || f->shape != SHAPE_ONE)
		return !codec_is_there(f, v);
	if (f->kind == KIND_MESSAGE)
		return model_is_zero(f->type, v);
	if (f->kind == KIND_TIME || f->kind == KIND_MICROTIME)
		return time_is_zero(*(const struct timestamp *)v);
	return !codec_is_there(f, v);
}

static void encode_message(const struct type *t, const char *obj, struct buf *out)
{
	if (t->is_either) {
		encode_either(t, obj, out);
		return;
	}
	put_char(out, '{');
	for (const struct flat_field *m = t->flat, *end = m + t->n_flat; m < end; m++) {
		const struct field *f = m->field;
		const char *v = obj + m->offset;

		if (f->flags & (FIELD_OMIT_EMPTY | FIELD_OMIT_ZERO) && leave_out(f, v))
			continue;
		char *p = room(out, f->name_len + (size_t)3);

		*p = '"';
		memcpy(p + 1, f->name, f->name_len);
		memcpy(p + 1 + f->name_len, "\":", 2);
		out->len += f->name_len + (size_t)3;
		encode_member(f, v, out);
		put_char(out, ',');
	}
	close_with(out, '{', '}');
}

void json_encode(const struct type *t, const void *obj, struct buf *out)
{
	encode_message(t, obj, out);
	out->p[out->len] = '\0';
}
