/* The reviews: questions about who one is and what one may do, answered at once and never stored. One row each. */
#include "apiserver/internal.h"

static void to_user_info(
	const struct user_info *u, struct arena *a, struct authentication_v1_user_info *ret)
{
	ret->username = u->name;
	ret->uid = u->uid;
	ret->groups = u->groups;
	for (size_t i = 0; i < u->extra_keys.len; i++) {
		struct str_list_entry *e = LIST_ADD(a, &ret->extra);
		e->key = u->extra_keys.items[i];
		e->value = u->extra_values[i];
	}
}

static void created(struct request *q, const void *obj)
{
	respond_struct(q, 201, q->resource->row->type, obj);
}

static bool invalid(struct request *q, struct str path, const char *text)
{
	struct causes cs = { .arena = q->arena };
	cause_add(&cs, CAUSE_INVALID, path, STR("spec"), "%s", text);
	respond_status(q, status_invalid(q->arena, q->resource, STR(""), &cs));
	return true;
}

/* ---- may they ---- */

static struct str selector_text(
	const struct authorization_v1_field_selector_attributes *f, struct arena *a)
{
	struct str out = STR_NONE;
	if (!f || f->raw_selector.len)
		return f ? f->raw_selector : STR_NONE;
	LIST_EACH(r, &f->requirements) {
		if (!str_eqz(r->operator, "In") || r->values.len != 1)
			continue;
		out = arena_fmt(a, STR_FMT "%s" STR_FMT "=" STR_FMT, STR_ARG(out),
			out.len ? "," : "", STR_ARG(r->key), STR_ARG(r->values.items[0]));
	}
	return out;
}

static void attributes_from(const struct authorization_v1_resource_attributes *r,
	const struct authorization_v1_non_resource_attributes *n, struct arena *a,
	struct attributes *at)
{
	if (n) {
		at->verb = n->verb;
		at->path = n->path;
		return;
	}
	at->is_resource = true;
	at->verb = r->verb;
	at->verb_bit = verb_bit_of(r->verb);
	at->group = r->group;
	at->version = r->version;
	at->ns = r->namespace;
	at->resource = r->resource;
	at->subresource = r->subresource;
	at->name = r->name;
	at->field_selector = selector_text(r->field_selector, a);
}

static void decide(struct request *q, const struct user_info *u,
	const struct authorization_v1_resource_attributes *r,
	const struct authorization_v1_non_resource_attributes *n,
	struct authorization_v1_subject_access_review_status *ret)
{
	struct attributes at = { .user = u, .explain = true };
	struct str reason = STR_NONE;
	attributes_from(r, n, q->arena, &at);
	enum decision d = authz_check(q->server, &at, q->arena, &reason);
	*ret = (struct authorization_v1_subject_access_review_status){
		.allowed = d == DECISION_ALLOW, .denied = d == DECISION_DENY, .reason = reason
	};
}

static bool self_access(struct request *q, void *obj)
{
	struct authorization_v1_self_subject_access_review *r = obj;
	if (!r->spec.resource_attributes == !r->spec.non_resource_attributes)
		return invalid(q, STR("spec.resourceAttributes"),
			"exactly one of nonResourceAttributes or resourceAttributes must be specified");
	decide(q, &q->user, r->spec.resource_attributes, r->spec.non_resource_attributes,
		&r->status);
	created(q, r);
	return true;
}

static void user_from_spec(const struct authorization_v1_subject_access_review_spec *s,
	struct arena *a, struct user_info *u)
{
	*u = (struct user_info){ .name = s->user, .uid = s->uid, .groups = s->groups };
	LIST_EACH(e, &s->extra)
		for (size_t i = 0; i < e->value.len; i++)
			user_extra_add(a, u, e->key, e->value.items[i]);
}

