/* Strategic merge patch: a merge patch that knows from the rows of a type which lists merge by key. Directives:
 *   $patch: replace | delete | merge    in an object, or in an item of a list that merges by key
 *   $retainKeys: [k, …]                 members of the original that may stay
 *   $deleteFromPrimitiveList/F: [v, …]  values to take out of list F
 *   $setElementOrder/F: [v or {key}, …] the order of list F; what is not named keeps its place among the others
 * Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
 * The patch is taken over into the document, so it must not be used afterwards without a copy; patch_strategic makes one. */
#include "model/internal.h"

#define DIRECTIVE "$patch"
#define RETAIN_KEYS "$retainKeys"
#define DELETE_FROM "$deleteFromPrimitiveList/"
#define SET_ORDER "$setElementOrder/"
#define ITEMS_MAX 10000 /* merging compares items with each other */

struct merger {
	struct arena *arena;
	struct err *err;
};

static int merge_object(
	struct merger *m, const struct type *t, struct value *doc, struct value *patch);

static bool is_directive(struct str key)
{
	return key.len && key.p[0] == '$' &&
		(str_eqz(key, DIRECTIVE) || str_eqz(key, RETAIN_KEYS) ||
			str_has_prefix(key, STR(DELETE_FROM)) ||
			str_has_prefix(key, STR(SET_ORDER)));
}

/* Takes nulls and directives out of what becomes part of the document as it is. */
static void clean(struct value *v)
{
	size_t kept = 0;

	if (v->kind == VALUE_OBJECT) {
		for (size_t i = 0; i < v->object.len; i++) {
			struct value_member *m = &v->object.members[i];

			if (m->value.kind == VALUE_NULL || is_directive(m->key))
				continue;
			clean(&m->value);
			v->object.members[kept++] = *m;
		}
		v->object.len = kept;
	} else if (v->kind == VALUE_LIST) {
		for (size_t i = 0; i < v->list.len; i++) {
			struct value *item = &v->list.items[i];

			if (value_get(item, STR(DIRECTIVE)))
				continue;
			clean(item);
			v->list.items[kept++] = *item;
		}
		v->list.len = kept;
	}
}

/* ---- items of lists ---- */

/* What names an item: its key's value, or the scalar itself. */
static const struct value *identity(const struct value *item, const char *key)
{
	return key ? value_get(item, str_of(key)) : item;
}

static ssize_t find_item(const struct value *list, const struct value *id, const char *key)
{
	for (size_t i = 0; i < list->list.len; i++) {
		const struct value *other = identity(&list->list.items[i], key);

		if (other && value_equal(other, id))
			return (ssize_t)i;
	}
	return -1;
}

static void remove_item(struct value *list, size_t i)
{
	list->list.len--;
	memmove(&list->list.items[i], &list->list.items[i + 1],
		(list->list.len - i) * sizeof(struct value));
}

static int check_key(struct merger *m, const struct value *item, const char *key)
{
	if (item->kind == VALUE_OBJECT && value_get(item, str_of(key)))
		return 0;
	return err_set(m->err, -EINVAL,
		"map: an item of the patch does not contain declared merge key: %s", key);
}

/* Items with $patch: deletes are done, `replace` is told; they leave the patch. */
static int special_items(struct merger *m, const char *key, struct value *doc, struct value *patch,
	bool *ret_replace)
{
	size_t kept = 0;

	for (size_t i = 0; i < patch->list.len; i++) {
		struct value *item = &patch->list.items[i];
		const struct value *directive = value_get(item, STR(DIRECTIVE));

		if (!directive) {
			patch->list.items[kept++] = *item;
		} else if (directive->kind == VALUE_TEXT && str_eqz(directive->text, "replace")) {
			*ret_replace = true;
		} else if (directive->kind == VALUE_TEXT && str_eqz(directive->text, "delete")) {
			int r = check_key(m, item, key);

			if (r < 0)
				return r;
			for (ssize_t at; (at = find_item(doc, identity(item, key), key)) >= 0;)
				remove_item(doc, (size_t)at);
		} else if (directive->kind == VALUE_TEXT && str_eqz(directive->text, "merge")) {
			value_remove(item, STR(DIRECTIVE));
			patch->list.items[kept++] = *item;
		} else {
			return err_set(m->err, -EINVAL,
				"unknown patch type in a list that merges by %s", key);
		}
	}
	patch->list.len = kept;
	return 0;
}

