/* A Secret of type kubernetes.io/service-account-token gets its account's token, the CA and the namespace when it is written. Upstream
 * does that a moment later, in the token controller; clients cannot tell. Without the account it stays empty. */
#include "apiserver/admission/admission.h"

static struct meta_v1_status *admit(struct apiserver *s, struct admission_attributes *at)
{
	struct core_v1_secret *secret = at->obj;
	struct arena *a = at->req->arena;
	struct core_v1_service_account *sa;
	struct str name = str_map_get(&secret->metadata.annotations,
			   STR("kubernetes.io/service-account.name")),
		   token;
	struct err err = { 0 };
	if (!str_eqz(secret->type, "kubernetes.io/service-account-token") ||
		str_map_get(&secret->data, STR("token")).len || !secret->metadata.name.len)
		return NULL;
	if (!name.len || lookup(s, s->known.service_accounts, at->req->ns, name, a, &sa) != 0)
		return NULL;
	if (service_token_legacy(s, at->req->ns, secret->metadata.name, name, sa->metadata.uid, a,
		    &token, &err) < 0)
		return status_new(a, REASON_INTERNAL, "%s", err.text);
	str_map_set(a, &secret->metadata.annotations, STR("kubernetes.io/service-account.uid"),
		sa->metadata.uid);
	str_map_set(a, &secret->data, STR("token"), token);
	str_map_set(a, &secret->data, STR("namespace"), at->req->ns);
	if (s->config.ca_pem.len)
		str_map_set(a, &secret->data, STR("ca.crt"), arena_str(a, s->config.ca_pem));
	return NULL;
}

const struct plugin token_secret_plugin = {
	.name = "TokenSecret",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "secrets" },
	.admit = admit,
};
