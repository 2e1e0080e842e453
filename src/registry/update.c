/* Update and patch, of the object itself and of subresources of its type. Upstream: registry/rest's BeforeUpdate, the generic store's
 * Update. */
#include "registry/internal.h"

bool write_load(struct write *w)
{
	struct err err = { 0 };
	int rc = store_get(
		w->r->store, resource_key(w->res, w->req->ns, w->req->name, w->arena), &w->current);
	if (rc) {
		w->refused = status_not_found(w->arena, w->res, w->req->name);
		return false;
	}
	if (registry_decode(w->res, w->current, w->arena, &w->old, &err)) {
		w->refused = status_new(w->arena, REASON_INTERNAL, "%s", err.text);
		return false;
	}
	return true;
}

static struct meta_v1_status *check_conditions(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	if (m->name.len && !str_eq(m->name, w->req->name))
		return status_new(w->arena, REASON_BAD_REQUEST,
			"the name of the object (" STR_FMT
			") does not match the name on the URL (" STR_FMT ")",
			STR_ARG(m->name), STR_ARG(w->req->name));
	if (w->res->row->namespaced && m->namespace.len && !str_eq(m->namespace, w->req->ns))
		return status_new(w->arena, REASON_BAD_REQUEST,
			"the namespace of the provided object does not match the namespace sent on the request");
	if (!w->conditions_read) {
		w->given_revision = m->resource_version;
		w->given_uid = m->uid;
		w->conditions_read = true;
	}
	m->name = old->name;
	m->namespace = old->namespace;
	if (w->given_uid.len && !str_eq(w->given_uid, old->uid))
		return status_conflict(w->arena, w->res, w->req->name,
			arena_fmt(w->arena,
				"Precondition failed: UID in precondition: " STR_FMT
				", UID in object meta: " STR_FMT,
				STR_ARG(w->given_uid), STR_ARG(old->uid))
				.p);
	if (!w->given_revision.len || str_eqz(w->given_revision, "0")) {
		if (!(w->res->kind && w->res->kind->flags & KIND_CONDITIONAL) ||
			w->req->verb == VERB_PATCH)
			return NULL;
		struct causes cs = { .arena = w->arena };
		cause_add(&cs, CAUSE_INVALID, STR("metadata.resourceVersion"), STR_NONE,
			"0: must be specified for an update");
		return status_invalid(w->arena, w->res, w->req->name, &cs);
	}
	int64_t revision;
	if (str_to_i64(w->given_revision, &revision) || revision < 0)
		return status_new(w->arena, REASON_BAD_REQUEST,
			"invalid resourceVersion \"" STR_FMT
			"\": it is a number that the server gave out",
			STR_ARG(w->given_revision));
	if ((uint64_t)revision != w->current->revision)
		return status_conflict(w->arena, w->res, w->req->name, NULL);
	return NULL;
}

static void keep_status(struct write *w)
{
	const struct resource_extra *x = extra_of(w->res);
	if (x->status && x->status_sub)
		memcpy(member(w->obj, x->status), cmember(w->old, x->status),
			field_size(x->status));
}

/* PUT and PATCH of /status: all but the status is the old one. */
static void prepare_status(struct write *w)
{
	const struct resource_extra *x = extra_of(w->res);
	struct meta_v1_object_meta *given = write_meta(w), *m;
	void *obj = arena_memdup(w->arena, w->old, w->type->size);
	if (x->status)
		memcpy(member(obj, x->status), cmember(w->obj, x->status), field_size(x->status));
	m = model_meta(w->type, obj);
	m->managed_fields = given->managed_fields;
	if (w->res->kind && w->res->kind->flags & KIND_STATUS_META) {
		m->labels = given->labels;
		m->annotations = given->annotations;
		m->finalizers = given->finalizers;
	}
	w->obj = obj;
}
static const struct kind_sub status_sub = { .name = "status", .prepare = prepare_status };

static bool map_equal(const struct str_map *a, const struct str_map *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i].key, b->items[i].key) ||
			!str_eq(a->items[i].value, b->items[i].value))
			return false;
	return true;
}

/* Whether anything but metadata and status differs. */
static bool changed(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	const struct field *status = extra_of(w->res)->status;
	if (w->res->kind->flags & KIND_GENERATION_ANNOTATIONS &&
		!map_equal(&m->annotations, &old->annotations))
		return true;
	void *probe = arena_memdup(w->arena, w->obj, w->type->size);
	*model_meta(w->type, probe) = *old;
	if (status)
		memcpy(member(probe, status), cmember(w->old, status), field_size(status));
	return !model_equal(w->type, probe, w->old);
}

