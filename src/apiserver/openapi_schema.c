/* Definitions: a type's rows as a JSON schema, with the x-kubernetes extensions that kubectl reads. */
#include "apiserver/openapi.h"

struct value *tree_object(struct arena *a, struct value *parent, const char *key)
{
	struct value *v = value_set(a, parent, str_of(key));
	*v = (struct value){ .kind = VALUE_OBJECT };
	return v;
}

struct value *tree_list(struct arena *a, struct value *parent, const char *key)
{
	struct value *v = value_set(a, parent, str_of(key));
	*v = (struct value){ .kind = VALUE_LIST };
	return v;
}

void tree_str(struct arena *a, struct value *parent, const char *key, struct str text)
{
	*value_set(a, parent, str_of(key)) = (struct value){ .kind = VALUE_TEXT, .text = text };
}

void tree_text(struct arena *a, struct value *parent, const char *key, const char *text)
{
	tree_str(a, parent, key, str_of(text));
}

void tree_bool(struct arena *a, struct value *parent, const char *key, bool b)
{
	*value_set(a, parent, str_of(key)) = (struct value){ .kind = VALUE_BOOL, .boolean = b };
}

struct value *tree_item_object(struct arena *a, struct value *list)
{
	struct value *v = value_append(a, list);
	*v = (struct value){ .kind = VALUE_OBJECT };
	return v;
}

void tree_item_text(struct arena *a, struct value *list, const char *text)
{
	*value_append(a, list) = (struct value){ .kind = VALUE_TEXT, .text = str_of(text) };
}

/* ---- sets of types ---- */

void type_set_add(struct type_set *s, const struct type *t)
{
	if (!t || map_get(&s->seen, str_of(t->proto)))
		return;
	map_set(&s->seen, str_of(t->proto), (void *)t);
	if (s->len == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->items = xrealloc(s->items, s->cap * sizeof(const struct type *));
	}
	s->items[s->len++] = t;
	for (size_t i = 0; i < t->n_fields; i++)
		if (t->fields[i].kind == KIND_MESSAGE)
			type_set_add(s, t->fields[i].type);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(
		(*(const struct type *const *)a)->proto, (*(const struct type *const *)b)->proto);
}

void type_set_sort(struct type_set *s)
{
	qsort(s->items, s->len, sizeof(const struct type *), by_name);
}

void type_set_deinit(struct type_set *s)
{
	map_deinit(&s->seen, NULL);
	free(s->items);
}

