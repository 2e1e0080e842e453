/* YAML into trees, by libyaml's events. Plain scalars are read by the rules of YAML 1.1 as sigs.k8s.io/yaml reads them
 * (yes, on, 0644, 1_000; timestamps stay texts). Keys become texts. Of equal keys the last wins; `<<` merges. Aliases are
 * copied, and how much they may add is bounded. */
#include "codec/yaml_scalar.h"

#include <math.h>
#include <stdio.h>
#include <yaml.h>

struct anchor {
	struct str name;
	struct value value;
};

struct loader {
	yaml_parser_t parser;
	yaml_event_t event;
	struct arena *arena;
	struct err *err;
	struct anchor *anchors;
	size_t n_anchors;
	size_t depth;
	size_t copied; /* values that aliases may still add */
};

static int load_value(struct loader *l, struct value *ret);

/* ---- plain scalars ---- */

static const struct {
	const char *texts;
	struct value value;
} words[] = {
	{ " y Y yes Yes YES true True TRUE on On ON ", { .kind = VALUE_BOOL, .boolean = true } },
	{ " n N no No NO false False FALSE off Off OFF ", { .kind = VALUE_BOOL } },
	{ " ~ null Null NULL ", { .kind = VALUE_NULL } },
};

static bool resolve_word(struct str s, struct value *ret)
{
	char padded[8];

	if (!s.len) {
		*ret = (struct value){ .kind = VALUE_NULL };
		return true;
	}
	if (s.len > 5 || memchr(s.p, ' ', s.len))
		return false;
	snprintf(padded, sizeof(padded), " " STR_FMT " ", STR_ARG(s));
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strstr(words[i].texts, padded)) {
			*ret = words[i].value;
			return true;
		}
	}
	return false;
}

/* Base by prefix, as Go's ParseInt(s, 0): 0x, 0o, 0b, 0 and decimal. */
static bool resolve_int(const char *s, struct value *ret)
{
	const char *digits = s + (*s == '-' || *s == '+');
	int base = 10;
	char *end;

	if (digits[0] == '0' && digits[1]) {
		char c = digits[1] | 0x20;

		base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
		digits += c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
	}
	if (!*digits || *digits == '-' || *digits == '+' || *digits == ' ')
		return false;
	errno = 0;
	unsigned long long v = strtoull(digits, &end, base);

	if (*end)
		return false;
	bool negative = *s == '-', fits = !errno && v <= (unsigned long long)INT64_MAX + negative;

	*ret = fits ? (struct value){ .kind = VALUE_INT,
		.integer = negative ? (int64_t)(0 - v) : (int64_t)v }
		    : (struct value){ .kind = VALUE_DOUBLE, .number = strtod(s, NULL) };
	return fits || base == 10;
}

static bool resolve_float(const char *s, struct value *ret)
{
	const char *p = s + (*s == '-' || *s == '+');
	char *end;

	for (const char *c = p; *c; c++)
		if (!strchr("0123456789.eE+-", *c))
			return false;
	double v = strtod(s, &end);

	if (*end || end == s || !isfinite(v))
		return false;
	*ret = (struct value){ .kind = VALUE_DOUBLE, .number = v };
	return true;
}

struct value yaml_resolve(struct str s)
{
	struct value v = { .kind = VALUE_TEXT, .text = s };
	char plain[64];
	size_t n = 0;

	if (resolve_word(s, &v) || !strchr("+-.0123456789", *s.p) || s.len >= sizeof(plain))
		return v;
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] != '_' || *s.p == '.')
			plain[n++] = s.p[i];
	plain[n] = '\0';
	if (strlen(plain) != n || (*s.p != '.' && resolve_int(plain, &v)) ||
		resolve_float(plain, &v))
		return v;
	return (struct value){ .kind = VALUE_TEXT, .text = s };
}

/* ---- events ---- */

static int next_event(struct loader *l)
{
	yaml_event_delete(&l->event);
	if (yaml_parser_parse(&l->parser, &l->event))
		return 0;
	const char *problem = l->parser.problem ? l->parser.problem : "the text is no YAML";

	return err_set(
		l->err, -EBADMSG, "yaml: line %zu: %s", l->parser.problem_mark.line + 1, problem);
}

