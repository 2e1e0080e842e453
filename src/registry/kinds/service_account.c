/* Service accounts and their tokens. Upstream: pkg/registry/core/serviceaccount. */
#include "registry/kinds/kinds.h"

/* What a token is bound to must be there, be what the client thinks it is and, if a pod, run as this account. */
static struct meta_v1_status *check_bound(
	struct write *w, const struct authentication_v1_bound_object_reference *ref)
{
	static const struct {
		const char *kind, *plural;
		bool cluster;
	} kinds[] = { { "Pod", "pods", false }, { "Secret", "secrets", false },
		{ "Node", "nodes", true } };
	struct arena *a = w->arena;
	if (!ref)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (!str_eqz(ref->kind, kinds[i].kind))
			continue;
		const struct resource *res =
			registry_resource(w->r, STR(""), STR("v1"), str_of(kinds[i].plural));
		CLEAN_OBJECT struct object *o = NULL;
		void *obj;
		struct err err;
		if (store_get(w->r->store,
			    resource_key(
				    res, kinds[i].cluster ? STR_NONE : w->req->ns, ref->name, a),
			    &o))
			return status_not_found(a, res, ref->name);
		if (registry_decode(res, o, a, &obj, &err))
			return status_new(a, REASON_INTERNAL, "%s", err.text);
		struct meta_v1_object_meta *m = model_meta(res->row->type, obj);
		if (ref->uid.len && !str_eq(ref->uid, m->uid))
			return status_conflict(a, res, ref->name,
				arena_fmt(a,
					"the UID in the bound object reference (" STR_FMT
					") does not match the UID in record. The object might have been deleted and "
					"then recreated",
					STR_ARG(ref->uid))
					.p);
		if (i == 0 &&
			!str_eq(((struct core_v1_pod *)obj)->spec.service_account_name,
				w->req->name))
			return status_new(a, REASON_BAD_REQUEST,
				"cannot bind token for serviceaccount \"" STR_FMT
				"\" to pod running with different serviceaccount name.",
				STR_ARG(w->req->name));
		return NULL;
	}
	return status_new(a, REASON_BAD_REQUEST,
		"cannot bind token to object of type " STR_FMT "/" STR_FMT,
		STR_ARG(ref->api_version), STR_ARG(ref->kind));
}

static struct meta_v1_status *check_request(
	struct write *w, struct authentication_v1_token_request *t)
{
	static const struct resource requests = {
		.group = { "authentication.k8s.io", 21 },
		.version = { "v1", 2 },
		.kind_name = { "TokenRequest", 12 },
		.plural = { "tokenrequests", 13 },
	};
	struct causes cs = { .arena = w->arena };
	const struct at *at = AT(AT(NULL, "spec"), "expirationSeconds");
	if (!t->spec.expiration_seconds.set)
		t->spec.expiration_seconds = (struct opt_int64)SOME(3600);
	int64_t s = t->spec.expiration_seconds.value;
	if (s < 600)
		INVALID_NUM(&cs, at, s, "may not specify a duration less than 10 minutes");
	if (s > (int64_t)1 << 32)
		INVALID_NUM(&cs, at, s, "may not specify a duration larger than 2^32 seconds");
	return cs.len ? status_invalid(w->arena, &requests, STR_NONE, &cs) : NULL;
}

static void run_token(struct write *w)
{
	struct authentication_v1_token_request *t = w->req->obj;
	const struct token_issuer *issuer = &w->r->config.tokens;
	struct err err;
	struct meta_v1_status *st = NULL;
	if (!write_load(w))
		st = w->refused;
	if (!st && t->metadata.name.len && !str_eq(t->metadata.name, w->req->name))
		st = status_new(w->arena, REASON_BAD_REQUEST,
			"the name of the object (" STR_FMT
			") does not match the name on the URL (" STR_FMT ")",
			STR_ARG(t->metadata.name), STR_ARG(w->req->name));
	st = st ? st : check_request(w, t);
	st = st ? st : check_bound(w, t->spec.bound_object_ref);
	if (!st && !issuer->issue)
		st = status_new(w->arena, REASON_SERVICE_UNAVAILABLE,
			"no issuer of service account tokens is configured");
	if (!st && w->req->dry_run)
		t->status = (struct authentication_v1_token_request_status){ 0 };
	else if (!st &&
		issuer->issue(issuer->arg, w->req->ns, w->req->name, write_old_meta(w)->uid, t,
			w->arena, &t->status.token, &t->status.expiration_timestamp, &err))
		st = status_new(w->arena, REASON_INTERNAL,
			"no token for service account \"" STR_FMT "\": %s", STR_ARG(w->req->name),
			err.text);
	if (st) {
		write_refuse(w, st);
		return;
	}
	t->api_version = STR("authentication.k8s.io/v1");
	t->kind = STR("TokenRequest");
	t->metadata.name = w->req->name;
	t->metadata.namespace = w->req->ns;
	t->metadata.creation_timestamp = (struct timestamp){ w->now.sec, 0 };
	write_answer_obj(w, t, &authentication_v1_token_request_type, 201);
}

static const struct kind_sub subs[] = { { .name = "token", .run = run_token }, { 0 } };

const struct kind service_account_kind = {
	.resource = "serviceaccounts", .flags = KIND_RETURN_DELETED, .subs = subs
};
