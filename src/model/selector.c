/* Label and field selectors. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
 * A selector is a list of requirements, all of which must hold; NULL has none and selects everything. */
#include <stdio.h>

#include "gen/types.h"
#include "model/model.h"

enum operator{ OP_EQUALS, OP_IN, OP_NOT_IN, OP_EXISTS, OP_NOT_EXISTS, OP_GREATER, OP_LESS };

struct requirement {
	struct str key;
	enum operator op;
	struct str_list values; /* sorted */
};
struct selector {
	struct requirement *items;
	size_t len;
	bool nothing; /* selects nothing at all */
};

static struct requirement *add(
	struct selector *s, struct arena *a, struct str key, enum operator op)
{
	struct requirement *r;

	if ((s->len & (s->len - 1)) == 0)
		s->items = arena_grow(a, s->items, s->len * sizeof(*s->items),
			(s->len ? s->len * 2 : 1) * sizeof(*s->items));
	r = &s->items[s->len++];
	*r = (struct requirement){ .key = arena_str(a, key), .op = op };
	return r;
}

static int by_text(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static int by_key(const void *a, const void *b)
{
	return str_cmp(((const struct requirement *)a)->key, ((const struct requirement *)b)->key);
}

static void sort(struct selector *s)
{
	for (size_t i = 0; i < s->len; i++)
		if (s->items[i].values.len > 1)
			qsort(s->items[i].values.items, s->items[i].values.len, sizeof(struct str),
				by_text);
	if (s->len > 1)
		qsort(s->items, s->len, sizeof(*s->items), by_key);
}

/* ---- the text form ---- */

struct parser {
	struct str all, rest;
	struct arena *a;
	struct err *err;
};

static void skip_blanks(struct parser *p)
{
	while (p->rest.len && strchr(" \t\r\n", p->rest.p[0]))
		p->rest = str_from(p->rest, 1);
}

static bool take(struct parser *p, const char *token)
{
	size_t n = strlen(token);

	skip_blanks(p);
	if (p->rest.len < n || memcmp(p->rest.p, token, n))
		return false;
	p->rest = str_from(p->rest, n);
	return true;
}

/* A word up to a blank or one of the signs. */
static struct str word(struct parser *p)
{
	size_t n = 0;

	skip_blanks(p);
	while (n < p->rest.len && !strchr(" \t\r\n=!(),<>", p->rest.p[n]))
		n++;
	struct str w = str_n(p->rest.p, n);

	p->rest = str_from(p->rest, n);
	return w;
}

static int bad(struct parser *p, const char *what)
{
	return err_set(p->err, -EINVAL,
		"unable to parse requirement: %s near \"" STR_FMT "\" in selector \"" STR_FMT "\"",
		what, STR_ARG(p->rest), STR_ARG(p->all));
}

static int check_key(struct parser *p, struct str key)
{
	const char *wrong = valid_label_key(key);

	return wrong
		? err_set(p->err, -EINVAL,
			  "unable to parse requirement: <nil>: Invalid value: \"" STR_FMT "\": %s",
			  STR_ARG(key), wrong)
		: 0;
}

static int add_value(struct parser *p, struct requirement *r, struct str v)
{
	const char *wrong = valid_label_value(v);

	if (wrong)
		return err_set(p->err, -EINVAL,
			"unable to parse requirement: values[%zu][" STR_FMT
			"]: Invalid value: \"" STR_FMT "\": %s",
			r->values.len, STR_ARG(r->key), STR_ARG(v), wrong);
	*LIST_ADD(p->a, &r->values) = arena_str(p->a, v);
	return 0;
}

static int parse_set(struct parser *p, struct requirement *r)
{
	int e;

	if (!take(p, "("))
		return bad(p, "expected '('");
	do {
		e = add_value(p, r, word(p));
		if (e < 0)
			return e;
	} while (take(p, ","));
	return take(p, ")") ? 0 : bad(p, "expected ',' or ')'");
}

static int parse_requirement(struct parser *p, struct selector *s)
{
	bool negated = take(p, "!");
	struct str key = word(p);
	int e;

	if (!key.len)
		return bad(p, "expected a label key");
	e = check_key(p, key);
	if (e < 0)
		return e;
	skip_blanks(p);
	if (negated || !p->rest.len || p->rest.p[0] == ',') {
		add(s, p->a, key, negated ? OP_NOT_EXISTS : OP_EXISTS);
		return 0;
	}
	if (take(p, "!="))
		return add_value(p, add(s, p->a, key, OP_NOT_IN), word(p));
	if (take(p, "==") || take(p, "="))
		return add_value(p, add(s, p->a, key, OP_EQUALS), word(p));
	if (take(p, ">") || take(p, "<")) {
		struct requirement *r =
			add(s, p->a, key, p->rest.p[-1] == '>' ? OP_GREATER : OP_LESS);
		struct str number = word(p);
		int64_t n;

		if (str_to_i64(number, &n) < 0)
			return bad(p, "expected a number");
		return add_value(p, r, number);
	}
	struct str op = word(p);

	if (str_eqz(op, "in"))
		return parse_set(p, add(s, p->a, key, OP_IN));
	if (str_eqz(op, "notin"))
		return parse_set(p, add(s, p->a, key, OP_NOT_IN));
	return bad(p, "expected an operator (=, ==, !=, in, notin)");
}

int selector_parse_labels(struct str text, struct arena *a, struct selector **ret, struct err *err)
{
	struct parser p = { text, text, a, err };
	struct selector *s;
	int e;

	skip_blanks(&p);
	if (!p.rest.len) {
		*ret = NULL;
		return 0;
	}
	s = arena_alloc(a, sizeof(*s));
	do {
		e = parse_requirement(&p, s);
		if (e < 0)
			return e;
	} while (take(&p, ","));
	skip_blanks(&p);
	if (p.rest.len)
		return bad(&p, "expected ','");
	sort(s);
	*ret = s;
	return 0;
}

/* ---- from objects ---- */

int selector_from_label_selector(const struct meta_v1_label_selector *ls, struct arena *a,
	struct selector **ret, struct err *err)
{
	static const struct {
		const char *name;
		enum operator op;
	} operators[] = {
		{ "In", OP_IN },
		{ "NotIn", OP_NOT_IN },
		{ "Exists", OP_EXISTS },
		{ "DoesNotExist", OP_NOT_EXISTS },
	};
	struct selector *s = arena_alloc(a, sizeof(*s));

	if (!ls) {
		s->nothing = true;
		*ret = s;
		return 0;
	}
	LIST_EACH(pair, &ls->match_labels) {
		struct requirement *r = add(s, a, pair->key, OP_EQUALS);

		*LIST_ADD(a, &r->values) = arena_str(a, pair->value);
	}
	LIST_EACH(e, &ls->match_expressions) {
		struct requirement *r = NULL;

		for (size_t i = 0; i < ARRAY_LEN(operators); i++)
			if (str_eqz(e->operator, operators[i].name))
				r = add(s, a, e->key, operators[i].op);
		if (!r)
			return err_set(err, -EINVAL,
				"\"" STR_FMT "\" is not a valid label selector operator",
				STR_ARG(e->operator));
		LIST_EACH(v, &e->values)
			*LIST_ADD(a, &r->values) = arena_str(a, *v);
	}
	sort(s);
	*ret = s->len ? s : NULL;
	return 0;
}

struct selector *selector_from_map(const struct str_map *m, struct arena *a)
{
	struct selector *s = arena_alloc(a, sizeof(*s));

	s->nothing = !m->len;
	LIST_EACH(pair, m) {
		struct requirement *r = add(s, a, pair->key, OP_EQUALS);

		*LIST_ADD(a, &r->values) = arena_str(a, pair->value);
	}
	return s;
}

/* ---- use ---- */

static bool compares(struct str have, struct str want, bool greater)
{
	int64_t a, b;

	if (str_to_i64(have, &a) < 0 || str_to_i64(want, &b) < 0)
		return false;
	return greater ? a > b : a < b;
}

static bool holds(const struct requirement *r, struct str have)
{
	switch (r->op) {
	case OP_EQUALS:
	case OP_IN:
		return have.p && str_list_has(&r->values, have);
	case OP_NOT_IN:
		return !have.p || !str_list_has(&r->values, have);
	case OP_EXISTS:
		return have.p;
	case OP_NOT_EXISTS:
		return !have.p;
	case OP_GREATER:
	case OP_LESS:
		return have.p && compares(have, r->values.items[0], r->op == OP_GREATER);
	}
	return false;
}

bool selector_matches(const struct selector *s, const struct str_map *labels)
{
	if (!s)
		return true;
	if (s->nothing)
		return false;
	for (size_t i = 0; i < s->len; i++)
		if (!holds(&s->items[i], str_map_get(labels, s->items[i].key)))
			return false;
	return true;
}

void selector_format(const struct selector *s, struct buf *out)
{
	static const char *const before[] = { [OP_EQUALS] = "=",
		[OP_IN] = " in (",
		[OP_NOT_IN] = " notin (",
		[OP_EXISTS] = "",
		[OP_NOT_EXISTS] = "",
		[OP_GREATER] = ">",
		[OP_LESS] = "<" };

	for (size_t i = 0; s && i < s->len; i++) {
		const struct requirement *r = &s->items[i];
		bool set = r->op == OP_IN || r->op == OP_NOT_IN;

		buf_addf(out, "%s%s" STR_FMT, i ? "," : "", r->op == OP_NOT_EXISTS ? "!" : "",
			STR_ARG(r->key));
		if (r->op == OP_NOT_IN && r->values.len == 1) {
			buf_addf(out, "!=" STR_FMT, STR_ARG(r->values.items[0]));
			continue;
		}
		buf_addz(out, before[r->op]);
		LIST_EACH(v, &r->values)
			buf_addf(out, "%s" STR_FMT, v == r->values.items ? "" : ",", STR_ARG(*v));
		if (set)
			buf_addc(out, ')');
	}
}

/* ---- field selectors ---- */

/* Cuts at the first comma or sign that no backslash escapes. */
static size_t find_unescaped(struct str s, const char *signs)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (strchr(signs, s.p[i]))
			return i;
	}
	return s.len;
}

