/* JSON to and from trees. Of two members with one name the last wins, in the place of the first. */
#include "codec/internal.h"

#include <math.h>
#include <stdio.h>

struct parse {
	const char *p, *end;
	struct arena *arena;
	struct err *err; /* set for -ERANGE alone: what is malformed is told by json_check */
	size_t depth;
};

static int parse_value(struct parse *s, struct value *ret);

static int parse_text(struct parse *s, struct str *ret)
{
	bool plain;
	size_t invalid;
	const char *start = s->p + 1, *stop = json_string_end(start, s->end, &plain, &invalid);

	if (!stop)
		return -EBADMSG;
	s->p = stop;
	if (plain) {
		*ret = arena_str(s->arena, str_n(start, (size_t)(stop - 1 - start)));
		return 0;
	}
	char *to = arena_alloc(s->arena, (size_t)(stop - start) + 2 * invalid);

	*ret = str_n(to, (size_t)(json_unescape(start, stop - 1, to) - to));
	return 0;
}

static int parse_number(struct parse *s, struct value *ret)
{
	bool integer;
	const char *start = s->p, *stop = json_skip_number(start, s->end, &integer);
	char text[64];

	if (!stop)
		return -EBADMSG;
	struct str literal = str_n(start, (size_t)(stop - start));

	s->p = stop;
	if (integer && !parse_int(literal, &ret->integer)) {
		ret->kind = VALUE_INT;
		return 0;
	}
	ret->kind = VALUE_DOUBLE;
	if (literal.len < sizeof(text)) {
		memcpy(text, literal.p, literal.len);
		text[literal.len] = '\0';
		ret->number = strtod(text, NULL);
	} else {
		ret->number = strtod(arena_str(s->arena, literal).p, NULL);
	}
	if (!isfinite(ret->number))
		return err_set(s->err, -ERANGE,
			"json: cannot unmarshal number %.*s into Go value of type float64",
			(int)MIN(literal.len, (size_t)40), literal.p);
	return 0;
}

static int parse_word(struct parse *s, const char *word, struct value v, struct value *ret)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n))
		return -EBADMSG;
	s->p += n;
	*ret = v;
	return 0;
}

/* 1: an item follows, 0: closed. */
static int parse_open(struct parse *s, char close)
{
	if (++s->depth > CODEC_MAX_DEPTH)
		return -EBADMSG;
	s->p = skip_space(s->p + 1, s->end);
	if (s->p == s->end)
		return -EBADMSG;
	if (*s->p != close)
		return 1;
	s->p++;
	s->depth--;
	return 0;
}

static int parse_next(struct parse *s, char close)
{
	s->p = skip_space(s->p, s->end);
	if (s->p == s->end)
		return -EBADMSG;
	char c = *s->p++;

	if (c == ',') {
		s->p = skip_space(s->p, s->end);
		return s->p < s->end && *s->p != close ? 1 : -EBADMSG;
	}
	s->depth--;
	return c == close ? 0 : -EBADMSG;
}

static int parse_list(struct parse *s, struct value *ret)
{
	int r;

	*ret = (struct value){ .kind = VALUE_LIST };
	for (r = parse_open(s, ']'); r > 0; r = parse_next(s, ']')) {
		r = parse_value(s, value_append(s->arena, ret));
		if (r < 0)
			break;
	}
	return r;
}

struct named {
	struct str key;
	size_t index;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int c = str_cmp(x->key, y->key);

	return c ? c : (x->index > y->index) - (x->index < y->index);
}

/* Keeps of each name the first place and the last value. */
void value_drop_duplicates(struct value *o)
{
	size_t n = o->object.len, kept = 0;

	if (n <= FEW)
		return;
	struct named *names = xmalloc(n * sizeof(*names));
	bool *gone = xcalloc(n, sizeof(*gone));

	for (size_t i = 0; i < n; i++)
		names[i] = (struct named){ o->object.members[i].key, i };
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0, j; i < n; i = j) {
		for (j = i + 1; j < n && str_eq(names[i].key, names[j].key); j++)
			gone[names[j].index] = true;
		o->object.members[names[i].index].value =
			o->object.members[names[j - 1].index].value;
	}
	for (size_t i = 0; i < n; i++)
		if (!gone[i])
			o->object.members[kept++] = o->object.members[i];
	o->object.len = kept;
	free(names);
	free(gone);
}

static int parse_object(struct parse *s, struct value *ret)
{
	struct str key;
	int r;

	*ret = (struct value){ .kind = VALUE_OBJECT };
	for (r = parse_open(s, '}'); r > 0; r = parse_next(s, '}')) {
		if (*s->p != '"' || parse_text(s, &key) < 0)
			return -EBADMSG;
		s->p = skip_space(s->p, s->end);
		if (s->p == s->end || *s->p != ':')
			return -EBADMSG;
		s->p++;
		struct value *v = value_put(s->arena, ret, key);

		r = parse_value(s, v);
		if (r < 0)
			break;
	}
	if (!r)
		value_drop_duplicates(ret);
	return r;
}

