/* Server-side apply, and metadata.managedFields.
 *
 * 1. An object is tracked from its first apply on: until then it has no managedFields, and writing it costs nothing for them. What was there
 *    before belongs to "before-first-apply" then, as upstream has it for objects older than tracking.
 * 2. A tracked object's every write is accounted for. A client may give managedFields in a PUT or a patch (kubectl does, to migrate);
 *    one empty entry ends tracking.
 * 3. Conflicts of kubectl with what it has applied by itself before (its annotation tells) are none, as upstream's last-applied rule. */
#include "model/apply.h"
#include "registry/internal.h"

static const struct str last_applied = { "kubectl.kubernetes.io/last-applied-configuration", 48 };

/* ---- entries <-> owners ---- */

static bool read_owners(
	const struct meta_v1_object_meta *m, struct arena *a, struct field_owners *ret)
{
	LIST_EACH(e, &m->managed_fields) {
		struct field_owner o = { .manager = e->manager,
			.operation = e->operation,
			.api_version = e->api_version,
			.subresource = e->subresource,
			.time = e->time };
		struct value fields = { .kind = VALUE_OBJECT };
		struct err err;
		if (!str_eqz(e->operation, "Apply") && !str_eqz(e->operation, "Update"))
			return false;
		if (e->fields_v1.len && json_parse(e->fields_v1, a, &fields, &err))
			return false;
		if (field_set_from_fields(&fields, a, &o.fields, &err))
			return false;
		*(struct field_owner *)model_list_add(a, ret, sizeof(o)) = o;
	}
	return true;
}

static void write_owners(
	const struct field_owners *owners, struct meta_v1_object_meta *m, struct arena *a)
{
	m->managed_fields = (__typeof__(m->managed_fields)){ 0 };
	for (size_t i = 0; i < owners->len; i++) {
		const struct field_owner *o = &owners->items[i];
		struct meta_v1_managed_fields_entry *e = LIST_ADD(a, &m->managed_fields);
		struct value fields;
		CLEAN_BUF struct buf json = { 0 };
		field_set_to_fields(o->fields, a, &fields);
		json_write(&fields, &json);
		e->manager = o->manager;
		e->operation = o->operation;
		e->api_version = o->api_version;
		e->subresource = o->subresource;
		e->time = (struct timestamp){ o->time.sec, 0 };
		e->fields_type = STR("FieldsV1");
		e->fields_v1 = arena_str(a, buf_str(&json));
	}
}

/* What a write to this place does not set: the status by the object, the spec by its status. */
static struct field_set *ignored(const struct write *w)
{
	static const char status[] = "{\"f:status\":{}}", spec[] = "{\"f:spec\":{}}";
	struct value v;
	struct err err;
	struct field_set *s;
	bool of_status = w->req->sub && !strcmp(w->req->sub->name, "status");
	if (!of_status && !extra_of(w->res)->status_sub)
		return NULL;
	if (json_parse(str_of(of_status ? spec : status), w->arena, &v, &err) ||
		field_set_from_fields(&v, w->arena, &s, &err))
		return NULL;
	return s;
}

static struct field_request request(
	const struct write *w, const struct type *t, struct str api_version)
{
	return (struct field_request){
		.type = t,
		.manager = w->req->field_manager.len ? w->req->field_manager : STR("unknown"),
		.api_version = api_version,
		.subresource = w->req->sub ? str_of(w->req->sub->name) : STR_NONE,
		.now = { w->now.sec, 0 },
		.ignored = ignored(w),
	};
}

static struct value tree_of(const struct type *t, const void *obj, struct arena *a)
{
	struct value v;
	void *bare = arena_memdup(a, obj, t->size);
	struct meta_v1_object_meta *m = model_meta(t, bare);
	m->managed_fields = (__typeof__(m->managed_fields)){ 0 };
	value_from_object(t, bare, a, &v);
	return v;
}

/* ---- other writes ---- */

static bool is_reset(const struct meta_v1_object_meta *m)
{
	return m->managed_fields.len == 1 &&
		model_is_zero(&meta_v1_managed_fields_entry_type, &m->managed_fields.items[0]);
}

void managed_track(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	struct field_owners owners = { 0 };
	if (w->applied)
		return;
	if (is_reset(m)) {
		m->managed_fields = (__typeof__(m->managed_fields)){ 0 };
		return;
	}
	if (!m->managed_fields.len || !read_owners(m, w->arena, &owners)) {
		owners = (struct field_owners){ 0 };
		m->managed_fields = old->managed_fields;
		if (!old->managed_fields.len || !read_owners(old, w->arena, &owners))
			return;
	}
	struct field_request r = request(w, w->type, w->res->api_version);
	struct value before = tree_of(w->type, w->old, w->arena),
		     after = tree_of(w->type, w->obj, w->arena);
	fields_track_update(&r, &before, &after, &owners, w->arena);
	write_owners(&owners, m, w->arena);
}

