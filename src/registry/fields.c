/* Selectable fields. The schema names them by path; the paths are resolved to rows once. An object in the store carries those
 * that have a value: what is absent is "", "false" or "0" by the kind of the field. */
#include "registry/internal.h"

size_t field_size(const struct field *f)
{
	static const size_t one[] = {
		[KIND_BOOL] = sizeof(bool),
		[KIND_INT32] = sizeof(int32_t),
		[KIND_INT64] = sizeof(int64_t),
		[KIND_DOUBLE] = sizeof(double),
		[KIND_STRING] = sizeof(struct str),
		[KIND_BYTES] = sizeof(struct str),
		[KIND_TIME] = sizeof(struct timestamp),
		[KIND_MICROTIME] = sizeof(struct timestamp),
		[KIND_DURATION] = sizeof(int64_t),
		[KIND_QUANTITY] = sizeof(struct str),
		[KIND_INT_OR_STRING] = sizeof(struct int_or_str),
		[KIND_RAW] = sizeof(struct str),
		[KIND_JSON] = sizeof(struct str),
	};
	static const size_t ptr[] = {
		[KIND_BOOL] = sizeof(struct opt_bool),
		[KIND_INT32] = sizeof(struct opt_int32),
		[KIND_INT64] = sizeof(struct opt_int64),
		[KIND_DOUBLE] = sizeof(struct opt_double),
		[KIND_DURATION] = sizeof(struct opt_int64),
	};
	if (f->shape == SHAPE_LIST || f->shape == SHAPE_MAP || f->shape == SHAPE_MAP_LIST)
		return sizeof(struct str_list);
	if (f->kind == KIND_MESSAGE)
		return f->shape == SHAPE_PTR ? sizeof(void *) : f->type->size;
	if (f->shape == SHAPE_PTR && f->kind < ARRAY_LEN(ptr) && ptr[f->kind])
		return ptr[f->kind];
	return one[f->kind];
}

/* Some labels are named after what they are, not where they stand. */
static const struct {
	const char *resource, *label, *path;
} renamed[] = {
	{ "jobs.batch", "status.successful", "status.succeeded" },
};

static bool resolve(const struct type *t, struct str path, struct field_path *ret)
{
	struct str head, rest = path;
	while (rest.len) {
		if (!str_cut(rest, '.', &head, &rest))
			rest = STR_NONE;
		const struct field *f = t ? model_field(t, head) : NULL;
		if (!f || ret->n_steps == FIELD_PATH_DEPTH)
			return false;
		ret->steps[ret->n_steps++] = f;
		t = f->type;
	}
	const struct field *last = ret->steps[ret->n_steps - 1];
	if (last->shape > SHAPE_PTR || last->kind == KIND_MESSAGE)
		return false;
	ret->absent = last->kind == KIND_BOOL                          ? "false"
		: last->kind == KIND_INT32 || last->kind == KIND_INT64 ? "0"
								       : "";
	return true;
}

static int by_name(const void *a, const void *b)
{
	return str_cmp(((const struct field_path *)a)->name, ((const struct field_path *)b)->name);
}

int fields_resolve(struct resource_extra *x, struct err *err)
{
	const struct resource_row *row = x->resource.row;
	size_t n = 0;
	while (row->selectable_fields && row->selectable_fields[n])
		n++;
	x->fields = xcalloc(n + 1, sizeof(*x->fields));
	for (size_t i = 0; i < n; i++) {
		struct field_path *p = &x->fields[x->n_fields++];
		p->name = str_of(row->selectable_fields[i]);
		p->absent = "";
		struct str path = p->name;
		for (size_t k = 0; k < ARRAY_LEN(renamed); k++)
			if (str_eqz(x->resource.group_resource, renamed[k].resource) &&
				str_eqz(path, renamed[k].label))
				path = str_of(renamed[k].path);
		if (!resolve(row->type, path, p)) {
			p->n_steps = 0;
			if (!x->resource.kind || !x->resource.kind->field)
				return err_set(err, -EINVAL,
					"resource %s: field %s cannot be selected: it is no single value and its kind has no function for it",
					row->plural, row->selectable_fields[i]);
		}
	}
	qsort(x->fields, x->n_fields, sizeof(*x->fields), by_name);
	return 0;
}

static struct str text_of(const void *at, const struct field *f, struct arena *a)
{
	bool ptr = f->shape == SHAPE_PTR;
	switch (f->kind) {
	case KIND_STRING:
	case KIND_QUANTITY:
		return *(const struct str *)at;
	case KIND_BOOL:
		return (ptr ? ((const struct opt_bool *)at)->value : *(const bool *)at)
			? STR("true")
			: STR_NONE;
	case KIND_INT32:
	case KIND_INT64: {
		int64_t v = f->kind == KIND_INT32
			? (ptr ? ((const struct opt_int32 *)at)->value : *(const int32_t *)at)
			: ptr ? ((const struct opt_int64 *)at)->value
			      : *(const int64_t *)at;
		return v ? arena_fmt(a, "%lld", (long long)v) : STR_NONE;
	}
	default:
		return STR_NONE;
	}
}

static struct str value_of(
	const struct resource *r, const struct field_path *p, const void *obj, struct arena *a)
{
	if (r->kind && r->kind->field) {
		struct str v = r->kind->field(obj, p->name, a);
		if (v.p)
			return v;
	}
	const void *at = obj;
	for (size_t i = 0; i < p->n_steps; i++) {
		at = cmember(at, p->steps[i]);
		if (p->steps[i]->kind == KIND_MESSAGE && p->steps[i]->shape == SHAPE_PTR) {
			at = *(void *const *)at;
			if (!at)
				return STR_NONE;
		}
	}
	return p->n_steps ? text_of(at, p->steps[p->n_steps - 1], a) : STR_NONE;
}

void fields_of(const struct resource *r, const void *obj, struct arena *a, struct object_pair **ret,
	size_t *ret_n)
{
	const struct resource_extra *x = extra_of(r->storage);
	struct object_pair *pairs =
		x->n_fields ? arena_alloc(a, x->n_fields * sizeof(*pairs)) : NULL;
	size_t n = 0;
	for (size_t i = 0; i < x->n_fields; i++) {
		struct str v = value_of(&x->resource, &x->fields[i], obj, a);
		if (v.len)
			pairs[n++] = (struct object_pair){ x->fields[i].name, v };
	}
	*ret = pairs;
	*ret_n = n;
}
