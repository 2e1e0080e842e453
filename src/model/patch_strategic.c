/* Strategic merge patch: a merge patch that knows, by the rows of the type, which lists are merged and by which key.
 * Source: https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
 *
 *   $patch: replace | delete | merge     of an object, or of an item of a merged list
 *   $deleteFromPrimitiveList/FIELD       values taken out of a list of scalars
 *   $setElementOrder/FIELD               the order of a merged list afterwards
 *   $retainKeys                          members of an object that stay; all others go */
#include "model/model.h"

#define DIRECTIVE STR("$patch")
#define DELETE_FROM STR("$deleteFromPrimitiveList/")
#define SET_ORDER STR("$setElementOrder/")
#define RETAIN_KEYS STR("$retainKeys")

struct context {
	struct arena *a;
	struct err *err;
};

static int merge_object(struct context *c, const struct type *t, struct value *doc, const struct value *patch);

static struct str directive_of(const struct value *v)
{
	const struct value *d = value_get(v, DIRECTIVE);

	return d && d->kind == VALUE_TEXT ? d->text : STR_NONE;
}

static bool is_directive(struct str key)
{
	return str_eq(key, DIRECTIVE) || str_eq(key, RETAIN_KEYS) || str_has_prefix(key, DELETE_FROM) || str_has_prefix(key, SET_ORDER);
}

/* What a patch puts where nothing was: without nulls and directives; items that only delete are left out. */
static struct value fresh(struct context *c, const struct value *patch)
{
	struct value v = { .kind = patch->kind };

	if (patch->kind == VALUE_OBJECT) {
		for (size_t i = 0; i < patch->object.len; i++) {
			const struct value_member *m = &patch->object.members[i];

			if (!is_directive(m->key) && m->value.kind != VALUE_NULL)
				*value_set(c->a, &v, m->key) = fresh(c, &m->value);
		}
		return v;
	}
	if (patch->kind == VALUE_LIST) {
		for (size_t i = 0; i < patch->list.len; i++) {
			const struct value *item = &patch->list.items[i];
			struct str d = directive_of(item);

			if (!d.p || str_eqz(d, "merge"))
				*value_append(c->a, &v) = fresh(c, item);
		}
		return v;
	}
	return value_copy(c->a, patch);
}

/* ---- lists ---- */

static ssize_t find_scalar(const struct value *list, const struct value *v)
{
	for (size_t i = 0; i < list->list.len; i++)
		if (value_equal(&list->list.items[i], v))
			return (ssize_t)i;
	return -1;
}

static ssize_t find_key(const struct value *list, struct str key, const struct value *want)
{
	for (size_t i = 0; want && i < list->list.len; i++) {
		const struct value *have = value_get(&list->list.items[i], key);

		if (have && value_equal(have, want))
			return (ssize_t)i;
	}
	return -1;
}

static void remove_item(struct value *list, size_t i)
{
	list->list.len--;
	memmove(&list->list.items[i], &list->list.items[i + 1], (list->list.len - i) * sizeof(*list->list.items));
}

static void merge_scalars(struct context *c, struct value *doc, const struct value *patch)
{
	for (size_t i = 0; i < patch->list.len; i++)
		if (find_scalar(doc, &patch->list.items[i]) < 0)
			*value_append(c->a, doc) = value_copy(c->a, &patch->list.items[i]);
}

static int merge_item(struct context *c, const struct field *f, struct str key, struct value *doc, const struct value *item)
{
	const struct value *want = value_get(item, key);
	struct str d = directive_of(item);
	ssize_t at;

	if (item->kind != VALUE_OBJECT)
		return err_set(c->err, -EBADMSG, "items of \"%s\" are objects, the patch has another kind", f->name);
	if (!want)
		return err_set(c->err, -EBADMSG, "map: %s does not contain declared merge key: " STR_FMT, f->name, STR_ARG(key));
	if (str_eqz(d, "delete")) {
		while ((at = find_key(doc, key, want)) >= 0)
			remove_item(doc, (size_t)at);
		return 0;
	}
	at = find_key(doc, key, want);
	if (at < 0) {
		*value_append(c->a, doc) = fresh(c, item);
		return 0;
	}
	return merge_object(c, f->type, &doc->list.items[at], item);
}