/* ---- apply ---- */

static struct meta_v1_status *conflict(
	struct write *w, const struct field_conflict *c, size_t n, const char *text)
{
	struct meta_v1_status *st = status_new(w->arena, REASON_CONFLICT, "%s", text);
	st->details = arena_alloc(w->arena, sizeof(*st->details));
	for (size_t i = 0; i < n; i++) {
		struct meta_v1_status_cause *cause = LIST_ADD(w->arena, &st->details->causes);
		cause->reason = STR("FieldManagerConflict");
		cause->field = c[i].path;
		cause->message = arena_fmt(w->arena, "conflict with \"" STR_FMT "\"%s" STR_FMT,
			STR_ARG(c[i].manager), c[i].api_version.len ? " using " : "",
			STR_ARG(c[i].api_version));
	}
	return st;
}

static struct value *last_applied_of(const struct value *live)
{
	struct value *meta = value_get(live, STR("metadata")),
		     *annotations = meta ? value_get(meta, STR("annotations")) : NULL;
	struct value *text = annotations ? value_get(annotations, last_applied) : NULL;
	return text && text->kind == VALUE_TEXT ? text : NULL;
}

/* Whether each of the fields was put there by kubectl's own apply. */
static bool applied_before(struct write *w, const struct type *t, const struct value *live,
	const struct field_conflict *c, size_t n)
{
	struct value *text = last_applied_of(live), was;
	struct err err;
	struct str *paths;
	if (!str_eqz(w->req->field_manager, "kubectl") || !text ||
		json_parse(text->text, w->arena, &was, &err))
		return false;
	size_t n_paths = field_set_paths(field_set_of(t, &was, w->arena), w->arena, &paths);
	for (size_t i = 0; i < n; i++) {
		bool found = false;
		for (size_t k = 0; k < n_paths && !found; k++)
			found = str_eq(paths[k], c[i].path);
		if (!found || !c[i].by_update)
			return false;
	}
	return true;
}

/* unknown field "spec.a" -> .spec.a: field not declared in schema; several by lines */
static struct str unknown_fields(const struct decode_notes *notes)
{
	static const struct str unknown = { "unknown field \"", 15 };
	CLEAN_BUF struct buf b = { 0 };
	for (size_t i = 0; i < notes->len; i++) {
		struct str n = notes->items[i];
		if (str_has_prefix(n, unknown))
			buf_addf(&b, "%s.%.*s: field not declared in schema", b.len ? "\n" : "",
				(int)(n.len - unknown.len - 1), n.p + unknown.len);
		else
			buf_addf(&b, "%s" STR_FMT, b.len ? "\n" : "", STR_ARG(n));
	}
	return arena_str(notes->arena, buf_str(&b));
}

static struct meta_v1_status *not_of_type(struct write *w, const struct type *t, struct str why)
{
	const struct resource *r = w->req->resource;
	return status_new(w->arena, REASON_NONE,
		"failed to create typed patch object (" STR_FMT "/" STR_FMT "; " STR_FMT "/" STR_FMT
		", Kind=%s): " STR_FMT,
		STR_ARG(w->req->ns), STR_ARG(w->req->name), STR_ARG(r->group), STR_ARG(r->version),
		t->name, STR_ARG(why));
}