static bool subject_access(struct request *q, void *obj)
{
	struct authorization_v1_subject_access_review *r =
		obj; /* LocalSubjectAccessReview has the same members */
	struct user_info u;
	if (!r->spec.resource_attributes == !r->spec.non_resource_attributes)
		return invalid(q, STR("spec.resourceAttributes"),
			"exactly one of nonResourceAttributes or resourceAttributes must be specified");
	if (!r->spec.user.len && !r->spec.groups.len)
		return invalid(
			q, STR("spec.user"), "at least one of user or group must be specified");
	if (q->info.ns.len &&
		(!r->spec.resource_attributes ||
			!str_eq(r->spec.resource_attributes->namespace, q->info.ns)))
		return invalid(q, STR("spec.resourceAttributes.namespace"),
			"must match metadata.namespace");
	user_from_spec(&r->spec, q->arena, &u);
	decide(q, &u, r->spec.resource_attributes, r->spec.non_resource_attributes, &r->status);
	created(q, r);
	return true;
}

static bool self_rules(struct request *q, void *obj)
{
	struct authorization_v1_self_subject_rules_review *r = obj;
	if (!r->spec.namespace.len) {
		respond_reason(q, REASON_BAD_REQUEST, "no namespace on request");
		return true;
	}
	struct rbac_v1_policy_rule_items rules = { 0 };
	rbac_rules_for(q->server->rbac, &q->user, r->spec.namespace, q->arena, &rules);
	r->status.resource_rules.items = MODEL_EMPTY;
	r->status.non_resource_rules.items = MODEL_EMPTY;
	struct authorization_v1_resource_rule_items res = { 0 };
	struct authorization_v1_non_resource_rule_items urls = { 0 };
	LIST_EACH(rule, &rules) {
		if (rule->resources.len)
			*LIST_ADD(q->arena, &res) =
				(struct authorization_v1_resource_rule){ .verbs = rule->verbs,
					.api_groups = rule->api_groups,
					.resources = rule->resources,
					.resource_names = rule->resource_names };
		if (rule->non_resource_urls.len)
			*LIST_ADD(q->arena, &urls) =
				(struct authorization_v1_non_resource_rule){ .verbs = rule->verbs,
					.non_resource_urls = rule->non_resource_urls };
	}
	if (res.len)
		r->status.resource_rules = res;
	if (urls.len)
		r->status.non_resource_rules = urls;
	created(q, r);
	return true;
}

/* ---- who is it ---- */

static bool self_review(struct request *q, void *obj)
{
	struct authentication_v1_self_subject_review *r = obj;
	to_user_info(&q->user, q->arena, &r->status.user_info);
	created(q, r);
	return true;
}

static bool token_review(struct request *q, void *obj)
{
	struct authentication_v1_token_review *r = obj;
	struct user_info u = { 0 };
	struct err err = { 0 };
	struct str_list audiences = { 0 };
	if (!r->spec.token.len) {
		respond_reason(q, REASON_BAD_REQUEST,
			"token is required for TokenReview in authentication");
		return true;
	}
	r->status = (struct authentication_v1_token_review_status){ 0 };
	int res = authn_token(
		q->server, r->spec.token, &r->spec.audiences, q->arena, &u, &audiences, &err);
	if (res == 0) {
		r->status.authenticated = true;
		to_user_info(&u, q->arena, &r->status.user);
		r->status.audiences = audiences;
	} else {
		r->status.error = arena_fmt(q->arena, "[invalid bearer token, %s]", err.text);
	}
	created(q, r);
	return true;
}

static const struct review_row {
	const char *group_resource;
	bool (*answer)(struct request *q, void *obj);
} review_rows[] = {
	{ "selfsubjectaccessreviews.authorization.k8s.io", self_access },
	{ "subjectaccessreviews.authorization.k8s.io", subject_access },
	{ "localsubjectaccessreviews.authorization.k8s.io", subject_access },
	{ "selfsubjectrulesreviews.authorization.k8s.io", self_rules },
	{ "selfsubjectreviews.authentication.k8s.io", self_review },
	{ "tokenreviews.authentication.k8s.io", token_review },
};

bool serve_review(struct request *q)
{
	if (q->info.verb_bit != VERB_CREATE || q->sub)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(review_rows); i++) {
		if (!str_eqz(q->resource->group_resource, review_rows[i].group_resource))
			continue;
		void *obj;
		const struct resource_row *row = q->resource->row;
		if (body_decode(q, row->type, row->group, row->version, &obj))
			return true;
		return review_rows[i].answer(q, obj);
	}
	return false;
}
