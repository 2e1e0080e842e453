/* How a machine becomes a node: TLS bootstrap as upstream does it. The token's pin tells the CA, the token itself lets it ask for a client certificate
 * (CertificateSigningRequest of signer kube-apiserver-client-kubelet), and with that one it asks for the others. All that is got lies under DATA/agent,
 * so that the token is needed once.
 *
 * 1. A key stays when its certificate is renewed: of two files only one may change at a time.
 * 2. A token for another cluster, or another node name, makes the machine join anew; otherwise what is there is used and the token is not looked at. */
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "gen/types.h"

#define WAIT_S 60
#define NODE_ADDRESS \
	STR("skiff.dev/node-address") /* in a request: how one node that comes back is told from another of its name */

static const char *const client_usages[] = { "digital signature", "client auth", NULL };
static const char *const server_usages[] = { "digital signature", "server auth", NULL };
static const char *const nodes[] = { "system:nodes", NULL },
			 *const network_nodes[] = { "skiff:node-network", NULL };

/* clang-format off */
static const struct credential {
	const char *name, *prefix;        /* of its files; of the node's name in the subject */
	const char *const *organizations;
	const char *signer;
	const char *const *usages;
} credentials[] = {
	[CREDENTIAL_NODE]    = { "node",    "system:node:",         nodes,         "kubernetes.io/kube-apiserver-client-kubelet", client_usages },
	[CREDENTIAL_NETWORK] = { "network", "system:node-network:", network_nodes, "skiff.dev/node-network",                      client_usages },
	[CREDENTIAL_KUBELET] = { "kubelet", "system:node:",         nodes,         "kubernetes.io/kubelet-serving",               server_usages },
};
/* clang-format on */
_Static_assert(ARRAY_LEN(credentials) == N_CREDENTIALS, "one row a credential");

const char *join_certificate_name(enum agent_credential which)
{
	return credentials[which].name;
}

struct csr_wait {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char *certificate; /* PEM; owned */
	char *refusal;
};

