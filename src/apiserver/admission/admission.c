/* Runs the plugins whose rows fit, in upstream's order: those that change first, then those that only judge. */
#include "apiserver/admission/admission.h"

/* clang-format off */
static const struct plugin *const plugins[] = {
	&namespace_plugin,
	&limit_ranger_plugin,
	&service_account_plugin,
	&token_secret_plugin,
	&node_restriction_plugin,
	&node_taint_plugin,
	&pod_security_plugin,
	&priority_plugin,
	&priority_class_plugin,
	&default_tolerations_plugin,
	&storage_class_plugin,
	&ingress_class_plugin,
	&runtime_class_plugin,
	&csr_approval_plugin,
	&csr_signing_plugin,
	&csr_subject_plugin,
	&rbac_role_plugin,
	&rbac_binding_plugin,
	&resource_quota_plugin,
};
/* clang-format on */

static bool resource_is(const struct registry_request *req, const char *want)
{
	struct str w = str_of(want), gr = req->resource->group_resource;
	if (!req->sub)
		return str_eq(gr, w);
	size_t sub = strlen(req->sub->name);
	return w.len == gr.len + 1 + sub && !memcmp(w.p, gr.p, gr.len) && w.p[gr.len] == '/' &&
		!memcmp(w.p + gr.len + 1, req->sub->name, sub);
}

static bool wants(const struct plugin *p, const struct admission_attributes *at)
{
	if (!(p->operations & at->operation))
		return false;
	if (!p->resources[0])
		return true;
	for (size_t i = 0; i < ARRAY_LEN(p->resources) && p->resources[i]; i++)
		if (resource_is(at->req, p->resources[i]))
			return true;
	return false;
}

/* A PUT or an apply of what is not there makes it: that takes the verb create, too. */
static struct meta_v1_status *check_create(
	struct apiserver *s, const struct admission_attributes *at)
{
	const struct registry_request *req = at->req;
	struct str reason = STR_NONE;
	if (at->operation != VERB_CREATE || !(req->verb & (VERB_UPDATE | VERB_PATCH)) || !req->user)
		return NULL;
	struct attributes ask = { .user = req->user,
		.is_resource = true,
		.verb = STR("create"),
		.verb_bit = VERB_CREATE,
		.group = req->resource->group,
		.version = req->resource->version,
		.ns = req->ns,
		.resource = req->resource->plural,
		.name = req->name };
	return authz_check(s, &ask, req->arena, &reason) == DECISION_ALLOW
		? NULL
		: authz_forbidden(req->arena, &ask, reason);
}

struct meta_v1_status *admission_admit(void *apiserver, struct admission_attributes *at)
{
	struct meta_v1_status *st = check_create(apiserver, at);
	for (size_t i = 0; !st && i < ARRAY_LEN(plugins); i++)
		if (plugins[i]->admit && wants(plugins[i], at))
			st = plugins[i]->admit(apiserver, at);
	return st;
}

struct meta_v1_status *admission_validate(void *apiserver, struct admission_attributes *at)
{
	struct meta_v1_status *st = NULL;
	for (size_t i = 0; !st && i < ARRAY_LEN(plugins); i++)
		if (plugins[i]->validate && wants(plugins[i], at))
			st = plugins[i]->validate(apiserver, at);
	return st;
}

/* ---- helpers of the plugins ---- */

struct str object_name(const struct admission_attributes *at)
{
	if (at->req->name.len)
		return at->req->name;
	const struct meta_v1_object_meta *m = at->obj ? model_meta(at->type, at->obj) : NULL;
	return m && m->name.len ? m->name : m && m->generate_name.len ? m->generate_name : STR("");
}

struct meta_v1_status *deny(const struct admission_attributes *at, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct str text = arena_vfmt(at->req->arena, fmt, ap);
	va_end(ap);
	return status_forbidden(
		at->req->arena, at->req->resource, object_name(at), STR_FMT, STR_ARG(text));
}

bool is_mirror_pod(const struct core_v1_pod *pod)
{
	return str_map_has(&pod->metadata.annotations, STR("kubernetes.io/config.mirror"));
}

bool may(struct apiserver *s, const struct admission_attributes *at, const char *verb,
	struct str group, const char *resource, struct str ns, struct str name)
{
	struct attributes ask = { .user = at->req->user,
		.is_resource = true,
		.verb = str_of(verb),
		.verb_bit = verb_bit_of(str_of(verb)),
		.group = group,
		.version = STR("v1"),
		.ns = ns,
		.resource = str_of(resource),
		.name = name };
	struct str reason;
	return authz_check(s, &ask, at->req->arena, &reason) == DECISION_ALLOW;
}

struct core_v1_pod_spec *pod_spec_of(
	const struct type *t, void *obj, struct meta_v1_object_meta **ret_meta)
{
	struct core_v1_pod_template_spec *template = NULL;
	if (t == &core_v1_pod_type) {
		struct core_v1_pod *pod = obj;
		*ret_meta = &pod->metadata;
		return &pod->spec;
	}
	if (t == &core_v1_pod_template_type)
		template = &((struct core_v1_pod_template *)obj)->template;
	else if (t == &core_v1_replication_controller_type)
		template = ((struct core_v1_replication_controller *)obj)->spec.template;
	else if (t == &apps_v1_deployment_type)
		template = &((struct apps_v1_deployment *)obj)->spec.template;
	else if (t == &apps_v1_replica_set_type)
		template = &((struct apps_v1_replica_set *)obj)->spec.template;
	else if (t == &apps_v1_stateful_set_type)
		template = &((struct apps_v1_stateful_set *)obj)->spec.template;
	else if (t == &apps_v1_daemon_set_type)
		template = &((struct apps_v1_daemon_set *)obj)->spec.template;
	else if (t == &batch_v1_job_type)
		template = &((struct batch_v1_job *)obj)->spec.template;
	else if (t == &batch_v1_cron_job_type)
		template = &((struct batch_v1_cron_job *)obj)->spec.job_template.spec.template;
	if (!template)
		return NULL;
	*ret_meta = &template->metadata;
	return &template->spec;
}