static int merge_keyed(struct merger *m, const struct type *item_type, const char *key,
	struct value *doc, struct value *patch)
{
	bool replace = false;
	int r = special_items(m, key, doc, patch, &replace);

	if (r < 0)
		return r;
	if (replace) {
		clean(patch);
		*doc = *patch;
		return 0;
	}
	for (size_t i = 0; i < patch->list.len; i++) {
		struct value *item = &patch->list.items[i];

		r = check_key(m, item, key);
		if (r < 0)
			return r;
		ssize_t at = find_item(doc, identity(item, key), key);

		if (at >= 0) {
			struct value copy = value_copy(
				m->arena, item); /* the order below still asks the patch's keys */

			r = merge_object(m, item_type, &doc->list.items[at], &copy);
			if (r < 0)
				return r;
		} else {
			struct value copy = value_copy(m->arena, item);

			clean(&copy);
			*value_append(m->arena, doc) = copy;
		}
	}
	return 0;
}

static void merge_scalars(struct merger *m, struct value *doc, const struct value *patch)
{
	for (size_t i = 0; i < patch->list.len; i++)
		if (find_item(doc, &patch->list.items[i], NULL) < 0)
			*value_append(m->arena, doc) = patch->list.items[i];
}

/* Puts the items of `doc` in order: those that `order` names in its order; between them the others, each before the first
 * named one that stood behind it in `was`. */
static void put_in_order(struct merger *m, struct value *doc, const struct value *order,
	const struct value *was, const char *key)
{
	struct value named = { .kind = VALUE_LIST }, others = { .kind = VALUE_LIST },
		     out = { .kind = VALUE_LIST };
	size_t i = 0, j = 0;

	for (size_t k = 0; k < order->list.len; k++) {
		const struct value *id = identity(&order->list.items[k], key);
		ssize_t at = id ? find_item(doc, id, key) : -1;

		if (at >= 0 && find_item(&named, id, key) < 0)
			*value_append(m->arena, &named) = doc->list.items[at];
	}
	for (size_t pass = 0; pass < 2;
		pass++) { /* those that stood there, in that order; then the rest */
		const struct value *from = pass ? doc : was;

		for (size_t k = 0; k < from->list.len; k++) {
			const struct value *id = identity(&from->list.items[k], key);
			ssize_t at = id ? find_item(doc, id, key) : -1;

			if (at >= 0 && find_item(&named, id, key) < 0 &&
				find_item(&others, id, key) < 0)
				*value_append(m->arena, &others) = doc->list.items[at];
		}
	}
	while (i < others.list.len || j < named.list.len) {
		bool other_first = j == named.list.len;

		if (i < others.list.len && !other_first) {
			ssize_t x = find_item(was, identity(&others.list.items[i], key), key),
				y = find_item(was, identity(&named.list.items[j], key), key);

			other_first = x >= 0 && y >= 0 && x < y;
		}
		*value_append(m->arena, &out) =
			other_first ? others.list.items[i++] : named.list.items[j++];
	}
	*doc = out;
}

/* The patch's items must all be named by the order, and stand in its order. */
static int check_order(struct merger *m, struct str name, const struct value *patch,
	const struct value *order, const char *key)
{
	ssize_t last = -1;

	for (size_t i = 0; patch && patch->kind == VALUE_LIST && i < patch->list.len; i++) {
		const struct value *item = &patch->list.items[i], *id = identity(item, key);

		if (!id || value_get(item, STR(DIRECTIVE)))
			continue;
		ssize_t at = find_item(order, id, key);

		if (at <= last)
			return err_set(m->err, -EINVAL,
				"The order in patch list:\n" STR_FMT
				"\n doesn't match $setElementOrder list:\n" STR_FMT "\n",
				STR_ARG(name), STR_ARG(name));
		last = at;
	}
	return 0;
}

