/* The grammar of JSON without its meaning: skipping, compacting, checking, strings. Nesting is kept in a bit a level, not on
 * the C stack. Errors are worded as Go's encoding/json does, since clients show them to people. */
#include "codec/internal.h"

#include <ctype.h>
#include <stdio.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

const char *scan_plain(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'),
		      space = _mm_set1_epi8(0x20);

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)p);
		/* Signed compare: bytes above 0x7f are below 0x20 too. */
		__m128i hit = _mm_or_si128(
			_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)),
			_mm_cmplt_epi8(v, space));
		unsigned mask = (unsigned)_mm_movemask_epi8(hit);

		if (mask)
			return p + __builtin_ctz(mask);
		p += 16;
	}
#endif
	while (p < end && *p != '"' && *p != '\\' && (signed char)*p >= 0x20)
		p++;
	return p;
}

bool text_is_ascii(struct str s)
{
	const char *p = s.p, *end = s.p + s.len;
#ifdef __SSE2__
	for (; end - p >= 16; p += 16)
		if (_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)p)))
			return false;
#endif
	for (; p < end; p++)
		if (*p & 0x80)
			return false;
	return true;
}

size_t utf8_sequence(const char *at, const char *end)
{
	const unsigned char *p = (const unsigned char *)at;
	size_t have = (size_t)(end - at);

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4 || have < 2 || (p[1] & 0xc0) != 0x80)
		return 0;
	if (p[0] < 0xe0)
		return 2;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
		(p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	if (have < 3 || (p[2] & 0xc0) != 0x80)
		return 0;
	if (p[0] < 0xf0)
		return 3;
	return have >= 4 && (p[3] & 0xc0) == 0x80 ? 4 : 0;
}

struct str utf8_repair(struct str s, struct arena *a)
{
	const char *end = s.p + s.len;
	size_t invalid = 0;

	if (text_is_ascii(s))
		return s;
	for (const char *p = s.p; p < end;) {
		size_t n = utf8_sequence(p, end);

		invalid += !n;
		p += n ? n : 1;
	}
	if (!invalid)
		return s;
	char *out = arena_alloc(a, s.len + 2 * invalid + 1), *o = out;

