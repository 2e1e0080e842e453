/* Approves the certificate requests of nodes, signs what is approved, and removes old requests. Upstream: pkg/controller/certificates
 * (approver, signer, cleaner).
 *
 * 1. A signer is a row: which usages, which shape of subject and names it signs at all, and who approves (csr_verdict.c; nobody: people do, with
 *    kubectl certificate approve).
 * 2. skiff.dev/node-network is ours: the identity with which a node's proxy, DNS and pod network read what concerns every node.
 * 3. No certificate lives longer than the configuration says. */
#include "controllers/csr.h"

#include "controllers/table.h"

#define YEAR_S (365ll * 24 * 3600)
#define SHORTEST_S 600
#define APPROVED_FOR_S (3600ll)
#define PENDING_FOR_S (24 * 3600ll)

struct signer {
	const char *name;
	bool server_auth, client_auth;
	const char *const *usages; /* all that may be asked for */
	bool (*shape_ok)(const struct certificates_v1_certificate_signing_request *o,
		const struct csr_info *i); /* whether it may be signed at all */
	const char *prefix;                /* of the node's name in the subject */
	csr_judge_fn judge;                /* NULL: people approve */
};

static const char *const client_usages[] = { "key encipherment", "digital signature", "client auth",
	NULL };
static const char *const serving_usages[] = { "key encipherment", "digital signature",
	"server auth", NULL };

static bool has_prefix(const struct csr_info *i, const char *prefix)
{
	return str_has_prefix(i->common_name, str_of(prefix)) &&
		i->common_name.len > strlen(prefix);
}

/* The second group stays with whom has it. */
static bool is_node_subject(
	const struct certificates_v1_certificate_signing_request *o, const struct csr_info *i)
{
	bool beside_server = i->n_organizations == 2 &&
		str_eqz(i->organizations[1], SERVER_NODES_GROUP) &&
		str_list_has(&o->spec.groups, STR(SERVER_NODES_GROUP));

	return (i->n_organizations == 1 || beside_server) &&
		str_eqz(i->organizations[0], NODES_GROUP) && has_prefix(i, NODE_PREFIX);
}

static bool has_no_names(const struct csr_info *i)
{
	return !i->n_dns_names && !i->n_ip_addresses && !i->n_other_names;
}

static bool node_client_shape(
	const struct certificates_v1_certificate_signing_request *o, const struct csr_info *i)
{
	return is_node_subject(o, i) && has_no_names(i);
}

static bool node_serving_shape(
	const struct certificates_v1_certificate_signing_request *o, const struct csr_info *i)
{
	return is_node_subject(o, i) && (i->n_dns_names || i->n_ip_addresses) &&
		!i->n_other_names && str_eq(o->spec.username, i->common_name);
}

static bool node_network_shape(
	const struct certificates_v1_certificate_signing_request *o, const struct csr_info *i)
{
	return i->n_organizations == 1 && str_eqz(i->organizations[0], NETWORK_GROUP) &&
		has_prefix(i, NETWORK_PREFIX) && has_no_names(i);
}

static bool any_client_shape(
	const struct certificates_v1_certificate_signing_request *o, const struct csr_info *i)
{
	for (size_t k = 0; k < i->n_organizations; k++)
		if (str_eqz(i->organizations[k], "system:masters"))
			return false;
	return i->common_name.len > 0;
}

/* clang-format off */
static const struct signer signers[] = {
	{ "kubernetes.io/kube-apiserver-client-kubelet", false, true,  client_usages,  node_client_shape,  NODE_PREFIX,    csr_judge_node },
	{ "kubernetes.io/kubelet-serving",               true,  false, serving_usages, node_serving_shape, NODE_PREFIX,    csr_judge_serving },
	{ "skiff.dev/node-network",                      false, true,  client_usages,  node_network_shape, NETWORK_PREFIX, csr_judge_network },
	{ "kubernetes.io/kube-apiserver-client",         false, true,  client_usages,  any_client_shape },
};
/* clang-format on */

static bool has_condition(
	const struct certificates_v1_certificate_signing_request *o, const char *type)
{
	LIST_EACH(c, &o->status.conditions)
		if (str_eqz(c->type, type))
			return true;
	return false;
}

static void add_condition(struct run *r, struct certificates_v1_certificate_signing_request *o,
	const char *type, const char *reason, struct str message)
{
	*LIST_ADD(r->arena, &o->status.conditions) =
		(struct certificates_v1_certificate_signing_request_condition){ .type = str_of(
											type),
			.status = STR("True"),
			.reason = str_of(reason),
			.message = message,
			.last_update_time = r->now,
			.last_transition_time = r->now };
}

