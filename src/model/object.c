/* Whole objects: new, copy, equal, zero. Each is one walk over the rows of a type. */
#include "model/internal.h"

#include "gen/types.h"

void *model_new(const struct type *t, struct arena *a)
{
	void *obj = arena_alloc(a, t->size);

	if (t->is_typed) {
		struct object_head *head = obj;

		head->kind = str_of(t->name);
		head->api_version = *t->group ? arena_fmt(a, "%s/%s", t->group, t->version)
					      : str_of(t->version);
	}
	return obj;
}

/* ---- copy ---- */

static void copy_members(const struct type *t, void *to, const void *from, struct arena *a);

static struct str copy_text(struct str s, struct arena *a)
{
	return s.len ? arena_str(a, s) : (struct str){ s.p ? "" : NULL, 0 };
}

/* One value of the field's kind; `to` holds a shallow copy already. */
static void copy_value(const struct field *f, void *to, const void *from, struct arena *a)
{
	if (f->kind == KIND_MESSAGE) {
		copy_members(f->type, to, from, a);
	} else if (kind_is_text(f->kind)) {
		*(struct str *)to = copy_text(*(const struct str *)from, a);
	} else if (f->kind == KIND_INT_OR_STRING) {
		struct int_or_str *v = to;

		v->text = copy_text(v->text, a);
	}
}

static void copy_texts(struct str_list *l, struct arena *a)
{
	struct str *items = arena_alloc(a, model_list_room(l->len) * sizeof(*items));

	for (size_t i = 0; i < l->len; i++)
		items[i] = copy_text(l->items[i], a);
	l->items = items;
}

static void copy_items(const struct field *f, struct any_list *l, struct arena *a)
{
	size_t size = model_item_size(f);
	size_t at = f->shape == SHAPE_LIST ? 0 : MAP_VALUE_OFFSET;
	const char *old = l->items;

	if (!l->len) {
		l->items = l->items ? MODEL_EMPTY : NULL;
		return;
	}
	l->items = arena_alloc(a, model_list_room(l->len) * size);
	memcpy(l->items, old, l->len * size);
	for (size_t i = 0; i < l->len; i++) {
		char *item = l->items + i * size;

		if (at)
			*(struct str *)item = copy_text(*(struct str *)item, a);
		if (f->shape != SHAPE_MAP_LIST)
			copy_value(f, item + at, old + i * size + at, a);
		else if (((struct str_list *)(item + at))->len)
			copy_texts((struct str_list *)(item + at), a);
	}
}

static void copy_members(const struct type *t, void *to, const void *from, struct arena *a)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		void *to_value = (char *)to + f->offset;
		const void *value = (const char *)from + f->offset;

		if (f->shape >= SHAPE_LIST) {
			copy_items(f, to_value, a);
		} else if (f->shape == SHAPE_PTR && f->kind == KIND_MESSAGE) {
			const void *p = *(void *const *)value;

			*(void **)to_value = p ? model_copy(f->type, p, a) : NULL;
		} else {
			copy_value(f, to_value, value, a);
		}
	}
}

void *model_copy(const struct type *t, const void *obj, struct arena *a)
{
	void *copy = arena_memdup(a, obj, t->size);

	copy_members(t, copy, obj, a);
	return copy;
}

/* ---- equal ---- */

static bool items_equal(const struct field *f, const struct any_list *a, const struct any_list *b);

static bool ios_equal(const struct int_or_str *a, const struct int_or_str *b, bool zero_is_none)
{
	if (a->kind != b->kind) {
		const struct int_or_str *there = a->kind == IOS_NONE ? b : a;

		return zero_is_none && (a->kind == IOS_NONE || b->kind == IOS_NONE) &&
			there->kind == IOS_INT && !there->num;
	}
	return a->kind == IOS_STR ? str_eq(a->text, b->text)
				  : a->kind == IOS_NONE || a->num == b->num;
}

static bool quantity_is_zero(const struct str *s)
{
	return !s->len || (s->len == 1 && s->p[0] == '0');
}