	for (const char *p = s.p; p < end;) {
		size_t n = utf8_sequence(p, end);

		memcpy(o, n ? p : "\xef\xbf\xbd", n ? n : 3);
		o += n ? n : 3;
		p += n ? n : 1;
	}
	return str_n(out, (size_t)(o - out));
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex4(const char *p)
{
	int v = 0;

	for (int i = 0; i < 4; i++) {
		int d = hex_digit(p[i]);

		if (d < 0)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

/* Length of the escape at p (which is the backslash), 0: malformed. */
static size_t escape_length(const char *p, const char *end)
{
	if (end - p < 2)
		return 0;
	if (p[1] == 'u')
		return end - p >= 6 && hex4(p + 2) >= 0 ? 6 : 0;
	return memchr("\"\\/bfnrt", p[1], 8) ? 2 : 0;
}

const char *json_string_end(const char *p, const char *end, bool *ret_plain, size_t *ret_invalid)
{
	bool plain = true;
	size_t invalid = 0;

	for (;;) {
		size_t n;

		p = scan_plain(p, end);
		if (p == end)
			return NULL;
		if (*p == '"')
			break;
		if (*p == '\\') {
			n = escape_length(p, end);
			if (!n)
				return NULL;
			plain = false;
		} else if ((unsigned char)*p < 0x20) {
			return NULL;
		} else {
			n = utf8_sequence(p, end);
			if (!n) {
				invalid++;
				plain = false;
				n = 1;
			}
		}
		p += n;
	}
	*ret_plain = plain;
	*ret_invalid = invalid;
	return p + 1;
}

static char *put_rune(char *out, uint32_t r)
{
	if (r < 0x80) {
		*out++ = (char)r;
	} else if (r < 0x800) {
		*out++ = (char)(0xc0 | r >> 6);
		*out++ = (char)(0x80 | (r & 0x3f));
	} else if (r < 0x10000) {
		*out++ = (char)(0xe0 | r >> 12);
		*out++ = (char)(0x80 | (r >> 6 & 0x3f));
		*out++ = (char)(0x80 | (r & 0x3f));
	} else {
		*out++ = (char)(0xf0 | r >> 18);
		*out++ = (char)(0x80 | (r >> 12 & 0x3f));
		*out++ = (char)(0x80 | (r >> 6 & 0x3f));
		*out++ = (char)(0x80 | (r & 0x3f));
	}
	return out;
}

/* p behind the backslash. A surrogate without its partner becomes U+FFFD. */
static const char *unescape_one(const char *p, const char *end, char **out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

	if (*p != 'u') {
		*(*out)++ = to[strchr(from, *p) - from];
		return p + 1;
	}
	uint32_t r = (uint32_t)hex4(p + 1);

	p += 5;
	if (r >= 0xd800 && r < 0xe000) {
		int low = end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2) : -1;

		if (r < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
			r = 0x10000 + ((r - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
			p += 6;
		} else {
			r = 0xfffd;
		}
	}
	*out = put_rune(*out, r);
	return p;
}

char *json_unescape(const char *p, const char *end, char *out)
{
	while (p < end) {
		const char *stop = scan_plain(p, end);

		memcpy(out, p, (size_t)(stop - p));
		out += stop - p;
		p = stop;
		if (p == end)
			break;
		if (*p == '\\') {
			p = unescape_one(p + 1, end, &out);
			continue;
		}
		size_t n = utf8_sequence(p, end);

		if (n)
			memcpy(out, p, n);
		else
			put_rune(out, 0xfffd);
		out += n ? n : 3;
		p += n ? n : 1;
	}
	return out;
}

const char *json_skip_number(const char *p, const char *end, bool *ret_integer)
{
	bool integer = true;

	if (p < end && *p == '-')
		p++;
	if (p == end || !isdigit((unsigned char)*p))
		return NULL;
	if (*p == '0')
		p++;
	else
		while (p < end && isdigit((unsigned char)*p))
			p++;
	if (p < end && *p == '.') {
		integer = false;
		p++;
		if (p == end || !isdigit((unsigned char)*p))
			return NULL;
		while (p < end && isdigit((unsigned char)*p))
			p++;
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		integer = false;
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		if (p == end || !isdigit((unsigned char)*p))
			return NULL;
		while (p < end && isdigit((unsigned char)*p))
			p++;
	}
	*ret_integer = integer;
	return p;
}

/* ---- walking over a value ---- */

struct walk {
	uint64_t in_object[(CODEC_MAX_DEPTH + 63) / 64];
	size_t depth, limit;
	char *out; /* NULL: nothing is written */
};

static inline bool push(struct walk *w, bool object)
{
	if (w->depth >= w->limit)
		return false;
	uint64_t bit = (uint64_t)1 << (w->depth % 64), *word = &w->in_object[w->depth / 64];

	*word = object ? *word | bit : *word & ~bit;
	w->depth++;
	return true;
}

static inline bool top_is_object(const struct walk *w)
{
	size_t i = w->depth - 1;

	return w->in_object[i / 64] >> (i % 64) & 1;
}

static inline void emit(struct walk *w, const char *from, const char *to)
{
	if (w->out) {
		memcpy(w->out, from, (size_t)(to - from));
		w->out += to - from;
	}
}

static inline void emit_char(struct walk *w, char c)
{
	if (w->out)
		*w->out++ = c;
}

/* A string, number or word at p. */
static const char *walk_scalar(struct walk *w, const char *p, const char *end)
{
	const char *stop;
	bool b;
	size_t n;

	if (*p == '"')
		stop = json_string_end(p + 1, end, &b, &n);
	else if (*p == 't')
		stop = end - p >= 4 && !memcmp(p, "true", 4) ? p + 4 : NULL;
	else if (*p == 'f')
		stop = end - p >= 5 && !memcmp(p, "false", 5) ? p + 5 : NULL;
	else if (*p == 'n')
		stop = end - p >= 4 && !memcmp(p, "null", 4) ? p + 4 : NULL;
	else
		stop = json_skip_number(p, end, &b);
	if (stop)
		emit(w, p, stop);
	return stop;
}

/* A key and its colon; p stands at the quote. */
static const char *walk_key(struct walk *w, const char *p, const char *end)
{
	if (p == end || *p != '"' || !(p = walk_scalar(w, p, end)))
		return NULL;
	p = skip_space(p, end);
	if (p == end || *p != ':')
		return NULL;
	emit_char(w, ':');
	return p + 1;
}

static const char *walk(struct walk *w, const char *p, const char *end)
{
	for (;;) { /* one value */
		p = skip_space(p, end);
		if (p == end)
			return NULL;
		if (*p == '{' || *p == '[') {
			bool object = *p == '{';

			if (!push(w, object))
				return NULL;
			emit_char(w, *p);
			p = skip_space(p + 1, end);
			if (p == end)
				return NULL;
			if (*p != (object ? '}' : ']')) {
				if (object && !(p = walk_key(w, p, end)))
					return NULL;
				continue;
			}
		} else if (!(p = walk_scalar(w, p, end))) {
			return NULL;
		}
		for (;;) { /* what closes behind it */
			if (!w->depth)
				return p;
			p = skip_space(p, end);
			if (p == end)
				return NULL;
			if (*p == ',') {
				emit_char(w, ',');
				p = skip_space(p + 1, end);
				if (top_is_object(w) && !(p = walk_key(w, p, end)))
					return NULL;
				break;
			}
			if (*p != (top_is_object(w) ? '}' : ']'))
				return NULL;
			emit_char(w, *p++);
			w->depth--;
		}
	}
}

const char *json_skip(const char *p, const char *end, size_t depth)
{
	struct walk w = { .limit = MIN(depth, (size_t)CODEC_MAX_DEPTH) };

	return walk(&w, p, end);
}

const char *json_compact(const char *p, const char *end, size_t depth, char **out)
{
	struct walk w = { .limit = MIN(depth, (size_t)CODEC_MAX_DEPTH), .out = *out };

	p = walk(&w, p, end);
	if (p)
		*out = w.out;
	return p;
}