static int fail(struct loader *l, const char *what)
{
	return err_set(l->err, -EBADMSG, "yaml: line %zu: %s", l->event.start_mark.line + 1, what);
}

static void remember(struct loader *l, const yaml_char_t *anchor, const struct value *v)
{
	if (!anchor)
		return;
	l->anchors = xrealloc(l->anchors, (l->n_anchors + 1) * sizeof(*l->anchors));
	l->anchors[l->n_anchors++] =
		(struct anchor){ arena_strz(l->arena, (const char *)anchor), *v };
}

static size_t count_values(const struct value *v)
{
	size_t n = 1;

	for (size_t i = 0; v->kind == VALUE_LIST && i < v->list.len; i++)
		n += count_values(&v->list.items[i]);
	for (size_t i = 0; v->kind == VALUE_OBJECT && i < v->object.len; i++)
		n += count_values(&v->object.members[i].value);
	return n;
}

static int load_alias(struct loader *l, struct value *ret)
{
	struct str name = str_of((const char *)l->event.data.alias.anchor);

	for (size_t i = l->n_anchors; i-- > 0;) {
		if (!str_eq(l->anchors[i].name, name))
			continue;
		size_t n = count_values(&l->anchors[i].value);

		if (n > l->copied)
			return fail(l, "document contains excessive aliasing");
		l->copied -= n;
		*ret = value_copy(l->arena, &l->anchors[i].value);
		return 0;
	}
	return err_set(
		l->err, -EBADMSG, "yaml: unknown anchor '" STR_FMT "' referenced", STR_ARG(name));
}

static int load_scalar(struct loader *l, struct value *ret)
{
	const char *tag = (const char *)l->event.data.scalar.tag;
	struct str s = str_n((const char *)l->event.data.scalar.value, l->event.data.scalar.length);
	bool plain = l->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !tag;
	yaml_char_t *anchor = l->event.data.scalar.anchor;
	bool number_tag = tag &&
		(!strcmp(tag, YAML_INT_TAG) || !strcmp(tag, YAML_FLOAT_TAG) ||
			!strcmp(tag, YAML_BOOL_TAG) || !strcmp(tag, YAML_NULL_TAG));

	s = arena_str(l->arena, utf8_repair(s, l->arena));
	*ret = plain || number_tag ? yaml_resolve(s)
				   : (struct value){ .kind = VALUE_TEXT, .text = s };
	if (tag && !strcmp(tag, YAML_FLOAT_TAG) && ret->kind == VALUE_INT)
		*ret = (struct value){ .kind = VALUE_DOUBLE, .number = (double)ret->integer };
	if (number_tag && ret->kind == VALUE_TEXT)
		return fail(l, "a value does not fit its tag");
	remember(l, anchor, ret);
	return 0;
}