/* The applied text as a tree: an object of this type with nothing unknown in it. */
static struct meta_v1_status *read_applied(struct write *w, const struct type *t, struct value *ret)
{
	struct decode_notes notes = { .arena = w->arena };
	struct err err;
	void *obj;
	struct arena *a = w->arena;
	if (!w->req->field_manager.len) {
		static const struct resource options = {
			.group = { "meta.k8s.io", 11 },
			.version = { "v1", 2 },
			.kind_name = { "PatchOptions", 12 },
			.plural = { "patchoptions", 12 },
		};
		struct causes cs = { .arena = a };
		cause_add(&cs, CAUSE_REQUIRED, STR("fieldManager"), STR_NONE,
			"is required for apply patch");
		return status_invalid(a, &options, STR_NONE, &cs);
	}
	if (json_parse(w->req->patch, a, ret, &err))
		return status_new(a, REASON_BAD_REQUEST, "error decoding YAML: %s", err.text);
	struct str version = STR_NONE, kind = STR_NONE;
	struct value *v = ret->kind == VALUE_OBJECT ? value_get(ret, STR("apiVersion")) : NULL,
		     *k = v ? value_get(ret, STR("kind")) : NULL;
	version = v && v->kind == VALUE_TEXT ? v->text : version;
	kind = k && k->kind == VALUE_TEXT ? k->text : kind;
	struct str want = w->req->resource->api_version;
	if (!str_eq(version, want) || !str_eqz(kind, t->name))
		return status_new(a, REASON_BAD_REQUEST,
			"the applied object is " STR_FMT " of " STR_FMT
			", but the path is of %s of " STR_FMT,
			STR_ARG(kind), STR_ARG(version), t->name, STR_ARG(want));
	if (value_to_object(t, ret, a, &notes, &obj, &err))
		return not_of_type(w, t, str_of(err.text));
	if (notes.len)
		return not_of_type(w, t, unknown_fields(&notes));
	if (model_meta(t, obj)->managed_fields.items)
		return status_new(a, REASON_BAD_REQUEST, "metadata.managedFields must be nil");
	return NULL;
}

/* What kubectl applied by itself before tracking is its own, as if it had been tracked; all else belongs to who came before. kubectl looks
 * for the owner of its record to take its fields over, so this must not be the owner of everything. */
static void owners_before(struct write *w, const struct type *t, const struct value *live,
	struct field_owners *owners)
{
	struct value *text = last_applied_of(live), was, nothing = { .kind = VALUE_OBJECT };
	struct arena *a = w->arena;
	struct err err;
	void *obj;
	if (!text || json_parse(text->text, a, &was, &err) ||
		value_to_object(t, &was, a, NULL, &obj, &err))
		return;
	struct meta_v1_object_meta *m = model_meta(t, obj);
	str_map_set(a, &m->annotations, last_applied, text->text);
	was = tree_of(t, obj, a);
	struct field_request r = request(w, t, w->req->resource->api_version);
	r.subresource = STR_NONE;
	r.manager = STR("kubectl-client-side-apply");
	fields_track_update(&r, &nothing, &was, owners, a);
	r.manager = STR("before-first-apply");
	fields_track_update(&r, &was, live, owners, a);
}

/* kubectl's own record, where it keeps one, follows what it applies this way: then it can go back to applying by itself. */
static void renew_last_applied(
	struct write *w, struct meta_v1_object_meta *m, const struct value *applied)
{
	CLEAN_BUF struct buf json = { 0 };
	if (w->req->sub || !str_eqz(w->req->field_manager, "kubectl") ||
		!str_map_has(&m->annotations, last_applied))
		return;
	json_write(applied, &json);
	buf_addc(&json, '\n');
	str_map_set(w->arena, &m->annotations, last_applied, arena_str(w->arena, buf_str(&json)));
}

/* from NULL: it is not there yet. 0, or refused (then ended). */
int managed_apply(struct write *w, const struct type *t, const void *from, void **ret)
{
	struct value live = { .kind = VALUE_OBJECT }, applied, merged;
	struct field_owners owners = { 0 };
	struct field_conflict *conflicts;
	size_t n;
	struct err err;
	struct meta_v1_status *st = read_applied(w, t, &applied);
	if (!st && from) {
		live = tree_of(t, from, w->arena);
		if (!read_owners(model_meta(t, from), w->arena, &owners))
			owners = (struct field_owners){ 0 };
		if (!owners.len)
			owners_before(w, t, &live, &owners);
	}
	if (!st) {
		struct field_request r = request(w, t, w->req->resource->api_version);
		int rc = fields_apply(&r, &live, &applied, w->req->force, &owners, w->arena,
			&merged, &conflicts, &n, &err);
		if (rc == APPLY_CONFLICT && applied_before(w, t, &live, conflicts, n))
			rc = fields_apply(&r, &live, &applied, true, &owners, w->arena, &merged,
				&conflicts, &n, &err);
		if (rc == APPLY_CONFLICT)
			st = conflict(w, conflicts, n, err.text);
		else if (rc)
			st = status_new(w->arena, REASON_BAD_REQUEST, "%s", err.text);
	}
	if (!st && value_to_object(t, &merged, w->arena, NULL, ret, &err))
		st = status_new(w->arena, REASON_BAD_REQUEST, "%s", err.text);
	if (st) {
		write_refuse(w, st);
		return REASON_CONFLICT;
	}
	write_owners(&owners, model_meta(t, *ret), w->arena);
	renew_last_applied(w, model_meta(t, *ret), &applied);
	w->applied = true;
	return 0;
}