static bool value_equal_by(const struct field *f, const void *a, const void *b)
{
	switch (f->kind) {
	case KIND_BOOL:
		return *(const bool *)a == *(const bool *)b;
	case KIND_INT32:
		return *(const int32_t *)a == *(const int32_t *)b;
	case KIND_INT64:
	case KIND_DURATION:
		return *(const int64_t *)a == *(const int64_t *)b;
	case KIND_DOUBLE:
		return *(const double *)a == *(const double *)b;
	case KIND_TIME:
	case KIND_MICROTIME:
		return !time_cmp(*(const struct timestamp *)a, *(const struct timestamp *)b);
	case KIND_INT_OR_STRING:
		return ios_equal(a, b, true);
	case KIND_MESSAGE:
		return model_equal(f->type, a, b);
	case KIND_QUANTITY: /* by value, none is "0" */
		return str_eq(*(const struct str *)a, *(const struct str *)b) ||
			(quantity_is_zero(a) && quantity_is_zero(b));
	default:
		return str_eq(*(const struct str *)a, *(const struct str *)b);
	}
}

static bool pointer_equal(const struct field *f, const void *a, const void *b)
{
	switch (f->kind) {
	case KIND_BOOL: {
		const struct opt_bool *x = a, *y = b;
		return x->set == y->set && (!x->set || x->value == y->value);
	}
	case KIND_INT32: {
		const struct opt_int32 *x = a, *y = b;
		return x->set == y->set && (!x->set || x->value == y->value);
	}
	case KIND_INT64:
	case KIND_DURATION: {
		const struct opt_int64 *x = a, *y = b;
		return x->set == y->set && (!x->set || x->value == y->value);
	}
	case KIND_DOUBLE: {
		const struct opt_double *x = a, *y = b;
		return x->set == y->set && (!x->set || x->value == y->value);
	}
	case KIND_MESSAGE: {
		const void *x = *(void *const *)a, *y = *(void *const *)b;
		return x && y ? model_equal(f->type, x, y) : x == y;
	}
	case KIND_INT_OR_STRING:
		return ios_equal(a, b, false);
	case KIND_TIME:
	case KIND_MICROTIME:
		return value_equal_by(f, a, b);
	default: {
		const struct str *x = a, *y = b;
		return !x->p == !y->p && str_eq(*x, *y);
	}
	}
}

static bool texts_equal(const struct str_list *a, const struct str_list *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i], b->items[i]))
			return false;
	return true;
}

static bool items_equal(const struct field *f, const struct any_list *a, const struct any_list *b)
{
	size_t size = model_item_size(f);
	size_t at = f->shape == SHAPE_LIST ? 0 : MAP_VALUE_OFFSET;

	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++) {
		const char *x = a->items + i * size, *y = b->items + i * size;

		if (at && !str_eq(*(const struct str *)x, *(const struct str *)y))
			return false;
		if (f->shape == SHAPE_MAP_LIST
				? !texts_equal((const void *)(x + at), (const void *)(y + at))
				: !value_equal_by(f, x + at, y + at))
			return false;
	}
	return true;
}

bool model_field_equal(const struct field *f, const void *a, const void *b)
{
	if (f->shape == SHAPE_ONE)
		return value_equal_by(f, a, b);
	return f->shape == SHAPE_PTR ? pointer_equal(f, a, b) : items_equal(f, a, b);
}

bool model_equal(const struct type *t, const void *a, const void *b)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];

		if (!model_field_equal(f, (const char *)a + f->offset, (const char *)b + f->offset))
			return false;
	}
	return true;
}

/* ---- zero ---- */

bool model_field_is_zero(const struct field *f, const void *value)
{
	if (f->shape >= SHAPE_LIST)
		return !((const struct any_list *)value)->items;
	if (f->kind == KIND_MESSAGE)
		return f->shape == SHAPE_PTR ? !*(void *const *)value
					     : model_is_zero(f->type, value);
	if (kind_is_text(f->kind)) {
		const struct str *s = value;

		return f->shape == SHAPE_PTR || f->kind == KIND_BYTES ? !s->p : !s->len;
	}
	static const char zeros[32];

	if (f->kind == KIND_TIME || f->kind == KIND_MICROTIME)
		return time_is_zero(*(const struct timestamp *)value);
	if (f->kind == KIND_INT_OR_STRING)
		return ((const struct int_or_str *)value)->kind == IOS_NONE;
	if (f->shape == SHAPE_PTR)
		return !*(const bool *)value; /* .set comes first in all of them */
	return !memcmp(value, zeros, model_kind_size(f->kind, NULL));
}

bool model_is_zero(const struct type *t, const void *obj)
{
	for (size_t i = 0; i < t->n_fields; i++)
		if (!model_field_is_zero(&t->fields[i], (const char *)obj + t->fields[i].offset))
			return false;
	return true;
}
