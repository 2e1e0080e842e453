/* Server-side tables: the columns that the schema names, their cells from a path, an age or a function. A resource without columns has
 * Name and Created At. */
#include "registry/columns.h"

static const struct column_fn *const tables[] = { pod_columns, core_columns, workload_columns,
	other_columns };

/* clang-format off */
/* What stands in a cell whose path has no value, where it is not just empty. */
static const struct {
	const char *resource, *column, *text;
} when_empty[] = {
	{ "pods", "IP", "<none>" },
	{ "nodes", "OS-Image", "<unknown>" },
	{ "nodes", "Kernel-Version", "<unknown>" },
	{ "nodes", "Container-Runtime", "<unknown>" },
};
/* Cells that say more than the value at their path. */
static const struct {
	const char *resource, *column, *fn;
} instead[] = {
	{ "cronjobs.batch", "Suspend", "cron_job_suspend" },
	{ "storageclasses.storage.k8s.io", "Name", "storage_class_name" },
};
/* clang-format on */

static const struct column_row fallback[] = {
	{ "Name", "string", "name", 0, ".metadata.name" },
	{ "Created At", "date", "", 0, "date(.metadata.creationTimestamp)" },
};

static const struct column_row *columns_of(const struct resource *r, size_t *ret_n)
{
	if (r->row->n_columns) {
		*ret_n = r->row->n_columns;
		return r->row->columns;
	}
	*ret_n = ARRAY_LEN(fallback);
	return fallback;
}

/* ---- what functions write with ---- */

void cell_text(struct cell *c, struct str s)
{
	json_write_text(s, c->out);
}

void cell_textz(struct cell *c, const char *s)
{
	cell_text(c, str_of(s));
}

void cell_fmt(struct cell *c, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	cell_text(c, arena_vfmt(c->arena, fmt, ap));
	va_end(ap);
}

void cell_int(struct cell *c, int64_t v)
{
	buf_addf(c->out, "%lld", (long long)v);
}

void cell_or(struct cell *c, struct str s, const char *otherwise)
{
	cell_text(c, s.len ? s : str_of(otherwise));
}

struct str since_text(struct cell *c, struct timestamp t)
{
	char text[DURATION_TEXT_MAX];
	if (time_is_zero(t))
		return STR("<unknown>");
	size_t n = duration_human((int64_t)time_diff_s(c->now, t), text);
	return arena_str(c->arena, str_n(text, n));
}

void cell_since(struct cell *c, struct timestamp t)
{
	cell_text(c, since_text(c, t));
}

struct str labels_text(struct cell *c, const struct str_map *m)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(p, m)
		buf_addf(&b, "%s" STR_FMT "=" STR_FMT, b.len ? "," : "", STR_ARG(p->key),
			STR_ARG(p->value));
	return b.len ? arena_str(c->arena, buf_str(&b)) : STR("<none>");
}

struct str selector_text(struct cell *c, const struct meta_v1_label_selector *s)
{
	CLEAN_BUF struct buf b = { 0 };
	struct selector *sel;
	struct err err;
	if (!s)
		return STR("<none>");
	if (selector_from_label_selector(s, c->arena, &sel, &err))
		return STR("<error>");
	if (sel)
		selector_format(sel, &b);
	return b.len ? arena_str(c->arena, buf_str(&b)) : STR("<none>");
}

void cell_containers(struct cell *c, const struct core_v1_pod_spec *s)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(it, &s->containers)
		buf_addf(&b, "%s" STR_FMT, it == s->containers.items ? "" : ",", STR_ARG(it->name));
	cell_text(c, buf_str(&b));
}

void cell_images(struct cell *c, const struct core_v1_pod_spec *s)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(it, &s->containers)
		buf_addf(
			&b, "%s" STR_FMT, it == s->containers.items ? "" : ",", STR_ARG(it->image));
	cell_text(c, buf_str(&b));
}

void cell_list(struct cell *c, const struct str_list *l, size_t max, const char *empty)
{
	CLEAN_BUF struct buf b = { 0 };
	for (size_t i = 0; i < l->len && i < max; i++)
		buf_addf(&b, "%s" STR_FMT, i ? "," : "", STR_ARG(l->items[i]));
	if (l->len > max)
		buf_addf(&b, " + %zu more...", l->len - max);
	cell_or(c, buf_str(&b), empty);
}

/* ---- columns ---- */

static const struct column_fn *find_fn(struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		for (const struct column_fn *f = tables[i]; f->name; f++)
			if (str_eqz(name, f->name))
				return f;
	return NULL;
}

/* The row of a path like .status.podIP; *at becomes the member. NULL: a pointer on the way is NULL, or there is no such path. */
static const struct field *walk(
	const struct type *t, const void *obj, struct str path, const void **at)
{
	const struct field *f = NULL;
	struct str head, rest = str_from(path, 1);
	*at = obj;
	while (rest.len) {
		if (!str_cut(rest, '.', &head, &rest))
			rest = STR_NONE;
		const struct flat_field *ff = t ? model_flat_field(t, head) : NULL;
		if (!ff)
			return NULL;
		f = ff->field;
		*at = *at ? (const char *)*at + ff->offset : NULL;
		t = f->type;
		if (rest.len && *at && f->kind == KIND_MESSAGE && f->shape == SHAPE_PTR)
			*at = *(void *const *)*at;
	}
	return f;
}