/* ---- what is no message ---- */

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."
/* clang-format off */
const struct builtin_definition openapi_builtins[] = {
	{ "io.k8s.apimachinery.pkg.api.resource.Quantity", {
		"{\"description\":\"An amount of something, exact: a number with an optional suffix such as m, k, Mi or e3.\",\"type\":\"string\"}",
		"{\"description\":\"An amount of something, exact: a number with an optional suffix such as m, k, Mi or e3.\","
			"\"oneOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]}" } },
	{ META "Time", {
		"{\"description\":\"A point in time, RFC 3339 with seconds.\",\"type\":\"string\",\"format\":\"date-time\"}",
		"{\"description\":\"A point in time, RFC 3339 with seconds.\",\"type\":\"string\",\"format\":\"date-time\"}" } },
	{ META "MicroTime", {
		"{\"description\":\"A point in time, RFC 3339 with microseconds.\",\"type\":\"string\",\"format\":\"date-time\"}",
		"{\"description\":\"A point in time, RFC 3339 with microseconds.\",\"type\":\"string\",\"format\":\"date-time\"}" } },
	{ META "Duration", {
		"{\"description\":\"A span of time such as 1h30m or 10s.\",\"type\":\"string\"}",
		"{\"description\":\"A span of time such as 1h30m or 10s.\",\"type\":\"string\"}" } },
	{ META "FieldsV1", {
		"{\"description\":\"A set of fields as a trie of JSON.\",\"type\":\"object\"}",
		"{\"description\":\"A set of fields as a trie of JSON.\",\"type\":\"object\"}" } },
	{ META "Patch", {
		"{\"description\":\"A change to an object; its form is named by the content type.\",\"type\":\"object\"}",
		"{\"description\":\"A change to an object; its form is named by the content type.\",\"type\":\"object\"}" } },
	{ "io.k8s.apimachinery.pkg.runtime.RawExtension", {
		"{\"description\":\"Any object.\",\"type\":\"object\"}",
		"{\"description\":\"Any object.\",\"type\":\"object\"}" } },
	{ "io.k8s.apimachinery.pkg.util.intstr.IntOrString", {
		"{\"description\":\"A number, or a text such as a name or a percentage.\",\"type\":\"string\",\"format\":\"int-or-string\"}",
		"{\"description\":\"A number, or a text such as a name or a percentage.\",\"format\":\"int-or-string\","
			"\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}" } },
	{ "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", {
		"{\"description\":\"Any JSON value.\"}", "{\"description\":\"Any JSON value.\"}" } },
	{ NULL },
};
static const struct scalar_row {
	const char *type, *format, *ref;
} scalars[] = {
	[KIND_BOOL] = { "boolean" },
	[KIND_INT32] = { "integer", "int32" },
	[KIND_INT64] = { "integer", "int64" },
	[KIND_DOUBLE] = { "number", "double" },
	[KIND_STRING] = { "string" },
	[KIND_BYTES] = { "string", "byte" },
	[KIND_TIME] = { .ref = META "Time" },
	[KIND_MICROTIME] = { .ref = META "MicroTime" },
	[KIND_DURATION] = { .ref = META "Duration" },
	[KIND_QUANTITY] = { .ref = "io.k8s.apimachinery.pkg.api.resource.Quantity" },
	[KIND_INT_OR_STRING] = { .ref = "io.k8s.apimachinery.pkg.util.intstr.IntOrString" },
	[KIND_RAW] = { .ref = "io.k8s.apimachinery.pkg.runtime.RawExtension" },
	[KIND_JSON] = { .ref = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" },
	[KIND_MESSAGE] = { "object" },
};
/* clang-format on */

static void put_ref(
	struct arena *a, struct value *at, const char *name, enum openapi_version v, bool wrap)
{
	struct str ref = arena_fmt(
		a, "#/%s/%s", v == OPENAPI_V2 ? "definitions" : "components/schemas", name);
	if (v == OPENAPI_V3 && wrap)
		at = tree_item_object(a, tree_list(a, at, "allOf"));
	tree_str(a, at, "$ref", ref);
}

/* The schema of one value of a field, list and map taken off. */
static void put_value(
	struct arena *a, struct value *at, const struct field *f, enum openapi_version v, bool wrap)
{
	const struct scalar_row *s = &scalars[f->kind];
	if (f->kind == KIND_MESSAGE) {
		put_ref(a, at, f->type->proto, v, wrap);
		return;
	}
	if (s->ref) {
		put_ref(a, at,
			f->kind == KIND_RAW && !strcmp(f->name, "fieldsV1") ? META "FieldsV1"
									    : s->ref,
			v, wrap);
		return;
	}
	tree_text(a, at, "type", s->type);
	if (s->format)
		tree_text(a, at, "format", s->format);
	for (size_t i = 0; f->rule && f->rule->values && f->rule->values[i]; i++) {
		struct value *list = value_get(at, STR("enum"));
		tree_item_text(a, list ? list : tree_list(a, at, "enum"), f->rule->values[i]);
	}
}

static void put_list_marks(struct arena *a, struct value *at, const struct field *f)
{
	const char *type = f->flags & FIELD_LIST_MAP ? "map"
		: f->flags & FIELD_LIST_SET          ? "set"
		: f->flags & FIELD_ATOMIC            ? "atomic"
						     : NULL;
	if (f->flags & FIELD_LIST_MAP) {
		struct value *keys = tree_list(a, at, "x-kubernetes-list-map-keys");
		for (size_t i = 0; f->list_keys && f->list_keys[i]; i++)
			tree_item_text(a, keys, f->list_keys[i]);
	}
	if (type)
		tree_text(a, at, "x-kubernetes-list-type", type);
}

static void put_patch_marks(struct arena *a, struct value *at, const struct field *f)
{
	bool merge = f->flags & FIELD_PATCH_MERGE, retain = f->flags & FIELD_PATCH_RETAIN_KEYS;
	if (merge && f->merge_key)
		tree_text(a, at, "x-kubernetes-patch-merge-key", f->merge_key);
	if (merge || retain)
		tree_text(a, at, "x-kubernetes-patch-strategy",
			merge && retain ? "merge,retainKeys"
				: merge ? "merge"
					: "retainKeys");
}

static void put_property(
	struct arena *a, struct value *at, const struct field *f, enum openapi_version v)
{
	if (f->doc && *f->doc)
		tree_text(a, at, "description", f->doc);
	switch (f->shape) {
	case SHAPE_ONE:
	case SHAPE_PTR:
		put_value(a, at, f, v, true);
		if ((f->flags & FIELD_ATOMIC) && f->kind == KIND_MESSAGE)
			tree_text(a, at, "x-kubernetes-map-type", "atomic");
		break;
	case SHAPE_LIST:
		tree_text(a, at, "type", "array");
		put_value(a, tree_object(a, at, "items"), f, v, true);
		put_list_marks(a, at, f);
		break;
	case SHAPE_MAP:
		tree_text(a, at, "type", "object");
		put_value(a, tree_object(a, at, "additionalProperties"), f, v, true);
		if (f->flags & FIELD_ATOMIC)
			tree_text(a, at, "x-kubernetes-map-type", "atomic");
		break;
	case SHAPE_MAP_LIST: {
		tree_text(a, at, "type", "object");
		struct value *list = tree_object(a, at, "additionalProperties");
		tree_text(a, list, "type", "array");
		put_value(a, tree_object(a, list, "items"), f, v, true);
		break;
	}
	}
	put_patch_marks(a, at, f);
}

static void put_fields(struct arena *a, const struct type *t, enum openapi_version v,
	struct value *properties, struct value *required)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		if (f->flags & FIELD_INLINE) {
			put_fields(a, f->type, v, properties, required);
			continue;
		}
		put_property(a, tree_object(a, properties, f->name), f, v);
		if (f->flags & FIELD_REQUIRED)
			tree_item_text(a, required, f->name);
	}
}

