/* The rules that the schema states: required, enums, bounds, formats, unique list keys, immutability. What is below `status` of
 * an object is not checked: components write it, and upstream takes it as it comes. Errors are worded as upstream's
 * field errors. */
#include <stdio.h>

#include "base/map.h"
#include "model/internal.h"

/* Where the walk is; lives on the C stack, made text only for a cause. */
struct place {
	const struct place *up;
	const char *name; /* NULL: an index or a key */
	struct str key;   /* p NULL: an index */
	size_t index;
};

struct check {
	struct causes *causes;
	struct str root;
};

static void write_place(const struct place *p, struct buf *out)
{
	if (!p)
		return;
	write_place(p->up, out);
	if (p->name)
		buf_addf(out, "%s%s", out->len ? "." : "", p->name);
	else if (p->key.p)
		buf_addf(out, "[" STR_FMT "]", STR_ARG(p->key));
	else
		buf_addf(out, "[%zu]", p->index);
}

static struct str path_text(struct check *c, const struct place *p)
{
	struct buf b = { 0 };

	buf_add_str(&b, c->root);
	write_place(p, &b);
	struct str s = arena_str(c->causes->arena, buf_str(&b));

	buf_deinit(&b);
	return s;
}

/* ---- texts ---- */

static const char *valid_subdomain_caseless(struct str s)
{
	char lower[254];

	if (s.len >= sizeof(lower))
		return "must be no more than 253 bytes";
	for (size_t i = 0; i < s.len; i++)
		lower[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] + 32) : s.p[i];
	return valid_dns_subdomain(str_n(lower, s.len));
}

static const char *valid_uuid(struct str s)
{
	bool good = s.len == 36;

	for (size_t i = 0; good && i < s.len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		char c = s.p[i];

		good = dash ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
	}
	return good
		? NULL
		: "uuid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
}

static const char *valid_pool_name(struct str s)
{
	struct str part;
	bool more = s.len > 0;

	if (s.len > 253)
		return "must be no more than 253 bytes";
	while (more) {
		more = str_cut(s, '/', &part, &s);
		const char *bad = valid_dns_subdomain(part);

		if (bad)
			return bad;
	}
	return NULL;
}

static const struct {
	const char *name;
	const char *(*valid)(struct str s);
} formats[] = {
	{ "dns-label", valid_dns_label },
	{ "dns-label-1035", valid_dns_label_1035 },
	{ "dns-subdomain", valid_dns_subdomain },
	{ "dns-subdomain-caseless", valid_subdomain_caseless },
	{ "label-key", valid_label_key },
	{ "label-value", valid_label_value },
	{ "uuid", valid_uuid },
	{ "resource-pool-name", valid_pool_name },
	{ "resource-qualified-name", valid_label_key },
	{ "extended-resource-name", valid_label_key },
};

static void check_format(struct check *c, const char *format, struct str s, const struct place *p)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		if (strcmp(format, formats[i].name))
			continue;
		const char *bad = formats[i].valid(s);

		if (bad)
			cause_add(c->causes, CAUSE_INVALID, path_text(c, p), s, "%s", bad);
	}
}

static void check_enum(
	struct check *c, const char *const *values, struct str s, const struct place *p)
{
	struct buf all = { 0 };

	for (size_t i = 0; values[i]; i++)
		if (str_eqz(s, values[i]))
			return;
	for (size_t i = 0; values[i]; i++)
		buf_addf(&all, "%s\"%s\"", i ? ", " : "", values[i]);
	cause_add(
		c->causes, CAUSE_NOT_SUPPORTED, path_text(c, p), s, "supported values: %s", all.p);
	buf_deinit(&all);
}

static void check_text(struct check *c, const struct field *f, struct str s, const struct place *p)
{
	const struct field_rule *rule = f->rule;

	if (!rule || f->kind != KIND_STRING || !s.len)
		return;
	if (rule->values)
		check_enum(c, rule->values, s, p);
	if (rule->format)
		check_format(c, rule->format, s, p);
	if (f->shape < SHAPE_LIST && rule->has_max && s.len > (size_t)rule->max)
		cause_add(c->causes, CAUSE_TOO_LONG, path_text(c, p), STR_NONE,
			"may not be more than %lld bytes", (long long)rule->max);
}

/* ---- numbers ---- */

static void check_number(struct check *c, const struct field *f, int64_t v, const struct place *p)
{
	const struct field_rule *r = f->rule;

	if (!r || (!(r->has_min && v < r->min) && !(r->has_max && v > r->max)))
		return;
	if (r->has_min && r->has_max)
		cause_add(c->causes, CAUSE_INVALID, path_text(c, p), STR_NONE,
			"%lld: must be between %lld and %lld, inclusive", (long long)v,
			(long long)r->min, (long long)r->max);
	else
		cause_add(c->causes, CAUSE_INVALID, path_text(c, p), STR_NONE,
			"%lld: must be %s than or equal to %lld", (long long)v,
			r->has_min ? "greater" : "less", (long long)(r->has_min ? r->min : r->max));
}