static bool usages_ok(
	const struct certificates_v1_certificate_signing_request *o, const struct signer *s)
{
	LIST_EACH(u, &o->spec.usages) {
		bool known = false;

		for (size_t i = 0; s->usages[i]; i++)
			known |= str_eqz(*u, s->usages[i]);
		if (!known)
			return false;
	}
	return str_list_has(&o->spec.usages, STR("digital signature")) &&
		str_list_has(
			&o->spec.usages, str_of(s->server_auth ? "server auth" : "client auth"));
}

static int approve(struct run *r, struct certificates_v1_certificate_signing_request *o,
	const struct signer *s, const struct csr_info *i, struct err *err)
{
	struct csr_question q = { .csr = o, .info = *i };
	struct csr_verdict v = { 0 };
	int ret;

	if (!s->judge || !usages_ok(o, s) || !s->shape_ok(o, i))
		return 0;
	q.node = str_from(i->common_name, strlen(s->prefix));
	ret = s->judge(r, &q, &v, err);
	if (ret || !v.type)
		return ret;
	add_condition(r, o, v.type, v.reason, v.message);
	return client_update(r->client, &certificates_v1_certificate_signing_request_type,
		"approval", o, r->arena, NULL, err);
}

/* ---- signing ---- */
static int64_t validity(
	const struct run *r, const struct certificates_v1_certificate_signing_request *o)
{
	int64_t most = r->config->certificate_life_s ? r->config->certificate_life_s : YEAR_S;
	int64_t asked = o->spec.expiration_seconds.set ? o->spec.expiration_seconds.value : most;

	return MIN(MAX(asked, (int64_t)SHORTEST_S), most);
}

static int sign(struct run *r, struct certificates_v1_certificate_signing_request *o,
	const struct signer *s, const struct csr_info *i, struct err *err)
{
	struct buf cert CLEAN_BUF = { 0 };
	struct err why = { "" };
	int ret;

	if (!usages_ok(o, s) || !s->shape_ok(o, i))
		ret = err_set(&why, -EINVAL,
			"subject, names or usages are not what signer %s signs", s->name);
	else
		ret = cert_sign_csr(o->spec.request, r->config->signing_ca_cert_pem,
			r->config->signing_ca_key_pem, validity(r, o), s->server_auth,
			s->client_auth, &cert, &why);
	if (ret)
		add_condition(
			r, o, "Failed", "SignerValidationFailure", arena_strz(r->arena, why.text));
	else
		o->status.certificate = arena_str(r->arena, buf_str(&cert));
	return client_update(r->client, &certificates_v1_certificate_signing_request_type, "status",
		o, r->arena, NULL, err);
}

/* ---- old ones ---- */
static int clean(
	struct run *r, const struct certificates_v1_certificate_signing_request *o, struct err *err)
{
	bool decided = has_condition(o, "Approved") || has_condition(o, "Denied") ||
		has_condition(o, "Failed");
	double age = time_diff_s(r->now, o->metadata.creation_timestamp);
	double left = (double)(decided ? APPROVED_FOR_S : PENDING_FOR_S) - age;
	const struct client_delete d = { .grace_seconds = -1, .uid = o->metadata.uid };

	if (left > 0) {
		requeue_within(r, ms_of(left) + 1000);
		return 0;
	}
	int ret = client_delete(r->client, &certificates_v1_certificate_signing_request_type,
		STR_NONE, o->metadata.name, &d, err);

	return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct certificates_v1_certificate_signing_request *cached =
		cache_object(r, &certificates_v1_certificate_signing_request_type, key);
	const struct signer *s = NULL;
	struct csr_info info;
	int ret = 0;

	if (!cached)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(signers); i++)
		if (str_eqz(cached->spec.signer_name, signers[i].name))
			s = &signers[i];
	bool open = s && !cached->status.certificate.len && !has_condition(cached, "Denied") &&
		!has_condition(cached, "Failed");

	if (open && !csr_read(cached->spec.request, r->arena, &info, NULL)) {
		struct certificates_v1_certificate_signing_request *o = model_copy(
			&certificates_v1_certificate_signing_request_type, cached, r->arena);

		ret = has_condition(o, "Approved") ? sign(r, o, s, &info, err)
						   : approve(r, o, s, &info, err);
	}
	return ret ? (ret == CLIENT_NOT_FOUND ? 0 : ret) : clean(r, cached, err);
}

static bool enabled(const struct controllers_config *c)
{
	return c->signing_ca_cert_pem.len && c->signing_ca_key_pem.len;
}

const struct controller csr_controller = {
	.name = "certificate-signing-request",
	.watches = { { &certificates_v1_certificate_signing_request_type, map_self },
		{ &core_v1_node_type }, { &core_v1_service_type } },
	.enabled = enabled,
	.init = csr_judge_init,
	.deinit = csr_judge_deinit,
	.reconcile = reconcile,
};
