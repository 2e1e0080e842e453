/* The scale subresource: one number of an object, seen as an autoscaling/v1 Scale. A row a kind says where the numbers stand. */
#include "registry/internal.h"

struct scale_row {
	const char *resource;
	size_t replicas;   /* struct opt_int32 in the object */
	size_t observed;   /* int32_t */
	bool map_selector; /* a plain map, not a LabelSelector */
	size_t selector;   /* struct str_map, or struct meta_v1_label_selector * */
};
#define AT(type, member) offsetof(struct type, member)
/* clang-format off */
#define LABEL_SELECTOR(type) AT(type, spec.replicas), AT(type, status.replicas), false, AT(type, spec.selector)
static const struct scale_row rows[] = {
	{ "replicationcontrollers", AT(core_v1_replication_controller, spec.replicas), AT(core_v1_replication_controller, status.replicas),
	  true, AT(core_v1_replication_controller, spec.selector) },
	{ "replicasets.apps", LABEL_SELECTOR(apps_v1_replica_set) },
	{ "deployments.apps", LABEL_SELECTOR(apps_v1_deployment) },
	{ "statefulsets.apps", LABEL_SELECTOR(apps_v1_stateful_set) },
};
/* clang-format on */

static const struct scale_row *row_of(const struct resource *r)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (str_eqz(r->group_resource, rows[i].resource))
			return &rows[i];
	return NULL;
}

static struct str selector_text(const struct scale_row *row, const void *obj, struct arena *a)
{
	const void *at = (const char *)obj + row->selector;
	struct selector *s = NULL;
	CLEAN_BUF struct buf b = { 0 };
	struct err err;
	if (row->map_selector)
		s = selector_from_map(at, a);
	else if (selector_from_label_selector(
			 *(struct meta_v1_label_selector *const *)at, a, &s, &err))
		return STR_NONE;
	if (s)
		selector_format(s, &b);
	return arena_str(a, buf_str(&b));
}

static struct autoscaling_v1_scale *scale_of(
	const struct resource *res, const void *obj, struct arena *a)
{
	const struct scale_row *row = row_of(res);
	const struct meta_v1_object_meta *m = model_meta(res->row->type, obj);
	struct autoscaling_v1_scale *s = model_new(&autoscaling_v1_scale_type, a);
	s->metadata.name = m->name;
	s->metadata.namespace = m->namespace;
	s->metadata.uid = m->uid;
	s->metadata.resource_version = m->resource_version;
	s->metadata.creation_timestamp = m->creation_timestamp;
	s->spec.replicas = ((const struct opt_int32 *)((const char *)obj + row->replicas))->value;
	s->status.replicas = *(const int32_t *)((const char *)obj + row->observed);
	s->status.selector = selector_text(row, obj, a);
	return s;
}

static void answer_scale(struct write *w, struct object *o, struct registry_result *res)
{
	struct err err;
	void *obj;
	if (registry_decode(w->res, o, w->arena, &obj, &err)) {
		res->status = status_new(w->arena, REASON_INTERNAL, "%s", err.text);
		res->code = res->status->code;
		return;
	}
	res->obj = scale_of(w->res, obj, w->arena);
	res->obj_type = &autoscaling_v1_scale_type;
}

static const struct resource scale_resource = {
	.group = { "autoscaling", 11 },
	.version = { "v1", 2 },
	.kind_name = { "Scale", 5 },
	.plural = { "scales", 6 },
};

static struct meta_v1_status *set_replicas(struct write *w, const struct autoscaling_v1_scale *s)
{
	struct causes cs = { .arena = w->arena };
	struct str name = w->req->name;
	if (s->metadata.name.len && !str_eq(s->metadata.name, name))
		return status_new(w->arena, REASON_BAD_REQUEST,
			"the name of the object (" STR_FMT
			") does not match the name on the URL (" STR_FMT ")",
			STR_ARG(s->metadata.name), STR_ARG(name));
	if (s->spec.replicas < 0) {
		cause_add(&cs, CAUSE_INVALID, STR("spec.replicas"), STR_NONE,
			"%d: must be greater than or equal to 0", s->spec.replicas);
		return status_invalid(w->arena, &scale_resource, name, &cs);
	}
	struct meta_v1_object_meta *m = write_meta(w);
	m->resource_version = s->metadata.resource_version;
	if (s->metadata.uid.len)
		m->uid = s->metadata.uid;
	*(struct opt_int32 *)((char *)w->obj + row_of(w->res)->replicas) =
		(struct opt_int32)SOME(s->spec.replicas);
	return NULL;
}

void write_run_scale(struct write *w)
{
	struct meta_v1_status *st;
	w->operation = VERB_UPDATE;
	w->conditions_read = false;
	if (!row_of(w->res)) {
		write_refuse(w,
			status_new(w->arena, REASON_NOT_FOUND, "%s have no scale",
				w->res->row->plural));
		return;
	}
	if (!write_load(w)) {
		write_refuse(w, w->refused);
		return;
	}
	struct autoscaling_v1_scale *scale = scale_of(w->res, w->old, w->arena);
	if (w->req->verb == VERB_GET) {
		write_answer_obj(w, scale, &autoscaling_v1_scale_type, 200);
		return;
	}
	void *given = w->req->obj;
	if (w->req->verb == VERB_PATCH && write_patch(w, &autoscaling_v1_scale_type, scale, &given))
		return;
	w->obj = arena_memdup(w->arena, w->old, w->type->size);
	w->answer = answer_scale;
	st = set_replicas(w, given);
	if (st)
		write_refuse(w, st);
	else
		write_update_from(w);
}