static void put_gvk(struct arena *a, struct value *at, const struct type *t)
{
	struct value *gvk =
		tree_item_object(a, tree_list(a, at, "x-kubernetes-group-version-kind"));
	bool meta = !strcmp(t->group, "meta.k8s.io") || !strcmp(t->group, "meta");
	tree_text(a, gvk, "group", meta ? "" : t->group);
	tree_text(a, gvk, "kind", t->name);
	tree_text(a, gvk, "version", t->version);
}

static bool has_kind(const struct type *t)
{
	return t->is_object || t->is_list || (t->n_fields && (t->fields[0].flags & FIELD_NO_PROTO));
}

struct value openapi_definition(const struct type *t, enum openapi_version v, struct arena *a)
{
	struct value d = { .kind = VALUE_OBJECT }, properties = { .kind = VALUE_OBJECT },
		     required = { .kind = VALUE_LIST };
	if (t->doc && *t->doc)
		tree_text(a, &d, "description", t->doc);
	put_fields(a, t, v, &properties, &required);
	if (required.list.len)
		*value_set(a, &d, STR("required")) = required;
	tree_text(a, &d, "type", "object");
	if (properties.object.len)
		*value_set(a, &d, STR("properties")) = properties;
	if (has_kind(t))
		put_gvk(a, &d, t);
	return d;
}