static bool number_of(const struct field *f, const void *v, int64_t *ret)
{
	bool pointer = f->shape == SHAPE_PTR;

	if (f->kind == KIND_INT32) {
		*ret = pointer ? ((const struct opt_int32 *)v)->value : *(const int32_t *)v;
		return pointer ? ((const struct opt_int32 *)v)->set
			       : *ret || f->flags & FIELD_REQUIRED;
	}
	if (f->kind == KIND_INT64) {
		*ret = pointer ? ((const struct opt_int64 *)v)->value : *(const int64_t *)v;
		return pointer ? ((const struct opt_int64 *)v)->set
			       : *ret || f->flags & FIELD_REQUIRED;
	}
	return false;
}

/* ---- lists ---- */

static const void *key_member(
	const struct field *f, const char *item, const char *name, const struct field **ret)
{
	const struct flat_field *m = model_flat_field(f->type, str_of(name));

	*ret = m->field;
	return item + m->offset;
}

static bool same_keys(const struct field *f, const char *a, const char *b)
{
	for (const char *const *k = f->list_keys; *k; k++) {
		const struct field *m;
		const void *x = key_member(f, a, *k, &m), *y = key_member(f, b, *k, &m);

		if (!model_field_equal(m, x, y))
			return false;
	}
	return true;
}

static void tell_duplicate(
	struct check *c, const struct field *f, const char *item, const struct place *p)
{
	struct place inner = { .up = p, .name = f->list_keys[0] };
	struct buf keys = { 0 };
	const struct field *m;
	int64_t n;
	const void *v = key_member(f, item, f->list_keys[0], &m);

	if (!f->list_keys[1] && m->kind == KIND_STRING) {
		cause_add(c->causes, CAUSE_DUPLICATE, path_text(c, &inner), *(const struct str *)v,
			NULL);
		return;
	}
	for (const char *const *k = f->list_keys; *k; k++) {
		v = key_member(f, item, *k, &m);
		buf_addf(&keys, "%s\"%s\":", k == f->list_keys ? "{" : ",", *k);
		if (m->kind == KIND_STRING)
			buf_addf(&keys, "\"" STR_FMT "\"", STR_ARG(*(const struct str *)v));
		else
			buf_addf(&keys, "%lld", number_of(m, v, &n) ? (long long)n : 0);
	}
	cause_add(c->causes, CAUSE_DUPLICATE, path_text(c, p), STR_NONE, "%s}", keys.p);
	buf_deinit(&keys);
}

struct hashed {
	uint64_t hash;
	size_t index;
};

static uint64_t hash_keys(const struct field *f, const char *item)
{
	uint64_t h = 0;

	for (const char *const *k = f->list_keys; *k; k++) {
		const struct field *m;
		const void *v = key_member(f, item, *k, &m);
		int64_t n = 0;

		if (m->kind == KIND_STRING)
			h = hash_bytes(((const struct str *)v)->p, ((const struct str *)v)->len, h);
		else if (number_of(m, v, &n))
			h = hash_bytes(&n, sizeof(n), h);
	}
	return h;
}