static int parse_value(struct parse *s, struct value *ret)
{
	s->p = skip_space(s->p, s->end);
	if (s->p == s->end)
		return -EBADMSG;
	switch (*s->p) {
	case '{':
		return parse_object(s, ret);
	case '[':
		return parse_list(s, ret);
	case '"':
		*ret = (struct value){ .kind = VALUE_TEXT };
		return parse_text(s, &ret->text);
	case 't':
		return parse_word(
			s, "true", (struct value){ .kind = VALUE_BOOL, .boolean = true }, ret);
	case 'f':
		return parse_word(s, "false", (struct value){ .kind = VALUE_BOOL }, ret);
	case 'n':
		return parse_word(s, "null", (struct value){ .kind = VALUE_NULL }, ret);
	}
	return parse_number(s, ret);
}

int json_parse(struct str text, struct arena *a, struct value *ret, struct err *err)
{
	text = never_null(text);
	struct parse s = { .p = text.p, .end = text.p + text.len, .arena = a, .err = err };
	struct value v = { 0 };
	int r = parse_value(&s, &v);

	if (r == -ERANGE)
		return r;
	if (!r && skip_space(s.p, s.end) == s.end) {
		*ret = v;
		return 0;
	}
	r = json_check(text, err);
	return r < 0 ? r : err_set(err, -EBADMSG, "the JSON text cannot be read");
}

/* ---- writing ---- */

static void write_number(const struct value *v, struct buf *out)
{
	char text[32];

	if (v->kind == VALUE_INT)
		buf_add(out, text, format_int(v->integer, text));
	else
		buf_add(out, text, format_double(v->number, text));
}

static void new_line(struct buf *out, int indent, int level)
{
	if (indent < 0)
		return;
	buf_addc(out, '\n');
	for (int i = 0; i < indent * level; i++)
		buf_addc(out, ' ');
}

static void write_value(const struct value *v, struct buf *out, int indent, int level)
{
	switch (v->kind) {
	case VALUE_NULL:
		buf_addz(out, "null");
		break;
	case VALUE_BOOL:
		buf_addz(out, v->boolean ? "true" : "false");
		break;
	case VALUE_INT:
	case VALUE_DOUBLE:
		write_number(v, out);
		break;
	case VALUE_TEXT:
		json_write_text(v->text, out);
		break;
	case VALUE_LIST:
		buf_addc(out, '[');
		for (size_t i = 0; i < v->list.len; i++) {
			if (i)
				buf_addc(out, ',');
			new_line(out, indent, level + 1);
			write_value(&v->list.items[i], out, indent, level + 1);
		}
		if (v->list.len)
			new_line(out, indent, level);
		buf_addc(out, ']');
		break;
	case VALUE_OBJECT:
		buf_addc(out, '{');
		for (size_t i = 0; i < v->object.len; i++) {
			if (i)
				buf_addc(out, ',');
			new_line(out, indent, level + 1);
			json_write_text(v->object.members[i].key, out);
			buf_addz(out, indent < 0 ? ":" : ": ");
			write_value(&v->object.members[i].value, out, indent, level + 1);
		}
		if (v->object.len)
			new_line(out, indent, level);
		buf_addc(out, '}');
		break;
	}
}

void json_write(const struct value *v, struct buf *out)
{
	write_value(v, out, -1, 0);
}

void json_write_pretty(const struct value *v, struct buf *out, int indent)
{
	write_value(v, out, indent, 0);
}

/* ---- type meta ---- */

/* A member of the object; 1: it was read, 0: end, < 0 malformed. */
static int peek_member(
	struct parse *s, struct str *ret_api_version, struct str *ret_kind, const char **ret_bad)
{
	struct str key;

	if (*s->p != '"' || parse_text(s, &key) < 0)
		return -EBADMSG;
	s->p = skip_space(s->p, s->end);
	if (s->p == s->end || *s->p != ':')
		return -EBADMSG;
	s->p = skip_space(s->p + 1, s->end);
	bool is_kind = str_eqz(key, "kind");

	if (s->p < s->end && *s->p != 'n' && (is_kind || str_eqz(key, "apiVersion"))) {
		if (*s->p == '"')
			return parse_text(s, is_kind ? ret_kind : ret_api_version);
		*ret_bad = is_kind ? "kind" : "apiVersion";
	}
	s->p = json_skip(s->p, s->end, CODEC_MAX_DEPTH);
	return s->p ? 0 : -EBADMSG;
}

int json_peek_type_meta(struct str text, struct arena *a, struct str *ret_api_version,
	struct str *ret_kind, struct err *err)
{
	text = never_null(text);
	struct parse s = {
		.p = skip_space(text.p, text.p + text.len), .end = text.p + text.len, .arena = a
	};
	struct str version = STR_NONE, kind = STR_NONE;
	const char *bad = NULL;
	int r = -EBADMSG;

	if (s.p < s.end && *s.p == '{') {
		for (r = parse_open(&s, '}'); r > 0; r = parse_next(&s, '}')) {
			if (version.p &&
				kind.p) /* enough: what follows is for json_decode to judge */
				break;
			r = peek_member(&s, &version, &kind, &bad);
			if (r < 0)
				break;
		}
	}
	if (r >= 0 && !bad) {
		*ret_api_version = version;
		*ret_kind = kind;
		return 0;
	}
	r = json_check(text, err);
	if (r < 0)
		return r;
	if (bad)
		return err_set(err, -EBADMSG,
			"json: cannot unmarshal into Go struct field .%s of type string", bad);
	return err_set(err, -EBADMSG,
		"json: cannot unmarshal %s into Go value of type struct { APIVersion string; Kind string }",
		*s.p == '['                          ? "array"
			: *s.p == '"'                ? "string"
			: *s.p == 't' || *s.p == 'f' ? "bool"
						     : "number");
}