static bool merges(const struct field *f)
{
	return f && f->shape == SHAPE_LIST && f->flags & FIELD_PATCH_MERGE;
}

/* A list that merges. order: from $setElementOrder, NULL: the patch's own. */
static int merge_list(struct merger *m, const struct field *f, struct value *doc,
	struct value *patch, const struct value *order)
{
	struct value was, own;
	int r;

	if (doc->list.len > ITEMS_MAX || patch->list.len > ITEMS_MAX)
		return err_set(m->err, -E2BIG,
			"%s: a list of more than %d items cannot be merged; replace it instead",
			f->name, ITEMS_MAX);
	r = order ? check_order(m, str_of(f->name), patch, order, f->merge_key) : 0;
	if (r < 0)
		return r;
	was = value_copy(m->arena, doc);
	own = value_copy(m->arena, patch);
	if (f->merge_key)
		r = merge_keyed(m, f->type, f->merge_key, doc, patch);
	else
		merge_scalars(m, doc, patch);
	if (r < 0)
		return r;
	put_in_order(m, doc, order ? order : &own, &was, f->merge_key);
	return 0;
}

/* ---- members ---- */

static const struct field *row_of(const struct type *t, struct str name)
{
	return t ? model_field(t, name) : NULL;
}

static void retain_keys(struct value *doc, const struct value *keys)
{
	size_t kept = 0;

	for (size_t i = 0; i < doc->object.len; i++) {
		struct value name = { .kind = VALUE_TEXT, .text = doc->object.members[i].key };

		if (find_item(keys, &name, NULL) >= 0)
			doc->object.members[kept++] = doc->object.members[i];
	}
	doc->object.len = kept;
}

static void delete_from(struct value *doc, struct str name, const struct value *values)
{
	struct value *list = value_get(doc, name);

	for (size_t i = 0; list && list->kind == VALUE_LIST && values->kind == VALUE_LIST &&
		i < values->list.len;
		i++)
		for (ssize_t at; (at = find_item(list, &values->list.items[i], NULL)) >= 0;)
			remove_item(list, (size_t)at);
}

static int merge_member(struct merger *m, const struct type *t, struct str name, struct value *doc,
	struct value *patch, const struct value *order)
{
	const struct field *f = row_of(t, name);
	struct value *to = value_get(doc, name);

	if (patch->kind == VALUE_NULL) {
		value_remove(doc, name);
		return 0;
	}
	bool list_merges = merges(f) && patch->kind == VALUE_LIST;

	if (list_merges &&
		(!to ||
			to->kind !=
				VALUE_LIST)) { /* merged into nothing, so that directives do their work */
		to = value_set(m->arena, doc, name);
		*to = (struct value){ .kind = VALUE_LIST };
	}
	if (list_merges)
		return merge_list(m, f, to, patch, order);
	if (to && to->kind == VALUE_OBJECT && patch->kind == VALUE_OBJECT &&
		!(f && f->flags & FIELD_PATCH_REPLACE))
		return merge_object(m,
			f && f->kind == KIND_MESSAGE && f->shape <= SHAPE_PTR ? f->type : NULL, to,
			patch);
	clean(patch);
	*value_set(m->arena, doc, name) = *patch;
	return 0;
}