static int merge_objects(struct context *c, const struct field *f, struct value *doc, const struct value *patch)
{
	struct str key = str_of(f->merge_key);

	for (size_t i = 0; i < patch->list.len; i++)
		if (str_eqz(directive_of(&patch->list.items[i]), "replace")) {
			struct value whole = { .kind = VALUE_LIST };

			for (size_t k = 0; k < patch->list.len; k++)
				if (!directive_of(&patch->list.items[k]).p)
					*value_append(c->a, &whole) = fresh(c, &patch->list.items[k]);
			*doc = whole;
			return 0;
		}
	for (size_t i = 0; i < patch->list.len; i++) {
		int r = merge_item(c, f, key, doc, &patch->list.items[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Where an item stands in an order; items are told apart by key, or by their whole when key is empty. */
static ssize_t place(const struct value *order, struct str key, const struct value *item)
{
	return key.p ? find_key(order, key, value_get(item, key)) : find_scalar(order, item);
}

/* Items named in `order` come in that order; the others keep their place among the items that stood here before. */
static void reorder(struct context *c, struct str key, struct value *doc, const struct value *before, const struct value *order)
{
	struct value named = { .kind = VALUE_LIST }, others = { .kind = VALUE_LIST }, out = { .kind = VALUE_LIST };
	size_t i = 0, j = 0;

	for (size_t k = 0; k < order->list.len; k++) {
		ssize_t at = place(doc, key, &order->list.items[k]);

		if (at >= 0)
			*value_append(c->a, &named) = doc->list.items[at];
	}
	for (size_t k = 0; k < doc->list.len; k++)
		if (place(order, key, &doc->list.items[k]) < 0)
			*value_append(c->a, &others) = doc->list.items[k];
	while (i < others.list.len || j < named.list.len) {
		bool other = j == named.list.len;

		if (i < others.list.len && j < named.list.len) {
			ssize_t a = place(before, key, &others.list.items[i]), b = place(before, key, &named.list.items[j]);

			other = a >= 0 && b >= 0 && a < b;
		}
		*value_append(c->a, &out) = other ? others.list.items[i++] : named.list.items[j++];
	}
	*doc = out;
}

static int merge_list(struct context *c, const struct field *f, struct value *doc, const struct value *patch)
{
	return f->merge_key ? merge_objects(c, f, doc, patch) : (merge_scalars(c, doc, patch), 0);
}

/* ---- objects ---- */

static void keep_only(struct value *doc, const struct value *keys)
{
	for (size_t i = doc->object.len; i-- > 0;) {
		struct value name = { .kind = VALUE_TEXT, .text = doc->object.members[i].key };

		if (find_scalar(keys, &name) < 0)
			value_remove(doc, doc->object.members[i].key);
	}
}

static bool merges(const struct field *f, enum value_kind kind)
{
	return f && f->shape == SHAPE_LIST && kind == VALUE_LIST && (f->flags & FIELD_PATCH_MERGE);
}

static int merge_member(struct context *c, const struct type *t, struct value *doc, const struct value_member *m)
{
	const struct field *f = t ? model_field(t, m->key) : NULL;
	struct value *have = value_get(doc, m->key);

	if (m->value.kind == VALUE_NULL) {
		value_remove(doc, m->key);
		return 0;
	}
	if (!have || have->kind != m->value.kind) {
		struct value v = fresh(c, &m->value);

		*value_set(c->a, doc, m->key) = v;
		return 0;
	}
	if (have->kind == VALUE_OBJECT)
		return merge_object(c, f && f->kind == KIND_MESSAGE ? f->type : NULL, have, &m->value);
	if (merges(f, have->kind))
		return merge_list(c, f, have, &m->value);
	*have = fresh(c, &m->value);
	return 0;
}

static void delete_scalars(struct value *doc, const struct value_member *m)
{
	struct value *list = value_get(doc, str_from(m->key, DELETE_FROM.len));
	ssize_t at;

	if (!list || list->kind != VALUE_LIST || m->value.kind != VALUE_LIST)
		return;
	for (size_t i = 0; i < m->value.list.len; i++)
		while ((at = find_scalar(list, &m->value.list.items[i])) >= 0)
			remove_item(list, (size_t)at);
}

static int set_order(struct context *c, const struct type *t, struct value *doc, const struct value *before, const struct value_member *m)
{
	struct str name = str_from(m->key, SET_ORDER.len);
	const struct field *f = t ? model_field(t, name) : NULL;
	struct value *list = value_get(doc, name);
	const struct value *was = value_get(before, name);
	static const struct value none = { .kind = VALUE_LIST };

	if (m->value.kind != VALUE_LIST)
		return err_set(c->err, -EBADMSG, "\"" STR_FMT "\" is a list", STR_ARG(m->key));
	if (!list || list->kind != VALUE_LIST || !merges(f, VALUE_LIST))
		return 0;
	reorder(c, f->merge_key ? str_of(f->merge_key) : STR_NONE, list, was && was->kind == VALUE_LIST ? was : &none, &m->value);
	return 0;
}

static bool has_order(const struct value *patch)
{
	for (size_t i = 0; i < patch->object.len; i++)
		if (str_has_prefix(patch->object.members[i].key, SET_ORDER))
			return true;
	return false;
}

static int merge_object(struct context *c, const struct type *t, struct value *doc, const struct value *patch)
{
	const struct value *retain = value_get(patch, RETAIN_KEYS);
	struct str d = directive_of(patch);
	struct value before = { .kind = VALUE_OBJECT };
	int r;

	if (str_eqz(d, "replace") || str_eqz(d, "delete")) {
		*doc = str_eqz(d, "replace") ? fresh(c, patch) : (struct value){ .kind = VALUE_OBJECT };
		return 0;
	}
	if (d.p && !str_eqz(d, "merge"))
		return err_set(c->err, -EBADMSG, "unknown patch type found: " STR_FMT, STR_ARG(d));
	if (has_order(patch))
		before = value_copy(c->a, doc);
	for (size_t i = 0; i < patch->object.len; i++)
		if (str_has_prefix(patch->object.members[i].key, DELETE_FROM))
			delete_scalars(doc, &patch->object.members[i]);
	for (size_t i = 0; i < patch->object.len; i++) {
		if (is_directive(patch->object.members[i].key))
			continue;
		r = merge_member(c, t, doc, &patch->object.members[i]);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < patch->object.len; i++) {
		if (!str_has_prefix(patch->object.members[i].key, SET_ORDER))
			continue;
		r = set_order(c, t, doc, &before, &patch->object.members[i]);
		if (r < 0)
			return r;
	}
	if (retain && retain->kind == VALUE_LIST)
		keep_only(doc, retain);
	return 0;
}

int patch_strategic(const struct type *t, struct value *doc, const struct value *patch, struct arena *a, struct err *err)
{
	struct context c = { a, err };

	if (patch->kind != VALUE_OBJECT || doc->kind != VALUE_OBJECT)
		return err_set(err, -EBADMSG, "a strategic merge patch is an object");
	return merge_object(&c, t, doc, patch);
}