static void on_csr(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct certificates_v1_certificate_signing_request *o = now ? now->obj : NULL;
	struct csr_wait *w = arg;

	pthread_mutex_lock(&w->lock);
	if (!o) {
		if (!w->refusal)
			w->refusal = xstrdup("the request was deleted");
	} else {
		if (o->status.certificate.len && !w->certificate)
			w->certificate = str_dup(o->status.certificate);
		LIST_EACH(c, &o->status.conditions) {
			if ((str_eqz(c->type, "Denied") || str_eqz(c->type, "Failed")) &&
				!w->refusal)
				w->refusal = xasprintf(STR_FMT ": " STR_FMT, STR_ARG(c->reason),
					STR_ARG(c->message));
		}
	}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* Posts the request and waits, by a watch, for its certificate. > 0: the client's outcome of posting. */
static int request_certificate(struct client *c, const struct credential *row, const char *node_ip,
	struct str csr_pem, struct buf *ret_cert, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct certificates_v1_certificate_signing_request
		*q = model_new(&certificates_v1_certificate_signing_request_type, a),
		*made;
	struct csr_wait w = { .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_condattr_t monotonic;
	struct timespec until;
	struct informer *i;
	int r;

	q->metadata.generate_name = STR("node-csr-");
	str_map_set(a, &q->metadata.annotations, NODE_ADDRESS, str_of(node_ip));
	q->spec.signer_name = str_of(row->signer);
	q->spec.request = csr_pem;
	for (const char *const *u = row->usages; *u; u++)
		*LIST_ADD(a, &q->spec.usages) = str_of(*u);
	r = client_create(c, &certificates_v1_certificate_signing_request_type, STR_NONE, q, a,
		(void **)&made, err);
	if (r)
		return r;
	struct informer_config ic = { .client = c,
		.type = &certificates_v1_certificate_signing_request_type,
		.field_selector =
			arena_fmt(a, "metadata.name=" STR_FMT, STR_ARG(made->metadata.name)).p };

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w.changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	i = informer_new(&ic);
	informer_add_handler(i, on_csr, &w);
	r = informer_start(i, err);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&w.lock);
	while (r == 0 && !w.certificate && !w.refusal)
		r = -pthread_cond_timedwait(&w.changed, &w.lock, &until);
	pthread_mutex_unlock(&w.lock);
	informer_stop(i);
	informer_free(i);
	if (w.certificate) {
		buf_addz(ret_cert, w.certificate);
		r = 0;
	} else if (w.refusal) {
		r = err_set(err, -EACCES, "the server refused the certificate: %s", w.refusal);
	} else {
		r = err_set(err, -ETIMEDOUT,
			"certificate request " STR_FMT
			" was not signed within %d s: `kubectl get csr` shows it, "
			"`kubectl certificate approve` lets it pass",
			STR_ARG(made->metadata.name), WAIT_S);
	}
	free(w.certificate);
	free(w.refusal);
	return r;
}

static int put(const struct options *o, const char *name, struct str bytes, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/%s", o->data_dir, name);

	return file_write_atomic(path, bytes, strstr(name, ".key") ? 0600 : 0644, true, err);
}

static int get(const struct options *o, const char *name, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/%s", o->data_dir, name);

	return file_read(path, 1 << 20, ret, err);
}

/* There, and not over. */
static bool have_certificate(const struct options *o, const char *name, struct buf *ret_pem)
{
	struct timestamp end;
	struct err err;

	return get(o, name, ret_pem, &err) == 0 &&
		cert_not_after(buf_str(ret_pem), &end, &err) == 0 &&
		time_diff_s(end, time_now()) > 0;
}

/* ---- what is asked for ---- */

struct wanted {
	struct arena *arena;
	struct cert_request q;
	const char *organizations[CSR_NAMES_MOST + 1], *dns[2], *ips[2];
};

static void want(
	const struct options *o, enum agent_credential which, struct arena *a, struct wanted *w)
{
	const struct credential *row = &credentials[which];

	w->arena = a;
	w->organizations[0] = row->organizations[0];
	w->organizations[1] = w->dns[1] = w->ips[1] = NULL;
	w->dns[0] = o->node_name;
	w->ips[0] = o->node_ip;
	w->q = (struct cert_request){ .common_name =
					      arena_fmt(a, "%s%s", row->prefix, o->node_name).p,
		.organizations = w->organizations };
	if (which == CREDENTIAL_KUBELET) {
		w->q.dns_names = w->dns;
		w->q.ip_addresses = w->ips;
	}
}

/* A certificate that is renewed keeps its groups: beside an API server there is one more. */
static void want_groups_of(struct wanted *w, struct str pem)
{
	struct csr_info i;
	struct err err;

	if (cert_read(pem, w->arena, &i, &err) < 0 || !i.n_organizations)
		return;
	for (size_t k = 0; k < i.n_organizations; k++)
		w->organizations[k] = arena_str(w->arena, i.organizations[k]).p;
	w->organizations[i.n_organizations] = NULL;
}

static bool names_are(const struct str *have, size_t n, const char *const *wanted)
{
	size_t k = 0;

	for (; wanted && wanted[k]; k++)
		if (k == n || !str_eqz(have[k], wanted[k]))
			return false;
	return k == n;
}

static bool is_as_wanted(const struct wanted *w, struct str pem)
{
	struct csr_info i;
	struct err err;

	return cert_read(pem, w->arena, &i, &err) == 0 &&
		str_eqz(i.common_name, w->q.common_name) &&
		names_are(i.dns_names, i.n_dns_names, w->q.dns_names) &&
		names_are(i.ip_addresses, i.n_ip_addresses, w->q.ip_addresses);
}

static int get_or_make_key(
	const struct options *o, const char *file, struct buf *ret, struct err *err)
{
	struct err none;
	int r;

	if (get(o, file, ret, &none) == 0 && ret->len)
		return 0;
	buf_clear(ret);
	r = cert_new_key(ret, err);
	return r < 0 ? r : put(o, file, buf_str(ret), err);
}

/* Asks for a certificate and keeps it as NAME.crt. > 0: the client's outcome. */
static int obtain(const struct options *o, struct client *c, enum agent_credential which,
	const struct cert_request *q, struct err *err)
{
	const struct credential *row = &credentials[which];
	CLEAN_FREE char *key_file = xasprintf("%s.key", row->name),
			*crt_file = xasprintf("%s.crt", row->name);
	CLEAN_BUF struct buf key = { 0 }, csr = { 0 }, cert = { 0 };
	int r = get_or_make_key(o, key_file, &key, err);

	if (r == 0)
		r = cert_make_csr(q, buf_str(&key), &csr, err);
	if (r == 0)
		r = request_certificate(c, row, o->node_ip, buf_str(&csr), &cert, err);
	return r ? r : put(o, crt_file, buf_str(&cert), err);
}

/* ---- with the token ---- */

static int split_token(
	const struct options *o, struct str *ret_bearer, struct str *ret_pin, struct err *err)
{
	struct str id, rest;

	if (str_cut(str_of(o->token), ':', ret_bearer, ret_pin) &&
		str_cut(*ret_bearer, '.', &id, &rest) && str_find(rest, '.') >= 0)
		return err_set(err, -EINVAL,
			"--token: this one lets a server join; `skiff token create` without --role prints the line for an agent");
	if (!str_cut(str_of(o->token), ':', ret_bearer, ret_pin) || ret_pin->len != 64)
		return err_set(err, -EINVAL,
			"--token: expected ID.SECRET:PIN, as `skiff token create` on the server prints it");
	return 0;
}

int join_connect(const char *server, struct str bearer, struct str pin, struct buf *ret_ca,
	struct client **ret, struct err *err)
{
	CLEAN_BUF struct buf ca = { 0 };
	struct client_config cc = { .user_agent = "skiff/" SKIFF_VERSION " join" };
	struct tls_client_config tc;
	struct tls_context *tls;
	int r = tls_fetch_ca(server, pin, 10000, &ca, err);

	if (r == -EACCES)
		return err_set(err, r,
			"%s belongs to another cluster: its CA is not the one that --token names; take --server and --token from one line of "
			"`skiff token create`",
			server);
	if (r < 0)
		return r;
	tc = (struct tls_client_config){ .ca_pem = buf_str(&ca) };
	r = tls_client_new(&tc, &tls, err);
	if (r == 0)
		r = http_client_new(server, tls, &cc.http, err);
	if (r < 0)
		return r;
	http_client_set_bearer(cc.http, bearer);
	*ret = client_new(&cc);
	if (ret_ca)
		buf_add_str(ret_ca, buf_str(&ca));
	return 0;
}

static int token_client(const struct options *o, struct client **ret, struct err *err)
{
	CLEAN_BUF struct buf ca = { 0 };
	struct str bearer, pin;
	int r = split_token(o, &bearer, &pin, err);

	if (r == 0)
		r = join_connect(o->server, bearer, pin, &ca, ret, err);
	return r < 0 ? r : put(o, "ca.crt", buf_str(&ca), err);
}

/* The server tells a stranger nothing of its tokens, so these three look the same from here. */
static int token_refused(const struct options *o, struct err *err)
{
	const char *dot = strchr(o->token, '.');

	return err_set(err, -EACCES,
		"%s does not take token %.*s: it has expired, was revoked, or is mistyped; `skiff token create` on the server prints a new "
		"join line",
		o->server, dot ? (int)(dot - o->token) : 6, o->token);
}

/* Whether what is there was got from the cluster that the token is for. */
static bool is_of_this_cluster(const struct options *o)
{
	CLEAN_BUF struct buf ca = { 0 }, pin = { 0 };
	struct str bearer, wanted;
	struct err err;

	return get(o, "ca.crt", &ca, &err) == 0 &&
		(!o->token ||
			(split_token(o, &bearer, &wanted, &err) == 0 &&
				cert_pin(buf_str(&ca), &pin, &err) == 0 &&
				str_eq(buf_str(&pin), wanted)));
}

/* What another cluster, or a node of another name, was given. */
static void forget(const struct options *o)
{
	static const char *const files[] = { "node.crt", "network.crt", "kubelet.crt", "pod-cidr" };

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *path = xasprintf("%s/agent/%s", o->data_dir, files[i]);

		unlink(path);
	}
}

