/* Roles and bindings. Whether a user may grant what is in them is the apiserver's admission. Upstream: pkg/registry/rbac. */
#include "registry/kinds/kinds.h"

static const char rbac_group[] = "rbac.authorization.k8s.io";

static void check_rules(
	const struct rbac_v1_policy_rule_items *rules, bool namespaced, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(r, rules) {
		const struct at *at = AT_I(NULL, "rules", i++);
		if (!r->verbs.len)
			REQUIRED(cs, AT(at, "verbs"), "verbs must contain at least one value");
		if (r->non_resource_urls.len) {
			if (namespaced)
				INVALID(cs, AT(at, "nonResourceURLs"),
					r->non_resource_urls.items[0],
					"namespaced rules cannot apply to non-resource URLs");
			if (r->api_groups.len || r->resources.len || r->resource_names.len)
				INVALID(cs, AT(at, "nonResourceURLs"),
					r->non_resource_urls.items[0],
					"rules cannot apply to both regular resources and non-resource URLs");
			continue;
		}
		if (!r->api_groups.len)
			REQUIRED(cs, AT(at, "apiGroups"),
				"resource rules must supply at least one api group");
		if (!r->resources.len)
			REQUIRED(cs, AT(at, "resources"),
				"resource rules must supply at least one resource");
	}
}

static void role_validate(struct write *w, struct causes *cs)
{
	check_rules(&((struct rbac_v1_role *)w->obj)->rules, true, cs);
}

static void cluster_role_validate(struct write *w, struct causes *cs)
{
	struct rbac_v1_cluster_role *r = w->obj;
	check_rules(&r->rules, false, cs);
	if (r->aggregation_rule && !r->aggregation_rule->cluster_role_selectors.len)
		REQUIRED(cs, AT(AT(NULL, "aggregationRule"), "clusterRoleSelectors"),
			"at least one clusterRoleSelector required if aggregationRule is non-nil");
}

static void fill_parts(struct rbac_v1_role_ref *ref, struct rbac_v1_subject_items *subjects)
{
	if (!ref->api_group.len)
		ref->api_group = str_of(rbac_group);
	LIST_EACH(s, subjects) {
		if (!s->api_group.len && !str_eqz(s->kind, "ServiceAccount"))
			s->api_group = str_of(rbac_group);
	}
}

static void check_parts(const struct rbac_v1_role_ref *ref,
	const struct rbac_v1_subject_items *subjects, bool cluster, struct causes *cs)
{
	const struct at *at = AT(NULL, "roleRef");
	size_t i = 0;
	if (!str_eqz(ref->api_group, rbac_group))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(at, "apiGroup"), shown(ref->api_group),
			"supported values: \"%s\"", rbac_group);
	if (!str_eqz(ref->kind, "ClusterRole") && (cluster || !str_eqz(ref->kind, "Role")))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(at, "kind"), shown(ref->kind),
			"supported values: %s\"ClusterRole\"", cluster ? "" : "\"Role\", ");
	if (ref->name.len && name_check(NAME_PATH_SEGMENT, ref->name))
		INVALID(cs, AT(at, "name"), ref->name, name_check(NAME_PATH_SEGMENT, ref->name));
	LIST_EACH(s, subjects) {
		const struct at *here = AT_I(NULL, "subjects", i++);
		static const char *const known[] = { "ServiceAccount", "User", "Group", NULL };
		bool account = str_eqz(s->kind, "ServiceAccount");
		if (!s->name.len)
			REQUIRED(cs, AT(here, "name"), "");
		if (!text_among(s->kind, known))
			cause_at(cs, CAUSE_NOT_SUPPORTED, AT(here, "kind"), shown(s->kind),
				"supported values: \"ServiceAccount\", \"User\", \"Group\"");
		else if (account && cluster && !s->namespace.len)
			REQUIRED(cs, AT(here, "namespace"), "");
		else if (account ? s->api_group.len : !str_eqz(s->api_group, rbac_group))
			cause_at(cs, CAUSE_NOT_SUPPORTED, AT(here, "apiGroup"), s->api_group,
				"supported values: \"%s\"", account ? "" : rbac_group);
	}
}

static void check_ref_update(
	const struct rbac_v1_role_ref *now, const struct rbac_v1_role_ref *old, struct causes *cs)
{
	if (!model_equal(&rbac_v1_role_ref_type, now, old))
		INVALID(cs, AT(NULL, "roleRef"), now->name, "cannot change roleRef");
}

static void binding_fill(struct write *w, void *obj)
{
	struct rbac_v1_role_binding *b = obj;
	fill_parts(&b->role_ref, &b->subjects);
}

static void binding_validate(struct write *w, struct causes *cs)
{
	struct rbac_v1_role_binding *b = w->obj;
	check_parts(&b->role_ref, &b->subjects, false, cs);
}

static void binding_validate_update(struct write *w, struct causes *cs)
{
	struct rbac_v1_role_binding *b = w->obj, *old = w->old;
	check_ref_update(&b->role_ref, &old->role_ref, cs);
}

static void cluster_binding_fill(struct write *w, void *obj)
{
	struct rbac_v1_cluster_role_binding *b = obj;
	fill_parts(&b->role_ref, &b->subjects);
}

static void cluster_binding_validate(struct write *w, struct causes *cs)
{
	struct rbac_v1_cluster_role_binding *b = w->obj;
	check_parts(&b->role_ref, &b->subjects, true, cs);
}

static void cluster_binding_validate_update(struct write *w, struct causes *cs)
{
	struct rbac_v1_cluster_role_binding *b = w->obj, *old = w->old;
	check_ref_update(&b->role_ref, &old->role_ref, cs);
}

#define RBAC .flags = KIND_CREATE_ON_UPDATE, .name_rule = NAME_PATH_SEGMENT
const struct kind role_kind = {
	.resource = "roles.rbac.authorization.k8s.io", RBAC, .validate = role_validate
};
const struct kind cluster_role_kind = { .resource = "clusterroles.rbac.authorization.k8s.io",
	RBAC,
	.validate = cluster_role_validate };
const struct kind role_binding_kind = {
	.resource = "rolebindings.rbac.authorization.k8s.io",
	RBAC,
	.fill = binding_fill,
	.validate = binding_validate,
	.validate_update = binding_validate_update,
};
const struct kind cluster_role_binding_kind = {
	.resource = "clusterrolebindings.rbac.authorization.k8s.io",
	RBAC,
	.fill = cluster_binding_fill,
	.validate = cluster_binding_validate,
	.validate_update = cluster_binding_validate_update,
};
