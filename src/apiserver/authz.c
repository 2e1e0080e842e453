/* May they: authorizers in order, the first that decides decides. Upstream: apiserver/pkg/authorization/union. */
#include "apiserver/internal.h"

static enum decision masters(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	return str_list_has(&at->user->groups, STR("system:masters")) ? DECISION_ALLOW
								      : DECISION_NO_OPINION;
}

/* What everybody may ask, also before the bootstrap roles exist. */
static enum decision open_paths(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	static const char *const paths[] = { "/livez", "/readyz", "/healthz", "/version" };
	if (at->is_resource || !(str_eqz(at->verb, "get") || str_eqz(at->verb, "head")))
		return DECISION_NO_OPINION;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct str p = str_of(paths[i]);
		if (str_has_prefix(at->path, p) &&
			(at->path.len == p.len || at->path.p[p.len] == '/'))
			return DECISION_ALLOW;
	}
	return DECISION_NO_OPINION;
}

static enum decision node(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	return node_check(s->nodes, at, a, ret_reason);
}

static enum decision rbac(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	return rbac_check(s->rbac, at, a, ret_reason);
}

static enum decision (*const authorizers[])(
	struct apiserver *, const struct attributes *, struct arena *, struct str *) = {
	masters,
	open_paths,
	node,
	rbac,
};

enum decision authz_check(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	for (size_t i = 0; i < ARRAY_LEN(authorizers); i++) {
		enum decision d = authorizers[i](s, at, a, ret_reason);
		if (d != DECISION_NO_OPINION)
			return d;
	}
	return DECISION_NO_OPINION;
}

static struct str forbidden_text(struct arena *a, const struct attributes *at, struct str reason)
{
	const char *sep = reason.len ? ": " : "";
	if (!at->is_resource)
		return arena_fmt(a,
			"forbidden: User \"" STR_FMT "\" cannot " STR_FMT " path \"" STR_FMT
			"\"%s" STR_FMT,
			STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(at->path), sep,
			STR_ARG(reason));
	struct str resource = at->subresource.len
		? arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(at->resource), STR_ARG(at->subresource))
		: at->resource;
	struct str where = at->ns.len
		? arena_fmt(a, "in the namespace \"" STR_FMT "\"", STR_ARG(at->ns))
		: STR("at the cluster scope");
	return arena_fmt(a,
		"User \"" STR_FMT "\" cannot " STR_FMT " resource \"" STR_FMT
		"\" in API group \"" STR_FMT "\" " STR_FMT "%s" STR_FMT,
		STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(resource), STR_ARG(at->group),
		STR_ARG(where), sep, STR_ARG(reason));
}

struct meta_v1_status *authz_forbidden(
	struct arena *a, const struct attributes *at, struct str reason)
{
	struct str text = forbidden_text(a, at, reason);
	if (!at->is_resource) {
		struct meta_v1_status *st = status_new(a, REASON_FORBIDDEN, STR_FMT, STR_ARG(text));
		if (!st->details)
			st->details = arena_alloc(a, sizeof(*st->details));
		return st;
	}
	struct str what = at->group.len
		? arena_fmt(a, STR_FMT "." STR_FMT, STR_ARG(at->resource), STR_ARG(at->group))
		: at->resource;
	struct str named =
		at->name.len ? arena_fmt(a, " \"" STR_FMT "\"", STR_ARG(at->name)) : STR("");
	struct meta_v1_status *st =
		status_new(a, REASON_FORBIDDEN, STR_FMT STR_FMT " is forbidden: " STR_FMT,
			STR_ARG(what), STR_ARG(named), STR_ARG(text));
	if (!st->details)
		st->details = arena_alloc(a, sizeof(*st->details));
	st->details->name = at->name;
	st->details->group = at->group;
	st->details->kind = at->resource;
	return st;
}

bool phase_authorize(struct request *q)
{
	const struct request_info *i = &q->info;
	struct attributes at = {
		.user = &q->user,
		.is_resource = i->is_resource,
		.verb_bit = i->verb_bit,
		.verb = i->verb,
		.group = i->group,
		.version = i->version,
		.ns = i->ns,
		.resource = i->resource,
		.subresource = i->subresource,
		.name = i->name,
		.path = i->path,
		.field_selector = q->options.field_selector,
		.label_selector = q->options.label_selector,
	};
	struct str reason = STR_NONE;
	if (authz_check(q->server, &at, q->arena, &reason) == DECISION_ALLOW)
		return true;
	respond_status(q, authz_forbidden(q->arena, &at, reason));
	return false;
}