static void write_number(struct cell *c, const struct field *f, const void *at)
{
	bool ptr = f->shape == SHAPE_PTR;
	int64_t v = 0;
	if (at && f->kind == KIND_INT32)
		v = ptr ? ((const struct opt_int32 *)at)->value : *(const int32_t *)at;
	else if (at)
		v = ptr ? ((const struct opt_int64 *)at)->value : *(const int64_t *)at;
	cell_int(c, v);
}

static void write_path(
	struct cell *c, const struct type *t, const void *obj, struct str path, const char *empty)
{
	const void *at;
	const struct field *f = walk(t, obj, path, &at);
	if (!f || f->shape > SHAPE_PTR) {
		cell_textz(c, "");
		return;
	}
	switch (f->kind) {
	case KIND_INT32:
	case KIND_INT64:
		write_number(c, f, at);
		return;
	case KIND_BOOL: {
		bool v = at &&
			(f->shape == SHAPE_PTR ? ((const struct opt_bool *)at)->value
					       : *(const bool *)at);
		buf_addz(c->out, v ? "true" : "false");
		return;
	}
	case KIND_STRING:
	case KIND_QUANTITY:
		cell_or(c, at ? *(const struct str *)at : STR_NONE, empty);
		return;
	case KIND_TIME:
	case KIND_MICROTIME: {
		char text[TIME_TEXT_MAX];
		struct timestamp ts = at ? *(const struct timestamp *)at : (struct timestamp){ 0 };
		cell_text(c,
			time_is_zero(ts) ? STR("<unknown>") : str_n(text, time_format(ts, text)));
		return;
	}
	default:
		cell_textz(c, "");
	}
}

static struct str inside(struct str source) /* of fn(…) or age(…) */
{
	ssize_t open = str_find(source, '(');
	struct str s = str_from(source, (size_t)open + 1);
	s.len--;
	return s;
}

static void write_cell(
	struct cell *c, const struct resource *r, const struct column_row *col, const void *obj)
{
	const struct type *t = r->storage->row->type;
	struct str source = str_of(col->source);
	const char *empty = "";
	const struct column_fn *fn = NULL;
	for (size_t i = 0; i < ARRAY_LEN(instead); i++)
		if (str_eqz(r->group_resource, instead[i].resource) &&
			!strcmp(col->name, instead[i].column))
			fn = find_fn(str_of(instead[i].fn));
	if (!fn && str_has_prefix(source, STR("fn(")))
		fn = find_fn(inside(source));
	if (fn) {
		fn->write(c, obj);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(when_empty); i++)
		if (str_eqz(r->group_resource, when_empty[i].resource) &&
			!strcmp(col->name, when_empty[i].column))
			empty = when_empty[i].text;
	if (str_has_prefix(source, STR("age("))) {
		const void *at;
		const struct field *f = walk(t, obj, inside(source), &at);
		cell_since(c, f && at ? *(const struct timestamp *)at : (struct timestamp){ 0 });
	} else if (str_has_prefix(source, STR("date("))) {
		write_path(c, t, obj, inside(source), "<unknown>");
	} else if (source.len && source.p[0] == '.') {
		write_path(c, t, obj, source, empty);
	} else {
		cell_textz(c, "");
	}
}

void registry_table_columns(const struct resource *r, struct buf *out)
{
	size_t n;
	const struct column_row *cols = columns_of(r, &n);
	buf_addc(out, '[');
	for (size_t i = 0; i < n; i++) {
		const char *doc = cols[i].name;
		const void *at;
		if (cols[i].source[0] == '.') {
			const struct field *f =
				walk(r->row->type, NULL, str_of(cols[i].source), &at);
			doc = f && f->doc && *f->doc ? f->doc : doc;
		}
		buf_addz(out, i ? ",{\"name\":" : "{\"name\":");
		json_write_text(str_of(cols[i].name), out);
		buf_addf(out, ",\"type\":\"%s\",\"format\":\"%s\",\"description\":", cols[i].type,
			cols[i].format ? cols[i].format : "");
		json_write_text(str_of(doc), out);
		buf_addf(out, ",\"priority\":%d}", cols[i].priority);
	}
	buf_addc(out, ']');
}

void registry_table_cells(const struct resource *r, struct object *o, struct timestamp now,
	struct arena *a, struct buf *out)
{
	size_t n;
	const struct column_row *cols = columns_of(r, &n);
	struct cell c = { .out = out, .now = now, .arena = a };
	struct err err;
	void *obj;
	/* cells come from the stored version, whatever version was asked for: o's own JSON says which it is */
	const struct type *t = r->storage->row->type;
	int rc = json_decode(t, o->json, a, NULL, &obj, &err);
	if (!rc && r->storage != r &&
		!str_eq(((struct object_head *)obj)->api_version, r->storage->api_version)) {
		rc = json_decode(r->row->type, o->json, a, NULL, &obj, &err);
		if (!rc)
			obj = extra_of(r)->conversion->to_storage(obj, a);
	}
	buf_addc(out, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_addc(out, ',');
		if (rc)
			cell_textz(&c, "");
		else
			write_cell(&c, r, &cols[i], obj);
	}
	buf_addc(out, ']');
}

bool registry_column_known(const char *name)
{
	return find_fn(str_of(name)) != NULL;
}
