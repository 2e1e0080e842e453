/* Namespaces: held by spec.finalizers until their content is gone; finalize is the subresource that lifts them. */
#include "registry/kinds/kinds.h"

static void fill(struct write *w, void *obj)
{
	struct core_v1_namespace *ns = obj;
	const struct str key = STR("kubernetes.io/metadata.name");
	if (ns->metadata.name.len &&
		!str_eq(str_map_get(&ns->metadata.labels, key), ns->metadata.name))
		str_map_set(w->arena, &ns->metadata.labels, key, ns->metadata.name);
	if (!ns->status.phase.len)
		ns->status.phase = STR("Active");
}

static void prepare_create(struct write *w)
{
	struct core_v1_namespace *ns = w->obj;
	ns->status = (struct core_v1_namespace_status){ .phase = STR("Active") };
	if (!str_list_has(&ns->spec.finalizers, STR("kubernetes")))
		*LIST_ADD(w->arena, &ns->spec.finalizers) = STR("kubernetes");
	fill(w, ns);
}

static void prepare_update(struct write *w)
{
	struct core_v1_namespace *ns = w->obj, *old = w->old;
	ns->spec = old->spec;
}

static void prepare_finalize(struct write *w)
{
	struct core_v1_namespace *given = w->obj, *ns = arena_memdup(w->arena, w->old, sizeof(*ns));
	ns->spec.finalizers = given->spec.finalizers;
	ns->metadata.managed_fields = given->metadata.managed_fields;
	w->obj = ns;
}

static bool held(const void *obj)
{
	return ((const struct core_v1_namespace *)obj)->spec.finalizers.len > 0;
}

static void begin_delete(struct write *w)
{
	struct core_v1_namespace *ns = w->obj;
	ns->metadata.deletion_grace_period_seconds = (struct opt_int64){ 0 };
	ns->status.phase = STR("Terminating");
}

static struct meta_v1_status *check_delete(struct write *w)
{
	static const char *const kept[] = { "default", "kube-system", "kube-public", NULL };
	return text_among(w->req->name, kept) ? status_forbidden(w->arena, w->res, w->req->name,
							"this namespace may not be deleted")
					      : NULL;
}

static const struct kind_sub subs[] = {
	{ .name = "finalize", .prepare = prepare_finalize },
	{ 0 },
};

const struct kind namespace_kind = {
	.resource = "namespaces",
	.flags = KIND_STATUS_META | KIND_RETURN_DELETED,
	.name_rule = NAME_LABEL,
	.fill = fill,
	.prepare_create = prepare_create,
	.prepare_update = prepare_update,
	.held = held,
	.begin_delete = begin_delete,
	.check_delete = check_delete,
	.subs = subs,
};
