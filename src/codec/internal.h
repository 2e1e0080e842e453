/* What the files of codec share. */
#ifndef SKIFF_CODEC_INTERNAL_H
#define SKIFF_CODEC_INTERNAL_H

#include "codec/codec.h"

/* Any list or map member; their structs all look like this. */
struct any_list {
	char *items;
	size_t len;
};
#define MAP_VALUE_OFFSET sizeof(struct str) /* values of a map stand behind their key */

/* Empty input may come without a pointer. */
static inline struct str never_null(struct str s)
{
	return s.p ? s : STR("");
}

static inline bool kind_is_text(unsigned k)
{
	return k == KIND_STRING || k == KIND_BYTES || k == KIND_QUANTITY || k == KIND_RAW ||
		k == KIND_JSON;
}

/* Room for short texts, cut off the arena in pieces: less per text than an allocation of its own. */
struct text_pool {
	struct arena *arena;
	char *p, *end;
};
char *pool_take(struct text_pool *pool, size_t n, size_t input_left);

/* What a small text makes of large structs ([{},{},…]) is bounded by this. */
static inline int64_t struct_budget(size_t input)
{
	return (int64_t)(1 << 20) + 64 * (int64_t)input;
}

/* ---- json_scan.c: the grammar, without meaning ---- */
/* The first byte in [p, end) that a string cannot hold as it stands: a quote, a backslash, a control character or one that is
 * not ASCII. */
const char *scan_plain(const char *p, const char *end);
static inline const char *skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
		p++;
	return p;
}
/* Past one whole value; NULL: malformed, or nested deeper than `depth` levels. */
const char *json_skip(const char *p, const char *end, size_t depth);
/* As json_skip, and writes it without blanks to out (room for end - p bytes), advancing it. */
const char *json_compact(const char *p, const char *end, size_t depth, char **out);
const char *json_skip_number(
	const char *p, const char *end, bool *ret_integer); /* NULL: malformed */
/* The whole text: 0 or -EBADMSG with encoding/json's words in err. */
int json_check(struct str text, struct err *err);
/* p stands behind the opening quote. Past the closing one, or NULL. *ret_invalid: bytes that are no UTF-8. *ret_plain: can
 * be taken as it stands. */
const char *json_string_end(const char *p, const char *end, bool *ret_plain, size_t *ret_invalid);
/* Unescapes [p, end), which json_string_end accepted; invalid UTF-8 becomes U+FFFD. Returns the end of what was written. */
char *json_unescape(const char *p, const char *end, char *out);
/* Length of the UTF-8 sequence at p, 0: invalid. */
size_t utf8_sequence(const char *p, const char *end);
struct str utf8_repair(struct str s,
	struct arena *a); /* invalid bytes become U+FFFD; s itself when there are none */
bool text_is_ascii(struct str s);

/* ---- json_value.c: objects read member by member ---- */
#define FEW 24 /* members among which names are compared one by one */
/* A place for the member: its own when it was there among few. When all are read, value_drop_duplicates. */
static inline struct value *value_put(struct arena *a, struct value *o, struct str key)
{
	return o->object.len < FEW ? value_set(a, o, key) : value_add_member(a, o, key);
}
void value_drop_duplicates(
	struct value *o); /* of equal names the first place and the last value stay */

/* ---- numbers.c ---- */
size_t format_int(int64_t v, char *out);      /* up to 20 bytes, no NUL */
size_t format_double(double v, char out[32]); /* as encoding/json */
int parse_int(struct str s, int64_t *ret);    /* digits with sign only; -ERANGE */
int quantity_canonical(struct str s, struct arena *a, struct str *ret); /* -EINVAL, -ERANGE */

/* ---- shapes.c ---- */
bool codec_is_there(const struct field *f, const void *value); /* false: omitempty leaves it out */
/* Sorts a map's entries by key; of those with equal keys the last one stays. */
void codec_sort_map(struct any_list *l, size_t entry_size);
void note_add(struct decode_notes *n, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