int join_client_certificate(const struct options *o, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/agent", o->data_dir);
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf pem = { 0 };
	struct client *c = NULL;
	struct wanted w;
	int r;

	want(o, CREDENTIAL_NODE, a, &w);
	bool there = have_certificate(o, "node.crt", &pem),
	     fits = there && is_as_wanted(&w, buf_str(&pem));

	if (fits && is_of_this_cluster(o))
		return 0;
	if (!o->token && there)
		return err_set(err, -EINVAL,
			"this machine joined under another name than %s: give that one with --node-name, or --token to join anew",
			o->node_name);
	if (!o->token && pem.len)
		return err_set(err, -EINVAL,
			"the certificate %s/node.crt is over: join anew with --token; `skiff token create` on the server prints the line",
			dir);
	if (!o->token)
		return err_set(err, -EINVAL,
			"this machine has not joined yet: give --token; `skiff token create` on the server prints the whole line");
	r = dir_make(dir, 0700, err);
	if (r == 0)
		r = token_client(o, &c, err);
	if (r < 0)
		return r;
	if (pem.len)
		forget(o);
	r = obtain(o, c, CREDENTIAL_NODE, &w.q, err);
	client_free(c);
	if (r == CLIENT_UNAUTHORIZED)
		return token_refused(o, err);
	if (r == 0)
		log_info("agent", "joined %s as node %s", o->server, o->node_name);
	return r > 0 ? -EACCES : r;
}

/* ---- as the node ---- */

int join_certificate(const struct options *o, enum agent_credential which,
	struct client *node_client, struct err *err)
{
	CLEAN_FREE char *file = xasprintf("%s.crt", credentials[which].name);
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf pem = { 0 };
	struct wanted w;
	int r;

	want(o, which, a, &w);
	if (have_certificate(o, file, &pem) && is_as_wanted(&w, buf_str(&pem)) &&
		pki_renewal_due_ms(buf_str(&pem)) > 0)
		return 0;
	if (which == CREDENTIAL_NODE)
		want_groups_of(&w, buf_str(&pem));
	r = obtain(o, node_client, which, &w.q, err);
	return r > 0 ? -EACCES : r;
}