static int by_hash(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static int by_index(const void *a, const void *b)
{
	const size_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

#define DUPLICATES_TOLD 100

static void check_unique(
	struct check *c, const struct field *f, const struct any_list *l, const struct place *up)
{
	size_t size = f->kind == KIND_MESSAGE ? f->type->size : 0, n = 0;

	if (!(f->flags & FIELD_LIST_MAP) || f->flags & FIELD_LIST_DUPLICATES || l->len < 2)
		return;
	struct hashed *order = xmalloc(l->len * sizeof(*order));
	size_t again[DUPLICATES_TOLD];

	for (size_t i = 0; i < l->len; i++)
		order[i] = (struct hashed){ hash_keys(f, l->items + i * size), i };
	qsort(order, l->len, sizeof(*order), by_hash);
	for (size_t i = 1; i < l->len && n < DUPLICATES_TOLD; i++)
		if (order[i].hash == order[i - 1].hash &&
			same_keys(f, l->items + order[i].index * size,
				l->items + order[i - 1].index * size))
			again[n++] = order[i].index;
	qsort(again, n, sizeof(*again), by_index);
	for (size_t i = 0; i < n; i++) {
		struct place p = { .up = up, .index = again[i] };

		tell_duplicate(c, f, l->items + again[i] * size, &p);
	}
	free(order);
}

static void check_message(
	struct check *c, const struct type *t, const char *obj, const struct place *up);

static void check_items(
	struct check *c, const struct field *f, const struct any_list *l, const struct place *up)
{
	size_t size = model_item_size(f), at = f->shape == SHAPE_LIST ? 0 : MAP_VALUE_OFFSET;
	struct place p = { .up = up };

	if (f->rule && f->rule->has_max && l->len > (size_t)f->rule->max)
		cause_add(c->causes, CAUSE_TOO_MANY, path_text(c, up), STR_NONE,
			"%zu: must have at most %lld items", l->len, (long long)f->rule->max);
	for (size_t i = 0; f->shape != SHAPE_MAP_LIST && i < l->len; i++) {
		const char *item = l->items + i * size;

		p.index = i;
		if (at)
			p.key = *(const struct str *)item;
		if (f->kind == KIND_MESSAGE)
			check_message(c, f->type, item + at, &p);
		else if (f->kind == KIND_STRING)
			check_text(c, f, *(const struct str *)(item + at), &p);
	}
	check_unique(c, f, l, up);
}

/* ---- members ---- */

/* Whether a required member is missing. By value only texts can be told to be. */
static bool is_missing(const struct field *f, const void *v)
{
	if (!(f->flags & FIELD_REQUIRED) || f->flags & FIELD_REQUIRED_UNCHECKED)
		return false;
	if (f->shape >= SHAPE_LIST)
		return !((const struct any_list *)v)->len;
	if (f->shape == SHAPE_PTR)
		return model_field_is_zero(f, v);
	return (f->kind == KIND_STRING || f->kind == KIND_BYTES) && !((const struct str *)v)->len;
}

static void check_member(
	struct check *c, const struct field *f, const char *v, const struct place *p)
{
	int64_t n;

	if (is_missing(f, v))
		cause_add(c->causes, CAUSE_REQUIRED, path_text(c, p), STR_NONE, NULL);
	else if (f->shape >= SHAPE_LIST)
		check_items(c, f, (const struct any_list *)v, p);
	else if (f->kind == KIND_MESSAGE && f->shape == SHAPE_ONE)
		check_message(c, f->type, v, p);
	else if (f->kind == KIND_MESSAGE && *(void *const *)v)
		check_message(c, f->type, *(void *const *)v, p);
	else if (f->kind == KIND_STRING)
		check_text(c, f, *(const struct str *)v, p);
	else if (number_of(f, v, &n))
		check_number(c, f, n, p);
}

static bool is_status(const struct type *t, const struct field *f)
{
	return t->is_object && !strcmp(f->name, "status");
}

static void check_message(
	struct check *c, const struct type *t, const char *obj, const struct place *up)
{
	for (size_t i = 0; i < t->n_flat; i++) {
		const struct field *f = t->flat[i].field;
		struct place p = { .up = up, .name = f->name };

		if (!is_status(t, f))
			check_member(c, f, obj + t->flat[i].offset, &p);
	}
}

void model_validate(const struct type *t, const void *obj, struct str path, struct causes *ret)
{
	struct check c = { .causes = ret, .root = path };

	check_message(&c, t, obj, NULL);
}

/* ---- update ---- */

static void tell_immutable(
	struct check *c, const struct field *f, const void *v, const struct place *p)
{
	bool text = kind_is_text(f->kind) && f->shape <= SHAPE_PTR && f->kind != KIND_BYTES &&
		((const struct str *)v)->len < 200;
	int64_t n;

	if (text)
		cause_add(c->causes, CAUSE_INVALID, path_text(c, p),
			((const struct str *)v)->p ? *(const struct str *)v : STR(""),
			"field is immutable");
	else if (f->shape <= SHAPE_PTR && number_of(f, v, &n))
		cause_add(c->causes, CAUSE_INVALID, path_text(c, p), STR_NONE,
			"%lld: field is immutable", (long long)n);
	else
		cause_add(
			c->causes, CAUSE_INVALID, path_text(c, p), STR_NONE, "field is immutable");
}

static void check_update(struct check *c, const struct type *t, const char *obj, const char *old,
	const struct place *up)
{
	for (size_t i = 0; i < t->n_flat; i++) {
		const struct field *f = t->flat[i].field;
		struct place p = { .up = up, .name = f->name };
		const char *v = obj + t->flat[i].offset, *w = old + t->flat[i].offset;

		if (is_status(t, f))
			continue;
		if (f->flags & FIELD_IMMUTABLE) {
			if (!model_field_equal(f, v, w))
				tell_immutable(c, f, v, &p);
		} else if (f->kind == KIND_MESSAGE && f->shape == SHAPE_ONE) {
			check_update(c, f->type, v, w, &p);
		} else if (f->kind == KIND_MESSAGE && f->shape == SHAPE_PTR && *(void *const *)v &&
			*(void *const *)w) {
			check_update(
				c, f->type, *(const char *const *)v, *(const char *const *)w, &p);
		}
	}
}

void model_validate_update(
	const struct type *t, const void *obj, const void *old, struct str path, struct causes *ret)
{
	struct check c = { .causes = ret, .root = path };

	check_update(&c, t, obj, old, NULL);
}
