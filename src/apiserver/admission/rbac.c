/* No one grants what they do not hold: roles need their rules or the verb escalate, bindings the role's rules or the verb bind.
 * Upstream: pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased. */
#include "apiserver/admission/admission.h"

#define GROUP STR("rbac.authorization.k8s.io")

static bool is_master(const struct admission_attributes *at)
{
	return str_list_has(&at->req->user->groups, STR("system:masters"));
}

static void put_list(const char *name, const struct str_list *l, struct buf *out)
{
	if (!l->len)
		return;
	buf_addf(out, "%s%s:[", out->p[out->len - 1] == '{' ? "" : ", ", name);
	for (size_t i = 0; i < l->len; i++)
		buf_addf(out, "%s\"" STR_FMT "\"", i ? ", " : "", STR_ARG(l->items[i]));
	buf_addc(out, ']');
}

static void put_rule(const struct rbac_v1_policy_rule *r, struct buf *out)
{
	buf_addz(out, "\n{");
	put_list("APIGroups", &r->api_groups, out);
	put_list("Resources", &r->resources, out);
	put_list("ResourceNames", &r->resource_names, out);
	put_list("NonResourceURLs", &r->non_resource_urls, out);
	put_list("Verbs", &r->verbs, out);
	buf_addc(out, '}');
}

/* NULL: the user holds all of them. */
static struct meta_v1_status *check_held(struct apiserver *s, const struct admission_attributes *at,
	const struct rbac_v1_policy_rule_items *wanted)
{
	struct arena *a = at->req->arena;
	struct rbac_v1_policy_rule_items own = { 0 };
	CLEAN_BUF struct buf missing = { 0 };
	rbac_rules_for(s->rbac, at->req->user, at->req->ns, a, &own);
	LIST_EACH(rule, wanted)
		if (!rbac_rule_covers(&own, rule, a))
			put_rule(rule, &missing);
	if (!missing.len)
		return NULL;
	CLEAN_BUF struct buf groups = { 0 };
	for (size_t i = 0; i < at->req->user->groups.len; i++)
		buf_addf(&groups, "%s\"" STR_FMT "\"", i ? " " : "",
			STR_ARG(at->req->user->groups.items[i]));
	return deny(at,
		"user \"" STR_FMT "\" (groups=[" STR_FMT
		"]) is attempting to grant RBAC permissions not currently held:" STR_FMT,
		STR_ARG(at->req->user->name), STR_ARG(buf_str(&groups)),
		STR_ARG(buf_str(&missing)));
}

static const struct rbac_v1_policy_rule_items *rules_of(
	const struct admission_attributes *at, const void *obj)
{
	if (at->type == &rbac_v1_cluster_role_type)
		return &((const struct rbac_v1_cluster_role *)obj)->rules;
	return &((const struct rbac_v1_role *)obj)->rules;
}

static bool same_rules(
	const struct rbac_v1_policy_rule_items *a, const struct rbac_v1_policy_rule_items *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!model_equal(&rbac_v1_policy_rule_type, &a->items[i], &b->items[i]))
			return false;
	return true;
}

static struct meta_v1_status *validate_role(struct apiserver *s, struct admission_attributes *at)
{
	bool cluster = at->type == &rbac_v1_cluster_role_type;
	const struct rbac_v1_policy_rule_items *rules = rules_of(at, at->obj);
	if (is_master(at) || (at->old && same_rules(rules, rules_of(at, at->old)) && !cluster))
		return NULL;
	if (may(s, at, "escalate", GROUP, cluster ? "clusterroles" : "roles", at->req->ns,
		    object_name(at)))
		return NULL;
	const struct rbac_v1_cluster_role *cr = cluster ? at->obj : NULL,
					  *old = cluster ? at->old : NULL;
	bool new_aggregation = cr && cr->aggregation_rule &&
		!(old && old->aggregation_rule &&
			model_equal(&rbac_v1_aggregation_rule_type, cr->aggregation_rule,
				old->aggregation_rule));
	if (new_aggregation) {
		struct str star = STR("*");
		struct rbac_v1_policy_rule all[] = { { .verbs = { &star, 1 },
							     .api_groups = { &star, 1 },
							     .resources = { &star, 1 } },
			{ .verbs = { &star, 1 }, .non_resource_urls = { &star, 1 } } };
		return check_held(
			s, at, &(struct rbac_v1_policy_rule_items){ all, ARRAY_LEN(all) });
	}
	return at->old && same_rules(rules, rules_of(at, at->old)) ? NULL
								   : check_held(s, at, rules);
}

const struct plugin rbac_role_plugin = {
	.name = "RBACEscalation",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "clusterroles.rbac.authorization.k8s.io",
		"roles.rbac.authorization.k8s.io" },
	.validate = validate_role,
};

static struct meta_v1_status *validate_binding(struct apiserver *s, struct admission_attributes *at)
{
	const struct rbac_v1_role_binding
		*rb = at->obj,
		*old = at->old; /* ClusterRoleBinding has the same members */
	if (is_master(at) || (old && model_equal(at->type, rb, old)))
		return NULL;
	bool cluster_role = str_eqz(rb->role_ref.kind, "ClusterRole");
	if (may(s, at, "bind", GROUP, cluster_role ? "clusterroles" : "roles", at->req->ns,
		    rb->role_ref.name))
		return NULL;
	struct rbac_v1_policy_rule_items rules = { 0 };
	struct str ns = cluster_role ? STR_NONE : at->req->ns;
	if (!rbac_role_rules(s->rbac, ns, rb->role_ref.name, at->req->arena, &rules)) {
		struct str what = cluster_role ? STR("clusterroles") : STR("roles");
		return status_new(at->req->arena, REASON_NOT_FOUND,
			STR_FMT ".rbac.authorization.k8s.io \"" STR_FMT "\" not found",
			STR_ARG(what), STR_ARG(rb->role_ref.name));
	}
	return check_held(s, at, &rules);
}

const struct plugin rbac_binding_plugin = {
	.name = "RBACBinding",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "clusterrolebindings.rbac.authorization.k8s.io",
		"rolebindings.rbac.authorization.k8s.io" },
	.validate = validate_binding,
};
