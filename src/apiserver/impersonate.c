/* Impersonate-User, -Group, -Uid and -Extra-KEY: each must be granted by verb impersonate, then the request goes on as that user.
 * Upstream: apiserver/pkg/endpoints/filters/impersonation.go. */
#include "apiserver/internal.h"

static bool may_impersonate(struct request *q, struct str group, const char *resource,
	struct str sub, struct str ns, struct str name)
{
	struct attributes at = {
		.user = &q->user,
		.is_resource = true,
		.verb = STR("impersonate"),
		.group = group,
		.version = group.len ? STR("v1") : STR(""),
		.resource = str_of(resource),
		.subresource = sub,
		.ns = ns,
		.name = name,
	};
	struct str reason = STR_NONE;
	if (authz_check(q->server, &at, q->arena, &reason) == DECISION_ALLOW)
		return true;
	respond_status(q, authz_forbidden(q->arena, &at, reason));
	return false;
}

static bool impersonate_user(struct request *q, struct str name, struct user_info *as)
{
	struct str prefix = STR("system:serviceaccount:"), ns, account;
	as->name = name;
	if (!str_has_prefix(name, prefix))
		return may_impersonate(q, STR(""), "users", STR_NONE, STR_NONE, name);
	if (!str_cut(str_from(name, prefix.len), ':', &ns, &account) || !ns.len || !account.len)
		return may_impersonate(q, STR(""), "users", STR_NONE, STR_NONE, name);
	return may_impersonate(q, STR(""), "serviceaccounts", STR_NONE, ns, account);
}

static bool impersonate_header(struct request *q, const struct http_header *h, struct user_info *as)
{
	struct str extra = STR("impersonate-extra-");
	if (str_eqz(h->name, "impersonate-group")) {
		*LIST_ADD(q->arena, &as->groups) = h->value;
		return may_impersonate(q, STR(""), "groups", STR_NONE, STR_NONE, h->value);
	}
	if (str_eqz(h->name, "impersonate-uid")) {
		as->uid = h->value;
		return may_impersonate(
			q, STR("authentication.k8s.io"), "uids", STR_NONE, STR_NONE, h->value);
	}
	if (!str_has_prefix(h->name, extra))
		return true;
	struct str key;
	if (url_decode(str_from(h->name, extra.len), false, q->arena, &key) < 0)
		key = str_from(h->name, extra.len);
	user_extra_add(q->arena, as, key, h->value);
	return may_impersonate(
		q, STR("authentication.k8s.io"), "userextras", key, STR_NONE, h->value);
}

static void implied_groups(struct request *q, struct user_info *as, bool groups_given)
{
	struct str prefix = STR("system:serviceaccount:"), ns, account;
	if (str_eqz(as->name, "system:anonymous")) {
		*LIST_ADD(q->arena, &as->groups) = STR("system:unauthenticated");
		return;
	}
	if (!groups_given && str_has_prefix(as->name, prefix) &&
		str_cut(str_from(as->name, prefix.len), ':', &ns, &account)) {
		*LIST_ADD(q->arena, &as->groups) = STR("system:serviceaccounts");
		*LIST_ADD(q->arena, &as->groups) =
			arena_fmt(q->arena, "system:serviceaccounts:" STR_FMT, STR_ARG(ns));
	}
	if (!str_list_has(&as->groups, STR("system:authenticated")))
		*LIST_ADD(q->arena, &as->groups) = STR("system:authenticated");
}

bool phase_impersonate(struct request *q)
{
	struct str user = STR_NONE;
	bool any = false;
	for (size_t i = 0; i < q->http->n_headers; i++) {
		const struct http_header *h = &q->http->headers[i];
		if (!str_has_prefix(h->name, STR("impersonate-")))
			continue;
		any = true;
		if (str_eqz(h->name, "impersonate-user"))
			user = h->value;
	}
	if (!any)
		return true;
	if (!user.len) {
		respond_reason(q, REASON_INTERNAL,
			"requested impersonation without impersonating a user; name one with Impersonate-User");
		return false;
	}
	struct user_info as = { 0 };
	if (!impersonate_user(q, user, &as))
		return false;
	for (size_t i = 0; i < q->http->n_headers; i++)
		if (!impersonate_header(q, &q->http->headers[i], &as))
			return false;
	implied_groups(q, &as, as.groups.len > 0);
	q->user = as;
	return true;
}