static struct str unescape(struct str s, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };

	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '\\' && i + 1 < s.len)
			i++;
		buf_addc(&b, s.p[i]);
	}
	return arena_str(a, buf_str(&b));
}

int selector_parse_fields(
	struct str text, struct arena *a, struct field_term **ret, size_t *ret_n, struct err *err)
{
	struct {
		struct field_term *items;
		size_t len;
	} list = { 0 };

	while (text.len) {
		size_t n = find_unescaped(text, ",");
		struct str term = str_n(text.p, n), key, value;
		size_t at = find_unescaped(term, "=!");
		struct field_term *t;

		text = n < text.len ? str_from(text, n + 1) : STR_NONE;
		if (!term.len)
			continue;
		if (at == term.len ||
			(term.p[at] == '!' && (at + 1 >= term.len || term.p[at + 1] != '=')))
			return err_set(err, -EINVAL,
				"invalid selector: '" STR_FMT "'; can't understand '" STR_FMT "'",
				STR_ARG(term), STR_ARG(term));
		key = str_n(term.p, at);
		value = str_from(term, at + (term.p[at] == '!' ? 2 : 1));
		if (term.p[at] == '=' && value.len && value.p[0] == '=')
			value = str_from(value, 1);
		t = LIST_ADD(a, &list);
		*t = (struct field_term){ arena_str(a, key), unescape(value, a),
			term.p[at] == '!' };
	}
	*ret = list.items;
	*ret_n = list.len;
	return 0;
}
