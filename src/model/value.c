/* Trees of JSON-like values. */
#include "model/internal.h"

struct value *value_get(const struct value *o, struct str key)
{
	if (!o || o->kind != VALUE_OBJECT)
		return NULL;
	for (size_t i = 0; i < o->object.len; i++)
		if (str_eq(o->object.members[i].key, key))
			return &o->object.members[i].value;
	return NULL;
}

struct value *value_add_member(struct arena *a, struct value *o, struct str key)
{
	if (o->object.len == o->object.cap) {
		size_t cap = o->object.cap ? 2 * o->object.cap : 4;

		o->object.members =
			arena_grow(a, o->object.members, o->object.cap * sizeof(*o->object.members),
				cap * sizeof(*o->object.members));
		o->object.cap = cap;
	}
	struct value_member *m = &o->object.members[o->object.len++];

	*m = (struct value_member){ .key = key };
	return &m->value;
}

struct value *value_set(struct arena *a, struct value *o, struct str key)
{
	struct value *v = value_get(o, key);

	return v ? v : value_add_member(a, o, key);
}

bool value_remove(struct value *o, struct str key)
{
	struct value *v = value_get(o, key);

	if (!v)
		return false;
	struct value_member *m = container_of(v, struct value_member, value);
	size_t i = (size_t)(m - o->object.members);

	o->object.len--;
	memmove(m, m + 1, (o->object.len - i) * sizeof(*m));
	return true;
}

struct value *value_append(struct arena *a, struct value *l)
{
	if (l->list.len == l->list.cap) {
		size_t cap = l->list.cap ? 2 * l->list.cap : 4;

		l->list.items = arena_grow(a, l->list.items, l->list.cap * sizeof(*l->list.items),
			cap * sizeof(*l->list.items));
		l->list.cap = cap;
	}
	struct value *v = &l->list.items[l->list.len++];

	*v = (struct value){ 0 };
	return v;
}

struct value value_copy(struct arena *a, const struct value *v)
{
	struct value c = *v;

	switch (v->kind) {
	case VALUE_TEXT:
		c.text = arena_str(a, v->text);
		break;
	case VALUE_LIST:
		c.list.cap = v->list.len;
		c.list.items = arena_alloc(a, v->list.len * sizeof(struct value));
		for (size_t i = 0; i < v->list.len; i++)
			c.list.items[i] = value_copy(a, &v->list.items[i]);
		break;
	case VALUE_OBJECT:
		c.object.cap = v->object.len;
		c.object.members = arena_alloc(a, v->object.len * sizeof(struct value_member));
		for (size_t i = 0; i < v->object.len; i++) {
			c.object.members[i].key = arena_str(a, v->object.members[i].key);
			c.object.members[i].value = value_copy(a, &v->object.members[i].value);
		}
		break;
	default:
		break;
	}
	return c;
}

static bool objects_equal(const struct value *a, const struct value *b)
{
	if (a->object.len != b->object.len)
		return false;
	for (size_t i = 0; i < a->object.len; i++) {
		const struct value_member *m = &a->object.members[i];
		/* Mostly both have the same order. */
		const struct value *other = str_eq(b->object.members[i].key, m->key)
			? &b->object.members[i].value
			: value_get(b, m->key);

		if (!other || !value_equal(&m->value, other))
			return false;
	}
	return true;
}

bool value_equal(const struct value *a, const struct value *b)
{
	if (a->kind != b->kind) {
		if (a->kind == VALUE_INT && b->kind == VALUE_DOUBLE)
			return (double)a->integer == b->number;
		return a->kind == VALUE_DOUBLE && b->kind == VALUE_INT &&
			a->number == (double)b->integer;
	}
	switch (a->kind) {
	case VALUE_NULL:
		return true;
	case VALUE_BOOL:
		return a->boolean == b->boolean;
	case VALUE_INT:
		return a->integer == b->integer;
	case VALUE_DOUBLE:
		return a->number == b->number;
	case VALUE_TEXT:
		return str_eq(a->text, b->text);
	case VALUE_OBJECT:
		return objects_equal(a, b);
	case VALUE_LIST:
		break;
	}
	if (a->list.len != b->list.len)
		return false;
	for (size_t i = 0; i < a->list.len; i++)
		if (!value_equal(&a->list.items[i], &b->list.items[i]))
			return false;
	return true;
}