static bool goes_away(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	return !time_is_zero(old->deletion_timestamp) && !m->finalizers.len &&
		(!old->deletion_grace_period_seconds.set ||
			old->deletion_grace_period_seconds.value == 0) &&
		!(w->res->kind && w->res->kind->held && w->res->kind->held(w->obj));
}

void write_update_from(struct write *w)
{
	const struct kind *k = w->res->kind;
	struct meta_v1_status *st = check_conditions(w);
	if (!st) {
		struct object_head *head = w->obj;
		head->api_version = w->res->api_version;
		head->kind = w->res->kind_name;
		write_defaults(w);
		meta_prepare_update(w);
		st = write_admit(w);
	}
	if (st) {
		write_refuse(w, st);
		return;
	}
	if (w->sub) {
		w->sub->prepare(w);
		meta_prepare_update(w);
	} else {
		keep_status(w);
		if (k && k->prepare_update)
			k->prepare_update(w);
	}
	if (!w->refused && k && k->flags & (KIND_GENERATION | KIND_GENERATION_ANNOTATIONS) &&
		changed(w))
		write_meta(w)->generation = write_old_meta(w)->generation + 1;
	st = w->refused ? w->refused : write_validate(w);
	if (st) {
		write_refuse(w, st);
		return;
	}
	managed_track(w);
	w->remove = goes_away(w);
	if (!w->remove && model_equal(w->type, w->obj, w->old)) {
		struct object *o = TAKE(w->current);
		write_answer_object(w, o, 200);
		return;
	}
	write_finish(w, 200);
}

/* A PUT of what is not there, of a kind that allows it, without conditions. */
static bool may_create(struct write *w)
{
	if (w->current || w->req->verb != VERB_UPDATE || w->sub || !w->res->kind ||
		!(w->res->kind->flags & KIND_CREATE_ON_UPDATE))
		return false;
	if (!w->conditions_read) {
		struct meta_v1_object_meta *m =
			model_meta(w->req->resource->row->type, w->req->obj);
		w->given_revision = m->resource_version;
		w->given_uid = m->uid;
		w->conditions_read = true;
	}
	if (w->given_revision.len || w->given_uid.len)
		return false;
	w->refused = NULL;
	return true;
}

/* Applying what is not there makes it. */
static void create_by_apply(struct write *w)
{
	const struct type *t = w->req->resource->row->type;
	void *obj;
	w->refused = NULL;
	if (managed_apply(w, t, NULL, &obj))
		return;
	struct meta_v1_object_meta *m = model_meta(t, obj);
	if (m->uid.len) {
		write_refuse(w,
			status_conflict(w->arena, w->res, w->req->name,
				arena_fmt(w->arena,
					"uid mismatch: the provided object specified uid " STR_FMT
					", and no existing object was found",
					STR_ARG(m->uid))
					.p));
		return;
	}
	w->obj = write_to_storage(w, obj);
	write_create(w);
}

void write_run_update(struct write *w)
{
	w->operation = VERB_UPDATE;
	if (w->req->sub && !w->sub)
		w->sub = kind_sub_of(w->res, str_of(w->req->sub->name));
	if (w->req->sub && !w->sub)
		w->sub = &status_sub;
	w->applied = false;
	if (!write_load(w)) {
		if (may_create(w))
			write_run_create(w);
		else if (w->req->verb == VERB_PATCH && w->req->patch_type == PATCH_TYPE_APPLY &&
			!w->sub && !w->current)
			create_by_apply(w);
		else
			write_refuse(w, w->refused);
		return;
	}
	if (w->req->verb == VERB_PATCH) {
		const void *from = w->old;
		void *patched;
		const struct resource_extra *x = extra_of(w->req->resource);
		if (x->conversion)
			from = x->conversion->from_storage(w->old, w->arena);
		const struct type *t = w->req->resource->row->type;
		bool apply = w->req->patch_type == PATCH_TYPE_APPLY;
		if (apply ? managed_apply(w, t, from, &patched) : write_patch(w, t, from, &patched))
			return;
		w->obj = write_to_storage(w, patched);
		w->conditions_read = false; /* what the patch says of them is another each time */
	} else {
		w->obj = write_to_storage(w, w->req->obj);
	}
	write_update_from(w);
}