/* Members of a map of messages are messages; merge_object is told by a NULL type that there are no rows. */
static int merge_map(
	struct merger *m, const struct type *value_type, struct value *doc, struct value *patch)
{
	for (size_t i = 0; i < patch->object.len; i++) {
		struct value_member *p = &patch->object.members[i];
		struct value *to = value_get(doc, p->key);
		int r = 0;

		if (p->value.kind == VALUE_NULL) {
			value_remove(doc, p->key);
		} else if (to && to->kind == VALUE_OBJECT && p->value.kind == VALUE_OBJECT) {
			r = merge_object(m, value_type, to, &p->value);
		} else if (!is_directive(p->key)) {
			clean(&p->value);
			*value_set(m->arena, doc, p->key) = p->value;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* What `$setElementOrder/NAME` says, NULL: nothing. */
static const struct value *order_of(const struct value *patch, struct str name)
{
	for (size_t i = 0; i < patch->object.len; i++) {
		const struct value_member *p = &patch->object.members[i];

		if (str_has_prefix(p->key, STR(SET_ORDER)) &&
			str_eq(str_from(p->key, sizeof(SET_ORDER) - 1), name))
			return p->value.kind == VALUE_LIST ? &p->value : NULL;
	}
	return NULL;
}

/* An order without a list of that name in the patch: only puts in order what is there. */
static void order_only(struct merger *m, const struct type *t, struct str name,
	const struct value *order, struct value *doc, const struct value *patch)
{
	const struct field *f = row_of(t, name);
	struct value *list = value_get(doc, name);

	if (value_get(patch, name) || !merges(f) || !list || list->kind != VALUE_LIST ||
		order->kind != VALUE_LIST)
		return;
	struct value was = value_copy(m->arena, list);

	put_in_order(m, list, order, &was, f->merge_key);
}

static void directives(
	struct merger *m, const struct type *t, struct value *doc, const struct value *patch)
{
	for (size_t i = 0; i < patch->object.len; i++) {
		struct str key = patch->object.members[i].key;
		const struct value *v = &patch->object.members[i].value;

		if (str_eqz(key, RETAIN_KEYS) && v->kind == VALUE_LIST)
			retain_keys(doc, v);
		else if (str_has_prefix(key, STR(DELETE_FROM)))
			delete_from(doc, str_from(key, sizeof(DELETE_FROM) - 1), v);
		else if (str_has_prefix(key, STR(SET_ORDER)))
			order_only(m, t, str_from(key, sizeof(SET_ORDER) - 1), v, doc, patch);
	}
}

static int merge_object(
	struct merger *m, const struct type *t, struct value *doc, struct value *patch)
{
	const struct value *directive = value_get(patch, STR(DIRECTIVE));

	if (directive) {
		bool text = directive->kind == VALUE_TEXT;

		if (text && str_eqz(directive->text, "replace")) {
			clean(patch);
			*doc = *patch;
			return 0;
		}
		if (text && str_eqz(directive->text, "delete")) {
			*doc = (struct value){ .kind = VALUE_OBJECT };
			return 0;
		}
		if (!text || !str_eqz(directive->text, "merge"))
			return err_set(m->err, -EINVAL, "unknown patch type: " STR_FMT,
				STR_ARG(text ? directive->text : STR("not a text")));
		value_remove(patch, STR(DIRECTIVE));
	}
	int r = 0;

	directives(m, t, doc, patch);
	for (size_t i = 0; r >= 0 && i < patch->object.len; i++) {
		struct value_member *p = &patch->object.members[i];
		const struct field *f = row_of(t, p->key);
		struct value *to = value_get(doc, p->key);

		if (is_directive(p->key))
			continue;
		if (f && f->shape == SHAPE_MAP && to && to->kind == VALUE_OBJECT &&
			p->value.kind == VALUE_OBJECT && !value_get(&p->value, STR(DIRECTIVE)))
			r = merge_map(m, f->kind == KIND_MESSAGE ? f->type : NULL, to, &p->value);
		else
			r = merge_member(m, t, p->key, doc, &p->value, order_of(patch, p->key));
	}
	return r;
}

int patch_strategic(const struct type *t, struct value *doc, const struct value *patch,
	struct arena *a, struct err *err)
{
	struct merger m = { .arena = a, .err = err };
	struct value copy = value_copy(a, patch);

	if (doc->kind != VALUE_OBJECT || patch->kind != VALUE_OBJECT)
		return err_set(err, -EINVAL,
			"a strategic merge patch and what it patches must be JSON objects");
	return merge_object(&m, t, doc, &copy);
}