static int load_list(struct loader *l, struct value *ret)
{
	struct str anchor = str_of((const char *)l->event.data.sequence_start.anchor);
	int r;

	anchor = anchor.p ? arena_str(l->arena, anchor) : anchor;
	*ret = (struct value){ .kind = VALUE_LIST };
	for (;;) {
		r = next_event(l);
		if (r < 0)
			return r;
		if (l->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		r = load_value(l, value_append(l->arena, ret));
		if (r < 0)
			return r;
	}
	remember(l, (const yaml_char_t *)anchor.p, ret);
	return 0;
}

static int key_text(struct loader *l, const struct value *v, struct str *ret)
{
	char text[32];

	switch (v->kind) {
	case VALUE_TEXT:
		*ret = v->text;
		return 0;
	case VALUE_BOOL:
		*ret = v->boolean ? STR("true") : STR("false");
		return 0;
	case VALUE_INT:
		*ret = arena_str(l->arena, str_n(text, format_int(v->integer, text)));
		return 0;
	case VALUE_DOUBLE:
		*ret = arena_str(l->arena, str_n(text, format_double(v->number, text)));
		return 0;
	default:
		return fail(l, "a mapping's key must be a text, a number or a bool");
	}
}

/* `<<: map` or `<<: [map, map]`: members that are not there yet. */
static int merge(struct loader *l, struct value *into, const struct value *from)
{
	if (from->kind == VALUE_LIST) {
		for (size_t i = 0; i < from->list.len; i++) {
			int r = merge(l, into, &from->list.items[i]);

			if (r < 0)
				return r;
		}
		return 0;
	}
	if (from->kind != VALUE_OBJECT)
		return fail(l, "map merge requires map or sequence of maps as the value");
	for (size_t i = 0; i < from->object.len; i++)
		if (!value_get(into, from->object.members[i].key))
			*value_set(l->arena, into, from->object.members[i].key) =
				from->object.members[i].value;
	return 0;
}

static int load_object(struct loader *l, struct value *ret)
{
	struct str anchor = str_of((const char *)l->event.data.mapping_start.anchor), name;
	struct value key, v, merged = { .kind = VALUE_LIST };
	int r;

	anchor = anchor.p ? arena_str(l->arena, anchor) : anchor;
	*ret = (struct value){ .kind = VALUE_OBJECT };
	for (;;) {
		r = next_event(l);
		if (r < 0)
			return r;
		if (l->event.type == YAML_MAPPING_END_EVENT)
			break;
		bool plain = l->event.type == YAML_SCALAR_EVENT &&
			l->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

		if ((r = load_value(l, &key)) < 0 || (r = key_text(l, &key, &name)) < 0 ||
			(r = next_event(l)) < 0 || (r = load_value(l, &v)) < 0)
			return r;
		if (plain && str_eqz(name, "<<"))
			*value_append(l->arena, &merged) = v;
		else
			*value_put(l->arena, ret, name) = v;
	}
	value_drop_duplicates(ret);
	r = merge(l, ret, &merged);
	remember(l, (const yaml_char_t *)anchor.p, ret);
	return r;
}

static int load_value(struct loader *l, struct value *ret)
{
	int r;

	if (l->depth >= CODEC_MAX_DEPTH)
		return fail(l, "exceeded max depth");
	l->depth++;
	switch (l->event.type) {
	case YAML_ALIAS_EVENT:
		r = load_alias(l, ret);
		break;
	case YAML_SCALAR_EVENT:
		r = load_scalar(l, ret);
		break;
	case YAML_SEQUENCE_START_EVENT:
		r = load_list(l, ret);
		break;
	case YAML_MAPPING_START_EVENT:
		r = load_object(l, ret);
		break;
	default:
		r = fail(l, "a value is missing");
	}
	l->depth--;
	return r;
}

/* One document: 1 read, 0 there is none. */
static int load_document(struct loader *l, struct value *ret)
{
	int r = next_event(l);

	while (r >= 0 && l->event.type != YAML_DOCUMENT_START_EVENT) {
		if (l->event.type == YAML_STREAM_END_EVENT)
			return 0;
		r = next_event(l);
	}
	if (r >= 0)
		r = next_event(l);
	if (r >= 0)
		r = load_value(l, ret);
	l->n_anchors = 0;
	return r < 0 ? r : 1;
}

static void open_loader(struct loader *l, struct str text, struct arena *a, struct err *err)
{
	*l = (struct loader){ .arena = a, .err = err, .copied = 1000 + 10 * text.len };
	if (!yaml_parser_initialize(&l->parser))
		abort();
	yaml_parser_set_input_string(
		&l->parser, (const unsigned char *)(text.p ? text.p : ""), text.len);
}

static void close_loader(struct loader *l)
{
	yaml_event_delete(&l->event);
	yaml_parser_delete(&l->parser);
	free(l->anchors);
}

int yaml_parse(struct str text, struct arena *a, struct value *ret, struct err *err)
{
	struct loader l;
	struct value v = { .kind = VALUE_NULL };

	open_loader(&l, text, a, err);
	int r = load_document(&l, &v);

	close_loader(&l);
	if (r < 0)
		return r;
	*ret = v;
	return 0;
}

int yaml_parse_all(
	struct str text, struct arena *a, struct value **ret_docs, size_t *ret_n, struct err *err)
{
	struct loader l;
	struct value docs = { .kind = VALUE_LIST };
	int r;

	open_loader(&l, text, a, err);
	do
		r = load_document(&l, value_append(a, &docs));
	while (r > 0);
	close_loader(&l);
	if (r < 0)
		return r;
	*ret_docs = docs.list.items;
	*ret_n = docs.list.len - 1; /* the last one was not there */
	return 0;
}
