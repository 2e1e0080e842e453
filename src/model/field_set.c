/* Sets of paths: reading, writing, and what sets do. */
#include "model/field_set.h"

struct field_set *field_set_new(struct arena *a)
{
	return arena_alloc(a, sizeof(struct field_set));
}

/* Where the element is, or would be. */
static size_t position(const struct field_set *s, struct str element, bool *ret_there)
{
	size_t low = 0, high = s->len;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = str_cmp(s->items[mid].element, element);

		if (!c) {
			*ret_there = true;
			return mid;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*ret_there = false;
	return low;
}

struct field_set *field_child_of(const struct field_set *s, struct str element)
{
	bool there = false;
	size_t i = s ? position(s, element, &there) : 0;

	return there ? &s->items[i].set : NULL;
}

struct field_set *field_child_make(struct field_set *s, struct str element, struct arena *a)
{
	bool there;
	size_t i = position(s, element, &there);

	if (there)
		return &s->items[i].set;
	if (s->len == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 4;

		s->items = arena_grow(
			a, s->items, s->cap * sizeof(*s->items), cap * sizeof(*s->items));
		s->cap = cap;
	}
	memmove(&s->items[i + 1], &s->items[i], (s->len - i) * sizeof(*s->items));
	s->len++;
	s->items[i] = (struct field_child){ .element = element };
	return &s->items[i].set;
}

/* ---- fieldsV1 ---- */

static int read_fields(
	const struct value *v, struct arena *a, struct field_set *into, struct err *err)
{
	if (v->kind != VALUE_OBJECT)
		return err_set(err, -EINVAL, "fieldsV1 must hold objects only");
	for (size_t i = 0; i < v->object.len; i++) {
		const struct value_member *m = &v->object.members[i];

		if (str_eqz(m->key, ".")) {
			into->member = true;
			continue;
		}
		if (m->key.len < 2 || m->key.p[1] != ':' || !memchr("fkvi", m->key.p[0], 4))
			return err_set(err, -EINVAL,
				"fieldsV1 has \"%.*s\", which names no field (f:), key (k:), value (v:) or index (i:)",
				(int)MIN(m->key.len, (size_t)100), m->key.p);
		struct field_set *child = field_child_make(into, arena_str(a, m->key), a);

		if (m->value.kind == VALUE_OBJECT && !m->value.object.len)
			child->member = true;
		int r = read_fields(&m->value, a, child, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int field_set_from_fields(
	const struct value *fields, struct arena *a, struct field_set **ret, struct err *err)
{
	struct field_set *s = field_set_new(a);
	int r = read_fields(fields, a, s, err);

	if (!r)
		*ret = s;
	return r;
}

void field_set_to_fields(const struct field_set *s, struct arena *a, struct value *ret)
{
	*ret = (struct value){ .kind = VALUE_OBJECT };
	if (!s)
		return;
	if (s->member && s->len)
		value_add_member(a, ret, STR("."))->kind = VALUE_OBJECT;
	for (size_t i = 0; i < s->len; i++) {
		struct value v;

		field_set_to_fields(&s->items[i].set, a, &v);
		*value_add_member(a, ret, s->items[i].element) = v;
	}
}

/* ---- sets ---- */

bool field_set_is_empty(const struct field_set *s)
{
	if (!s)
		return true;
	if (s->member)
		return false;
	for (size_t i = 0; i < s->len; i++)
		if (!field_set_is_empty(&s->items[i].set))
			return false;
	return true;
}

bool field_set_equal(const struct field_set *a, const struct field_set *b)
{
	if (!a || !b)
		return field_set_is_empty(a) && field_set_is_empty(b);
	if (a->len != b->len || a->member != b->member)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i].element, b->items[i].element) ||
			!field_set_equal(&a->items[i].set, &b->items[i].set))
			return false;
	return true;
}

static void add_all(struct field_set *into, const struct field_set *from, struct arena *a)
{
	into->member = into->member || from->member;
	for (size_t i = 0; i < from->len; i++)
		add_all(field_child_make(into, from->items[i].element, a), &from->items[i].set, a);
}

struct field_set *field_set_union(
	const struct field_set *x, const struct field_set *y, struct arena *arena)
{
	struct field_set *s = field_set_new(arena);

	if (x)
		add_all(s, x, arena);
	if (y)
		add_all(s, y, arena);
	return s;
}

/* The two below keep no branch without a member, so that equal sets are equal trees. */
static bool keep_common(struct field_set *into, const struct field_set *x,
	const struct field_set *y, struct arena *a)
{
	into->member = x->member && y->member;
	bool any = into->member;

	for (size_t i = 0; i < x->len; i++) {
		const struct field_set *other = field_child_of(y, x->items[i].element);
		struct field_set common = { 0 };

		if (other && keep_common(&common, &x->items[i].set, other, a)) {
			*field_child_make(into, x->items[i].element, a) = common;
			any = true;
		}
	}
	return any;
}

struct field_set *field_set_intersect(
	const struct field_set *x, const struct field_set *y, struct arena *arena)
{
	struct field_set *s = field_set_new(arena);

	if (x && y)
		keep_common(s, x, y, arena);
	return s;
}

static bool keep_rest(struct field_set *into, const struct field_set *x, const struct field_set *y,
	bool deep, struct arena *a)
{
	if (deep && y && y->member)
		return false;
	into->member = x->member && !(y && y->member);
	bool any = into->member;

	for (size_t i = 0; i < x->len; i++) {
		struct field_set rest = { 0 };

		if (keep_rest(&rest, &x->items[i].set, field_child_of(y, x->items[i].element), deep,
			    a)) {
			*field_child_make(into, x->items[i].element, a) = rest;
			any = true;
		}
	}
	return any;
}

struct field_set *field_set_minus(
	const struct field_set *x, const struct field_set *y, bool deep, struct arena *arena)
{
	struct field_set *s = field_set_new(arena);

	if (x)
		keep_rest(s, x, y, deep, arena);
	return s;
}

/* ---- for people ---- */

/* k:{"name":"a","x":1} -> [name="a",x=1]; v:"a" -> [="a"]; i:3 -> [3] */
static void write_element(struct str e, struct buf *out)
{
	struct str rest = str_from(e, 2);

	if (e.p[0] == 'f') {
		buf_addf(out, "." STR_FMT, STR_ARG(rest));
		return;
	}
	buf_addc(out, '[');
	if (e.p[0] == 'v')
		buf_addc(out, '=');
	if (e.p[0] != 'k') {
		buf_add_str(out, rest);
	} else {
		bool in_text = false, key = true;

		for (size_t i = 1; i + 1 < rest.len; i++) {
			char c = rest.p[i];

			if (c == '\\' && in_text && !key) {
				buf_addc(out, c);
				buf_addc(out, rest.p[++i]);
				continue;
			}
			if (c == '"') {
				in_text = !in_text;
				if (!key)
					buf_addc(out, c);
			} else if (c == ':' && key && !in_text) {
				buf_addc(out, '=');
				key = false;
			} else {
				buf_addc(out, c);
				key = key || (c == ',' && !in_text);
			}
		}
	}
	buf_addc(out, ']');
}

static void collect_paths(
	const struct field_set *s, struct buf *path, struct arena *a, struct str_list *out)
{
	if (s->member)
		*LIST_ADD(a, out) = arena_str(a, buf_str(path));
	for (size_t i = 0; i < s->len; i++) {
		size_t len = path->len;

		write_element(s->items[i].element, path);
		collect_paths(&s->items[i].set, path, a, out);
		path->len = len;
	}
}

size_t field_set_paths(const struct field_set *s, struct arena *a, struct str **ret)
{
	struct str_list out = { 0 };
	struct buf path = { 0 };

	if (s)
		collect_paths(s, &path, a, &out);
	buf_deinit(&path);
	*ret = out.items;
	return out.len;
}
